//! One log folded as the layers fold it.
//!
//! ```text
//!            b              cuts                f
//!   p0  ─────┼──────┬───────────┬───────────────┼────
//!   p1  ──┼──┼──────┴───┬───────┘ …             ┼────   what lies at or above f is left out
//!         archived      epochs of slices
//!         rows ─Parquet─► partial ► sort ► ordered reduce ─Parquet─► ┐
//!                       slice ► states ─reduce─► delta file ───────► ├─ shuffle, cut, reduce ► finish
//! ```

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use bifold_fold::states::Input;
use bifold_fold::{Decoder, Engine, Error, Source, View, delta};
use bytes::Bytes;
use datafusion::datasource::MemTable;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, collect};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::log::{PARTITIONS, Record};

/// The two layers' engines and the views they fold.
pub(super) struct Fold {
    /// The speed layer's: small batches, one thread.
    pub(super) engine: Engine,
    /// The batch layer's: a memory limit and two threads.
    pub(super) batch: Engine,
    pub(super) views: Vec<Arc<View>>,
    pub(super) inputs: Vec<Input>,
    _scratch: tempfile::TempDir,
}

/// For each view, batches of states.
pub(super) type States = Vec<Vec<RecordBatch>>;

impl Fold {
    pub(super) async fn new(engine: Engine, views: Vec<Arc<View>>) -> Self {
        let scratch = tempfile::tempdir().expect("a folder for scratch");
        let batch = Engine::with_limit(64 << 20, scratch.path(), 2).expect("the scratch folder can be used");
        let mut inputs = vec![];
        for view in &views {
            inputs.push(Input::new(&engine, Arc::clone(view)).await.expect("the input can be planned"));
        }
        Self { engine, batch, views, inputs, _scratch: scratch }
    }

    fn source(&self) -> &Arc<Source> {
        &self.views[0].source
    }

    /// All records decoded at once, every column.
    pub(super) fn decode(&self, records: &[&Record]) -> RecordBatch {
        decode(self.source(), records, |_| true)
    }

    /// The first record in which the decoder does not see what was written into it.
    pub(super) fn misread(&self, records: &[&Record]) -> Option<String> {
        let mut decoder = Decoder::new(Arc::clone(self.source()), |_| true);
        records.iter().find_map(|record| {
            let mut dead = vec![];
            let events = decoder.push(record.envelope(), &mut dead);
            let right = (events, dead.len()) == (record.events, record.dead);
            (!right).then(|| format!("{events} events and {dead:?} in {}", record.value.escape_ascii()))
        })
    }

    /// Everything in one fold.
    pub(super) async fn at_once(&self, rows: &RecordBatch) -> Result<States, Error> {
        let mut states = vec![];
        for input in &self.inputs {
            states.push(input.fold(std::slice::from_ref(rows)).await?);
        }
        Ok(states)
    }

    /// Everything below a random frontier, in random pieces: states of batch and speed, merged a little, in no order.
    pub(super) async fn in_pieces(&self, cuts: &Cuts<'_>, rng: &mut StdRng) -> Result<States, Error> {
        let mut states = self.archived(&cuts.prefix, rng).await?;
        for epoch in &cuts.epochs {
            for (view, more) in self.epoch(epoch, rng).await?.into_iter().enumerate() {
                states[view].extend(more);
            }
        }
        let mut merged = vec![];
        for (view, mut states) in self.views.iter().zip(states) {
            for _ in 0..rng.random_range(0..3) {
                states = self.reduce_some(view, cut_batches(states, rng), rng).await?;
            }
            states.shuffle(rng);
            merged.push(states);
        }
        Ok(merged)
    }

    /// What the batch layer makes of the archive below its boundary.
    async fn archived(&self, records: &[&Record], rng: &mut StdRng) -> Result<States, Error> {
        let schema = self.source().schema();
        // Files of rows, in any number of partitions of the scan.
        let mut files = vec![vec![]; rng.random_range(1..4)];
        for chunk in random_chunks(records, rng) {
            let rows = self.decode(&chunk);
            let file = rng.random_range(0..files.len());
            files[file].extend(through_parquet(&schema, &[rows]));
        }
        let table = Arc::new(MemTable::try_new(schema, files)?);
        let mut states = vec![];
        for view in &self.views {
            let input = view.input_plan(&self.batch, Arc::clone(&table) as _).await?;
            let mut plan = view.partial(input)?;
            if rng.random() {
                plan = view.reduce_plan(sorted(plan, view.key_count()))?;
            }
            let batches = collect(plan, self.batch.task()).await?;
            let stored = batches.into_iter().map(|batch| view.to_stored(batch)).collect::<Result<Vec<_>, _>>()?;
            states.push(through_parquet(&view.stored, &stored));
        }
        Ok(states)
    }

    /// What the speed layer makes of one epoch: its slices through one delta file.
    async fn epoch(&self, slices: &[Vec<&Record>], rng: &mut StdRng) -> Result<States, Error> {
        let wanted = |column: &str| self.views.iter().any(|view| view.needed.iter().any(|needed| needed == column));
        let rows: Vec<RecordBatch> = slices.iter().map(|slice| decode(self.source(), slice, wanted)).collect();
        let mut sections = vec![];
        for (view, input) in self.views.iter().zip(&self.inputs) {
            let mut states = vec![];
            for rows in &rows {
                states.extend(input.fold(std::slice::from_ref(rows)).await?);
                if rng.random_bool(0.3) {
                    states = self.reduce_some(view, states, rng).await?;
                }
            }
            if rng.random() {
                states = view.reduce(&self.engine, states).await?;
            }
            sections.push((view.version.clone(), Arc::clone(&view.stored), states));
        }
        let file = delta::write(&sections)?;
        let read = |view: &Arc<View>| delta::read(&file, &view.version).expect("what was written is read");
        Ok(self.views.iter().map(read).collect())
    }

