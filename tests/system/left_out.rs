//! What is not counted, and said: duplicates, quarantined and lost offsets; what the log no longer has but the archive.

use std::collections::HashMap;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::events::{batch, verify, verify_offline};
use crate::harness::{Case, Service, brokers};
use crate::restart::Roles;

const PLAIN: &str = "CREATE TABLE e (id BIGINT, k TEXT, n BIGINT) \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e; \
    CREATE MATERIALIZED VIEW by_key AS SELECT k, count(*) AS c, sum(n) AS s FROM e WHERE n >= 0 GROUP BY k;";

/// `bifold audit` comes out even. Gives its lines.
pub(crate) fn audit(case: &Case, why: &str) -> Vec<Value> {
    let ran = case.run(&["audit", "e", "--output", "json"]);
    assert_eq!(ran.code, Some(0), "{why}\nstdout: {}\nstderr: {}", ran.stdout, ran.stderr);
    ran.json()
}

fn sum(rows: &[Value], view: Option<&str>, column: &str) -> i64 {
    rows.iter().filter(|row| row["view"].as_str() == view).filter_map(|row| row[column].as_i64()).sum()
}

/// The coverage's `holes` and `pending_holes` as texts.
fn holes(service: &Service) -> (Vec<String>, Vec<String>) {
    let reply = service.sql("SELECT c FROM total", Some("latest")).json();
    let list = |name: &str| -> Vec<String> {
        let of = |hole: &Value| {
            format!(
                "{}[{},{}) {}",
                hole["kind"].as_str().expect("a kind"),
                hole["range"][0],
                hole["range"][1],
                hole["reason"].as_str().expect("a reason")
            )
        };
        reply["coverage"][0][name].as_array().expect(name).iter().map(of).collect()
    };
    (list("holes"), list("pending_holes"))
}

fn total(service: &Service) -> Value {
    service.rows("SELECT c, s FROM total", "latest")[0].clone()
}

fn one_partition(pipeline: &str) -> (Case, Service) {
    let case = Case::new(pipeline);
    case.create_topic(1);
    let up = case.start_with(&["up", "--listen", "127.0.0.1:0"], &[("BIFOLD_LOG__PARTITIONS", "1")]);
    (case, up)
}

fn event(id: usize, n: i64) -> String {
    json!({ "id": id, "k": format!("k{}", id % 3), "n": n }).to_string()
}

