//! Listening, and the routes that every service has.

use std::net::SocketAddr;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

use crate::{Readiness, process};

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address, or one that is taken.
    #[error("cannot listen on {address} ({key}): {why}")]
    Bind {
        /// The address.
        address: String,
        /// The configuration key that named it.
        key: &'static str,
        /// Why.
        why: String,
    },
}

/// Listens on `address`, which the configuration names in `key`. Port 0 is any free one.
///
/// # Errors
/// The address is none, or is taken.
pub async fn bind(address: &str, key: &'static str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let failed = |e: std::io::Error| {
        let why = match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                "the port is in use; stop the process that has it, or choose another with --listen".to_string()
            }
            _ => e.to_string(),
        };
        ListenError::Bind { address: address.to_string(), key, why }
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Starts to collect metrics. Once a process; later calls give handles that stay empty.
pub fn install_metrics() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::debug!("metrics are collected already");
    }
    describe_metrics();
    handle
}

/// Says of every metric what its reference says.
fn describe_metrics() {
    for row in include_str!("../../../docs/reference/metrics.md").lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, name, kind, _, what, ..] = cells[..] else { continue };
        let (name, what) = (name.trim_matches('`').to_string(), what.replace('`', ""));
        match kind {
            "counter" => metrics::describe_counter!(name, what),
            "gauge" => metrics::describe_gauge!(name, what),
            _ => metrics::describe_histogram!(name, what),
        }
    }
}

/// `/healthz`, `/readyz` and `/metrics`. `stuck` says that only a restart helps.
pub fn health_routes(readiness: Readiness, metrics: PrometheusHandle, stuck: fn() -> bool) -> Router {
    let health = move || async move {
        match stuck() {
            false => (StatusCode::OK, "ok"),
            true => (StatusCode::SERVICE_UNAVAILABLE, "queries keep all of their threads"),
        }
    };
    let ready = move || async move { ready(&readiness) };
    let text = "text/plain; version=0.0.4; charset=utf-8";
    Router::new()
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .route("/metrics", get(move || async move { ([(header::CONTENT_TYPE, text)], scrape(&metrics)) }))
}

/// Everything collected, with the process's own memory, CPU time and files as of now.
fn scrape(metrics: &PrometheusHandle) -> String {
    metrics.render() + &process::text()
}

fn ready(readiness: &Readiness) -> Response {
    let reasons = readiness.reasons();
    match reasons.is_empty() {
        true => Json(serde_json::json!({ "ready": true })).into_response(),
        false => {
            let body = Json(serde_json::json!({ "ready": false, "reasons": reasons }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}
