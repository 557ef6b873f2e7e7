//! Rows to states, states to fewer states, states to values: the three steps of merging, in every layer.
//!
//! Everything runs as DataFusion's own `AggregateExec`, in the modes Partial, PartialReduce and Final.

mod finish;
mod input;
mod parts;
mod plain;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, RecordBatch, StructArray};
use arrow::compute::{CastOptions, SortOptions, cast, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimeUnit, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::sorts::sort_preserving_merge::SortPreservingMergeExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect};

pub use input::Input;

use crate::engine::Engine;
use crate::view::View;
use crate::{Error, Result};

impl View {
    fn aggregate_exec(&self, mode: AggregateMode, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let raw = matches!(mode, AggregateMode::Partial);
        let group_by = if raw { Arc::clone(&self.group_by) } else { Arc::new(self.group_by.as_final()) };
        let input = match input.output_partitioning().partition_count() {
            1 => input,
            _ if raw => input,
            _ => Arc::new(CoalescePartitionsExec::new(input)),
        };
        let (calls, filters) = (self.calls.clone(), self.filters.clone());
        let schema = Arc::clone(&self.input_schema);
        Ok(Arc::new(AggregateExec::try_new(mode, group_by, calls, filters, input, schema)?))
    }

    /// Rows of the view's input to states.
    ///
    /// # Errors
    /// The plan cannot be made.
    pub fn partial(&self, input: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        self.aggregate_exec(AggregateMode::Partial, input)
    }

    /// States to fewer states. Sorted input (by the keys) is reduced as it streams.
    ///
    /// # Errors
    /// The plan cannot be made.
    pub fn reduce_plan(&self, states: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        self.aggregate_exec(AggregateMode::PartialReduce, states)
    }

    /// States to one sorted run: every group once, ordered by the keys, spilling where the engine's memory ends.
    ///
    /// # Errors
    /// The plan cannot be made.
    pub fn sorted_run(&self, states: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = states.schema();
        let by = (0..self.key_count()).map(|i| PhysicalSortExpr {
            expr: Arc::new(Column::new(schema.field(i).name(), i)),
            options: SortOptions::default(),
        });
        let ordering = LexOrdering::new(by).expect("a view has at least one key");
        let sorted: Arc<dyn ExecutionPlan> =
            Arc::new(SortExec::new(ordering.clone(), states).with_preserve_partitioning(true));
        self.reduce_plan(match sorted.output_partitioning().partition_count() {
            1 => sorted,
            _ => Arc::new(SortPreservingMergeExec::new(ordering, sorted)),
        })
    }

    /// Batches of states to fewer state rows, in the stored form.
    ///
    /// # Errors
    /// States of another view, or DataFusion's failure.
    pub async fn reduce(&self, engine: &Engine, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let mut reduced = vec![];
        for part in self.parts(states)? {
            for batch in collect(self.reduce_plan(self.states_plan(part)?)?, engine.task()).await? {
                reduced.push(self.to_stored(batch)?);
            }
        }
        Ok(reduced)
    }

    /// The seam for windows that are not simply keys: panes to hop windows, neighbours to sessions. The identity for
    /// every window there is today.
    pub fn regroup(&self, states: Vec<RecordBatch>) -> Vec<RecordBatch> {
        states
    }

    /// Stored states without those of groups whose time lies before `from_us`, in microseconds since 1970.
    ///
    /// # Errors
    /// A time that cannot be compared.
    pub fn kept_from(&self, states: Vec<RecordBatch>, from_us: Option<i64>) -> Result<Vec<RecordBatch>> {
        let (Some(key), Some(from)) = (self.time_key, from_us) else { return Ok(states) };
        let kept = |batch: RecordBatch| kept_from(&batch, batch.column(key), from);
        states.into_iter().map(kept).collect()
    }

    /// The same for finished rows.
    ///
    /// # Errors
    /// A time that cannot be compared.
    pub fn rows_kept_from(&self, rows: Vec<RecordBatch>, from_us: Option<i64>) -> Result<Vec<RecordBatch>> {
        let (Some(column), Some(from)) = (&self.time_column, from_us) else { return Ok(rows) };
        let place = self.output.index_of(column)?;
        let kept = |batch: RecordBatch| kept_from(&batch, batch.column(place), from);
        rows.into_iter().map(kept).collect()
    }

    /// A plan that gives these stored batches, in the form that merges.
    ///
    /// # Errors
    /// States of another view.
    pub fn states_plan(&self, states: Vec<RecordBatch>) -> Result<Arc<dyn ExecutionPlan>> {
        let states = self.in_merged_form(states)?;
        Ok(MemorySourceConfig::try_new_exec(&[states], Arc::clone(&self.merged), None)?)
    }

    /// Stored states in the form that merges.
    ///
    /// # Errors
    /// States of another view.
    pub fn in_merged_form(&self, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        states.into_iter().map(|batch| self.to_merged(batch)).collect()
    }

    /// States as `AggregateExec` gives them, in the stored form.
    ///
    /// # Errors
    /// States of another view.
    pub fn to_stored(&self, batch: RecordBatch) -> Result<RecordBatch> {
        self.retyped(batch, &self.merged, &self.stored)
    }

    fn to_merged(&self, batch: RecordBatch) -> Result<RecordBatch> {
        self.retyped(batch, &self.stored, &self.merged)
    }

    fn retyped(&self, batch: RecordBatch, from: &SchemaRef, to: &SchemaRef) -> Result<RecordBatch> {
        let differ = |why| Err(Error::States { view: self.name.clone(), why });
        if batch.num_columns() != from.fields().len() {
            return differ(format!("{} columns where there are {}", batch.num_columns(), from.fields().len()));
        }
        for (column, field) in batch.columns().iter().zip(from.fields()) {
            if column.data_type() != field.data_type() {
                return differ(format!("{} is {}, not {}", field.name(), column.data_type(), field.data_type()));
            }
        }
        let columns = batch.columns().iter().zip(to.fields());
        let columns =
            columns.map(|(column, field)| recast(column, field.data_type())).collect::<Result<Vec<_>, _>>()?;
        Ok(RecordBatch::try_new(Arc::clone(to), columns)?)
    }
}

/// The rows whose `time` is not before `from`, in microseconds since 1970.
fn kept_from(batch: &RecordBatch, time: &ArrayRef, from: i64) -> Result<RecordBatch> {
    let times = cast(time, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let kept: BooleanArray = times.iter().map(|time| Some(time.is_none_or(|time| time >= from))).collect();
    Ok(filter_record_batch(batch, &kept)?)
}

/// `array` as `ty`, from which its type differs in names inside, in the layout of texts and bytes, or in what may be
/// null, but in nothing else. Fields of structs go by their place.
fn recast(array: &ArrayRef, ty: &DataType) -> Result<ArrayRef, ArrowError> {
    match (array.data_type(), ty) {
        (from, to) if from == to => Ok(Arc::clone(array)),
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let from = array.as_struct();
            let columns = from.columns().iter().zip(fields).map(|(column, field)| recast(column, field.data_type()));
            let (columns, nulls) = (columns.collect::<Result<Vec<_>, _>>()?, from.nulls().cloned());
            Ok(Arc::new(StructArray::try_new_with_length(fields.clone(), columns, nulls, from.len())?))
        }
        (DataType::List(_), DataType::List(item)) => {
            let from = array.as_list::<i32>();
            let values = recast(from.values(), item.data_type())?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), from.offsets().clone(), values, from.nulls().cloned())?))
        }
        (_, to) => cast_with_options(array, to, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}
