//! What the property test cannot say.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bifold_fold::states::Input;
use bifold_fold::{Engine, Error, PipelineError, View};
use bifold_tests::rows::{Cell, Rows};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use super::log::Record;
use super::pieces::decode;
use super::views::compile;

/// One partition whose records hold these events. The event time is added.
fn log_of<S: AsRef<str>>(events: impl IntoIterator<Item = S>) -> Vec<Record> {
    let record = |(offset, fields): (usize, S)| {
        let value = format!("{{\"time\":\"2015-09-12T00:00:{:02}Z\",{}}}", offset % 60, fields.as_ref()).into_bytes();
        Record { partition: 0, offset: offset as i64, timestamp_ms: -1, value, events: 1, dead: 0 }
    };
    events.into_iter().enumerate().map(record).collect()
}

/// A view, and each record of a log folded by itself.
struct Folded {
    engine: Engine,
    view: Arc<View>,
    states: Vec<RecordBatch>,
    rows: RecordBatch,
}

impl Folded {
    async fn new(select: &str, log: &[Record]) -> Result<Self, PipelineError> {
        let engine = Engine::new();
        let view = compile(&engine, select).await?;
        let input = Input::new(&engine, Arc::clone(&view)).await.expect("the input can be planned");
        let mut states = vec![];
        for record in log {
            let rows = decode(&view.source, &[record], |column| view.needed.iter().any(|needed| needed == column));
            states.extend(input.fold(&[rows]).await.unwrap_or_else(|e| { println!("  FOLD {e}"); vec![] }));
        }
        let rows = decode(&view.source, &log.iter().collect::<Vec<_>>(), |_| true);
        Ok(Self { engine, view, states, rows })
    }

    async fn finish(&self) -> Result<Rows, Error> {
        Ok(Rows::of(&self.view.finish(&self.engine, self.states.clone()).await?))
    }

    /// What plain DataFusion says of the same SELECT.
    async fn plain(&self) -> datafusion::error::Result<Rows> {
        let context = SessionContext::new();
        let table = MemTable::try_new(self.rows.schema(), vec![vec![self.rows.clone()]])?;
        context.register_table("events", Arc::new(table))?;
        Ok(Rows::of(&context.sql(&self.view.sql).await?.collect().await?))
    }
}

#[tokio::test]
async fn explore() {
    let log = log_of((0..300).map(|i| format!(r#""n":{},"small":{},"page":"a","channel":"x""#, i * i * 7 % 311, i * 31 % 17)));
    for select in [
        "SELECT ok, corr(1000000 + small, n % 10) , corr(small, n % 10) FROM events GROUP BY ok",
        "SELECT corr(1000000 + small, n % 10) FROM events",
        "SELECT corr(0.1::DOUBLE, n % 10) FROM events",
        "SELECT corr(CASE WHEN n IS NULL THEN 1.0 ELSE 0.1 END, n % 10) FROM events",
        "SELECT ok, corr(CASE WHEN n IS NULL THEN 1.0 ELSE 0.1 END, n % 10) FROM events group by ok",
    ] {
        println!("=== {select}");
        match Folded::new(select, &log).await {
            Err(e) => println!("  refused {e}"),
            Ok(folded) => {
                println!("  ids {:?} {}", folded.view.state_ids, folded.view.stored.fields().iter().map(|f| f.data_type().to_string()).collect::<Vec<_>>().join("; "));
                let (ours, plain) = (folded.finish().await, folded.plain().await);
                match (ours, plain) {
                    (Ok(a), Ok(b)) if a.rows == b.rows => println!("  same {:?}", a.rows),
                    (Ok(a), Ok(b)) => println!("  DIFFER {:?}\n      {:?}", a.rows, b.rows),
                    (a, b) => println!("  {a:?}\n  {b:?}"),
                }
            }
        }
    }
}
