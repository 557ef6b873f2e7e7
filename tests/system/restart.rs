//! A process may end at any instruction: at every failpoint, and at random moments under load, the counts stay exact.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::events::{self, PIPELINE, batch, check, lines, produce, verify, verify_offline};
use crate::harness::{Case, PATIENCE, Service};

/// Failpoints that a run of the whole in one process reaches by itself, each at the visits that end it.
const POINTS: &[&str] = &[
    "ledger.put:1",
    "ledger.put:2",
    "ledger.put:3",
    "collect.rows_written",
    "collect.files_written",
    "collect.archived",
    "collect.group_told",
    "speed.delta_written",
    "speed.folded",
    "speed.group_told",
    "publish.run_written:1",
    "publish.run_written:2",
    "publish.runs_written",
    "publish.published",
];

/// Waits until the armed process has ended itself at `point`.
pub(crate) fn assert_reached(service: &mut Service, point: &str) {
    let name = point.split(':').next().expect("a name");
    let until = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = service.child.try_wait().expect("it can be waited for") {
            break status;
        }
        assert!(Instant::now() < until, "{point} was not reached: {}", service.stderr());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.signal(), Some(6), "{point}: {status}: {}", service.stderr());
    assert_line(&service.stderr(), name);
}

fn assert_line(stderr: &str, name: &str) {
    let said = format!("failpoint {name} reached");
    assert!(stderr.lines().any(|line| line == said), "{said:?} is not in: {stderr}");
}

#[test]
fn up_killed_at_every_failpoint_counts_exactly() {
    // A batch run is due all the time where one has to be killed.
    for point in POINTS {
        let case = Case::new(PIPELINE);
        case.create_topic(3);
        let schedule = if point.starts_with("publish") || point.starts_with("ledger") { "100ms" } else { "off" };
        let armed = [("BIFOLD_FAILPOINT", *point), ("BIFOLD_BATCH__SCHEDULE", schedule)];
        for part in 0..2 {
            // The first time on an empty store, the second on what the first left behind.
            produce(&case, &lines(part * 100..(part + 1) * 100));
            let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &armed);
            assert_reached(&mut up, point);
        }
        produce(&case, &lines(200..300));
        let mut up = case.start("up");
        check(&up, 0..300, point);
        verify(&case, &up, point);
        batch(&case, &up);
        check(&up, 0..300, point);
        verify(&case, &up, point);
        assert_dead_letters(&case, 30, point);
        assert_eq!(up.terminate(), Some(0), "{point}: {}", up.stderr());
        verify_offline(&case, point);
    }
}

/// Every dead letter is kept once.
fn assert_dead_letters(case: &Case, count: usize, why: &str) {
    let letters = case.run(&["dead-letters", "e", "--output", "json"]).json();
    let places: BTreeSet<String> = letters
        .iter()
        .map(|letter| format!("{}/{}:{}", letter["topic"], letter["partition"], letter["offset"]))
        .collect();
    assert_eq!((letters.len(), places.len()), (count, count), "{why}: dead letters");
}

/// Three roles as processes of their own, on Kafka.
pub(crate) struct Roles<'a> {
    case: &'a Case,
    speed: String,
}

impl<'a> Roles<'a> {
    pub(crate) fn new(case: &'a Case) -> Self {
        Self { case, speed: format!("127.0.0.1:{}", free_port()) }
    }

    pub(crate) fn spawn(&self, role: &str, environment: &[(&str, &str)]) -> Service {
        let speed = format!("http://{}", self.speed);
        let mut environment = environment.to_vec();
        environment.push(("BIFOLD_SERVE__SPEED", &speed));
        let listen = if role == "speed" { &self.speed } else { "127.0.0.1:0" };
        self.case.spawn(&[role, "--listen", listen], &environment)
    }

    pub(crate) fn start(&self, role: &str) -> Service {
        let mut service = self.spawn(role, &[]);
        service.wait_ready();
        service
    }
}

