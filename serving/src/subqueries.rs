//! `IN (SELECT …)` where DataFusion answers it with two truth values, of which NULL is not one.
//!
//! A condition of WHERE becomes a join that knows NULL. Everywhere else (below NOT, OR, CASE, in a column) it becomes a mark
//! that is false where the answer is NULL. That is right only where false and NULL mean the same: below AND and OR alone.

use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};

use crate::problem::Problem;

/// Refuses an `IN (SELECT …)` that would be false where it is NULL.
pub(crate) fn check(plan: &LogicalPlan) -> Result<(), Problem> {
    let mut wrong = false;
    let walked = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Filter(filter) => wrong |= !is_right(&filter.predicate, true),
            node => {
                node.apply_expressions(|expr| {
                    wrong |= has_one(expr);
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    match walked {
        Err(error) => Err(crate::sql::wrong(&error)),
        Ok(_) if wrong => Err(Problem::bad_query(
            "IN (SELECT …) is supported as a condition of WHERE, joined to others by AND; below NOT, OR or CASE write EXISTS (SELECT …)",
        )),
        Ok(_) => Ok(()),
    }
}

/// Whether a condition is right although some `IN` in it are false where they are NULL; a negated one only where it decides alone.
fn is_right(condition: &Expr, alone: bool) -> bool {
    match condition {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            is_right(left, alone) && is_right(right, alone)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            is_right(left, false) && is_right(right, false)
        }
        Expr::InSubquery(InSubquery { expr, negated, .. }) => (alone || !negated) && !has_one(expr),
        Expr::Not(inner) if alone => match &**inner {
            Expr::InSubquery(InSubquery { expr, negated: false, .. }) => !has_one(expr),
            other => !has_one(other),
        },
        other => !has_one(other),
    }
}

/// Whether an expression has an `IN (SELECT …)`.
fn has_one(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::InSubquery(_)))).unwrap_or(true)
}
