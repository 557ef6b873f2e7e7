//! Replay: the state that a ledger's entries add up to, and the rules that a next entry is checked by.
//!
//! [`Ledger::check`] is called by a writer before its put, and by everyone on replay. An entry that breaks a rule
//! stops the source; it is never skipped (rule 6).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::FORMAT;
use crate::change::{Change, ChangeKind};
use crate::entry::{ArchiveCounts, Body, Entry, File, PublishedVersion};
use crate::names::{Nonce, Number, VersionId};
use crate::offsets::{Offsets, Ranges, TopicPartition};

/// A folded epoch: it is used whole or not at all, for states cannot be cut.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Unit {
    /// The entry that committed it.
    pub number: Number,
    /// The positions it holds.
    pub ranges: Ranges,
    /// The versions it holds states of.
    pub versions: Vec<VersionId>,
    /// Its delta.
    pub delta: File,
    /// The `lost` entries whose positions it passes over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Number>,
}

impl Unit {
    /// Whether a change speaks of some of its positions.
    pub(crate) fn touches(&self, change: &Change) -> bool {
        let overlaps = |(at, span): (&TopicPartition, &crate::Span)| {
            change.ranges.get(at).is_some_and(|other| other.start < span.end && other.end > span.start)
        };
        self.ranges.iter().any(overlaps)
    }
}

/// Archived rows: any reader cuts them anywhere by offset.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ArchiveUnit {
    /// The entry that committed it.
    pub number: Number,
    /// The positions it holds.
    pub ranges: Ranges,
    /// Files of rows.
    pub rows: Vec<File>,
    /// Files of dead letters.
    pub dead: Vec<File>,
    /// The hash of the source's definition that the rows were decoded by.
    #[serde(default)]
    pub decoding: String,
}

/// What is known of one version of a view. Its life begins at its newest declaration.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VersionState {
    /// The view's name.
    pub view: String,
    /// The normalised SQL.
    pub sql: String,
    /// The source's definition that it decodes by.
    #[serde(default)]
    pub source: serde_json::Value,
    /// Whether it is folded and built.
    pub active: bool,
    /// The number of its newest `declared`.
    pub declared: Number,
    /// The effective frontier at that declaration: its first boundary is at or above it.
    pub declared_at: Offsets,
    /// The number of its newest `declared` or `selected`.
    pub chosen: Number,
    /// Its boundary; none while it is building.
    pub boundary: Option<Offsets>,
    /// The entry that published its batch view, if any did.
    pub published: Option<Number>,
    /// When that entry was written, by its writer's clock: for people, nothing is decided by it.
    #[serde(default)]
    pub published_at: Option<String>,
    /// The runs of its batch view.
    pub runs: Vec<File>,
    /// The `lost` and `quarantined` entries whose positions its batch view leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Number>,
}

impl VersionState {
    /// Whether answers can be made of it.
    pub fn complete(&self) -> bool {
        self.boundary.is_some()
    }

    /// Deltas below this are not needed for it.
    pub(crate) fn needs_from(&self) -> &Offsets {
        self.boundary.as_ref().unwrap_or(&self.declared_at)
    }
}

/// The state of a source after a number of entries.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// The last entry applied; 0 before the first.
    pub number: Number,
    /// The format in force.
    pub format: u32,
    /// The source's name.
    pub source: String,
    /// The ids of its topics.
    pub topics: BTreeMap<String, String>,
    /// Where its partitions start.
    pub origins: Offsets,
    /// The archive frontier.
    pub archived: Offsets,
    /// The ends of what was folded.
    pub folded: Offsets,
    /// The largest boundary published, per partition.
    pub boundary: Offsets,
    /// The newest leader epoch seen per partition by the archive.
    pub archived_epochs: BTreeMap<TopicPartition, i32>,
    /// The newest leader epoch seen per partition by the fold.
    pub folded_epochs: BTreeMap<TopicPartition, i32>,
    /// The archive, in order.
    pub archive: Vec<ArchiveUnit>,
    /// What the archive holds.
    pub counts: ArchiveCounts,
    /// Folded units that some version may still need, in order.
    pub units: Vec<Unit>,
    /// Every version ever declared.
    pub versions: BTreeMap<VersionId, VersionState>,
    /// Events folded since the beginning.
    pub events_folded: u64,
    /// Events that were duplicates.
    #[serde(default)]
    pub duplicates: u64,
    /// The newest event time that was folded.
    #[serde(default)]
    pub newest_event_us: Option<i64>,
    /// What was lost or quarantined, in order.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// The commands done, by nonce.
    pub commands: BTreeSet<Nonce>,
}

