//! Folds constants, and lets functions say what they become; nothing else is simplified.
//!
//! In the place of DataFusion's `simplify_expressions`, whose algebra forgets NULL: it takes `k NOT IN ('x') OR k NOT IN ('y')`
//! for true, `NOT (k ~ '.*')` for true where k is NULL, and `CAST(d AS BIGINT) = 5` for `d = 5.00`.

use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result, ScalarValue, resources_err};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::utils::{conjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, ColumnarValue, Expr, Filter, LogicalPlan, Operator, Volatility, lit, when};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr, expressions};

use super::nearest;
use super::numbers::is_arithmetic;

/// The rule.
#[derive(Debug)]
pub(crate) struct Fold {
    /// The most bytes of a constant. None: as many as it has. DataFusion repeats a constant for every row of a batch, and counts none of it.
    pub(crate) most: Option<u64>,
    /// Whether a constant is what the same values of an event would be. Else, as views of earlier dialects have it, arithmetic between
    /// whole numbers wraps, and decimals become doubles by rounding twice.
    pub(crate) exact: bool,
}

impl OptimizerRule for Fold {
    fn name(&self) -> &str {
        "constants alone are simplified"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let schema = match &plan {
            LogicalPlan::TableScan(scan) => {
                DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
            }
            other => merge_schema(&other.inputs()),
        };
        let context = SimplifyContext::builder()
            .with_schema(Arc::new(schema))
            .with_config_options(config.options())
            .with_query_execution_start_time(config.query_execution_start_time())
            .build();
        let names = NamePreserver::new(&plan);
        let made = plan.map_expressions(|expr| {
            let name = names.save(&expr);
            let made = expr.transform_up(|expr| self.folded(expr, &context))?;
            Ok(made.update_data(|expr| name.restore(expr)))
        })?;
        Ok(made.update_data(|plan| match plan {
            LogicalPlan::Filter(filter) => LogicalPlan::Filter(decided(filter)),
            plan => plan,
        }))
    }
}

impl Fold {
    fn folded(&self, expr: Expr, context: &SimplifyContext) -> Result<Transformed<Expr>> {
        let made = match expr {
            Expr::ScalarFunction(ScalarFunction { func, args }) if simplifies(func.name()) => {
                match func.simplify(args, context)? {
                    ExprSimplifyResult::Original(args) => {
                        Transformed::no(Expr::ScalarFunction(ScalarFunction { func, args }))
                    }
                    ExprSimplifyResult::Simplified(expr) => Transformed::yes(expr),
                }
            }
            Expr::AggregateFunction(call) => match call.func.simplify() {
                Some(simplify) => Transformed::yes(simplify(call, context)?),
                None => Transformed::no(Expr::AggregateFunction(call)),
            },
            Expr::WindowFunction(call) => match call.simplify() {
                Some(simplify) => Transformed::yes(simplify(*call, context)?),
                None => Transformed::no(Expr::WindowFunction(call)),
            },
            expr => Transformed::no(expr),
        };
        made.transform_data(|expr| match value_of(&expr, context.config_options(), self.exact) {
            Some(value) if self.most.is_some_and(|most| value.size() as u64 > most) => resources_err!(
                "a constant of {} bytes, which every row may repeat; the most is {}",
                value.size(),
                self.most.unwrap_or_default()
            ),
            Some(value) => Ok(Transformed::yes(Expr::Literal(value, None))),
            None => Ok(in_order(expr)),
        })
    }
}

/// A condition without constants. DataFusion pushes conditions that name no column below an aggregate without keys, which then
/// has a row where the condition leaves none.
fn decided(mut filter: Filter) -> Filter {
    let mut kept = vec![];
    for condition in split_conjunction_owned(filter.predicate) {
        match &condition {
            Expr::Literal(ScalarValue::Boolean(Some(true)), _) => {}
            Expr::Literal(ScalarValue::Boolean(_) | ScalarValue::Null, _) => {
                filter.predicate = lit(false);
                return filter;
            }
            _ => kept.push(tied(condition, &filter.input)),
        }
    }
    filter.predicate = conjunction(kept).unwrap_or_else(|| lit(true));
    filter
}

/// A condition that names no column, tied to a value of the aggregate below, if that has no keys.
fn tied(condition: Expr, input: &LogicalPlan) -> Expr {
    let mut below = input;
    while let LogicalPlan::Projection(_) | LogicalPlan::SubqueryAlias(_) | LogicalPlan::Filter(_) = below {
        below = below.inputs()[0];
    }
    let is_one_row = matches!(below, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty());
    match input.schema().columns().into_iter().next() {
        Some(column) if is_one_row && condition.column_refs().is_empty() => {
            let tie = Expr::Column(column).is_null();
            when(tie, condition.clone()).otherwise(condition.clone()).unwrap_or(condition)
        }
        _ => condition,
    }
}

