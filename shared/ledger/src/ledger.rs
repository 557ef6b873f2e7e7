//! Replay: the state that a ledger's entries add up to.
//!
//! [`Ledger::check`] is called by a writer before its put, and by everyone on replay. An entry that breaks a rule
//! stops the source; it is never skipped (rule 6).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::change::{Change, ChangeKind};
use crate::entry::{ArchiveCounts, BaseView, Body, Entry, File, Seen};
use crate::names::{Dialect, Nonce, Number, VersionId};
use crate::offsets::{Offsets, Ranges, Span, TopicPartition};
use crate::refusal::Refusal;

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
    /// What the positions hold beside its states. None where the writer did not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Box<Seen>>,
}

impl Unit {
    /// Whether a change speaks of some of its positions.
    pub(crate) fn touches(&self, change: &Change) -> bool {
        self.ranges.iter().any(|(at, span)| change.overlaps(at, span))
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

/// What left the archive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Removed {
    /// Events.
    pub rows: u64,
    /// Dead letters, and records without an event.
    pub dead: u64,
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
    /// The dialect that it was declared under.
    #[serde(default, skip_serializing_if = "Dialect::is_first")]
    pub dialect: Dialect,
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
    /// The `lost`, `quarantined` and `expired` entries whose positions its batch view leaves out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Number>,
    /// The newest event time below its boundary, by its own definition of the source, where something goes by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_event_us: Option<i64>,
    /// From which time on answers hold groups: older ones are beyond the view's retention. None: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from_us: Option<i64>,
    /// What full recomputes start from, since the archive's past was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseView>,
    /// What the positions below its boundary hold beside its states. None where nothing was published, or the writer did not count it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Box<Seen>>,
}

impl VersionState {
    /// Whether answers can be made of it.
    pub fn complete(&self) -> bool {
        self.boundary.is_some()
    }

    /// The files of its batch view and of its base view.
    pub fn files(&self) -> impl Iterator<Item = &File> {
        self.runs.iter().chain(self.base.iter().flat_map(|base| &base.runs))
    }

