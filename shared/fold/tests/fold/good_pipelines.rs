//! Forms in which sources and views may be written.

use bifold_fold::pipeline::{self, ReadError};
use bifold_fold::schema::TimestampUnit;
use bifold_fold::{Source, Type};

use crate::support::{MAX_RECORD, WIKIPEDIA, compile};

fn parse(text: &str) -> Vec<Source> {
    pipeline::parse("p.sql", text, MAX_RECORD).unwrap_or_else(|e| panic!("{e}")).sources
}

fn one(columns: &str, options: &str) -> Source {
    parse(&format!("CREATE TABLE t ({columns}) WITH (connector = 'kafka', topic = 't'{options})")).remove(0)
}

fn types(columns: &str) -> Vec<(String, Type)> {
    one(columns, "").columns.into_iter().map(|column| (column.name, column.ty)).collect()
}

#[test]
fn a_source_is_what_its_statement_says() {
    let [source] = &parse(WIKIPEDIA)[..] else { panic!("there is one source") };
    assert_eq!((source.name.as_str(), &source.topics[..]), ("wikipedia", &["wikipedia".to_string()][..]));
    let names: Vec<&str> = source.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["time", "channel", "page", "user", "isRobot", "added", "price", "tags", "place"]);
    assert_eq!((source.event_time.as_deref(), source.event_time_index()), (Some("time"), Some(0)));
    assert_eq!((source.watermark_delay_us, source.max_record), (10_000_000, MAX_RECORD));
    assert_eq!(source.timestamp_unit, None);
    let bounds = (source.event_time_min_us, source.event_time_max_us, source.event_time_max_ahead_us);
    assert_eq!(bounds, (None, None, None));
}

#[test]
fn every_type_has_its_spellings() {
    let typed = |ty: Type| vec![("a".to_string(), ty)];
    for (sql, ty) in [
        ("BOOLEAN", Type::Boolean),
        ("bool", Type::Boolean),
        ("INT", Type::Int),
        ("INTEGER", Type::Int),
        ("int4", Type::Int),
        ("BIGINT", Type::BigInt),
        ("INT8", Type::BigInt),
        ("DOUBLE", Type::Double),
        ("DOUBLE PRECISION", Type::Double),
        ("FLOAT8", Type::Double),
        ("DECIMAL(10,2)", Type::Decimal(10, 2)),
        ("NUMERIC(38, 38)", Type::Decimal(38, 38)),
        ("DECIMAL(5)", Type::Decimal(5, 0)),
        ("TEXT", Type::Text),
        ("VARCHAR", Type::Text),
        ("STRING", Type::Text),
        ("TIMESTAMP", Type::Timestamp),
        ("TIMESTAMP WITHOUT TIME ZONE", Type::Timestamp),
        ("JSON", Type::Json),
        ("INT[]", Type::Array(Box::new(Type::Int))),
        ("ARRAY<INT>", Type::Array(Box::new(Type::Int))),
        ("TEXT[][]", Type::Array(Box::new(Type::Array(Box::new(Type::Text))))),
        ("DECIMAL(3,1)[]", Type::Array(Box::new(Type::Decimal(3, 1)))),
        ("STRUCT<b INT>", Type::Struct(vec![("b".into(), Type::Int)])),
        (
            "struct<B int, \"B\" STRUCT<c DOUBLE, d STRUCT<e JSON>>>",
            Type::Struct(vec![
                ("b".into(), Type::Int),
                (
                    "B".into(),
                    Type::Struct(vec![
                        ("c".into(), Type::Double),
                        ("d".into(), Type::Struct(vec![("e".into(), Type::Json)])),
                    ]),
                ),
            ]),
        ),
        (
            "STRUCT<b DECIMAL(4,1)[], c TIMESTAMP>[]",
            Type::Array(Box::new(Type::Struct(vec![
                ("b".into(), Type::Array(Box::new(Type::Decimal(4, 1)))),
                ("c".into(), Type::Timestamp),
            ]))),
        ),
    ] {
        assert_eq!(types(&format!("a {sql}")), typed(ty), "{sql}");
    }
}

