//! The HTTP surface: SQL, rows, views, sources, events, health, metrics.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::Service;
use crate::support::{
    COUNTS, answer, configure, metric, one_partition, partitions, pipeline, problem, request, up, up_with,
};

const LINES: [&str; 3] = [
    r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":5}"#,
    r#"{"t":"2026-01-01T00:00:01Z","k":"b","n":7}"#,
    r#"{"t":"2026-01-01T00:00:02Z","n":1}"#,
];

fn sql_body(service: &Service, body: &Value) -> crate::support::Full {
    request(service, "POST", "/v1/sql", &[], body.to_string().into_bytes())
}

#[test]
fn an_answer_has_its_members_and_nothing_else() {
    let case = partitions(COUNTS, 2);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    let reply = up.sql("SELECT k, c FROM v ORDER BY k NULLS FIRST", Some(&offsets));
    assert_eq!(reply.content_type, "application/json");
    let body = reply.json();
    let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["columns", "rows", "coverage", "as_of", "truncated"]);
    assert_eq!(body["columns"], json!([{"name": "k", "type": "text"}, {"name": "c", "type": "bigint"}]));
    assert_eq!(body["rows"], json!([{"k": null, "c": 1}, {"k": "a", "c": 1}, {"k": "b", "c": 1}]));
    assert_eq!(body["truncated"], false);
    assert!(body["as_of"].as_str().is_some_and(|at| at.ends_with('Z') && at.contains('T')), "{body}");
    assert_eq!(body["coverage"].as_array().map(Vec::len), Some(1));
    let coverage = &body["coverage"][0];
    let members: Vec<&String> = coverage.as_object().expect("an object").keys().collect();
    for member in ["view", "version", "source", "ledger", "watermark", "holes", "pending_holes", "partitions"] {
        assert!(members.iter().any(|m| *m == member), "{member} in {coverage}");
    }
    assert_eq!((&coverage["view"], &coverage["source"]), (&json!("v"), &json!("e")));
    assert!(coverage["ledger"].is_u64() && coverage["version"].is_string(), "{coverage}");
    assert_eq!((&coverage["holes"], &coverage["pending_holes"]), (&json!([]), &json!([])));
    assert_eq!(coverage["watermark"], "2026-01-01T00:00:02Z");
    let partitions = coverage["partitions"].as_array().expect("partitions");
    assert_eq!(partitions.len(), 2, "every partition, also an empty one: {coverage}");
    let mut events = 0;
    for (number, partition) in partitions.iter().enumerate() {
        assert_eq!((&partition["topic"], &partition["partition"]), (&json!(case.topic), &json!(number)));
        assert_eq!(partition["batch"], json!([0, 0]), "nothing from a layer is an empty range");
        assert_eq!(partition["speed"][0], 0);
        events += partition["speed"][1].as_i64().expect("a position");
    }
    assert_eq!(events, 3);
}

#[test]
fn nothing_produced_is_an_empty_answer() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let body = answer(&up, "SELECT * FROM v", "latest");
    assert_eq!(body["rows"], json!([]));
    assert_eq!(body["coverage"][0]["watermark"], Value::Null);
    assert_eq!(body["columns"].as_array().map(Vec::len), Some(3));
}

