//! What a view's rows look like: which columns are keys, which one is the window, which are approximate.

use std::collections::BTreeSet;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use crate::functions::is_quantile_sketch;
use crate::schema::Source;

pub(super) struct Shape {
    pub(super) keys: Vec<String>,
    pub(super) all_keys_shown: bool,
    pub(super) time_column: Option<String>,
    pub(super) time_key: Option<usize>,
    pub(super) approximate: Vec<String>,
}

/// Reads the shape off the projection above the aggregate.
pub(super) fn shape_of(plan: &LogicalPlan, aggregate: &Aggregate, source: &Source) -> Shape {
    let mut shape =
        Shape { keys: vec![], all_keys_shown: false, time_column: None, time_key: None, approximate: vec![] };
    let mut shown = BTreeSet::new();
    let LogicalPlan::Projection(projection) = plan else { return shape };
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let made_of_sketch = expr.exists(|e| Ok(is_sketch_column(e, aggregate))).unwrap_or(false);
        if made_of_sketch {
            shape.approximate.push(field.name().clone());
        }
        let Some(key) = key_behind(expr, aggregate) else { continue };
        shape.keys.push(field.name().clone());
        shown.insert(key);
        if shape.time_column.is_none() && is_time(&aggregate.group_expr[key], source) {
            shape.time_column = Some(field.name().clone());
            shape.time_key = Some(key);
        }
    }
    shape.all_keys_shown = shown.len() == aggregate.group_expr.len();
    shape
}

/// The output column that shows the aggregate's output at `place`: the one that is it unchanged, else one made of it.
pub(crate) fn shown_as(plan: &LogicalPlan, aggregate: &Aggregate, place: usize) -> Option<String> {
    let LogicalPlan::Projection(projection) = plan else { return None };
    let is_it = |expr: &Expr| matches!(expr, Expr::Column(column) if place_of(column, aggregate) == Some(place));
    let shown = || projection.expr.iter().zip(projection.schema.fields());
    let unchanged = shown().find(|(expr, _)| match expr {
        Expr::Alias(alias) => is_it(&alias.expr),
        expr => is_it(expr),
    });
    let made_of_it = || shown().find(|(expr, _)| expr.exists(|e| Ok(is_it(e))).unwrap_or(false));
    unchanged.or_else(made_of_it).map(|(_, field)| field.name().clone())
}

/// The place of `column` among the aggregate's outputs: keys first, then calls.
fn place_of(column: &Column, aggregate: &Aggregate) -> Option<usize> {
    aggregate.schema.maybe_index_of_column(column)
}

/// The group key that an output expression is, if it is one unchanged.
fn key_behind(expr: &Expr, aggregate: &Aggregate) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => key_behind(&alias.expr, aggregate),
        Expr::Column(column) => place_of(column, aggregate).filter(|place| *place < aggregate.group_expr.len()),
        _ => None,
    }
}

fn is_sketch_column(expr: &Expr, aggregate: &Aggregate) -> bool {
    let Expr::Column(column) = expr else { return false };
    let Some(place) = place_of(column, aggregate) else { return false };
    let Some(call) = place.checked_sub(aggregate.group_expr.len()) else { return false };
    let is_sketch = |e: &Expr| matches!(e, Expr::AggregateFunction(f) if is_quantile_sketch(f.func.name()));
    aggregate.aggr_expr[call].exists(|e| Ok(is_sketch(e))).unwrap_or(false)
}

/// Whether a key is the event time itself or its window.
fn is_time(key: &Expr, source: &Source) -> bool {
    let Some(event_time) = &source.event_time else { return false };
    let (mut names_it, mut only_windows) = (false, true);
    let walked = key.apply(|expr| {
        match expr {
            Expr::Column(column) => names_it |= column.name == *event_time,
            Expr::ScalarFunction(f) => only_windows &= matches!(f.func.name(), "tumble" | "date_bin" | "date_trunc"),
            Expr::Literal(..) | Expr::Alias(_) | Expr::Cast(_) => {}
            _ => only_windows = false,
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && names_it && only_windows
}
