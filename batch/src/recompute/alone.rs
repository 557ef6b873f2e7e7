//! Batch runs where no speed layer folds: they read the archive as far as it goes, and declare the pipeline's versions.

use bifold_ledger::{Ledger, Offsets};
use bifold_store::{Journal, Kind};
use chrono::{DateTime, Utc};

use super::Recompute;
use crate::Error;

impl Recompute {
    /// Up to where a run may build now: with the fold, or, where the fold stands still or is far behind, as far as the archive goes.
    pub(crate) fn next_boundary(&self, ledger: &Ledger) -> Offsets {
        ledger.next_boundary(if self.fold_stands(ledger) { 0 } else { self.leap })
    }

    /// Whether nobody folds, as far as the ledger tells: no speed instance ever wrote to it, or none for
    /// [`leap_after`](Self::leap_after). Whether the archive has more than was folded, the boundary says.
    fn fold_stands(&self, ledger: &Ledger) -> bool {
        let Some(at) = &ledger.speed_at else { return ledger.folded.is_empty() };
        let Ok(at) = DateTime::parse_from_rfc3339(at) else { return false };
        Utc::now().signed_duration_since(at).to_std().is_ok_and(|since| since >= self.leap_after)
    }

    /// Whether a run has something to declare, and to build it from: a speed layer that starts beside it declares at once.
    pub(crate) fn has_to_declare(&self, ledger: &Ledger) -> bool {
        let next = |readings: &bifold_fold::view::Readings| readings.next_entry(ledger, false);
        !ledger.archive.is_empty()
            && self.fold_stands(ledger)
            && self.views.iter().any(|view| matches!(next(view), Ok(Some(_))))
    }

    /// Declares the pipeline's versions that the ledger does not have, where nobody folds. Else the speed layer does, with its pipeline.
    pub(super) async fn declare(&self, journal: &mut Journal) -> Result<(), Error> {
        for readings in &self.views {
            while self.fold_stands(&journal.ledger()) {
                let Some((view, _, body)) = readings.next_entry(&journal.ledger(), false)? else { break };
                let ledger = journal.ledger();
                if ledger.quarantine_in_force().is_some() && view.source.dedup.is_some() {
                    tracing::warn!(view = view.name, "not declared: a source with dedup has a quarantine in force");
                    break;
                }
                match journal.append(body).await {
                    Ok(_) => tracing::info!(view = view.name, version = %view.version, "declared, for nobody folds it"),
                    Err(error) if error.kind() == Kind::Refused => drop(journal.refresh().await?),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}
