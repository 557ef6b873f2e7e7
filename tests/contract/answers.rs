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
