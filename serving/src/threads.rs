//! Threads of queries alone: one that computes for long never keeps others, or its own time limit, from their turn.
//!
//! Work that is planned or computed cannot be interrupted; it can be left alone. Planning has threads of its own, of which each query
//! takes one. What is executed gives way between batches; where it does not, and so keeps every worker, more workers are started.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinHandle};

/// How many queries are planned at once, those whose clients are gone included.
const PLANNED_AT_ONCE: usize = 64;
/// How often it is asked whether the workers make progress.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long they may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Sets of workers at most. Where the last one stands still, too, the process is not well.
const MOST_POOLS: usize = 4;

static POOLS: LazyLock<Mutex<Vec<Runtime>>> = LazyLock::new(|| {
    std::thread::Builder::new().name("query watch".to_string()).spawn(watch).expect("a thread can be started");
    Mutex::new(vec![pool()])
});
static STUCK: AtomicBool = AtomicBool::new(false);
static PLANNING: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(PLANNED_AT_ONCE)));

fn pool() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("query").thread_stack_size(bifold_fold::STACK);
    builder.build().expect("threads can be started")
}

/// The workers that were started last.
fn workers() -> Handle {
    let pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    pools.last().expect("there is one from the start").handle().clone()
}

/// Starts more workers where those there are make no progress.
fn watch() {
    loop {
        std::thread::sleep(ASK_EVERY);
        let (sender, receiver) = std::sync::mpsc::channel();
        let asked = Instant::now();
        workers().spawn(async move { sender.send(()) });
        if receiver.recv_timeout(PATIENCE).is_ok() {
            STUCK.store(false, Ordering::Relaxed);
            continue;
        }
        let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.len() < MOST_POOLS {
            tracing::warn!(after = ?asked.elapsed(), pools = pools.len(), "queries keep all of their threads; starting more");
            pools.push(pool());
        } else {
            STUCK.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether queries keep all threads that may be started.
pub fn are_stuck() -> bool {
    STUCK.load(Ordering::Relaxed)
}

/// Runs work that cannot be interrupted on a thread of its own. Dropped, it goes on there, and nobody waits for it.
pub(crate) async fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, JoinError> {
    let permit = Arc::clone(&PLANNING).acquire_owned().await.expect("it is never closed");
    let workers = workers();
    let run = workers.clone();
    workers
        .spawn_blocking(move || {
            let _permit = permit;
            run.block_on(work)
        })
        .await
}

/// Runs work to its end, even if nobody waits for it any more: what it reads is kept for who asks next.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    workers().spawn(work).await
}

/// Runs work as long as somebody waits for it.
pub(crate) fn while_awaited<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> WhileAwaited<T> {
    WhileAwaited(workers().spawn(work))
}

/// Work that is stopped when this is dropped: at its deadline, or when the client is gone.
#[derive(Debug)]
pub(crate) struct WhileAwaited<T>(JoinHandle<T>);

impl<T> Future for WhileAwaited<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for WhileAwaited<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
