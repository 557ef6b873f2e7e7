//! Corners of SQL in which the parser, the optimizer or Arrow give another answer than PostgreSQL: the right values, in views at every
//! boundary, and in queries. `docs/upstream.md` says which fault each works around.

use bifold_fold::{Engine, pipeline, view};
use serde_json::{Value, json};

use super::differential::Case;
use super::log::MAX_RECORD;

/// A view over some events, or a query over such a view, and its rows.
struct Corner {
    /// What it shows.
    about: &'static str,
    columns: &'static str,
    events: Value,
    /// The SELECT of the view, which has one row.
    view: &'static str,
    row: Value,
}

/// Three texts and NULL.
fn texts() -> Value {
    json!([{"k": "x"}, {"k": "axb"}, {"k": "y"}, {"k": null}])
}

fn numbers(column: &str, values: &[&str]) -> Value {
    let event = |value: &&str| {
        let text = format!("{{\"{column}\": {value}}}");
        serde_json::value::RawValue::from_string(text).expect("an event")
    };
    // Through text, so that no digit is lost.
    let events: Vec<_> = values.iter().map(event).collect();
    json!(events.iter().map(|event| event.get()).collect::<Vec<_>>())
}

fn corners() -> Vec<Corner> {
    let robots = json!([
        {"robot": false, "n": 2}, {"robot": true, "n": 3}, {"robot": null, "n": 1}, {"robot": null, "n": 5},
        {"robot": false, "n": 0}, {"robot": true, "n": 0},
    ]);
    let corner = |about, columns, events, view, row| Corner { about, columns, events, view, row };
    vec![
        corner(
            "IS DISTINCT FROM takes one operand",
            "robot BOOLEAN, n BIGINT",
            robots.clone(),
            "SELECT count(*) FILTER (WHERE robot IS DISTINCT FROM true AND n > 1) AS a,
                    count(*) FILTER (WHERE robot IS NOT DISTINCT FROM NULL OR n = 3) AS b,
                    count(*) FILTER (WHERE n > 0 AND robot IS DISTINCT FROM true OR n = 0) AS c,
                    count(*) FILTER (WHERE robot IS DISTINCT FROM n > 1) AS d,
                    count(*) FILTER (WHERE NOT robot IS DISTINCT FROM true AND n = 0) AS e
             FROM t",
            json!({"a": 2, "b": 3, "c": 5, "d": 4, "e": 1}),
        ),
        corner(
            "comparisons bind looser than IN, BETWEEN, LIKE and ~",
            "robot BOOLEAN, n BIGINT",
            robots,
            "SELECT count(*) FILTER (WHERE robot = n IN (3, 5)) AS a,
                    count(*) FILTER (WHERE robot = n BETWEEN 1 AND 2) AS b,
                    count(*) FILTER (WHERE robot = CAST(n AS TEXT) LIKE '3%') AS c,
                    count(*) FILTER (WHERE robot = CAST(n AS TEXT) ~ '^3$') AS d
             FROM t",
            json!({"a": 3, "b": 1, "c": 3, "d": 3}),
        ),
        corner(
            "a condition of NULL is neither true nor false",
            "k TEXT",
            texts(),
            "SELECT count(*) FILTER (WHERE k NOT IN ('x') OR k NOT IN ('y')) AS a,
                    count(*) FILTER (WHERE NOT (k IN ('x') AND k IN ('y'))) AS b,
                    count(*) FILTER (WHERE NOT (k ~ '.*')) AS c,
                    count(*) FILTER (WHERE NOT (k LIKE '%')) AS d,
                    count(*) FILTER (WHERE (k ~ '.*') IS NULL) AS e,
                    count(*) FILTER (WHERE k IN ('x', 'y') AND k NOT IN ('y', NULL)) AS f,
                    count(*) FILTER (WHERE NOT (k = k)) AS g,
                    count(*) FILTER (WHERE 'x' = k AND k = 'x') AS h
             FROM t",
            json!({"a": 3, "b": 3, "c": 0, "d": 0, "e": 1, "f": 0, "g": 0, "h": 1}),
        ),
        corner(
            "the same in WHERE",
            "k TEXT",
            texts(),
            "SELECT count(*) AS n FROM t WHERE k NOT IN ('x') OR k NOT IN ('y')",
            json!({"n": 3}),
        ),
        corner(
            "SIMILAR TO matches the whole text",
            "k TEXT",
            texts(),
            "SELECT count(*) FILTER (WHERE k SIMILAR TO 'x') AS a, count(*) FILTER (WHERE k SIMILAR TO '%x%') AS b,
                    count(*) FILTER (WHERE k NOT SIMILAR TO '(x|y)') AS c, count(*) FILTER (WHERE k SIMILAR TO '_x_') AS d
             FROM t",
            json!({"a": 1, "b": 2, "c": 1, "d": 1}),
        ),
        corner(
            "-(a | b) is not a complement, and a backslash in a pattern is one",
            "a BIGINT, k TEXT",
            json!([{"a": 1, "k": "ab"}, {"a": 4, "k": "a\\b"}]),
            "SELECT sum(-(a | 2)) AS s, sum(a & -a) AS b, count(*) FILTER (WHERE k ~ 'a\\\\b') AS n FROM t",
            json!({"s": -9, "b": 5, "n": 1}),
        ),
        corner(
            "infinities are extremes",
            "s TEXT",
            json!([{"s": "-Infinity"}, {"s": "-Infinity"}, {"s": "-Infinity"}]),
            "SELECT min(CAST(s AS DOUBLE)) AS a, max(CAST(s AS DOUBLE)) AS b, min(-CAST(s AS DOUBLE)) AS c FROM t",
            json!({"a": "-Infinity", "b": "-Infinity", "c": "Infinity"}),
        ),
        corner(
            "NaN is the greatest, and one; there is one zero",
            "s TEXT, x DOUBLE",
            json!([
                {"s": "NaN", "x": 0.0}, {"s": "1", "x": -0.0}, {"s": "Infinity", "x": 0.0}, {"s": "-NaN", "x": -0.0},
                {"s": "-Infinity", "x": 0.0}, {"s": "NaN", "x": -0.0},
            ]),
            "SELECT max(CAST(s AS DOUBLE)) AS a, min(CAST(s AS DOUBLE)) AS b, count(DISTINCT x) AS c,
                    count(DISTINCT CAST(s AS DOUBLE) - CAST(s AS DOUBLE)) AS d,
                    count(*) FILTER (WHERE CAST(s AS DOUBLE) > 1e300) AS e, count(*) FILTER (WHERE x = -0.0) AS f,
                    count(*) FILTER (WHERE CAST(s AS DOUBLE) = CAST('NaN' AS DOUBLE)) AS g, max(x * -1) AS h
             FROM t",
            json!({"a": "NaN", "b": "-Infinity", "c": 1, "d": 2, "e": 4, "f": 6, "g": 3, "h": 0.0}),
        ),
        corner(
            "a division by zero is NULL",
            "x DOUBLE, n BIGINT, d DECIMAL(4,2)",
            json!([{"x": 1.5, "n": 1, "d": 1.5}]),
            "SELECT max(x / 0.0) AS a, max(x / (x - x)) AS b, max(n / 0) AS c, max(d / 0) AS d, max(x % 0.0) AS e, max(n / 3.0) AS f
             FROM t",
            json!({"a": null, "b": null, "c": null, "d": null, "e": null, "f": "0.3333333333333333"}),
        ),
        corner(
            "no coercion loses a value",
            "d DECIMAL(38,0), e DECIMAL(38,0), n BIGINT, x DOUBLE",
            numbers("d", &["1", "0", "100000000000000000000000", "99999999999999999999999999999999999999"]),
            "SELECT count(*) FILTER (WHERE d > 0.5) AS a, max(coalesce(d, 0.5)) AS b, max(CASE WHEN d > 1 THEN d ELSE 0.5 END) AS c,
                    max(greatest(d, 0.5)) AS g, count(*) FILTER (WHERE d IN (0.5, 1)) AS i,
                    count(*) FILTER (WHERE d BETWEEN 0.5 AND 1.5) AS j, count(*) FILTER (WHERE nullif(d, 0.0) IS NULL) AS k
             FROM t",
            json!({
                "a": 3, "b": "99999999999999999999999999999999999999.0", "c": "99999999999999999999999999999999999999.0",
                "g": "99999999999999999999999999999999999999.0", "i": 1, "j": 1, "k": 1,
            }),
        ),
        corner(
            "comparisons of an integer with a double are exact",
            "n BIGINT, x DOUBLE",
            json!([
                {"n": 9007199254740993i64, "x": 9007199254740992.0}, {"n": 9007199254740992i64, "x": 9007199254740992.0},
                {"n": 1, "x": 1.5}, {"n": null, "x": 1.0}, {"n": 9223372036854775807i64, "x": 9223372036854775808.0},
            ]),
            "SELECT count(*) FILTER (WHERE n = x) AS a, count(*) FILTER (WHERE n > x) AS b, count(*) FILTER (WHERE n < x) AS c,
                    count(*) FILTER (WHERE n IS DISTINCT FROM x) AS d, count(*) FILTER (WHERE n IN (x)) AS e,
                    count(*) FILTER (WHERE x BETWEEN n AND n) AS f, count(*) FILTER (WHERE x > 1) AS g
             FROM t",
            json!({"a": 1, "b": 1, "c": 2, "d": 4, "e": 1, "f": 1, "g": 4}),
        ),
        corner(
            "a decimal literal is exact, and the nearest double beside a double",
            "c DECIMAL(38,3), i BIGINT, a BIGINT, x DOUBLE",
            json!([
                "{\"c\": 1234567890123456.789, \"i\": 9007199254740993, \"a\": 1, \"x\": 0.1}",
                "{\"c\": 1234567890123456.788, \"i\": 9007199254740992, \"a\": 2, \"x\": 0.2}",
                "{\"c\": 0.001, \"i\": 9007199254740991, \"a\": 3, \"x\": 0.30000000000000004}",
            ]),
            "SELECT count(*) FILTER (WHERE c = 1234567890123456.789) AS a, count(*) FILTER (WHERE i = 9007199254740993.0) AS b,
                    sum(a * 1.1) AS c, count(*) FILTER (WHERE x = 0.1) AS d, count(*) FILTER (WHERE x > 0.1) AS e,
                    count(*) FILTER (WHERE x IN (0.1, 0.2, 0.3)) AS f, count(*) FILTER (WHERE i < 1e300) AS g,
                    count(*) FILTER (WHERE i < 1e23) AS h, count(*) FILTER (WHERE CAST(c AS BIGINT) = 0) AS i
             FROM t",
            json!({"a": 1, "b": 1, "c": "6.6", "d": 1, "e": 2, "f": 2, "g": 3, "h": 3, "i": 1}),
        ),
        corner(
            "times reach as far as a TIMESTAMP",
            "ts TIMESTAMP, b BOOLEAN",
            json!([
                {"ts": "9999-12-31T23:59:59Z", "b": true}, {"ts": "0001-01-01T00:00:00Z", "b": false},
                {"ts": "2024-02-29T12:00:00Z", "b": null},
            ]),
            "SELECT count(ts AT TIME ZONE 'UTC') AS a, count(CASE WHEN b THEN ts ELSE TIMESTAMP '9999-12-31 00:00:00' END) AS b,
                    max(greatest(ts, TIMESTAMP '2300-01-01 00:00:00')) AS c, count(*) FILTER (WHERE ts < TIMESTAMP '9999-12-31') AS d,
                    count(date_trunc('month', ts)) AS e, count(date_trunc('month', ts AT TIME ZONE 'UTC')) AS l, max(date_trunc('month', ts)) AS f,
                    count(*) FILTER (WHERE ts > '9000-01-01') AS g, max(coalesce(ts, to_timestamp('2999-01-01T00:00:00'))) AS h,
                    count(*) FILTER (WHERE CAST(ts AS DATE) = DATE '9999-12-31') AS i, count(*) FILTER (WHERE ts > DATE '2100-01-01') AS j,
                    min(least(ts, '2000-01-01')) AS k
             FROM t",
            json!({
                "a": 3, "b": 3, "c": "9999-12-31T23:59:59Z", "d": 2, "e": 3, "f": "9999-12-01T00:00:00Z", "g": 1,
                "h": "9999-12-31T23:59:59Z", "i": 1, "j": 1, "k": "0001-01-01T00:00:00Z", "l": 3,
            }),
        ),
        corner(
            "measures of large values",
            "y DOUBLE, x DOUBLE",
            json!([
                {"y": 1e15, "x": 1e15}, {"y": 1000000000000001.0, "x": 1000000000000000.5}, {"y": 1e15, "x": 1000000000000000.5},
                {"y": 1000000000000001.0, "x": 1000000000000001.0}, {"y": 1e15, "x": 1e15}, {"y": 1000000000000001.0, "x": 1e15},
            ]),
            "SELECT round(covar_pop(y, x), 9) AS a, round(var_pop(y), 9) AS b, round(regr_slope(x, y), 9) AS c,
                    round(stddev_pop(x), 9) AS d, regr_count(y, x) AS e
             FROM t",
            json!({"a": 0.083333333, "b": 0.25, "c": 0.333333333, "d": 0.372677996, "e": 6}),
        ),
        corner(
            "rows are compared column by column",
            "i BIGINT, k TEXT, n BIGINT, x DOUBLE",
            json!([
                {"i": 1, "k": "a", "n": 9007199254740993i64, "x": 9007199254740992.0}, {},
                {"i": 3, "k": "z", "n": 1, "x": 1.0}, {"i": 1, "k": "b", "n": 2, "x": 2.5},
            ]),
            "SELECT count(*) FILTER (WHERE (i, k) NOT IN ((1, 'a'))) AS a, count(*) FILTER (WHERE (n, k) = (x, k)) AS b,
                    count(*) FILTER (WHERE (i, k) <> (1, 'a')) AS c, count(*) FILTER (WHERE (i, k) IN ((1, 'b'), (3, 'z'))) AS d,
                    count(*) FILTER (WHERE ((i, k) = (i, k)) IS NULL) AS e
             FROM t",
            json!({"a": 2, "b": 1, "c": 2, "d": 2, "e": 1}),
        ),
        corner(
            "a result has a type that it fits",
            "d DECIMAL(38,0), p DECIMAL(18,2), n BIGINT, b BOOLEAN",
            json!(["{\"d\": 99999999999999999999999999999999999999, \"p\": 9999999999999999.99, \"n\": 9223372036854775807, \"b\": true}"]),
            "SELECT max(d + 1) AS a, max(d - 0.5) AS b, max(p * n) AS c, max(d * 2) AS m,
                    count(*) FILTER (WHERE b IS TRUE) AS e, sum(n) FILTER (WHERE b IS TRUE) AS f,
                    count(*) FILTER (WHERE INTERVAL '1 day' = INTERVAL '24 hours') AS g,
                    count(*) FILTER (WHERE INTERVAL '1 day' > INTERVAL '25 hours') AS h
             FROM t",
            json!({
                "a": "100000000000000000000000000000000000000", "b": "99999999999999999999999999999999999998.5",
                "c": "92233720368547757977766279631452241.93", "m": "199999999999999999999999999999999999998",
                "e": 1, "f": 9223372036854775807i64, "g": 1, "h": 0,
            }),
        ),
        corner(
            "two expressions that differ by a CAST, or by parentheses, are two columns",
            "a BIGINT, b BIGINT",
            json!([{"a": 3, "b": 2}, {"a": 4, "b": 5}]),
            "SELECT sum(a) AS i, sum(CAST(a AS DOUBLE)) AS d, max(CAST(a AS TEXT)) AS t, max(a) AS m,
                    sum((a + b) * b) AS p, sum(a + b * b) AS q
             FROM t HAVING sum(CAST(a AS DECIMAL(10,2))) > 6.5",
            json!({"i": 7, "d": 7.0, "t": "4", "m": 4, "p": 55, "q": 36}),
        ),
    ]
}

