//! Archived records decoded again from their original bytes, by any definition of the source.

use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bifold_fold::{Decoder, Envelope, Source};
use bifold_ledger::{ArchiveUnit, File, TopicPartition};
use bifold_store::SourceFiles;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Part;
use crate::Error;

/// Rows of one batch.
const BATCH_ROWS: usize = 16_384;

/// Decodes the records of `units` that lie in `part`, and hands over batches of the columns that `wanted` accepts.
/// Every file's checksum is checked.
///
/// # Errors
/// A file that is missing or damaged, the store is unavailable, or what `sink` says.
pub async fn replay(
    source: &Arc<Source>,
    store: &SourceFiles,
    units: &[&ArchiveUnit],
    part: &Part,
    wanted: impl Fn(&str) -> bool,
    mut sink: impl AsyncFnMut(RecordBatch) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut decoder = Decoder::new(Arc::clone(source), wanted);
    let mut dead = vec![];
    for unit in units {
        let files = unit.rows.iter().map(|file| (file, false)).chain(unit.dead.iter().map(|file| (file, true)));
        for (file, dead_letters) in files {
            for batch in records_of(store, file, dead_letters).await? {
                let columns = Columns::new(&batch);
                for row in 0..batch.num_rows() {
                    let Some(record) = columns.record(row) else { continue };
                    if part.holds(&TopicPartition::new(record.topic, record.partition), record.offset) {
                        dead.clear();
                        decoder.push(record, &mut dead);
                    }
                    if decoder.rows() >= BATCH_ROWS {
                        sink(decoder.finish()).await?;
                    }
                }
            }
        }
    }
    if decoder.rows() > 0 {
        sink(decoder.finish()).await?;
    }
    Ok(())
}

async fn records_of(store: &SourceFiles, file: &File, dead_letters: bool) -> Result<Vec<RecordBatch>, Error> {
    let bytes = store.get(file).await?;
    let damaged = |e: String| {
        Error::Store(bifold_store::Error::Damaged { path: store.layout.object(&file.path).to_string(), why: e })
    };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| damaged(e.to_string()))?;
    let mut names = vec!["_topic", "_partition", "_offset", "_timestamp", "_payload"];
    if dead_letters {
        names.push("_alone");
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), names);
    let reader = builder.with_projection(mask).build().map_err(|e| damaged(e.to_string()))?;
    reader.collect::<Result<_, _>>().map_err(|e| damaged(e.to_string()))
}

struct Columns<'a> {
    topic: &'a arrow::array::StringArray,
    partition: &'a arrow::array::Int32Array,
    offset: &'a arrow::array::Int64Array,
    timestamp: &'a arrow::array::TimestampMicrosecondArray,
    payload: &'a arrow::array::BinaryArray,
    alone: Option<&'a arrow::array::BooleanArray>,
}

impl<'a> Columns<'a> {
    fn new(batch: &'a RecordBatch) -> Self {
        let column = |name: &str| batch.column_by_name(name).expect("every archived file has this column");
        Self {
            topic: column("_topic").as_string(),
            partition: column("_partition").as_primitive::<Int32Type>(),
            offset: column("_offset").as_primitive::<Int64Type>(),
            timestamp: column("_timestamp").as_primitive::<TimestampMicrosecondType>(),
            payload: column("_payload").as_binary(),
            alone: batch.column_by_name("_alone").map(|column| column.as_boolean()),
        }
    }

    /// The record that stands at `row`, if this is the row that holds its bytes.
    fn record(&self, row: usize) -> Option<Envelope<'a>> {
        if self.alone.is_some_and(|alone| !alone.value(row)) || self.payload.is_null(row) {
            return None;
        }
        let timestamp_ms = if self.timestamp.is_null(row) { -1 } else { self.timestamp.value(row) / 1_000 };
        Some(Envelope {
            topic: self.topic.value(row),
            partition: self.partition.value(row),
            offset: self.offset.value(row),
            timestamp_ms,
            value: self.payload.value(row),
        })
    }
}
