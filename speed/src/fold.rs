//! The versions that are folded, grouped by how they decode: one decode per source definition, however many views.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, Int64Type};
use bifold_fold::live::SliceId;
use bifold_fold::states::Input;
use bifold_fold::view::compile_stored;
use bifold_fold::{DeadLetter, Decoder, Dedup, Engine, Envelope, Reason, View};
use bifold_ledger::{ChangeKind, Ledger, Part, TopicPartition, VersionId};
use bifold_log::{Chunk, Record};
use bifold_store::failpoint::fails;

use crate::Error;
use crate::epoch::Epoch;

/// Views that decode alike, and their decoder.
struct Group {
    decoder: Decoder,
    dedup: Option<Dedup>,
    views: Vec<(Arc<View>, Input)>,
}

impl Group {
    /// Folds the rows decoded so far into the epoch. Gives how many of its own they are, and how many duplicates it has left out.
    async fn fold_rows(
        &mut self,
        engine: &Engine,
        epoch: &mut Epoch,
        new_id: &mut impl FnMut() -> SliceId,
    ) -> Result<(u64, u64), Error> {
        if self.decoder.rows() == 0 {
            return Ok((0, 0));
        }
        let (mut rows, mut dropped) = (self.decoder.finish(), 0);
        if let Some(dedup) = &mut self.dedup {
            let admitted = dedup.admit(&rows)?;
            let (admitted, duplicates) = of_epoch(&rows, &admitted, epoch)?;
            rows = filter_record_batch(&rows, &admitted)?;
            dropped = duplicates;
        }
        if rows.num_rows() > 0 {
            for (view, input) in &self.views {
                let states = input.fold(std::slice::from_ref(&rows)).await?;
                epoch.add(engine, view, states, &mut *new_id).await?;
            }
        }
        Ok((rows.num_rows() as u64, dropped))
    }
}

/// Rows folded at once, and the bytes that they may take: a record may hold many events, and an event many values.
const FOLD_ROWS: usize = 65_536;
const FOLD_BYTES: usize = 64 << 20;

/// Everything that is folded of one source.
pub(crate) struct Folds {
    engine: Engine,
    groups: Vec<Group>,
    /// The versions, in order.
    pub(crate) versions: Vec<VersionId>,
    /// How many changes the ledger had.
    pub(crate) changes: usize,
    /// Records that are lost, though a reader may still have them, or the archive got them before it was told.
    lost: Part,
    dead: Vec<DeadLetter>,
}

impl Folds {
    /// The active versions of `ledger`, compiled from what it holds of them.
    pub(crate) async fn of(ledger: &Ledger) -> Result<Self, Error> {
        let engine = Engine::new();
        let mut by_decoding: Vec<(String, Vec<Arc<View>>)> = vec![];
        for id in ledger.active() {
            let state = &ledger.versions[&id];
            let view = compile_stored(&engine, state.into()).await?;
            if view.version != id {
                return Err(Error::OtherVersion {
                    view: state.view.clone(),
                    theirs: id.to_string(),
                    ours: view.version.to_string(),
                });
            }
            // What decodes alike and is deduplicated alike.
            let dedup = view.source.dedup.as_ref().map(|dedup| (dedup, view.dialect));
            let decoding = format!("{} {dedup:?}", view.source.decoding());
            match by_decoding.iter_mut().find(|(known, _)| *known == decoding) {
                Some((_, views)) => views.push(view),
                None => by_decoding.push((decoding, vec![view])),
            }
        }
        let mut groups = vec![];
        for (_, views) in by_decoding {
            let needed: BTreeSet<String> = views.iter().flat_map(|view| view.needed.iter().cloned()).collect();
            let dedup = Dedup::new(&views[0].source, views[0].dialect)?;
            let reads = |name: &str| dedup.as_ref().is_some_and(|dedup| dedup.reads(name));
            let decoder = Decoder::new(Arc::clone(&views[0].source), |name| needed.contains(name) || reads(name));
            let mut inputs = vec![];
            for view in views {
                inputs.push((Arc::clone(&view), Input::new(&engine, view).await?));
            }
            groups.push(Group { decoder, dedup, views: inputs });
        }
        Ok(Self {
            engine,
            groups,
            versions: ledger.active(),
            changes: changes_of(ledger),
            lost: Part::default(),
            dead: vec![],
        })
    }

