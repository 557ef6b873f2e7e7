//! What the property test cannot say.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bifold_fold::states::Input;
use bifold_fold::{Engine, Error, PipelineError, View, delta};
use bifold_tests::rows::{Cell, Rows};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;

use super::log::Record;
use super::pieces::decode;
use super::views::{compile, compiled};

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
            states.extend(input.fold(&[rows]).await.expect("it folds"));
        }
        let rows = decode(&view.source, &log.iter().collect::<Vec<_>>(), |_| true);
        Ok(Self { engine, view, states, rows })
    }

    async fn finish(&self) -> Result<Rows, Error> {
        Ok(Rows::of(&self.view.finish(&self.engine, self.states.clone()).await?))
    }

    /// What `verify` compares answers with.
    async fn verifying(&self) -> Result<Rows, Error> {
        let table = MemTable::try_new(self.rows.schema(), vec![vec![self.rows.clone()]])?;
        Ok(Rows::of(&self.view.plain(&self.engine, Arc::new(table)).await?))
    }

    /// What plain DataFusion says of the same SELECT.
    async fn plain(&self) -> datafusion::error::Result<Rows> {
        let context = SessionContext::new();
        let table = MemTable::try_new(self.rows.schema(), vec![vec![self.rows.clone()]])?;
        context.register_table("events", Arc::new(table))?;
        Ok(Rows::of(&context.sql(&self.view.sql).await?.collect().await?))
    }
}

/// Events that sum up beyond 64 bits on the way, and what they sum up to in the end.
const THERE_AND_BACK: [&str; 5] = [
    r#""channel":"x","n":9223372036854775807"#,
    r#""channel":"x","n":9223372036854775807"#,
    r#""channel":"x","n":-9223372036854775808"#,
    r#""channel":"x","n":-9223372036854775807"#,
    r#""channel":"x","n":5"#,
];

