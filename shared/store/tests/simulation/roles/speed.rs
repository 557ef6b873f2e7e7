//! Folding: the model of speed/src/folder.rs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bifold_ledger::{
    ArchiveUnit, Body, Dialect, Extent, Ledger, Number, Part, Ranges, Span, TopicPartition, Toward, VersionId,
};

use super::live::Epoch;
use super::{Backoff, Reader, Round, appended, earliest, nonce, refused, survey, topics};
use crate::clock::{now_ms, sleep_ms};
use crate::content::Content;
use crate::error::{Error, Kind};
use crate::files::SourceFiles;
use crate::journal::{Appended, Journal};
use crate::log::{Bounds, Chunk, p};
use crate::world::{PIPELINES, VIEWS, World};

const PAUSE_MS: u64 = 150;
const LOOK_EVERY_MS: u64 = 200;
const SURVEY_EVERY_MS: u64 = 700;
const EPOCH_EVENTS: u64 = 30;

/// Folds until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    let who = World::name(process);
    let live = Arc::clone(&world.processes()[process].live);
    let mut folder = Folder { live, world, process, who, decided: false };
    let mut backoff = Backoff::default();
    while !folder.world.stopping(process) {
        match folder.round().await {
            Ok(Round::Stopped) => return,
            Ok(Round::Anew) => backoff = Backoff::default(),
            Err(error) => {
                folder.world.judge(&folder.who, &error);
                backoff.pause().await;
            }
        }
        folder.live.lock().expect("no holder panics").forget_open();
    }
}

struct Folder {
    world: Arc<World>,
    process: usize,
    who: String,
    live: Arc<std::sync::Mutex<super::live::Live>>,
    decided: bool,
}

