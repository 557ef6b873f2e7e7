//! Random records: nothing panics, the verdict is the same whichever columns are built, and it is serde_json's.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int32Type;
use bifold_fold::{DeadLetter, Decoder, Reason, Source};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{Decoded, decode_as, record, source};

fn schema() -> Arc<Source> {
    source(
        "t TIMESTAMP, a BIGINT, i INT, d DECIMAL(6,2), f DOUBLE, x TEXT, b BOOLEAN, j JSON, l INT[], \
         s STRUCT<a INT, l TEXT[], s STRUCT<t TIMESTAMP>>, m STRUCT<a INT>[], WATERMARK FOR t AS t",
        ", timestamp_unit = 'ms', event_time_min = '1971-01-01T00:00:00Z', event_time_max_ahead = '100 days'",
    )
}

/// The same topics, and nothing declared that is in the records.
fn bare_schema() -> Arc<Source> {
    source("nothing TEXT", "")
}

const PIECES: [&str; 64] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    " ",
    "\"t\":",
    "\"a\":",
    "\"i\":",
    "\"d\":",
    "\"f\":",
    "\"x\":",
    "\"b\":",
    "\"j\":",
    "\"l\":",
    "\"s\":",
    "\"m\":",
    "\"z\":",
    "\"\\u0061\":",
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "1.0",
    "1.5",
    "1e3",
    "1e-3",
    "12.345",
    "1e400",
    "-",
    "2147483648",
    "9223372036854775808",
    "1234567890123456789012345678901234567890123",
    "63072000000",
    "\"\"",
    "\"x\"",
    "\"é\\n\"",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"1972-01-01T00:00:00Z\"",
    "\"1969-01-01 00:00\"",
    "\"9999-01-01T00:00:00Z\"",
    "\"soon\"",
    "[]",
    "[1,2]",
    "[null]",
    "[\"x\"]",
    "{}",
    "{\"a\":1}",
    "{\"a\":\"x\"}",
    "{\"s\":{\"t\":1}}",
    "{\"l\":[\"x\",null]}",
    "[{\"a\":1},{}]",
    "\"t\":\"1972-01-01T00:00:00Z\"",
    "{\"t\":\"1972-01-01T00:00:00Z\",\"a\":1}",
    "{\"t\":63072000000}",
    "\u{0}",
    "\u{c}",
    "\"",
    "\\",
];

/// Bytes that look like JSON: pieces of it in any order, objects of known fields, and sometimes any bytes at all.
fn jsonish() -> impl Strategy<Value = Vec<u8>> {
    let pieces =
        prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24).prop_map(|pieces| pieces.concat().into_bytes());
    let field = (8usize..21, 21usize..60).prop_map(|(key, value)| format!("{}{}", PIECES[key], PIECES[value]));
    let object = prop::collection::vec(field, 0..6).prop_map(|fields| format!("{{{}}}", fields.join(",")));
    let timed = object
        .clone()
        .prop_map(|object| object.replacen('{', "{\"t\":\"1972-01-01T00:00:00Z\",", 1).replace(",}", "}"));
    let objects = prop::collection::vec(prop_oneof![object, timed], 1..5);
    let lines = objects.clone().prop_map(|objects| objects.join("\n").into_bytes());
    let array = objects.prop_map(|objects| format!("[{}]", objects.join(",")).into_bytes());
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    prop_oneof![4 => pieces, 4 => lines.clone(), 4 => array.clone(), 1 => bytes, 2 => mutated(lines), 2 => mutated(array)]
}

/// A few bytes changed, left out, doubled or cut off.
fn mutated(bytes: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let some = b"{}[],:\"\\ \n\t0123456789.eE+-nultrefas/\x00\x0c\x7f\xc3\xa9\xff".to_vec();
    let change = (any::<prop::sample::Index>(), 0..4, prop::sample::select(some));
    (bytes, prop::collection::vec(change, 1..4)).prop_map(|(mut bytes, changes)| {
        for (place, what, byte) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = place.index(bytes.len());
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ if place.index(7) == 0 => bytes.truncate(at),
                _ => bytes[at] = byte,
            }
        }
        bytes
    })
}

