//! What an open epoch covers of the log: from the effective frontier up to where it was folded, and the losses that it names.

use std::collections::BTreeSet;

use crate::ledger::Ledger;
use crate::names::Number;
use crate::offsets::{Offsets, Ranges, Span, TopicPartition};

/// What an open epoch covers.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// Where each partition started.
    pub start: Offsets,
    /// What has been folded.
    pub ranges: Ranges,
    /// The `lost` entries whose positions it passes over: its unit names them, so it may count nothing of them in any partition.
    pub holes: BTreeSet<Number>,
}

impl Extent {
    /// One that starts at `start` and holds nothing yet.
    pub fn new(start: Offsets) -> Self {
        Self { start, ..Self::default() }
    }

    /// One that starts at the effective frontier of these partitions, behind what is lost there.
    pub fn open<'a>(ledger: &Ledger, partitions: impl IntoIterator<Item = &'a TopicPartition>) -> Self {
        let mut extent = Self::new(partitions.into_iter().map(|at| (at.clone(), ledger.frontier(at))).collect());
        extent.pass_lost(ledger);
        extent
    }

    /// Says that `at` has been folded up to `next`. What lies below its end already, as what is only looked back at, changes nothing.
    pub fn advance(&mut self, at: &TopicPartition, next: i64, leader_epoch: Option<i32>) {
        let start = self.start.or_zero(at);
        if next <= self.ranges.get(at).map_or(start, |span| span.end) {
            return;
        }
        let span = self.ranges.0.entry(at.clone()).or_insert_with(|| Span::new(start, start));
        span.end = next;
        // The epoch belongs to the position: after a marker none is known.
        span.leader_epoch = leader_epoch;
    }

    /// Where it ends: its start, advanced by what was folded.
    pub fn end(&self) -> Offsets {
        self.start.clone().max(&self.ranges.ends())
    }

    /// Goes on behind what is lost where it ends.
    pub fn pass_lost(&mut self, ledger: &Ledger) {
        for (at, end) in self.end().iter() {
            let next = ledger.past_lost(at, end);
            if next > end {
                self.advance(at, next, None);
                self.holes.extend(ledger.lost_between(at, end, next));
            }
        }
    }

    /// Names what is lost and was passed over since it ended at `before`.
    ///
    /// True if it counts some of that, in whatever partition, because it was folded before it was lost: it has to be folded again.
    #[must_use]
    pub fn names_what_it_counts(&mut self, ledger: &Ledger, before: &Offsets) -> bool {
        for (at, next) in self.end().iter() {
            for lost in ledger.lost_between(at, before.or_zero(at), next).collect::<Vec<_>>() {
                let is_counted = ledger.change_at(lost).is_some_and(|change| {
                    before.iter().any(|(at, end)| change.overlaps(at, &Span::new(self.start.or_zero(at), end)))
                });
                if self.holes.insert(lost) && is_counted {
                    return true;
                }
            }
        }
        false
    }

    /// Whether something between its start and its end was lost that it does not name.
    pub fn counts_lost(&self, ledger: &Ledger) -> bool {
        self.end().iter().any(|(at, end)| {
            ledger.lost_between(at, self.start.or_zero(at), end).any(|lost| !self.holes.contains(&lost))
        })
    }

    /// Whether it starts at the effective frontier still: else another one was committed (rule 8).
    pub fn is_at_frontier(&self, ledger: &Ledger) -> bool {
        self.start.iter().all(|(at, start)| start == ledger.frontier(at))
    }
}
