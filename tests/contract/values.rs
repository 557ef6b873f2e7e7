//! No value of any type changes on its way from the record through the store, HTTP, the command line, JSON and CSV.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::Case;
use crate::support::{one_partition, pipeline};

const COLUMNS: &str = "id BIGINT, i INT, n BIGINT, x DOUBLE, d DECIMAL(38,19), z DECIMAL(38,0), k TEXT, b BOOLEAN, \
    at TIMESTAMP, xs DOUBLE[], s STRUCT<x DOUBLE, k TEXT>";
const VIEWS: &str = "CREATE MATERIALIZED VIEW v AS SELECT id, max(i) AS i, max(n) AS n, max(x) AS x, max(d) AS d, max(z) AS z, \
      max(k) AS k, bool_and(b) AS b, max(at) AS at, first_value(xs ORDER BY t) AS xs, first_value(s['x'] ORDER BY t) AS sx, \
      first_value(s['k'] ORDER BY t) AS sk FROM e GROUP BY id; \
    CREATE MATERIALIZED VIEW by_double AS SELECT x, count(*) AS c, sum(n / 1000) AS s FROM e GROUP BY x;";

/// Doubles of every size: those that a reader of JSON gets wrong are among any few thousand.
fn doubles(count: usize) -> Vec<f64> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let random = std::iter::repeat_with(|| {
        // xorshift64*: https://en.wikipedia.org/wiki/Xorshift
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    });
    let extremes = [
        0.0,
        5e-324,
        f64::MIN_POSITIVE,
        f64::MAX,
        f64::MIN,
        f64::EPSILON,
        0.1,
        1e23,
        9_007_199_254_740_993.0,
        0.000_000_000_000_000_000_000_000_000_000_123_456_789_012_345_67,
        123_456_789.123_456_79,
        2.225_073_858_507_201e-308,
    ];
    // Half of any bits, half near 1: sums and prices look like these.
    let made = random.enumerate().map(|(place, bits)| match place % 2 {
        0 => f64::from_bits(bits),
        _ => (bits >> 11) as f64 / 1e6,
    });
    extremes.into_iter().chain(made.filter(|double| double.is_finite())).take(count).collect()
}

const TEXTS: [&str; 9] =
    ["", " ", "a,b", "\"quoted\"", "line\nbreak\r", "ünïcödé 🦀", "null", "NaN", "\u{1}\u{7f}\t\\"];
const TIMES: [&str; 6] = [
    "0001-01-01T00:00:00Z",
    "1677-09-21T00:12:43.145224Z",
    "1969-12-31T23:59:59.999999Z",
    "2262-04-11T23:47:16.854776Z",
    "9999-12-31T23:59:59.999999Z",
    "2024-02-29T12:00:00.5Z",
];
const DECIMALS: [&str; 4] = [
    "9999999999999999999.9999999999999999999",
    "-9999999999999999999.9999999999999999999",
    "0.0000000000000000001",
    "-1.0000000000000000000",
];
const INTEGERS: [i64; 5] = [i64::MAX, i64::MIN, 0, 9_007_199_254_740_993, -1];

/// An event, as a line, and the row that it has to be.
fn event(id: usize, x: f64) -> (String, Value) {
    let of = |place: usize, count: usize| (id + place) % count;
    let (n, k, at) = (INTEGERS[of(0, 5)], TEXTS[of(1, 9)], TIMES[of(2, 6)]);
    let (d, i) = (DECIMALS[of(3, 4)], [i32::MAX, i32::MIN, 7][of(4, 3)]);
    let z = format!("{}{}", if id.is_multiple_of(2) { "-" } else { "" }, "9".repeat(1 + id % 38));
    let line = format!(
        "{{\"t\": \"2026-01-01T00:00:00Z\", \"id\": {id}, \"i\": {i}, \"n\": {n}, \"x\": {x:?}, \"d\": {d}, \"z\": {z}, \"k\": {}, \
         \"b\": {}, \"at\": \"{at}\", \"xs\": [{x:?}, null], \"s\": {{\"x\": {x:?}, \"k\": {}}}}}",
        json!(k),
        id.is_multiple_of(3),
        json!(k),
    );
    let row = json!({
        "id": id, "i": i, "n": n, "x": x, "d": d, "z": z, "k": k, "b": id.is_multiple_of(3), "at": at.replace(".5Z", ".500Z"),
        "xs": [x, null], "sx": x, "sk": k,
    });
    (line, row)
}

/// A cell of CSV as the command line writes it.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn doubles_survive_json_and_every_other_value_its_way() {
    let case: Case = one_partition(&pipeline(COLUMNS, "", VIEWS));
    let up = case.start("up");
    let made: Vec<(String, Value)> = doubles(3_000).into_iter().enumerate().map(|(id, x)| event(id, x)).collect();
    let lines: Vec<&str> = made.iter().map(|(line, _)| line.as_str()).collect();
    let offsets = case.produce(&up, "e", &lines);
    let sql = "SELECT * FROM v ORDER BY id";
    let rows = up.rows(sql, &offsets);
    let check = |way: &str, rows: &[Value]| {
        assert_eq!(rows.len(), made.len(), "{way}");
        for (row, (line, expected)) in rows.iter().zip(&made) {
            assert_eq!(row, expected, "{way}: {line}");
        }
    };
    check("HTTP", &rows);
    let ask = |output: &str| {
        let ran = case.run(&["query", sql, "--url", &up.url, "--output", output]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout
    };
    let body: Value = serde_json::from_str(&ask("json")).expect("JSON");
    check("query --output json", body["rows"].as_array().expect("rows"));
    let text = ask("csv");
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let names = reader.headers().expect("a header").clone();
    let records: Vec<_> = reader.records().map(|record| record.expect("a record")).collect();
    assert_eq!(records.len(), made.len(), "query --output csv");
    for (record, (line, expected)) in records.iter().zip(&made) {
        let cells: BTreeMap<&str, &str> = names.iter().zip(record.iter()).collect();
        for (name, value) in expected.as_object().expect("a row") {
            assert_eq!(cells[name.as_str()], cell(value), "query --output csv: {name} of {line}");
        }
    }
    // A text without characters is not NULL.
    let empty = case.run(&["query", "SELECT '' AS a, NULL AS b FROM v LIMIT 1", "--url", &up.url, "--output", "csv"]);
    assert_eq!(empty.stdout, "a,b\n\"\",\n");
    let batch = case.run(&["batch", "run", "--at-least", &offsets]);
    assert_eq!(batch.code, Some(0), "{}", batch.stderr);
    check("HTTP, from the batch view", &up.rows(sql, &offsets));
    let verify = case.run(&["verify", "--url", &up.url]);
    assert_eq!(verify.code, Some(0), "{}\n{}", verify.stdout, verify.stderr);
}