fn indexes(rows: &RecordBatch) -> Vec<i32> {
    rows.column_by_name("_index").expect("it was wanted").as_primitive::<Int32Type>().values().to_vec()
}

/// Rows and dead letters are the elements of one record, each once.
fn assert_consistent(Decoded { rows, dead }: &Decoded) -> Result<(), TestCaseError> {
    let indexes = indexes(rows);
    prop_assert!(indexes.is_sorted_by(|a, b| a < b), "rows stand in their order");
    prop_assert!(dead.is_sorted_by(|a, b| a.index < b.index), "dead letters stand in their order");
    let all: BTreeSet<i32> = indexes.iter().copied().chain(dead.iter().map(|letter| letter.index)).collect();
    prop_assert_eq!(all.len(), indexes.len() + dead.len(), "no element is both");
    prop_assert!(all.iter().copied().eq(0..all.len() as i32), "every element is one");
    let whole = [Reason::TooLarge, Reason::Empty, Reason::NotUtf8];
    prop_assert!(dead.len() + indexes.len() == 1 || !dead.iter().any(|letter| whole.contains(&letter.reason)));
    Ok(())
}

/// For each element of a record whether it is an object, by serde_json; none of a record that is no JSON at all. The
/// contract's sentence, written a second time.
fn objects_by_serde(bytes: &[u8]) -> Result<Vec<bool>, Reason> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(Reason::Empty);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Reason::NotUtf8)?;
    let is_object = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
    if text.trim_ascii_start().starts_with('[') {
        let Ok(Value::Array(elements)) = serde_json::from_str(text) else { return Err(Reason::Malformed) };
        return Ok(elements.iter().map(Value::is_object).collect());
    }
    if is_object(text) {
        return Ok(vec![true]);
    }
    let lines: Vec<&str> = text.split('\n').filter(|line| !line.trim_ascii().is_empty()).collect();
    let lines: Vec<bool> = lines.into_iter().map(is_object).collect();
    if lines.len() < 2 || !lines.contains(&true) { Err(Reason::Malformed) } else { Ok(lines) }
}

/// Whether serde_json refuses a part of it for its size: numbers beyond a double, and deep nesting. Bifold does not:
/// a number may be of a DECIMAL, or of a field that nobody declared.
fn is_beyond_serde(bytes: &[u8]) -> bool {
    let refused = |bytes: &[u8]| match serde_json::from_slice::<Value>(bytes) {
        Err(e) => e.to_string().starts_with("number out of range") || e.to_string().starts_with("recursion limit"),
        Ok(_) => false,
    };
    refused(bytes) || bytes.split(|byte| *byte == b'\n').any(refused)
}

