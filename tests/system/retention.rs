//! What is too old leaves: groups of a view with `retention`, files of an archive with `archive_retention`. Everything that counted
//! goes on counting, and all layers still agree.

use serde_json::{Value, json};

use crate::events::{batch, verify, verify_offline};
use crate::harness::{Case, Service, files_below};
use crate::left_out::audit;
use crate::restart::assert_reached;

/// Failpoints that removing passes.
pub(crate) const POINTS: [&str; 2] = ["expire.bases_written", "expire.expired"];

/// Small files, which are deleted soon; compaction would join them.
const EAGER: [(&str, &str); 3] = [
    ("BIFOLD_COLLECT__FLUSH_INTERVAL", "100ms"),
    ("BIFOLD_STORE__ORPHAN_GRACE", "6s"),
    ("BIFOLD_BATCH__SCHEDULE", "off"),
];

fn pipeline(more: &str, dedup: &str) -> String {
    format!(
        "CREATE TABLE e (t TIMESTAMP, id TEXT, n BIGINT, WATERMARK FOR t AS t - INTERVAL '12 hours') WITH (connector = 'kafka', \
         topic = '{{topic}}', format = 'json', archive_retention = '10 days', event_time_max_ahead = '1 day'{dedup}); \
         CREATE MATERIALIZED VIEW by_day WITH (retention = '5 days') AS \
         SELECT tumble(t, INTERVAL '1 day') AS day, count(*) AS c, sum(n) AS s FROM e GROUP BY 1; \
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s, count(DISTINCT id) AS ids FROM e; {more}"
    )
}

/// Ten events of a day of January, around noon.
fn day(day: usize) -> Vec<String> {
    let event =
        |i: usize| json!({ "t": format!("2026-01-{day:02}T12:00:{i:02}Z"), "id": format!("{day}-{i}"), "n": day });
    (0..10).map(|i| event(i).to_string()).collect()
}

/// Each day is archived by itself.
fn produce(case: &Case, up: &Service, days: std::ops::RangeInclusive<usize>) {
    for number in days {
        let lines = day(number);
        case.produce(up, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>());
        up.wait("the day is archived", |up| {
            let sources = up.get("/v1/sources").json();
            let partitions = sources["sources"][0]["partitions"].as_array().expect("partitions");
            partitions.iter().all(|p| p["archived"].as_i64() == p["log_end"].as_i64())
        });
    }
}

fn days(up: &Service) -> Vec<(String, i64)> {
    let rows = up.rows("SELECT day, c FROM by_day ORDER BY day", "latest");
    let row =
        |row: &Value| (row["day"].as_str().expect("a day")[8..10].to_string(), row["c"].as_i64().expect("a count"));
    rows.iter().map(row).collect()
}

fn total(up: &Service) -> (i64, i64, i64) {
    let row = up.rows("SELECT c, s, ids FROM total", "latest")[0].clone();
    let number = |name: &str| row[name].as_i64().expect("a number");
    (number("c"), number("s"), number("ids"))
}

fn sums(days: std::ops::RangeInclusive<usize>) -> (i64, i64, i64) {
    let count = days.clone().count() as i64 * 10;
    (count, days.map(|day| day as i64 * 10).sum(), count)
}

fn kept(days: std::ops::RangeInclusive<usize>) -> Vec<(String, i64)> {
    days.map(|day| (format!("{day:02}"), 10)).collect()
}

fn archive_files(case: &Case) -> usize {
    files_below(&case.store_folder().join("sources/e/archive")).len()
}

/// Positions that left the archive, of all partitions.
fn archive_start(up: &Service) -> i64 {
    let sources = up.get("/v1/sources").json();
    let partitions = sources["sources"][0]["partitions"].as_array().expect("partitions");
    partitions.iter().map(|partition| partition["archive_start"].as_i64().unwrap_or(0)).sum()
}

fn up(case: &Case, more: &[(&str, &str)]) -> Service {
    let all = [&EAGER[..], more].concat();
    let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &all);
    up.wait_ready();
    up
}

