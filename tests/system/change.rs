//! A changed view: the version before answers until a batch run has built the new one, and then the new one does.

use serde_json::{Value, json};

use crate::events::{NOBODY, verify, verify_offline};
use crate::harness::{Case, Service};

/// The failpoint that [`killed_between_two_retirements_the_next_batch_run_retires_the_rest`] kills at.
pub(crate) const RETIRED: &str = "publish.retired";

fn table(columns: &str) -> String {
    format!(
        "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT{columns}, WATERMARK FOR t AS t) \
         WITH (connector = 'kafka', topic = '{{topic}}', format = 'json'); "
    )
}

fn view(name: &str, select: &str) -> String {
    format!("CREATE MATERIALIZED VIEW {name} AS SELECT {select} FROM e GROUP BY k; ")
}

fn lines(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|i| format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"k{}","n":{i},"m":{}}}"#, i % 2, i * 2)).collect()
}

fn produce(case: &Case, numbers: std::ops::Range<usize>) {
    let ran = case.run_with(&["produce", "e", "-", "--url", NOBODY], &[], lines(numbers).join("\n").as_bytes());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

fn batch(case: &Case, up: &Service) -> Vec<Value> {
    case.run(&["batch", "run", "--at-least", "latest", "--url", &up.url, "--output", "json"]).json()
}

/// The sum of `of` over the numbers of a group.
fn sums(numbers: std::ops::Range<usize>, of: impl Fn(usize) -> usize) -> [usize; 2] {
    [0, 1].map(|k| numbers.clone().filter(|i| i % 2 == k).map(&of).sum())
}

/// On one process with the schedule off: `up` builds a waiting version at once by itself, so that a test which wants to
/// see it building has to look at the roles. Here: until it is built, the old version answers; then the new one does.
#[test]
fn a_changed_view_answers_as_before_until_it_is_built_and_then_anew() {
    let case = Case::new(&(table("") + &view("v", "k, count(*) AS c, sum(n) AS s")));
    case.create_topic(3);
    produce(&case, 0..100);
    let mut up = case.start("up");
    batch(&case, &up);
    produce_through(&case, &up, 100..150);
    let before = up.rows("SELECT k, c, s FROM v ORDER BY k", "latest");
    let [a, b] = sums(0..150, |i| i);
    assert_eq!(before, [json!({"k":"k0","c":75,"s":a}), json!({"k":"k1","c":75,"s":b})]);
    let old = version(&up, "v");
    assert_eq!(up.terminate(), Some(0));

    // A new SELECT, and a column that older archive files have only in the payload.
    case.write_pipeline(&(table(", m BIGINT") + &view("v", "k, count(*) AS c, sum(m) AS s, max(n) AS top")));
    produce(&case, 150..160);
    let mut up = case.start("up");
    // Whatever answers while it is being built is one of the two versions, whole.
    let [a, b] = sums(0..160, |i| i);
    let [new_a, new_b] = sums(0..160, |i| i * 2);
    let of_old = [json!({"k":"k0","c":80,"s":a}), json!({"k":"k1","c":80,"s":b})];
    let of_new = [json!({"k":"k0","c":80,"s":new_a,"top":158}), json!({"k":"k1","c":80,"s":new_b,"top":159})];
    up.wait("the new version", |up| {
        let rows = up.rows("SELECT * FROM v ORDER BY k", "latest");
        assert!(rows == of_old || rows == of_new, "half a view: {rows:?}");
        rows == of_new
    });
    assert_ne!(version(&up, "v"), old);
    verify(&case, &up, "after the change");
    produce_through(&case, &up, 160..170);
    let [a, b] = sums(0..170, |i| i * 2);
    let rows = up.rows("SELECT k, c, s FROM v ORDER BY k", "latest");
    assert_eq!(rows, [json!({"k":"k0","c":85,"s":a}), json!({"k":"k1","c":85,"s":b})]);
    verify(&case, &up, "after the change, with new events");
    batch(&case, &up);
    verify(&case, &up, "after the next batch run");
    let full = case.run(&["batch", "run", "--full", "--output", "json"]).json();
    assert!(full.iter().all(|report| report["mode"] == "full" && report["rows_read"] == 170), "{full:?}");
    verify(&case, &up, "after a full batch run");
    assert_eq!(up.terminate(), Some(0));
    verify_offline(&case, "after the change");
}

fn produce_through(case: &Case, up: &Service, numbers: std::ops::Range<usize>) {
    let lines = lines(numbers);
    case.produce(up, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>());
}

fn version(service: &Service, view: &str) -> String {
    service.get(&format!("/v1/views/{view}")).json()["version"].as_str().expect("a version").to_string()
}

/// A view of a new name has nothing before it: it says "building", with its progress, never a partial sum.
#[test]
fn a_new_view_over_old_events_is_building_until_a_batch_run() {
    let Some(_) = crate::harness::brokers() else {
        println!("not run: BIFOLD_TEST_KAFKA names no broker (`up` builds at once)");
        return;
    };
    let case = Case::new(&(table("") + &view("v", "k, count(*) AS c")));
    case.create_topic(3);
    produce(&case, 0..100);
    {
        let roles = crate::restart::Roles::new(&case);
        let (mut collect, mut speed, serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
        assert_eq!(serve.rows("SELECT sum(c) AS c FROM v", "latest"), [json!({ "c": 100 })]);
        assert_eq!((collect.terminate(), speed.terminate()), (Some(0), Some(0)));
    }
    case.write_pipeline(
        &(table(", m BIGINT") + &view("v", "k, count(*) AS c, sum(m) AS m") + &view("fresh", "k, sum(m) AS m")),
    );
    let roles = crate::restart::Roles::new(&case);
    let (_collect, _speed, serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
    produce(&case, 100..120);
    for _ in 0..3 {
        let reply = serve.sql("SELECT * FROM fresh", None);
        assert_eq!((reply.status, reply.json()["type"].as_str()), (503, Some("/problems/building")), "{}", reply.text);
        assert!(reply.json()["progress"].is_number(), "{}", reply.text);
        let described = serve.get("/v1/views/fresh").json();
        assert_eq!(described["state"], "building", "{described}");
        // The version before of the other view still answers, and is current.
        let rows = serve.rows("SELECT * FROM v ORDER BY k", "latest");
        assert_eq!(rows, [json!({"k":"k0","c":60}), json!({"k":"k1","c":60})]);
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    let listed = case.run(&["views", "--output", "json"]).json();
    let states: Vec<_> = listed.iter().map(|row| (row["view"].clone(), row["state"].clone())).collect();
    assert_eq!(states.len(), 3, "{listed:?}");
    assert!(states.contains(&(json!("fresh"), json!("building"))), "{listed:?}");
    assert!(
        states.contains(&(json!("v"), json!("building"))) && states.contains(&(json!("v"), json!("ready"))),
        "{listed:?}"
    );
    verify_one(&case, &serve, "v");

    let reports = batch(&case, &serve);
    assert_eq!(reports.len(), 3, "{reports:?}");
    let [a, b] = sums(0..120, |i| i * 2);
    assert_eq!(
        serve.rows("SELECT * FROM fresh ORDER BY k", "latest"),
        [json!({"k":"k0","m":a}), json!({"k":"k1","m":b})]
    );
    let rows = serve.rows("SELECT * FROM v ORDER BY k", "latest");
    assert_eq!(rows, [json!({"k":"k0","c":60,"m":a}), json!({"k":"k1","c":60,"m":b})]);
    verify(&case, &serve, "after the batch run");
}

fn verify_one(case: &Case, service: &Service, view: &str) {
    let reports = case.run(&["verify", view, "--url", &service.url, "--output", "json"]).json();
    assert!(reports.len() == 1 && reports[0]["equal"] == true, "{reports:?}");
}

/// Two views change twice: then each has a version that is no longer kept. The run that retires them dies in between.
#[test]
fn killed_between_two_retirements_the_next_batch_run_retires_the_rest() {
    let pipeline =
        |what: &str| table("") + &view("v", &format!("k, {what} AS x")) + &view("w", &format!("{what} AS x, k"));
    let case = Case::new(&pipeline("count(*)"));
    case.create_topic(3);
    produce(&case, 0..50);
    let mut up = case.start("up");
    batch(&case, &up);
    assert_eq!(up.terminate(), Some(0));

    // `up` builds the second versions and keeps the first.
    case.write_pipeline(&pipeline("sum(n)"));
    let mut up = case.start("up");
    up.wait("the second versions", |up| up.rows("SELECT sum(x) AS x FROM w", "latest") == [json!({ "x": 1225 })]);
    assert_eq!(up.terminate(), Some(0));
    assert_eq!(active(&case), [2, 2]);

    case.write_pipeline(&pipeline("max(n)"));
    let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &[("BIFOLD_FAILPOINT", RETIRED)]);
    crate::restart::assert_reached(&mut up, RETIRED);
    let mut left = active(&case);
    left.sort_unstable();
    assert_eq!(left, [2, 3], "one view's oldest version was retired, the other's was not");

    produce(&case, 50..60);
    let up = case.start("up");
    let rows = up.rows("SELECT v.k AS k, v.x AS v, w.x AS w FROM v JOIN w ON v.k = w.k ORDER BY k", "latest");
    assert_eq!(rows, [json!({"k":"k0","v":58,"w":58}), json!({"k":"k1","v":59,"w":59})]);
    batch(&case, &up);
    assert_eq!(active(&case), [2, 2]);
    verify(&case, &up, "after the retirement");
}

/// How many versions of each view are active.
fn active(case: &Case) -> [usize; 2] {
    let listed = case.run(&["views", "--output", "json"]).json();
    let known = |row: &&Value| row["state"] != "undeclared";
    ["v", "w"].map(|name| listed.iter().filter(known).filter(|row| row["view"] == name).count())
}
