//! `collect` and batch runs alone: views make progress without a speed layer, and the law holds when one comes.

use bifold_ledger::Body;
use serde_json::json;

use crate::events::{verify, verify_offline};
use crate::harness::{Case, Service, brokers};
use crate::restart::Roles;
use crate::roles::entries;

const PIPELINE: &str = "CREATE TABLE e (n BIGINT, t TIMESTAMP, WATERMARK FOR t AS t) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e;";

fn case() -> Option<Case> {
    if brokers().is_none() {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return None;
    }
    let case = Case::new(PIPELINE);
    case.create_topic(2);
    Some(case)
}

fn send(case: &Case, numbers: std::ops::Range<usize>) {
    let record = |i: usize| (Some(format!("key{i}").into_bytes()), Some(event(i).into_bytes()));
    case.produce_to(&case.topic, numbers.map(record));
}

fn event(i: usize) -> String {
    format!("{{\"n\":{i},\"t\":\"2026-01-01T00:{:02}:{:02}Z\"}}", i / 60, i % 60)
}

fn archived(case: &Case) -> i64 {
    let ranges = |body: Body| match body {
        Body::Archived { ranges, .. } => ranges.positions(),
        _ => 0,
    };
    entries(case, "e").into_iter().map(|entry| ranges(entry.body)).sum()
}

fn batch_run(case: &Case, environment: &[(&str, &str)]) {
    let ran = case.run_with(&["batch", "run", "--output", "json"], environment, b"");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

fn scheduled(case: &Case) -> Service {
    case.start_with(&["batch", "schedule", "--listen", "127.0.0.1:0"], &[("BIFOLD_BATCH__SCHEDULE", "500ms")])
}

/// The rows of the view now, whatever the log holds.
fn total(serve: &Service) -> serde_json::Value {
    serve.sql("SELECT * FROM total", None).json()["rows"].clone()
}

fn of(count: usize) -> serde_json::Value {
    json!([{"c": count, "s": count * (count - 1) / 2}])
}

#[test]
fn collect_and_batch_runs_alone_make_progress_and_speed_comes_later() {
    let Some(case) = case() else { return };
    let roles = Roles::new(&case);
    let (mut collect, serve) = (roles.start("collect"), roles.start("serve"));
    for end in [100, 200] {
        send(&case, end - 100..end);
        collect.wait("all is archived", |_| archived(&case) == end as i64);
        batch_run(&case, &[]);
        assert_eq!(total(&serve), of(end));
        verify(&case, &serve, "without speed");
        let watermark = serve.sql("SELECT * FROM total", None).json()["coverage"][0]["watermark"].clone();
        assert_eq!(watermark, format!("2026-01-01T00:{:02}:{:02}Z", (end - 1) / 60, (end - 1) % 60));
    }
    // On a schedule, with a collector that is killed meanwhile.
    let mut schedule = scheduled(&case);
    send(&case, 200..300);
    collect.kill();
    let collect = roles.start("collect");
    serve.wait("the schedule has it", |_| total(&serve) == of(300));
    schedule.kill();
    let schedule = scheduled(&case);
    // Speed comes: it goes on where the batch views end.
    let speed = roles.start("speed");
    send(&case, 300..400);
    assert_eq!(serve.rows("SELECT * FROM total", "latest"), of(400).as_array().cloned().unwrap_or_default());
    collect.wait("all is archived", |_| archived(&case) == 400);
    batch_run(&case, &[]);
    verify(&case, &serve, "with speed");
    for mut service in [collect, speed, schedule] {
        assert_eq!(service.terminate(), Some(0), "{}", service.stderr());
    }
    verify_offline(&case, "afterwards");
    assert_eq!(case.run(&["audit", "e"]).code, Some(0));
}

#[test]
fn a_batch_run_leaps_when_nothing_was_folded_for_a_while() {
    let Some(case) = case() else { return };
    let roles = Roles::new(&case);
    let (collect, mut speed, serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
    send(&case, 0..100);
    speed.wait("all is folded", |_| entries(&case, "e").iter().any(|entry| entry.body.kind() == "folded"));
    assert_eq!(serve.rows("SELECT c FROM total", "latest"), [json!({"c": 100})]);
    assert_eq!(speed.terminate(), Some(0));
    send(&case, 100..200);
    collect.wait("all is archived", |_| archived(&case) == 200);
    batch_run(&case, &[]);
    assert_eq!(total(&serve), of(100), "the fold was here a moment ago, and may come back");
    std::thread::sleep(std::time::Duration::from_secs(2));
    batch_run(&case, &[("BIFOLD_BATCH__LEAP_AFTER", "2s")]);
    assert_eq!(total(&serve), of(200));
    let _speed = roles.start("speed");
    send(&case, 200..300);
    assert_eq!(serve.rows("SELECT c FROM total", "latest"), [json!({"c": 300})]);
    verify(&case, &serve, "after a leap");
}
