//! The auditor: it sees every entry at the moment when it lands and every answer, and compares both with the log, event by event.
//!
//! It decides by a reading of the rules of its own, a few lines of arithmetic on offsets, never by what `Ledger` accepts. What it finds
//! wrong is a panic: the seed fails.

mod left_out;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bifold_ledger::{
    Body, ChangeKind, Entry, File, Holes, Ledger, Number, Offsets, PublishedVersion, Ranges, VersionId,
};
use object_store::path::Path;

use self::left_out::{Change, holds};
use crate::content::{Content, Counted, add, difference};
use crate::log::{Log, p};

/// What the auditor knows of a version.
#[derive(Clone, Debug)]
struct Version {
    view: String,
    active: bool,
    declared_at: Offsets,
    chosen: Number,
    boundary: Option<Offsets>,
    /// The changes that its batch view leaves out, and the files of that.
    holes: BTreeSet<Number>,
    runs: Vec<String>,
}

impl Version {
    /// Deltas below this are not needed for it.
    fn needs_from(&self) -> &Offsets {
        self.boundary.as_ref().unwrap_or(&self.declared_at)
    }
}

/// A folded or compacted unit that no compaction has replaced.
#[derive(Clone, Debug)]
struct Durable {
    ranges: Ranges,
    holes: BTreeSet<Number>,
    delta: String,
}

/// An archive entry that no compaction has replaced.
#[derive(Clone, Debug)]
struct Archived {
    ranges: Ranges,
    rows: Vec<String>,
    dead: Vec<String>,
}

/// The truth so far.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    /// The state after each number; `history[0]` is that of no entry.
    pub(crate) history: Vec<Arc<Ledger>>,
    /// All entries.
    pub(crate) entries: Vec<Entry>,
    /// What each file that an entry names holds.
    pub(crate) files: BTreeMap<String, (File, Content)>,
    /// Files that were deleted because nothing needed them.
    pub(crate) deleted: BTreeSet<String>,
    origins: Offsets,
    archived: Offsets,
    frontier: Offsets,
    versions: BTreeMap<VersionId, Version>,
    changes: BTreeMap<Number, Change>,
    units: BTreeMap<Number, Durable>,
    archive: BTreeMap<Number, Archived>,
    /// The served versions of all views after each number, by the auditor's own reckoning.
    served: Vec<BTreeMap<String, VersionId>>,
    frontiers: Vec<Offsets>,
}

/// An answer of the serving layer.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    /// The view.
    pub(crate) view: &'a str,
    /// The version that answered.
    pub(crate) version: &'a VersionId,
    /// The ledger it was read at.
    pub(crate) ledger: &'a Ledger,
    /// What it says that it covers: per partition batch `[0, b)` and speed `[b, f)`.
    pub(crate) coverage: Vec<(i32, [i64; 2], [i64; 2])>,
    /// What was asked for.
    pub(crate) at_least: &'a Offsets,
    /// How often it counts each event.
    pub(crate) counted: Counted,
    /// What it says that it leaves out, and that it does not leave out yet.
    pub(crate) holes: Holes,
}

