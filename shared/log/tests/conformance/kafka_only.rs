//! What Kafka's log promises beyond the contract: the work of foreign producers, brokers and administrators.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bifold_ledger::TopicPartition;
use bifold_log::{Error, KafkaLog, Log, Member, Owned, Start, Turn};
use rdkafka::admin::AdminOptions;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::subject::{PATIENCE, Subject, end, eventually, start, starts, unkeyed};

/// A producer that is not the log's own.
fn foreign(on: &Subject, properties: &[(&str, &str)]) -> BaseProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &on.brokers);
    for (name, value) in properties {
        config.set(*name, *value);
    }
    config.create().expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, values: impl IntoIterator<Item = String>) {
    for value in values {
        let record = BaseRecord::<(), str>::to(topic).partition(0).payload(&value);
        producer.send(record).map_err(|(error, _)| error).expect("the producer takes a record");
    }
    producer.flush(PATIENCE).expect("the broker takes the records");
}

/// Waits for a partition's end: markers are written after a transaction's end has been acknowledged.
fn await_end(on: &Subject, topic: &str, end: i64) {
    eventually("the markers are written", || on.bounds(topic, 0).end >= end);
    assert_eq!(on.bounds(topic, 0).end, end);
}

/// A producer of transactions.
struct Transactions<'a> {
    producer: BaseProducer,
    topic: &'a str,
}

impl<'a> Transactions<'a> {
    fn new(on: &Subject, topic: &'a str) -> Self {
        let producer = foreign(on, &[("transactional.id", topic)]);
        producer.init_transactions(PATIENCE).expect("the broker knows transactions");
        Self { producer, topic }
    }

    /// Begins a transaction and sends records, which are in the log afterwards.
    fn begin(&self, values: &[&str]) {
        self.producer.begin_transaction().expect("no other transaction is open");
        send(&self.producer, self.topic, values.iter().map(|value| value.to_string()));
    }

    fn commit(&self) {
        self.producer.commit_transaction(PATIENCE).expect("the transaction is committed");
    }

    fn abort(&self) {
        self.producer.abort_transaction(PATIENCE).expect("the transaction is aborted");
    }

    /// Offsets 0 to 4 committed, 6 to 8 aborted, 10 and 11 committed; markers at 5, 9 and 12.
    fn commit_abort_commit(&self) {
        self.begin(&["0", "1", "2", "3", "4"]);
        self.commit();
        self.begin(&["6", "7", "8"]);
        self.abort();
        self.begin(&["10", "11"]);
        self.commit();
    }
}

pub(crate) fn aborted_records_are_invisible_and_positions_pass_markers(on: &Subject) {
    let topic = on.topic(1);
    Transactions::new(on, &topic).commit_abort_commit();
    await_end(on, &topic, 13);
    for max_records in [1, 1_000] {
        let mut reading = on.read(&starts(&topic, 1));
        reading.until_by(&end(&topic, 0, 13), max_records);
        assert_eq!(reading.offsets(), [0, 1, 2, 3, 4, 10, 11]);
        assert_eq!(reading.texts(), ["0", "1", "2", "3", "4", "10", "11"]);
    }
}

pub(crate) fn reading_may_start_on_a_marker_or_in_an_aborted_range(on: &Subject) {
    let topic = on.topic(1);
    Transactions::new(on, &topic).commit_abort_commit();
    for next in 0..=13 {
        let mut reading = on.read(&[start(&topic, 0, next)]);
        reading.until(&end(&topic, 0, 13));
        let expected: Vec<_> = [0, 1, 2, 3, 4, 10, 11].into_iter().filter(|offset| *offset >= next).collect();
        assert_eq!(reading.offsets(), expected, "from {next}");
    }
}

