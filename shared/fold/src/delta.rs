//! The file of one epoch: a section of states for each version, and a footer index.
//!
//! ```text
//! "BIFOLD01" · section · section · … · index (JSON) · length of the index (u32, little endian) · "BIFOLD01"
//! ```
//!
//! A section is an Arrow IPC stream of one view version's states in the stored form. The index names each section's
//! version, place and length.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bifold_ledger::VersionId;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

const MAGIC: &[u8; 8] = b"BIFOLD01";

/// A delta that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// Not a delta, or cut short.
    #[error("not a delta, or cut short: {0}")]
    Shape(&'static str),
    /// No section of this version.
    #[error("it holds no states of version {0}")]
    Missing(VersionId),
    /// The index is no JSON.
    #[error("its index cannot be read: {0}")]
    Index(#[from] serde_json::Error),
    /// A section is no Arrow IPC.
    #[error("a section cannot be read: {0}")]
    Section(#[from] ArrowError),
}

#[derive(Serialize, Deserialize)]
struct Section {
    version: VersionId,
    start: u64,
    bytes: u64,
    rows: u64,
}

/// Writes states as an Arrow IPC stream.
///
/// # Errors
/// Arrow's failure: batches of another schema.
pub fn write_stream(schema: &SchemaRef, states: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    for batch in states {
        writer.write(batch)?;
    }
    writer.into_inner()
}

/// Reads an Arrow IPC stream.
///
/// # Errors
/// Arrow's failure: not a stream, or cut short.
pub fn read_stream(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    StreamReader::try_new(Cursor::new(bytes), None)?.collect()
}

/// Puts the states of each version into one delta.
///
/// # Errors
/// Arrow's failure: batches of another schema.
pub fn write(sections: &[(VersionId, SchemaRef, Vec<RecordBatch>)]) -> Result<Bytes, ArrowError> {
    let mut file = MAGIC.to_vec();
    let mut index = vec![];
    for (version, schema, states) in sections {
        let stream = write_stream(schema, states)?;
        let rows = states.iter().map(|batch| batch.num_rows() as u64).sum();
        index.push(Section { version: version.clone(), start: file.len() as u64, bytes: stream.len() as u64, rows });
        file.extend_from_slice(&stream);
    }
    let index = serde_json::to_vec(&index).expect("an index is JSON");
    file.extend_from_slice(&index);
    file.extend_from_slice(&(index.len() as u32).to_le_bytes());
    file.extend_from_slice(MAGIC);
    Ok(file.into())
}

/// Reads the states of one version.
///
/// # Errors
/// A file that is no delta, or holds no such version.
pub fn read(file: &[u8], version: &VersionId) -> Result<Vec<RecordBatch>, DeltaError> {
    let body = file.strip_prefix(MAGIC).and_then(|rest| rest.strip_suffix(MAGIC));
    let body = body.ok_or(DeltaError::Shape("its first or last bytes are not a delta's"))?;
    let (body, length) = body.split_last_chunk::<4>().ok_or(DeltaError::Shape("it has no index"))?;
    let start = body.len().checked_sub(u32::from_le_bytes(*length) as usize);
    let start = start.ok_or(DeltaError::Shape("its index is longer than the file"))?;
    let sections: Vec<Section> = serde_json::from_slice(&body[start..])?;
    let section = sections.iter().find(|section| section.version == *version);
    let section = section.ok_or_else(|| DeltaError::Missing(version.clone()))?;
    let range = section.start as usize..(section.start + section.bytes) as usize;
    let stream = file.get(range).ok_or(DeltaError::Shape("a section reaches beyond the file"))?;
    Ok(read_stream(stream)?)
}
