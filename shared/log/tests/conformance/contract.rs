//! What every log keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bifold_ledger::{Offsets, TopicPartition};
use bifold_log::murmur2::partition_of;
use bifold_log::{Bounds, Error, NewRecord};

use crate::subject::{PATIENCE, Seen, Subject, end, eventually, keyed, start, starts, unkeyed};

pub(crate) fn describe_tells_topics_and_omits_missing_ones(on: &Subject) {
    let (one, three, missing) = (on.topic(1), on.topic(3), on.name());
    let described = on.describe(&[&one, &missing, &three]);
    assert_eq!(described.keys().collect::<BTreeSet<_>>(), BTreeSet::from([&one, &three]));
    assert_eq!((described[&one].partitions, described[&three].partitions), (1, 3));
    assert_ne!(described[&one].id, described[&three].id);
    assert!(!described[&one].id.is_empty());

    on.append_numbers(&one, 10);
    assert_eq!(on.describe(&[&three, &one]), described, "ids are stable");
    assert!(on.describe(&[&missing]).is_empty());
}

pub(crate) fn describe_takes_no_names_and_names_twice(on: &Subject) {
    let topic = on.topic(1);
    assert!(on.describe(&[]).is_empty());
    assert_eq!(on.describe(&[&topic, &topic]), on.describe(&[&topic]));
}

pub(crate) fn creating_a_topic_again_leaves_it_as_it_is(on: &Subject) {
    let topic = on.topic(2);
    let (described, ends) = (on.describe(&[&topic]), on.append(&topic, vec![keyed("a", "1")]));
    on.runtime.block_on(on.log.create_topic(&topic, 5)).expect("a topic that exists is no failure");
    assert_eq!(on.describe(&[&topic]), described);
    assert_eq!(on.read(&starts(&topic, 2)).until(&ends).len(), 1);
}

pub(crate) fn append_gives_the_end_of_each_partition_that_got_records(on: &Subject) {
    let topic = on.topic(4);
    assert!(on.append(&topic, vec![]).is_empty());
    let mut total = Offsets::default();
    for round in 0..5 {
        let records: Vec<_> = (0..40).map(|i| keyed(&format!("key {}", i * round), "v")).collect();
        let keys = records.iter().map(|record| record.key.as_deref().expect("keyed"));
        let mut expected = Offsets::default();
        for partition in keys.map(|key| partition_of(key, 4)) {
            let at = TopicPartition::new(&topic, partition);
            let next = expected.get(&at).unwrap_or(total.or_zero(&at)) + 1;
            expected.advance(&at, next);
        }
        assert_eq!(on.append(&topic, records), expected, "round {round}");
        total = total.max(&expected);
    }
    for (at, next) in total.iter() {
        assert_eq!(on.bounds(&at.topic, at.partition), Bounds { earliest: 0, end: next });
    }
}

pub(crate) fn a_reader_of_little_memory_reads_everything(on: &Subject) {
    let topic = on.topic(3);
    // Together more than it fetches at once, and far more than it fetches ahead.
    let large = "x".repeat(700_000);
    let mut ends = Offsets::default();
    for round in 0..4 {
        let small = (0..1000).map(|i| keyed(&format!("{round} {i}"), "small"));
        ends = ends.max(&on.append(&topic, small.chain([keyed("a", &large), keyed("a", &large)]).collect()));
    }
    let mut reading = on.read_within(&starts(&topic, 3), 1 << 20);
    let seen = reading.until(&ends);
    assert_eq!(seen.len(), 4 * 1002);
    assert_eq!(seen.iter().filter(|record| record.text().len() == large.len()).count(), 8);
}

pub(crate) fn append_to_a_missing_topic_fails_and_creates_nothing(on: &Subject) {
    let missing = on.name();
    for _ in 0..2 {
        let error = on.try_append(&missing, vec![unkeyed("lost")]).expect_err("there is no such topic");
        assert!(matches!(error, Error::Missing { .. } | Error::Unavailable { .. }), "{error}");
        assert!(on.describe(&[&missing]).is_empty(), "the append created the topic");
    }
}

