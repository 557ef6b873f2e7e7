//! Mistakes in pipelines: where each one is pointed at, what is said of it, and what to do.

use bifold_fold::PipelineError;

use crate::support::{WIKIPEDIA, compile};

/// Compiles a text in which `§` stands before the place of the mistake.
async fn mistake(marked: &str) -> PipelineError {
    let at = marked.find('§').unwrap_or_else(|| panic!("no place is marked in {marked}"));
    let text = marked.replacen('§', "", 1);
    let before = &marked[..at];
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count() + 1);
    let error = match compile(&text).await {
        Ok(_) => panic!("no mistake was found in {text}"),
        Err(error) => error,
    };
    assert_eq!((error.line, error.column), (line as u64, column as u64), "{error}\n{text}");
    assert_eq!(error.file, "p.sql");
    let hint = error.hint.as_ref().unwrap_or_else(|| panic!("without a hint: {error}"));
    // What is shown: the place, the line, the caret under it, the hint.
    let shown = error.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], format!("p.sql:{line}:{column}: {}", error.message));
    assert_eq!(lines[2], format!("{line} | {}", text.lines().nth(line - 1).unwrap_or_default()));
    assert_eq!(
        lines[3].chars().count(),
        lines[2].chars().take_while(|c| *c != '|').count() + 1 + column + 1,
        "{shown}"
    );
    assert!(lines[3].ends_with('^'));
    assert_eq!(lines[4], format!("hint: {hint}"));
    assert_eq!(lines.len(), 5, "one line each: {shown}");
    let mut letters = error.message.chars();
    let (first, second) = (letters.next().expect("it says something"), letters.next().unwrap_or(' '));
    assert!(!(first.is_uppercase() && second.is_lowercase()), "{shown}");
    assert!(!error.message.ends_with('.') && !hint.ends_with('.'), "{shown}");
    error
}

/// Texts with the place of their mistake, what is said of it, and how its hint begins.
async fn check(cases: &[(&str, &str, &str)]) {
    for (marked, message, hint) in cases {
        let error = mistake(marked).await;
        assert_eq!(error.message, *message, "{error}");
        assert!(error.hint.as_ref().is_some_and(|known| known.starts_with(hint)), "{error}\nnot: {hint}");
    }
}

/// The same of SELECTs over [`WIKIPEDIA`].
async fn check_selects(cases: &[(&str, &str, &str)]) {
    for (marked, message, hint) in cases {
        let text = format!("{WIKIPEDIA}\nCREATE MATERIALIZED VIEW v AS\n  {marked};");
        check(&[(&text, message, hint)]).await;
    }
}

/// A source of these columns and options.
fn table(columns: &str, options: &str) -> String {
    format!("CREATE TABLE t ({columns})\nWITH (connector = 'kafka', topic = 't'{options})")
}

async fn check_columns(cases: &[(&str, &str, &str)]) {
    for (columns, message, hint) in cases {
        check(&[(&table(columns, ""), message, hint)]).await;
    }
}

async fn check_options(cases: &[(&str, &str, &str)]) {
    for (options, message, hint) in cases {
        check(&[(&table("t TIMESTAMP, WATERMARK FOR t AS t", options), message, hint)]).await;
    }
}

const A_SOURCE_IS: &str = "a source is CREATE TABLE name (column TYPE, …, WATERMARK FOR";
const A_VIEW_IS: &str = "a view is CREATE MATERIALIZED VIEW name [WITH (retention = '30 days')] AS SELECT";
const RETENTION: &str = "a view takes one option: WITH (retention = '30 days')";
const A_PIPELINE_HOLDS: &str = "a pipeline holds CREATE TABLE … WITH (connector = 'kafka', …) and CREATE MATERIALIZED";
const WITH: &str = "WITH (connector = 'kafka', topic = '…', format = 'json')";
const TYPES: &str = "use BOOLEAN, INT, BIGINT, DOUBLE, DECIMAL(p,s), TEXT, TIMESTAMP, JSON, STRUCT<…> or T[]";

