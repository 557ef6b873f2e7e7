//! What queries may take: each so much, and all of them together twice that.
//!
//! A query that takes little never waits for others: the first mebibytes of each are its own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::{Result, resources_err};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

/// What the failure of a query says for which others leave no room.
pub const OTHERS: &str = "other queries take the memory that all may take together";

/// How many times the memory of one query all of them may take.
const TOGETHER: usize = 2;
/// The memory of a query, or of an answer on its way, that is not shared.
const OWN: usize = 4 << 20;

/// The memory that queries and their answers share.
#[derive(Debug, Default)]
pub struct Shared {
    taken: AtomicUsize,
}

/// Memory that is taken as long as this lives.
#[derive(Debug)]
pub struct Held {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Shared {
    /// Takes so much for an answer on its way. It is made already: so this is never refused, but the queries after it are.
    pub fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        let bytes = bytes.saturating_sub(OWN);
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Held { shared: Arc::clone(self), bytes }
    }

    fn take(&self, bytes: usize, most: usize) -> Result<()> {
        let room = |taken: usize| Some(taken + bytes).filter(|taken| *taken <= most);
        match self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => Ok(()),
            Err(taken) => resources_err!("{OTHERS}: {taken} of {most} bytes"),
        }
    }

    fn give_back(&self, bytes: usize) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.give_back(self.bytes);
    }
}

/// The memory of one query.
#[derive(Debug)]
pub(crate) struct QueryPool {
    most: usize,
    used: AtomicUsize,
    shared: Arc<Shared>,
}

impl QueryPool {
    pub(crate) fn new(most: usize, shared: Arc<Shared>) -> Self {
        Self { most, used: AtomicUsize::new(0), shared }
    }

    /// What of so much is shared.
    fn beyond(bytes: usize) -> usize {
        bytes.saturating_sub(OWN)
    }
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a query's memory: {} of {} bytes", self.used.load(Ordering::Relaxed), self.most)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        let before = self.used.fetch_add(additional, Ordering::Relaxed);
        let more = Self::beyond(before + additional) - Self::beyond(before);
        self.shared.taken.fetch_add(more, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        let before = self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.shared.give_back(Self::beyond(before) - Self::beyond(before - shrink));
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let room = |used: usize| Some(used + additional).filter(|used| *used <= self.most);
        let before = match self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(before) => before,
            Err(used) => {
                let (name, most) = (reservation.consumer().name(), self.most);
                return resources_err!("{additional} bytes more for {name}, with {used} of {most} taken");
            }
        };
        let more = Self::beyond(before + additional) - Self::beyond(before);
        self.shared.take(more, TOGETHER * self.most).inspect_err(|_| {
            self.used.fetch_sub(additional, Ordering::Relaxed);
        })
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::memory_pool::MemoryConsumer;

    const MIB: usize = 1 << 20;

    #[test]
    fn queries_share_twice_what_one_may_take_and_small_ones_always_run() {
        let shared = Arc::<Shared>::default();
        let query = || -> Arc<dyn MemoryPool> { Arc::new(QueryPool::new(100 * MIB, Arc::clone(&shared))) };
        let (one, other, third) = (query(), query(), query());
        let held = |pool: &Arc<dyn MemoryPool>| MemoryConsumer::new("test").register(pool);
        let (first, second, last) = (held(&one), held(&other), held(&third));
        assert!(first.try_grow(101 * MIB).is_err_and(|error| !error.to_string().contains(OTHERS)));
        first.try_grow(100 * MIB).expect("alone it may take all of its own");
        second.try_grow(100 * MIB).expect("so may another");
        let refused = last.try_grow(20 * MIB).expect_err("two queries take all of the shared memory");
        assert!(refused.to_string().contains(OTHERS), "{refused}");
        last.try_grow(4 * MIB).expect("what is small is its own");
        drop(first);
        last.try_grow(20 * MIB).expect("the first has given back");
        let body = shared.hold(190 * MIB);
        assert!(last.try_grow(20 * MIB).is_err());
        drop((body, second, last));
        assert_eq!(shared.taken.load(Ordering::Relaxed), 0);
    }
}
