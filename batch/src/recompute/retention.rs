//! What goes by event time: from which time on a view holds groups, and what leaves the archive (rule 27). Event times are compared
//! with the watermark at a boundary, never with a clock.

use std::collections::BTreeSet;

use bifold_fold::{Source, View};
use bifold_ledger::{ArchiveUnit, BaseView, Body, Ledger, Offsets, TopicPartition, VersionId};
use bifold_store::failpoint::failpoint;
use bifold_store::{Appended, Journal, Kind, SourceFiles};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::statistics::Statistics;

use super::{Purpose, Recompute};
use crate::Error;

/// Which part of the retention more is kept, so that not every run removes a little.
const SLACK: i64 = 10;

/// From which time on `view` holds groups up to `boundary`: never earlier than before.
pub(super) fn kept_from(ledger: &Ledger, view: &View, boundary: &Offsets, leapt: Option<i64>) -> Option<i64> {
    let before = ledger.versions.get(&view.version).and_then(|version| version.kept_from_us);
    let Some(retention) = view.retention_us else { return before };
    let known = ledger.versions.get(&view.version).and_then(|version| version.newest_event_us);
    let newest = ledger.newest_event_below(boundary).max(leapt).max(known);
    let from = newest.map(|newest| newest.saturating_sub(view.source.watermark_delay_us).saturating_sub(retention));
    before.max(from)
}

/// The newest event time of archived rows that `boundary` leaps over: the fold has not seen them. None where it does not leap.
pub(super) async fn leapt(
    files: &SourceFiles,
    ledger: &Ledger,
    boundary: &Offsets,
    source: &Source,
) -> Result<Option<i64>, Error> {
    let leaps = |unit: &&ArchiveUnit| unit.ranges.below(boundary) && !unit.ranges.below(&ledger.effective());
    let mut newest = None;
    for unit in ledger.archive.iter().filter(leaps) {
        newest = newest.max(newest_event(files, unit, source).await?);
    }
    Ok(newest)
}

/// The newest event time among the rows of an archive entry, as its files' own statistics say. None without rows.
async fn newest_event(files: &SourceFiles, unit: &ArchiveUnit, source: &Source) -> Result<Option<i64>, Error> {
    let mut newest = None;
    for file in unit.rows.iter().filter(|file| file.rows > 0) {
        let builder = ParquetRecordBatchReaderBuilder::try_new(files.get(file).await?)?;
        // Rows of an older definition may have no such column: the record's own time then.
        let names = [source.event_time.as_deref(), Some("_timestamp")];
        let leaf = names.into_iter().flatten().find_map(|name| {
            let columns = builder.parquet_schema().columns();
            columns.iter().position(|column| column.path().parts() == [name])
        });
        let groups = builder.metadata().row_groups();
        let of_group = |group: &parquet::file::metadata::RowGroupMetaData| match group.column(leaf?).statistics() {
            Some(Statistics::Int64(statistics)) => statistics.max_opt().copied(),
            _ => None,
        };
        for group in groups {
            // What does not say how new it is stays.
            newest = newest.max(Some(of_group(group).unwrap_or(i64::MAX)));
        }
    }
    Ok(newest)
}

impl Recompute {
    /// Removes from the archive what lies beyond its retention, once base views hold what views need of it.
    pub(super) async fn expire(&self, journal: &mut Journal) -> Result<(), Error> {
        let Some(retention) = self.source.archive_retention_us else { return Ok(()) };
        let ledger = journal.refresh().await?;
        let active = || ledger.versions.values().filter(|version| version.active);
        let newest = active().map(|version| version.newest_event_us).min().flatten();
        let Some(newest) = newest else { return Ok(()) };
        let watermark = newest.saturating_sub(self.source.watermark_delay_us);
        let before = watermark.saturating_sub(retention);
        let Some(wish) = self.older_than(&ledger, before, before.saturating_sub(retention / SLACK)).await? else {
            return Ok(());
        };
        let Some(plan) = ledger.expirable(&wish, |version| lookback(&ledger, version)) else { return Ok(()) };
        let mut bases = vec![];
        for (boundary, lookback, version) in plan.bases {
            let made = self.build(&ledger, &version, &boundary, Purpose::Base).await?;
            let (version, holes) = (version.version, version.holes);
            bases.push(BaseView { version, boundary, lookback, runs: made.runs, holes });
        }
        failpoint("expire.bases_written");
        let below = plan.below.to_string();
        let body = Body::Expired { plan: plan.plan, below: plan.below, bases };
        loop {
            match journal.append(body.clone()).await {
                Ok(Appended::Won(_)) => break,
                Ok(Appended::Lost) => {}
                // Something changed meanwhile: the next run looks again.
                Err(error) if error.kind() == Kind::Refused => {
                    tracing::info!(source = self.source.name, %error, "the archive's past stays for now");
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        failpoint("expire.expired");
        tracing::info!(source = self.source.name, below, "what lies beyond the archive's retention was removed");
        Ok(())
    }

    /// Up to where each partition's archive holds nothing newer than `before`. None if all of it is newer than `enough`: then it is
    /// not worth the work yet.
    async fn older_than(&self, ledger: &Ledger, before: i64, enough: i64) -> Result<Option<Offsets>, Error> {
        let mut old = Offsets::default();
        let mut newer: BTreeSet<&TopicPartition> = BTreeSet::new();
        for unit in &ledger.archive {
            let partitions: Vec<_> =
                unit.ranges.iter().filter(|(_, span)| !span.is_empty()).map(|(at, _)| at).collect();
            if partitions.iter().all(|at| newer.contains(at)) {
                continue;
            }
            let newest = newest_event(&self.files, unit, &self.source).await?;
            let limit = if old.is_empty() { enough } else { before };
            let blocked = partitions.iter().any(|at| newer.contains(at));
            match newest {
                Some(newest) if newest >= limit || blocked => newer.extend(partitions),
                Some(_) => old.advance_by(&unit.ranges),
                None if blocked => newer.extend(partitions),
                // Dead letters alone go with the events after them.
                None => {}
            }
            if ledger.archived.iter().all(|(at, _)| newer.contains(at)) {
                break;
            }
        }
        Ok((!old.is_empty()).then_some(old))
    }
}

/// How far the deduplication of a version looks back.
fn lookback(ledger: &Ledger, version: &VersionId) -> i64 {
    let source =
        ledger.versions.get(version).and_then(|state| serde_json::from_value::<Source>(state.source.clone()).ok());
    source.and_then(|source| source.dedup).map_or(0, |dedup| dedup.lookback)
}