/// Why an entry may not stand at its number.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Not the next number.
    #[error("entry {number} does not follow entry {after}")]
    Number {
        /// The entry's number.
        number: Number,
        /// The last number.
        after: Number,
    },
    /// `created` elsewhere than at number 1, or something else there.
    #[error("an entry of kind {kind} cannot stand at number {number}")]
    Place {
        /// Its kind.
        kind: &'static str,
        /// Its number.
        number: Number,
    },
    /// Written by a newer bifold.
    #[error("the source needs ledger format {format}, this bifold knows {FORMAT}; run a newer bifold")]
    Format {
        /// The format needed.
        format: u32,
    },
    /// A kind of entry that the format in force does not know.
    #[error("an entry of kind {kind} needs ledger format {format}, in force is {now}")]
    NeedsFormat {
        /// Its kind.
        kind: &'static str,
        /// The format needed.
        format: u32,
        /// The format in force.
        now: u32,
    },
    /// A `format` below the one in force.
    #[error("the format cannot go back from {now} to {format}")]
    OlderFormat {
        /// The entry's format.
        format: u32,
        /// The format in force.
        now: u32,
    },
    /// A plan from the future.
    #[error("a plan at {plan} cannot be published as entry {number}")]
    Plan {
        /// The plan's number.
        plan: Number,
        /// The entry's number.
        number: Number,
    },
    /// One version named twice.
    #[error("version {version} is named twice")]
    Twice {
        /// The version.
        version: VersionId,
    },
    /// An entry without a position.
    #[error("an entry of kind {kind} that holds nothing")]
    Empty {
        /// Its kind.
        kind: &'static str,
    },
    /// A range that does not continue where the ledger stands.
    #[error("{kind} {at} from {start}, but the frontier is {frontier}")]
    Start {
        /// The entry's kind.
        kind: &'static str,
        /// The partition.
        at: TopicPartition,
        /// Where the range starts.
        start: i64,
        /// Where it had to start.
        frontier: i64,
    },
    /// A delta that lacks an active version, or holds one that is not active.
    #[error("the delta holds versions {}, active are {}", list(has), list(active))]
    Versions {
        /// What it holds.
        has: Vec<VersionId>,
        /// What it had to hold.
        active: Vec<VersionId>,
    },
    /// A version that must not be active is, or must be and is not.
    #[error("version {version} is {}active", if *active { "" } else { "not " })]
    Active {
        /// The version.
        version: VersionId,
        /// Whether it is active.
        active: bool,
    },
    /// A version that is served cannot be retired alone.
    #[error("version {version} is served; retire all versions of its view, or select another first")]
    Served {
        /// The version.
        version: VersionId,
    },
    /// A version that is still building cannot be selected.
    #[error("version {version} is still building")]
    Building {
        /// The version.
        version: VersionId,
    },
    /// The boundary reaches beyond the archive.
    #[error("the boundary {at}:{boundary} is beyond the archive, which ends at {archived}")]
    NotArchived {
        /// The partition.
        at: TopicPartition,
        /// The boundary there.
        boundary: i64,
        /// The archive's frontier there.
        archived: i64,
    },
    /// The boundary cuts through a folded unit.
    #[error("the boundary cuts through the epoch of entry {unit}")]
    Torn {
        /// The unit's number.
        unit: Number,
    },
    /// The boundary would go back.
    #[error("version {version} has a boundary above the one offered")]
    Backwards {
        /// The version.
        version: VersionId,
    },
    /// Somebody published or declared one of the versions since the plan.
    #[error("version {version} was published or declared by entry {by}, after the plan at {plan}")]
    Overtaken {
        /// The version.
        version: VersionId,
        /// The entry that did.
        by: Number,
        /// The plan's number.
        plan: Number,
    },
    /// Positions that are archived cannot be lost.
    #[error("{at} [{start}, …) cannot be lost: it is archived up to {archived}")]
    Archived {
        /// The partition.
        at: TopicPartition,
        /// Where the range starts.
        start: i64,
        /// The archive's frontier there.
        archived: i64,
    },
    /// A range that another change already speaks of.
    #[error("{at} [{start}, {end}) overlaps what entry {by} says of it")]
    Overlaps {
        /// The partition.
        at: TopicPartition,
        /// Where the range starts.
        start: i64,
        /// Where it ends.
        end: i64,
        /// The other change.
        by: Number,
    },
    /// No such change, or it is lifted already.
    #[error("entry {number} is no quarantine in force")]
    NoQuarantine {
        /// The entry named.
        number: Number,
    },
    /// Something was lost, quarantined or lifted below the boundary since the plan.
    #[error("entry {by} changes what counts below the boundary, after the plan at {plan}")]
    Changed {
        /// The entry that did.
        by: Number,
        /// The plan's number.
        plan: Number,
    },
    /// Lost positions that are neither left out nor above what the entry holds.
    #[error("what entry {change} says is lost has to be left out of {kind}")]
    NotLeftOut {
        /// The change.
        change: Number,
        /// The entry's kind.
        kind: &'static str,
    },
    /// A unit that was replaced or is not needed any more.
    #[error("entry {number} is no current unit")]
    NotCurrent {
        /// The entry named.
        number: Number,
    },
    /// Units that do not follow each other, or a result that is not what they hold.
    #[error("the units do not make up what is to replace them: {why}")]
    NotTheSame {
        /// How they differ.
        why: &'static str,
    },
    /// A compacted unit that a boundary would cut through.
    #[error("the boundary of version {version} lies inside the compacted epochs")]
    Inside {
        /// The version.
        version: VersionId,
    },
    /// A leap that leaves a version behind.
    #[error("a boundary above the frontier must name all active versions; {missing} is missing")]
    Leap {
        /// A version that is missing.
        missing: VersionId,
    },
    /// The first boundary of a version lies below the frontier at its declaration.
    #[error("the first boundary of version {version} must reach the frontier at its declaration")]
    First {
        /// The version.
        version: VersionId,
    },
}