#[test]
fn bad_requests_are_bad_queries() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let raw = |body: &str| up.post("/v1/sql", body.as_bytes().to_vec());
    problem(&raw("SELECT 1"), 400, "bad-query", &["sql"]);
    problem(&raw(""), 400, "bad-query", &["sql"]);
    problem(&raw("{}"), 400, "bad-query", &["sql"]);
    problem(&raw(r#"{"sql": 1}"#), 400, "bad-query", &[]);
    problem(&raw(r#"{"sql": "SELECT 1", "at_lest": "latest"}"#), 400, "bad-query", &["at_lest"]);
    problem(&raw(r#"{"sql": "SELECT 1", "timeout_ms": "x"}"#), 400, "bad-query", &[]);
    problem(&up.sql("SELECT * FROM v", Some("x")), 400, "bad-query", &["at_least"]);
    problem(&up.sql("SELECT * FROM v", Some("other/0:1")), 400, "bad-query", &["other/0"]);
    for (sql, words) in [
        ("", &["statement"][..]),
        ("SELECT 1; SELECT 2", &["one statement"]),
        ("SELECT * FROM v; DROP TABLE v", &["one statement"]),
        ("DROP TABLE v", &["SELECT"]),
        ("CREATE TABLE x (a INT)", &["SELECT"]),
        ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'", &["SELECT"]),
        ("INSERT INTO v VALUES ('a', 1, 2)", &["SELECT"]),
        ("UPDATE v SET c = 1", &["SELECT"]),
        ("DELETE FROM v", &["SELECT"]),
        ("COPY v TO '/tmp/x.csv'", &["SELECT"]),
        ("COPY (SELECT 1) TO '/tmp/x.csv'", &["SELECT"]),
        ("SET datafusion.execution.batch_size = 1", &["SELECT"]),
        ("SHOW TABLES", &["SELECT"]),
        ("EXPLAIN SELECT * FROM v", &["SELECT"]),
        ("SELECT * INTO x FROM v", &[]),
        ("SELECT * FROM '/etc/passwd'", &["/etc/passwd"]),
        ("SELECT * FROM 'x.parquet'", &["x.parquet"]),
        ("SELECT * FROM \"data.csv\"", &["data.csv"]),
        ("SELECT * FROM information_schema.tables", &["information_schema"]),
        ("SELECT c AS x, s AS x FROM v", &["x"]),
        ("SELECT a.k, b.k FROM v a JOIN v b ON a.k = b.k", &["k"]),
        ("SELECT nope FROM v", &["nope"]),
        ("SELECT nope(k) FROM v", &["nope"]),
        ("SELECT k + 1 FROM v WHERE k > INTERVAL '1 day'", &[]),
    ] {
        problem(&up.sql(sql, None), 400, "bad-query", words);
    }
    let body = problem(&up.sql("SELECT *\nFROM v WHRE k = 1 1", None), 400, "bad-query", &[]);
    assert_eq!(body["position"]["line"], 2, "{body}");
    assert!(body["position"]["column"].as_u64() > Some(1), "{body}");
    let body = problem(&up.sql("SELECT c,\n  nope FROM v", None), 400, "bad-query", &["nope"]);
    assert_eq!(body["position"], json!({"line": 2, "column": 3}), "{body}");
    problem(&up.sql("SELECT * FROM vv", None), 404, "unknown-view", &["vv", "\"v\""]);
    // Statements end in a semicolon, if one likes.
    assert_eq!(up.sql("SELECT 1 AS one;", None).status, 200);
}

#[test]
fn other_paths_and_methods_are_problems_too() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    problem(&up.get("/v1/nothing"), 404, "not-found", &["/v1/nothing"]);
    problem(&up.get("/v1/sql"), 405, "method-not-allowed", &["GET"]);
    problem(&up.get("/v1/views/nope"), 404, "unknown-view", &["nope"]);
    problem(&up.get("/v1/views/nope/rows"), 404, "unknown-view", &["nope"]);
    problem(&up.post("/v1/events/nope", b"{}".to_vec()), 404, "unknown-source", &["nope"]);
    problem(&up.post("/v1/events/e?kee=k", b"{}".to_vec()), 400, "bad-query", &["kee"]);
    problem(&up.post("/v1/events/e?key=nope", b"{}".to_vec()), 400, "bad-query", &["nope", "k"]);
}

#[test]
fn joins_ctes_and_window_functions() {
    let views = "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM e GROUP BY k; \
        CREATE MATERIALIZED VIEW w AS SELECT tumble(t, INTERVAL '1 second') AS s, k, sum(n) AS n FROM e GROUP BY 1, 2;";
    let case = one_partition(&pipeline("k TEXT, n BIGINT", "", views));
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES[..2]);
    let sql = "WITH totals AS (SELECT k, sum(n) AS total FROM w GROUP BY k) \
        SELECT v.k, c, total, row_number() OVER (ORDER BY total DESC) AS place, \
        lag(total) OVER (ORDER BY v.k) AS before FROM v JOIN totals ON v.k = totals.k ORDER BY v.k";
    let body = answer(&up, sql, &offsets);
    let expected = json!([
        {"k": "a", "c": 1, "total": 5, "place": 2, "before": null},
        {"k": "b", "c": 1, "total": 7, "place": 1, "before": 5},
    ]);
    assert_eq!(body["rows"], expected, "{body}");
    assert_eq!(body["coverage"].as_array().map(Vec::len), Some(2), "{body}");
    let sql = "SELECT k FROM v WHERE c IN (SELECT 1) UNION ALL SELECT k FROM w WHERE n > 6 ORDER BY k";
    assert_eq!(answer(&up, sql, &offsets)["rows"], json!([{"k": "a"}, {"k": "b"}, {"k": "b"}]));
    // A CTE may be named like a view.
    let sql = "WITH v AS (SELECT 5 AS x) SELECT * FROM v";
    assert_eq!(answer(&up, sql, "latest")["rows"], json!([{"x": 5}]));
}

#[test]
fn every_type_is_shown_as_the_contract_says() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let sql = "SELECT true AS boolean, CAST(7 AS INT) AS int, CAST(9223372036854775807 AS BIGINT) AS bigint, 0.5 AS half, \
        CAST(3 AS DOUBLE) AS three, CAST('NaN' AS DOUBLE) AS nan, CAST('inf' AS DOUBLE) AS inf, \
        CAST('-inf' AS DOUBLE) AS ninf, CAST('12.3' AS DECIMAL(10,2)) AS decimal, CAST('-0.05' AS DECIMAL(38,2)) AS small, \
        'x' AS text, DATE '2026-02-03' AS date, TIMESTAMP '2026-01-01T00:00:00Z' AS whole, \
        TIMESTAMP '2026-01-01T00:00:00.000001Z' AS micro, CAST(NULL AS TEXT) AS nothing, \
        X'00ff' AS bytes, [1, 2, 3] AS list, ['a', NULL] AS texts";
    let reply = up.sql(sql, None);
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    let row = &body["rows"][0];
    for (name, ty, value) in [
        ("boolean", "boolean", json!(true)),
        ("int", "int", json!(7)),
        ("bigint", "bigint", json!(i64::MAX)),
        ("half", "decimal(1,1)", json!("0.5")),
        ("three", "double", json!(3.0)),
        ("nan", "double", json!("NaN")),
        ("inf", "double", json!("Infinity")),
        ("ninf", "double", json!("-Infinity")),
        ("decimal", "decimal(10,2)", json!("12.30")),
        ("small", "decimal(38,2)", json!("-0.05")),
        ("text", "text", json!("x")),
        ("date", "date", json!("2026-02-03")),
        ("whole", "timestamp", json!("2026-01-01T00:00:00Z")),
        ("micro", "timestamp", json!("2026-01-01T00:00:00.000001Z")),
        ("nothing", "text", Value::Null),
        ("bytes", "bytes", json!("AP8=")),
        ("list", "bigint[]", json!([1, 2, 3])),
        ("texts", "text[]", json!(["a", null])),
    ] {
        assert_eq!(row[name], value, "{name}");
        let columns = body["columns"].as_array().expect("columns");
        let column = columns.iter().find(|column| column["name"] == name).expect("the column");
        assert_eq!(column["type"], ty, "{name}");
    }
    assert!(reply.text.contains("9223372036854775807"), "all digits: {}", reply.text);
    assert_eq!(body["coverage"], json!([]), "no view is used");
}

#[test]
fn too_many_rows_is_an_error_not_a_cut() {
    let case = one_partition(COUNTS);
    configure(&case, "[serve]\nmax_result_rows = 2\n");
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    let body =
        problem(&up.sql("SELECT * FROM v", Some(&offsets)), 422, "limit-exceeded", &["2", "serve.max_result_rows"]);
    assert!(body.get("rows").is_none());
    assert_eq!(answer(&up, "SELECT * FROM v LIMIT 2", &offsets)["rows"].as_array().map(Vec::len), Some(2));
    assert_eq!(answer(&up, "SELECT count(*) AS n FROM v", &offsets)["rows"], json!([{"n": 3}]));
    problem(&up.get("/v1/views/v/rows?limit=3"), 422, "limit-exceeded", &["3", "serve.max_result_rows"]);
}

#[test]
fn a_query_beyond_its_memory_is_ended_and_says_so() {
    let case = one_partition(COUNTS);
    configure(&case, "[serve]\nquery_memory = '2MiB'\n");
    let up = up(&case);
    let distinct = |most| format!("SELECT count(DISTINCT x) AS n FROM (SELECT unnest(range(0, {most})) AS x)");
    problem(&up.sql(&distinct(1_000_000), None), 422, "limit-exceeded", &["serve.query_memory"]);
    assert_eq!(up.sql(&distinct(100), None).json()["rows"], json!([{"n": 100}]), "others go on");
}

#[test]
fn what_is_not_kept_between_queries_is_read_again() {
    let case = one_partition(COUNTS);
    configure(&case, "[serve]\nmemory = '1KiB'\n");
    let up = up(&case);
    for count in [3, 6, 9] {
        let offsets = case.produce(&up, "e", &LINES);
        for _ in 0..3 {
            assert_eq!(answer(&up, "SELECT sum(c) AS n FROM v", &offsets)["rows"], json!([{ "n": count }]));
        }
        let ran = case.run(&["batch", "run", "--at-least", &offsets, "--url", &up.url]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    let metrics = up.get("/metrics").text;
    let value = |name: &str| metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
    assert!(
        value("bifold_cache_evictions_total") > Some(5.0) && value("bifold_cache_bytes") <= Some(1024.0),
        "{metrics}"
    );
}

#[test]
fn an_answer_beyond_its_memory_is_ended_and_says_so() {
    let case = one_partition(COUNTS);
    configure(&case, "[serve]\nquery_memory = '16MiB'\n");
    let up = up(&case);
    let long = "SELECT repeat('x', 5000) AS t FROM (SELECT unnest(range(0, 400000)) AS i)";
    problem(&up.sql(long, None), 422, "limit-exceeded", &["serve.query_memory"]);
}

#[test]
fn a_long_query_is_answered() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    let sum = ["c"; 400].join("+");
    let rows = answer(&up, &format!("SELECT count(*) AS n FROM v WHERE {sum} > 0"), &offsets);
    assert_eq!(rows["rows"], json!([{"n": 3}]));
}

#[test]
fn a_window_sees_each_row_s_own_estimate() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    let body = answer(
        &up,
        "SELECT approx_distinct(k) OVER (ORDER BY k NULLS LAST) AS seen FROM v ORDER BY k NULLS LAST",
        &offsets,
    );
    assert_eq!(body["rows"], json!([{"seen": 1}, {"seen": 2}, {"seen": 2}]));
}

/// A query that computes for minutes.
fn slow() -> String {
    let values = (0..60).map(|i| format!("({i})")).collect::<Vec<_>>().join(",");
    format!(
        "WITH a AS (SELECT * FROM (VALUES {values}) AS x(i)), b AS (SELECT p.i + q.i * 60 AS i FROM a p CROSS JOIN a q) \
         SELECT count(*) AS n FROM b p CROSS JOIN b q CROSS JOIN b r WHERE (p.i + q.i * r.i) % 7 = 3"
    )
}

/// Waits until the server computes nothing any more.
fn idle(up: &Service) {
    let busy = || crate::support::cpu_ticks(up);
    up.wait("the end of the query's work", |_| {
        let before = busy();
        std::thread::sleep(Duration::from_millis(500));
        busy() - before < 25
    });
}

#[test]
fn a_slow_query_is_stopped() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let started = Instant::now();
    let body = json!({"sql": slow(), "timeout_ms": 300}).to_string();
    problem(&up.post("/v1/sql", body.into_bytes()), 504, "timeout", &[]);
    idle(&up);
    assert!(started.elapsed() < Duration::from_secs(20), "it is stopped: {:?}", started.elapsed());
    assert_eq!(up.sql("SELECT 1 AS one", None).status, 200, "the server goes on");
}

#[test]
fn a_query_ends_with_the_client_that_asked_it() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let body = json!({"sql": slow(), "timeout_ms": 600_000}).to_string();
    let url = format!("{}/v1/sql", up.url);
    let curl = std::process::Command::new("curl").args(["-s", "-m", "1", "-d", &body, &url]).status();
    assert_eq!(curl.expect("curl runs").code(), Some(28), "it gives up");
    idle(&up);
}