#[tokio::test]
async fn a_mistake_is_shown_with_its_line_and_a_caret() {
    let text = format!(
        "{WIKIPEDIA}\n\n\nCREATE MATERIALIZED VIEW v AS\n\tSELECT\tpag, count(*) AS n\n\tFROM wikipedia GROUP BY 1;"
    );
    let Err(error) = compile(&text).await else { panic!("there is no column pag") };
    let expected = "p.sql:10:9: column 'pag' not found
   |
10 | \tSELECT\tpag, count(*) AS n
   | \t      \t^
hint: the nearest column is \"page\"";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn deduplication_that_makes_no_sense_is_refused() {
    check_options(&[
        (
            ", dedup = 'x', §dedup_loopback = '5'",
            "there is no option \"dedup_loopback\"",
            "the nearest option is dedup_lookback",
        ),
        (
            ", archive_retention = §'0s'",
            "archive_retention cannot be \"0s\"",
            "write a duration with its unit, such as '90 days'",
        ),
        (
            ", archive_retention = §'a while'",
            "archive_retention cannot be \"a while\"",
            "write a duration with its unit, such as '90 days'",
        ),
        (", §dedup = 'x'", "dedup names \"x\", which is no column of this table", "the nearest column is \"t\""),
        (", dedup = §'t,t'", "dedup cannot be \"t,t\"", "name a column, or several that differ, separated by commas"),
        (", dedup = §''", "dedup cannot be \"\"", "name a column, or several that differ, separated by commas"),
        (
            ", dedup = 't', dedup_lookback = §'-1'",
            "dedup_lookback cannot be \"-1\"",
            "write how many offsets to look back",
        ),
        (
            ", §dedup_lookback = '5'",
            "dedup_lookback says how far to look, but not for what",
            "name the columns that tell rows apart: dedup = 'event_id'",
        ),
    ])
    .await;
}

#[tokio::test]
async fn what_is_no_sql_is_refused_where_it_ends_to_be() {
    check(&[
        ("CREATE TABLE t (a INT§", "expected ), found the end of the statement", A_SOURCE_IS),
        ("CREATE TABLE t (a INT§;\nCREATE TABLE u (a INT)", "expected ), found the end of the statement", A_SOURCE_IS),
        ("CREATE TABLE §(a INT)", "expected identifier, found (", A_SOURCE_IS),
        ("CREATE TABLE t §AS SELECT 1", "expected (, found AS", A_SOURCE_IS),
        ("CREATE TABLE t (§)", "expected identifier, found )", A_SOURCE_IS),
        ("CREATE TABLE t (a INT, §)", "expected identifier, found )", A_SOURCE_IS),
        ("CREATE TABLE t (a§)", "expected a data type name, found )", A_SOURCE_IS),
        ("CREATE TABLE t (a INT §b INT)", "expected ), found b", A_SOURCE_IS),
        ("CREATE TABLE t (a STRUCT<b INT§)", "expected >, found )", A_SOURCE_IS),
        ("CREATE TABLE t (a INT)§", "a source needs WITH (…)", WITH),
        ("CREATE TABLE t (a INT)§;\n\nCREATE TABLE u (a INT)", "a source needs WITH (…)", WITH),
        ("CREATE TABLE t (a INT) §AS SELECT 1", "a source needs WITH (…)", WITH),
        ("CREATE TABLE t (a INT) WITH (connector §'kafka')", "expected =, found 'kafka'", A_SOURCE_IS),
        ("CREATE TABLE t (a INT) WITH (connector = 'kafka' §topic = 't')", "expected ), found topic", A_SOURCE_IS),
        (
            "CREATE TABLE t (a INT) WITH (connector = 'kafka', topic = 't') §twice",
            "expected the end of the statement, found twice",
            "statements are separated by semicolons: is one missing?",
        ),
        (
            "CREATE TABLE t (a INT)\nWITH (connector = 'kafka', topic = §'t);",
            "unterminated string literal",
            "texts stand in '…', names in \"…\", comments in /* … */",
        ),
        ("CREATE TABLE t (§\"a INT)", "expected close delimiter '\"' before EOF", "texts stand in"),
        ("/* a comment\nwithout end§", "unexpected EOF while in a multi-line comment", "texts stand in"),
        ("-- nothing\n§CREAT TABLE t (a INT)", "expected an SQL statement, found CREAT", A_PIPELINE_HOLDS),
        (
            "CREATE §MATERIALISED VIEW v AS SELECT 1",
            "expected an object type after CREATE, found MATERIALISED",
            A_VIEW_IS,
        ),
        ("CREATE MATERIALIZED VIEW v §SELECT 1", "expected AS, found SELECT", A_VIEW_IS),
        (
            "CREATE MATERIALIZED VIEW v AS §SELEC 1",
            "expected SELECT, VALUES, or a subquery in the query body, found SELEC",
            A_VIEW_IS,
        ),
        ("CREATE MATERIALIZED VIEW v AS SELECT count(* §FROM t", "expected ), found FROM", A_VIEW_IS),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT a FROM t GROUP BY§",
            "expected an expression, found the end of the statement",
            A_VIEW_IS,
        ),
        (
            "CREATE MATERIALIZED VIEW v AS SELECT count(*) FROM t\nCREATE §MATERIALIZED VIEW w AS SELECT 1",
            "expected the end of the statement, found MATERIALIZED",
            "statements are separated by semicolons: is one missing?",
        ),
    ])
    .await;
    let deep = format!("CREATE MATERIALIZED VIEW v AS SELECT {}1{}", "(".repeat(500), ")".repeat(500));
    let Err(error) = compile(&deep).await else { panic!("it is too deep") };
    assert_eq!(error.message, "the statement is nested too deeply");
}

