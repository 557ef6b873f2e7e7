//! The views that are held to the law. Each is written once; what dialects say differently stands in braces:
//!
//! | here | bifold | plain DataFusion | DuckDB |
//! |---|---|---|---|
//! | `{tumble 1 minute}` | `tumble(time, INTERVAL '1 minute')` | `date_bin(INTERVAL '1 minute', time)` | `time_bucket(…)` |
//! | `{bin 5 minutes}` | `date_bin(INTERVAL '5 minutes', time)` | the same | `time_bucket(…)` |
//! | `{ties}` | nothing: bifold adds it | `, _topic, _partition, _offset, _index` | the same |
//! | `{distinct x}` | `approx_distinct(x)` | `count(DISTINCT x)` | `count(DISTINCT x)` |
//! | `{first}`, `{last}` | `first_value`, `last_value` | the same | `first`, `last` |
//! | `{quantile 0.5 x}` | `approx_percentile_cont(0.5) WITHIN GROUP (ORDER BY x)` | all values of x, in order | the same |

use std::sync::Arc;

use bifold_fold::{Engine, Pipeline, View, pipeline};

use super::log::{MAX_RECORD, SOURCE};

/// Who reads a view's SQL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Bifold,
    DataFusion,
    DuckDb,
}

/// How a column's merged value compares with the plain one.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Held {
    /// Equal; doubles within rounding.
    Exact,
    /// A number of distinct values: bit for bit as in one fold, and within 5 % of the exact one.
    Distinct,
    /// A quantile from a sketch: its rank is near enough.
    Quantile(f64),
}

/// A view in all dialects.
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) template: &'static str,
    /// Whether DuckDB says it alike.
    pub(super) duckdb: bool,
}

