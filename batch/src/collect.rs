//! Kafka → archive: chunks of records by size and interval, in offset order, exactly once.
//!
//! ```text
//! poll ─► decode, keep bytes ─► flush: rows.parquet ─► dead.parquet ─► ledger: archived ─► group commit (monitoring)
//!              ▲                                                          │
//!              └── start anew from the archive frontier ◄── lost ─────────┘
//! ```
//!
//! The ledger fences: an `archived` entry is valid only where the archive ends, so a second collector, or one that comes
//! back after `kill -9`, can neither double nor skip a record. Files of a lost flush are garbage that nothing names.

mod buffer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifold_config::Collect;
use bifold_fold::Source;
use bifold_ledger::{Body, Ledger, Nonce, Offsets, TopicPartition};
use bifold_log::{Log, Reader, ReaderOptions, Start, Survey, survey};
use bifold_service::{Backoff, Component, Shutdown, StartLimit};
use bifold_store::failpoint::failpoint;
use bifold_store::{Appended, Journal, Kind, SourceFiles};
use tokio::runtime::Handle;

use crate::Error;
use buffer::Buffer;

/// Records taken from the log at once.
const POLL_RECORDS: usize = 10_000;
/// How long a poll waits.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// How long nothing came when the stream is said to pause.
const PAUSE: Duration = Duration::from_millis(500);
/// How often partitions, topic ids and lag are asked for.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// Bytes that wait in memory at most.
const BUFFER_BYTES: usize = 256 << 20;

/// Archives one source.
#[derive(Debug)]
pub struct Collector {
    /// The source.
    pub source: Arc<Source>,
    /// Where its records come from.
    pub log: Arc<dyn Log>,
    /// Where they go.
    pub files: SourceFiles,
    /// By size and interval.
    pub options: Collect,
    /// The consumer group that is told how far it is.
    pub group: String,
    /// Where it says what it waits for.
    pub component: Component,
    /// How long it waits at start.
    pub limit: StartLimit,
}

/// Why a round of collecting ended.
enum Round {
    Stopped,
    /// Somebody else archived, or partitions were added: read the ledger and start anew.
    Anew,
}