#[test]
fn what_is_not_reached_in_time_is_not_yet() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    answer(&up, "SELECT * FROM v", &offsets);
    let beyond = format!("{}/0:1000", case.topic);
    let started = Instant::now();
    let full = sql_body(&up, &json!({"sql": "SELECT * FROM v", "at_least": beyond, "timeout_ms": 300}));
    assert!(started.elapsed() >= Duration::from_millis(300), "it waits");
    problem(&full.reply, 503, "not-yet", &["1000"]);
    let retry = full.headers.get("retry-after").expect("Retry-After");
    assert!(retry.parse::<u64>().is_ok(), "{retry}");
    let elsewhere = format!("{}/9:1", case.topic);
    let full = sql_body(&up, &json!({"sql": "SELECT * FROM v", "at_least": elsewhere, "timeout_ms": 200}));
    problem(&full.reply, 503, "not-yet", &["/9"]);
    let path = format!("/v1/views/v/rows?at_least={}&timeout_ms=200", beyond);
    problem(&up.get(&path), 503, "not-yet", &["1000"]);
}

#[test]
fn rows_of_a_view() {
    let views = "CREATE MATERIALIZED VIEW v AS SELECT tumble(t, INTERVAL '1 minute') AS minute, k, count(*) AS c, sum(n) AS s \
        FROM e GROUP BY 1, 2; CREATE MATERIALIZED VIEW untimed AS SELECT k, count(*) AS c FROM e GROUP BY k;";
    let case = one_partition(&pipeline("k TEXT, n BIGINT", "", views));
    let up = up(&case);
    let line = |minute: u32, k: &str, n: i64| format!(r#"{{"t":"2026-01-01T00:{minute:02}:30Z","k":{k},"n":{n}}}"#);
    let lines: Vec<String> = vec![
        line(0, "\"a\"", 1),
        line(0, "\"b\"", 2),
        line(1, "\"a\"", 3),
        line(1, "null", 4),
        line(2, "\"c & d=e\"", 5),
        line(3, "\"a\"", 6),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let offsets = case.produce(&up, "e", &lines);
    let reply = up.get(&format!("/v1/views/v/rows?at_least={offsets}&order_by=minute,k"));
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["columns", "rows", "coverage", "as_of", "truncated"]);
    assert_eq!(body["rows"].as_array().map(Vec::len), Some(6));
    assert_eq!(body["rows"][0], json!({"minute": "2026-01-01T00:00:00Z", "k": "a", "c": 1, "s": 1}));
    assert_eq!(body["coverage"].as_array().map(Vec::len), Some(1));
    let sums = |query: &str| -> Vec<i64> {
        let reply = up.get(&format!("/v1/views/v/rows?at_least={offsets}&{query}"));
        assert_eq!(reply.status, 200, "{query}: {}", reply.text);
        let body = reply.json();
        body["rows"].as_array().expect("rows").iter().map(|row| row["s"].as_i64().expect("a sum")).collect()
    };
    // Half-open, on the view's time column.
    assert_eq!(sums("from=2026-01-01T00:01:00Z&to=2026-01-01T00:03:00Z&order_by=s"), [3, 4, 5]);
    assert_eq!(sums("from=2026-01-01T00:03:00Z"), [6]);
    assert_eq!(sums("to=2026-01-01T00:01:00Z&order_by=-s"), [2, 1]);
    assert_eq!(sums("from=2026-01-01T02:01:00%2B02:00&to=2026-01-01T00:02:00Z&order_by=s"), [3, 4]);
    assert_eq!(sums("where.k=b"), [2]);
    assert_eq!(sums("where.k=b&where.k=a&order_by=s"), [1, 2, 3, 6]);
    assert_eq!(sums("where.k.null=true"), [4]);
    assert_eq!(sums("where.k.null=true&where.k=b&order_by=s"), [2, 4]);
    assert_eq!(sums("where.k=a&where.c=1&where.s=3"), [3]);
    assert_eq!(sums("where.k=c+%26+d%3De"), [5]);
    assert_eq!(sums("where.minute=2026-01-01T00:02:00Z"), [5]);
    assert_eq!(sums("where.k=nobody"), [] as [i64; 0]);
    assert_eq!(sums("where.k=a&order_by=-minute"), [6, 3, 1]);
    assert_eq!(sums("order_by=-c,-s"), [6, 5, 4, 3, 2, 1]);
    let cut = |query: &str| {
        let body = up.get(&format!("/v1/views/v/rows?{query}")).json();
        (body["rows"].as_array().map(Vec::len), body["truncated"].clone())
    };
    assert_eq!(cut("limit=2"), (Some(2), json!(true)));
    assert_eq!(cut("limit=6"), (Some(6), json!(false)));
    assert_eq!(cut("limit=7"), (Some(6), json!(false)));
    assert_eq!(cut("limit=0").0, Some(0));
    for (query, words) in [
        ("where.nope=1", &["nope", "minute"][..]),
        ("order_by=nope", &["nope", "minute"]),
        ("from=yesterday", &["yesterday"]),
        ("limit=-1", &["limit"]),
        ("limit=x", &["limit"]),
        ("nope=1", &["nope", "order_by"]),
        ("where.c=x", &["x"]),
        ("at_least=x", &["at_least"]),
        ("timeout_ms=x", &["timeout_ms"]),
        ("where.k.null=maybe", &["where.k.null"]),
    ] {
        problem(&up.get(&format!("/v1/views/v/rows?{query}")), 400, "bad-query", words);
    }
    problem(&up.get("/v1/views/untimed/rows?from=2026-01-01"), 400, "bad-query", &["untimed", "time column"]);
}

#[test]
fn the_limit_of_rows_is_1000_by_default() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let lines: Vec<String> = (0..1001).map(|i| format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"{i}","n":1}}"#)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let offsets = case.produce(&up, "e", &lines);
    let body = up.get(&format!("/v1/views/v/rows?at_least={offsets}")).json();
    assert_eq!((body["rows"].as_array().map(Vec::len), &body["truncated"]), (Some(1000), &json!(true)));
}

