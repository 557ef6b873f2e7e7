//! Sources, decoders and views in a line of test.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bifold_fold::{DeadLetter, Decoder, Engine, Envelope, Pipeline, PipelineError, Source, View, pipeline, view};

pub(crate) const MAX_RECORD: u64 = 1 << 20;

/// The source `s` of these columns and further options, such as `, timestamp_unit = 's'`.
pub(crate) fn source(columns: &str, options: &str) -> Arc<Source> {
    let text = format!("CREATE TABLE s ({columns}) WITH (connector = 'kafka', topic = 's'{options})");
    let mut pipeline = pipeline::parse("s.sql", &text, MAX_RECORD).unwrap_or_else(|e| panic!("{e}"));
    Arc::new(pipeline.sources.remove(0))
}

pub(crate) fn record(value: &[u8]) -> Envelope<'_> {
    Envelope { topic: "s", partition: 3, offset: 7, timestamp_ms: 1_000, value }
}

/// What a record decodes to.
pub(crate) struct Decoded {
    pub(crate) rows: RecordBatch,
    pub(crate) dead: Vec<DeadLetter>,
}

pub(crate) fn decode_as(source: &Arc<Source>, record: Envelope<'_>, wanted: impl Fn(&str) -> bool) -> Decoded {
    let mut decoder = Decoder::new(Arc::clone(source), wanted);
    let mut dead = vec![];
    let events = decoder.push(record, &mut dead);
    assert_eq!(decoder.rows(), events);
    let rows = decoder.finish();
    assert_eq!(rows.num_rows(), events);
    assert_eq!(rows.schema(), decoder.schema());
    Decoded { rows, dead }
}

/// The elements of a record in their order: `0: value, value` of an event, `1: !reason` of a dead letter.
pub(crate) fn elements(source: &Arc<Source>, record: Envelope<'_>) -> Vec<String> {
    let decoded = decode_as(source, record, |name| name == "_index" || !name.starts_with('_'));
    let dead = decoded.dead.iter().map(|letter| (letter.index, format!("!{}", letter.reason.name())));
    let mut elements: Vec<(i32, String)> = rows(&decoded.rows).chain(dead).collect();
    elements.sort();
    elements.into_iter().map(|(index, text)| format!("{index}: {text}")).collect()
}

/// The `_index` of each row, which is the last column, and the others' values.
fn rows(batch: &RecordBatch) -> impl Iterator<Item = (i32, String)> {
    let options = FormatOptions::default().with_null("NULL");
    let formatters: Vec<ArrayFormatter<'_>> = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column, &options).expect("it can be shown"))
        .collect();
    (0..batch.num_rows()).map(move |row| {
        let mut values: Vec<String> = formatters.iter().map(|formatter| formatter.value(row).to_string()).collect();
        let index = values.pop().expect("there is an _index");
        (index.parse().expect("it is a number"), values.join(", "))
    })
}

/// Asserts what each record decodes to.
pub(crate) fn check<R: AsRef<[u8]> + ?Sized>(source: &Arc<Source>, cases: &[(&R, &[&str])]) {
    for (value, expected) in cases {
        let value = value.as_ref();
        assert_eq!(elements(source, record(value)), *expected, "{}", String::from_utf8_lossy(value));
    }
}

/// The one dead letter's reason and detail.
pub(crate) fn verdict(source: &Arc<Source>, record: Envelope<'_>) -> String {
    let decoded = decode_as(source, record, |_| false);
    match &decoded.dead[..] {
        [] => format!("{} events", decoded.rows.num_rows()),
        [letter] => format!("{}: {}", letter.reason.name(), letter.detail),
        many => format!("{} dead letters", many.len()),
    }
}

/// A pipeline compiled: parsing and every view.
pub(crate) async fn compile(text: &str) -> Result<(Pipeline, Vec<Arc<View>>), PipelineError> {
    let pipeline = pipeline::parse("p.sql", text, MAX_RECORD)?;
    let views = view::compile_all(&Engine::new(), &pipeline).await?;
    Ok((pipeline, views))
}

/// The source that most tests of views read.
pub(crate) const WIKIPEDIA: &str = r#"CREATE TABLE wikipedia (
  time TIMESTAMP, channel TEXT, page TEXT, "user" TEXT, "isRobot" BOOLEAN, added BIGINT, price DECIMAL(10,2),
  tags TEXT[], place STRUCT<city TEXT, at STRUCT<lat DOUBLE>>,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'wikipedia', format = 'json');
"#;

/// The one view of a SELECT over [`WIKIPEDIA`].
pub(crate) async fn view(select: &str) -> Arc<View> {
    let text = format!("{WIKIPEDIA}CREATE MATERIALIZED VIEW v AS {select}");
    let (_, mut views) = compile(&text).await.unwrap_or_else(|e| panic!("{e}"));
    views.remove(0)
}
