//! The property test: merged = recomputed in one fold = plain SQL.
//!
//! The seed is random and printed with a failure; `LAW_SEED=… cargo test -p bifold-tests law` repeats it, `LAW_CASES=…`
//! tries more.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bifold_fold::{Engine, View};
use bifold_tests::rows::{Cell, Rows};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use tokio::runtime::Runtime;

use super::log::{Draft, Record, drafts, written};
use super::pieces::{Cuts, Fold, States};
use super::views::{Dialect, Held, Subject, VIEWS, compiled};

#[test]
fn merged_is_recomputed_is_plain_sql() {
    let runtime = Runtime::new().expect("a runtime");
    let fold = runtime.block_on(async {
        let engine = Engine::new();
        let views = compiled(&engine).await;
        Fold::new(engine, views).await
    });
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("LAW_SEED").unwrap_or_else(rand::random);
    let config = Config {
        cases: number("LAW_CASES").unwrap_or(24) as u32,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let strategy = (drafts(40), any::<u64>().no_shrink());
    let outcome = TestRunner::new(config)
        .run(&strategy, |(drafts, dice)| runtime.block_on(holds(&fold, &drafts, dice)).map_err(TestCaseError::fail));
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, (drafts, dice))) => {
            let log = written(&drafts, dice);
            let shown = log.iter().map(|r| format!("  {}@{} {}\n", r.partition, r.offset, r.value.escape_ascii()));
            panic!("{why}\nfor the log\n{}dice {dice}; repeat with LAW_SEED={seed}", shown.collect::<String>())
        }
        Err(TestError::Abort(why)) => panic!("{why}; repeat with LAW_SEED={seed}"),
    }
}

#[test]
fn nothing_at_all_is_a_log_too() {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let engine = Engine::new();
        let views = compiled(&engine).await;
        let fold = Fold::new(engine, views).await;
        holds(&fold, &[], 0).await.unwrap();
        let view = fold.views.iter().find(|view| view.name == "everything").expect("it is one of them");
        let rows = Rows::of(&view.finish(&fold.engine, vec![]).await.unwrap());
        assert_eq!(rows.rows.len(), 1, "a view without GROUP BY always has a row");
        for (column, cell) in rows.columns.iter().zip(&rows.rows[0]) {
            let counts = ["events", "pages", "users"].contains(&column.as_str());
            assert_eq!(*cell, if counts { Cell::Integer(0) } else { Cell::Null }, "{column}");
        }
    });
}

/// The law, for one log and one way of cutting and merging it.
async fn holds(fold: &Fold, drafts: &[Draft], dice: u64) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(dice);
    let log = written(drafts, dice);
    let cuts = Cuts::new(&log, &mut rng);
    if let Some(why) = fold.misread(&cuts.all) {
        return Err(format!("the decoder sees {why}"));
    }
    let rows = fold.decode(&cuts.all);
    let merged = fold.in_pieces(&cuts, &mut rng).await.map_err(|e| format!("in pieces: {e}"))?;
    let at_once = fold.at_once(&rows).await.map_err(|e| format!("at once: {e}"))?;
    let merged = finished(fold, merged).await?;
    let at_once = finished(fold, at_once).await?;
    let plain = plain(&rows, &cuts.all).await?;
    let verifying = verifying(fold, &rows).await?;
    for (i, subject) in VIEWS.iter().enumerate() {
        let held: Vec<Held> = merged[i].columns.iter().map(|column| subject.held(column)).collect();
        let same = |column: usize, a: &Cell, b: &Cell| matches!(held[column], Held::Quantile(_)) || a.is_like(b);
        let near = |column: usize, a: &Cell, b: &Cell| is_near(held[column], a, b);
        let differences = [
            ("merged against one fold", merged[i].difference(&at_once[i], same)),
            ("merged against what verify asks", merged[i].difference(&verifying[i], same)),
            ("merged against plain SQL", merged[i].difference(&plain[i], near)),
            ("one fold against plain SQL", at_once[i].difference(&plain[i], near)),
        ];
        for (what, difference) in differences {
            if let Some(why) = difference {
                return Err(format!("{}: {what}: {why}", subject.name));
            }
        }
    }
    Ok(())
}

/// Whether a value is what plain SQL says, as near as it is held to be.
fn is_near(held: Held, ours: &Cell, plain: &Cell) -> bool {
    match (held, ours, plain) {
        (Held::Exact, a, b) => a.is_like(b),
        (Held::Distinct, a, b) => match (a.number(), b.number()) {
            (Some(a), Some(b)) => (a - b).abs() <= 0.05 * b,
            _ => a == b,
        },
        // The plain value is every value there is, in order: the quantile stands among them where it should, within
        // 5 % of them and one.
        (Held::Quantile(percent), quantile, Cell::List(values)) => {
            let Some(quantile) = quantile.number() else { return false };
            let numbers: Vec<f64> = values.iter().filter_map(Cell::number).collect();
            let (count, place) = (numbers.len() as f64, percent * (numbers.len() as f64 - 1.0));
            let below = numbers.iter().filter(|value| **value < quantile).count() as f64;
            let upto = numbers.iter().filter(|value| **value <= quantile).count() as f64;
            let slack = 0.05 * count + 1.0;
            below - slack <= place && place <= upto + slack
        }
        (Held::Quantile(_), a, b) => a == b,
    }
}

async fn finished(fold: &Fold, states: States) -> Result<Vec<Rows>, String> {
    let mut all = vec![];
    for (view, states) in fold.views.iter().zip(states) {
        all.push(finish(view, &fold.engine, states).await?);
    }
    Ok(all)
}

async fn finish(view: &View, engine: &Engine, states: Vec<RecordBatch>) -> Result<Rows, String> {
    let rows = view.finish(engine, states).await.map_err(|e| format!("{}: finish: {e}", view.name))?;
    let names = |schema: &SchemaRef| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    let types = |schema: &SchemaRef| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    for batch in &rows {
        assert_eq!(names(&batch.schema()), names(&view.output), "{}", view.name);
        assert_eq!(types(&batch.schema()), types(&view.output), "{}", view.name);
    }
    Ok(Rows::of(&rows))
}

/// The views' SQL as DataFusion runs it by itself: no state of ours, no function of ours, its own settings.
async fn plain(rows: &RecordBatch, records: &[&Record]) -> Result<Vec<Rows>, String> {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let half = rows.num_rows() / (1 + records.len() % 3);
    let parts = vec![vec![rows.slice(0, half)], vec![rows.slice(half, rows.num_rows() - half)]];
    let table = MemTable::try_new(rows.schema(), parts).map_err(|e| e.to_string())?;
    context.register_table("events", Arc::new(table)).map_err(|e| e.to_string())?;
    let mut answers = vec![];
    for subject in &VIEWS {
        answers.push(query(&context, subject).await.map_err(|e| format!("{}: plain: {e}", subject.name))?);
    }
    Ok(answers)
}

/// What `verify` compares answers with: the views' SQL as an ordinary query of our engine, without states.
async fn verifying(fold: &Fold, rows: &RecordBatch) -> Result<Vec<Rows>, String> {
    let mut answers = vec![];
    for view in &fold.views {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]]).map_err(|e| e.to_string())?;
        let rows = view.plain(&fold.batch, Arc::new(table)).await.map_err(|e| format!("{}: {e}", view.name))?;
        answers.push(Rows::of(&rows));
    }
    Ok(answers)
}

async fn query(context: &SessionContext, subject: &Subject) -> datafusion::error::Result<Rows> {
    Ok(Rows::of(&context.sql(&subject.select(Dialect::DataFusion)).await?.collect().await?))
}
