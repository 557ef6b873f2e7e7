//! What batch runs did: one small object a run, kept beside the ledger. The newest [`KEPT`] are kept.
//!
//! They decide nothing but when a schedule's next run is due: a missed run is made up once.

use std::time::Duration;

use bifold_ledger::Mode;
use bifold_store::SourceFiles;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{Error, Report};

/// How many runs are kept.
pub const KEPT: usize = 100;

/// What started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trigger {
    /// The schedule.
    Schedule,
    /// A version of a view that waited to be built.
    Version,
    /// `bifold batch run`.
    Command,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// Batch views were published.
    Published,
    /// There was nothing new to publish.
    Nothing,
    /// It failed; what was published before stands.
    Failed,
}

/// A run of one source.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// The source.
    pub source: String,
    /// When it started.
    pub started: DateTime<Utc>,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// What started it.
    pub trigger: Trigger,
    /// How it ended.
    pub outcome: Outcome,
    /// What went wrong.
    #[serde(default)]
    pub error: Option<String>,
    /// What it did for each view.
    #[serde(default)]
    pub views: Vec<Report>,
}

impl Run {
    /// The record of a run that has just ended.
    pub fn ended(
        source: &str,
        (started, took): (DateTime<Utc>, Duration),
        trigger: Trigger,
        done: &Result<Vec<Report>, Error>,
    ) -> Self {
        let (outcome, error, views) = match done {
            Ok(views) if views.iter().any(|view| view.mode != Mode::None) => (Outcome::Published, None, views.clone()),
            Ok(views) => (Outcome::Nothing, None, views.clone()),
            Err(error @ Error::Views { published, .. }) => {
                (Outcome::Failed, Some(error.to_string()), published.clone())
            }
            Err(error) => (Outcome::Failed, Some(error.to_string()), vec![]),
        };
        let elapsed_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { source: source.to_string(), started, elapsed_ms, trigger, outcome, error, views }
    }

    /// Keeps the record, and forgets the oldest beyond [`KEPT`].
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn keep(&self, files: &SourceFiles) -> Result<(), Error> {
        let name = format!("{:020}", self.started.timestamp_micros());
        let bytes = serde_json::to_vec_pretty(self).expect("a run is JSON");
        files.put_note(&files.layout.batch_run(&name), bytes.into()).await?;
        let names = files.notes(&files.layout.batch_runs()).await?;
        // A clock that was ahead may have named some: they would be the newest for ever.
        let ahead =
            files.layout.batch_run(&format!("{:020}", (self.started + chrono::TimeDelta::days(1)).timestamp_micros()));
        let (wrong, right): (Vec<_>, Vec<_>) = names.iter().partition(|name| **name > ahead);
        for old in wrong.into_iter().chain(right).take(names.len().saturating_sub(KEPT)) {
            files.forget_note(old).await?;
        }
        Ok(())
    }
}

/// The runs that are kept, oldest first. What another version of bifold wrote and this one cannot read is left out.
///
/// # Errors
/// The store is unavailable.
pub async fn runs(files: &SourceFiles) -> Result<Vec<Run>, Error> {
    let mut runs = vec![];
    for path in files.notes(&files.layout.batch_runs()).await? {
        // Another process may have forgotten it meanwhile.
        let Some(bytes) = files.note(&path).await? else { continue };
        match serde_json::from_slice(&bytes) {
            Ok(run) => runs.push(run),
            Err(error) => tracing::warn!(%path, %error, "a batch run's record cannot be read"),
        }
    }
    Ok(runs)
}
