//! Archived records as the log gave them: for a reader whose position the log no longer has, and for what stands before it.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bifold_ledger::{ArchiveUnit, File, Ledger, Part, TopicPartition};
use bifold_log::{Chunk, ChunkBuilder};
use bifold_store::{Error, SourceFiles};

use crate::replay::{Columns, records_of};

/// Archived records in the log's order, a chunk for each archive entry. Values alone: keys and headers are left out.
#[derive(Debug)]
pub struct Records {
    store: SourceFiles,
    part: Part,
    partitions: Arc<[TopicPartition]>,
    /// What is to be read; the next one last.
    units: Vec<ArchiveUnit>,
}

impl Records {
    /// The records of `part`, as far as the archive has them.
    pub fn new(store: &SourceFiles, ledger: &Ledger, part: Part) -> Self {
        let mut units: Vec<ArchiveUnit> = part.units(ledger).map(|(unit, _)| unit.clone()).collect();
        units.reverse();
        let partitions = part.to.iter().map(|(at, _)| at.clone()).collect();
        Self { store: store.clone(), part, partitions, units }
    }

    /// The next chunk; none after the last. Its positions are the ends of what the archive entry holds of the part.
    ///
    /// # Errors
    /// A file that is missing or damaged, or the store is unavailable.
    pub async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let Some(unit) = self.units.pop() else { return Ok(None) };
        let rows = batches(&self.store, &unit.rows, false).await?;
        let dead = batches(&self.store, &unit.dead, true).await?;
        let columns: Vec<Columns<'_>> = rows.iter().chain(&dead).map(Columns::new).collect();
        let mut found = vec![];
        for (columns, batch) in columns.iter().zip(rows.iter().chain(&dead)) {
            for record in (0..batch.num_rows()).filter_map(|row| columns.record(row)) {
                let at = TopicPartition::new(record.topic, record.partition);
                if self.part.holds(&at, record.offset)
                    && let Ok(index) = self.partitions.binary_search(&at)
                {
                    found.push((index, record));
                }
            }
        }
        // Rows and dead letters lie in files of their own.
        found.sort_by_key(|(index, record)| (*index, record.offset));
        let mut chunk = ChunkBuilder::new(Arc::clone(&self.partitions));
        for (index, record) in found {
            chunk.record(index, record.offset, record.timestamp_ms, None, Some(record.value));
        }
        for (index, at) in self.partitions.iter().enumerate() {
            let Some(span) = unit.ranges.get(at) else { continue };
            let next = span.end.min(self.part.to.or_zero(at));
            if next > self.part.from.or_zero(at) {
                chunk.position(index, next, if next == span.end { span.leader_epoch } else { None });
            }
        }
        Ok(Some(chunk.build()))
    }
}

async fn batches(store: &SourceFiles, files: &[File], dead: bool) -> Result<Vec<RecordBatch>, Error> {
    let mut batches = vec![];
    for file in files {
        batches.extend(records_of(store, file, dead).await?);
    }
    Ok(batches)
}