pub(crate) fn a_topic_created_after_a_failed_append_takes_records(on: &Subject) {
    let topic = on.name();
    on.try_append(&topic, vec![unkeyed("early")]).expect_err("there is no such topic yet");
    on.create(&topic, 1);
    eventually("the topic takes records", || match on.try_append(&topic, vec![unkeyed("late")]) {
        Ok(_) => true,
        Err(error) if error.is_transient() => false,
        Err(error) => panic!("{error}"),
    });
    let mut reading = on.read(&starts(&topic, 1));
    reading.until(&end(&topic, 0, on.bounds(&topic, 0).end));
    assert!(reading.texts().contains(&"late"));
}

pub(crate) fn keyed_records_land_by_murmur2_in_order(on: &Subject) {
    let topic = on.topic(4);
    let keys: Vec<Vec<u8>> =
        (0..50u8).map(|i| vec![i.wrapping_mul(77); usize::from(i)]).chain([b"\xff\x00\n".to_vec()]).collect();
    assert_eq!(keys[0], b"", "the empty key is one of them");
    let mut ends = Offsets::default();
    for round in 0..4 {
        let records = (0..2_000).map(|i| {
            let value = format!("{}", round * 2_000 + i);
            NewRecord { key: Some(keys[(i * 7) % keys.len()].clone()), value: Some(value.into()) }
        });
        ends = ends.max(&on.append(&topic, records.collect()));
    }
    let mut reading = on.read_with_keys(&starts(&topic, 4));
    let seen = reading.until(&ends);
    assert_eq!(seen.len(), 8_000);
    let mut last: BTreeMap<&[u8], usize> = BTreeMap::new();
    for record in seen {
        let key = record.key.as_deref().expect("keys are delivered");
        assert_eq!(record.at.partition, partition_of(key, 4), "{key:?}");
        let number = record.text().parse().expect("a number");
        assert!(last.insert(key, number).is_none_or(|before| before < number), "{key:?} lost its order");
    }
    assert_eq!(last.len(), keys.len());
}

pub(crate) fn records_without_a_key_are_spread(on: &Subject) {
    let topic = on.topic(2);
    let mut ends = Offsets::default();
    let mut appended = 0;
    eventually("both partitions have records", || {
        ends = std::mem::take(&mut ends).max(&on.append(&topic, vec![unkeyed("spread"); 16]));
        appended += 16;
        ends.iter().count() == 2
    });
    let mut reading = on.read_with_keys(&starts(&topic, 2));
    let seen = reading.until(&ends);
    assert_eq!(seen.len(), appended);
    assert!(seen.iter().all(|record| record.key.is_none()));
}

pub(crate) fn tombstones_and_empty_values_are_told_apart(on: &Subject) {
    let topic = on.topic(1);
    let bytes = |text: Option<&str>| text.map(|text| text.as_bytes().to_vec());
    let pairs: Vec<_> = [
        (Some("k"), None),
        (Some("k"), Some("")),
        (Some(""), None),
        (Some(""), Some("")),
        (None, None),
        (None, Some("")),
        (Some("k"), Some("v")),
    ]
    .map(|(key, value)| (bytes(key), bytes(value)))
    .into();
    let ends = on.append(&topic, pairs.iter().map(|(k, v)| NewRecord { key: k.clone(), value: v.clone() }).collect());
    let mut reading = on.read_with_keys(&starts(&topic, 1));
    let seen: Vec<_> = reading.until(&ends).iter().map(|record| (record.key.clone(), record.value.clone())).collect();
    assert_eq!(seen, pairs);
}

