//! A span of offsets that is folded together, and the slices of states that it consists of.
//!
//! Slices are immutable. Each micro-batch adds one; slices of similar size merge, so that an epoch of n micro-batches
//! holds about log n of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use bifold_fold::buffers::Buffers;
use bifold_fold::live::SliceId;
use bifold_fold::{Engine, View};
use bifold_ledger::{Extent, Ledger, Number, Seen, TopicPartition, VersionId};

use crate::Error;

/// A small batch of states.
#[derive(Clone, Debug)]
pub struct Slice {
    /// By which a reader knows that it has it already.
    pub id: SliceId,
    /// The states, in the stored form.
    pub rows: Arc<Vec<RecordBatch>>,
    bytes: usize,
}

impl Slice {
    fn len(&self) -> usize {
        self.rows.iter().map(RecordBatch::num_rows).sum()
    }

    fn new(id: SliceId, rows: Vec<RecordBatch>) -> Self {
        Self { id, bytes: Buffers::of(&rows), rows: Arc::new(rows) }
    }
}

/// A span of offsets being folded.
#[derive(Clone, Debug)]
pub struct Epoch {
    /// The ledger number it is folded under.
    pub folded_under: Number,
    /// What it covers.
    pub extent: Extent,
    /// The slices of each version.
    pub slices: BTreeMap<VersionId, Vec<Slice>>,
    /// Events folded.
    pub events: u64,
    /// Events that were duplicates, and are not among them.
    pub duplicates: u64,
    /// The newest event time among them.
    pub newest_event_us: Option<i64>,
    /// What it covers beside events.
    pub seen: Seen,
    /// When the first record came.
    pub opened: Option<Instant>,
}

impl Epoch {
    /// An epoch without states.
    pub fn new(folded_under: Number, extent: Extent, versions: impl Iterator<Item = VersionId>) -> Self {
        let opened = (!extent.ranges.is_empty()).then(Instant::now);
        let slices = versions.map(|version| (version, vec![])).collect();
        let seen = Seen::default();
        Self { folded_under, extent, slices, events: 0, duplicates: 0, newest_event_us: None, seen, opened }
    }

    /// Says that `at` has been folded up to `next`.
    pub fn advance(&mut self, at: &TopicPartition, next: i64, leader_epoch: Option<i32>) {
        self.extent.advance(at, next, leader_epoch);
        self.note_opened();
    }

    /// Goes on behind what is lost where it ends.
    pub fn pass_lost(&mut self, ledger: &Ledger) {
        self.extent.pass_lost(ledger);
        self.note_opened();
    }

    fn note_opened(&mut self) {
        if !self.extent.ranges.is_empty() {
            self.opened.get_or_insert_with(Instant::now);
        }
    }

    /// Bytes of all slices.
    pub fn bytes(&self) -> usize {
        self.slices.values().flatten().map(|slice| slice.bytes).sum()
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
        let mut slice = Slice::new(new_id(), states);
        if slice.len() == 0 {
            return Ok(());
        }
        while slices.last().is_some_and(|last| last.len() < 2 * slice.len()) {
            let last = slices.pop().expect("there is a last one");
            let both = last.rows.iter().chain(slice.rows.iter()).cloned().collect();
            slice = Slice::new(new_id(), view.reduce(engine, both).await?);
        }
        slices.push(slice);
        Ok(())
    }
}