#[test]
fn views_and_sources() {
    let views = "CREATE MATERIALIZED VIEW v AS SELECT tumble(t, INTERVAL '1 minute') AS minute, k, count(*) AS c FROM e GROUP BY 1, 2; \
        CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c FROM e;";
    let case = one_partition(&pipeline("k TEXT, n BIGINT", "", views));
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    answer(&up, "SELECT * FROM v", &offsets);
    let list = up.get("/v1/views").json();
    assert_eq!(list.as_object().map(serde_json::Map::len), Some(1));
    let names: Vec<&str> =
        list["views"].as_array().expect("views").iter().map(|view| view["name"].as_str().expect("a name")).collect();
    assert!(names.len() == 2 && names.contains(&"v") && names.contains(&"total"), "{list}");
    let view = up.get("/v1/views/v").json();
    for member in
        ["name", "source", "sql", "version", "state", "progress", "columns", "keys", "time_column", "coverage", "size"]
    {
        assert!(view.get(member).is_some(), "{member} in {view}");
    }
    assert_eq!((&view["name"], &view["source"], &view["state"]), (&json!("v"), &json!("e"), &json!("ready")));
    assert!(view["sql"].as_str().is_some_and(|sql| sql.contains("tumble")), "{view}");
    assert_eq!((&view["keys"], &view["time_column"]), (&json!(["minute", "k"]), &json!("minute")), "{view}");
    assert_eq!(view["columns"][0], json!({"name": "minute", "type": "timestamp"}));
    assert_eq!(view["coverage"]["partitions"][0]["speed"], json!([0, 3]), "{view}");
    let total = up.get("/v1/views/total").json();
    assert_eq!((&total["keys"], &total["time_column"]), (&json!([]), &Value::Null), "{total}");

    case.run(&["batch", "run", "--at-least", &offsets]).json();
    let sources = up.get("/v1/sources").json();
    assert_eq!((sources["sources"].as_array().map(Vec::len), &sources["sources"][0]["name"]), (Some(1), &json!("e")));
    let partition = &sources["sources"][0]["partitions"][0];
    let expected = json!({"topic": case.topic, "partition": 0, "origin": 0, "archived": 3, "folded": 3, "log_end": 3,
        "dead_letters": 0});
    assert_eq!(partition, &expected);
}

