//! Connections: how many there are at most, and how long each may keep others waiting.
//!
//! A connection waits for a request, receives it, is worked for, or sends its answer. Who only waits or receives can be closed without
//! loss, so when there are as many connections as there may be, the one that has done so for longest makes room for the next.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

use crate::Shutdown;

/// How long a connection may be without a request, take to send the head of one, send nothing of its body, or take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer that it has to take in that time.
const LEAST_TAKEN: u64 = 64 << 10;
/// The most connections, however many descriptors the process may have.
const MOST: u64 = 10_000;
/// How long a connection stays in any case: what it sent may be on its way.
const GRACE: Duration = Duration::from_millis(200);
/// How long nothing is accepted after the system refused to.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `routes` until `shutdown`, then lets open requests end.
///
/// # Errors
/// None yet: the listener is tried again.
pub async fn serve(listener: TcpListener, routes: Router, shutdown: Shutdown) -> io::Result<()> {
    serve_at_most((most_connections(), PATIENCE), listener, routes, shutdown).await
}

/// Half of the descriptors that the process may have: the others are the log's, the store's and the scratch files'.
fn most_connections() -> usize {
    let soft = rlimit::Resource::NOFILE.get_soft().unwrap_or(1_024);
    (soft / 2).clamp(8, MOST) as usize
}

