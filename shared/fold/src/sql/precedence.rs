//! Operators bind as in PostgreSQL.
//!
//! The parser takes everything behind `IS DISTINCT FROM` for its operand, gives LIKE, IN and BETWEEN the rank of comparisons,
//! and `||` that of multiplication. Parentheses survive in the tree, so an expression in which a loose operator stands
//! below a tight one was parsed in the wrong order: it is written down in the order of its text, and read once more by
//! PostgreSQL's table (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>, 4.1.6).

use std::iter::Peekable;
use std::mem;
use std::vec::IntoIter;

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, UnaryOperator, Value};

/// How tightly an operator binds; all but NOT associate to the left.
type Rank = u8;

const OR: Rank = 1;
const AND: Rank = 2;
const NOT: Rank = 3;
const IS: Rank = 4;
const COMPARISON: Rank = 5;
const PATTERN: Rank = 6;
const OTHER: Rank = 7;
const ADDITION: Rank = 8;
const MULTIPLICATION: Rank = 9;
const TIME_ZONE: Rank = 10;

/// Puts an expression, whose parts are in order already, into the order that PostgreSQL reads.
pub(super) fn correct(expr: &mut Expr) {
    if is_ordered(expr) {
        return;
    }
    let mut items = vec![];
    flatten(mem::replace(expr, nothing()), &mut items);
    let mut items = items.into_iter().peekable();
    *expr = read(&mut items, OR);
    debug_assert!(items.next().is_none(), "every operator was read");
}

/// An expression that stands where another was taken out.
fn nothing() -> Expr {
    Expr::Value(Value::Null.into())
}

/// A part of an expression in the order of its text. An operator that stands before or between operands carries empty ones.
enum Item {
    Operand(Expr),
    Not,
    /// Between two operands.
    Infix(Rank, Expr),
    /// Behind one operand.
    Postfix(Rank, Expr),
}

/// Where the operands of an operator are.
enum Parts<'a> {
    Infix(Rank, &'a mut Expr, &'a mut Expr),
    Postfix(Rank, &'a mut Expr),
    Not(&'a mut Expr),
    None,
}

fn parts(expr: &mut Expr) -> Parts<'_> {
    match expr {
        Expr::BinaryOp { left, op, right } => Parts::Infix(rank(op), left, right),
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => Parts::Infix(IS, left, right),
        Expr::Like { expr, pattern, .. }
        | Expr::ILike { expr, pattern, .. }
        | Expr::SimilarTo { expr, pattern, .. }
        | Expr::RLike { expr, pattern, .. } => Parts::Infix(PATTERN, expr, pattern),
        // What stands between BETWEEN and AND is delimited by them.
        Expr::Between { expr, high, .. } => Parts::Infix(PATTERN, expr, high),
        Expr::AtTimeZone { timestamp, time_zone } => Parts::Infix(TIME_ZONE, timestamp, time_zone),
        Expr::InList { expr, .. } | Expr::InSubquery { expr, .. } | Expr::InUnnest { expr, .. } => {
            Parts::Postfix(PATTERN, expr)
        }
        Expr::AnyOp { left, compare_op, .. } | Expr::AllOp { left, compare_op, .. } => {
            Parts::Postfix(rank(compare_op), left)
        }
        Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr)
        | Expr::IsNormalized { expr, .. } => Parts::Postfix(IS, expr),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => Parts::Not(expr),
        _ => Parts::None,
    }
}

fn rank(op: &BinaryOperator) -> Rank {
    use BinaryOperator as Op;
    match op {
        Op::Or | Op::Xor => OR,
        Op::And => AND,
        Op::Eq | Op::NotEq | Op::Lt | Op::LtEq | Op::Gt | Op::GtEq | Op::Spaceship => COMPARISON,
        Op::Plus | Op::Minus => ADDITION,
        Op::Multiply | Op::Divide | Op::Modulo | Op::DuckIntegerDivide | Op::MyIntegerDivide => MULTIPLICATION,
        _ => OTHER,
    }
}

/// Whether no operator stands below a tighter one. NOT stands below anything: it begins an operand.
fn is_ordered(expr: &mut Expr) -> bool {
    let rank_of = |expr: &mut Expr| match parts(expr) {
        Parts::Infix(rank, ..) | Parts::Postfix(rank, _) => Some(rank),
        Parts::Not(_) | Parts::None => None,
    };
    match parts(expr) {
        Parts::Infix(rank, left, right) => {
            let ends_in_not = rank > NOT && matches!(parts(left), Parts::Not(_));
            !ends_in_not
                && rank_of(left).is_none_or(|left| left >= rank)
                && rank_of(right).is_none_or(|right| right > rank)
        }
        Parts::Postfix(rank, operand) => {
            let ends_in_not = rank > NOT && matches!(parts(operand), Parts::Not(_));
            !ends_in_not && rank_of(operand).is_none_or(|operand| operand >= rank)
        }
        Parts::Not(operand) => rank_of(operand).is_none_or(|operand| operand > NOT),
        Parts::None => true,
    }
}

