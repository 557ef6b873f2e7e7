//! What records become: events, or dead letters with the reason; the stream goes on.

use serde_json::{Value, json};

use crate::harness::Service;
use crate::support::{answer, ask, dead_letters, metric, one_partition, pipeline, problem, up};

const TYPES: &str = "b BOOLEAN, i INT, g BIGINT, x DOUBLE, d DECIMAL(10,2), s TEXT, at TIMESTAMP, j JSON, \
    l BIGINT[], r STRUCT<a BIGINT, z TEXT>";
const COUNT: &str = "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM e;";

fn base64_of(text: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Posts lines, one request, and gives the offsets.
fn post(service: &Service, lines: &[&[u8]]) -> String {
    let reply = service.post("/v1/events/e", lines.join(&b'\n'));
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    assert_eq!(body["accepted"], lines.len(), "{body}");
    body["offsets"].as_str().expect("offsets").to_string()
}

#[test]
fn every_reason_with_its_place_and_bytes() {
    let with = ", event_time_min = '2000-01-01T00:00:00Z', event_time_max = '2100-01-01T00:00:00Z', \
                event_time_max_ahead = '36500 days'";
    let case = one_partition(&pipeline("n BIGINT", with, COUNT));
    let up = crate::support::up_with(&case, &[("BIFOLD_COLLECT__MAX_RECORD", "200B")]);
    let good = br#"{"t":"2026-01-01T00:00:00Z","n":1}"#.as_slice();
    let long = format!(r#"{{"t":"2026-01-01T00:00:00Z","n":1,"pad":"{}"}}"#, "x".repeat(200));
    let not_utf8 = [b"{\"t\":\"".as_slice(), &[0xff, 0xfe], b"\"}"].concat();
    let bad: [(&[u8], &str); 11] = [
        (long.as_bytes(), "too_large"),
        (b"   ", "empty"),
        (&not_utf8, "not_utf8"),
        (b"{\"t\":", "malformed"),
        (b"17", "malformed"),
        (br#"{"t":"2026-01-01T00:00:00Z","n":"one"}"#, "wrong_type"),
        (br#"{"t":"yesterday","n":1}"#, "wrong_type"),
        (br#"{"t":1767225600,"n":1}"#, "wrong_type"),
        (br#"{"n":1}"#, "missing_event_time"),
        (br#"{"t":null,"n":1}"#, "missing_event_time"),
        (br#"{"t":"1999-12-31T23:59:59Z","n":1}"#, "event_time_out_of_bounds"),
    ];
    let mut lines = vec![];
    for (line, _) in bad {
        lines.push(good);
        lines.push(line);
    }
    let offsets = post(&up, &lines);
    let counted = answer(&up, "SELECT * FROM v", &offsets);
    assert_eq!(counted["rows"], json!([{"c": bad.len()}]), "the good neighbours count");
    let letters = dead_letters(&case, &up, bad.len());
    for (i, (letter, (bytes, reason))) in letters.iter().zip(bad).enumerate() {
        assert_eq!(letter["reason"], reason, "{letter}");
        assert_eq!((&letter["topic"], &letter["partition"]), (&json!(case.topic), &json!(0)), "{letter}");
        assert_eq!((&letter["offset"], &letter["index"]), (&json!(2 * i + 1), &json!(0)), "{letter}");
        assert_eq!(letter["payload_base64"], base64_of(bytes), "{letter}");
        assert!(letter["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{letter}");
        assert!(letter["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{letter}");
    }
    // Each once, by reason.
    let mut by_reason = std::collections::BTreeMap::new();
    bad.iter().for_each(|(_, reason)| *by_reason.entry(*reason).or_insert(0.0) += 1.0);
    up.wait("the counts of dead letters", |up| metric(up, "bifold_dead_letters_total", &[("source", "e")]) >= 11.0);
    for (reason, count) in by_reason {
        let labels = [("source", "e"), ("reason", reason)];
        assert_eq!(metric(&up, "bifold_dead_letters_total", &labels), count, "{reason}");
    }
    let sources = up.get("/v1/sources").json();
    assert_eq!(sources["sources"][0]["partitions"][0]["dead_letters"], 11, "{sources}");
    assert_eq!(ask(&case, &up, &["verify"]).json()[0]["equal"], true);
}

#[test]
fn the_first_reason_that_applies() {
    let with = ", event_time_min = '2000-01-01T00:00:00Z'";
    let case = one_partition(&pipeline("n BIGINT", with, COUNT));
    let up = crate::support::up_with(&case, &[("BIFOLD_COLLECT__MAX_RECORD", "100B")]);
    let spaces = " ".repeat(150);
    let lines: [&[u8]; 4] =
        [spaces.as_bytes(), &[0xff, b'{'], br#"{"n":"x"}"#, br#"{"t":"1990-01-01T00:00:00Z","n":1.5}"#];
    post(&up, &lines);
    let reasons: Vec<Value> = dead_letters(&case, &up, 4).iter().map(|letter| letter["reason"].clone()).collect();
    assert_eq!(reasons, ["too_large", "not_utf8", "wrong_type", "wrong_type"]);
}

#[test]
fn the_bounds_of_event_times() {
    let with = ", event_time_min = '2000-01-01T00:00:00Z', event_time_max = '2100-01-01T00:00:00Z'";
    let case = one_partition(&pipeline("n BIGINT", with, COUNT));
    let up_ = up(&case);
    let lines: [&[u8]; 4] = [
        br#"{"t":"2000-01-01T00:00:00Z"}"#,
        br#"{"t":"1999-12-31T23:59:59.999999Z"}"#,
        br#"{"t":"2099-12-31T23:59:59Z"}"#,
        br#"{"t":"2100-01-01T00:00:00.000001Z"}"#,
    ];
    let offsets = post(&up_, &lines);
    assert_eq!(answer(&up_, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 2}]));
    let letters = dead_letters(&case, &up_, 2);
    assert_eq!((&letters[0]["offset"], &letters[1]["offset"]), (&json!(1), &json!(3)));
    drop(up_);

    let case = one_partition(&pipeline("n BIGINT", ", event_time_max_ahead = '1 hour'", COUNT));
    let up = up(&case);
    let now = chrono::Utc::now();
    let at = |minutes: i64| json!({"t": (now + chrono::Duration::minutes(minutes)).to_rfc3339()}).to_string();
    let offsets = post(&up, &[at(30).as_bytes(), at(90).as_bytes(), at(-90_000_000).as_bytes()]);
    assert_eq!(answer(&up, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 2}]));
    assert_eq!(dead_letters(&case, &up, 1)[0]["reason"], "event_time_out_of_bounds");
}

#[test]
fn event_times_are_unbounded_otherwise() {
    let case = one_partition(&pipeline("n BIGINT", "", COUNT));
    let up = up(&case);
    let lines: [&[u8]; 3] = [
        br#"{"t":"0001-01-01T00:00:00Z"}"#,
        br#"{"t":"9999-12-31T23:59:59.999999Z"}"#,
        br#"{"t":"1969-07-20T20:17:40"}"#,
    ];
    let offsets = post(&up, &lines);
    let body = answer(&up, "SELECT c FROM v", &offsets);
    assert_eq!(body["rows"], json!([{"c": 3}]));
    assert_eq!(body["coverage"][0]["watermark"], "9999-12-31T23:59:59.999999Z");
}

#[test]
fn arrays_and_lines_in_one_record_are_several_events() {
    let case = one_partition(&pipeline(
        "n BIGINT",
        "",
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c, sum(n) AS s FROM e;",
    ));
    let up = up(&case);
    let array = br#"[{"t":"2026-01-01T00:00:00Z","n":1},{"t":"2026-01-01T00:00:00Z","n":"x"},17,{"t":"2026-01-01T00:00:00Z","n":4}]"#;
    let offsets = post(&up, &[array.as_slice(), b"[]"]);
    let body = answer(&up, "SELECT c, s FROM v", &offsets);
    assert_eq!(body["rows"], json!([{"c": 2, "s": 5}]), "{body}");
    let letters = dead_letters(&case, &up, 2);
    let places: Vec<_> =
        letters.iter().map(|l| (l["offset"].clone(), l["index"].clone(), l["reason"].clone())).collect();
    assert_eq!(
        places,
        [(json!(0), json!(1), json!("wrong_type")), (json!(0), json!(2), json!("malformed"))],
        "{letters:#?}"
    );
    for letter in &letters {
        assert_eq!(letter["payload_base64"], base64_of(array), "the whole record");
    }
    if case.is_kafka() {
        let lines = b"{\"t\":\"2026-01-01T00:00:00Z\",\"n\":10}\n\n{\"t\":\"2026-01-01T00:00:00Z\",\"n\":20}\nnope\n";
        let offsets = case.produce_to(&case.topic, [(None, Some(lines.to_vec()))]);
        assert_eq!(answer(&up, "SELECT c, s FROM v", &offsets)["rows"], json!([{"c": 4, "s": 35}]));
        let letters = dead_letters(&case, &up, 3);
        assert_eq!((&letters[2]["index"], &letters[2]["reason"]), (&json!(2), &json!("malformed")), "{letters:#?}");
    }
    // All events of one offset are covered together, by the batch view too.
    ask(&case, &up, &["batch", "run", "--at-least", "latest"]).json();
    assert_eq!(ask(&case, &up, &["verify"]).json()[0]["equal"], true);
}

#[test]
fn tombstones_are_no_events() {
    let case = one_partition(&pipeline("n BIGINT", "", COUNT));
    if !case.is_kafka() {
        return;
    }
    let up = up(&case);
    let good = Some(br#"{"t":"2026-01-01T00:00:00Z","n":1}"#.to_vec());
    let offsets = case.produce_to(&case.topic, [(None, good.clone()), (Some(b"k".to_vec()), None), (None, good)]);
    assert_eq!(answer(&up, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 2}]));
    up.wait("the tombstone's count", |up| metric(up, "bifold_absent_total", &[("source", "e")]) == 1.0);
    assert_eq!(metric(&up, "bifold_dead_letters_total", &[]), 0.0);
    // No value is a tombstone; a value without bytes is a dead letter.
    case.produce_to(&case.topic, [(None, Some(vec![]))]);
    assert_eq!(dead_letters(&case, &up, 1)[0]["reason"], "empty");
    let report = ask(&case, &up, &["batch", "run", "--at-least", "latest"]).json();
    assert_eq!(report[0]["boundary"], format!("{}/0:4", case.topic));
    assert_eq!(ask(&case, &up, &["verify"]).json()[0]["equal"], true);
}

#[test]
fn columns_take_what_their_types_say() {
    let views = "CREATE MATERIALIZED VIEW v AS SELECT n, max(b) AS b, max(i) AS i, max(g) AS g, max(x) AS x, \
        max(d) AS d, max(s) AS s, max(at) AS at, max(j) AS j FROM e GROUP BY n;";
    let case = one_partition(&pipeline(&format!("n BIGINT, {TYPES}"), "", views));
    let up = up(&case);
    let line = |n: usize, field: &str| format!(r#"{{"t":"2026-01-01T00:00:00Z","n":{n},{field}}}"#);
    let good: Vec<(&str, &str, Value)> = vec![
        (r#""b":true"#, "b", json!(true)),
        (r#""i":-2147483648"#, "i", json!(-2_147_483_648_i64)),
        (r#""i":1.0"#, "i", json!(1)),
        (r#""i":1e3"#, "i", json!(1000)),
        (r#""g":9223372036854775807"#, "g", json!(i64::MAX)),
        (r#""g":9007199254740993"#, "g", json!(9_007_199_254_740_993_i64)),
        (r#""x":1"#, "x", json!(1.0)),
        (r#""x":-2.5e-3"#, "x", json!(-0.0025)),
        (r#""d":12.34"#, "d", json!("12.34")),
        (r#""d":12.3400"#, "d", json!("12.34")),
        (r#""d":0.1"#, "d", json!("0.10")),
        (r#""d":99999999.99"#, "d", json!("99999999.99")),
        (r#""d":1.5e3"#, "d", json!("1500.00")),
        (r#""s":"naïve \u00e9""#, "s", json!("naïve é")),
        (r#""at":"2026-01-01 01:02:03""#, "at", json!("2026-01-01T01:02:03Z")),
        (r#""at":"2026-01-01T01:02:03.5+02:00""#, "at", json!("2025-12-31T23:02:03.500Z")),
        (r#""at":"2026-01-01T01:02:03.1234567Z""#, "at", json!("2026-01-01T01:02:03.123456Z")),
        (r#""at":"1969-12-31T23:59:59.9999999Z""#, "at", json!("1969-12-31T23:59:59.999999Z")),
        (r#""i":1,"i":7"#, "i", json!(7)),
        (r#""I":5,"unknown":{"a":[1]}"#, "i", Value::Null),
        (r#""s":null"#, "s", Value::Null),
    ];
    let lines: Vec<String> = good.iter().enumerate().map(|(n, (field, ..))| line(n, field)).collect();
    let bytes: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    let offsets = post(&up, &bytes);
    let rows = up.rows("SELECT * FROM v ORDER BY n", &offsets);
    assert_eq!(rows.len(), good.len());
    for (row, (field, column, value)) in rows.iter().zip(&good) {
        assert_eq!(&row[*column], value, "{field}: {row}");
    }
    let bad = [
        r#""b":1"#,
        r#""b":"true""#,
        r#""i":2147483648"#,
        r#""i":1.5"#,
        r#""i":"1.5""#,
        r#""g":9223372036854775808"#,
        r#""x":"NaN""#,
        r#""x":1e400"#,
        r#""d":12.345"#,
        r#""d":100000000.00"#,
        r#""d":"12.345""#,
        r#""s":1"#,
        r#""s":{}"#,
        r#""at":"2026-13-01T00:00:00Z""#,
        r#""at":"01.02.2026""#,
        r#""at":1767225600"#,
        r#""l":1"#,
        r#""l":["x"]"#,
        r#""r":[]"#,
        r#""r":{"a":"x"}"#,
    ];
    let lines: Vec<String> = bad.iter().map(|field| line(1000, field)).collect();
    let bytes: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
    let offsets = post(&up, &bytes);
    let rows = up.rows("SELECT count(*) AS n FROM v WHERE n = 1000", &offsets);
    assert_eq!(rows, [json!({"n": 0})]);
    for (letter, field) in dead_letters(&case, &up, bad.len()).iter().zip(bad) {
        assert_eq!(letter["reason"], "wrong_type", "{field}: {letter}");
        let column = field.split('"').nth(1).expect("a column");
        let detail = letter["detail"].as_str().expect("a detail");
        assert!(detail.contains(column), "the detail names column {column}: {detail}");
    }
}

#[test]
fn objects_and_arrays_into_struct_list_and_json() {
    let views =
        "CREATE MATERIALIZED VIEW v AS SELECT r['a'] AS a, l[1] AS first, j, count(*) AS c FROM e GROUP BY 1, 2, 3;";
    let case = one_partition(&pipeline(TYPES, "", views));
    let up = up(&case);
    let line = br#"{"t":"2026-01-01T00:00:00Z","r":{"a":5,"z":"y","more":1},"l":[7,8],"j":{"k":[1,2]}}"#;
    let offsets = post(&up, &[line.as_slice()]);
    let rows = up.rows("SELECT * FROM v", &offsets);
    assert_eq!((&rows[0]["a"], &rows[0]["first"], &rows[0]["c"]), (&json!(5), &json!(7), &json!(1)));
    let text: Value = serde_json::from_str(rows[0]["j"].as_str().expect("text")).expect("JSON");
    assert_eq!(text, json!({"k": [1, 2]}));
}

#[test]
fn numbers_are_timestamps_only_with_a_unit() {
    for (unit, number, time) in [
        ("s", "1767225600.25", "2026-01-01T00:00:00.250Z"),
        ("ms", "1767225600001.5", "2026-01-01T00:00:00.001500Z"),
        ("us", "1767225600000001", "2026-01-01T00:00:00.000001Z"),
        ("ns", "1767225600000001999", "2026-01-01T00:00:00.000001Z"),
    ] {
        let with = format!(", timestamp_unit = '{unit}'");
        let case = one_partition(&pipeline(
            "n BIGINT",
            &with,
            "CREATE MATERIALIZED VIEW v AS SELECT t, count(*) AS c FROM e GROUP BY t;",
        ));
        let up = up(&case);
        let offsets = post(&up, &[format!("{{\"t\":{number}}}").as_bytes()]);
        assert_eq!(up.rows("SELECT t FROM v", &offsets), [json!({"t": time})], "{unit}");
    }
}

#[test]
fn what_kafka_holds_beforehand_is_read_and_aborted_transactions_are_not() {
    use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
    let case = one_partition(&pipeline("n BIGINT", "", COUNT));
    if !case.is_kafka() {
        return;
    }
    let good = br#"{"t":"2026-01-01T00:00:00Z","n":1}"#.to_vec();
    case.produce_to(&case.topic, [(None, Some(good.clone()))]);
    let up = up(&case);
    assert_eq!(answer(&up, "SELECT c FROM v", "latest")["rows"], json!([{"c": 1}]));
    let brokers = crate::harness::brokers().expect("Kafka");
    let producer: ThreadedProducer<_> = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", &case.topic)
        .create()
        .expect("a producer");
    let patience = std::time::Duration::from_secs(30);
    producer.init_transactions(patience).expect("transactions");
    for commit in [false, true] {
        producer.begin_transaction().expect("begun");
        for _ in 0..3 {
            producer.send(BaseRecord::<[u8], _>::to(&case.topic).payload(&good)).map_err(|(e, _)| e).expect("sent");
        }
        producer.flush(patience).expect("flushed");
        match commit {
            true => producer.commit_transaction(patience).expect("committed"),
            false => producer.abort_transaction(patience).expect("aborted"),
        }
    }
    up.wait("the committed transaction", |up| {
        up.sql("SELECT c FROM v", Some("latest")).json()["rows"] == json!([{"c": 4}])
    });
    // 1 + 3 aborted + marker + 3 committed + marker: the log's end is beyond the markers.
    let body = answer(&up, "SELECT c FROM v", &format!("{}/0:9", case.topic));
    assert_eq!(body["coverage"][0]["partitions"][0]["speed"][1], 9, "{body}");
    let report = ask(&case, &up, &["batch", "run", "--at-least", "latest"]).json();
    assert_eq!(report[0]["boundary"], format!("{}/0:9", case.topic));
    assert_eq!(ask(&case, &up, &["verify"]).json()[0]["equal"], true);
}

#[test]
fn a_source_of_several_topics() {
    let text = pipeline("n BIGINT", "", COUNT).replace("topic = '{topic}'", "topic = '{topic},{topic}-two'");
    let case = one_partition(&text);
    let two = format!("{}-two", case.topic);
    case.create_topic_named(&two, 1);
    let up = up(&case);
    let line = br#"{"t":"2026-01-01T00:00:00Z","n":1}"#.to_vec();
    let first = up.post("/v1/events/e", line.clone()).json()["offsets"].clone();
    assert_eq!(first, format!("{}/0:1", case.topic), "its first topic");
    let second = up.post(&format!("/v1/events/e?topic={two}"), line.clone()).json()["offsets"].clone();
    assert_eq!(second, format!("{two}/0:1"));
    problem(&up.post("/v1/events/e?topic=other", line.clone()), 400, "bad-query", &["other", &two]);
    let both = format!("{}/0:1,{two}/0:1", case.topic);
    let body = answer(&up, "SELECT c FROM v", &both);
    assert_eq!(body["rows"], json!([{"c": 2}]));
    assert_eq!(body["coverage"][0]["partitions"].as_array().map(Vec::len), Some(2), "{body}");
    up.post(&format!("/v1/events/e?topic={two}"), b"nope".to_vec());
    let letters = dead_letters(&case, &up, 1);
    assert_eq!((&letters[0]["topic"], &letters[0]["offset"]), (&json!(two), &json!(1)));
    let report = ask(&case, &up, &["batch", "run", "--at-least", &both]).json();
    assert_eq!(crate::support::positions(report[0]["boundary"].as_str().expect("offsets")).len(), 2);
}

#[test]
fn records_of_very_many_bad_elements_are_kept_once_each() {
    let case = one_partition(&pipeline("n BIGINT", "", COUNT));
    let up = crate::support::up_with(&case, &[("BIFOLD_COLLECT__FLUSH_INTERVAL", "1s")]);
    // Were each kept whole with every bad element, these would be 2.9 GB.
    let element = format!(r#"{{"t":"2026-01-01T00:00:00Z","n":"one","pad":"{}"}}"#, "x".repeat(70));
    let record = format!("[{}]", vec![element; 1_000].join(","));
    let records = vec![record.as_bytes(); 25];
    let good = br#"{"t":"2026-01-01T00:00:00Z","n":1}"#.as_slice();
    let offsets = post(&up, &[records, vec![good]].concat());
    let dead = |up: &Service| metric(up, "bifold_dead_letters_total", &[("reason", "wrong_type")]);
    up.wait("25,000 dead letters", |up| dead(up) == 25_000.0);
    assert_eq!(answer(&up, "SELECT * FROM v", &offsets)["rows"], json!([{"c": 1}]));
    // The first and the last letter of a record have its bytes.
    let shown = ask(&case, &up, &["dead-letters", "e"]);
    let letters: Vec<Value> =
        shown.stdout.lines().take(1_000).map(|line| serde_json::from_str(line).expect("a letter")).collect();
    assert_eq!((letters[0]["index"].as_i64(), letters[999]["index"].as_i64()), (Some(0), Some(999)));
    for letter in [&letters[0], &letters[999]] {
        assert_eq!(letter["payload_base64"], base64_of(record.as_bytes()));
    }
}

/// What a view's coverage says of dead letters.
fn dead_in_coverage(service: &Service, offsets: &str) -> Value {
    answer(service, "SELECT * FROM v", offsets)["coverage"][0]["dead_letters"].clone()
}

#[test]
fn dead_letters_are_in_every_coverage_as_long_as_the_definition_refuses_them() {
    let text = |options: &str| pipeline("n DECIMAL(10,2)", options, COUNT);
    let case = one_partition(&text(", quoted_numbers = 'false'"));
    // Nothing is durable yet: they are told of all the same.
    let open = [("BIFOLD_COLLECT__FLUSH_INTERVAL", "1h"), ("BIFOLD_SPEED__EPOCH_INTERVAL", "1h")];
    let mut service = crate::support::up_with(&case, &open);
    let good = br#"{"t":"2026-01-01T00:00:00Z","n":1}"#.as_slice();
    let quoted = br#"{"t":"2026-01-01T00:00:00Z","n":"1.50"}"#.as_slice();
    let two = br#"[{"t":"2026-01-01T00:00:00Z","n":"1"},{"t":"2026-01-01T00:00:00Z","n":2},{"t":"no"}]"#.as_slice();
    let offsets = post(&service, &[good, quoted, two]);
    assert_eq!(dead_in_coverage(&service, &offsets), 3);
    let ran = case.run(&["query", "SELECT * FROM v", "--at-least", &offsets, "--url", &service.url]);
    assert!(
        ran.stderr.contains("view v does not count 3 dead letters of source e, of which 3 are wrong_type"),
        "{}",
        ran.stderr
    );
    let stderr = service.stderr();
    assert!(stderr.contains("dead_letters=") && stderr.contains("wrong_type"), "the service warns: {stderr}");
    // Folded again after kill -9, durable, in a batch view, and beside one.
    service.kill();
    let mut service = up(&case);
    assert_eq!(dead_in_coverage(&service, &offsets), 3);
    dead_letters(&case, &service, 3);
    let batch = |at: &str, full: &[&str], url: &str| {
        let arguments = [&["batch", "run", "--at-least", at, "--url", url], full].concat();
        let ran = case.run(&arguments);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stderr.contains("dead letters of source e"), "{}", ran.stderr);
    };
    batch(&offsets, &[], &service.url);
    assert_eq!(dead_in_coverage(&service, &offsets), 3);
    let offsets = post(&service, &[quoted, good]);
    assert_eq!(dead_in_coverage(&service, &offsets), 4);
    batch(&offsets, &[], &service.url);
    assert_eq!(dead_in_coverage(&service, &offsets), 4);
    batch(&offsets, &["--full"], &service.url);
    assert_eq!(dead_in_coverage(&service, &offsets), 4);
    assert_eq!(service.terminate(), Some(0));

    // What decodes now is not listed any more, and counts.
    case.write_pipeline(&text(""));
    let service = up(&case);
    service.wait("the new version", |service| dead_in_coverage(service, &offsets) == 1);
    let listed = case.run(&["dead-letters", "e", "--output", "json"]).json();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!((&listed[0]["offset"], &listed[0]["index"]), (&json!(2), &json!(2)), "{listed:?}");
    assert_eq!(answer(&service, "SELECT * FROM v", &offsets)["rows"], json!([{"c": 6}]));
    let audit = case.run(&["audit", "e", "--output", "json"]);
    assert_eq!(audit.code, Some(0), "{}\n{}", audit.stdout, audit.stderr);
    let version = answer(&service, "SELECT * FROM v", &offsets)["coverage"][0]["version"].clone();
    let rows = audit.json();
    let row = rows.iter().find(|row| row["version"] == version).expect("a row of the version");
    assert_eq!((&row["events"], &row["dead_letters"]), (&json!(6), &json!(1)), "{row}");
    assert_eq!(case.run(&["verify", "--url", &service.url]).code, Some(0));
}

#[test]
fn a_record_of_too_many_elements_is_a_dead_letter_and_the_stream_goes_on() {
    let case = one_partition(&pipeline("n BIGINT", "", COUNT));
    let up = crate::support::up_with(&case, &[("BIFOLD_COLLECT__MAX_ELEMENTS", "2")]);
    let element = r#"{"t":"2026-01-01T00:00:00Z","n":1}"#;
    let [two, three] = [2, 3].map(|count| format!("[{}]", vec![element; count].join(",")));
    let offsets = post(&up, &[two.as_bytes(), three.as_bytes(), element.as_bytes()]);
    assert_eq!(answer(&up, "SELECT * FROM v", &offsets)["rows"], json!([{"c": 3}]));
    let letters = dead_letters(&case, &up, 1);
    assert_eq!((&letters[0]["reason"], &letters[0]["offset"]), (&json!("too_large"), &json!(1)), "{letters:?}");
}
