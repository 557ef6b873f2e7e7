//! Arithmetic of integers fails where it would wrap. In views, where nobody reads a failure, `view/total.rs` makes it NULL.

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

use super::numbers::is_arithmetic;
use crate::functions::or_null;
use crate::rewrite;

/// The rule of queries. It comes after types are coerced.
#[derive(Debug)]
pub(crate) struct Checked;

impl AnalyzerRule for Checked {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions_from_the_top(plan, checked)
    }

    fn name(&self) -> &str {
        "integers do not wrap"
    }
}

fn checked(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_integer = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty.is_integer());
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_arithmetic(op) && is_integer(&left) && is_integer(&right) =>
        {
            Transformed::yes(or_null::checked(BinaryExpr { left, op, right }))
        }
        Expr::Negative(inner) if !matches!(*inner, Expr::Literal(..)) && is_integer(&inner) => {
            let zero =
                Box::new(Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(lit(0i64)), inner.get_type(schema)?)));
            Transformed::yes(or_null::checked(BinaryExpr { left: zero, op: Operator::Minus, right: inner }))
        }
        expr => Transformed::no(expr),
    })
}
