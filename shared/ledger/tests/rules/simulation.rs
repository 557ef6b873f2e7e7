//! Random writers on stale copies of the ledger: whatever they do, every offset below the frontier is counted once.
//!
//! What a delta or a batch view counts is modelled as a set of offsets, a batch view's by the name of its run. A writer
//! reads, decides, and puts later, when others may have put before it: it is then refused, reads and decides again.

use std::collections::BTreeMap;

use bifold_ledger::{
    ArchiveCounts, BaseView, BatchPlan, Body, ChangeKind, Dialect, Entry, Gap, Hole, Ledger, Mode, Number, Offsets,
    PublishedVersion, Ranges, Refusal, Span, VersionId,
};
use proptest::prelude::*;

use crate::dsl::{entry, file, p, published, vector};

const PARTITIONS: i32 = 3;
const VERSIONS: [(&str, &str); 4] = [("v1", "v"), ("v2", "v"), ("u1", "u"), ("u2", "u")];

/// How often each (partition, offset) is counted.
type Counted = BTreeMap<(i32, i64), u32>;

fn count(counted: &mut Counted, from: &Offsets, to: &Offsets) {
    for partition in 0..PARTITIONS {
        for offset in from.or_zero(&p(partition))..to.or_zero(&p(partition)) {
            *counted.entry((partition, offset)).or_default() += 1;
        }
    }
}

/// The same of what the archive of `seen` holds.
fn count_archived(counted: &mut Counted, seen: &Ledger, from: &Offsets, to: &Offsets) {
    let kept: Offsets = (0..PARTITIONS).map(|at| (p(at), seen.kept_from(&p(at)))).collect();
    count(counted, &kept.max(from), to);
}

fn add(counted: &mut Counted, more: &Counted) {
    for (event, times) in more {
        *counted.entry(*event).or_default() += times;
    }
}

/// What a step does, and numbers to choose by.
#[derive(Clone, Copy, Debug)]
struct Act {
    role: usize,
    what: u8,
    a: i64,
    b: i64,
    c: i64,
}

fn act() -> impl Strategy<Value = Act> {
    (0..8usize, 0..8u8, 0..4i64, 0..4i64, 0..4i64).prop_map(|(role, what, a, b, c)| Act { role, what, a, b, c })
}

/// A process: its copy of the ledger and what it is about to put.
#[derive(Clone, Default)]
struct Writer {
    seen: Ledger,
    pending: Option<(Body, Act)>,
}

struct World {
    ledger: Ledger,
    entries: Vec<Entry>,
    writers: Vec<Writer>,
    /// What each run counts, by path.
    runs: BTreeMap<String, Counted>,
}

impl World {
    fn new(origins: &str) -> World {
        let topics = BTreeMap::default();
        let mut world =
            World { ledger: Ledger::default(), entries: vec![], writers: vec![], runs: BTreeMap::default() };
        world
            .put(Body::Created { format: 3, source: "s".into(), topics, origins: vector(origins) })
            .expect("the first");
        world.writers = vec![Writer { seen: world.ledger.clone(), pending: None }; 8];
        world
    }

    fn step(&mut self, act: Act) {
        match act.what {
            0 => self.read(act.role),
            1 => self.decide(act), // on a copy as old as it is
            2 | 3 => self.put_pending(act.role),
            _ => {
                self.read(act.role);
                self.decide(act);
                if act.what > 5 {
                    self.put_pending(act.role);
                }
            }
        }
    }

    fn read(&mut self, role: usize) {
        self.writers[role] = Writer { seen: self.ledger.clone(), pending: None };
    }

    /// Decides on the copy, stale or not.
    fn decide(&mut self, act: Act) {
        let seen = self.writers[act.role].seen.clone();
        let body = match act.role {
            0 | 1 => ranges(act, |at| seen.past_lost(&p(at), seen.frontier(&p(at)))).map(|ranges| {
                let ranges: Ranges =
                    ranges.iter().map(|(at, span)| (at.clone(), Span::new(seen.frontier(at), span.end))).collect();
                let lost = ranges.iter().flat_map(|(at, span)| seen.lost_between(at, span.start, span.end));
                let holes: std::collections::BTreeSet<_> = lost.collect();
                Body::Folded {
                    ranges,
                    versions: seen.active(),
                    delta: file("delta"),
                    events: 1,
                    newest_event_us: None,
                    holes: holes.into_iter().collect(),
                    duplicates: 0,
                    seen: None,
                }
            }),
            2 | 3 => archivable(&seen, act).map(|ranges| Body::Archived {
                ranges,
                rows: vec![],
                dead: vec![],
                counts: ArchiveCounts::default(),
                decoding: String::new(),
            }),
            4 | 5 => self.plan(&seen, act),
            7 if act.b == 3 && act.c > 1 => self.expire(&seen, act),
            7 => change(&seen, act),
            _ => Some(command(&seen, act)),
        };
        self.writers[act.role].pending = body.map(|body| (body, act));
    }