/// Every view here. All rows start with their keys.
pub(super) const VIEWS: [Subject; 14] = [
    Subject {
        name: "by_minute",
        template: r#"SELECT {tumble 1 minute} AS minute, channel, count(*) AS events, count(n) AS counted,
            sum(n) AS total, sum(small) AS small_total, avg(small) AS mean, min(n) AS least, max(page) AS last_page,
            stddev(price) AS spread, {distinct "user"} AS editors, max(time) AS latest
            FROM events GROUP BY 1, 2"#,
        duckdb: true,
    },
    Subject {
        name: "by_hour",
        template: r#"SELECT date_trunc('hour', time) AS hour, ok, corr(price, weight) AS r,
            covar_pop(price, weight) AS together, bool_and(n > -40) AS high, bool_or(n > 40) AS any_high,
            count(*) FILTER (WHERE small > 2) AS some_small, sum(n) FILTER (WHERE page <> 'a') AS not_a,
            count(DISTINCT "user") AS users, sum(DISTINCT n) AS distinct_total, median(price) AS middle,
            var_pop(weight) AS variance, regr_count(weight, price) AS pairs, bit_xor(n) AS bits
            FROM events GROUP BY date_trunc('hour', time), ok HAVING count(*) > 1"#,
        duckdb: true,
    },
    Subject {
        name: "in_order",
        template: r#"SELECT {bin 5 minutes} AS five, channel, {first}(page ORDER BY time{ties}) AS first_page,
            {last}(n ORDER BY time{ties}) AS last_n, array_agg(page ORDER BY time{ties}) AS pages,
            string_agg(page, '|' ORDER BY time{ties}) AS joined, array_agg(n ORDER BY small{ties}) AS by_small,
            {first}(n ORDER BY price, channel{ties}) AS cheapest, array_agg(DISTINCT page ORDER BY page) AS different
            FROM events WHERE n IS NULL OR n <> 3 GROUP BY 1, 2"#,
        duckdb: true,
    },
    Subject {
        name: "nth",
        template: r#"SELECT channel, array_element(array_agg(page ORDER BY time{ties}), 2) AS second,
            array_element(array_agg(n ORDER BY time DESC, price{ties}), 1) AS latest, count(*) AS events
            FROM events GROUP BY channel"#,
        duckdb: false,
    },
    Subject {
        name: "decimals",
        template: r#"SELECT page, sum(cost) AS total, min(cost) AS least, max(cost) AS most, sum(big) AS bigs,
            sum(DISTINCT cost) AS distinct_total, count(DISTINCT cost) AS costs, max(big) AS biggest,
            {distinct cost} AS about
            FROM events WHERE ok OR ok IS NULL GROUP BY page HAVING count(cost) > 0"#,
        duckdb: true,
    },
    Subject {
        name: "decimal_means",
        template: "SELECT page, avg(cost) AS mean, avg(big) AS big_mean, median(cost) AS middle FROM events GROUP BY page",
        duckdb: false,
    },
    Subject {
        name: "everything",
        template: r#"SELECT count(*) AS events, sum(n) AS total, avg(price) AS mean, min(page) AS first_page,
            max(time) AS latest, bool_or(ok) AS any_ok, count(DISTINCT page) AS pages, {distinct "user"} AS users,
            array_agg(page ORDER BY time{ties}) AS in_order, median(n) AS middle, sum(cost) AS costs,
            stddev_pop(wild) AS spread, sum(n) FILTER (WHERE channel = 'nowhere') AS nothing
            FROM events"#,
        duckdb: true,
    },
    Subject {
        name: "texts",
        template: r#"SELECT upper(page) AS u, substr(channel, 1, 4) AS s, count(*) AS events, max(lower(page)) AS low,
            count(DISTINCT substr(page, 2)) AS tails, {distinct upper(page)} AS uppers,
            {distinct substr("user", 1)} AS users, min(channel || '/' || page) AS path,
            {first}(substr(page, 1, 3) ORDER BY time{ties}) AS head
            FROM events GROUP BY upper(page), substr(channel, 1, 4)"#,
        duckdb: true,
    },
    Subject {
        name: "odd_keys",
        template: r#"SELECT price, n % 3 AS rest, CASE WHEN small > 0 THEN 'up' WHEN small < 0 THEN 'down' END AS way,
            count(*) AS events, sum(cost) AS costs FROM events GROUP BY price, n % 3, 3"#,
        duckdb: true,
    },
    Subject { name: "only_keys", template: "SELECT channel, ok FROM events GROUP BY channel, ok", duckdb: true },
    Subject {
        name: "projected",
        template: r#"SELECT {tumble 1 hour} AS hour, sum(n) * 100 + count(*) AS mixed, coalesce(max(small), -1) AS most,
            CASE WHEN count(*) > 2 THEN 'many' ELSE 'few' END AS size, sum(n) - min(n) AS above,
            CAST(sum(small) AS DOUBLE) / count(*) AS share, count(*) + 1 AS one_more
            FROM events e WHERE channel IS NOT NULL AND price > 0.5
            GROUP BY {tumble 1 hour} HAVING max(n) > 0 OR count(*) > 3"#,
        duckdb: true,
    },
    Subject {
        name: "by_log",
        template: r#"SELECT _topic, _partition, count(*) AS events, max(_offset) AS newest, max(_index) AS most,
            max(_timestamp) AS latest, count(_timestamp) AS timed FROM events GROUP BY 1, 2"#,
        duckdb: true,
    },
    Subject {
        name: "nested",
        template: r#"SELECT geo['city'] AS city, cardinality(tags) AS many, count(*) AS events, max(tags[1]) AS first_tag,
            sum(cardinality(tags)) AS all_tags, {first}(extra ORDER BY time{ties}) AS raw
            FROM events GROUP BY geo['city'], cardinality(tags)"#,
        duckdb: false,
    },
    Subject {
        name: "quantiles",
        template: r#"SELECT channel, {quantile 0.5 price} AS q0_5, {quantile 0.9 wild} AS q0_9, {quantile 0.25 n} AS q0_25,
            percentile_cont(0.25) WITHIN GROUP (ORDER BY price) AS exact, count(*) AS events FROM events GROUP BY channel"#,
        duckdb: false,
    },
];

