//! The view's SQL as an ordinary query: no states. What merged answers are checked against.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::SessionContext;
use datafusion::functions_window::expr_fn::lag;
use datafusion::logical_expr::{Aggregate, Expr, ExprFunctionExt, LogicalPlan, col, lit};

use crate::Result;
use crate::dedup::DedupBy;
use crate::engine::Engine;
use crate::view::View;

impl View {
    /// Runs the view's SQL over `table`, which has the source's schema, as DataFusion runs any query. Only the order
    /// inside order-sensitive calls is made unique, as it is in the fold.
    ///
    /// # Errors
    /// DataFusion's failure.
    pub async fn plain(&self, engine: &Engine, table: Arc<dyn TableProvider>) -> Result<Vec<RecordBatch>> {
        let table = match &self.source.dedup {
            Some(by) => without_duplicates(engine.context_of(self.dialect), table, by)?,
            None => table,
        };
        let source = provider_as_source(table);
        let plan = self.plan.clone().transform_up(|node| match node {
            LogicalPlan::TableScan(mut scan) => {
                scan.source = Arc::clone(&source);
                Ok(Transformed::yes(LogicalPlan::TableScan(scan)))
            }
            LogicalPlan::Aggregate(aggregate) => {
                let (keys, calls) = (aggregate.group_expr.clone(), self.plain_calls.clone());
                let schema = Arc::clone(&aggregate.schema);
                let plain = Aggregate::try_new_with_schema(Arc::clone(&aggregate.input), keys, calls, schema)?;
                Ok(Transformed::yes(LogicalPlan::Aggregate(plain)))
            }
            node => Ok(Transformed::no(node)),
        })?;
        Ok(engine.context_of(self.dialect).execute_logical_plan(plan.data).await?.collect().await?)
    }
}

/// The rows of `table` that are no duplicates, as a window function says it: the row before with equal columns is further away
/// than the look-back.
///
/// # Errors
/// DataFusion's failure.
fn without_duplicates(
    context: &SessionContext,
    table: Arc<dyn TableProvider>,
    by: &DedupBy,
) -> Result<Arc<dyn TableProvider>> {
    const BEFORE: &str = "_before";
    let column = |name: &str| col(Column::from_name(name));
    let schema = table.schema();
    let names: Vec<Expr> = schema.fields().iter().map(|field| column(field.name())).collect();
    let equal = ["_topic", "_partition"].into_iter().chain(by.columns.iter().map(String::as_str)).map(column);
    let before = lag(column("_offset"), Some(1), None)
        .partition_by(equal.collect())
        .order_by(["_offset", "_index"].map(|name| column(name).sort(true, false)).to_vec())
        .build()?
        .alias(BEFORE);
    let near = (column("_offset") - column(BEFORE)).lt_eq(lit(by.lookback));
    let frame = context.read_table(table)?.window(vec![before])?;
    let frame = frame.filter(column(BEFORE).is_null().or(!near))?.select(names)?;
    Ok(frame.into_view())
}