/// A port that was free a moment ago, below those that the kernel hands out to outgoing connections.
pub(crate) fn free_port() -> u16 {
    let mut random = rand::rng();
    loop {
        let port = random.random_range(10_000..32_000);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn roles_killed_at_every_failpoint_count_exactly() {
    if crate::harness::brokers().is_none() {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return;
    }
    for point in POINTS {
        let case = Case::new(PIPELINE);
        case.create_topic(3);
        let roles = Roles::new(&case);
        for part in 0..2 {
            produce(&case, &lines(part * 100..(part + 1) * 100));
            let armed = [("BIFOLD_FAILPOINT", *point)];
            match point.split('.').next() {
                Some("publish") => {
                    let (_collect, _speed) = (roles.start("collect"), roles.start("speed"));
                    let run = case.run_with(&["batch", "run", "--at-least", "latest"], &armed, b"");
                    assert_eq!(run.code, None, "{point}: {} {}", run.stdout, run.stderr);
                    assert_line(&run.stderr, point.split(':').next().expect("a name"));
                }
                Some("speed") => assert_reached(&mut roles.spawn("speed", &armed), point),
                Some("collect") => assert_reached(&mut roles.spawn("collect", &armed), point),
                _ => {
                    // Each role puts at least so many entries of its own, if it is given records long enough.
                    for role in ["collect", "speed"] {
                        let mut service = roles.spawn(role, &armed);
                        put_until_dead(&case, &mut service, point);
                    }
                }
            }
        }
        let (mut collect, mut speed, mut serve) = (roles.start("collect"), roles.start("speed"), roles.start("serve"));
        produce(&case, &lines(200..300));
        let extra = case.path("extra");
        let extra: usize = std::fs::read_to_string(extra).map_or(0, |text| text.parse().expect("a number"));
        let numbers = (0..300).chain(1_000..1_000 + extra);
        check(&serve, numbers.clone(), point);
        verify(&case, &serve, point);
        batch(&case, &serve);
        check(&serve, numbers, point);
        verify(&case, &serve, point);
        assert_dead_letters(&case, 30 + (1_000..1_000 + extra).filter(|i| i % 10 == 9).count(), point);
        for service in [&mut collect, &mut speed, &mut serve] {
            assert_eq!(service.terminate(), Some(0), "{point}: {}", service.stderr());
        }
        verify_offline(&case, point);
    }
}

/// Produces one more event at a time until the process has ended. How many is kept in the file `extra`.
fn put_until_dead(case: &Case, service: &mut Service, point: &str) {
    let file = case.path("extra");
    let mut extra: usize = std::fs::read_to_string(&file).map_or(0, |text| text.parse().expect("a number"));
    let until = Instant::now() + PATIENCE;
    while service.child.try_wait().expect("it can be waited for").is_none() {
        assert!(Instant::now() < until, "{point} was not reached: {}", service.stderr());
        let line = events::line(1_000 + extra);
        case.produce_to(&case.topic, [(None, Some(line.into_bytes()))]);
        extra += 1;
        std::fs::write(&file, extra.to_string()).expect("write the count");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_reached(service, point);
}

/// Snapshots and hints are written every so many entries: the ledger is filled up to just before.
#[test]
fn killed_between_an_entry_its_snapshot_and_the_hint_counts_exactly() {
    for (point, upto) in [("ledger.hint_written", 49), ("ledger.snapshot_written", 999), ("ledger.hint_written", 999)] {
        let case = Case::on(PIPELINE, None);
        produce(&case, &lines(0..100));
        let mut up = case.start("up");
        check(&up, 0..100, point);
        assert_eq!(up.terminate(), Some(0));
        fill_ledger(&case, upto);
        produce(&case, &lines(100..200));
        let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &[("BIFOLD_FAILPOINT", point)]);
        assert_reached(&mut up, point);
        produce(&case, &lines(200..300));
        let up = case.start("up");
        check(&up, 0..300, point);
        verify(&case, &up, point);
        batch(&case, &up);
        check(&up, 0..300, point);
        verify(&case, &up, point);
    }
}

/// Adds entries that change nothing, up to entry `upto`.
pub(crate) fn fill_ledger(case: &Case, upto: u64) {
    use bifold_ledger::{Body, Dialect, VersionId};
    let (store, root) = bifold_store::open(&format!("file://{}", case.path("data/store").display())).expect("a store");
    let files = bifold_store::SourceFiles::new(store, &root, "e");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let mut journal = bifold_store::Journal::open(files, "test").await.expect("a ledger");
        assert!(journal.ledger().number < upto, "there are {} entries already", journal.ledger().number);
        while journal.ledger().number < upto {
            // A view of the test's own comes and goes; `upto - number` is odd or even, so it may go first by `format`.
            let version = VersionId("0000000000000000".into());
            let active = journal.ledger().versions.get(&version).is_some_and(|v| v.active);
            let body = match (active, upto - journal.ledger().number) {
                (true, _) => Body::Retired { versions: vec![version] },
                (false, 1) => Body::Format { format: journal.ledger().format },
                (false, _) => {
                    let (view, sql) = ("filler".to_string(), "SELECT 1".to_string());
                    Body::Declared { view, version, sql, source: serde_json::Value::Null, dialect: Dialect::FIRST }
                }
            };
            journal.append(body).await.expect("the entry is valid");
        }
    });
}

/// Puts load on a case through `url`, which changes with every restart. What was acknowledged must count; what was sent
/// and never acknowledged may.
struct Load {
    url: Arc<Mutex<Option<String>>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<Vec<(usize, bool)>>,
}

