//! Ids of states and states of old.
//!
//! What is stored under a state id merges with whatever else has the same id, in every version of bifold; a view's
//! version is made of them. `golden/state_ids-N.json` holds the id of every aggregate that merges in dialect N, in its forms.
//!
//! - A new aggregate or form: add a line with an empty id and run the tests with `GOLDEN=write`.
//! - The bytes of a state change (ours, or DataFusion's with an upgrade): its id gets another number, in
//!   `functions::state_id`, and so does its line. Every view that uses it is rebuilt from the archive; say so in the
//!   changelog.
//! - An id changes and the bytes do not: that is a mistake, for everyone's views would be rebuilt for nothing.
//!
//! Each folder `golden/states-N` holds a pipeline of dialect N, events, and the states that were made of them once, as a delta and as
//! Parquet. They must be read, finish to the same numbers, and merge with states of today. A folder is never changed;
//! a new one needs `pipeline.sql` and `events.ndjson`, and `GOLDEN=write` makes the rest. Old ones go only when the ids of
//! their states do.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use bifold_fold::dialect::TODAY;
use bifold_fold::states::Input;
use bifold_fold::view::compile_under;
use bifold_fold::{Decoder, Engine, Envelope, View, delta, pipeline};
use bifold_ledger::{Dialect, VersionId};
use bifold_tests::rows::{Rows, WITHIN};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value, json};

use super::views::pipeline_of;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn writes() -> bool {
    std::env::var("GOLDEN").is_ok_and(|value| value == "write")
}

fn read_json(path: &Path) -> Map<String, Value> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn write_json(path: &Path, value: &Map<String, Value>) {
    let text = serde_json::to_string_pretty(value).expect("it is JSON") + "\n";
    fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

#[tokio::test]
async fn ids_of_states_never_change() {
    for dialect in (1..=TODAY.0).map(Dialect) {
        ids_never_change(dialect).await;
    }
}

async fn ids_never_change(dialect: Dialect) {
    let path = golden().join(format!("state_ids-{dialect}.json"));
    let mut ids = read_json(&path);
    let engine = Engine::new();
    let mut changed = vec![];
    for (call, id) in &mut ids {
        let pipeline = pipeline_of([("v", format!("SELECT {call} AS x FROM events"))]);
        let view = compile_under(&engine, &pipeline, &pipeline.views[0], dialect).await;
        let view = view.unwrap_or_else(|e| panic!("{e}"));
        let [now] = &view.state_ids[..] else { panic!("{call}: {:?}", view.state_ids) };
        match id.as_str() {
            Some("") if writes() => *id = json!(now),
            Some(id) if id == now => {}
            _ => changed.push(format!("{call}: {now}, the golden file says {id}")),
        }
    }
    assert!(changed.is_empty(), "{}\n(see the head of tests/law/golden.rs)", changed.join("\n"));
    if writes() {
        write_json(&path, &ids);
    }
}

#[tokio::test]
async fn states_of_old_load_finish_and_merge() {
    let mut folders: Vec<PathBuf> = fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path()).collect();
    // A whole store is for tests/system/dialects.rs.
    let is_states =
        |folder: &PathBuf| folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("states-"));
    folders.retain(is_states);
    assert!(!folders.is_empty());
    let engine = Engine::new();
    for folder in folders {
        let text = fs::read_to_string(folder.join("pipeline.sql")).unwrap();
        let pipeline = pipeline::parse("pipeline.sql", &text, 1 << 20).unwrap_or_else(|e| panic!("{e}"));
        let mut views = vec![];
        for text in &pipeline.views {
            views.push(
                compile_under(&engine, &pipeline, text, dialect_of(&folder)).await.unwrap_or_else(|e| panic!("{e}")),
            );
        }
        if writes() && !folder.join("answers.json").exists() {
            write(&engine, &folder, &views).await;
        }
        check(&engine, &folder, &views).await;
    }
}

/// The dialect that a folder's states are of: the number in its name.
fn dialect_of(folder: &Path) -> Dialect {
    let name = folder.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('-'));
    Dialect(name.and_then(|(_, number)| number.parse().ok()).expect("states-N"))
}

