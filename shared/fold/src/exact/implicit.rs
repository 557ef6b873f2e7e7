//! Refuses a conversion that nobody wrote and that can lose a value.
//!
//! The casts that a pipeline writes are `TRY_CAST`s by now; every other one was put in where types are coerced. In a view one that
//! fails for a value would be NULL, which nobody sees.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use super::coerce::shown;
use super::numbers::Digits;
use crate::schema::sql_name;

/// Refuses the first constant that somebody casts to a type that it does not fit: it would be NULL for every event.
pub(crate) fn check_constants(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let (value, ty) = match expr {
                    Expr::TryCast(TryCast { expr, field }) | Expr::Cast(Cast { expr, field }) => match &**expr {
                        Expr::Literal(value, _) if !value.is_null() => (value, field.data_type()),
                        _ => return Ok(TreeNodeRecursion::Continue),
                    },
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                if value.cast_to(ty).is_ok_and(|cast| !cast.is_null()) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                plan_err!("'{value}' is not a value of {}", sql_name(ty))
            })
        })
    })?;
    Ok(())
}

/// Refuses the first such conversion.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let Expr::Cast(Cast { expr: operand, field }) = expr else { return Ok(TreeNodeRecursion::Continue) };
                let (from, to) = (operand.get_type(&schema)?, field.data_type());
                if matches!(**operand, Expr::Literal(..)) || holds(to, &from) {
                    return Ok(TreeNodeRecursion::Continue);
                }
                let (of, from, to) = (shown(operand), sql_name(&from), sql_name(to));
                plan_err!(
                    "{of} is {from} and is used as {to}, which does not hold every value. Consider CAST({of} AS {to})"
                )
            })
        })
    })?;
    Ok(())
}

/// Whether every value of a type becomes one of another. A double that is near counts: its type says that it is near.
fn holds(to: &DataType, from: &DataType) -> bool {
    let is_integer = |ty: &DataType| ty.is_integer();
    match (from, to) {
        _ if from == to || from.is_null() => true,
        _ if to.is_string() => {
            from.is_numeric() || *from == DataType::Boolean || from.is_string() || from.is_temporal()
        }
        _ if to.is_floating() => from.is_numeric(),
        _ if is_integer(from) && is_integer(to) => {
            let width = |ty: &DataType| ty.primitive_width().unwrap_or_default();
            width(from) <= width(to) && from.is_signed_integer() == to.is_signed_integer()
                || from.is_unsigned_integer() && width(from) < width(to)
        }
        _ if to.is_decimal() => match (Digits::of_type(to), Digits::of_type(from)) {
            (Some(these), Some(those)) => these.hold(those) || is_integer(from) && these.before >= 19,
            _ => false,
        },
        (from, DataType::Timestamp(TimeUnit::Second, _)) if is_integer(from) => true,
        (DataType::Timestamp(..) | DataType::Date32, DataType::Timestamp(TimeUnit::Microsecond, _)) => true,
        (DataType::Timestamp(..), DataType::Date32) => true,
        (DataType::Interval(_) | DataType::Duration(_), DataType::Interval(_) | DataType::Duration(_)) => true,
        (DataType::Binary, to) | (DataType::Utf8, to) => to.is_binary(),
        (DataType::List(from), DataType::List(to)) => holds(to.data_type(), from.data_type()),
        (DataType::Struct(from), DataType::Struct(to)) => {
            from.len() == to.len() && from.iter().zip(to).all(|(from, to)| holds(to.data_type(), from.data_type()))
        }
        _ => false,
    }
}
