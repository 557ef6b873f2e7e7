//! Events that are made to stop the pipeline: no value of an event ends a role, and what can be counted is counted exactly.

use bifold_ledger::Body;
use serde_json::{Value, json};

use crate::events::{batch, verify, verify_offline};
use crate::harness::{Case, Service};
use crate::left_out::audit;
use crate::restart::free_port;
use crate::roles::entries;

/// A source of one partition and `up`, with variables of the environment.
fn up_on(pipeline: &str, environment: &[(&str, &str)]) -> (Case, Service) {
    let case = Case::new(pipeline);
    case.create_topic(1);
    let up = start(&case, environment);
    (case, up)
}

fn start(case: &Case, environment: &[(&str, &str)]) -> Service {
    let own = [("BIFOLD_LOG__PARTITIONS", "1"), ("BIFOLD_BATCH__SCHEDULE", "off")];
    case.start_with(&["up", "--listen", "127.0.0.1:0"], &[&own[..], environment].concat())
}

#[test]
fn a_long_list_beside_a_large_text_is_unnested_in_pieces() {
    let pipeline = "CREATE TABLE e (k TEXT, tags TEXT[], more BIGINT[]) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
        CREATE MATERIALIZED VIEW by_tag AS SELECT unnest(tags) AS tag, max(length(k)) AS l, count(*) AS c FROM e GROUP BY 1; \
        CREATE MATERIALIZED VIEW zipped AS SELECT unnest(tags) AS tag, unnest(more) AS m, max(length(k)) AS l, count(*) AS c FROM e \
          WHERE length(k) > 1 GROUP BY 1, 2;";
    let (case, mut up) = up_on(pipeline, &[]);
    // Repeated for each tag, this key takes 2.7 GB: more than the offsets of one text column count.
    let tags: Vec<String> = (0..30_000).map(|i| format!("t{i}")).collect();
    let large = json!({ "k": "k".repeat(90_000), "tags": tags, "more": [7, 8, 9] }).to_string();
    let small = json!({ "k": "a", "tags": ["x", "t1"], "more": [1] }).to_string();
    let offsets = case.produce(&up, "e", &[&small, &large, &small]);
    let check = |up: &Service, when: &str| {
        let rows = up.rows("SELECT count(*) AS n, sum(c) AS c, max(l) AS l, max(c) AS most FROM by_tag", &offsets);
        assert_eq!(rows, [json!({ "n": 30_001, "c": 30_004, "l": 90_000, "most": 3 })], "{when}");
        let rows = up.rows("SELECT count(*) AS n, count(m) AS m, sum(m) AS s, min(l) AS l FROM zipped", &offsets);
        assert_eq!(rows, [json!({ "n": 30_000, "m": 3, "s": 24, "l": 90_000 })], "{when}");
    };
    check(&up, "folded");
    up.kill();
    let up = start(&case, &[]);
    check(&up, "folded again after kill -9");
    verify(&case, &up, "folded");
    batch(&case, &up);
    check(&up, "from a batch view");
    verify(&case, &up, "from a batch view");
}

#[test]
fn values_that_are_too_large_together_are_made_one_by_one() {
    let pipeline = "CREATE TABLE e (n BIGINT, k TEXT, p TEXT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
        CREATE MATERIALIZED VIEW grown AS SELECT n, count(*) AS c, max(length(replace(k, 'a', p))) AS l, \
          count(replace(k, 'a', p)) AS made FROM e GROUP BY n;";
    let (case, up) = up_on(pipeline, &[]);
    // 60 MB each, 3.6 GB together: one text column holds 2 GiB. The last is more than a value of a view may be.
    let large = json!({ "n": 1, "k": "a".repeat(1_000), "p": "b".repeat(60_000) }).to_string();
    let small = json!({ "n": 2, "k": "aba", "p": "xy" }).to_string();
    let larger = json!({ "n": 3, "k": "a".repeat(2_000), "p": "b".repeat(60_000) }).to_string();
    let lines: Vec<&str> = (0..60).map(|_| large.as_str()).chain([small.as_str(), larger.as_str()]).collect();
    let offsets = case.produce(&up, "e", &lines);
    let expected = [
        json!({ "n": 1, "c": 60, "l": 60_000_000, "made": 60 }),
        json!({ "n": 2, "c": 1, "l": 5, "made": 1 }),
        json!({ "n": 3, "c": 1, "l": null, "made": 0 }),
    ];
    assert_eq!(up.rows("SELECT * FROM grown ORDER BY n", &offsets), expected);
    verify(&case, &up, "folded");
    batch(&case, &up);
    assert_eq!(up.rows("SELECT * FROM grown ORDER BY n", &offsets), expected);
    verify(&case, &up, "from a batch view");
}