#[test]
fn a_type_is_shown_as_it_can_be_written() {
    for ty in [
        "BOOLEAN",
        "INT",
        "BIGINT",
        "DOUBLE",
        "DECIMAL(10,2)",
        "TEXT",
        "TIMESTAMP",
        "JSON",
        "INT[]",
        "STRUCT<\"a b\" STRUCT<\"C\" INT>[]>",
    ] {
        let parsed = types(&format!("a {ty}"));
        assert_eq!(parsed[0].1.to_string(), ty);
        assert_eq!(types(&format!("a {}", parsed[0].1)), parsed);
    }
}

#[test]
fn names_are_lower_case_unless_they_are_quoted() {
    let names: Vec<String> =
        types("A INT, \"B\" INT, \"a b\" INT, \"ä\"\"\" INT, \"watermark\" INT, \"select\" INT, _x INT")
            .into_iter()
            .map(|(name, _)| name)
            .collect();
    assert_eq!(names, ["a", "B", "a b", "ä\"", "watermark", "select", "_x"]);
    assert_eq!(types("a INT, \"A\" INT").len(), 2);
    let tables = "CREATE TABLE Wiki (a INT) WITH (connector = 'kafka', topic = 'a');
                  create table \"Wiki\" (a int) with (CONNECTOR = 'kafka', Topic = 'B',)";
    let names: Vec<(String, Vec<String>)> = parse(tables).into_iter().map(|s| (s.name, s.topics)).collect();
    assert_eq!(names, [("wiki".into(), vec!["a".into()]), ("Wiki".into(), vec!["B".into()])]);
}

#[test]
fn a_watermark_may_be_written_in_these_ways() {
    for (watermark, event_time, delay_us) in [
        ("", None, 0),
        (", WATERMARK FOR t AS t", Some("t"), 0),
        (", watermark for T as T", Some("t"), 0),
        (", WATERMARK FOR t AS t - INTERVAL '10 seconds'", Some("t"), 10_000_000),
        (", WATERMARK FOR t AS t - INTERVAL '10' SECOND", Some("t"), 10_000_000),
        (", WATERMARK FOR t AS t - INTERVAL 10 SECONDS", Some("t"), 10_000_000),
        (", WATERMARK FOR t AS t - INTERVAL '1 minute 30 seconds'", Some("t"), 90_000_000),
        (", WATERMARK FOR t AS t - INTERVAL '90s'", Some("t"), 90_000_000),
        (", WATERMARK FOR t AS t - INTERVAL '5' MINUTE", Some("t"), 300_000_000),
        (", WATERMARK FOR t AS t - INTERVAL '2' HOUR", Some("t"), 7_200_000_000),
        (", WATERMARK FOR t AS t - INTERVAL '1 day'", Some("t"), 86_400_000_000),
        (", WATERMARK FOR t AS t - INTERVAL '0' SECOND", Some("t"), 0),
        (", WATERMARK FOR t AS t - INTERVAL '1.5 seconds'", Some("t"), 1_500_000),
        (", WATERMARK FOR \"T\" AS \"T\" - INTERVAL '1 second'", Some("T"), 1_000_000),
    ] {
        let source = one(&format!("t TIMESTAMP, \"T\" TIMESTAMP{watermark}"), "");
        assert_eq!((source.event_time.as_deref(), source.watermark_delay_us), (event_time, delay_us), "{watermark}");
    }
    // It may stand anywhere among the columns.
    let source = one("WATERMARK FOR t AS t, a INT, t TIMESTAMP", "");
    assert_eq!((source.event_time_index(), source.columns.len()), (Some(1), 2));
}

