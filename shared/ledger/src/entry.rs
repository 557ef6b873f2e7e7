//! What a ledger entry says. The JSON of these types is the stored format: golden files in `tests/golden` hold it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::names::{Dialect, Nonce, Number, VersionId};
use crate::offsets::{Offsets, Ranges, TopicPartition};

/// One committed step of a source.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Its place in the ledger; also in its object's name.
    pub number: Number,
    /// Who wrote it: a role and a process.
    pub writer: String,
    /// By which its writer knows it again.
    pub nonce: Nonce,
    /// When it was decided, RFC 3339. For people; no rule reads it.
    pub at: String,
    /// What it says.
    #[serde(flatten)]
    pub body: Body,
}

/// The kinds of entries.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// The source begins. Always number 1.
    Created {
        /// The format of the ledger.
        format: u32,
        /// The source's name.
        source: String,
        /// The id of each topic, by which a recreated topic is told from the old one. Empty where the log has none.
        topics: BTreeMap<String, String>,
        /// Where each partition that existed starts. Partitions added later start at 0.
        origins: Offsets,
    },
    /// A version of a view becomes active: folded from here on, and to be built by the next batch run.
    Declared {
        /// The view's name.
        view: String,
        /// The version.
        version: VersionId,
        /// The view's SQL, normalised.
        sql: String,
        /// The source's definition that the version decodes by: whoever folds it needs nothing else.
        #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
        source: serde_json::Value,
        /// The dialect of SQL and decoding that the version means.
        #[serde(default, skip_serializing_if = "Dialect::is_first")]
        dialect: Dialect,
    },
    /// Versions become inactive.
    Retired {
        /// The versions.
        versions: Vec<VersionId>,
    },
    /// An earlier version is served again.
    Selected {
        /// The version.
        version: VersionId,
    },
    /// Events were written to the archive.
    Archived {
        /// The positions archived.
        ranges: Ranges,
        /// Parquet files of rows.
        rows: Vec<File>,
        /// Parquet files of dead letters.
        dead: Vec<File>,
        /// How much is in them.
        counts: ArchiveCounts,
        /// The hash of the source's definition that the rows were decoded by.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        decoding: String,
    },
    /// An epoch was committed.
    Folded {
        /// The positions folded.
        ranges: Ranges,
        /// The versions with a section in the delta: all that are active.
        versions: Vec<VersionId>,
        /// The delta.
        delta: File,
        /// How many events were folded.
        events: u64,
        /// The newest event time among them, in microseconds since 1970; none where the source has no event time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        newest_event_us: Option<i64>,
        /// The `lost` entries whose positions it passes over.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holes: Vec<Number>,
        /// How many events were duplicates, and are not among those folded.
        #[serde(default, skip_serializing_if = "is_zero")]
        duplicates: u64,
        /// What the ranges held beside the events of the delta. None where the writer did not count it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<Box<Seen>>,
    },
    /// Batch views were published.
    Published {
        /// The ledger number that the run planned on.
        plan: Number,
        /// Up to where the batch views reach.
        boundary: Offsets,
        /// One batch view per version.
        versions: Vec<PublishedVersion>,
    },
    /// Positions that are neither in the log nor in the archive: somebody has decided to go on without them.
    Lost {
        /// The positions.
        ranges: Ranges,
        /// Why, in the words of who decided.
        reason: String,
    },
    /// Positions whose events are not to be counted: batch runs leave them out.
    Quarantined {
        /// The positions.
        ranges: Ranges,
        /// Why, in the words of who decided.
        reason: String,
    },
    /// A quarantine ends: the next full batch run counts its events again.
    Lifted {
        /// The entry that began it.
        quarantine: Number,
        /// Why, in the words of who decided.
        reason: String,
    },
    /// Epochs become one.
    Compacted {
        /// The entries whose units it replaces, in the ledger's order.
        replaces: Vec<Number>,
        /// The positions it holds: theirs.
        ranges: Ranges,
        /// The versions with a section in the delta.
        versions: Vec<VersionId>,
        /// The delta.
        delta: File,
        /// The `lost` entries whose positions it passes over: theirs.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        holes: Vec<Number>,
    },
    /// Archive files become fewer; their rows stay the same.
    CompactedArchive {
        /// The entries whose files it replaces, in the ledger's order.
        replaces: Vec<Number>,
        /// The positions it holds: theirs.
        ranges: Ranges,
        /// Parquet files of rows.
        rows: Vec<File>,
        /// Parquet files of dead letters.
        dead: Vec<File>,
    },
    /// The archive's past was removed: what lies below stands in base views alone.
    Expired {
        /// The ledger number that it was planned on.
        plan: Number,
        /// Up to where. What the archive holds from there on stays.
        below: Offsets,
        /// One base view for each active version: full recomputes start from it.
        bases: Vec<BaseView>,
    },
    /// Raises what a binary must know to work on this source.
    Format {
        /// The new format.
        format: u32,
    },
}

impl Body {
    /// Whether it is a person's command, which may be repeated under its nonce.
    pub fn is_command(&self) -> bool {
        use Body::{Declared, Lifted, Lost, Quarantined, Retired, Selected};
        matches!(
            self,
            Declared { .. } | Retired { .. } | Selected { .. } | Lost { .. } | Quarantined { .. } | Lifted { .. }
        )
    }

