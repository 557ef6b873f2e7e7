//! What keeps a source small while it runs: many deltas become one, small archive files become bigger ones, and files that
//! nothing needs are deleted after a grace time.
//!
//! Several may do it at once: the ledger lets one replace what is still there, and the files of the others are orphans.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use bifold_fold::view::compile_stored;
use bifold_fold::{Engine, Source, delta};
use bifold_ledger::{ArchiveSizes, ArchiveUnit, Body, File, Ledger, Nonce, Offsets, Ranges, Unit, holes_of};
use bifold_service::Shutdown;
use bifold_store::failpoint::failpoint;
use bifold_store::{Appended, Journal, Kind, SourceFiles};
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Error;
use crate::collect::buffer::sorted;
use crate::collect::put_rows;
use crate::recompute::WORTH;
use crate::runs::Run;

/// How often it is looked whether there is something to do.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Bytes of deltas, or of archive files, that become one file.
const MOST_BYTES: u64 = 128 << 20;
/// Rows of a compacted archive file.
const MOST_ROWS: u64 = 1_000_000;
/// How long a batch run may take for its plan to be minded.
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);
/// An archive entry of so many rows is small.
const SMALL_ROWS: u64 = 200_000;

/// Files that nothing needs, and since when that is known.
type Orphans = HashMap<String, Instant>;

/// Keeps one source small.
#[derive(Debug)]
pub struct Maintain {
    /// The source, as the pipeline declares it.
    pub source: Arc<Source>,
    /// Its files.
    pub files: SourceFiles,
    /// Deltas that are joined in an answer, beyond which they are compacted.
    pub deltas: usize,
    /// Small archive entries that become one.
    pub archive: usize,
    /// How long nothing has needed a file before it is deleted.
    pub grace: Duration,
}

