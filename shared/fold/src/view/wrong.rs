//! What DataFusion's planner says of a view, in the words of a pipeline: where, what, and what to do.

use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::tokenizer::Location;

use super::aggregate::Refused;
use crate::error::PipelineError;
use crate::pipeline::{ViewText, lower};
use crate::readable::{NoMatch, no_match, readable};
use crate::schema::Source;

/// An aggregate call that cannot stand in a view.
pub(super) fn refused(text: &ViewText, refused: Refused) -> PipelineError {
    let names: Vec<&str> = refused.names.iter().map(String::as_str).collect();
    let at = text.place.find(&names).map_or_else(|| text.place.clause(&["SELECT"]), |(_, at)| at);
    text.place.error(at, refused.message, Some(refused.hint))
}

/// A planning error at the place it names, with the nearest column or function where one is missing.
pub(super) fn planning_error(
    text: &ViewText,
    source: &Source,
    state: &SessionState,
    error: DataFusionError,
) -> PipelineError {
    let diagnostic = error.diagnostic();
    let root = error.find_root();
    let said = diagnostic.map_or_else(|| root.message().into_owned(), |d| d.message.clone());
    let mut message = readable(&said);
    let at = diagnostic.and_then(|d| d.span).map(|span| Location::new(span.start.line, span.start.column));
    let clause = if message.contains("with position") { "GROUP" } else { "SELECT" };
    let mut at = at.unwrap_or_else(|| text.place.clause(&[clause]));
    if let Some(NoMatch { call, candidates }) = no_match(&said) {
        let name = call.split('(').next().unwrap_or_default();
        let at = text.place.find(&[name]).map_or(at, |(_, at)| at);
        let takes = candidates.map_or(String::new(), |candidates| format!("it takes {candidates}; "));
        return text.place.error(at, message, Some(format!("{takes}CAST(x AS type) converts an argument")));
    }
    if let Some((name, _)) = message.split_once("() fails for every event") {
        let words = if name == "date_part" { vec!["date_part", "extract"] } else { vec![name] };
        let at = text.place.find(&words).map_or(at, |(_, at)| at);
        let hint = "mend the constant among its arguments".to_string();
        return text.place.error(at, message, Some(hint));
    }
    let hint = if let DataFusionError::SchemaError(schema_error, _) = root
        && let SchemaError::FieldNotFound { field, .. } = schema_error.as_ref()
    {
        if diagnostic.is_none() {
            message = format!("column '{}' not found", field.name);
            at = text.place.find(&[&field.name]).map_or(at, |(_, at)| at);
        }
        near_column(source, &field.name)
    } else if let Some(name) = message.strip_prefix("Invalid function '").and_then(|rest| rest.strip_suffix('\'')) {
        let hint = near_function(state, name);
        message = format!("there is no aggregate or function {name:?}");
        hint
    } else if let Some((what, instead)) = message.split_once(". Consider ") {
        let hint = format!("consider {instead}");
        message = what.to_string();
        hint
    } else if message.contains("duplicate") && message.contains("field name") {
        "two of its columns are the same expression; GROUP BY names columns of the source, not aggregates".to_string()
    } else if message.to_lowercase().contains("conflicting ordering requirements") {
        "order all of these calls alike, or make another view of one of them".to_string()
    } else if message.contains("must appear in GROUP BY") {
        "add it to GROUP BY, or aggregate it, for example with min or max".to_string()
    } else if message.contains("cannot be nested") {
        "aggregate once in the view, and its rows once more in a query".to_string()
    } else {
        columns_of(source)
    };
    text.place.error(at, lower(&message), Some(hint))
}

fn near_column(source: &Source, name: &str) -> String {
    let distance = |column: &&crate::schema::Column| strsim::damerau_levenshtein(&column.name, name);
    let exact = source.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
    match (exact, source.columns.iter().min_by_key(distance)) {
        (Some(column), _) if column.name == name => {
            format!("the column is {:?}: leave out what stands before it", name)
        }
        (Some(column), _) => format!("names are case-sensitive: write {:?} in double quotes", column.name),
        (None, Some(column)) => format!("the nearest column is {:?}", column.name),
        (None, None) => columns_of(source),
    }
}