#[test]
fn groups_and_files_beyond_the_retention_go_and_what_counted_counts() {
    for (partitions, dedup) in [(1, ""), (1, ", dedup = 'id', dedup_lookback = '15'"), (3, "")] {
        let case = Case::new(&pipeline("", dedup));
        case.create_topic(partitions);
        let count = partitions.to_string();
        // Compaction beside it must not keep the past there.
        let compact = if partitions == 1 { "1000" } else { "3" };
        let more = [("BIFOLD_LOG__PARTITIONS", count.as_str()), ("BIFOLD_BATCH__COMPACT_FILES", compact)];
        let mut service = up(&case, &more);
        produce(&case, &service, 1..=18);
        assert_eq!(days(&service).len(), 18, "nothing is beyond it before the first boundary");
        let files = archive_files(&case);
        batch(&case, &service);
        // The watermark stands just behind midnight of the 18th: days that began before it on the 13th go, and files up to the 7th.
        assert_eq!(days(&service), kept(14..=18));
        let coverage = service.sql("SELECT c FROM by_day", Some("latest")).json()["coverage"][0].clone();
        assert_eq!(coverage["kept_from"], "2026-01-13T00:00:09Z", "{coverage}");
        assert_eq!(total(&service), sums(1..=18));
        let start = archive_start(&service);
        assert!((50..=70).contains(&start), "{start}");
        verify(&case, &service, "after the first run");
        service.wait("files are deleted", |_| archive_files(&case) < files - 4);
        verify(&case, &service, "after the files are gone");

        // Later runs, a late event, a full recompute.
        produce(&case, &service, 19..=20);
        let late = json!({ "t": "2026-01-02T00:00:00Z", "id": "late", "n": 1000 }).to_string();
        case.produce(&service, "e", &[late.as_str()]);
        let (c, s, ids) = sums(1..=20);
        let with_late = (c + 1, s + 1000, ids + 1);
        assert_eq!(total(&service), with_late);
        assert_eq!(days(&service), kept(14..=20), "a late event is in no answer of a view that dropped its day");
        verify(&case, &service, "a late event in the stream");
        batch(&case, &service);
        assert_eq!((total(&service), days(&service)), (with_late, kept(16..=20)));
        verify(&case, &service, "a late event in the batch view");
        let full = case.run(&["batch", "run", "--full", "--output", "json"]);
        assert_eq!(full.code, Some(0), "{}", full.stderr);
        let read = full.json().iter().map(|report| report["rows_read"].as_i64().expect("rows")).max();
        assert!(read < Some(190), "a full run starts from the base views: {}", full.stdout);
        assert_eq!((total(&service), days(&service)), (with_late, kept(16..=20)));
        verify(&case, &service, "after a full run");
        produce(&case, &service, 21..=28);
        batch(&case, &service);
        assert_eq!(total(&service).0, with_late.0 + 80);
        verify(&case, &service, "after more of it is gone");
        assert!(archive_start(&service) > start + 50);
        if dedup.is_empty() && partitions == 1 {
            let partition = format!("{}/0", case.topic);
            let ran = case.run(&[
                "quarantine",
                "e",
                "--partition",
                &partition,
                "--from",
                "3",
                "--to",
                "5",
                "--reason",
                "late",
            ]);
            ran.fails(2, &["cannot be quarantined", "left the archive"]);
        }
        assert_eq!(service.terminate(), Some(0), "{}", service.stderr());
        verify_offline(&case, "at rest");
        let rows = audit(&case, "what is left");
        let of_log = rows.iter().filter(|row| row["view"].is_null());
        let expired: i64 = of_log.map(|row| row["expired"].as_i64().expect("a number")).sum();
        assert!(expired > 100, "{rows:?}");

        // A view that comes later says what it cannot know.
        case.write_pipeline(&pipeline("CREATE MATERIALIZED VIEW later AS SELECT count(*) AS c FROM e;", dedup));
        let mut service = up(&case, &more);
        batch(&case, &service);
        let answer = service.sql("SELECT c FROM later", Some("latest")).json();
        let holes = answer["coverage"][0]["holes"].as_array().expect("holes").clone();
        assert!(!holes.is_empty() && holes.iter().all(|hole| hole["kind"] == "expired"), "{answer}");
        let gone: i64 =
            holes.iter().map(|hole| hole["range"][1].as_i64().unwrap() - hole["range"][0].as_i64().unwrap()).sum();
        assert_eq!(answer["rows"][0]["c"].as_i64(), Some(281 - gone), "{answer}");
        verify(&case, &service, "a view that came later");
        produce(&case, &service, 29..=31);
        batch(&case, &service);
        let (later, holes_now) = {
            let answer = service.sql("SELECT c FROM later", Some("latest")).json();
            (answer["rows"][0]["c"].as_i64(), answer["coverage"][0]["holes"].as_array().map(Vec::len))
        };
        assert_eq!((later, holes_now), (Some(281 - gone + 30), Some(holes.len())), "no more of it is a hole");
        verify(&case, &service, "its own base view");
        assert_eq!(service.terminate(), Some(0), "{}", service.stderr());
        verify_offline(&case, "at the end");
        audit(&case, "at the end");
    }
}

