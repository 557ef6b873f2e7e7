//! Random views and queries, answered so that another database can judge them.
//!
//! `tests/differential/generate.py` writes the cases of a seed; this reads them from `DIFFERENTIAL_CASES` and writes an answer a line
//! into `DIFFERENTIAL_ANSWERS`; `tests/differential/compare.py` asks DuckDB. Each view is folded at three boundaries: all of it by the
//! speed layer, half of it by either, all of it by the batch layer; and computed once more without states.

use std::fs;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bifold_fold::states::Input;
use bifold_fold::{Decoder, Engine, Envelope, View, pipeline, view};
use bifold_serving::json;
use bifold_serving::sql::{Limits, context_with, select};
use datafusion::datasource::MemTable;
use datafusion::physical_plan::collect;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::log::MAX_RECORD;
use super::pieces::through_parquet;

/// Rows in a slice of the speed layer.
const SLICE: usize = 7;
const LIMITS: Duration = Duration::from_secs(60);
const MEMORY: u64 = 1 << 30;

/// A case as `generate.py` writes it; its oracle is for `compare.py`.
pub(super) struct Case {
    pub(super) id: Value,
    pub(super) columns: String,
    pub(super) view: String,
    pub(super) queries: Vec<String>,
    pub(super) events: Vec<Box<RawValue>>,
}

impl Case {
    fn of(line: &str) -> Self {
        // Numbers of events keep their digits: nothing parses them but the decoder.
        let mut fields: std::collections::HashMap<String, Box<RawValue>> = serde_json::from_str(line).expect("a case");
        let mut take = |name: &str| fields.remove(name).unwrap_or_else(|| panic!("{name} of a case"));
        let text = |raw: Box<RawValue>| serde_json::from_str::<String>(raw.get()).expect("a text");
        Self {
            id: serde_json::from_str(take("id").get()).expect("an id"),
            columns: text(take("columns")),
            view: text(take("view")),
            queries: serde_json::from_str(take("queries").get()).expect("queries"),
            events: serde_json::from_str(take("events").get()).expect("events"),
        }
    }

    pub(super) async fn answer(&self, engine: &Engine, batch: &Engine) -> Value {
        let Case { columns, view: select, .. } = self;
        let text = format!(
            "CREATE TABLE t ({columns}) WITH (connector = 'kafka', topic = 't', format = 'json');
             CREATE MATERIALIZED VIEW v AS {select}"
        );
        let pipeline = match pipeline::parse("case.sql", &text, MAX_RECORD) {
            Ok(pipeline) => pipeline,
            Err(error) => return json!({ "id": self.id, "refused": error.to_string() }),
        };
        let view = match view::compile(engine, &pipeline, &pipeline.views[0]).await {
            Ok(view) => view,
            Err(error) => return json!({ "id": self.id, "refused": error.to_string() }),
        };
        match self.answers(engine, batch, &view).await {
            Ok((answers, rows)) => json!({
                "id": self.id, "columns": json::columns(&view.output), "answers": answers,
                "queries": self.asked(engine, &view, rows).await,
            }),
            Err(error) => {
                json!({ "id": self.id, "columns": json::columns(&view.output), "answers": { "error": error } })
            }
        }
    }

    /// The finished rows at each boundary, and those that queries are asked of.
    async fn answers(
        &self,
        engine: &Engine,
        batch: &Engine,
        view: &Arc<View>,
    ) -> Result<(Value, Vec<RecordBatch>), String> {
        let said = |error: bifold_fold::Error| error.to_string();
        let half = self.events.len() / 2;
        let folded = |from: usize| fold(engine, view, (&self.events[from..], from));
        let all = folded(0).await.map_err(said)?;
        let late = folded(half).await.map_err(said)?;
        let mut split = archived(batch, view, &self.events[..half]).await.map_err(said)?;
        split.extend(late);
        let whole = archived(batch, view, &self.events).await.map_err(said)?;
        let table = MemTable::try_new(view.source.schema(), vec![vec![decoded(view, &self.events, 0)]]).expect("rows");
        let plain = view.plain(engine, Arc::new(table)).await.map_err(said)?;
        let speed = view.finish(engine, all).await.map_err(said)?;
        let split = view.finish(engine, split).await.map_err(said)?;
        let whole = view.finish(engine, whole).await.map_err(said)?;
        let answers =
            json!({ "speed": rows(&speed), "split": rows(&split), "batch": rows(&whole), "plain": rows(&plain) });
        Ok((answers, split))
    }