#[test]
fn events_are_appended_as_they_are() {
    let case = one_partition(COUNTS);
    let up = up_with(&case, &[("BIFOLD_COLLECT__MAX_RECORD", "1KiB")]);
    let post = |body: Vec<u8>, content_type: &str| {
        let full = request(&up, "POST", "/v1/events/e", &[("content-type", content_type)], body);
        assert_eq!(full.reply.status, 200, "{}", full.reply.text);
        let body = full.reply.json();
        let members: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(members, ["accepted", "offsets"]);
        (body["accepted"].as_u64().expect("a count"), body["offsets"].as_str().expect("offsets").to_string())
    };
    let at = |next: i64| format!("{}/0:{next}", case.topic);
    assert_eq!(post(format!("\n\n{}\r\n\r\n\n{}", LINES[0], LINES[1]).into(), "text/csv"), (2, at(2)));
    assert_eq!(post(vec![b'x'; 2000], "application/octet-stream"), (1, at(3)));
    assert_eq!(post(vec![0, 255, 1, b'\n', 254], "image/png"), (2, at(5)));
    assert_eq!(post(vec![], "application/json").0, 0);
    assert_eq!(post(format!("{}\n", LINES[0]).into(), "application/json"), (1, at(6)));
    assert_eq!(
        answer(&up, "SELECT k, c FROM v ORDER BY k", &at(6))["rows"],
        json!([{"k": "a", "c": 2}, {"k": "b", "c": 1}])
    );
    let letters = crate::support::dead_letters(&case, &up, 3);
    let reasons: Vec<&str> = letters.iter().map(|letter| letter["reason"].as_str().expect("a reason")).collect();
    assert_eq!(reasons, ["too_large", "not_utf8", "not_utf8"]);
    assert_eq!(letters[1]["payload_base64"], "AP8B");
}

