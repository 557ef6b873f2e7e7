//! Rewrites the expressions of a plan, under the same names.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// The same plan, every expression of which was rewritten from the innermost to the outermost; subqueries, too.
pub(crate) fn expressions(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    by_node(plan, |_| &rewrite)
}

/// The same, from the outermost to the innermost: `rewrite` sees what is below as it was. To ask for the type of a function names all of its
/// arguments, so a chain of operators that become functions from below costs the cube of its length.
pub(crate) fn expressions_from_the_top(
    plan: LogicalPlan,
    rewrite: impl Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
) -> Result<LogicalPlan> {
    whole(plan, |_| |expr: Expr, schema: &DFSchema| expr.transform_down(|expr| rewrite(expr, schema)))
}

/// The same as [`expressions`], by what `rewrite` makes of the node that an expression belongs to.
pub(crate) fn by_node<R>(plan: LogicalPlan, rewrite: impl Fn(&LogicalPlan) -> R) -> Result<LogicalPlan>
where
    R: Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
{
    whole(plan, |node| {
        let rewrite = rewrite(node);
        move |expr: Expr, schema: &DFSchema| expr.transform_up(|expr| rewrite(expr, schema))
    })
}

fn whole<R>(plan: LogicalPlan, rewrite: impl Fn(&LogicalPlan) -> R) -> Result<LogicalPlan>
where
    R: Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
{
    let made = plan.transform_up_with_subqueries(|node| {
        let mut schema = merge_schema(&node.inputs());
        if let LogicalPlan::TableScan(scan) = &node {
            schema.merge(&scan.projected_schema);
        }
        let (names, rewrite) = (NamePreserver::new(&node), rewrite(&node));
        let rewritten = node.map_expressions(|expr| {
            let name = names.save(&expr);
            let made = rewrite(expr, &schema)?;
            Ok(made.update_data(|expr| name.restore(expr)))
        })?;
        match &rewritten.data {
            LogicalPlan::TableScan(_) => Ok(rewritten),
            // Also where the types of an input have changed.
            _ => rewritten.map_data(LogicalPlan::recompute_schema),
        }
    })?;
    Ok(made.data)
}