fn produce(case: &Case, up: &Service, events: &[String]) {
    case.produce(up, "e", &events.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_quarantine_is_pending_until_a_batch_run_leaves_it_out_and_can_be_lifted() {
    let (case, up) = one_partition(PLAIN);
    let partition = format!("{}/0", case.topic);
    produce(&case, &up, &(0..10).map(|i| event(i, 1)).collect::<Vec<_>>());
    assert_eq!(total(&up), json!({ "c": 10, "s": 10 }));
    batch(&case, &up);
    produce(&case, &up, &(10..20).map(|i| event(i, 100)).collect::<Vec<_>>());
    assert_eq!(total(&up), json!({ "c": 20, "s": 1010 }));

    // One range that batch views hold already, one that only the stream has.
    let quarantine = |from: &str, to: &str, reason: &str| {
        let arguments = ["quarantine", "e", "--partition", &partition, "--from", from, "--to", to, "--reason", reason];
        let ran = case.run(&[&arguments[..], &["--output", "json"]].concat());
        (ran.json()[0].clone(), ran.stderr)
    };
    let (low, said) = quarantine("2", "5", "a bad deployment");
    assert!(said.contains("batch views hold it already"), "{said}");
    assert_eq!((&low["kind"], &low["from"], &low["to"]), (&json!("quarantined"), &json!(2), &json!(5)));
    let (high, said) = quarantine("12", "14", "another");
    assert!(said.contains("by the batch run that passes all of it at once"), "{said}");
    assert_eq!(total(&up), json!({ "c": 20, "s": 1010 }), "they are counted until a batch run leaves them out");
    let pending = |text: &str| text.split(';').filter(|part| !part.is_empty()).map(str::to_string).collect::<Vec<_>>();
    assert_eq!(holes(&up), (vec![], pending("quarantined[2,5) a bad deployment;quarantined[12,14) another")));
    verify(&case, &up, "pending");

    // An incremental run leaves out what lies above where it starts.
    let report = batch(&case, &up);
    assert_eq!(report[0]["mode"], "incremental");
    assert_eq!(holes(&up), (pending("quarantined[12,14) another"), pending("quarantined[2,5) a bad deployment")));
    assert_eq!(total(&up), json!({ "c": 18, "s": 810 }));
    verify(&case, &up, "one is left out");
    let report = case.run(&["batch", "run", "--full", "--output", "json"]).json();
    assert_eq!(report[0]["mode"], "full");
    assert_eq!(total(&up), json!({ "c": 15, "s": 807 }));
    assert_eq!(holes(&up), (pending("quarantined[2,5) a bad deployment;quarantined[12,14) another"), vec![]));
    verify(&case, &up, "both are left out");

    // A lift, which a full run follows.
    let number = low["ledger"].to_string();
    let ran = case.run(&["quarantine", "e", "--lift", &number, "--reason", "it was right", "--output", "json"]);
    assert!(ran.json()[0]["lifted"].is_u64(), "{}", ran.stdout);
    assert_eq!(total(&up), json!({ "c": 15, "s": 807 }));
    assert_eq!(case.run(&["batch", "run", "--full", "--output", "json"]).code, Some(0));
    assert_eq!(total(&up), json!({ "c": 18, "s": 810 }));
    assert_eq!(holes(&up), (pending("quarantined[12,14) another"), vec![]));
    verify(&case, &up, "lifted");
    drop(up);
    let rows = audit(&case, "quarantined");
    assert_eq!((sum(&rows, Some("total"), "counted"), sum(&rows, Some("total"), "left_out")), (18, 2));
    let listed = case.run(&["quarantine", "e", "--output", "json"]).json();
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(high["reason"], "another");
    // What makes no sense is refused in words.
    case.run(&["quarantine", "e", "--partition", &partition, "--from", "13", "--to", "15", "--reason", "again"])
        .fails(2, &["overlaps what entry"]);
    case.run(&["quarantine", "e", "--partition", "nothing/0", "--from", "1", "--to", "2", "--reason", "r"])
        .fails(2, &["knows no partition nothing/0"]);
    case.run(&["quarantine", "e", "--reason", "r"]).fails(2, &["--reason alone says nothing"]);
    case.run(&["quarantine", "e", "--lift", "1", "--reason", " "]).fails(2, &["--reason is empty"]);
    // Dedup would decide anew which of equal rows counts.
    case.write_pipeline(&PLAIN.replace("format = 'json'", "format = 'json', dedup = 'id'"));
    let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &[]);
    assert_eq!(up.wait_exit(std::time::Duration::from_secs(30)), Some(2), "{}", up.stderr());
    assert!(up.stderr().contains("has dedup now, and the quarantine of ledger entry"), "{}", up.stderr());
    case.write_pipeline(PLAIN);
    case.run(&["quarantine", "e", "--lift", "1", "--reason", "r"]).fails(2, &["entry 1 is no quarantine in force"]);
    case.run(&["quarantine", "e", "--partition", &partition, "--from", "1", "--to", "2"]).fails(2, &["--reason"]);
}

/// Which of the rows of one partition count: those without an equal id among the `lookback` offsets before.
fn without_duplicates(rows: &[(usize, i64)], lookback: usize) -> (usize, i64) {
    let (mut last, mut count, mut sum) = (HashMap::new(), 0, 0);
    for (offset, (id, n)) in rows.iter().enumerate() {
        let before = last.insert(*id, offset);
        if before.is_none_or(|before| offset - before > lookback) {
            count += 1;
            sum += n;
        }
    }
    (count, sum)
}

#[test]
fn duplicates_within_the_lookback_are_not_counted_in_any_layer() {
    let lookback = 40;
    let pipeline =
        PLAIN.replace("format = 'json'", &format!("format = 'json', dedup = 'id', dedup_lookback = '{lookback}'"));
    let (case, mut up) = one_partition(&pipeline);
    let mut rows: Vec<(usize, i64)> = vec![];
    let mut add = |up: &Service, ids: &mut dyn Iterator<Item = usize>| {
        let from = rows.len();
        rows.extend(ids.enumerate().map(|(i, id)| (id, (from + i) as i64)));
        produce(&case, up, &rows[from..].iter().map(|(id, n)| event(*id, *n)).collect::<Vec<_>>());
        let (count, sum) = without_duplicates(&rows, lookback);
        assert_eq!(total(up), json!({ "c": count, "s": sum }), "{} rows", rows.len());
        count
    };
    // The same twice in a row, again within the look-back, again beyond it.
    add(&up, &mut (0..30).chain(0..30));
    add(&up, &mut (100..150).chain(0..10));
    batch(&case, &up);
    verify(&case, &up, "b = f");
    // Across the boundary: what stands before it is looked back at.
    add(&up, &mut (140..150).chain(0..20).chain(200..230));
    verify(&case, &up, "0 < b < f");
    // Across kill -9, and across an incremental run.
    up.kill();
    up = case.start_with(&["up", "--listen", "127.0.0.1:0"], &[("BIFOLD_LOG__PARTITIONS", "1")]);
    let count = add(&up, &mut (220..230).chain(5..25).chain(220..240));
    let report = batch(&case, &up);
    assert_eq!(report[0]["mode"], "incremental");
    assert_eq!(total(&up)["c"], count);
    verify(&case, &up, "after an incremental run");
    let count = add(&up, &mut (235..245));
    assert_eq!(case.run(&["batch", "run", "--full", "--output", "json"]).code, Some(0));
    assert_eq!(total(&up)["c"], count);
    verify(&case, &up, "after a full run");
    let told = format!("bifold_deduplicated_total{{source=\"e\"}} {}", rows.len() - count);
    up.wait("the duplicates are told when they are durable", |up| up.get("/metrics").text.contains(&told));
    drop(up);
    verify_offline(&case, "at rest");
    let audited = audit(&case, "deduplicated");
    assert_eq!(sum(&audited, Some("total"), "counted"), count as i64);
    assert_eq!(sum(&audited, Some("total"), "deduplicated"), (rows.len() - count) as i64);
}

#[test]
fn a_version_without_dedup_beside_one_with_it_counts_everything_once() {
    let (case, mut up) = one_partition(PLAIN);
    produce(&case, &up, &(0..30).map(|i| event(i % 10, 1)).collect::<Vec<_>>());
    assert_eq!(total(&up)["c"], 30);
    batch(&case, &up);
    produce(&case, &up, &(0..10).map(|i| event(i, 1)).collect::<Vec<_>>());
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    // The changed source's versions look back, the old ones, which are kept, must not see that again.
    let one = [("BIFOLD_LOG__PARTITIONS", "1")];
    let go_on = |pipeline: &str| {
        case.write_pipeline(pipeline);
        case.start_with(&["up", "--listen", "127.0.0.1:0"], &one)
    };
    let mut up = go_on(&PLAIN.replace("format = 'json'", "format = 'json', dedup = 'id'"));
    up.wait("the new version answers", |up| up.sql("SELECT c FROM total", None).json()["rows"][0]["c"] == 10);
    produce(&case, &up, &(5..15).map(|i| event(i, 1)).collect::<Vec<_>>());
    assert_eq!(total(&up)["c"], 15);
    verify(&case, &up, "with dedup");
    up.kill();
    let mut up = go_on(&PLAIN.replace("format = 'json'", "format = 'json', dedup = 'id'"));
    produce(&case, &up, &(5..20).map(|i| event(i, 1)).collect::<Vec<_>>());
    assert_eq!(total(&up)["c"], 20);
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    let up = go_on(PLAIN);
    up.wait("the old version answers again", |up| {
        up.sql("SELECT c FROM total", Some("latest")).json()["rows"][0]["c"] == 30 + 10 + 10 + 15
    });
    verify(&case, &up, "without dedup again");
}

/// Deletes what lies below `before` from the topic's partition 0.
fn delete_below(case: &Case, before: i64) {
    let brokers = brokers().expect("a broker");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&case.topic, 0, Offset::Offset(before)).expect("an offset");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(admin.delete_records(&list, &AdminOptions::new())).expect("records are deleted");
}

