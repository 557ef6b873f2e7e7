//! The roles: small models of what folds, collects, recomputes and answers, with the same effects in the same order.
//!
//! The journal, the files and all decisions are the real ones; what DataFusion and Kafka do is arithmetic on counts.

pub(crate) mod batch;
pub(crate) mod collect;
pub(crate) mod intruder;
pub(crate) mod live;
pub(crate) mod maintain;
pub(crate) mod operator;
pub(crate) mod serve;
pub(crate) mod speed;

use std::collections::BTreeMap;
use std::sync::Arc;

use bifold_ledger::{Nonce, Offsets, Refusal, TopicPartition};

use crate::clock::{now_us, sleep_ms};
use crate::error::{Error, Kind};
use crate::journal::Appended;
use crate::log::{Bounds, Chunk, OutOfRange, TOPIC};
use crate::world::{PROCESSES, World};

/// What a process does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// batch/src/collect.rs
    Collect,
    /// speed/src/folder.rs
    Speed,
    /// batch/src/recompute.rs
    Batch,
    /// serving/src/snapshot.rs
    Serve,
    /// A person who selects and retires versions, accepts losses, quarantines and lifts.
    Operator,
    /// A writer that offers entries which break a rule.
    Intruder,
    /// batch/src/maintain.rs
    Maintain,
}

/// Runs a process until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    match PROCESSES[process] {
        Role::Collect => collect::run(world, process).await,
        Role::Speed => speed::run(world, process).await,
        Role::Batch => batch::run(world, process).await,
        Role::Serve => serve::run(world, process).await,
        Role::Operator => operator::run(world, process).await,
        Role::Intruder => intruder::run(world, process).await,
        Role::Maintain => maintain::run(world, process).await,
    }
}

/// Why a round ended.
pub(crate) enum Round {
    Stopped,
    Anew,
}

/// Growing pauses.
#[derive(Debug)]
pub(crate) struct Backoff(u64);

impl Default for Backoff {
    fn default() -> Self {
        Self(100)
    }
}

impl Backoff {
    pub(crate) async fn pause(&mut self) {
        let pause = self.0;
        self.0 = (pause * 2).min(2_000);
        sleep_ms(pause).await;
    }
}

/// What the log says of itself, a little late.
pub(crate) async fn survey(world: &World) -> BTreeMap<TopicPartition, Bounds> {
    sleep_ms(world.below(5)).await;
    let bounds = world.log().bounds();
    sleep_ms(world.below(5)).await;
    bounds
}

pub(crate) fn earliest(found: &BTreeMap<TopicPartition, Bounds>) -> Offsets {
    found.iter().map(|(at, bounds)| (at.clone(), bounds.earliest)).collect()
}

pub(crate) fn topics() -> BTreeMap<String, String> {
    [(TOPIC.to_string(), "id".to_string())].into()
}

/// A consumer of some partitions, which fetches ahead of what it gives.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    next: BTreeMap<TopicPartition, i64>,
    fetched: BTreeMap<TopicPartition, i64>,
    since_us: u64,
}

impl Reader {
    /// One that begins at these positions.
    pub(crate) fn at(positions: impl Iterator<Item = (TopicPartition, i64)>) -> Self {
        Self { next: positions.collect(), fetched: BTreeMap::new(), since_us: now_us() }
    }

    /// Some of what there is, of some partitions.
    pub(crate) async fn poll(&mut self, world: &World) -> Result<Chunk, OutOfRange> {
        sleep_ms(world.between(5, 25)).await;
        let mut all = Chunk::default();
        for (at, next) in &mut self.next {
            let fetched = self.fetched.entry(at.clone()).or_insert(*next);
            *fetched = world.log().fetch(at, *next, (self.since_us, 40)).max(*fetched);
            if world.chance(350) {
                continue;
            }
            let most = world.between(1, 10) as i64;
            let chunk = world.log().poll(at, *next, (most, *fetched))?;
            for (_, to) in &chunk.positions {
                *next = *to;
            }
            all.events.extend(chunk.events);
            all.dead.extend(chunk.dead);
            all.positions.extend(chunk.positions);
        }
        Ok(all)
    }
}

/// A nonce by lot.
pub(crate) fn nonce(world: &World) -> Nonce {
    Nonce(format!("{:016x}", world.below(u64::MAX)))
}

/// Counts the outcome of an append, and asks whether it is true.
pub(crate) fn appended(world: &World, process: usize, done: Appended) {
    world.judge_outcome(process, done);
    match done {
        Appended::Won(number) => {
            world.note("append: Won");
            if world.answer_was_lost(number) {
                world.note("append: Won, though the answer of the put was lost");
            }
        }
        Appended::Lost => world.note("append: Lost"),
    }
}

/// Whether an error is a refusal, which is counted.
pub(crate) fn refused(world: &World, who: &str, error: &Error) -> bool {
    let Error::Refused { refusal, .. } = error else { return false };
    match (who.split('-').next(), refusal) {
        (Some("speed"), Refusal::Versions { .. }) => world.note("trace: an instance that knows other versions commits"),
        (Some("speed"), Refusal::Start { .. }) => world.note("trace: an instance that was overtaken commits"),
        (Some("collect"), Refusal::Start { .. }) => world.note("trace: a collector that was overtaken commits"),
        (Some("batch"), Refusal::Overtaken { .. }) => world.note("trace: a late batch run publishes"),
        (Some("batch"), Refusal::Leap { .. }) => world.note("trace: a leap misses a version declared meanwhile"),
        (Some("batch"), Refusal::Torn { .. }) => {
            world.note("trace: a boundary meets an epoch folded or compacted meanwhile")
        }
        (Some("batch"), Refusal::Changed { .. }) => world.note("trace: a batch run meets a change below its boundary"),
        (Some("maintain"), Refusal::NotCurrent { .. }) => world.note("trace: what is compacted was replaced meanwhile"),
        _ => {}
    }
    world.say(who, || format!("is refused: {refusal}"));
    let name = format!("{refusal:?}");
    let name = name.split([' ', '(', '{']).next().unwrap_or_default();
    match refusal {
        Refusal::Start { kind, .. } | Refusal::Empty { kind } => world.note(&format!("refused: {name} ({kind})")),
        _ => world.note(&format!("refused: {name}")),
    }
    assert_eq!(error.kind(), Kind::Refused);
    true
}