/// Appends the parts of an expression to `items`, in the order of its text.
fn flatten(mut expr: Expr, items: &mut Vec<Item>) {
    match parts(&mut expr) {
        Parts::Infix(rank, left, right) => {
            let (left, right) = (mem::replace(left, nothing()), mem::replace(right, nothing()));
            flatten(left, items);
            items.push(Item::Infix(rank, expr));
            flatten(right, items);
        }
        Parts::Postfix(rank, operand) => {
            let operand = mem::replace(operand, nothing());
            flatten(operand, items);
            items.push(Item::Postfix(rank, expr));
        }
        Parts::Not(operand) => {
            let operand = mem::replace(operand, nothing());
            items.push(Item::Not);
            flatten(operand, items);
        }
        Parts::None => items.push(Item::Operand(expr)),
    }
}

/// Reads one expression of operators that bind at least as tightly as `least` (precedence climbing).
fn read(items: &mut Peekable<IntoIter<Item>>, least: Rank) -> Expr {
    let mut left = match items.next() {
        Some(Item::Not) => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(read(items, NOT + 1)) },
        Some(Item::Operand(expr)) => expr,
        // Flattening puts an operand first.
        _ => nothing(),
    };
    loop {
        match items.peek() {
            Some(Item::Infix(rank, _) | Item::Postfix(rank, _)) if *rank >= least => {}
            _ => return left,
        }
        let mut operator = match items.next() {
            Some(Item::Infix(rank, mut operator)) => {
                let read = read(items, rank + 1);
                if let Parts::Infix(_, _, right) = parts(&mut operator) {
                    *right = read;
                }
                operator
            }
            Some(Item::Postfix(_, operator)) => operator,
            _ => return left,
        };
        if let Parts::Infix(_, operand, _) | Parts::Postfix(_, operand) = parts(&mut operator) {
            *operand = left;
        }
        left = operator;
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::GenericDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use crate::sql::{Order, VisitMut};

    /// The expression with every operator in parentheses.
    fn shown(text: &str) -> String {
        let mut expr = Parser::new(&GenericDialect {})
            .try_with_sql(text)
            .and_then(|mut parser| parser.parse_expr())
            .unwrap_or_else(|e| panic!("{text}: {e}"));
        let _ = VisitMut::visit(&mut expr, &mut Order);
        bracketed(expr)
    }

    fn bracketed(mut expr: super::Expr) -> String {
        use super::{Parts, mem, nothing, parts};
        if let super::Expr::Nested(inner) = expr {
            return bracketed(*inner);
        }
        let (left, right) = match parts(&mut expr) {
            Parts::Infix(_, left, right) => (mem::replace(left, nothing()), Some(mem::replace(right, nothing()))),
            Parts::Postfix(_, operand) | Parts::Not(operand) => (mem::replace(operand, nothing()), None),
            Parts::None => return expr.to_string(),
        };
        let (mut text, left) = (expr.to_string(), bracketed(left));
        if let Some(right) = right {
            let (before, after) = text.rsplit_once("NULL").expect("the right operand");
            text = format!("{before}{}{after}", bracketed(right));
        }
        format!("({})", text.replacen("NULL", &left, 1))
    }

    #[test]
    fn operators_bind_as_in_postgresql() {
        for (text, read) in [
            ("a IS DISTINCT FROM b AND c > 1", "((a IS DISTINCT FROM b) AND (c > 1))"),
            ("x AND a IS DISTINCT FROM b OR c", "((x AND (a IS DISTINCT FROM b)) OR c)"),
            ("a IS NOT DISTINCT FROM b = c", "(a IS NOT DISTINCT FROM (b = c))"),
            ("a IS DISTINCT FROM b IS DISTINCT FROM c AND d", "(((a IS DISTINCT FROM b) IS DISTINCT FROM c) AND d)"),
            ("NOT a IS DISTINCT FROM b OR c", "((NOT (a IS DISTINCT FROM b)) OR c)"),
            ("a IS DISTINCT FROM NOT b AND c", "((a IS DISTINCT FROM (NOT b)) AND c)"),
            ("a IS DISTINCT FROM (b AND c)", "(a IS DISTINCT FROM (b AND c))"),
            ("a IS DISTINCT FROM b IS NULL", "((a IS DISTINCT FROM b) IS NULL)"),
            ("a = b LIKE c", "(a = (b LIKE c))"),
            ("a LIKE b = c", "((a LIKE b) = c)"),
            ("a = b IN (c, d)", "(a = (b IN (c, d)))"),
            ("a < b BETWEEN 1 AND 2", "(a < (b BETWEEN 1 AND 2))"),
            ("a BETWEEN 1 AND 2 AND c", "((a BETWEEN 1 AND 2) AND c)"),
            ("a || b = c", "((a || b) = c)"),
            ("a || b + 1", "(a || (b + 1))"),
            ("a = b ~ c", "(a = (b ~ c))"),
            ("a LIKE b ~ c", "(a LIKE (b ~ c))"),
            ("a ~ b IS NULL", "((a ~ b) IS NULL)"),
            ("a | b & c", "((a | b) & c)"),
            ("NOT a = b AND c", "((NOT (a = b)) AND c)"),
            ("a - b - c * d", "((a - b) - (c * d))"),
            ("a OR b AND NOT c IS NULL", "(a OR (b AND (NOT (c IS NULL))))"),
            ("a - b AT TIME ZONE 'UTC' > c", "((a - (b AT TIME ZONE 'UTC')) > c)"),
        ] {
            assert_eq!(shown(text), read, "{text}");
        }
    }
}
