//! Published truth: a day of Wikipedia's edits, with answers that others have published or computed.
//!
//! Runs where `BIFOLD_SAMPLE_DATA` names the folder of the sample; nothing of it lies in the repository.

use std::io::Read;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Case, Service};

const NAME: &str = "wikipedia-2015-09-12";

const PIPELINE: &str = r#"
CREATE TABLE w (
  time TIMESTAMP, channel TEXT, page TEXT, "user" TEXT, "countryIsoCode" TEXT,
  added BIGINT, deleted BIGINT, delta BIGINT,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = '{topic}', format = 'json');
CREATE MATERIALIZED VIEW edits AS SELECT count(*) AS n FROM w;
CREATE MATERIALIZED VIEW pages AS SELECT page, count(*) AS edits FROM w GROUP BY page;
CREATE MATERIALIZED VIEW hourly AS
  SELECT date_trunc('hour', time) AS h, count(*) AS n, sum(added) AS added, sum(deleted) AS deleted, sum(delta) AS delta,
         count(DISTINCT "user") AS users
  FROM w GROUP BY 1;
CREATE MATERIALIZED VIEW channels AS SELECT channel, sum(added) AS a, count(*) AS n FROM w GROUP BY channel;
CREATE MATERIALIZED VIEW country_hours AS
  SELECT "countryIsoCode", tumble(time, INTERVAL '1 hour') AS h, sum(delta) AS d FROM w GROUP BY 1, 2;
"#;

/// An answer: a view, how to ask for it, and the rows that it must give.
struct Answer {
    what: String,
    view: &'static str,
    /// Columns, in the order of `rows`.
    columns: Vec<&'static str>,
    filter: Option<(&'static str, &'static str)>,
    order: &'static [(&'static str, &'static str)],
    limit: usize,
    rows: Vec<Vec<Value>>,
}

impl Answer {
    fn sql(&self) -> String {
        let quoted = |name: &&str| format!("\"{name}\"");
        let columns: Vec<String> = self.columns.iter().map(quoted).collect();
        let filter = self.filter.map_or(String::new(), |(_, sql)| format!(" WHERE {sql}"));
        let order: Vec<String> = self.order.iter().map(|(column, how)| format!("\"{column}\" {how}")).collect();
        let order = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
        format!("SELECT {} FROM {}{filter}{order} LIMIT {}", columns.join(", "), self.view, self.limit)
    }

    fn path(&self) -> String {
        let order = |(column, how): &(&str, &str)| {
            if how.starts_with("DESC") { format!("-{column}") } else { (*column).to_string() }
        };
        let order: Vec<String> = self.order.iter().map(order).collect();
        let filter = self.filter.map_or(String::new(), |(path, _)| format!("&{path}"));
        let order = if order.is_empty() { String::new() } else { format!("&order_by={}", order.join(",")) };
        format!("/v1/views/{}/rows?limit={}{order}{filter}&at_least=latest&timeout_ms=60000", self.view, self.limit)
    }

    /// Asserts that the body of an answer holds exactly these rows.
    fn compare(&self, body: &Value, through: &str, ordered: bool) {
        let rows = body["rows"].as_array().unwrap_or_else(|| panic!("{through}: {}: {body}", self.what));
        let mut got: Vec<Vec<Value>> =
            rows.iter().map(|row| self.columns.iter().map(|column| row[column].clone()).collect()).collect();
        let mut want = self.rows.clone();
        if !ordered {
            got.sort_by_key(|row| json!(row).to_string());
            want.sort_by_key(|row| json!(row).to_string());
        }
        assert_eq!(got, want, "{through}: {}", self.what);
    }
}