#[tokio::test]
async fn other_statements_have_no_place_in_a_pipeline() {
    let message = "this statement has no place in a pipeline";
    for statement in [
        "SELECT 1",
        "DROP TABLE t",
        "INSERT INTO t VALUES (1)",
        "SET a = 1",
        "CREATE INDEX i ON t (a)",
        "CREATE EXTERNAL TABLE t (a INT) STORED AS PARQUET LOCATION 'x'",
        "CREATE TEMPORARY TABLE t (a INT)",
        "CREATE OR REPLACE TABLE t (a INT)",
        "ALTER TABLE t ADD COLUMN b INT",
        "EXPLAIN SELECT 1",
    ] {
        check(&[(&format!("{WIKIPEDIA}  §{statement};"), message, A_PIPELINE_HOLDS)]).await;
    }
    check(&[
        (
            "\n  §CREATE VIEW v AS SELECT count(*) AS n FROM t",
            "a plain view is not supported",
            "write CREATE MATERIALIZED VIEW: bifold keeps every view up to date",
        ),
        (
            "CREATE MATERIALIZED VIEW v (§n) AS SELECT 1",
            "a view has no column list",
            "name columns with AS in the SELECT",
        ),
        ("CREATE MATERIALIZED VIEW v WITH (§x = 1) AS SELECT 1", "there is no option \"x\" of a view", RETENTION),
        ("CREATE MATERIALIZED VIEW v WITH (§retention = 1) AS SELECT 1", "retention cannot be 1", RETENTION),
        (
            "CREATE MATERIALIZED VIEW v WITH (§retention = '1 month') AS SELECT 1",
            "retention cannot be '1 month'",
            RETENTION,
        ),
        ("CREATE MATERIALIZED VIEW v WITH (§retention = '0s') AS SELECT 1", "retention cannot be '0s'", RETENTION),
        (
            "CREATE MATERIALIZED VIEW v §WITH (retention = '1 day', x = 1) AS SELECT 1",
            "these options are not a view's",
            RETENTION,
        ),
        (
            "CREATE TABLE t (a TIMESTAMP, WATERMARK FOR a AS a) WITH (connector = 'kafka', topic = 't');\n\
             CREATE MATERIALIZED VIEW v §WITH (retention = '1 day') AS SELECT count(*) AS n FROM t",
            "retention goes by the view's time column, and this view has none",
            "group by the event time or by a window of it, and show it",
        ),
        (
            "CREATE TABLE t (a TIMESTAMP, WATERMARK FOR a AS a) WITH (connector = 'kafka', topic = 't');\n\
             CREATE MATERIALIZED VIEW v §WITH (retention = '1 day') AS SELECT CAST(a AS TIME) AS t, count(*) AS n FROM t GROUP BY 1",
            "retention goes by the view's time column, and this view has none",
            "group by the event time or by a window of it, and show it",
        ),
        (
            "CREATE TABLE t (a INT) WITH (connector = 'kafka', topic = 't', §archive_retention = '1 day')",
            "archive_retention goes by event time, and this table has none",
            "declare it: WATERMARK FOR time",
        ),
        (
            "CREATE TABLE t (a TIMESTAMP, WATERMARK FOR a AS a) WITH (connector = 'kafka', topic = 't', §archive_retention = '1 day')",
            "with archive_retention one event from the far future would remove the whole archive",
            "bound event times: event_time_max_ahead = '1 hour'",
        ),
        ("CREATE MATERIALIZED VIEW §v TO t AS SELECT 1", "view \"v\" has options that a view does not take", A_VIEW_IS),
    ])
    .await;
}

#[tokio::test]
async fn names_are_simple_and_declared_once() {
    let simple = "a name is one word, or any text without / in double quotes";
    let own = "give every source and every view a name of its own";
    let with = "WITH (connector = 'kafka', topic = 't')";
    let view = "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n, v FROM t;";
    check(&[
        ("CREATE TABLE §a.b (a INT)", "a.b is not a simple name", simple),
        ("CREATE TABLE §\"a/b\" (a INT)", "\"a/b\" is not a simple name", simple),
        ("CREATE TABLE §\"\" (a INT)", "\"\" is not a simple name", simple),
        ("CREATE MATERIALIZED VIEW §a.b AS SELECT 1", "a.b is not a simple name", simple),
        ("CREATE MATERIALIZED VIEW §\"a/b\" AS SELECT 1", "\"a/b\" is not a simple name", simple),
        (
            &format!("CREATE TABLE t (a INT) {with};\nCREATE TABLE §T (t INT) WITH (connector = 'kafka', topic = 'u')"),
            "\"t\" is declared twice",
            own,
        ),
        (&format!("{view}\nCREATE MATERIALIZED VIEW §v AS SELECT v FROM v"), "\"v\" is declared twice", own),
        (
            &format!("CREATE TABLE v (a INT) {with};\nCREATE MATERIALIZED VIEW §v AS SELECT v FROM v"),
            "\"v\" is declared twice",
            own,
        ),
        (&format!("{view}\nCREATE TABLE IF NOT EXISTS §v (v INT) {with}"), "\"v\" is declared twice", own),
        (
            "CREATE TABLE a (topic TIMESTAMP, WATERMARK FOR topic AS topic) WITH (connector = 'kafka', topic = 'x,y');
             CREATE TABLE b (topic TIMESTAMP, WATERMARK FOR topic AS topic) WITH (connector = 'kafka', §topic = 'z,y')",
            "a topic of source \"b\" is already read by source \"a\"",
            "one source may feed many views",
        ),
    ])
    .await;
}

