//! One seed's world: the log, the store, the processes, and what befalls them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bifold_ledger::{Ledger, Number, VersionId};
use bytes::Bytes;
use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::audit::Audit;
use crate::clock::{self, now_ms, sleep_ms};
use crate::counts::Counts;
use crate::error::{Error, Kind};
use crate::files::SourceFiles;
use crate::log::Log;
use crate::rng::Rng;
use crate::roles::live::Live;
use crate::roles::{self, Role};
use crate::store::FailingStore;

/// The views.
pub(crate) const VIEWS: [&str; 2] = ["a", "b"];
/// What pipelines say: the version of each view.
pub(crate) const PIPELINES: [[&str; 2]; 5] = [["a1", "b1"], ["a2", "b1"], ["a2", "b2"], ["a1", "b2"], ["a3", "b1"]];
/// Who runs.
pub(crate) const PROCESSES: [Role; 10] = [
    Role::Collect,
    Role::Collect,
    Role::Speed,
    Role::Speed,
    Role::Batch,
    Role::Batch,
    Role::Serve,
    Role::Serve,
    Role::Operator,
    Role::Intruder,
];
/// How long it takes at most, when nothing fails any more, until all is archived, folded and built.
const REST_WITHIN_MS: u64 = 60_000;

/// What a seed is about.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Store calls that fail, of 1,000.
    pub(crate) faults_per_mille: u64,
    /// What befalls processes, of 1,000 steps.
    pub(crate) accidents_per_mille: u64,
    /// Whether a stored file is damaged on the way.
    pub(crate) corrupt: bool,
    /// Whether the log drops what is not archived.
    pub(crate) lost: bool,
    /// Whether partitions are handed to speed instances; else each instance reads all.
    pub(crate) groups: bool,
    /// Whether the ledger is long: snapshots and hints are written.
    pub(crate) long: bool,
    /// How long the weather lasts.
    pub(crate) lasts_ms: u64,
    /// How often speed commits and collect flushes.
    pub(crate) interval_ms: u64,
    /// How many offsets a batch run leaps over.
    pub(crate) leap: i64,
}

impl Scenario {
    fn of(seed: u64, rng: &mut Rng) -> Self {
        let long = seed % 40 == 9;
        Self {
            faults_per_mille: rng.pick(&[0, 10, 30, 80]),
            accidents_per_mille: rng.pick(&[0, 30, 80, 160]),
            corrupt: seed % 11 == 5,
            lost: seed % 13 == 7,
            groups: rng.chance(400),
            long,
            lasts_ms: rng.between(4_000, 9_000) + if long { 6_000 } else { 0 },
            interval_ms: rng.pick(&[120, 250, 500]),
            leap: rng.pick(&[0, 3, 10, 1_000]),
        }
    }
}

/// A process as the world sees it.
#[derive(Debug)]
pub(crate) struct Process {
    /// Whether it runs.
    pub(crate) up: bool,
    /// Whether it was asked to end.
    pub(crate) stopping: bool,
    /// How often it was started.
    pub(crate) starts: u64,
    frozen_until_ms: u64,
    slow_until_ms: u64,
    cut_off_until_ms: u64,
    /// Whether it is cut off when it puts its next entry.
    cut_off_at_put: bool,
    /// Which partitions a speed instance believes to be its own.
    owned: BTreeSet<i32>,
    /// Its pipeline.
    pub(crate) pipeline: usize,
    /// What a speed instance offers.
    pub(crate) live: Arc<Mutex<Live>>,
}

/// One seed's world.
#[derive(Debug)]
pub(crate) struct World {
    /// What it is about.
    pub(crate) scenario: Scenario,
    /// What is stored.
    pub(crate) inner: InMemory,
    /// Whether nothing fails any more.
    pub(crate) calm: AtomicBool,
    /// Whether steps are printed.
    tell: bool,
    rng: Mutex<Rng>,
    log: Mutex<Log>,
    audit: Mutex<Audit>,
    counts: Mutex<Counts>,
    processes: Mutex<Vec<Process>>,
    damaged: Mutex<BTreeSet<String>>,
    story: Mutex<u64>,
    reached: Mutex<BTreeSet<usize>>,
    /// Entries that landed without their writers' knowledge.
    unanswered: Mutex<BTreeSet<Number>>,
    /// Each process's last put of an entry.
    puts: Mutex<BTreeMap<usize, Bytes>>,
}

