//! States to values: one row a group, overflow judged, then HAVING and the projection.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::aggregates::AggregateMode;
use datafusion::physical_plan::collect;
use datafusion::prelude::col;

use crate::engine::Engine;
use crate::view::View;
use crate::{Error, Result};

/// Values that an aggregate may keep of one group.
const MOST_VALUES: usize = 10_000_000;

impl View {
    /// Stored states to finished rows, in no particular order.
    ///
    /// # Errors
    /// [`Error::Overflow`] if a value does not fit its type, [`Error::TooManyValues`], states of another view, or DataFusion's failure.
    pub async fn finish(&self, engine: &Engine, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let states = self.regroup(states);
        let states = self.bounded(engine, states, MOST_VALUES).await?;
        let mut rows = vec![];
        for part in self.parts(states)? {
            rows.extend(self.finish_part(engine, part).await?);
        }
        Ok(rows)
    }

    async fn finish_part(&self, engine: &Engine, states: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let plan = self.aggregate_exec(AggregateMode::Final, self.states_plan(states)?)?;
        let mut values = collect(plan, engine.task()).await?;
        if self.ungrouped && values.iter().all(|batch| batch.num_rows() == 0) {
            values = vec![self.values_of_nothing()?];
        }
        let values = values.into_iter().map(|batch| self.judged(&batch)).collect::<Result<Vec<_>>>()?;
        self.project(engine, values).await
    }

    /// These states, merged where a group that stands in several of them could keep more than `most` values together.
    ///
    /// # Errors
    /// [`Error::TooManyValues`] for the first group that does.
    pub async fn bounded(&self, engine: &Engine, states: Vec<RecordBatch>, most: usize) -> Result<Vec<RecordBatch>> {
        self.check_values(&states, most)?;
        let kept = |place: usize| -> usize {
            let lists = states.iter().filter_map(|batch| batch.column(place).as_list_opt::<i32>());
            lists.map(|lists| lists.offsets().lengths().sum::<usize>()).sum()
        };
        if (self.key_count()..self.stored.fields().len()).all(|place| kept(place) <= most) {
            return Ok(states);
        }
        let merged = self.reduce(engine, states).await?;
        self.check_values(&merged, most)?;
        Ok(merged)
    }

    /// Whether no group keeps more than `most` values in one state, as `count(DISTINCT)` and `array_agg` do.
    ///
    /// # Errors
    /// [`Error::TooManyValues`] for the first that does.
    pub fn check_values(&self, states: &[RecordBatch], most: usize) -> Result<()> {
        for batch in states {
            for lists in batch.columns().iter().skip(self.key_count()).filter_map(|column| column.as_list_opt::<i32>())
            {
                let lengths = lists.offsets().lengths();
                if let Some((row, values)) = lengths.enumerate().find(|(_, length)| *length > most) {
                    let (view, group) = (self.name.clone(), self.group_text(batch, row));
                    return Err(Error::TooManyValues { view, group, values, most });
                }
            }
        }
        Ok(())
    }