impl Ledger {
    /// The state after `entries`.
    ///
    /// # Errors
    /// The first entry that breaks a rule, with its number.
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Result<Ledger, (Number, Refusal)> {
        let mut ledger = Ledger::default();
        for entry in entries {
            ledger.apply(entry).map_err(|refusal| (entry.number, refusal))?;
        }
        Ok(ledger)
    }

    /// Whether the source has begun.
    pub fn exists(&self) -> bool {
        self.number > 0
    }

    /// Where partition `at` starts.
    pub fn origin(&self, at: &TopicPartition) -> i64 {
        self.origins.or_zero(at)
    }

    /// Up to where partition `at` is archived.
    pub fn archived(&self, at: &TopicPartition) -> i64 {
        self.archived.get(at).unwrap_or_else(|| self.origin(at))
    }

    /// The effective frontier of partition `at`: the larger of what was folded and the newest boundary (rule 8).
    pub fn frontier(&self, at: &TopicPartition) -> i64 {
        self.origin(at).max(self.folded.or_zero(at)).max(self.boundary.or_zero(at))
    }

    /// The effective frontier of every partition that the ledger names.
    pub fn effective(&self) -> Offsets {
        self.origins.clone().max(&self.folded).max(&self.boundary)
    }

    /// The versions that are folded and built, in order.
    pub fn active(&self) -> Vec<VersionId> {
        self.versions.iter().filter(|(_, v)| v.active).map(|(id, _)| id.clone()).collect()
    }

