//! How often each situation was reached: a simulation that never met one has shown nothing about it.

use std::collections::BTreeMap;

/// Counters by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(pub(crate) BTreeMap<String, u64>);

impl Counts {
    /// One more.
    pub(crate) fn note(&mut self, what: &str) {
        match self.0.get_mut(what) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(what.to_string(), 1)),
        }
    }

    /// Takes those of another seed in.
    pub(crate) fn add(&mut self, more: &Counts) {
        for (what, count) in &more.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }

    /// The situations of [`REACHED`] that were not.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        REACHED.iter().filter(|what| !self.0.contains_key(**what)).copied().collect()
    }

    /// As a table.
    pub(crate) fn table(&self) -> String {
        self.0.iter().map(|(what, count)| format!("{count:>10}  {what}\n")).collect()
    }
}

/// What the default run has to reach.
pub(crate) const REACHED: &[&str] = &[
    "accident: asked to end",
    "accident: cut off from the store",
    "accident: cut off when an entry was put",
    "accident: frozen",
    "accident: killed",
    "accident: partitions handed over",
    "accident: slow calls",
    "answer: an instance is ahead, the ledger is read again",
    "answer: at_least not reached in time",
    "answer: building",
    "answer: exact",
    "answer: exact, at_least reached",
    "append: Lost",
    "append: Won",
    "append: Won, though the answer of the put was lost",
    "append: unknown",
    "batch: Full",
    "batch: Incremental",
    "batch: a leap",
    "batch: old versions are retired",
    "batch: overtaken, it starts over",
    "batch: runs are merged",
    "collect: a partition is stopped",
    "collect: out of range",
    "damage: a snapshot or hint",
    "damage: altered",
    "damage: an entry is cut short",
    "damage: an entry is in conflict with a rule",
    "damage: an entry is removed",
    "damage: cut short",
    "damage: found by checksum, length or absence",
    "damage: removed",
    "damage: reported by name",
    "entry: archived",
    "entry: created",
    "entry: declared",
    "entry: folded",
    "entry: landed after its writer was told of a failure",
    "entry: landed, the answer was lost",
    "entry: published",
    "entry: retired",
    "entry: selected",
    "entry: the same put again",
    "fault: AnswerLost",
    "fault: BodyCut",
    "fault: LandsLater",
    "fault: Refused",
    "hint: written",
    "intruder: a leap of one version",
    "intruder: a newer format",
    "intruder: a plan of the future",
    "intruder: an older format",
    "intruder: archived twice",
    "intruder: archived with a gap",
    "intruder: created twice",
    "intruder: declared twice",
    "intruder: first published too low",
    "intruder: folded twice",
    "intruder: folded with a gap",
    "intruder: folded without a version",
    "intruder: folded, empty",
    "intruder: published after it was overtaken",
    "intruder: published backwards",
    "intruder: published beyond the archive",
    "intruder: published through an epoch",
    "intruder: published twice in one",
    "intruder: published, nothing",
    "intruder: retired while served",
    "intruder: selected while building",
    "intruder: selected, unknown",
    "live: a unit committed after the reader's number is used",
    "live: a unit that does not join is left out",
    "live: an instance does not answer",
    "live: an open unit is used",
    "operator: a view is dropped",
    "refused: Active",
    "refused: Backwards",
    "refused: Building",
    "refused: Empty (folded)",
    "refused: Empty (published)",
    "refused: First",
    "refused: Format",
    "refused: Leap",
    "refused: NotArchived",
    "refused: OlderFormat",
    "refused: Overtaken",
    "refused: Place",
    "refused: Plan",
    "refused: Served",
    "refused: Start (archived)",
    "refused: Start (folded)",
    "refused: Torn",
    "refused: Twice",
    "refused: Versions",
    "snapshot: written",
    "speed: a partition is stopped",
    "speed: an epoch is committed",
    "speed: its partitions changed",
    "speed: out of range",
    "toward: Declare",
    "toward: Select",
    "trace: a collector that was overtaken commits",
    "trace: a boundary bridged what the log dropped",
    "trace: a command is repeated",
    "trace: a delta above the boundary is numbered before it",
    "trace: a landed put was offered again under a later number",
    "trace: a late batch run publishes",
    "trace: a leap misses a version declared meanwhile",
    "trace: a retired version is declared again",
    "trace: a version was declared or retired in mid-epoch",
    "trace: an epoch is archived in one partition and not in another",
    "trace: an instance that knows other versions commits",
    "trace: an instance that was overtaken commits",
    "trace: an instance's open epoch beside a rival's",
    "trace: an open epoch was overtaken",
    "trace: the archive ends inside an epoch",
    "upload: left half written",
    "weather: a partition is added",
    "weather: another pipeline is deployed",
    "weather: retention",
    "weather: the log lost offsets",
];
