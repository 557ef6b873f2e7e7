//! Archived records decoded again from their original bytes, by any definition of the source.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bifold_fold::{Decoder, Envelope, Reason, Source};
use bifold_ledger::{ArchiveUnit, File, Part, TopicPartition};
use bifold_store::{Error, SourceFiles};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Rows of one batch.
const BATCH_ROWS: usize = 16_384;
/// Bytes that they take, about.
const BATCH_BYTES: usize = 64 << 20;

/// Decodes archived records again, batch by batch. Every file's checksum is checked.
#[derive(Debug)]
pub struct Replay {
    store: SourceFiles,
    part: Part,
    decoder: Decoder,
    /// Files to read, and whether each holds dead letters; the next one last.
    files: Vec<(File, bool)>,
    /// Batches of the file being read; the next one last.
    batches: Vec<RecordBatch>,
    /// How many rows of the next one are done.
    done: usize,
    /// Elements that the source does not decode, so far.
    dead: BTreeMap<Reason, u64>,
}

impl Replay {
    /// The records of `units` that lie in `part`, decoded by `source`, with the columns that `wanted` accepts.
    pub fn new(
        source: &Arc<Source>,
        store: &SourceFiles,
        units: &[&ArchiveUnit],
        part: &Part,
        wanted: impl Fn(&str) -> bool,
    ) -> Self {
        let mut files = vec![];
        for unit in units {
            files.extend(unit.rows.iter().map(|file| (file.clone(), false)));
            files.extend(unit.dead.iter().map(|file| (file.clone(), true)));
        }
        files.reverse();
        let decoder = Decoder::new(Arc::clone(source), wanted);
        Self {
            store: store.clone(),
            part: part.clone(),
            decoder,
            files,
            batches: vec![],
            done: 0,
            dead: BTreeMap::new(),
        }
    }

    /// The elements that the source does not decode, by reason, of what was read so far.
    pub fn dead(&self) -> BTreeMap<String, u64> {
        self.dead.iter().map(|(reason, count)| (reason.name().to_string(), *count)).collect()
    }

    /// The next batch of rows; none after the last.
    ///
    /// # Errors
    /// A file that is missing or damaged, or the store is unavailable.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        let mut dead = vec![];
        while !self.is_full() {
            let Some(batch) = self.batches.last().cloned() else {
                let Some((file, dead_letters)) = self.files.pop() else { break };
                self.batches = records_of(&self.store, &file, dead_letters).await?;
                self.batches.reverse();
                continue;
            };
            let columns = Columns::new(&batch);
            while self.done < batch.num_rows() && !self.is_full() {
                self.done += 1;
                let Some(record) = columns.record(self.done - 1) else { continue };
                if self.part.holds(&TopicPartition::new(record.topic, record.partition), record.offset) {
                    dead.clear();
                    self.decoder.push(record, &mut dead);
                    for letter in &dead {
                        *self.dead.entry(letter.reason).or_default() += 1;
                    }
                }
            }
            if self.done == batch.num_rows() {
                self.batches.pop();
                self.done = 0;
            }
        }
        Ok((self.decoder.rows() > 0).then(|| self.decoder.finish()))
    }

    fn is_full(&self) -> bool {
        self.decoder.rows() >= BATCH_ROWS || self.decoder.bytes() >= BATCH_BYTES
    }
}

/// Hands every record of a unit to `sink`, from its rows and its dead letters.
///
/// # Errors
/// A file that is missing or damaged, the store is unavailable, or what `sink` says.
pub async fn each_record<E: From<Error>>(
    store: &SourceFiles,
    unit: &ArchiveUnit,
    mut sink: impl FnMut(Envelope<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for (files, dead) in [(&unit.rows, false), (&unit.dead, true)] {
        for file in files {
            for batch in records_of(store, file, dead).await? {
                let columns = Columns::new(&batch);
                (0..batch.num_rows()).filter_map(|row| columns.record(row)).try_for_each(&mut sink)?;
            }
        }
    }
    Ok(())
}

pub(crate) async fn records_of(
    store: &SourceFiles,
    file: &File,
    dead_letters: bool,
) -> Result<Vec<RecordBatch>, Error> {
    let bytes = store.get(file).await?;
    let damaged = |e: String| Error::Damaged { path: store.layout.object(&file.path).to_string(), why: e };
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| damaged(e.to_string()))?;
    let mut names = vec!["_topic", "_partition", "_offset", "_timestamp", "_payload"];
    if dead_letters {
        names.push("_alone");
    }
    let mask = ProjectionMask::columns(builder.parquet_schema(), names);
    let reader = builder.with_projection(mask).build().map_err(|e| damaged(e.to_string()))?;
    reader.collect::<Result<_, _>>().map_err(|e| damaged(e.to_string()))
}

pub(crate) struct Columns<'a> {
    topic: &'a arrow::array::StringArray,
    partition: &'a arrow::array::Int32Array,
    offset: &'a arrow::array::Int64Array,
    timestamp: &'a arrow::array::TimestampMicrosecondArray,
    payload: &'a arrow::array::BinaryArray,
    alone: Option<&'a arrow::array::BooleanArray>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(batch: &'a RecordBatch) -> Self {
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
    pub(crate) fn record(&self, row: usize) -> Option<Envelope<'a>> {
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
