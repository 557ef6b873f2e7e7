//! Makes a view's expressions total: an event must never stop the fold, so what would fail for one value is NULL for it.
//!
//! A cast that a value does not fit is NULL (`CAST` becomes `TRY_CAST`), and so is an integer or decimal divided by zero.
//! DataFusion's own would end the query, which for a stream means: for ever, at the same event.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::core::nullif;
use datafusion::logical_expr::expr::{ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, lit};

/// The same plan, with total expressions under the same names.
pub(super) fn total(plan: LogicalPlan) -> Result<LogicalPlan> {
    let made = plan.transform_up(|node| {
        if node.inputs().is_empty() {
            return Ok(Transformed::no(node));
        }
        let schema = merge_schema(&node.inputs());
        let names = NamePreserver::new(&node);
        let rewritten = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let made = expr.transform_up(|expr| rewrite(expr, &schema))?;
            Ok(made.update_data(|expr| name.restore(expr)))
        })?;
        if rewritten.transformed { rewritten.map_data(LogicalPlan::recompute_schema) } else { Ok(rewritten) }
    })?;
    Ok(made.data)
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(cast) => {
            let to = cast.field.data_type().clone();
            if fits_always(&cast.expr.get_type(schema)?, &to) {
                return Ok(Transformed::no(Expr::Cast(cast)));
            }
            Ok(Transformed::yes(Expr::TryCast(TryCast::new(cast.expr, to))))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: op @ (Operator::Divide | Operator::Modulo), right }) => {
            let ty = right.get_type(schema)?;
            let exact = ty.is_integer() || ty.is_decimal();
            if !exact || is_literal_but_zero(&right) {
                return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })));
            }
            let zero = lit(ScalarValue::new_zero(&ty)?);
            let right = Expr::ScalarFunction(ScalarFunction::new_udf(nullif(), vec![*right, zero]));
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right: Box::new(right) })))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

/// Whether every value of one type is one of the other.
fn fits_always(from: &DataType, to: &DataType) -> bool {
    let text = |ty: &DataType| matches!(ty, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let wider = |from: &DataType, to: &DataType| {
        from.is_integer()
            && to.is_integer()
            && from.primitive_width() <= to.primitive_width()
            && from.is_signed_integer() == to.is_signed_integer()
    };
    from == to || text(to) || *from == DataType::Null || (from.is_integer() && to.is_floating()) || wider(from, to)
}

fn is_literal_but_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(value, _) => ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero != *value),
        Expr::Cast(cast) => is_literal_but_zero(&cast.expr),
        _ => false,
    }
}