fn on_kafka() -> Option<Case> {
    if brokers().is_none() {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return None;
    }
    let case = Case::new(PLAIN);
    case.create_topic(1);
    Some(case)
}

fn send(case: &Case, numbers: std::ops::Range<usize>) {
    let lines = numbers.map(|i| (None, Some(event(i, 1).into_bytes())));
    case.produce_to(&case.topic, lines);
}

#[test]
fn what_the_log_no_longer_has_is_folded_from_the_archive() {
    let Some(case) = on_kafka() else { return };
    let roles = Roles::new(&case);
    let (mut collect, mut speed, serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
    send(&case, 0..50);
    assert_eq!(total(&serve)["c"], 50);
    speed.kill();
    send(&case, 50..100);
    serve.wait("it is archived", |serve| {
        serve.get("/v1/sources").json()["sources"][0]["partitions"][0]["archived"] == 100
    });
    delete_below(&case, 90);
    send(&case, 100..120);
    speed = roles.start("speed");
    assert_eq!(total(&serve), json!({ "c": 120, "s": 120 }));
    assert!(speed.stderr().contains("folding it from the archive"), "{}", speed.stderr());
    verify(&case, &serve, "bridged");
    batch(&case, &serve);
    assert_eq!(total(&serve), json!({ "c": 120, "s": 120 }));
    assert_eq!((speed.terminate(), collect.terminate()), (Some(0), Some(0)));
    let rows = audit(&case, "bridged");
    assert_eq!((sum(&rows, None, "records"), sum(&rows, None, "in_log"), sum(&rows, None, "lost")), (120, 30, 0));
}

#[test]
fn what_is_neither_in_the_log_nor_in_the_archive_stops_a_partition_until_somebody_goes_on_without_it() {
    let Some(case) = on_kafka() else { return };
    let roles = Roles::new(&case);
    let (mut collect, mut speed) = (roles.start("collect"), roles.start("speed"));
    let mut serve = roles.start("serve");
    send(&case, 0..50);
    assert_eq!(total(&serve)["c"], 50);
    batch(&case, &serve);
    // The speed layer has counted ten of those that get lost.
    assert_eq!(collect.terminate(), Some(0));
    send(&case, 50..60);
    assert_eq!(total(&serve)["c"], 60);
    assert_eq!(speed.terminate(), Some(0));
    send(&case, 60..100);
    delete_below(&case, 80);
    let collect = roles.spawn("collect", &[]);
    let speed = roles.spawn("speed", &[]);
    let says = |service: &Service, what: &str| service.stderr().contains(what);
    collect.wait("collect names the range", |_| says(&collect, "has lost the offsets [50, 80)"));
    let reply =
        serve.post("/v1/sql", br#"{"sql":"SELECT c FROM total","at_least":"latest","timeout_ms":700}"#.to_vec());
    assert_eq!(reply.status, 503, "nothing is skipped by itself: {}", reply.text);
    let ran = case.run(&["accept-loss", "e", "--reason", "retention was too short", "--output", "json"]);
    assert_eq!((&ran.json()[0]["from"], &ran.json()[0]["to"]), (&json!(50), &json!(80)));
    // 50..60 is in a delta still, and counted; 60..80 is passed over.
    assert_eq!(total(&serve), json!({ "c": 80, "s": 80 }));
    let hole = |range: &str| format!("lost{range} retention was too short");
    assert_eq!(holes(&serve), (vec![hole("[60,80)")], vec![hole("[50,60)")]));
    // What the archive cannot recompute is no difference; it cannot be checked.
    case.run(&["verify", "--url", &serve.url]).fails(1, &["which is lost", "a batch run leaves it out"]);
    batch(&case, &serve);
    assert_eq!(total(&serve), json!({ "c": 70, "s": 70 }));
    assert_eq!(holes(&serve), (vec![hole("[50,80)")], vec![]));
    verify(&case, &serve, "after a loss");
    send(&case, 100..110);
    assert_eq!(total(&serve), json!({ "c": 80, "s": 80 }));
    let rows = audit(&case, "after a loss");
    assert_eq!((sum(&rows, None, "lost"), sum(&rows, None, "gaps")), (30, 0));
    case.run(&["accept-loss", "e", "--partition", "nope/0", "--reason", "r"])
        .fails(2, &["the log has no partition nope/0"]);
    let again = case.run(&["accept-loss", "e", "--reason", "again", "--output", "json"]);
    assert_eq!((again.json().len(), again.stderr.contains("nothing is lost")), (0, true), "{}", again.stderr);
    drop((collect, speed));
    assert_eq!(serve.terminate(), Some(0));
    case.run(&["views"]).json();
}

/// Produces so many records to each of two partitions.
fn send_to_both(case: &Case, count: usize) {
    let brokers = brokers().expect("a broker");
    let producer: rdkafka::producer::BaseProducer =
        ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a producer");
    use rdkafka::producer::{BaseRecord, Producer};
    for i in 0..count {
        for partition in 0..2 {
            let value = event(i, 1);
            let record = BaseRecord::<str, str>::to(&case.topic).partition(partition).payload(&value);
            producer.send(record).map_err(|(e, _)| e).expect("there is room");
        }
    }
    producer.flush(std::time::Duration::from_secs(30)).expect("delivered");
}

#[test]
fn after_a_loss_is_accepted_its_partition_goes_on_though_others_went_on_before() {
    if brokers().is_none() {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return;
    }
    let case = Case::new(&PLAIN.replace("format = 'json'", "format = 'json', dedup = 'id', dedup_lookback = '3'"));
    case.create_topic(2);
    let mut up = case.start("up");
    send_to_both(&case, 20);
    assert_eq!(total(&up)["c"], 40);
    up.wait("it is archived", |up| {
        let sources = up.get("/v1/sources").json();
        sources["sources"][0]["partitions"].as_array().is_some_and(|all| all.iter().all(|at| at["archived"] == 20))
    });
    up.kill();
    send_to_both(&case, 20);
    delete_below(&case, 35);
    let up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &[]);
    up.wait("it names the range", |up| up.stderr().contains("has lost the offsets [20, 35)"));
    // The other partition goes on meanwhile, beyond where the log ended when this began.
    send_to_both(&case, 20);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let partition = format!("{}/0", case.topic);
    let ran = case.run(&["accept-loss", "e", "--partition", &partition, "--reason", "gone", "--output", "json"]);
    assert_eq!(ran.json().len(), 1, "{}", ran.stderr);
    let mut up = up;
    up.wait_ready();
    assert_eq!(total(&up)["c"], 60 + 20 + 25, "0..20, 35..60 of one, 0..60 of the other");
    assert_eq!(batch(&case, &up).len(), 2);
    assert_eq!(total(&up)["c"], 105);
    verify(&case, &up, "after a loss in one of two partitions");
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
}

#[test]
fn duplicates_are_told_alike_in_rows_that_are_decoded_anew() {
    let pipeline = |column: &str, sum: &str| {
        format!(
            "CREATE TABLE e (id BIGINT, k TEXT, n BIGINT{column}) WITH (connector = 'kafka', topic = '{{topic}}', format = 'json', \
             dedup = 'id', dedup_lookback = '100'); \
             CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum({sum}) AS s FROM e;"
        )
    };
    let (case, mut up) = one_partition(&pipeline("", "n"));
    // Each id twice in a record of its own, and once in one record of several; and what only the later definition reads.
    let mut lines: Vec<String> = (0..20).chain(5..15).map(|id| event(id, 1)).collect();
    lines.push(format!("[{}, {}, {}]", event(30, 2), event(30, 2), event(31, 2)));
    lines.push(r#"{"id":40,"k":"k","n":1.5}"#.to_string());
    produce(&case, &up, &lines);
    assert_eq!(total(&up), json!({ "c": 22, "s": 24 }));
    batch(&case, &up);
    verify(&case, &up, "as it was");
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    case.write_pipeline(&pipeline(", m DOUBLE", "coalesce(m, n)").replace("n BIGINT", "n DOUBLE"));
    let mut up = case.start_with(&["up", "--listen", "127.0.0.1:0"], &[("BIFOLD_LOG__PARTITIONS", "1")]);
    batch(&case, &up);
    assert_eq!(total(&up), json!({ "c": 23, "s": 25.5 }));
    verify(&case, &up, "decoded anew");
    produce(&case, &up, &[event(30, 7), event(50, 1)]);
    assert_eq!(total(&up), json!({ "c": 24, "s": 26.5 }));
    batch(&case, &up);
    verify(&case, &up, "with more");
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    audit(&case, "decoded anew");
}
