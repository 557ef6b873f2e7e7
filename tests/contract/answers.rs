//! Answers and their coverage.

use crate::harness::Case;

const PIPELINE: &str = "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t) \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s FROM e GROUP BY k;";

#[test]
fn an_event_counts_at_once_and_the_answer_says_what_it_covers() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let lines = [r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":5}"#, r#"{"t":"2026-01-01T00:00:01Z","k":"a","n":7}"#];
    let offsets = case.produce(&up, "e", &lines);
    let reply = up.sql("SELECT * FROM v", Some(&offsets));
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    assert_eq!(body["rows"], serde_json::json!([{"k": "a", "c": 2, "s": 12}]));
    for partition in body["coverage"][0]["partitions"].as_array().expect("partitions") {
        assert_eq!(partition["batch"][1], partition["speed"][0]);
        assert_eq!(partition["batch"][0], 0);
    }
}

const WINDOWS: &str = "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t - INTERVAL '5 seconds') \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s FROM e GROUP BY k, k, e.k; \
    CREATE MATERIALIZED VIEW months AS SELECT tumble(t, INTERVAL '1 month') AS a, tumble(t, INTERVAL '1 month') AS b, \
      count(*) AS c FROM e WHERE t < '9999-12-31' AND t >= TIMESTAMP '0001-01-01' GROUP BY 1, 2; \
    CREATE MATERIALIZED VIEW weeks AS SELECT date_bin(INTERVAL '7 days', t, TIMESTAMP '2001-01-01') AS a, count(*) AS c \
      FROM e GROUP BY 1;";
const FAR: [&str; 4] = [
    r#"{"t":"0001-02-03T00:00:00Z","k":"a","n":1}"#,
    r#"{"t":"1600-02-29T00:00:00Z","k":"a","n":2}"#,
    r#"{"t":"2026-03-31T00:00:00Z","k":"a","n":3}"#,
    r#"{"t":"9999-11-30T23:59:59Z","k":"a","n":4}"#,
];

#[test]
fn a_key_named_twice_is_one_key_and_windows_reach_as_far_as_times() {
    let case = Case::new(WINDOWS);
    case.create_topic(1);
    let up = case.start("up");
    let offsets = case.produce(&up, "e", &FAR);
    assert_eq!(up.rows("SELECT * FROM v", &offsets), [serde_json::json!({"k": "a", "c": 4, "s": 10})]);
    let months = up.rows("SELECT a, b, c FROM months ORDER BY a", &offsets);
    let starts = ["0001-02-01T00:00:00Z", "1600-02-01T00:00:00Z", "2026-03-01T00:00:00Z", "9999-11-01T00:00:00Z"];
    assert_eq!(months, starts.map(|start| serde_json::json!({"a": start, "b": start, "c": 1})));
    let weeks = up.rows("SELECT a FROM weeks ORDER BY a", &offsets);
    // Mondays: 2001-01-01 was one.
    let starts = ["0001-01-29T00:00:00Z", "1600-02-28T00:00:00Z", "2026-03-30T00:00:00Z", "9999-11-29T00:00:00Z"];
    assert_eq!(weeks, starts.map(|start| serde_json::json!({"a": start})));
    let late = up.rows("SELECT a FROM months WHERE a > '2300-01-01'", &offsets);
    assert_eq!(late, [serde_json::json!({"a": starts[3].replace("29T", "01T")})]);
    assert_eq!(case.run(&["verify", "--url", &up.url]).code, Some(0));
}

#[test]
fn the_watermark_outlives_the_process() {
    let case = Case::new(WINDOWS);
    case.create_topic(1);
    let mut up = case.start("up");
    let offsets = case.produce(&up, "e", &FAR[..3]);
    let watermark = |up: &crate::harness::Service, at_least: &str| {
        up.sql("SELECT * FROM v", Some(at_least)).json()["coverage"][0]["watermark"].clone()
    };
    assert_eq!(watermark(&up, &offsets), "2026-03-30T23:59:55Z");
    assert_eq!(up.terminate(), Some(0));
    let up = case.start("up");
    assert_eq!(watermark(&up, &offsets), "2026-03-30T23:59:55Z");
    let late = case.produce(&up, "e", &FAR[..1]);
    assert_eq!(watermark(&up, &late), "2026-03-30T23:59:55Z");
}

