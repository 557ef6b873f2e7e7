//! Four processes, `collect`, `speed`, `serve` and `batch run`, on one Kafka and one store: the answers of `up`.
//!
//! What they read comes from a foreign producer, of two topics: lz4, keys, null values, aborted transactions.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bifold_ledger::{Body, Entry};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::groups::GroupMemberInfo;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::events::{verify, verify_offline};
use crate::harness::{Case, Service, brokers, files_below};
use crate::restart::{Roles, free_port};

const PIPELINE: &str = "\
    CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t - INTERVAL '5 seconds') \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE TABLE u (t TIMESTAMP, k TEXT, w DECIMAL(10,2), WATERMARK FOR t AS t) \
    WITH (connector = 'kafka', topic = '{topic}-b', format = 'json'); \
    CREATE MATERIALIZED VIEW by_key AS SELECT tumble(t, INTERVAL '1 minute') AS minute, k, count(*) AS c, sum(n) AS s, \
    count(DISTINCT n) AS d, approx_distinct(n) AS a FROM e GROUP BY 1, 2; \
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e; \
    CREATE MATERIALIZED VIEW weights AS SELECT k, count(*) AS c, sum(w) AS w, min(t) AS first FROM u GROUP BY k;";

const QUERIES: [&str; 4] = [
    "SELECT * FROM by_key ORDER BY minute, k",
    "SELECT * FROM total",
    "SELECT * FROM weights ORDER BY k",
    "SELECT w.k AS k, sum(b.c) AS c, max(w.w) AS w FROM weights w JOIN by_key b ON w.k = b.k GROUP BY w.k ORDER BY 1",
];

fn event(i: usize) -> String {
    format!(r#"{{"t":"2026-01-01T00:{:02}:{:02}Z","k":"k{}","n":{i}}}"#, i / 60 % 60, i % 60, i % 5)
}

fn weight(i: usize) -> String {
    format!(r#"{{"t":"2026-01-01 00:00:{:02}","k":"k{}","w":{i}.25}}"#, i % 60, i % 5)
}

/// A record for the foreign producer: key and value, or a tombstone.
type Keyed = (String, Option<String>);

/// Produces with lz4: by confluent-kafka for Python, else by kcat, else by a client in this process.
fn produce_foreign(case: &Case, topic: &str, records: &[Keyed]) -> &'static str {
    let brokers = brokers().expect("a broker");
    let python = Command::new("python3").args(["-c", "import confluent_kafka"]).stderr(Stdio::null()).status();
    let input: String = records.iter().map(|(k, v)| format!("{k}\t{}\n", v.as_deref().unwrap_or_default())).collect();
    let run = |mut command: Command| {
        use std::io::Write;
        let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success());
    };
    if python.is_ok_and(|status| status.success()) {
        let script = "\
import sys
from confluent_kafka import Producer
p = Producer({'bootstrap.servers': sys.argv[1], 'compression.type': 'lz4', 'linger.ms': 20})
for line in sys.stdin:
    k, v = line.rstrip('\\n').split('\\t', 1)
    p.produce(sys.argv[2], key=k, value=v or None)
    p.poll(0)
sys.exit(p.flush(30))
";
        std::fs::write(case.path("foreign.py"), script).expect("write the script");
        let mut command = Command::new("python3");
        command.arg(case.path("foreign.py")).args([&brokers, topic]);
        run(command);
        return "confluent-kafka for Python";
    }
    if Command::new("kcat").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        let mut command = Command::new("kcat");
        command.args(["-P", "-b", &brokers, "-t", topic, "-K", "\t", "-Z", "-z", "lz4"]);
        run(command);
        return "kcat";
    }
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers)
        .set("compression.type", "lz4")
        .create()
        .expect("a producer");
    for (key, value) in records {
        let mut record = BaseRecord::<str, str>::to(topic).key(key);
        record.payload = value.as_deref();
        producer.send(record).map_err(|(e, _)| e).expect("there is room");
    }
    producer.flush(Duration::from_secs(30)).expect("delivered");
    "a client in this process"
}