#[tokio::test]
async fn sum_beyond_its_type_is_an_error_that_names_its_place() {
    let mut events = THERE_AND_BACK[..2].to_vec();
    events.push(r#""channel":"y","n":1"#);
    for (select, column, group) in [
        ("SELECT channel, sum(n) AS total FROM events GROUP BY channel", "total", "(channel = x)"),
        ("SELECT sum(n) AS total FROM events", "total", "()"),
        (
            "SELECT channel, sum(n) / 4 AS quarter FROM events GROUP BY channel HAVING count(*) > 9",
            "quarter",
            "(channel = x)",
        ),
    ] {
        let folded = Folded::new(select, &log_of(&events)).await.unwrap();
        match folded.finish().await {
            Err(Error::Overflow { view, column: named, ty, group: of }) => {
                assert_eq!((view.as_str(), named.as_str(), ty.as_str(), of.as_str()), ("v", column, "BIGINT", group));
            }
            other => panic!("{select}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn sum_that_comes_back_into_its_type_is_right() {
    let select = "SELECT channel, sum(n) AS total, sum(DISTINCT n) AS once FROM events GROUP BY channel";
    let mut events = THERE_AND_BACK.to_vec();
    for _ in 0..events.len() {
        events.rotate_left(1);
        let mut folded = Folded::new(select, &log_of(&events)).await.unwrap();
        let whole = [Cell::Text("x".to_string()), Cell::Integer(4), Cell::Integer(-9_223_372_036_854_775_803)];
        assert_eq!(folded.finish().await.unwrap().rows[..], std::slice::from_ref(&whole)[..]);
        // Reduced on the way, in two halves: what overflows there is no error yet.
        let rest = folded.states.split_off(2);
        let mut reduced = folded.view.reduce(&folded.engine, folded.states.clone()).await.unwrap();
        reduced.extend(folded.view.reduce(&folded.engine, rest).await.unwrap());
        folded.states = reduced;
        assert_eq!(folded.finish().await.unwrap().rows, [whole]);
    }
}

#[tokio::test]
async fn wide_decimals_sum_up_without_wrapping() {
    // Near the ends of DECIMAL(38,4): three of them do not fit 128 bits.
    let most = "9999999999999999999999999999999999.9999";
    let event = |big: &str| format!(r#""channel":"x","big":{big}"#);
    let least = format!("-{most}");
    let select = "SELECT channel, sum(big) AS total, max(big) AS most FROM events GROUP BY channel";
    let log = log_of([event(most), event(most), event(&least), event(&least), event("0.5"), event("-0.25")]);
    let folded = Folded::new(select, &log).await.unwrap();
    let text = |text: &str| Cell::Text(text.to_string());
    assert_eq!(folded.finish().await.unwrap().rows, [[text("x"), text("0.2500"), text(most)]]);
    for many in [2, 3, 5] {
        let folded = Folded::new(select, &log_of(vec![event(most); many])).await.unwrap();
        match folded.finish().await {
            Err(Error::Overflow { view, column, ty, group }) => {
                assert_eq!((view.as_str(), column.as_str()), ("v", "total"));
                assert_eq!((ty.as_str(), group.as_str()), ("DECIMAL(38, 4)", "(channel = x)"));
            }
            other => panic!("{many}: {other:?}"),
        }
    }
    // A mean is in range whatever its sum was.
    let log = log_of([event("99999999999999999999.0001"), event("99999999999999999999.0003")]);
    let folded = Folded::new("SELECT avg(big) AS mean FROM events", &log).await.unwrap();
    assert_eq!(folded.finish().await.unwrap().rows, [[text("99999999999999999999.00020000")]]);
}

#[tokio::test]
async fn condition_that_is_never_true_lets_nothing_through() {
    for condition in ["false", "NULL", "n > 5 AND n < 3", "1 = 2"] {
        let select = format!("SELECT count(*) AS events, sum(n) AS total FROM events WHERE {condition}");
        let mut folded = Folded::new(&select, &log_of([r#""n":1"#, r#""n":4"#])).await.unwrap();
        assert_eq!(folded.finish().await.unwrap().rows, [[Cell::Integer(0), Cell::Null]], "{condition}");
        // Rows decoded for other views have more columns.
        let input = Input::new(&folded.engine, Arc::clone(&folded.view)).await.unwrap();
        folded.states = input.fold(std::slice::from_ref(&folded.rows)).await.unwrap();
        assert_eq!(folded.finish().await.unwrap().rows, [[Cell::Integer(0), Cell::Null]], "{condition}");
    }
}

#[tokio::test]
async fn event_of_any_time_stands_in_its_own_window() {
    let times = ["2015-01-01T00:00:59Z", "2262-04-12T01:02:03Z", "9999-12-31T23:59:59.999999Z"];
    let log: Vec<Record> = times
        .into_iter()
        .enumerate()
        .map(|(offset, time)| {
            let value = format!("{{\"time\":\"{time}\"}}").into_bytes();
            Record { partition: 0, offset: offset as i64, timestamp_ms: -1, value, events: 1, dead: 0 }
        })
        .collect();
    for (window, begins) in [
        ("tumble(time, INTERVAL '1 hour')", ["2015-01-01T00:00", "2262-04-12T01:00", "9999-12-31T23:00"]),
        ("date_bin(INTERVAL '12 hours', time)", ["2015-01-01T00:00", "2262-04-12T00:00", "9999-12-31T12:00"]),
        ("date_trunc('week', time)", ["2014-12-29T00:00", "2262-04-07T00:00", "9999-12-27T00:00"]),
        ("date_trunc('MONTH', time)", ["2015-01-01T00:00", "2262-04-01T00:00", "9999-12-01T00:00"]),
    ] {
        let select = format!("SELECT {window} AS w, count(*) AS events FROM events GROUP BY 1");
        let folded = Folded::new(&select, &log).await.unwrap();
        let rows = begins.map(|begin| vec![Cell::Text(format!("{begin}:00")), Cell::Integer(1)]);
        assert_eq!(folded.finish().await.unwrap().rows, rows, "{window}");
        assert_eq!(folded.verifying().await.unwrap().rows, rows, "{window}");
    }
}

/// Views that DataFusion's planner makes something else of, or that once were folded wrongly.
#[tokio::test]
async fn unusual_calls_are_what_plain_sql_says() {
    let log = log_of([
        r#""n":1,"small":2,"price":0.5,"weight":1.5,"page":"a","channel":"x","tags":["p","q"],"geo":{"city":"c"}"#,
        r#""n":2,"small":0,"price":1.5,"weight":2.5,"page":"b","channel":"x","tags":["q"]"#,
        r#""n":9,"small":3,"price":0.25,"weight":2.5,"page":"12","channel":"x","geo":{"city":null}"#,
        r#""n":4,"small":3,"price":-0.0,"weight":2.75,"page":"12","channel":"y""#,
        r#""n":4,"small":3,"price":0.0,"weight":2.75,"page":"12","channel":"y","ok":true"#,
        r#""n":4,"small":3,"page":"a","ok":false"#,
    ]);
    for select in [
        "SELECT sum(small + 1), sum(small + 2) FROM events",
        "SELECT channel, sum(n - 1), sum(n - 2), avg(n - 2) FROM events GROUP BY channel",
        "SELECT percentile_cont(0.0) WITHIN GROUP (ORDER BY small), percentile_cont(1.0) WITHIN GROUP (ORDER BY n) FROM events",
        "SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY small DESC), quantile_cont(small, 0.25) FROM events",
        "SELECT array_agg(page ORDER BY _offset), array_agg(page ORDER BY time DESC, _topic DESC, _partition DESC, \
         _offset DESC, _index DESC) FROM events",
        "SELECT string_agg(page, '|' ORDER BY _offset, e._offset), string_agg(channel, '|' ORDER BY e._offset DESC, \
         _topic DESC, _partition DESC, _index DESC) FROM events e",
        "SELECT first_value(page ORDER BY e._offset DESC, _index), last_value(n ORDER BY _offset) FROM events e",
        "SELECT first_value(ok ORDER BY time) IGNORE NULLS, first_value(ok ORDER BY time) FROM events",
        "SELECT first_value(page ORDER BY time) FILTER (WHERE small = 3) FROM events",
        "SELECT string_agg(DISTINCT page, '|' ORDER BY page), array_agg(DISTINCT page ORDER BY page) FROM events",
        "SELECT sum(n ORDER BY time), mean(n), count(*) FILTER (WHERE ok) FROM events",
        "SELECT unnest(tags) AS tag, count(*), sum(n) FROM events GROUP BY 1",
        "SELECT geo, tags, count(*) FROM events GROUP BY geo, tags",
        "SELECT min(geo), first_value(geo ORDER BY time), array_agg(geo ORDER BY time), count(DISTINCT geo) FROM events",
        "SELECT array_agg(tags ORDER BY time), min(tags), count(DISTINCT tags) FROM events",
        "SELECT price, count(*) FROM events GROUP BY price",
        "SELECT price, ok, count(*) FROM events GROUP BY price, ok",
        "SELECT channel, grouping(channel), count(*) FROM events GROUP BY channel",
        "SELECT count(*) FROM events GROUP BY channel, page HAVING max(n) > 1",
        "SELECT sum(n) FROM events HAVING count(*) > 0",
        "SELECT coalesce(sum(n), -1), count(*) + 1, CASE WHEN max(page) IS NULL THEN 'none' END FROM events",
        "SELECT 7 AS seven FROM events HAVING max(n) > 1",
        "SELECT channel, avg(DISTINCT small), median(DISTINCT small), avg(DISTINCT cost) FROM events GROUP BY channel",
        "SELECT date_part('epoch', time) AS t, count(*), arrow_typeof(channel) AS ty FROM events GROUP BY 1, 3",
        "SELECT approx_percentile_cont_with_weight(small, 0.5) WITHIN GROUP (ORDER BY price), approx_median(n) FROM events",
        "SELECT regr_slope(weight, price), regr_r2(weight, price), regr_intercept(weight, price), regr_avgx(weight, price), \
         regr_sxy(weight, price), covar_samp(weight, price), corr(weight, price), var_samp(price) FROM events",
    ] {
        for log in [&log[..], &[]] {
            let folded = Folded::new(select, log).await.unwrap_or_else(|e| panic!("{e}"));
            let ours = folded.finish().await.unwrap();
            for plain in [folded.plain().await.unwrap(), folded.verifying().await.unwrap()] {
                if let Some(why) = ours.difference(&plain, |_, a, b| a.is_like(b)) {
                    panic!("{select}, {} records: {why}", log.len());
                }
            }
        }
    }
}

#[tokio::test]
async fn what_no_merge_keeps_is_refused_when_the_view_is_made() {
    for (select, word) in [
        ("SELECT nth_value(page, 2 ORDER BY time) FROM events", "nth_value"),
        ("SELECT (array_agg(page ORDER BY time))[2] FROM events", "array_element"),
        ("SELECT any_value(page) FROM events", "any_value"),
        ("SELECT array_agg(page) FROM events", "ORDER BY"),
        ("SELECT first_value(page) FROM events", "ORDER BY"),
        ("SELECT count(DISTINCT page, channel) FROM events", "multiple arguments"),
        ("SELECT stddev(DISTINCT small) FROM events", "DISTINCT"),
        ("SELECT string_agg(page, channel ORDER BY time) FROM events", "literal"),
        ("SELECT approx_percentile_cont(2) WITHIN GROUP (ORDER BY small) FROM events", "between 0.0 and 1.0"),
        ("SELECT sum(time - TIMESTAMP '2015-09-12') FROM events", "span of time"),
        ("SELECT avg(time - TIMESTAMP '2015-09-12') FROM events", "span of time"),
        ("SELECT unnest(tags) AS tag, array_agg(page ORDER BY time) FROM events GROUP BY 1", "unnested"),
        ("SELECT now() AS t, count(*) FROM events GROUP BY 1", "now"),
        ("SELECT count(*) FILTER (WHERE random() < 0.5) FROM events", "random"),
        ("SELECT count(*) FROM events HAVING current_date() > '2020-01-01'", "current_date"),
    ] {
        match compile(&Engine::new(), select).await {
            Err(refused) => assert!(refused.to_string().contains(word), "{refused}"),
            Ok(view) => panic!("{select}: it compiles to {:?}", view.state_ids),
        }
    }
}

#[tokio::test]
async fn texts_are_the_same_whatever_makes_them() {
    let select = r#"SELECT substr(page, 1) AS a, upper(lower(page)) AS b, approx_distinct("user") AS u0,
        approx_distinct(substr("user", 1)) AS u1, approx_distinct(reverse(reverse("user"))) AS u2,
        approx_distinct(CASE WHEN n >= 0 THEN "user" || '' END) AS u3, count(DISTINCT substr("user", 1)) AS u4,
        min(substr(page, 1)) AS c, array_agg(substr(page, 1) ORDER BY substr(page, 1), time) AS d
        FROM events GROUP BY substr(page, 1), upper(lower(page))"#;
    // On both sides of 12 bytes, where views of texts change their layout.
    let event = |i: usize| {
        format!(r#""page":"{}","n":{i},"user":"user number {i}""#, ["A", "PAGE TWELVE!", "PAGE THIRTEEN"][i % 3])
    };
    let folded = Folded::new(select, &log_of((0..120).map(event))).await.unwrap();
    for field in folded.view.stored.fields() {
        let ty = field.data_type().to_string();
        assert!(!ty.contains("View") && !ty.contains("Dictionary") && !ty.contains("Large"), "{field}");
    }
    for row in folded.finish().await.unwrap().rows {
        assert_eq!(row[0], row[1]);
        assert_eq!(row[0], row[7]);
        assert_eq!(row[2..7], vec![Cell::Integer(40); 5], "{row:?}");
        assert_eq!(row[8], Cell::List(vec![row[0].clone(); 40]));
    }
}

#[tokio::test]
async fn large_sets_count_alike_however_they_are_cut() {
    let select = r#"SELECT channel, approx_distinct("user") AS users, approx_distinct(n) AS numbers,
        count(DISTINCT "user") AS exact FROM events GROUP BY channel"#;
    const EVENTS: usize = 30_000;
    let event = |i: usize| {
        let channel = ["x", "y", "z"][usize::from(i % 10 > 1) + usize::from(i % 10 > 5)];
        format!(r#""channel":"{channel}","user":"u{}","n":{}"#, i * 7919 % 24_000, i * 7919 % 24_000)
    };
    let log = log_of((0..EVENTS).map(event));
    let whole = Folded::new(select, &[]).await.unwrap();
    let input = Input::new(&whole.engine, Arc::clone(&whole.view)).await.unwrap();
    let mut answers = vec![];
    for pieces in [1, 2, 7, 60] {
        let mut states = vec![];
        // Pieces overlap in the values they hold, and come in another order than they were cut.
        for piece in (0..pieces).rev() {
            let records: Vec<&Record> = log.iter().skip(piece).step_by(pieces).collect();
            states.extend(input.fold(&[decode(&whole.view.source, &records, |_| true)]).await.unwrap());
        }
        answers.push(Rows::of(&whole.view.finish(&whole.engine, states).await.unwrap()));
    }
    // Hashes, registers and estimator: sketches of old count on as they did. A change is one of the state's id, too.
    // The numbers are also those of the DataSketches C++ library for the union of two halves (Python's datasketches).
    let numbers = r#"[["x",4743,4836,4800],["y",9474,9743,9600],["z",9569,9778,9600]]"#;
    assert_eq!(answers[0].json().to_string(), numbers);
    for answer in &answers {
        assert_eq!(answer, &answers[0], "the same set gives the same number, bit for bit");
        for row in &answer.rows {
            let [users, numbers, exact] = [1, 2, 3].map(|i| row[i].number().unwrap());
            assert!((users - exact).abs() <= 0.05 * exact && (numbers - exact).abs() <= 0.05 * exact, "{row:?}");
        }
    }
}

#[tokio::test]
async fn correlation_keeps_its_digits() {
    // A large mean, a small spread: sums of products would leave five digits, or nothing.
    let event = |i: i32| {
        format!(r#""n":{},"price":{},"weight":{},"wild":0.1,"ok":true"#, i, 1e7 + f64::from(i * 31 % 17), i * 7 % 23)
    };
    let select = "SELECT ok, corr(price, weight) AS shifted, corr(price - 1e7, weight) AS centred, corr(wild, weight) AS constant, \
                  corr(wild * 3, wild) AS both FROM events GROUP BY ok";
    let folded = Folded::new(select, &log_of((0..200).map(event))).await.unwrap();
    let rows = folded.finish().await.unwrap().rows;
    let (shifted, centred) = (rows[0][1].number().unwrap(), rows[0][2].number().unwrap());
    assert!((shifted - centred).abs() < 1e-8, "{shifted} is not {centred}");
    // What does not vary has no correlation, in however many pieces its mean was rounded.
    assert_eq!(rows[0][3..], [Cell::Null, Cell::Null]);
}

#[tokio::test]
async fn states_of_another_view_are_refused() {
    let log = log_of([r#""n":1,"page":"a","channel":"7""#]);
    let by_page = Folded::new("SELECT page, sum(n) AS total FROM events GROUP BY page", &log).await.unwrap();
    for other in
        ["SELECT n, sum(n) AS total FROM events GROUP BY n", "SELECT page, channel, sum(n) FROM events GROUP BY 1, 2"]
    {
        let other = Folded::new(other, &log).await.unwrap();
        let finished = by_page.view.finish(&by_page.engine, other.states.clone()).await;
        assert!(matches!(&finished, Err(Error::States { view, .. }) if view == "v"), "{finished:?}");
        let reduced = by_page.view.reduce(&by_page.engine, other.states).await;
        assert!(matches!(reduced, Err(Error::States { .. })));
    }
}

#[tokio::test]
async fn damaged_delta_is_an_error() {
    let folded =
        Folded::new("SELECT page, sum(n) AS total FROM events GROUP BY page", &log_of([r#""n":1"#])).await.unwrap();
    let version = folded.view.version.clone();
    let file = delta::write(&[(version.clone(), Arc::clone(&folded.view.stored), folded.states.clone())]).unwrap();
    assert_eq!(delta::read(&file, &version).unwrap(), folded.states);
    for end in 0..file.len() {
        assert!(delta::read(&file[..end], &version).is_err(), "cut at {end}");
    }
    // Inside a section the file's checksum, which the ledger holds, is what tells. Around the sections the file does.
    let index = file.windows(2).rposition(|bytes| bytes == b"[{").expect("the index is JSON");
    for at in (0..8).chain(index..file.len()) {
        let mut damaged = file.to_vec();
        damaged[at] ^= 0x55;
        assert!(delta::read(&damaged, &version).is_err(), "byte {at}");
    }
    let missing = delta::read(&file, &bifold_ledger::VersionId("0123456789abcdef".to_string()));
    assert!(matches!(missing, Err(delta::DeltaError::Missing(_))), "{missing:?}");
}

#[tokio::test]
async fn version_compiled_from_the_ledger_is_the_same_version() {
    let engine = Engine::new();
    for view in compiled(&engine).await {
        let source = serde_json::to_value(&*view.source).unwrap();
        let stored =
            bifold_fold::view::Stored { name: &view.name, sql: &view.sql, source: &source, dialect: view.dialect };
        let stored = bifold_fold::view::compile_stored(&engine, stored).await;
        let stored = stored.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((&stored.version, &stored.stored), (&view.version, &view.stored), "{}", view.name);
    }
}
