//! When batch runs start by themselves: at an interval, by a cron expression (UTC), and at once where a new version of a
//! view waits to be built. Runs of one source never overlap.

use std::str::FromStr;
use std::time::{Duration, Instant};

use bifold_config::Schedule;
use bifold_service::Shutdown;
use bifold_store::Journal;
use chrono::{DateTime, Utc};
use croner::Cron;

use crate::recompute::{Recompute, Request};
use crate::runs::{Trigger, runs};

/// How often the ledger is asked whether a version waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after a run a version that waits starts none.
const REST: Duration = Duration::from_secs(2);

/// A cron expression that is none.
#[derive(Debug, thiserror::Error)]
#[error("batch.schedule = {text:?} is no cron expression: {why}")]
pub struct NoCron {
    text: String,
    why: String,
}

/// Checks a schedule.
///
/// # Errors
/// A cron expression that is none.
pub fn check(schedule: &Schedule) -> Result<(), NoCron> {
    if let Schedule::Cron(text) = schedule {
        Cron::from_str(text).map_err(|e| NoCron { text: text.clone(), why: e.to_string() })?;
    }
    Ok(())
}

/// When the run after `last` is due.
fn next_due(schedule: &Schedule, last: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match schedule {
        Schedule::Off => None,
        Schedule::Every(every) => last.checked_add_signed(chrono::Duration::from_std(*every).ok()?),
        Schedule::Cron(text) => Cron::from_str(text).ok()?.find_next_occurrence(&last, false).ok(),
    }
}

/// What is due by a clock that says `now`: never later than if the last run had been now. A clock that was ahead may have said so.
fn due_at(schedule: &Schedule, due: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    [due, next_due(schedule, now)].into_iter().flatten().min()
}

/// When the first run after a start is due: a run that was missed meanwhile is made up once, at once.
async fn first_due(recompute: &Recompute, schedule: &Schedule) -> Option<DateTime<Utc>> {
    let last = match runs(&recompute.files).await {
        Ok(runs) => runs.iter().rfind(|run| run.trigger == Trigger::Schedule).map(|run| run.started),
        Err(error) => {
            tracing::debug!(%error, "the records of batch runs cannot be read");
            None
        }
    };
    next_due(schedule, last.unwrap_or_else(Utc::now))
}

/// Runs `recompute` by `schedule` until `shutdown`. A failed run is logged and tried again when the next is due.
pub async fn run(recompute: Recompute, schedule: Schedule, shutdown: Shutdown) {
    let mut due = first_due(&recompute, &schedule).await;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // A version that could not be built is not tried again every second.
    let mut rest = Instant::now();
    let mut journal = None;
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let now = Utc::now();
        due = due_at(&schedule, due, now);
        let waiting = Instant::now() >= rest && version_waits(&recompute, &mut journal).await;
        let is_due = due.is_some_and(|due| now >= due);
        if !waiting && !is_due {
            continue;
        }
        let trigger = if is_due { Trigger::Schedule } else { Trigger::Version };
        let request = Request { timeout: Duration::ZERO, ..Request::default() };
        tokio::select! {
            done = recompute.run(&request, trigger) => match done {
                Ok(reports) => {
                    for report in reports.iter().filter(|report| report.mode != bifold_ledger::Mode::None) {
                        tracing::info!(view = report.view, mode = ?report.mode, boundary = report.boundary,
                            rows_read = report.rows_read, groups = report.groups, elapsed_ms = report.elapsed_ms,
                            "batch view published");
                    }
                }
                Err(error) => tracing::warn!(source = recompute.source.name, %error, "a batch run failed"),
            },
            () = shutdown.cancelled() => return,
        }
        if is_due {
            due = next_due(&schedule, now);
        }
        rest = Instant::now() + REST;
    }
}

/// Whether a version waits that a run could declare or build now. The ledger is opened once and then only read on.
async fn version_waits(recompute: &Recompute, journal: &mut Option<Journal>) -> bool {
    let read = match &mut *journal {
        Some(journal) => journal.refresh().await,
        none => match Journal::open(recompute.files.clone(), "batch").await {
            Ok(opened) => Ok(none.insert(opened).ledger()),
            Err(error) => Err(error),
        },
    };
    match read {
        Ok(ledger) => {
            let boundary = recompute.next_boundary(&ledger);
            recompute.has_to_declare(&ledger)
                || ledger.building().any(|(_, version)| boundary.reaches(&version.declared_at))
        }
        Err(error) => {
            tracing::debug!(%error, "the ledger cannot be read; looking again");
            *journal = None;
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_clock_that_was_ahead_does_not_keep_the_next_run_away() {
        let now = time("2026-01-01T12:00:00Z");
        let ahead = Some(time("2026-01-01T17:00:00Z"));
        let every = Schedule::Every(Duration::from_secs(900));
        assert_eq!(due_at(&every, ahead, now), Some(time("2026-01-01T12:15:00Z")));
        let hourly = Schedule::Cron("0 * * * *".to_string());
        assert_eq!(due_at(&hourly, ahead, now), Some(time("2026-01-01T13:00:00Z")));
        assert_eq!(due_at(&Schedule::Off, None, now), None);
        // What is due stays due, and what is due sooner comes sooner.
        for due in ["2026-01-01T11:00:00Z", "2026-01-01T12:10:00Z"] {
            assert_eq!(due_at(&every, Some(time(due)), now), Some(time(due)));
        }
    }
}
