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
    let log = log_of([
        r#""n":1,"small":2,"price":0.1,"weight":1.5,"page":"a","channel":"x","tags":["p","q"],"geo":{"city":"c"}"#,
        r#""n":2,"small":0,"price":0.1,"weight":2.5,"page":"b","channel":"x","tags":["q"]"#,
        r#""n":9223372036854775807,"small":3,"price":0.1,"weight":2.5,"page":"12","channel":"x""#,
        r#""n":4,"small":3,"price":-0.0,"weight":2.75,"page":"12","channel":"y""#,
        r#""n":4,"small":3,"price":0.0,"weight":2.75,"page":"12","channel":"y""#,
    ]);
    for select in [
        "SELECT array_agg(page ORDER BY time), array_agg(page ORDER BY time DESC, _topic DESC, _partition DESC, _offset DESC, _index DESC) FROM events",
        "SELECT string_agg(page, '|' ORDER BY time), string_agg(page, '|' ORDER BY time DESC, _topic DESC, _partition DESC, _offset DESC, _index DESC) FROM events",
        "SELECT array_agg(page ORDER BY _offset) FROM events",
        "SELECT first_value(page ORDER BY _offset DESC, _index) FROM events e",
        "SELECT first_value(page ORDER BY e._offset DESC, _index), last_value(page ORDER BY _offset DESC, e._index) FROM events e",
        "SELECT sum(time - TIMESTAMP '2015-09-12T00:00:00') FROM events",
        "SELECT avg(time - TIMESTAMP '2015-09-12T00:00:00') FROM events",
        "SELECT sum(date_part('epoch', time) - date_part('epoch', TIMESTAMP '2015-09-12T00:00:00')) FROM events",
        "SELECT unnest(tags) AS tag, array_agg(page ORDER BY time) FROM events GROUP BY 1",
        "SELECT unnest(tags) AS tag, array_agg(DISTINCT page ORDER BY page) FROM events GROUP BY 1",
        "SELECT count(DISTINCT page, channel) FROM events",
        "SELECT stddev(DISTINCT small) FROM events",
        "SELECT string_agg(page, channel ORDER BY time) FROM events",
        "SELECT nth_value(page, 2 ORDER BY time) FROM events",
        "SELECT percentile_cont(small) WITHIN GROUP (ORDER BY small) FROM events",
        "SELECT approx_percentile_cont(2) WITHIN GROUP (ORDER BY small) FROM events",
        "SELECT min(geo), first_value(geo ORDER BY time) FROM events",
        "SELECT geo, count(*) FROM events GROUP BY geo",
        "SELECT array_agg(geo ORDER BY time), count(DISTINCT geo) FROM events",
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