/// The sample: its lines, and every answer that needs no session and no sliding window.
fn sample() -> Option<(Vec<String>, Vec<Answer>)> {
    let Some(folder) = std::env::var_os("BIFOLD_SAMPLE_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from)
    else {
        println!("truth: not run: BIFOLD_SAMPLE_DATA names no folder");
        return None;
    };
    let compressed = std::fs::File::open(folder.join(format!("{NAME}.ndjson.gz"))).expect("the sample");
    let mut text = String::new();
    flate2::read::GzDecoder::new(compressed).read_to_string(&mut text).expect("gzip");
    let answers = std::fs::read(folder.join(format!("{NAME}.answers.json"))).expect("the answers");
    let answers: Value = serde_json::from_slice(&answers).expect("JSON");
    Some((text.lines().map(str::to_string).collect(), all_answers(&answers)))
}

fn hour(i: usize) -> Value {
    json!(format!("2015-09-12T{i:02}:00:00Z"))
}

fn cells(rows: &Value) -> Vec<Vec<Value>> {
    let row = |row: &Value| row.as_array().expect("a row").clone();
    rows.as_array().expect("rows").iter().map(row).collect()
}

/// A computed answer's timestamps and counts of milliseconds, as the contract writes them.
fn as_instant(value: &Value) -> Value {
    match value.as_i64() {
        Some(ms) => hour(usize::try_from((ms - 1_442_016_000_000) / 3_600_000).expect("an hour of the day")),
        None => json!(format!("{}Z", value.as_str().expect("a timestamp"))),
    }
}

fn all_answers(file: &Value) -> Vec<Answer> {
    let mut answers = vec![];
    for published in file["published"].as_array().expect("published answers") {
        let what = published["what"].as_str().expect("what").to_string();
        let value = published["value"].as_array().expect("a value");
        let by_hour = |values: &[Value]| values.iter().enumerate().map(|(i, v)| vec![hour(i), v.clone()]).collect();
        let answer = |view, columns, order, limit, rows| Answer {
            what: format!("published: {what}"),
            view,
            columns,
            filter: None,
            order,
            limit,
            rows,
        };
        answers.push(match what.as_str() {
            "topN pages by edits" => answer(
                "pages",
                vec!["page", "edits"],
                &[("edits", "DESC"), ("page", "ASC")],
                value.len(),
                cells(&published["value"]),
            ),
            "SUM(deleted) per hour 00..23" => {
                answer("hourly", vec!["h", "deleted"], &[("h", "ASC")], 1000, by_hour(value))
            }
            "SUM(added) top 5 channels" => {
                answer("channels", vec!["channel", "a"], &[("a", "DESC")], value.len(), cells(&published["value"]))
            }
            "SUM(delta) per hour where countryIsoCode is null, then total" => {
                let (total, hours) = value.split_last().expect("a total");
                let sum: i64 = hours.iter().map(|v| v.as_i64().expect("a number")).sum();
                assert_eq!(sum, *total, "the published total is that of the published hours");
                let mut null = answer("country_hours", vec!["h", "d"], &[("h", "ASC")], 1000, by_hour(hours));
                null.filter = Some(("where.countryIsoCode.null=true", "\"countryIsoCode\" IS NULL"));
                null
            }
            other => panic!("a published answer that is not compared: {other}"),
        });
    }
    for query in file["queries"].as_array().expect("computed answers") {
        let name = query["name"].as_str().expect("a name");
        let mut rows = cells(&query["rows"]);
        assert_eq!(query["truncated"], false, "{name}");
        let answer = |view, columns, order, limit, rows| Answer {
            what: format!("computed: {name}"),
            view,
            columns,
            filter: None,
            order,
            limit,
            rows,
        };
        answers.push(match name {
            "count" => answer("edits", vec!["n"], &[], 1, rows),
            "top_pages" => {
                answer("pages", vec!["page", "edits"], &[("edits", "DESC"), ("page", "ASC")], rows.len(), rows)
            }
            "hourly" => {
                rows.iter_mut().for_each(|row| row[0] = as_instant(&row[0]));
                let columns = vec!["h", "n", "added", "deleted", "delta", "users"];
                answer("hourly", columns, &[("h", "ASC")], 1000, rows)
            }
            "channel_added" => {
                answer("channels", vec!["channel", "a", "n"], &[("a", "DESC"), ("channel", "ASC")], 1000, rows)
            }
            "country_hour_delta" => {
                rows.iter_mut().for_each(|row| row[1] = as_instant(&row[1]));
                let order = &[("countryIsoCode", "ASC NULLS FIRST"), ("h", "ASC")];
                answer("country_hours", vec!["countryIsoCode", "h", "d"], order, 1000, rows)
            }
            // They need session or sliding windows.
            "sessions30" | "gap_exactly_30m" | "sliding_5m_peak" => continue,
            other => panic!("a computed answer that is not compared: {other}"),
        });
    }
    answers
}

/// Asks for every answer in three ways. Gives how many were compared.
fn compare_all(case: &Case, up: &Service, answers: &[Answer], boundary: Boundary) -> usize {
    let mut compared = 0;
    for answer in answers {
        let reply = up.sql(&answer.sql(), Some("latest"));
        assert_eq!(reply.status, 200, "{}: {}", answer.what, reply.text);
        boundary.check(&reply.json(), &answer.what);
        answer.compare(&reply.json(), &format!("{boundary:?}, /v1/sql"), true);

        let reply = up.get(&answer.path());
        assert_eq!(reply.status, 200, "{}: {}", answer.what, reply.text);
        boundary.check(&reply.json(), &answer.what);
        // Where NULLs stand in an order is SQL's to say.
        let ordered = answer.order.iter().all(|(_, how)| !how.contains("NULLS"));
        answer.compare(&reply.json(), &format!("{boundary:?}, rows"), ordered);

        let sql = answer.sql();
        let ran = case.run(&["query", &sql, "--at-least", "latest", "--url", &up.url, "--output", "json"]);
        let body = ran.json().pop().expect("a body");
        boundary.check(&body, &answer.what);
        answer.compare(&body, &format!("{boundary:?}, bifold query"), true);
        compared += 3;
    }
    compared
}

#[derive(Clone, Copy, Debug)]
enum Boundary {
    NoBatch,
    Between,
    AtFrontier,
}

impl Boundary {
    /// Asserts that every partition's coverage is of this kind.
    fn check(self, body: &Value, what: &str) {
        let coverage = &body["coverage"][0];
        assert_eq!(body["coverage"].as_array().map(Vec::len), Some(1), "{what}");
        assert_eq!((&coverage["holes"], &coverage["pending_holes"]), (&json!([]), &json!([])), "{what}");
        let partitions = coverage["partitions"].as_array().expect("partitions");
        assert!(partitions.len() >= 3, "{what}: {coverage}");
        let mut events = 0;
        for partition in partitions {
            let at = |layer: &str, i: usize| partition[layer][i].as_i64().expect("a position");
            let (origin, b, also_b, f) = (at("batch", 0), at("batch", 1), at("speed", 0), at("speed", 1));
            assert_eq!((origin, b), (0, also_b), "{what}: {coverage}");
            let right = match self {
                Boundary::NoBatch => b == 0 && f > 0,
                Boundary::Between => 0 < b && b < f,
                Boundary::AtFrontier => 0 < b && b == f,
            };
            assert!(right, "{what}: not {self:?}: {coverage}");
            events += f;
        }
        assert_eq!(events, 39_244, "{what}: {coverage}");
    }
}

/// Produces lines as a user does, keyed by channel: every partition of the topic gets some.
fn produce(case: &Case, url: &str, lines: &[String]) {
    let arguments = ["produce", "w", "--key", "channel", "--create-topic", "4", "--url", url, "--output", "json"];
    let ran = case.run_with(&arguments, &[], lines.join("\n").as_bytes());
    assert_eq!(ran.json().pop().expect("a last line")["records"], lines.len());
}

fn batch(case: &Case, up: &Service, view: Option<&str>) -> Vec<Value> {
    let mut arguments = vec!["batch", "run", "--at-least", "latest", "--url", &up.url, "--output", "json"];
    arguments.extend(view.iter().flat_map(|view| ["--view", view]));
    case.run(&arguments).json()
}

#[test]
fn truth_without_a_batch_view_and_with_one_up_to_the_end() {
    let Some((lines, answers)) = sample() else { return };
    let case = Case::new(PIPELINE);
    produce(&case, crate::events::NOBODY, &lines);
    let up = case.start("up");
    let mut compared = compare_all(&case, &up, &answers, Boundary::NoBatch);
    for report in batch(&case, &up, None) {
        assert_eq!((&report["mode"], &report["rows_read"]), (&json!("full"), &json!(39_244)), "{report}");
    }
    compared += compare_all(&case, &up, &answers, Boundary::AtFrontier);
    for report in case.run(&["verify", "--url", &up.url, "--output", "json"]).json() {
        assert_eq!(report["equal"], true, "{report}");
    }
    println!("truth: {compared} answers compared");
}

#[test]
fn truth_with_batch_runs_in_the_middle() {
    let Some((lines, answers)) = sample() else { return };
    let case = Case::new(PIPELINE);
    let up = {
        produce(&case, crate::events::NOBODY, &lines[..10_000]);
        case.start("up")
    };
    batch(&case, &up, None);
    produce(&case, &up.url, &lines[10_000..25_000]);
    for report in batch(&case, &up, None) {
        assert_eq!((&report["mode"], &report["rows_read"]), (&json!("incremental"), &json!(15_000)), "{report}");
    }
    produce(&case, &up.url, &lines[25_000..]);
    let mut compared = compare_all(&case, &up, &answers, Boundary::Between);
    let mut up = up;
    up.kill();
    let up = case.start("up");
    compared += compare_all(&case, &up, &answers, Boundary::Between);
    batch(&case, &up, None);
    compared += compare_all(&case, &up, &answers, Boundary::AtFrontier);
    for report in case.run(&["verify", "--url", &up.url, "--output", "json"]).json() {
        assert_eq!(report["equal"], true, "{report}");
    }
    println!("truth: {compared} answers compared");
}