    /// Whether `body` may be entry `number`, given `self.number` entries before it.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn check(&self, number: Number, body: &Body) -> Result<(), Refusal> {
        if number != self.number + 1 {
            return Err(Refusal::Number { number, after: self.number });
        }
        if (number == 1) != matches!(body, Body::Created { .. }) {
            return Err(Refusal::Place { kind: body.kind(), number });
        }
        if number > 1 && body.needs_format() > self.format {
            return Err(Refusal::NeedsFormat { kind: body.kind(), format: body.needs_format(), now: self.format });
        }
        match body {
            Body::Created { format, .. } | Body::Format { format } => match *format {
                format if format > FORMAT => Err(Refusal::Format { format }),
                format if format < self.format => Err(Refusal::OlderFormat { format, now: self.format }),
                _ => Ok(()),
            },
            Body::Declared { version, .. } => self.expect_active(version, false),
            Body::Retired { versions } => self.check_retired(versions),
            Body::Selected { version } => {
                self.expect_active(version, true)?;
                match self.versions[version].complete() {
                    true => Ok(()),
                    false => Err(Refusal::Building { version: version.clone() }),
                }
            }
            Body::Archived { ranges, .. } => starts_at("archived", ranges, |at| self.archived(at)),
            Body::Folded { ranges, versions, .. } => {
                starts_at("folded", ranges, |at| self.frontier(at))?;
                let (has, active) = (sorted(versions), self.active());
                if has != active { Err(Refusal::Versions { has, active }) } else { Ok(()) }
            }
            Body::Lost { ranges, .. } => self.check_lost(ranges),
            Body::Quarantined { ranges, .. } => self.check_change("quarantined", ranges),
            Body::Lifted { quarantine, .. } => self.check_lifted(*quarantine),
            Body::Compacted { replaces, ranges, versions, holes, .. } => {
                self.check_compacted(replaces, ranges, versions, holes)
            }
            Body::CompactedArchive { replaces, ranges, .. } => self.check_compacted_archive(replaces, ranges),
            Body::Published { plan, boundary, versions } => self.check_published(*plan, boundary, versions),
        }
    }

    /// Appends `entry`.
    ///
    /// # Errors
    /// The rule it breaks; the state is then unchanged.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), Refusal> {
        if entry.body.is_command() && self.commands.contains(&entry.nonce) && entry.number == self.number + 1 {
            // A command seen again is done (rule 5).
            self.number = entry.number;
            return Ok(());
        }
        self.check(entry.number, &entry.body)?;
        match &entry.body {
            Body::Created { format, source, topics, origins } => {
                self.format = *format;
                self.source.clone_from(source);
                self.topics.clone_from(topics);
                self.origins.clone_from(origins);
            }
            Body::Format { format } => self.format = *format,
            Body::Declared { view, version, sql, source } => self.declare(entry.number, view, version, (sql, source)),
            Body::Retired { versions } => {
                for version in versions {
                    self.version_mut(version).active = false;
                }
                self.forget_covered_units();
            }
            Body::Selected { version } => self.version_mut(version).chosen = entry.number,
            Body::Archived { ranges, rows, dead, counts, decoding } => {
                self.archived.advance_by(ranges);
                note_epochs(&mut self.archived_epochs, ranges);
                self.counts.add(counts);
                self.archive.push(ArchiveUnit {
                    number: entry.number,
                    ranges: ranges.clone(),
                    rows: rows.clone(),
                    dead: dead.clone(),
                    decoding: decoding.clone(),
                });
            }
            Body::Folded { ranges, versions, delta, events, newest_event_us, holes, duplicates } => {
                self.duplicates += duplicates;
                self.folded.advance_by(ranges);
                note_epochs(&mut self.folded_epochs, ranges);
                self.events_folded += events;
                self.newest_event_us = self.newest_event_us.max(*newest_event_us);
                self.units.push(Unit {
                    number: entry.number,
                    ranges: ranges.clone(),
                    versions: sorted(versions),
                    delta: delta.clone(),
                    holes: holes.clone(),
                });
            }
            Body::Lost { ranges, reason } => self.change(entry.number, ChangeKind::Lost, ranges, reason),
            Body::Quarantined { ranges, reason } => self.change(entry.number, ChangeKind::Quarantined, ranges, reason),
            Body::Lifted { quarantine, .. } => {
                let lifted = self.changes.iter_mut().find(|change| change.number == *quarantine);
                lifted.expect("checked before it is applied").lifted = Some(entry.number);
            }
            Body::Compacted { replaces, ranges, versions, delta, holes } => {
                let unit = Unit {
                    number: entry.number,
                    ranges: ranges.clone(),
                    versions: sorted(versions),
                    delta: delta.clone(),
                    holes: holes.clone(),
                };
                let first = self.units.iter().position(|unit| unit.number == replaces[0]);
                let first = first.expect("checked before it is applied");
                self.units.splice(first..first + replaces.len(), [unit]);
            }
            Body::CompactedArchive { replaces, ranges, rows, dead } => {
                let first = self.archive.iter().position(|unit| unit.number == replaces[0]);
                let first = first.expect("checked before it is applied");
                let unit = ArchiveUnit {
                    number: entry.number,
                    ranges: ranges.clone(),
                    rows: rows.clone(),
                    dead: dead.clone(),
                    decoding: self.archive[first].decoding.clone(),
                };
                self.archive.splice(first..first + replaces.len(), [unit]);
            }
            Body::Published { boundary, versions, .. } => {
                self.boundary = std::mem::take(&mut self.boundary).max(boundary);
                let origins = self.origins.clone();
                for published in versions {
                    let version = self.version_mut(&published.version);
                    version.boundary = Some(origins.clone().max(boundary));
                    version.published = Some(entry.number);
                    version.published_at = Some(entry.at.clone());
                    version.runs.clone_from(&published.runs);
                    version.holes.clone_from(&published.holes);
                }
                self.forget_covered_units();
            }
        }
        if entry.body.is_command() {
            self.commands.insert(entry.nonce.clone());
        }
        self.number = entry.number;
        Ok(())
    }

    fn declare(&mut self, number: Number, view: &str, version: &VersionId, how: (&String, &serde_json::Value)) {
        let effective = self.effective();
        // Complete and empty where nothing lies before it; else building until a batch run has built it (rule 13).
        let boundary = (effective == self.origins).then(|| self.origins.clone());
        let state = VersionState {
            view: view.to_string(),
            sql: how.0.clone(),
            source: how.1.clone(),
            active: true,
            declared: number,
            declared_at: effective,
            chosen: number,
            boundary,
            published: None,
            published_at: None,
            runs: vec![],
            holes: vec![],
        };
        self.versions.insert(version.clone(), state);
    }

    /// Drops the units that lie below what every active version needs (rule 19).
    fn forget_covered_units(&mut self) {
        let active: Vec<&VersionState> = self.versions.values().filter(|v| v.active).collect();
        let boundary = &self.boundary;
        self.units
            .retain(|unit| !unit.ranges.below(boundary) || active.iter().any(|v| !unit.ranges.below(v.needs_from())));
    }

    fn version_mut(&mut self, version: &VersionId) -> &mut VersionState {
        self.versions.get_mut(version).expect("checked before it is applied")
    }

    fn expect_active(&self, version: &VersionId, want: bool) -> Result<(), Refusal> {
        let active = self.versions.get(version).is_some_and(|v| v.active);
        if active == want { Ok(()) } else { Err(Refusal::Active { version: version.clone(), active }) }
    }

    fn check_retired(&self, versions: &[VersionId]) -> Result<(), Refusal> {
        if versions.is_empty() {
            return Err(Refusal::Empty { kind: "retired" });
        }
        for version in versions {
            self.expect_active(version, true)?;
            let view = &self.versions[version].view;
            let dropped = self.versions.iter().all(|(id, v)| !v.active || v.view != *view || versions.contains(id));
            if !dropped && self.served(view) == Some(version) {
                return Err(Refusal::Served { version: version.clone() });
            }
        }
        Ok(())
    }

    fn change(&mut self, number: Number, kind: ChangeKind, ranges: &Ranges, reason: &str) {
        let (ranges, reason) = (ranges.clone(), reason.to_string());
        self.changes.push(Change { number, kind, ranges, reason, lifted: None });
    }

    /// A change names something that no other change in force speaks of.
    fn check_change(&self, kind: &'static str, ranges: &Ranges) -> Result<(), Refusal> {
        if ranges.is_empty() {
            return Err(Refusal::Empty { kind });
        }
        for (at, span) in ranges.iter() {
            for change in self.changes.iter().filter(|change| change.lifted.is_none()) {
                if change.ranges.get(at).is_some_and(|other| other.start < span.end && other.end > span.start) {
                    let (start, end, by) = (span.start, span.end, change.number);
                    return Err(Refusal::Overlaps { at: at.clone(), start, end, by });
                }
            }
        }
        Ok(())
    }

    fn check_lost(&self, ranges: &Ranges) -> Result<(), Refusal> {
        for (at, span) in ranges.iter() {
            if span.start < self.archived(at) {
                let (start, archived) = (span.start, self.archived(at));
                return Err(Refusal::Archived { at: at.clone(), start, archived });
            }
        }
        // A quarantine of what is lost is no obstacle: both leave it out.
        let lost = self.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
        for change in lost {
            for (at, span) in ranges.iter() {
                if change.ranges.get(at).is_some_and(|other| other.start < span.end && other.end > span.start) {
                    let (start, end, by) = (span.start, span.end, change.number);
                    return Err(Refusal::Overlaps { at: at.clone(), start, end, by });
                }
            }
        }
        if ranges.is_empty() { Err(Refusal::Empty { kind: "lost" }) } else { Ok(()) }
    }

    fn check_lifted(&self, number: Number) -> Result<(), Refusal> {
        let in_force = |change: &Change| change.kind == ChangeKind::Quarantined && change.lifted.is_none();
        match self.changes.iter().any(|change| change.number == number && in_force(change)) {
            true => Ok(()),
            false => Err(Refusal::NoQuarantine { number }),
        }
    }

    /// Units that follow each other in the ledger become one (rule 26).
    fn check_compacted(
        &self,
        replaces: &[Number],
        ranges: &Ranges,
        versions: &[VersionId],
        holes: &[Number],
    ) -> Result<(), Refusal> {
        let Some(first) = replaces.first() else { return Err(Refusal::Empty { kind: "compacted" }) };
        let numbers: Vec<Number> = self.units.iter().map(|unit| unit.number).collect();
        let at = numbers.iter().position(|number| number == first).ok_or(Refusal::NotCurrent { number: *first })?;
        if let Some(gone) = replaces.iter().find(|number| !numbers.contains(number)) {
            return Err(Refusal::NotCurrent { number: *gone });
        }
        if numbers[at..].iter().take(replaces.len()).ne(replaces) {
            return Err(Refusal::NotTheSame { why: "they do not follow each other" });
        }
        let units = &self.units[at..at + replaces.len()];
        if !same_positions(ranges, units.iter().map(|unit| &unit.ranges)) {
            return Err(Refusal::NotTheSame { why: "the positions differ" });
        }
        for change in holes.iter().filter_map(|number| self.change_at(*number)) {
            if units.iter().any(|unit| unit.touches(change) && !unit.holes.contains(&change.number)) {
                return Err(Refusal::NotTheSame { why: "one leaves out what another counts" });
            }
        }
        let of_all = sorted(holes);
        if of_all != sorted(&units.iter().flat_map(|unit| unit.holes.iter().copied()).collect::<BTreeSet<_>>()) {
            return Err(Refusal::NotTheSame { why: "the holes differ" });
        }
        for (id, version) in self.versions.iter().filter(|(_, version)| version.active) {
            let has = units.iter().filter(|unit| unit.versions.contains(id)).count();
            if has != if versions.contains(id) { units.len() } else { 0 } {
                return Err(Refusal::NotTheSame { why: "the versions differ" });
            }
            let cut = version.needs_from();
            if !ranges.below(cut) && !ranges.above(cut) {
                return Err(Refusal::Inside { version: id.clone() });
            }
        }
        // Also a boundary of versions that are retired: the next one starts from it.
        if !ranges.below(&self.boundary) && !ranges.above(&self.boundary) {
            return Err(Refusal::NotTheSame { why: "the newest boundary lies inside" });
        }
        Ok(())
    }

    /// Archive files that follow each other and were decoded alike become one.
    fn check_compacted_archive(&self, replaces: &[Number], ranges: &Ranges) -> Result<(), Refusal> {
        let Some(first) = replaces.first() else { return Err(Refusal::Empty { kind: "compacted_archive" }) };
        let at = self.archive.iter().position(|unit| unit.number == *first);
        let at = at.ok_or(Refusal::NotCurrent { number: *first })?;
        let units = &self.archive[at..(at + replaces.len()).min(self.archive.len())];
        if units.iter().map(|unit| unit.number).ne(replaces.iter().copied()) {
            return Err(Refusal::NotTheSame { why: "they do not follow each other" });
        }
        if units.iter().any(|unit| unit.decoding != units[0].decoding) {
            return Err(Refusal::NotTheSame { why: "they were decoded by different definitions" });
        }
        match same_positions(ranges, units.iter().map(|unit| &unit.ranges)) {
            true => Ok(()),
            false => Err(Refusal::NotTheSame { why: "the positions differ" }),
        }
    }

    fn check_published(&self, plan: Number, boundary: &Offsets, versions: &[PublishedVersion]) -> Result<(), Refusal> {
        if versions.is_empty() {
            return Err(Refusal::Empty { kind: "published" });
        }
        if plan > self.number {
            return Err(Refusal::Plan { plan, number: self.number + 1 });
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = versions.iter().find(|published| !names.insert(&published.version)) {
            return Err(Refusal::Twice { version: twice.version.clone() });
        }
        let boundary = &self.origins.clone().max(boundary);
        for (at, next) in boundary.iter() {
            if next > self.archived(at) {
                return Err(Refusal::NotArchived { at: at.clone(), boundary: next, archived: self.archived(at) });
            }
        }
        if let Some(unit) = self.units.iter().find(|u| !u.ranges.below(boundary) && !u.ranges.above(boundary)) {
            return Err(Refusal::Torn { unit: unit.number });
        }
        if let Some(by) = self.changed_since(plan, boundary) {
            return Err(Refusal::Changed { by, plan });
        }
        for published in versions {
            let lost = |change: &&Change| change.kind == ChangeKind::Lost && change.reaches_below(boundary);
            if let Some(change) = self.changes.iter().filter(lost).find(|c| !published.holes.contains(&c.number)) {
                return Err(Refusal::NotLeftOut { change: change.number, kind: "published" });
            }
            if let Some(number) = published.holes.iter().find(|number| self.change_at(**number).is_none()) {
                return Err(Refusal::NoQuarantine { number: *number });
            }
            self.expect_active(&published.version, true)?;
            let version = &self.versions[&published.version];
            for by in [Some(version.declared), version.published].into_iter().flatten() {
                if by > plan {
                    return Err(Refusal::Overtaken { version: published.version.clone(), by, plan });
                }
            }
            match &version.boundary {
                Some(before) if !boundary.reaches(before) => {
                    return Err(Refusal::Backwards { version: published.version.clone() });
                }
                None if !boundary.reaches(&version.declared_at) => {
                    return Err(Refusal::First { version: published.version.clone() });
                }
                _ => {}
            }
        }
        let leaps = boundary.iter().any(|(at, next)| next > self.frontier(at));
        let missing = || self.active().into_iter().find(|id| versions.iter().all(|p| p.version != *id));
        match leaps.then(missing).flatten() {
            Some(missing) => Err(Refusal::Leap { missing }),
            None => Ok(()),
        }
    }
}

