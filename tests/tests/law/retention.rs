//! The law with a view's retention: what batch runs drop and what answers leave out is what a plain query leaves out that knows the
//! whole log and the time from which groups are kept; whatever the boundaries, however late an event.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use bifold_fold::states::Input;
use bifold_fold::{Decoder, Engine, Envelope, View, pipeline};
use datafusion::datasource::MemTable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const HOUR_US: i64 = 3_600_000_000;
const PIPELINE: &str = "CREATE TABLE e (t TIMESTAMP, n BIGINT, WATERMARK FOR t AS t) \
    WITH (connector = 'kafka', topic = 't', format = 'json', timestamp_unit = 'us', event_time_max = '9999-12-31T23:59:59Z'); \
    CREATE MATERIALIZED VIEW v WITH (retention = '6 hours') AS \
    SELECT tumble(t, INTERVAL '1 hour') AS hour, count(*) AS c, sum(n) AS s, count(DISTINCT n) AS d FROM e GROUP BY 1;";

fn decoded(view: &View, events: &[(i64, i64)], from: usize) -> RecordBatch {
    let mut decoder = Decoder::new(Arc::clone(&view.source), |_| true);
    let mut dead = vec![];
    for (i, (t, n)) in events.iter().enumerate() {
        let value = serde_json::to_vec(&json!({ "t": t, "n": n })).expect("JSON");
        let offset = (from + i) as i64;
        decoder.push(Envelope { topic: "t", partition: 0, offset, timestamp_ms: 0, value: &value }, &mut dead);
    }
    assert!(dead.is_empty(), "{dead:?}");
    decoder.finish()
}

/// (hour, count, sum, distinct) in order.
fn shown(rows: &[RecordBatch]) -> Vec<(i64, i64, i64, i64)> {
    let mut all = vec![];
    for batch in rows {
        let hours = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let number =
            |column: usize, row: usize| batch.column(column).as_primitive::<arrow::datatypes::Int64Type>().value(row);
        all.extend((0..batch.num_rows()).map(|row| (hours.value(row), number(1, row), number(2, row), number(3, row))));
    }
    all.sort_unstable();
    all
}

#[tokio::test]
async fn what_is_beyond_the_retention_at_the_boundary_is_in_no_answer_and_all_else_is() {
    let engine = Engine::new();
    let pipeline = pipeline::parse("p.sql", PIPELINE, 1 << 20).expect("it is a pipeline");
    let view = bifold_fold::view::compile_all(&engine, &pipeline).await.expect("it compiles").remove(0);
    let input = Input::new(&engine, Arc::clone(&view)).await.expect("it has an input");
    let retention = view.retention_us.expect("it has one");
    let (mut dropped, mut late) = (0, 0);
    for seed in 0..60u64 {
        let mut rng = StdRng::seed_from_u64(seed);
        // Time goes on by about half an hour an event; one in five comes late, some far too late.
        let event = |i: usize, rng: &mut StdRng| {
            let back = if rng.random_bool(0.2) { rng.random_range(0..20 * HOUR_US) } else { 0 };
            ((100 * HOUR_US + i as i64 * HOUR_US / 2 - back).max(0), rng.random_range(0..5))
        };
        let events: Vec<(i64, i64)> = (0..40).map(|i| event(i, &mut rng)).collect();
        let mut cuts: Vec<usize> = (0..3).map(|_| rng.random_range(0..=events.len())).collect();
        cuts.sort_unstable();
        // Two batch runs and what the stream holds after them.
        let (mut states, mut from, mut kept_from) = (vec![], 0, None);
        for boundary in &cuts[..2] {
            let newest = events[..*boundary].iter().map(|(t, _)| t - retention).max();
            kept_from = kept_from.max(newest);
            let more = input.fold(&[decoded(&view, &events[from..*boundary], from)]).await.expect("it folds");
            states = view.reduce(&engine, [states, more].concat()).await.expect("they merge");
            states = view.kept_from(states, kept_from).expect("it has a time");
            from = *boundary;
        }
        let speed = input.fold(&[decoded(&view, &events[from..cuts[2]], from)]).await.expect("it folds");
        let speed = view.kept_from(speed, kept_from).expect("it has a time");
        let answer = view.finish(&engine, [states, speed].concat()).await.expect("it finishes");

        let all = decoded(&view, &events[..cuts[2]], 0);
        let table = Arc::new(MemTable::try_new(all.schema(), vec![vec![all]]).expect("a table"));
        let plain = view.plain(&engine, table).await.expect("it runs");
        let whole = shown(&plain);
        let expected: Vec<_> = whole.iter().filter(|row| kept_from.is_none_or(|from| row.0 >= from)).copied().collect();
        assert_eq!(shown(&answer), expected, "seed {seed}: {cuts:?}, kept from {kept_from:?}");
        assert_eq!(shown(&view.rows_kept_from(plain, kept_from).expect("it has a time")), expected, "seed {seed}");
        dropped += whole.len() - expected.len();
        late +=
            events[from..cuts[2]].iter().filter(|(t, _)| kept_from.is_some_and(|from| t - t % HOUR_US < from)).count();
    }
    assert!(dropped > 100 && late > 10, "{dropped} groups were dropped, {late} events came too late");
}