pub(crate) fn keys_are_delivered_only_if_asked_for(on: &Subject) {
    let topic = on.topic(1);
    let ends = on.append_numbers(&topic, 600);
    let (mut with, mut without) = (on.read_with_keys(&starts(&topic, 1)), on.read(&starts(&topic, 1)));
    let (with, without) = (with.until(&ends), without.until(&ends));
    assert!(with.iter().all(|record| record.key.as_deref() == Some(b"k")));
    let stripped: Vec<_> = with.iter().map(|record| Seen { key: None, ..record.clone() }).collect();
    assert_eq!(stripped, without);
}

pub(crate) fn timestamps_are_those_of_the_append(on: &Subject) {
    let topic = on.topic(1);
    let ends = on.append_numbers(&topic, 3);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    for record in on.read(&starts(&topic, 1)).until(&ends) {
        // The broker's clock may be another one.
        assert!((now - record.timestamp_ms).abs() < 3_600_000, "{} is not near {now}", record.timestamp_ms);
    }
}

pub(crate) fn concurrent_appends_are_all_kept(on: &Subject) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 10;
    const RECORDS: usize = 30;
    let topic = on.topic(3);
    let ends = std::thread::scope(|scope| {
        let write = |writer: usize| {
            let mut ends = Offsets::default();
            for round in 0..ROUNDS {
                let records =
                    (0..RECORDS).map(|i| keyed(&format!("writer {writer}"), &format!("{}", round * RECORDS + i)));
                ends = ends.max(&on.append(&topic, records.collect()));
            }
            ends
        };
        let topic_writers: Vec<_> = (0..WRITERS).map(|writer| scope.spawn(move || write(writer))).collect();
        let ends = topic_writers.into_iter().map(|writer| writer.join().expect("a writer ends"));
        ends.fold(Offsets::default(), |all, ends| all.max(&ends))
    });
    let mut reading = on.read_with_keys(&starts(&topic, 3));
    let seen = reading.until(&ends);
    let mut by_writer: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
    for record in seen {
        let numbers = by_writer.entry(record.key.as_deref().expect("keys are delivered")).or_default();
        numbers.push(record.text().parse().expect("a number"));
    }
    assert_eq!(by_writer.len(), WRITERS);
    for (writer, numbers) in by_writer {
        let expected: Vec<_> = (0..ROUNDS * RECORDS).collect();
        assert_eq!(numbers, expected, "{}", String::from_utf8_lossy(writer));
    }
}

pub(crate) fn reading_starts_at_any_offset(on: &Subject) {
    let topic = on.topic(1);
    // Two appends, so that a start falls on, before and behind a boundary of what is stored together.
    on.append_numbers(&topic, 700);
    let ends = on.append_numbers(&topic, 700);
    for next in [0, 1, 511, 512, 513, 699, 700, 701, 1_211, 1_212, 1_399, 1_400] {
        let mut reading = on.read(&[start(&topic, 0, next)]);
        reading.until(&ends);
        assert_eq!(reading.offsets(), (next..1_400).collect::<Vec<_>>(), "from {next}");
        assert!(reading.seen.iter().all(|record| record.text() == (record.offset % 700).to_string()));
    }
}

pub(crate) fn reading_from_the_end_brings_only_what_follows(on: &Subject) {
    let topic = on.topic(1);
    on.append_numbers(&topic, 100);
    let mut reading = on.read(&[start(&topic, 0, 100)]);
    reading.expect_nothing();
    for round in 0..3 {
        let ends = on.append(&topic, vec![keyed("k", "new")]);
        reading.until(&ends);
        assert_eq!(reading.offsets(), (100..=100 + round).collect::<Vec<_>>());
    }
    reading.expect_nothing();
}

pub(crate) fn positions_reach_the_end_of_every_partition(on: &Subject) {
    let (four, one) = (on.topic(4), on.topic(1));
    let records = (0..1_000).map(|i| keyed(&format!("{}", i % 13), "v")).collect();
    let ends = on.append(&four, records).max(&on.append_numbers(&one, 5));
    let assigned: Vec<_> = starts(&four, 4).into_iter().chain(starts(&one, 1)).collect();
    let mut reading = on.read(&assigned);
    assert_eq!(reading.until(&ends).len(), 1_005);
    for (at, next) in reading.positions().iter() {
        assert_eq!(on.bounds(&at.topic, at.partition).end, next, "{at}");
    }
    reading.expect_nothing();
}

