//! The HTTP surface. Every path, field and status is fixed by the contract.

mod rows;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bifold_config::Serve;
use bifold_fold::memory::{Held, Shared};
use bifold_ledger::Ledger;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::catalog::{Catalog, ServedSource};
use crate::guard::{Guard, guard};
use crate::json;
use crate::problem::Problem;
use crate::snapshot::{AtLeast, answer, progress};
use crate::sql::{Answer, Limits, query};
use crate::warnings::Warning;
use crate::{events, snapshot};

/// The largest body of events.
const MOST_BYTES: usize = 64 << 20;

/// What requests are answered with.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) options: Serve,
    /// Partitions of a topic made on the local log; none: topics are not made.
    pub(crate) create_topics: Option<i32>,
}

/// The routes of the API.
pub fn routes(catalog: Arc<Catalog>, options: Serve, create_topics: Option<i32>) -> Router {
    Router::new()
        .route("/v1/sql", post(sql))
        .route("/v1/views", get(views))
        .route("/v1/views/{view}", get(view))
        .route("/v1/views/{view}/rows", get(rows::rows))
        .route("/v1/sources", get(sources))
        .route("/v1/events/{source}", post(append))
        .fallback(|uri: Uri| async move { Problem::not_found(uri.path()) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            Problem::method_not_allowed(method.as_str(), uri.path())
        })
        .layer(DefaultBodyLimit::max(MOST_BYTES))
        .layer(middleware::from_fn_with_state(Arc::new(Guard::of(&options)), guard))
        .with_state(Arc::new(Api { catalog, options, create_topics }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SqlRequest {
    sql: String,
    at_least: Option<String>,
    timeout_ms: Option<u64>,
}

impl Api {
    /// What a request that starts now may take.
    ///
    /// # Errors
    /// It asks for more time than it may.
    fn limits(&self, timeout_ms: Option<u64>) -> Result<Limits, Problem> {
        let timeout = timeout_ms.map_or(self.options.query_timeout, Duration::from_millis);
        if timeout_ms.is_some() && timeout > self.options.max_timeout {
            let most = self.options.max_timeout.as_millis();
            let detail = format!("timeout_ms is {}, the most is {most} (serve.max_timeout)", timeout.as_millis());
            return Err(Problem::bad_query(detail));
        }
        Ok(Limits {
            deadline: Instant::now() + timeout,
            memory: self.options.query_memory,
            rows: usize::try_from(self.options.max_result_rows).unwrap_or(usize::MAX),
        })
    }
}

async fn sql(State(api): State<Arc<Api>>, body: Result<Bytes, BytesRejection>) -> Result<Response, Problem> {
    let started = Instant::now();
    let body = read(body)?;
    let request: SqlRequest = serde_json::from_slice(&body)
        .map_err(|e| Problem::bad_query(format!("the body is not {{\"sql\": \"…\"}}: {e}")))?;
    let at_least = AtLeast::parse(request.at_least.as_deref())?;
    let limits = api.limits(request.timeout_ms)?;
    let answered = query(&api.catalog, &request.sql, &at_least, limits).await;
    let answered = answered.and_then(|answer| body_of(answer, api.catalog.engine.shared()));
    note_query("/v1/sql", started, &answered);
    answered
}

/// Counts an answered or refused request, and how long it took.
pub(crate) fn note_query(path: &'static str, started: Instant, answered: &Result<Response, Problem>) {
    metrics::histogram!("bifold_query_seconds", "path" => path).record(started.elapsed().as_secs_f64());
    let status = answered.as_ref().map_or_else(Problem::status, Response::status);
    metrics::counter!("bifold_queries_total", "path" => path, "status" => status.as_str().to_string()).increment(1);
}

/// The body of a request.
fn read(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::body_too_large(format!("the body is longer than {} MiB; send it in parts", MOST_BYTES >> 20))
        }
        _ => Problem::bad_query(format!("the body cannot be read: {}", rejection.body_text())),
    })
}

