//! The versions that are folded, grouped by how they decode: one decode per source definition, however many views.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use bifold_fold::live::SliceId;
use bifold_fold::states::Input;
use bifold_fold::view::compile_stored;
use bifold_fold::{DeadLetter, Decoder, Engine, Envelope, View};
use bifold_ledger::{Ledger, VersionId};
use bifold_log::Chunk;

use crate::Error;
use crate::epoch::Epoch;

/// Views that decode alike, and their decoder.
struct Group {
    decoder: Decoder,
    views: Vec<(Arc<View>, Input)>,
}

/// Everything that is folded of one source.
pub(crate) struct Folds {
    engine: Engine,
    groups: Vec<Group>,
    /// The versions, in order.
    pub(crate) versions: Vec<VersionId>,
    dead: Vec<DeadLetter>,
}

impl Folds {
    /// The active versions of `ledger`, compiled from what it holds of them.
    pub(crate) async fn of(ledger: &Ledger) -> Result<Self, Error> {
        let engine = Engine::new();
        let mut by_decoding: Vec<(String, Vec<Arc<View>>)> = vec![];
        for id in ledger.active() {
            let state = &ledger.versions[&id];
            let view = compile_stored(&engine, &state.view, &state.sql, &state.source).await?;
            if view.version != id {
                return Err(Error::OtherVersion {
                    view: state.view.clone(),
                    theirs: id.to_string(),
                    ours: view.version.to_string(),
                });
            }
            let (decoding, view) = (view.source.decoding(), view);
            match by_decoding.iter_mut().find(|(known, _)| *known == decoding) {
                Some((_, views)) => views.push(view),
                None => by_decoding.push((decoding, vec![view])),
            }
        }
        let mut groups = vec![];
        for (_, views) in by_decoding {
            let needed: BTreeSet<String> = views.iter().flat_map(|view| view.needed.iter().cloned()).collect();
            let decoder = Decoder::new(Arc::clone(&views[0].source), |name| needed.contains(name));
            let mut inputs = vec![];
            for view in views {
                inputs.push((Arc::clone(&view), Input::new(&engine, view).await?));
            }
            groups.push(Group { decoder, views: inputs });
        }
        Ok(Self { engine, groups, versions: ledger.active(), dead: vec![] })
    }

    /// Folds a chunk into an epoch. Gives the newest event time in it.
    pub(crate) async fn fold(
        &mut self,
        chunk: &Chunk,
        epoch: &mut Epoch,
        mut new_id: impl FnMut() -> SliceId,
    ) -> Result<Option<i64>, Error> {
        let mut newest = None;
        let mut events = 0;
        for group in &mut self.groups {
            for record in chunk.records() {
                let Some(value) = record.value else { continue };
                let envelope = Envelope {
                    topic: &record.at.topic,
                    partition: record.at.partition,
                    offset: record.offset,
                    timestamp_ms: record.timestamp_ms,
                    value,
                };
                // The collector keeps dead letters; here they only must not count.
                self.dead.clear();
                group.decoder.push(envelope, &mut self.dead);
            }
            events = events.max(group.decoder.rows() as u64);
            newest = newest.max(group.decoder.take_newest());
            if group.decoder.rows() == 0 {
                continue;
            }
            let rows = group.decoder.finish();
            for (view, input) in &group.views {
                let states = input.fold(std::slice::from_ref(&rows)).await?;
                epoch.add(&self.engine, view, states, &mut new_id).await?;
            }
        }
        for (at, next, leader_epoch) in chunk.positions() {
            epoch.advance(at, next, leader_epoch);
        }
        epoch.events += events;
        Ok(newest)
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

/// A version's part of a delta.
pub(crate) type Section = (VersionId, arrow::datatypes::SchemaRef, Vec<RecordBatch>);
