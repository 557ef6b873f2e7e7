//! Some of the views over one log, written out so that another database can say what it makes of them.
//!
//! Writes `events.ndjson`, the decoded events, and `answers.json`, merged answers with the SQL that DuckDB is asked, into
//! the folder `LAW_DUCKDB`, or else into cargo's own folder for tests. `tests/duckdb/law.py` compares.

use std::fs;
use std::path::PathBuf;

use bifold_fold::Engine;
use bifold_tests::rows::Rows;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::log::{Record, drafts, written};
use super::pieces::{Cuts, Fold};
use super::views::{Dialect, Held, VIEWS, compiled};

#[tokio::test]
async fn answers_are_written_for_duckdb() {
    let folder = std::env::var_os("LAW_DUCKDB").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("duckdb"));
    fs::create_dir_all(&folder).unwrap();
    let engine = Engine::new();
    let views = compiled(&engine).await;
    let fold = Fold::new(engine, views).await;
    let mut rng = StdRng::seed_from_u64(20_150_912);
    let log = one_log();
    let cuts = Cuts::new(&log, &mut rng);
    let states = fold.in_pieces(&cuts, &mut rng).await.unwrap();

    let events = Rows::of(&[fold.decode(&cuts.all)]);
    assert!(events.rows.len() > 300, "{} events", events.rows.len());
    let line = |row: &Vec<_>| {
        let object: Map<String, Value> =
            events.columns.iter().cloned().zip(row.iter().map(bifold_tests::rows::Cell::json)).collect();
        Value::Object(object).to_string() + "\n"
    };
    fs::write(folder.join("events.ndjson"), events.rows.iter().map(line).collect::<String>()).unwrap();

    let mut answers = vec![];
    for ((subject, view), states) in VIEWS.iter().zip(&fold.views).zip(states) {
        if !subject.duckdb {
            continue;
        }
        let rows = Rows::of(&view.finish(&fold.engine, states).await.unwrap());
        assert_eq!(rows.columns[..view.keys.len()], view.keys, "rows start with their keys");
        let about: Vec<&String> = rows.columns.iter().filter(|name| subject.held(name) == Held::Distinct).collect();
        answers.push(json!({
            "view": subject.name, "sql": subject.select(Dialect::DuckDb), "keys": view.keys.len(),
            "columns": rows.columns, "about": about, "rows": rows.json(),
        }));
    }
    fs::write(folder.join("answers.json"), serde_json::to_string_pretty(&answers).unwrap()).unwrap();
}

/// Always the same log.
fn one_log() -> Vec<Record> {
    let mut runner = TestRunner::deterministic();
    let logs = (0..30).map(|_| drafts(60).new_tree(&mut runner).expect("a log").current());
    written(&logs.flatten().collect::<Vec<_>>(), 20_150_912)
}
