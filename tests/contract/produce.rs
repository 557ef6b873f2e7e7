//! `bifold produce`: which files it takes, what it makes of their rows, and what it says.

use serde_json::{Value, json};

use crate::commands::LINES;
use crate::support::{COUNTS, answer, one_partition, pipeline, up, write};

#[test]
fn produce_reads_files_gz_and_standard_input() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let mut gz = flate2_of(format!("{}\n", LINES[0]).as_bytes());
    // A .gz may have several members.
    gz.extend(flate2_of(format!("{}\n", LINES[1]).as_bytes()));
    write(&case, "a.json.gz", gz);
    write(&case, "b.ndjson", format!("\n{}\n\r\n\n", LINES[2]));
    let file = case.path("b.ndjson");
    let arguments = ["produce", "e", "a.json.gz", file.to_str().expect("a path"), "-", "--url", &up.url];
    // The last line needs no newline.
    let ran = case.run_with(&arguments, &[], LINES[0].as_bytes());
    let last = ran.json().pop().expect("a line");
    assert_eq!(last["source"], "e");
    assert_eq!(last["records"], 4);
    assert_eq!(last["offsets"], format!("{}/0:4", case.topic));
    let body = answer(&up, "SELECT k, c, s FROM v ORDER BY k", "latest");
    assert_eq!(body["rows"], json!([{"k": "a", "c": 3, "s": 11}, {"k": "b", "c": 1, "s": 7}]));
    // Standard input is also the default; nothing at all is done well.
    let ran = case.run_with(&["produce", "e", "--url", &up.url], &[], b"\n\n");
    assert_eq!(ran.json().pop().expect("a line")["records"], 0);
    let ran = case.run_with(&["produce", "e", "--url", &up.url, "--output", "table"], &[], LINES[0].as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    case.run(&["produce", "e", "missing.json", "--url", &up.url]).fails(2, &["missing.json"]);
}

fn flate2_of(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
    encoder.write_all(bytes).expect("written");
    encoder.finish().expect("finished")
}

/// All types that a CSV cell and a Parquet value can become, and a view that shows them.
const TYPED: &str = "i INT, b BIGINT, x DOUBLE, m DECIMAL(12,2), s TEXT, ok BOOLEAN, l BIGINT[]";
const SHOWN: &str = "CREATE MATERIALIZED VIEW v AS SELECT s, sum(i) AS i, sum(b) AS b, sum(x) AS x, sum(m) AS m, \
                     bool_and(ok) AS ok, count(l[2]) AS l, count(*) AS n FROM e GROUP BY s;";

#[test]
fn produce_reads_csv() {
    let case = one_partition(&pipeline(TYPED, "", SHOWN));
    let up = up(&case);
    let csv = "t,i,b,x,m,s,ok,l,unknown\n\
               2026-01-01T00:00:00Z,1,9007199254740993,0.5,12345.67,\"a, \"\"b\"\"\",true,\"[1,2]\",u\n\
               2026-01-01 00:00:01,,,1e2,0.01,\"two\nlines\",false,,\n";
    write(&case, "a.csv", csv);
    let ran = case.run(&["produce", "e", "a.csv", "--url", &up.url]);
    assert_eq!(ran.json().pop().expect("a line")["records"], 2, "{}", ran.stderr);
    let rows = answer(&up, "SELECT * FROM v ORDER BY n, s", "latest")["rows"].clone();
    let first = json!({"s": "a, \"b\"", "i": 1, "b": 9_007_199_254_740_993_i64, "x": 0.5, "m": "12345.67", "ok": true, "l": 1, "n": 1});
    let second = json!({"s": "two\nlines", "i": null, "b": null, "x": 100.0, "m": "0.01", "ok": false, "l": 0, "n": 1});
    assert_eq!(rows, json!([first, second]));
    // A cell that its column does not take is a dead letter, not a lost row.
    let arguments = ["produce", "e", "--format", "tsv", "--url", &up.url];
    case.run_with(&arguments, &[], b"t\ti\n2026-01-01T00:00:00Z\tmany\n").json();
    let dead = crate::support::dead_letters(&case, &up, 1);
    assert_eq!(dead[0]["reason"], "wrong_type", "{dead:?}");
    case.run(&["produce", "e", "a.csv", "--rate", "0", "--url", &up.url]).fails(2, &["--rate"]);
}