    /// Folds a chunk into an epoch. Gives the newest event time in it.
    pub(crate) async fn fold(
        &mut self,
        chunk: &Chunk,
        epoch: &mut Epoch,
        mut new_id: impl FnMut() -> SliceId,
    ) -> Result<Option<i64>, Error> {
        let mut newest = None;
        let (mut events, mut dropped) = (0, 0);
        let looks_back = self.lookback() > 0;
        for group in &mut self.groups {
            let (mut own_events, mut own_dropped) = (0, 0);
            // Where the epoch starts in each partition of the chunk, by its place there.
            let mut starts: Vec<Option<i64>> = vec![];
            let mut start_of = |record: &Record<'_>, epoch: &Epoch| {
                starts.resize(starts.len().max(record.index + 1), None);
                *starts[record.index].get_or_insert_with(|| epoch.extent.start.or_zero(record.at))
            };
            let mut dead: BTreeMap<Reason, u64> = BTreeMap::new();
            for record in chunk.records() {
                let Some(value) = record.value else { continue };
                if !self.lost.without.is_empty() && self.lost.leaves_out(record.at, record.offset) {
                    continue;
                }
                // What others only look back at is folded already.
                if looks_back && group.dedup.is_none() && record.offset < start_of(&record, epoch) {
                    continue;
                }
                let envelope = Envelope {
                    topic: &record.at.topic,
                    partition: record.at.partition,
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    value,
                };
                // The collector keeps dead letters; here they are counted, each by the definition of its versions.
                self.dead.clear();
                group.decoder.push(envelope, &mut self.dead);
                if !self.dead.is_empty() && record.offset >= start_of(&record, epoch) {
                    for letter in &self.dead {
                        *dead.entry(letter.reason).or_default() += 1;
                    }
                }
                if fails("speed.record", record.offset) {
                    panic!("a test asked for it");
                }
                if fails("speed.slow", record.offset) {
                    std::thread::sleep(std::time::Duration::from_secs(12));
                }
                if group.decoder.rows() >= FOLD_ROWS || group.decoder.bytes() >= FOLD_BYTES {
                    let folded = group.fold_rows(&self.engine, epoch, &mut new_id).await?;
                    (own_events, own_dropped) = (own_events + folded.0, own_dropped + folded.1);
                }
            }
            let dead = dead.into_iter().map(|(reason, count)| (reason.name().to_string(), count)).collect();
            for (view, _) in &group.views {
                epoch.seen.add_dead(&view.version, &dead);
            }
            newest = newest.max(group.decoder.take_newest());
            let folded = group.fold_rows(&self.engine, epoch, &mut new_id).await?;
            events = events.max(own_events + folded.0);
            dropped = dropped.max(own_dropped + folded.1);
        }
        for (at, next, leader_epoch) in chunk.positions() {
            epoch.advance(at, next, leader_epoch);
        }
        epoch.events += events;
        epoch.duplicates += dropped;
        Ok(newest)
    }

    /// Leaves out what `ledger` says is lost.
    pub(crate) fn leave_out(&mut self, ledger: &Ledger) {
        self.lost = Part::without_lost(ledger);
    }

    /// How many offsets before its own a fold has to be shown.
    pub(crate) fn lookback(&self) -> i64 {
        self.groups.iter().filter_map(|group| group.dedup.as_ref()).map(Dedup::lookback).max().unwrap_or(0)
    }

    /// The states of an epoch, reduced, version by version.
    pub(crate) async fn reduced(&self, epoch: &Epoch) -> Result<Vec<Section>, Error> {
        let mut sections = vec![];
        for (view, _) in self.groups.iter().flat_map(|group| &group.views) {
            let slices = epoch.slices.get(&view.version).into_iter().flatten();
            let states: Vec<RecordBatch> = slices.flat_map(|slice| slice.rows.iter().cloned()).collect();
            let reduced = if states.is_empty() { vec![] } else { view.reduce(&self.engine, states).await? };
            sections.push((view.version.clone(), Arc::clone(&view.stored), reduced));
        }
        Ok(sections)
    }
}

/// The rows that are the epoch's own and no duplicates, and how many of its own are. Rows before its start are only looked back at.
fn of_epoch(rows: &RecordBatch, admitted: &BooleanArray, epoch: &Epoch) -> Result<(BooleanArray, u64), Error> {
    let column = |name: &str| rows.column_by_name(name).expect("the operator has read it");
    let topics = column("_topic").as_string::<i32>();
    let partitions = column("_partition").as_primitive::<Int32Type>();
    let offsets = column("_offset").as_primitive::<Int64Type>();
    let mut starts: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    let mut duplicates = 0;
    let mut kept = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let (topic, partition) = (topics.value(row), partitions.value(row));
        let start = starts.entry((topic, partition)).or_insert_with(|| {
            let at = TopicPartition::new(topic, partition);
            epoch.extent.start.or_zero(&at)
        });
        let own = offsets.value(row) >= *start;
        duplicates += u64::from(own && !admitted.value(row));
        kept.push(own && admitted.value(row));
    }
    Ok((BooleanArray::from(kept), duplicates))
}

/// A version's part of a delta.
pub(crate) type Section = (VersionId, arrow::datatypes::SchemaRef, Vec<RecordBatch>);

/// How many entries decide anew what counts: what leaves the archive does not.
pub(crate) fn changes_of(ledger: &Ledger) -> usize {
    ledger.changes.iter().filter(|change| change.kind != ChangeKind::Expired).count()
}