pub(crate) fn a_new_assignment_forgets_the_one_before(on: &Subject) {
    let (first, second) = (on.topic(1), on.topic(1));
    on.append_numbers(&first, 20_000);
    on.append_numbers(&second, 1_000);
    let mut reading = on.read(&starts(&first, 1));
    // Forth, back, to the same place and to another topic, with more or less of the last assignment still under way.
    let jumps = [500, 10, 10, 19_990, 0, 7_777, 512, 5_000, 4_999, 5_001];
    for (round, next) in jumps.into_iter().cycle().take(40).enumerate() {
        let (topic, next, last) = match round % 4 {
            3 => (&second, next.min(900), 1_000),
            _ => (&first, next, 20_000),
        };
        reading.assign(&[start(topic, 0, next)]);
        let wanted = (5 * (round as i64 % 3)).min(last - next);
        reading.until_by(&end(topic, 0, next + wanted), 5);
        let offsets = reading.offsets();
        assert_eq!(offsets, (next..next + offsets.len() as i64).collect::<Vec<_>>(), "round {round} from {next}");
        assert!(reading.seen.iter().all(|record| record.text() == record.offset.to_string()), "round {round}");
    }
}

pub(crate) fn an_empty_assignment_reads_nothing(on: &Subject) {
    let topic = on.topic(1);
    on.append_numbers(&topic, 2_000);
    let mut reading = on.read(&[]);
    reading.expect_nothing();
    reading.assign(&starts(&topic, 1));
    reading.until_by(&end(&topic, 0, 10), 10);
    reading.assign(&[]);
    reading.expect_nothing();
}

pub(crate) fn max_records_bounds_a_chunk_and_nothing_is_lost(on: &Subject) {
    let topic = on.topic(3);
    let records = (0..3_000).map(|i| keyed(&format!("{}", i % 11), &i.to_string())).collect();
    let ends = on.append(&topic, records);
    for max_records in [1, 7, 1_000] {
        let mut reading = on.read(&starts(&topic, 3));
        let numbers = reading.until_by(&ends, max_records).iter().map(|record| record.text().to_string());
        let expected: BTreeSet<_> = (0..3_000).map(|i| i.to_string()).collect();
        assert_eq!(numbers.collect::<BTreeSet<_>>(), expected, "{max_records} a poll");
        assert_eq!(reading.seen.len(), 3_000);
    }
}

pub(crate) fn values_beyond_one_chunk_all_arrive(on: &Subject) {
    let topic = on.topic(1);
    let value = |i: u8| vec![i; 900_000 + usize::from(i)];
    let mut ends = Offsets::default();
    for i in 0..40 {
        ends = on.append(&topic, vec![NewRecord { key: None, value: Some(value(i)) }]);
    }
    let mut reading = on.read(&starts(&topic, 1));
    reading.until(&ends);
    assert_eq!(reading.seen.len(), 40);
    assert!((0..40).zip(&reading.seen).all(|(i, record)| record.value == Some(value(i))));
}

pub(crate) fn poll_wakes_upon_an_append(on: &Subject) {
    let topic = on.topic(1);
    let mut reading = on.read(&starts(&topic, 1));
    for round in 0..3 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(500));
                on.append(&topic, vec![unkeyed("wake")]);
            });
            let asked = Instant::now();
            // Events that bring nothing may end a poll early.
            while reading.poll(1_000, 2 * PATIENCE).expect("the reader reads") == 0 {}
            assert!(asked.elapsed() < PATIENCE, "the append did not wake the reader");
        });
        assert_eq!(reading.seen.len(), round + 1);
    }
}