impl Maintain {
    /// Works until `shutdown`. What fails is tried again.
    pub async fn run(self, shutdown: Shutdown) {
        let (mut journal, mut next_sweep) = (None, Instant::now() + self.sweep_every());
        let (mut orphans, mut under_way, mut told) = (HashMap::new(), HashMap::new(), None);
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY.min(self.sweep_every())) => {}
                () = shutdown.cancelled() => return,
            }
            if let Err(error) = self.tell_runs(&mut told).await {
                tracing::debug!(source = self.source.name, %error, "the records of batch runs were not read");
            }
            let sweep = Instant::now() >= next_sweep;
            let done = tokio::select! {
                done = self.once(&mut journal, sweep.then_some(&mut orphans), &mut under_way) => done,
                () = shutdown.cancelled() => return,
            };
            if let Err(error) = done {
                tracing::warn!(source = self.source.name, %error, "compaction failed; trying again");
                journal = None;
            }
            if sweep {
                next_sweep = Instant::now() + self.sweep_every();
            }
        }
    }

    /// Exports figures of the last batch runs from their records in the store: a job of a scheduler takes its own metrics with it when it
    /// ends. `told` names the newest record that was exported.
    async fn tell_runs(&self, told: &mut Option<Path>) -> Result<(), Error> {
        let names = self.files.notes(&self.files.layout.batch_runs()).await?;
        let newer = names.partition_point(|name| told.as_ref().is_some_and(|told| name <= told));
        for name in &names[newer..] {
            let Some(bytes) = self.files.note(name).await? else { continue };
            // What another version of bifold wrote may be unreadable.
            let Ok(run) = serde_json::from_slice::<Run>(&bytes) else { continue };
            let (source, outcome) = (self.source.name.clone(), format!("{:?}", run.outcome).to_lowercase());
            let seconds = run.elapsed_ms as f64 / 1e3;
            let ended = run.started.timestamp_millis() as f64 / 1e3 + seconds;
            metrics::gauge!("bifold_batch_last_run_timestamp_seconds", "source" => source.clone(), "outcome" => outcome)
                .set(ended);
            metrics::gauge!("bifold_batch_last_run_seconds", "source" => source).set(seconds);
        }
        *told = names.last().cloned();
        Ok(())
    }

    fn sweep_every(&self) -> Duration {
        (self.grace / 4).clamp(Duration::from_secs(1), Duration::from_secs(600))
    }

    /// Up to where batch runs build that are under way. What a run that was killed has left behind is forgotten after a while.
    async fn plans(&self, under_way: &mut HashMap<Path, Instant>) -> Result<Vec<Offsets>, Error> {
        let mut plans = vec![];
        let found = self.files.notes(&self.files.layout.batch_plans()).await?;
        under_way.retain(|path, _| found.contains(path));
        for path in found {
            if under_way.entry(path.clone()).or_insert_with(Instant::now).elapsed() >= LONGEST_RUN {
                self.files.forget_note(&path).await?;
            } else if let Some(bytes) = self.files.note(&path).await? {
                plans.extend(serde_json::from_slice::<Offsets>(&bytes).ok());
            }
        }
        Ok(plans)
    }

    async fn once(
        &self,
        journal: &mut Option<Journal>,
        sweep: Option<&mut Orphans>,
        under_way: &mut HashMap<Path, Instant>,
    ) -> Result<(), Error> {
        let journal = match journal {
            Some(journal) => journal,
            none => none.insert(Journal::open_to_write(self.files.clone(), "maintain").await?),
        };
        let ledger = journal.refresh().await?;
        if !ledger.exists() {
            return Ok(());
        }
        // Each by itself: one that cannot succeed must not keep the others from their work.
        let mut failed = Ok(());
        if ledger.compactable(self.deltas, MOST_BYTES, &[]).is_some() {
            let plans = self.plans(under_way).await?;
            if let Some(units) = ledger.compactable(self.deltas, MOST_BYTES, &plans) {
                failed = self.compact(journal, &ledger, units).await;
            }
        }
        let ledger = journal.ledger();
        if let Some(units) = ledger.compactable_archive(self.archive, self.archive_sizes(&ledger)) {
            failed = self.compact_archive(journal, &ledger, units).await.and(failed);
        }
        if let Some(orphans) = sweep {
            let ledger = journal.refresh().await?;
            failed = self.sweep(&ledger, orphans).await.and(failed);
        }
        failed
    }

    /// Where the past leaves file by file, no file is to hold more of it than goes at once.
    fn archive_sizes(&self, ledger: &Ledger) -> ArchiveSizes {
        let usual = ArchiveSizes { small: SMALL_ROWS, rows: MOST_ROWS, bytes: MOST_BYTES };
        if self.source.archive_retention_us.is_none() {
            return usual;
        }
        let rows = ledger.archive.iter().flat_map(|unit| unit.rows.iter().chain(&unit.dead)).map(|file| file.rows);
        let most = (rows.sum::<u64>() / WORTH).min(MOST_ROWS);
        ArchiveSizes { small: SMALL_ROWS.min(most / 2), rows: most, ..usual }
    }

    /// Replaces epochs by one.
    async fn compact(&self, journal: &mut Journal, ledger: &Ledger, units: &[Unit]) -> Result<(), Error> {
        let started = Instant::now();
        let engine = Engine::new();
        let versions: Vec<_> = ledger.active().into_iter().filter(|id| units[0].versions.contains(id)).collect();
        let mut files = vec![];
        for unit in units {
            files.push(self.files.get(&unit.delta).await?);
        }
        let damaged = |unit: &Unit, why: String| bifold_store::Error::Damaged { path: unit.delta.path.clone(), why };
        let mut sections = vec![];
        for id in &versions {
            let state = &ledger.versions[id];
            let view = compile_stored(&engine, state.into()).await?;
            if view.version != *id {
                // States of another kind than this bifold makes: another one's work.
                return Ok(());
            }
            let mut states: Vec<RecordBatch> = vec![];
            for (unit, bytes) in units.iter().zip(&files) {
                states.extend(delta::read(bytes, id).map_err(|e| damaged(unit, e.to_string()))?);
            }
            let reduced = if states.is_empty() { vec![] } else { view.reduce(&engine, states).await? };
            sections.push((id.clone(), Arc::clone(&view.stored), reduced));
        }
        let rows = sections.iter().flat_map(|(_, _, states)| states).map(|batch| batch.num_rows() as u64).sum();
        let ranges = Ranges::joined(units.iter().map(|unit| &unit.ranges));
        let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
        let path = self.files.layout.delta(ledger.number + 1, &nonce, &ranges);
        let file = self.files.put(path, delta::write(&sections)?, rows).await?;
        failpoint("compact.delta_written");
        let replaces: Vec<_> = units.iter().map(|unit| unit.number).collect();
        let count = replaces.len();
        let body = Body::Compacted { replaces, ranges, versions, delta: file, holes: holes_of(units) };
        if self.put(journal, body, started).await? {
            failpoint("compact.compacted");
            metrics::counter!("bifold_compacted_total", "source" => self.source.name.clone(), "kind" => "deltas")
                .increment(count as u64);
            tracing::info!(source = self.source.name, deltas = count, rows, "deltas compacted");
        }
        Ok(())
    }

    /// Replaces archive files by bigger ones of the same rows.
    async fn compact_archive(
        &self,
        journal: &mut Journal,
        ledger: &Ledger,
        units: &[ArchiveUnit],
    ) -> Result<(), Error> {
        let started = Instant::now();
        let ranges = Ranges::joined(units.iter().map(|unit| &unit.ranges));
        let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
        let number = ledger.number + 1;
        let rows: Vec<&File> = units.iter().flat_map(|unit| &unit.rows).collect();
        let rows = self.merged(&rows, self.files.layout.archive(number, &nonce, &ranges)).await?;
        let dead: Vec<&File> = units.iter().flat_map(|unit| &unit.dead).collect();
        let dead = self.merged(&dead, self.files.layout.dead_letters(number, &nonce, &ranges)).await?;
        failpoint("compact.archive_written");
        let replaces: Vec<_> = units.iter().map(|unit| unit.number).collect();
        let count = replaces.len();
        let body = Body::CompactedArchive { replaces, ranges, rows, dead };
        if self.put(journal, body, started).await? {
            failpoint("compact.archive_compacted");
            metrics::counter!("bifold_compacted_total", "source" => self.source.name.clone(), "kind" => "archive")
                .increment(count as u64);
            tracing::info!(source = self.source.name, files = count, "archive files compacted");
        }
        Ok(())
    }

    /// One file of the rows of several, in the log's order; none if there are none.
    async fn merged(&self, files: &[&File], path: String) -> Result<Vec<File>, Error> {
        let mut batches: Vec<RecordBatch> = vec![];
        for file in files {
            let reader = ParquetRecordBatchReaderBuilder::try_new(self.files.get(file).await?)?.build()?;
            for batch in reader {
                batches.push(batch?);
            }
        }
        let Some(first) = batches.first() else { return Ok(vec![]) };
        let all = sorted(&concat_batches(&first.schema(), &batches)?);
        let expected: u64 = files.iter().map(|file| file.rows).sum();
        if all.num_rows() as u64 != expected {
            let why = format!("archive files hold {} rows, the ledger says {expected}", all.num_rows());
            return Err(Error::Internal(why));
        }
        Ok(vec![put_rows(&self.files, path, &all).await?])
    }

    /// Puts a replacement, unless somebody else was faster or it took so long that its files may be gone.
    async fn put(&self, journal: &mut Journal, body: Body, started: Instant) -> Result<bool, Error> {
        loop {
            if started.elapsed() >= self.grace / 2 {
                return Ok(false);
            }
            match journal.append(body.clone()).await {
                Ok(Appended::Won(_)) => return Ok(true),
                Ok(Appended::Lost) => {}
                Err(error) if error.kind() == Kind::Refused => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Deletes what nothing has needed for the grace time, by this process's own steady clock: neither its time of day nor the
    /// store's decides.
    async fn sweep(&self, ledger: &Ledger, orphans: &mut Orphans) -> Result<(), Error> {
        let mut found = self.files.files().await?;
        found.retain(|path| ledger.is_orphan(path));
        orphans.retain(|path, _| found.contains(path));
        let mut deleted = 0;
        for path in found {
            let since = *orphans.entry(path.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= self.grace {
                self.files.delete(&path).await?;
                orphans.remove(&path);
                deleted += 1;
            }
        }
        if deleted > 0 {
            metrics::counter!("bifold_orphans_deleted_total", "source" => self.source.name.clone()).increment(deleted);
            tracing::info!(source = self.source.name, files = deleted, "files that nothing needs were deleted");
        }
        Ok(())
    }
}