#[test]
fn options_decide_how_records_decode() {
    let columns = "t TIMESTAMP, WATERMARK FOR t AS t";
    for (unit, expected) in [
        ("s", TimestampUnit::Seconds),
        ("ms", TimestampUnit::Milliseconds),
        ("us", TimestampUnit::Microseconds),
        ("ns", TimestampUnit::Nanoseconds),
        ("auto", TimestampUnit::Auto),
    ] {
        assert_eq!(one(columns, &format!(", timestamp_unit = '{unit}'")).timestamp_unit, Some(expected));
    }
    let source =
        one(columns, ", event_time_min = '1970-01-01 00:00:01', event_time_max = '1970-01-01T01:00:01.5+01:00'");
    assert_eq!((source.event_time_min_us, source.event_time_max_us), (Some(1_000_000), Some(1_500_000)));
    for (ahead, us) in [
        ("500ms", 500_000),
        ("90s", 90_000_000),
        ("15m", 900_000_000),
        ("1h", 3_600_000_000),
        ("1h 30m", 5_400_000_000),
        ("2d", 172_800_000_000),
        ("1 hour", 3_600_000_000),
        ("0s", 0),
    ] {
        let source = one(columns, &format!(", event_time_max_ahead = '{ahead}'"));
        assert_eq!(source.event_time_max_ahead_us, Some(us), "{ahead}");
    }
    let topics = |topics: &str| {
        let text = format!("CREATE TABLE t (a INT) WITH (connector = 'kafka', topic = '{topics}')");
        parse(&text).remove(0).topics
    };
    assert_eq!(topics("a"), ["a"]);
    assert_eq!(topics("b,a , c.d-E_9"), ["b", "a", "c.d-E_9"]);
    assert_eq!(topics(&"a".repeat(249)), ["a".repeat(249)]);
}

