//! Clauses that the parser reads and the planner passes over: an answer that left them out would be a wrong one.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Query, Select, SelectFlavor, Statement,
    TableFactor, Visit, Visitor,
};

/// The clause of `statement` that would be passed over, if there is one.
pub(crate) fn passed_over(statement: &Statement) -> Option<&'static str> {
    match statement.visit(&mut Clauses) {
        ControlFlow::Break(clause) => Some(clause),
        ControlFlow::Continue(()) => None,
    }
}

/// Aggregates in which DataFusion passes over DISTINCT.
const WITHOUT_DISTINCT: [&str; 16] = [
    "approx_median",
    "approx_percentile_cont",
    "approx_percentile_cont_with_weight",
    "corr",
    "covar",
    "covar_pop",
    "covar_samp",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
];

struct Clauses;

fn first(found: &[(bool, &'static str)]) -> ControlFlow<&'static str> {
    match found.iter().find(|(found, _)| *found) {
        Some((_, clause)) => ControlFlow::Break(clause),
        None => ControlFlow::Continue(()),
    }
}

impl Visitor for Clauses {
    type Break = &'static str;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Self::Break> {
        first(&[
            (!query.locks.is_empty(), "FOR UPDATE"),
            (query.for_clause.is_some(), "FOR"),
            (query.settings.is_some(), "SETTINGS"),
            (query.format_clause.is_some(), "FORMAT"),
        ])
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Self::Break> {
        first(&[
            (select.projection.is_empty() || select.flavor != SelectFlavor::Standard, "a SELECT without columns"),
            (select.prewhere.is_some(), "PREWHERE"),
            (!select.connect_by.is_empty(), "CONNECT BY"),
            (!select.cluster_by.is_empty(), "CLUSTER BY"),
            (!select.distribute_by.is_empty(), "DISTRIBUTE BY"),
            (!select.sort_by.is_empty(), "SORT BY"),
            (select.value_table_mode.is_some(), "AS VALUE and AS STRUCT"),
            (select.select_modifiers.is_some(), "a modifier of SELECT"),
        ])
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> ControlFlow<Self::Break> {
        let TableFactor::Table {
            with_hints, version, with_ordinality, partitions, json_path, sample, index_hints, ..
        } = table
        else {
            return ControlFlow::Continue(());
        };
        first(&[
            (!with_hints.is_empty() || !index_hints.is_empty(), "a hint at a view"),
            (version.is_some(), "a version of a view"),
            (*with_ordinality, "WITH ORDINALITY"),
            (!partitions.is_empty(), "PARTITION"),
            (json_path.is_some(), "a path into a view"),
            (sample.is_some(), "TABLESAMPLE"),
        ])
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let FunctionArguments::List(arguments) = &call.args else { return ControlFlow::Continue(()) };
        let distinct = arguments.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        let name = call.name.to_string().to_lowercase();
        let all = arguments.args.iter().any(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard)));
        first(&[
            (distinct && all, "DISTINCT *"),
            (!matches!(call.parameters, FunctionArguments::None), "a call with parameters before its arguments"),
            (distinct && WITHOUT_DISTINCT.contains(&name.as_str()), "DISTINCT in this aggregate"),
        ])
    }
}
