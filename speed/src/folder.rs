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

use bifold_archive::records::Records;
use bifold_config::Speed;
use bifold_fold::dialect::{TODAY, shortcomings};
use bifold_fold::live::SliceId;
use bifold_fold::view::Readings;
use bifold_fold::{Source, View, delta};
use bifold_ledger::{Body, ChangeKind, Extent, Ledger, Nonce, Offsets, Seen, TopicPartition, Toward};
use bifold_log::{Chunk, Log, Owned, ReaderOptions, Seat, Start, Survey, Turn, Unread, survey, topic_ids};
use bifold_service::{Backoff, Component, Shutdown, StartLimit};
use bifold_store::failpoint::failpoint;
use bifold_store::{Appended, Journal, Kind, SourceFiles};
use tokio::runtime::Handle;

use crate::Error;
use crate::care::{Care, Failed, Watch, guarded};
use crate::epoch::Epoch;
use crate::fold::{Folds, changes_of};
use crate::live::Live;

/// Records folded at once.
const POLL_RECORDS: usize = 65_536;
/// How long a poll waits for records: the least freshness.
const POLL_WAIT: Duration = Duration::from_millis(20);
/// How long nothing came when the stream is said to pause.
const PAUSE: Duration = Duration::from_millis(500);
/// How often partitions, topic ids and lag are asked for.
const SURVEY_EVERY: Duration = Duration::from_secs(5);
/// How long a partition's frontier has to stand still for nobody to be reading it, at least.
const UNREAD_AFTER: Duration = Duration::from_secs(60);
/// As long as the last survey tells where the log ends.
const ASKED_LATELY: Duration = Duration::from_secs(15);
/// How often the ledger is read while nothing is committed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The same when the process is told to end.
const COMMIT_AT_END_WITHIN: Duration = Duration::from_secs(10);
/// How often the group is asked while it is being formed.
const SEAT_EVERY: Duration = Duration::from_millis(50);
/// How often a commit is tried while the log does not say whether its topics are the same.
const TRY_EVERY: Duration = Duration::from_secs(1);
/// How long the log has to stay silent about a position for it to be good.
const TROUBLE_LASTS: Duration = Duration::from_secs(5);
/// How long a commit is tried before the instance gives its partitions to others, who may reach the store.
const COMMIT_WITHIN: Duration = Duration::from_secs(30);
/// After which time a record that could not be folded is tried again.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Which part of the memory an open epoch's states may take, and the committed ones that are kept: a commit needs the same again for
/// the reduced states and for the delta's bytes, and the records being read take the rest.
const PART_OF_MEMORY: u64 = 6;

/// Folds one source.
#[derive(Debug)]
pub struct Folder {
    /// The source.
    pub source: Arc<Source>,
    /// The pipeline's views of it: declared where the ledger does not know them.
    pub views: Vec<Readings>,
    /// Where records come from.
    pub log: Arc<dyn Log>,
    /// Where deltas go.
    pub files: SourceFiles,
    /// By interval and size.
    pub options: Speed,
    /// The consumer group whose members share the partitions, but for the installation's id at its end.
    pub group: String,
    /// Where it says what it waits for.
    pub component: Component,
    /// Where it says which partitions nobody reads.
    pub others: Component,
    /// How long it waits at start.
    pub limit: StartLimit,
    /// What it offers to readers.
    pub live: Live,
}

enum Round {
    Stopped,
    Anew,
}