    /// Whether its source has dedup: then what is left out decides what else counts.
    pub(crate) fn deduplicates(&self) -> bool {
        self.source.get("dedup").is_some_and(|dedup| !dedup.is_null())
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
    /// When a speed instance last declared a version or committed an epoch, by its clock, RFC 3339. No rule reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed_at: Option<String>,
    /// Events that were duplicates.
    #[serde(default)]
    pub duplicates: u64,
    /// The newest event time that was folded.
    #[serde(default)]
    pub newest_event_us: Option<i64>,
    /// Up to where the archive's past was removed.
    #[serde(default)]
    pub expired: Offsets,
    /// Rows of files that left the archive.
    #[serde(default)]
    pub removed: Removed,
    /// What was lost, quarantined or removed, in order.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// The commands done, by nonce.
    pub commands: BTreeSet<Nonce>,
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

    /// From where the archive holds partition `at`: what lies before it was removed.
    pub fn kept_from(&self, at: &TopicPartition) -> i64 {
        self.origin(at).max(self.expired.or_zero(at))
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
            Body::Declared { view, version, sql, source, dialect } => {
                self.declare(entry.number, view, version, (sql, source, *dialect));
                // `ROLE-NONCE`: see `Entry::writer`.
                if entry.writer.starts_with("speed") {
                    self.speed_at = Some(entry.at.clone());
                }
            }
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
            Body::Folded { ranges, versions, delta, events, newest_event_us, holes, duplicates, seen } => {
                self.duplicates += duplicates;
                self.speed_at = Some(entry.at.clone());
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
                    seen: seen.clone(),
                });
            }
            Body::Lost { ranges, reason } => self.change(entry.number, ChangeKind::Lost, ranges, reason),
            Body::Quarantined { ranges, reason } => self.change(entry.number, ChangeKind::Quarantined, ranges, reason),
            Body::Lifted { quarantine, .. } => {
                let lifted = self.changes.iter_mut().find(|change| change.number == *quarantine);
                lifted.expect("checked before it is applied").lifted = Some(entry.number);
            }
            Body::Compacted { replaces, ranges, versions, delta, holes } => {
                let first = self.units.iter().position(|unit| unit.number == replaces[0]);
                let first = first.expect("checked before it is applied");
                let replaced = first..first + replaces.len();
                let seen = Seen::of_all(self.units[replaced.clone()].iter().map(|unit| unit.seen.as_deref()));
                let unit = Unit {
                    number: entry.number,
                    ranges: ranges.clone(),
                    versions: sorted(versions),
                    delta: delta.clone(),
                    holes: holes.clone(),
                    seen: seen.map(Box::new),
                };
                self.units.splice(replaced, [unit]);
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
            Body::Expired { below, bases, .. } => self.expire(entry.number, below, bases),
            Body::Published { boundary, versions, .. } => {
                self.boundary = std::mem::take(&mut self.boundary).max(boundary);
                let origins = self.origins.clone();
                for published in versions {
                    let version = self.version_mut(&published.version);
                    version.boundary = Some(origins.clone().max(boundary));
                    version.newest_event_us = published.newest_event_us;
                    version.kept_from_us = published.kept_from_us;
                    version.published = Some(entry.number);
                    version.published_at = Some(entry.at.clone());
                    version.runs.clone_from(&published.runs);
                    version.holes.clone_from(&published.holes);
                    version.seen.clone_from(&published.seen);
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

    fn declare(
        &mut self,
        number: Number,
        view: &str,
        version: &VersionId,
        how: (&String, &serde_json::Value, Dialect),
    ) {
        let effective = self.effective();
        // Complete and empty where nothing lies before it; else building until a batch run has built it (rule 13).
        let boundary = (effective == self.origins).then(|| self.origins.clone());
        let state = VersionState {
            view: view.to_string(),
            sql: how.0.clone(),
            source: how.1.clone(),
            dialect: how.2,
            active: true,
            declared: number,
            declared_at: effective,
            chosen: number,
            boundary,
            published: None,
            published_at: None,
            runs: vec![],
            holes: vec![],
            newest_event_us: None,
            kept_from_us: None,
            base: None,
            seen: None,
        };
        self.versions.insert(version.clone(), state);
    }

    /// Removes the archive below `below`; whoever was active then has its base view.
    fn expire(&mut self, number: Number, below: &Offsets, bases: &[BaseView]) {
        let gone = below.iter().map(|(at, end)| (at.clone(), Span::new(self.kept_from(at), end)));
        let gone: Ranges = gone.filter(|(_, span)| !span.is_empty()).collect();
        self.change(number, ChangeKind::Expired, &gone, "beyond the archive's retention");
        self.expired = std::mem::take(&mut self.expired).max(below);
        let expired = self.origins.clone().max(&self.expired);
        let (gone, kept) = self.archive.drain(..).partition::<Vec<_>, _>(|unit| unit.ranges.below(&expired));
        self.archive = kept;
        for unit in gone {
            self.removed.rows += unit.rows.iter().map(|file| file.rows).sum::<u64>();
            self.removed.dead += unit.dead.iter().map(|file| file.rows).sum::<u64>();
        }
        for base in bases {
            self.version_mut(&base.version).base = Some(base.clone());
        }
    }

    /// Drops the units that lie below what every active version needs (rule 19).
    fn forget_covered_units(&mut self) {
        let active: Vec<&VersionState> = self.versions.values().filter(|v| v.active).collect();
        let needed = |unit: &Unit| {
            !unit.ranges.below(&self.boundary) || active.iter().any(|v| !unit.ranges.below(v.needs_from()))
        };
        let kept = self.units.iter().filter(|unit| needed(unit)).cloned().collect();
        self.units = kept;
    }

    fn version_mut(&mut self, version: &VersionId) -> &mut VersionState {
        self.versions.get_mut(version).expect("checked before it is applied")
    }

    fn change(&mut self, number: Number, kind: ChangeKind, ranges: &Ranges, reason: &str) {
        let (ranges, reason) = (ranges.clone(), reason.to_string());
        let frontier = self.effective();
        self.changes.push(Change { number, kind, ranges, reason, frontier, lifted: None });
    }
}

impl Ledger {
    /// The change that entry `number` made.
    pub fn change_at(&self, number: Number) -> Option<&Change> {
        self.changes.iter().find(|change| change.number == number)
    }

    /// The first quarantine that is neither lifted nor gone with the archive's past: what left the archive is a hole of every
    /// version to come.
    pub fn quarantine_in_force(&self) -> Option<Number> {
        let in_force = |change: &&Change| {
            change.kind == ChangeKind::Quarantined && change.lifted.is_none() && !change.ranges.below(&self.expired)
        };
        self.changes.iter().find(in_force).map(|change| change.number)
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
        let between = Span::new(from, to);
        lost.filter(move |change| change.overlaps(at, &between)).map(|change| change.number)
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

fn note_epochs(epochs: &mut BTreeMap<TopicPartition, i32>, ranges: &Ranges) {
    for (at, span) in ranges.iter() {
        match span.leader_epoch {
            Some(epoch) => epochs.insert(at.clone(), epoch),
            None => epochs.remove(at),
        };
    }
}

pub(crate) fn sorted<'a, T: Ord + Clone + 'a>(items: impl IntoIterator<Item = &'a T>) -> Vec<T> {
    let mut items: Vec<T> = items.into_iter().cloned().collect();
    items.sort();
    items
}
