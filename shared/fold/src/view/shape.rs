//! What a view's rows look like: which columns are keys, which one is the window, which are approximate.

use std::collections::BTreeSet;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Aggregate, BinaryExpr, Expr, LogicalPlan, Operator};

use crate::functions::is_quantile_sketch;
use crate::schema::Source;

pub(super) struct Shape {
    pub(super) keys: Vec<String>,
    pub(super) all_keys_shown: bool,
    pub(super) time_column: Option<String>,
    pub(super) time_key: Option<usize>,
    pub(super) approximate: Vec<String>,
    pub(super) not_additive: Vec<(String, String)>,
}

/// Reads the shape off the projection above the aggregate.
pub(super) fn shape_of(plan: &LogicalPlan, aggregate: &Aggregate, source: &Source) -> Shape {
    let mut shape = Shape {
        keys: vec![],
        all_keys_shown: false,
        time_column: None,
        time_key: None,
        approximate: vec![],
        not_additive: vec![],
    };
    let mut shown = BTreeSet::new();
    let LogicalPlan::Projection(projection) = plan else { return shape };
    for (expr, field) in projection.expr.iter().zip(projection.schema.fields()) {
        let made_of_sketch = expr.exists(|e| Ok(is_sketch_column(e, aggregate))).unwrap_or(false);
        if made_of_sketch {
            shape.approximate.push(field.name().clone());
        }
        if let Some(measure) = does_not_add_up(expr, aggregate) {
            shape.not_additive.push((field.name().clone(), measure));
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

/// The measure because of which the values of an output expression do not add up over groups; none where they do: of counts, sums, and
/// what is added to them or multiplied by a constant.
fn does_not_add_up(expr: &Expr, aggregate: &Aggregate) -> Option<String> {
    match expr {
        Expr::Alias(alias) => does_not_add_up(&alias.expr, aggregate),
        Expr::Cast(cast) => does_not_add_up(&cast.expr, aggregate),
        Expr::TryCast(cast) => does_not_add_up(&cast.expr, aggregate),
        Expr::Column(column) => {
            let call = place_of(column, aggregate)?.checked_sub(aggregate.group_expr.len())?;
            let Expr::AggregateFunction(call) = unaliased(&aggregate.aggr_expr[call]) else { return None };
            match (call.func.name(), call.params.distinct) {
                ("count" | "sum" | "regr_count", false) => None,
                (name, true) => Some(format!("{name}(DISTINCT …)")),
                (name, false) => Some(format!("{name}(…)")),
            }
        }
        Expr::ScalarFunction(call) if call.func.name() == "canonical" => {
            call.args.first().and_then(|arg| does_not_add_up(arg, aggregate))
        }
        Expr::ScalarFunction(call) if matches!(call.func.name(), "+" | "-") => {
            call.args.iter().find_map(|arg| does_not_add_up(arg, aggregate))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus, right }) => {
            does_not_add_up(left, aggregate).or_else(|| does_not_add_up(right, aggregate))
        }
        other => {
            let of_calls = other.column_refs().into_iter().filter_map(|column| place_of(column, aggregate));
            let calls = of_calls.filter(|place| *place >= aggregate.group_expr.len()).count();
            (calls > 0 && !is_scaled(other, aggregate)).then(|| "computed of several measures".to_string())
        }
    }
}

/// Whether an expression is one that adds up, multiplied or divided by a constant.
fn is_scaled(expr: &Expr, aggregate: &Aggregate) -> bool {
    let adds_up = |expr: &Expr| !matches!(expr, Expr::Literal(..)) && does_not_add_up(expr, aggregate).is_none();
    let scaled = |op: &str, left: &Expr, right: &Expr| match op {
        "*" => [(left, right), (right, left)].iter().any(|(of, by)| adds_up(of) && matches!(by, Expr::Literal(..))),
        "/" => adds_up(left) && matches!(right, Expr::Literal(..)),
        _ => false,
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => scaled(&op.to_string(), left, right),
        Expr::ScalarFunction(call) => match &call.args[..] {
            [left, right] => scaled(call.func.name(), left, right),
            _ => false,
        },
        _ => false,
    }
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(alias) => unaliased(&alias.expr),
        expr => expr,
    }
}

/// Whether a key is the event time itself or its window.
fn is_time(key: &Expr, source: &Source) -> bool {
    let Some(event_time) = &source.event_time else { return false };
    let (mut names_it, mut only_windows) = (false, true);
    let walked = key.apply(|expr| {
        match expr {
            Expr::Column(column) => names_it |= column.name == *event_time,
            Expr::ScalarFunction(f) => only_windows &= matches!(f.func.name(), "tumble" | "date_bin" | "date_trunc"),
            Expr::Literal(..) | Expr::Alias(_) | Expr::Cast(_) | Expr::TryCast(_) => {}
            _ => only_windows = false,
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.is_ok() && names_it && only_windows
}