pub(crate) fn records_behind_an_open_transaction_wait_for_its_end(on: &Subject) {
    let topic = on.topic(1);
    let transactions = Transactions::new(on, &topic);
    on.append(&topic, vec![unkeyed("before"); 3]);
    transactions.begin(&["3", "4"]);
    on.append(&topic, vec![unkeyed("after")]);
    assert_eq!(on.bounds(&topic, 0).end, 3, "the last stable offset");
    let mut reading = on.read(&starts(&topic, 1));
    reading.until(&end(&topic, 0, 3));
    reading.expect_nothing();
    transactions.commit();
    // The marker comes last.
    reading.until(&end(&topic, 0, 7));
    assert_eq!(reading.texts(), ["before", "before", "before", "3", "4", "after"]);
    await_end(on, &topic, 7);
}

pub(crate) fn a_waiting_reader_passes_an_aborted_transaction(on: &Subject) {
    let topic = on.topic(1);
    let transactions = Transactions::new(on, &topic);
    let mut reading = on.read(&starts(&topic, 1));
    reading.expect_nothing();
    for round in 1..=3 {
        transactions.begin(&["nobody", "sees", "this"]);
        transactions.abort();
        await_end(on, &topic, 4 * round);
        reading.until(&end(&topic, 0, 4 * round));
        assert!(reading.seen.is_empty());
    }
}

pub(crate) fn headers_are_delivered_only_if_asked_for(on: &Subject) {
    let topic = on.topic(1);
    let producer = foreign(on, &[]);
    let mut headers = OwnedHeaders::new();
    let sent = [("trace", Some("1")), ("trace", Some("2")), ("empty", Some("")), ("none", None)];
    for (key, value) in sent {
        headers = headers.insert(Header { key, value });
    }
    let with = BaseRecord::to(&topic).partition(0).key("key").payload("with").headers(headers);
    let without = BaseRecord::to(&topic).partition(0).key("key").payload("without");
    for record in [with, without] {
        producer.send(record).map_err(|(error, _)| error).expect("the producer takes a record");
    }
    producer.flush(PATIENCE).expect("the broker takes the records");

    let mut reading = on.read_with_keys(&starts(&topic, 1));
    let seen = reading.until(&end(&topic, 0, 2));
    let expected = sent.map(|(name, value)| (name.to_string(), value.map(|value| value.as_bytes().to_vec())));
    assert_eq!(seen[0].headers, expected);
    assert!(seen[1].headers.is_empty());
    assert!(seen.iter().all(|record| record.key.as_deref() == Some(b"key")));
    assert_eq!(reading.texts(), ["with", "without"]);

    let mut reading = on.read(&starts(&topic, 1));
    assert!(reading.until(&end(&topic, 0, 2)).iter().all(|record| record.headers.is_empty()));
}

pub(crate) fn timestamps_of_foreign_records_are_delivered(on: &Subject) {
    let topic = on.topic(1);
    let producer = foreign(on, &[]);
    // Out of order, and as old as records may be.
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_millis() as i64;
    let sent = [now, now - 86_400_000, now - 3_600_000, now - 1];
    for timestamp in sent {
        let record = BaseRecord::<(), str>::to(&topic).partition(0).payload("v").timestamp(timestamp);
        producer.send(record).map_err(|(error, _)| error).expect("the producer takes a record");
    }
    producer.flush(PATIENCE).expect("the broker takes the records");
    let mut reading = on.read(&starts(&topic, 1));
    let seen = reading.until(&end(&topic, 0, 4));
    assert_eq!(seen.iter().map(|record| record.timestamp_ms).collect::<Vec<_>>(), sent);
}

pub(crate) fn topics_of_every_compression_are_readable(on: &Subject) {
    let topic = on.topic(1);
    let value = |codec: &str, i: usize| format!("{codec} {i} {}", "compressible ".repeat(20));
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let producer = foreign(on, &[("compression.codec", codec), ("linger.ms", "50")]);
        send(&producer, &topic, (0..200).map(|i| value(codec, i)));
    }
    let mut reading = on.read(&starts(&topic, 1));
    reading.until(&end(&topic, 0, 1_000));
    let expected: Vec<_> = codecs.iter().flat_map(|codec| (0..200).map(|i| value(codec, i))).collect();
    assert_eq!(reading.texts(), expected);
}