#[test]
fn a_record_that_cannot_be_folded_stops_nothing_before_it_and_is_left_out_by_a_quarantine() {
    let pipeline = "CREATE TABLE e (n BIGINT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
        CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e;";
    // The fold panics at offset 13.
    let faulty = [("BIFOLD_FAILS", "speed.record:13"), ("BIFOLD_BATCH__LEAP_AFTER", "1s")];
    let (case, mut up) = up_on(pipeline, &faulty);
    let lines: Vec<String> = (0..40).map(|n| json!({ "n": n }).to_string()).collect();
    case.produce(&up, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    let at = format!("{}/0", case.topic);
    let total = |up: &Service| up.sql("SELECT c, s FROM total", None).json()["rows"][0].clone();
    let stuck = |up: &Service| {
        let ready = up.get("/readyz");
        ready.status == 503 && ready.text.contains(&format!("the record at {at} offset 13 cannot be folded"))
    };
    for round in 0..2 {
        up.wait("it says where it is stuck", stuck);
        assert!(up.get("/readyz").text.contains("bifold quarantine e --partition"), "{}", up.get("/readyz").text);
        assert_eq!(up.get("/healthz").status, 200);
        up.wait("all before it is answered", |up| total(up) == json!({ "c": 13, "s": 78 }));
        if round == 0 {
            up.kill();
            // It is not ready from the start, perhaps, and so tells nobody its port.
            let address = format!("127.0.0.1:{}", free_port());
            let own = [("BIFOLD_LOG__PARTITIONS", "1"), ("BIFOLD_BATCH__SCHEDULE", "off")];
            up = case.spawn(&["up", "--listen", &address], &[&own[..], &faulty].concat());
            up.url = format!("http://{address}");
            up.wait("it listens", |_| std::net::TcpStream::connect(&address).is_ok());
        }
    }
    let arguments =
        ["quarantine", "e", "--partition", &at, "--from", "13", "--to", "14", "--reason", "it cannot be folded"];
    assert_eq!(case.run(&arguments).code, Some(0));
    let counted = json!({ "c": 39, "s": 780 - 13 });
    up.wait("a batch run leaves it out, and the fold goes on behind it", |up| {
        let ran = case.run_with(&["batch", "run"], &faulty, b"");
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        total(up) == counted
    });
    up.wait("it is ready", |up| up.get("/readyz").status == 200);
    case.produce(&up, "e", &[r#"{"n":1000}"#]);
    let rows = up.rows("SELECT c, s FROM total", "latest");
    assert_eq!(rows, [json!({ "c": 40, "s": 1_767 })]);
    assert_eq!(up.terminate(), Some(0));
    verify_offline(&case, "one record is left out");
    let left_out: i64 = audit(&case, "one record is left out").iter().filter_map(|row| row["left_out"].as_i64()).sum();
    assert_eq!(left_out, 1);
}

#[test]
fn a_fold_that_takes_too_long_is_told_while_it_lasts() {
    let pipeline = "CREATE TABLE e (n BIGINT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
        CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c FROM e;";
    let (case, up) = up_on(pipeline, &[("BIFOLD_FAILS", "speed.slow:5")]);
    let offsets = case.produce(&up, "e", &[r#"{"n":1}"#; 9]);
    let place = format!("{}/0 at offset", case.topic);
    up.wait("it says what it folds", |up| {
        let ready = up.get("/readyz");
        ready.status == 503 && ready.text.contains("has taken more than 10 s") && ready.text.contains(&place)
    });
    assert_eq!(up.rows("SELECT c FROM total", &offsets), [json!({ "c": 9 })]);
    up.wait("it is ready again", |up| up.get("/readyz").status == 200);
}

#[test]
fn records_of_many_elements_are_archived_in_files_of_flush_rows() {
    let pipeline = "CREATE TABLE e (n BIGINT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
        CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e;";
    let (case, mut up) =
        up_on(pipeline, &[("BIFOLD_COLLECT__FLUSH_ROWS", "5000"), ("BIFOLD_COLLECT__FLUSH_INTERVAL", "1h")]);
    let events = format!("[{}]", vec![r#"{"n":1}"#; 2_000].join(","));
    // Dead letters are rows, too.
    let dead = format!("[{}]", vec!["0"; 2_000].join(","));
    let lines: Vec<&str> = (0..40).map(|i| if i % 2 == 0 { events.as_str() } else { dead.as_str() }).collect();
    let offsets = case.produce(&up, "e", &lines);
    assert_eq!(up.rows("SELECT c, s FROM total", &offsets), [json!({ "c": 40_000, "s": 40_000 })]);
    assert_eq!(up.terminate(), Some(0));
    let mut files = 0;
    for entry in entries(&case, "e") {
        if let Body::Archived { rows, dead, counts, .. } = entry.body {
            let held: u64 = rows.iter().chain(&dead).map(|file| file.rows).sum();
            assert!(held < 7_000, "{held} rows in one flush");
            assert_eq!(held, counts.rows + counts.dead.values().sum::<u64>());
            files += 1;
        }
    }
    assert!(files >= 80_000 / 7_000, "{files} flushes");
    verify_offline(&case, "in many files");
    let rows: Vec<Value> = audit(&case, "in many files");
    assert_eq!(rows.iter().filter_map(|row| row["dead_letters"].as_i64()).max(), Some(40_000), "{rows:?}");
}