/// Events as a case takes them: objects, or texts of objects.
fn events(of: &Value) -> Vec<Box<serde_json::value::RawValue>> {
    let text = |event: &Value| event.as_str().map_or_else(|| event.to_string(), str::to_string);
    let raw = |event: &Value| serde_json::value::RawValue::from_string(text(event)).expect("an event");
    of.as_array().expect("a list").iter().map(raw).collect()
}

#[tokio::test]
async fn corners_are_right_at_every_boundary() {
    let engine = Engine::new();
    let mut wrong = vec![];
    for corner in corners() {
        let case = Case {
            id: json!(corner.about),
            columns: corner.columns.to_string(),
            view: corner.view.to_string(),
            queries: vec![],
            events: events(&corner.events),
        };
        let answer = case.answer(&engine, &engine).await;
        for boundary in ["speed", "split", "batch", "plain"] {
            if answer["answers"][boundary] != json!([corner.row]) {
                let found = if answer["refused"].is_null() { &answer["answers"][boundary] } else { &answer["refused"] };
                wrong.push(format!("{} ({boundary}):\n  {found}\n  instead of {}", corner.about, corner.row));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn corners_are_right_in_queries() {
    let engine = Engine::new();
    let mut wrong = vec![];
    // The rows of the view are the events: each has its own number.
    for (about, columns, rows, query, expected) in [
        (
            "IS DISTINCT FROM takes one operand",
            "robot BOOLEAN, n BIGINT",
            json!([{"robot": false, "n": 2}, {"robot": true, "n": 3}, {"robot": null, "n": 1}, {"robot": null, "n": 5}]),
            "SELECT count(*) AS n FROM v WHERE robot IS DISTINCT FROM true AND n > 1",
            json!([{"n": 2}]),
        ),
        (
            "a condition of NULL is neither true nor false",
            "k TEXT",
            texts(),
            "SELECT count(*) FILTER (WHERE k NOT IN ('x') OR k NOT IN ('y')) AS a, count(*) FILTER (WHERE NOT (k ~ '.*')) AS b,
                    count(*) FILTER (WHERE NOT (k LIKE '%')) AS c, count(*) FILTER (WHERE k SIMILAR TO 'x') AS d FROM v",
            json!([{"a": 3, "b": 0, "c": 0, "d": 1}]),
        ),
        (
            "a computed column beside a field of a struct",
            "a BIGINT, b BIGINT",
            json!([{"a": 1, "b": 10}, {"a": 2, "b": 20}]),
            "SELECT s['b'] AS b, a * 2 AS a FROM (SELECT a, named_struct('b', b) AS s FROM v) w ORDER BY a",
            json!([{"b": 10, "a": 2}, {"b": 20, "a": 4}]),
        ),
        (
            "numbers are exact",
            "n BIGINT, x DOUBLE, d DECIMAL(38,0)",
            json!(["{\"n\": 9007199254740993, \"x\": 9007199254740992.0, \"d\": 100000000000000000000000}"]),
            "SELECT n = x AS a, n = 9007199254740993.0 AS b, d > 0.5 AS c, coalesce(d, 0.5) AS d, 0.1 + 0.2 AS e, n / 0 AS f,
                    n IN (x, 1.5) AS g FROM v",
            json!([{"a": false, "b": true, "c": true, "d": "100000000000000000000000.0", "e": "0.3", "f": null, "g": false}]),
        ),
        (
            "NaN is the greatest, and there is one zero",
            "x DOUBLE, y DOUBLE",
            json!([{"x": 0.0, "y": 1e308}, {"x": -0.0, "y": 1e308}, {"x": 1.0, "y": 1.0}]),
            "SELECT count(DISTINCT x) AS a, max((y * 10) - (y * 10)) AS b, min(x * -1) AS c,
                    count(*) FILTER (WHERE (y * 10) - (y * 10) > 5) AS d FROM v",
            json!([{"a": 2, "b": "NaN", "c": -1.0, "d": 2}]),
        ),
        (
            "times reach as far as a TIMESTAMP",
            "ts TIMESTAMP",
            json!([{"ts": "9999-12-31T23:59:59Z"}, {"ts": "0001-01-01T00:00:00Z"}]),
            "SELECT max(greatest(ts, TIMESTAMP '2300-01-01')) AS a, count(ts AT TIME ZONE 'UTC') AS b,
                    count(*) FILTER (WHERE ts < now()) AS c, min(date_trunc('year', ts)) AS d,
                    max(CASE WHEN ts > DATE '2000-01-01' THEN ts ELSE now() END) > now() AS e FROM v",
            json!([{"a": "9999-12-31T23:59:59Z", "b": 2, "c": 1, "d": "0001-01-01T00:00:00Z", "e": true}]),
        ),
        (
            "two expressions that differ by a CAST are two columns",
            "a BIGINT",
            json!([{"a": 3}, {"a": 4}]),
            "SELECT sum(a) AS i, sum(CAST(a AS DOUBLE)) AS d FROM v HAVING sum(CAST(a AS DECIMAL(10,2))) > 6.5",
            json!([{"i": 7, "d": 7.0}]),
        ),
    ] {
        let names: Vec<&str> = columns.split(", ").filter_map(|column| column.split(' ').next()).collect();
        let keys = names.join(", ");
        let case = Case {
            id: json!(about),
            columns: columns.to_string(),
            view: format!("SELECT _offset, {keys}, count(*) AS events FROM t GROUP BY _offset, {keys}"),
            queries: vec![query.to_string()],
            events: events(&rows),
        };
        let answer = case.answer(&engine, &engine).await;
        let found = &answer["queries"][0];
        if found["rows"] != expected {
            wrong.push(format!("{about}:\n  {found} {}\n  instead of {expected}", answer["refused"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn what_would_lose_values_is_refused() {
    let engine = Engine::new();
    for (columns, select, said) in [
        (
            "w DECIMAL(38,0), d DECIMAL(38,38)",
            "SELECT max(CASE WHEN d > 0 THEN CAST(w AS DECIMAL(76,0)) ELSE d END) AS m FROM t",
            "no decimal of 76 digits holds every value of CASE",
        ),
        ("k TEXT, n BIGINT", "SELECT count(*) AS c FROM t WHERE k = n", "one is a number and the other is text"),
        ("k TEXT", "SELECT count(*) AS c FROM t WHERE k = 5", "one is a number and the other is text"),
        ("n BIGINT", "SELECT count(*) AS c FROM t WHERE n = 'abc'", "is compared with a number, and is not one"),
        ("n BIGINT", "SELECT count(*) AS c FROM t WHERE n", "non-boolean"),
        (
            "k TEXT, p TEXT",
            "SELECT count(*) AS c FROM t WHERE k SIMILAR TO p",
            "the pattern of SIMILAR TO has to be a constant text",
        ),
        ("k TEXT, ts TIMESTAMP", "SELECT count(*) AS c FROM t WHERE ts > k", "one is a time and the other is text"),
        ("n BIGINT, x DOUBLE", "SELECT count(*) AS c FROM t WHERE array_has([x], n)", "numbers of different types"),
        ("n BIGINT, k TEXT", "SELECT count(*) AS c FROM t WHERE (n, k) < (1, 'a')", "rows are not compared by <"),
    ] {
        let text = format!(
            "CREATE TABLE t ({columns}) WITH (connector = 'kafka', topic = 't', format = 'json');
             CREATE MATERIALIZED VIEW v AS {select}"
        );
        let pipeline = pipeline::parse("corner.sql", &text, MAX_RECORD).unwrap_or_else(|e| panic!("{e}"));
        let refused = view::compile(&engine, &pipeline, &pipeline.views[0]).await;
        let refused = refused.map_or_else(|error| error.to_string(), |view| format!("it compiles: {}", view.sql));
        assert!(refused.contains(said), "{select}: {refused}");
    }
}