pub(crate) fn deleted_records_are_out_of_range(on: &Subject) {
    let topic = on.topic(1);
    let ends = on.append_numbers(&topic, 100);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic, 0, Offset::Offset(40)).expect("an offset");
    on.runtime.block_on(on.admin().delete_records(&list, &AdminOptions::new())).expect("records are deleted");
    assert_eq!((on.bounds(&topic, 0).earliest, on.bounds(&topic, 0).end), (40, 100));

    let at = TopicPartition::new(&topic, 0);
    for (next, leader_epoch) in [(0, None), (39, None), (10, Some(0))] {
        let mut reading = on.read(&[Start { at: at.clone(), next, leader_epoch }]);
        match reading.failure() {
            Error::OutOfRange { at: told, next: position } => assert_eq!((told, position), (at.clone(), next)),
            error => panic!("{error}"),
        }
        reading.assign(&[start(&topic, 0, 40)]);
        reading.until(&ends);
        assert_eq!(reading.offsets(), (40..100).collect::<Vec<_>>());
    }
}

pub(crate) fn a_recreated_topic_has_another_id(on: &Subject) {
    let topic = on.topic(2);
    on.append(&topic, vec![unkeyed("old"); 10]);
    let old = on.describe(&[&topic]);
    on.delete_topics(&[&topic]);
    eventually("the topic is gone", || on.describe(&[&topic]).is_empty());
    on.create(&topic, 1);
    let new = on.describe(&[&topic]);
    assert_ne!(new[&topic].id, old[&topic].id);
    assert_eq!(new[&topic].partitions, 1);
    assert_eq!(on.bounds(&topic, 0).end, 0);
    // The log's producer has to learn of it.
    eventually("the new topic takes records", || match on.try_append(&topic, vec![unkeyed("new")]) {
        Ok(_) => true,
        Err(error) if error.is_transient() => false,
        Err(error) => panic!("{error}"),
    });
    let mut reading = on.read(&starts(&topic, 1));
    reading.until(&end(&topic, 0, on.bounds(&topic, 0).end));
    assert!(reading.texts().iter().all(|text| *text == "new"));
}

pub(crate) fn leader_epochs_come_with_positions(on: &Subject) {
    let topic = on.topic(1);
    let ends = on.append_numbers(&topic, 10);
    let mut reading = on.read(&starts(&topic, 1));
    reading.until_by(&ends, 3);
    assert!(reading.epochs[0].is_some_and(|epoch| epoch >= 0), "{:?}", reading.epochs);
    let transactions = Transactions::new(on, &topic);
    transactions.begin(&["nobody sees this"]);
    transactions.abort();
    reading.until(&end(&topic, 0, 12));
    assert_eq!(reading.epochs[0], None, "the epoch of the last record need not be that of the marker");
}

pub(crate) fn an_assignment_takes_leader_epochs(on: &Subject) {
    let topic = on.topic(1);
    let ends = on.append_numbers(&topic, 100);
    let mut reading = on.read(&starts(&topic, 1));
    reading.until(&ends);
    let leader_epoch = reading.epochs[0];
    for next in [0, 30, 100, 1] {
        reading.assign(&[Start { at: TopicPartition::new(&topic, 0), next, leader_epoch }]);
        reading.until(&ends);
        assert_eq!(reading.offsets(), (next..100).collect::<Vec<_>>());
    }
}

