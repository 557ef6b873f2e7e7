//! What a compiled view knows of itself: its columns, keys, window, inputs and version.

use std::sync::Arc;

use arrow::array::{ListArray, RecordBatch, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use bifold_fold::dialect::TODAY;
use bifold_fold::view::{Stored, compile_stored};
use bifold_fold::{Engine, View, pipeline, view as views};
use bifold_ledger::Dialect;

use crate::support::{MAX_RECORD, WIKIPEDIA, compile, view};

fn columns(view: &View) -> Vec<String> {
    view.output.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect()
}

#[tokio::test]
async fn the_design_s_view_is_known_to_its_end() {
    let view = view(
        "SELECT tumble(time, INTERVAL '1 minute') AS minute, channel, count(*) AS edits, sum(added) AS added,
                approx_distinct(\"user\") AS editors
         FROM wikipedia WHERE NOT \"isRobot\" GROUP BY 1, 2",
    )
    .await;
    assert_eq!(columns(&view), ["minute Timestamp(µs)", "channel Utf8", "edits Int64", "added Int64", "editors Int64"]);
    assert_eq!(view.keys, ["minute", "channel"]);
    assert_eq!(view.time_column.as_deref(), Some("minute"));
    assert_eq!(view.approximate, Vec::<String>::new());
    assert_eq!(view.needed, ["added", "channel", "isRobot", "time", "user"]);
    assert_eq!(view.state_ids, ["count/1", "sum_dec20.0/1", "hll8_12/1"]);
    assert_eq!((view.name.as_str(), view.source.name.as_str(), view.key_count()), ("v", "wikipedia", 2));
}

#[tokio::test]
async fn keys_are_the_group_keys_that_are_shown_unchanged() {
    for (select, keys) in [
        ("SELECT count(*) AS n FROM wikipedia", &[][..]),
        ("SELECT channel, count(*) AS n FROM wikipedia GROUP BY channel", &["channel"]),
        ("SELECT count(*) AS n, channel AS c, page FROM wikipedia GROUP BY page, channel", &["c", "page"]),
        ("SELECT count(*) AS n FROM wikipedia GROUP BY channel", &[]),
        ("SELECT upper(channel) AS c, count(*) AS n FROM wikipedia GROUP BY channel", &[]),
        ("SELECT upper(channel) AS c, count(*) AS n FROM wikipedia GROUP BY 1", &["c"]),
        ("SELECT channel, channel AS again, count(*) AS n FROM wikipedia GROUP BY 1", &["channel", "again"]),
        ("SELECT w.channel, count(*) AS n FROM wikipedia w GROUP BY 1 HAVING count(*) > 1", &["channel"]),
        ("SELECT place['city'] AS city, count(*) AS n FROM wikipedia GROUP BY 1", &["city"]),
        ("SELECT unnest(tags) AS tag, count(*) AS n FROM wikipedia GROUP BY 1", &["tag"]),
    ] {
        assert_eq!(view(select).await.keys, keys, "{select}");
    }
}

#[tokio::test]
async fn the_time_column_is_the_window_or_the_event_time() {
    for (key, time_column) in [
        ("tumble(time, INTERVAL '1 minute')", Some("k")),
        ("date_bin(INTERVAL '1 minute', time)", Some("k")),
        ("date_bin(INTERVAL '1 minute', time, TIMESTAMP '2000-01-01T00:00:00')", Some("k")),
        ("date_trunc('hour', time)", Some("k")),
        ("time", Some("k")),
        ("tumble(time + INTERVAL '1 hour', INTERVAL '1 minute')", None),
        ("date_part('hour', time)", None),
        ("tumble(_timestamp, INTERVAL '1 minute')", None),
        ("_timestamp", None),
        ("channel", None),
        ("date_trunc('hour', TIMESTAMP '2000-01-01T00:00:00')", None),
    ] {
        let select = format!("SELECT channel AS c, {key} AS k, count(*) AS n FROM wikipedia GROUP BY 1, 2");
        assert_eq!(view(&select).await.time_column.as_deref(), time_column, "{key}");
    }
    // Not where it is not shown, and of two the first that is shown.
    let hidden = view("SELECT channel, count(*) AS n FROM wikipedia GROUP BY channel, date_trunc('hour', time)").await;
    assert_eq!(hidden.time_column, None);
    let two = view("SELECT date_trunc('hour', time) AS h, time AS t, count(*) AS n FROM wikipedia GROUP BY t, h").await;
    assert_eq!(two.time_column.as_deref(), Some("h"));
}

#[tokio::test]
async fn approximate_columns_are_those_of_quantile_sketches() {
    let view = view(
        "SELECT median(added) AS exact, percentile_cont(0.5) WITHIN GROUP (ORDER BY added) AS exact2,
                approx_median(added) AS a, 2 * approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY added) AS b,
                approx_median(price) AS c,
                approx_distinct(page) AS set, count(*) AS n, channel
         FROM wikipedia GROUP BY channel",
    )
    .await;
    assert_eq!(view.approximate, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_view_needs_the_columns_that_it_reads_and_no_others() {
    for (select, needed) in [
        // Something has to carry the rows.
        ("SELECT count(*) AS n FROM wikipedia", &["_offset"][..]),
        ("SELECT count(*) AS n FROM wikipedia WHERE added > 1", &["_offset", "added"]),
        ("SELECT count(page) AS n FROM wikipedia", &["page"]),
        (
            "SELECT channel, sum(added) AS n FROM wikipedia WHERE NOT \"isRobot\" GROUP BY 1",
            &["added", "channel", "isRobot"],
        ),
        ("SELECT count(*) FILTER (WHERE added > 0) AS n FROM wikipedia HAVING max(price) > 1", &["added", "price"]),
        ("SELECT place['city'] AS c, count(*) AS n FROM wikipedia GROUP BY 1", &["place"]),
        ("SELECT _partition, max(_timestamp) AS t FROM wikipedia GROUP BY 1", &["_partition", "_timestamp"]),
        (
            "SELECT last_value(page ORDER BY time) AS p FROM wikipedia",
            &["_index", "_offset", "_partition", "_topic", "page", "time"],
        ),
    ] {
        assert_eq!(view(select).await.needed, needed, "{select}");
    }
}

async fn version(table: &str, select: &str) -> String {
    version_of("v", table, select, MAX_RECORD).await
}

async fn version_of(name: &str, table: &str, select: &str, max_record: u64) -> String {
    let text = format!("{table};\nCREATE MATERIALIZED VIEW {name} AS {select};");
    let pipeline = pipeline::parse("p.sql", &text, max_record).unwrap_or_else(|e| panic!("{e}"));
    let views = views::compile_all(&Engine::new(), &pipeline).await.unwrap_or_else(|e| panic!("{e}"));
    views[0].version.0.clone()
}

const TABLE: &str = "CREATE TABLE t (t TIMESTAMP, a BIGINT, b TEXT, WATERMARK FOR t AS t - INTERVAL '1 second')
                     WITH (connector = 'kafka', topic = 'x', timestamp_unit = 's', event_time_min = '2000-01-01T00:00:00Z')";
const SELECT: &str = "SELECT b, count(*) AS n FROM t WHERE a > 1 GROUP BY b";

#[tokio::test]
async fn a_version_changes_with_what_decides_the_rows() {
    let before = version(TABLE, SELECT).await;
    let mut seen = vec![before.clone()];
    let mut differs = |what: &str, version: String| {
        assert!(!seen.contains(&version), "{what} is another version");
        seen.push(version);
    };
    for (from, to) in [
        ("a > 1", "a > 2"),
        ("a > 1", "a >= 1"),
        ("count(*)", "count(a)"),
        ("AS n", "AS m"),
        ("GROUP BY b", "GROUP BY b HAVING count(*) > 1"),
        ("b, count(*) AS n", "count(*) AS n, b"),
        ("WHERE a > 1 ", ""),
    ] {
        differs(to, version(TABLE, &SELECT.replace(from, to)).await);
    }
    for (from, to) in [
        ("a BIGINT", "a INT"),
        // A column that the view does not read decides with the others what is a dead letter.
        ("b TEXT", "b TEXT, c INT"),
        ("a BIGINT, b TEXT", "b TEXT, a BIGINT"),
        ("'x'", "'y'"),
        ("'x'", "'x,y'"),
        ("'s'", "'ms'"),
        (", timestamp_unit = 's'", ""),
        ("2000-01-01", "2000-01-02"),
        ("event_time_min", "event_time_max"),
    ] {
        differs(to, version(&TABLE.replace(from, to), SELECT).await);
    }
    differs(
        "event_time_max_ahead",
        version(&format!("{}, event_time_max_ahead = '1h')", TABLE.trim_end_matches(')')), SELECT).await,
    );
    differs("max_record", version_of("v", TABLE, SELECT, MAX_RECORD + 1).await);
    differs("the name", version_of("w", TABLE, SELECT, MAX_RECORD).await);
    let renamed = TABLE.replace("TABLE t", "TABLE u");
    differs("the source's name", version(&renamed, &SELECT.replace("FROM t", "FROM u")).await);
}

#[tokio::test]
async fn a_version_stays_with_white_space_comments_and_spelling() {
    let before = version(TABLE, SELECT).await;
    for (table, select) in [
        (TABLE.to_string(), format!("\n  -- every b\n  {}  /* and no more */\n", SELECT.replace(' ', "\n\t "))),
        (TABLE.to_string(), SELECT.to_lowercase().replace("count(*) as n", "count( * ) AS n")),
        (TABLE.replace("TABLE t", "TABLE IF NOT EXISTS t").replace(", ", " ,\n -- a column\n "), SELECT.to_string()),
        // Types, names, options and times that mean the same.
        (TABLE.replace("BIGINT", "int8").replace("TEXT", "VARCHAR"), SELECT.to_string()),
        (TABLE.replace("b TEXT", "\"b\" TEXT").replace("TABLE t", "TABLE T"), SELECT.to_string()),
        (
            TABLE.replace("topic = 'x', timestamp_unit = 's'", "TIMESTAMP_UNIT = 's', format = 'json', topic = 'x'"),
            SELECT.to_string(),
        ),
        (TABLE.replace("2000-01-01T00:00:00Z", "2000-01-01 01:00+01"), SELECT.to_string()),
        (TABLE.replace("INTERVAL '1 second'", "INTERVAL '1' SECOND"), SELECT.to_string()),
    ] {
        assert_eq!(version(&table, &select).await, before, "{table}\n{select}");
    }
    // Neither its neighbours nor its place in the pipeline matter.
    let text = format!(
        "CREATE MATERIALIZED VIEW before AS SELECT count(*) AS n FROM t; CREATE MATERIALIZED VIEW v AS {SELECT}; {TABLE}"
    );
    let (_, views) = compile(&text).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(views[1].version.0, before);
}

#[tokio::test]
async fn a_version_is_the_same_in_every_build() {
    // Golden: a change of these numbers rebuilds every view of every user.
    assert_eq!(versions(TABLE, SELECT).await, ["4eef03277752a01a", "cfa34301c033e186", "411c60112abc0f33"]);
    let nested = "CREATE TABLE t (s STRUCT<a INT, \"B\" DECIMAL(4,1)[]>, j JSON, b BOOLEAN, d DOUBLE) WITH (connector = 'kafka', topic = 'x')";
    let select =
        "SELECT s['a'] AS a, sum(d) FILTER (WHERE NOT b) AS d, first_value(j ORDER BY d DESC) AS j FROM t GROUP BY 1";
    assert_eq!(versions(nested, select).await, ["e2da46691ef8883a", "2a36165785c620ea", "c61385334d2d21d8"]);
}

/// The version of a view under each dialect, the first one first.
async fn versions(table: &str, select: &str) -> Vec<String> {
    let (pipeline, _) =
        compile(&format!("{table}; CREATE MATERIALIZED VIEW v AS {select}")).await.unwrap_or_else(|e| panic!("{e}"));
    let mut versions = vec![];
    for dialect in (1..=TODAY.0).map(Dialect) {
        let view = views::compile_under(&Engine::new(), &pipeline, &pipeline.views[0], dialect).await;
        versions.push(view.unwrap_or_else(|e| panic!("{e}")).version.0.clone());
    }
    versions
}

#[tokio::test]
async fn a_stored_version_compiles_to_itself() {
    for select in [
        "SELECT count(*) AS n FROM wikipedia",
        "SELECT tumble(time, INTERVAL '1' MINUTE) AS m, \"user\", sum(added) AS \"sum of\", count(DISTINCT page) AS p
         FROM wikipedia WHERE NOT \"isRobot\" AND page <> 'it''s; -- no' GROUP BY 1, 2 HAVING count(*) > 1",
        "SELECT first_value(page ORDER BY time DESC NULLS LAST) AS p, place['at']['lat'] AS l FROM wikipedia AS w GROUP BY 2",
        "SELECT CASE WHEN added > 1 THEN 'a' ELSE 'b' END AS c, CAST(price AS DOUBLE) AS d, count(*) FILTER (WHERE added IN (1, 2)) AS n
         FROM wikipedia WHERE time >= TIMESTAMP '2015-09-12 00:00:00' AND page LIKE 'A%' GROUP BY 1, 2",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY added) AS p, EXTRACT(HOUR FROM time) AS h FROM wikipedia GROUP BY 2",
        "FROM wikipedia SELECT count(*) AS n",
    ] {
        let view = view(select).await;
        let source = serde_json::to_value(&*view.source).expect("a source is JSON");
        let stored = compile_stored(&Engine::new(), stored_as(&view, &source)).await;
        let stored = stored.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((&stored.version, &stored.sql), (&view.version, &view.sql), "{select}");
        assert_eq!((&stored.keys, &stored.output), (&view.keys, &view.output), "{select}");
    }
}

#[tokio::test]
async fn a_views_retention_is_part_of_its_version_and_a_sources_is_not() {
    let table = |more: &str| {
        format!(
            "CREATE TABLE t (a TIMESTAMP, WATERMARK FOR a AS a) WITH (connector = 'kafka', topic = 'x'{more}); \
             CREATE MATERIALIZED VIEW v"
        )
    };
    let select = "AS SELECT date_trunc('day', a) AS day, count(*) AS n FROM t GROUP BY 1";
    let compiled = async |text: String| compile(&text).await.unwrap_or_else(|e| panic!("{e}")).1.remove(0);
    let bounded = ", event_time_max_ahead = '1h'";
    let plain = compiled(format!("{} {select}", table(bounded))).await;
    let month = compiled(format!("{} WITH (retention = '30 days') {select}", table(bounded))).await;
    let again = compiled(format!(
        "{} with (RETENTION='30 days') {select}",
        table(", event_time_max_ahead = '1h', archive_retention = '1 day'")
    ))
    .await;
    assert_ne!(plain.version, month.version);
    assert_eq!((plain.retention_us, month.retention_us), (None, Some(30 * 86_400_000_000)));
    assert_eq!((&again.version, again.source.archive_retention_us), (&month.version, Some(86_400_000_000)));
    let unkept =
        compiled(format!("{} {select}", table(", event_time_max_ahead = '1h', archive_retention = '1 day'"))).await;
    assert_eq!((&unkept.version, &unkept.source.decoding()), (&plain.version, &plain.source.decoding()));
    let source = serde_json::to_value(&*month.source).expect("a source is JSON");
    let stored = compile_stored(&Engine::new(), stored_as(&month, &source)).await.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((&stored.version, stored.retention_us), (&month.version, month.retention_us));
    assert!(month.sql.starts_with("WITH (retention = '30 days') AS SELECT"), "{}", month.sql);
}

#[tokio::test]
async fn pipelines_that_compile_at_once_in_one_engine_do_not_meet() {
    let engine = Engine::new();
    let text = |ty: &str| {
        let table = format!("CREATE TABLE t (a {ty}) WITH (connector = 'kafka', topic = 't')");
        format!("{table}; CREATE MATERIALIZED VIEW v AS SELECT max(a) AS m FROM t")
    };
    let mut running = vec![];
    for i in 0..40 {
        let (engine, ty) = (engine.clone(), if i % 2 == 0 { "TEXT" } else { "BIGINT" });
        let pipeline = pipeline::parse("p.sql", &text(ty), MAX_RECORD).unwrap_or_else(|e| panic!("{e}"));
        running.push(tokio::spawn(async move {
            let views = views::compile_all(&engine, &pipeline).await.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(columns(&views[0]), [if ty == "TEXT" { "m Utf8" } else { "m Int64" }]);
        }));
    }
    for task in running {
        task.await.expect("it compiles");
    }
    let known = engine.context().table_exist("t").expect("it can be asked");
    assert!(!known, "a compiled view leaves nothing in the engine");
    assert!(compile(WIKIPEDIA).await.is_ok());
}

#[tokio::test]
async fn a_group_that_keeps_too_many_values_is_an_error_that_names_it() {
    let engine = Engine::new();
    let view =
        view("SELECT channel, count(DISTINCT page) AS pages, count(*) AS n FROM wikipedia GROUP BY channel").await;
    let mut decoder = bifold_fold::Decoder::new(std::sync::Arc::clone(&view.source), |_| true);
    for offset in 0..20 {
        let channel = if offset < 15 { "#en" } else { "#de" };
        let value = format!(r#"{{"time":"2015-09-12T00:00:00Z","channel":"{channel}","page":"p{offset}"}}"#);
        let (topic, value) = ("wikipedia", value.as_bytes());
        let envelope = bifold_fold::Envelope { topic, partition: 0, offset, timestamp_ms: 0, value };
        assert_eq!(decoder.push(envelope, &mut vec![]), 1);
    }
    let input =
        bifold_fold::states::Input::new(&engine, std::sync::Arc::clone(&view)).await.expect("it can be planned");
    let rows = decoder.finish();
    let mut parts = input.fold(&[rows.slice(0, 8)]).await.expect("states");
    parts.extend(input.fold(&[rows.slice(8, 12)]).await.expect("states"));
    let states = input.fold(&[rows]).await.expect("states");
    // Also where no part of a group keeps that many.
    view.check_values(&parts, 14).expect("8 and 7");
    let error = view.bounded(&engine, parts.clone(), 14).await.expect_err("one too many").to_string();
    assert!(error.contains("keeps 15 values in group (channel = #en), more than 14"), "{error}");
    view.bounded(&engine, parts, 15).await.expect("as many as it may keep");
    view.check_values(&states, 15).expect("as many as it may keep");
    let error = view.check_values(&states, 14).expect_err("one too many").to_string();
    let said =
        "view v keeps 15 values in group (channel = #en), more than 14: group by more, or count with approx_distinct";
    assert_eq!(error, said);
    assert_eq!(
        view.finish(&engine, states).await.expect("nothing is cut").iter().map(|b| b.num_rows()).sum::<usize>(),
        2
    );
}

/// The limit itself: what answers asks for no number.
#[tokio::test]
async fn a_group_of_more_than_ten_million_values_is_an_error_and_not_a_row() {
    let engine = Engine::new();
    let view = view("SELECT channel, count(DISTINCT page) AS pages FROM wikipedia GROUP BY channel").await;
    let mut decoder = bifold_fold::Decoder::new(std::sync::Arc::clone(&view.source), |_| true);
    let (topic, value) = ("wikipedia", br#"{"time":"2015-09-12T00:00:00Z","channel":"en","page":""}"#);
    let envelope = bifold_fold::Envelope { topic, partition: 0, offset: 0, timestamp_ms: 0, value };
    assert_eq!(decoder.push(envelope, &mut vec![]), 1);
    let input =
        bifold_fold::states::Input::new(&engine, std::sync::Arc::clone(&view)).await.expect("it can be planned");
    let states = input.fold(&[decoder.finish()]).await.expect("states").remove(0);
    let mut columns = states.columns().to_vec();
    let DataType::List(item) = columns[1].data_type().clone() else { panic!("{}", columns[1].data_type()) };
    let values = 10_000_001;
    let pages = StringArray::new(OffsetBuffer::new_zeroed(values), Vec::<u8>::new().into(), None);
    columns[1] = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([values]), Arc::new(pages), None));
    let states = RecordBatch::try_new(states.schema(), columns).expect("the same types");
    let error = view.finish(&engine, vec![states]).await.expect_err("one too many").to_string();
    assert!(error.contains("view v keeps 10000001 values in group (channel = en)"), "{error}");
}

/// A view as the ledger holds it.
fn stored_as<'a>(view: &'a View, source: &'a serde_json::Value) -> Stored<'a> {
    Stored { name: &view.name, sql: &view.sql, source, dialect: view.dialect }
}
