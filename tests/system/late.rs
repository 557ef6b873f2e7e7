//! An event three days late counts at once, in the window that its event time names.

use serde_json::{Value, json};

use crate::events::verify;
use crate::harness::{Case, Service};

const PIPELINE: &str = "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t - INTERVAL '10 seconds') \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW v AS SELECT tumble(t, INTERVAL '1 hour') AS hour, k, count(*) AS c, sum(n) AS s, \
    count(DISTINCT n) AS d FROM e GROUP BY 1, 2;";

/// The first hour, three days before the rest.
fn first_hour(up: &Service, offsets: &str) -> Value {
    let rows = up.rows("SELECT c, s, d FROM v WHERE hour = TIMESTAMP '2026-01-01T00:00:00' AND k = 'a'", offsets);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows[0].clone()
}

#[test]
fn an_event_three_days_late_counts_at_once_with_and_without_a_batch_view_of_its_window() {
    let case = Case::new(PIPELINE);
    case.create_topic(3);
    let mut up = case.start("up");
    let on_time = [
        r#"{"t":"2026-01-01T00:10:00Z","k":"a","n":1}"#,
        r#"{"t":"2026-01-01T00:20:00Z","k":"b","n":2}"#,
        r#"{"t":"2026-01-02T00:10:00Z","k":"a","n":3}"#,
        r#"{"t":"2026-01-04T00:30:00Z","k":"a","n":4}"#,
    ];
    let offsets = case.produce(&up, "e", &on_time);
    assert_eq!(first_hour(&up, &offsets), json!({ "c": 1, "s": 1, "d": 1 }));

    // Without a batch view, and while the epoch that it falls into is still open or already committed.
    let offsets = case.produce(&up, "e", &[r#"{"t":"2026-01-01T00:40:00Z","k":"a","n":10}"#]);
    assert_eq!(first_hour(&up, &offsets), json!({ "c": 2, "s": 11, "d": 2 }));

    // With a batch view that covers its window.
    let ran = case.run(&["batch", "run", "--at-least", "latest", "--url", &up.url, "--output", "json"]);
    assert_eq!(ran.json()[0]["mode"], "full");
    let offsets = case.produce(&up, "e", &[r#"{"t":"2026-01-01T00:50:00Z","k":"a","n":100}"#]);
    assert_eq!(first_hour(&up, &offsets), json!({ "c": 3, "s": 111, "d": 3 }));
    // A value seen before stays one value, whichever layer saw it.
    let offsets = case.produce(&up, "e", &[r#"{"t":"2026-01-01T00:51:00Z","k":"a","n":1}"#]);
    assert_eq!(first_hour(&up, &offsets), json!({ "c": 4, "s": 112, "d": 3 }));
    // A group that no layer has had.
    let offsets = case.produce(&up, "e", &[r#"{"t":"2026-01-01T00:52:00Z","k":"late","n":7}"#]);
    let rows = up.rows("SELECT hour, c, s FROM v WHERE k = 'late'", &offsets);
    assert_eq!(rows, [json!({ "hour": "2026-01-01T00:00:00Z", "c": 1, "s": 7 })]);
    // The watermark does not go back, and the answer is exact after a restart and after the next batch run too.
    let reply = up.sql("SELECT count(*) AS n FROM v", Some("latest")).json();
    assert_eq!(reply["coverage"][0]["watermark"], "2026-01-04T00:29:50Z");
    verify(&case, &up, "late events above the boundary");
    up.kill();
    let up = case.start("up");
    assert_eq!(first_hour(&up, "latest"), json!({ "c": 4, "s": 112, "d": 3 }));
    let ran = case.run(&["batch", "run", "--at-least", "latest", "--url", &up.url, "--output", "json"]);
    assert_eq!(ran.json()[0]["mode"], "incremental");
    assert_eq!(first_hour(&up, "latest"), json!({ "c": 4, "s": 112, "d": 3 }));
    verify(&case, &up, "late events below the boundary");
}
