//! The view's SQL as an ordinary query: no states. What merged answers are checked against.

use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Aggregate, LogicalPlan};

use crate::Result;
use crate::engine::Engine;
use crate::view::View;

impl View {
    /// Runs the view's SQL over `table`, which has the source's schema, as DataFusion runs any query. Only the order
    /// inside order-sensitive calls is made unique, as it is in the fold.
    ///
    /// # Errors
    /// DataFusion's failure.
    pub async fn plain(&self, engine: &Engine, table: Arc<dyn TableProvider>) -> Result<Vec<RecordBatch>> {
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
        Ok(engine.context().execute_logical_plan(plan.data).await?.collect().await?)
    }
}