impl Folder {
    async fn round(&mut self) -> Result<Round, Error> {
        let world = Arc::clone(&self.world);
        let mut found = survey(&world).await;
        let mut journal = Journal::open_to_write(world.files(self.process), "speed").await?;
        journal.begin(&topics(), &earliest(&found)).await?;
        self.declare(&mut journal).await?;
        self.decided = true;
        let mut ledger = journal.ledger();
        world.audit().same(&self.who, &ledger);
        let owned = world.owned(self.process);
        let partitions = found.len();
        found.retain(|at, _| owned.contains(&at.partition));
        let versions = ledger.active();
        let mut left_out = Part::without_lost(&ledger);
        let standing = ledger.standing_to_fold(&has(&found), 0);
        if !standing.stopped.is_empty() {
            world.note("speed: a partition is stopped");
        }
        let mut reader = Reader::at(standing.next.iter().map(|(at, next)| (at.clone(), next)));
        let bridge = &standing.bridge;
        let mut bridge = (!bridge.to.is_empty()).then(|| Records::new(journal.files(), &ledger, bridge.clone()));
        let extent = Extent::open(&ledger, found.keys());
        let mut epoch = Epoch::new(ledger.number, extent, versions.iter().cloned());
        let (mut next_survey, mut next_look) = (now_ms(), now_ms() + LOOK_EVERY_MS);
        let (mut last_record, mut next_early) = (now_ms(), now_ms());
        self.live().note_ledger(&ledger);
        self.live().offer(&epoch);
        loop {
            let polled = match &mut bridge {
                Some(records) => match records.next().await? {
                    Some(chunk) => {
                        world.note("speed: folded from the archive");
                        Ok(chunk)
                    }
                    None => {
                        // Else it is passed over with the next record, which may never come.
                        if epoch.extent.counts_lost(&ledger) {
                            return Ok(Round::Anew);
                        }
                        epoch.pass_lost(&ledger);
                        bridge = None;
                        continue;
                    }
                },
                None => reader.poll(&world).await,
            };
            match polled {
                Ok(chunk) if chunk.positions.is_empty() => {}
                Ok(chunk) => {
                    last_record = now_ms();
                    let before = epoch.extent.end();
                    epoch.fold(&chunk, &left_out);
                    if epoch.extent.names_what_it_counts(&ledger, &before) {
                        world.note("trace: an epoch is folded again, for it holds some of what was lost since");
                        return Ok(Round::Anew);
                    }
                    if !epoch.extent.ranges.is_empty() {
                        self.live().offer(&epoch);
                    }
                }
                Err(_) => {
                    world.note("speed: out of range");
                    sleep_ms(200).await;
                    return Ok(Round::Anew);
                }
            }
            let stopping = world.stopping(self.process);
            let due = epoch.opened_ms.is_some_and(|opened| now_ms() - opened >= world.scenario.interval_ms)
                || (now_ms() - last_record >= PAUSE_MS && now_ms() >= next_early)
                || epoch.events >= EPOCH_EVENTS;
            if (due || stopping) && !epoch.extent.ranges.is_empty() {
                let Some(number) = self.commit(&mut journal, &versions, &epoch).await? else {
                    return Ok(if stopping { Round::Stopped } else { Round::Anew });
                };
                world.note(match epoch.extent.holes.is_empty() {
                    true => "speed: an epoch is committed",
                    false => "speed: an epoch that passes over what is lost is committed",
                });
                ledger = journal.ledger();
                left_out = Part::without_lost(&ledger);
                next_early = now_ms() + world.scenario.interval_ms;
                let next = Epoch::new(ledger.number, Extent::new(epoch.extent.end()), versions.iter().cloned());
                let done = std::mem::replace(&mut epoch, next);
                self.live().committed(number, done, &epoch);
                self.live().note_ledger(&ledger);
            }
            if stopping {
                return Ok(Round::Stopped);
            }
            if now_ms() >= next_look {
                next_look = now_ms() + LOOK_EVERY_MS;
                match journal.refresh().await {
                    Ok(now) => ledger = now,
                    Err(e) if e.kind() == Kind::Unavailable => world.judge(&self.who, &e),
                    Err(e) => return Err(e),
                }
                world.audit().same(&self.who, &ledger);
                self.live().note_ledger(&ledger);
                let started = epoch.extent.is_at_frontier(&ledger);
                left_out = Part::without_lost(&ledger);
                if !started || ledger.active() != versions {
                    if !epoch.extent.ranges.is_empty() {
                        world.note(match started {
                            true => "trace: a version was declared or retired in mid-epoch",
                            false => "trace: an open epoch was overtaken",
                        });
                    }
                    return Ok(Round::Anew);
                }
                if standing.is_mended_in(&ledger.standing_to_fold(&has(&found), 0)) {
                    world.note("speed: a partition that was stopped goes on");
                    return Ok(Round::Anew);
                }
                if world.owned(self.process) != owned {
                    world.note("speed: its partitions changed");
                    return Ok(Round::Anew);
                }
            }
            if now_ms() >= next_survey {
                next_survey = now_ms() + SURVEY_EVERY_MS;
                let now = survey(&world).await;
                journal.begin(&topics(), &earliest(&now)).await?;
                let mine = now.iter().filter(|(at, _)| owned.contains(&at.partition));
                let mine = mine.map(|(at, bounds)| (at.clone(), *bounds)).collect();
                if now.len() != partitions || standing.is_mended_in(&ledger.standing_to_fold(&has(&mine), 0)) {
                    return Ok(Round::Anew);
                }
            }
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, super::live::Live> {
        self.live.lock().expect("no holder panics")
    }

    /// Writes what makes the pipeline's versions those that their views have.
    async fn declare(&self, journal: &mut Journal) -> Result<(), Error> {
        let pipeline = PIPELINES[self.world.processes()[self.process].pipeline];
        for (view, version) in VIEWS.iter().zip(pipeline) {
            let (view, version) = (view.to_string(), VersionId::from(version));
            while let Some(toward) = journal.ledger().toward(&view, &version) {
                if toward != Toward::Declare && self.decided {
                    break;
                }
                self.world.note(&format!("toward: {toward:?}"));
                let body = match toward {
                    Toward::Declare => {
                        if journal.ledger().versions.contains_key(&version) {
                            self.world.note("trace: a retired version is declared again");
                        }
                        declared(&view, &version)
                    }
                    Toward::Select => Body::Selected { version: version.clone() },
                    Toward::Retire => Body::Retired { versions: vec![version.clone()] },
                };
                match journal.append(body).await {
                    Ok(done) => appended(&self.world, self.process, done),
                    Err(e) if refused(&self.world, &self.who, &e) => drop(journal.refresh().await?),
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }

    /// Makes an epoch durable. None if the ledger has moved under it.
    async fn commit(
        &self,
        journal: &mut Journal,
        versions: &[VersionId],
        epoch: &Epoch,
    ) -> Result<Option<Number>, Error> {
        let world = &self.world;
        let states = epoch.states.iter().map(|(version, counted)| (version.0.clone(), counted.clone()));
        let bytes = Content(states.collect()).write();
        let files = journal.files().clone();
        let path = files.layout.delta(journal.ledger().number + 1, &nonce(world), &epoch.extent.ranges);
        let mut backoff = Backoff::default();
        let file = loop {
            match files.put(path.clone(), bytes.clone(), epoch.events).await {
                Ok(file) => break file,
                Err(e) => {
                    world.judge(&self.who, &e);
                    backoff.pause().await;
                }
            }
        };
        let (ranges, versions, events) = (epoch.extent.ranges.clone(), versions.to_vec(), epoch.events);
        let holes = epoch.extent.holes.iter().copied().collect();
        let body = Body::Folded {
            ranges,
            versions,
            delta: file,
            events,
            newest_event_us: None,
            holes,
            duplicates: 0,
            seen: None,
        };
        loop {
            match journal.append(body.clone()).await {
                Ok(done) => {
                    appended(world, self.process, done);
                    if let Appended::Won(number) = done {
                        return Ok(Some(number));
                    }
                }
                Err(e) if refused(world, &self.who, &e) => {
                    if world.ledger().units.iter().any(|unit| unit.delta.path == path) {
                        world.note("trace: a landed put was offered again under a later number");
                    }
                    return Ok(None);
                }
                Err(e) if e.kind() == Kind::Unavailable => {
                    world.judge(&self.who, &e);
                    world.note("append: unknown");
                    backoff.pause().await;
                    if let Err(e) = journal.refresh().await {
                        world.judge(&self.who, &e);
                    }
                }
                Err(e) => return Err(e),
            }
        }
    }
}

/// What declares a version.
pub(crate) fn declared(view: &str, version: &VersionId) -> Body {
    let (view, version, sql) = (view.to_string(), version.clone(), format!("SELECT {version}"));
    Body::Declared { view, version, sql, source: serde_json::Value::Null, dialect: Dialect::FIRST }
}

/// What the log has of these partitions.
pub(crate) fn has(bounds: &BTreeMap<TopicPartition, Bounds>) -> Ranges {
    bounds.iter().map(|(at, bounds)| (at.clone(), Span::new(bounds.earliest, bounds.end))).collect()
}

/// Archived records in the log's order: the model of shared/archive/src/records.rs.
struct Records {
    files: SourceFiles,
    part: Part,
    /// What is to be read; the next one last.
    units: Vec<ArchiveUnit>,
}

impl Records {
    fn new(files: &SourceFiles, ledger: &Ledger, part: Part) -> Self {
        let mut units: Vec<ArchiveUnit> = part.units(ledger).map(|(unit, _)| unit.clone()).collect();
        units.reverse();
        Self { files: files.clone(), part, units }
    }

    async fn next(&mut self) -> Result<Option<Chunk>, Error> {
        let Some(unit) = self.units.pop() else { return Ok(None) };
        let mut chunk = Chunk::default();
        for file in &unit.rows {
            let rows = Content::read(&self.files.get(file).await?).section("rows");
            for (record, times) in rows.into_iter().filter(|(record, _)| self.part.holds(&p(record.0), record.1)) {
                chunk.events.extend(std::iter::repeat_n(record, times as usize));
            }
        }
        for file in &unit.dead {
            self.files.get(file).await?;
        }
        for (at, _) in self.part.to.iter() {
            let Some(span) = unit.ranges.get(at) else { continue };
            let next = span.end.min(self.part.to.or_zero(at));
            if next > self.part.from.or_zero(at) {
                chunk.positions.push((at.clone(), next));
            }
        }
        Ok(Some(chunk))
    }
}
