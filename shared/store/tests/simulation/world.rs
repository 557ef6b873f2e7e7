//! One seed's world: the log, the store, the processes, and what befalls them.

mod weather;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bifold_ledger::{Entry, Ledger, Number};
use bytes::Bytes;
use futures::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::audit::Audit;
use crate::clock::{self, now_ms};
use crate::counts::Counts;
use crate::error::{Error, Kind};
use crate::files::SourceFiles;
use crate::journal::Appended;
use crate::layout::Layout;
use crate::log::Log;
use crate::rng::Rng;
use crate::roles::Role;
use crate::roles::live::Live;
use crate::store::FailingStore;

/// The views.
pub(crate) const VIEWS: [&str; 2] = ["a", "b"];
/// What pipelines say: the version of each view.
pub(crate) const PIPELINES: [[&str; 2]; 5] = [["a1", "b1"], ["a2", "b1"], ["a2", "b2"], ["a1", "b2"], ["a3", "b1"]];
/// Who runs.
pub(crate) const PROCESSES: [Role; 12] = [
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
    Role::Maintain,
    Role::Maintain,
];
/// How long it takes at most, when nothing fails any more, until all is archived, folded and built.
const REST_WITHIN_MS: u64 = 60_000;

/// How long nothing has needed a file before it is deleted: more than twice what a compaction's put may take, see [`World::at_most`].
pub(crate) const GRACE_MS: u64 = 12_000;

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
    /// Deltas that become one.
    pub(crate) compact_deltas: usize,
    /// Archive entries that become one.
    pub(crate) compact_archive: usize,
}

/// When a process is to be frozen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// When it puts its next entry.
    Put,
    /// When it reads its next file.
    Read,
}

impl Scenario {
    fn of(seed: u64, rng: &mut Rng) -> Self {
        let long = seed % 40 == 9;
        // Only what lasts longer than the grace time sees files deleted.
        let patient = seed % 6 == 2;
        Self {
            faults_per_mille: rng.pick(&[0, 10, 30, 80]),
            accidents_per_mille: rng.pick(&[0, 30, 80, 160]),
            corrupt: seed % 11 == 5,
            lost: seed % 3 == 1,
            groups: rng.chance(400),
            long,
            lasts_ms: rng.between(4_000, 9_000) + if long { 6_000 } else { 0 } + if patient { 20_000 } else { 0 },
            interval_ms: rng.pick(&[120, 250, 500, 1_500]),
            leap: rng.pick(&[0, 3, 10, 1_000]),
            compact_deltas: rng.pick(&[2, 3, 6]),
            compact_archive: rng.pick(&[2, 4]),
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
    /// When it is to be frozen, and for how long.
    frozen_when: Option<(Moment, u64)>,
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
        frozen_when: None,
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

    fn layout() -> Layout {
        Layout::new(&Path::default(), "s")
    }

    fn object(path: &str) -> Path {
        Self::layout().object(path)
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
            self.audit().deleted.retain(|deleted| Self::object(deleted) != *path);
            self.damaged.lock().expect("no holder panics").retain(|damaged| Self::object(damaged) != *path);
        }
    }

    /// Whether a path is that of a file which an entry may name.
    pub(crate) fn is_file(path: &Path) -> bool {
        let folders = Self::layout().file_folders();
        folders.iter().any(|folder| path.prefix_matches(folder))
    }

    /// A file was deleted: nothing may need it any more.
    pub(crate) fn swept(&self, path: &Path) {
        if !Self::is_file(path) {
            return;
        }
        let relative = Self::layout().relative(path).expect("it is one of the source's");
        self.say("sweep", || relative.clone());
        let mut audit = self.audit();
        audit.swept(&relative);
        self.note(match audit.files.contains_key(&relative) {
            true => "sweep: a file that was replaced is deleted",
            false => "sweep: a file that no entry named is deleted",
        });
    }

    /// Whether a message names a file that was deleted because nothing needed it.
    pub(crate) fn is_swept(&self, text: &str) -> bool {
        self.audit().deleted.iter().any(|path| text.contains(path))
    }

    /// A delay of a process, which is bounded for one that compacts: what it puts late could name files that are deleted by then. The
    /// ledger cannot refuse that, so the product gives up after half of the grace time.
    pub(crate) fn at_most(&self, process: usize, ms: u64) -> u64 {
        if PROCESSES[process] == Role::Maintain { ms.min(400) } else { ms }
    }

    /// Freezes a process if this is the moment for it.
    pub(crate) fn freeze_if(&self, process: usize, moment: Moment) {
        let state = &mut self.processes()[process];
        let Some((_, how_long)) = state.frozen_when.take_if(|(when, _)| *when == moment) else { return };
        state.frozen_until_ms = now_ms() + how_long;
        clock::freeze(process, how_long);
        self.note(&format!("accident: frozen for {how_long} ms at a {moment:?}").to_lowercase());
    }

    /// Whether nothing fails any more.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
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

    /// What a process was told of the entry that it put last is so: it stands there, or another's does.
    pub(crate) fn judge_outcome(&self, process: usize, done: Appended) {
        let put = self.puts.lock().expect("no holder panics").get(&process).cloned();
        let Some(put) = put.and_then(|put| serde_json::from_slice::<Entry>(&put).ok()) else { return };
        let audit = self.audit();
        let stands = audit.entries.get(put.number as usize - 1).is_some_and(|entry| entry.nonce == put.nonce);
        match done {
            Appended::Won(_) => assert!(stands, "{} won entry {}, it is told", Self::name(process), put.number),
            Appended::Lost => assert!(!stands, "{} lost its own entry {}", Self::name(process), put.number),
        }
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
                if self.is_swept(&text) {
                    assert!(!who.starts_with("serve"), "{who}: {text}, but a fresh ledger does not name it");
                    self.note("sweep: a reader misses a file and starts again");
                    return;
                }
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
}
