//! What befalls the processes, and what holds when nothing does any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bifold_ledger::{Body, Entry, Nonce, VersionId};
use bytes::Bytes;
use futures::FutureExt;
use object_store::ObjectStoreExt;

use super::{GRACE_MS, Moment, PIPELINES, PROCESSES, REST_WITHIN_MS, VIEWS, World};
use crate::clock::{self, now_ms, sleep_ms};
use crate::error::{Error, Kind};
use crate::journal::Journal;
use crate::roles::{self, Role};

const INTRUDER: usize = 9;
/// Long enough for a file to be seen, to be an orphan for the grace time, and to be deleted by the next sweep.
const LONG_MS: u64 = GRACE_MS + 8_000;

impl World {
    /// Starts a process.
    fn start(self: &Arc<Self>, process: usize) {
        {
            let mut processes = self.processes();
            let state = &mut processes[process];
            (state.up, state.stopping, state.live) = (true, false, Arc::default());
            (state.slow_until_ms, state.frozen_until_ms, state.cut_off_until_ms) = (0, 0, 0);
            (state.cut_off_at_put, state.frozen_when) = (false, None);
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

    /// All that happens, until it rests.
    pub(super) async fn weather(self: Arc<Self>) {
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
            if self.chance(if self.scenario.lost { 60 } else { 25 }) {
                match self.scenario.lost && self.chance(300) {
                    false => self.retention(),
                    true => self.lose_behind_stalled(),
                }
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
            if self.scenario.long && self.chance(15) {
                self.damage_hints();
            }
        }
        self.come_to_rest().await;
    }

    fn accident(self: &Arc<Self>) {
        let process = self.below(PROCESSES.len() as u64) as usize;
        if !self.processes()[process].up {
            return;
        }
        let how_long = self.at_most(process, self.pick(&[100, 500, 2_000, 4_000]));
        match self.below(13) {
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
            10 => {
                let how_long = self.at_most(process, self.pick(&[500, 4_000, LONG_MS]));
                // Often with the other of its role, so that nobody else is faster than one who comes back after the grace time.
                let other = process ^ 1;
                let both = self.chance(600) && PROCESSES[process] == PROCESSES[other];
                for process in [Some(process), both.then_some(other)].into_iter().flatten() {
                    self.processes()[process].frozen_when = Some((Moment::Put, how_long));
                }
            }
            11 => {
                // Also one that compacts: it gives up after so long.
                let how_long = self.pick(&[500, LONG_MS]);
                let reads = self.pick(&[2, 4, 6, 7, 10, 11]);
                self.processes()[reads].frozen_when = Some((Moment::Read, how_long));
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
        let beyond = if self.scenario.lost && self.chance(400) { 1 + self.below(30) as i64 } else { 0 };
        let earliest = (ledger.past_lost(&at, ledger.archived(&at)) + beyond).min(log.bounds()[&at].end);
        log.expire(partition, earliest);
        self.note(if beyond > 0 { "weather: the log lost offsets" } else { "weather: retention" });
        self.say("weather", || format!("{at} starts at {earliest} now"));
    }

    /// Stalls collectors, and speed instances where they commit, while the log goes on and loses what they have fetched, but not read.
    fn lose_behind_stalled(self: &Arc<Self>) {
        for process in 0..4 {
            let how_long = self.pick(&[900, 1_500, 2_500]);
            let mut processes = self.processes();
            let state = &mut processes[process];
            match process {
                _ if !state.up => {}
                0 | 1 => {
                    state.frozen_until_ms = now_ms() + how_long;
                    clock::freeze(process, how_long);
                }
                _ => state.slow_until_ms = now_ms() + how_long,
            }
        }
        let world = Arc::clone(self);
        clock::spawn(clock::WEATHER, async move {
            sleep_ms(world.between(200, 900)).await;
            let ledger = world.ledger();
            if world.is_calm() || !ledger.exists() {
                return;
            }
            let bounds = world.log().bounds();
            for (at, bounds) in bounds {
                if world.chance(600) && bounds.end > ledger.archived(&at) {
                    let earliest = world.between(ledger.archived(&at) as u64, bounds.end as u64 + 1) as i64;
                    world.log().expire(at.partition as usize, earliest);
                    world.note("weather: the log lost what is fetched and not read");
                }
            }
        });
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

    /// Shortens or removes what only speeds up reading: nothing else may change (rule 3).
    fn damage_hints(&self) {
        let layout = Self::layout();
        let object = self.pick(&[layout.head(), layout.snapshot(1_000)]);
        let Some(bytes) = self.read_now(&object) else { return };
        match self.chance(500) {
            true => self.write_now(&object, bytes[..bytes.len() / 2].to_vec()),
            false => {
                let deleted = self.inner.delete(&object).now_or_never().expect("memory does not wait");
                deleted.expect("it is there");
            }
        }
        self.say("weather", || format!("{object} is damaged"));
        self.note("damage: a snapshot or hint");
    }

    /// A ledger of many entries, as if it had been used for long: it is about to get its first snapshot.
    fn begin_long(&self) {
        let layout = Self::layout();
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

    /// Lets nothing fail any more, and waits until all is done that can be done.
    async fn come_to_rest(self: Arc<Self>) {
        self.calm.store(true, Ordering::Relaxed);
        self.say("weather", || "nothing fails any more".into());
        clock::kill(INTRUDER);
        let all: BTreeSet<i32> = (0..self.log().partitions() as i32).collect();
        let pipeline = self.processes()[2].pipeline;
        // One of each role is enough.
        let alone = self.chance(500);
        let gone = |process: usize| process == INTRUDER || alone && [1, 3, 5, 11].contains(&process);
        for process in 0..PROCESSES.len() {
            if gone(process) {
                clock::kill(process);
                self.processes()[process].up = false;
                self.processes()[process].live = Arc::default();
                continue;
            }
            {
                let mut processes = self.processes();
                let state = &mut processes[process];
                (state.slow_until_ms, state.frozen_until_ms, state.cut_off_until_ms) = (0, 0, 0);
                (state.cut_off_at_put, state.frozen_when) = (false, None);
                (state.pipeline, state.stopping) = (pipeline, false);
                let hers = |partition: &i32| alone || (*partition as usize + process).is_multiple_of(2);
                processes[process].owned = all.iter().copied().filter(hers).collect();
            }
            clock::freeze(process, 0);
            // A pipeline that was deployed reaches whoever runs, by a new start.
            if !self.processes()[process].up || [Role::Speed, Role::Operator].contains(&PROCESSES[process]) {
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
            for process in 0..PROCESSES.len() {
                if !self.processes()[process].up && !gone(process) {
                    self.start(process);
                }
            }
        }
        self.say("weather", || format!("it rests after {} ms", now_ms() - since));
        self.audit().replayed();
        for process in 0..PROCESSES.len() {
            clock::kill(process);
        }
        self.judge_files().await;
        self.judge_entries().await;
    }

    fn state(&self) -> String {
        let ledger = self.ledger();
        let versions = ledger.versions.iter().filter(|(_, version)| version.active);
        let versions: Vec<_> =
            versions.map(|(id, version)| format!("{id}: {}", version.boundary.clone().unwrap_or_default())).collect();
        let (archived, effective) = (&ledger.archived, ledger.effective());
        format!("archived {archived}, folded {effective}, boundaries {}", versions.join("; "))
    }

    /// Whether all that the log holds is archived, folded, built and answered. Where something is damaged, what can be.
    fn rests(&self) -> bool {
        if !self.damaged.lock().expect("no holder panics").is_empty() {
            return now_ms() > self.scenario.lasts_ms + 5_000;
        }
        let (ledger, bounds) = (self.ledger(), self.log().bounds());
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
            if self.is_swept(&file.path) {
                continue;
            }
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

    /// An entry that is altered, or gone though it was hinted at, stops whoever reads the ledger, by its number (rule 6).
    async fn judge_entries(self: &Arc<Self>) {
        let layout = Self::layout();
        let last = self.ledger().number;
        let hint = self.read_now(&layout.head()).and_then(|hint| serde_json::from_slice(&hint).ok());
        let hinted = hint.and_then(|hint: serde_json::Value| hint["number"].as_u64()).unwrap_or(0);
        let first = last - last % 1_000 + 1;
        if last < first + 1 {
            return;
        }
        let (number, how) = match self.below(3) {
            0 if hinted > first => (hinted, "removed"),
            1 => (self.between(first, last + 1), "cut short"),
            _ => (self.between(first.max(2), last + 1), "in conflict with a rule"),
        };
        let object = layout.entry(number);
        match how {
            "removed" => {
                let deleted = self.inner.delete(&object).now_or_never().expect("memory does not wait");
                deleted.expect("it is there");
            }
            "cut short" => self.write_now(&object, br#"{"number": 1, "wri"#.to_vec()),
            _ => {
                let mut entry = self.audit().entries[number as usize - 1].clone();
                entry.body = Body::Selected { version: "zz".into() };
                self.write_now(&object, serde_json::to_vec(&entry).expect("it is JSON"));
            }
        }
        self.say("weather", || format!("entry {number} is {how}"));
        let opened = Journal::open(self.files(6), "serve").await;
        let stopped = matches!(&opened, Err(Error::Invalid { number: named, .. }) if *named == number);
        assert!(stopped, "entry {number} is {how}, and nobody notices: {:?}", opened.err());
        self.note(&format!("damage: an entry is {how}"));
    }
}
