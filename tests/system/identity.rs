//! Topics change under the layers: partitions are added, a topic is deleted and made again, a log is truncated.

use std::time::{Duration, Instant};

use bifold_ledger::{ArchiveCounts, Body, Nonce, Ranges, Span, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use serde_json::json;

use crate::events::{batch, verify};
use crate::harness::{Case, brokers};
use crate::left_out::audit;
use crate::restart::Roles;

const PIPELINE: &str = "CREATE TABLE e (n BIGINT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e;";

fn case() -> Option<(Case, AdminClient<DefaultClientContext>, tokio::runtime::Runtime)> {
    let Some(brokers) = brokers() else {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return None;
    };
    let admin = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client");
    let case = Case::new(PIPELINE);
    case.create_topic(1);
    Some((case, admin, tokio::runtime::Runtime::new().expect("a runtime")))
}

fn send(case: &Case, numbers: std::ops::Range<usize>) {
    let record = |i: usize| (Some(format!("key{i}").into_bytes()), Some(format!("{{\"n\":{i}}}").into_bytes()));
    case.produce_to(&case.topic, numbers.map(record));
}

#[test]
fn partitions_added_while_running_are_read_from_their_start() {
    let Some((case, admin, runtime)) = case() else { return };
    let roles = Roles::new(&case);
    let (_collect, _speed, serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
    send(&case, 0..100);
    assert_eq!(serve.rows("SELECT c FROM total", "latest"), [json!({ "c": 100 })]);
    batch(&case, &serve);
    let more = NewPartitions::new(&case.topic, 4);
    runtime.block_on(admin.create_partitions([&more], &AdminOptions::new())).expect("the broker answers")[0]
        .as_ref()
        .expect("partitions are added");
    // The producer's own view of the topic may be a moment old.
    std::thread::sleep(Duration::from_secs(1));
    send(&case, 100..300);
    let started = Instant::now();
    let reply = serve.sql("SELECT c, s FROM total", Some("latest")).json();
    println!("the new partitions were read after {:?}", started.elapsed());
    assert_eq!(reply["rows"][0], json!({ "c": 300, "s": (0..300).sum::<usize>() }), "{reply}");
    assert_eq!(reply["coverage"][0]["partitions"].as_array().expect("partitions").len(), 4, "{reply}");
    batch(&case, &serve);
    send(&case, 300..400);
    assert_eq!(serve.rows("SELECT c FROM total", "latest"), [json!({ "c": 400 })]);
    verify(&case, &serve, "with more partitions");
    batch(&case, &serve);
    audit(&case, "with more partitions");
}

#[test]
fn a_topic_that_was_deleted_and_made_again_stops_its_layers() {
    let Some((case, admin, runtime)) = case() else { return };
    let roles = Roles::new(&case);
    let (mut collect, mut speed, serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
    send(&case, 0..100);
    assert_eq!(serve.rows("SELECT c FROM total", "latest"), [json!({ "c": 100 })]);
    batch(&case, &serve);
    runtime.block_on(admin.delete_topics(&[&case.topic], &AdminOptions::new())).expect("the broker answers");
    std::thread::sleep(Duration::from_secs(1));
    // The new one is longer: a reader that goes on at offset 100 would not notice.
    let made = Instant::now();
    loop {
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case.create_topic(1)));
        if done.is_ok() || made.elapsed() > Duration::from_secs(20) {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    send(&case, 1_000..1_500);
    for (role, service) in [("collect", &mut collect), ("speed", &mut speed)] {
        assert_eq!(service.wait_exit(Duration::from_secs(40)), Some(1), "{role}: {}", service.stderr());
        assert!(service.stderr().contains("was deleted and created again"), "{role}: {}", service.stderr());
    }
    // The serving layer answers on, and is not ready.
    serve.wait("it says so", |serve| {
        let ready = serve.get("/readyz");
        ready.status == 503 && ready.text.contains("was deleted and made again")
    });
    // Nothing of the new topic has been counted, and starting again changes nothing.
    let rows = serve.sql("SELECT c, s FROM total", None).json();
    assert_eq!(rows["rows"][0], json!({ "c": 100, "s": (0..100).sum::<usize>() }), "{rows}");
    let mut speed = roles.spawn("speed", &[]);
    assert_eq!(speed.wait_exit(Duration::from_secs(30)), Some(1), "{}", speed.stderr());
    assert!(speed.stderr().contains("give the source a new name"), "{}", speed.stderr());
}

/// Both layers have read twenty records of a leader that the log has not had: as after an unclean election, since which the log
/// has grown beyond them. The offsets look right, the epoch alone tells.
#[test]
fn a_log_that_was_truncated_and_grew_again_stops_its_layers() {
    let Some((case, ..)) = case() else { return };
    let roles = Roles::new(&case);
    let (mut collect, mut speed) = (roles.start("collect"), roles.start("speed"));
    let serve = roles.start("serve");
    send(&case, 0..100);
    assert_eq!(serve.rows("SELECT c FROM total", "latest"), [json!({ "c": 100 })]);
    assert_eq!((collect.terminate(), speed.terminate()), (Some(0), Some(0)));
    send(&case, 100..150);

    let at = TopicPartition::new(&case.topic, 0);
    let (store, root) = bifold_store::open(&format!("file://{}", case.store_folder().display())).expect("a store");
    let files = bifold_store::SourceFiles::new(store, &root, "e");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ledger = || runtime.block_on(bifold_store::Journal::open(files.clone(), "test")).expect("a ledger").ledger();
    runtime.block_on(async {
        let mut journal = bifold_store::Journal::open(files.clone(), "test").await.expect("a ledger");
        let ledger = journal.ledger();
        let ranges = Ranges([(at.clone(), Span { start: 100, end: 120, leader_epoch: Some(7) })].into());
        // What is in the delta does not matter here.
        let before = files.get(&ledger.units[0].delta).await.expect("a delta");
        let path = files.layout.delta(ledger.number + 1, &Nonce("n".into()), &ranges);
        let delta = files.put(path, before, ledger.units[0].delta.rows).await.expect("a store");
        let (versions, holes) = (ledger.active(), vec![]);
        let folded = Body::Folded {
            ranges: ranges.clone(),
            versions,
            delta,
            events: 20,
            newest_event_us: None,
            holes,
            duplicates: 0,
            seen: None,
        };
        let (rows, dead, counts, decoding) = (vec![], vec![], ArchiveCounts::default(), String::new());
        for body in [folded, Body::Archived { ranges, rows, dead, counts, decoding }] {
            journal.append(body).await.expect("the entry is valid");
        }
    });
    let before = ledger();
    assert_eq!((before.frontier(&at), before.archived(&at)), (120, 120));
    let (collect, speed) = (roles.spawn("collect", &[]), roles.spawn("speed", &[]));
    for (role, service) in [("collect", &collect), ("speed", &speed)] {
        service.wait("it says so, or goes on", |service| {
            let now = ledger();
            assert_eq!((now.frontier(&at), now.archived(&at)), (120, 120), "{role} goes on: {}", service.stderr());
            service.stderr().contains("was truncated below offset 120")
        });
    }
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ledger().number, before.number, "nothing is committed");
}