/// What lasts longer than a round.
struct Going {
    /// Whether it has worked once: from then on it is patient.
    begun: bool,
    /// Whether it has said which versions the pipeline has.
    decided: bool,
    ids: Ids,
    seat: Seat,
    unread: Unread,
    /// How many records are folded at once.
    care: Care,
    watch: Watch,
    /// What the log said when it did not have the position asked for, until it gives something again.
    trouble: Option<String>,
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
        let ids = Ids { nonce: uuid::Uuid::new_v4().simple().to_string(), fold: 0, slice: 0 };
        let unread = Unread::new(UNREAD_AFTER.max(3 * self.options.epoch_interval));
        let (care, watch) = (Care::new(POLL_RECORDS), Watch::new(runtime, self.component.clone()));
        let seat = Seat::default();
        let mut going = Going { begun: false, decided: false, ids, seat, unread, care, watch, trouble: None };
        while !shutdown.is_cancelled() {
            going.ids.fold += 1;
            match self.round(runtime, shutdown, &mut going) {
                Ok(Round::Stopped) => return Ok(()),
                Ok(Round::Anew) => backoff = Backoff::default(),
                Err(error) if error.is_transient() && (going.begun || !self.limit.is_over()) => {
                    self.component.waiting(error.to_string());
                    if matches!(error, Error::Store(_)) {
                        going.seat.leave();
                    }
                    sleep(runtime, backoff.pause(), shutdown);
                }
                Err(error) if error.is_of_records() && going.begun => {
                    tracing::error!(source = self.source.name, %error, "states cannot be merged or written");
                    self.component.waiting(error.to_string());
                    sleep(runtime, backoff.pause(), shutdown);
                }
                Err(error) => return Err(error),
            }
            self.live.forget_open();
        }
        Ok(())
    }

    fn round(&mut self, runtime: &Handle, shutdown: &Shutdown, going: &mut Going) -> Result<Round, Error> {
        let found = runtime.block_on(survey(&*self.log, &self.source.topics))?;
        if !found.missing.is_empty() {
            self.component.waiting(format!("topic {} does not exist", found.missing.join(", ")));
            going.begun = true;
            sleep(runtime, Duration::from_secs(1), shutdown);
            return Ok(Round::Anew);
        }
        let mut journal = runtime.block_on(Journal::open_to_write(self.files.clone(), "speed"))?;
        runtime.block_on(journal.begin(&found.ids, &found.earliest()))?;
        runtime.block_on(self.declare(&mut journal, going.decided))?;
        going.decided = true;
        going.begun = true;
        let group = format!("{}.{}", self.group, runtime.block_on(self.files.installation())?);
        let Some(owned) = self.take_seat(runtime, shutdown, &mut going.seat, &group)? else { return Ok(Round::Anew) };
        let mut ledger = runtime.block_on(journal.refresh())?;
        let mut folds = runtime.block_on(Folds::of(&ledger))?;
        folds.leave_out(&ledger);
        let mine: BTreeSet<TopicPartition> = found.bounds.keys().filter(|at| owned.holds(at)).cloned().collect();
        let standing = ledger.standing_to_fold(&found.ranges(&mine), folds.lookback());
        let mut reader = self.log.reader(ReaderOptions { memory: self.options.memory, ..ReaderOptions::default() })?;
        reader.assign(&Start::all(&ledger, &standing.next))?;
        let bridge = &standing.bridge;
        if !bridge.to.is_empty() {
            let (from, to) = (bridge.from.to_string(), bridge.to.to_string());
            tracing::info!(
                source = self.source.name,
                from,
                to,
                "the log no longer has this; folding it from the archive"
            );
        }
        let mut bridge = (!bridge.to.is_empty()).then(|| Records::new(&self.files, &ledger, bridge.clone()));
        let mut epoch = Epoch::new(ledger.number, Extent::open(&ledger, &mine), folds.versions.iter().cloned());
        let begun_at = Instant::now();
        let mut next_try = begun_at;
        let (mut next_survey, mut next_look) = (Instant::now(), Instant::now() + LOOK_EVERY);
        let most_bytes = usize::try_from(self.options.memory / PART_OF_MEMORY).unwrap_or(usize::MAX);
        // A pause in the stream is a good moment to commit, if the last epoch was committed long enough ago.
        let (mut last_record, mut next_early) = (Instant::now(), Instant::now());
        self.live.note_ledger(&ledger);
        self.live.offer(&epoch);
        self.report(&ledger);
        let report_lag = |epoch: &Epoch, ledger: &Ledger, survey: &Survey, unread: &mut Unread| {
            let unread = unread.look(survey, &mine, |at| ledger.frontier(at), Instant::now());
            self.report_lag(epoch, survey, &mine, &unread);
            match Unread::why(&unread, &group) {
                Some(why) => self.others.waiting(why),
                None => self.others.ready(),
            }
        };
        report_lag(&epoch, &ledger, &found, &mut going.unread);
        let whole = standing.stopped.is_empty();
        let fresh = metrics::gauge!("bifold_folded_timestamp_seconds", "source" => self.source.name.clone());
        let (mut surveyed, mut ends) = (Instant::now(), ends_of(&found, &mine));
        match (whole, &going.trouble) {
            (true, None) => self.component.ready(),
            (true, Some(trouble)) => self.component.waiting(trouble),
            (false, _) => self.component.waiting(standing.why()),
        }
        loop {
            let polled = match &mut bridge {
                Some(records) => Ok(match runtime.block_on(records.next()) {
                    Ok(Some(chunk)) => chunk,
                    Ok(None) => {
                        bridge = None;
                        // Some of it may have got lost after it was folded: then it is folded again, without it.
                        if epoch.extent.counts_lost(&ledger) {
                            return Ok(Round::Anew);
                        }
                        // The next record may never come.
                        epoch.pass_lost(&ledger);
                        continue;
                    }
                    Err(error) => {
                        // A file that was replaced meanwhile is no damage.
                        if let bifold_store::Error::Damaged { path, .. } = &error
                            && runtime.block_on(journal.is_superseded(path))?
                        {
                            return Ok(Round::Anew);
                        }
                        return Err(error.into());
                    }
                }),
                None => reader.poll(going.care.records(), POLL_WAIT),
            };
            match polled {
                Ok(chunk) if chunk.is_empty() => {
                    // Nothing came, and the log ended here when it was last asked.
                    if surveyed.elapsed() < ASKED_LATELY && epoch.extent.end().reaches(&ends) {
                        fresh.set(chrono::Utc::now().timestamp_millis() as f64 / 1e3);
                    }
                }
                Ok(chunk) => {
                    last_record = Instant::now();
                    if going.trouble.take().is_some() && whole {
                        self.component.ready();
                    }
                    let before = epoch.extent.end();
                    let folded = fold_chunk(runtime, going, &chunk, &mut folds, &mut epoch);
                    if going.watch.end() && whole {
                        self.component.ready();
                    }
                    if epoch.extent.names_what_it_counts(&ledger, &before) {
                        return Ok(Round::Anew);
                    }
                    if let Err(failed) = folded {
                        // The records before it are durable, whatever becomes of it.
                        if !epoch.extent.ranges.is_empty() && self.is_of_its_topics(runtime, &journal)? {
                            self.commit(runtime, shutdown, &mut journal, &folds, &epoch)?;
                        }
                        going.seat.release();
                        if going.care.failed(&failed) {
                            self.wait_at(runtime, shutdown, &mut journal, &failed)?;
                        }
                        return Ok(if shutdown.is_cancelled() { Round::Stopped } else { Round::Anew });
                    }
                    going.care.passed(&epoch.extent.end());
                    // Else it was only looked back at.
                    if !epoch.extent.ranges.is_empty() {
                        self.live.offer(&epoch);
                    }
                    let folded = ledger.events_folded + epoch.events;
                    metrics::counter!("bifold_folded_events_total", "source" => self.source.name.clone())
                        .absolute(folded);
                }
                Err(error @ (bifold_log::Error::OutOfRange { .. } | bifold_log::Error::Truncated { .. })) => {
                    going.trouble = Some(error.to_string());
                    self.component.waiting(error.to_string());
                    sleep(runtime, Duration::from_millis(500), shutdown);
                    return Ok(Round::Anew);
                }
                Err(error) => return Err(error.into()),
            }
            let stopping = shutdown.is_cancelled();
            let due = epoch.opened.is_some_and(|opened| opened.elapsed() >= self.options.epoch_interval)
                || (last_record.elapsed() >= PAUSE && Instant::now() >= next_early)
                || epoch.events >= self.options.epoch_rows
                || epoch.bytes() >= most_bytes;
            let turn = match going.seat.poll()? {
                Turn::Changed if mine.iter().eq(found.bounds.keys().filter(|at| going.seat.owned().holds(at))) => {
                    Turn::Stay
                }
                turn => turn,
            };
            let wanted = (due && Instant::now() >= next_try) || stopping || turn != Turn::Stay;
            let commits = wanted && !epoch.extent.ranges.is_empty() && self.is_of_its_topics(runtime, &journal)?;
            if wanted && !commits {
                next_try = Instant::now() + TRY_EVERY;
            }
            if commits {
                let Some(number) = self.commit(runtime, shutdown, &mut journal, &folds, &epoch)? else {
                    going.seat.release();
                    return Ok(if stopping { Round::Stopped } else { Round::Anew });
                };
                ledger = journal.ledger();
                folds.leave_out(&ledger);
                going.seat.commit(&epoch.extent.ranges.ends());
                failpoint("speed.group_told");
                next_early = Instant::now() + self.options.epoch_interval;
                going.ids.fold += 1;
                let next = Epoch::new(ledger.number, Extent::new(epoch.extent.end()), folds.versions.iter().cloned());
                let done = std::mem::replace(&mut epoch, next);
                metrics::counter!("bifold_epochs_total", "source" => self.source.name.clone()).increment(1);
                self.live.committed(number, done, &epoch, most_bytes);
                self.live.note_ledger(&ledger);
                self.report(&ledger);
            }
            if turn != Turn::Stay && !stopping {
                // What is read of other partitions was committed, so that whoever gets them goes on from there.
                going.seat.release();
                tracing::info!(source = self.source.name, "the group has shared out the partitions anew");
                return Ok(Round::Anew);
            }
            if stopping {
                return Ok(Round::Stopped);
            }
            if going.trouble.is_some() && begun_at.elapsed() >= TROUBLE_LASTS && whole {
                going.trouble = None;
                self.component.ready();
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK_EVERY;
                match runtime.block_on(journal.refresh()) {
                    Ok(now) => ledger = now,
                    Err(e) if e.kind() == Kind::Unavailable => self.component.waiting(e.to_string()),
                    Err(e) => return Err(e.into()),
                }
                self.live.note_ledger(&ledger);
                folds.leave_out(&ledger);
                if !still_valid(&ledger, &epoch, &folds) {
                    return Ok(Round::Anew);
                }
                if standing.is_mended_in(&ledger.standing_to_fold(&found.ranges(&mine), folds.lookback())) {
                    return Ok(Round::Anew);
                }
            }
            if Instant::now() >= next_survey {
                next_survey = Instant::now() + SURVEY_EVERY;
                match runtime.block_on(survey(&*self.log, &self.source.topics)) {
                    Ok(now) => {
                        (surveyed, ends) = (Instant::now(), ends_of(&now, &mine));
                        runtime.block_on(journal.begin(&now.ids, &now.earliest()))?;
                        report_lag(&epoch, &ledger, &now, &mut going.unread);
                        if whole && going.trouble.is_none() {
                            self.component.ready();
                        }
                        // What is stopped may have been judged by bounds that were older than the ledger.
                        let now_standing = ledger.standing_to_fold(&now.ranges(&mine), folds.lookback());
                        if now.bounds.len() != found.bounds.len() || standing.is_mended_in(&now_standing) {
                            return Ok(Round::Anew);
                        }
                    }
                    Err(error) => self.component.waiting(error.to_string()),
                }
            }
        }
    }

    /// Waits at a record that cannot be folded, until it is behind the frontier or some time has passed.
    fn wait_at(
        &self,
        runtime: &Handle,
        shutdown: &Shutdown,
        journal: &mut Journal,
        failed: &Failed,
    ) -> Result<(), Error> {
        let Some((at, offset)) = &failed.first else { return Ok(()) };
        let (next, source, error) = (offset + 1, &self.source.name, &failed.error);
        self.component.waiting(format!(
            "the record at {at} offset {offset} cannot be folded: {error}; the fold waits there. To go on without it: \
             `bifold quarantine {source} --partition {at} --from {offset} --to {next} --reason …`, then `bifold batch run`"
        ));
        let (until, versions) = (Instant::now() + TRY_AGAIN_AFTER, journal.ledger().active());
        while Instant::now() < until && !shutdown.is_cancelled() {
            sleep(runtime, LOOK_EVERY, shutdown);
            let ledger = runtime.block_on(journal.refresh())?;
            if ledger.frontier(at) > *offset || ledger.active() != versions {
                break;
            }
        }
        Ok(())
    }

    /// Writes what makes the pipeline's versions those that their views have: also of one that the pipeline goes back to.
    async fn declare(&self, journal: &mut Journal, decided: bool) -> Result<(), Error> {
        for readings in &self.views {
            if !decided {
                note_dialect(readings.chosen(&journal.ledger())?);
            }
            while let Some((view, toward, body)) = readings.next_entry(&journal.ledger(), !decided)? {
                if let Some(entry) = journal.ledger().quarantine_in_force()
                    && view.source.dedup.is_some()
                    && toward != Toward::Retire
                {
                    return Err(Error::QuarantinedDedup { source_name: view.source.name.clone(), entry });
                }
                let (name, version) = (&view.name, &view.version);
                tracing::info!(view = name, %version, ?toward, "the pipeline's version of a view is not the ledger's");
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

    /// Waits until the group has given this instance its partitions. None if it is told to end meanwhile.
    fn take_seat(
        &self,
        runtime: &Handle,
        shutdown: &Shutdown,
        seat: &mut Seat,
        group: &str,
    ) -> Result<Option<Owned>, Error> {
        loop {
            match seat.take(&*self.log, group, &self.source.topics)? {
                Owned::Unknown if shutdown.is_cancelled() => return Ok(None),
                Owned::Unknown => {
                    self.component.waiting(seat.why_not(group));
                    sleep(runtime, SEAT_EVERY, shutdown);
                }
                owned => return Ok(Some(owned)),
            }
        }
    }

    /// Whether the topics are still those of the ledger, so that what was read of them is, too. False if the log does not say now.
    fn is_of_its_topics(&self, runtime: &Handle, journal: &Journal) -> Result<bool, Error> {
        match runtime.block_on(topic_ids(&*self.log, &self.source.topics)) {
            Ok(ids) => Ok(journal.same_topics(&ids).map(|()| true)?),
            Err(error) if error.is_transient() => {
                self.component.waiting(error.to_string());
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes an epoch durable. None if the ledger has moved under it.
    fn commit(
        &self,
        runtime: &Handle,
        shutdown: &Shutdown,
        journal: &mut Journal,
        folds: &Folds,
        epoch: &Epoch,
    ) -> Result<Option<u64>, Error> {
        let sections = runtime.block_on(folds.reduced(epoch))?;
        let rows = sections.iter().flat_map(|(_, _, states)| states).map(|batch| batch.num_rows() as u64).sum();
        let bytes = delta::write(&sections)?;
        let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
        let path = self.files.layout.delta(journal.ledger().number + 1, &nonce, &epoch.extent.ranges);
        let mut backoff = Backoff::default();
        let started = Instant::now();
        let over = || started.elapsed() >= if shutdown.is_cancelled() { COMMIT_AT_END_WITHIN } else { COMMIT_WITHIN };
        let file = loop {
            match runtime.block_on(self.files.put(path.clone(), bytes.clone(), rows)) {
                Ok(file) => break file,
                Err(e) if over() => return Err(e.into()),
                Err(e) => {
                    self.component.waiting(e.to_string());
                    std::thread::sleep(backoff.pause());
                }
            }
        };
        failpoint("speed.delta_written");
        let (ranges, versions) = (epoch.extent.ranges.clone(), folds.versions.clone());
        let (events, newest_event_us) = (epoch.events, epoch.newest_event_us);
        let holes = epoch.extent.holes.iter().copied().collect();
        let duplicates = epoch.duplicates;
        // What is lost from now on is no longer looked back at: the epoch is folded again.
        let overtaken = |ledger: &Ledger| folds.lookback() > 0 && changes_of(ledger) != folds.changes;
        // Binaries of the format before do not know it: a store whose views they can fold stays theirs, too.
        let seen = (journal.ledger().format >= Seen::FORMAT).then(|| Box::new(epoch.seen.clone()));
        let body = Body::Folded { ranges, versions, delta: file, events, newest_event_us, holes, duplicates, seen };
        loop {
            if overtaken(&journal.ledger()) {
                return Ok(None);
            }
            match runtime.block_on(journal.append(body.clone())) {
                Ok(Appended::Won(number)) => {
                    failpoint("speed.folded");
                    return Ok(Some(number));
                }
                // Somebody took the number: the entry may stand at the next one if every rule allows it there.
                Ok(Appended::Lost) => {}
                Err(e) if e.kind() == Kind::Refused => return Ok(None),
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
    }

    fn report(&self, ledger: &Ledger) {
        let source = self.source.name.clone();
        metrics::counter!("bifold_events_total", "source" => source.clone(), "role" => "speed")
            .absolute(ledger.events_folded);
        metrics::counter!("bifold_deduplicated_total", "source" => source.clone()).absolute(ledger.duplicates);
        for (kind, name) in [(ChangeKind::Lost, "lost"), (ChangeKind::Quarantined, "quarantined")] {
            let in_force = ledger.changes.iter().filter(|change| change.kind == kind && change.lifted.is_none());
            let positions: i64 = in_force.map(|change| change.ranges.positions()).sum();
            metrics::gauge!("bifold_left_out_offsets", "source" => source.clone(), "kind" => name)
                .set(positions as f64);
        }
        metrics::gauge!("bifold_ledger_number", "source" => source.clone()).set(ledger.number as f64);
        for version in ledger.versions.values().filter(|version| version.active) {
            let Some(at) = version.published_at.as_deref() else { continue };
            let Ok(at) = chrono::DateTime::parse_from_rfc3339(at) else { continue };
            let labels = [("source", source.clone()), ("view", version.view.clone())];
            metrics::gauge!("bifold_published_timestamp_seconds", &labels).set(at.timestamp_millis() as f64 / 1e3);
        }
    }

    fn report_lag(
        &self,
        epoch: &Epoch,
        survey: &Survey,
        mine: &BTreeSet<TopicPartition>,
        unread: &BTreeMap<TopicPartition, i64>,
    ) {
        let end = epoch.extent.end();
        for (at, bounds) in &survey.bounds {
            let labels = [
                ("source", self.source.name.clone()),
                ("topic", at.topic.clone()),
                ("partition", at.partition.to_string()),
                ("role", "speed".to_string()),
            ];
            // What is another's is the other's to tell, if there is one.
            let others = unread.get(at).copied().unwrap_or(0);
            let lag = if mine.contains(at) { (bounds.end - end.or_zero(at)).max(0) } else { others };
            metrics::gauge!("bifold_lag_offsets", &labels).set(lag as f64);
        }
        let source = self.source.name.clone();
        let labels = [("source", source.clone()), ("role", "speed".to_string())];
        metrics::gauge!("bifold_unread_partitions", &labels).set(unread.len() as f64);
        let slices: usize = epoch.slices.values().map(Vec::len).sum();
        metrics::gauge!("bifold_epoch_slices", "source" => source.clone()).set(slices as f64);
        metrics::gauge!("bifold_epoch_bytes", "source" => source.clone()).set(epoch.bytes() as f64);
        metrics::gauge!("bifold_epoch_events", "source" => source).set(epoch.events as f64);
    }
}

/// Folds a chunk, in parts where some of it could not be folded. After a failure the epoch holds the parts before it.
fn fold_chunk(
    runtime: &Handle,
    going: &mut Going,
    chunk: &Chunk,
    folds: &mut Folds,
    epoch: &mut Epoch,
) -> Result<(), Box<Failed>> {
    let mut fold = |part: &Chunk| {
        let before = epoch.clone();
        going.watch.begin(part);
        match guarded(|| runtime.block_on(folds.fold(part, epoch, || going.ids.next()))) {
            Ok(newest) => epoch.newest_event_us = epoch.newest_event_us.max(newest),
            Err(error) => {
                *epoch = before;
                return Err(Box::new(Failed::new(error, part)));
            }
        }
        Ok(())
    };
    match going.care.records() {
        most if chunk.len() <= most => fold(chunk),
        most => chunk.pieces(most).try_for_each(|part| fold(&part)),
    }
}

/// Where the log ends in the partitions that this instance reads.
fn ends_of(survey: &Survey, mine: &BTreeSet<TopicPartition>) -> Offsets {
    survey.bounds.iter().filter(|(at, _)| mine.contains(at)).map(|(at, bounds)| (at.clone(), bounds.end)).collect()
}

/// Whether an open epoch may still be committed: its start is the effective frontier, its versions the active ones.
fn still_valid(ledger: &Ledger, epoch: &Epoch, folds: &Folds) -> bool {
    if folds.lookback() > 0 && changes_of(ledger) != folds.changes {
        return false;
    }
    epoch.extent.is_at_frontier(ledger) && ledger.active() == folds.versions
}

fn sleep(runtime: &Handle, pause: Duration, shutdown: &Shutdown) {
    runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.cancelled() => {}
        }
    });
}

/// Says what a view's dialect gets wrong, if it is not today's.
fn note_dialect(view: &View) {
    if view.dialect != TODAY {
        let (view, dialect, wrong) = (&view.name, view.dialect, shortcomings(view.dialect).join("; "));
        tracing::warn!(
            view, %dialect, today = %TODAY, wrong,
            "the view keeps the SQL dialect that it was declared under; `bifold upgrade {view}` moves it on"
        );
    }
}
