//! Sources, their views, and what of them is in memory: compiled views, durable states, slices, finished rows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use bifold_fold::live::{GivenSlice, SliceId};
use bifold_fold::view::compile_stored;
use bifold_fold::{Engine, Source, View, delta};
use bifold_ledger::{Cover, File, Ledger, Number, VersionId};
use bifold_log::Log;
use bifold_store::{Journal, SourceFiles};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::cache::{Cache, Durable, Finished, SliceStates};
use crate::problem::Problem;
use crate::speed::SpeedSource;
use crate::threads::{to_the_end, while_awaited};

/// A source to serve.
#[derive(Debug)]
pub struct SourceSpec {
    /// The source.
    pub source: Arc<Source>,
    /// Its files.
    pub files: SourceFiles,
    /// The pipeline's views of it, known also before the ledger knows them.
    pub views: Vec<Arc<View>>,
}

/// Everything that is served.
#[derive(Debug)]
pub struct Catalog {
    /// The sources, by name.
    pub sources: BTreeMap<String, Arc<ServedSource>>,
    /// The log, for its ends and for appending.
    pub log: Arc<dyn Log>,
    /// The speed instances.
    pub speed: Vec<Arc<dyn SpeedSource>>,
    /// What finishes views and runs queries.
    pub engine: Engine,
}

/// One source and what of it is in memory.
#[derive(Debug)]
pub struct ServedSource {
    /// The source.
    pub source: Arc<Source>,
    /// The pipeline's views of it.
    pub declared: Vec<Arc<View>>,
    journal: tokio::sync::Mutex<Option<Journal>>,
    files: SourceFiles,
    views: Mutex<HashMap<VersionId, Arc<View>>>,
    /// Whose turn it is to read a version's durable states.
    reading: Mutex<HashMap<VersionId, Arc<tokio::sync::Mutex<()>>>>,
    cache: Arc<Cache>,
}

impl Catalog {
    /// A catalog of which nothing is in memory yet, and that keeps up to `memory` bytes of views between queries.
    pub fn new(
        sources: Vec<SourceSpec>,
        log: Arc<dyn Log>,
        speed: Vec<Arc<dyn SpeedSource>>,
        engine: Engine,
        memory: u64,
    ) -> Self {
        let cache = Arc::new(Cache::new(memory));
        let named =
            |spec: SourceSpec| (spec.source.name.clone(), Arc::new(ServedSource::new(spec, Arc::clone(&cache))));
        Self { sources: sources.into_iter().map(named).collect(), log, speed, engine }
    }

    /// The source that a view belongs to, and its ledger.
    ///
    /// # Errors
    /// No such view; the store is unavailable.
    pub async fn find(&self, view: &str) -> Result<Arc<ServedSource>, Problem> {
        for source in self.sources.values() {
            if let Some(ledger) = source.last_ledger().await
                && self.names_of(source, &ledger).iter().any(|name| name == view)
            {
                return Ok(Arc::clone(source));
            }
        }
        let mut known = vec![];
        for source in self.sources.values() {
            let names = self.names_of(source, &*source.ledger().await?);
            if names.iter().any(|name| name == view) {
                return Ok(Arc::clone(source));
            }
            known.extend(names);
        }
        match self.sources.get(view) {
            Some(source) => Err(Problem::is_source(view, &self.names_of(source, &*source.ledger().await?))),
            None => Err(Problem::unknown_view(view, &known)),
        }
    }

    /// The views of a source. One that has moved to another source of the pipeline is no longer the old one's, though it
    /// is still in its ledger.
    pub fn names_of(&self, source: &ServedSource, ledger: &Ledger) -> Vec<String> {
        let elsewhere = |name: &String| {
            let declares = |source: &ServedSource| source.declared.iter().any(|view| view.name == *name);
            !declares(source) && self.sources.values().any(|other| declares(other))
        };
        let mut names = source.view_names(ledger);
        names.retain(|name| !elsewhere(name));
        names
    }
}

impl ServedSource {
    /// A source of which nothing is in memory yet.
    pub fn new(spec: SourceSpec, cache: Arc<Cache>) -> Self {
        Self {
            source: spec.source,
            declared: spec.views,
            journal: tokio::sync::Mutex::default(),
            files: spec.files,
            views: Mutex::default(),
            reading: Mutex::default(),
            cache,
        }
    }

    /// The ledger, read to its end.
    ///
    /// # Errors
    /// The store is unavailable, or an entry is invalid.
    pub async fn ledger(&self) -> Result<Arc<Ledger>, Problem> {
        let mut journal = self.journal.lock().await;
        match &mut *journal {
            Some(journal) => Ok(journal.refresh().await?),
            none => Ok(none.insert(Journal::open(self.files.clone(), "serve").await?).ledger()),
        }
    }

    /// The ledger as it was last read.
    async fn last_ledger(&self) -> Option<Arc<Ledger>> {
        self.journal.lock().await.as_ref().map(Journal::ledger)
    }

    /// The names of its views: those of the ledger and those of the pipeline.
    fn view_names(&self, ledger: &Ledger) -> Vec<String> {
        let active = ledger.versions.values().filter(|version| version.active).map(|version| version.view.clone());
        let mut names: Vec<String> = active.chain(self.declared.iter().map(|view| view.name.clone())).collect();
        names.sort();
        names.dedup();
        names
    }

