//! Queries that ask for more than there is: they are refused, or end in time, and others do not notice.

use std::time::{Duration, Instant};

use crate::harness::{Case, Service, ask_within, sql_at};
use crate::support::{one_partition, pipeline, problem, up_with};

const VIEW: &str = "CREATE MATERIALIZED VIEW v AS SELECT s, n, count(*) AS c FROM e GROUP BY s, n;";

fn service() -> (Case, Service, String) {
    let case = one_partition(&pipeline("s TEXT, n BIGINT", "", VIEW));
    let up = up_with(&case, &[("BIFOLD_SERVE__QUERY_MEMORY", "256MiB")]);
    let lines: Vec<String> =
        (0..100).map(|n| format!(r#"{{"t":"2026-01-01T00:00:00Z","s":"s{n}","n":{n}}}"#)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let offsets = case.produce(&up, "e", &lines);
    (case, up, offsets)
}

fn doubling(times: usize) -> String {
    let mut sql = "WITH a0 AS (SELECT n FROM v)".to_string();
    for i in 1..=times {
        sql += &format!(", a{i} AS (SELECT l.n FROM a{} l JOIN a{} r ON l.n = r.n)", i - 1, i - 1);
    }
    format!("{sql} SELECT count(*) AS c FROM a{times}")
}

/// Resident memory in bytes, where the system tells it.
fn memory(service: &Service) -> f64 {
    let metrics = service.get("/metrics").text;
    let line = metrics.lines().find(|line| line.starts_with("process_resident_memory_bytes"));
    line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
}

#[test]
fn a_query_too_large_to_plan_is_refused_at_once() {
    let (_case, up, offsets) = service();
    let cube = (0..20).map(|i| format!("n + {i}")).collect::<Vec<_>>().join(", ");
    for (sql, words) in [
        (format!("SELECT {} AS x FROM v", vec!["n"; 32_000].join("+")), "expressions within each other"),
        (
            format!("SELECT count(*) AS x FROM v WHERE {}", vec!["n=1"; 9_000].join(" OR ")),
            "expressions within each other",
        ),
        (format!("SELECT count(*) AS x FROM v GROUP BY CUBE ({cube})"), "grouping sets"),
        (doubling(24), "tables"),
        (format!("SELECT {} AS x FROM v", "x".repeat(60_000)), "a name"),
        (format!("SELECT n AS {} FROM v", "x".repeat(60_000)), "a name"),
    ] {
        let asked = Instant::now();
        problem(&up.sql(&sql, Some(&offsets)), 422, "limit-exceeded", &[words]);
        assert!(asked.elapsed() < Duration::from_secs(20), "{words}: {:?}", asked.elapsed());
    }
    // What is long and harmless is answered.
    for sql in [
        format!("SELECT max(length({})) AS x FROM v", vec!["s"; 200].join(" || ")),
        format!(
            "SELECT count(*) AS x FROM v WHERE n IN ({})",
            (0..9_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",")
        ),
        format!("SELECT {} AS x FROM v WHERE n = 1", vec!["n"; 200].join("+")),
        doubling(5),
    ] {
        let reply = up.sql(&sql, Some(&offsets));
        assert_eq!(reply.status, 200, "{}: {}", &sql[..60], reply.text);
    }
}

#[test]
fn functions_that_compute_for_long_or_make_large_values_are_refused() {
    let (_case, up, offsets) = service();
    let before = memory(&up);
    let many = |call: &str, count: usize| vec![call; count].join(", ");
    for sql in [
        "SELECT levenshtein(repeat('a', 3000000), repeat('b', 3000000)) AS x FROM v".to_string(),
        "SELECT levenshtein(repeat(s, 30000), repeat('b', 30000)) AS x FROM v".to_string(),
        format!("SELECT length(concat({})) AS x FROM v", many("repeat('x', 67000000)", 100)),
        format!("SELECT length(concat_ws('-', {})) AS x FROM v", many("repeat(s, 300000)", 30)),
        format!("SELECT length({}) AS x FROM v", vec!["repeat(s, 100000)"; 50].join(" || ")),
        format!("SELECT array_length(array_concat({})) AS x FROM v", many("range(67000000)", 20)),
        "SELECT length(replace(repeat('x', 60000000), 'x', repeat('y', 60000000))) AS x FROM v".to_string(),
        "SELECT count(*) AS x FROM v WHERE array_has(range(0, 1000000), n)".to_string(),
        "SELECT count(*) AS x FROM (SELECT n, unnest(range(0, 1000000)) AS y FROM v) t".to_string(),
        "SELECT count(*) AS x FROM (SELECT unnest(string_to_array(repeat('a,', 1000000), ',')) AS y FROM v) t".to_string(),
        "SELECT array_length(array_repeat(array_repeat(array_repeat(1, 1000), 1000), 1000)) AS x FROM v".to_string(),
        "SELECT array_length(CASE WHEN n > 5 THEN range(0, 1000000) ELSE [n] END) AS x FROM v".to_string(),
        "SELECT strpos(repeat('a', 60000000), s) AS x FROM v".to_string(),
        "SELECT s, repeat('a', 60000000) AS x FROM v".to_string(),
        "SELECT length(string_agg(s, repeat('x', 30000000))) AS x FROM v".to_string(),
        format!("SELECT array_length({}s{}) AS x FROM v", "array_repeat(".repeat(5), ", 300)".repeat(5)),
        "SELECT length(string_agg(repeat(s, 50000), ',') OVER (ORDER BY n)) AS x FROM (SELECT a.s, a.n * 100 + b.n AS n FROM v a, v b) w".to_string(),
        "SELECT array_length(array_agg(s) OVER (ORDER BY n)) AS x FROM (SELECT a.s, a.n * 100 + b.n AS n FROM v a, v b) w".to_string(),
        format!(
            "SELECT max(length(x10)) AS x FROM (SELECT {} FROM (SELECT repeat('x', 1000000) AS x0 FROM v) w) w",
            "x0||x0||x0||x0||x0||x0||x0||x0||x0||x0||x0||x0||x0||x0||x0||x0 AS x10"
        ),
    ] {
        let reply = up.sql(&sql, Some(&offsets));
        assert!(matches!(reply.status, 422 | 504), "{}: {} {}", &sql[..70], reply.status, reply.text);
    }
    let took = (memory(&up) - before) / f64::from(1 << 20);
    assert!(took < 768.0, "{took} MiB more than before");
    // Ordinary calls of the same functions are answered.
    for sql in [
        "SELECT levenshtein(s, 's10') AS x, concat(s, '-', n) AS y, s || '-' || s AS z FROM v ORDER BY n",
        "SELECT count(*) AS x FROM v WHERE array_has(range(0, 1000), n)",
        "SELECT sum(y) AS x FROM (SELECT unnest([1, 2, n]) AS y FROM v) t",
        "SELECT [[s, s], [s]] AS x FROM v",
        "SELECT s, n, count(*) AS y FROM v GROUP BY CUBE (s, n)",
        "SELECT n, string_agg(s, ',') OVER (ORDER BY n) AS x, array_agg(s) OVER (PARTITION BY n) AS y FROM v",
        "SELECT n % 3 AS m, string_agg(s, ',' ORDER BY n DESC) AS x, array_agg(DISTINCT s) AS y FROM v GROUP BY 1",
        "SELECT array_length(array_concat(range(1000), range(n))) AS x, replace(repeat(s, 100), 's', 'tt') AS y FROM v",
    ] {
        let reply = up.sql(sql, Some(&offsets));
        assert_eq!(reply.status, 200, "{sql}: {}", reply.text);
    }
}

#[test]
fn queries_that_do_not_end_cost_nobody_else() {
    let (_case, up, offsets) = service();
    // Each keeps a core until its deadline.
    let slow = "SELECT count(*) AS x FROM v a, v b, v c, v d, v e, v f WHERE (a.n + b.n + c.n + d.n + e.n) % 100 = f.n";
    let heavy = format!("SELECT {} AS x FROM v", vec!["n"; 900].join("+"));
    let url = up.url.clone();
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let (url, sql) = (url.clone(), if i % 2 == 0 { slow.to_string() } else { heavy.clone() });
            std::thread::spawn(move || ask_within(&url, &sql, 6_000).status)
        })
        .collect();
    std::thread::sleep(Duration::from_millis(500));
    let (mut worst, until) = (Duration::ZERO, Instant::now() + Duration::from_secs(5));
    while Instant::now() < until {
        let asked = Instant::now();
        let reply = sql_at(&url, "SELECT count(*) AS c FROM v", Some(&offsets));
        assert_eq!(reply.status, 200, "{}", reply.text);
        worst = worst.max(asked.elapsed());
        assert_eq!(up.get("/healthz").status, 200);
    }
    assert!(worst < Duration::from_secs(4), "an ordinary query took {worst:?}");
    for thread in threads {
        let status = thread.join().expect("it asks");
        assert!(matches!(status, 200 | 422 | 504), "{status}");
    }
}
