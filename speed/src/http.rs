//! `live` over HTTP, between speed and serving: `POST /live/{source}` with a JSON request; the answer's bytes are those of
//! [`bifold_fold::live`].

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bifold_fold::live::{CHECKSUM, LiveRequest, encode};

use crate::live::Live;

/// The routes of the speed layer, by source.
pub fn routes(sources: BTreeMap<String, Live>) -> Router {
    Router::new().route("/live/{source}", post(live)).with_state(Arc::new(sources))
}

async fn live(
    State(sources): State<Arc<BTreeMap<String, Live>>>,
    Path(source): Path<String>,
    Json(request): Json<LiveRequest>,
) -> Response {
    let Some(live) = sources.get(&source) else {
        return (StatusCode::NOT_FOUND, format!("no source {source}")).into_response();
    };
    match encode(&live.answer(&request)) {
        Ok(body) => ([(CHECKSUM, format!("{:08x}", crc32fast::hash(&body)))], body).into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}
