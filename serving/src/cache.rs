//! What is kept of views between queries, within a budget: merged states, the stream's slices, finished rows. What was used longest ago
//! is given up first, and read again by the query that needs it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use arrow::array::RecordBatch;
use bifold_fold::buffers::Buffers;
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
    /// The durable states; they are kept elsewhere, or not at all.
    pub durable: Weak<Durable>,
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
        self.bytes = Buffers::of(batches);
    }

    /// Gives up what does not fit: what rests on the other parts first. Whether the durable states stay.
    fn shrink(&mut self, budget: usize) -> bool {
        let parts: [fn(&mut Self); 3] =
            [|kept| kept.finished = None, |kept| kept.slices.clear(), |kept| kept.durable = None];
        for give_up in parts {
            self.measure();
            if self.bytes > budget {
                give_up(self);
            }
        }
        // By themselves they save nothing.
        if self.durable.is_none() {
            (self.finished, self.slices) = (None, SliceStates::new());
        }
        self.measure();
        self.durable.is_some()
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

    /// Keeps durable states. Rows that were finished from others are of no use any more.
    pub fn keep_durable(&self, version: &VersionId, durable: &Arc<Durable>) {
        self.keep(version, |kept| (kept.durable, kept.finished) = (Some(Arc::clone(durable)), None));
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
        // The other views stay: a view that is larger than all of the budget would be gone by its next query all the same.
        let had = kept.durable.is_some();
        if !kept.shrink(self.budget) && had {
            metrics::counter!("bifold_cache_evictions_total").increment(1);
            if all.too_large.insert(version.clone()) {
                let budget = self.budget;
                tracing::warn!(%version, budget, "a view is larger than serve.memory: every query reads it again");
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

    fn rows(rows: usize) -> Arc<Vec<RecordBatch>> {
        Arc::new(durable(rows).states.clone())
    }

    fn finished(durable: &Arc<Durable>, of: usize) -> Finished {
        Finished { durable: Arc::downgrade(durable), slices: BTreeSet::new(), rows: rows(of) }
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
    }

    #[test]
    fn a_view_that_does_not_fit_takes_nothing_from_the_others() {
        let cache = Cache::new(30_000);
        let [a, b] = ["a", "b"].map(VersionId::from);
        cache.keep_durable(&a, &durable(1000));
        let slice = || SliceStates::from([(SliceId("s".into(), 1, 1), rows(2500))]);
        cache.keep_durable(&b, &durable(10_000));
        cache.keep_slices(&b, slice());
        cache.keep_finished(&b, finished(&durable(10), 2500));
        assert!(cache.durable(&a).is_some());
        assert!(cache.durable(&b).is_none() && cache.slices(&b).is_empty() && cache.finished(&b).is_none());
        // What rests on the durable states goes before them.
        let states = durable(2000);
        cache.keep_durable(&b, &states);
        cache.keep_slices(&b, SliceStates::from([(SliceId("s".into(), 1, 1), rows(10))]));
        cache.keep_finished(&b, finished(&states, 3500));
        assert!(cache.durable(&b).is_some() && !cache.slices(&b).is_empty() && cache.finished(&b).is_none());
        assert!(cache.durable(&a).is_some());
        cache.keep_slices(&b, slice());
        assert!(cache.durable(&b).is_some() && cache.slices(&b).is_empty());
        assert!(cache.durable(&a).is_some());
        drop(states);
        cache.keep_finished(&b, finished(&durable(10), 10));
        assert_eq!(cache.finished(&b).expect("it fits").durable.strong_count(), 0, "it keeps no states alive");
    }
}
