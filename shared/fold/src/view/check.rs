//! What a view may not say, judged on the parsed SELECT, with the place of the offence.

use std::ops::ControlFlow;

use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast::{
    Distinct, DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
    GroupByExpr, Query, Select, SelectItem, SetExpr, Spanned, TableFactor, TableWithJoins, Visit, Visitor,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::error::PipelineError;
use crate::pipeline::{ViewText, normal};

/// The one source that a view reads: its name, and where it stands.
pub(super) struct Read {
    pub(super) source: String,
    pub(super) at: Location,
}

/// What a view reads, if it is one plain SELECT over one source.
pub(super) fn read_by(view: &ViewText) -> Result<Read, PipelineError> {
    let query: &Query = &view.query;
    let refuse = |words: &[&str], message: &str, hint: &str| {
        Err(view.place.error(view.place.clause(words), message, Some(hint.to_string())))
    };
    if query.with.is_some() {
        return refuse(&["WITH"], "a view cannot use WITH", "write one SELECT over one source");
    }
    if query.order_by.is_some() {
        return refuse(&["ORDER"], "a view has no order", "put ORDER BY into the query of the view");
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        let words = ["LIMIT", "OFFSET", "FETCH"];
        return refuse(&words, "a limit cannot be merged", "put LIMIT and OFFSET into the query of the view");
    }
    let more = !query.pipe_operators.is_empty() || !query.locks.is_empty() || query.for_clause.is_some();
    if more || query.settings.is_some() || query.format_clause.is_some() {
        let words = ["|>", "FOR", "SETTINGS", "FORMAT"];
        return refuse(&words, "a view is one plain SELECT", "write SELECT … FROM … WHERE … GROUP BY … HAVING …");
    }
    let select = match &*query.body {
        SetExpr::Select(select) => select,
        SetExpr::Query(_) => {
            return refuse(&["AS"], "a view is one plain SELECT", "leave out the parentheses around it");
        }
        SetExpr::SetOperation { .. } => {
            let words = ["UNION", "EXCEPT", "INTERSECT", "MINUS"];
            return refuse(&words, "a view is one SELECT", "make one view of each SELECT and unite them in a query");
        }
        _ => return refuse(&["VALUES", "TABLE", "AS"], "a view is one SELECT", "write SELECT … FROM … GROUP BY …"),
    };
    clauses(view, select)?;
    let [table] = &select.from[..] else {
        return refuse(
            &["FROM"],
            "a view reads exactly one source",
            "write one source after FROM; join views in a query",
        );
    };
    let read = table_of(view, table)?;
    match select.visit(&mut Nested) {
        ControlFlow::Break(offence) => {
            let hint = "a view is one pass over events; put this into the query of the view".to_string();
            Err(view.place.error(offence.at, offence.message, Some(hint)))
        }
        ControlFlow::Continue(()) => distinct_names(view, select).map(|()| read),
    }
}

/// Clauses of a SELECT that cannot be merged, or that mean nothing here.
fn clauses(view: &ViewText, select: &Select) -> Result<(), PipelineError> {
    let refuse = |words: &[&str], message: &str, hint: &str| {
        Err(view.place.error(view.place.clause(words), message, Some(hint.to_string())))
    };
    if select.distinct.as_ref().is_some_and(|distinct| !matches!(distinct, Distinct::All)) {
        return refuse(&["DISTINCT"], "SELECT DISTINCT cannot be merged", "GROUP BY the columns instead");
    }
    if select.qualify.is_some() || !select.named_window.is_empty() {
        let words = ["QUALIFY", "WINDOW"];
        return refuse(&words, "window functions cannot be merged", "use them in the query of the view");
    }
    if select.top.is_some() {
        return refuse(&["TOP"], "a limit cannot be merged", "put LIMIT into the query of the view");
    }
    let odd = select.into.is_some()
        || select.exclude.is_some()
        || select.prewhere.is_some()
        || select.value_table_mode.is_some()
        || select.select_modifiers.is_some()
        || !select.lateral_views.is_empty()
        || !select.connect_by.is_empty()
        || !(select.cluster_by.is_empty() && select.distribute_by.is_empty() && select.sort_by.is_empty());
    if odd {
        let words = ["INTO", "EXCLUDE", "PREWHERE", "LATERAL", "START", "CONNECT", "CLUSTER", "DISTRIBUTE", "SORT"];
        return refuse(&words, "a view is one plain SELECT", "write SELECT … FROM … WHERE … GROUP BY … HAVING …");
    }
    let many = match &select.group_by {
        GroupByExpr::All(_) => return refuse(&["ALL"], "GROUP BY ALL is not supported", "name the columns"),
        GroupByExpr::Expressions(keys, modifiers) => {
            let is_set = |key: &Expr| matches!(key, Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_));
            keys.iter().any(is_set) || !modifiers.is_empty()
        }
    };
    if many {
        let words = ["ROLLUP", "CUBE", "GROUPING", "TOTALS"];
        return refuse(&words, "grouping sets cannot be merged", "make one view of each set of columns");
    }
    Ok(())
}