    /// Puts under the next number; if that is refused, extends or decides again, once.
    fn put_pending(&mut self, role: usize) {
        let Some((body, act)) = self.writers[role].pending.take() else { return };
        let refusal = self.put(body.clone()).err();
        self.read(role);
        if let Some(refusal) = refusal {
            match self.extended(&body, &refusal) {
                Some(longer) => drop(self.put(longer)),
                None => {
                    self.decide(act);
                    if let Some((body, _)) = self.writers[role].pending.take() {
                        drop(self.put(body));
                    }
                }
            }
            self.read(role);
        }
    }

    fn put(&mut self, body: Body) -> Result<(), Refusal> {
        let entry = entry(self.ledger.number + 1, body);
        let before = self.ledger.clone();
        self.ledger.apply(&entry)?;
        self.entries.push(entry);
        self.check(&before);
        Ok(())
    }

    /// A batch run up to a boundary of the ledger's choice, with what its runs count.
    fn plan(&mut self, seen: &Ledger, act: Act) -> Option<Body> {
        let wanted: Vec<_> = seen.active().into_iter().enumerate().filter(|(i, _)| act.b & (1 << i) == 0).collect();
        let wanted: Vec<_> = wanted.into_iter().map(|(_, id)| id).collect();
        let BatchPlan { plan, boundary, versions } = seen.plan_batch(&wanted, seen.next_boundary(act.a), act.c == 0);
        let mut built = vec![];
        for version in versions.into_iter().filter(|version| version.mode != Mode::None) {
            let mut counted = Counted::new();
            for kept in &version.keep {
                add(&mut counted, &self.runs[&kept.path]);
            }
            count_archived(&mut counted, seen, &version.from, &boundary);
            leave_out(&mut counted, &seen.parts_of(&version.holes, &version.from, &boundary));
            built.push((version.version, counted, version.holes, version.mode == Mode::Full));
        }
        let body = self.publish(plan, boundary, built)?;
        assert_eq!(seen.check(seen.number + 1, &body), Ok(()), "what is planned may be published");
        Some(body)
    }

    /// Base views up to some positions, and the archive below them removed.
    fn expire(&mut self, seen: &Ledger, act: Act) -> Option<Body> {
        let wish = (0..PARTITIONS).map(|at| (p(at), seen.kept_from(&p(at)) + act.a + i64::from(at))).collect();
        let lookback = act.c - 2;
        let plan = seen.expirable(&wish, |_| lookback)?;
        let mut bases = vec![];
        for (boundary, lookback, version) in plan.bases {
            let mut counted = Counted::new();
            for kept in &version.keep {
                add(&mut counted, &self.runs[&kept.path]);
            }
            count_archived(&mut counted, seen, &version.from, &boundary);
            leave_out(&mut counted, &seen.parts_of(&version.holes, &version.from, &boundary));
            let path = format!("base-{}", self.runs.len());
            self.runs.insert(path.clone(), counted);
            let (version, holes) = (version.version, version.holes);
            bases.push(BaseView { version, boundary, lookback, runs: vec![file(&path)], holes, ..BaseView::default() });
        }
        let body = Body::Expired { plan: plan.plan, below: plan.below, bases };
        assert_eq!(seen.check(seen.number + 1, &body), Ok(()), "what is planned may expire");
        Some(body)
    }

    fn publish(
        &mut self,
        plan: Number,
        boundary: Offsets,
        built: Vec<(VersionId, Counted, Vec<Number>, bool)>,
    ) -> Option<Body> {
        let mut versions = vec![];
        for (version, counted, holes, full) in built {
            let path = format!("run-{}", self.runs.len());
            self.runs.insert(path.clone(), counted);
            versions.push(PublishedVersion { holes, full, ..published(version, &path) });
        }
        (!versions.is_empty()).then_some(Body::Published { plan, boundary, versions })
    }

