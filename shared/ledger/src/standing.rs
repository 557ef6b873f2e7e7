//! How partitions stand to what the log still has: from where they are read, what comes from the archive instead, which are stopped.

use std::collections::BTreeMap;
use std::fmt;

use crate::ledger::Ledger;
use crate::offsets::{Offsets, Ranges, Span, TopicPartition};
use crate::part::Part;

/// How partitions stand to the log.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// From where the log is read, of every partition that is not stopped.
    pub next: Offsets,
    /// What the log no longer has, but the archive: it is folded from there first.
    pub bridge: Part,
    /// Those that cannot be read from the log.
    pub stopped: BTreeMap<TopicPartition, Stopped>,
}

/// Why a partition cannot be read from the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// `[next, earliest)` is neither in the log nor in the archive.
    Gone {
        /// The first offset that is missing.
        next: i64,
        /// The first offset that the log has.
        earliest: i64,
    },
    /// The log ends before what was made of it.
    Short {
        /// Where the log ends.
        end: i64,
        /// Up to where it was folded, or archived.
        known: i64,
    },
}

impl Standing {
    /// What is stopped, and why.
    pub fn why(&self) -> String {
        self.stopped.iter().map(|(at, why)| format!("{at} {why}")).collect::<Vec<_>>().join("; ")
    }

    /// What is neither in the log nor in the archive.
    pub fn gone(&self) -> Ranges {
        let gone = |(at, why): (&TopicPartition, &Stopped)| match why {
            Stopped::Gone { next, earliest } => Some((at.clone(), Span::new(*next, *earliest))),
            Stopped::Short { .. } => None,
        };
        self.stopped.iter().filter_map(gone).collect()
    }

    /// Whether a partition that is stopped here is not in `now`.
    pub fn is_mended_in(&self, now: &Standing) -> bool {
        self.stopped.keys().any(|at| !now.stopped.contains_key(at))
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stopped::Gone { next, earliest } => write!(
                f,
                "has lost the offsets [{next}, {earliest}): they are no longer in the log and not in the archive; \
                 this partition is stopped; bring them back, or go on without them: `bifold accept-loss`"
            ),
            Stopped::Short { end, known } => write!(f, "ends at {end}, but was read up to {known} before"),
        }
    }
}

impl Ledger {
    /// How the partitions of `log` (the offsets that it has) stand for a fold, which is shown `lookback` offsets before its own.
    pub fn standing_to_fold(&self, log: &Ranges, lookback: i64) -> Standing {
        let mut standing = Standing::default();
        for (at, has) in log.iter() {
            // What left the archive is seen by no layer, also where the log still has it.
            let mut next = self.past_lost(at, (self.frontier(at) - lookback).max(self.kept_from(at)));
            if next < has.start && next < self.archived(at) {
                standing.bridge.from.advance(at, next);
                standing.bridge.to.advance(at, self.archived(at));
                next = self.past_lost(at, self.archived(at));
            }
            if next < has.start {
                standing.stopped.insert(at.clone(), Stopped::Gone { next, earliest: has.start });
            } else if next.max(self.frontier(at)) > has.end {
                standing
                    .stopped
                    .insert(at.clone(), Stopped::Short { end: has.end, known: next.max(self.frontier(at)) });
            } else {
                standing.next.advance(at, next);
            }
        }
        standing
    }

    /// The same for what is to be archived.
    pub fn standing_to_archive(&self, log: &Ranges) -> Standing {
        let mut standing = Standing::default();
        for (at, has) in log.iter() {
            let next = self.past_lost(at, self.archived(at));
            if next < has.start {
                standing.stopped.insert(at.clone(), Stopped::Gone { next, earliest: has.start });
            } else if next > has.end {
                standing.stopped.insert(at.clone(), Stopped::Short { end: has.end, known: next });
            } else {
                standing.next.advance(at, next);
            }
        }
        standing
    }
}