pub(crate) fn a_position_beyond_the_end_of_its_leader_epoch_is_truncated(on: &Subject) {
    let topic = on.topic(1);
    let ends = on.append_numbers(&topic, 10);
    let mut first = on.read(&starts(&topic, 1));
    first.until(&ends);
    let leader_epoch = first.epochs[0];
    assert!(leader_epoch.is_some());
    // As if ten more records of this epoch had been read before an unclean election dropped them.
    let lost = Start { at: TopicPartition::new(&topic, 0), next: 20, leader_epoch };
    let mut restarted = on.read(std::slice::from_ref(&lost));
    first.assign(std::slice::from_ref(&lost));
    for (reading, which) in [(&mut restarted, "a new reader"), (&mut first, "a reader that has read before")] {
        match reading.failure() {
            Error::Truncated { at, next, .. } => assert_eq!((at, next), (lost.at.clone(), 20), "{which}"),
            error => panic!("{which}: {error}"),
        }
        reading.assign(&[start(&topic, 0, 5)]);
        reading.until(&ends);
        assert_eq!(reading.offsets(), [5, 6, 7, 8, 9], "{which}");
    }
}

pub(crate) fn a_record_beyond_the_limit_is_refused_for_good(on: &Subject) {
    let topic = on.topic(1);
    // Digits that do not compress: brokers limit what arrives, after compression.
    let mut state = 1u64;
    let mut digit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + ((state >> 33) % 90) as u8)
    };
    let large: String = (0..4_000_000).map(|_| digit()).collect();
    let error = on.try_append(&topic, vec![unkeyed(&large)]).expect_err("it is too large");
    assert!(!error.is_transient(), "{error}");
    let ends = on.append(&topic, vec![unkeyed("small")]);
    assert_eq!(ends, end(&topic, 0, 1));
}

pub(crate) fn committed_positions_are_seen_by_monitoring_tools(on: &Subject) {
    let topic = on.topic(2);
    let group = format!("bifold-conformance-{}", uuid::Uuid::new_v4());
    let mut member = on.log.join(&group, std::slice::from_ref(&topic)).expect("a group takes members");
    eventually("the group is formed", || {
        member.poll().expect("the group is there");
        matches!(member.owned(), Owned::These(_))
    });
    let tool: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &on.brokers)
        .set("group.id", &group)
        .create()
        .expect("a consumer of the group");
    let mut list = TopicPartitionList::new();
    list.add_partition(&topic, 1);
    for next in [3, 7] {
        let committed = end(&topic, 1, next);
        eventually("the group is at the position", || {
            member.commit(&committed);
            member.poll().expect("the group is there");
            let told = tool.committed_offsets(list.clone(), Duration::from_secs(10)).expect("the group's positions");
            told.elements()[0].offset() == Offset::Offset(next)
        });
    }
}

/// Polls all members until each partition has one owner. A member that has to release something does so `after` it was asked.
fn settle(members: &mut [Box<dyn Member>], partitions: usize, mut after: impl FnMut(usize, &dyn Member)) {
    eventually("every partition has one owner", || {
        for (i, member) in members.iter_mut().enumerate() {
            if member.poll().expect("the group is there") == Turn::Release {
                after(i, &**member);
                member.release();
            }
        }
        let sets: Vec<_> = members.iter().map(|member| member.owned()).collect();
        let mut all = std::collections::BTreeSet::new();
        let mut count = 0;
        for set in &sets {
            let Owned::These(set) = set else { return false };
            count += set.len();
            all.extend(set.iter().cloned());
        }
        count == partitions && all.len() == partitions && sets.iter().all(|set| *set != Owned::These([].into()))
    });
}