async fn serve_at_most(
    (most, patience): (usize, Duration),
    listener: TcpListener,
    routes: Router,
    shutdown: Shutdown,
) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(most));
    let open = Open::default();
    let mut running = JoinSet::new();
    loop {
        // Who comes first takes the place that is free; for the one after it, one is made.
        let permit = tokio::select! {
            permit = open.room(&room) => permit,
            () = shutdown.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        while running.try_join_next().is_some() {}
        match accepted {
            Ok((stream, _)) => {
                let connection = open.add(permit);
                running.spawn(serve_one(stream, patience, routes.clone(), connection, shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                open.close_oldest();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while running.join_next().await.is_some() {}
    Ok(())
}

async fn serve_one(stream: TcpStream, patience: Duration, routes: Router, connection: Connection, shutdown: Shutdown) {
    // An answer goes out when it is there.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Taking { stream, patience, since: None, taken: 0 });
    let state = connection.state.clone();
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (mut routes, state) = (routes.clone(), state.clone());
        state.set(if request.body().is_end_stream() { Doing::Working } else { Doing::Receiving });
        let request = request.map(|body| Body::new(Received { body, patience, state: state.clone(), waiting: None }));
        async move {
            let answered = routes.call(request).await;
            state.set(Doing::Working);
            answered.map(|answer: Response<Body>| answer.map(|body| Body::new(Sent { body, state })))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(patience);
    let mut served = std::pin::pin!(builder.serve_connection(io, service));
    tokio::select! {
        done = served.as_mut() => return note(done),
        () = connection.close.cancelled() => {}
        () = shutdown.cancelled() => {}
    }
    // Its request may have come just now.
    if connection.state.is_worked_for() {
        served.as_mut().graceful_shutdown();
        note(served.await);
    }
}

fn note(done: Result<(), hyper::Error>) {
    if let Err(error) = done {
        tracing::debug!(%error, "a connection ended");
    }
}

/// The connections that are open.
#[derive(Clone, Default)]
struct Open {
    connections: Arc<Mutex<BTreeMap<u64, (State, CancellationToken)>>>,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (State, CancellationToken)>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more. If there is none, the connection that is worked for least is closed; while all are worked for, it waits.
    async fn room(&self, room: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        loop {
            if room.available_permits() == 0 {
                self.close_oldest();
            }
            let permit = tokio::time::timeout(PAUSE, Arc::clone(room).acquire_owned()).await;
            if let Ok(Ok(permit)) = permit {
                return permit;
            }
        }
    }

    fn add(&self, permit: OwnedSemaphorePermit) -> Connection {
        let (state, close) = (State::new(), CancellationToken::new());
        let mut open = self.lock();
        let id = open.last_key_value().map_or(0, |(id, _)| id + 1);
        open.insert(id, (state.clone(), close.clone()));
        Connection { id, state, close, open: self.clone(), _permit: permit }
    }

    fn close_oldest(&self) {
        let open = self.lock();
        let waiting = open.values().filter(|(state, close)| {
            !state.is_worked_for() && !close.is_cancelled() && state.since().elapsed() >= GRACE
        });
        if let Some((_, close)) = waiting.min_by_key(|(state, _)| state.since()) {
            close.cancel();
        }
    }
}

/// A connection's place among those that are open.
struct Connection {
    id: u64,
    state: State,
    close: CancellationToken,
    open: Open,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.lock().remove(&self.id);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    Waiting,
    Receiving,
    /// Its request is here; its answer is made or sent.
    Working,
}

/// What a connection does, and since when.
#[derive(Clone)]
struct State(Arc<Mutex<(Doing, Instant)>>);

impl State {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((Doing::Waiting, Instant::now()))))
    }

    fn get(&self) -> (Doing, Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, doing: Doing) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (doing, Instant::now());
    }

    fn since(&self) -> Instant {
        self.get().1
    }

    fn is_worked_for(&self) -> bool {
        self.get().0 == Doing::Working
    }
}

/// A request's body, which fails if nothing of it comes for a while.
struct Received {
    body: hyper::body::Incoming,
    patience: Duration,
    state: State,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl HttpBody for Received {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.waiting = None;
                if frame.is_none() || self.body.is_end_stream() {
                    self.state.set(Doing::Working);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)))
            }
            Poll::Pending => {
                let patience = self.patience;
                let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                std::task::ready!(waiting.as_mut().poll(cx));
                let why = format!("nothing of the request's body came for {} s", patience.as_secs());
                Poll::Ready(Some(Err(axum::Error::new(io::Error::new(io::ErrorKind::TimedOut, why)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body, with whose end the connection waits again.
struct Sent {
    body: Body,
    state: State,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.state.set(Doing::Waiting);
    }
}

/// A stream that fails if it takes too little of what is written for a while.
struct Taking {
    stream: TcpStream,
    patience: Duration,
    /// Since when it has taken less than it has to, while it takes nothing.
    since: Option<Pin<Box<Sleep>>>,
    taken: u64,
}

impl Taking {
    fn judge(&mut self, cx: &mut Context<'_>, asked: usize, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match done {
            Poll::Ready(Ok(bytes)) => {
                self.taken += bytes as u64;
                if bytes == asked || self.taken >= LEAST_TAKEN {
                    (self.since, self.taken) = (None, 0);
                }
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(error) => Poll::Ready(error),
            Poll::Pending => {
                let patience = self.patience;
                let since = self.since.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                std::task::ready!(since.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too little of its answer")))
            }
        }
    }
}

impl AsyncRead for Taking {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Taking {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, bytes.len(), done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.judge(cx, bytes.iter().map(|part| part.len()).sum(), done)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const SHORT: Duration = Duration::from_millis(400);

    async fn service(most: usize) -> (std::net::SocketAddr, Shutdown) {
        let slow = || async {
            tokio::time::sleep(4 * SHORT).await;
            "late"
        };
        let large = || async { vec![b'x'; 64 << 20] };
        let routes = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/slow", get(slow))
            .route("/large", get(large))
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let (address, shutdown) = (listener.local_addr().expect("it is bound"), Shutdown::new());
        tokio::spawn(serve_at_most((most, SHORT), listener, routes, shutdown.clone()));
        (address, shutdown)
    }

    async fn send(address: std::net::SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(text.as_bytes()).await.expect("it is taken");
        stream
    }

    /// What comes until the connection ends.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = vec![];
        let _ = tokio::time::timeout(20 * SHORT, stream.read_to_end(&mut text)).await.expect("it ends");
        String::from_utf8_lossy(&text).into_owned()
    }

    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        rest(send(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await).await
    }

    #[tokio::test]
    async fn connections_that_only_wait_keep_nobody_out() {
        let (address, _shutdown) = service(8).await;
        let mut held = vec![];
        for i in 0..100 {
            // Without a word, with half a head, with half a body.
            let text =
                ["", "GET / HTTP/1.1\r\nHos", "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"]
                    [i % 3];
            held.push(TcpStream::connect(address).await.expect("it listens"));
            let _ = held[i].write_all(text.as_bytes()).await;
            if i % 10 == 0 {
                assert!(ask(address, "/").await.ends_with("here"), "with {i} others");
            }
        }
        assert!(ask(address, "/").await.ends_with("here"));
    }

    #[tokio::test]
    async fn one_that_is_worked_for_is_never_closed_for_others() {
        let (address, _shutdown) = service(3).await;
        let slow = tokio::spawn(async move { ask(address, "/slow").await });
        for _ in 0..20 {
            assert!(ask(address, "/").await.ends_with("here"));
        }
        assert!(slow.await.expect("it ends").ends_with("late"));
    }

    #[tokio::test]
    async fn who_keeps_it_waiting_is_closed() {
        let (address, _shutdown) = service(100).await;
        let begun = Instant::now();
        assert_eq!(rest(send(address, "").await).await, "");
        assert_eq!(rest(send(address, "GET / HTTP/1.1\r\nHos").await).await, "");
        let half = "POST /length HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc";
        let answer = rest(send(address, half).await).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        assert!(begun.elapsed() >= 3 * SHORT / 2);
        // Between two requests, too.
        let kept = rest(send(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
        assert!(kept.ends_with("here"), "{kept}");
        // An answer that is not taken.
        let stream = send(address, "GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await;
        tokio::time::sleep(4 * SHORT).await;
        assert!(rest(stream).await.len() < 64 << 20);
    }

    #[tokio::test]
    async fn a_body_that_comes_slowly_is_taken_and_answers_end_before_the_service() {
        let (address, shutdown) = service(2).await;
        let mut slow =
            send(address, "POST /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n").await;
        for byte in b"123456789" {
            tokio::time::sleep(SHORT / 4).await;
            slow.write_all(&[*byte]).await.expect("it is taken");
        }
        assert!(rest(slow).await.ends_with("\r\n\r\n9"));
        let last = send(address, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let idle = send(address, "").await;
        tokio::time::sleep(SHORT / 4).await;
        shutdown.cancel();
        assert_eq!(rest(idle).await, "");
        let last = rest(last).await;
        assert!(last.ends_with("late"), "{last:?}");
        assert!(TcpStream::connect(address).await.is_err());
    }
}
