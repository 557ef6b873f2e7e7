//! Errors as problem documents (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// What a client is told instead of an answer.
#[derive(Debug, Clone)]
pub struct Problem(Box<Document>);

#[derive(Debug, Clone)]
struct Document {
    status: StatusCode,
    slug: &'static str,
    title: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    fn new(status: StatusCode, slug: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Document { status, slug, title, detail: detail.into(), more: Map::new() }))
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(name.to_string(), value.into());
        self
    }

    /// The query is wrong.
    pub fn bad_query(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-query", "The query cannot be run", detail)
    }

    /// A view that does not exist.
    pub fn unknown_view(name: &str, known: &[String]) -> Self {
        let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let hint = nearest.map_or(String::new(), |nearest| format!("; the nearest is {nearest:?}"));
        let detail = format!("there is no view {name:?}{hint}");
        Self::new(StatusCode::NOT_FOUND, "unknown-view", "There is no such view", detail)
    }

    /// A source that was asked as if it were a view.
    pub fn is_source(name: &str, views: &[String]) -> Self {
        let detail = match views {
            [] => format!("{name:?} is a source, and no view reads it"),
            views => format!("{name:?} is a source; its views are {}", views.join(", ")),
        };
        Self::new(StatusCode::NOT_FOUND, "unknown-view", "There is no such view", detail)
    }

    /// A source that does not exist.
    pub fn unknown_source(name: &str) -> Self {
        let detail = format!("there is no source {name:?}");
        Self::new(StatusCode::NOT_FOUND, "unknown-source", "There is no such source", detail)
    }

    /// A request that is not admitted.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "The request is not admitted", detail)
    }

    /// A path without anything.
    pub fn not_found(path: &str) -> Self {
        let detail = format!("there is nothing at {path}; see /v1/views and /v1/sources");
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", detail)
    }

    /// A path asked by a method that it does not have.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let detail = format!("{path} does not take {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The path does not take this method", detail)
    }

    /// A body beyond what is read.
    pub fn body_too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "limit-exceeded", "A limit is exceeded", detail)
    }

    /// A limit that the answer, or what was sent, is beyond.
    pub fn limit(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "limit-exceeded", "A limit is exceeded", detail)
    }

    /// A sum that its type does not hold.
    pub fn overflow(view: &str, column: &str, ty: &str, group: &str) -> Self {
        let detail = format!("{column} of view {view} overflows {ty} in group {group}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "overflow", "A value overflows its type", detail)
            .with("view", view)
            .with("column", column)
            .with("group", group)
            .with("hint", "cast the argument to DECIMAL in the view")
    }

    /// A value of a query that its type does not hold.
    pub fn query_overflow(detail: &str) -> Self {
        let hint = if detail.contains("DECIMAL") {
            "cast the argument to DOUBLE in the query, which rounds"
        } else {
            "cast the argument to DECIMAL(38, 0) in the query"
        };
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "overflow", "A value overflows its type", detail).with("hint", hint)
    }

    /// Others leave no room now.
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many", "Too much is asked for at once", detail)
    }

    /// The query took too long.
    pub fn timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "The query took too long", detail)
    }

    /// The answer does not reach what was asked for yet.
    pub fn not_yet(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not-yet", "The answer does not reach that far yet", detail)
    }

    /// The view is being built.
    pub fn building(view: &str, progress: f64) -> Self {
        let detail = format!("view {view} is being built by a batch run; {:.0} % can be built now", progress * 100.0);
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "building", "The view is being built", detail)
            .with("view", view)
            .with("progress", progress)
    }

    /// Durable units that do not join.
    pub fn incomplete(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "incomplete-coverage", "The coverage has a gap", detail)
    }

    /// Something that the answer needs cannot be reached.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail)
    }

    /// A stored file that is not what was written.
    pub fn damaged(path: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged", "A stored file is damaged", detail).with("file", path)
    }

    /// Our own failure.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "An internal failure", detail)
    }

    /// What happened.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The kind, as in `type`.
    pub fn slug(&self) -> &'static str {
        self.0.slug
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Document { status, slug, title, detail, more } = *self.0;
        let mut body = json!({
            "type": format!("/problems/{}", slug),
            "title": title,
            "status": status.as_u16(),
            "detail": detail,
        });
        let members = body.as_object_mut().expect("an object was made");
        members.extend(more);
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<bifold_store::Error> for Problem {
    fn from(error: bifold_store::Error) -> Self {
        match &error {
            bifold_store::Error::Damaged { path, .. } => Problem::damaged(path, error.to_string()),
            _ if error.kind() == bifold_store::Kind::Unavailable => Problem::unavailable(error.to_string()),
            _ => Problem::internal(error.to_string()),
        }
    }
}

impl From<bifold_fold::Error> for Problem {
    fn from(error: bifold_fold::Error) -> Self {
        match &error {
            bifold_fold::Error::Overflow { view, column, ty, group } => Problem::overflow(view, column, ty, group),
            bifold_fold::Error::TooManyValues { view, group, .. } => {
                Problem::limit(error.to_string()).with("view", view.as_str()).with("group", group.as_str())
            }
            _ => Problem::internal(error.to_string()),
        }
    }
}

impl From<bifold_log::Error> for Problem {
    fn from(error: bifold_log::Error) -> Self {
        match &error {
            bifold_log::Error::TooLarge { .. } => Problem::limit(error.to_string()),
            _ => Problem::unavailable(error.to_string()),
        }
    }
}
