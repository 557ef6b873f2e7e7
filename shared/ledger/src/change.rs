//! Positions that are left out of what is counted: lost before they were archived, quarantined by a person, or, for versions that
//! were declared afterwards, expired from the archive.
//!
//! A unit (batch view, delta, live unit) names the changes that its content leaves out. Everything else that a change says of
//! positions below an answer's f is pending: it is still counted.

use serde::{Deserialize, Serialize};

use crate::names::Number;
use crate::offsets::{Offsets, Ranges, Span, TopicPartition};

/// A `lost`, `quarantined` or `expired` entry, and whether it was lifted.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Change {
    /// Its entry.
    pub number: Number,
    /// Which of them.
    pub kind: ChangeKind,
    /// The positions.
    pub ranges: Ranges,
    /// Why.
    pub reason: String,
    /// The effective frontier at its entry: with dedup, events from there on are judged without its rows (rule 23).
    #[serde(default, skip_serializing_if = "Offsets::is_empty")]
    pub frontier: Offsets,
    /// The entry that lifted it.
    #[serde(default)]
    pub lifted: Option<Number>,
}

/// Why positions are left out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// They are nowhere.
    Lost,
    /// Somebody wants them left out.
    Quarantined,
    /// They left the archive. A version that was active then has them in its base view.
    Expired,
}

impl Change {
    /// Whether it speaks of some of the positions `span` of `at`.
    pub fn overlaps(&self, at: &TopicPartition, span: &Span) -> bool {
        !span.is_empty() && self.ranges.get(at).is_some_and(|own| own.start < span.end && own.end > span.start)
    }

    /// Whether some of its positions lie below `cut`.
    pub fn reaches_below(&self, cut: &Offsets) -> bool {
        self.ranges.iter().any(|(at, span)| span.start < cut.or_zero(at))
    }
}

/// Positions of one partition that a change speaks of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Hole {
    /// The partition.
    pub at: TopicPartition,
    /// The first position.
    pub start: i64,
    /// The position after the last.
    pub end: i64,
    /// The change's entry.
    pub change: Number,
}

/// The parts of `ranges` that lie in `[from, to)`.
pub fn parts(change: &Change, from: &Offsets, to: &Offsets) -> Vec<Hole> {
    let part = |(at, span): (&TopicPartition, &Span)| {
        let (start, end) = (span.start.max(from.or_zero(at)), span.end.min(to.or_zero(at)));
        (start < end).then(|| Hole { at: at.clone(), start, end, change: change.number })
    };
    change.ranges.iter().filter_map(part).collect()
}

/// Joins holes of one change that touch.
pub fn joined(mut holes: Vec<Hole>) -> Vec<Hole> {
    holes.sort_by(|a, b| (a.change, &a.at, a.start).cmp(&(b.change, &b.at, b.start)));
    let mut joined: Vec<Hole> = vec![];
    for hole in holes {
        match joined.last_mut() {
            Some(last) if last.change == hole.change && last.at == hole.at && last.end >= hole.start => {
                last.end = last.end.max(hole.end);
            }
            _ => joined.push(hole),
        }
    }
    joined
}
