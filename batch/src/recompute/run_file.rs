//! Writing and reading the runs of a batch view.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bifold_fold::{Engine, View};
use bifold_ledger::File;
use bifold_store::SourceFiles;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use futures::StreamExt;
use object_store::buffered::BufWriter;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use tokio::io::AsyncWriteExt;

use crate::Error;

/// Bytes moved at once from scratch to the store.
const COPY_BYTES: usize = 8 << 20;

/// Reduces `states` to one sorted run, without groups from before a time, and writes it: first to scratch, then to the store. Nothing is written to the
/// store if there is no group.
pub(super) async fn write_run(
    files: &SourceFiles,
    path: String,
    view: &View,
    engine: &Engine,
    (states, kept_from_us): (Arc<dyn ExecutionPlan>, Option<i64>),
    scratch: &Path,
) -> Result<File, Error> {
    let failed = |source| Error::Scratch { folder: scratch.display().to_string(), source };
    let full = |error: ParquetError| failed(std::io::Error::other(error));
    let mut temporary = tempfile::tempfile_in(scratch).map_err(failed)?;
    let level = ZstdLevel::try_new(1).expect("1 is a level");
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let checked = Checked { file: &mut temporary, hasher: crc32fast::Hasher::new(), bytes: 0 };
    let mut writer = ArrowWriter::try_new(checked, Arc::clone(&view.stored), Some(properties))?;
    let mut rows = 0;
    let mut stream = execute_stream(view.sorted_run(states)?, engine.task())?;
    while let Some(batch) = stream.next().await {
        for batch in view.kept_from(vec![view.to_stored(batch?)?], kept_from_us)? {
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(full)?;
        }
    }
    let checked = writer.into_inner().map_err(full)?;
    let file = File { path, bytes: checked.bytes, crc32: checked.hasher.finalize(), rows, tail: None };
    if rows > 0 {
        upload(files, &file, temporary).await.map_err(|e| match e {
            Upload::Scratch(e) => failed(e),
            Upload::Store(source) => Error::Store(bifold_store::Error::Unavailable {
                action: "write",
                path: files.layout.object(&file.path).to_string(),
                source,
            }),
        })?;
    }
    Ok(file)
}

enum Upload {
    Scratch(std::io::Error),
    Store(object_store::Error),
}

async fn upload(files: &SourceFiles, file: &File, mut from: std::fs::File) -> Result<(), Upload> {
    use std::io::Seek;
    from.rewind().map_err(Upload::Scratch)?;
    let mut writer = BufWriter::new(Arc::clone(&files.store), files.layout.object(&file.path));
    let store = |e: std::io::Error| Upload::Store(object_store::Error::Generic { store: "upload", source: e.into() });
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match from.read(&mut buffer).map_err(Upload::Scratch)? {
            0 => return writer.shutdown().await.map_err(store),
            n => writer.write_all(&buffer[..n]).await.map_err(store)?,
        }
    }
}

/// Counts and checksums what is written.
struct Checked<'a> {
    file: &'a mut std::fs::File,
    hasher: crc32fast::Hasher,
    bytes: u64,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// The states of a run.
pub(crate) async fn read_run(files: &SourceFiles, run: &File) -> Result<Vec<RecordBatch>, Error> {
    let bytes = files.get(run).await?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}

/// A plan that gives the states of runs in the form that merges, without groups from before a time. One file's bytes are in memory at a time.
pub(super) fn runs_plan(
    files: &SourceFiles,
    view: &Arc<View>,
    runs: Vec<File>,
    kept_from_us: Option<i64>,
) -> Result<Arc<dyn ExecutionPlan>, Error> {
    let schema = view.states_plan(vec![])?.schema();
    let runs = Runs { files: files.clone(), view: Arc::clone(view), runs, kept_from_us, schema: Arc::clone(&schema) };
    let partition: Arc<dyn PartitionStream> = Arc::new(runs);
    Ok(Arc::new(StreamingTableExec::try_new(schema, vec![partition], None, vec![], false, None)?))
}

#[derive(Debug)]
struct Runs {
    files: SourceFiles,
    view: Arc<View>,
    runs: Vec<File>,
    kept_from_us: Option<i64>,
    schema: SchemaRef,
}

/// Where a stream of runs stands.
struct Reading {
    runs: VecDeque<File>,
    reader: Option<ParquetRecordBatchReader>,
}

impl PartitionStream for Runs {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (files, view, kept_from_us) = (self.files.clone(), Arc::clone(&self.view), self.kept_from_us);
        let reading = Reading { runs: self.runs.clone().into(), reader: None };
        let stream = futures::stream::try_unfold(reading, move |mut reading| {
            let (files, view) = (files.clone(), Arc::clone(&view));
            async move {
                let failed = |error: Error| DataFusionError::External(Box::new(error));
                loop {
                    if let Some(batch) = reading.reader.as_mut().and_then(Iterator::next) {
                        let kept = view.kept_from(vec![batch?], kept_from_us).map_err(|e| failed(e.into()))?;
                        let merged = view.in_merged_form(kept).map_err(|e| failed(e.into()))?;
                        if let Some(batch) = merged.into_iter().find(|batch| batch.num_rows() > 0) {
                            return Ok(Some((batch, reading)));
                        }
                        continue;
                    }
                    let Some(run) = reading.runs.pop_front() else { return Ok(None) };
                    let bytes = files.get(&run).await.map_err(|e| failed(e.into()))?;
                    reading.reader = Some(ParquetRecordBatchReaderBuilder::try_new(bytes)?.build()?);
                }
            }
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}