#[tokio::test]
async fn columns_have_a_name_of_their_own_and_a_supported_type() {
    let fields = "write STRUCT<name TYPE, …>";
    let decimal = "write DECIMAL(p, s) with p from 1 to 38 and s from 0 to p";
    let twice = "names differ by case only if they stand in double quotes";
    let option = "a column has a name and a type; a missing or null value is NULL";
    check_columns(&[
        ("a INT, §A TEXT", "column \"a\" is declared twice", twice),
        ("a INT, §\"a\" TEXT", "column \"a\" is declared twice", twice),
        (
            "§_offset INT",
            "the name \"_offset\" is reserved for the log's own columns",
            "every event has this column already",
        ),
        (
            "a INT, §_KEY TEXT",
            "the name \"_key\" is reserved for the log's own columns",
            "every event has this column already",
        ),
        ("§a INT NOT NULL", "column \"a\" has the option NOT NULL", option),
        ("§a INT DEFAULT 0", "column \"a\" has the option DEFAULT 0", option),
        ("a INT, §PRIMARY KEY (a)", "a source has no PRIMARY KEY", "a source is a stream of events: leave the key out"),
        ("a §DATE", "the type DATE is not supported", TYPES),
        ("date §DATE", "the type DATE is not supported", TYPES),
        ("a §VARCHAR(10)", "the type VARCHAR(10) is not supported", TYPES),
        ("a §TIMESTAMP(3)", "the type TIMESTAMP(3) is not supported", TYPES),
        ("a §TIMESTAMP WITH TIME ZONE", "the type TIMESTAMP WITH TIME ZONE is not supported", TYPES),
        ("a §TIMESTAMPTZ", "the type TIMESTAMPTZ is not supported", TYPES),
        ("a §FLOAT", "the type FLOAT is not supported", TYPES),
        ("a §SMALLINT", "the type SMALLINT is not supported", TYPES),
        ("a §INT UNSIGNED", "the type INT UNSIGNED is not supported", TYPES),
        ("a §BYTEA", "the type BYTEA is not supported", TYPES),
        ("a §JSONB", "the type JSONB is not supported", TYPES),
        ("a §INT[3]", "the type INT[3] is not supported", TYPES),
        ("a §NO_SUCH_TYPE", "the type NO_SUCH_TYPE is not supported", TYPES),
        ("a INT,\n  b STRUCT<c TEXT,\n    d §DATE>", "the type DATE is not supported", TYPES),
        ("a §DATE[]", "the type DATE is not supported", TYPES),
        ("a §DECIMAL", "a decimal needs its number of digits", "write DECIMAL(p, s): p digits in all"),
        ("a §DECIMAL(39,2)", "there is no DECIMAL(39,2)", decimal),
        ("a §NUMERIC(0)", "there is no NUMERIC(0)", decimal),
        ("a §DECIMAL(5,6)", "there is no DECIMAL(5,6)", decimal),
        ("a §DECIMAL(5,-1)", "there is no DECIMAL(5,-1)", decimal),
        ("a §STRUCT<INT>", "a field of a STRUCT needs a name", fields),
        ("a §STRUCT", "a STRUCT needs fields", fields),
        ("a §STRUCT<b INT, B TEXT>", "field \"b\" of the STRUCT is declared twice", twice),
    ])
    .await;
}

#[tokio::test]
async fn a_watermark_is_one_and_for_a_timestamp_of_the_table() {
    let form = "write AS t or AS t - INTERVAL '10 seconds'";
    let message = "this watermark is not understood";
    check_columns(&[
        (
            "t TIMESTAMP, WATERMARK FOR t AS t, §WATERMARK FOR t AS t",
            "a source has only one WATERMARK",
            "the column of the one WATERMARK is the event time",
        ),
        (
            "t BIGINT, WATERMARK FOR §t AS t",
            "the WATERMARK is for \"t\", which is BIGINT",
            "declare \"t\" as TIMESTAMP, or name a column that is one",
        ),
        (
            "time TIMESTAMP, WATERMARK FOR §tme AS tme",
            "the WATERMARK is for \"tme\", which is no column of this table",
            "the nearest column is \"time\"",
        ),
        (
            "\"Time\" TIMESTAMP, WATERMARK FOR §Time AS Time",
            "the WATERMARK is for \"time\", which is no column of this table",
            "names are case-sensitive: write \"Time\" in double quotes",
        ),
        (
            "WATERMARK FOR §t AS t",
            "the WATERMARK is for \"t\", which is no column of this table",
            "declare \"t\" as TIMESTAMP",
        ),
        ("t TIMESTAMP, u TIMESTAMP, WATERMARK FOR t AS §u", message, form),
        ("t TIMESTAMP, WATERMARK FOR t AS §t + INTERVAL '1 second'", message, form),
        ("t TIMESTAMP, WATERMARK FOR t AS §t - INTERVAL '-1 second'", message, form),
        ("t TIMESTAMP, WATERMARK FOR t AS §t - INTERVAL '1 month'", message, form),
        ("t TIMESTAMP, WATERMARK FOR t AS §t - '5 seconds'", message, form),
        ("t TIMESTAMP, WATERMARK FOR t AS §now()", message, form),
        ("\"T\" TIMESTAMP, WATERMARK FOR \"T\" AS §t", message, "write AS \"T\" or AS \"T\" - INTERVAL '10 seconds'"),
        ("t TIMESTAMP, WATERMARK FOR t§", "expected AS, found )", A_SOURCE_IS),
        (
            "watermark §TEXT",
            "expected FOR after WATERMARK",
            "write WATERMARK FOR column AS column; a column of that name",
        ),
    ])
    .await;
}