    /// The result of a refused run, extended to a newer cut and without versions retired meanwhile (rule 14).
    fn extended(&mut self, body: &Body, refusal: &Refusal) -> Option<Body> {
        let Body::Published { plan, boundary, versions } = body else { return None };
        let newer = self.ledger.next_boundary(3);
        let overtaken = matches!(refusal, Refusal::Overtaken { .. } | Refusal::Changed { .. });
        // What changed above the plan's boundary would have to be left out of the extension.
        let changed = self.ledger.changes.iter().any(|c| c.number > *plan || c.lifted.is_some_and(|by| by > *plan));
        if overtaken || changed || !newer.reaches(boundary) {
            return None;
        }
        let active = self.ledger.active();
        let mut built = vec![];
        for version in versions.iter().filter(|version| active.contains(&version.version)) {
            let mut counted = self.runs[&version.runs[0].path].clone();
            count(&mut counted, boundary, &newer);
            let lost = self.ledger.changes.iter().filter(|c| c.kind == ChangeKind::Lost && c.reaches_below(&newer));
            let mut holes = version.holes.clone();
            holes.extend(lost.map(|c| c.number).filter(|number| !version.holes.contains(number)));
            leave_out(&mut counted, &self.ledger.parts_of(&holes, boundary, &newer));
            // A quarantine that the plan's boundary cut has to stay pending, or be left out whole.
            built.push((version.version.clone(), counted, holes, version.full));
        }
        self.publish(*plan, newer, built)
    }

    /// What holds after every entry.
    fn check(&self, before: &Ledger) {
        let (ledger, number) = (&self.ledger, self.ledger.number);
        assert!(ledger.effective().reaches(&before.effective()), "entry {number}: the frontier went back");
        assert!(ledger.archived.reaches(&before.archived), "entry {number}: the archive went back");
        let mut once = Counted::new();
        count(&mut once, &ledger.origins, &ledger.effective());
        for (id, version) in ledger.versions.iter().filter(|(_, version)| version.active) {
            let cover = match ledger.cover(id) {
                Err(Gap::Building(_)) if !version.complete() => continue,
                Err(gap) => panic!("entry {number}: {gap}"),
                Ok(cover) => cover,
            };
            let boundary = ledger.origins.clone().max(version.boundary.as_ref().expect("it is complete"));
            assert_eq!(cover.boundary, boundary, "entry {number}, {id}");
            assert_eq!(cover.frontier, ledger.effective(), "entry {number}, {id}");
            let mut counted = Counted::new();
            for run in &cover.runs {
                add(&mut counted, &self.runs[&run.path]);
            }
            for unit in &cover.units {
                let (from, to) = (unit.ranges.starts(), unit.ranges.ends());
                count(&mut counted, &from, &to);
                leave_out(&mut counted, &ledger.parts_of(&unit.holes, &from, &to));
            }
            let holes = ledger.holes(&cover, &[]);
            let mut expected = once.clone();
            leave_out(&mut expected, &holes.holes);
            assert_eq!(
                counted, expected,
                "entry {number}, {id}: every offset below the frontier is counted once, but holes"
            );
            for hole in &holes.pending {
                let offsets = (hole.start..hole.end).map(|offset| (hole.at.partition, offset));
                let elsewhere = |at: &(i32, i64)| !counted.contains_key(at);
                let left_out = |at: &(i32, i64)| {
                    holes.holes.iter().any(|h| h.at.partition == at.0 && h.start <= at.1 && at.1 < h.end)
                };
                assert!(
                    offsets.into_iter().all(|at| !elsewhere(&at) || left_out(&at)),
                    "entry {number}: pending is counted"
                );
            }
        }
        for view in ["v", "u"] {
            let dropped = ledger.versions.values().all(|version| version.view != view || !version.active);
            let served = ledger.served(view).is_some();
            assert!(served || dropped || before.served(view).is_none(), "entry {number}: {view} is served no more");
        }
    }

    /// Archives and folds to one point and runs a batch for all versions.
    fn come_to_rest(&mut self) {
        let goal = self.ledger.effective().max(&self.ledger.archived);
        let goal = |at: i32| goal.or_zero(&p(at));
        let upto = |from: &dyn Fn(i32) -> i64| -> Option<Ranges> {
            let behind = (0..PARTITIONS).filter(|at| from(*at) < goal(*at));
            let ranges: Ranges = behind.map(|at| (p(at), Span::new(from(at), goal(at)))).collect();
            (!ranges.is_empty()).then_some(ranges)
        };
        if let Some(ranges) = upto(&|at| self.ledger.archived(&p(at))) {
            let counts = ArchiveCounts::default();
            self.put(Body::Archived { ranges, rows: vec![], dead: vec![], counts, decoding: String::new() })
                .expect("it goes on");
        }
        if let Some(ranges) = upto(&|at| self.ledger.frontier(&p(at))) {
            let lost = ranges.iter().flat_map(|(at, span)| self.ledger.lost_between(at, span.start, span.end));
            let holes = lost.collect::<std::collections::BTreeSet<_>>().into_iter().collect();
            let versions = self.ledger.active();
            self.put(Body::Folded {
                ranges,
                versions,
                delta: file("delta"),
                events: 1,
                newest_event_us: None,
                holes,
                duplicates: 0,
                seen: None,
            })
            .expect("it goes on");
        }
        let now = self.ledger.clone();
        if let Some(body) = self.plan(&now, Act { role: 4, what: 1, a: i64::MAX, b: 0, c: 1 }) {
            self.put(body).expect("nobody was faster");
        }
    }
}

