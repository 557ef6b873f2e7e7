//! `POST /v1/events/{source}`: lines become records, as they are.

use bifold_log::NewRecord;
use serde_json::Value;

/// The lines of a body as records; empty lines are skipped. With `key`, a line's key is the text of that field.
pub(crate) fn records(body: &[u8], key: Option<&str>) -> Vec<NewRecord> {
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && *line != b"\r");
    lines.map(|line| NewRecord { key: key.and_then(|key| key_of(line, key)), value: Some(line.to_vec()) }).collect()
}

/// The text of a field, if the line is an object that has it.
pub fn key_of(line: &[u8], key: &str) -> Option<Vec<u8>> {
    let value: Value = serde_json::from_slice(line).ok()?;
    match value.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into_bytes()),
        other => Some(other.to_string().into_bytes()),
    }
}
