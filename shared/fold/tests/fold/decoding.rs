//! From records to elements: what a record holds, what is a dead letter, and why.

use bifold_fold::decode::parse_timestamp;
use bifold_fold::{Decoder, Envelope, Reason};

use crate::support::{check, decode_as, elements, record, source, verdict};

#[test]
fn a_record_is_one_object_an_array_of_objects_or_objects_on_lines() {
    check::<str>(
        &source("a BIGINT", ""),
        &[
            (r#"{"a":1}"#, &["0: 1"]),
            (" \r\n\t{\"a\" : 1 }\n ", &["0: 1"]),
            ("{\n  \"a\":\n  1\n}\n", &["0: 1"]),
            ("{}", &["0: NULL"]),
            (r#"[{"a":1},{"a":2}]"#, &["0: 1", "1: 2"]),
            ("\n [\n {\"a\":1},\n {\"a\":2}\n ]\n", &["0: 1", "1: 2"]),
            (r#"[{"a":1}]"#, &["0: 1"]),
            ("[]", &[]),
            (" [ ] ", &[]),
            ("{\"a\":1}\n{\"a\":2}\n{\"a\":3}", &["0: 1", "1: 2", "2: 3"]),
            ("{\"a\":1}\r\n{\"a\":2}\r\n", &["0: 1", "1: 2"]),
            ("\n{\"a\":1}\n\n  \n{\"a\":2}\n\n", &["0: 1", "1: 2"]),
        ],
    );
}

#[test]
fn a_bad_element_is_dead_lettered_alone_with_its_index() {
    check::<str>(
        &source("a BIGINT", ""),
        &[
            (r#"[{"a":1},5,{"a":"x"},{"a":2}]"#, &["0: 1", "1: !malformed", "2: !wrong_type", "3: 2"]),
            (
                r#"[null,"{}",[{"a":1}],true,{"a":1}]"#,
                &["0: !malformed", "1: !malformed", "2: !malformed", "3: !malformed", "4: 1"],
            ),
            ("{\"a\":1}\nnonsense\n{\"a\":2}", &["0: 1", "1: !malformed", "2: 2"]),
            ("{\"a\":1}\n\n{\"a\":\n{\"a\":2}", &["0: 1", "1: !malformed", "2: 2"]),
            ("{\"a\":1}\n[{\"a\":9}]\n{\"a\":1.5}", &["0: 1", "1: !malformed", "2: !wrong_type"]),
            ("{\"a\":1},\n{\"a\":2}", &["0: !malformed", "1: 2"]),
            ("{\"a\":1}{\"a\":2}\n{\"a\":3}", &["0: !malformed", "1: 3"]),
            ("5\n{\"a\":1}", &["0: !malformed", "1: 1"]),
            ("{\"a\":true}\n{\"a\":false}", &["0: !wrong_type", "1: !wrong_type"]),
        ],
    );
}

#[test]
fn a_record_that_is_not_json_is_one_dead_letter() {
    let source = source("a BIGINT, j JSON", "");
    let not_objects = ["5", "\"{}\"", "null", "true", "nonsense", "1\n2", "x\ny\nz"];
    let not_json = [
        "{",
        "}",
        "[",
        "]",
        "{\"a\":1",
        "{\"a\":1}}",
        "{\"a\":1} {\"a\":2}",
        "{\"a\":1},",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\" 1}",
        "{a:1}",
        "{'a':1}",
        "{1:1}",
        "// no\n{\"a\":1",
        "\u{feff}{\"a\":1}",
        "{\"a\":1}\0",
        "[{\"a\":1},",
        "[{\"a\":1},]",
        "[{\"a\":1}] x",
        "[{\"a\":1}}",
        "[{\"a\":1} {\"a\":2}]",
        "[,]",
        "[\n{\"a\":1},\n{\"a\":2}\n",
        "[{\"a\":1}]\n{\"a\":2}",
    ];
    for text in not_objects.iter().chain(&not_json) {
        assert_eq!(elements(&source, record(text.as_bytes())), ["0: !malformed"], "{text}");
    }
    let not_values = [
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "-",
        "+1",
        "01",
        "-01",
        ".5",
        "1.",
        "1.e3",
        "1e",
        "1e+",
        "0x1",
        "1_000",
        "1,2",
        "tru",
        "TRUE",
        "nul",
        "None",
        "undefined",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\udc00\"",
        "\"\\ud800\\u0041\"",
        "\"\u{1}\"",
        "\"tab\there\"",
        "\"line\nbreak\"",
        "'a'",
        "[1,]",
        "{\"b\":}",
        "[1 2]",
        "",
        " ",
    ];
    // The verdict is the same whether the column is declared, as what, or not at all.
    for value in not_values {
        for key in ["a", "j", "unknown"] {
            let text = format!("{{\"{key}\":{value}}}");
            assert_eq!(elements(&source, record(text.as_bytes())), ["0: !malformed"], "{text}");
        }
    }
}

#[test]
fn reasons_are_given_in_their_order() {
    let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    let order =
        ["too_large", "empty", "not_utf8", "malformed", "wrong_type", "missing_event_time", "event_time_out_of_bounds"];
    assert_eq!(names, order);
    assert!(Reason::ALL.is_sorted(), "they compare in their order");

    let mut limited = (*source(
        "t TIMESTAMP, a BIGINT, WATERMARK FOR t AS t",
        ", event_time_min = '2000-01-01T00:00:00Z', event_time_max = '2001-01-01T00:00:00Z'",
    ))
    .clone();
    limited.max_record = 40;
    // Each record breaks every rule from its own reason on, as far as one record can.
    check::<[u8]>(
        &std::sync::Arc::new(limited),
        &[
            (&[b' '; 41], &["0: !too_large"]),
            (&[0xff; 41], &["0: !too_large"]),
            (b"{\"a\":\"x\",\"t\":\"1999-01-01T00:00:00Z\"          ", &["0: !too_large"]),
            (&[b' '; 40], &["0: !empty"]),
            (b"", &["0: !empty"]),
            (b" \t\r\n", &["0: !empty"]),
            (b"\x0c", &["0: !empty"]),
            (b"{\"a\":\"\xff\"", &["0: !not_utf8"]),
            (b"[{},{\"b\":\"\xc3\x28\"},{}]", &["0: !not_utf8"]),
            (b"{\"t\":\"2000-01-02T00:00:00Z\"}\n\xff", &["0: !not_utf8"]),
            (b"{\"a\":\"x\"", &["0: !malformed"]),
            (b"{\"a\":\"x\"}", &["0: !wrong_type"]),
            (b"{\"a\":\"x\",\"t\":null}", &["0: !wrong_type"]),
            (b"{\"a\":\"x\",\"t\":\"1999-01-01T00:00:00Z\"}", &["0: !wrong_type"]),
            (b"{\"t\":\"soon\"}", &["0: !wrong_type"]),
            (b"{\"t\":978307200}", &["0: !wrong_type"]),
            (b"{}", &["0: !missing_event_time"]),
            (b"{\"t\":null}", &["0: !missing_event_time"]),
            (b"{\"T\":\"2000-01-02T00:00:00Z\"}", &["0: !missing_event_time"]),
            (b"{\"t\":\"1999-01-01T00:00:00Z\"}", &["0: !event_time_out_of_bounds"]),
            (b"[{},{\"a\":[]},5]", &["0: !missing_event_time", "1: !wrong_type", "2: !malformed"]),
        ],
    );
}

#[test]
fn a_record_as_long_as_the_limit_is_not_too_large() {
    let mut limited = (*source("a TEXT", "")).clone();
    limited.max_record = 10;
    let source = std::sync::Arc::new(limited);
    assert_eq!(verdict(&source, record(br#"{"a":"xx"}"#)), "1 events");
    assert_eq!(verdict(&source, record(br#"{"a":"xxx"}"#)), "too_large: 11 bytes, the limit is 10");
}

#[test]
fn a_record_of_more_elements_than_the_limit_is_too_large() {
    let mut limited = (*source("a TEXT", "")).clone();
    limited.max_elements = Some(2);
    let limited = std::sync::Arc::new(limited);
    for (value, expected) in [
        ("[{},{}]", "2 events"),
        ("[{},{},{}]", "too_large: more than 2 elements, the limit"),
        ("[0,0,0]", "too_large: more than 2 elements, the limit"),
        ("{}\n{}", "2 events"),
        ("{}\n{}\n\n{}\n", "too_large: more than 2 elements, the limit"),
        ("{\"a\":\"[1,2,3]\"}", "1 events"),
    ] {
        assert_eq!(verdict(&limited, record(value.as_bytes())), expected, "{value}");
    }
}

#[test]
fn event_times_are_unbounded_unless_the_source_bounds_them() {
    let column = "t TIMESTAMP, WATERMARK FOR t AS t";
    let at = |text: &str| format!("{{\"t\":\"{text}\"}}");
    let judge = |options: &str, timestamp_ms: i64, time: &str| {
        let value = at(time);
        let record = Envelope { timestamp_ms, ..record(value.as_bytes()) };
        let verdict = verdict(&source(column, options), record);
        verdict.split(':').next().unwrap_or_default().to_string()
    };
    let out = "event_time_out_of_bounds";
    let min = ", event_time_min = '2000-01-01T00:00:00Z'";
    let max = ", event_time_max = '2001-01-01T01:00:00+01:00'";
    let ahead = ", event_time_max_ahead = '1 hour'";
    for (options, timestamp_ms, time, expected) in [
        ("", 0, "0000-01-01T00:00:00Z", "1 events"),
        ("", 0, "9999-12-31T23:59:59.999999Z", "1 events"),
        (min, 0, "2000-01-01T00:00:00Z", "1 events"),
        (min, 0, "1999-12-31T23:59:59.999999Z", out),
        (min, 0, "9999-01-01T00:00:00Z", "1 events"),
        (max, 0, "2001-01-01T00:00:00Z", "1 events"),
        (max, 0, "2001-01-01T00:00:00.000001Z", out),
        (max, 0, "1900-01-01T00:00:00Z", "1 events"),
        // Relative to the record's timestamp, never to the clock.
        (ahead, 0, "1970-01-01T01:00:00Z", "1 events"),
        (ahead, 0, "1970-01-01T01:00:00.000001Z", out),
        (ahead, 1_500, "1970-01-01T01:00:01.5Z", "1 events"),
        (ahead, 1_500, "1970-01-01T01:00:01.500001Z", out),
        (ahead, 0, "1900-01-01T00:00:00Z", "1 events"),
        // A record without a timestamp bounds nothing.
        (ahead, -1, "9999-01-01T00:00:00Z", "1 events"),
        (ahead, i64::MAX, "9999-01-01T00:00:00Z", "1 events"),
    ] {
        assert_eq!(judge(options, timestamp_ms, time), expected, "{options} {timestamp_ms} {time}");
    }
}

#[test]
fn details_say_what_is_wrong_and_where() {
    let source = source(
        "t TIMESTAMP, n BIGINT, i INT, d DECIMAL(4,2), f DOUBLE, b BOOLEAN, x TEXT, l INT[], s STRUCT<a STRUCT<b INT>>, \
         WATERMARK FOR t AS t",
        ", event_time_min = '2000-01-01T00:00:00Z'",
    );
    for (value, expected) in [
        ("   ", "empty: 3 bytes, no content"),
        ("{\"n\":1", "malformed: EOF while parsing an object at line 1 column 6"),
        ("5", "malformed: not an object: it begins like a number"),
        ("x", "malformed: not an object: it begins like no JSON"),
        ("{\"n\":\"1x\"}", "wrong_type: column \"n\" is BIGINT: the string \"1x\" is not a number"),
        ("{\"n\":{}}", "wrong_type: column \"n\" is BIGINT: it is an object"),
        ("{\"n\":1.5}", "wrong_type: column \"n\" is BIGINT: 1.5 is no whole number of 64 bits"),
        ("{\"i\":3000000000}", "wrong_type: column \"i\" is INT: 3000000000 is no whole number of 32 bits"),
        (
            "{\"d\":1.234}",
            "wrong_type: column \"d\" is DECIMAL(4,2): 1.234 has too many digits before or behind the point",
        ),
        ("{\"f\":1e999}", "wrong_type: column \"f\" is DOUBLE: 1e999 is out of range"),
        ("{\"b\":0}", "wrong_type: column \"b\" is BOOLEAN: it is a number"),
        ("{\"x\":true}", "wrong_type: column \"x\" is TEXT: it is a boolean"),
        ("{\"t\":\"soon\"}", "wrong_type: column \"t\" is TIMESTAMP: \"soon\" is no timestamp"),
        (
            "{\"t\":0}",
            "wrong_type: column \"t\" is TIMESTAMP: 0 is a number, and the source has no timestamp_unit; 'auto' goes by the number's size",
        ),
        (
            "{\"l\":[1,null,\"x\"]}",
            "wrong_type: column \"l\" is INT[]: item 2 is INT: the string \"x\" is not a number",
        ),
        ("{\"l\":1}", "wrong_type: column \"l\" is INT[]: it is a number"),
        (
            "{\"s\":{\"a\":{\"b\":[]}}}",
            "wrong_type: column \"s\" is STRUCT<\"a\" STRUCT<\"b\" INT>>: field \"a\" is STRUCT<\"b\" INT>: \
             field \"b\" is INT: it is an array",
        ),
        ("{}", "missing_event_time: column \"t\" is absent or null"),
        ("{\"t\":\"1999-01-01T00:00:00Z\"}", "event_time_out_of_bounds: column \"t\" is before event_time_min"),
    ] {
        assert_eq!(verdict(&source, record(value.as_bytes())), expected, "{value}");
    }
    // A long value is not repeated whole, and an element of several is placed within itself.
    let long = format!("{{\"t\":\"{}\"}}", "é".repeat(100_000));
    assert!(verdict(&source, record(long.as_bytes())).len() < 250);
    let lines = "{\"t\":\"2000-01-01T00:00:00Z\"}\n{\"n\":x}\n";
    assert_eq!(verdict(&source, record(lines.as_bytes())), "malformed: expected value at column 6");
}

#[test]
fn names_are_case_sensitive_and_unknown_fields_are_ignored() {
    check::<str>(
        &source("a BIGINT, \"A\" BIGINT, \"größe\" BIGINT, \"a b\" BIGINT, \"\"\"\" BIGINT, camelCase BIGINT", ""),
        &[
            (r#"{"A":1,"a":2}"#, &["0: 2, 1, NULL, NULL, NULL, NULL"]),
            (r#"{"camelCase":1}"#, &["0: NULL, NULL, NULL, NULL, NULL, NULL"]),
            (r#"{"camelcase":1}"#, &["0: NULL, NULL, NULL, NULL, NULL, 1"]),
            (r#"{"größe":1,"GRÖSSE":2,"a b":3}"#, &["0: NULL, NULL, 1, 3, NULL, NULL"]),
            // A name is what it decodes to, however it is escaped.
            (r#"{"\u0061":1,"gr\u00f6\u00dfe":2,"\"":3}"#, &["0: 1, NULL, 2, NULL, 3, NULL"]),
            (r#"{"":1," a":2,"a ":3,"_offset":4,"_topic":{}}"#, &["0: NULL, NULL, NULL, NULL, NULL, NULL"]),
            (r#"{"x":{"a":[{"a":"\ud83d\ude00"},1e999,null]},"a":1}"#, &["0: 1, NULL, NULL, NULL, NULL, NULL"]),
        ],
    );
}

#[test]
fn of_duplicate_keys_the_last_wins() {
    check::<str>(
        &source("a BIGINT, s STRUCT<x INT, y TEXT>, l INT[]", ""),
        &[
            (r#"{"a":1,"a":2}"#, &["0: 2, NULL, NULL"]),
            (r#"{"a":"wrong","a":2}"#, &["0: 2, NULL, NULL"]),
            (r#"{"a":2,"a":"wrong"}"#, &["0: !wrong_type"]),
            (r#"{"a":1,"a":null}"#, &["0: NULL, NULL, NULL"]),
            (r#"{"a":1,"b":0,"\u0061":3}"#, &["0: 3, NULL, NULL"]),
            (r#"{"s":{"x":1,"x":2,"y":"a","y":"b"}}"#, &["0: NULL, {x: 2, y: b}, NULL"]),
            (r#"{"s":{"x":1},"s":{"y":"b"}}"#, &["0: NULL, {x: NULL, y: b}, NULL"]),
            (r#"{"l":[1,2],"l":[]}"#, &["0: NULL, NULL, []"]),
        ],
    );
    // Also of the event time, and in that order: a null that wins is a missing one.
    let timed = source("t TIMESTAMP, WATERMARK FOR t AS t", "");
    check::<str>(
        &timed,
        &[
            (r#"{"t":null,"t":"2000-01-01T00:00:00Z"}"#, &["0: 2000-01-01T00:00:00"]),
            (r#"{"t":"2000-01-01T00:00:00Z","t":null}"#, &["0: !missing_event_time"]),
            (r#"{"t":"soon","t":"2000-01-01T00:00:00Z"}"#, &["0: 2000-01-01T00:00:00"]),
        ],
    );
}

#[test]
fn an_event_knows_where_it_stands_in_the_log() {
    let source = source("a BIGINT", "");
    let mut decoder = Decoder::new(source, |_| true);
    let mut dead = vec![];
    let first =
        Envelope { topic: "t", partition: 2, offset: 40, timestamp_ms: 1_500, value: b"[{\"a\":1},0,{\"a\":2}]" };
    assert_eq!(decoder.push(first, &mut dead), 2);
    // -1 is Kafka's "no timestamp".
    let second = Envelope { offset: i64::MAX, timestamp_ms: -1, value: b"{}", ..first };
    assert_eq!(decoder.push(second, &mut dead), 1);
    let rows = decoder.finish();
    let names: Vec<String> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a", "_topic", "_partition", "_offset", "_index", "_timestamp"]);
    let shown: Vec<String> = (0..3)
        .map(|row| {
            let value = |column: &arrow::array::ArrayRef| {
                let options = arrow::util::display::FormatOptions::default().with_null("NULL");
                let formatter =
                    arrow::util::display::ArrayFormatter::try_new(column, &options).expect("it can be shown");
                formatter.value(row).to_string()
            };
            rows.columns().iter().map(value).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        shown,
        [
            "1 t 2 40 0 1970-01-01T00:00:01.500",
            "2 t 2 40 2 1970-01-01T00:00:01.500",
            "NULL t 2 9223372036854775807 0 NULL",
        ]
    );
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].index, dead[0].reason), (1, Reason::Malformed));
}

#[test]
fn the_newest_event_time_is_that_of_events_alone() {
    let source = source("t TIMESTAMP, a BIGINT, WATERMARK FOR t AS t", ", event_time_max = '2020-01-01T00:00:00Z'");
    let mut decoder = Decoder::new(source, |_| false);
    assert_eq!(decoder.take_newest(), None);
    let mut dead = vec![];
    let lines = b"{\"t\":\"2000-01-01T00:00:00Z\"}
{\"t\":\"1999-01-01T00:00:00Z\"}
{\"t\":\"2010-01-01T00:00:00Z\",\"a\":\"x\"}
{\"t\":\"2021-01-01T00:00:00Z\"}";
    assert_eq!(decoder.push(record(lines), &mut dead), 2);
    assert_eq!(decoder.take_newest(), parse_timestamp("2000-01-01T00:00:00Z"));
    assert_eq!(decoder.take_newest(), None);
}

#[test]
fn a_source_without_an_event_time_misses_none() {
    check::<str>(&source("t TIMESTAMP", ""), &[("{}", &["0: NULL"]), ("{\"t\":null}", &["0: NULL"])]);
}

#[test]
fn an_empty_value_is_a_dead_letter_and_no_tombstone() {
    // A tombstone is a record without a value: there is none to give the decoder. One of no bytes is.
    assert_eq!(elements(&source("a BIGINT", ""), record(b"")), ["0: !empty"]);
}

#[test]
fn nesting_and_digits_have_a_limit_far_beyond_use() {
    // Where bifold and other readers of JSON differ; serde_json stops at 127 levels and at numbers beyond a double.
    let source = source("j JSON", "");
    let nested = |levels: usize| format!("{{\"j\":{}1{}}}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(verdict(&source, record(nested(200).as_bytes())), "1 events");
    assert!(verdict(&source, record(nested(201).as_bytes())).starts_with("malformed: recursion limit exceeded"));
    assert!(verdict(&source, record(nested(400_000).as_bytes())).starts_with("malformed"));
    let digits = |digits: usize| format!("{{\"x\":{}}}", "1".repeat(digits));
    assert_eq!(verdict(&source, record(digits(4_299).as_bytes())), "1 events");
    assert!(verdict(&source, record(digits(5_000).as_bytes())).starts_with("malformed: number out of range"));
}

#[test]
fn a_big_record_of_many_elements_decodes() {
    let source = source("a BIGINT", "");
    let many = format!("[{}]", vec!["{\"a\":1},0"; 50_000].join(","));
    let decoded = decode_as(&source, record(many.as_bytes()), |_| true);
    assert_eq!((decoded.rows.num_rows(), decoded.dead.len()), (50_000, 50_000));
}