#[test]
fn killed_while_the_archives_past_is_removed_it_counts_exactly() {
    for point in POINTS {
        let case = Case::new(&pipeline("", ""));
        case.create_topic(1);
        let one = ("BIFOLD_LOG__PARTITIONS", "1");
        let mut first = up(&case, &[one, ("BIFOLD_FAILPOINT", point), ("BIFOLD_BATCH__SCHEDULE", "1s")]);
        for number in 1..=18 {
            let lines = day(number);
            let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                case.produce(&first, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>());
            }));
            if sent.is_err() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(150));
        }
        assert_reached(&mut first, point);
        let mut second = up(&case, &[one]);
        let (count, sum, ids) = total(&second);
        assert!(count % 10 == 0 && ids == count && count >= 100, "{count} {ids}");
        assert_eq!((count, sum, ids), sums(1..=count as usize / 10), "{point}");
        verify(&case, &second, point);
        batch(&case, &second);
        assert_eq!((count, sum, ids), total(&second), "{point}");
        verify(&case, &second, point);
        assert_eq!(second.terminate(), Some(0), "{point}: {}", second.stderr());
        verify_offline(&case, point);
        audit(&case, point);
    }
}

#[test]
fn an_event_from_the_far_future_is_quarantined_and_what_it_drove_out_comes_back() {
    let pipeline = "CREATE TABLE e (t TIMESTAMP, id TEXT, n BIGINT, WATERMARK FOR t AS t) \
        WITH (connector = 'kafka', topic = '{topic}', format = 'json', event_time_max = '9999-12-31T23:59:59Z'); \
        CREATE MATERIALIZED VIEW by_day WITH (retention = '5 days') AS \
        SELECT tumble(t, INTERVAL '1 day') AS day, count(*) AS c, sum(n) AS s FROM e GROUP BY 1;";
    let case = Case::new(pipeline);
    case.create_topic(1);
    let service = up(&case, &[("BIFOLD_LOG__PARTITIONS", "1")]);
    produce(&case, &service, 10..=14);
    let bad = json!({ "t": "2126-01-01T00:00:00Z", "id": "bad", "n": 1 }).to_string();
    case.produce(&service, "e", &[bad.as_str()]);
    produce(&case, &service, 15..=16);
    batch(&case, &service);
    assert_eq!(days(&service), [("01".to_string(), 1)], "it moved the watermark there");
    verify(&case, &service, "driven out");
    // A batch run without it puts the time back, and all that is archived is there again.
    let partition = format!("{}/0", case.topic);
    let arguments =
        ["quarantine", "e", "--partition", &partition, "--from", "50", "--to", "51", "--reason", "its clock"];
    assert_eq!(case.run(&arguments).code, Some(0));
    let ran = case.run(&["batch", "run", "--full", "--at-least", "latest", "--url", &service.url]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(days(&service), kept(12..=16));
    verify(&case, &service, "back again");
}
