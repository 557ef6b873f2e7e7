//! What is newer than the ledger: the units that a speed instance offers to the serving layer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bifold_fold::live::{LiveAnswer, LiveRequest, UnitAnswer};
use bifold_ledger::{Ledger, Number, Offsets, VersionId};

use crate::epoch::Epoch;

/// Committed units that are kept for readers whose ledger is older.
const KEPT_UNITS: usize = 16;

/// What one folder offers. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Live {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Number,
    committed: VecDeque<(Number, Epoch)>,
    /// The open epoch, also while its commit is in doubt.
    open: Option<Epoch>,
}

impl Live {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// Answers a reader.
    pub fn answer(&self, request: &LiveRequest) -> LiveAnswer {
        let state = self.state();
        let committed = state.committed.iter().filter(|(number, _)| *number > request.after).map(|(_, epoch)| epoch);
        let units = committed.chain(&state.open).filter(|epoch| !epoch.extent.ranges.is_empty());
        let unit = |epoch: &Epoch| {
            let of = |version: &VersionId| {
                let slices = epoch.slices.get(version)?;
                let given = slices.iter().map(|slice| {
                    let rows = (!request.have.contains(&slice.id)).then(|| Arc::clone(&slice.rows));
                    (slice.id.clone(), rows)
                });
                Some((version.clone(), given.collect()))
            };
            UnitAnswer {
                ranges: epoch.extent.ranges.clone(),
                folded_under: epoch.folded_under,
                newest_event_us: epoch.newest_event_us,
                holes: epoch.extent.holes.iter().copied().collect(),
                seen: Some(epoch.seen.clone()),
                slices: request.versions.iter().filter_map(of).collect(),
            }
        };
        LiveAnswer { ledger: state.ledger, units: units.map(unit).collect() }
    }

    /// Up to where the open epoch reaches.
    pub fn frontier(&self) -> Option<Offsets> {
        self.state().open.as_ref().map(|epoch| epoch.extent.end())
    }

    /// Offers the open epoch as it stands.
    pub(crate) fn offer(&self, epoch: &Epoch) {
        self.state().open = Some(epoch.clone());
    }

    /// Says that the offered epoch was committed as `number`, and that `next` is open now. Committed ones stay for readers whose
    /// ledger is older, up to `most_bytes`: who misses one reads on in the ledger.
    pub(crate) fn committed(&self, number: Number, epoch: Epoch, next: &Epoch, most_bytes: usize) {
        let mut state = self.state();
        state.committed.push_back((number, epoch));
        state.open = Some(next.clone());
        state.ledger = state.ledger.max(number);
        let bytes = |state: &State| state.committed.iter().map(|(_, epoch)| epoch.bytes()).sum::<usize>();
        while state.committed.len() > KEPT_UNITS || bytes(&state) > most_bytes {
            state.committed.pop_front();
        }
    }

    /// Notes what the ledger says now, and drops what every version's boundary covers.
    pub(crate) fn note_ledger(&self, ledger: &Ledger) {
        let mut state = self.state();
        state.ledger = ledger.number;
        let lowest = |epoch: &Epoch| {
            ledger.versions.values().filter(|v| v.active).all(|v| {
                let boundary = v.boundary.as_ref();
                boundary.is_some_and(|boundary| epoch.extent.ranges.below(&ledger.origins.clone().max(boundary)))
            })
        };
        state.committed.retain(|(_, epoch)| !lowest(epoch));
    }

    /// Forgets the open epoch: it is folded again.
    pub(crate) fn forget_open(&self) {
        self.state().open = None;
    }
}