#[test]
fn produce_takes_what_spreadsheets_write_and_says_what_no_view_counts() {
    let case = one_partition(&pipeline(TYPED, "", SHOWN));
    let up = up(&case);
    // A byte-order mark, semicolons, TRUE, leading zeros, NaN, a comma in a number, a column that nobody declared.
    let csv = "\u{feff}t;i;x;ok;s;Notes\r\n2026-01-01T00:00:00Z;007;1;TRUE;a;n\r\n2026-01-01T00:00:01Z;+3;NaN;False;b;\r\n\
               2026-01-01T00:00:02Z;4;1,5;true;c;\r\n2026-01-01T00:00:03Z;5;;False;d;\r\n";
    write(&case, "a.csv", csv);
    let ran = case.run(&["produce", "e", "a.csv", "--url", &up.url]);
    assert_eq!((ran.code, ran.json().pop().expect("a line")["records"].clone()), (Some(0), 4.into()), "{}", ran.stderr);
    for words in
        ["Notes: not columns of source e", "2 dead letters in 4 records", "2 of them are wrong_type", "line 3 of a.csv"]
    {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let rows = answer(&up, "SELECT s, i, ok FROM v ORDER BY s", "latest")["rows"].clone();
    assert_eq!(rows, json!([{"s": "a", "i": 7, "ok": true}, {"s": "d", "i": 5, "ok": false}]));
    // Another delimiter, and a header that has nothing to do with the source.
    let ran = case.run_with(
        &["produce", "e", "--format", "csv", "--delimiter", "|", "--url", &up.url],
        &[],
        b"t|i\n2026-01-01T00:00:00Z|1\n",
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stderr);
    case.run_with(&["produce", "e", "--format", "csv", "--url", &up.url], &[], b"a b c\n1 2 3\n")
        .fails(2, &["a b c", "--delimiter"]);
}

#[test]
fn produce_goes_on_at_a_line_after_a_failure_in_the_middle() {
    let case = one_partition(&pipeline(TYPED, "", SHOWN));
    let up = up(&case);
    // The last row has a field too many.
    let csv = "t,s\n2026-01-01T00:00:00Z,a\n2026-01-01T00:00:01Z,a\n2026-01-01T00:00:02Z,a,b\n";
    write(&case, "a.csv", csv);
    let arguments = ["produce", "e", "a.csv", "--rate", "10", "--url", &up.url];
    case.run(&arguments).fails(1, &["2 records were acknowledged", "go on with --from-line 4 of a.csv"]);
    write(&case, "a.csv", csv.replace("a,b", "a"));
    let ran = case.run(&[&arguments[..], &["--from-line", "4"]].concat());
    assert_eq!(ran.json().pop().expect("a line")["records"], 1, "{}", ran.stderr);
    let lines = "{\"t\":\"2026-01-01T00:00:00Z\",\"s\":\"z\"}\n\n{\"t\":\"2026-01-01T00:00:00Z\",\"s\":\"a\"}\n";
    let ran = case.run_with(&["produce", "e", "--from-line", "2", "--url", &up.url], &[], lines.as_bytes());
    assert_eq!(ran.json().pop().expect("a line")["records"], 1, "{}", ran.stderr);
    assert_eq!(answer(&up, "SELECT s, n FROM v", "latest")["rows"], json!([{"s": "a", "n": 4}]));
}

#[test]
fn produce_reads_parquet() {
    use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int32Array, StringArray, TimestampMicrosecondArray};
    let case = one_partition(&pipeline(TYPED, "", SHOWN));
    let up = up(&case);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("t", std::sync::Arc::new(TimestampMicrosecondArray::from(vec![1_767_225_600_123_456, 0]))),
        ("i", std::sync::Arc::new(Int32Array::from(vec![Some(7), None]))),
        ("x", std::sync::Arc::new(Float64Array::from(vec![0.25, -1.0]))),
        (
            "m",
            std::sync::Arc::new(
                Decimal128Array::from(vec![123, -1]).with_precision_and_scale(12, 2).expect("a decimal"),
            ),
        ),
        ("s", std::sync::Arc::new(StringArray::from(vec!["a", "a"]))),
    ];
    let batch = arrow::array::RecordBatch::try_from_iter(columns).expect("a batch");
    let mut bytes = vec![];
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).expect("a writer");
    writer.write(&batch).and_then(|()| writer.close()).expect("written");
    write(&case, "a.parquet", bytes);
    let ran = case.run(&["produce", "e", "a.parquet", "--url", &up.url]);
    assert_eq!(ran.json().pop().expect("a line")["records"], 2, "{}", ran.stderr);
    let rows = answer(&up, "SELECT s, i, x, m, n FROM v", "latest")["rows"].clone();
    assert_eq!(rows, json!([{"s": "a", "i": 7, "x": -0.75, "m": "1.22", "n": 2}]));
}

