//! How fast records go, and what a terminal shows of it.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often the terminal's line is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// The pace of a run.
pub(super) struct Pace {
    /// Records a second; none: as fast as they go.
    rate: Option<f64>,
    started: Instant,
    sent: u64,
    drawn: Option<Instant>,
    shown: bool,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>) -> Self {
        let shown = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        Self { rate, started: Instant::now(), sent: 0, drawn: None, shown }
    }

    /// How many records to send at once, of at most `most`: about a tenth of a second's.
    pub(super) fn batch(&self, most: usize) -> usize {
        self.rate.map_or(most, |rate| ((rate / 10.0).ceil() as usize).clamp(1, most))
    }

    /// Waits until more may be sent after these, and draws. `part`: how much of all that is known has been read.
    pub(super) async fn sent(&mut self, records: usize, part: Option<f64>) {
        self.sent += records as u64;
        self.draw(part);
        if let Some(rate) = self.rate {
            let due = self.started + Duration::from_secs_f64(self.sent as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn draw(&mut self, part: Option<f64>) {
        if !self.shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_EVERY) {
            return;
        }
        self.drawn = Some(Instant::now());
        let seconds = self.started.elapsed().as_secs_f64();
        let left = part.filter(|part| *part > 0.01).map(|part| {
            let part = part.min(1.0);
            format!(", {:.0} %, {:.0} s left", part * 100.0, seconds / part - seconds)
        });
        let rate = self.sent as f64 / seconds.max(0.001);
        eprint!("\r{} records, {rate:.0}/s{}\x1b[K", self.sent, left.unwrap_or_default());
        let _ = std::io::stderr().flush();
    }

    /// Leaves the terminal's line.
    pub(super) fn end(&self) {
        if self.drawn.is_some() {
            eprintln!();
        }
    }
}