    async fn asked(&self, engine: &Engine, view: &View, rows: Vec<RecordBatch>) -> Vec<Value> {
        let mut answers = vec![];
        for sql in &self.queries {
            let table = std::iter::once(("v", &view.output, rows.clone()));
            let context = context_with(engine, table, MEMORY).expect("a context");
            let limits = Limits { deadline: Instant::now() + LIMITS, memory: MEMORY, rows: 1_000_000 };
            answers.push(match select(&context, sql, limits).await {
                Ok(answer) => json!({ "columns": json::columns(&answer.schema), "rows": self::rows(&answer.batches) }),
                Err(problem) => json!({ "error": problem.detail() }),
            });
        }
        answers
    }
}

fn rows(batches: &[RecordBatch]) -> Vec<Value> {
    batches.iter().flat_map(|batch| json::rows(batch).expect("every type is JSON")).collect()
}

/// Events at the offsets from `first` on.
fn decoded(view: &View, events: &[Box<RawValue>], first: usize) -> RecordBatch {
    let mut decoder = Decoder::new(Arc::clone(&view.source), |_| true);
    let mut dead = vec![];
    for (offset, event) in events.iter().enumerate() {
        let (offset, value) = ((first + offset) as i64, event.get().as_bytes());
        decoder.push(Envelope { topic: "t", partition: 0, offset, timestamp_ms: 0, value }, &mut dead);
    }
    assert!(dead.is_empty(), "cases have no dead letters: {dead:?}");
    decoder.finish()
}

/// States as the speed layer makes them: of slices, some of them merged.
async fn fold(
    engine: &Engine,
    view: &Arc<View>,
    (events, first): (&[Box<RawValue>], usize),
) -> Result<Vec<RecordBatch>, bifold_fold::Error> {
    let input = Input::new(engine, Arc::clone(view)).await?;
    let mut states = vec![];
    for (place, slice) in events.chunks(SLICE).enumerate() {
        states.extend(input.fold(&[decoded(view, slice, first + place * SLICE)]).await?);
    }
    let rest = states.split_off(states.len() / 2);
    let mut states = view.reduce(engine, states).await?;
    states.extend(rest);
    Ok(states)
}

/// States as the batch layer makes them: of rows and into runs, both through Parquet.
async fn archived(
    engine: &Engine,
    view: &Arc<View>,
    events: &[Box<RawValue>],
) -> Result<Vec<RecordBatch>, bifold_fold::Error> {
    let schema = view.source.schema();
    let table = MemTable::try_new(Arc::clone(&schema), vec![through_parquet(&schema, &[decoded(view, events, 0)])])?;
    let plan = view.sorted_run(view.partial(view.input_plan(engine, Arc::new(table)).await?)?)?;
    let run = collect(plan, engine.task()).await?;
    let run = run.into_iter().map(|batch| view.to_stored(batch)).collect::<Result<Vec<_>, _>>()?;
    Ok(through_parquet(&view.stored, &run))
}

#[test]
fn differential_cases_are_answered() {
    let (Some(cases), Some(answers)) =
        (std::env::var_os("DIFFERENTIAL_CASES"), std::env::var_os("DIFFERENTIAL_ANSWERS"))
    else {
        eprintln!("SKIPPED: tests/differential/run names the cases");
        return;
    };
    let cases = fs::read_to_string(cases).expect("the cases");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(bifold_fold::STACK).build();
    let runtime = runtime.expect("a runtime");
    let scratch = tempfile::tempdir().expect("a folder for scratch");
    let batch = Engine::with_limit(64 << 20, scratch.path(), 2).expect("the scratch folder can be used");
    let engine = Engine::new();
    let tasks: Vec<_> = cases
        .lines()
        .map(Case::of)
        .map(|case| {
            let (engine, batch) = (engine.clone(), batch.clone());
            runtime.spawn(async move { case.answer(&engine, &batch).await })
        })
        .collect();
    let mut file = std::io::BufWriter::new(fs::File::create(answers).expect("the answers"));
    for task in tasks {
        let answer = runtime.block_on(task).expect("no case panics");
        writeln!(file, "{answer}").expect("written");
    }
}
