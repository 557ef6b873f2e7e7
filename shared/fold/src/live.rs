//! What is newer than the ledger, between speed and serving: the request, the answer and its bytes.
//!
//! The bytes of an answer are a JSON header, then the slices that the reader has not, as Arrow IPC streams:
//!
//! ```text
//! length of the header (u32, little endian) · header (JSON) · stream · stream · …
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bifold_ledger::{Number, Ranges, Seen, VersionId};
use serde::{Deserialize, Serialize};

use crate::delta::{read_stream, write_stream};

/// The header of a live answer that tells the CRC-32 of its body, in eight hexadecimal digits.
pub const CHECKSUM: &str = "bifold-crc32";

/// Names a slice for ever: the process's nonce, the fold's number in it, the slice's number in that.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SliceId(pub String, pub u64, pub u64);

/// What a reader asks for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct LiveRequest {
    /// The versions.
    pub versions: Vec<VersionId>,
    /// The ledger number that the reader stands at.
    pub after: Number,
    /// The slices that it has.
    pub have: BTreeSet<SliceId>,
}

/// What a reader gets.
#[derive(Clone, Debug, Default)]
pub struct LiveAnswer {
    /// The ledger number that the instance stands at.
    pub ledger: Number,
    /// Units after the reader's number, in order.
    pub units: Vec<UnitAnswer>,
}

/// A slice of an answer: its states are left out where the reader has them.
pub type GivenSlice = (SliceId, Option<Arc<Vec<RecordBatch>>>);

/// One unit of an answer.
#[derive(Clone, Debug)]
pub struct UnitAnswer {
    /// The positions it holds.
    pub ranges: Ranges,
    /// The ledger number it was folded under.
    pub folded_under: Number,
    /// The newest event time in it.
    pub newest_event_us: Option<i64>,
    /// The `lost` entries whose positions it passes over.
    pub holes: Vec<Number>,
    /// What it covers beside events. None from an instance that does not count it.
    pub seen: Option<Seen>,
    /// For each version exactly the slices that make it up, with their states where the reader has them not.
    pub slices: BTreeMap<VersionId, Vec<GivenSlice>>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    ledger: Number,
    units: Vec<UnitHeader>,
}

#[derive(Serialize, Deserialize)]
struct UnitHeader {
    ranges: Ranges,
    folded_under: Number,
    #[serde(default)]
    newest_event_us: Option<i64>,
    #[serde(default)]
    holes: Vec<Number>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Seen>,
    /// For each slice the length of its stream, if it follows.
    slices: BTreeMap<VersionId, Vec<(SliceId, Option<usize>)>>,
}

/// An answer that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the answer of a speed instance cannot be read: {0}")]
pub struct Unreadable(String);

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
        let (ranges, holes) = (unit.ranges.clone(), unit.holes.clone());
        let (folded_under, newest_event_us, seen) = (unit.folded_under, unit.newest_event_us, unit.seen.clone());
        units.push(UnitHeader { ranges, folded_under, newest_event_us, holes, seen, slices });
    }
    let header = Header { ledger: answer.ledger, units };
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
        let UnitHeader { ranges, folded_under, newest_event_us, holes, seen, .. } = unit;
        units.push(UnitAnswer { ranges, folded_under, newest_event_us, holes, seen, slices });
    }
    Ok(LiveAnswer { ledger: header.ledger, units })
}