async fn check(engine: &Engine, folder: &Path, views: &[Arc<View>]) {
    let answers = read_json(&folder.join("answers.json"));
    let file = fs::read(folder.join("states.delta")).unwrap();
    assert_eq!(answers.len(), views.len());
    for view in views {
        let at = format!("{}: {}", folder.display(), view.name);
        let answer = &answers[&view.name];
        assert_eq!(answer["version"], json!(view.version.0), "{at}: another version, so the view would be rebuilt");
        let version = VersionId(answer["version"].as_str().expect("a text").to_string());
        let old = delta::read(&file, &version).unwrap_or_else(|e| panic!("{at}: {e}"));
        let run = parquet_of(&folder.join(format!("{}.parquet", view.name)));
        for (states, of) in [(&old, "delta"), (&run, "Parquet")] {
            let rows = Rows::of(&view.finish(engine, states.clone()).await.unwrap_or_else(|e| panic!("{at}: {e}")));
            let (rows, was) = (rows.json(), &answer["rows"]);
            assert!(near(&rows, was), "{at}: the {of} finishes to\n{rows}\nand did to\n{was}");
        }
        // States of today merge with those of old: as if today's code had folded both.
        let [again, first] = [1, 0].map(|partition| rows_of(folder, view, partition));
        let input = Input::new(engine, Arc::clone(view)).await.unwrap();
        let today = input.fold(std::slice::from_ref(&again)).await.unwrap();
        let mixed = view.finish(engine, [today, old].concat()).await.unwrap();
        let whole = view.finish(engine, input.fold(&[first, again]).await.unwrap()).await.unwrap();
        if let Some(why) = Rows::of(&mixed).difference(&Rows::of(&whole), |_, a, b| a.is_like(b)) {
            panic!("{at}: old states do not merge with new ones: {why}");
        }
    }
}

async fn write(engine: &Engine, folder: &Path, views: &[Arc<View>]) {
    let (mut sections, mut answers) = (vec![], Map::new());
    for view in views {
        let input = Input::new(engine, Arc::clone(view)).await.unwrap();
        let rows = rows_of(folder, view, 0);
        let halves = [rows.slice(0, rows.num_rows() / 2), rows.slice(rows.num_rows() / 2, rows.num_rows().div_ceil(2))];
        let mut states = vec![];
        for half in halves {
            states.extend(input.fold(&[half]).await.unwrap());
        }
        let finished = Rows::of(&view.finish(engine, states.clone()).await.unwrap());
        let answer = json!({ "version": view.version.0, "columns": finished.columns, "rows": finished.json() });
        answers.insert(view.name.clone(), answer);
        let run = File::create(folder.join(format!("{}.parquet", view.name))).unwrap();
        let mut writer = ArrowWriter::try_new(run, Arc::clone(&view.stored), None).unwrap();
        for batch in view.reduce(engine, states.clone()).await.unwrap() {
            writer.write(&batch).unwrap();
        }
        writer.close().unwrap();
        sections.push((view.version.clone(), Arc::clone(&view.stored), states));
    }
    fs::write(folder.join("states.delta"), delta::write(&sections).unwrap()).unwrap();
    write_json(&folder.join("answers.json"), &answers);
}

/// The folder's events as records of one partition, every column.
fn rows_of(folder: &Path, view: &View, partition: i32) -> RecordBatch {
    let events = fs::read_to_string(folder.join("events.ndjson")).unwrap();
    let mut decoder = Decoder::new(Arc::clone(&view.source), |_| true);
    let topic = &view.source.topics[0];
    for (offset, line) in events.lines().enumerate() {
        let mut dead = vec![];
        let value = line.as_bytes();
        decoder.push(Envelope { topic, partition, offset: offset as i64, timestamp_ms: -1, value }, &mut dead);
        assert!(dead.is_empty(), "{line}: {dead:?}");
    }
    decoder.finish()
}

fn parquet_of(path: &Path) -> Vec<RecordBatch> {
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    let reader = reader.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    reader.map(|batch| batch.unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect()
}

/// Equal; doubles within rounding.
fn near(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(a, b)),
        (Value::Number(x), Value::Number(y)) if x.is_f64() && y.is_f64() => {
            let (x, y) = (x.as_f64().unwrap_or(f64::NAN), y.as_f64().unwrap_or(f64::NAN));
            (x - y).abs() <= WITHIN * x.abs().max(y.abs()).max(1.0)
        }
        _ => a == b,
    }
}