#[test]
fn bodies_up_to_64_mib() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    // Few lines: what counts is the length.
    let line = format!("{{\"t\":\"2026-01-01T00:00:00Z\",\"k\":\"a\",\"pad\":\"{}\"}}\n", "x".repeat(500_000));
    let mut body = line.repeat((64 << 20) / line.len()).into_bytes();
    let lines = (64 << 20) / line.len();
    body.resize(64 << 20, b'\n');
    let reply = up.post("/v1/events/e", body.clone());
    assert_eq!(reply.status, 200, "{}", reply.text);
    assert_eq!(reply.json()["accepted"], lines);
    body.push(b'\n');
    problem(&up.post("/v1/events/e", body), 413, "limit-exceeded", &["64 MiB"]);
}

#[test]
fn a_sum_beyond_its_type_is_an_overflow() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let max = format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"big","n":{}}}"#, i64::MAX);
    let offsets = case.produce(&up, "e", &[LINES[0], &max, &max]);
    for _ in 0..2 {
        let body = problem(&up.sql("SELECT * FROM v", Some(&offsets)), 422, "overflow", &["v", "s", "big"]);
        assert_eq!((&body["view"], &body["column"]), (&json!("v"), &json!("s")), "{body}");
        assert!(body["group"].to_string().contains("big"), "{body}");
        assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("DECIMAL")), "{body}");
        case.run(&["batch", "run", "--at-least", &offsets]).json();
    }
    // It is judged when it is finished: what comes later may bring it back.
    let back = format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"big","n":-{}}}"#, i64::MAX);
    let offsets = case.produce(&up, "e", &[&back]);
    let rows = up.rows("SELECT s FROM v WHERE k = 'big'", &offsets);
    assert_eq!(rows, [json!({"s": i64::MAX})]);
}