impl Load {
    fn start(case: &Case) -> Self {
        let url = Arc::new(Mutex::new(None::<String>));
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (at, stopping, count) = (Arc::clone(&url), Arc::clone(&stop), Arc::clone(&acknowledged));
        let (topic, kafka) = (case.topic.clone(), crate::harness::brokers());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            let client = reqwest::Client::new();
            let producer: Option<rdkafka::producer::FutureProducer> = kafka.map(|brokers| {
                let mut config = rdkafka::ClientConfig::new();
                config.set("bootstrap.servers", brokers).set("enable.idempotence", "true").set("linger.ms", "2");
                config.create().expect("a producer")
            });
            let mut sent = vec![];
            let mut next = 0;
            while !stopping.load(Ordering::SeqCst) {
                let numbers: Vec<usize> = (next..next + 20).collect();
                next += 20;
                let done = match &producer {
                    Some(producer) => runtime.block_on(async {
                        let mut waiting = vec![];
                        for line in lines(numbers.iter().copied()) {
                            let record =
                                rdkafka::producer::FutureRecord::<(), [u8]>::to(&topic).payload(line.as_bytes());
                            waiting.push(producer.send_result(record).map_err(|(e, _)| e).expect("there is room"));
                        }
                        for delivery in waiting {
                            delivery.await.expect("delivered").map_err(|(e, _)| e).expect("acknowledged");
                        }
                        true
                    }),
                    None => {
                        let Some(url) = at.lock().expect("no holder panics").clone() else {
                            std::thread::sleep(Duration::from_millis(5));
                            continue;
                        };
                        let body = lines(numbers.iter().copied()).join("\n");
                        let request = client.post(format!("{url}/v1/events/e")).body(body);
                        runtime.block_on(async { request.send().await.is_ok_and(|reply| reply.status() == 200) })
                    }
                };
                if done {
                    count.fetch_add(numbers.len(), Ordering::SeqCst);
                }
                sent.extend(numbers.into_iter().map(|i| (i, done)));
                std::thread::sleep(Duration::from_millis(3));
            }
            sent
        });
        Self { url, stop, acknowledged, thread }
    }

    fn point_to(&self, url: Option<&str>) {
        *self.url.lock().expect("no holder panics") = url.map(str::to_string);
    }

    fn end(self) -> Vec<(usize, bool)> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the load does not panic")
    }
}

#[test]
fn up_killed_at_random_under_load_counts_exactly() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}: SEED={seed} runs it again");
    let mut random = StdRng::seed_from_u64(seed);
    let case = Case::new(PIPELINE);
    case.create_topic(3);
    let environment = [
        ("BIFOLD_BATCH__SCHEDULE", "100ms"),
        ("BIFOLD_COLLECT__FLUSH_INTERVAL", "30ms"),
        ("BIFOLD_SPEED__EPOCH_INTERVAL", "30ms"),
    ];
    let load = Load::start(&case);
    for round in 0..6 {
        let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &environment);
        if random.random_bool(0.8) {
            up.wait_ready();
            load.point_to(Some(&up.url));
            let before = load.acknowledged.load(Ordering::SeqCst);
            up.wait("some load", |_| load.acknowledged.load(Ordering::SeqCst) > before);
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..2_500)));
        assert!(up.child.try_wait().expect("it can be waited for").is_none(), "round {round}: {}", up.stderr());
        load.point_to(None);
        up.kill();
    }
    let up = case.start_with(&["up", "--listen", "127.0.0.1:0"], &environment);
    let sent = load.end();
    let numbers = match case.is_kafka() {
        true => sent.iter().map(|(i, _)| *i).collect(),
        // What a killed server had not acknowledged is in the log or not: the log alone says.
        false => {
            drop(up);
            let in_log = numbers_in_log(&case);
            let acknowledged: Vec<usize> = sent.iter().filter(|(_, done)| *done).map(|(i, _)| *i).collect();
            let logged: BTreeSet<usize> = in_log.iter().copied().collect();
            assert_eq!(in_log.len(), logged.len(), "seed {seed}: an event is twice in the log");
            let lost: Vec<_> = acknowledged.iter().filter(|i| !logged.contains(i)).collect();
            assert!(lost.is_empty(), "seed {seed}: acknowledged, but not in the log: {lost:?}");
            in_log
        }
    };
    println!("seed {seed}: {} events", numbers.len());
    let mut up = case.start("up");
    let why = format!("seed {seed}");
    check(&up, numbers.clone(), &why);
    verify(&case, &up, &why);
    batch(&case, &up);
    check(&up, numbers, &why);
    verify(&case, &up, &why);
    assert_eq!(up.terminate(), Some(0));
    verify_offline(&case, &why);
}