impl Ledger {
    /// The change that entry `number` made.
    pub fn change_at(&self, number: Number) -> Option<&Change> {
        self.changes.iter().find(|change| change.number == number)
    }

    /// A change after `plan` whose positions reach below `boundary` (rule 12).
    fn changed_since(&self, plan: Number, boundary: &Offsets) -> Option<Number> {
        let changes = self.changes.iter().filter(|change| change.reaches_below(boundary));
        changes.flat_map(|change| [Some(change.number), change.lifted]).flatten().find(|by| *by > plan)
    }

    /// The leader epoch of what lies before the position `next` of `at`, if it is known. An epoch belongs to the position at which it was
    /// seen, the end of a fold or of the archive: with that of another position a log looks truncated that is not.
    pub fn leader_epoch_at(&self, at: &TopicPartition, next: i64) -> Option<i32> {
        let known = [(&self.folded, &self.folded_epochs), (&self.archived, &self.archived_epochs)];
        known.into_iter().find_map(|(ends, epochs)| epochs.get(at).copied().filter(|_| ends.get(at) == Some(next)))
    }

    /// Where reading of `at` goes on from `next`: behind what is lost there.
    pub fn past_lost(&self, at: &TopicPartition, next: i64) -> i64 {
        let lost = self.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
        let spans: Vec<_> = lost.filter_map(|change| change.ranges.get(at)).collect();
        let mut next = next;
        while let Some(span) = spans.iter().find(|span| span.start <= next && next < span.end) {
            next = span.end;
        }
        next
    }

