//! Two installations on one Kafka, with the same prefix of consumer groups: each reads all. And what nobody reads is told of.

use std::path::Path;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;

use crate::events::verify;
use crate::harness::{Case, Service, brokers, test_store};
use crate::restart::Roles;

const PIPELINE: &str = "CREATE TABLE e (n BIGINT) WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW total AS SELECT count(*) AS c, sum(n) AS s FROM e;";

/// One source with four partitions; none without a broker, or where all cases have one store.
fn case() -> Option<Case> {
    if brokers().is_none() || test_store().is_some() {
        println!("not run: it needs a broker (BIFOLD_TEST_KAFKA) and local stores");
        return None;
    }
    let case = Case::new(PIPELINE);
    case.create_topic(4);
    Some(case)
}

fn send(case: &Case, numbers: std::ops::Range<usize>) {
    let record = |i: usize| (Some(format!("key{i}").into_bytes()), Some(format!("{{\"n\":{i}}}").into_bytes()));
    case.produce_to(&case.topic, numbers.map(record));
}

fn check(service: &Service, count: usize) {
    let rows = service.rows("SELECT * FROM total", "latest");
    assert_eq!(rows, [json!({"c": count, "s": count * (count - 1) / 2})]);
}

/// The names of a role's groups that the broker knows of a case's prefix.
pub(crate) fn groups_of(case: &Case, role: &str) -> Vec<String> {
    let brokers = brokers().expect("a broker");
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().expect("a consumer");
    let list = consumer.fetch_group_list(None, Duration::from_secs(10)).expect("the broker says");
    let prefix = format!("{}.e.{role}.", case.topic);
    list.groups().iter().map(|group| group.name().to_string()).filter(|name| name.starts_with(&prefix)).collect()
}

fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.expect("cp runs").success());
}

#[test]
fn two_installations_with_one_prefix_each_see_all_events() {
    let Some(case) = case() else { return };
    let other = case.another();
    let (mut one, two) = (case.start("up"), other.start("up"));
    let mut end = 0;
    for _ in 0..3 {
        send(&case, end..end + 100);
        end += 100;
        check(&one, end);
        check(&two, end);
    }
    for role in ["speed", "collect"] {
        assert_eq!(groups_of(&case, role).len(), 2, "{role}: {:?}", groups_of(&case, role));
    }
    one.kill();
    send(&case, end..end + 100);
    end += 100;
    check(&two, end);
    let one = case.start("up");
    check(&one, end);
    assert_eq!(groups_of(&case, "speed").len(), 2, "an installation keeps its id: {:?}", groups_of(&case, "speed"));
    for (case, service) in [(&case, &one), (&other, &two)] {
        assert_eq!(case.run(&["batch", "run", "--at-least", "latest", "--url", &service.url]).code, Some(0));
        check(service, end);
        verify(case, service, "two installations");
        let audit = case.run(&["audit", "e", "--output", "json"]);
        assert_eq!(audit.code, Some(0), "{}", audit.stderr);
        let partitions: Vec<_> = audit.json().into_iter().filter(|row| row["view"].is_null()).collect();
        assert_eq!(partitions.iter().filter_map(|row| row["records"].as_u64()).sum::<u64>(), end as u64);
        assert!(partitions.iter().all(|row| row["behind"] == 0), "{partitions:?}");
    }
}

#[test]
fn a_copied_store_takes_nothing_from_the_one_it_was_copied_from() {
    let Some(case) = case() else { return };
    let one = case.start("up");
    send(&case, 0..100);
    check(&one, 100);
    let other = case.another();
    copy(&case.path("data"), &other.path("data"));
    let two = other.start("up");
    send(&case, 100..200);
    check(&one, 200);
    check(&two, 200);
    assert_eq!(groups_of(&case, "speed").len(), 2, "{:?}", groups_of(&case, "speed"));
}

#[test]
fn a_partition_that_nobody_reads_is_not_ready() {
    let Some(case) = case() else { return };
    let roles = Roles::new(&case);
    let (speed, serve) = (roles.start("speed"), roles.start("serve"));
    send(&case, 0..100);
    speed.wait("all is folded", |_| speed.get("/metrics").text.contains("bifold_folded_timestamp_seconds"));
    // Something else becomes a member of the group, and reads nothing.
    let group = groups_of(&case, "speed").pop().expect("the group");
    let stranger: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers().expect("a broker"))
        .set("group.id", &group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .create()
        .expect("a consumer");
    stranger.subscribe(&[&case.topic]).expect("it joins");
    let given = |stranger: &BaseConsumer| {
        stranger.poll(Duration::from_millis(200));
        stranger.assignment().expect("it has one").count()
    };
    let until = Instant::now() + Duration::from_secs(60);
    while given(&stranger) == 0 {
        assert!(Instant::now() < until, "the stranger gets no partition: {}", speed.stderr());
    }
    stranger.pause(&stranger.assignment().expect("it has one")).expect("it reads nothing");
    send(&case, 100..200);
    let until = Instant::now() + Duration::from_secs(150);
    loop {
        given(&stranger);
        let ready = speed.get("/readyz");
        if ready.status == 503 && ready.text.contains("nobody reads") {
            assert!(ready.text.contains(&case.topic) && ready.text.contains(&group), "{}", ready.text);
            break;
        }
        assert!(Instant::now() < until, "{} {}", ready.status, ready.text);
    }
    let metrics = speed.get("/metrics").text;
    assert!(metrics.contains("bifold_unread_partitions{source=\"e\",role=\"speed\"} 2"), "{metrics}");
    let lag: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("bifold_lag_offsets"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum();
    assert!(lag > 0.0, "{metrics}");
    // It goes: all is read, and all is well.
    drop(stranger);
    speed.wait("it is ready", |_| speed.get("/readyz").status == 200);
    check(&serve, 200);
}