pub(crate) fn poll_of_a_quiet_log_ends(on: &Subject) {
    let topic = on.topic(1);
    let mut reading = on.read(&starts(&topic, 1));
    let asked = Instant::now();
    for wait_ms in [0, 1, 200] {
        assert_eq!(reading.poll(1_000, Duration::from_millis(wait_ms)).expect("the reader reads"), 0);
    }
    assert!(asked.elapsed() < PATIENCE);
}

pub(crate) fn readers_do_not_disturb_each_other(on: &Subject) {
    let topic = on.topic(1);
    let ends = on.append_numbers(&topic, 1_000);
    let (mut one, mut other) = (on.read(&starts(&topic, 1)), on.read(&[start(&topic, 0, 400)]));
    one.until_by(&end(&topic, 0, 100), 100);
    other.until(&ends);
    one.until(&ends);
    assert_eq!(one.offsets(), (0..1_000).collect::<Vec<_>>());
    assert_eq!(other.offsets(), (400..1_000).collect::<Vec<_>>());
}

pub(crate) fn bounds_tell_start_and_end(on: &Subject) {
    let (three, one) = (on.topic(3), on.topic(1));
    assert!(on.try_bounds(&[]).expect("nothing is asked").is_empty());
    let ends = on.append(&three, vec![keyed("a", "1"), keyed("a", "2")]).max(&on.append_numbers(&one, 7));
    let all: Vec<_> = starts(&three, 3).into_iter().chain(starts(&one, 1)).map(|start| start.at).collect();
    let expected = all.iter().map(|at| (at.clone(), Bounds { earliest: 0, end: ends.or_zero(at) })).collect();
    assert_eq!(on.try_bounds(&all).expect("the log tells bounds"), expected);
}

pub(crate) fn bounds_of_what_does_not_exist_are_missing(on: &Subject) {
    let (topic, missing) = (on.topic(3), on.name());
    let there = TopicPartition::new(&topic, 0);
    let not_there = [TopicPartition::new(&topic, 3), TopicPartition::new(&missing, 0)];
    for at in not_there {
        let error = on.try_bounds(&[there.clone(), at.clone()]).expect_err("it does not exist");
        assert!(matches!(error, Error::Missing { .. }), "{at}: {error}");
    }
    assert!(on.describe(&[&missing]).is_empty(), "the question created the topic");
}

pub(crate) fn a_position_beyond_the_end_is_out_of_range(on: &Subject) {
    let topic = on.topic(2);
    on.append(&topic, vec![keyed("a", "1"); 10]);
    let at = TopicPartition::new(&topic, partition_of(b"a", 2));
    for beyond in [11, 1_000_000_000_000] {
        let mut reading = on.read(&[start(&topic, at.partition, beyond)]);
        match reading.failure() {
            Error::OutOfRange { at: told, next } => assert_eq!((told, next), (at.clone(), beyond)),
            error => panic!("{error}"),
        }
        reading.assign(&[start(&topic, at.partition, 9)]);
        reading.until(&end(&topic, at.partition, 10));
        assert_eq!(reading.offsets(), [9]);
    }
}

pub(crate) fn other_partitions_go_on_after_one_is_out_of_range(on: &Subject) {
    let (good, bad) = (on.topic(1), on.topic(1));
    let ends = on.append_numbers(&good, 1_000);
    let mut reading = on.read(&[start(&good, 0, 0), start(&bad, 0, 3)]);
    let error = reading.failure();
    assert!(matches!(&error, Error::OutOfRange { at, next: 3 } if at.topic == bad), "{error}");
    // Only what was delivered counts: a chunk that failed brought nothing.
    let delivered = reading.positions().or_zero(&TopicPartition::new(&good, 0));
    reading.assign(&[start(&good, 0, delivered)]);
    reading.until(&ends);
    assert_eq!(reading.offsets(), (delivered..1_000).collect::<Vec<_>>());
}
