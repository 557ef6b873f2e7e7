//! Archive → batch views, published atomically.
//!
//! ```text
//! ledger: boundary, plan ─► archived rows ─► partial ─► sort (spills) ─► reduce ─► run.parquet ─► ledger: published
//! ```
//!
//! A run is a list of groups sorted by the view's keys. By default a batch run adds one run made of the rows between the
//! old boundary and the new; a full one starts from the origin. Neither archives nor folds.

mod alone;
mod dead;
mod direct;
mod ordered;
mod retention;
mod run_file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifold_archive::replay::Replay;
use bifold_fold::states::Input;
use bifold_fold::view::{Readings, compile_stored};
use bifold_fold::{Engine, Source, View};
use bifold_ledger::{
    ArchiveUnit, BatchPlan, Body, File, Ledger, Mode, Nonce, Offsets, Part, PublishedVersion, Seen, VersionId,
    VersionPlan,
};
use bifold_store::failpoint::failpoint;
use bifold_store::{Appended, Journal, Kind, SourceFiles};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;
use datafusion::prelude::DataFrame;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::progress::Progress;
use crate::runs::{Run, Trigger};
use dead::{Reasons, seen_after};
pub(crate) use ordered::held;
use retention::Times;
pub(crate) use retention::WORTH;
pub(crate) use run_file::read_run;
use run_file::{runs_plan, write_run};

/// Runs of a version beyond which an incremental run merges them all.
const MOST_RUNS: usize = 8;
/// How often a refused run starts over.
const TRIES: u32 = 5;
/// Versions of a view that stay beside the served one, to go back to.
const KEPT_VERSIONS: usize = 1;
/// Rows of a batch of very large values, tried one after the other, and the memory of a run of them: less than what one column may hold.
pub(crate) const SMALL_BATCHES: [usize; 2] = [64, 1];
const MEMORY_OF_SMALL_BATCHES: u64 = 1 << 30;
/// How often a run tells how far it has come.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Batch runs of one source.
#[derive(Debug)]
pub struct Recompute {
    /// The source.
    pub source: Arc<Source>,
    /// The store.
    pub files: SourceFiles,
    /// Where spilled data and unfinished runs lie.
    pub scratch: PathBuf,
    /// The memory of a run, in bytes.
    pub memory: u64,
    /// The pipeline's views of the source, which a run declares where no role does.
    pub views: Vec<Readings>,
    /// Offsets behind the archive from which a run may leap.
    pub leap: i64,
    /// How long no epoch was committed, though the archive has more, when a run leaps.
    pub leap_after: Duration,
    /// How long files stay that nothing needs.
    pub grace: Duration,
    /// Where it tells how far it has come.
    pub progress: Progress,
}

/// What a run is asked to do.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The views; empty: all.
    pub views: Vec<String>,
    /// Whether to start from the origin.
    pub full: bool,
    /// A boundary to wait for.
    pub at_least: Option<Offsets>,
    /// How long to wait for it.
    pub timeout: Duration,
}

/// What a run did for one version; a line of `bifold batch run`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The view.
    pub view: String,
    /// The version.
    pub version: VersionId,
    /// How.
    pub mode: Mode,
    /// Up to where its batch view reaches, as OFFSETS.
    pub boundary: String,
    /// Archived rows read.
    pub rows_read: u64,
    /// Groups written.
    pub groups: u64,
    /// The ledger number of the publication; without one, of the plan.
    pub ledger: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}

struct Built {
    runs: Vec<File>,
    rows_read: u64,
    groups: u64,
    elapsed_ms: u64,
    times: Times,
    /// What its positions hold beside its states.
    seen: Option<Box<Seen>>,
}

/// What states are built for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A batch view.
    View,
    /// What full recomputes start from when the archive's past is gone.
    Base,
}

impl Recompute {
    /// Does one run, and keeps a record of it.
    ///
    /// # Errors
    /// [`Error::NotReached`] if the ledger does not allow the boundary in time; a damaged archive; the store.
    pub async fn run(&self, request: &Request, trigger: Trigger) -> Result<Vec<Report>, Error> {
        let (started, begun) = (chrono::Utc::now(), Instant::now());
        let done = self.attempt(request).await;
        let run = Run::ended(&self.source.name, (started, begun.elapsed()), trigger, &done);
        if let Err(error) = run.keep(&self.files).await {
            tracing::warn!(source = self.source.name, %error, "the record of a batch run was not kept");
        }
        let source = || self.source.name.clone();
        let outcome = format!("{:?}", run.outcome).to_lowercase();
        metrics::counter!("bifold_batch_runs_total", "source" => source(), "outcome" => outcome).increment(1);
        metrics::histogram!("bifold_batch_seconds", "source" => source()).record(run.elapsed_ms as f64 / 1e3);
        done
    }