#[tokio::test]
async fn a_pipeline_holds_sources_and_views_in_any_order_with_comments_between() {
    let text = "
        -- What happened; not a statement.
        CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM b; /* a ; here
        and a line */
        CREATE TABLE IF NOT EXISTS a (x INT /* how many */, -- one a line
            y TEXT) WITH (connector = 'kafka', topic = 'a1,a2', format = 'json');;
        CREATE TABLE b (\"a;b\" TEXT) WITH (connector = 'kafka', topic = 'b');
        CREATE MATERIALIZED VIEW IF NOT EXISTS \"First View\" AS
            SELECT y, sum(x) AS \"from\" FROM a WHERE y <> ';--' GROUP BY y;
        create materialized view second as select count(*) as n from a
        ;
        -- the end";
    let (pipeline, views) = compile(text).await.unwrap_or_else(|e| panic!("{e}"));
    let sources: Vec<&str> = pipeline.sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(sources, ["a", "b"]);
    let views: Vec<(&str, &str)> = views.iter().map(|view| (view.name.as_str(), view.source.name.as_str())).collect();
    assert_eq!(views, [("later", "b"), ("First View", "a"), ("second", "a")]);
}

#[tokio::test]
async fn nothing_is_a_pipeline() {
    for text in ["", ";;", "-- only a comment", "/* and\nanother */ ; \n"] {
        let (pipeline, views) = compile(text).await.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((pipeline.sources.len(), views.len()), (0, 0), "{text:?}");
    }
}

#[tokio::test]
async fn views_may_say_what_merges() {
    for select in [
        "SELECT count(*) AS n FROM wikipedia",
        "SELECT channel FROM wikipedia GROUP BY channel",
        "SELECT channel, count(*) FROM wikipedia GROUP BY 1",
        "SELECT channel AS c, count(*) AS n FROM wikipedia GROUP BY c",
        "SELECT w.channel, count(*) AS n FROM wikipedia AS w GROUP BY w.channel",
        "SELECT wikipedia.channel, count(*) AS n FROM wikipedia GROUP BY wikipedia.channel HAVING count(*) > 3",
        "SELECT upper(channel) AS c, sum(added) / count(*) AS mean FROM wikipedia GROUP BY upper(channel)",
        "SELECT CASE WHEN \"isRobot\" THEN 'robot' ELSE 'human' END AS who, count(*) AS n FROM wikipedia GROUP BY 1",
        "SELECT count(DISTINCT page) AS pages, count(DISTINCT \"user\") AS users, sum(added) AS added FROM wikipedia",
        "SELECT sum(added) FILTER (WHERE added > 0) AS plus, min(added) AS least, max(time) AS last FROM wikipedia",
        "SELECT avg(price) AS mean, sum(price) AS total, stddev(added) AS s, corr(added, price) AS c FROM wikipedia",
        "SELECT median(added) AS m, percentile_cont(0.9) WITHIN GROUP (ORDER BY added) AS p FROM wikipedia",
        "SELECT approx_distinct(\"user\") AS users, approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY added) AS p FROM wikipedia",
        "SELECT first_value(page ORDER BY time) AS f, last_value(page ORDER BY time DESC) AS l FROM wikipedia",
        "SELECT array_agg(page ORDER BY time) AS pages, string_agg(page, ',' ORDER BY time) AS text FROM wikipedia",
        "SELECT bool_or(\"isRobot\") AS any, bit_xor(added) AS x FROM wikipedia",
        "SELECT place['city'] AS city, place['at']['lat'] AS lat, count(*) AS n FROM wikipedia GROUP BY 1, 2",
        "SELECT tags[1] AS tag, count(*) AS n FROM wikipedia GROUP BY 1",
        "SELECT _partition, max(_offset) AS o, count(*) AS n FROM wikipedia WHERE _topic = 'wikipedia' GROUP BY _partition",
        "SELECT tumble(time, INTERVAL '1 minute') AS m, date_bin(INTERVAL '1 hour', time) AS h, count(*) AS n FROM wikipedia GROUP BY 1, 2",
        "SELECT date_trunc('day', time) AS d, count(*) AS n FROM wikipedia WHERE time >= '2015-09-12T00:00:00' GROUP BY 1",
        "SELECT count(*) AS n FROM wikipedia WHERE added BETWEEN 1 AND 5 AND page LIKE 'A%' AND channel IN ('a', 'b')",
        "SELECT coalesce(channel, 'none') AS c, count(*) AS \"count(*)\" FROM wikipedia GROUP BY 1",
    ] {
        let text = format!("{WIKIPEDIA}CREATE MATERIALIZED VIEW v AS {select}");
        if let Err(error) = compile(&text).await {
            panic!("{error}");
        }
    }
}

#[test]
fn a_folder_is_read_in_order_of_name() {
    let folder = std::env::temp_dir().join(format!("bifold-fold-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder can be made");
    let read = || pipeline::read(&folder, MAX_RECORD);
    assert!(matches!(read(), Err(ReadError::Empty { .. })));
    let table = |name: &str| format!("CREATE TABLE {name} (a INT) WITH (connector = 'kafka', topic = '{name}')");
    for name in ["b", "a", "c"] {
        std::fs::write(folder.join(format!("{name}.sql")), table(name)).expect("a file can be written");
    }
    std::fs::write(folder.join("d.txt"), "nothing of ours").expect("a file can be written");
    let names: Vec<String> = read().expect("it is a pipeline").sources.into_iter().map(|source| source.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    // One name in two files is one name twice, and the error names the second file.
    std::fs::write(folder.join("c.sql"), "\n CREATE TABLE a (a INT) WITH (connector = 'kafka', topic = 'c')")
        .expect("written");
    let Err(ReadError::Sql(error)) = read() else { panic!("a is declared twice") };
    assert!(error.file.ends_with("c.sql"), "{error}");
    assert_eq!((error.line, error.column, error.message.as_str()), (2, 15, "\"a\" is declared twice"));
    let missing = pipeline::read(&folder.join("e.sql"), MAX_RECORD);
    let Err(error @ ReadError::Unreadable { .. }) = missing else { panic!("there is no such file") };
    assert!(error.to_string().contains("--pipeline"), "{error}");
    std::fs::remove_dir_all(&folder).expect("it can be removed");
}
