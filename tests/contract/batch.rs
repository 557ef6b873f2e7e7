//! `bifold batch run`, and answers from both layers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{COUNTS, answer, ask, metric, one_partition, up, up_with};

const LINE: &str = r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":5}"#;

fn only(rows: Vec<Value>) -> Value {
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.into_iter().next().expect("one")
}

#[test]
fn full_incremental_none() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let first = case.produce(&up, "e", &[LINE, LINE]);
    let report = only(case.run(&["batch", "run", "--at-least", &first]).json());
    assert_eq!((&report["view"], &report["boundary"]), (&json!("v"), &json!(first)), "{report}");
    assert_eq!((&report["rows_read"], &report["groups"]), (&json!(2), &json!(1)), "{report}");
    assert!(["full", "incremental"].contains(&report["mode"].as_str().expect("a mode")), "{report}");
    for (name, is) in [
        ("version", report["version"].is_string()),
        ("ledger", report["ledger"].is_u64()),
        ("elapsed_ms", report["elapsed_ms"].is_u64()),
    ] {
        assert!(is, "{name}: {report}");
    }
    let version = report["version"].clone();

    let again = only(case.run(&["batch", "run"]).json());
    assert_eq!((&again["mode"], &again["rows_read"]), (&json!("none"), &json!(0)), "{again}");
    assert_eq!(again["boundary"], first);

    let second = case.produce(&up, "e", &[LINE]);
    let next = only(case.run(&["batch", "run", "--at-least", &second]).json());
    assert_eq!((&next["mode"], &next["rows_read"]), (&json!("incremental"), &json!(1)), "{next}");
    assert!(next["ledger"].as_u64() > report["ledger"].as_u64(), "{next}");

    let full = only(case.run(&["batch", "run", "--full", "--view", "v"]).json());
    assert_eq!((&full["mode"], &full["rows_read"]), (&json!("full"), &json!(3)), "{full}");
    assert_eq!((&full["boundary"], &full["version"]), (&json!(second), &version));
    let body = answer(&up, "SELECT * FROM v", &second);
    assert_eq!(body["rows"], json!([{"k": "a", "c": 3, "s": 15}]));
    assert_eq!(body["coverage"][0]["partitions"][0]["batch"], json!([0, 3]), "{body}");
}

#[test]
fn between_batch_and_stream() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let first = case.produce(&up, "e", &[LINE, LINE]);
    case.run(&["batch", "run", "--at-least", &first]).json();
    let second = case.produce(&up, "e", &[LINE, r#"{"t":"2026-01-04T00:00:00Z","k":"b","n":1}"#]);
    let body = answer(&up, "SELECT * FROM v ORDER BY k", &second);
    assert_eq!(body["rows"], json!([{"k": "a", "c": 3, "s": 15}, {"k": "b", "c": 1, "s": 1}]));
    let partitions = &body["coverage"][0]["partitions"];
    let whole = json!([{"topic": case.topic, "partition": 0, "batch": [0, 2], "speed": [2, 4]}]);
    assert_eq!(partitions, &whole, "{body}");
    assert_eq!(only(ask(&case, &up, &["verify"]).json())["equal"], true);
}

#[test]
fn at_least_latest_takes_part_in_the_run() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &[LINE, LINE, LINE]);
    let report = only(ask(&case, &up, &["batch", "run", "--at-least", "latest"]).json());
    assert_eq!(report["boundary"], offsets);
}

#[test]
fn at_least_beyond_what_there_is_fails_at_the_timeout() {
    let case = one_partition(COUNTS);
    let mut up = up(&case);
    let offsets = case.produce(&up, "e", &[LINE]);
    answer(&up, "SELECT * FROM v", &offsets);
    let beyond = format!("{}/0:99", case.topic);
    case.run(&["batch", "run", "--at-least", &beyond, "--timeout", "1s"]).fails(1, &["99"]);
    let elsewhere = format!("{}/7:1", case.topic);
    case.run(&["batch", "run", "--at-least", &elsewhere, "--timeout", "1s"]).fails(1, &["/7"]);
    assert_eq!(up.terminate(), Some(0));
    // Without services the ledger alone decides.
    let report = only(case.run(&["batch", "run"]).json());
    assert_eq!(report["boundary"], offsets, "SIGTERM commits what is folded and archived");
    if !case.is_kafka() {
        let ran = case.run_with(&["produce", "e", "--url", "http://127.0.0.1:1"], &[], LINE.as_bytes());
        let more = ran.json()[0]["offsets"].as_str().expect("offsets").to_string();
        case.run(&["batch", "run", "--at-least", &more, "--timeout", "500ms"]).fails(1, &[&more]);
        case.run(&["batch", "run", "--at-least", "latest", "--timeout", "500ms"]).fails(1, &[&more]);
    }
}