    /// The `lost` entries that speak of positions in `[from, to)` of `at`.
    pub fn lost_between(&self, at: &TopicPartition, from: i64, to: i64) -> impl Iterator<Item = Number> {
        let lost = self.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
        let touches =
            move |change: &&Change| change.ranges.get(at).is_some_and(|span| span.start < to && span.end > from);
        lost.filter(touches).map(|change| change.number)
    }
}

impl ArchiveCounts {
    /// Adds `more` to these counts.
    pub fn add(&mut self, more: &ArchiveCounts) {
        self.rows += more.rows;
        self.absent += more.absent;
        for (reason, count) in &more.dead {
            *self.dead.entry(reason.clone()).or_default() += count;
        }
        for (at, count) in more.dead_by_partition.iter() {
            *self.dead_by_partition.0.entry(at.clone()).or_default() += count;
        }
    }
}

fn starts_at(kind: &'static str, ranges: &Ranges, frontier: impl Fn(&TopicPartition) -> i64) -> Result<(), Refusal> {
    if ranges.is_empty() {
        return Err(Refusal::Empty { kind });
    }
    for (at, span) in ranges.iter().filter(|(_, span)| !span.is_empty()) {
        if span.start != frontier(at) {
            return Err(Refusal::Start { kind, at: at.clone(), start: span.start, frontier: frontier(at) });
        }
    }
    Ok(())
}

