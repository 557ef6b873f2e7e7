//! `GET /v1/views/{view}/rows`: a view's rows by window and dimensions, without SQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arrow::datatypes::{DataType, SchemaRef};
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use bifold_fold::View;
use bifold_fold::decode::parse_timestamp;
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, SortExpr, lit};
use datafusion::prelude::DataFrame;

use super::{Api, body_of, note_query};
use crate::problem::Problem;
use crate::snapshot::{AtLeast, answer};
use crate::sql::{collect, context_of, wrong};

/// Rows given without a `limit`.
const LIMIT: usize = 1_000;

/// What the query string asks for.
#[derive(Default)]
struct Wanted {
    from: Option<String>,
    to: Option<String>,
    /// For each column the values that it may have; none: null.
    any_of: BTreeMap<String, Vec<Option<String>>>,
    order_by: Vec<(String, bool)>,
    limit: Option<usize>,
    at_least: Option<String>,
    timeout_ms: Option<u64>,
}

pub(super) async fn rows(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    RawQuery(text): RawQuery,
) -> Result<Response, Problem> {
    let started = Instant::now();
    let answered = rows_of(&api, name, text).await;
    note_query("/v1/views/rows", started, &answered);
    answered
}

async fn rows_of(api: &Api, name: String, text: Option<String>) -> Result<Response, Problem> {
    let wanted = parse(text.as_deref().unwrap_or_default())?;
    let at_least = AtLeast::parse(wanted.at_least.as_deref())?;
    let limits = api.limits(wanted.timeout_ms)?;
    let answers = answer(&api.catalog, &std::iter::once(name.clone()).collect(), &at_least, limits.deadline).await?;
    let found = &answers[&name];
    let context = context_of(&api.catalog, &answers, limits.memory)?;
    let table = datafusion::common::TableReference::bare(name.clone());
    let frame = context.table(table).await.map_err(|e| wrong(&e))?;
    let frame = apply(frame, &wanted, &found.view)?;
    let limit = wanted.limit.unwrap_or(LIMIT);
    let most = limits.rows;
    if limit > most {
        return Err(Problem::limit(format!("limit={limit} is more than serve.max_result_rows = {most}")));
    }
    let mut answered = collect(frame, limits.deadline, limit).await?;
    answered.coverage = vec![found.coverage.clone()];
    body_of(answered, api.catalog.engine.shared())
}

fn parse(text: &str) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    let pairs: Vec<(String, String)> = axum::extract::Query::try_from_uri(
        &format!("/?{text}").parse().map_err(|_| Problem::bad_query("the query string cannot be read"))?,
    )
    .map_err(|e| Problem::bad_query(e.to_string()))?
    .0;
    for (name, value) in pairs {
        let number = || value.parse::<u64>().map_err(|_| Problem::bad_query(format!("{name}={value} is no number")));
        match name.as_str() {
            "from" => wanted.from = Some(value),
            "to" => wanted.to = Some(value),
            "limit" => wanted.limit = Some(usize::try_from(number()?).unwrap_or(usize::MAX)),
            "timeout_ms" => wanted.timeout_ms = Some(number()?),
            "at_least" => wanted.at_least = Some(value),
            "order_by" => {
                let columns = value.split(',').map(str::trim).filter(|column| !column.is_empty());
                wanted.order_by = columns
                    .map(|column| match column.strip_prefix('-') {
                        Some(column) => (column.to_string(), false),
                        None => (column.to_string(), true),
                    })
                    .collect();
            }
            other => match other.strip_prefix("where.") {
                Some(column) => match column.strip_suffix(".null") {
                    Some(column) if value == "true" => any_of(&mut wanted, column, None),
                    Some(_) => return Err(Problem::bad_query(format!("write {other}=true"))),
                    None => any_of(&mut wanted, column, Some(value)),
                },
                None => {
                    let known = "from, to, where.<column>, order_by, limit, at_least, timeout_ms";
                    return Err(Problem::bad_query(format!("unknown parameter {other:?}; there are {known}")));
                }
            },
        }
    }
    Ok(wanted)
}

fn any_of(wanted: &mut Wanted, column: &str, value: Option<String>) {
    wanted.any_of.entry(column.to_string()).or_default().push(value);
}

fn apply(mut frame: DataFrame, wanted: &Wanted, view: &View) -> Result<DataFrame, Problem> {
    let failed = |e| wrong(&e);
    for (bound, is_start) in [(&wanted.from, true), (&wanted.to, false)] {
        let Some(text) = bound else { continue };
        let Some(time_column) = &view.time_column else {
            return Err(Problem::bad_query(format!("view {:?} has no time column", view.name)));
        };
        let time = lit(literal(text, &data_type(&view.output, time_column)?)?);
        let column = Expr::Column(Column::from_name(time_column));
        frame = frame.filter(if is_start { column.gt_eq(time) } else { column.lt(time) }).map_err(failed)?;
    }
    for (name, values) in &wanted.any_of {
        let ty = data_type(&view.output, name)?;
        if ty.is_nested() && values.iter().any(Option::is_some) {
            let ty = crate::json::type_name(&ty);
            return Err(Problem::bad_query(format!("{name} is {ty}, which no value in a URL is; ask /v1/sql")));
        }
        let column = Expr::Column(Column::from_name(name));
        let mut either = lit(false);
        for value in values {
            either = either.or(match value {
                Some(value) => column.clone().eq(lit(literal(value, &ty)?)),
                None => column.clone().is_null(),
            });
        }
        frame = frame.filter(either).map_err(failed)?;
    }
    if !wanted.order_by.is_empty() {
        let mut order: Vec<SortExpr> = vec![];
        for (name, ascending) in &wanted.order_by {
            data_type(&view.output, name)?;
            order.push(Expr::Column(Column::from_name(name)).sort(*ascending, false));
        }
        frame = frame.sort(order).map_err(failed)?;
    }
    Ok(frame)
}

fn data_type(schema: &SchemaRef, name: &str) -> Result<DataType, Problem> {
    match schema.field_with_name(name) {
        Ok(field) => Ok(field.data_type().clone()),
        Err(_) => {
            let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            Err(Problem::bad_query(format!("there is no column {name:?}; there are {}", known.join(", "))))
        }
    }
}

/// A value of the query string as a column's type.
fn literal(text: &str, ty: &DataType) -> Result<ScalarValue, Problem> {
    let wrong = || Problem::bad_query(format!("{text:?} is no {}", crate::json::type_name(ty)));
    match ty {
        DataType::Timestamp(..) => {
            let whole_day = || parse_timestamp(&format!("{text}T00:00:00Z"));
            let micros = parse_timestamp(text).or_else(whole_day).ok_or_else(wrong)?;
            ScalarValue::TimestampMicrosecond(Some(micros), None).cast_to(ty).map_err(|_| wrong())
        }
        ty => ScalarValue::try_from_string(text.to_string(), ty).map_err(|_| wrong()),
    }
}
