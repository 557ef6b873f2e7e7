//! Threads of queries alone: one that computes for long never keeps others, or its own time limit, from their turn.

use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use tokio::task::{JoinError, JoinHandle};

static QUERIES: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().thread_name("query").thread_stack_size(bifold_fold::STACK);
    builder.build().expect("threads can be started")
});

/// Runs work to its end, even if nobody waits for it any more: what it reads is kept for who asks next.
pub(crate) async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    QUERIES.spawn(work).await
}

/// Runs work as long as somebody waits for it.
pub(crate) fn while_awaited<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> WhileAwaited<T> {
    WhileAwaited(QUERIES.spawn(work))
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
