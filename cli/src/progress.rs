//! What a terminal shows of work that takes a while.

use std::io::IsTerminal;
use std::time::Duration;

use bifold_batch::progress::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often it is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Of work whose size is known.
const BAR: &str = "{msg} [{wide_bar:.cyan/blue}] {human_pos} of {human_len} rows, {per_sec}, {eta} left";
/// Of work whose size is not.
const SPINNER: &str = "{spinner} {msg} {human_pos} rows, {per_sec}";

/// Whether somebody watches: both outputs are terminals.
pub(crate) fn watched() -> bool {
    std::io::stderr().is_terminal() && std::io::stdout().is_terminal()
}

/// A bar on the terminal, or none where nobody watches.
pub(crate) fn bar(template: &str) -> ProgressBar {
    let target = if watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    bar.set_style(style(template));
    bar
}

pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is written here").progress_chars("█▌ ")
}

/// Shows how far `work` comes, until it ends.
pub(crate) async fn shown<T>(progress: &Progress, work: impl Future<Output = T>) -> T {
    if !watched() {
        return work.await;
    }
    let bar = bar(SPINNER);
    tokio::pin!(work);
    let mut ticks = tokio::time::interval(DRAW_EVERY);
    let mut shown = String::new();
    let done = loop {
        tokio::select! {
            done = &mut work => break done,
            _ = ticks.tick() => {
                let reached = progress.reached();
                if reached.what != shown {
                    bar.reset();
                    bar.set_style(style(if reached.of > 0 { BAR } else { SPINNER }));
                    bar.set_message(reached.what.clone());
                    shown.clone_from(&reached.what);
                }
                if reached.of > 0 {
                    bar.set_length(reached.of.max(reached.rows));
                }
                bar.set_position(reached.rows);
                bar.tick();
            }
        }
    };
    bar.finish_and_clear();
    done
}
