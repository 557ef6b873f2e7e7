//! An upgrade of bifold changes no answer: `tests/golden/store-1` is a store, with its log, that the last build before dialects wrote,
//! half of it in batch views and half in deltas. Its views are answered wrongly there, and stay so until `bifold upgrade`.
//!
//! The store has ledger format 3 and is never changed. `answers.json` holds what that build answered, `right.json` what is right.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::harness::{Case, Service};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").join("tests/golden/store-1")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the golden store") {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).expect("an entry");
        match path.is_dir() {
            true => copy(&path, &to.join(name)),
            false => drop(fs::copy(&path, to.join(name)).expect("a copy")),
        }
    }
}

fn read(name: &str) -> Map<String, Value> {
    serde_json::from_str(&fs::read_to_string(golden().join(name)).expect(name)).expect(name)
}

/// The rows of a view in one order, and the version that answered.
fn answer(service: &Service, view: &str) -> (Vec<String>, Value) {
    let reply = service.sql(&format!("SELECT * FROM {view}"), Some("latest"));
    assert_eq!(reply.status, 200, "{view}: {}", reply.text);
    let body = reply.json();
    (sorted(&body["rows"]), body["coverage"][0]["version"].clone())
}

fn sorted(rows: &Value) -> Vec<String> {
    let mut rows: Vec<String> = rows.as_array().expect("rows").iter().map(Value::to_string).collect();
    rows.sort();
    rows
}

/// Asserts that every view answers as the last build did, by the same version.
fn answers_as_before(service: &Service, when: &str) {
    for (view, before) in read("answers.json") {
        let expected = (sorted(&before["rows"]), before["version"].clone());
        assert_eq!(answer(service, &view), expected, "{view} {when}");
    }
}

#[test]
fn an_upgrade_of_bifold_changes_no_answer_and_bifold_upgrade_puts_them_right() {
    let pipeline = fs::read_to_string(golden().join("pipeline.sql")).expect("the pipeline");
    let case = Case::on(&pipeline, None);
    copy(&golden().join("data"), &case.path("data"));
    let offline = case.run(&["verify", "--offline"]);
    assert_eq!(offline.code, Some(0), "{}\n{}", offline.stdout, offline.stderr);
    let checked = case.run(&["check"]);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    assert!(checked.stderr.contains("declared under dialect 1, and kept there: distinct_from"), "{}", checked.stderr);
    let mut up = case.start("up");
    answers_as_before(&up, "after the upgrade of bifold");
    let verified = case.run(&["verify", "--url", &up.url]);
    assert_eq!(verified.code, Some(0), "{}\n{}", verified.stdout, verified.stderr);

    // One view has a retention over event times without a bound: it stays where it is, and that is said.
    let upgraded = case.run(&["upgrade", "--all"]);
    assert_eq!(upgraded.code, Some(2), "{}\n{}", upgraded.stdout, upgraded.stderr);
    assert!(upgraded.stderr.contains("retention goes by the newest event time"), "{}", upgraded.stderr);
    assert_eq!(upgraded.stdout.matches("\"state\":\"building\"").count(), 8, "{}", upgraded.stdout);
    // `up` builds the new versions by itself: each view is as before, or right.
    let (before, right) = (read("answers.json"), read("right.json"));
    let before_or_right = |up: &Service, when: &str| {
        for (view, rows) in &right {
            let (found, version) = answer(up, view);
            let rows = if version == before[view]["version"] { &before[view]["rows"] } else { rows };
            assert_eq!(found, sorted(rows), "{view} {when}");
        }
    };
    before_or_right(&up, "while the new versions are built");
    up.kill();
    let mut up = case.start("up");
    before_or_right(&up, "after kill -9 meanwhile");

    let batch = case.run(&["batch", "run", "--at-least", "latest", "--url", &up.url]);
    assert_eq!(batch.code, Some(0), "{}", batch.stderr);
    assert_eq!(right.len(), before.len());
    let right_now = |up: &Service, when: &str| {
        for (view, rows) in &right {
            let (found, version) = answer(up, view);
            assert_eq!(found, sorted(rows), "{view} {when}");
            assert_eq!(version == before[view]["version"], view == "kept", "{view} {when}: {version}");
        }
        let verified = case.run(&["verify", "--url", &up.url]);
        assert_eq!(verified.code, Some(0), "{}\n{}", verified.stdout, verified.stderr);
    };
    right_now(&up, "after the batch run");
    // The same pipeline means the upgraded versions from now on.
    assert_eq!(up.terminate(), Some(0));
    let up = case.start("up");
    right_now(&up, "after a restart");
    let again = case.run(&["upgrade", "distinct_from"]);
    assert_eq!((again.code, again.stdout.contains("\"state\":\"ready\"")), (Some(0), true), "{}", again.stdout);
}

#[test]
fn a_new_view_gets_todays_dialect_beside_old_ones() {
    let pipeline = fs::read_to_string(golden().join("pipeline.sql")).expect("the pipeline");
    let more =
        "CREATE MATERIALIZED VIEW more AS SELECT count(*) AS n FROM e WHERE robot IS DISTINCT FROM true AND n > 1;";
    let case = Case::on(&format!("{pipeline}\n{more}"), None);
    copy(&golden().join("data"), &case.path("data"));
    let up = case.start("up");
    let batch = case.run(&["batch", "run", "--at-least", "latest", "--url", &up.url]);
    assert_eq!(batch.code, Some(0), "{}", batch.stderr);
    let (old, new) = (answer(&up, "distinct_from").0, answer(&up, "more").0);
    let (before, right) = (read("answers.json"), read("right.json"));
    assert_eq!((old, new), (sorted(&before["distinct_from"]["rows"]), sorted(&right["distinct_from"])));
    let views = case.run(&["views"]);
    assert!(views.stdout.contains("\"dialect\":3") && views.stdout.contains("\"dialect\":1"), "{}", views.stdout);
}
