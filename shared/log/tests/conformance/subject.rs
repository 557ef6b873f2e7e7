//! The log under test, and a reading that checks what every chunk must keep.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use bifold_ledger::{Offsets, TopicPartition};
use bifold_log::{Bounds, Error, KafkaLog, LocalLog, Log, NewRecord, Reader, ReaderOptions, Start, Topic};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tokio::runtime::Runtime;

/// How long anything may take that has to happen: generous, for loaded machines.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long to look for what must not happen.
pub(crate) const QUIET: Duration = Duration::from_millis(700);

/// A log, with blocking calls.
pub(crate) struct Subject {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) runtime: Runtime,
    /// The brokers, if it is Kafka.
    pub(crate) brokers: String,
    topics: Mutex<Vec<String>>,
    _folder: Option<tempfile::TempDir>,
}

impl Subject {
    /// A local log in a folder of its own.
    pub(crate) fn local() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = LocalLog::open(folder.path()).expect("an empty folder can be opened");
        Self::new(Arc::new(log), String::new(), Some(folder))
    }

    /// Runs `check` against Kafka, if there is a broker to run it on.
    pub(crate) fn on_kafka(check: impl FnOnce(&Subject)) {
        static SAID: Once = Once::new();
        match std::env::var("BIFOLD_TEST_KAFKA") {
            Ok(brokers) if !brokers.is_empty() => {
                let log = KafkaLog::new(&brokers, &BTreeMap::new()).expect("properties that librdkafka takes");
                check(&Self::new(Arc::new(log), brokers, None));
            }
            // Not by `eprintln!`, which the test harness would swallow.
            _ => SAID.call_once(|| {
                let line = "BIFOLD_TEST_KAFKA is not set: the checks under kafka:: are not run";
                writeln!(std::io::stderr(), "{line}").expect("standard error takes a line");
            }),
        }
    }

    fn new(log: Arc<dyn Log>, brokers: String, folder: Option<tempfile::TempDir>) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        Self { log, runtime, brokers, topics: Mutex::default(), _folder: folder }
    }

    /// A name that no topic has, deleted at the end should it become one.
    pub(crate) fn name(&self) -> String {
        let name = format!("bifold-conformance-{}", uuid::Uuid::new_v4());
        self.topics.lock().expect("no holder panics").push(name.clone());
        name
    }

    /// A new topic.
    pub(crate) fn topic(&self, partitions: i32) -> String {
        let name = self.name();
        self.create(&name, partitions);
        name
    }

    /// Creates a topic and waits until it can be used: on a cluster the news takes a moment.
    pub(crate) fn create(&self, name: &str, partitions: i32) {
        self.runtime.block_on(self.log.create_topic(name, partitions)).expect("the topic is created");
        let all: Vec<_> = (0..partitions).map(|partition| TopicPartition::new(name, partition)).collect();
        eventually("a new topic is there", || {
            self.describe(&[name]).contains_key(name) && self.try_bounds(&all).is_ok()
        });
    }

    pub(crate) fn describe(&self, names: &[&str]) -> BTreeMap<String, Topic> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        self.runtime.block_on(self.log.describe(&names)).expect("the log describes topics")
    }

    pub(crate) fn try_append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Offsets, Error> {
        self.runtime.block_on(self.log.append(topic, records))
    }

    pub(crate) fn append(&self, topic: &str, records: Vec<NewRecord>) -> Offsets {
        self.try_append(topic, records).expect("the log takes records")
    }

    /// Appends values 0 to `count` as texts to a topic of one partition.
    pub(crate) fn append_numbers(&self, topic: &str, count: usize) -> Offsets {
        self.append(topic, (0..count).map(|i| keyed("k", &i.to_string())).collect())
    }

    pub(crate) fn try_bounds(&self, at: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Bounds>, Error> {
        self.runtime.block_on(self.log.bounds(at))
    }

    pub(crate) fn bounds(&self, topic: &str, partition: i32) -> Bounds {
        let at = TopicPartition::new(topic, partition);
        self.try_bounds(std::slice::from_ref(&at)).expect("the log tells bounds")[&at]
    }

    /// Reads from `starts` on.
    pub(crate) fn read(&self, starts: &[Start]) -> Reading {
        self.read_with(starts, ReaderOptions::default())
    }

    /// Reads from `starts` on, with keys and headers.
    pub(crate) fn read_with_keys(&self, starts: &[Start]) -> Reading {
        self.read_with(starts, ReaderOptions { with_keys: true, ..ReaderOptions::default() })
    }

    /// Reads from `starts` on, in a process of so much memory.
    pub(crate) fn read_within(&self, starts: &[Start], memory: u64) -> Reading {
        self.read_with(starts, ReaderOptions { memory, ..ReaderOptions::default() })
    }

    fn read_with(&self, starts: &[Start], options: ReaderOptions) -> Reading {
        let reader = self.log.reader(options).expect("the log gives readers");
        let mut reading = Reading { reader, starts: vec![], next: vec![], epochs: vec![], seen: vec![] };
        reading.assign(starts);
        reading
    }

    pub(crate) fn admin(&self) -> AdminClient<DefaultClientContext> {
        ClientConfig::new().set("bootstrap.servers", &self.brokers).create().expect("an admin client")
    }

    pub(crate) fn delete_topics(&self, names: &[&str]) {
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        let deleted = self.runtime.block_on(self.admin().delete_topics(names, &options));
        // Some of the names may never have become topics.
        drop(deleted.expect("the broker deletes topics"));
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let topics = std::mem::take(&mut *self.topics.lock().expect("no holder panics"));
        // After a failure they stay, to be looked at.
        if !self.brokers.is_empty() && !topics.is_empty() && !std::thread::panicking() {
            self.delete_topics(&topics.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) at: TopicPartition,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Seen {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.value.as_deref().expect("a value")).expect("a text")
    }
}

/// A reader, where it is and what it has brought. Every chunk is held to what chunks promise.
pub(crate) struct Reading {
    pub(crate) reader: Box<dyn Reader>,
    starts: Vec<Start>,
    next: Vec<i64>,
    /// The leader epoch at each position.
    pub(crate) epochs: Vec<Option<i32>>,
    pub(crate) seen: Vec<Seen>,
}

impl Reading {
    pub(crate) fn assign(&mut self, starts: &[Start]) {
        self.reader.assign(starts).expect("the reader takes an assignment");
        self.starts = starts.to_vec();
        self.next = starts.iter().map(|start| start.next).collect();
        self.epochs = vec![None; starts.len()];
        self.seen.clear();
    }

    /// Polls once and gives how many records came.
    pub(crate) fn poll(&mut self, max_records: usize, wait: Duration) -> Result<usize, Error> {
        let chunk = self.reader.poll(max_records, wait)?;
        assert!(chunk.len() <= max_records, "{} records instead of at most {max_records}", chunk.len());
        assert_eq!(chunk.len(), chunk.records().count());
        let mut next = self.next.clone();
        for record in chunk.records() {
            assert_eq!(record.at, &self.starts[record.index].at, "the place in the assignment");
            let due = &mut next[record.index];
            assert!(record.offset >= *due, "{} came at {} instead of {due} or later", record.at, record.offset);
            *due = record.offset + 1;
            self.seen.push(Seen {
                at: record.at.clone(),
                offset: record.offset,
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record.headers().map(|h| (h.name.to_string(), h.value.map(<[u8]>::to_vec))).collect(),
            });
        }
        let before = std::mem::replace(&mut self.next, next);
        let mut moved = vec![false; self.starts.len()];
        for (at, position, epoch) in chunk.positions() {
            let index = self.starts.iter().position(|start| &start.at == at).expect("an assigned partition");
            assert!(!std::mem::replace(&mut moved[index], true), "{at} has two positions in one chunk");
            assert!(position > before[index], "{at} went from {} to {position}", before[index]);
            assert!(position >= self.next[index], "{at} is at {position} with records before {}", self.next[index]);
            self.next[index] = position;
            self.epochs[index] = epoch;
        }
        for (index, moved) in moved.iter().enumerate() {
            assert!(*moved || self.next[index] == before[index], "records came without a position");
        }
        assert_eq!(chunk.is_empty(), !moved.contains(&true), "an empty chunk is one without positions");
        Ok(chunk.len())
    }

    /// Polls until all positions have reached `ends`, and no longer.
    pub(crate) fn until(&mut self, ends: &Offsets) -> &[Seen] {
        self.until_by(ends, 10_000)
    }

    /// As [`until`](Self::until), with at most `max_records` a poll.
    pub(crate) fn until_by(&mut self, ends: &Offsets, max_records: usize) -> &[Seen] {
        let deadline = Instant::now() + PATIENCE;
        while !self.positions().reaches(ends) {
            assert!(Instant::now() < deadline, "read {:?} instead of {ends:?}", self.positions());
            self.poll(max_records, Duration::from_millis(100)).expect("the reader reads");
        }
        &self.seen
    }

    /// Polls for a while in which nothing may come.
    pub(crate) fn expect_nothing(&mut self) {
        let (before, records) = (self.positions(), self.seen.len());
        let until = Instant::now() + QUIET;
        while Instant::now() < until {
            self.poll(1_000, Duration::from_millis(50)).expect("the reader reads");
        }
        assert_eq!((self.positions(), &self.seen[records..]), (before, &[][..]));
    }

    /// Polls until that fails, and gives the failure.
    pub(crate) fn failure(&mut self) -> Error {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "no failure; the reader is at {:?}", self.positions());
            if let Err(error) = self.poll(10_000, Duration::from_millis(100)) {
                return error;
            }
        }
    }

    /// Where the reader is.
    pub(crate) fn positions(&self) -> Offsets {
        Offsets(self.starts.iter().map(|start| start.at.clone()).zip(self.next.iter().copied()).collect())
    }

    /// The texts of all values read.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.seen.iter().map(Seen::text).collect()
    }

    /// The offsets of all records read.
    pub(crate) fn offsets(&self) -> Vec<i64> {
        self.seen.iter().map(|record| record.offset).collect()
    }
}

/// Where to start, without a leader epoch.
pub(crate) fn start(topic: &str, partition: i32, next: i64) -> Start {
    Start { at: TopicPartition::new(topic, partition), next, leader_epoch: None }
}

/// The start of each partition of a topic.
pub(crate) fn starts(topic: &str, partitions: i32) -> Vec<Start> {
    (0..partitions).map(|partition| start(topic, partition, 0)).collect()
}

/// The position of one partition.
pub(crate) fn end(topic: &str, partition: i32, next: i64) -> Offsets {
    Offsets([(TopicPartition::new(topic, partition), next)].into())
}

/// A record with a key.
pub(crate) fn keyed(key: &str, value: &str) -> NewRecord {
    NewRecord { key: Some(key.into()), value: Some(value.into()) }
}

/// A record without a key.
pub(crate) fn unkeyed(value: &str) -> NewRecord {
    NewRecord { key: None, value: Some(value.into()) }
}

/// Waits until `done`.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
