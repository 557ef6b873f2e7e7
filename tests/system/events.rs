//! A pipeline, made-up events for it, and the answers they must give.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Case, Ran, Service};

/// Two views over one source: two sections a delta, two batch views a publication.
pub(crate) const PIPELINE: &str = "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t - INTERVAL '5 seconds') \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW by_key AS SELECT tumble(t, INTERVAL '1 minute') AS minute, k, count(*) AS c, sum(n) AS s \
    FROM e GROUP BY 1, 2; \
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s, min(n) AS low, max(n) AS high FROM e;";

/// A url where nobody listens.
pub(crate) const NOBODY: &str = "http://127.0.0.1:9";

/// Event `i` as a line. Every tenth is malformed.
pub(crate) fn line(i: usize) -> String {
    match i % 10 {
        9 => format!("{{\"t\": broken {i}"),
        _ => {
            let (minute, second) = (i / 60 % 60, i % 60);
            format!(r#"{{"t":"2026-01-01T00:{minute:02}:{second:02}Z","k":"k{}","n":{i}}}"#, i % 7)
        }
    }
}

/// Lines of events.
pub(crate) fn lines(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(line).collect()
}

/// The rows of `by_key`, and of `total`, over these events, in the order that [`check`] asks for.
pub(crate) fn expected(numbers: impl IntoIterator<Item = usize>) -> (Vec<Value>, Vec<Value>) {
    let mut groups: BTreeMap<(String, String), (u64, usize)> = BTreeMap::new();
    let mut all = vec![];
    for i in numbers.into_iter().filter(|i| i % 10 != 9) {
        let group = groups.entry((format!("2026-01-01T00:{:02}:00Z", i / 60 % 60), format!("k{}", i % 7))).or_default();
        group.0 += 1;
        group.1 += i;
        all.push(i);
    }
    let by_key =
        groups.iter().map(|((minute, k), (c, s))| json!({ "minute": minute, "k": k, "c": c, "s": s })).collect();
    let sum = (!all.is_empty()).then(|| all.iter().sum::<usize>());
    (by_key, vec![json!({ "c": all.len(), "s": sum, "low": all.iter().min(), "high": all.iter().max() })])
}

/// Asserts that the answers at the log's end are those of these events.
pub(crate) fn check(service: &Service, numbers: impl IntoIterator<Item = usize> + Clone, why: &str) {
    let (by_key, total) = expected(numbers);
    let got = service.rows("SELECT c, s, low, high FROM total", "latest");
    assert_eq!(got, total, "{why}: total\n{}", service.stderr());
    let got = service.rows("SELECT minute, k, c, s FROM by_key ORDER BY minute, k", "latest");
    assert_eq!(got, by_key, "{why}: by_key\n{}", service.stderr());
}

/// Asserts that `bifold verify` finds every view equal, asking `service`.
pub(crate) fn verify(case: &Case, service: &Service, why: &str) {
    all_equal(&case.run(&["verify", "--url", &service.url, "--output", "json"]), why);
}

/// Asserts that `bifold verify --offline` finds every view equal.
pub(crate) fn verify_offline(case: &Case, why: &str) {
    all_equal(&case.run(&["verify", "--offline", "--output", "json"]), why);
}

fn all_equal(ran: &Ran, why: &str) {
    assert_eq!(ran.code, Some(0), "{why}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
    let reports = ran.json();
    assert!(!reports.is_empty(), "{why}: verify checked nothing");
    for report in reports {
        assert_eq!(report["equal"], true, "{why}: {report}");
        assert_eq!(report["differing"], 0, "{why}: {report}");
    }
}

/// `bifold produce` of these lines, without a server: into Kafka, or into the local log that nobody has open.
pub(crate) fn produce(case: &Case, lines: &[String]) {
    let input = lines.join("\n");
    let ran = case.run_with(&["produce", "e", "-", "--url", NOBODY, "--output", "json"], &[], input.as_bytes());
    assert_eq!(ran.json().last().expect("a last line")["records"], lines.len());
}

/// A batch run that reaches the log's end, asked for at `service`.
pub(crate) fn batch(case: &Case, service: &Service) -> Vec<Value> {
    case.run(&["batch", "run", "--at-least", "latest", "--url", &service.url, "--output", "json"]).json()
}