    /// The ledger format that a binary must know to read this kind of entry.
    pub fn needs_format(&self) -> u32 {
        use Body::{Compacted, CompactedArchive, Declared, Expired, Folded, Lifted, Lost, Published, Quarantined};
        match self {
            Declared { dialect, .. } if !dialect.is_first() => 4,
            Folded { seen: Some(_), .. } => 4,
            Published { versions, .. } if versions.iter().any(|v| v.seen.is_some()) => 4,
            Expired { bases, .. } if bases.iter().any(|base| base.seen.is_some()) => 4,
            Expired { .. } => 3,
            // An older binary would leave the time out of its snapshots.
            Published { versions, .. }
                if versions.iter().any(|v| v.newest_event_us.is_some() || v.kept_from_us.is_some()) =>
            {
                3
            }
            Lost { .. } | Quarantined { .. } | Lifted { .. } | Compacted { .. } | CompactedArchive { .. } => 2,
            _ => 1,
        }
    }

    /// The kind's name, as it is stored.
    pub fn kind(&self) -> &'static str {
        match self {
            Body::Created { .. } => "created",
            Body::Declared { .. } => "declared",
            Body::Retired { .. } => "retired",
            Body::Selected { .. } => "selected",
            Body::Archived { .. } => "archived",
            Body::Folded { .. } => "folded",
            Body::Published { .. } => "published",
            Body::Lost { .. } => "lost",
            Body::Quarantined { .. } => "quarantined",
            Body::Lifted { .. } => "lifted",
            Body::Compacted { .. } => "compacted",
            Body::CompactedArchive { .. } => "compacted_archive",
            Body::Expired { .. } => "expired",
            Body::Format { .. } => "format",
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero_offset(offset: &i64) -> bool {
    *offset == 0
}

/// A file that an entry names.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct File {
    /// Its path below the source's folder.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC-32 (ISO-HDLC) of its bytes.
    pub crc32: u32,
    /// How many rows it holds.
    pub rows: u64,
    /// Its end, from which the checksums of its other parts are read. None: it can only be checked whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<Tail>,
}

/// The end of a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Tail {
    /// Its length in bytes.
    pub bytes: u64,
    /// CRC-32 (ISO-HDLC) of its bytes.
    pub crc32: u32,
}

/// What an `archived` entry added.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ArchiveCounts {
    /// Events.
    pub rows: u64,
    /// Dead letters by reason.
    pub dead: BTreeMap<String, u64>,
    /// Dead letters by partition.
    #[serde(default)]
    pub dead_by_partition: Offsets,
    /// Records without a value or without an element: no events, no dead letters.
    pub absent: u64,
}

/// The states of one version below a boundary, as they were when the archive's past was removed.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct BaseView {
    /// The version.
    pub version: VersionId,
    /// Up to where it reaches: at least to where the archive begins, and so much further as deduplication looks back.
    pub boundary: Offsets,
    /// How many positions before one decide whether it is a duplicate.
    #[serde(default, skip_serializing_if = "is_zero_offset")]
    pub lookback: i64,
    /// Its sorted runs of states.
    pub runs: Vec<File>,
    /// The `lost`, `quarantined` and `expired` entries whose positions it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Number>,
    /// The newest event time below its boundary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_event_us: Option<i64>,
    /// From which time on it holds groups. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from_us: Option<i64>,
    /// What its positions held beside its events. None where the writer did not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Box<Seen>>,
}

/// The batch view of one version.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PublishedVersion {
    /// The version.
    pub version: VersionId,
    /// Its sorted runs of states.
    pub runs: Vec<File>,
    /// Whether it was recomputed from the origin.
    pub full: bool,
    /// The `lost`, `quarantined` and `expired` entries whose positions it leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Number>,
    /// The newest event time below the boundary, by the version's own definition of the source, where something goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_event_us: Option<i64>,
    /// From which time on it holds groups, in microseconds since 1970: older ones are beyond the view's retention. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from_us: Option<i64>,
    /// What its positions held beside its events. None where the writer did not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Box<Seen>>,
}

/// What a range of positions holds beside the states made of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Elements that a version's own definition does not decode, by version and reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub dead: BTreeMap<VersionId, BTreeMap<String, u64>>,
    /// The newest event time of each partition, in microseconds since 1970.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub newest_event_us: BTreeMap<TopicPartition, i64>,
    /// The snapshot of each lookup table in force from the ends of the range on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<String, Number>,
}

impl Seen {
    /// The format from which on entries may hold it.
    pub const FORMAT: u32 = 4;

    /// Adds what the range that follows holds.
    pub fn extend(&mut self, later: &Seen) {
        for (version, reasons) in &later.dead {
            add_counts(self.dead.entry(version.clone()).or_default(), reasons);
        }
        for (at, newest) in &later.newest_event_us {
            let known = self.newest_event_us.entry(at.clone()).or_insert(*newest);
            *known = (*known).max(*newest);
        }
        self.snapshots.extend(later.snapshots.iter().map(|(table, number)| (table.clone(), *number)));
    }

    /// Adds dead letters of a version.
    pub fn add_dead(&mut self, version: &VersionId, reasons: &BTreeMap<String, u64>) {
        if !reasons.is_empty() {
            add_counts(self.dead.entry(version.clone()).or_default(), reasons);
        }
    }

    /// Of ranges that follow each other. None where one of them was not counted.
    pub fn of_all<'a>(ranges: impl IntoIterator<Item = Option<&'a Seen>>) -> Option<Seen> {
        let mut all = Seen::default();
        for seen in ranges {
            all.extend(seen?);
        }
        Some(all)
    }
}

fn add_counts(counts: &mut BTreeMap<String, u64>, more: &BTreeMap<String, u64>) {
    for (reason, count) in more {
        *counts.entry(reason.clone()).or_default() += count;
    }
}
