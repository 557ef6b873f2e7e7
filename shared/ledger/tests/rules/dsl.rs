//! Traces as text: steps separated by `;`, partitions `p0` and `p1` of the topic `w`, vectors `(a,b)`.
//!
//! ```text
//! O(0,5)                   the origins, if not (0,0); only as the first step
//! D v1   D u1@u   DD v1    declared, of view v or of another; of a source with dedup
//! R v1,v2   S v1   M 1     retired, selected, format
//! A p0→3 p1→1              archived, from the archive frontier; a range p0[0,3) says its start
//! F p0→2   F{v1} p0[0,2)   folded, for all active versions or for those named
//! P(1,0)   P@3{v1}(1,0)    published in full, for all active versions, planned now; or planned at 3, for those named
//! I(1,0)                   published incrementally, as planned now
//! X p0[0,2)   Q p0[0,2)    lost, quarantined   L 5   the quarantine of entry 5 lifted
//! C 3,4   CA 3,4           the epochs, the archive files of entries 3 and 4 compacted
//! Z(1,0)   Z@3{v1}(1,0)+2  expired, as P: the base views reach so many positions further as deduplication looks back
//! ```
//!
//! `(1)` leaves p1 out, `(–,1)` p0. The created entry is number 1, the first step 2.

use bifold_ledger::change::Hole;
use bifold_ledger::{
    ArchiveCounts, BaseView, Body, Change, ChangeKind, Cover, Dialect, Entry, File, Ledger, Mode, Nonce, Number,
    Offsets, PublishedVersion, Ranges, Refusal, Span, TopicPartition, VersionId, VersionPlan,
};

/// A ledger and the entries that made it.
pub(crate) struct Trace {
    pub(crate) ledger: Ledger,
    pub(crate) entries: Vec<Entry>,
}

/// The ledger after a trace, every step of which is valid.
pub(crate) fn run(text: &str) -> Ledger {
    trace(text).ledger
}

/// The same with its entries.
pub(crate) fn trace(text: &str) -> Trace {
    let steps = steps(text);
    let mut trace = Trace::begin(&steps);
    for step in &steps {
        trace.put(step).unwrap_or_else(|refusal| panic!("{text}: {step} is refused: {refusal}"));
    }
    trace
}

/// Why the last step of a trace is refused; the ones before it are valid.
pub(crate) fn refusal(text: &str) -> String {
    let mut steps = steps(text);
    let mut trace = Trace::begin(&steps);
    let last = steps.pop().expect("a trace has steps");
    for step in steps {
        trace.put(step).unwrap_or_else(|refusal| panic!("{text}: {step} is refused: {refusal}"));
    }
    match trace.put(last) {
        Ok(()) => panic!("{text}: {last} is accepted"),
        Err(refusal) => refusal.to_string(),
    }
}

/// Each trace is valid up to its last step, which is refused with a message that begins so.
pub(crate) fn refused(cases: &[(&str, &str)]) {
    for (text, message) in cases {
        let refusal = refusal(text);
        assert!(refusal.starts_with(message), "{text}: {refusal}");
    }
}

fn steps(text: &str) -> Vec<&str> {
    text.split(';').map(str::trim).filter(|step| !step.is_empty()).collect()
}

impl Trace {
    fn begin(steps: &[&str]) -> Trace {
        let origins = match steps.first() {
            Some(step) if step.starts_with('O') => vector(step),
            _ => vector("(0,0)"),
        };
        let topics = [("w".to_string(), "id-of-w".to_string())].into();
        let mut trace = Trace { ledger: Ledger::default(), entries: vec![] };
        let format = match () {
            () if steps.iter().any(|step| step.starts_with('Z')) => 3,
            () if steps.iter().any(|step| step.starts_with(['X', 'Q', 'L', 'C'])) => 2,
            () => 1,
        };
        trace.append(Body::Created { format, source: "s".into(), topics, origins }).expect("it is the first");
        trace
    }

    /// Puts one step, if the rules allow it.
    pub(crate) fn put(&mut self, step: &str) -> Result<(), Refusal> {
        if step.starts_with('O') { Ok(()) } else { self.append(body(step, &self.ledger)) }
    }

    pub(crate) fn append(&mut self, body: Body) -> Result<(), Refusal> {
        let entry = entry(self.ledger.number + 1, body);
        self.ledger.apply(&entry)?;
        self.entries.push(entry);
        Ok(())
    }
}