#[test]
fn what_would_be_passed_over_is_refused() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let offsets = case.produce(&up, "e", &FAR[..1]);
    for (sql, word) in [
        ("SELECT * FROM v FOR UPDATE", "FOR UPDATE"),
        ("SELECT * FROM v TABLESAMPLE BERNOULLI (0)", "TABLESAMPLE"),
        ("SELECT * FROM v PREWHERE c > 4", "PREWHERE"),
        ("SELECT * FROM (SELECT * FROM v FOR UPDATE) AS x", "FOR UPDATE"),
        ("SELECT corr(DISTINCT c, s) AS x FROM v", "DISTINCT"),
        ("SELECT count(DISTINCT *) AS x FROM v", "DISTINCT *"),
        ("FROM v", "without columns"),
        ("SHOW TABLES", "/v1/views"),
    ] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 400, "{sql}: {}", reply.text);
        assert!(reply.text.contains(word), "{sql}: {}", reply.text);
    }
    let source = up.sql("SELECT * FROM e", Some(&offsets));
    assert_eq!(source.status, 404);
    assert!(source.text.contains(r#"\"e\" is a source; its views are v"#), "{}", source.text);
    // What columns say is what rows hold.
    let body = up.sql("SELECT CASE WHEN k = 'a' THEN c ELSE 1.5 END AS x FROM v", Some(&offsets)).json();
    assert_eq!(
        (&body["columns"][0]["type"], &body["rows"][0]["x"]),
        (&"decimal(21,1)".into(), &"1.0".into()),
        "{body}"
    );
}

#[test]
fn sums_of_a_query_are_exact_or_an_error() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let most = i64::MAX;
    let lines = ["a", "b", "c"].map(|k| {
        let n = if k == "c" { -1 } else { most };
        format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"{k}","n":{n}}}"#)
    });
    let offsets = case.produce(&up, "e", &lines.each_ref().map(String::as_str));
    for sql in [
        "SELECT sum(s) AS x FROM v",
        "SELECT k > 'b' AS late, sum(s) AS x FROM v GROUP BY 1",
        "SELECT k, sum(s) OVER (ORDER BY k) AS x FROM v",
        "SELECT sum(DISTINCT s + length(k) - length(k)) + sum(s) AS x FROM v",
        "SELECT sum(CAST('99999999999999999999999999999999999999' AS DECIMAL(38, 0))) AS x FROM v",
    ] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 422, "{sql}: {}", reply.text);
        assert_eq!(reply.json()["type"], "/problems/overflow", "{sql}: {}", reply.text);
    }
    let exact = [
        (
            "SELECT sum(CAST(s AS DECIMAL(38, 0))) AS x FROM v",
            serde_json::json!((2 * i128::from(most) - 1).to_string()),
        ),
        ("SELECT sum(s) AS x FROM v WHERE k > 'a'", serde_json::json!(most - 1)),
        ("SELECT sum(s) AS x FROM v WHERE k > 'z'", serde_json::Value::Null),
        ("SELECT sum(DISTINCT s) AS x FROM v", serde_json::json!(most - 1)),
        // The frame slides: what was beyond the type comes back into it.
        (
            "SELECT max(x) AS x FROM (SELECT sum(s) OVER (ORDER BY k DESC ROWS 1 PRECEDING) AS x FROM v WHERE k <> 'a')",
            serde_json::json!(most - 1),
        ),
    ];
    for (sql, x) in exact {
        assert_eq!(up.rows(sql, &offsets), [serde_json::json!({"x": x})], "{sql}");
    }
}

#[test]
fn one_value_cannot_take_all_memory() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let offsets = case.produce(&up, "e", &FAR[..1]);
    for sql in [
        "SELECT repeat('x', 2000000000) AS x FROM v",
        "SELECT repeat(k, 2000000000) AS x FROM v",
        "SELECT length(lpad(k, 1000000000, 'x')) AS x FROM v",
        "SELECT count(*) AS x FROM unnest(range(1, 1000000000)) AS t(v)",
    ] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 422, "{sql}: {}", reply.text);
        assert!(reply.text.contains("asks for"), "{sql}: {}", reply.text);
    }
    assert_eq!(up.rows("SELECT length(repeat(k, 100000)) AS x FROM v", &offsets), [serde_json::json!({"x": 100_000})]);
}