#[test]
fn a_cast_to_decimal_does_not_overflow() {
    let views = "CREATE MATERIALIZED VIEW v AS SELECT sum(CAST(n AS DECIMAL(38,0))) AS s FROM e;";
    let case = one_partition(&pipeline("n BIGINT", "", views));
    let up = up(&case);
    let max = format!(r#"{{"t":"2026-01-01T00:00:00Z","n":{}}}"#, i64::MAX);
    let offsets = case.produce(&up, "e", &[&max, &max]);
    assert_eq!(up.rows("SELECT s FROM v", &offsets), [json!({"s": "18446744073709551614"})]);
}

#[test]
fn health_readiness_and_metrics() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    answer(&up, "SELECT * FROM v", &offsets);
    assert_eq!(up.get("/healthz").status, 200);
    let ready = up.get("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.text);
    up.wait("the metrics", |up| {
        ["collect", "speed"].iter().all(|role| {
            let labels = [("source", "e"), ("role", *role)];
            metric(up, "bifold_events_total", &labels) == 3.0
        })
    });
    let metrics = up.get("/metrics");
    assert!(metrics.content_type.starts_with("text/plain"), "{}", metrics.content_type);
    for role in ["collect", "speed"] {
        let labels = [format!("topic=\"{}\"", case.topic), "partition=\"0\"".into(), format!("role=\"{role}\"")];
        let found = |line: &&str| line.starts_with("bifold_lag_offsets{") && labels.iter().all(|l| line.contains(l));
        assert!(metrics.text.lines().any(|line| found(&line)), "{role}: {}", metrics.text);
    }
}

#[test]
fn timeout_ms_may_exceed_query_timeout() {
    let case = one_partition(COUNTS);
    configure(&case, "[serve]\nquery_timeout = '200ms'\n");
    let up = up(&case);
    let next = format!("{}/0:1", case.topic);
    let short = sql_body(&up, &json!({"sql": "SELECT * FROM v", "at_least": next})).reply;
    problem(&short, 503, "not-yet", &[&case.topic, "asked for 1"]);
    let mut long =
        case.command(&["query", "SELECT c FROM v", "--at-least", &next, "--timeout", "50s", "--url", &up.url]);
    let long = long.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    std::thread::sleep(Duration::from_millis(500));
    case.produce(&up, "e", &LINES[..1]);
    let ended = long.wait_with_output().expect("it ends");
    let body: Value = serde_json::from_slice(&ended.stdout).expect("the body");
    assert_eq!(body["rows"], json!([{"c": 1}]));
}

#[test]
fn a_record_longer_than_max_record_is_appended_all_the_same() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let long = |n: usize| format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"a","n":1,"pad":"{}"}}"#, "x".repeat(n));
    // The default is 1 MiB: 1,048,576 bytes.
    let most = long((1 << 20) - long(0).len());
    assert_eq!(most.len(), 1 << 20);
    let offsets = case_offsets(&up, &[&most]);
    assert_eq!(up.rows("SELECT c FROM v", &offsets), [json!({"c": 1})]);
    // Kafka's brokers judge what is compressed: this passes there, too.
    let offsets = case_offsets(&up, &[&long(1 << 20), LINES[0]]);
    assert_eq!(up.rows("SELECT c FROM v", &offsets), [json!({"c": 2})]);
    assert_eq!(crate::support::dead_letters(&case, &up, 1)[0]["reason"], "too_large");
}