    async fn attempt(&self, request: &Request) -> Result<Vec<Report>, Error> {
        let mut journal = Journal::open_to_write(self.files.clone(), "batch").await?;
        if !journal.ledger().exists() {
            return Err(Error::NotBegun { source_name: self.source.name.clone() });
        }
        for _ in 0..TRIES {
            self.declare(&mut journal).await?;
            let boundary = self.boundary(&mut journal, request).await?;
            let ledger = journal.ledger();
            let plan = ledger.plan_batch(&wanted(&ledger, &request.views), boundary, request.full);
            let plan = self.mended(&ledger, plan).await?;
            let hint = self.tell_plan(&plan).await;
            let done = self.execute(&mut journal, &ledger, plan).await;
            if let Err(error) = self.files.forget_note(&hint).await {
                tracing::debug!(%error, "the plan of a batch run was not removed");
            }
            let done = match done {
                Ok(done) => done,
                // A file that was replaced meanwhile is no damage.
                Err(error) => match error.file() {
                    Some(file) if journal.is_superseded(file).await? => None,
                    _ => return Err(error),
                },
            };
            if let Some(reports) = done {
                self.retire_old_versions(&mut journal).await?;
                if let Err(error) = self.expire(&mut journal).await {
                    tracing::warn!(source = self.source.name, %error, "the archive's past could not be removed; the next run tries again");
                }
                return Ok(reports);
            }
            tracing::info!(source = self.source.name, "the batch run was overtaken; it starts over");
        }
        Err(Error::Overtaken { tries: TRIES })
    }