#[test]
fn produce_shifts_event_times_to_now_and_keeps_what_is_late_late() {
    let views = "CREATE MATERIALIZED VIEW v AS SELECT k, max(t) AS t, sum(n) AS n FROM e GROUP BY k;";
    let case = one_partition(&pipeline("k TEXT, n DOUBLE", ", timestamp_unit = 'ms'", views));
    let up = up(&case);
    let lines = concat!(
        r#"[{"t":"2015-09-12T00:00:10Z","k":"first","n":1.10}]"#,
        "\n",
        r#"{"k":"late","t":1442016005000,"n":2}"#,
        "\nno event\n"
    );
    let before = chrono::Utc::now();
    let arguments = ["produce", "e", "--shift-time", "now", "--rate", "1000", "--url", &up.url];
    case.run_with(&arguments, &[], lines.as_bytes()).json();
    let rows = answer(&up, "SELECT * FROM v ORDER BY k", "latest")["rows"].clone();
    let time = |row: usize| {
        let text = rows[row]["t"].as_str().expect("a time");
        chrono::DateTime::parse_from_rfc3339(text).expect("a time").with_timezone(&chrono::Utc)
    };
    assert_eq!((&rows[0]["k"], &rows[0]["n"], &rows[1]["k"]), (&json!("first"), &json!(1.1), &json!("late")));
    assert!(time(0) >= before - chrono::Duration::milliseconds(1) && time(0) <= chrono::Utc::now(), "{rows}");
    let behind = (time(0) - time(1)).num_milliseconds();
    assert!((4_000..=5_000).contains(&behind), "five seconds behind, but for the time of sending: {behind}");
    assert_eq!(crate::support::dead_letters(&case, &up, 1)[0]["reason"], "malformed");
    let plain = one_partition(
        "CREATE TABLE e (k TEXT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM e;",
    );
    plain.run_with(&["produce", "e", "--shift-time", "now"], &[], b"{}\n").fails(2, &["event time"]);
}

#[test]
fn produce_loops_until_it_is_stopped() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    write(&case, "a.ndjson", LINES.join("\n"));
    for signal in ["-INT", "-TERM"] {
        let count = |up: &crate::harness::Service| {
            up.sql("SELECT sum(c) AS n FROM v", Some("latest")).json()["rows"][0]["n"].as_i64()
        };
        let before = count(&up).unwrap_or(0);
        let mut command = case.command(&["produce", "e", "a.ndjson", "--loop", "--rate", "300", "--url", &up.url]);
        let (stdout, stderr) = (std::process::Stdio::piped(), std::process::Stdio::null());
        let looping = command.stdout(stdout).stderr(stderr).spawn().expect("it starts");
        up.wait("a second round", |up| count(up).unwrap_or(0) > before + 6);
        let stopped = std::process::Command::new("kill").args([signal, &looping.id().to_string()]).status();
        assert!(stopped.expect("kill runs").success());
        let output = looping.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{signal}");
        let last: Value = serde_json::from_slice(&output.stdout).expect("its report");
        assert!(last["records"].as_i64().is_some_and(|records| records > 6 && records % 3 == 0), "{last}");
    }
    write(&case, "empty.ndjson", "\n");
    case.run_with(&["produce", "e", "empty.ndjson", "--loop", "--url", &up.url], &[], b"").fails(2, &["no record"]);
    case.run_with(&["produce", "e", "--loop", "--url", &up.url], &[], b"").fails(2, &["--loop"]);
}