fn list(versions: &[VersionId]) -> String {
    let names: Vec<&str> = versions.iter().map(|version| version.0.as_str()).collect();
    format!("[{}]", names.join(", "))
}

fn note_epochs(epochs: &mut BTreeMap<TopicPartition, i32>, ranges: &Ranges) {
    for (at, span) in ranges.iter() {
        match span.leader_epoch {
            Some(epoch) => epochs.insert(at.clone(), epoch),
            None => epochs.remove(at),
        };
    }
}

/// Whether `ranges` are the positions of `parts`, which follow each other in every partition.
fn same_positions<'a>(ranges: &Ranges, parts: impl Iterator<Item = &'a Ranges>) -> bool {
    let mut joined: BTreeMap<&TopicPartition, (i64, i64)> = BTreeMap::new();
    for part in parts {
        for (at, span) in part.iter().filter(|(_, span)| !span.is_empty()) {
            let known = joined.entry(at).or_insert((span.start, span.start));
            if known.1 != span.start {
                return false;
            }
            known.1 = span.end;
        }
    }
    let whole = ranges.iter().filter(|(_, span)| !span.is_empty()).map(|(at, span)| (at, (span.start, span.end)));
    joined.into_iter().eq(whole)
}

fn sorted<'a, T: Ord + Clone + 'a>(items: impl IntoIterator<Item = &'a T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().cloned().collect();
    items.sort();
    items
}
