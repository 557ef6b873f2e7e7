//! Which units make an answer, and what it then covers.
//!
//! ```text
//! origin ─── batch view ───► b ─── durable units ───► durable frontier ─── live units ───► f
//! ```

use crate::change::{ChangeKind, Hole, joined, parts};
use crate::entry::{File, Seen};
use crate::ledger::{Ledger, Unit};
use crate::names::{Number, VersionId};
use crate::offsets::{Offsets, Ranges, TopicPartition};

/// What is durable of one version.
#[derive(Clone, PartialEq, Debug)]
pub struct Cover {
    /// The version.
    pub version: VersionId,
    /// The ledger number it is read at.
    pub number: Number,
    /// Up to where the batch view reaches.
    pub boundary: Offsets,
    /// The runs of the batch view.
    pub runs: Vec<File>,
    /// The units after it, in order.
    pub units: Vec<Unit>,
    /// Up to where they reach.
    pub frontier: Offsets,
    /// The changes that the batch view leaves out.
    pub holes: Vec<Number>,
    /// From which time on the answer holds groups, in microseconds since 1970. None: all.
    pub kept_from_us: Option<i64>,
    /// The newest event time below the boundary, where the batch run that published it noted one.
    pub newest_event_us: Option<i64>,
    /// What the positions up to the frontier hold beside the states. None where an entry does not know.
    pub seen: Option<Seen>,
}

/// Durable units that do not join: never an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// No such version, or it is not active.
    #[error("version {0} is not active")]
    Unknown(VersionId),
    /// The version is being built.
    #[error("version {0} is being built")]
    Building(VersionId),
    /// A unit that the boundary cuts through.
    #[error("the boundary cuts through the epoch of entry {0}")]
    Torn(Number),
    /// A unit that starts elsewhere than where the one before it ends.
    #[error("the epoch of entry {number} starts at {at}:{start}, the coverage ends at {frontier}")]
    Apart {
        /// The unit's entry.
        number: Number,
        /// The partition.
        at: TopicPartition,
        /// Where it starts.
        start: i64,
        /// Where it had to start.
        frontier: i64,
    },
    /// A unit without states of the version.
    #[error("the epoch of entry {number} holds no states of version {version}")]
    Missing {
        /// The unit's entry.
        number: Number,
        /// The version.
        version: VersionId,
    },
}

impl Ledger {
    /// What is durable of `version`. Units are chosen by comparing offsets with the version's own boundary, never by
    /// their number (rule 15).
    ///
    /// # Errors
    /// Units that do not join (rule 17), or a version that cannot answer.
    pub fn cover(&self, version: &VersionId) -> Result<Cover, Gap> {
        let state = self.versions.get(version).filter(|v| v.active).ok_or_else(|| Gap::Unknown(version.clone()))?;
        let boundary = state.boundary.clone().ok_or_else(|| Gap::Building(version.clone()))?;
        let boundary = self.origins.clone().max(&boundary);
        let mut frontier = boundary.clone();
        let mut units = vec![];
        for unit in self.units.iter().filter(|unit| !unit.ranges.below(&boundary)) {
            if !unit.ranges.above(&boundary) {
                return Err(Gap::Torn(unit.number));
            }
            if !unit.versions.contains(version) {
                return Err(Gap::Missing { number: unit.number, version: version.clone() });
            }
            for (at, span) in unit.ranges.iter() {
                if span.start != frontier.or_zero(at) {
                    let (number, at, start) = (unit.number, at.clone(), span.start);
                    return Err(Gap::Apart { number, frontier: frontier.or_zero(&at), at, start });
                }
            }
            frontier.advance_by(&unit.ranges);
            units.push(unit.clone());
        }
        let (runs, holes) = (state.runs.clone(), state.holes.clone());
        let nothing = Seen::default();
        let batch = if state.published.is_some() { state.seen.as_deref() } else { Some(&nothing) };
        let seen = Seen::of_all(std::iter::once(batch).chain(units.iter().map(|unit| unit.seen.as_deref())));
        let (version, number, kept_from_us) = (version.clone(), self.number, state.kept_from_us);
        let newest_event_us = state.newest_event_us;
        Ok(Cover { version, number, boundary, runs, units, frontier, holes, kept_from_us, newest_event_us, seen })
    }

    /// What an answer leaves out, and what it still counts though it is lost or quarantined (rule 21): the batch view and the
    /// durable units of `cover`, then live units, each with its positions and the changes that it leaves out.
    pub fn holes(&self, cover: &Cover, live: &[(&Ranges, &[Number])]) -> Holes {
        let batch = (self.origins.clone(), cover.boundary.clone(), cover.holes.as_slice());
        let durable = cover.units.iter().map(|unit| (unit.ranges.starts(), unit.ranges.ends(), unit.holes.as_slice()));
        let live = live.iter().map(|(ranges, holes)| (ranges.starts(), ranges.ends(), *holes));
        let (mut holes, mut pending) = (vec![], vec![]);
        for (from, to, left_out) in std::iter::once(batch).chain(durable).chain(live) {
            for change in &self.changes {
                let parts = parts(change, &from, &to);
                match left_out.contains(&change.number) {
                    true => holes.extend(parts),
                    false if change.lifted.is_none() && change.kind != ChangeKind::Expired => pending.extend(parts),
                    false => {}
                }
            }
        }
        Holes { holes: joined(holes), pending: joined(pending) }
    }
}

/// What an answer leaves out, and what it does not leave out yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Holes {
    /// Positions that are not counted.
    pub holes: Vec<Hole>,
    /// Positions that are counted, though they are lost or quarantined.
    pub pending: Vec<Hole>,
}

/// A unit that a speed instance offers: committed after the reader's ledger number, in doubt, or open.
#[derive(Clone, PartialEq, Debug)]
pub struct LiveUnit {
    /// The positions it holds.
    pub ranges: Ranges,
    /// The ledger number that it was folded under.
    pub folded_under: Number,
}

/// The live units that continue a frontier.
#[derive(Clone, PartialEq, Debug)]
pub struct Chain {
    /// Their places in what was offered, in order.
    pub used: Vec<usize>,
    /// Up to where they reach.
    pub frontier: Offsets,
}

/// Chains live units from `frontier`: a unit that does not start there on all its partitions is left out whole, and of
/// rival units one is used (rule 17).
pub fn chain(frontier: &Offsets, offered: &[LiveUnit]) -> Chain {
    let mut frontier = frontier.clone();
    let mut used = vec![];
    loop {
        let joins = |unit: &LiveUnit| {
            !unit.ranges.is_empty()
                && unit.ranges.iter().all(|(at, span)| span.is_empty() || span.start == frontier.or_zero(at))
        };
        let Some(next) = (0..offered.len()).find(|i| !used.contains(i) && joins(&offered[*i])) else {
            return Chain { used, frontier };
        };
        frontier.advance_by(&offered[next].ranges);
        used.push(next);
    }
}
