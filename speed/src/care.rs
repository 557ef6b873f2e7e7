//! Records that cannot be folded. No value of an event ends a role: the records before it are folded, and the partition waits at it
//! until somebody leaves it out.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bifold_ledger::{Offsets, TopicPartition};
use bifold_log::Chunk;
use bifold_service::Component;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::Error;

/// By how much fewer records are folded at once after a failure.
const FEWER: usize = 16;
/// How long records may be folded until the instance says that it is stuck.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How many records are folded at once after some could not be.
#[derive(Debug)]
pub(crate) struct Care {
    usual: usize,
    /// The records at once, and until where.
    now: Option<(usize, Offsets)>,
}

impl Care {
    pub(crate) fn new(usual: usize) -> Self {
        Self { usual, now: None }
    }

    /// Records that are folded at once.
    pub(crate) fn records(&self) -> usize {
        self.now.as_ref().map_or(self.usual, |(records, _)| *records)
    }

    /// Takes note that some records cannot be folded. True if it is one: no smaller chunk tells more.
    pub(crate) fn failed(&mut self, failed: &Failed) -> bool {
        let until = match self.now.take() {
            Some((_, before)) => before.max(&failed.until),
            None => failed.until.clone(),
        };
        self.now = Some(((failed.records / FEWER).max(1), until));
        failed.records <= 1
    }

    /// Takes note of how far the fold has come.
    pub(crate) fn passed(&mut self, end: &Offsets) {
        if self.now.as_ref().is_some_and(|(_, until)| end.reaches(until)) {
            self.now = None;
        }
    }
}

/// Records that could not be folded.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) records: usize,
    /// Where the first of them stands.
    pub(crate) first: Option<(TopicPartition, i64)>,
    until: Offsets,
}

impl Failed {
    pub(crate) fn new(error: Error, chunk: &Chunk) -> Self {
        let first = chunk.records().next().map(|record| (record.at.clone(), record.offset));
        let until = chunk.positions().map(|(at, next, _)| (at.clone(), next)).collect();
        Self { error, records: chunk.len(), first, until }
    }
}

/// Runs a fold. A panic is an error like another.
pub(crate) fn guarded<T>(fold: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(fold)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".into());
        Err(Error::Panicked(text))
    })
}

/// Where a chunk starts, for people.
fn place_of(chunk: &Chunk) -> String {
    let first = chunk.records().next().map(|record| format!("{} at offset {}", record.at, record.offset));
    first.unwrap_or_else(|| "no record".to_string())
}

/// Watches the fold from another task. While a fold takes too long, the component names the offset where it began.
#[derive(Debug)]
pub(crate) struct Watch {
    folding: Arc<Mutex<Folding>>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Folding {
    since: Option<(Instant, usize, String)>,
    told: bool,
}

impl Watch {
    pub(crate) fn new(runtime: &Handle, component: Component) -> Self {
        let folding = Arc::<Mutex<Folding>>::default();
        let watched = Arc::clone(&folding);
        let task = runtime.spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let mut folding = watched.lock().unwrap_or_else(PoisonError::into_inner);
                let Some((since, records, place)) = &folding.since else { continue };
                if since.elapsed() >= STALLED_AFTER {
                    let seconds = since.elapsed().as_secs() / 10 * 10;
                    component.waiting(format!(
                        "folding {records} records from {place} on has taken more than {seconds} s: a function of a view may be too \
                         slow for what one of them holds"
                    ));
                    folding.told = true;
                }
            }
        });
        Self { folding, task: task.abort_handle() }
    }

    pub(crate) fn begin(&self, chunk: &Chunk) {
        let since = Some((Instant::now(), chunk.len(), place_of(chunk)));
        *self.folding.lock().unwrap_or_else(PoisonError::into_inner) = Folding { since, told: false };
    }

    /// True if it was told that the fold is stuck.
    pub(crate) fn end(&self) -> bool {
        std::mem::take(&mut *self.folding.lock().unwrap_or_else(PoisonError::into_inner)).told
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
