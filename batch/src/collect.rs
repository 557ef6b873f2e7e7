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

pub(crate) mod buffer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bifold_config::Collect;
use bifold_fold::Source;
use bifold_ledger::{Body, File, Ledger, Nonce, Offsets, TopicPartition};
use bifold_log::{Log, Owned, ReaderOptions, Seat, Start, Survey, Turn, Unread, survey, topic_ids};
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
/// How often the group is asked while it is being formed.
const SEAT_EVERY: Duration = Duration::from_millis(50);
/// The same when the process is told to end.
const FLUSH_AT_END_WITHIN: Duration = Duration::from_secs(10);
/// How long the log has to stay silent about a position for it to be good.
const TROUBLE_LASTS: Duration = Duration::from_secs(5);
/// How long a flush is tried before the instance gives its partitions to others, who may reach the store.
const FLUSH_WITHIN: Duration = Duration::from_secs(30);
/// How long a partition's frontier has to stand still for nobody to be reading it, at least.
const UNREAD_AFTER: Duration = Duration::from_secs(60);
/// How often it warns of dead letters.
const TELL_EVERY: Duration = Duration::from_secs(30);

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
    /// The consumer group whose members share the partitions, but for the installation's id at its end.
    pub group: String,
    /// Where it says what it waits for.
    pub component: Component,
    /// Where it says which partitions nobody reads.
    pub others: Component,
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
        let (mut begun, mut seat, mut trouble) = (false, Seat::default(), None);
        let mut unread = Unread::new(UNREAD_AFTER.max(3 * self.options.flush_interval));
        while !shutdown.is_cancelled() {
            match self.round(runtime, shutdown, &mut begun, (&mut seat, &mut unread), &mut trouble) {
                Ok(Round::Stopped) => return Ok(()),
                Ok(Round::Anew) => backoff = Backoff::default(),
                Err(error) if error.is_transient() && (begun || !self.limit.is_over()) => {
                    self.component.waiting(error.to_string());
                    if matches!(error, Error::Store(_)) {
                        seat.leave();
                    }
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
        (seat, unread): (&mut Seat, &mut Unread),
        trouble: &mut Option<String>,
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
        let group = format!("{}.{}", self.group, runtime.block_on(self.files.installation())?);
        let owned = loop {
            match seat.take(&*self.log, &group, &self.source.topics)? {
                Owned::Unknown if shutdown.is_cancelled() => return Ok(Round::Anew),
                Owned::Unknown => {
                    self.component.waiting(seat.why_not(&group));
                    sleep(runtime, SEAT_EVERY, shutdown);
                }
                owned => break owned,
            }
        };
        let ledger = runtime.block_on(journal.refresh())?;
        let mut reader = self.log.reader(ReaderOptions { with_keys: true, ..ReaderOptions::default() })?;
        let mine: BTreeSet<TopicPartition> = found.bounds.keys().filter(|at| owned.holds(at)).cloned().collect();
        let standing = ledger.standing_to_archive(&found.ranges(&mine));
        let whole = standing.stopped.is_empty();
        reader.assign(&Start::all(&ledger, &standing.next))?;
        // Where the reader stands. Another collector's entry moves the archive, not the reader: what is read after that is refused.
        let mut read: Offsets = standing.next.iter().map(|(at, _)| (at.clone(), ledger.archived(at))).collect();
        self.report(&ledger);
        let report_lag = |ledger: &Ledger, survey: &Survey, unread: &mut Unread| {
            let unread = unread.look(survey, &mine, |at| ledger.archived(at), Instant::now());
            self.report_lag(ledger, survey, &mine, &unread);
            match Unread::why(&unread, &group) {
                Some(why) => self.others.waiting(why),
                None => self.others.ready(),
            }
        };
        report_lag(&ledger, &found, unread);
        let mut buffer = Buffer::new(Arc::clone(&self.source), self.options.flush_rows);
        for (at, next) in standing.next.iter().filter(|(at, next)| *next > ledger.archived(at)) {
            buffer.pass(at, ledger.archived(at), next);
            read.advance(at, next);
        }
        let begun_at = Instant::now();
        let mut next_survey = begun_at;
        // A pause in the stream is a good moment, if the last flush was long enough ago.
        let (mut last_record, mut next_early) = (Instant::now(), Instant::now());
        loop {
            if begun_at.elapsed() >= TROUBLE_LASTS {
                *trouble = None;
            }
            if let Some(trouble) = trouble.as_ref().filter(|_| whole) {
                self.component.waiting(trouble);
            } else if whole {
                self.component.ready();
            } else {
                self.component.waiting(standing.why());
            }
            match reader.poll(POLL_RECORDS, POLL_WAIT) {
                Ok(chunk) => {
                    if !chunk.is_empty() {
                        last_record = Instant::now();
                        *trouble = None;
                    }
                    let mut taken = buffer.push(&chunk, 0, &mut read);
                    self.tell_of_dead_letters(&mut buffer);
                    while taken < chunk.len() {
                        if !self.flush((runtime, shutdown), &mut journal, &mut buffer, seat)? {
                            seat.release();
                            return Ok(Round::Anew);
                        }
                        taken = buffer.push(&chunk, taken, &mut read);
                    }
                }
                Err(error @ (bifold_log::Error::OutOfRange { .. } | bifold_log::Error::Truncated { .. })) => {
                    // Told until the log gives something again.
                    *trouble = Some(error.to_string());
                    self.component.waiting(error.to_string());
                    sleep(runtime, Duration::from_millis(500), shutdown);
                    self.flush((runtime, shutdown), &mut journal, &mut buffer, seat)?;
                    return Ok(Round::Anew);
                }
                Err(error) => return Err(error.into()),
            }
            let stopping = shutdown.is_cancelled();
            let due = buffer.age() >= self.options.flush_interval
                || (last_record.elapsed() >= PAUSE && Instant::now() >= next_early)
                || buffer.is_full();
            let turn = match seat.poll()? {
                Turn::Changed if mine.iter().eq(found.bounds.keys().filter(|at| seat.owned().holds(at))) => Turn::Stay,
                turn => turn,
            };
            if (due || stopping || turn != Turn::Stay) && !buffer.is_empty() {
                let won = self.flush((runtime, shutdown), &mut journal, &mut buffer, seat)?;
                if !won {
                    seat.release();
                    return Ok(if stopping { Round::Stopped } else { Round::Anew });
                }
                next_early = Instant::now() + self.options.flush_interval;
            }
            if stopping {
                return Ok(Round::Stopped);
            }
            if turn != Turn::Stay {
                // What was read is archived, so that whoever gets the partitions goes on from there.
                seat.release();
                tracing::info!(source = self.source.name, "the group has shared out the partitions anew");
                return Ok(Round::Anew);
            }
            if Instant::now() >= next_survey {
                next_survey = Instant::now() + SURVEY_EVERY;
                match runtime.block_on(survey(&*self.log, &self.source.topics)) {
                    Ok(now) => {
                        runtime.block_on(journal.begin(&now.ids, &now.earliest()))?;
                        let ledger = runtime.block_on(journal.refresh())?;
                        report_lag(&ledger, &now, unread);
                        // What is stopped may have been judged by bounds that were older than the ledger, or accepted as lost since.
                        let mended = !whole && standing.is_mended_in(&ledger.standing_to_archive(&now.ranges(&mine)));
                        if now.bounds.len() != found.bounds.len() || mended {
                            self.flush((runtime, shutdown), &mut journal, &mut buffer, seat)?;
                            return Ok(Round::Anew);
                        }
                    }
                    Err(error) => self.component.waiting(error.to_string()),
                }
            }
        }
    }

    /// Warns of dead letters: of the first ones at once, then now and then.
    fn tell_of_dead_letters(&self, buffer: &mut Buffer) {
        let Some(news) = buffer.take_news(TELL_EVERY) else { return };
        let Some((dead_letters, reason, count, example)) = news.summary() else { return };
        let (source, reason) = (&self.source.name, reason.name());
        tracing::warn!(
            source,
            dead_letters,
            reason,
            count,
            example,
            "no view counts these; `bifold dead-letters {source}` lists them once they are archived"
        );
    }

    /// Makes what waits durable. False if somebody else archived: nothing of it counts then.
    fn flush(
        &self,
        (runtime, shutdown): (&Handle, &Shutdown),
        journal: &mut Journal,
        buffer: &mut Buffer,
        seat: &mut Seat,
    ) -> Result<bool, Error> {
        if buffer.is_empty() {
            return Ok(true);
        }
        // What was read is of the ledger's topics only if they are still the same.
        journal.same_topics(&runtime.block_on(topic_ids(&*self.log, &self.source.topics))?)?;
        let taken = buffer.take();
        let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
        let mut backoff = Backoff::default();
        let started = Instant::now();
        let over = || started.elapsed() >= if shutdown.is_cancelled() { FLUSH_AT_END_WITHIN } else { FLUSH_WITHIN };
        let body = loop {
            match runtime.block_on(self.write_files(journal, &nonce, &taken)) {
                Ok(body) => break body,
                Err(Error::Store(e)) if e.kind() == Kind::Unavailable && !over() => {
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
                Err(e) if e.kind() == Kind::Unavailable && !over() => {
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
        seat.commit(&taken.ranges.ends());
        failpoint("collect.group_told");
        Ok(true)
    }

    async fn write_files(&self, journal: &Journal, nonce: &Nonce, taken: &buffer::Taken) -> Result<Body, Error> {
        let number = journal.ledger().number + 1;
        let layout = &self.files.layout;
        let (mut rows, mut dead) = (vec![], vec![]);
        if taken.rows.num_rows() > 0 {
            rows.push(put_rows(&self.files, layout.archive(number, nonce, &taken.ranges), &taken.rows).await?);
            failpoint("collect.rows_written");
        }
        if taken.dead.num_rows() > 0 {
            dead.push(put_rows(&self.files, layout.dead_letters(number, nonce, &taken.ranges), &taken.dead).await?);
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

    fn report_lag(
        &self,
        ledger: &Ledger,
        survey: &Survey,
        mine: &BTreeSet<TopicPartition>,
        unread: &BTreeMap<TopicPartition, i64>,
    ) {
        for (at, bounds) in &survey.bounds {
            let labels = [
                ("source", self.source.name.clone()),
                ("topic", at.topic.clone()),
                ("partition", at.partition.to_string()),
                ("role", "collect".to_string()),
            ];
            // What is another's is the other's to tell, if there is one.
            let others = unread.get(at).copied().unwrap_or(0);
            let lag = if mine.contains(at) { (bounds.end - ledger.archived(at)).max(0) } else { others };
            metrics::gauge!("bifold_lag_offsets", &labels).set(lag as f64);
        }
        let labels = [("source", self.source.name.clone()), ("role", "collect".to_string())];
        metrics::gauge!("bifold_unread_partitions", &labels).set(unread.len() as f64);
    }
}

/// Writes an archive file.
pub(crate) async fn put_rows(files: &SourceFiles, path: String, rows: &RecordBatch) -> Result<File, Error> {
    let (bytes, tail) = bifold_archive::file::write(rows)?;
    let file = files.put(path, bytes, rows.num_rows() as u64).await?;
    Ok(File { tail: Some(tail), ..file })
}

fn sleep(runtime: &Handle, pause: Duration, shutdown: &Shutdown) {
    runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    });
}
