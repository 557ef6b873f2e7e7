//! A running service: its threads and tasks, its readiness, its end.

use std::collections::BTreeSet;
use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use bifold_service::{Readiness, Shutdown};
use futures::FutureExt;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::exit::Exit;
use crate::output;

/// How long a service may take to end.
const END_WITHIN: Duration = Duration::from_secs(28);

/// How long open requests may take after everything else has ended.
const HTTP_WITHIN: Duration = Duration::from_secs(2);

/// A component's name, and how it ended.
type Ended = (String, Result<(), Exit>);

/// A running service.
pub(crate) struct Role {
    pub(crate) name: &'static str,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    address: SocketAddr,
    announce: bool,
    /// How long requests are still taken after the signal to end.
    pub(crate) drain: Duration,
    /// How components tell that they have ended; each sends once.
    ended: (mpsc::UnboundedSender<Ended>, mpsc::UnboundedReceiver<Ended>),
    running: BTreeSet<String>,
}

impl Role {
    pub(crate) fn new(name: &'static str, address: SocketAddr, announce: bool) -> Self {
        Self {
            name,
            readiness: Readiness::default(),
            shutdown: Shutdown::new(),
            address,
            announce,
            drain: Duration::ZERO,
            ended: mpsc::unbounded_channel(),
            running: BTreeSet::new(),
        }
    }

    /// The address that it serves.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts a component that blocks, on a thread of its own.
    pub(crate) fn thread(
        &mut self,
        name: String,
        work: impl FnOnce(Handle, Shutdown) -> Result<(), Exit> + Send + 'static,
    ) -> Result<(), Exit> {
        let (runtime, shutdown, ended) = (Handle::current(), self.shutdown.clone(), self.ended.0.clone());
        self.running.insert(name.clone());
        let builder = std::thread::Builder::new().name(name.clone()).stack_size(bifold_fold::STACK);
        let started = builder.spawn(move || {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(runtime, shutdown)));
            let done = done.unwrap_or_else(|_| Err(Exit::Failed(format!("{name} panicked; this is a bug of bifold"))));
            // The receiver lives as long as the service.
            let _ = ended.send((name, done));
        });
        started.map(|_| ()).map_err(|e| Exit::Failed(format!("cannot start a thread: {e}")))
    }

    /// Starts a component that does not block.
    pub(crate) fn watch(&mut self, name: &str, work: impl Future<Output = Result<(), Exit>> + Send + 'static) {
        let (name, ended) = (name.to_string(), self.ended.0.clone());
        self.running.insert(name.clone());
        tokio::spawn(async move {
            let done = std::panic::AssertUnwindSafe(work).catch_unwind().await;
            let done = done.unwrap_or_else(|_| Err(Exit::Failed(format!("{name} panicked; this is a bug of bifold"))));
            let _ = ended.send((name, done));
        });
    }

    /// Serves `routes`. Requests are answered until the other components have ended.
    pub(crate) fn serve(&mut self, listener: TcpListener, routes: axum::Router) {
        let shutdown = self.shutdown.clone();
        self.watch(
            "http",
            async move { bifold_service::serve(listener, routes, shutdown).await.map_err(Exit::failed) },
        );
    }

    /// Waits until the service is ready, or a component has failed, or a signal came.
    pub(crate) async fn wait_ready(&mut self, signals: &mut Signals) -> Result<bool, Exit> {
        loop {
            if self.readiness.is_ready() {
                return Ok(true);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
                Some((name, done)) = self.ended.1.recv() => self.note_end(name, done)?,
                () = signals.next() => return Ok(false),
            }
        }
    }

    /// Prints the ready line, waits for a signal, and ends.
    pub(crate) async fn run_to_end(&mut self) -> Result<(), Exit> {
        // One for all waits: none is missed between two of them.
        let mut signals = Signals::new()?;
        let ready = self.wait_ready(&mut signals).await;
        match ready {
            Ok(true) => {
                if self.announce {
                    self.say_ready()?;
                }
                let failed = self.wait_signal(&mut signals).await;
                let drained = if failed.is_ok() { self.drain(&mut signals).await } else { Ok(()) };
                let ended = self.end().await;
                failed.and(drained).and(ended)
            }
            Ok(false) => self.end().await,
            Err(failure) => {
                // The failure is what is told; how the others end no longer matters.
                let _ = self.end().await;
                Err(failure)
            }
        }
    }

    /// Goes on answering for a while, not ready any more, so that those who balance load can turn away. A second signal ends it.
    async fn drain(&mut self, signals: &mut Signals) -> Result<(), Exit> {
        if self.drain.is_zero() {
            return Ok(());
        }
        self.readiness.component("process").waiting("it was told to end");
        tokio::select! {
            () = tokio::time::sleep(self.drain) => Ok(()),
            () = signals.next() => Ok(()),
            Some((name, done)) = self.ended.1.recv() => self.note_end(name, done),
        }
    }

    fn say_ready(&self) -> Result<(), Exit> {
        match std::io::stdout().is_terminal() {
            true => output::line(&format!("bifold {} is ready at {}", self.name, self.url())),
            false => output::line(&json!({ "event": "ready", "role": self.name, "url": self.url() }).to_string()),
        }
    }

    async fn wait_signal(&mut self, signals: &mut Signals) -> Result<(), Exit> {
        loop {
            tokio::select! {
                () = signals.next() => return Ok(()),
                Some((name, done)) = self.ended.1.recv() => self.note_end(name, done)?,
            }
        }
    }

    /// Tells every component to end and waits for them.
    pub(crate) async fn end(&mut self) -> Result<(), Exit> {
        tracing::info!(role = self.name, "ending");
        self.shutdown.cancel();
        let mut failed = Ok(());
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        let mut deadline_of_http = None;
        while !self.running.is_empty() {
            // Requests that still wait when everything else has ended are not waited for long.
            let only_http = self.running.iter().all(|name| name == "http");
            let now = tokio::time::Instant::now();
            if only_http && now >= *deadline_of_http.get_or_insert(now + HTTP_WITHIN) {
                break;
            }
            let deadline = if only_http { deadline_of_http.unwrap_or(deadline) } else { deadline };
            match tokio::time::timeout_at(deadline, self.ended.1.recv()).await {
                Ok(Some((name, done))) => {
                    self.running.remove(&name);
                    failed = failed.and(done);
                }
                Ok(None) => break,
                Err(_) if only_http => break,
                Err(_) => {
                    let pending: Vec<_> = self.running.iter().cloned().collect();
                    return Err(Exit::Failed(format!("these did not end in time: {}", pending.join(", "))));
                }
            }
        }
        failed
    }

    fn note_end(&mut self, name: String, done: Result<(), Exit>) -> Result<(), Exit> {
        self.running.remove(&name);
        done
    }
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn new() -> Result<Self, Exit> {
        use tokio::signal::unix::{SignalKind, signal};
        let on = |kind| signal(kind).map_err(|e| Exit::Failed(format!("cannot wait for signals: {e}")));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