/// The body that a step means on `ledger`.
pub(crate) fn body(step: &str, ledger: &Ledger) -> Body {
    let rest = step[1..].trim();
    let named = between(step, '{', '}').map(versions);
    match &step[..1] {
        "D" => {
            let (rest, source) = match rest.strip_prefix("D ") {
                Some(rest) => (rest.trim(), serde_json::json!({ "dedup": { "columns": ["id"], "lookback": 5 } })),
                None => (rest, serde_json::Value::Null),
            };
            let (version, view) = rest.split_once('@').unwrap_or((rest, "v"));
            Body::Declared {
                view: view.into(),
                version: version.into(),
                sql: format!("SELECT {version}"),
                source,
                dialect: Dialect::FIRST,
            }
        }
        "R" => Body::Retired { versions: versions(rest) },
        "S" => Body::Selected { version: rest.into() },
        "M" => Body::Format { format: rest.parse().expect("a format") },
        "A" => {
            let ranges = ranges(rest, |at| ledger.archived(at));
            let counts = ArchiveCounts { rows: ranges.positions() as u64, ..ArchiveCounts::default() };
            Body::Archived { ranges, rows: vec![file("rows")], dead: vec![], counts, decoding: String::new() }
        }
        "F" => {
            let ranges = ranges(rest, |at| ledger.frontier(at));
            let (versions, events) = (named.unwrap_or_else(|| ledger.active()), ranges.positions() as u64);
            let holes = ranges.iter().flat_map(|(at, span)| ledger.lost_between(at, span.start, span.end)).collect();
            Body::Folded {
                ranges,
                versions,
                delta: file("delta"),
                events,
                newest_event_us: None,
                holes,
                duplicates: 0,
                seen: None,
            }
        }
        "X" => Body::Lost { ranges: ranges(rest, |at| ledger.archived(at)), reason: "gone".into() },
        "Q" => Body::Quarantined { ranges: ranges(rest, |_| 0), reason: "wrong".into() },
        "L" => Body::Lifted { quarantine: rest.parse().expect("a number"), reason: "right".into() },
        "C" => {
            let numbers = |text: &str| text.split(',').map(|n| n.trim().parse().expect("a number")).collect();
            let together = |parts: Vec<&Ranges>| {
                let mut ranges = Ranges::default();
                for (at, span) in parts.into_iter().flat_map(Ranges::iter) {
                    ranges.0.entry(at.clone()).and_modify(|known| known.end = span.end).or_insert(*span);
                }
                ranges
            };
            match rest.strip_prefix('A') {
                Some(rest) => {
                    let replaces: Vec<Number> = numbers(rest);
                    let units = ledger.archive.iter().filter(|unit| replaces.contains(&unit.number));
                    let ranges = together(units.map(|unit| &unit.ranges).collect());
                    Body::CompactedArchive { replaces, ranges, rows: vec![file("big")], dead: vec![] }
                }
                None => {
                    let replaces: Vec<Number> = numbers(rest);
                    let units: Vec<_> = ledger.units.iter().filter(|unit| replaces.contains(&unit.number)).collect();
                    let ranges = together(units.iter().map(|unit| &unit.ranges).collect());
                    let versions = units.first().map(|unit| unit.versions.clone()).unwrap_or_default();
                    let mut holes: Vec<Number> = units.iter().flat_map(|unit| unit.holes.clone()).collect();
                    holes.dedup();
                    Body::Compacted { replaces, ranges, versions, delta: file("big"), holes }
                }
            }
        }
        "Z" => {
            let plan = step.split(['@', '{', '(']).nth(1).filter(|_| step.contains('@'));
            let plan = plan.map_or(ledger.number, |plan| plan.parse().expect("a number"));
            let lookback: i64 = step.split_once('+').map_or(0, |(_, back)| back.trim().parse().expect("a number"));
            let below = vector(step);
            let boundary: Offsets = below
                .iter()
                .map(|(at, next)| (at.clone(), if next > ledger.origin(at) { next + lookback } else { next }))
                .collect();
            let reach = boundary.clone();
            let one = |version: VersionId| {
                let base = ledger.versions.get(&version).and_then(|version| version.base.clone());
                let left_out = |change: &&Change| match change.kind {
                    ChangeKind::Expired => base.is_none(),
                    _ => change.lifted.is_none() && change.reaches_below(&reach),
                };
                let holes = ledger.changes.iter().filter(left_out).map(|change| change.number);
                let mut holes: Vec<Number> = base.iter().flat_map(|base| base.holes.clone()).chain(holes).collect();
                holes.sort_unstable();
                holes.dedup();
                let boundary = base.iter().fold(boundary.clone(), |boundary, base| boundary.max(&base.boundary));
                BaseView { version, boundary, lookback, runs: vec![file("base")], holes, ..BaseView::default() }
            };
            let bases = named.unwrap_or_else(|| ledger.active()).into_iter().map(one).collect();
            Body::Expired { plan, below, bases }
        }
        "I" => {
            let boundary = vector(step);
            let plan = ledger.plan_batch(&ledger.active(), boundary.clone(), false);
            let built = plan.versions.into_iter().filter(|version| version.mode != Mode::None);
            let one = |version: VersionPlan| {
                let runs = version.keep.into_iter().chain([file("more")]).collect();
                PublishedVersion { version: version.version, runs, holes: version.holes, ..PublishedVersion::default() }
            };
            Body::Published { plan: plan.plan, boundary, versions: built.map(one).collect() }
        }
        "P" => {
            let plan = step.split(['@', '{', '(']).nth(1).filter(|_| step.contains('@'));
            let plan = plan.map_or(ledger.number, |plan| plan.parse().expect("a number"));
            let versions = named.unwrap_or_else(|| ledger.active()).into_iter();
            let boundary = vector(step);
            let planned = ledger.plan_batch(&ledger.active(), boundary.clone(), true).versions;
            let holes = |version: &VersionId| {
                let of_it = planned.iter().find(|planned| planned.version == *version);
                of_it.map_or(vec![], |planned| planned.holes.clone())
            };
            let versions = versions
                .map(|version| PublishedVersion { holes: holes(&version), full: true, ..published(version, "run") })
                .collect();
            Body::Published { plan, boundary, versions }
        }
        other => panic!("no such step: {other}"),
    }
}