    /// Reduces a random part of `states`.
    async fn reduce_some(
        &self,
        view: &View,
        mut states: Vec<RecordBatch>,
        rng: &mut StdRng,
    ) -> Result<Vec<RecordBatch>, Error> {
        states.shuffle(rng);
        let kept = states.split_off(rng.random_range(0..=states.len()));
        let engine = if rng.random() { &self.engine } else { &self.batch };
        let mut states = view.reduce(engine, states).await?;
        states.extend(kept);
        Ok(states)
    }
}

/// A log cut at random: `[0,b)` as it is archived, and epochs of slices up to the frontier.
pub(super) struct Cuts<'a> {
    pub(super) prefix: Vec<&'a Record>,
    pub(super) epochs: Vec<Vec<Vec<&'a Record>>>,
    /// Everything below the frontier.
    pub(super) all: Vec<&'a Record>,
}

impl<'a> Cuts<'a> {
    pub(super) fn new(log: &'a [Record], rng: &mut StdRng) -> Self {
        let epochs = rng.random_range(0..4usize);
        let mut prefix = vec![];
        let mut spans: Vec<Vec<&Record>> = vec![vec![]; epochs];
        for partition in 0..PARTITIONS.len() {
            let records: Vec<&Record> = log.iter().filter(|record| record.partition == partition).collect();
            // b, the ends of epochs, and f: positions in order. One time in four the frontier is the log's end.
            let mut ends: Vec<usize> = (0..=epochs).map(|_| rng.random_range(0..=records.len())).collect();
            if rng.random_bool(0.25) {
                ends[0] = records.len();
            }
            ends.sort_unstable();
            prefix.extend(&records[..ends[0]]);
            for (epoch, span) in spans.iter_mut().enumerate() {
                span.extend(&records[ends[epoch]..ends[epoch + 1]]);
            }
        }
        let all = prefix.iter().chain(spans.iter().flatten()).copied().collect();
        let slices = |span: Vec<&'a Record>, rng: &mut StdRng| {
            let mut slices = random_chunks(&span, rng);
            slices.shuffle(rng);
            slices
        };
        Self { prefix, epochs: spans.into_iter().map(|span| slices(span, rng)).collect(), all }
    }
}

/// Decodes `records` in one batch.
pub(super) fn decode(source: &Arc<Source>, records: &[&Record], wanted: impl Fn(&str) -> bool) -> RecordBatch {
    let mut decoder = Decoder::new(Arc::clone(source), wanted);
    for record in records {
        decoder.push(record.envelope(), &mut vec![]);
    }
    decoder.finish()
}

/// `records` in order, in pieces of random length; one piece at least.
fn random_chunks<'a>(records: &[&'a Record], rng: &mut StdRng) -> Vec<Vec<&'a Record>> {
    let mut chunks = vec![vec![]];
    for record in records {
        if rng.random_bool(0.15) {
            chunks.push(vec![]);
        }
        chunks.last_mut().expect("one at least").push(*record);
    }
    chunks
}

/// Some batches cut in two, without a copy: arrays that do not start at 0.
fn cut_batches(batches: Vec<RecordBatch>, rng: &mut StdRng) -> Vec<RecordBatch> {
    let mut cut = vec![];
    for batch in batches {
        let at = rng.random_range(0..=batch.num_rows());
        cut.push(batch.slice(at, batch.num_rows() - at));
        cut.push(batch.slice(0, at));
    }
    cut
}

/// `plan`, sorted by its first `keys` columns over all its partitions.
fn sorted(plan: Arc<dyn ExecutionPlan>, keys: usize) -> Arc<dyn ExecutionPlan> {
    let schema = plan.schema();
    let options = SortOptions { descending: false, nulls_first: false };
    let by = (0..keys).map(|i| PhysicalSortExpr::new(Arc::new(Column::new(schema.field(i).name(), i)), options));
    let ordering = LexOrdering::new(by).expect("every view has a key, be it a dummy");
    let sort = SortExec::new(ordering.clone(), plan).with_preserve_partitioning(true);
    Arc::new(SortPreservingMergeExec::new(ordering, Arc::new(sort)))
}

/// What a Parquet file gives back of `batches`.
pub(super) fn through_parquet(schema: &SchemaRef, batches: &[RecordBatch]) -> Vec<RecordBatch> {
    let mut writer = ArrowWriter::try_new(vec![], Arc::clone(schema), None).expect("Parquet holds every type");
    for batch in batches {
        writer.write(batch).expect("the batches are of this schema");
    }
    let file = Bytes::from(writer.into_inner().expect("memory takes all"));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("what was written is read");
    let read: Vec<RecordBatch> = reader.build().expect("all columns").map(|batch| batch.expect("rows")).collect();
    assert!(read.iter().all(|batch| batch.schema() == *schema), "Parquet gives back another schema than {schema:?}");
    read
}
