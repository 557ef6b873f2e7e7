//! What a view may not say, judged on the parsed SELECT, with the place of the offence.

use datafusion::sql::sqlparser::ast::{GroupByExpr, Query, Select, SetExpr, Spanned, TableFactor};

use crate::error::PipelineError;
use crate::pipeline::ViewText;

/// The SELECT of a view and the name of the one source it reads.
pub(super) fn select_of(view: &ViewText) -> Result<(&Select, String), PipelineError> {
    let query: &Query = &view.query;
    let refuse =
        |word: &str, message: &str, hint: &str| Err(view.place.error_at(word, message, Some(hint.to_string())));
    if query.with.is_some() {
        return refuse("WITH", "a view cannot use WITH", "write one SELECT over one source");
    }
    if query.order_by.is_some() {
        return refuse("ORDER", "a view has no order", "put ORDER BY into the query of the view");
    }
    if query.limit_clause.is_some() || query.fetch.is_some() {
        return refuse("LIMIT", "a limit cannot be merged", "put LIMIT into the query of the view");
    }
    let SetExpr::Select(select) = &*query.body else {
        return refuse("UNION", "a view is one SELECT", "make one view of each and unite them in a query");
    };
    if select.distinct.is_some() {
        return refuse("DISTINCT", "SELECT DISTINCT cannot be merged", "GROUP BY the columns instead");
    }
    if select.qualify.is_some() || !select.named_window.is_empty() {
        return refuse("WINDOW", "window functions cannot be merged", "use them in the query of the view");
    }
    if let GroupByExpr::All(_) = &select.group_by {
        return refuse("ALL", "GROUP BY ALL is not supported", "name the columns");
    }
    let [table] = &select.from[..] else {
        return refuse("FROM", "a view reads exactly one source", "make one view of each source");
    };
    if let Some(join) = table.joins.first() {
        let hint = Some("a view reads one source; join views in a query".to_string());
        return Err(view.place.error(join.relation.span().start, "a view cannot join", hint));
    }
    match &table.relation {
        TableFactor::Table { name, args: None, .. } => match &name.0[..] {
            [part] => match part.as_ident() {
                Some(ident) if ident.quote_style.is_some() => Ok((select, ident.value.clone())),
                Some(ident) => Ok((select, ident.value.to_lowercase())),
                None => refuse("FROM", "this is no source", "name a table of the pipeline"),
            },
            _ => refuse("FROM", "this is no source", "name a table of the pipeline, without a schema"),
        },
        _ => refuse("FROM", "a view reads a source directly", "subqueries belong into the query of the view"),
    }
}