fn table_of(view: &ViewText, table: &TableWithJoins) -> Result<Read, PipelineError> {
    let refuse = |at: Location, message: &str, hint: &str| Err(view.place.error(at, message, Some(hint.to_string())));
    if let Some(join) = table.joins.first() {
        let at = join.relation.span().start;
        return refuse(at, "a view cannot join", "a view reads one source; join views in a query");
    }
    let name = match &table.relation {
        TableFactor::Table { name, args: None, .. } => name,
        TableFactor::Derived { subquery, .. } => {
            let hint = "name one source after FROM; subqueries belong into the query of the view";
            return refuse(subquery.span().start, "a view reads a source directly", hint);
        }
        other => {
            let at = other.span().start;
            return refuse(at, "a view reads a source directly", "name one source of the pipeline after FROM");
        }
    };
    // A name in single quotes has no place of its own.
    let at = Some(name.span().start).filter(|at| at.line > 0).unwrap_or_else(|| view.place.clause(&["FROM"]));
    let [part] = &name.0[..] else {
        return refuse(at, "a source has no schema before its name", "name one source of the pipeline after FROM");
    };
    let Some(ident) = part.as_ident() else {
        return refuse(at, "this is no source", "name one source of the pipeline after FROM");
    };
    let plain = matches!(&table.relation, TableFactor::Table {
        alias, with_hints, version: None, with_ordinality: false, partitions, json_path: None, sample: None,
        index_hints, ..
    } if with_hints.is_empty()
        && partitions.is_empty()
        && index_hints.is_empty()
        && alias.as_ref().is_none_or(|alias| alias.columns.is_empty()));
    if !plain {
        let message = format!("a view reads every event of {ident}, under its own columns");
        return refuse(at, &message, "leave samples, versions and lists of columns out; use WHERE and AS");
    }
    Ok(Read { source: normal(ident), at })
}

/// Clauses of calls that the planner reads and passes over. It comes after planning, when every name is known.
pub(super) fn passed_over(view: &ViewText, state: &SessionState) -> Result<(), PipelineError> {
    match view.query.visit(&mut Calls(state)) {
        ControlFlow::Break(offence) => {
            let hint = "leave it out".to_string();
            Err(view.place.error(offence.at, offence.message, Some(hint)))
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Equal output names could not be told apart in a query.
fn distinct_names(view: &ViewText, select: &Select) -> Result<(), PipelineError> {
    let mut names: Vec<String> = vec![];
    for item in &select.projection {
        let (name, at) = match item {
            SelectItem::ExprWithAlias { alias, .. } => (normal(alias), alias.span.start),
            SelectItem::UnnamedExpr(expr) => (name_of(expr), expr.span().start),
            other => {
                let hint = Some("write group keys and aggregates in its place".to_string());
                return Err(view.place.error(other.span().start, "a view names its columns", hint));
            }
        };
        if names.contains(&name) {
            let hint = Some("give one of them another name with AS".to_string());
            return Err(view.place.error(at, format!("two columns of the view are called {name:?}"), hint));
        }
        names.push(name);
    }
    Ok(())
}

fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Identifier(ident) => normal(ident),
        Expr::CompoundIdentifier(parts) => parts.last().map(normal).unwrap_or_default(),
        other => other.to_string(),
    }
}

/// Finds what reaches beyond one event: subqueries and window functions.
struct Nested;

struct Offence {
    at: Location,
    message: String,
}

/// Finds calls with clauses that mean nothing there.
struct Calls<'a>(&'a SessionState);

impl Visitor for Calls<'_> {
    type Break = Offence;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Offence> {
        let Expr::Function(call) = expr else { return ControlFlow::Continue(()) };
        let name = call.name.to_string().to_lowercase();
        let of = |what: &str| {
            let message = format!("{}() does not take {what}", call.name);
            ControlFlow::Break(Offence { at: call.name.span().start, message })
        };
        if !matches!(call.parameters, FunctionArguments::None) {
            return of("parameters before its arguments");
        }
        let FunctionArguments::List(arguments) = &call.args else { return ControlFlow::Continue(()) };
        let distinct = arguments.duplicate_treatment == Some(DuplicateTreatment::Distinct);
        let all = arguments.args.iter().any(|arg| matches!(arg, FunctionArg::Unnamed(FunctionArgExpr::Wildcard)));
        if distinct && all {
            return of("DISTINCT *");
        }
        if self.0.aggregate_functions().contains_key(&name) {
            return ControlFlow::Continue(());
        }
        if distinct {
            return of("DISTINCT");
        }
        if call.filter.is_some() {
            return of("FILTER");
        }
        if arguments.clauses.iter().any(|clause| matches!(clause, FunctionArgumentClause::OrderBy(_))) {
            return of("ORDER BY");
        }
        ControlFlow::Continue(())
    }
}

impl Visitor for Nested {
    type Break = Offence;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Offence> {
        let message = "a view cannot have a subquery".to_string();
        ControlFlow::Break(Offence { at: query.span().start, message })
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Offence> {
        match expr {
            Expr::Function(call) if call.over.is_some() => {
                let message = format!("{}() OVER … is a window function, which cannot be merged", call.name);
                ControlFlow::Break(Offence { at: call.name.span().start, message })
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
