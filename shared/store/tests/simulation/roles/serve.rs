//! Answering: the model of serving/src/snapshot.rs, and of those who ask.

use std::collections::BTreeSet;
use std::sync::Arc;

use bifold_ledger::{Cover, Gap, Ledger, LiveUnit, Number, Offsets, chain};

use super::live::Offered;
use crate::audit::Answer;
use crate::clock::{now_ms, sleep_ms};
use crate::content::{Content, Counted, add};
use crate::error::{Error, Kind};
use crate::journal::Journal;
use crate::log::p;
use crate::world::{VIEWS, World};

/// How often the ledger is read again because an instance is ahead: the law holds for any.
const RETRIES: [usize; 3] = [0, 1, 5];
const LOOK_EVERY_MS: u64 = 20;
const SPEED: [usize; 2] = [2, 3];

/// What became of a try.
enum Tried {
    Answered(Offsets),
    Short,
    Building,
}

/// Is asked and answers until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    let mut server = Server { who: World::name(process), world, process, journal: None };
    while !server.world.stopping(process) {
        let world = Arc::clone(&server.world);
        sleep_ms(world.between(20, 250)).await;
        let names: Vec<&str> = match world.below(3) {
            0 => vec![world.pick(&VIEWS)],
            _ => VIEWS.to_vec(),
        };
        let end = world.log().ends();
        let asked = match world.below(4) {
            0 | 1 => Offsets::default(),
            2 => end.clone(),
            _ => end.iter().filter(|_| world.chance(500)).map(|(at, next)| (at.clone(), next / 2)).collect(),
        };
        let deadline = now_ms() + world.pick(&[0, 300, 2_000]);
        loop {
            match server.answer(&names, &asked).await {
                Ok(Tried::Answered(frontier)) => {
                    world.note(if asked.is_empty() { "answer: exact" } else { "answer: exact, at_least reached" });
                    if world.is_calm() && frontier.reaches(&world.log().ends()) {
                        world.reached_the_end(process);
                    }
                    break;
                }
                Ok(Tried::Short) if now_ms() < deadline => sleep_ms(LOOK_EVERY_MS).await,
                Ok(Tried::Short) => {
                    world.note("answer: at_least not reached in time");
                    break;
                }
                Ok(Tried::Building) => {
                    world.note("answer: building");
                    break;
                }
                Err(error) => {
                    world.judge(&server.who, &error);
                    break;
                }
            }
        }
    }
}

struct Server {
    world: Arc<World>,
    process: usize,
    who: String,
    journal: Option<Journal>,
}

impl Server {
    async fn ledger(&mut self) -> Result<Arc<Ledger>, Error> {
        match &mut self.journal {
            Some(journal) => journal.refresh().await,
            none => Ok(none.insert(Journal::open(self.world.files(self.process), "serve").await?).ledger()),
        }
    }

    async fn answer(&mut self, names: &[&str], asked: &Offsets) -> Result<Tried, Error> {
        let world = Arc::clone(&self.world);
        let retries = world.pick(&RETRIES);
        let mut missed = false;
        for retry in 0.. {
            let ledger = self.ledger().await?;
            let Some(covers) = self.covers(&ledger, names) else { return Ok(Tried::Building) };
            let asked_all = SPEED.map(|instance| self.live(instance, ledger.number));
            let mut live: Vec<_> = futures::future::join_all(asked_all).await.into_iter().flatten().collect();
            if live.iter().any(|(number, _)| *number > ledger.number) && retry < retries {
                world.note("answer: an instance is ahead, the ledger is read again");
                continue;
            }
            // Nor may a unit be used whose holes this ledger does not know.
            for (_, units) in &mut live {
                let before = units.len();
                units.retain(|unit| unit.epoch.extent.holes.iter().all(|change| ledger.change_at(*change).is_some()));
                if units.len() < before {
                    world.note("live: a unit whose holes the ledger does not know is left out");
                }
            }
            let durable = &covers[0].1.frontier;
            assert!(covers.iter().all(|(_, cover)| cover.frontier == *durable), "{}: views end apart", self.who);
            let whole =
                |unit: &&Offered| covers.iter().all(|(_, cover)| unit.epoch.states.contains_key(&cover.version));
            let offered: Vec<&Offered> = live.iter().flat_map(|(_, units)| units).filter(whole).collect();
            let units: Vec<_> = offered
                .iter()
                .map(|unit| LiveUnit {
                    ranges: unit.epoch.extent.ranges.clone(),
                    folded_under: unit.epoch.folded_under,
                })
                .collect();
            let joined = chain(durable, &units);
            self.note_units(&offered, &joined.used);
            let frontier = joined.frontier.clone();
            if !frontier.reaches(asked) {
                return Ok(Tried::Short);
            }
            let mut again = false;
            for (view, cover) in &covers {
                let mut counted = match self.durable(cover).await {
                    Ok(counted) => counted,
                    // Once, in whichever try: one before may have read the ledger again for another reason.
                    Err(e) if e.kind() == Kind::Damaged && !missed => {
                        missed = true;
                        if world.is_swept(&e.to_string()) {
                            world.note("answer: a file that was swept is missing, the ledger is read again");
                        }
                        again = true;
                        break;
                    }
                    Err(e) => return Err(e),
                };
                for unit in &joined.used {
                    add(&mut counted, &offered[*unit].epoch.states[&cover.version]);
                }
                let coverage = coverage(cover, &ledger, &frontier);
                let used: Vec<Vec<Number>> =
                    joined.used.iter().map(|i| offered[*i].epoch.extent.holes.iter().copied().collect()).collect();
                let ranges = joined.used.iter().map(|i| &offered[*i].epoch.extent.ranges);
                let with_holes: Vec<_> = ranges.zip(used.iter().map(Vec::as_slice)).collect();
                let holes = ledger.holes(cover, &with_holes);
                for (what, some) in
                    [("answer: with holes", &holes.holes), ("answer: with pending holes", &holes.pending)]
                {
                    if !some.is_empty() {
                        world.note(what);
                    }
                }
                let version = &cover.version;
                let answer = Answer { view, version, ledger: &ledger, coverage, at_least: asked, counted, holes };
                world.audit().answer(&world.log(), &self.who, &answer);
            }
            if again {
                continue;
            }
            world.say(&self.who, || format!("answers up to {frontier} at {}", ledger.number));
            return Ok(Tried::Answered(frontier));
        }
        unreachable!("the loop above ends by its own")
    }