impl Collector {
    /// Archives until `shutdown`, then flushes. Blocks: it lives on a thread of its own.
    ///
    /// # Errors
    /// What cannot be mended by waiting; at start also what the limit did not suffice for.
    pub fn run(mut self, runtime: &Handle, shutdown: &Shutdown) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        let mut begun = false;
        let mut stopped: BTreeMap<TopicPartition, String> = BTreeMap::new();
        while !shutdown.is_cancelled() {
            match self.round(runtime, shutdown, &mut begun, &mut stopped) {
                Ok(Round::Stopped) => return Ok(()),
                Ok(Round::Anew) => backoff = Backoff::default(),
                Err(error) if error.is_transient() && (begun || !self.limit.is_over()) => {
                    self.component.waiting(error.to_string());
                    sleep(runtime, backoff.pause(), shutdown);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn round(
        &mut self,
        runtime: &Handle,
        shutdown: &Shutdown,
        begun: &mut bool,
        stopped: &mut BTreeMap<TopicPartition, String>,
    ) -> Result<Round, Error> {
        let found = runtime.block_on(survey(&*self.log, &self.source.topics))?;
        if !found.missing.is_empty() {
            self.component.waiting(format!("topic {} does not exist", found.missing.join(", ")));
            // Awaited without limit: it is no failure of brokers or store.
            *begun = true;
            sleep(runtime, Duration::from_secs(1), shutdown);
            return Ok(Round::Anew);
        }
        let mut journal = runtime.block_on(Journal::open_to_write(self.files.clone(), "collect"))?;
        runtime.block_on(journal.begin(&found.ids, &found.earliest()))?;
        *begun = true;
        let ledger = journal.ledger();
        let mut reader = self.log.reader(ReaderOptions { group: self.group.clone(), with_keys: true })?;
        *stopped = unreadable(&ledger, &found);
        let readable: BTreeSet<TopicPartition> =
            found.bounds.keys().filter(|at| !stopped.contains_key(*at)).cloned().collect();
        self.assign(&mut *reader, &ledger, &readable)?;
        // Where the reader stands. Another collector's entry moves the archive, not the reader: what is read after that is refused.
        let mut read: Offsets = readable.iter().map(|at| (at.clone(), ledger.archived(at))).collect();
        self.report(&ledger);
        self.report_lag(&ledger, &found);
        let mut buffer = Buffer::new(Arc::clone(&self.source));
        let mut next_survey = Instant::now();
        // A pause in the stream is a good moment, if the last flush was long enough ago.
        let (mut last_record, mut next_early) = (Instant::now(), Instant::now());
        loop {
            if stopped.is_empty() {
                self.component.ready();
            } else {
                self.component.waiting(stopped.values().cloned().collect::<Vec<_>>().join("; "));
            }
            match reader.poll(POLL_RECORDS, POLL_WAIT) {
                Ok(chunk) => {
                    if !chunk.is_empty() {
                        last_record = Instant::now();
                    }
                    buffer.push(&chunk, |at| read.or_zero(at));
                    for (at, next, _) in chunk.positions() {
                        read.advance(at, next);
                    }
                }
                Err(bifold_log::Error::OutOfRange { .. } | bifold_log::Error::Truncated { .. }) => {
                    self.flush(runtime, &mut journal, &mut buffer, &mut *reader)?;
                    return Ok(Round::Anew);
                }
                Err(error) => return Err(error.into()),
            }
            let stopping = shutdown.is_cancelled();
            let due = buffer.age() >= self.options.flush_interval
                || (last_record.elapsed() >= PAUSE && Instant::now() >= next_early)
                || buffer.rows() as u64 >= self.options.flush_rows
                || buffer.bytes() >= BUFFER_BYTES;
            if (due || stopping) && !buffer.is_empty() {
                let won = self.flush(runtime, &mut journal, &mut buffer, &mut *reader)?;
                if !won {
                    return Ok(if stopping { Round::Stopped } else { Round::Anew });
                }
                next_early = Instant::now() + self.options.flush_interval;
            }
            if stopping {
                return Ok(Round::Stopped);
            }
            if Instant::now() >= next_survey {
                next_survey = Instant::now() + SURVEY_EVERY;
                match runtime.block_on(survey(&*self.log, &self.source.topics)) {
                    Ok(now) => {
                        runtime.block_on(journal.begin(&now.ids, &now.earliest()))?;
                        self.report_lag(&journal.ledger(), &now);
                        // What is stopped may have been judged by bounds that were older than the ledger.
                        let mended = unreadable(&journal.ledger(), &now).len() < stopped.len();
                        if now.bounds.len() != found.bounds.len() || mended {
                            self.flush(runtime, &mut journal, &mut buffer, &mut *reader)?;
                            return Ok(Round::Anew);
                        }
                    }
                    Err(error) => self.component.waiting(error.to_string()),
                }
            }
        }
    }

    fn assign(
        &self,
        reader: &mut dyn Reader,
        ledger: &Ledger,
        readable: &BTreeSet<TopicPartition>,
    ) -> Result<(), bifold_log::Error> {
        let start = |at: &TopicPartition| Start {
            at: at.clone(),
            next: ledger.archived(at),
            leader_epoch: ledger.archived_epochs.get(at).copied(),
        };
        reader.assign(&readable.iter().map(start).collect::<Vec<_>>())
    }

    /// Makes what waits durable. False if somebody else archived: nothing of it counts then.
    fn flush(
        &self,
        runtime: &Handle,
        journal: &mut Journal,
        buffer: &mut Buffer,
        reader: &mut dyn Reader,
    ) -> Result<bool, Error> {
        if buffer.is_empty() {
            return Ok(true);
        }
        let taken = buffer.take();
        let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
        let mut backoff = Backoff::default();
        let body = loop {
            match runtime.block_on(self.write_files(journal, &nonce, &taken)) {
                Ok(body) => break body,
                Err(Error::Store(e)) if e.kind() == Kind::Unavailable => {
                    self.component.waiting(e.to_string());
                    std::thread::sleep(backoff.pause());
                }
                Err(error) => return Err(error),
            }
        };
        failpoint("collect.files_written");
        loop {
            match runtime.block_on(journal.append(body.clone())) {
                Ok(Appended::Won(_)) => break,
                // Somebody took the number: the same entry stands elsewhere only if the archive still ends there.
                Ok(Appended::Lost) => {}
                Err(e) if e.kind() == Kind::Refused => return Ok(false),
                Err(e) if e.kind() == Kind::Unavailable => {
                    self.component.waiting(e.to_string());
                    std::thread::sleep(backoff.pause());
                    if let Err(e) = runtime.block_on(journal.refresh()) {
                        self.component.waiting(e.to_string());
                    }
                }
                Err(e) => return Err(e.into()),
            }
        }
        failpoint("collect.archived");
        self.report(&journal.ledger());
        reader.commit(&taken.ranges.ends());
        failpoint("collect.group_told");
        Ok(true)
    }

    async fn write_files(&self, journal: &Journal, nonce: &Nonce, taken: &buffer::Taken) -> Result<Body, Error> {
        let number = journal.ledger().number + 1;
        let layout = &self.files.layout;
        let (mut rows, mut dead) = (vec![], vec![]);
        if taken.rows.num_rows() > 0 {
            let bytes = buffer::parquet(&taken.rows)?;
            let path = layout.archive(number, nonce, &taken.ranges);
            rows.push(self.files.put(path, bytes, taken.rows.num_rows() as u64).await?);
            failpoint("collect.rows_written");
        }
        if taken.dead.num_rows() > 0 {
            let bytes = buffer::parquet(&taken.dead)?;
            let path = layout.dead_letters(number, nonce, &taken.ranges);
            dead.push(self.files.put(path, bytes, taken.dead.num_rows() as u64).await?);
        }
        let (ranges, counts) = (taken.ranges.clone(), taken.counts.clone());
        Ok(Body::Archived { ranges, rows, dead, counts, decoding: self.source.decoding() })
    }

    /// Counters come from the ledger: each event and each dead letter once, when it is durable.
    fn report(&self, ledger: &Ledger) {
        let source = || self.source.name.clone();
        metrics::counter!("bifold_events_total", "source" => source(), "role" => "collect")
            .absolute(ledger.counts.rows);
        metrics::counter!("bifold_absent_total", "source" => source()).absolute(ledger.counts.absent);
        for reason in bifold_fold::Reason::ALL {
            let count = ledger.counts.dead.get(reason.name()).copied().unwrap_or(0);
            metrics::counter!("bifold_dead_letters_total", "source" => source(), "reason" => reason.name())
                .absolute(count);
        }
    }

    fn report_lag(&self, ledger: &Ledger, survey: &Survey) {
        for (at, bounds) in &survey.bounds {
            let labels = [
                ("source", self.source.name.clone()),
                ("topic", at.topic.clone()),
                ("partition", at.partition.to_string()),
                ("role", "collect".to_string()),
            ];
            metrics::gauge!("bifold_lag_offsets", &labels).set((bounds.end - ledger.archived(at)).max(0) as f64);
        }
    }
}

/// Partitions that cannot be read from the archive's end, and why.
fn unreadable(ledger: &Ledger, found: &Survey) -> BTreeMap<TopicPartition, String> {
    let mut stopped = BTreeMap::new();
    for (at, bounds) in &found.bounds {
        let next = ledger.archived(at);
        if next < bounds.earliest {
            stopped.insert(at.clone(), lost_message(at, next, bounds.earliest));
        } else if next > bounds.end {
            stopped.insert(at.clone(), format!("{at} ends at {}, but the archive holds it up to {next}", bounds.end));
        }
    }
    stopped
}

fn lost_message(at: &TopicPartition, next: i64, earliest: i64) -> String {
    format!(
        "{at} has lost the offsets [{next}, {earliest}): they are no longer in the log and not in the archive; \
         this partition is stopped"
    )
}

fn sleep(runtime: &Handle, pause: Duration, shutdown: &Shutdown) {
    runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    });
}