/// Produces in a transaction, and commits or aborts it.
fn transaction(topic: &str, values: &[String], commit: bool) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers().expect("a broker"))
        .set("transactional.id", format!("foreign-{}", uuid::Uuid::new_v4()))
        .set("compression.type", "lz4")
        .create()
        .expect("a producer");
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).expect("transactions");
    producer.begin_transaction().expect("a transaction begins");
    for (i, value) in values.iter().enumerate() {
        let key = format!("x{i}");
        producer.send(BaseRecord::to(topic).key(&key).payload(value)).map_err(|(e, _)| e).expect("there is room");
    }
    producer.flush(wait).expect("delivered");
    match commit {
        true => producer.commit_transaction(wait).expect("committed"),
        false => producer.abort_transaction(wait).expect("aborted"),
    }
}

/// Events and weights of these numbers into both topics, tombstones and transactions between them; the last thing in the
/// log is the marker of an aborted transaction.
fn produce(case: &Case, numbers: std::ops::Range<usize>) {
    let (topic, topic_b) = (case.topic.clone(), format!("{}-b", case.topic));
    let (plain, in_transaction): (Vec<usize>, Vec<usize>) = numbers.clone().partition(|i| i % 10 < 8);
    for (topic, line) in [(&topic, event as fn(usize) -> String), (&topic_b, weight)] {
        let mut records: Vec<Keyed> = vec![];
        for i in &plain {
            records.push((format!("key{}", i % 11), Some(line(*i))));
            if i % 25 == 0 {
                records.push((format!("key{}", i % 11), None));
            }
        }
        let aborted: Vec<String> = numbers.clone().map(|i| line(i + 1_000_000)).collect();
        transaction(topic, &aborted[..aborted.len() / 2], false);
        let by = produce_foreign(case, topic, &records);
        println!("{} records by {by}", records.len());
        transaction(topic, &in_transaction.iter().map(|i| line(*i)).collect::<Vec<_>>(), true);
        transaction(topic, &aborted, false);
    }
}

fn answers(service: &Service) -> Vec<Vec<Value>> {
    QUERIES.iter().map(|query| service.rows(query, "latest")).collect()
}

/// The total of both sources is that of these numbers, whatever else is right.
fn check(service: &Service, numbers: std::ops::Range<usize>) {
    let (count, sum) = (numbers.len(), numbers.clone().sum::<usize>());
    assert_eq!(service.rows("SELECT c, s FROM total", "latest"), [json!({ "c": count, "s": sum })]);
    let rows = service.rows("SELECT sum(c) AS c, sum(w) AS w FROM weights", "latest");
    let hundredths = sum * 100 + count * 25;
    assert_eq!(rows, [json!({ "c": count, "w": format!("{}.{:02}", hundredths / 100, hundredths % 100) })]);
}

fn case() -> Option<Case> {
    if brokers().is_none() {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return None;
    }
    let case = Case::new(PIPELINE);
    case.create_topic(3);
    case.create_topic_named(&format!("{}-b", case.topic), 4);
    Some(case)
}

fn batch(case: &Case) {
    let ran = case.run(&["batch", "run", "--at-least", "latest", "--output", "json"]);
    let reports = ran.json();
    assert_eq!(reports.len(), 3, "{reports:?}");
    assert!(reports.iter().all(|report| report["mode"] != "none"), "{reports:?}");
}