/// What is left of a seed.
#[derive(Debug)]
pub(crate) struct Ended {
    /// What was reached.
    pub(crate) counts: Counts,
    /// A number that stands for all steps.
    pub(crate) story: u64,
    /// How many entries there are.
    pub(crate) entries: Number,
}

/// Runs a seed to its end. A violation is a panic.
pub(crate) fn run(seed: u64, tell: bool) -> Ended {
    let mut rng = Rng::new(seed);
    let scenario = Scenario::of(seed, &mut rng);
    let origins = if scenario.long { [0, 3] } else { [rng.below(3) as i64, rng.below(5) as i64] };
    let order = Rng::new(rng.next());
    let process = |pipeline| Process {
        up: false,
        stopping: false,
        starts: 0,
        frozen_until_ms: 0,
        slow_until_ms: 0,
        cut_off_until_ms: 0,
        cut_off_at_put: false,
        owned: BTreeSet::new(),
        pipeline,
        live: Arc::default(),
    };
    let world = Arc::new(World {
        scenario,
        inner: InMemory::new(),
        calm: AtomicBool::new(false),
        tell,
        log: Mutex::new(Log::new(rng.next(), &origins)),
        rng: Mutex::new(rng),
        audit: Mutex::new(Audit::new()),
        counts: Mutex::default(),
        processes: Mutex::new(PROCESSES.iter().map(|_| process(0)).collect()),
        damaged: Mutex::default(),
        story: Mutex::new(0),
        reached: Mutex::default(),
        unanswered: Mutex::default(),
        puts: Mutex::default(),
    });
    let (main, ended) = (Arc::clone(&world), Arc::clone(&world));
    clock::run(order, async move { main.weather().await });
    Ended {
        counts: ended.counts.lock().expect("it ended well").clone(),
        story: *ended.story.lock().expect("it ended well"),
        entries: ended.ledger().number,
    }
}

