//! One NaN, one zero: NaN equals NaN and is greater than every number, -0.0 equals 0.0, in every layer.
//!
//! Arrow and DataFusion compare, group and order doubles by their bits: -0.0 is less than 0.0, and a NaN with a sign, as
//! `inf - inf` gives it, is less than every number. So every value that may be one of these, wherever it comes from, is made
//! the one NaN or the one zero before anything is done with it: a table's columns and an aggregate's values by a
//! projection above them, what an expression computes where it does.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder};
use datafusion::optimizer::AnalyzerRule;

use super::numbers::is_arithmetic;
use crate::functions::canonical;
use crate::rewrite;

/// The rule. It comes after types are coerced.
#[derive(Debug)]
pub(super) struct OneNanOneZero;

impl AnalyzerRule for OneNanOneZero {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(shown_once)?.data;
        let plan = if is_raw(&plan) { shown(plan)? } else { plan };
        rewrite::by_node(plan, |node| {
            let shows_raw = matches!(node, LogicalPlan::Projection(projection) if is_raw(&projection.input));
            let keys = keys_of(node);
            move |expr: Expr, schema: &DFSchema| one(expr, schema, shows_raw.then_some(&keys))
        })
    }

    fn name(&self) -> &str {
        "one NaN, one zero"
    }
}

/// Whether the doubles of a node's output may be any.
fn is_raw(plan: &LogicalPlan) -> bool {
    use LogicalPlan::{Aggregate, RecursiveQuery, TableScan, Unnest, Values, Window};
    let makes = matches!(plan, TableScan(_) | Aggregate(_) | Window(_) | Unnest(_) | Values(_) | RecursiveQuery(_));
    makes && plan.schema().fields().iter().any(|field| canonical::has_floats(field.data_type()))
}

/// A node whose raw inputs stand below projections.
fn shown_once(node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if matches!(node, LogicalPlan::Projection(_)) || !node.inputs().into_iter().any(is_raw) {
        return Ok(Transformed::no(node));
    }
    let made = node.map_children(|child| match is_raw(&child) {
        true => Ok(Transformed::yes(shown(child)?)),
        false => Ok(Transformed::no(child)),
    })?;
    made.map_data(LogicalPlan::recompute_schema)
}

/// A raw node below the projection of its columns; what is to be done with them is the rule's.
fn shown(node: LogicalPlan) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = node.schema().columns().into_iter().map(Expr::Column).collect();
    LogicalPlanBuilder::from(node).project(columns)?.build()
}

/// The keys of an aggregate below: they are made of expressions that are rewritten.
fn keys_of(node: &LogicalPlan) -> Vec<Column> {
    let LogicalPlan::Projection(projection) = node else { return vec![] };
    let LogicalPlan::Aggregate(aggregate) = &*projection.input else { return vec![] };
    aggregate.schema.columns().into_iter().take(aggregate.group_expr.len()).collect()
}

/// An expression whose value is none of the others; `keys` are there if its columns are a raw node's.
fn one(expr: Expr, schema: &DFSchema, keys: Option<&Vec<Column>>) -> Result<Transformed<Expr>> {
    let may_differ = match &expr {
        Expr::Column(column) => keys.is_some_and(|keys| !keys.contains(column)),
        Expr::BinaryExpr(BinaryExpr { op, .. }) => is_arithmetic(*op),
        Expr::ScalarFunction(call) if canonical::is_canonical(&call.func) => {
            return Ok(match canonical::argument(call).filter(|inner| canonical::is_call(inner)) {
                // What was rewritten before.
                Some(inner) => Transformed::yes(inner.clone()),
                None => Transformed::no(expr),
            });
        }
        Expr::ScalarFunction(_) | Expr::Negative(_) => true,
        Expr::Cast(cast) => !is_exact(&cast.expr, schema),
        Expr::TryCast(cast) => !is_exact(&cast.expr, schema),
        Expr::Literal(value, metadata) => {
            return Ok(match canonical::of_scalar(value) {
                Some(value) => Transformed::yes(Expr::Literal(value, metadata.clone())),
                None => Transformed::no(expr),
            });
        }
        _ => false,
    };
    if may_differ && expr.get_type(schema).is_ok_and(|ty| canonical::has_floats(&ty)) {
        return Ok(Transformed::yes(canonical::call(expr)));
    }
    Ok(Transformed::no(expr))
}

/// Whether an expression is a number without NaN and -0.0.
fn is_exact(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|ty| ty.is_integer() || ty.is_decimal() || ty == DataType::Null)
}
