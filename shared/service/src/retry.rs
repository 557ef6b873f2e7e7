//! How services try again: at start within a limit, later for ever.

use std::time::{Duration, Instant};

/// Growing pauses between tries: 100 ms to 5 s.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: Duration::from_millis(100) }
    }
}

impl Backoff {
    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (self.next * 2).min(Duration::from_secs(5));
        pause
    }
}

/// How long a service waits for what it needs at start.
#[derive(Clone, Copy, Debug)]
pub struct StartLimit {
    until: Option<Instant>,
}

impl StartLimit {
    /// From now on; none: for ever.
    pub fn new(timeout: Option<Duration>) -> Self {
        Self { until: timeout.map(|timeout| Instant::now() + timeout) }
    }

    /// Whether the time is over.
    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}