#[tokio::test]
async fn options_are_known_given_once_and_understood() {
    let time = "write a time such as '2015-09-12T00:00:00Z'";
    let duration = "write a duration with its unit, such as '90s' or '1 hour'";
    check_options(&[
        (", §formt = 'json'", "there is no option \"formt\"", "the nearest option is format"),
        (", §evnt_time_mx = 'x'", "there is no option \"evnt_time_mx\"", "the nearest option is event_time_max"),
        (
            ", §\"Timestamp-Unit\" = 's'",
            "there is no option \"timestamp-unit\"",
            "the nearest option is timestamp_unit",
        ),
        (", §topic = 'u'", "the option topic stands here twice", "leave one of them out"),
        (", format = 'json', §FORMAT = 'json'", "the option format stands here twice", "leave one of them out"),
        (", format = §'avro'", "format cannot be \"avro\"", "the format is 'json'"),
        (", format = §json", "the value of format is no text: json", "write it in single quotes: format = '…'"),
        (", format = §\"json\"", "the value of format is no text: \"json\"", "write it in single quotes: format = '…'"),
        (", format = §", "the value of format is no text: )", "write it in single quotes"),
        (
            ", timestamp_unit = §'sec'",
            "timestamp_unit cannot be \"sec\"",
            "the unit is 's', 'ms', 'us', 'ns', or 'auto', which goes by the size",
        ),
        (
            ", timestamp_unit = §'S'",
            "timestamp_unit cannot be \"S\"",
            "the unit is 's', 'ms', 'us', 'ns', or 'auto', which goes by the size",
        ),
        (", event_time_min = §'2015'", "event_time_min cannot be \"2015\"", time),
        (", event_time_max = §'2015-09-12'", "event_time_max cannot be \"2015-09-12\"", time),
        (", event_time_max_ahead = §'3600'", "event_time_max_ahead cannot be \"3600\"", duration),
        (", event_time_max_ahead = §'soon'", "event_time_max_ahead cannot be \"soon\"", duration),
        (", event_time_max_ahead = §'1 month'", "event_time_max_ahead cannot be \"1 month\"", duration),
        (", event_time_max_ahead = §'-1 hour'", "event_time_max_ahead cannot be \"-1 hour\"", duration),
        (
            ", event_time_max_ahead = §60",
            "the value of event_time_max_ahead is no text: 60",
            "write it in single quotes",
        ),
        (
            ", event_time_max = '2000-01-01T00:00:00Z',\n §event_time_min = '2000-01-01T00:00:00.000001Z'",
            "event_time_min is after event_time_max",
            "as it stands, no event can be in bounds",
        ),
    ])
    .await;
    let topics = "name one topic, or several that differ, separated by commas";
    for topic in ["", ",", "a,", "a,,b", "a,a", "a b", "ä", "a/b", ".", "..", &"a".repeat(250)] {
        let text = format!("CREATE TABLE t (a INT) WITH (connector = 'kafka', topic = §'{topic}')");
        check(&[(&text, &format!("topic cannot be {topic:?}"), topics)]).await;
    }
    let event_time = "declare the event time: WATERMARK FOR column AS column - INTERVAL '10 seconds'";
    check(&[
        (
            "CREATE TABLE t (a INT) WITH (connector = §'pulsar')",
            "connector cannot be \"pulsar\"",
            "the connector is 'kafka'",
        ),
        ("CREATE TABLE t (a INT) §WITH ()", "the option connector is missing", WITH),
        ("CREATE TABLE t (a INT) §WITH (topic = 't')", "the option connector is missing", WITH),
        ("CREATE TABLE t (a INT) §WITH (connector = 'kafka')", "the option topic is missing", WITH),
        (
            "CREATE TABLE t (t TIMESTAMP)\nWITH (connector = 'kafka', topic = 't', §event_time_max_ahead = '1h')",
            "event_time_max_ahead bounds no event time",
            event_time,
        ),
    ])
    .await;
}

#[tokio::test]
async fn unknown_names_come_with_the_nearest() {
    let named = |name: &str| format!("the nearest column is {name:?}");
    check_selects(&[
        ("SELECT count(*) AS n FROM §wikpedia", "there is no source \"wikpedia\"", "the nearest source is \"wikipedia\""),
        ("SELECT wikpedia, count(*) AS n FROM §Wikpedia GROUP BY 1", "there is no source \"wikpedia\"", "the nearest source is"),
        ("SELECT count(*) AS n FROM §\"Wikipedia\"", "there is no source \"Wikipedia\"", "the nearest source is \"wikipedia\""),
        ("SELECT count(*) AS n FROM §v", "there is no source \"v\"", "the nearest source is \"wikipedia\""),
        ("SELECT count(*) AS n §FROM 'wiki.parquet'", "there is no source \"wiki.parquet\"", "the nearest source is"),
        ("SELECT §pag, count(*) AS n FROM wikipedia GROUP BY 1", "column 'pag' not found", &named("page")),
        ("SELECT page, sum(§aded) AS n FROM wikipedia GROUP BY 1", "column 'aded' not found", &named("added")),
        ("SELECT page, count(*) AS n FROM wikipedia\n  WHERE §chanel = 'x' GROUP BY 1", "column 'chanel' not found", &named("channel")),
        ("SELECT §w.chanl, count(*) AS n FROM wikipedia w GROUP BY 1", "column 'chanl' not found in 'w'", &named("channel")),
        (
            "SELECT §isRobot, count(*) AS n FROM wikipedia GROUP BY 1",
            "column 'isrobot' not found",
            "names are case-sensitive: write \"isRobot\" in double quotes",
        ),
        (
            "SELECT count(*) AS n FROM wikipedia WHERE NOT §\"ISROBOT\"",
            "column 'ISROBOT' not found",
            "names are case-sensitive: write \"isRobot\" in double quotes",
        ),
        (
            "SELECT §x.channel, count(*) AS n FROM wikipedia w GROUP BY 1",
            "column 'channel' not found in 'x'",
            "the column is \"channel\": leave out what stands before it",
        ),
        ("SELECT §summ(added) AS n FROM wikipedia", "there is no aggregate or function \"summ\"", "the nearest function is sum"),
        ("SELECT sum(§absolute(added)) AS n FROM wikipedia", "there is no aggregate or function \"absolute\"", "docs/guide/views.md and docs/reference/sql.md name what there is"),
        ("SELECT §toStartOfMinute(time) AS m FROM wikipedia", "there is no aggregate or function \"tostartofminute\"", "write date_trunc('minute', time)"),
        ("SELECT §uniq(user) AS m FROM wikipedia", "there is no aggregate or function \"uniq\"", "write approx_distinct(x)"),
        ("SELECT §countIf(isRobot) AS m FROM wikipedia", "there is no aggregate or function \"countif\"", "write count(*) FILTER"),
        (
            "SELECT §hop(time, INTERVAL '1 minute', INTERVAL '5 minutes') AS w, count(*) AS n FROM wikipedia GROUP BY 1",
            "there is no aggregate or function \"hop\"",
            "the only windows are tumble(time, size), date_bin and date_trunc",
        ),
    ])
    .await;
    check(&[(
        "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS n FROM §t",
        "there is no source \"t\"",
        "declare it with CREATE TABLE",
    )])
    .await;
}

