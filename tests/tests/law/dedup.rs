//! The law with deduplication on: what a layer that begins anywhere, shown the N offsets before, lets through is what a naive
//! reading of the definition lets through, and what the window function of `verify` does.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use bifold_fold::{Decoder, Dedup, Engine, Envelope, View, pipeline};
use datafusion::datasource::MemTable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

const TOPIC: &str = "t";

/// The keys of each record, by offset; none where the log has a gap.
type Log = Vec<Option<Vec<(Option<i64>, &'static str)>>>;

fn text(lookback: i64) -> String {
    format!(
        "CREATE TABLE e (id BIGINT, k TEXT) WITH (connector = 'kafka', topic = '{TOPIC}', format = 'json', \
         dedup = 'id, k', dedup_lookback = '{lookback}'); \
         CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM e;"
    )
}

async fn compiled(engine: &Engine, lookback: i64) -> Arc<View> {
    let pipeline = pipeline::parse("p.sql", &text(lookback), 1 << 20).expect("it is a pipeline");
    bifold_fold::view::compile_all(engine, &pipeline).await.expect("it compiles").remove(0)
}

fn random_log(rng: &mut StdRng) -> Log {
    let keys = rng.random_range(1..6);
    let mut record = || {
        let count = if rng.random_bool(0.2) { rng.random_range(2..4) } else { 1 };
        let mut key = || {
            let id = rng.random_range(0..=keys);
            (if id == keys { None } else { Some(id) }, if rng.random_bool(0.9) { "a" } else { "b" })
        };
        (0..count).map(|_| key()).collect()
    };
    let records: Vec<Vec<_>> = (0..24).map(|_| record()).collect();
    records.into_iter().map(|record| if rng.random_bool(0.15) { None } else { Some(record) }).collect()
}

/// The (offset, index) that count, by the definition.
fn naive(log: &Log, lookback: i64) -> Vec<(i64, i32)> {
    let mut kept = vec![];
    for (offset, record) in log.iter().enumerate() {
        for (index, key) in record.iter().flatten().enumerate() {
            let from = offset.saturating_sub(usize::try_from(lookback).expect("not negative"));
            let before = log[from..offset].iter().flatten().flatten().any(|other| other == key);
            let in_record = record.iter().flatten().take(index).any(|other| other == key);
            if !before && !in_record {
                kept.push((offset as i64, index as i32));
            }
        }
    }
    kept
}

/// Rows of `[from, to)` of each log, as a decoder gives them.
fn rows(view: &View, logs: &[Log], from: usize, to: usize) -> RecordBatch {
    let mut decoder = Decoder::new(Arc::clone(&view.source), |_| true);
    let mut dead = vec![];
    for (partition, log) in logs.iter().enumerate() {
        for (offset, record) in log.iter().enumerate().take(to).skip(from) {
            let Some(record) = record else { continue };
            let value: Vec<_> = record.iter().map(|(id, k)| json!({ "id": id, "k": k })).collect();
            let value = serde_json::to_vec(&value).expect("JSON");
            let (partition, offset) = (partition as i32, offset as i64);
            decoder.push(Envelope { topic: TOPIC, partition, offset, timestamp_ms: 0, value: &value }, &mut dead);
        }
    }
    assert!(dead.is_empty(), "{dead:?}");
    decoder.finish()
}

/// The places of rows: partition, offset, index.
fn places(rows: &RecordBatch) -> Vec<(i32, i64, i32)> {
    let column = |name: &str| rows.column_by_name(name).expect("every event has it");
    let (partitions, offsets) = (column("_partition").as_primitive::<Int32Type>(), column("_offset"));
    let (offsets, indexes) = (offsets.as_primitive::<Int64Type>(), column("_index").as_primitive::<Int32Type>());
    let mut places: Vec<_> =
        (0..rows.num_rows()).map(|i| (partitions.value(i), offsets.value(i), indexes.value(i))).collect();
    places.sort_unstable();
    places
}

/// What a layer lets through of `[from, to)`, which begins there with nothing in memory, and reads in chunks.
fn layer(view: &View, logs: &[Log], from: usize, to: usize, lookback: i64, rng: &mut StdRng) -> Vec<(i32, i64, i32)> {
    let mut dedup = Dedup::new(&view.source, view.dialect).expect("its columns compare").expect("the source has dedup");
    let mut at = from.saturating_sub(usize::try_from(lookback).expect("not negative"));
    let mut kept = vec![];
    while at < to {
        let next = rng.random_range(at + 1..=to);
        let rows = rows(view, logs, at, next);
        let admitted = dedup.admit(&rows).expect("rows of the source");
        let rows = filter_record_batch(&rows, &admitted).expect("as many as rows");
        kept.extend(places(&rows).into_iter().filter(|(_, offset, _)| *offset >= from as i64));
        at = next;
    }
    kept
}

#[tokio::test]
async fn duplicates_are_the_same_wherever_a_layer_begins() {
    let seed: u64 = std::env::var("LAW_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("LAW_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let engine = Engine::new();
    for lookback in [0, 1, 2, 5, 100] {
        let view = compiled(&engine, lookback).await;
        for _ in 0..40 {
            let logs = [random_log(&mut rng), random_log(&mut rng)];
            let mut expected: Vec<(i32, i64, i32)> = vec![];
            for (partition, log) in logs.iter().enumerate() {
                expected
                    .extend(naive(log, lookback).into_iter().map(|(offset, index)| (partition as i32, offset, index)));
            }
            expected.sort_unstable();
            // A batch view, an incremental one upon it, and epochs, each with a look-back of its own.
            let mut cuts: Vec<usize> = (0..3).map(|_| rng.random_range(0..=24)).collect();
            cuts.extend([0, 24]);
            cuts.sort_unstable();
            let mut merged = vec![];
            for cut in cuts.windows(2) {
                merged.extend(layer(&view, &logs, cut[0], cut[1], lookback, &mut rng));
            }
            merged.sort_unstable();
            assert_eq!(merged, expected, "lookback {lookback}, cuts {cuts:?}, {logs:?}; LAW_SEED={seed}");
            // What verify counts.
            let rows = rows(&view, &logs, 0, 24);
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).expect("a table");
            let plain = view.plain(&engine, Arc::new(table)).await.expect("it runs");
            let plain = concat_batches(&plain[0].schema(), &plain).expect("of one schema");
            let counted = plain.column(0).as_primitive::<Int64Type>().value(0);
            assert_eq!(counted, expected.len() as i64, "lookback {lookback}, {logs:?}; LAW_SEED={seed}");
        }
    }
}