/// An entry with `body`, whose nonce is its number's.
pub(crate) fn entry(number: Number, body: Body) -> Entry {
    let at = "2026-11-21T10:00:00Z".into();
    Entry { number, writer: "test".into(), nonce: Nonce(format!("nonce-{number}")), at, body }
}

/// A batch view of one run.
pub(crate) fn published(version: VersionId, path: &str) -> PublishedVersion {
    PublishedVersion { version, runs: vec![file(path)], ..PublishedVersion::default() }
}

/// A file of some name.
pub(crate) fn file(path: &str) -> File {
    File { path: path.into(), bytes: 100, crc32: 7, rows: 10, tail: None }
}

/// The partition `partition` of the topic w.
pub(crate) fn p(partition: i32) -> TopicPartition {
    TopicPartition::new("w", partition)
}

/// The vector in a step, or alone.
pub(crate) fn vector(text: &str) -> Offsets {
    let inner = between(text, '(', ')').expect("a vector").split(',').map(str::trim).enumerate();
    let named = inner.filter(|(_, next)| *next != "–" && !next.is_empty());
    named.map(|(i, next)| (p(i as i32), next.parse().expect("an offset"))).collect()
}

/// A vector as it is written here.
pub(crate) fn show(offsets: &Offsets) -> String {
    let last = offsets.iter().map(|(at, _)| at.partition).max().unwrap_or(-1);
    let next = |i| offsets.get(&p(i)).map_or("–".to_string(), |next| next.to_string());
    format!("({})", (0..=last).map(next).collect::<Vec<_>>().join(","))
}

/// What is durable of a version: `boundary + units = frontier`, or why nothing is.
pub(crate) fn durable(ledger: &Ledger, version: &str) -> String {
    match ledger.cover(&version.into()) {
        Ok(Cover { boundary, units, frontier, .. }) => {
            let units: Vec<_> = units.iter().map(|unit| unit.number).collect();
            format!("{} + {units:?} = {}", show(&boundary), show(&frontier))
        }
        Err(gap) => gap.to_string(),
    }
}

/// The ranges `p0→3` (from where a partition stands) and `p0[0,3)` of a text.
pub(crate) fn ranges(text: &str, stands: impl Fn(&TopicPartition) -> i64) -> Ranges {
    let mut ranges = Ranges::default();
    for token in text.split_whitespace().filter(|token| token.starts_with('p')) {
        let (name, span) = match (token.split_once('→'), between(token, '[', ')')) {
            (Some((name, end)), _) => (name, (None, end)),
            (_, Some(inner)) => {
                let (start, end) = inner.split_once(',').expect("start,end");
                (token.split('[').next().expect("a name"), (Some(start), end))
            }
            _ => panic!("no range: {token}"),
        };
        let at = p(name[1..].parse().expect("a partition"));
        let number = |text: &str| text.trim().parse::<i64>().expect("an offset");
        let start = span.0.map_or_else(|| stands(&at), number);
        ranges.0.insert(at, Span::new(start, number(span.1)));
    }
    ranges
}

fn versions(text: &str) -> Vec<VersionId> {
    text.split(',').map(str::trim).filter(|id| !id.is_empty()).map(VersionId::from).collect()
}

fn between(text: &str, open: char, close: char) -> Option<&str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inner, _)| inner)
}

fn show_holes(holes: &[Hole]) -> String {
    let one = |hole: &Hole| format!("p{}[{},{})#{}", hole.at.partition, hole.start, hole.end, hole.change);
    holes.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// `holes | pending_holes` of an answer of durable units.
pub(crate) fn holes(ledger: &Ledger, version: &str) -> String {
    let cover = ledger.cover(&version.into()).expect("it can answer");
    let holes = ledger.holes(&cover, &[]);
    format!("{} | {}", show_holes(&holes.holes), show_holes(&holes.pending))
}