impl World {
    fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().expect("no holder panics")
    }

    /// Yes in `per_mille` of 1,000 cases.
    pub(crate) fn chance(&self, per_mille: u64) -> bool {
        self.rng().chance(per_mille)
    }

    /// A number below `end`.
    pub(crate) fn below(&self, end: u64) -> u64 {
        self.rng().below(end)
    }

    /// A number of `[from, to)`.
    pub(crate) fn between(&self, from: u64, to: u64) -> u64 {
        self.rng().between(from, to)
    }

    /// One of `all`.
    pub(crate) fn pick<T: Clone>(&self, all: &[T]) -> T {
        self.rng().pick(all)
    }

    /// The log.
    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().expect("no holder panics")
    }

    /// The auditor.
    pub(crate) fn audit(&self) -> MutexGuard<'_, Audit> {
        self.audit.lock().expect("no holder panics")
    }

    /// The ledger as it is in truth.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        self.audit().ledger()
    }

    /// What the world knows of processes.
    pub(crate) fn processes(&self) -> MutexGuard<'_, Vec<Process>> {
        self.processes.lock().expect("no holder panics")
    }

    /// Counts a situation.
    pub(crate) fn note(&self, what: &str) {
        self.counts.lock().expect("no holder panics").note(what);
    }

    /// Tells a step.
    pub(crate) fn say(&self, who: &str, what: impl FnOnce() -> String) {
        let mut story = self.story.lock().expect("no holder panics");
        *story = crate::rng::mix(*story ^ crate::rng::mix(clock::now_us() ^ ((who.len() as u64) << 50)));
        if self.tell {
            println!("{:>8.3} {who:<10} {}", clock::now_us() as f64 / 1e6, what());
        }
    }

    /// A process's name.
    pub(crate) fn name(process: usize) -> String {
        format!("{:?}-{process}", PROCESSES[process]).to_lowercase()
    }

    /// The source's files, by a process's way to the store.
    pub(crate) fn files(self: &Arc<Self>, process: usize) -> SourceFiles {
        let store = FailingStore { world: Arc::clone(self), process };
        SourceFiles::new(Arc::new(store), &Path::default(), "s")
    }

    /// Whether a path is that of a ledger entry.
    pub(crate) fn is_entry(path: &Path) -> bool {
        path.as_ref().starts_with("sources/s/ledger/")
    }

    fn read_now(&self, path: &Path) -> Option<Bytes> {
        let got = self.inner.get(path).now_or_never().expect("memory does not wait").ok()?;
        got.bytes().now_or_never().expect("memory does not wait").ok()
    }

    fn write_now(&self, path: &Path, bytes: Vec<u8>) {
        let put = self.inner.put(path, PutPayload::from(bytes)).now_or_never().expect("memory does not wait");
        put.expect("memory does not fail");
    }

    fn object(path: &str) -> Path {
        crate::layout::Layout::new(&Path::default(), "s").object(path)
    }

    /// An object was put.
    pub(crate) fn put_done(&self, path: &Path, bytes: &Bytes) {
        if Self::is_entry(path) {
            let log = self.log();
            let mut audit = self.audit();
            audit.entry(&log, |path| self.read_now(&Self::object(path)).map(|bytes| bytes.to_vec()), path, bytes);
            let entry = audit.entries.last().expect("it was taken");
            self.say("ledger", || {
                let text = serde_json::to_string(&entry.body).expect("it is JSON");
                format!("{} {text}", entry.number)
            });
            self.note(&format!("entry: {}", entry.body.kind()));
        } else if path.as_ref().contains("ledger-snapshots") {
            self.note("snapshot: written");
        } else if path.as_ref().ends_with("ledger-head.json") {
            self.note("hint: written");
        } else {
            // A put that comes late, or again, mends what was damaged.
            self.damaged.lock().expect("no holder panics").retain(|damaged| Self::object(damaged) != *path);
        }
    }

    /// An entry landed, and its writer does not hear of it.
    pub(crate) fn lose_answer(&self, path: &Path) {
        let number = path.filename().and_then(|name| name.split('.').next()?.parse().ok());
        self.unanswered.lock().expect("no holder panics").extend::<Option<Number>>(number);
    }

    /// Whether the writer of an entry was not told.
    pub(crate) fn answer_was_lost(&self, number: Number) -> bool {
        self.unanswered.lock().expect("no holder panics").contains(&number)
    }

    /// A process puts an entry.
    pub(crate) fn note_put(&self, process: usize, payload: &PutPayload) {
        let bytes: Bytes = payload.clone().into();
        let before = self.puts.lock().expect("no holder panics").insert(process, bytes.clone());
        if before.is_some_and(|before| before == bytes) {
            self.note("entry: the same put again");
        }
    }

    /// Whether the sea is calm, and until when a process's calls are slow.
    pub(crate) fn slowness(&self, process: usize) -> (bool, u64) {
        (self.calm.load(Ordering::Relaxed), self.processes()[process].slow_until_ms)
    }

    /// Whether a process is cut off just when it puts an entry, which lands.
    pub(crate) fn cut_off_at_put(&self, process: usize) -> bool {
        let state = &mut self.processes()[process];
        if state.cut_off_at_put {
            state.cut_off_until_ms = now_ms() + 4_000;
        }
        std::mem::take(&mut state.cut_off_at_put)
    }

    /// Whether a process hears nothing from the store.
    pub(crate) fn cut_off(&self, process: usize) -> bool {
        self.processes()[process].cut_off_until_ms > now_ms()
    }

    /// Which partitions a speed instance believes to be its own.
    pub(crate) fn owned(&self, process: usize) -> BTreeSet<i32> {
        match self.scenario.groups {
            true => self.processes()[process].owned.clone(),
            false => (0..self.log().partitions() as i32).collect(),
        }
    }

    /// Whether a process answers now.
    pub(crate) fn answers(&self, process: usize) -> bool {
        let process = &self.processes()[process];
        process.up && process.frozen_until_ms <= now_ms()
    }

    /// Whether a process was asked to end.
    pub(crate) fn stopping(&self, process: usize) -> bool {
        self.processes()[process].stopping
    }

    /// Whether a failure of a process is one that the weather explains.
    pub(crate) fn judge(&self, who: &str, error: &Error) {
        self.note(&format!("error: {:?}", error.kind()));
        self.say(who, || error.to_string());
        match error.kind() {
            Kind::Unavailable | Kind::Refused => {}
            Kind::Damaged => {
                let text = error.to_string();
                let known = self.damaged.lock().expect("no holder panics").iter().any(|path| text.contains(path));
                assert!(known, "{who}: {text}, but nobody damaged it");
                self.note("damage: reported by name");
            }
            Kind::Invalid => panic!("{who}: {error}"),
        }
    }

    /// A serving process has answered with all that the log holds.
    pub(crate) fn reached_the_end(&self, process: usize) {
        self.reached.lock().expect("no holder panics").insert(process);
    }

    // What befalls.

    fn start(self: &Arc<Self>, process: usize) {
        {
            let mut processes = self.processes();
            let state = &mut processes[process];
            (state.up, state.stopping, state.live) = (true, false, Arc::default());
            (state.slow_until_ms, state.frozen_until_ms, state.cut_off_until_ms) = (0, 0, 0);
            state.cut_off_at_put = false;
            state.starts += 1;
        }
        clock::freeze(process, 0);
        let world = Arc::clone(self);
        self.say(&Self::name(process), || "starts".into());
        clock::spawn(process, async move {
            roles::run(Arc::clone(&world), process).await;
            world.processes()[process].up = false;
            world.say(&Self::name(process), || "ends".into());
        });
    }

    fn crash(&self, process: usize) {
        self.say(&Self::name(process), || "is killed".into());
        self.note("accident: killed");
        clock::kill(process);
        let mut processes = self.processes();
        processes[process].up = false;
        processes[process].live = Arc::default();
    }

    async fn weather(self: Arc<Self>) {
        self.say("weather", || format!("{:?}", self.scenario));
        if self.scenario.long {
            self.begin_long();
        }
        self.rebalance(false);
        for process in 0..PROCESSES.len() {
            self.start(process);
        }
        let mut down: BTreeMap<usize, u64> = BTreeMap::new();
        while now_ms() < self.scenario.lasts_ms {
            sleep_ms(self.between(10, 120)).await;
            for process in 0..PROCESSES.len() {
                let up = self.processes()[process].up;
                if up || down.contains_key(&process) {
                    continue;
                }
                down.insert(process, now_ms() + self.between(50, 1_500));
            }
            let due: Vec<usize> = down.iter().filter(|(_, at)| **at <= now_ms()).map(|(process, _)| *process).collect();
            for process in due {
                down.remove(&process);
                self.start(process);
            }
            if self.chance(700) {
                let mut log = self.log();
                let partition = self.below(log.partitions() as u64) as usize;
                log.grow(partition, self.between(1, 6) as i64);
            }
            if self.chance(self.scenario.accidents_per_mille) {
                self.accident();
            }
            if self.chance(25) {
                self.retention();
            }
            if self.chance(12) {
                let pipeline = self.below(PIPELINES.len() as u64) as usize;
                self.say("weather", || format!("pipeline {:?} is deployed", PIPELINES[pipeline]));
                self.note("weather: another pipeline is deployed");
                let mut processes = self.processes();
                for process in processes.iter_mut() {
                    process.pipeline = pipeline;
                }
                for speed in 2..4 {
                    processes[speed].stopping |= self.chance(600);
                }
            }
            if self.log().partitions() < 4 && self.chance(8) {
                self.log().add();
                self.note("weather: a partition is added");
                self.rebalance(true);
            }
            if self.scenario.corrupt && self.chance(30) {
                self.damage();
            }
        }
        self.come_to_rest().await;
    }

    fn accident(self: &Arc<Self>) {
        let process = self.below(PROCESSES.len() as u64) as usize;
        if !self.processes()[process].up {
            return;
        }
        let how_long = self.pick(&[100, 500, 2_000, 4_000]);
        match self.below(11) {
            0..4 => self.crash(process),
            4 => {
                self.say(&Self::name(process), || "is asked to end".into());
                self.note("accident: asked to end");
                self.processes()[process].stopping = true;
            }
            5 | 6 => {
                self.say(&Self::name(process), || format!("is frozen for {how_long} ms"));
                self.note("accident: frozen");
                self.processes()[process].frozen_until_ms = now_ms() + how_long;
                clock::freeze(process, how_long);
            }
            7 => {
                self.say(&Self::name(process), || "is cut off from the store for 4000 ms".into());
                self.note("accident: cut off from the store");
                self.processes()[process].cut_off_until_ms = now_ms() + 4_000;
            }
            8 => {
                let process = self.below(4) as usize;
                self.say(&Self::name(process), || "will be cut off when it puts an entry".into());
                self.note("accident: cut off when an entry was put");
                self.processes()[process].cut_off_at_put = true;
            }
            9 => {
                self.say(&Self::name(process), || format!("has slow calls for {how_long} ms"));
                self.note("accident: slow calls");
                self.processes()[process].slow_until_ms = now_ms() + how_long;
            }
            _ => self.rebalance(true),
        }
    }

    /// Hands partitions to the speed instances; one that is told late believes to own what another has by now.
    fn rebalance(self: &Arc<Self>, late: bool) {
        let partitions = self.log().partitions() as i32;
        let mut owned = [BTreeSet::new(), BTreeSet::new()];
        for partition in 0..partitions {
            owned[self.below(2) as usize].insert(partition);
        }
        for (i, owned) in owned.into_iter().enumerate() {
            let world = Arc::clone(self);
            let delay = if late { self.pick(&[0, 0, 50, 400, 3_000]) } else { 0 };
            clock::spawn(clock::WEATHER, async move {
                sleep_ms(delay).await;
                if !world.calm.load(Ordering::Relaxed) {
                    world.processes()[2 + i].owned = owned;
                }
            });
        }
        self.note("accident: partitions handed over");
    }

    /// The log drops its head: what is archived, or, where the scenario says so, more.
    fn retention(&self) {
        let ledger = self.ledger();
        if !ledger.exists() {
            return;
        }
        let mut log = self.log();
        let partition = self.below(log.partitions() as u64) as usize;
        let at = crate::log::p(partition as i32);
        let beyond = if self.scenario.lost && self.chance(300) { 1 + self.below(6) as i64 } else { 0 };
        let earliest = (ledger.archived(&at) + beyond).min(log.bounds()[&at].end);
        log.expire(partition, earliest);
        self.note(if earliest > ledger.archived(&at) { "weather: the log lost offsets" } else { "weather: retention" });
        self.say("weather", || format!("{at} starts at {earliest} now"));
    }

    /// Alters, shortens or removes a file that an entry names.
    fn damage(&self) {
        let damaged = self.damaged.lock().expect("no holder panics").clone();
        let paths: Vec<String> = self.audit().files.keys().filter(|path| !damaged.contains(*path)).cloned().collect();
        if paths.is_empty() {
            return;
        }
        let path = self.pick(&paths);
        let object = Self::object(&path);
        let Some(bytes) = self.read_now(&object) else { return };
        let mut bytes = bytes.to_vec();
        let how = match self.below(3) {
            0 => {
                bytes.pop();
                self.write_now(&object, bytes);
                "cut short"
            }
            1 => {
                let deleted = self.inner.delete(&object).now_or_never().expect("memory does not wait");
                deleted.expect("it is there");
                "removed"
            }
            _ => {
                let Some(digit) = bytes.iter_mut().rev().find(|byte| byte.is_ascii_digit()) else { return };
                *digit = if *digit == b'1' { b'2' } else { b'1' };
                self.write_now(&object, bytes);
                "altered"
            }
        };
        self.say("weather", || format!("{path} is {how}"));
        self.note(&format!("damage: {how}"));
        self.damaged.lock().expect("no holder panics").insert(path);
    }

    /// A ledger of many entries, as if it had been used for long: it is about to get its first snapshot.
    fn begin_long(&self) {
        use bifold_ledger::{Body, Entry, Nonce};
        let layout = crate::layout::Layout::new(&Path::default(), "s");
        let origins = self.log().bounds().into_iter().map(|(at, bounds)| (at, bounds.earliest)).collect();
        let topics = [(crate::log::TOPIC.to_string(), "id".to_string())].into();
        let mut body = Body::Created { format: 1, source: "s".into(), topics, origins };
        let last = self.pick(&[990, 997, 1_003, 1_020]);
        for number in 1..=last {
            let nonce = Nonce(format!("before-{number}"));
            let entry = Entry { number, writer: "before".into(), nonce, at: String::new(), body };
            let bytes = Bytes::from(serde_json::to_vec(&entry).expect("it is JSON"));
            self.write_now(&layout.entry(number), bytes.to_vec());
            let log = self.log();
            self.audit().entry(&log, |_| None, &layout.entry(number), &bytes);
            body = Body::Format { format: 1 };
            if number == 1_000 {
                let snapshot = serde_json::json!({ "format": 1, "ledger": *self.ledger() });
                self.write_now(&layout.snapshot(number), snapshot.to_string().into_bytes());
                self.write_now(&layout.head(), br#"{"number": 1000, "snapshot": 1000}"#.to_vec());
            }
        }
    }

    // The end.

    async fn come_to_rest(self: Arc<Self>) {
        self.calm.store(true, Ordering::Relaxed);
        self.say("weather", || "nothing fails any more".into());
        clock::kill(8);
        clock::kill(9);
        let all: BTreeSet<i32> = (0..self.log().partitions() as i32).collect();
        let pipeline = self.processes()[2].pipeline;
        for process in 0..8 {
            {
                let mut processes = self.processes();
                let state = &mut processes[process];
                (state.slow_until_ms, state.frozen_until_ms, state.cut_off_until_ms) = (0, 0, 0);
                state.cut_off_at_put = false;
                (state.pipeline, state.stopping) = (pipeline, false);
                processes[process].owned = all.iter().copied().filter(|p| (*p as usize + process) % 2 == 0).collect();
            }
            clock::freeze(process, 0);
            // A pipeline that was deployed reaches whoever runs, by a new start.
            if !self.processes()[process].up || PROCESSES[process] == Role::Speed {
                clock::kill(process);
                self.start(process);
            }
        }
        let since = now_ms();
        while !self.rests() {
            assert!(
                now_ms() - since < REST_WITHIN_MS,
                "it does not come to rest: {}; the log ends at {}",
                self.state(),
                self.log().ends()
            );
            sleep_ms(100).await;
        }
        self.say("weather", || format!("it rests after {} ms", now_ms() - since));
        self.audit().replayed();
        self.judge_files().await;
    }

    fn state(&self) -> String {
        let ledger = self.ledger();
        let versions = ledger.versions.iter().filter(|(_, version)| version.active);
        let versions: Vec<_> =
            versions.map(|(id, version)| format!("{id}: {}", version.boundary.clone().unwrap_or_default())).collect();
        let (archived, effective) = (&ledger.archived, ledger.effective());
        format!("archived {archived}, folded {effective}, boundaries {}", versions.join("; "))
    }

    /// Whether all that the log holds is archived, folded, built and answered. Where something is damaged or lost, what can be.
    fn rests(&self) -> bool {
        if !self.damaged.lock().expect("no holder panics").is_empty() {
            return now_ms() > self.scenario.lasts_ms + 5_000;
        }
        let (ledger, bounds) = (self.ledger(), self.log().bounds());
        let lost = |at| ledger.archived(at) < bounds[at].earliest;
        if bounds.keys().any(&lost) {
            let archived = bounds.iter().all(|(at, bounds)| lost(at) || ledger.archived(at) == bounds.end);
            let readable = |at: &_| ledger.frontier(at) >= bounds[at].earliest;
            let folded = bounds.iter().all(|(at, bounds)| !readable(at) || ledger.frontier(at) == bounds.end);
            return archived && folded && now_ms() > self.scenario.lasts_ms + 5_000;
        }
        let whole = bounds.iter().all(|(at, bounds)| {
            let built = ledger.versions.values().filter(|version| version.active).all(|version| {
                let boundary = version.boundary.as_ref().map(|boundary| boundary.get(at));
                boundary.is_some_and(|next| next.unwrap_or(ledger.origin(at)) == bounds.end)
            });
            built && ledger.archived(at) == bounds.end && ledger.frontier(at) == bounds.end
        });
        let pipeline = PIPELINES[self.processes()[2].pipeline];
        let served =
            VIEWS.iter().zip(pipeline).all(|(view, version)| ledger.served(view) == Some(&VersionId::from(version)));
        whole && served && self.reached.lock().expect("no holder panics").len() == 2
    }

    /// Every file that the ledger names is what its entry says, or is reported.
    async fn judge_files(self: &Arc<Self>) {
        let files = self.files(6);
        let named: Vec<_> = self.audit().files.values().cloned().collect();
        let damaged = self.damaged.lock().expect("no holder panics").clone();
        for (file, content) in named {
            match files.get(&file).await {
                Ok(bytes) => {
                    assert!(!damaged.contains(&file.path), "{} is damaged, and nobody notices", file.path);
                    assert!(crate::content::Content::read(&bytes) == content, "{} changed", file.path);
                }
                Err(error) => {
                    let reported = error.kind() == Kind::Damaged && error.to_string().contains(&file.path);
                    assert!(reported && damaged.contains(&file.path), "{error}");
                    self.note("damage: found by checksum, length or absence");
                }
            }
        }
    }
}
