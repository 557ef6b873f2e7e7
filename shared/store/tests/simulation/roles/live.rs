//! What a speed instance folds and offers to readers: the model of speed/src/epoch.rs and speed/src/live.rs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bifold_ledger::{Ledger, Number, Offsets, Ranges, Span, TopicPartition, VersionId};

use super::part::Part;
use crate::content::{Counted, count};
use crate::log::Chunk;

/// Committed units that are kept for readers whose ledger is older.
const KEPT_UNITS: usize = 4;

/// A span of offsets being folded.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    pub(crate) folded_under: Number,
    pub(crate) start: Offsets,
    pub(crate) ranges: Ranges,
    /// The `lost` entries whose positions it passes over.
    pub(crate) holes: BTreeSet<Number>,
    pub(crate) states: BTreeMap<VersionId, Counted>,
    pub(crate) events: u64,
    pub(crate) opened_ms: Option<u64>,
}

impl Epoch {
    pub(crate) fn new(folded_under: Number, start: Offsets, versions: impl Iterator<Item = VersionId>) -> Self {
        let states = versions.map(|version| (version, Counted::new())).collect();
        Self {
            folded_under,
            start,
            ranges: Ranges::default(),
            holes: BTreeSet::new(),
            states,
            events: 0,
            opened_ms: None,
        }
    }

    /// Folds a chunk without what is `lost`.
    pub(crate) fn fold(&mut self, chunk: &Chunk, lost: &Part) {
        for event in chunk.events.iter().filter(|event| !lost.leaves_out(**event)) {
            for counted in self.states.values_mut() {
                count(counted, *event);
            }
            self.events += 1;
        }
        for (at, next) in &chunk.positions {
            self.advance(at, *next);
        }
    }

    /// Says that `at` has been folded up to `next`.
    pub(crate) fn advance(&mut self, at: &TopicPartition, next: i64) {
        let start = self.start.or_zero(at);
        if next <= self.ranges.get(at).map_or(start, |span| span.end) {
            return;
        }
        self.opened_ms.get_or_insert_with(crate::clock::now_ms);
        self.ranges.0.entry(at.clone()).or_insert_with(|| Span::new(start, start)).end = next;
    }

    pub(crate) fn end(&self) -> Offsets {
        self.start.clone().max(&self.ranges.ends())
    }
}

/// What one instance offers.
#[derive(Debug, Default)]
pub(crate) struct Live {
    ledger: Number,
    committed: VecDeque<(Number, Epoch)>,
    open: Option<Epoch>,
}

/// A unit offered, and whether it is committed.
#[derive(Clone, Debug)]
pub(crate) struct Offered {
    pub(crate) epoch: Epoch,
    pub(crate) committed: bool,
}

impl Live {
    /// The ledger number it stands at, and the units after `after`.
    pub(crate) fn answer(&self, after: Number) -> (Number, Vec<Offered>) {
        let committed = self.committed.iter().filter(|(number, _)| *number > after);
        let committed = committed.map(|(_, epoch)| Offered { epoch: epoch.clone(), committed: true });
        let open = self.open.iter().map(|epoch| Offered { epoch: epoch.clone(), committed: false });
        (self.ledger, committed.chain(open).filter(|unit| !unit.epoch.ranges.is_empty()).collect())
    }

    pub(crate) fn offer(&mut self, epoch: &Epoch) {
        self.open = Some(epoch.clone());
    }

    pub(crate) fn committed(&mut self, number: Number, epoch: Epoch, next: &Epoch) {
        self.committed.push_back((number, epoch));
        self.open = Some(next.clone());
        self.ledger = self.ledger.max(number);
        while self.committed.len() > KEPT_UNITS {
            self.committed.pop_front();
        }
    }

    pub(crate) fn note_ledger(&mut self, ledger: &Ledger) {
        self.ledger = ledger.number;
        let covered = |epoch: &Epoch| {
            ledger.versions.values().filter(|version| version.active).all(|version| {
                let boundary = version.boundary.as_ref();
                boundary.is_some_and(|boundary| epoch.ranges.below(&ledger.origins.clone().max(boundary)))
            })
        };
        self.committed.retain(|(_, epoch)| !covered(epoch));
    }

    pub(crate) fn forget_open(&mut self) {
        self.open = None;
    }
}
