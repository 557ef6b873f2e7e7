//! What a speed instance folds and offers to readers: the model of speed/src/epoch.rs and speed/src/live.rs.

use std::collections::{BTreeMap, VecDeque};

use bifold_ledger::{Extent, Ledger, Number, Part, VersionId};

use crate::content::{Counted, count};
use crate::log::{Chunk, p};

/// Committed units that are kept for readers whose ledger is older.
const KEPT_UNITS: usize = 4;

/// A span of offsets being folded.
#[derive(Clone, Debug)]
pub(crate) struct Epoch {
    pub(crate) folded_under: Number,
    pub(crate) extent: Extent,
    pub(crate) states: BTreeMap<VersionId, Counted>,
    pub(crate) events: u64,
    pub(crate) opened_ms: Option<u64>,
}

impl Epoch {
    pub(crate) fn new(folded_under: Number, extent: Extent, versions: impl Iterator<Item = VersionId>) -> Self {
        let states = versions.map(|version| (version, Counted::new())).collect();
        let mut epoch = Self { folded_under, extent, states, events: 0, opened_ms: None };
        epoch.note_opened();
        epoch
    }

    /// Folds a chunk without what is `lost`.
    pub(crate) fn fold(&mut self, chunk: &Chunk, lost: &Part) {
        for event in chunk.events.iter().filter(|event| !lost.leaves_out(&p(event.0), event.1)) {
            for counted in self.states.values_mut() {
                count(counted, *event);
            }
            self.events += 1;
        }
        for (at, next) in &chunk.positions {
            self.extent.advance(at, *next, None);
        }
        self.note_opened();
    }

    /// Goes on behind what is lost where it ends.
    pub(crate) fn pass_lost(&mut self, ledger: &Ledger) {
        self.extent.pass_lost(ledger);
        self.note_opened();
    }

    fn note_opened(&mut self) {
        if !self.extent.ranges.is_empty() {
            self.opened_ms.get_or_insert_with(crate::clock::now_ms);
        }
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
        (self.ledger, committed.chain(open).filter(|unit| !unit.epoch.extent.ranges.is_empty()).collect())
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
                boundary.is_some_and(|boundary| epoch.extent.ranges.below(&ledger.origins.clone().max(boundary)))
            })
        };
        self.committed.retain(|(_, epoch)| !covered(epoch));
    }

    pub(crate) fn forget_open(&mut self) {
        self.open = None;
    }
}
