//! What of a query fails instead of going wrong: arithmetic of integers where it would wrap, and functions and operators that ask for
//! more than the query's memory has room for. In views, where nobody reads a failure, `view/total.rs` makes it NULL.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

use super::numbers::is_arithmetic;
use crate::functions::{or_null, size};
use crate::rewrite;

/// The rule of queries. It comes after types are coerced.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The query's memory, in bytes.
    pub(crate) memory: u64,
}

impl AnalyzerRule for Checked {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let most = size::share(self.memory, judged_calls(&plan)?);
        rewrite::expressions_from_the_top(plan, |expr, schema| checked(expr, schema, most))
    }

    fn name(&self) -> &str {
        "what goes wrong fails"
    }
}

/// Counts the calls of a plan whose results are bounded. Their results may be in memory at the same time, so they share it.
fn judged_calls(plan: &LogicalPlan) -> Result<u64> {
    let mut calls = 0;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                calls += match expr {
                    Expr::ScalarFunction(call) => u64::from(size::is_judged(call.name())),
                    // Of a chain each is gone when the next one is made.
                    Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => {
                        let begins =
                            |left: &Expr| matches!(left, Expr::BinaryExpr(left) if left.op == Operator::StringConcat);
                        u64::from(!begins(&binary.left))
                    }
                    _ => 0,
                };
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(calls)
}

fn checked(expr: Expr, schema: &DFSchema, most: u64) -> Result<Transformed<Expr>> {
    let is_integer = |expr: &Expr| expr.get_type(schema).is_ok_and(|ty| ty.is_integer());
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if op == Operator::StringConcat || is_arithmetic(op) && is_integer(&left) && is_integer(&right) =>
        {
            Transformed::yes(or_null::checked(BinaryExpr { left, op, right }, most))
        }
        Expr::Negative(inner) if !matches!(*inner, Expr::Literal(..)) && is_integer(&inner) => {
            let zero =
                Box::new(Expr::Cast(datafusion::logical_expr::Cast::new(Box::new(lit(0i64)), inner.get_type(schema)?)));
            Transformed::yes(or_null::checked(BinaryExpr { left: zero, op: Operator::Minus, right: inner }, most))
        }
        Expr::Cast(cast)
            if *cast.field.data_type() == DataType::Float64
                && cast.expr.get_type(schema).is_ok_and(|from| from.is_decimal()) =>
        {
            Transformed::yes(or_null::cast(*cast.expr, DataType::Float64))
        }
        Expr::ScalarFunction(call) => match or_null::bounded_by(&call, most) {
            Some(bounded) => Transformed::yes(bounded),
            None => Transformed::no(Expr::ScalarFunction(call)),
        },
        expr => Transformed::no(expr),
    })
}
