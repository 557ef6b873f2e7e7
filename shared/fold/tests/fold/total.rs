//! No event stops a fold: whatever values it has, whatever functions a view calls on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use bifold_fold::states::Input;
use bifold_fold::{Decoder, Engine, Pipeline, PipelineError, View, pipeline, view};
use bifold_ledger::Dialect;
use datafusion::logical_expr::Volatility;

use crate::support::MAX_RECORD;

const COLUMNS: &str = "i INT, j INT, b BIGINT, c BIGINT, x DOUBLE, y DOUBLE, m DECIMAL(38,10), n DECIMAL(10,2), k DECIMAL(38,0), t TEXT, \
                       u TEXT, ts TIMESTAMP, tz TIMESTAMP, f BOOLEAN, l BIGINT[], s TEXT[], at TIMESTAMP[]";

/// What each column holds, as JSON, from one end of its type to the other.
const VALUES: [(&str, &[&str]); 17] = [
    ("i", &["0", "1", "-1", "2147483647", "-2147483648", "31", "255", "null"]),
    ("j", &["-1", "0", "7", "-2147483648", "2147483647", "1114112", "null"]),
    ("b", &["0", "-1", "1", "9223372036854775807", "-9223372036854775808", "12", "100000000", "null"]),
    ("c", &["-1", "0", "3", "-9223372036854775808", "9223372036854775807", "3000000000", "null"]),
    ("x", &["0", "-0.0", "1.5", "1e308", "-1e308", "5e-324", "null"]),
    ("y", &["-1", "0", "1e19", "-1e19", "0.5", "null"]),
    ("m", &["0", "-1", "1.5", "9999999999999999999999999999", "-9999999999999999999999999999", "null"]),
    ("n", &["0", "-0.01", "99999999.99", "-99999999.99", "null"]),
    ("k", &["0", "-1", "99999999999999999999999999999999999999", "-99999999999999999999999999999999999999", "null"]),
    (
        "t",
        &[
            r#""""#,
            r#""a""#,
            r#""héllo wörld""#,
            r#""[""#,
            r#""(((""#,
            r#""2020-02-30""#,
            r#""\u0000""#,
            r#""1e5""#,
            "null",
        ],
    ),
    ("u", &[r#""""#, r#""*""#, r#""second""#, r#""zz""#, r#""%Q%é""#, r#""\\""#, r#""2020-01-01T00:00:00Z""#, "null"]),
    ("ts", &["0", "\"9999-12-31T23:59:59.999999Z\"", "9223372036854775807", "-9223372036854775808", "null"]),
    ("tz", &["\"2016-02-29T12:00:00Z\"", "\"0001-01-01T00:00:00Z\"", "\"9999-12-31T23:59:59Z\"", "null"]),
    ("f", &["true", "false", "null"]),
    ("l", &["[]", "[1,null,3]", "[9223372036854775807,-9223372036854775808]", "null"]),
    ("at", &["[]", "[9223372036854775807, null]", "[0, -9223372036854775808]", "null"]),
    ("s", &["[]", r#"["a",null,""]"#, r#"["[","é"]"#, "null"]),
];

/// What else a call may have among its arguments.
const LITERALS: [&str; 16] = [
    "'second'",
    "'a'",
    "'%Y-%m-%d'",
    "'utf8'",
    "'sha256'",
    "'base64'",
    "'hex'",
    "''",
    "1",
    "0",
    "-1",
    "2.5",
    "INTERVAL '1 day'",
    "INTERVAL '1 month'",
    "INTERVAL '0 days'",
    "TIMESTAMP '2020-01-01T00:00:00Z'",
];

/// What random arguments do not find.
const EXPRESSIONS: [&str; 41] = [
    "-b",
    "-k",
    "t SIMILAR TO 'a%'",
    "ts AT TIME ZONE 'Europe/Berlin'",
    "l[b]",
    "l[b:c]",
    "t::DATE",
    "substr(t, i, j)",
    "substr(t, b, c)",
    "repeat(t, b)",
    "lpad(t, b, u)",
    "decode(t, 'hex')",
    "decode(t, 'base64')",
    "replace(t, '', u)",
    "make_date(i, j, i)",
    "make_date(CAST(b AS INT), CAST(c AS INT), j)",
    "make_time(i, j, i)",
    "date_part('epoch', ts)",
    "arrow_cast(b, 'Int8')",
    "arrow_cast(t, 'Timestamp(Second, None)')",
    "tumble(ts, INTERVAL '7 days')",
    "generate_series(b, c)",
    "range(b, c, i)",
    "generate_series(ts, tz, INTERVAL '1 second')",
    "array_repeat(t, b)",
    "array_resize(l, b)",
    "i * j",
    "ts + INTERVAL '9000000 months'",
    "ts - tz",
    "CAST(ts AS TEXT)",
    "CAST(at AS TEXT)",
    "at::TEXT[]",
    "ts::DATE",
    "date_trunc('month', ts)",
    "CAST(decode(t, 'hex') AS TEXT)",
    "t LIKE u",
    "t NOT ILIKE repeat(u, 30000)",
    "'a' LIKE repeat('_', 60000 + i % 2)",
    "replace(repeat(t, 100), '', repeat(u, 60000))",
    "array_to_string(l, repeat(u, 1000000))",
    "CASE WHEN t ~ u THEN b * c ELSE 1 / i END",
];

/// The pipeline's source, and its events: the n-th value of each column beside the others' in several ways.
fn events(text: &str) -> Result<(Pipeline, Vec<RecordBatch>), PipelineError> {
    let pipeline = pipeline::parse("p.sql", text, MAX_RECORD)?;
    let source = Arc::new(pipeline.sources[0].clone());
    let mut decoder = Decoder::new(Arc::clone(&source), |_| true);
    let mut dead = vec![];
    for row in 0..120usize {
        let fields = VALUES.iter().enumerate().map(|(column, (name, values))| {
            let value = values[(row + row / 9 * column + row / 40) % values.len()];
            format!("\"{name}\":{value}")
        });
        let record = format!("{{{}}}", fields.collect::<Vec<_>>().join(","));
        decoder.push(
            bifold_fold::Envelope {
                topic: "s",
                partition: 0,
                offset: row as i64,
                timestamp_ms: 0,
                value: record.as_bytes(),
            },
            &mut dead,
        );
    }
    let dead: Vec<_> = dead.iter().map(|letter| &letter.detail).collect();
    assert_eq!(dead, Vec::<&String>::new());
    Ok((pipeline, vec![decoder.finish()]))
}

fn table() -> String {
    format!("CREATE TABLE s ({COLUMNS}) WITH (connector = 'kafka', topic = 's', timestamp_unit = 'us');")
}

async fn compiled(engine: &Engine, select: &str) -> Result<(Arc<View>, Vec<RecordBatch>), PipelineError> {
    let (pipeline, rows) = events(&format!("{}CREATE MATERIALIZED VIEW v AS {select}", table()))?;
    let mut views = view::compile_all(engine, &pipeline).await?;
    Ok((views.remove(0), rows))
}

/// Folds the events and finishes; the rows as text.
async fn answer(select: &str) -> String {
    let engine = Engine::new();
    let (view, rows) = compiled(&engine, select).await.unwrap_or_else(|e| panic!("{select}: {e}"));
    answer_of(&engine, &view, &rows, select).await
}

async fn answer_of(engine: &Engine, view: &Arc<View>, rows: &[RecordBatch], select: &str) -> String {
    let states = Input::new(engine, Arc::clone(view)).await.expect("it is planned").fold(rows).await;
    let states = states.unwrap_or_else(|e| panic!("{select}: {e}"));
    let rows = view.finish(engine, states).await.unwrap_or_else(|e| panic!("{select}: {e}"));
    pretty_format_batches(&rows).expect("it is shown").to_string()
}

/// Constants are computed as the values of events are, in views of dialect 3; those of dialect 2 keep what they say.
#[tokio::test]
async fn constants_are_exact_from_dialect_3_on() {
    let select = "SELECT max((9007199254740993 - 3) * 9007199254740993) AS wraps, max(9223372036854775807 + 1) AS next, \
        min(-9223372036854775807 - 2) AS below, max(CAST(9007199254740993 - 0.25 AS DOUBLE)) AS nearest, max(6 * 7) AS fine FROM s";
    let engine = Engine::new();
    let (pipeline, rows) = events(&format!("{}CREATE MATERIALIZED VIEW v AS {select}", table())).expect("it is SQL");
    for (dialect, expected) in [
        (2, "-9007199254740994 -9223372036854775808 9223372036854775807 9007199254740994.0 42"),
        (3, "- - - 9007199254740992.0 42"),
    ] {
        let view =
            view::compile_under(&engine, &pipeline, &pipeline.views[0], Dialect(dialect)).await.expect("it compiles");
        let shown = answer_of(&engine, &view, &rows, select).await;
        let row = shown.lines().nth(3).expect("a row");
        let row = row.split('|').map(|cell| if cell.trim().is_empty() { "-" } else { cell.trim() });
        let row = row.collect::<Vec<_>>().join(" ");
        assert_eq!(row, format!("- {expected} -"), "dialect {dialect}\n{shown}");
    }
}

/// Random numbers that repeat: xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn argument(&mut self) -> &'static str {
        let place = self.below(VALUES.len() + LITERALS.len());
        VALUES.get(place).map_or_else(|| LITERALS[place - VALUES.len()], |(name, _)| name)
    }

    /// Arguments of which the first has a type that the function may take.
    fn arguments(&mut self, function: &str, attempt: usize) -> Vec<&'static str> {
        let mut arguments: Vec<&str> = (0..[1, 1, 2, 2, 3, 4][attempt % 6]).map(|_| self.argument()).collect();
        if function.starts_with("array") || function.starts_with("list") {
            arguments[0] = ["l", "s"][self.below(2)];
        }
        arguments
    }
}

/// Whether a view of this expression compiles; then it has to fold.
async fn folds(engine: &Engine, expr: &str) -> bool {
    let select = format!("SELECT count({expr}) AS counted FROM s");
    let Ok((view, rows)) = compiled(engine, &select).await else { return false };
    let input = Input::new(engine, Arc::clone(&view)).await.unwrap_or_else(|e| panic!("{expr}: {e}"));
    input.fold(&rows).await.unwrap_or_else(|e| panic!("{expr}: {e}"));
    true
}

#[tokio::test]
async fn no_function_stops_at_an_event() {
    let engine = Engine::new();
    let functions = engine.context().state().scalar_functions().clone();
    let mut names: Vec<&String> = functions
        .iter()
        .filter(|(name, function)| function.name() == *name && function.signature().volatility == Volatility::Immutable)
        .map(|(name, _)| name)
        .collect();
    names.sort();
    let mut random = Random(0x5EED);
    let mut tried = BTreeMap::new();
    for name in names {
        let attempts = if name.starts_with("array") { 60 } else { 24 };
        for attempt in 0..attempts {
            let arguments = random.arguments(name, attempt).join(", ");
            *tried.entry(name).or_insert(0) += usize::from(folds(&engine, &format!("{name}({arguments})")).await);
        }
    }
    let calls: usize = tried.values().sum();
    let without: Vec<_> = tried.iter().filter(|(_, calls)| **calls == 0).map(|(name, _)| name).collect();
    println!("{calls} calls of {} functions; {without:?} take other arguments", tried.len() - without.len());
    assert!(calls > 800 && tried.len() - without.len() > 110, "{calls} calls, none of {without:?}");
}

#[tokio::test]
async fn no_operator_stops_at_an_event() {
    let engine = Engine::new();
    let names: Vec<&str> = VALUES.iter().map(|(name, _)| *name).chain(LITERALS).collect();
    let operators = ["+", "-", "*", "/", "%", "||", "&", "|", "^", "<<", ">>", "~", "!~*", "LIKE", "=", "<", "@>"];
    let mut tried = BTreeMap::new();
    for op in operators {
        for (left, right) in VALUES.iter().flat_map(|(left, _)| names.iter().map(move |right| (left, right))) {
            *tried.entry(op).or_insert(0) += usize::from(folds(&engine, &format!("{left} {op} {right}")).await);
        }
    }
    assert!(tried.values().all(|calls| *calls > 0), "{tried:?}");
    let mut refused = vec![];
    for expr in EXPRESSIONS {
        if !folds(&engine, expr).await {
            refused.push(expr);
        }
    }
    assert!(refused.is_empty(), "they do not compile: {refused:?}");
}

#[tokio::test]
async fn a_value_that_fails_is_null_and_the_others_are_not() {
    for (exprs, expected) in [
        // The values of i, in their order: 0, 1, -1, 2147483647, -2147483648, 31, 255, null.
        ("count(i), count(substr('abcdef', 1, i)), sum(length(substr('abcdef', 1, i)))", ["7", "5", "19"]),
        ("count(1 / i), count(i / -1), count(1 % i)", ["6", "7", "6"]),
        // j: -1, 0, 7, -2147483648, 2147483647, 1114112, null, -1. Products of 32 bits have 64.
        ("count(i * j), sum(i * j), max(i + i)", ["6", "-9223372032525271047", "4294967294"]),
        // b: 0, -1, 1, the greatest, the least, 12, 100000000, null; c: -1, 0, 3, the least, the greatest, 3000000000, …
        ("count(b * c), sum(b * c), count(b / -1)", ["4", "36000000003", "6"]),
        ("max(-b), count(-b), max(-i)", ["1", "6", "2147483648"]),
        ("count(b + 1), count(b - 1), max(b + 1)", ["6", "6", "100000001"]),
    ] {
        let answer = answer(&format!("SELECT {exprs} FROM s WHERE _offset < 8")).await;
        let row = answer.lines().nth(3).expect("there is a row");
        let cells: Vec<&str> = row.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
        assert_eq!(cells, expected, "{exprs}");
    }
}
