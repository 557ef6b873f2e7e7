//! Makes a view's expressions total: an event must never stop the fold, so what would fail for one value is NULL for it.
//!
//! A cast that a value does not fit is NULL (`CAST` becomes `TRY_CAST`), and so is division by zero, arithmetic beyond its
//! type, and a function that fails. DataFusion's own would end the query, which for a stream means: for ever, at the same
//! event; its integer arithmetic would wrap.

use arrow::datatypes::DataType;
use bifold_ledger::Dialect;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions::core::nullif;
use datafusion::logical_expr::expr::{ScalarFunction, TryCast};
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, cast, lit};

use crate::exact::division::{is_guarded, is_literal_but_zero};
use crate::exact::numbers::is_arithmetic;
use crate::functions::{never_fails, or_null};
use crate::rewrite;

/// The same plan, with total expressions under the same names. Its types are already coerced.
pub(super) fn total(plan: LogicalPlan, dialect: Dialect) -> Result<LogicalPlan> {
    rewrite::expressions(plan, |expr, schema| total_expr(expr, schema, dialect))
}

/// The same plan, with arithmetic between integers of fewer than 64 bits in 64. Its types are not yet coerced.
pub(super) fn wide(plan: LogicalPlan) -> Result<LogicalPlan> {
    rewrite::expressions(plan, wide_expr)
}

fn wide_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let narrow = |ty: DataType| ty.is_integer() && ty.primitive_width().is_some_and(|bytes| bytes < 8);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if is_arithmetic(op) && narrow(left.get_type(schema)?) && narrow(right.get_type(schema)?) =>
        {
            let left = cast(*left, DataType::Int64);
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: Box::new(left), op, right })))
        }
        // DataFusion's own negation wraps.
        Expr::Negative(inner)
            if !matches!(*inner, Expr::Literal(..)) && inner.get_type(schema)?.is_signed_integer() =>
        {
            let zero = Box::new(lit(0i64));
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr { left: zero, op: Operator::Minus, right: inner })))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

fn total_expr(expr: Expr, schema: &DFSchema, dialect: Dialect) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Cast(cast) => {
            let (from, to) = (cast.expr.get_type(schema)?, cast.field.data_type().clone());
            if fits_always(&from, &to) {
                return Ok(Transformed::no(Expr::Cast(cast)));
            }
            Ok(Transformed::yes(total_cast(*cast.expr, (&from, to), dialect)))
        }
        Expr::TryCast(cast) => {
            let (from, to) = (cast.expr.get_type(schema)?, cast.field.data_type().clone());
            Ok(Transformed::yes(total_cast(*cast.expr, (&from, to), dialect)))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (from, by) = (left.get_type(schema)?, right.get_type(schema)?);
            let right = match op {
                Operator::Divide | Operator::Modulo
                    if is_exact(&by) && !is_literal_but_zero(&right) && !is_guarded(&right) =>
                {
                    let zero = lit(ScalarValue::new_zero(&by)?);
                    Box::new(Expr::ScalarFunction(ScalarFunction::new_udf(nullif(), vec![*right, zero])))
                }
                _ => right,
            };
            let may_fail = match op {
                op if is_arithmetic(op) => !(from.is_floating() && by.is_floating()),
                op if is_regex(op) => !matches!(*right, Expr::Literal(..)),
                _ => false,
            };
            let expr = BinaryExpr { left, op, right };
            Ok(if may_fail {
                Transformed::yes(or_null::operator(expr))
            } else {
                Transformed::no(Expr::BinaryExpr(expr))
            })
        }
        Expr::Like(like) if like.escape_char.is_none() && !matches!(*like.pattern, Expr::Literal(..)) => {
            let op = match (like.negated, like.case_insensitive) {
                (false, false) => Operator::LikeMatch,
                (false, true) => Operator::ILikeMatch,
                (true, false) => Operator::NotLikeMatch,
                (true, true) => Operator::NotILikeMatch,
            };
            Ok(Transformed::yes(or_null::operator(BinaryExpr { left: like.expr, op, right: like.pattern })))
        }
        // DataFusion evaluates it as this operator.
        Expr::SimilarTo(like) if like.escape_char.is_none() && !matches!(*like.pattern, Expr::Literal(..)) => {
            let op = match (like.negated, like.case_insensitive) {
                (false, false) => Operator::RegexMatch,
                (false, true) => Operator::RegexIMatch,
                (true, false) => Operator::RegexNotMatch,
                (true, true) => Operator::RegexNotIMatch,
            };
            Ok(Transformed::yes(or_null::operator(BinaryExpr { left: like.expr, op, right: like.pattern })))
        }
        Expr::ScalarFunction(call) if !never_fails(&call.func) => Ok(Transformed::yes(or_null::function(call))),
        expr => Ok(Transformed::no(expr)),
    }
}

/// A cast whose value is NULL where it fails. `TRY_CAST` is, of plain values.
fn total_cast(expr: Expr, (from, to): (&DataType, DataType), dialect: Dialect) -> Expr {
    // A scan of Parquet takes `CAST(d AS BIGINT) = 5` for `d = 5.00`, and skips rows by it: a decimal's cast is hidden from it.
    let hidden = from.is_decimal() && !dialect.is_first();
    if hidden || from.is_temporal() || from.is_nested() || from.is_binary() {
        return or_null::cast(expr, to);
    }
    Expr::TryCast(TryCast::new(Box::new(expr), to))
}

fn is_regex(op: Operator) -> bool {
    let plain = matches!(op, Operator::RegexMatch | Operator::RegexIMatch);
    plain || matches!(op, Operator::RegexNotMatch | Operator::RegexNotIMatch)
}

fn is_exact(ty: &DataType) -> bool {
    ty.is_integer() || ty.is_decimal()
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
    let shown = from.is_numeric() || *from == DataType::Boolean || text(from);
    from == to
        || (text(to) && shown)
        || *from == DataType::Null
        || (from.is_integer() && to.is_floating())
        || wider(from, to)
}
