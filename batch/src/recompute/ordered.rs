//! Archived rows in the log's order, without duplicates: for sources with `dedup`. One thread reads file after file, from so many
//! offsets before the part as the look-back asks for.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use arrow::array::{AsArray, BooleanArray, RecordBatch, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use bifold_archive::replay::Replay;
use bifold_fold::{Dedup, View};
use bifold_ledger::{ArchiveUnit, Ledger, Part, TopicPartition};
use bifold_store::SourceFiles;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Error;
use crate::collect::buffer::sorted;
use crate::progress::Progress;

/// The rows of `part` that are no duplicates, as a table that can be read once.
pub(super) fn table(
    view: &View,
    files: &SourceFiles,
    ledger: &Ledger,
    part: &Part,
    progress: &Progress,
) -> Result<Arc<dyn TableProvider>, Error> {
    let dedup = Dedup::new(&view.source, view.dialect)?.expect("the caller found that the source has dedup");
    let warm = part.to.iter().map(|(at, _)| {
        let from = (part.from.or_zero(at) - dedup.lookback()).max(ledger.kept_from(at));
        (at.clone(), from)
    });
    let read = Part { from: warm.collect(), ..part.clone() };
    let units = read.units(ledger).map(|(unit, _)| unit.clone()).collect();
    let schema = view.source.schema();
    let wanted = schema.fields().iter().map(|field| field.name().clone());
    // By its index rows that are decoded anew are put in order.
    let wanted = wanted.filter(|name| view.needed.contains(name) || dedup.reads(name) || name == "_index").collect();
    let rows = Rows {
        files: files.clone(),
        source: Arc::clone(&view.source),
        schema: Arc::clone(&schema),
        wanted,
        own: part.clone(),
        read,
        dedup,
        units,
        batches: VecDeque::new(),
        progress: progress.clone(),
    };
    let stream = Arc::new(Once { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)) });
    Ok(Arc::new(StreamingTable::try_new(schema, vec![stream])?))
}

/// A stream that is taken once.
#[derive(Debug)]
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<Rows>>,
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().expect("no holder panics").take();
        let rows = rows.ok_or_else(|| DataFusionError::Internal("archived rows are read twice".to_string()));
        let stream = futures::stream::try_unfold(Some(rows), |rows| async move {
            let Some(rows) = rows else { return Ok(None) };
            let mut rows = rows?;
            let next = rows.next().await.map_err(|error| DataFusionError::External(Box::new(error)))?;
            Ok(next.map(|batch| (batch, Some(Ok(rows)))))
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

#[derive(Debug)]
struct Rows {
    files: SourceFiles,
    source: Arc<bifold_fold::Source>,
    schema: SchemaRef,
    wanted: Vec<String>,
    /// What is given.
    own: Part,
    /// What is read: the look-back too.
    read: Part,
    dedup: Dedup,
    units: VecDeque<ArchiveUnit>,
    batches: VecDeque<RecordBatch>,
    progress: Progress,
}

impl Rows {
    async fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        loop {
            let Some(batch) = self.batches.pop_front() else {
                let Some(unit) = self.units.pop_front() else { return Ok(None) };
                self.batches = self.unit(&unit).await?.into();
                continue;
            };
            self.progress.add(batch.num_rows() as u64);
            let batch = filter_record_batch(&batch, &held(&self.read, &batch))?;
            let admitted = self.dedup.admit(&batch)?;
            let own = held(&self.own, &batch);
            let kept = filter_record_batch(&batch, &arrow::compute::and(&admitted, &own)?)?;
            if kept.num_rows() > 0 {
                return Ok(Some(self.whole(&kept)?));
            }
        }
    }

    /// The rows of a unit: from its columns if they were decoded alike, else from its bytes.
    async fn unit(&self, unit: &ArchiveUnit) -> Result<Vec<RecordBatch>, Error> {
        let mut batches = vec![];
        if unit.decoding == self.source.decoding() {
            for file in &unit.rows {
                let bytes = self.files.get(file).await?;
                let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
                let mask = ProjectionMask::columns(builder.parquet_schema(), self.wanted.iter().map(String::as_str));
                for batch in builder.with_projection(mask).build()? {
                    batches.push(batch?);
                }
            }
        } else {
            let wanted = |name: &str| self.wanted.iter().any(|wanted| wanted == name);
            let mut replay = Replay::new(&self.source, &self.files, &[unit], &self.read, wanted);
            while let Some(batch) = replay.next().await? {
                batches.push(batch);
            }
            // By another definition dead letters may be rows, which lie in a file of their own.
            if let Some(first) = batches.first() {
                batches = vec![sorted(&concat_batches(&first.schema(), &batches)?)];
            }
        }
        Ok(batches)
    }

    /// With every column of the source: those that nothing reads are null.
    fn whole(&self, batch: &RecordBatch) -> Result<RecordBatch, Error> {
        let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => Arc::clone(column),
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns.collect())?)
    }
}

/// Which rows lie in a part.
pub(crate) fn held(part: &Part, batch: &RecordBatch) -> BooleanArray {
    let column = |name: &str| batch.column_by_name(name).expect("every archived row has its place in the log");
    let topics = column("_topic").as_string::<i32>();
    let partitions = column("_partition").as_primitive::<Int32Type>();
    let offsets = column("_offset").as_primitive::<Int64Type>();
    let mut last: Option<(usize, TopicPartition)> = None;
    let holds = |row: usize| {
        let same =
            last.as_ref().is_some_and(|(_, at)| at.partition == partitions.value(row) && at.topic == topics.value(row));
        if !same {
            last = Some((row, TopicPartition::new(topics.value(row), partitions.value(row))));
        }
        let (_, at) = last.as_ref().expect("it was set");
        part.holds(at, offsets.value(row))
    };
    BooleanArray::from((0..offsets.len()).map(holds).collect::<Vec<_>>())
}
