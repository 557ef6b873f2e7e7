//! Rows compared with rows, `(a, b) = (c, d)`, column by column: DataFusion compares them as structs, which are equal where both are
//! NULL, and whose numbers meet in one type.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Spanned, UnaryOperator};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::Unclear;

/// Makes a comparison of rows one of their columns.
///
/// # Errors
/// Rows that are ordered, or not of one length; ANY and ALL of a SELECT.
pub(super) fn correct(expr: &mut Expr) -> Result<(), Unclear> {
    let at = expr.span().start;
    match expr {
        Expr::BinaryOp { left, op, right } if is_row(left) || is_row(right) => {
            let equal = equal(left, right, at)?;
            *expr = match op {
                BinaryOperator::Eq => equal,
                BinaryOperator::NotEq => not(equal),
                _ => return Err(unclear(at, format!("rows are not compared by {op}"), "compare their columns")),
            };
        }
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) if is_row(left) || is_row(right) => {
            return Err(unclear(at, "rows are not compared by IS DISTINCT FROM".to_string(), "compare their columns"));
        }
        Expr::InList { expr: of, list, negated } if is_row(of) || list.iter().any(is_row) => {
            let equal = list.iter().map(|row| equal(of, row, at)).collect::<Result<Vec<_>, _>>()?;
            let any = equal.into_iter().reduce(|any, one| binary(any, BinaryOperator::Or, one));
            let any = any.ok_or_else(|| unclear(at, "a list of rows is empty".to_string(), "name a row"))?;
            *expr = if *negated { not(nested(any)) } else { nested(any) };
        }
        Expr::AnyOp { right, .. } | Expr::AllOp { right, .. } if matches!(**right, Expr::Subquery(_)) => {
            let hint = "write IN (SELECT …), EXISTS (SELECT …), or compare with (SELECT min(…) …)";
            return Err(unclear(at, "ANY and ALL of a SELECT are not supported".to_string(), hint));
        }
        _ => {}
    }
    Ok(())
}

fn is_row(expr: &Expr) -> bool {
    match expr {
        Expr::Tuple(_) => true,
        Expr::Nested(inner) => is_row(inner),
        _ => false,
    }
}

fn columns(expr: &Expr) -> Option<&Vec<Expr>> {
    match expr {
        Expr::Tuple(columns) => Some(columns),
        Expr::Nested(inner) => columns(inner),
        _ => None,
    }
}

/// That each column of one row equals that of the other.
fn equal(left: &Expr, right: &Expr, at: Location) -> Result<Expr, Unclear> {
    let pairs = match (columns(left), columns(right)) {
        (Some(left), Some(right)) if left.len() == right.len() => left.iter().zip(right),
        _ => {
            return Err(unclear(
                at,
                "the two sides have different numbers of columns".to_string(),
                "name as many columns",
            ));
        }
    };
    let equal =
        pairs.map(|(left, right)| nested(binary(nested(left.clone()), BinaryOperator::Eq, nested(right.clone()))));
    let all = equal.reduce(|all, one| binary(all, BinaryOperator::And, one));
    all.map(nested).ok_or_else(|| unclear(at, "a row has no columns".to_string(), "name some"))
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn not(expr: Expr) -> Expr {
    nested(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) })
}

fn unclear(at: Location, message: String, hint: &str) -> Unclear {
    Unclear { message, hint: hint.to_string(), at }
}