fn objects_by_bifold(bytes: &[u8], source: &Arc<Source>) -> Result<Vec<bool>, Reason> {
    let Decoded { rows, dead } = decode_as(source, record(bytes), |name| name == "_index");
    if let [DeadLetter { index: 0, reason, .. }] = dead[..]
        && rows.num_rows() == 0
        && reason < Reason::WrongType
        && !matches!(objects_by_serde(bytes), Ok(elements) if elements.len() == 1)
    {
        return Err(reason);
    }
    let mut elements = vec![true; rows.num_rows() + dead.len()];
    for letter in dead.iter().filter(|letter| letter.reason == Reason::Malformed) {
        elements[letter.index as usize] = false;
    }
    Ok(elements)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_verdict_does_not_depend_on_what_is_built(bytes in jsonish(), mask: u16) {
        let source = schema();
        let all = decode_as(&source, record(&bytes), |_| true);
        assert_consistent(&all)?;
        let names: Vec<String> = source.schema().fields().iter().map(|field| field.name().clone()).collect();
        let some = |name: &str| names.iter().position(|n| n == name).is_some_and(|i| mask & (1 << i) != 0);
        for wanted in [&some as &dyn Fn(&str) -> bool, &|_: &str| false] {
            let part = decode_as(&source, record(&bytes), wanted);
            prop_assert_eq!(&part.dead, &all.dead);
            prop_assert_eq!(part.rows.num_rows(), all.rows.num_rows());
            for (field, column) in part.rows.schema().fields().iter().zip(part.rows.columns()) {
                prop_assert_eq!(column, all.rows.column_by_name(field.name()).expect("all has every column"));
            }
        }
    }

    /// What a decoder keeps between records (the order of keys, its buffers) changes nothing.
    #[test]
    fn the_verdict_does_not_depend_on_what_came_before(records in prop::collection::vec(jsonish(), 1..6)) {
        let source = schema();
        let mut decoder = Decoder::new(Arc::clone(&source), |_| true);
        let (mut dead, mut start) = (vec![], 0);
        let mut alone = vec![];
        for bytes in &records {
            dead.clear();
            let events = decoder.push(record(bytes), &mut dead);
            let one = decode_as(&source, record(bytes), |_| true);
            prop_assert_eq!(events, one.rows.num_rows());
            prop_assert_eq!(&dead, &one.dead);
            alone.push((start, one.rows));
            start += events;
        }
        let together = decoder.finish();
        prop_assert_eq!(together.num_rows(), start);
        for (start, rows) in alone {
            prop_assert_eq!(together.slice(start, rows.num_rows()), rows);
        }
        prop_assert_eq!(decoder.finish().num_rows(), 0, "a finished decoder starts anew");
    }

    /// Whether it is JSON does not depend on the schema, and serde_json says the same.
    #[test]
    fn what_is_json_is_json_for_serde_too(bytes in jsonish()) {
        let expected = objects_by_serde(&bytes);
        prop_assert_eq!(objects_by_bifold(&bytes, &schema()), objects_by_bifold(&bytes, &bare_schema()));
        if !is_beyond_serde(&bytes) {
            prop_assert_eq!(objects_by_bifold(&bytes, &schema()), expected, "{}", String::from_utf8_lossy(&bytes));
        }
    }
}

/// Any JSON, as text.
fn any_json() -> impl Strategy<Value = Vec<u8>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[\\x00-\\x7f\u{80}-\u{fff}]{0,20}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    (value, any::<bool>()).prop_map(|(value, pretty)| match pretty {
        true => serde_json::to_vec_pretty(&value).expect("it is JSON"),
        false => serde_json::to_vec(&value).expect("it is JSON"),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_read_as_serde_reads_it(bytes in any_json()) {
        prop_assert_eq!(objects_by_bifold(&bytes, &bare_schema()), objects_by_serde(&bytes));
    }

    #[test]
    fn damaged_json_is_judged_as_serde_judges_it(bytes in mutated(any_json())) {
        if !is_beyond_serde(&bytes) {
            let (bifold, serde) = (objects_by_bifold(&bytes, &bare_schema()), objects_by_serde(&bytes));
            prop_assert_eq!(bifold, serde, "{}", String::from_utf8_lossy(&bytes));
        }
    }

    /// A JSON column holds the value that serde reads, whatever stands around it.
    #[test]
    fn a_json_column_holds_the_whole_value(value in any_json(), before in any_json()) {
        let mut bytes = b"{\"k\": ".to_vec();
        bytes.extend_from_slice(&before);
        bytes.extend_from_slice(b" , \"v\" : ");
        bytes.extend_from_slice(&value);
        bytes.extend_from_slice(b" }");
        let decoded = decode_as(&source("v JSON", ""), record(&bytes), |name| name == "v");
        prop_assert_eq!(decoded.dead, vec![]);
        let column = decoded.rows.column(0).as_string::<i32>();
        let expected: Value = serde_json::from_slice(&value).expect("it is JSON");
        if expected.is_null() {
            prop_assert_eq!(decoded.rows.column(0).null_count(), 1);
        } else {
            prop_assert_eq!(serde_json::from_str::<Value>(column.value(0)).expect("it is JSON"), expected);
        }
    }
}