pub(crate) fn members_share_partitions_and_release_before_others_take(on: &Subject) {
    let topic = on.topic(6);
    let group = format!("bifold-conformance-{}", uuid::Uuid::new_v4());
    let join = || on.log.join(&group, std::slice::from_ref(&topic)).expect("a group takes members");
    let mut members = vec![join()];
    assert_eq!(members[0].owned(), Owned::All, "nobody else is there: it begins at once");
    settle(&mut members, 6, |_, _| panic!("nobody takes anything away"));
    members.push(join());
    assert!(members[1].owned() != Owned::Unknown || !members[1].owned().holds(&TopicPartition::new(&topic, 0)));
    let mut asked = 0;
    settle(&mut members, 6, |i, member| {
        assert_eq!(i, 0, "the newcomer has nothing to give");
        assert!(matches!(member.owned(), Owned::These(set) if set.len() == 6), "owned until it is released");
        asked += 1;
    });
    assert_eq!(asked, 1);
    members.push(join());
    assert_eq!(members[2].owned(), Owned::Unknown, "two are there: it waits for its share");
    settle(&mut members, 6, |_, _| {});
    // One leaves in order: the others have everything soon.
    drop(members.remove(1));
    settle(&mut members, 6, |_, _| {});
    drop(members.remove(0));
    settle(&mut members, 6, |_, _| {});
}

/// `BIFOLD_TEST_KAFKA_RESTART` is a shell command that restarts the broker and returns when it is ready. The leader epoch
/// rises with that.
#[test]
#[ignore = "restarts the broker, so it runs alone and needs BIFOLD_TEST_KAFKA_RESTART"]
fn a_marker_of_a_later_epoch_does_not_look_like_a_truncation() {
    let Ok(command) = std::env::var("BIFOLD_TEST_KAFKA_RESTART") else { return };
    let restart = || {
        let status = std::process::Command::new("sh").args(["-c", &command]).status().expect("a shell");
        assert!(status.success());
    };
    Subject::on_kafka(|on| {
        let topic = on.topic(1);
        on.append_numbers(&topic, 10);
        let transactions = Transactions::new(on, &topic);
        transactions.begin(&["10", "11", "12"]);
        let mut reading = on.read(&starts(&topic, 1));
        reading.until(&end(&topic, 0, 10));
        let before = reading.epochs[0].expect("the epoch of a record");
        restart();
        transactions.abort();
        reading.until(&end(&topic, 0, 14));

        let at = |leader_epoch| [Start { at: TopicPartition::new(&topic, 0), next: 14, leader_epoch }];
        let mut restarted = on.read(&at(reading.epochs[0]));
        let ends = on.append(&topic, vec![unkeyed("after")]);
        for reading in [&mut reading, &mut restarted] {
            assert_eq!(reading.until(&ends).last().expect("a record").offset, 14);
            assert!(reading.epochs[0].expect("the epoch of a record") > before, "the restart raised no epoch");
        }
        // Epoch and position that do not belong together are what a truncated log looks like.
        for reading in [&mut reading, &mut on.read(&[])] {
            reading.assign(&at(Some(before)));
            let error = reading.failure();
            assert!(matches!(error, Error::Truncated { next: 14, .. }), "{error}");
        }
    });
}

/// Needs no broker.
#[test]
fn an_unreachable_broker_is_unavailable() {
    // Port 1: nobody listens there.
    let log = KafkaLog::new("127.0.0.1:1", &BTreeMap::new()).expect("properties that librdkafka takes");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let asked = Instant::now();
    let error = runtime.block_on(log.describe(&["t".to_string()])).expect_err("nobody answers");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(15), "only after {:?}", asked.elapsed());
    let error = runtime.block_on(log.bounds(&[TopicPartition::new("t", 0)])).expect_err("nobody answers");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    let error = runtime.block_on(log.create_topic("t", 1)).expect_err("nobody answers");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(asked.elapsed() < Duration::from_secs(45), "only after {:?}", asked.elapsed());
}

/// Needs no broker.
#[test]
fn properties_that_librdkafka_refuses_are_invalid() {
    for (name, value) in [("no.such.property", "1"), ("fetch.wait.max.ms", "soon")] {
        let properties = BTreeMap::from([(name.to_string(), value.to_string())]);
        let error = KafkaLog::new("127.0.0.1:1", &properties).expect_err("librdkafka refuses it");
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    }
}
