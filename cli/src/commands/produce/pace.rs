//! How fast records go, and what a terminal shows of it.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::progress::{bar, style};

/// Of files whose size is known: the bar's length is their bytes.
const BAR: &str = "{msg} [{wide_bar:.cyan/blue}] {percent} %, {eta} left";
/// Of anything else.
const SPINNER: &str = "{spinner} {msg}";

/// The pace of a run.
pub(super) struct Pace {
    /// Records a second; none: as fast as they go.
    rate: Option<f64>,
    started: Instant,
    sent: u64,
    bar: ProgressBar,
}

impl Pace {
    pub(super) fn new(rate: Option<f64>) -> Self {
        Self { rate, started: Instant::now(), sent: 0, bar: bar(SPINNER) }
    }

    /// How many records to send at once, of at most `most`: about a tenth of a second's.
    pub(super) fn batch(&self, most: usize) -> usize {
        self.rate.map_or(most, |rate| ((rate / 10.0).ceil() as usize).clamp(1, most))
    }

    /// Waits until more may be sent after these, and draws. `part`: bytes read of all bytes, where that is known.
    pub(super) async fn sent(&mut self, records: usize, part: Option<(u64, u64)>) {
        self.sent += records as u64;
        self.draw(part);
        if let Some(rate) = self.rate {
            let due = self.started + Duration::from_secs_f64(self.sent as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
        }
    }

    fn draw(&mut self, part: Option<(u64, u64)>) {
        if let Some((read, all)) = part {
            if self.bar.length().is_none() {
                self.bar.set_style(style(BAR));
                self.bar.set_length(all);
            }
            self.bar.set_position(read.min(all));
        }
        let rate = self.sent as f64 / self.started.elapsed().as_secs_f64().max(0.001);
        self.bar.set_message(format!("{} records, {rate:.0}/s", self.sent));
        self.bar.tick();
    }

    /// Leaves the terminal's line.
    pub(super) fn end(&self) {
        self.bar.finish();
    }
}