/// A comparison with its constant on the right, and one with NULL as NULL: where filters are pushed down, DataFusion joins
/// comparisons of a column, and takes these for others.
fn in_order(expr: Expr) -> Transformed<Expr> {
    let is_constant = |expr: &Expr| matches!(expr, Expr::Literal(..));
    let is_null = |expr: &Expr| matches!(expr, Expr::Literal(value, _) if value.is_null());
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_strict(op) && (is_null(&left) || is_null(&right)) => {
            Transformed::yes(Expr::Literal(ScalarValue::Boolean(None), None))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_constant(&left) && !is_constant(&right) => {
            match op.swap() {
                Some(op) => Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: right, op, right: left })),
                None => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
            }
        }
        expr => Transformed::no(expr),
    }
}

/// Whether a comparison with NULL is NULL.
fn is_strict(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Functions that say what they become, and say it right: `power(x, 0)` and `log(x, x)` are not 1 for every x, and a list with NULL
/// in it does not hold every value. `regexp_like` is judged under its own name.
fn simplifies(name: &str) -> bool {
    !matches!(name, "power" | "pow" | "log" | "array_has" | "regexp_like")
}

/// The value of an expression whose operands are constants. None if there are others, or if it has none.
fn value_of(expr: &Expr, options: &Arc<ConfigOptions>, exact: bool) -> Option<ScalarValue> {
    let is_constant = |expr: &Expr| match expr {
        Expr::Literal(..) => false,
        Expr::ScalarFunction(call) => call.func.signature().volatility == Volatility::Immutable,
        Expr::BinaryExpr(_) | Expr::Not(_) | Expr::Negative(_) | Expr::Between(_) | Expr::Like(_) | Expr::InList(_) => {
            true
        }
        Expr::IsNull(_) | Expr::IsNotNull(_) | Expr::IsTrue(_) | Expr::IsFalse(_) | Expr::IsUnknown(_) => true,
        Expr::IsNotTrue(_) | Expr::IsNotFalse(_) | Expr::IsNotUnknown(_) | Expr::Case(_) => true,
        Expr::Cast(_) | Expr::TryCast(_) => true,
        _ => false,
    };
    let mut operands = true;
    let of_constants = |operand: &Expr| {
        operands &= matches!(operand, Expr::Literal(..));
        Ok(TreeNodeRecursion::Jump)
    };
    if !is_constant(expr) || expr.apply_children(of_constants).is_err() || !operands {
        return None;
    }
    if exact && let Some(value) = exactly(expr) {
        return value;
    }
    let props = ExecutionProps { config_options: Some(Arc::clone(options)), ..ExecutionProps::new() };
    let physical = create_physical_expr(expr, &DFSchema::empty(), &props, &PhysicalPlanningContext::default()).ok()?;
    let row = RecordBatchOptions::new().with_row_count(Some(1));
    let row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &row).ok()?;
    // What fails stays as it is: CASE may never come to it.
    match physical.evaluate(&row).ok()? {
        ColumnarValue::Scalar(value) => Some(value),
        ColumnarValue::Array(array) if array.len() == 1 => ScalarValue::try_from_array(&array, 0).ok(),
        ColumnarValue::Array(_) => None,
    }
}

/// The value of an expression of constants that DataFusion would get wrong. None if it gets it right; inside, None if it has no value.
fn exactly(expr: &Expr) -> Option<Option<ScalarValue>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_arithmetic(*op) => {
            let (Expr::Literal(left, _), Expr::Literal(right, _)) = (&**left, &**right) else { return None };
            let expr =
                expressions::BinaryExpr::new(expressions::lit(left.clone()), *op, expressions::lit(right.clone()));
            let empty = RecordBatch::new_empty(Arc::new(Schema::empty()));
            match expr.with_fail_on_overflow(true).evaluate(&empty) {
                Ok(ColumnarValue::Scalar(value)) => Some(Some(value)),
                _ => Some(None),
            }
        }
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field })
            if *field.data_type() == DataType::Float64 =>
        {
            let Expr::Literal(value, _) = &**expr else { return None };
            let doubles = nearest::doubles(&value.to_array().ok()?)?;
            Some(ScalarValue::try_from_array(&doubles, 0).ok())
        }
        _ => None,
    }
}
