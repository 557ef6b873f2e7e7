//! `live` over HTTP, between speed and serving: `POST /live/{source}` with a JSON request; the answer is a JSON header,
//! then the slices that the reader has not, as Arrow IPC streams.
//!
//! ```text
//! length of the header (u32, little endian) · header (JSON) · stream · stream · …
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use bifold_fold::delta::{read_stream, write_stream};
use bifold_ledger::{Number, Ranges, VersionId};
use serde::{Deserialize, Serialize};

use crate::live::{Live, LiveAnswer, LiveRequest, SliceId, UnitAnswer};

#[derive(Serialize, Deserialize)]
struct Header {
    ledger: Number,
    newest_event_us: Option<i64>,
    units: Vec<UnitHeader>,
}

#[derive(Serialize, Deserialize)]
struct UnitHeader {
    ranges: Ranges,
    folded_under: Number,
    /// For each slice the length of its stream, if it follows.
    slices: BTreeMap<VersionId, Vec<(SliceId, Option<usize>)>>,
}

/// An answer that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the answer of a speed instance cannot be read: {0}")]
pub struct Unreadable(String);

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
        Ok(body) => body.into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

/// An answer as bytes.
///
/// # Errors
/// Arrow's failure.
pub fn encode(answer: &LiveAnswer) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut streams = vec![];
    let mut units = vec![];
    for unit in &answer.units {
        let mut slices = BTreeMap::new();
        for (version, given) in &unit.slices {
            let mut listed = vec![];
            for (id, rows) in given {
                let length = match rows {
                    Some(rows) if !rows.is_empty() => {
                        let schema: SchemaRef = rows[0].schema();
                        let stream = write_stream(&schema, rows)?;
                        streams.extend_from_slice(&stream);
                        Some(stream.len())
                    }
                    Some(_) => Some(0),
                    None => None,
                };
                listed.push((id.clone(), length));
            }
            slices.insert(version.clone(), listed);
        }
        units.push(UnitHeader { ranges: unit.ranges.clone(), folded_under: unit.folded_under, slices });
    }
    let header = Header { ledger: answer.ledger, newest_event_us: answer.newest_event_us, units };
    let header = serde_json::to_vec(&header).expect("a header is JSON");
    let mut body = (header.len() as u32).to_le_bytes().to_vec();
    body.extend_from_slice(&header);
    body.extend_from_slice(&streams);
    Ok(body)
}

/// An answer from bytes.
///
/// # Errors
/// Bytes that are none.
pub fn decode(body: &[u8]) -> Result<LiveAnswer, Unreadable> {
    let short = || Unreadable("it is cut short".to_string());
    let (length, rest) = body.split_first_chunk::<4>().ok_or_else(short)?;
    let (header, mut rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(short)?;
    let header: Header = serde_json::from_slice(header).map_err(|e| Unreadable(e.to_string()))?;
    let mut units = vec![];
    for unit in header.units {
        let mut slices = BTreeMap::new();
        for (version, listed) in unit.slices {
            let mut given = vec![];
            for (id, length) in listed {
                let rows = match length {
                    None => None,
                    Some(0) => Some(Arc::new(vec![])),
                    Some(length) => {
                        let (stream, after) = rest.split_at_checked(length).ok_or_else(short)?;
                        rest = after;
                        Some(Arc::new(read_stream(stream).map_err(|e| Unreadable(e.to_string()))?))
                    }
                };
                given.push((id, rows));
            }
            slices.insert(version, given);
        }
        units.push(UnitAnswer { ranges: unit.ranges, folded_under: unit.folded_under, slices });
    }
    Ok(LiveAnswer { ledger: header.ledger, newest_event_us: header.newest_event_us, units })
}