#[test]
fn four_processes_answer_as_one() {
    let Some(case) = case() else { return };
    let roles = Roles::new(&case);
    let (mut collect, mut speed, mut serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
    // The same topics, but a store and groups of its own.
    let other = Case::new(&PIPELINE.replace("{topic}", &case.topic));
    let mut up = other.start("up");

    produce(&case, 0..200);
    check(&serve, 0..200);
    assert_eq!(answers(&serve), answers(&up), "no batch view yet");
    batch(&case);
    assert_eq!(answers(&serve), answers(&up), "a batch view on one side");
    produce(&case, 200..300);
    check(&serve, 0..300);
    check(&up, 0..300);
    assert_eq!(answers(&serve), answers(&up), "0 < b < f");
    batch(&other);
    batch(&case);
    assert_eq!(answers(&serve), answers(&up), "b = f");
    verify(&case, &serve, "four processes");
    verify(&other, &up, "one process");

    // Both cover the same, and every position: markers and aborted records too.
    let ends = |service: &Service| -> Vec<Value> {
        let reply = service.sql(QUERIES[3], Some("latest")).json();
        let mut ends = vec![];
        for coverage in reply["coverage"].as_array().expect("coverage") {
            for partition in coverage["partitions"].as_array().expect("partitions") {
                ends.push(json!([coverage["view"], partition["topic"], partition["partition"], partition["speed"][1]]));
            }
        }
        ends.sort_by_key(Value::to_string);
        ends
    };
    assert_eq!(ends(&serve), ends(&up));
    assert_eq!(ends(&serve).len(), 3 + 4, "one element of coverage per view, one range per partition");
    for service in [&mut collect, &mut speed, &mut serve, &mut up] {
        assert_eq!(service.terminate(), Some(0), "{}", service.stderr());
    }
    verify_offline(&case, "four processes");
    assert_eq!(counted_absent(&case, "e"), 300 / 25, "tombstones are no events and no dead letters");
    let letters = case.run(&["dead-letters", "e", "--output", "json"]);
    assert!(letters.json().is_empty());
}

pub(crate) fn entries(case: &Case, source: &str) -> Vec<Entry> {
    let paths = files_below(&case.store_folder().join("sources").join(source).join("ledger"));
    // What is being put has another name for a moment.
    let paths = paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.map(|path| serde_json::from_slice(&std::fs::read(path).expect("an entry")).expect("JSON")).collect()
}

fn counted_absent(case: &Case, source: &str) -> u64 {
    let of = |entry: Entry| if let Body::Archived { counts, .. } = entry.body { counts.absent } else { 0 };
    entries(case, source).into_iter().map(of).sum()
}

/// How long until `serve` answers up to the log's end.
fn time_to_the_end(serve: &Service) -> Duration {
    let started = Instant::now();
    serve.rows("SELECT * FROM total", "latest");
    started.elapsed()
}

#[test]
fn after_kill_9_speed_and_collect_go_on_within_seconds() {
    let Some(case) = case() else { return };
    let roles = Roles::new(&case);
    let (mut collect, mut speed, serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
    produce(&case, 0..100);
    check(&serve, 0..100);
    speed.kill();
    // Without it f only falls: what is durable still answers, exactly as it says.
    let reply = serve.sql("SELECT * FROM total", None);
    assert_eq!(reply.status, 200, "{}", reply.text);
    produce(&case, 100..150);
    let reply =
        serve.post("/v1/sql", br#"{"sql":"SELECT * FROM total","at_least":"latest","timeout_ms":500}"#.to_vec());
    assert_eq!((reply.status, reply.json()["type"].as_str()), (503, Some("/problems/not-yet")), "{}", reply.text);
    let started = Instant::now();
    speed = roles.start("speed");
    time_to_the_end(&serve);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "speed took {took:?} to fold on");
    println!("speed folds on after {took:?}");
    check(&serve, 0..150);

    collect.kill();
    produce(&case, 150..170);
    let started = Instant::now();
    collect = roles.start("collect");
    batch(&case);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(15), "collect took {took:?} to archive on");
    println!("collect archives on after {took:?}");
    check(&serve, 0..170);
    verify(&case, &serve, "after kill -9 of speed and collect");
    assert_eq!((speed.terminate(), collect.terminate()), (Some(0), Some(0)));
}

#[test]
fn two_speed_processes_and_two_collectors_share_the_partitions() {
    let Some(case) = case() else { return };
    let ports = [free_port(), free_port()];
    let urls = ports.map(|port| format!("http://127.0.0.1:{port}")).join(",");
    let listen = ports.map(|port| format!("127.0.0.1:{port}"));
    let mut speeds = listen.each_ref().map(|listen| case.start_with(&["speed", "--listen", listen], &[]));
    let mut collects = [(); 2].map(|()| case.start_with(&["collect", "--listen", "127.0.0.1:0"], &[]));
    let serve = case.start_with(&["serve", "--listen", "127.0.0.1:0"], &[("BIFOLD_SERVE__SPEED", &urls)]);
    let mut end = 0;
    for _ in 0..12 {
        produce(&case, end..end + 20);
        end += 20;
        check(&serve, 0..end);
    }
    verify(&case, &serve, "two of each");
    batch(&case);
    check(&serve, 0..end);
    for source in ["e", "u"] {
        let writers = |kind: &str| -> BTreeSet<String> {
            entries(&case, source).into_iter().filter(|e| e.body.kind() == kind).map(|e| e.writer).collect()
        };
        println!("{source}: folded by {}, archived by {}", writers("folded").len(), writers("archived").len());
        // Each reads its own share: no entry touches partitions of both once the group is formed.
        let last = entries(&case, source).into_iter().filter_map(|e| match e.body {
            Body::Folded { ranges, .. } => Some(ranges.iter().map(|(at, _)| at.partition).collect::<BTreeSet<_>>()),
            _ => None,
        });
        let last: Vec<_> = last.collect();
        let shares: BTreeSet<_> = last.iter().rev().take(6).collect();
        assert!(shares.len() > 1, "{source}: {shares:?}");
    }
    // The one that is left goes on.
    speeds[0].kill();
    collects[0].kill();
    produce(&case, end..end + 20);
    end += 20;
    let took = time_to_the_end(&serve);
    println!("the other one has all partitions after {took:?}");
    assert!(took < Duration::from_secs(20), "the other one took {took:?}");
    check(&serve, 0..end);
    batch(&case);
    check(&serve, 0..end);
    verify(&case, &serve, "one of each");
    for service in [&mut speeds[1], &mut collects[1]] {
        assert_eq!(service.terminate(), Some(0), "{}", service.stderr());
    }
    verify_offline(&case, "one of each");
}

#[test]
fn serve_drains_and_does_without_a_speed_instance_that_hangs() {
    let Some(case) = case() else { return };
    let roles = Roles::new(&case);
    let (_collect, speed) = (roles.start("collect"), roles.start("speed"));
    let mut serve = roles.spawn("serve", &[("BIFOLD_SERVE__DRAIN", "4s")]);
    serve.wait_ready();
    produce(&case, 0..200);
    check(&serve, 0..200);
    let signal = |name: &str, process: u32| {
        assert!(Command::new("kill").args([name, &process.to_string()]).status().expect("kill runs").success());
    };
    // A process that is stopped takes connections and says nothing: answers end at what is durable.
    signal("-STOP", speed.child.id());
    let started = Instant::now();
    let reply = serve.post("/v1/sql", br#"{"sql":"SELECT c FROM total","timeout_ms":2000}"#.to_vec());
    assert_eq!(reply.status, 200, "it has not waited for it to the end: {}", reply.text);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    for _ in 0..3 {
        let reply = serve.sql("SELECT c FROM total", None);
        assert_eq!(reply.status, 200, "{}", reply.text);
        let body = reply.json();
        let covered: i64 = body["coverage"][0]["partitions"]
            .as_array()
            .expect("partitions")
            .iter()
            .map(|part| part["speed"][1].as_i64().unwrap_or(0) - part["batch"][0].as_i64().unwrap_or(0))
            .sum();
        let counted = body["rows"][0]["c"].as_i64().expect("a count");
        // Markers and tombstones are covered and not counted.
        assert!(counted <= covered && counted <= 200, "{body}");
    }
    signal("-CONT", speed.child.id());
    check(&serve, 0..200);
    // Told to end it answers on, not ready, and then ends well.
    signal("-TERM", serve.child.id());
    serve.wait("it says that it ends", |serve| serve.get("/readyz").status == 503);
    assert!(serve.get("/readyz").text.contains("told to end"), "{}", serve.get("/readyz").text);
    check(&serve, 0..200);
    assert_eq!(serve.wait_exit(Duration::from_secs(30)), Some(0), "{}", serve.stderr());
}

const ONE: &str = "CREATE TABLE e (n BIGINT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e;";

/// One source with four partitions and one view.
fn one_source() -> Option<Case> {
    if brokers().is_none() {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return None;
    }
    let case = Case::new(ONE);
    case.create_topic(4);
    Some(case)
}

fn send(case: &Case, numbers: std::ops::Range<usize>) {
    let record = |i: usize| (Some(format!("key{i}").into_bytes()), Some(format!("{{\"n\":{i}}}").into_bytes()));
    case.produce_to(&case.topic, numbers.map(record));
}

/// How many positions each entry of a kind holds.
fn positions(case: &Case, kind: &str) -> Vec<i64> {
    let of = |entry: Entry| match entry.body {
        Body::Folded { ranges, .. } if kind == "folded" => Some(ranges.positions()),
        Body::Archived { ranges, .. } if kind == "archived" => Some(ranges.positions()),
        _ => None,
    };
    entries(case, "e").into_iter().filter_map(of).collect()
}

#[test]
fn what_was_read_is_committed_before_its_partitions_are_given_away() {
    let Some(case) = one_source() else { return };
    // A commit is due at the first pause in the stream, and then no more.
    let slow = [("BIFOLD_SPEED__EPOCH_INTERVAL", "1h"), ("BIFOLD_COLLECT__FLUSH_INTERVAL", "1h")];
    let (mut begin, mut running) = (0, vec![]);
    for (role, kind) in [("speed", "folded"), ("collect", "archived")] {
        let first = case.start_with(&[role, "--listen", "127.0.0.1:0"], &slow);
        send(&case, begin..begin + 40);
        let all = begin as i64 + 40;
        first.wait("the first pause", |_| positions(&case, kind).iter().sum::<i64>() == all);
        let before = positions(&case, kind).len();
        send(&case, begin + 40..begin + 80);
        std::thread::sleep(Duration::from_secs(2));
        assert_eq!(positions(&case, kind).len(), before, "{role}: nothing is due");
        // Another one comes: whoever has read commits all of it, before any of it is read by the other.
        let second = case.start_with(&[role, "--listen", "127.0.0.1:0"], &slow);
        first.wait("what was read is committed", |_| positions(&case, kind).iter().sum::<i64>() == all + 40);
        assert_eq!(positions(&case, kind)[before..], [40], "{role}: {}", first.stderr());
        running.extend([first, second]);
        begin += 80;
    }
}

/// Whoever cannot write to the store holds its partitions for half a minute, and no longer. Here a limit on the size of its files
/// keeps it from that.
#[test]
fn an_instance_that_cannot_reach_the_store_leaves_its_partitions_to_others() {
    let Some(case) = one_source() else { return };
    if crate::harness::test_store().is_some() {
        println!("not run: only writing to a local store is prevented here");
        return;
    }
    let (mut stay, mut cut) = (vec![], vec![]);
    for role in ["speed", "collect"] {
        let arguments = [role, "--listen", "127.0.0.1:0"];
        stay.push(case.start_with(&arguments, &[]));
        // The signal that comes with a failed write would end the process, as would a log that cannot be written.
        let mut service = case.spawn_by("trap '' XFSZ; exec \"$0\" \"$@\" 2>/dev/null", &arguments, &[]);
        service.wait_ready();
        cut.push(service);
    }
    // Each has its share, and what is sent now is committed by both.
    for (role, service) in [("speed", &stay[0]), ("collect", &stay[1])] {
        service.wait("both have partitions", |_| have_partitions(&case, role) == 2);
    }
    let committed = |kind: &str| positions(&case, kind).iter().sum::<i64>();
    send(&case, 0..40);
    stay[0].wait("all is committed", |_| committed("folded") == 40 && committed("archived") == 40);
    for service in &cut {
        let limited = Command::new("prlimit").args(["--fsize=0", "--pid", &service.child.id().to_string()]).status();
        assert!(limited.expect("prlimit runs").success());
    }
    let started = Instant::now();
    send(&case, 40..80);
    std::thread::sleep(Duration::from_secs(10));
    let some = [committed("folded"), committed("archived")];
    assert!(some.iter().all(|count| *count < 80), "what the others hold is not committed yet: {some:?}");
    stay[0].wait("the others commit it", |_| committed("folded") == 80 && committed("archived") == 80);
    println!("the others had all partitions after {:?}", started.elapsed());
    for service in &mut cut {
        assert!(service.child.try_wait().expect("it can be waited for").is_none(), "it goes on: {}", service.stderr());
    }
}

/// How many members of a role's group have partitions, as the broker says.
fn have_partitions(case: &Case, role: &str) -> usize {
    let brokers = brokers().expect("a broker");
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a consumer");
    let group = crate::installations::groups_of(case, role).pop().expect("the group of the one installation");
    let list = consumer.fetch_group_list(Some(&group), Duration::from_secs(10)).expect("the broker says");
    // A version of two bytes, then how many topics follow.
    let topics = |member: &GroupMemberInfo| member.assignment().and_then(|bytes| bytes.get(2..6).map(<[u8]>::to_vec));
    let members = list.groups().iter().flat_map(|group| group.members());
    members.filter(|member| topics(member).is_some_and(|count| count != [0; 4])).count()
}