impl Subject {
    /// Its SELECT.
    pub(super) fn select(&self, dialect: Dialect) -> String {
        translated(self.template, dialect)
    }

    /// How the columns of its rows compare, by their names in SQL.
    pub(super) fn held(&self, column: &str) -> Held {
        if let Some(percent) = column.strip_prefix('q').and_then(|q| q.replace('_', ".").parse().ok()) {
            return Held::Quantile(percent);
        }
        let template = self.template;
        let distinct = template.match_indices("{distinct ").any(|(at, _)| {
            let named = template[at..].split_once("} AS ").expect("it has a name").1;
            named.split([',', ' ', '\n']).next() == Some(column)
        });
        if distinct { Held::Distinct } else { Held::Exact }
    }
}

/// `template` with what stands in braces as `dialect` says it.
fn translated(template: &str, dialect: Dialect) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, after) = after.split_once('}').expect("braces come in pairs");
        let (word, argument) = inside.split_once(' ').unwrap_or((inside, ""));
        text.push_str(before);
        text.push_str(&said(word, argument, dialect));
        rest = after;
    }
    text + rest
}

fn said(word: &str, argument: &str, dialect: Dialect) -> String {
    use Dialect::{Bifold, DataFusion, DuckDb};
    match (word, dialect) {
        ("tumble", Bifold) => format!("tumble(time, INTERVAL '{argument}')"),
        ("tumble" | "bin", DuckDb) => format!("time_bucket(INTERVAL '{argument}', time, TIMESTAMP '1970-01-01')"),
        ("tumble" | "bin", _) => format!("date_bin(INTERVAL '{argument}', time)"),
        ("ties", Bifold) => String::new(),
        ("ties", _) => ", _topic, _partition, _offset, _index".to_string(),
        ("distinct", Bifold) => format!("approx_distinct({argument})"),
        ("distinct", _) => format!("count(DISTINCT {argument})"),
        ("first" | "last", DuckDb) => word.to_string(),
        ("first" | "last", _) => format!("{word}_value"),
        ("quantile", _) => {
            let (percent, column) = argument.split_once(' ').expect("a quantile of a column");
            match dialect {
                Bifold => format!("approx_percentile_cont({percent}) WITHIN GROUP (ORDER BY {column})"),
                DataFusion | DuckDb => {
                    format!("array_agg({column} ORDER BY {column}) FILTER (WHERE {column} IS NOT NULL)")
                }
            }
        }
        _ => panic!("no dialect knows {word:?}"),
    }
}

/// The pipeline of `views` (name, SELECT) over [`SOURCE`].
pub(super) fn pipeline_of<'a>(views: impl IntoIterator<Item = (&'a str, String)>) -> Pipeline {
    let views = views.into_iter().map(|(name, select)| format!("CREATE MATERIALIZED VIEW {name} AS {select};\n"));
    let text = SOURCE.to_string() + &views.collect::<String>();
    pipeline::parse("law.sql", &text, MAX_RECORD).unwrap_or_else(|e| panic!("{e}"))
}

/// All of [`VIEWS`], compiled.
pub(super) async fn compiled(engine: &Engine) -> Vec<Arc<View>> {
    let pipeline = pipeline_of(VIEWS.iter().map(|view| (view.name, view.select(Dialect::Bifold))));
    bifold_fold::view::compile_all(engine, &pipeline).await.unwrap_or_else(|e| panic!("{e}"))
}

/// One view over [`SOURCE`], compiled.
pub(super) async fn compile(engine: &Engine, select: &str) -> Result<Arc<View>, bifold_fold::PipelineError> {
    let pipeline = pipeline_of([("v", select.to_string())]);
    bifold_fold::view::compile(engine, &pipeline, &pipeline.views[0]).await
}