#[tokio::test]
async fn what_depends_on_more_than_the_event_is_refused() {
    let hint = "a view's rows must follow from the events alone, so that they can be computed again";
    for call in ["now()", "current_timestamp", "CURRENT_TIMESTAMP()", "current_date", "current_time", "today()"] {
        let name = call.trim_end_matches("()");
        let message = format!("{name} depends on more than the event");
        let select =
            format!("SELECT channel, count(*) AS n FROM wikipedia WHERE time > §{call} - INTERVAL '1 day' GROUP BY 1");
        let in_key = format!("SELECT count(*) AS now, date_trunc('day', §{call}) AS d FROM wikipedia GROUP BY 2");
        if call != "current_time" {
            check_selects(&[(&select, &message, hint)]).await;
        }
        if !call.to_lowercase().contains("time") {
            check_selects(&[(&in_key, &message, hint)]).await;
        }
    }
    check_selects(&[
        ("SELECT sum(§random()) AS n FROM wikipedia", "random depends on more than the event", hint),
        (
            "SELECT §uuid() AS uuid, count(*) AS n FROM wikipedia GROUP BY 1",
            "uuid depends on more than the event",
            hint,
        ),
        (
            "SELECT count(*) AS n FROM wikipedia HAVING count(*) > §random()",
            "random depends on more than the event",
            hint,
        ),
        (
            "SELECT count(*) FILTER (WHERE time < §now()) AS n FROM wikipedia",
            "now depends on more than the event",
            hint,
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_aggregate_that_depends_on_order_needs_one() {
    let hint = "add ORDER BY inside the call, for example by the event-time column";
    for call in ["first_value(page)", "last_value(page)", "array_agg(page)", "string_agg(page, ',')"] {
        let name = call.split('(').next().unwrap_or_default();
        let select = format!("SELECT channel, count(*) AS {name}, §{call} AS x FROM wikipedia GROUP BY 1");
        check_selects(&[(&select, &format!("{name}() depends on the order of events"), hint)]).await;
    }
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused() {
    let plain = "write SELECT … FROM … WHERE … GROUP BY … HAVING …";
    let once = "a view is one pass over events; put this into the query of the view";
    let sets = "make one view of each set of columns";
    let limit = "put LIMIT and OFFSET into the query of the view";
    let unite = "make one view of each SELECT and unite them in a query";
    let group = "SELECT channel, count(*) AS n FROM wikipedia GROUP BY channel";
    let after = |clause: &str| format!("{group} §{clause}");
    let cases: Vec<(String, &str, &str)> = vec![
        (after("LIMIT 5"), "a limit cannot be merged", limit),
        (after("OFFSET 5"), "a limit cannot be merged", limit),
        (after("LIMIT 5 OFFSET 5"), "a limit cannot be merged", limit),
        (after("FETCH FIRST 5 ROWS ONLY"), "a limit cannot be merged", limit),
        (after("ORDER BY 1"), "a view has no order", "put ORDER BY into the query of the view"),
        (after("ORDER BY 1 LIMIT 5"), "a view has no order", "put ORDER BY into the query of the view"),
        (after(&format!("UNION ALL {group}")), "a view is one SELECT", unite),
        (after(&format!("EXCEPT {group}")), "a view is one SELECT", unite),
        (after(&format!("INTERSECT {group}")), "a view is one SELECT", unite),
        (after("|> LIMIT 1"), "a view is one plain SELECT", plain),
        (after("|> WHERE n > 1"), "a view is one plain SELECT", plain),
        (after("FOR UPDATE"), "a view is one plain SELECT", plain),
        (
            after("QUALIFY row_number() OVER () = 1"),
            "window functions cannot be merged",
            "use them in the query of the view",
        ),
    ];
    for (marked, message, hint) in &cases {
        check_selects(&[(marked, message, hint)]).await;
    }
    check_selects(&[
        // An ORDER BY or a LIMIT inside is none of the view's.
        (
            "SELECT first_value(page ORDER BY time) AS p, percentile_cont(0.5) WITHIN GROUP (ORDER BY added) AS q\n  \
             FROM wikipedia §ORDER BY 1",
            "a view has no order",
            "put ORDER BY into the query of the view",
        ),
        ("SELECT §corr(DISTINCT added, price) AS c FROM wikipedia", "corr() does not tell distinct values from others", "leave DISTINCT out"),
        ("SELECT §DISTINCT channel FROM wikipedia", "SELECT DISTINCT cannot be merged", "GROUP BY the columns instead"),
        ("SELECT §DISTINCT ON (channel) channel FROM wikipedia", "SELECT DISTINCT cannot be merged", "GROUP BY the columns"),
        ("SELECT §TOP 5 channel, count(*) AS n FROM wikipedia GROUP BY 1", "a limit cannot be merged", "put LIMIT into the query"),
        ("§WITH x AS (SELECT 1) SELECT count(*) AS n FROM x", "a view cannot use WITH", "write one SELECT over one source"),
        ("§VALUES (1)", "a view is one SELECT", "write SELECT"),
        ("§TABLE wikipedia", "a view is one SELECT", "write SELECT"),
        ("SELECT count(*) AS n §INTO x FROM wikipedia", "a view is one plain SELECT", plain),
        (
            "SELECT §row_number() OVER (PARTITION BY page) AS n, count(*) AS row_number FROM wikipedia GROUP BY page",
            "row_number() OVER … is a window function, which cannot be merged",
            once,
        ),
        ("SELECT §sum(count(*)) OVER () AS n FROM wikipedia", "sum() OVER … is a window function, which cannot be merged", once),
        (
            "SELECT count(*) AS n, 1 + §lag(page) OVER w AS l FROM wikipedia",
            "lag() OVER … is a window function, which cannot be merged",
            once,
        ),
        ("SELECT §rank() AS n, count(*) AS m FROM wikipedia", "there is no aggregate or function \"rank\"", "it is a window function"),
        ("SELECT page, count(*) AS n FROM wikipedia GROUP BY §ROLLUP (page)", "grouping sets cannot be merged", sets),
        ("SELECT page, count(*) AS n FROM wikipedia GROUP BY §CUBE (page, channel)", "grouping sets cannot be merged", sets),
        ("SELECT page, count(*) AS n FROM wikipedia GROUP BY §GROUPING SETS ((page), ())", "grouping sets cannot be merged", sets),
        (
            "SELECT page, percentile_cont(0.5) WITHIN GROUP (ORDER BY added) AS n FROM wikipedia GROUP BY page, §ROLLUP (channel)",
            "grouping sets cannot be merged",
            sets,
        ),
        ("SELECT page, count(*) AS n FROM wikipedia GROUP BY §ALL", "GROUP BY ALL is not supported", "name the columns"),
        (
            "SELECT a.page, count(*) AS n FROM wikipedia a JOIN §wikipedia b ON a.page = b.page GROUP BY 1",
            "a view cannot join",
            "a view reads one source; join views in a query",
        ),
        ("SELECT count(*) AS n FROM wikipedia CROSS JOIN §x", "a view cannot join", "a view reads one source; join views in a query"),
        ("SELECT count(*) AS n §FROM wikipedia, wikipedia w", "a view reads exactly one source", "write one source after FROM"),
        ("§SELECT 1 AS n", "a view reads exactly one source", "write one source after FROM"),
        ("SELECT count(*) AS n FROM (§SELECT * FROM wikipedia)", "a view reads a source directly", "name one source after FROM"),
        ("SELECT count(*) AS n FROM §generate_series(1, 5)", "a view reads a source directly", "name one source of the pipeline"),
        ("SELECT count(*) AS n FROM §public.wikipedia", "a source has no schema before its name", "name one source of the pipeline"),
        (
            "SELECT count(*) AS n FROM §wikipedia TABLESAMPLE BERNOULLI (10)",
            "a view reads every event of wikipedia, under its own columns",
            "leave samples, versions and lists of columns out",
        ),
        (
            "SELECT count(a) AS n FROM §wikipedia AS w (a)",
            "a view reads every event of wikipedia, under its own columns",
            "leave samples, versions and lists of columns out",
        ),
    ])
    .await;
    let subquery = "a view cannot have a subquery";
    check_selects(&[
        ("SELECT count(*) AS n FROM wikipedia WHERE added > (§SELECT avg(added) FROM wikipedia)", subquery, once),
        ("SELECT count(*) AS n FROM wikipedia WHERE page IN (§SELECT page FROM wikipedia)", subquery, once),
        ("SELECT count(*) AS n FROM wikipedia WHERE NOT EXISTS (§SELECT 1 FROM wikipedia)", subquery, once),
        ("SELECT count(*) AS n FROM wikipedia WHERE added > ANY (§SELECT added FROM wikipedia)", subquery, once),
        ("SELECT count(*) AS n FROM wikipedia WHERE added > ALL (§SELECT added FROM no_table)", subquery, once),
        ("SELECT (§SELECT 1) AS one, count(*) AS n FROM wikipedia", subquery, once),
        ("SELECT count(*) AS n FROM wikipedia GROUP BY page, (§SELECT 1)", subquery, once),
        ("SELECT count(*) AS n FROM wikipedia HAVING count(*) > (§SELECT 3)", subquery, once),
        ("SELECT sum(added + (§SELECT 3)) AS n FROM wikipedia", subquery, once),
        ("SELECT count(*) FILTER (WHERE added > (§SELECT 3)) AS n FROM wikipedia", subquery, once),
    ])
    .await;
}

#[tokio::test]
async fn a_view_aggregates_and_its_calls_make_sense() {
    let aggregate = "add GROUP BY, or an aggregate such as count(*)";
    let group_by = "add it to GROUP BY, or aggregate it, for example with min or max";
    let columns =
        "the columns of wikipedia are time TIMESTAMP, channel TEXT, page TEXT, user TEXT, isRobot BOOLEAN, added";
    let merge = "use an aggregate whose partial results merge, such as count, sum, avg, min or max";
    let must = |column: &str| {
        format!("'wikipedia.{column}' must appear in GROUP BY clause because it's not an aggregate expression")
    };
    check_selects(&[
        ("§SELECT channel FROM wikipedia", "this view does not aggregate", aggregate),
        ("§SELECT channel, added + 1 AS x FROM wikipedia WHERE added > 1", "this view does not aggregate", aggregate),
        ("SELECT §* FROM wikipedia", "a view names its columns", "write group keys and aggregates in its place"),
        (
            "SELECT count(*) AS n, §wikipedia.* FROM wikipedia",
            "a view names its columns",
            "write group keys and aggregates",
        ),
        ("SELECT §channel, count(*) AS n FROM wikipedia", &must("channel"), group_by),
        ("SELECT channel, §page, count(*) AS n FROM wikipedia GROUP BY 1", &must("page"), group_by),
        (
            "SELECT channel, count(*) AS n FROM wikipedia §GROUP BY 7",
            "cannot find column with position 7 in SELECT clause. Valid columns: 1 to 2",
            columns,
        ),
        (
            "SELECT §sum(page) AS n FROM wikipedia",
            "sum does not take these arguments: sum(TEXT)",
            "it takes sum(Decimal) or sum(BIGINT UNSIGNED) or sum(BIGINT) or sum(DOUBLE)",
        ),
        (
            "SELECT count(*) AS sum, §sum(added, added) AS n FROM wikipedia",
            "sum does not take these arguments: sum(BIGINT, BIGINT)",
            "it takes sum(Decimal)",
        ),
        (
            "SELECT §tumble(channel, INTERVAL '1 minute') AS w, count(*) AS n FROM wikipedia GROUP BY 1",
            "tumble does not take these arguments: tumble(TEXT, INTERVAL)",
            "it takes tumble(TIMESTAMP, INTERVAL); CAST(x AS type) converts an argument",
        ),
        (
            "SELECT §tumble(time) AS w, count(*) AS n FROM wikipedia GROUP BY 1",
            "tumble does not take these arguments: tumble(TIMESTAMP)",
            "it takes tumble(TIMESTAMP, INTERVAL)",
        ),
        ("SELECT §any_value(page) AS p FROM wikipedia", "any_value() cannot be merged", merge),
        (
            "SELECT §nth_value(page, 2 ORDER BY time) AS p FROM wikipedia",
            "nth_value() cannot be merged",
            "take the place from a list: array_element(array_agg(x ORDER BY time), 2)",
        ),
        (
            "§SELECT max(count(*)) AS n FROM wikipedia",
            "aggregate function calls cannot be nested",
            "aggregate once in the view, and its rows once more in a query",
        ),
        (
            "§SELECT channel, count(*) AS n FROM wikipedia WHERE count(*) > 1 GROUP BY 1",
            "aggregate functions are not allowed in the WHERE clause",
            "consider using HAVING instead",
        ),
        (
            "§SELECT count(*) AS n FROM wikipedia WHERE channel + 1 = true",
            "expressions have incompatible types",
            columns,
        ),
        (
            "§SELECT count(*) AS n FROM wikipedia WHERE added",
            "cannot create filter with non-boolean predicate 'wikipedia.added' returning BIGINT",
            columns,
        ),
        ("§SELECT sum(CAST(page AS NO_TYPE)) AS n FROM wikipedia", "unsupported SQL type NO_TYPE", columns),
    ])
    .await;
}

#[tokio::test]
async fn output_columns_differ_in_name() {
    let hint = "give one of them another name with AS";
    let called = |name: &str| format!("two columns of the view are called {name:?}");
    check_selects(&[
        ("SELECT count(*) AS n, sum(added) AS §n FROM wikipedia", &called("n"), hint),
        ("SELECT channel AS a, page AS §A, count(*) AS n FROM wikipedia GROUP BY 1, 2", &called("a"), hint),
        ("SELECT channel, §channel, count(*) AS n FROM wikipedia GROUP BY 1", &called("channel"), hint),
        ("SELECT w.channel, §channel, count(*) AS n FROM wikipedia w GROUP BY 1", &called("channel"), hint),
        ("SELECT channel, count(*) AS §channel FROM wikipedia GROUP BY 1", &called("channel"), hint),
        ("SELECT count(*), §count(*) FROM wikipedia", &called("count(*)"), hint),
    ])
    .await;
}
