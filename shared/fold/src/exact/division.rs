//! A division by zero is NULL, of every type and in every layer (decision 4).

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::functions::core::nullif;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::rewrite;

/// The rule. It comes after types are coerced.
#[derive(Debug)]
pub(super) struct ByZero;

impl AnalyzerRule for ByZero {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite::expressions(plan, guarded)
    }

    fn name(&self) -> &str {
        "division by zero is NULL"
    }
}

fn guarded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Divide | Operator::Modulo), right })
            if !is_literal_but_zero(&right) && !is_guarded(&right) && right.get_type(schema)?.is_numeric() =>
        {
            let zero = lit(ScalarValue::new_zero(&right.get_type(schema)?)?);
            let right = Expr::ScalarFunction(ScalarFunction::new_udf(nullif(), vec![*right, zero]));
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(right) })))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

/// Whether a divisor is NULL where it would be zero.
pub(crate) fn is_guarded(divisor: &Expr) -> bool {
    matches!(divisor, Expr::ScalarFunction(call) if call.func.name() == nullif().name())
}

/// Whether a divisor is a constant other than zero.
pub(crate) fn is_literal_but_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero != *value),
        Expr::Cast(cast) => is_literal_but_zero(&cast.expr),
        _ => false,
    }
}
