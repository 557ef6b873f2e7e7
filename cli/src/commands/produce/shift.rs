//! Replaying events as if they were happening now.

use std::collections::BTreeMap;

use bifold_fold::Source;
use bifold_fold::decode::parse_timestamp;
use bifold_fold::schema::TimestampUnit;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::value::RawValue;

/// Moves event times so that the newest event so far is now, and every other as late as it was behind the newest.
pub(super) struct Shift {
    column: String,
    /// What times that are numbers count. None: numbers are not times.
    unit: Option<TimestampUnit>,
    newest_us: Option<i64>,
}

impl Shift {
    /// None if the source has no event time.
    pub(super) fn new(source: &Source) -> Option<Self> {
        Some(Self { column: source.event_time.clone()?, unit: source.timestamp_unit, newest_us: None })
    }

    /// The record with its event times moved. What is no event of the source is left as it is.
    pub(super) fn apply(&mut self, record: Vec<u8>, now: DateTime<Utc>) -> Vec<u8> {
        let Ok(text) = std::str::from_utf8(&record) else { return record };
        self.value(text, now).map_or(record, String::into_bytes)
    }

    fn value(&mut self, text: &str, now: DateTime<Utc>) -> Option<String> {
        if text.trim_start().starts_with('[') {
            let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
            let moved = elements.into_iter().map(|e| self.value(e.get(), now).unwrap_or_else(|| e.get().to_string()));
            return Some(format!("[{}]", moved.collect::<Vec<_>>().join(",")));
        }
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        let raw = fields.get(&self.column)?.get();
        let at = match serde_json::from_str::<String>(raw) {
            Ok(text) => parse_timestamp(&text)?,
            Err(_) => self.unit?.micros(raw.parse().ok()?) as i64,
        };
        let newest = self.newest_us.map_or(at, |newest| newest.max(at));
        self.newest_us = Some(newest);
        let moved = DateTime::from_timestamp_micros(now.timestamp_micros() - (newest - at))?;
        let moved = format!("\"{}\"", moved.to_rfc3339_opts(SecondsFormat::Micros, true));
        let fields = fields.iter().map(|(name, value)| {
            let value = if *name == self.column { &moved } else { value.get() };
            format!("{}:{value}", serde_json::Value::from(name.as_str()))
        });
        Some(format!("{{{}}}", fields.collect::<Vec<_>>().join(",")))
    }
}
