//! A span of offsets that is folded together, and the slices of states that it consists of.
//!
//! Slices are immutable. Each micro-batch adds one; slices of similar size merge, so that an epoch of n micro-batches
//! holds about log n of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use bifold_fold::live::SliceId;
use bifold_fold::{Engine, View};
use bifold_ledger::{Number, Offsets, Ranges, Span, TopicPartition, VersionId};

use crate::Error;

/// A small batch of states.
#[derive(Clone, Debug)]
pub struct Slice {
    /// By which a reader knows that it has it already.
    pub id: SliceId,
    /// The states, in the stored form.
    pub rows: Arc<Vec<RecordBatch>>,
}

impl Slice {
    fn len(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    fn bytes(&self) -> usize {
        self.rows.iter().map(RecordBatch::get_array_memory_size).sum()
    }
}

/// A span of offsets being folded.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// The ledger number it is folded under.
    pub folded_under: Number,
    /// Where each partition started.
    pub start: Offsets,
    /// What has been folded.
    pub ranges: Ranges,
    /// The `lost` entries whose positions it passes over.
    pub holes: BTreeSet<Number>,
    /// The slices of each version.
    pub slices: BTreeMap<VersionId, Vec<Slice>>,
    /// Events folded.
    pub events: u64,
    /// Events that were duplicates, and are not among them.
    pub duplicates: u64,
    /// The newest event time among them.
    pub newest_event_us: Option<i64>,
    /// When the first record came.
    pub opened: Option<Instant>,
}

impl Epoch {
    /// An epoch that starts at `start` and holds nothing yet.
    pub fn new(folded_under: Number, start: Offsets, versions: impl Iterator<Item = VersionId>) -> Self {
        let slices = versions.map(|version| (version, vec![])).collect();
        Self {
            folded_under,
            start,
            ranges: Ranges::default(),
            holes: BTreeSet::new(),
            slices,
            events: 0,
            duplicates: 0,
            newest_event_us: None,
            opened: None,
        }
    }

    /// Says that `at` has been folded up to `next`. What lies below its end already, as what is only looked back at, changes nothing.
    pub fn advance(&mut self, at: &TopicPartition, next: i64, leader_epoch: Option<i32>) {
        let start = self.start.or_zero(at);
        if next <= self.ranges.get(at).map_or(start, |span| span.end) {
            return;
        }
        self.opened.get_or_insert_with(Instant::now);
        let span = self.ranges.0.entry(at.clone()).or_insert_with(|| Span::new(start, start));
        span.end = next;
        // The epoch belongs to the position: after a marker none is known.
        span.leader_epoch = leader_epoch;
    }

    /// Where it ends: its start, advanced by what was folded.
    pub fn end(&self) -> Offsets {
        self.start.clone().max(&self.ranges.ends())
    }

    /// Bytes of all slices.
    pub fn bytes(&self) -> usize {
        self.slices.values().flatten().map(Slice::bytes).sum()
    }

    /// Adds states of a version, merging slices that have grown alike.
    ///
    /// # Errors
    /// The merge fails.
    pub async fn add(
        &mut self,
        engine: &Engine,
        view: &View,
        states: Vec<RecordBatch>,
        mut new_id: impl FnMut() -> SliceId,
    ) -> Result<(), Error> {
        let slices = self.slices.entry(view.version.clone()).or_default();
        let mut slice = Slice { id: new_id(), rows: Arc::new(states) };
        if slice.len() == 0 {
            return Ok(());
        }
        while slices.last().is_some_and(|last| last.len() < 2 * slice.len()) {
            let last = slices.pop().expect("there is a last one");
            let both = last.rows.iter().chain(slice.rows.iter()).cloned().collect();
            slice = Slice { id: new_id(), rows: Arc::new(view.reduce(engine, both).await?) };
        }
        slices.push(slice);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_looked_back_at_takes_nothing_away() {
        let at = TopicPartition::new("t", 0);
        let mut epoch = Epoch::new(1, [(at.clone(), 20)].into_iter().collect(), std::iter::empty());
        epoch.advance(&at, 12, Some(1));
        assert!(epoch.ranges.is_empty() && epoch.opened.is_none());
        // Passed over a loss, then shown what lies before it.
        epoch.advance(&at, 35, None);
        epoch.advance(&at, 18, Some(1));
        epoch.advance(&at, 35, Some(1));
        assert_eq!(epoch.ranges.get(&at), Some(&Span::new(20, 35)));
        epoch.advance(&at, 36, Some(2));
        assert_eq!(epoch.ranges.get(&at), Some(&Span { start: 20, end: 36, leader_epoch: Some(2) }));
    }
}