    /// What a view without GROUP BY says of no events: a count of 0, a sum of NULL.
    fn values_of_nothing(&self) -> Result<RecordBatch> {
        let calls = self.calls.iter().map(|call| Ok(call.create_accumulator()?.evaluate()?.to_array()?));
        let key: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![0]));
        let columns = std::iter::once(Ok(key)).chain(calls).collect::<Result<Vec<_>>>()?;
        let fields = columns.iter().enumerate();
        let fields =
            fields.map(|(i, column)| arrow::datatypes::Field::new(format!("c{i}"), column.data_type().clone(), true));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?)
    }

    /// Values in the types that the SQL gave them, as `c0`, `c1`, …: a wide sum that does not fit is an error.
    fn judged(&self, values: &RecordBatch) -> Result<RecordBatch> {
        let keys = self.key_count();
        let dropped = usize::from(self.ungrouped);
        let mut columns: Vec<ArrayRef> = values.columns()[dropped..keys].to_vec();
        for (i, guard) in self.guards.iter().enumerate() {
            let column = &values.columns()[keys + i];
            columns.push(match guard {
                Some(ty) => self.narrowed(values, column, ty, i)?,
                None => Arc::clone(column),
            });
        }
        let schema = self.value_schema();
        let columns = columns
            .into_iter()
            .zip(schema.fields())
            .map(|(column, field)| match column.data_type() == field.data_type() {
                true => Ok(column),
                false => arrow::compute::cast(&column, field.data_type()),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(values.num_rows()));
        Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
    }

    fn narrowed(&self, values: &RecordBatch, column: &ArrayRef, ty: &DataType, call: usize) -> Result<ArrayRef> {
        let lenient = CastOptions { safe: true, ..CastOptions::default() };
        let narrow = cast_with_options(column, ty, &lenient)?;
        let lost = (0..narrow.len()).find(|row| narrow.is_null(*row) && column.is_valid(*row));
        match lost {
            None => Ok(narrow),
            Some(row) => Err(Error::Overflow {
                view: self.name.clone(),
                column: self.name_of(self.aggregate.group_expr.len() + call, &self.aggregate.aggr_expr[call]),
                ty: format!("{ty}").replace("Int64", "BIGINT").replace("Decimal128", "DECIMAL"),
                group: self.group_text(values, row),
            }),
        }
    }

    /// The keys of a group, for people.
    fn group_text(&self, values: &RecordBatch, row: usize) -> String {
        if self.ungrouped {
            return "()".to_string();
        }
        let options = FormatOptions::default().with_null("NULL");
        let show = |column: &ArrayRef| match ArrayFormatter::try_new(column, &options) {
            Ok(formatter) => formatter.value(row).to_string(),
            Err(_) => "?".to_string(),
        };
        let names = self.aggregate.group_expr.iter().enumerate().map(|(place, expr)| self.name_of(place, expr));
        let parts = names.zip(values.columns()).map(|(name, column)| format!("{name} = {}", show(column)));
        format!("({})", parts.collect::<Vec<_>>().join(", "))
    }

    fn value_schema(&self) -> SchemaRef {
        let fields = self.aggregate.schema.fields().iter().enumerate();
        let renamed = fields.map(|(i, field)| field.as_ref().clone().with_name(format!("c{i}")).with_nullable(true));
        Arc::new(Schema::new(renamed.collect::<Vec<_>>()))
    }

    /// HAVING and the projection, over a table of values in the aggregate's place.
    async fn project(&self, engine: &Engine, values: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let table = MemTable::try_new(self.value_schema(), vec![values])?;
        let scan = LogicalPlanBuilder::scan("_values", provider_as_source(Arc::new(table)), None)?;
        let names = self.aggregate.schema.iter().enumerate().map(|(i, (qualifier, field))| {
            col(format!("_values.c{i}")).alias_qualified(qualifier.cloned(), field.name())
        });
        let replacement = scan.project(names.collect::<Vec<_>>())?.build()?;
        let plan = self.plan.clone().transform_up(|node| match node {
            LogicalPlan::Aggregate(_) => Ok(Transformed::yes(replacement.clone())),
            node => Ok(Transformed::no(node)),
        })?;
        let frame = engine.context_of(self.dialect).execute_logical_plan(plan.data).await?;
        let rows = frame.collect().await?;
        let output = Arc::clone(&self.output);
        rows.into_iter()
            .map(|batch| {
                let columns = batch.columns().iter().zip(output.fields());
                let columns = columns
                    .map(|(column, field)| match column.data_type() == field.data_type() {
                        true => Ok(Arc::clone(column)),
                        false => arrow::compute::cast(column, field.data_type()),
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                let nullable = output.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
                let schema = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
                let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
                Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
            })
            .collect()
    }
}
