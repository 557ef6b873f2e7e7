//! The plan below the aggregate: from a source's rows to what is aggregated.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{ExecutionPlan, collect, execute_stream};
use futures::StreamExt;

use crate::Result;
use crate::engine::Engine;
use crate::view::View;

impl View {
    /// The plan of the view's input over `table`, which has the source's schema.
    ///
    /// # Errors
    /// The plan cannot be made.
    pub async fn input_plan(&self, engine: &Engine, table: Arc<dyn TableProvider>) -> Result<Arc<dyn ExecutionPlan>> {
        let source = provider_as_source(table);
        let plan = self.input.clone().transform_up(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                scan.source = Arc::clone(&source);
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            node => Ok(Transformed::no(node)),
        })?;
        Ok(engine.context_of(self.dialect).state().create_physical_plan(&plan.data).await?)
    }
}

/// A view's input, planned once, over batches as they come.
#[derive(Debug)]
pub struct Input {
    view: Arc<View>,
    engine: Engine,
    /// The plan over an empty table; its leaf is replaced for every batch.
    template: Arc<dyn ExecutionPlan>,
    /// What the leaf gives: some of the source's columns, in the source's order. None if the view's condition is never
    /// true: then the planner leaves nothing of the scan.
    scanned: Option<SchemaRef>,
    /// Whether it may make many rows of one: then what it makes is folded piece by piece.
    multiplies: bool,
}

/// Bytes of unnested rows that are folded at once.
const UNNESTED_BYTES: usize = 128 << 20;

impl Input {
    /// Plans the input of `view`.
    ///
    /// # Errors
    /// The plan cannot be made.
    pub async fn new(engine: &Engine, view: Arc<View>) -> Result<Self> {
        let table = Arc::new(MemTable::try_new(view.source.schema(), vec![vec![]])?);
        let template = view.input_plan(engine, table).await?;
        let mut leaf = Arc::clone(&template);
        while let Some(child) = leaf.children().first().map(|child| Arc::clone(child)) {
            leaf = child;
        }
        let scanned = (!leaf.is::<EmptyExec>()).then(|| leaf.schema());
        let multiplies = template.exists(|node| Ok(node.is::<UnnestExec>()))?;
        Ok(Self { view, engine: engine.clone(), template, scanned, multiplies })
    }

    /// Folds decoded rows into states, in the stored form. `rows` holds at least the columns that the view needs.
    ///
    /// # Errors
    /// DataFusion's failure.
    pub async fn fold(&self, rows: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        match self.fold_at_once(rows).await {
            // What is made of all of them is too large; of one event it is bounded.
            Err(error) if error.is_of_batch_size() && count > 1 => {
                let (first, second) = halves(rows, count / 2);
                let mut states = Box::pin(self.fold(&first)).await?;
                states.extend(Box::pin(self.fold(&second)).await?);
                Ok(states)
            }
            folded => folded,
        }
    }

    async fn fold_at_once(&self, rows: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
        let Some(scanned) = &self.scanned else { return Ok(vec![]) };
        let rows = rows.iter().map(|batch| pick(batch, scanned)).collect::<Result<Vec<_>>>()?;
        let leaf: Arc<dyn ExecutionPlan> = MemorySourceConfig::try_new_exec(&[rows], Arc::clone(scanned), None)?;
        let plan = Arc::clone(&self.template).transform_up(|node| match node.children().is_empty() {
            true => Ok(Transformed::yes(Arc::clone(&leaf))),
            false => Ok(Transformed::no(node)),
        })?;
        if !self.multiplies {
            return self.partial(plan.data).await;
        }
        let schema = plan.data.schema();
        let mut input = execute_stream(plan.data, self.engine.task())?;
        let (mut states, mut waiting, mut bytes) = (vec![], vec![], 0);
        loop {
            let next = input.next().await.transpose()?;
            bytes += next.as_ref().map_or(0, RecordBatch::get_array_memory_size);
            let last = next.is_none();
            waiting.extend(next);
            if (last && !waiting.is_empty()) || bytes >= UNNESTED_BYTES {
                let batches = [std::mem::take(&mut waiting)];
                let plan = MemorySourceConfig::try_new_exec(&batches, Arc::clone(&schema), None)?;
                states.extend(self.partial(plan).await?);
                bytes = 0;
            }
            if last {
                return Ok(states);
            }
        }
    }

    async fn partial(&self, input: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        let states = collect(self.view.partial(input)?, self.engine.task()).await?;
        states.into_iter().map(|batch| self.view.to_stored(batch)).collect()
    }
}

/// The first `count` rows, and the others.
fn halves(rows: &[RecordBatch], count: usize) -> (Vec<RecordBatch>, Vec<RecordBatch>) {
    let (mut first, mut second, mut left) = (vec![], vec![], count);
    for batch in rows {
        let here = left.min(batch.num_rows());
        first.push(batch.slice(0, here));
        second.push(batch.slice(here, batch.num_rows() - here));
        left -= here;
    }
    (first, second)
}

/// The columns of `schema`, by name.
fn pick(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let from: &Schema = batch.schema_ref();
    let places = schema.fields().iter().map(|field| from.index_of(field.name()));
    let columns =
        places.map(|place| place.map(|place| Arc::clone(batch.column(place)))).collect::<Result<Vec<_>, _>>()?;
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}