/// Up to three more offsets of each partition; none at all is no entry.
fn ranges(act: Act, from: impl Fn(i32) -> i64) -> Option<Ranges> {
    let lengths = [act.a, act.b, act.c].into_iter().zip(0..PARTITIONS).filter(|(length, _)| *length > 0);
    let ranges: Ranges = lengths.map(|(length, at)| (p(at), Span::new(from(at), from(at) + length))).collect();
    (!ranges.is_empty()).then_some(ranges)
}

/// The same for the archive, which in half of the cases comes up with the fold.
fn archivable(seen: &Ledger, act: Act) -> Option<Ranges> {
    let from = |at: i32| seen.archived(&p(at));
    if act.c > 1 {
        return ranges(act, from);
    }
    let behind = (0..PARTITIONS).filter(|at| from(*at) < seen.frontier(&p(*at)));
    let ranges: Ranges = behind.map(|at| (p(at), Span::new(from(at), seen.frontier(&p(at))))).collect();
    (!ranges.is_empty()).then_some(ranges)
}

/// Takes what lies in holes out of what is counted.
fn leave_out(counted: &mut Counted, holes: &[Hole]) {
    counted.retain(|(partition, offset), _| {
        !holes.iter().any(|hole| hole.at.partition == *partition && hole.start <= *offset && *offset < hole.end)
    });
}

/// Something is lost, quarantined, lifted, or units are compacted.
fn change(seen: &Ledger, act: Act) -> Option<Body> {
    let at = p(act.a as i32 % PARTITIONS);
    let range = |start: i64| -> Ranges { [(at.clone(), Span::new(start, start + 1 + act.c))].into_iter().collect() };
    match act.b {
        0 => Some(Body::Quarantined { ranges: range(act.c * 2), reason: String::new() }),
        1 if act.c < 2 => Some(Body::Lost { ranges: range(seen.archived(&at)), reason: String::new() }),
        1 => seen.changes.get(act.c as usize).map(|c| Body::Lifted { quarantine: c.number, reason: String::new() }),
        _ => {
            let units = seen.compactable(2, u64::MAX, &[])?;
            let units = &units[..units.len().min(2 + act.c as usize)];
            Some(Body::Compacted {
                replaces: units.iter().map(|unit| unit.number).collect(),
                ranges: Ranges::joined(units.iter().map(|unit| &unit.ranges)),
                versions: units[0].versions.clone(),
                delta: file("big"),
                holes: bifold_ledger::holes_of(units),
            })
        }
    }
}

/// A command that somebody gives; it may be refused.
fn command(seen: &Ledger, act: Act) -> Body {
    let (version, view) = VERSIONS[act.a as usize];
    match act.b {
        0 | 1 if !seen.versions.get(&version.into()).is_some_and(|version| version.active) => Body::Declared {
            view: view.into(),
            version: version.into(),
            sql: String::new(),
            source: serde_json::Value::Null,
            dialect: Dialect::FIRST,
        },
        2 => Body::Selected { version: version.into() },
        _ if act.c == 0 => {
            let whole = seen.versions.iter().filter(|(_, version)| version.active && version.view == view);
            Body::Retired { versions: whole.map(|(id, _)| id.clone()).collect() }
        }
        _ => Body::Retired { versions: vec![version.into()] },
    }
}

fn worlds() -> impl Strategy<Value = (&'static str, Vec<Act>)> {
    (prop::sample::select(vec!["(0,0)", "(2,3)", "(–,4)"]), prop::collection::vec(act(), 1..300))
}

/// A shrunk failure is printed with its steps.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: std::env::var("BIFOLD_SIM_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(500),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_offset_is_counted_once_whoever_writes_when((origins, acts) in worlds()) {
        let mut world = World::new(origins);
        acts.into_iter().for_each(|act| world.step(act));
        let replayed = Ledger::replay(&world.entries).expect("all were valid");
        prop_assert_eq!(&replayed, &world.ledger);
        let stored = serde_json::to_string(&world.ledger).expect("a ledger is JSON");
        prop_assert_eq!(serde_json::from_str::<Ledger>(&stored).expect("its own JSON"), replayed);
    }

    #[test]
    fn at_rest_every_active_version_is_built((origins, acts) in worlds()) {
        let mut world = World::new(origins);
        acts.into_iter().for_each(|act| world.step(act));
        world.come_to_rest();
        for (id, version) in world.ledger.versions.iter().filter(|(_, version)| version.active) {
            let boundary = version.boundary.clone().unwrap_or_default();
            prop_assert!(boundary.reaches(&world.ledger.effective()), "{id} stands at {boundary}");
        }
    }
}
