//! A part of the log: the model of `Part` of shared/archive/src/lib.rs, which needs Arrow.

use std::collections::BTreeSet;

use bifold_ledger::{ArchiveUnit, Change, ChangeKind, Hole, Ledger, Number, Offsets, Ranges, Unit};

use crate::log::p;

/// `[from, to)` in every partition, without holes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Part {
    pub(crate) from: Offsets,
    pub(crate) to: Offsets,
    pub(crate) without: Vec<Hole>,
}

impl Part {
    /// Whether an offset lies in it.
    pub(crate) fn holds(&self, at: (i32, i64)) -> bool {
        let partition = p(at.0);
        at.1 >= self.from.or_zero(&partition) && at.1 < self.to.or_zero(&partition) && !self.leaves_out(at)
    }

    /// Whether an offset lies in one of its holes.
    pub(crate) fn leaves_out(&self, at: (i32, i64)) -> bool {
        self.without.iter().any(|hole| hole.start <= at.1 && at.1 < hole.end && hole.at == p(at.0))
    }

    /// The units of the archive that reach into it, and whether each lies in it whole.
    pub(crate) fn units<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = (&'a ArchiveUnit, bool)> {
        ledger.archive.iter().filter_map(|unit| {
            let mut spans = unit.ranges.iter();
            let touches = spans.any(|(at, span)| span.start < self.to.or_zero(at) && span.end > self.from.or_zero(at));
            let has_hole = |hole: &Hole| {
                unit.ranges.get(&hole.at).is_some_and(|span| span.start < hole.end && span.end > hole.start)
            };
            let inside =
                unit.ranges.below(&self.to) && unit.ranges.above(&self.from) && !self.without.iter().any(has_hole);
            touches.then_some((unit, inside))
        })
    }
}

/// All that is lost, as holes: `Folds::leave_out` of speed/src/fold.rs.
pub(crate) fn lost(ledger: &Ledger) -> Part {
    let lost = ledger.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
    let holes = |change: &Change| {
        let number = change.number;
        let hole = move |(at, span): (&_, &bifold_ledger::Span)| -> Hole {
            Hole { at: Clone::clone(at), start: span.start, end: span.end, change: number }
        };
        change.ranges.iter().map(hole).collect::<Vec<_>>()
    };
    Part { without: lost.flat_map(holes).collect(), ..Part::default() }
}

/// The positions of several ranges that follow each other: `together` of batch/src/maintain.rs.
pub(crate) fn together<'a>(parts: impl Iterator<Item = &'a Ranges>) -> Ranges {
    let mut ranges = Ranges::default();
    for (at, span) in parts.flat_map(Ranges::iter).filter(|(_, span)| !span.is_empty()) {
        ranges.0.entry(at.clone()).or_insert(*span).end = span.end;
    }
    ranges
}

/// The holes of several units.
pub(crate) fn holes_of<'a>(units: impl Iterator<Item = &'a Unit>) -> Vec<Number> {
    let holes: BTreeSet<Number> = units.flat_map(|unit| unit.holes.iter().copied()).collect();
    holes.into_iter().collect()
}