#[test]
fn a_pipeline_that_goes_back_is_served_again() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let other = PIPELINE.replace("count(*) AS c", "count(*) + 100 AS c");
    let events = [r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":5}"#];
    let mut sent = 0;
    // To another version and back, several times; each start serves what its pipeline says, built or built anew.
    for (round, (pipeline, more)) in
        [(PIPELINE, 0), (&other, 100), (PIPELINE, 0), (&other, 100), (PIPELINE, 0)].into_iter().enumerate()
    {
        case.write_pipeline(pipeline);
        let mut up = case.start("up");
        let offsets = case.produce(&up, "e", &events);
        sent += 1;
        let right = serde_json::json!([{"k": "a", "c": sent + more, "s": 5 * sent}]);
        case.run(&["batch", "run", "--at-least", &offsets, "--url", &up.url]).json();
        up.wait("the pipeline's version answers", |up| {
            let reply = up.sql("SELECT * FROM v", Some(&offsets));
            reply.status == 200 && reply.json()["rows"] == right
        });
        assert_eq!(case.run(&["verify", "--url", &up.url]).code, Some(0), "round {round}");
        assert_eq!(up.terminate(), Some(0));
    }
    // Also from one that was never built: nothing was answered from it.
    case.write_pipeline(&PIPELINE.replace("count(*) AS c", "count(*) + 7 AS c"));
    let mut up = case.start("up");
    up.kill();
    case.write_pipeline(&other);
    let up = case.start("up");
    up.wait("the pipeline's version answers", |up| {
        let reply = up.sql("SELECT * FROM v", None);
        reply.status == 200 && reply.json()["rows"] == serde_json::json!([{"k": "a", "c": sent + 100, "s": 5 * sent}])
    });
}

#[test]
fn queries_at_the_same_time_do_not_meet() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let offsets = case.produce(&up, "e", &FAR[..1]);
    assert_eq!(up.rows("SELECT count(*) AS n FROM v", &offsets), [serde_json::json!({"n": 1})]);
    let url = up.url.as_str();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let reply = crate::harness::sql_at(url, "SELECT count(*) AS n FROM v", None);
                    assert_eq!(reply.status, 200, "{}", reply.text);
                }
            });
        }
    });
}

#[test]
fn spans_of_time_are_compared_by_their_length() {
    let spans = "CREATE TABLE e (t TIMESTAMP, u TIMESTAMP, WATERMARK FOR t AS t) \
        WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
        CREATE MATERIALIZED VIEW v AS SELECT count(*) FILTER (WHERE u - t > INTERVAL '1 day') AS days, \
        count(*) FILTER (WHERE u - t > INTERVAL '24 hours') AS hours, \
        count(*) FILTER (WHERE u - t BETWEEN INTERVAL '1 day' AND INTERVAL '2 days') AS few, \
        min(t) AS t, max(u) AS u FROM e;";
    let case = Case::new(spans);
    case.create_topic(1);
    let up = case.start("up");
    let lines = [
        r#"{"t":"2024-01-01T00:00:00Z","u":"2024-01-10T00:00:00Z"}"#,
        r#"{"t":"2024-01-01T00:00:00Z","u":"2024-01-02T00:00:01Z"}"#,
        r#"{"t":"2024-01-01T00:00:00Z","u":"2024-01-01T23:00:00Z"}"#,
    ];
    let offsets = case.produce(&up, "e", &lines);
    assert_eq!(
        up.rows("SELECT days, hours, few FROM v", &offsets),
        [serde_json::json!({"days": 2, "hours": 2, "few": 1})]
    );
    let asked = "SELECT u - t = INTERVAL '9 days' AS nine, u - t > INTERVAL '1 day' AS more FROM v";
    assert_eq!(up.rows(asked, &offsets), [serde_json::json!({"nine": true, "more": true})]);
    for (condition, word) in [("INTERVAL '1 month'", "months"), ("INTERVAL '1 day' + INTERVAL '1 hour'", "constant")] {
        let refused = up.sql(&format!("SELECT u - t > {condition} AS x FROM v"), Some(&offsets));
        assert_eq!(refused.status, 400, "{}", refused.text);
        assert!(refused.text.contains(word), "{}", refused.text);
    }
    // A number that is cast counts seconds.
    let cast = "SELECT CAST(1700000000 AS TIMESTAMP) AS a, CAST(days + 1699999998 AS TIMESTAMP) AS b FROM v";
    let at = "2023-11-14T22:13:20Z";
    assert_eq!(up.rows(cast, &offsets), [serde_json::json!({"a": at, "b": at})]);
}

