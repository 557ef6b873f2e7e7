//! `POST /v1/events/{source}`: a body becomes records.

use std::io::Read;
use std::sync::Arc;

use bifold_fold::{Decoder, Envelope, Source};
use bifold_log::NewRecord;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::problem::Problem;

/// The body as it was before it was compressed, if it is at most `most` bytes.
///
/// # Errors
/// It is not gzip, or longer.
pub(crate) fn unzipped(body: &[u8], most: usize) -> Result<Vec<u8>, Problem> {
    let mut plain = vec![];
    let read = flate2::read::MultiGzDecoder::new(body).take(most as u64 + 1).read_to_end(&mut plain);
    read.map_err(|e| Problem::bad_query(format!("the body is not gzip, though Content-Encoding says so: {e}")))?;
    match plain.len() > most {
        true => Err(Problem::body_too_large(format!(
            "the body is longer than {} MiB when it is decompressed; send it in parts",
            most >> 20
        ))),
        false => Ok(plain),
    }
}

/// The records of a body, each with the line that it begins at, from 1. Lines are records as they are; empty ones are skipped. A JSON
/// array over several lines, or one that is more than a record may be, becomes a record for each element.
pub(crate) fn records<'a>(body: &'a [u8], source: &Source) -> Vec<(usize, &'a [u8])> {
    let trimmed = body.trim_ascii();
    let is_large = || {
        let elements = source.max_elements.unwrap_or(u64::MAX);
        trimmed.len() as u64 > source.max_record
            || trimmed.iter().filter(|byte| **byte == b'{').count() as u64 > elements
    };
    if trimmed.first() == Some(&b'[')
        && (trimmed.contains(&b'\n') || is_large())
        && let Ok(elements) = serde_json::from_slice::<Vec<&RawValue>>(trimmed)
    {
        return (1..).zip(elements.into_iter().map(|element| element.get().as_bytes())).collect();
    }
    let lines = (1..).zip(body.split(|byte| *byte == b'\n'));
    lines.filter(|(_, line)| !line.is_empty() && *line != b"\r").collect()
}

/// The records that the source decodes, and what is wrong with the others.
pub(crate) fn judged<'a>(
    records: Vec<(usize, &'a [u8])>,
    source: &Arc<Source>,
) -> (Vec<(usize, &'a [u8])>, Vec<Value>) {
    let mut decoder = Decoder::new(Arc::clone(source), |_| false);
    let timestamp_ms = chrono::Utc::now().timestamp_millis();
    let (mut good, mut rejected, mut dead) = (vec![], vec![], vec![]);
    for (line, value) in records {
        dead.clear();
        if decoder.push(Envelope { topic: "", partition: 0, offset: 0, timestamp_ms, value }, &mut dead) > 0 {
            decoder.finish();
        }
        match dead.first() {
            None => good.push((line, value)),
            Some(letter) => {
                rejected.push(json!({ "line": line, "reason": letter.reason.name(), "detail": letter.detail }));
            }
        }
    }
    (good, rejected)
}

/// A record for the log. With `key`, its key is the text of that field.
pub(crate) fn record(value: &[u8], key: Option<&str>) -> NewRecord {
    NewRecord { key: key.and_then(|key| key_of(value, key)), value: Some(value.to_vec()) }
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
