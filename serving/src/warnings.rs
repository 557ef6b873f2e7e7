//! What may mislead in an answer: sums of what does not add up.
//!
//! A distinct count, an average or a quantile of two groups is not the sum or the average of theirs: 500 users that come every
//! minute are not 30,000 an hour.

use std::collections::BTreeMap;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::expr::WindowFunctionDefinition;
use datafusion::logical_expr::{Expr, LogicalPlan};
use serde_json::{Value, json};

use crate::snapshot::ViewAnswer;

/// A column of a view that a query adds up though it does not add up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Warning {
    /// The column.
    pub column: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl Warning {
    /// As it stands in an answer.
    pub fn json(&self) -> Value {
        json!({ "column": self.column, "message": self.message })
    }
}

/// The columns of views that a plan adds up or averages although their values of several groups make no value of all.
pub(crate) fn of(plan: &LogicalPlan, answers: &BTreeMap<String, ViewAnswer>) -> Vec<Warning> {
    let mut found = vec![];
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Some((function, argument)) = added(expr) {
                    let columns = argument.column_refs().into_iter();
                    for (view, column) in columns.flat_map(|column| origins(node, column)) {
                        found.extend(warning(function, &view, &column, answers));
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(walked.is_ok(), "nothing in the walk fails");
    found.sort();
    found.dedup();
    found
}

/// What an expression adds up or averages.
fn added(expr: &Expr) -> Option<(&str, &Expr)> {
    let (name, args) = match expr {
        Expr::AggregateFunction(call) => (call.func.name(), &call.params.args),
        Expr::WindowFunction(call) => match &call.fun {
            WindowFunctionDefinition::AggregateUDF(function) => (function.name(), &call.params.args),
            WindowFunctionDefinition::WindowUDF(_) => return None,
        },
        _ => return None,
    };
    matches!(name, "sum" | "avg" | "mean").then_some(name).zip(args.first())
}

/// The columns of views that a column of a node's inputs shows, unchanged or computed, but not aggregated.
fn origins(node: &LogicalPlan, column: &Column) -> Vec<(String, String)> {
    node.inputs().into_iter().flat_map(|input| shown(input, column)).collect()
}

/// The same of a column of a node's own output.
fn shown(node: &LogicalPlan, column: &Column) -> Vec<(String, String)> {
    let Ok(place) = node.schema().index_of_column(column) else { return vec![] };
    match node {
        LogicalPlan::TableScan(scan) => {
            let name = node.schema().field(place).name().clone();
            vec![(scan.table_name.table().to_string(), name)]
        }
        LogicalPlan::Projection(projection) => {
            let columns = projection.expr[place].column_refs();
            columns.into_iter().flat_map(|column| shown(&projection.input, column)).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => {
            let (qualifier, field) = alias.input.schema().qualified_field(place);
            shown(&alias.input, &Column::new(qualifier.cloned(), field.name()))
        }
        LogicalPlan::Union(union) => union
            .inputs
            .iter()
            .flat_map(|input| {
                let (qualifier, field) = input.schema().qualified_field(place);
                shown(input, &Column::new(qualifier.cloned(), field.name()))
            })
            .collect(),
        // Its keys are columns of its input; what it aggregates is another measure.
        LogicalPlan::Aggregate(aggregate) => match aggregate.group_expr.get(place) {
            Some(Expr::Column(key)) => shown(&aggregate.input, key),
            _ => vec![],
        },
        other => origins(other, column),
    }
}

fn warning(function: &str, view: &str, column: &str, answers: &BTreeMap<String, ViewAnswer>) -> Option<Warning> {
    let measure = answers.get(view)?.view.does_not_add_up(column)?;
    let what = if function == "sum" { "a sum" } else { "an average" };
    let message = format!(
        "{column} of view {view} is {measure}, which does not add up: {what} of it over several groups is not the {column} of them together"
    );
    Some(Warning { column: column.to_string(), message })
}