fn case_offsets(up: &Service, lines: &[&str]) -> String {
    let reply = up.post("/v1/events/e", lines.join("\n").into_bytes());
    assert_eq!(reply.status, 200, "{}", reply.text);
    reply.json()["offsets"].as_str().expect("offsets").to_string()
}

#[test]
fn keys_are_the_text_of_the_column() {
    let case = partitions(COUNTS, 7);
    let up = up(&case);
    for (value, key) in [("42", "42"), ("\"é\"", "é"), ("-7", "-7")] {
        let column = if value.starts_with('"') { "k" } else { "n" };
        let line = format!(r#"{{"t":"2026-01-01T00:00:00Z","{column}":{value}}}"#);
        let reply = up.post(&format!("/v1/events/e?key={column}"), line.into_bytes());
        let offsets = reply.json()["offsets"].as_str().expect("offsets").to_string();
        let expected = crate::support::murmur2_partition(key.as_bytes(), 7);
        let found: Vec<i32> = crate::support::positions(&offsets).into_keys().map(|(_, partition)| partition).collect();
        assert_eq!(found, [expected], "{value}");
    }
    // A line without the column, and one that cannot be read, are appended without a key.
    let reply = up.post("/v1/events/e?key=k", b"{}\nnope\n".to_vec());
    assert_eq!((reply.status, &reply.json()["accepted"]), (200, &json!(2)));
}
