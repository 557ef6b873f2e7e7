//! What is left out: which changes a batch view has to leave out, and which ones an answer has to name.

use std::collections::BTreeSet;

use bifold_ledger::{ChangeKind, Hole, Holes, Number, Offsets, PublishedVersion, Ranges};

use super::Audit;
use crate::log::p;

/// What is lost or quarantined.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    pub(super) ranges: Ranges,
    pub(super) lifted: Option<Number>,
}

impl Change {
    fn speaks_of(&self, at: (i32, i64)) -> bool {
        self.ranges.get(&p(at.0)).is_some_and(|span| (span.start..span.end).contains(&at.1))
    }

    /// Its positions.
    fn offsets(&self) -> impl Iterator<Item = (i32, i64)> {
        self.ranges.iter().flat_map(|(at, span)| (span.start..span.end).map(|offset| (at.partition, offset)))
    }
}

impl Audit {
    /// What a batch view has to leave out (rule 21): all that is lost below its boundary; a full one the quarantines in force that end
    /// below it; an incremental one what its base did, and of those quarantines the ones that start where it starts.
    pub(super) fn holes_due(&self, published: &PublishedVersion, whole: &Offsets) -> BTreeSet<Number> {
        let state = &self.versions[&published.version];
        let base = state.boundary.as_ref().filter(|_| !published.full);
        let due = |(_, change): &(&Number, &Change)| {
            let mut spans = change.ranges.iter();
            let new = |(at, from)| base.is_none_or(|base| from >= self.next(base, at));
            match change.kind {
                ChangeKind::Expired => panic!("nobody removes the archive's past here"),
                ChangeKind::Lost => spans.any(|(at, span)| span.start < self.next(whole, at.partition)),
                ChangeKind::Quarantined => {
                    change.lifted.is_none()
                        && spans.all(|(at, span)| {
                            span.end <= self.next(whole, at.partition) && new((at.partition, span.start))
                        })
                }
            }
        };
        let kept = state.holes.iter().filter(|_| base.is_some());
        self.changes.iter().filter(due).map(|(number, _)| number).chain(kept).copied().collect()
    }

    pub(super) fn is_lost(&self, at: (i32, i64)) -> bool {
        self.changes.values().any(|change| change.kind == ChangeKind::Lost && change.speaks_of(at))
    }

    /// Whether one of these changes speaks of a position.
    pub(super) fn in_holes(&self, holes: &BTreeSet<Number>, at: (i32, i64)) -> bool {
        holes.iter().any(|hole| self.changes.get(hole).is_some_and(|change| change.speaks_of(at)))
    }

    /// Every position of a change below the frontier stands in the answer's holes, or, if it is in force, in those that are pending: in
    /// one of the two; and nothing else does.
    pub(super) fn names_all_that_is_left_out(
        &self,
        who: &str,
        number: Number,
        holes: &Holes,
        coverage: &[(i32, [i64; 2], [i64; 2])],
    ) {
        let offsets = |of: &[Hole]| -> BTreeSet<(Number, i32, i64)> {
            let of = of.iter().flat_map(|h| (h.start..h.end).map(|offset| (h.change, h.at.partition, offset)));
            of.collect()
        };
        let (left_out, pending) = (offsets(&holes.holes), offsets(&holes.pending));
        let (mut may, mut must) = (BTreeSet::new(), BTreeSet::new());
        for (change, state) in self.changes.range(..=number) {
            for (partition, offset) in state.offsets() {
                let covered = |(of, batch, speed): &(i32, [i64; 2], [i64; 2])| {
                    *of == partition && (batch[0]..speed[1]).contains(&offset)
                };
                if coverage.iter().any(covered) {
                    may.insert((*change, partition, offset));
                    if state.lifted.is_none_or(|by| by > number) {
                        must.insert((*change, partition, offset));
                    }
                }
            }
        }
        assert!(left_out.is_subset(&may), "{who} at {number}: holes of nothing: {holes:?}");
        assert!(left_out.is_disjoint(&pending), "{who} at {number}: left out and pending: {holes:?}");
        let pending_due: BTreeSet<_> = must.difference(&left_out).copied().collect();
        assert_eq!(pending, pending_due, "{who} at {number}: what is pending");
    }
}

/// Whether a position lies in a hole.
pub(super) fn holds(hole: &Hole, at: (i32, i64)) -> bool {
    hole.at.partition == at.0 && (hole.start..hole.end).contains(&at.1)
}