#[test]
fn before_anything_ran_there_is_nothing_to_recompute() {
    let case = one_partition(COUNTS);
    let ran = case.run(&["batch", "run"]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains('e') && ran.stderr.contains("bifold"), "{}", ran.stderr);
}

#[test]
fn the_schedule_runs_by_itself() {
    let case = one_partition(COUNTS);
    let up = up_with(&case, &[("BIFOLD_BATCH__SCHEDULE", "300ms")]);
    case.produce(&up, "e", &[LINE]);
    up.wait("a scheduled run", |up| {
        up.sql("SELECT * FROM v", None).json()["coverage"][0]["partitions"][0]["batch"] == json!([0, 1])
    });
}

#[test]
fn an_event_three_days_late_counts_at_once_with_and_without_a_batch_view() {
    let text = crate::support::pipeline(
        "n BIGINT",
        "",
        "CREATE MATERIALIZED VIEW v AS SELECT tumble(t, INTERVAL '1 minute') AS m, count(*) AS c FROM e GROUP BY 1;",
    );
    let case = one_partition(&text);
    let up = up(&case);
    let late = r#"{"t":"2026-01-01T12:00:05Z"}"#;
    let offsets = case.produce(&up, "e", &[r#"{"t":"2026-01-04T12:00:05Z"}"#]);
    answer(&up, "SELECT * FROM v", &offsets);
    let offsets = case.produce(&up, "e", &[late]);
    let old = "SELECT c FROM v WHERE m = TIMESTAMP '2026-01-01T12:00:00Z'";
    assert_eq!(answer(&up, old, &offsets)["rows"], json!([{"c": 1}]));
    case.run(&["batch", "run", "--at-least", &offsets]).json();
    let offsets = case.produce(&up, "e", &[late]);
    let body = answer(&up, old, &offsets);
    assert_eq!(body["rows"], json!([{"c": 2}]));
    let p = &body["coverage"][0]["partitions"][0];
    assert_eq!((&p["batch"], &p["speed"]), (&json!([0, 2]), &json!([2, 3])));
    assert_eq!(body["coverage"][0]["watermark"], "2026-01-04T12:00:05Z", "{body}");
}

#[test]
fn a_changed_view_is_building_until_a_batch_run() {
    let case = one_partition(COUNTS);
    let mut first = up(&case);
    let offsets = case.produce(&first, "e", &[LINE, LINE]);
    answer(&first, "SELECT * FROM v", &offsets);
    let before = first.get("/v1/views/v").json()["version"].clone();
    assert_eq!(first.terminate(), Some(0));
    // A new view, beside the old one.
    case.write_pipeline(&format!("{COUNTS} CREATE MATERIALIZED VIEW w AS SELECT k, max(n) AS m FROM e GROUP BY k;"));
    let second = up(&case);
    assert_eq!(second.get("/v1/views/v").json()["version"], before, "an unchanged view keeps its version");
    let reply = second.sql("SELECT * FROM w", None);
    if reply.status != 200 {
        let body = crate::support::problem(&reply, 503, "building", &["w"]);
        assert!(body["progress"].is_number(), "{body}");
    }
    let report = case.run(&["batch", "run", "--at-least", &offsets, "--view", "w"]).json();
    assert_eq!(only(report)["view"], "w");
    assert_eq!(answer(&second, "SELECT * FROM w", &offsets)["rows"], json!([{"k": "a", "m": 5}]));
    assert_eq!(second.get("/v1/views/w").json()["state"], "ready");
}

#[test]
fn a_changed_source_makes_a_new_version() {
    let case = one_partition(COUNTS);
    let mut first = up(&case);
    let offsets = case.produce(&first, "e", &[LINE]);
    answer(&first, "SELECT * FROM v", &offsets);
    let before = first.get("/v1/views/v").json()["version"].clone();
    assert_eq!(first.terminate(), Some(0));
    case.write_pipeline(&COUNTS.replace("n BIGINT", "n BIGINT, more TEXT"));
    let second = up(&case);
    second.wait("the new version", |up| {
        let _ = case.run(&["batch", "run"]);
        up.get("/v1/views/v").json()["version"] != before
    });
    assert_eq!(answer(&second, "SELECT * FROM v", &offsets)["rows"], json!([{"k": "a", "c": 1, "s": 5}]));
}

#[test]
fn a_new_view_waits_for_a_batch_run_where_roles_run_alone() {
    let case = one_partition(COUNTS);
    if !case.is_kafka() {
        return;
    }
    let mut first = up(&case);
    let offsets = case.produce(&first, "e", &[LINE, LINE]);
    answer(&first, "SELECT * FROM v", &offsets);
    assert_eq!(first.terminate(), Some(0));
    let w = "CREATE MATERIALIZED VIEW w AS SELECT k, max(n) AS m FROM e GROUP BY k;";
    case.write_pipeline(&format!("{COUNTS} {w}"));
    let (_collect, speed) = (case.start("collect"), case.start("speed"));
    let serve = case.start_with(&["serve", "--listen", "127.0.0.1:0"], &[("BIFOLD_SERVE__SPEED", &speed.url)]);
    let body = json!({"sql": "SELECT * FROM w"}).to_string();
    let full = crate::support::request(&serve, "POST", "/v1/sql", &[], body.into_bytes());
    let problem = crate::support::problem(&full.reply, 503, "building", &["w"]);
    assert!(problem["progress"].is_number(), "{problem}");
    assert!(full.headers.contains_key("retry-after"));
    crate::support::problem(&serve.get("/v1/views/w/rows"), 503, "building", &["w"]);
    let view = serve.get("/v1/views/w").json();
    assert_eq!((&view["state"], &view["coverage"]), (&json!("building"), &Value::Null), "{view}");
    assert!(view["progress"].is_number(), "{view}");
    ask(&case, &serve, &["query", "SELECT * FROM w"]).fails(1, &["building", "w"]);
    let listed = case.run(&["views", "--output", "json"]).json();
    let w = listed.iter().find(|row| row["view"] == "w").expect("w is listed");
    assert_eq!(w["state"], "building", "{listed:?}");
    // The other view answers meanwhile.
    assert_eq!(answer(&serve, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 2}]));
    case.run(&["batch", "run", "--at-least", &offsets]).json();
    assert_eq!(answer(&serve, "SELECT * FROM w", &offsets)["rows"], json!([{"k": "a", "m": 5}]));
    let offsets = case.produce(&serve, "e", &[&LINE.replace('5', "9")]);
    assert_eq!(answer(&serve, "SELECT * FROM w", &offsets)["rows"], json!([{"k": "a", "m": 9}]));
    assert!(ask(&case, &serve, &["verify"]).json().iter().all(|row| row["equal"] == true));
}

