//! What is kept of views between queries, within a budget: merged states, the stream's slices, finished rows. What was used longest ago
//! is given up first, and read again by the query that needs it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use arrow::array::RecordBatch;
use bifold_fold::live::SliceId;
use bifold_ledger::{Cover, File, Number, VersionId};

/// Slices by id.
pub type SliceStates = BTreeMap<SliceId, Arc<Vec<RecordBatch>>>;

/// The durable states of a version, reduced.
#[derive(Debug)]
pub struct Durable {
    /// The runs of the batch view.
    pub runs: Vec<File>,
    /// The units after it.
    pub units: Vec<Number>,
    /// Their states.
    pub states: Vec<RecordBatch>,
    /// From which time on they are answered.
    pub kept_from_us: Option<i64>,
}

impl Durable {
    /// Whether these are the states of exactly this cover.
    pub fn is_of(&self, cover: &Cover) -> bool {
        self.runs == cover.runs
            && self.kept_from_us == cover.kept_from_us
            && self.units.iter().eq(cover.units.iter().map(|unit| &unit.number))
    }
}

/// Rows that were finished from exactly these states.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The durable states.
    pub durable: Arc<Durable>,
    /// The slices.
    pub slices: BTreeSet<SliceId>,
    /// The rows.
    pub rows: Arc<Vec<RecordBatch>>,
}

/// What is kept of one version.
#[derive(Debug, Default)]
struct Kept {
    durable: Option<Arc<Durable>>,
    slices: SliceStates,
    finished: Option<Finished>,
    bytes: usize,
    /// When it was last used, in uses of the cache.
    used: u64,
}

impl Kept {
    fn measure(&mut self) {
        let batches = self.durable.iter().flat_map(|durable| &durable.states);
        let batches = batches.chain(self.slices.values().flat_map(|slice| slice.iter()));
        let batches = batches.chain(self.finished.iter().flat_map(|finished| finished.rows.iter()));
        self.bytes = batches.map(RecordBatch::get_array_memory_size).sum();
    }
}

#[derive(Debug, Default)]
struct All {
    versions: HashMap<VersionId, Kept>,
    uses: u64,
    /// Of which it was told that they are larger than the whole budget.
    too_large: BTreeSet<VersionId>,
}

impl All {
    fn of(&mut self, version: &VersionId) -> &mut Kept {
        self.uses += 1;
        let kept = self.versions.entry(version.clone()).or_default();
        kept.used = self.uses;
        kept
    }
}

/// What is kept of all views.
#[derive(Debug)]
pub struct Cache {
    budget: usize,
    all: Mutex<All>,
}

impl Cache {
    /// A cache that keeps up to `budget` bytes.
    pub fn new(budget: u64) -> Self {
        Self { budget: usize::try_from(budget).unwrap_or(usize::MAX), all: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, All> {
        self.all.lock().expect("no holder panics")
    }

    /// The durable states of a version.
    pub fn durable(&self, version: &VersionId) -> Option<Arc<Durable>> {
        self.all().of(version).durable.clone()
    }

    /// Keeps durable states.
    pub fn keep_durable(&self, version: &VersionId, durable: &Arc<Durable>) {
        self.keep(version, |kept| kept.durable = Some(Arc::clone(durable)));
    }

    /// The slices of a version.
    pub fn slices(&self, version: &VersionId) -> SliceStates {
        self.all().of(version).slices.clone()
    }

    /// Keeps exactly these slices.
    pub fn keep_slices(&self, version: &VersionId, slices: SliceStates) {
        self.keep(version, |kept| kept.slices = slices);
    }

    /// The finished rows of a version.
    pub fn finished(&self, version: &VersionId) -> Option<Finished> {
        self.all().of(version).finished.clone()
    }

    /// Keeps finished rows.
    pub fn keep_finished(&self, version: &VersionId, finished: Finished) {
        self.keep(version, |kept| kept.finished = Some(finished));
    }

    fn keep(&self, version: &VersionId, change: impl FnOnce(&mut Kept)) {
        let mut all = self.all();
        let kept = all.of(version);
        change(kept);
        kept.measure();
        let bytes = kept.bytes;
        if bytes > self.budget {
            // The others stay: it would be gone by the next query all the same.
            all.versions.remove(version);
            metrics::counter!("bifold_cache_evictions_total").increment(1);
            if all.too_large.insert(version.clone()) {
                let budget = self.budget;
                tracing::warn!(%version, bytes, budget, "a view is larger than serve.memory: every query reads it again");
            }
        }
        let mut total: usize = all.versions.values().map(|kept| kept.bytes).sum();
        while total > self.budget {
            let oldest = all.versions.iter().filter(|(_, kept)| kept.bytes > 0).min_by_key(|(_, kept)| kept.used);
            let Some(oldest) = oldest.map(|(version, _)| version.clone()) else { break };
            let gone = all.versions.remove(&oldest).expect("it was just found");
            total -= gone.bytes;
            metrics::counter!("bifold_cache_evictions_total").increment(1);
        }
        metrics::gauge!("bifold_cache_bytes").set(total as f64);
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn durable(rows: usize) -> Arc<Durable> {
        let column: arrow::array::ArrayRef = Arc::new(Int64Array::from(vec![0; rows]));
        let states = vec![RecordBatch::try_from_iter([("k0", column)]).expect("a batch")];
        Arc::new(Durable { runs: vec![], units: vec![], states, kept_from_us: None })
    }

    #[test]
    fn what_was_used_longest_ago_is_given_up_first() {
        let cache = Cache::new(30_000);
        let [a, b, c] = ["a", "b", "c"].map(VersionId::from);
        cache.keep_durable(&a, &durable(1000));
        cache.keep_durable(&b, &durable(1000));
        cache.keep_durable(&c, &durable(1000));
        assert!(cache.durable(&a).is_some(), "all three fit");
        // b is now the oldest.
        cache.keep_durable(&c, &durable(2000));
        assert_eq!([&a, &b, &c].map(|version| cache.durable(version).is_some()), [true, false, true]);
        // What is larger than all of it is not kept, and takes nothing from the others.
        cache.keep_durable(&b, &durable(10_000));
        assert_eq!([&a, &b, &c].map(|version| cache.durable(version).is_some()), [true, false, true]);
    }
}
