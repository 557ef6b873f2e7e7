//! Two collectors meet in one partition: what one of them has read before the other archived it is not archived again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bifold_batch::Collector;
use bifold_ledger::{Ledger, Offsets, TopicPartition};
use bifold_log::murmur2::partition_of;
use bifold_log::{Bounds, Chunk, Error, LocalLog, Log, Member, NewRecord, Reader, ReaderOptions, Start, Topic};
use bifold_service::{Readiness, Shutdown, StartLimit};
use bifold_store::{Journal, SourceFiles};
use tokio::runtime::Runtime;

use crate::harness::PATIENCE;

const TOPIC: &str = "t";

/// The log as one process sees it: some partitions keep it waiting.
#[derive(Clone, Debug)]
struct Slow {
    log: LocalLog,
    held: Arc<Mutex<BTreeSet<i32>>>,
    /// How often a reader was told where to start.
    assigned: Arc<AtomicUsize>,
}

impl Slow {
    fn new(log: &LocalLog, held: impl IntoIterator<Item = i32>) -> Self {
        let held = Arc::new(Mutex::new(held.into_iter().collect()));
        Self { log: log.clone(), held, assigned: Arc::default() }
    }

    fn let_go(&self, partition: i32) {
        self.held.lock().expect("no holder panics").remove(&partition);
    }
}

#[async_trait::async_trait]
impl Log for Slow {
    async fn describe(&self, names: &[String]) -> Result<BTreeMap<String, Topic>, Error> {
        self.log.describe(names).await
    }

    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Bounds>, Error> {
        self.log.bounds(partitions).await
    }

    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Offsets, Error> {
        self.log.append(topic, records).await
    }

    async fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        self.log.create_topic(name, partitions).await
    }

    fn reader(&self, _options: ReaderOptions) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(SlowReader { log: self.clone(), readers: vec![] }))
    }

    fn join(&self, group: &str, topics: &[String]) -> Result<Box<dyn Member>, Error> {
        self.log.join(group, topics)
    }
}

/// A reader of each partition.
struct SlowReader {
    log: Slow,
    readers: Vec<(i32, Box<dyn Reader>)>,
}

impl Reader for SlowReader {
    fn assign(&mut self, starts: &[Start]) -> Result<(), Error> {
        self.readers.clear();
        for start in starts {
            let mut reader = self.log.log.reader(ReaderOptions { with_keys: true, ..ReaderOptions::default() })?;
            reader.assign(std::slice::from_ref(start))?;
            self.readers.push((start.at.partition, reader));
        }
        self.log.assigned.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Chunk, Error> {
        let held = self.log.held.lock().expect("no holder panics").clone();
        for (_, reader) in self.readers.iter_mut().filter(|(partition, _)| !held.contains(partition)) {
            let chunk = reader.poll(max_records, Duration::ZERO)?;
            if !chunk.is_empty() {
                return Ok(chunk);
            }
        }
        std::thread::sleep(wait.min(Duration::from_millis(10)));
        Ok(Chunk::default())
    }
}

/// A collector on a thread of its own.
struct Running {
    shutdown: Shutdown,
    thread: std::thread::JoinHandle<Result<(), bifold_batch::Error>>,
}

impl Running {
    fn start(log: &Slow, files: &SourceFiles, runtime: &Runtime) -> Self {
        let text = format!("CREATE TABLE e (n BIGINT) WITH (connector = 'kafka', topic = '{TOPIC}', format = 'json');");
        let pipeline = bifold_fold::pipeline::parse("p.sql", &text, 1 << 20).expect("it is a pipeline");
        let collector = Collector {
            source: Arc::new(pipeline.sources[0].clone()),
            log: Arc::new(log.clone()),
            files: files.clone(),
            options: bifold_config::Collect {
                flush_interval: Duration::from_millis(50),
                flush_rows: 1_000,
                max_record: 1 << 20,
                max_elements: 100_000,
                listen: String::new(),
            },
            group: "g".into(),
            component: Readiness::default().component("collect"),
            others: Readiness::default().ready_component("others"),
            limit: StartLimit::new(None),
        };
        let (shutdown, handle) = (Shutdown::new(), runtime.handle().clone());
        let told = shutdown.clone();
        Self { shutdown, thread: std::thread::spawn(move || collector.run(&handle, &told)) }
    }

    fn stop(self) {
        self.shutdown.cancel();
        self.thread.join().expect("it does not panic").expect("it ends well");
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < PATIENCE, "{what} did not come to pass");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_collector_that_stands_behind_the_archive_archives_nothing_twice() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = Runtime::new().expect("a runtime");
    let log = LocalLog::open(&folder.path().join("log")).expect("an empty folder");
    runtime.block_on(log.create_topic(TOPIC, 2)).expect("a topic");
    let append = |partition: i32, count: usize| {
        let key = (0..).map(|i| format!("key {i}")).find(|key| partition_of(key.as_bytes(), 2) == partition);
        let key = key.expect("there are many").into_bytes();
        let record = |i| NewRecord { key: Some(key.clone()), value: Some(format!("{{\"n\":{i}}}").into()) };
        runtime.block_on(log.append(TOPIC, (0..count).map(record).collect())).expect("records");
    };
    let url = format!("file://{}", folder.path().join("store").display());
    let (store, root) = bifold_store::open(&url).expect("a store");
    let files = SourceFiles::new(store, &root, "e");
    let ledger =
        || -> Arc<Ledger> { runtime.block_on(Journal::open(files.clone(), "test")).expect("a ledger").ledger() };
    let archived = |partition: i32| ledger().archived(&TopicPartition::new(TOPIC, partition));
    append(0, 5);
    append(1, 5);

    // One has begun, and nothing comes to it yet. Another archives partition 1.
    let (slow, other) = (Slow::new(&log, [0, 1]), Slow::new(&log, [0]));
    let first = Running::start(&slow, &files, &runtime);
    until("the first one reads", || slow.assigned.load(Ordering::SeqCst) > 0);
    let second = Running::start(&other, &files, &runtime);
    until("the second one archives", || archived(1) == 5);
    second.stop();

    // The first learns of that when it archives partition 0: somebody took its number.
    slow.let_go(0);
    until("the first one archives", || archived(0) == 5);
    assert_eq!(slow.assigned.load(Ordering::SeqCst), 1, "it goes on where it stands");

    // What it now gets of partition 1 begins before the archive's end.
    append(1, 3);
    slow.let_go(1);
    until("the rest is archived", || archived(1) == 8);
    first.stop();
    let ledger = ledger();
    let rows: u64 = ledger.archive.iter().flat_map(|unit| &unit.rows).map(|file| file.rows).sum();
    assert_eq!((ledger.counts.rows, rows), (13, 13), "each record is archived once");
}
