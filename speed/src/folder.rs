//! One source's folder: consume, fold, commit epochs.
//!
//! ```text
//! effective frontier ─► poll ─► fold: slices ─► offer to readers
//!        ▲                            │ epoch is due
//!        │                            ▼
//!        └── lost or overtaken ── delta in the store ─► ledger: folded ─► the next epoch
//! ```
//!
//! A `folded` entry is valid only where the effective frontier stands, so a zombie cannot commit, and a process that
//! comes back after `kill -9` folds on from what is durable. An epoch whose start or versions changed under it is
//! discarded whole and folded again: merged states cannot be trimmed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifold_config::Speed;
use bifold_fold::live::SliceId;
use bifold_fold::{Source, View, delta};
use bifold_ledger::{Body, Ledger, Nonce, Offsets, TopicPartition, Toward};
use bifold_log::{Log, Reader, ReaderOptions, Start, Survey, survey};
use bifold_service::{Backoff, Component, Shutdown, StartLimit};
use bifold_store::failpoint::failpoint;
use bifold_store::{Appended, Journal, Kind, SourceFiles};
use tokio::runtime::Handle;

use crate::Error;
use crate::epoch::Epoch;
use crate::fold::Folds;
use crate::live::Live;

/// Records folded at once.
const POLL_RECORDS: usize = 65_536;
/// How long a poll waits for records: the least freshness.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// How long nothing came when the stream is said to pause.
const PAUSE: Duration = Duration::from_millis(500);
/// How often partitions, topic ids and lag are asked for.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// How often the ledger is read while nothing is committed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes of slices beyond which an epoch is committed early.
const EPOCH_BYTES: usize = 512 << 20;

/// Folds one source.
#[derive(Debug)]
pub struct Folder {
    /// The source.
    pub source: Arc<Source>,
    /// The pipeline's views of it: declared where the ledger does not know them.
    pub views: Vec<Arc<View>>,
    /// Where records come from.
    pub log: Arc<dyn Log>,
    /// Where deltas go.
    pub files: SourceFiles,
    /// By interval and size.
    pub options: Speed,
    /// The consumer group that is told how far it is.
    pub group: String,
    /// Where it says what it waits for.
    pub component: Component,
    /// How long it waits at start.
    pub limit: StartLimit,
    /// What it offers to readers.
    pub live: Live,
}

enum Round {
    Stopped,
    Anew,
}

/// Gives the ids of one fold's slices.
struct Ids {
    nonce: String,
    fold: u64,
    slice: u64,
}

impl Ids {
    fn next(&mut self) -> SliceId {
        self.slice += 1;
        SliceId(self.nonce.clone(), self.fold, self.slice)
    }
}

