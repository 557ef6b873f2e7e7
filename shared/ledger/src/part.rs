//! A part of the log, and which units of the archive hold it.

use crate::change::{Change, ChangeKind, Hole};
use crate::ledger::{ArchiveUnit, Ledger};
use crate::offsets::{Offsets, Span, TopicPartition};

/// A part of the log: `[from, to)` in every partition, without holes.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Where it starts.
    pub from: Offsets,
    /// Where it ends.
    pub to: Offsets,
    /// What is left out of it.
    pub without: Vec<Hole>,
}

impl Part {
    /// Nothing but holes: all that is lost, though a reader may still have it, or the archive got it before it was told.
    pub fn without_lost(ledger: &Ledger) -> Self {
        let lost = ledger.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
        let everywhere = |change: &Change| {
            let number = change.number;
            let hole = |(at, span): (&TopicPartition, &Span)| Hole {
                at: at.clone(),
                start: span.start,
                end: span.end,
                change: number,
            };
            change.ranges.iter().map(hole).collect::<Vec<_>>()
        };
        Self { without: lost.flat_map(everywhere).collect(), ..Self::default() }
    }

    /// Whether the offset of a partition lies in it.
    pub fn holds(&self, at: &TopicPartition, offset: i64) -> bool {
        offset >= self.from.or_zero(at) && offset < self.to.or_zero(at) && !self.leaves_out(at, offset)
    }

    /// Whether the offset of a partition lies in one of its holes.
    pub fn leaves_out(&self, at: &TopicPartition, offset: i64) -> bool {
        self.without.iter().any(|hole| hole.start <= offset && offset < hole.end && hole.at == *at)
    }

    /// The units of the archive that reach into it, and whether each lies in it whole.
    pub fn units<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = (&'a ArchiveUnit, bool)> {
        ledger.archive.iter().filter_map(|unit| {
            let touches = unit
                .ranges
                .iter()
                .any(|(at, span)| span.start < self.to.or_zero(at) && span.end > self.from.or_zero(at));
            let has_hole = |hole: &Hole| {
                unit.ranges.get(&hole.at).is_some_and(|span| span.start < hole.end && span.end > hole.start)
            };
            let inside =
                unit.ranges.below(&self.to) && unit.ranges.above(&self.from) && !self.without.iter().any(has_hole);
            touches.then_some((unit, inside))
        })
    }
}