#[test]
fn roles_killed_at_random_under_load_count_exactly() {
    if crate::harness::brokers().is_none() {
        println!("not run: BIFOLD_TEST_KAFKA names no broker");
        return;
    }
    let seed: u64 = std::env::var("SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random);
    println!("seed {seed}: SEED={seed} runs it again");
    let mut random = StdRng::seed_from_u64(seed);
    let case = Case::new(PIPELINE);
    case.create_topic(3);
    let roles = Roles::new(&case);
    let fast = [("BIFOLD_COLLECT__FLUSH_INTERVAL", "30ms"), ("BIFOLD_SPEED__EPOCH_INTERVAL", "30ms")];
    let names = ["collect", "speed", "serve"];
    let mut running = names.map(|role| roles.spawn(role, &fast));
    running.iter_mut().for_each(Service::wait_ready);
    let load = Load::start(&case);
    for _ in 0..8 {
        let mut run = case.spawn(&["batch", "run"], &[]);
        std::thread::sleep(Duration::from_millis(random.random_range(0..700)));
        let i = random.random_range(0..names.len());
        running[i].kill();
        if random.random_bool(0.5) {
            run.kill();
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        running[i] = roles.spawn(names[i], &fast);
        let ended = run.wait_exit(PATIENCE);
        assert!(matches!(ended, Some(0) | None), "seed {seed}: {}", run.stderr());
    }
    running.iter_mut().for_each(Service::kill);
    let running = names.map(|role| roles.start(role));
    let numbers: Vec<usize> = load.end().into_iter().map(|(i, _)| i).collect();
    println!("seed {seed}: {} events", numbers.len());
    let why = format!("seed {seed}");
    let serve = &running[2];
    check(serve, numbers.clone(), &why);
    verify(&case, serve, &why);
    batch(&case, serve);
    check(serve, numbers, &why);
    verify(&case, serve, &why);
}

/// The numbers of the events in the case's local log, in no order.
fn numbers_in_log(case: &Case) -> Vec<usize> {
    use bifold_log::{LocalLog, Log, ReaderOptions, Start};
    let log = LocalLog::open(&case.path("data/log")).expect("nobody has the log open");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let bounds = runtime.block_on(bifold_log::survey(&log, std::slice::from_ref(&case.topic))).expect("a topic").bounds;
    let mut reader = log.reader(ReaderOptions::default()).expect("a reader");
    let start = |at: &bifold_ledger::TopicPartition| Start { at: at.clone(), next: 0, leader_epoch: None };
    reader.assign(&bounds.keys().map(start).collect::<Vec<_>>()).expect("the partitions are there");
    let mut numbers = vec![];
    loop {
        let chunk = reader.poll(10_000, Duration::ZERO).expect("the log can be read");
        if chunk.is_empty() {
            return numbers;
        }
        for record in chunk.records() {
            let text = std::str::from_utf8(record.value.expect("a value")).expect("text");
            // The event's number stands last, in good and in bad lines.
            let digits = text.rsplit(|c: char| !c.is_ascii_digit()).find(|part| !part.is_empty()).expect("a number");
            numbers.push(digits.parse().expect("a number"));
        }
    }
}

/// Every named failpoint in the sources, with the file that has it.
fn failpoints_in_sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeMap::new();
    let mut folders: Vec<PathBuf> = ["batch/src", "speed/src", "serving/src", "cli/src"].map(|f| root.join(f)).into();
    folders.extend(
        std::fs::read_dir(root.join("shared")).expect("a folder").map(|e| e.expect("an entry").path().join("src")),
    );
    for file in folders.iter().flat_map(|folder| crate::harness::files_below(folder)) {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for part in text.split("failpoint(\"").skip(1) {
            let name = part.split('"').next().expect("a name ends").to_string();
            let place = file.strip_prefix(&root).expect("below the root").display().to_string();
            assert_eq!(found.insert(name.clone(), place), None, "{name} stands in two places");
        }
    }
    found
}

#[test]
fn the_table_of_failpoints_is_that_of_the_sources() {
    let table = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/failpoints.md"));
    let table = table.expect("docs/failpoints.md");
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(|cell| cell.trim().replace('`', ""));
        Some((cells.next()?, cells.next()?))
    });
    assert_eq!(rows.collect::<BTreeMap<_, _>>(), failpoints_in_sources());
}

#[test]
fn every_failpoint_is_killed_at_by_a_test() {
    let here = ["ledger.snapshot_written", "ledger.hint_written", crate::change::RETIRED];
    let tested: BTreeSet<&str> = POINTS
        .iter()
        .map(|point| point.split(':').next().expect("a name"))
        .chain(here)
        .chain(crate::small::POINTS)
        .chain(crate::retention::POINTS)
        .collect();
    let known = failpoints_in_sources();
    assert_eq!(tested, known.keys().map(String::as_str).collect::<BTreeSet<_>>());
}