impl Audit {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            history: vec![Arc::new(Ledger::default())],
            served: vec![BTreeMap::new()],
            frontiers: vec![Offsets::default()],
            ..Self::default()
        }
    }

    /// The newest state.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(self.history.last().expect("there is a first"))
    }

    fn next(&self, of: &Offsets, partition: i32) -> i64 {
        of.get(&p(partition)).unwrap_or_else(|| self.origins.or_zero(&p(partition)))
    }

    /// An entry has landed.
    pub(crate) fn entry(&mut self, log: &Log, read: impl Fn(&str) -> Option<Vec<u8>>, path: &Path, bytes: &[u8]) {
        let entry: Entry = serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{path} is no entry: {e}"));
        let number = self.history.len() as Number;
        assert!(entry.number == number && path.as_ref().ends_with(&format!("{number:020}.json")), "{path}: not next");
        let mut ledger = (*self.ledger()).clone();
        if let Err(refusal) = ledger.apply(&entry) {
            panic!("entry {number} ({}) of {} is invalid: {refusal}", entry.body.kind(), entry.writer);
        }
        let repeated = entry.body.is_command() && self.entries.iter().any(|before| before.nonce == entry.nonce);
        if !repeated {
            self.take(log, read, &entry);
        }
        self.entries.push(entry);
        self.history.push(Arc::new(ledger));
        self.served.push(self.choose());
        self.frontiers.push(self.frontier.clone());
        self.hold_the_law(log);
    }

    fn take(&mut self, log: &Log, read: impl Fn(&str) -> Option<Vec<u8>>, entry: &Entry) {
        let number = entry.number;
        match &entry.body {
            Body::Created { origins, .. } => {
                assert_eq!(number, 1, "the source begins once");
                self.origins = origins.clone();
            }
            Body::Declared { view, version, .. } => {
                let before = self.versions.get(version).is_some_and(|version| version.active);
                assert!(!before, "entry {number}: {version} is declared twice");
                let begins = self.origins.clone().max(&self.frontier) == self.origins;
                let state = Version {
                    view: view.clone(),
                    active: true,
                    declared_at: self.frontier.clone(),
                    chosen: number,
                    boundary: begins.then(|| self.origins.clone()),
                    holes: BTreeSet::new(),
                    runs: vec![],
                };
                self.versions.insert(version.clone(), state);
            }
            Body::Retired { versions } => {
                let served = self.choose();
                for version in versions {
                    let state = self.versions.get_mut(version).expect("it was declared");
                    assert!(state.active, "entry {number}: {version} is retired twice");
                    state.active = false;
                }
                for (view, version) in served {
                    let left = self.versions.values().any(|state| state.view == view && state.active);
                    assert!(!left || !versions.contains(&version), "entry {number}: {view} is served no more");
                }
            }
            Body::Selected { version } => {
                let state = self.versions.get_mut(version).expect("it was declared");
                assert!(state.active && state.boundary.is_some(), "entry {number}: {version} cannot be selected");
                state.chosen = number;
            }
            Body::Archived { ranges, rows, dead, .. } => {
                self.joins(number, ranges, &self.archived);
                let (mut have, mut want) = (Counted::new(), Counted::new());
                let (mut have_dead, mut want_dead) = (Counted::new(), Counted::new());
                for file in rows {
                    add(&mut have, &self.learn(number, file, &read).section("rows"));
                }
                for file in dead {
                    add(&mut have_dead, &self.learn(number, file, &read).section("dead"));
                }
                for (at, span) in ranges.iter() {
                    log.events(at.partition, span.start, span.end, &mut want);
                    log.dead(at.partition, span.start, span.end, &mut want_dead);
                }
                // What is lost it may have, or pass over.
                for (have, want) in [(&have, &mut want), (&have_dead, &mut want_dead)] {
                    want.retain(|at, _| have.contains_key(at) || !self.is_lost(*at));
                }
                assert!(have == want, "entry {number} archives other events: {}", difference(&have, &want));
                assert!(have_dead == want_dead, "entry {number}, dead: {}", difference(&have_dead, &want_dead));
                self.archived.advance_by(ranges);
                let (rows, dead) = (paths(rows), paths(dead));
                self.archive.insert(number, Archived { ranges: ranges.clone(), rows, dead });
            }
            Body::Folded { ranges, delta, holes, .. } => {
                self.joins(number, ranges, &self.frontier);
                let content = self.learn(number, delta, &read);
                let mut want = Counted::new();
                for (at, span) in ranges.iter() {
                    log.events(at.partition, span.start, span.end, &mut want);
                }
                let holes: BTreeSet<Number> = holes.iter().copied().collect();
                let lost = |change: &&Change| change.kind == ChangeKind::Lost;
                let known = |hole| self.changes.get(hole).filter(lost).is_some();
                assert!(holes.iter().all(known), "entry {number} leaves out {holes:?}, which is not lost");
                want.retain(|at, _| !self.in_holes(&holes, *at));
                let active = self.versions.iter().filter(|(_, state)| state.active);
                let active: Content = Content(active.map(|(id, _)| (id.0.clone(), want.clone())).collect());
                assert!(content == active, "entry {number}: the delta is not that of all active versions: {content:?}");
                self.frontier.advance_by(ranges);
                self.units.insert(number, Durable { ranges: ranges.clone(), holes, delta: delta.path.clone() });
            }
            Body::Lost { ranges, .. } => {
                for (at, span) in ranges.iter() {
                    let archived = self.next(&self.archived, at.partition);
                    assert!(span.start >= archived, "entry {number}: {at} {} is archived, not lost", span.start);
                    assert!(!self.is_lost((at.partition, span.start)), "entry {number}: {at} is lost twice");
                }
                self.changes.insert(number, Change { kind: ChangeKind::Lost, ranges: ranges.clone(), lifted: None });
            }
            Body::Quarantined { ranges, .. } => {
                let kind = ChangeKind::Quarantined;
                self.changes.insert(number, Change { kind, ranges: ranges.clone(), lifted: None });
            }
            Body::Lifted { quarantine, .. } => {
                let change = self.changes.get_mut(quarantine).expect("it was quarantined");
                assert!(
                    change.kind == ChangeKind::Quarantined && change.lifted.is_none(),
                    "entry {number} lifts it not"
                );
                change.lifted = Some(number);
            }
            Body::Compacted { replaces, ranges, versions, delta, holes } => {
                let replaced: Vec<Durable> = replaces.iter().map(|unit| self.units[unit].clone()).collect();
                let mut want: Content = Content(versions.iter().map(|id| (id.0.clone(), Counted::new())).collect());
                for unit in &replaced {
                    let content = &self.files[&unit.delta].1;
                    want.0.iter_mut().for_each(|(id, counted)| add(counted, &content.section(id)));
                }
                let content = self.learn(number, delta, &read);
                assert!(content == want, "entry {number}: the compacted delta is not what it replaces");
                let active = self.versions.iter().filter(|(_, state)| state.active);
                for (id, state) in active {
                    let cut = state.needs_from();
                    let inside = !ranges.below(cut) && !ranges.above(cut);
                    assert!(!inside, "entry {number}: the boundary of {id} lies inside the compacted epochs");
                }
                let of_all: BTreeSet<Number> = replaced.iter().flat_map(|unit| unit.holes.iter().copied()).collect();
                let holes: BTreeSet<Number> = holes.iter().copied().collect();
                assert_eq!(holes, of_all, "entry {number}: the holes");
                replaces.iter().for_each(|unit| drop(self.units.remove(unit)));
                self.units.insert(number, Durable { ranges: ranges.clone(), holes, delta: delta.path.clone() });
            }
            Body::CompactedArchive { replaces, ranges, rows, dead } => {
                let replaced: Vec<Archived> = replaces.iter().map(|unit| self.archive[unit].clone()).collect();
                let positions: i64 = replaced.iter().map(|unit| unit.ranges.positions()).sum();
                assert_eq!(positions, ranges.positions(), "entry {number}: the positions");
                let (mut have, mut want) = (Counted::new(), Counted::new());
                for (files, section) in [(rows, "rows"), (dead, "dead")] {
                    for file in files {
                        add(&mut have, &self.learn(number, file, &read).section(section));
                    }
                }
                for unit in &replaced {
                    unit.rows.iter().for_each(|path| add(&mut want, &self.files[path].1.section("rows")));
                    unit.dead.iter().for_each(|path| add(&mut want, &self.files[path].1.section("dead")));
                }
                assert!(have == want, "entry {number}: the compacted archive: {}", difference(&have, &want));
                replaces.iter().for_each(|unit| drop(self.archive.remove(unit)));
                let (rows, dead) = (paths(rows), paths(dead));
                self.archive.insert(number, Archived { ranges: ranges.clone(), rows, dead });
            }
            Body::Published { boundary, versions, .. } => self.published(log, read, number, boundary, versions),
            Body::Format { .. } => {}
            Body::Expired { .. } => panic!("nobody removes the archive's past here"),
        }
    }

    fn published(
        &mut self,
        log: &Log,
        read: impl Fn(&str) -> Option<Vec<u8>>,
        number: Number,
        boundary: &Offsets,
        versions: &[PublishedVersion],
    ) {
        let whole = self.origins.clone().max(boundary);
        for (at, next) in boundary.iter() {
            let archived = self.next(&self.archived, at.partition);
            assert!(next <= archived, "entry {number}: the boundary {at}:{next} is beyond the archive's {archived}");
        }
        let mut all = Counted::new();
        for (at, next) in whole.iter() {
            log.events(at.partition, self.origins.or_zero(at), next, &mut all);
        }
        for published in versions {
            let holes: BTreeSet<Number> = published.holes.iter().copied().collect();
            let due = self.holes_due(published, &whole);
            assert_eq!(holes, due, "entry {number}, {}: what the batch view leaves out", published.version);
            let mut want = all.clone();
            want.retain(|at, _| !self.in_holes(&holes, *at));
            let mut have = Counted::new();
            for file in &published.runs {
                let content = self.learn(number, file, &read);
                assert_eq!(content.0.keys().collect::<Vec<_>>(), [&published.version.0], "entry {number}: {file:?}");
                add(&mut have, &content.section(&published.version.0));
            }
            let id = &published.version;
            assert!(have == want, "entry {number}, {id}: the batch view is wrong: {}", difference(&have, &want));
            let state = self.versions.get_mut(id).expect("it was declared");
            assert!(state.active, "entry {number}: {id} is not active");
            let before = state.boundary.as_ref().unwrap_or(&state.declared_at);
            assert!(whole.reaches(before), "entry {number}: {id} goes back from {before} to {whole}");
            state.boundary = Some(whole.clone());
            state.holes = holes;
            state.runs = paths(&published.runs);
        }
        self.frontier = std::mem::take(&mut self.frontier).max(boundary);
    }

    /// A file is deleted: it may not be one that an answer or a batch run needs.
    pub(crate) fn swept(&mut self, path: &str) {
        let is = |file: &String| file == path;
        let archive = self.archive.values().any(|unit| unit.rows.iter().chain(&unit.dead).any(is));
        let active = || self.versions.values().filter(|state| state.active);
        let runs = active().any(|state| state.runs.iter().any(is));
        let needed = |unit: &Durable| active().any(|state| !unit.ranges.below(state.needs_from()));
        let deltas = self.units.values().any(|unit| is(&unit.delta) && needed(unit));
        assert!(!archive && !runs && !deltas, "{path} is deleted, and entries in force name it");
        self.deleted.insert(path.to_string());
    }

    /// Ranges start where `frontier` stands.
    fn joins(&self, number: Number, ranges: &Ranges, frontier: &Offsets) {
        for (at, span) in ranges.iter() {
            let stands = self.next(frontier, at.partition);
            assert!(!span.is_empty(), "entry {number}: {at} [{}, {}) holds nothing", span.start, span.end);
            assert_eq!(span.start, stands, "entry {number}: {at} starts at {}, not at {stands}", span.start);
        }
    }

    /// Reads a file when an entry names it: it has to be there, as the entry says.
    fn learn(&mut self, number: Number, file: &File, read: &impl Fn(&str) -> Option<Vec<u8>>) -> Content {
        if let Some((known, content)) = self.files.get(&file.path) {
            assert_eq!(known, file, "entry {number} names a file otherwise than before");
            assert!(!self.deleted.contains(&file.path), "entry {number} names {}, which was deleted", file.path);
            return content.clone();
        }
        let lowest = file.path.rsplit_once('@').map_or(file.path.as_str(), |(path, _)| path);
        let lowest = lowest.rsplit_once('/').map_or("", |(_, name)| name).split('-').next().unwrap_or_default();
        let lowest: Number = lowest.parse().unwrap_or_else(|_| panic!("{} says no number", file.path));
        assert!(lowest <= number, "entry {number} names {}", file.path);
        let bytes = read(&file.path).unwrap_or_else(|| panic!("entry {number} names {}: it is not there", file.path));
        let right = bytes.len() as u64 == file.bytes && crc32fast::hash(&bytes) == file.crc32;
        assert!(right, "entry {number} names {}, which is another", file.path);
        let content = Content::read(&bytes);
        self.files.insert(file.path.clone(), (file.clone(), content.clone()));
        content
    }

    /// The version of each view that has to answer.
    fn choose(&self) -> BTreeMap<String, VersionId> {
        let mut chosen: BTreeMap<String, (&Version, VersionId)> = BTreeMap::new();
        for (id, state) in self.versions.iter().filter(|(_, state)| state.active && state.boundary.is_some()) {
            match chosen.get(&state.view) {
                Some((before, _)) if before.chosen > state.chosen => {}
                _ => drop(chosen.insert(state.view.clone(), (state, id.clone()))),
            }
        }
        chosen.into_iter().map(|(view, (_, id))| (view, id)).collect()
    }

    /// What is durable of each complete version counts each event below the frontier once.
    fn hold_the_law(&self, log: &Log) {
        let ledger = self.ledger();
        let number = ledger.number;
        let before = &self.history[self.history.len() - 2];
        for partition in 0..log.partitions() as i32 {
            let (now, then) = (ledger.frontier(&p(partition)), before.frontier(&p(partition)));
            assert!(now >= then || number == 1, "entry {number}: the frontier of p{partition} went back");
            assert_eq!(now, self.next(&self.frontier, partition), "entry {number}: the frontier of p{partition}");
            assert_eq!(ledger.archived(&p(partition)), self.next(&self.archived, partition), "entry {number}");
        }
        let served = self.served.last().expect("there is one");
        for (view, was) in &self.served[self.served.len() - 2] {
            let left = self.versions.values().any(|state| state.view == *view && state.active);
            assert!(!left || served.contains_key(view), "entry {number}: {view} was served by {was}, now by none");
        }
        let views: Vec<&str> = self.versions.values().map(|state| state.view.as_str()).collect();
        for view in views {
            assert_eq!(ledger.served(view), served.get(view), "entry {number}: the version that serves {view}");
        }
        if matches!(self.entries.last().map(|entry| &entry.body), Some(Body::Archived { .. } | Body::Format { .. })) {
            return;
        }
        let mut once = Counted::new();
        for partition in 0..log.partitions() as i32 {
            let (from, to) = (self.origins.or_zero(&p(partition)), self.next(&self.frontier, partition));
            log.events(partition, from, to, &mut once);
        }
        for (id, state) in self.versions.iter().filter(|(_, state)| state.active && state.boundary.is_some()) {
            let cover = ledger.cover(id).unwrap_or_else(|gap| panic!("entry {number}, {id}: {gap}"));
            let boundary = state.boundary.as_ref().expect("it is complete");
            let mut once = once.clone();
            once.retain(|at, _| {
                let unit = cover
                    .units
                    .iter()
                    .find(|unit| unit.ranges.get(&p(at.0)).is_some_and(|span| (span.start..span.end).contains(&at.1)));
                let holes = match unit {
                    Some(unit) if at.1 >= self.next(boundary, at.0) => &self.units[&unit.number].holes,
                    _ => &state.holes,
                };
                !self.in_holes(holes, *at)
            });
            let mut counted = Counted::new();
            for run in &cover.runs {
                add(&mut counted, &self.files[&run.path].1.section(&id.0));
            }
            for unit in &cover.units {
                add(&mut counted, &self.files[&unit.delta.path].1.section(&id.0));
            }
            assert!(counted == once, "entry {number}, {id} ({state:?}): {}", difference(&counted, &once));
        }
    }

    /// A process's state is that of all entries up to its number.
    pub(crate) fn same(&self, who: &str, ledger: &Ledger) {
        let number = ledger.number as usize;
        assert!(number < self.history.len(), "{who} knows entry {number}, which nobody wrote");
        assert!(*ledger == *self.history[number], "{who}: its ledger at {number} is not that of the entries");
    }

    /// An answer counts each event of the coverage that it states once, but those of its holes.
    pub(crate) fn answer(&self, log: &Log, who: &str, answer: &Answer<'_>) {
        let Answer { view, version, ledger, coverage, at_least, counted, holes } = answer;
        self.same(who, ledger);
        let number = ledger.number as usize;
        assert_eq!(self.served[number].get(*view), Some(*version), "{who}: the version of {view} at {number}");
        let mut once = Counted::new();
        for (partition, batch, speed) in coverage {
            let origin = self.origins.or_zero(&p(*partition));
            assert!(batch[0] == origin && batch[0] <= batch[1], "{who}: batch {batch:?} of p{partition}");
            assert_eq!(batch[1], speed[0], "{who}: a gap or overlap in p{partition}");
            let durable = self.next(&self.frontiers[number], *partition);
            assert!(speed[1] >= durable.max(speed[0]), "{who}: p{partition} to {}, durable is {durable}", speed[1]);
            log.events(*partition, origin, speed[1], &mut once);
        }
        for (at, next) in at_least.iter() {
            let covered =
                next == 0 || coverage.iter().any(|(partition, _, speed)| at == &p(*partition) && speed[1] >= next);
            assert!(covered, "{who}: at_least {at}:{next} is not reached by {coverage:?}");
        }
        self.names_all_that_is_left_out(who, ledger.number, holes, coverage);
        once.retain(|at, _| !holes.holes.iter().any(|hole| holds(hole, *at)));
        assert!(*counted == once, "{who}: {view} ({version}) at {number}: {}", difference(counted, &once));
    }

    /// A view may say that it is being built only if no version of it can answer.
    pub(crate) fn building(&self, who: &str, view: &str, ledger: &Ledger) {
        let served = self.served[ledger.number as usize].get(view);
        assert_eq!(served, None, "{who}: {view} is said to be building at {}", ledger.number);
    }

    /// All entries replayed from the first are the newest state.
    pub(crate) fn replayed(&self) {
        let replayed = Ledger::replay(&self.entries).unwrap_or_else(|(number, why)| panic!("entry {number}: {why}"));
        assert!(replayed == *self.ledger(), "a replay of all entries is another state");
    }
}

fn paths(files: &[File]) -> Vec<String> {
    files.iter().map(|file| file.path.clone()).collect()
}