    /// The boundary that the ledger allows, once it reaches what is asked for.
    async fn boundary(&self, journal: &mut Journal, request: &Request) -> Result<Offsets, Error> {
        let until = Instant::now() + request.timeout;
        loop {
            let ledger = journal.refresh().await?;
            let boundary = self.next_boundary(&ledger);
            let Some(asked) = &request.at_least else { return Ok(boundary) };
            if boundary.reaches(asked) {
                return Ok(boundary);
            }
            if Instant::now() >= until {
                return Err(Error::NotReached {
                    asked: asked.to_string(),
                    allowed: boundary.to_string(),
                    why: behind(&ledger, asked),
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Tells compaction up to where this run builds, so that epochs are not joined over it meanwhile.
    async fn tell_plan(&self, plan: &BatchPlan) -> object_store::path::Path {
        let path = self.files.layout.batch_plans().join(format!("{}.json", uuid::Uuid::new_v4().simple()));
        if plan.versions.iter().any(|version| version.mode != Mode::None) {
            let bytes = serde_json::to_vec(&plan.boundary).expect("offsets are JSON");
            if let Err(error) = self.files.put_note(&path, bytes.into()).await {
                tracing::debug!(%error, "the plan of a batch run was not told");
            }
        }
        path
    }

    /// The plan, with a full run for every version of whose batch view a file is missing or cut short: the archive has it all.
    async fn mended(&self, ledger: &Ledger, mut plan: BatchPlan) -> Result<BatchPlan, Error> {
        for version in plan.versions.iter_mut().filter(|version| version.mode != Mode::Full) {
            for run in &version.keep {
                match self.files.check_length(run).await {
                    Ok(()) => continue,
                    Err(error) if error.kind() == Kind::Damaged => {
                        tracing::warn!(view = version.view, %error, "a batch view's file is damaged; it is built anew");
                    }
                    Err(error) => return Err(error.into()),
                }
                let id = version.version.clone();
                let anew = ledger.plan_batch(std::slice::from_ref(&id), plan.boundary.clone(), true).versions;
                *version = anew.into_iter().find(|anew| anew.version == id).expect("it was in the plan");
                // Of a base view there is no other copy.
                for run in &version.keep {
                    self.files.check_length(run).await?;
                }
                break;
            }
        }
        Ok(plan)
    }

    /// Builds and publishes a plan. None if the ledger refused it.
    async fn execute(
        &self,
        journal: &mut Journal,
        ledger: &Ledger,
        plan: BatchPlan,
    ) -> Result<Option<Vec<Report>>, Error> {
        let (mut reports, mut published, mut built, mut failed) = (vec![], vec![], vec![], vec![]);
        for version in &plan.versions {
            if version.mode == Mode::None {
                let boundary = ledger.versions[&version.version].boundary.clone().unwrap_or_default();
                reports.push(report(version, &boundary, plan.plan, None));
                continue;
            }
            let made = match self.build(ledger, version, &plan.boundary, Purpose::View).await {
                Ok(made) => made,
                Err(error) if error.is_of_a_view() => {
                    tracing::error!(view = version.view, %error, "the batch view was not built; the others go on");
                    failed.push((version.view.clone(), Box::new(error)));
                    continue;
                }
                Err(error) => return Err(error),
            };
            published.push(PublishedVersion {
                version: version.version.clone(),
                runs: made.runs.clone(),
                full: version.mode == Mode::Full,
                holes: version.holes.clone(),
                newest_event_us: made.times.newest_us,
                kept_from_us: made.times.kept_from_us,
                seen: made.seen.clone(),
            });
            built.push((version, made));
        }
        if published.is_empty() {
            return told(reports, failed).map(Some);
        }
        failpoint("publish.runs_written");
        let body = Body::Published { plan: plan.plan, boundary: plan.boundary.clone(), versions: published };
        let number = loop {
            match journal.append(body.clone()).await {
                Ok(Appended::Won(number)) => break number,
                // Others wrote meanwhile: the same entry may stand at a later number if every rule allows it there.
                Ok(Appended::Lost) => {}
                Err(e) if e.kind() == Kind::Refused && failed.is_empty() => return Ok(None),
                // A boundary that leaps is one of all views or of none.
                Err(e) if e.kind() == Kind::Refused => return told(vec![], failed).map(Some),
                Err(e) => return Err(e.into()),
            }
        };
        failpoint("publish.published");
        reports.extend(built.iter().map(|(version, made)| report(version, &plan.boundary, number, Some(made))));
        told(reports, failed).map(Some)
    }

    /// Builds the batch view of one version; in small batches, if its values are too large to lie in usual ones.
    async fn build(
        &self,
        ledger: &Ledger,
        plan: &VersionPlan,
        boundary: &Offsets,
        purpose: Purpose,
    ) -> Result<Built, Error> {
        let scratch = |source| Error::Scratch { folder: self.scratch.display().to_string(), source };
        std::fs::create_dir_all(&self.scratch).map_err(scratch)?;
        let usual = Engine::with_limit(self.memory, &self.scratch, threads())?;
        let mut built = self.build_by(&usual, ledger, plan, boundary, purpose).await;
        for rows in SMALL_BATCHES {
            let Err(error) = &built else { break };
            if !error.is_of_batch_size() {
                break;
            }
            tracing::info!(view = plan.view, %error, rows, "what it makes of events is large; it is built again in small batches");
            // So much memory that none of its columns can be beyond what offsets of 32 bits count.
            let memory = self.memory.min(MEMORY_OF_SMALL_BATCHES);
            let small = Engine::with_limit(memory, &self.scratch, threads())?.with_batch_rows(rows);
            built = self.build_by(&small, ledger, plan, boundary, purpose).await;
        }
        built.map_err(|error| self.named(error))
    }

    /// A failure, with the setting that helps where memory was too small.
    fn named(&self, error: Error) -> Error {
        let exhausted = |error: &DataFusionError| match error.find_root() {
            DataFusionError::ResourcesExhausted(why) => Some(why.lines().next().unwrap_or_default().to_string()),
            _ => None,
        };
        let why = match &error {
            Error::DataFusion(error) | Error::Fold(bifold_fold::Error::DataFusion(error)) => exhausted(error),
            _ => None,
        };
        why.map_or(error, |why| Error::Memory { memory: format!("{} MiB", self.memory >> 20), why })
    }

    async fn build_by(
        &self,
        engine: &Engine,
        ledger: &Ledger,
        plan: &VersionPlan,
        boundary: &Offsets,
        purpose: Purpose,
    ) -> Result<Built, Error> {
        let started = Instant::now();
        let state = &ledger.versions[&plan.version];
        let view = compile_stored(engine, state.into()).await?;
        if view.version != plan.version {
            let why = format!("view {} is version {} here, not {}", view.name, view.version, plan.version);
            return Err(Error::Internal(why));
        }
        let without = ledger.parts_of(&plan.holes, &plan.from, boundary);
        let part = Part { from: plan.from.clone(), to: boundary.clone(), without };
        let times = self.times(engine, &view, ledger, (plan, &part, purpose)).await?;
        let kept_from_us = times.kept_from_us;
        let decoding = view.source.decoding();
        let (same, other): (Vec<_>, Vec<_>) = part.units(ledger).partition(|(unit, _)| unit.decoding == decoding);
        let files = same.iter().chain(&other).flat_map(|(unit, _)| &unit.rows);
        self.progress.begin(format!("batch run: {}", view.name), files.map(|file| file.rows).sum());
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = vec![];
        let mut scans = vec![];
        let mut rows_read = 0;
        if view.source.dedup.is_some() {
            let table = ordered::table(&view, &self.files, ledger, &part, &self.progress)?;
            inputs.push(view.partial(view.input_plan(engine, table).await?)?);
            rows_read += same.iter().chain(&other).flat_map(|(unit, _)| &unit.rows).map(|file| file.rows).sum::<u64>();
        } else if same.iter().any(|(unit, _)| !unit.rows.is_empty()) {
            let plan = self.direct_states(engine, &view, &same, &part).await?;
            scans.push(Arc::clone(&plan));
            inputs.push(plan);
        }
        let mut dead = self.dead_of(&same, &part).await?;
        let other: Vec<&ArchiveUnit> = other.into_iter().map(|(unit, _)| unit).collect();
        if !other.is_empty() {
            let replayed = if view.source.dedup.is_some() {
                self.dead_when_replayed(&view, &other, &part).await?
            } else {
                let (states, rows, replayed) = self.replayed_states(engine, &view, &other, &part).await?;
                rows_read += rows;
                inputs.push(view.states_plan(states)?);
                replayed
            };
            for (reason, count) in replayed {
                *dead.entry(reason).or_default() += count;
            }
        }
        let mut keep = plan.keep.clone();
        if keep.len() >= MOST_RUNS {
            inputs.push(runs_plan(&self.files, &view, std::mem::take(&mut keep), kept_from_us)?);
        }
        let states = match inputs.len() {
            0 => view.states_plan(vec![])?,
            1 => inputs.remove(0),
            _ => UnionExec::try_new(inputs)?,
        };
        let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
        let number = ledger.number + 1;
        let path = match purpose {
            Purpose::View => self.files.layout.run(&plan.version, number, &nonce, keep.len()),
            Purpose::Base => self.files.layout.base_view(&plan.version, number, &nonce, keep.len()),
        };
        let scanned = || rows_read + scans.iter().map(rows_scanned).sum::<u64>();
        let writing = write_run(&self.files, path, &view, engine, (states, kept_from_us), &self.scratch);
        tokio::pin!(writing);
        let run = loop {
            tokio::select! {
                run = &mut writing => break run?,
                () = tokio::time::sleep(TELL_EVERY) => self.progress.at(scanned()),
            }
        };
        failpoint("publish.run_written");
        let rows_read = scanned();
        let groups = run.rows;
        if run.rows > 0 {
            keep.push(run);
        }
        let elapsed_ms = started.elapsed().as_millis() as u64;
        let seen = seen_after(ledger, plan, &dead);
        Ok(Built { runs: keep, rows_read, groups, elapsed_ms, times, seen })
    }

    /// States of rows that are read from their columns.
    async fn direct_states(
        &self,
        engine: &Engine,
        view: &View,
        units: &[(&ArchiveUnit, bool)],
        part: &Part,
    ) -> Result<Arc<dyn ExecutionPlan>, Error> {
        let frame = self.frame(engine, &view.source, units, part).await?;
        let input = view.input_plan(engine, frame.into_view()).await?;
        Ok(view.partial(input)?)
    }

    /// The rows of these units in `part`, from their columns.
    async fn frame(
        &self,
        engine: &Engine,
        source: &Source,
        units: &[(&ArchiveUnit, bool)],
        part: &Part,
    ) -> Result<DataFrame, Error> {
        let files = |inside: bool| -> Vec<File> {
            units.iter().filter(|(_, i)| *i == inside).flat_map(|(unit, _)| unit.rows.iter().cloned()).collect()
        };
        let mut frames = vec![];
        for (files, cut) in [(files(true), None), (files(false), Some(part))] {
            if !files.is_empty() {
                frames.push(direct::table(engine, source, &self.files, &files, cut).await?);
            }
        }
        let mut frames = frames.into_iter();
        let mut frame = frames.next().expect("the caller found files");
        for other in frames {
            frame = frame.union(other)?;
        }
        let schema = source.schema();
        let names = schema.fields().iter().map(|field| datafusion::common::Column::from_name(field.name()));
        Ok(frame.select(names.map(datafusion::logical_expr::Expr::Column).collect::<Vec<_>>())?)
    }

    /// States of rows that are decoded again by the version's own definition.
    async fn replayed_states(
        &self,
        engine: &Engine,
        view: &Arc<View>,
        units: &[&ArchiveUnit],
        part: &Part,
    ) -> Result<(Vec<arrow::array::RecordBatch>, u64, Reasons), Error> {
        let input = Input::new(engine, Arc::clone(view)).await?;
        let (mut states, mut rows) = (vec![], 0);
        let needed = |name: &str| view.needed.iter().any(|needed| needed == name);
        let mut replay = Replay::new(&view.source, &self.files, units, part, needed);
        while let Some(batch) = replay.next().await? {
            rows += batch.num_rows() as u64;
            self.progress.at(rows);
            states.extend(input.fold(&[batch]).await?);
            if states.len() >= 64 {
                states = view.reduce(engine, std::mem::take(&mut states)).await?;
            }
        }
        Ok((states, rows, replay.dead()))
    }

    /// Retires versions that are older than what is served and more than are kept.
    async fn retire_old_versions(&self, journal: &mut Journal) -> Result<(), Error> {
        let ledger = journal.refresh().await?;
        let mut views: Vec<&str> = ledger.versions.values().map(|version| version.view.as_str()).collect();
        views.sort_unstable();
        views.dedup();
        for view in views {
            let versions = ledger.retirable(view, KEPT_VERSIONS);
            if versions.is_empty() {
                continue;
            }
            match journal.append(Body::Retired { versions }).await {
                Ok(_) => failpoint("publish.retired"),
                Err(e) if e.kind() == Kind::Refused => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// What a run did, or which views it could not build.
fn told(published: Vec<Report>, failed: Vec<(String, Box<Error>)>) -> Result<Vec<Report>, Error> {
    if failed.is_empty() { Ok(published) } else { Err(Error::Views { failed, published }) }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn report(version: &VersionPlan, boundary: &Offsets, ledger: u64, made: Option<&Built>) -> Report {
    Report {
        view: version.view.clone(),
        version: version.version.clone(),
        mode: version.mode,
        boundary: boundary.to_string(),
        rows_read: made.map_or(0, |made| made.rows_read),
        groups: made.map_or(0, |made| made.groups),
        ledger,
        elapsed_ms: made.map_or(0, |made| made.elapsed_ms),
    }
}

/// The active versions of the views asked for; of all views, if none is.
fn wanted(ledger: &Ledger, views: &[String]) -> Vec<VersionId> {
    let versions = ledger.versions.iter().filter(|(_, v)| v.active && (views.is_empty() || views.contains(&v.view)));
    versions.map(|(id, _)| id.clone()).collect()
}

/// What keeps the boundary from `asked`: the archive or the fold.
fn behind(ledger: &Ledger, asked: &Offsets) -> String {
    let parts = asked.iter().filter_map(|(at, next)| {
        let (archived, folded) = (ledger.archived(at), ledger.frontier(at));
        match () {
            () if archived < next => Some(format!("{at} is archived up to {archived}")),
            () if folded < next => Some(format!("{at} is folded up to {folded}")),
            () => None,
        }
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Rows that the scans below `plan` gave.
fn rows_scanned(plan: &Arc<dyn ExecutionPlan>) -> u64 {
    match plan.children() {
        children if children.is_empty() => plan.metrics().and_then(|m| m.output_rows()).unwrap_or(0) as u64,
        children => children.into_iter().map(rows_scanned).sum(),
    }
}