#[test]
fn a_record_is_read_again_from_its_bytes_when_the_source_changes() {
    let case = one_partition(COUNTS);
    let mut first = up(&case);
    let with_more = r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":5,"extra":40}"#;
    let wrong = r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":"six"}"#;
    let offsets = case.produce(&first, "e", &[with_more, wrong]);
    assert_eq!(answer(&first, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 1}]));
    crate::support::dead_letters(&case, &first, 1);
    assert_eq!(first.terminate(), Some(0));
    case.write_pipeline(&COUNTS.replace("n BIGINT", "n TEXT, extra BIGINT").replace("sum(n)", "sum(extra)"));
    let second = up(&case);
    second.wait("the new version", |up| {
        let _ = case.run(&["batch", "run"]);
        let reply = up.sql("SELECT c, s FROM v", Some(&offsets));
        // What was a dead letter under the old schema is one under the new: n is TEXT, and 5 is no text.
        reply.status == 200 && reply.json()["rows"] == json!([{"c": 1, "s": null}])
    });
    assert_eq!(ask(&case, &second, &["verify"]).json()[0]["equal"], true);
}

#[test]
fn runs_are_kept_with_their_outcome() {
    let case = one_partition(COUNTS);
    let mut up = up(&case);
    let offsets = case.produce(&up, "e", &[LINE, LINE]);
    case.run(&["batch", "run", "--at-least", &offsets]).json();
    case.run(&["batch", "run"]).json();
    assert_eq!(up.terminate(), Some(0));
    case.run(&["batch", "run", "--at-least", &format!("{}/0:1000", case.topic), "--timeout", "1s"]).fails(1, &["1000"]);
    let runs = case.run(&["batch", "runs", "--output", "json"]).json();
    let outcomes: Vec<(&str, &str)> = runs
        .iter()
        .map(|run| (run["trigger"].as_str().expect("a trigger"), run["outcome"].as_str().expect("an outcome")))
        .collect();
    assert_eq!(outcomes, [("command", "published"), ("command", "nothing"), ("command", "failed")], "{runs:?}");
    assert_eq!((&runs[0]["published"], &runs[0]["boundary"]), (&json!("v"), &json!(offsets)));
    assert!(runs[2]["error"].as_str().is_some_and(|error| error.contains("1000")), "{}", runs[2]);
    let table = case.run(&["batch", "runs", "--output", "table"]);
    assert!(table.code == Some(0) && table.stdout.contains("published"), "{}", table.stdout);
}