#[test]
fn in_subqueries_that_forget_null_are_refused() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let lines = [
        r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":1}"#,
        r#"{"t":"2026-01-01T00:00:00Z","k":"b","n":null}"#,
        r#"{"t":"2026-01-01T00:00:00Z","k":"c","n":3}"#,
    ];
    let offsets = case.produce(&up, "e", &lines);
    for sql in [
        "SELECT k FROM v WHERE s NOT IN (SELECT s FROM v WHERE k <> 'a') OR k = 'zzz'",
        "SELECT k FROM v WHERE NOT (s IN (SELECT s FROM v) OR k = 'a')",
        "SELECT k, s IN (SELECT s FROM v) AS x FROM v",
        "SELECT k FROM v WHERE (s IN (SELECT s FROM v)) IS NULL",
        "SELECT CASE WHEN s IN (SELECT s FROM v) THEN 1 END AS x FROM v",
        "SELECT k FROM v WHERE s = ANY (SELECT s FROM v WHERE k = 'a')",
        "SELECT k FROM v WHERE s > ALL (SELECT s FROM v WHERE k = 'a')",
    ] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 400, "{sql}: {}", reply.text);
        assert!(reply.text.contains("EXISTS (SELECT"), "{sql}: {}", reply.text);
    }
    for sql in [
        "SELECT k FROM v WHERE s IN (SELECT CAST(s AS DOUBLE) FROM v)",
        "SELECT CAST(0.5 AS DECIMAL(10,2)) AS x FROM v UNION ALL SELECT CAST(s AS DOUBLE) FROM v",
        "SELECT v.k FROM v JOIN (SELECT CAST(s AS DOUBLE) AS s FROM v) w USING (s)",
    ] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 400, "{sql}: {}", reply.text);
        assert!(reply.text.contains("numbers of different types meet"), "{sql}: {}", reply.text);
    }
    assert_eq!(up.rows("SELECT k FROM v WHERE s IN (SELECT 3) UNION ALL SELECT 'x'", &offsets).len(), 2);
    let keys = |sql: &str| up.rows(sql, &offsets).iter().map(|row| row["k"].to_string()).collect::<Vec<_>>();
    // One NULL among the values: nothing is known to be outside.
    assert_eq!(keys("SELECT k FROM v WHERE s NOT IN (SELECT s FROM v WHERE k <> 'a')"), Vec::<String>::new());
    assert_eq!(keys("SELECT k FROM v WHERE NOT s IN (SELECT s FROM v WHERE k = 'a') AND k < 'z'"), ["\"c\""]);
    assert_eq!(keys("SELECT k FROM v WHERE s IN (SELECT s FROM v) OR k = 'b' ORDER BY k"), ["\"a\"", "\"b\"", "\"c\""]);
}

const MEASURES: &str = "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t) \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s, sum(n) * 2 AS twice, avg(n) AS mean, \
      count(DISTINCT n) AS values, approx_distinct(n) AS about, sum(n) / count(*) AS ratio, max(n) AS most FROM e GROUP BY k;";