/// The body of an answer: its text alone is in memory, and counts as long as the client takes it.
pub(crate) fn body_of(answer: Answer, shared: &Arc<Shared>) -> Result<Response, Problem> {
    let failed = |e: String| Problem::internal(e);
    let mut text = b"{\"columns\":".to_vec();
    let write =
        |text: &mut Vec<u8>, value: &Value| serde_json::to_writer(text, value).map_err(|e| failed(e.to_string()));
    write(&mut text, &json::columns(&answer.schema))?;
    text.extend_from_slice(b",\"rows\":[");
    let mut first = true;
    for batch in answer.batches {
        for row in json::rows(&batch).map_err(|e| failed(e.to_string()))? {
            if !std::mem::take(&mut first) {
                text.push(b',');
            }
            write(&mut text, &row)?;
        }
    }
    text.extend_from_slice(b"],\"coverage\":");
    write(&mut text, &json!(answer.coverage))?;
    let as_of = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    text.extend_from_slice(format!(",\"as_of\":\"{as_of}\",\"truncated\":{}", answer.truncated).as_bytes());
    if !answer.warnings.is_empty() {
        text.extend_from_slice(b",\"warnings\":");
        let warnings: Value = answer.warnings.iter().map(Warning::json).collect();
        write(&mut text, &warnings)?;
    }
    text.push(b'}');
    let held = shared.hold(text.capacity());
    let body = Body::new(Counted { body: Full::new(text.into()), _held: held });
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A body that counts until it is sent or given up.
struct Counted {
    body: Full<Bytes>,
    _held: Held,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

async fn views(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let mut views = vec![];
    for source in api.catalog.sources.values() {
        let ledger = source.ledger().await?;
        for name in api.catalog.names_of(source, &ledger) {
            views.push(describe(&api.catalog, source, &ledger, &name).await?);
        }
    }
    Ok(axum::Json(json!({ "views": views })).into_response())
}

async fn view(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Response, Problem> {
    let source = api.catalog.find(&name).await?;
    let ledger = source.ledger().await?;
    Ok(axum::Json(describe(&api.catalog, &source, &ledger, &name).await?).into_response())
}

async fn describe(catalog: &Catalog, source: &ServedSource, ledger: &Ledger, name: &str) -> Result<Value, Problem> {
    let served = ledger.served(name);
    let version = served.or_else(|| ledger.newest(name));
    let view = match version {
        Some(version) => source.view(&catalog.engine, ledger, version).await?,
        None => match source.declared.iter().find(|view| view.name == name) {
            Some(view) => Arc::clone(view),
            None => return Err(Problem::unknown_view(name, &catalog.names_of(source, ledger))),
        },
    };
    let coverage = match served {
        Some(_) => {
            let names = std::iter::once(name.to_string()).collect();
            let deadline = Instant::now() + Duration::from_secs(1);
            match answer(catalog, &names, &AtLeast::Now, deadline).await {
                Ok(mut answers) => answers.remove(name).map_or(Value::Null, |answer| answer.coverage),
                Err(_) => Value::Null,
            }
        }
        None => Value::Null,
    };
    let state = version.and_then(|version| ledger.versions.get(version));
    let sum = |of: fn(&bifold_ledger::File) -> u64| state.map_or(0, |state| state.runs.iter().map(of).sum::<u64>());
    let waiting = ledger.building().find(|(_, v)| v.view == name).map(|(id, _)| id.clone());
    Ok(json!({
        "name": name,
        "source": source.source.name,
        "sql": view.sql,
        "version": view.version,
        "state": if served.is_some() { "ready" } else { "building" },
        "progress": if served.is_some() { 1.0 } else { snapshot::progress(ledger, name) },
        "building": waiting.map(|version| json!({ "version": version, "progress": progress(ledger, name) })),
        "columns": json::columns(&view.output),
        "keys": view.keys,
        "time_column": view.time_column,
        "coverage": coverage,
        "size": {
            "batch_bytes": sum(|file| file.bytes),
            "batch_groups": sum(|file| file.rows),
            "runs": state.map_or(0, |state| state.runs.len()),
        },
    }))
}

async fn sources(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    let mut sources = vec![];
    for source in api.catalog.sources.values() {
        let ledger = source.ledger().await?;
        let survey = bifold_log::survey(&*api.catalog.log, &source.source.topics).await?;
        let mut all = ledger.effective();
        for (at, bounds) in &survey.bounds {
            all.advance(at, ledger.origin(at).max(if ledger.exists() { 0 } else { bounds.earliest }));
        }
        let partitions = all.iter().map(|(at, folded)| {
            let mut partition = json!({
                "topic": at.topic,
                "partition": at.partition,
                "origin": ledger.origin(at),
                "archived": ledger.archived(at),
                "folded": folded,
                "log_end": survey.bounds.get(at).map(|bounds| bounds.end),
                "dead_letters": ledger.counts.dead_by_partition.or_zero(at),
            });
            if ledger.kept_from(at) > ledger.origin(at) {
                partition["archive_start"] = ledger.kept_from(at).into();
            }
            partition
        });
        let partitions: Vec<Value> = partitions.collect();
        sources.push(json!({ "name": source.source.name, "partitions": partitions }));
    }
    Ok(axum::Json(json!({ "sources": sources })).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppendQuery {
    key: Option<String>,
    topic: Option<String>,
    #[serde(default)]
    validate: bool,
}

async fn append(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    parameters: Result<Query<AppendQuery>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    if !api.options.ingest {
        return Err(Problem::forbidden(
            "events are not taken over HTTP here (serve.ingest = false); produce to the topic",
        ));
    }
    let mut body = read(body)?;
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|encoding| encoding.to_str().ok());
    match encoding.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity") => {}
        Some("gzip" | "x-gzip") => {
            let unzip = tokio::task::spawn_blocking(move || events::unzipped(&body, MOST_BYTES));
            body = unzip.await.map_err(|e| Problem::internal(e.to_string()))??.into();
        }
        Some(other) => {
            return Err(Problem::bad_query(format!(
                "Content-Encoding {other:?} is not understood; send gzip, or none"
            )));
        }
    }
    let Query(parameters) = parameters.map_err(|e| Problem::bad_query(e.body_text()))?;
    let source = api.catalog.sources.get(&name).ok_or_else(|| Problem::unknown_source(&name))?;
    let topics = &source.source.topics;
    let topic = parameters.topic.unwrap_or_else(|| topics[0].clone());
    if !topics.contains(&topic) {
        let detail = format!("source {name:?} reads {}, not {topic:?}", topics.join(", "));
        return Err(Problem::bad_query(detail));
    }
    if let Some(key) = &parameters.key {
        source.source.check_key(key).map_err(Problem::bad_query)?;
    }
    let (of, key, validate) = (Arc::clone(&source.source), parameters.key, parameters.validate);
    // Splitting and decoding megabytes takes long, and would block the HTTP threads.
    let prepared = tokio::task::spawn_blocking(move || {
        let records = events::records(&body, &of);
        let (records, rejected) = if validate { events::judged(records, &of) } else { (records, vec![]) };
        let records: Vec<_> = records.into_iter().map(|(_, line)| events::record(line, key.as_deref())).collect();
        (records, rejected)
    });
    let (records, rejected) = prepared.await.map_err(|e| Problem::internal(e.to_string()))?;
    if let Some(partitions) = api.create_topics {
        api.catalog.log.create_topic(&topic, partitions).await?;
    }
    let accepted = records.len();
    let offsets = api.catalog.log.append(&topic, records).await?;
    let mut answer = json!({ "accepted": accepted, "offsets": offsets.to_string() });
    if !validate {
        return Ok(axum::Json(answer).into_response());
    }
    answer["rejected"] = rejected.into();
    Ok((StatusCode::MULTI_STATUS, axum::Json(answer)).into_response())
}