    fn covers<'a>(&self, ledger: &Ledger, names: &[&'a str]) -> Option<Vec<(&'a str, Cover)>> {
        let audit = self.world.audit();
        audit.same(&self.who, ledger);
        let mut covers = vec![];
        for name in names {
            match ledger.served(name).map(|version| ledger.cover(version)) {
                Some(Ok(cover)) => {
                    let published = ledger.versions[&cover.version].published;
                    if cover.units.iter().any(|unit| Some(unit.number) < published) {
                        self.world.note("trace: a delta above the boundary is numbered before it");
                    }
                    covers.push((*name, cover));
                }
                None | Some(Err(Gap::Building(_))) => {
                    audit.building(&self.who, name, ledger);
                    return None;
                }
                Some(Err(gap)) => panic!("{}: {name} at {}: {gap}", self.who, ledger.number),
            }
        }
        Some(covers)
    }

    /// What an instance has after `after`; none if it does not answer.
    async fn live(&self, instance: usize, after: u64) -> Option<(u64, Vec<Offered>)> {
        let world = &self.world;
        sleep_ms(world.below(8)).await;
        if !world.answers(instance) {
            world.note("live: an instance does not answer");
            return None;
        }
        let live = Arc::clone(&world.processes()[instance].live);
        let answer = live.lock().expect("no holder panics").answer(after);
        sleep_ms(world.pick(&[1, 3, 8, 8, 60])).await;
        Some(answer)
    }

    fn note_units(&self, offered: &[&Offered], used: &[usize]) {
        for (i, unit) in offered.iter().enumerate() {
            self.world.note(match (used.contains(&i), unit.committed) {
                (true, true) => "live: a unit committed after the reader's number is used",
                (true, false) => "live: an open unit is used",
                (false, _) => "live: a unit that does not join is left out",
            });
        }
        let starts = |unit: &Offered| unit.epoch.extent.ranges.starts();
        let rivals =
            |i: usize| offered.iter().enumerate().any(|(j, other)| j < i && starts(other) == starts(offered[i]));
        if (0..offered.len()).any(rivals) {
            self.world.note("trace: an instance's open epoch beside a rival's");
        }
    }

    /// What is durable of a version, read from its files.
    async fn durable(&self, cover: &Cover) -> Result<Counted, Error> {
        let files = self.world.files(self.process);
        let mut counted = Counted::new();
        let deltas = cover.units.iter().map(|unit| &unit.delta);
        for file in cover.runs.iter().chain(deltas) {
            add(&mut counted, &Content::read(&files.get(file).await?).section(&cover.version.0));
        }
        Ok(counted)
    }
}

/// The coverage that an answer states.
fn coverage(cover: &Cover, ledger: &Ledger, frontier: &Offsets) -> Vec<(i32, [i64; 2], [i64; 2])> {
    let all: BTreeSet<i32> = frontier.iter().chain(ledger.origins.iter()).map(|(at, _)| at.partition).collect();
    let of = |partition: i32| {
        let at = p(partition);
        let origin = ledger.origin(&at);
        let boundary = cover.boundary.get(&at).unwrap_or(origin).max(origin);
        (partition, [origin, boundary], [boundary, frontier.get(&at).unwrap_or(boundary).max(boundary)])
    };
    all.into_iter().map(of).collect()
}