    /// A version, compiled.
    ///
    /// # Errors
    /// A version of another bifold.
    pub async fn view(&self, engine: &Engine, ledger: &Ledger, version: &VersionId) -> Result<Arc<View>, Problem> {
        if let Some(view) = self.views.lock().expect("no holder panics").get(version) {
            return Ok(Arc::clone(view));
        }
        let state = ledger.versions.get(version).ok_or_else(|| Problem::internal(format!("no version {version}")))?;
        let view = compile_stored(engine, state.into()).await;
        let view = view.map_err(|e| Problem::internal(e.to_string()))?;
        if view.version != *version {
            let detail = format!("view {} is version {} to this bifold, not {version}", state.view, view.version);
            return Err(Problem::internal(detail));
        }
        self.views.lock().expect("no holder panics").insert(version.clone(), Arc::clone(&view));
        Ok(view)
    }

    /// The durable states of a version, reduced: what is in memory, and what has been committed since.
    ///
    /// # Errors
    /// A file that is missing or damaged; the store is unavailable.
    pub async fn durable(
        self: &Arc<Self>,
        engine: &Engine,
        view: &Arc<View>,
        cover: &Cover,
    ) -> Result<Arc<Durable>, Problem> {
        if let Some(known) = self.cache.durable(&view.version).filter(|known| known.is_of(cover)) {
            return Ok(known);
        }
        let turn = Arc::clone(self.reading.lock().expect("no holder panics").entry(view.version.clone()).or_default());
        let (this, engine, view, cover) = (Arc::clone(self), engine.clone(), Arc::clone(view), cover.clone());
        let read = to_the_end(async move {
            let _turn = turn.lock().await;
            this.read_durable(&engine, &view, &cover).await
        });
        read.await.map_err(|e| Problem::internal(format!("reading broke off: {e}")))?
    }

    async fn read_durable(&self, engine: &Engine, view: &View, cover: &Cover) -> Result<Arc<Durable>, Problem> {
        let known = self.cache.durable(&view.version);
        let wanted: Vec<Number> = cover.units.iter().map(|unit| unit.number).collect();
        let base = known.filter(|known| known.runs == cover.runs && wanted.starts_with(&known.units));
        if let Some(known) = base.as_ref().filter(|known| known.is_of(cover)) {
            return Ok(Arc::clone(known));
        }
        let mut states = vec![];
        let mut done = 0;
        match base {
            Some(known) => {
                done = known.units.len();
                states.extend(known.states.iter().cloned());
            }
            None => {
                for run in &cover.runs {
                    states.extend(self.run_states(run).await?);
                }
            }
        }
        for unit in &cover.units[done..] {
            let bytes = self.files.get(&unit.delta).await?;
            let read = delta::read(&bytes, &view.version);
            states.extend(read.map_err(|e| Problem::damaged(&unit.delta.path, format!("{}: {e}", unit.delta.path)))?);
        }
        let states = if states.is_empty() { vec![] } else { view.reduce(engine, states).await? };
        let states = view.kept_from(states, cover.kept_from_us)?;
        let (runs, kept_from_us) = (cover.runs.clone(), cover.kept_from_us);
        let durable = Arc::new(Durable { runs, units: wanted, states, kept_from_us });
        self.cache.keep_durable(&view.version, &durable);
        Ok(durable)
    }

    async fn run_states(&self, run: &File) -> Result<Vec<RecordBatch>, Problem> {
        let bytes = self.files.get(run).await?;
        let damaged = |e: String| Problem::damaged(&run.path, format!("{}: {e}", run.path));
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        let read: Result<Vec<_>, _> = reader.map_err(|e| damaged(e.to_string()))?.collect();
        read.map_err(|e| damaged(e.to_string()))
    }

    /// The slices of a version that are in memory.
    pub fn slices_of(&self, version: &VersionId) -> BTreeSet<SliceId> {
        self.cache.slices(version).into_keys().collect()
    }

    /// Keeps exactly these slices of a version, and gives their states. None if one of them is not known.
    pub fn keep_slices(&self, version: &VersionId, given: &[GivenSlice]) -> Option<SliceStates> {
        let known = self.cache.slices(version);
        let mut kept = BTreeMap::new();
        for (id, rows) in given {
            let rows = rows.clone().or_else(|| known.get(id).cloned())?;
            kept.insert(id.clone(), rows);
        }
        self.cache.keep_slices(version, kept.clone());
        Some(kept)
    }

    /// The finished rows of durable states and slices.
    ///
    /// # Errors
    /// An overflow, or an internal failure.
    pub async fn finished(
        self: &Arc<Self>,
        engine: &Engine,
        view: &Arc<View>,
        durable: &Arc<Durable>,
        slices: &SliceStates,
    ) -> Result<Arc<Vec<RecordBatch>>, Problem> {
        let ids: BTreeSet<SliceId> = slices.keys().cloned().collect();
        if let Some(known) = self.cache.finished(&view.version)
            && known.durable.ptr_eq(&Arc::downgrade(durable))
            && known.slices == ids
        {
            return Ok(known.rows);
        }
        // An event that is late beyond the retention is in no answer, whichever layer holds it.
        let live = slices.values().flat_map(|rows| rows.iter().cloned()).collect();
        let live = view.kept_from(live, durable.kept_from_us)?;
        let states = durable.states.iter().cloned().chain(live).collect();
        let (engine, finishing) = (engine.clone(), Arc::clone(view));
        let finishing = while_awaited(async move { finishing.finish(&engine, states).await });
        let rows = Arc::new(finishing.await.map_err(|e| Problem::internal(format!("finishing broke off: {e}")))??);
        let finished = Finished { durable: Arc::downgrade(durable), slices: ids, rows: Arc::clone(&rows) };
        self.cache.keep_finished(&view.version, finished);
        Ok(rows)
    }
}