#[test]
fn sums_of_what_does_not_add_up_are_warned_of() {
    let case = Case::new(MEASURES);
    case.create_topic(1);
    let up = case.start("up");
    let offsets = case.produce(&up, "e", &FAR[..3]);
    for (sql, columns) in [
        ("SELECT sum(c) AS x, sum(s) AS y, avg(twice) AS z, max(mean) AS m, count(values) AS n FROM v", &[][..]),
        ("SELECT sum(about) AS x FROM v", &["about"]),
        ("SELECT avg(values) AS x, sum(mean) AS y FROM v", &["mean", "values"]),
        ("SELECT sum(x) AS y FROM (SELECT k, ratio + 1 AS x FROM v) w", &["ratio"]),
        ("WITH w AS (SELECT * FROM v WHERE c > 0) SELECT sum(w.most) AS y FROM w JOIN v ON w.k = v.k", &["most"]),
        ("SELECT sum(values) OVER (ORDER BY k) AS y FROM v", &["values"]),
        ("SELECT sum(x) AS y FROM (SELECT max(values) AS x FROM v GROUP BY k) w", &[]),
    ] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 200, "{sql}: {}", reply.text);
        let body = reply.json();
        let warnings = body["warnings"].as_array().cloned().unwrap_or_default();
        let found: Vec<&str> = warnings.iter().filter_map(|warning| warning["column"].as_str()).collect();
        assert_eq!(found, columns, "{sql}: {}", reply.text);
    }
    let ran = case.run(&["query", "SELECT sum(about) AS x FROM v", "--url", &up.url, "--output", "csv"]);
    assert!(ran.stderr.contains("about of view v is approx_distinct(…), which does not add up"), "{}", ran.stderr);
}

#[test]
fn integers_of_a_query_do_not_wrap() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let line = format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"a","n":{}}}"#, i64::MAX);
    let offsets = case.produce(&up, "e", &[line.as_str()]);
    for sql in ["SELECT s + 1 AS x FROM v", "SELECT s * 2 AS x FROM v", "SELECT - (-s - 1) AS x FROM v"] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 422, "{sql}: {}", reply.text);
        assert!(reply.text.contains("/problems/overflow"), "{sql}: {}", reply.text);
    }
    assert_eq!(up.rows("SELECT s / 0 AS x, s % 0 AS y FROM v", &offsets), [serde_json::json!({"x": null, "y": null})]);
}

#[test]
fn failures_of_a_query_are_told_in_words_of_sql() {
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    let up = case.start("up");
    let line = format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"a","n":{}}}"#, i64::MAX);
    let offsets = case.produce(&up, "e", &[line.as_str()]);
    let nines = "99999999999999999999999999999999999999";
    for (sql, status) in [
        ("SELECT abs(-s - 1) AS x FROM v".to_string(), 422),
        ("SELECT CAST(s AS INT) AS x FROM v".to_string(), 422),
        (format!("SELECT avg(CAST('{nines}' AS DECIMAL(38, 0))) AS x FROM v"), 422),
        (format!("SELECT sum(CAST('{nines}' AS DECIMAL(38, 0))) AS x FROM v, (VALUES (1), (2)) w"), 422),
        ("SELECT CAST(k AS BIGINT) AS x FROM v".to_string(), 400),
        ("SELECT s - INTERVAL '1 day' AS x FROM v".to_string(), 400),
        ("SELECT k + INTERVAL '1 day' AS x FROM v".to_string(), 400),
        ("SELECT coalesce(now(), s) AS x FROM v".to_string(), 400),
        ("SELECT date_trunc(s, k) AS x FROM v".to_string(), 400),
        ("SELECT sum(k) AS x FROM v".to_string(), 400),
        ("SELECT substr(s, k, s, s) AS x FROM v".to_string(), 400),
        ("SELECT k LIKE s AS x FROM v".to_string(), 400),
        ("SELECT s AND true AS x FROM v".to_string(), 400),
        ("SELECT x.y AS x FROM (VALUES (1)) w (x)".to_string(), 400),
    ] {
        let reply = up.sql(&sql, Some(&offsets));
        assert_eq!(reply.status, status, "{sql}: {}", reply.text);
        for internal in
            ["Int64", "Utf8", "Decimal", "Accumulator", "MonthDayNano", "UserDefined", "Timestamp(", "_cast", "\\n"]
        {
            assert!(!reply.text.contains(internal), "{sql}: {}", reply.text);
        }
        println!("{sql}\n    {}", reply.json()["detail"]);
    }
}