#[test]
fn a_schedule_of_its_own_makes_up_the_run_that_was_missed_once() {
    let case = one_partition(COUNTS);
    let mut first = up_with(&case, &[("BIFOLD_BATCH__SCHEDULE", "1s")]);
    case.produce(&first, "e", &[LINE, LINE]);
    first.wait("a scheduled run", |_| {
        case.run(&["batch", "runs", "--output", "json"]).json().iter().any(|run| run["outcome"] == "published")
    });
    assert_eq!(first.terminate(), Some(0));
    let scheduled = || {
        let runs = case.run(&["batch", "runs", "--output", "json"]).json();
        runs.iter().filter(|run| run["trigger"] == "schedule").count()
    };
    let before = scheduled();
    std::thread::sleep(Duration::from_secs(5));
    // Due some seconds ago, and next in four: at once, and once.
    let mut second =
        case.start_with(&["batch", "schedule", "--listen", "127.0.0.1:0"], &[("BIFOLD_BATCH__SCHEDULE", "4s")]);
    second.wait("the missed run", |_| scheduled() == before + 1);
    std::thread::sleep(Duration::from_millis(1_500));
    assert_eq!(scheduled(), before + 1);
    assert_eq!(metric(&second, "bifold_batch_runs_total", &[("source", "e")]), 1.0);
    assert_eq!(second.terminate(), Some(0));
    let ran = case.run(&["batch", "schedule", "--listen", "127.0.0.1:0"]);
    ran.fails(2, &["batch.schedule", "bifold batch run"]);
}

#[test]
fn a_view_that_needs_too_much_memory_keeps_no_other_from_being_published() {
    let views = "CREATE MATERIALIZED VIEW before AS SELECT count(*) AS c FROM e; \
        CREATE MATERIALIZED VIEW distinct_keys AS SELECT count(DISTINCT k) AS c FROM e; \
        CREATE MATERIALIZED VIEW later AS SELECT n, count(*) AS c FROM e GROUP BY n; \
        CREATE MATERIALIZED VIEW last AS SELECT max(k) AS k FROM e;";
    let case = one_partition(&crate::support::pipeline("k TEXT, n BIGINT", "", views));
    let up = up_with(&case, &[("BIFOLD_BATCH__SCHEDULE", "off")]);
    let mut offsets = String::new();
    for part in 0..10 {
        let line = |i: usize| format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"{i:060}","n":{}}}"#, i % 7);
        let lines: Vec<String> = (part * 20_000..(part + 1) * 20_000).map(line).collect();
        offsets = case.produce(&up, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
    answer(&up, "SELECT * FROM before", &offsets);
    let run = |memory: &str| {
        let arguments = ["batch", "run", "--at-least", &offsets, "--output", "json"];
        case.run_with(&arguments, &[("BIFOLD_BATCH__MEMORY", memory)], b"")
    };
    let ran = run("16MiB");
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    let told = ran.stderr.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert!(told.contains("view distinct_keys: it needs more than batch.memory, which is 16 MiB"), "{told}");
    let done: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut names: Vec<_> = done.iter().map(|report| report["view"].as_str().expect("a view")).collect();
    names.sort_unstable();
    assert_eq!(names, ["before", "last", "later"], "{}", ran.stdout);
    assert!(done.iter().all(|report| report["boundary"] == offsets && report["mode"] != "none"), "{}", ran.stdout);
    let kept = case.run(&["batch", "runs", "--output", "json"]).json();
    let kept = kept.last().expect("the run");
    let published = kept["published"].as_str().expect("the views");
    assert_eq!((&kept["outcome"], published.split(", ").count()), (&json!("failed"), 3), "{kept}");
    assert!(kept["error"].as_str().is_some_and(|error| error.contains("distinct_keys")), "{kept}");
    // With enough it is made up for; the others have nothing to do.
    let modes: Vec<_> = run("1GiB").json().iter().map(|report| report["mode"].clone()).collect();
    assert_eq!(modes.iter().filter(|mode| **mode == "none").count(), 3, "{modes:?}");
    let verified = ask(&case, &up, &["verify"]).json();
    assert!(verified.len() == 4 && verified.iter().all(|row| row["equal"] == true), "{verified:?}");
}

#[test]
fn a_batch_run_makes_the_scratch_folder_that_it_needs() {
    let case = one_partition(COUNTS);
    let mut up = up(&case);
    let offsets = case.produce(&up, "e", &[LINE]);
    answer(&up, "SELECT * FROM v", &offsets);
    assert_eq!(up.terminate(), Some(0));
    // As on a machine, or in a pod, where nothing ran before.
    let elsewhere = case.path("never-used");
    let elsewhere = elsewhere.to_str().expect("UTF-8");
    let store = format!("file://{}", case.store_folder().display());
    let ran = case.run(&["batch", "run", "--full", "--data-dir", elsewhere, "--store", &store]);
    assert_eq!(only(ran.json())["groups"], 1);
}