fn near_function(state: &SessionState, name: &str) -> String {
    if name == "hop" || name == "session" {
        return "the only windows are tumble(time, size), date_bin and date_trunc".to_string();
    }
    if state.window_functions().contains_key(name) {
        return "it is a window function: use it in the query of the view".to_string();
    }
    if let Some(here) = known_elsewhere(name) {
        return format!("write {here}");
    }
    let known = state.aggregate_functions().keys().chain(state.scalar_functions().keys());
    // The marker of casts is nobody's to call.
    let known = known.filter(|known| !known.starts_with('_'));
    // Of equally near names the first by the alphabet, not by chance.
    let distance = |known: &str| strsim::damerau_levenshtein(known, &name.to_lowercase());
    match known.min_by_key(|known| (distance(known), *known)) {
        // A name that has little in common with it says nothing of what was meant.
        Some(nearest) if distance(nearest) <= 1 + name.len() / 4 => format!("the nearest function is {nearest}"),
        _ => "docs/guide/views.md and docs/reference/sql.md name what there is".to_string(),
    }
}

/// What other systems' functions are called here. None where the name says nothing.
fn known_elsewhere(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    if let Some(unit) = lower.strip_prefix("tostartof") {
        let unit = unit.trim_end_matches("interval");
        let known = ["second", "minute", "hour", "day", "week", "month", "quarter", "year"];
        return Some(match known.iter().find(|known| unit.starts_with(**known)) {
            Some(unit) => format!("date_trunc('{unit}', time)"),
            None => "date_bin(INTERVAL '5 minutes', time)".to_string(),
        });
    }
    let here = match &*lower {
        "time_bucket" | "time_floor" | "timebucket" | "datetrunc" => {
            "date_bin(INTERVAL '1 minute', time), or date_trunc('minute', time)"
        }
        "tumble_start" | "tumblingwindow" | "window" => "tumble(time, INTERVAL '1 minute')",
        "uniq"
        | "uniqcombined"
        | "uniqcombined64"
        | "uniqhll12"
        | "hll"
        | "hll_count"
        | "approx_count_distinct"
        | "distinctcounthll" => "approx_distinct(x)",
        "uniqexact" | "distinctcount" | "count_distinct" => "count(DISTINCT x)",
        "countif" => "count(*) FILTER (WHERE condition)",
        "sumif" => "sum(x) FILTER (WHERE condition)",
        "avgif" => "avg(x) FILTER (WHERE condition)",
        "quantile" | "percentile" | "percentiletdigest" | "approx_percentile" | "approx_quantile" => {
            "approx_percentile_cont(0.95) WITHIN GROUP (ORDER BY x)"
        }
        "last" | "argmax" | "max_by" | "latest" | "latest_by_offset" => "last_value(x ORDER BY time)",
        "first" | "any" | "any_value" | "argmin" | "min_by" | "earliest" | "earliest_by_offset" => {
            "first_value(x ORDER BY time)"
        }
        "grouparray" | "collect_list" | "listagg" => "array_agg(x ORDER BY time)",
        "group_concat" => "string_agg(x, ',' ORDER BY time)",
        "ifnull" | "isnull" | "nvl2" => "coalesce(x, y)",
        "iif" | "multiif" => "CASE WHEN condition THEN x ELSE y END",
        "len" | "lengthutf8" => "length(x)",
        "from_unixtime" | "fromunixtimestamp" => "to_timestamp(x)",
        "stddev_sample" | "std" | "stddevsamp" => "stddev(x)",
        _ => return None,
    };
    Some(here.to_string())
}

fn columns_of(source: &Source) -> String {
    const SHOWN: usize = 12;
    let columns = source.columns.iter().take(SHOWN).map(|column| format!("{} {}", column.name, column.ty));
    let more = if source.columns.len() > SHOWN { ", …" } else { "" };
    format!("the columns of {} are {}{more}", source.name, columns.collect::<Vec<_>>().join(", "))
}
