//! What DataFusion compares or unites without `fold`'s rules: numbers of different types in `IN (SELECT …)`, UNION and JOIN … USING,
//! which meet in a type that does not hold them; and `IN (SELECT …)` where DataFusion answers it with two truth values, of which NULL is not one.
//!
//! A condition of WHERE becomes a join that knows NULL. Everywhere else (below NOT, OR, CASE, in a column) it becomes a mark
//! that is false where the answer is NULL. That is right only where false and NULL mean the same: below AND and OR alone.

use arrow::datatypes::DataType;
use bifold_fold::sql::meet_exactly;
use datafusion::common::Result;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator};

use crate::problem::Problem;

/// Refuses an `IN (SELECT …)` that would be false where it is NULL.
pub(crate) fn check(plan: &LogicalPlan) -> std::result::Result<(), Problem> {
    let (mut wrong, mut unlike) = (false, false);
    let walked = plan.apply_with_subqueries(|node| {
        unlike |= mixes_numbers(node)?;
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
        Ok(_) if unlike => Err(Problem::bad_query(
            "IN (SELECT …), UNION and JOIN … USING take columns of one type, and here numbers of different types meet: cast one of them",
        )),
        Ok(_) if wrong => Err(Problem::bad_query(
            "IN (SELECT …) is supported as a condition of WHERE, joined to others by AND; below NOT, OR or CASE write EXISTS (SELECT …)",
        )),
        Ok(_) => Ok(()),
    }
}

/// Whether values of two types have one that holds them, or the nearest double.
fn unite(these: &DataType, those: &DataType) -> bool {
    let nearest = |exact: &DataType, double: &DataType| exact.is_integer() && double.is_floating();
    meet_exactly(these, those) || nearest(these, those) || nearest(those, these)
}

/// Whether a node compares or unites columns of numbers in a type that does not hold them.
fn mixes_numbers(node: &LogicalPlan) -> Result<bool> {
    let schema = merge_schema(&node.inputs());
    let alike = |left: &Expr, right: &DataType| left.get_type(&schema).map_or(true, |left| meet_exactly(&left, right));
    let mut mixes = match node {
        LogicalPlan::Join(join) => {
            join.on.iter().any(|(left, right)| right.get_type(&schema).is_ok_and(|right| !alike(left, &right)))
        }
        LogicalPlan::Union(union) => {
            let types = |input: &LogicalPlan| -> Vec<DataType> {
                input.schema().fields().iter().map(|field| field.data_type().clone()).collect()
            };
            let first = union.inputs.first().map(|input| types(input)).unwrap_or_default();
            union.inputs.iter().any(|input| first.iter().zip(types(input)).any(|(a, b)| !unite(a, &b)))
        }
        _ => false,
    };
    node.apply_expressions(|expr| {
        expr.apply(|expr| {
            if let Expr::InSubquery(InSubquery { expr, subquery, .. }) = expr
                && let Some(field) = subquery.subquery.schema().fields().first()
            {
                mixes |= !alike(expr, field.data_type());
            }
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(mixes)
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
