//! Archiving: the model of batch/src/collect.rs.

use std::sync::Arc;

use bifold_ledger::{ArchiveCounts, Body, Offsets, Ranges, Span, TopicPartition};

use super::speed::has;
use super::{Backoff, Reader, Round, appended, earliest, nonce, refused, survey, topics};
use crate::clock::now_ms;
use crate::content::{Content, Counted, count};
use crate::error::{Error, Kind};
use crate::journal::{Appended, Journal};
use crate::log::Chunk;
use crate::world::World;

const PAUSE_MS: u64 = 150;
const SURVEY_EVERY_MS: u64 = 700;
const FLUSH_ROWS: usize = 40;

/// What waits for the next flush.
#[derive(Debug, Default)]
struct Buffer {
    ranges: Ranges,
    rows: Counted,
    dead: Counted,
    since_ms: Option<u64>,
}

impl Buffer {
    fn push(&mut self, chunk: &Chunk, start: impl Fn(&TopicPartition) -> i64) {
        if chunk.positions.is_empty() {
            return;
        }
        self.since_ms.get_or_insert_with(now_ms);
        chunk.events.iter().for_each(|event| count(&mut self.rows, *event));
        chunk.dead.iter().for_each(|letter| count(&mut self.dead, *letter));
        for (at, next) in &chunk.positions {
            let span = self.ranges.0.entry(at.clone()).or_insert_with(|| Span::new(start(at), *next));
            span.end = *next;
        }
    }

    /// Says that `[start, end)` of a partition holds nothing that could be read.
    fn pass(&mut self, at: &TopicPartition, start: i64, end: i64) {
        self.since_ms.get_or_insert_with(now_ms);
        self.ranges.0.insert(at.clone(), Span::new(start, end));
    }

    fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// Archives until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    // Now and then a collector decodes by another definition.
    let decoding = world.pick(&["one", "one", "one", "other"]);
    let collector = Collector { who: World::name(process), world, process, decoding };
    let mut backoff = Backoff::default();
    while !collector.world.stopping(process) {
        match collector.round().await {
            Ok(Round::Stopped) => return,
            Ok(Round::Anew) => backoff = Backoff::default(),
            Err(error) => {
                collector.world.judge(&collector.who, &error);
                backoff.pause().await;
            }
        }
    }
}

struct Collector {
    world: Arc<World>,
    process: usize,
    who: String,
    decoding: &'static str,
}

impl Collector {
    async fn round(&self) -> Result<Round, Error> {
        let world = &self.world;
        let found = survey(world).await;
        let mut journal = Journal::open_to_write(world.files(self.process), "collect").await?;
        journal.begin(&topics(), &earliest(&found)).await?;
        let ledger = journal.ledger();
        world.audit().same(&self.who, &ledger);
        let standing = ledger.standing_to_archive(&has(&found));
        if !standing.stopped.is_empty() {
            world.note("collect: a partition is stopped");
        }
        let mut reader = Reader::at(standing.next.iter().map(|(at, next)| (at.clone(), next)));
        let mut read: Offsets = standing.next.iter().map(|(at, _)| (at.clone(), ledger.archived(at))).collect();
        let mut buffer = Buffer::default();
        for (at, next) in standing.next.iter().filter(|(at, next)| *next > ledger.archived(at)) {
            world.note("collect: what is lost is passed over");
            buffer.pass(at, ledger.archived(at), next);
            read.advance(at, next);
        }
        let (mut next_survey, mut last_record, mut next_early) = (now_ms(), now_ms(), now_ms());
        loop {
            match reader.poll(world).await {
                Ok(chunk) => {
                    if !chunk.positions.is_empty() {
                        last_record = now_ms();
                    }
                    buffer.push(&chunk, |at| read.or_zero(at));
                    for (at, next) in &chunk.positions {
                        read.advance(at, *next);
                    }
                }
                Err(_) => {
                    world.note("collect: out of range");
                    self.flush(&mut journal, &mut buffer).await?;
                    return Ok(Round::Anew);
                }
            }
            let stopping = world.stopping(self.process);
            let due = buffer.since_ms.is_some_and(|since| now_ms() - since >= world.scenario.interval_ms)
                || (now_ms() - last_record >= PAUSE_MS && now_ms() >= next_early)
                || buffer.rows.len() >= FLUSH_ROWS;
            if (due || stopping) && !buffer.is_empty() {
                if !self.flush(&mut journal, &mut buffer).await? {
                    return Ok(if stopping { Round::Stopped } else { Round::Anew });
                }
                next_early = now_ms() + world.scenario.interval_ms;
            }
            if stopping {
                return Ok(Round::Stopped);
            }
            if now_ms() >= next_survey {
                next_survey = now_ms() + SURVEY_EVERY_MS;
                let now = survey(world).await;
                journal.begin(&topics(), &earliest(&now)).await?;
                let mended = !standing.stopped.is_empty() && {
                    let ledger = journal.refresh().await?;
                    standing.is_mended_in(&ledger.standing_to_archive(&has(&now)))
                };
                if mended {
                    world.note("collect: a partition that was stopped goes on");
                }
                if now.len() != found.len() || mended {
                    self.flush(&mut journal, &mut buffer).await?;
                    return Ok(Round::Anew);
                }
            }
        }
    }

    /// Makes what waits durable. False if somebody else archived: nothing of it counts then.
    async fn flush(&self, journal: &mut Journal, buffer: &mut Buffer) -> Result<bool, Error> {
        if buffer.is_empty() {
            return Ok(true);
        }
        let world = &self.world;
        let taken = std::mem::take(buffer);
        let nonce = nonce(world);
        let mut backoff = Backoff::default();
        let body = loop {
            match self.write_files(journal, &nonce, &taken).await {
                Ok(body) => break body,
                Err(e) if e.kind() == Kind::Unavailable => {
                    world.judge(&self.who, &e);
                    backoff.pause().await;
                }
                Err(error) => return Err(error),
            }
        };
        loop {
            match journal.append(body.clone()).await {
                Ok(done) => {
                    appended(world, self.process, done);
                    if done != Appended::Lost {
                        return Ok(true);
                    }
                }
                Err(e) if refused(world, &self.who, &e) => {
                    let Body::Archived { rows, .. } = &body else { return Ok(false) };
                    if world.ledger().archive.iter().any(|unit| !rows.is_empty() && unit.rows == *rows) {
                        world.note("trace: a landed put was offered again under a later number");
                    }
                    return Ok(false);
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

    async fn write_files(
        &self,
        journal: &Journal,
        nonce: &bifold_ledger::Nonce,
        taken: &Buffer,
    ) -> Result<Body, Error> {
        let (number, files) = (journal.ledger().number + 1, journal.files());
        let (mut rows, mut dead) = (vec![], vec![]);
        if !taken.rows.is_empty() {
            let path = files.layout.archive(number, nonce, &taken.ranges);
            let content = Content::of("rows", taken.rows.clone());
            rows.push(files.put(path, content.write(), taken.rows.len() as u64).await?);
        }
        if !taken.dead.is_empty() {
            let path = files.layout.dead_letters(number, nonce, &taken.ranges);
            let content = Content::of("dead", taken.dead.clone());
            dead.push(files.put(path, content.write(), taken.dead.len() as u64).await?);
        }
        let counts = ArchiveCounts { rows: taken.rows.len() as u64, ..ArchiveCounts::default() };
        Ok(Body::Archived { ranges: taken.ranges.clone(), rows, dead, counts, decoding: self.decoding.into() })
    }
}