impl Folder {
    /// Folds until `shutdown`, then commits. Blocks: it lives on a thread of its own.
    ///
    /// # Errors
    /// What cannot be mended by waiting; at start also what the limit did not suffice for.
    pub fn run(mut self, runtime: &Handle, shutdown: &Shutdown) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        let (mut begun, mut decided) = (false, false);
        let mut ids = Ids { nonce: uuid::Uuid::new_v4().simple().to_string(), fold: 0, slice: 0 };
        while !shutdown.is_cancelled() {
            ids.fold += 1;
            match self.round(runtime, shutdown, &mut begun, &mut decided, &mut ids) {
                Ok(Round::Stopped) => return Ok(()),
                Ok(Round::Anew) => backoff = Backoff::default(),
                Err(error) if error.is_transient() && (begun || !self.limit.is_over()) => {
                    self.component.waiting(error.to_string());
                    sleep(runtime, backoff.pause(), shutdown);
                }
                Err(error) => return Err(error),
            }
            self.live.forget_open();
        }
        Ok(())
    }

    fn round(
        &mut self,
        runtime: &Handle,
        shutdown: &Shutdown,
        begun: &mut bool,
        decided: &mut bool,
        ids: &mut Ids,
    ) -> Result<Round, Error> {
        let found = runtime.block_on(survey(&*self.log, &self.source.topics))?;
        if !found.missing.is_empty() {
            self.component.waiting(format!("topic {} does not exist", found.missing.join(", ")));
            *begun = true;
            sleep(runtime, Duration::from_secs(1), shutdown);
            return Ok(Round::Anew);
        }
        let mut journal = runtime.block_on(Journal::open_to_write(self.files.clone(), "speed"))?;
        runtime.block_on(journal.begin(&found.ids, &found.earliest()))?;
        runtime.block_on(self.declare(&mut journal, *decided))?;
        *decided = true;
        *begun = true;
        let mut ledger = journal.ledger();
        let mut folds = runtime.block_on(Folds::of(&ledger))?;
        let stopped = unreadable(&ledger, &found);
        let mut reader = self.log.reader(ReaderOptions { group: self.group.clone(), with_keys: false })?;
        assign(&mut *reader, &ledger, found.bounds.keys().filter(|at| !stopped.contains_key(*at)))?;
        let mut epoch = self.open(&ledger, &found, &folds);
        let (mut next_survey, mut next_look) = (Instant::now(), Instant::now() + LOOK_EVERY);
        // A pause in the stream is a good moment to commit, if the last epoch was committed long enough ago.
        let (mut last_record, mut next_early) = (Instant::now(), Instant::now());
        self.live.note_ledger(&ledger);
        self.live.offer(&epoch);
        self.report(&ledger);
        self.report_lag(&epoch, &found);
        match stopped.is_empty() {
            true => self.component.ready(),
            false => self.component.waiting(stopped.values().cloned().collect::<Vec<_>>().join("; ")),
        }
        loop {
            match reader.poll(POLL_RECORDS, POLL_WAIT) {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    last_record = Instant::now();
                    let newest = runtime.block_on(folds.fold(&chunk, &mut epoch, || ids.next()))?;
                    epoch.newest_event_us = epoch.newest_event_us.max(newest);
                    self.live.offer(&epoch);
                    let folded = ledger.events_folded + epoch.events;
                    metrics::counter!("bifold_folded_events", "source" => self.source.name.clone()).absolute(folded);
                }
                Err(bifold_log::Error::OutOfRange { .. } | bifold_log::Error::Truncated { .. }) => {
                    sleep(runtime, Duration::from_millis(500), shutdown);
                    return Ok(Round::Anew);
                }
                Err(error) => return Err(error.into()),
            }
            let stopping = shutdown.is_cancelled();
            let due = epoch.opened.is_some_and(|opened| opened.elapsed() >= self.options.epoch_interval)
                || (last_record.elapsed() >= PAUSE && Instant::now() >= next_early)
                || epoch.events >= self.options.epoch_rows
                || epoch.bytes() >= EPOCH_BYTES;
            if (due || stopping) && !epoch.ranges.is_empty() {
                let Some(number) = self.commit(runtime, &mut journal, &folds, &epoch)? else {
                    return Ok(if stopping { Round::Stopped } else { Round::Anew });
                };
                ledger = journal.ledger();
                reader.commit(&epoch.ranges.ends());
                failpoint("speed.group_told");
                next_early = Instant::now() + self.options.epoch_interval;
                ids.fold += 1;
                let next = Epoch::new(ledger.number, epoch.end(), folds.versions.iter().cloned());
                let done = std::mem::replace(&mut epoch, next);
                metrics::counter!("bifold_epochs_total", "source" => self.source.name.clone()).increment(1);
                self.live.committed(number, done, &epoch);
                self.live.note_ledger(&ledger);
                self.report(&ledger);
            }
            if stopping {
                return Ok(Round::Stopped);
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK_EVERY;
                match runtime.block_on(journal.refresh()) {
                    Ok(now) => ledger = now,
                    Err(e) if e.kind() == Kind::Unavailable => self.component.waiting(e.to_string()),
                    Err(e) => return Err(e.into()),
                }
                self.live.note_ledger(&ledger);
                if !still_valid(&ledger, &epoch, &folds) {
                    return Ok(Round::Anew);
                }
                if !stopped.is_empty() && unreadable(&ledger, &found).len() < stopped.len() {
                    return Ok(Round::Anew);
                }
            }
            if Instant::now() >= next_survey {
                next_survey = Instant::now() + SURVEY_EVERY;
                match runtime.block_on(survey(&*self.log, &self.source.topics)) {
                    Ok(now) => {
                        runtime.block_on(journal.begin(&now.ids, &now.earliest()))?;
                        self.report_lag(&epoch, &now);
                        if stopped.is_empty() {
                            self.component.ready();
                        }
                        // What is stopped may have been judged by bounds that were older than the ledger.
                        let mended = unreadable(&ledger, &now).len() < stopped.len();
                        if now.bounds.len() != found.bounds.len() || mended {
                            return Ok(Round::Anew);
                        }
                    }
                    Err(error) => self.component.waiting(error.to_string()),
                }
            }
        }
    }

    /// Writes what makes the pipeline's versions those that their views have: also of one that the pipeline goes back to.
    async fn declare(&self, journal: &mut Journal, decided: bool) -> Result<(), Error> {
        for view in &self.views {
            while let Some(toward) = journal.ledger().toward(&view.name, &view.version) {
                // Only when it starts: else two processes with two pipelines would undo each other's choices for ever.
                if toward != Toward::Declare && decided {
                    break;
                }
                let (name, version, sql) = (view.name.clone(), view.version.clone(), view.sql.clone());
                tracing::info!(view = view.name, %version, ?toward, "the pipeline's version of a view is not the ledger's");
                let body = match toward {
                    Toward::Declare => {
                        let source = serde_json::to_value(&*view.source).expect("a source is JSON");
                        Body::Declared { view: name, version, sql, source }
                    }
                    Toward::Select => Body::Selected { version },
                    Toward::Retire => Body::Retired { versions: vec![version] },
                };
                match journal.append(body).await {
                    Ok(_) => {}
                    Err(e) if e.kind() == Kind::Refused => {
                        journal.refresh().await?;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        }
        Ok(())
    }

    fn open(&self, ledger: &Ledger, found: &Survey, folds: &Folds) -> Epoch {
        let start: Offsets = found.bounds.keys().map(|at| (at.clone(), ledger.frontier(at))).collect();
        Epoch::new(ledger.number, start, folds.versions.iter().cloned())
    }

    /// Makes an epoch durable. None if the ledger has moved under it.
    fn commit(
        &self,
        runtime: &Handle,
        journal: &mut Journal,
        folds: &Folds,
        epoch: &Epoch,
    ) -> Result<Option<u64>, Error> {
        let sections = runtime.block_on(folds.reduced(epoch))?;
        let rows = sections.iter().flat_map(|(_, _, states)| states).map(|batch| batch.num_rows() as u64).sum();
        let bytes = delta::write(&sections)?;
        let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
        let path = self.files.layout.delta(journal.ledger().number + 1, &nonce, &epoch.ranges);
        let mut backoff = Backoff::default();
        let file = loop {
            match runtime.block_on(self.files.put(path.clone(), bytes.clone(), rows)) {
                Ok(file) => break file,
                Err(e) => {
                    self.component.waiting(e.to_string());
                    std::thread::sleep(backoff.pause());
                }
            }
        };
        failpoint("speed.delta_written");
        let (ranges, versions) = (epoch.ranges.clone(), folds.versions.clone());
        let (events, newest_event_us) = (epoch.events, epoch.newest_event_us);
        let body = Body::Folded { ranges, versions, delta: file, events, newest_event_us };
        loop {
            match runtime.block_on(journal.append(body.clone())) {
                Ok(Appended::Won(number)) => {
                    failpoint("speed.folded");
                    return Ok(Some(number));
                }
                // Somebody took the number: the entry may stand at the next one if every rule allows it there.
                Ok(Appended::Lost) => {}
                Err(e) if e.kind() == Kind::Refused => return Ok(None),
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
    }

    fn report(&self, ledger: &Ledger) {
        let source = self.source.name.clone();
        metrics::counter!("bifold_events_total", "source" => source.clone(), "role" => "speed")
            .absolute(ledger.events_folded);
        metrics::gauge!("bifold_ledger_number", "source" => source.clone()).set(ledger.number as f64);
        for version in ledger.versions.values().filter(|version| version.active) {
            let Some(at) = version.published_at.as_deref() else { continue };
            let Ok(at) = chrono::DateTime::parse_from_rfc3339(at) else { continue };
            let labels = [("source", source.clone()), ("view", version.view.clone())];
            metrics::gauge!("bifold_published_timestamp_seconds", &labels).set(at.timestamp_millis() as f64 / 1e3);
        }
    }

    fn report_lag(&self, epoch: &Epoch, survey: &Survey) {
        let end = epoch.end();
        let mut behind = 0;
        for (at, bounds) in &survey.bounds {
            let labels = [
                ("source", self.source.name.clone()),
                ("topic", at.topic.clone()),
                ("partition", at.partition.to_string()),
                ("role", "speed".to_string()),
            ];
            let lag = (bounds.end - end.or_zero(at)).max(0);
            behind += lag;
            metrics::gauge!("bifold_lag_offsets", &labels).set(lag as f64);
        }
        let source = self.source.name.clone();
        if behind == 0 {
            let now = chrono::Utc::now().timestamp_millis() as f64 / 1e3;
            metrics::gauge!("bifold_folded_timestamp_seconds", "source" => source.clone()).set(now);
        }
        let slices: usize = epoch.slices.values().map(Vec::len).sum();
        metrics::gauge!("bifold_epoch_slices", "source" => source.clone()).set(slices as f64);
        metrics::gauge!("bifold_epoch_bytes", "source" => source.clone()).set(epoch.bytes() as f64);
        metrics::gauge!("bifold_epoch_events", "source" => source).set(epoch.events as f64);
    }
}

/// Whether an open epoch may still be committed: its start is the effective frontier, its versions the active ones.
fn still_valid(ledger: &Ledger, epoch: &Epoch, folds: &Folds) -> bool {
    let starts: BTreeSet<&TopicPartition> = epoch.start.iter().map(|(at, _)| at).collect();
    starts.into_iter().all(|at| epoch.start.or_zero(at) == ledger.frontier(at)) && ledger.active() == folds.versions
}

/// Partitions that cannot be read from the effective frontier, and why.
fn unreadable(ledger: &Ledger, found: &Survey) -> BTreeMap<TopicPartition, String> {
    let mut stopped = BTreeMap::new();
    for (at, bounds) in &found.bounds {
        let next = ledger.frontier(at);
        if next < bounds.earliest {
            let archived = ledger.archived(at) >= bounds.earliest;
            let why = match archived {
                true => format!(
                    "{at} is folded up to {next}, the log starts at {}; what lies between is archived: \
                     a batch run with batch.leap below {} bridges it",
                    bounds.earliest,
                    ledger.archived(at) - next
                ),
                false => format!(
                    "{at} has lost the offsets [{next}, {}): they are no longer in the log and not in the archive; \
                     this partition is stopped",
                    bounds.earliest
                ),
            };
            stopped.insert(at.clone(), why);
        } else if next > bounds.end {
            stopped.insert(at.clone(), format!("{at} ends at {}, but was folded up to {next}", bounds.end));
        }
    }
    stopped
}

fn assign<'a>(
    reader: &mut dyn Reader,
    ledger: &Ledger,
    partitions: impl Iterator<Item = &'a TopicPartition>,
) -> Result<(), bifold_log::Error> {
    let start = |at: &TopicPartition| Start {
        at: at.clone(),
        next: ledger.frontier(at),
        leader_epoch: ledger.folded_epochs.get(at).copied(),
    };
    reader.assign(&partitions.map(start).collect::<Vec<_>>())
}

fn sleep(runtime: &Handle, pause: Duration, shutdown: &Shutdown) {
    runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    });
}
