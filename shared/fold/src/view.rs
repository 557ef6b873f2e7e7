//! A view, compiled: group keys, aggregate calls, the input below them and what finishes them above.
//!
//! ```text
//! SELECT a, sum(b) / count(*) FROM s WHERE c GROUP BY 1 HAVING …
//!
//!   source rows ─► input plan ─► partial ─► states ─► reduce ─► finish: values ─► HAVING, projection ─► rows
//!                  filter,                   k0 …                (overflow is
//!                  needed columns            s0 …                 judged here)
//! ```
//!
//! The plan is taken analysed but not optimised: the optimiser would change the states.

mod aggregate;
mod check;
mod compile;
mod constants;
mod dry_run;
mod readings;
mod shape;
mod total;
mod wrong;

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use bifold_ledger::{Body, Dialect, VersionId};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::aggregates::PhysicalGroupBy;

pub use compile::{Stored, compile, compile_all, compile_stored, compile_under};
pub use readings::Readings;

use crate::schema::Source;

/// A compiled view.
pub struct View {
    /// Its name.
    pub name: String,
    /// Its version: the hash of all that decides its content.
    pub version: VersionId,
    /// The dialect that it was declared under.
    pub dialect: Dialect,
    /// What defines it, normalised: the SELECT; before it, where it has options, `WITH (…) AS`.
    pub sql: String,
    /// The source it reads.
    pub source: Arc<Source>,
    /// The finished rows' schema.
    pub output: SchemaRef,
    /// The output columns that are group keys, in order.
    pub keys: Vec<String>,
    /// Whether every group key is among them, so that they tell rows apart.
    pub all_keys_shown: bool,
    /// The output column that holds the window's start or the event time.
    pub time_column: Option<String>,
    /// How long groups stay, by the time column, before the watermark at the boundary. None: for ever.
    pub retention_us: Option<i64>,
    /// Which of the keys the time column is.
    pub(crate) time_key: Option<usize>,
    /// Output columns that are quantiles from sketches: equal only within their error.
    pub approximate: Vec<String>,
    /// Output columns whose values do not add up over groups, and the measures that they are.
    pub(crate) not_additive: Vec<(String, String)>,
    /// The source columns that its input reads: what a decoder has to build.
    pub needed: Vec<String>,
    /// The ids of its aggregates' states.
    pub state_ids: Vec<String>,
    /// The schema in which states are stored: canonical types, names of their own.
    pub stored: SchemaRef,
    /// The schema in which states are merged.
    pub(crate) merged: SchemaRef,
    /// The plan below the aggregate, down to the source's scan.
    pub(crate) input: LogicalPlan,
    /// The analysed plan with the aggregate still inside.
    pub(crate) plan: LogicalPlan,
    pub(crate) aggregate: Aggregate,
    pub(crate) input_schema: SchemaRef,
    pub(crate) group_by: Arc<PhysicalGroupBy>,
    pub(crate) calls: Vec<Arc<AggregateFunctionExpr>>,
    pub(crate) filters: Vec<Option<Arc<dyn PhysicalExpr>>>,
    /// The calls as an ordinary query makes them.
    pub(crate) plain_calls: Vec<Expr>,
    /// What each call's value has to become, where it was widened.
    pub(crate) guards: Vec<Option<DataType>>,
    /// Whether the only key is a dummy: a view without GROUP BY.
    pub(crate) ungrouped: bool,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").field("name", &self.name).field("version", &self.version).finish_non_exhaustive()
    }
}

impl View {
    /// The entry by which a ledger gets to know it.
    pub fn declaration(&self) -> Body {
        Body::Declared {
            view: self.name.clone(),
            version: self.version.clone(),
            sql: self.sql.clone(),
            source: serde_json::to_value(&*self.source).expect("a source is JSON"),
            dialect: self.dialect,
        }
    }

    /// How many of the stored columns are keys.
    pub fn key_count(&self) -> usize {
        self.group_by.num_group_exprs()
    }

    /// The measure because of which a column's values do not add up over groups, for people. None where they do, and of keys.
    pub fn does_not_add_up(&self, column: &str) -> Option<&str> {
        self.not_additive.iter().find(|(name, _)| name == column).map(|(_, measure)| measure.as_str())
    }

    /// What people call the aggregate's output at `place`: the view's column, else the expression.
    pub(crate) fn name_of(&self, place: usize, expr: &Expr) -> String {
        shape::shown_as(&self.plan, &self.aggregate, place).unwrap_or_else(|| expr.schema_name().to_string())
    }
}
