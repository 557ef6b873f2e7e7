//! What goes by event time: from which time on a view holds groups, and what leaves the archive (rule 27). Event times are compared
//! with the watermark at a boundary, never with a clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use bifold_archive::replay::Replay;
use bifold_fold::{Engine, Source, View};
use bifold_ledger::{
    ArchiveUnit, BaseView, Body, Ledger, Mode, Offsets, Part, Refusal, Span, TopicPartition, VersionId, VersionPlan,
};
use bifold_store::failpoint::failpoint;
use bifold_store::{Appended, Journal, Kind};
use datafusion::common::Column;
use datafusion::functions_aggregate::expr_fn::max;
use datafusion::logical_expr::Expr;

use super::{Purpose, Recompute};
use crate::Error;

/// Which part of the archive's rows goes at once at least, so that not every run removes a little.
pub(crate) const WORTH: u64 = 10;

/// The year 1 in microseconds: what lies before has no RFC 3339.
const FIRST_YEAR: i64 = -62_135_596_800_000_000;

/// What of a version goes by event time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    /// The newest event time below the boundary, as the version decodes the archive.
    pub(super) newest_us: Option<i64>,
    /// From which time on it holds groups.
    pub(super) kept_from_us: Option<i64>,
}

impl Recompute {
    /// The newest event time up to a build's boundary, and from which time on it then holds groups.
    pub(super) async fn times(
        &self,
        engine: &Engine,
        view: &View,
        ledger: &Ledger,
        (plan, part, purpose): (&VersionPlan, &Part, Purpose),
    ) -> Result<Times, Error> {
        let state = &ledger.versions[&plan.version];
        // What was built before, and is not read again.
        let before = match (plan.mode, &state.base) {
            (Mode::Full, None) => Times::default(),
            (Mode::Full, Some(base)) => Times { newest_us: base.newest_event_us, kept_from_us: base.kept_from_us },
            _ => Times { newest_us: state.newest_event_us, kept_from_us: state.kept_from_us },
        };
        // What was never folded has its newest time from here alone.
        let leaps = || part.to.iter().any(|(at, to)| to > ledger.folded.or_zero(at));
        let goes_by_it = view.retention_us.is_some() || self.source.archive_retention_us.is_some() || leaps();
        if !goes_by_it || view.source.event_time.is_none() {
            return Ok(before);
        }
        let units: Vec<_> = part.units(ledger).collect();
        let newest_us = before.newest_us.max(self.newest_event(engine, &view.source, &units, part).await?);
        let kept_from_us = match (purpose, view.retention_us) {
            (Purpose::Base, _) | (_, None) => state.kept_from_us,
            (Purpose::View, Some(retention)) => {
                let from = |newest: i64| {
                    newest.saturating_sub(view.source.watermark_delay_us).saturating_sub(retention).max(FIRST_YEAR)
                };
                before.kept_from_us.max(newest_us.map(from))
            }
        };
        Ok(Times { newest_us, kept_from_us })
    }

    /// The newest event time in `part` of these archive entries, as `source` decodes them. None without events.
    async fn newest_event(
        &self,
        engine: &Engine,
        source: &Arc<Source>,
        units: &[(&ArchiveUnit, bool)],
        part: &Part,
    ) -> Result<Option<i64>, Error> {
        let Some(event_time) = source.event_time.as_deref() else { return Ok(None) };
        let decoding = source.decoding();
        let (same, other): (Vec<_>, Vec<_>) = units.iter().copied().partition(|(unit, _)| unit.decoding == decoding);
        let mut newest = None;
        if same.iter().any(|(unit, _)| !unit.rows.is_empty()) {
            let frame = self.frame(engine, source, &same, part).await?;
            let time = Expr::Column(Column::from_name(event_time));
            for batch in frame.aggregate(vec![], vec![max(time)])?.collect().await? {
                newest = newest.max(newest_of(batch.column(0)));
            }
        }
        // Another definition's columns say nothing of these events.
        let other: Vec<&ArchiveUnit> = other.into_iter().map(|(unit, _)| unit).collect();
        let mut replay = Replay::new(source, &self.files, &other, part, |name| name == event_time);
        while let Some(batch) = replay.next().await? {
            newest = newest.max(batch.column_by_name(event_time).and_then(newest_of));
        }
        Ok(newest)
    }

    /// Removes from the archive what lies beyond its retention, once base views hold what views need of it.
    pub(super) async fn expire(&self, journal: &mut Journal) -> Result<(), Error> {
        let Some(retention) = self.source.archive_retention_us else { return Ok(()) };
        let (started, ledger) = (Instant::now(), journal.refresh().await?);
        let active = || ledger.versions.values().filter(|version| version.active);
        let newest = active().map(|version| version.newest_event_us).min().flatten();
        let Some(newest) = newest else { return Ok(()) };
        let before = newest.saturating_sub(self.source.watermark_delay_us).saturating_sub(retention);
        // Nothing is read where nothing can go.
        let lookback = |version: &VersionId| lookback(&ledger, version);
        let Some(most) =
            ledger.expirable(&ledger.archived, lookback).filter(|most| self.is_worth_it(&ledger, &most.below))
        else {
            return Ok(());
        };
        let old = self.older_than(&ledger, before, &most.below).await?;
        let plan = ledger.expirable(&old, lookback).filter(|plan| self.is_worth_it(&ledger, &plan.below));
        let Some(plan) = plan else { return Ok(()) };
        let mut bases: Vec<_> = plan
            .bases
            .iter()
            .map(|(boundary, lookback, version)| {
                let (version, boundary, holes) = (version.version.clone(), boundary.clone(), version.holes.clone());
                BaseView { version, boundary, lookback: *lookback, holes, ..BaseView::default() }
            })
            .collect();
        let body =
            |bases: &[BaseView]| Body::Expired { plan: plan.plan, below: plan.below.clone(), bases: bases.to_vec() };
        if let Err(refusal) = ledger.check(ledger.number + 1, &body(&bases)).or_else(format_alone) {
            tracing::info!(source = self.source.name, %refusal, "the archive's past stays for now");
            return Ok(());
        }
        for (base, (boundary, _, version)) in bases.iter_mut().zip(&plan.bases) {
            let made = self.build(&ledger, version, boundary, Purpose::Base).await?;
            (base.runs, base.newest_event_us, base.kept_from_us) =
                (made.runs, made.times.newest_us, made.times.kept_from_us);
            base.seen = made.seen;
        }
        failpoint("expire.bases_written");
        let body = body(&bases);
        loop {
            // Whoever takes longer finds its files gone.
            if started.elapsed() >= self.grace / 2 {
                tracing::warn!(
                    source = self.source.name,
                    "base views took longer than half of store.orphan_grace; the archive's past stays for now"
                );
                return Ok(());
            }
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
        let below = plan.below.to_string();
        tracing::info!(source = self.source.name, below, "what lies beyond the archive's retention was removed");
        Ok(())
    }

    /// Whether enough files would leave the archive.
    fn is_worth_it(&self, ledger: &Ledger, below: &Offsets) -> bool {
        let rows = |unit: &ArchiveUnit| unit.rows.iter().chain(&unit.dead).map(|file| file.rows).sum::<u64>();
        let cut = ledger.origins.clone().max(&ledger.expired).max(below);
        let gone: u64 = ledger.archive.iter().filter(|unit| unit.ranges.below(&cut)).map(rows).sum();
        gone > 0 && gone >= ledger.archive.iter().map(rows).sum::<u64>() / WORTH
    }

    /// Up to where each partition's archive holds nothing newer than `before`; looked at only up to `most`.
    async fn older_than(&self, ledger: &Ledger, before: i64, most: &Offsets) -> Result<Offsets, Error> {
        let engine = Engine::new();
        let all = Part { from: ledger.origins.clone(), to: ledger.archived.clone(), without: vec![] };
        let mut old = Offsets::default();
        let mut newer: BTreeSet<&TopicPartition> = BTreeSet::new();
        for unit in &ledger.archive {
            let spans: Vec<_> = unit.ranges.iter().filter(|(_, span)| !span.is_empty()).collect();
            // What is kept of a partition keeps what follows it there.
            let kept = |(at, span): &(&TopicPartition, &Span)| newer.contains(at) || span.start >= most.or_zero(at);
            if !spans.iter().any(kept) {
                match self.newest_event(&engine, &self.source, &[(unit, true)], &all).await? {
                    Some(newest) if newest < before => {
                        old.advance_by(&unit.ranges);
                        continue;
                    }
                    // Dead letters alone go with the events after them.
                    None => continue,
                    Some(_) => {}
                }
            }
            newer.extend(spans.into_iter().map(|(at, _)| at));
            if ledger.archived.iter().all(|(at, _)| newer.contains(at)) {
                break;
            }
        }
        Ok(old)
    }
}

/// Before the first `expired` the format is raised on the way.
fn format_alone(refusal: Refusal) -> Result<(), Refusal> {
    match refusal {
        Refusal::NeedsFormat { .. } => Ok(()),
        refusal => Err(refusal),
    }
}

/// The newest time of a column.
fn newest_of(times: &ArrayRef) -> Option<i64> {
    arrow::compute::max(times.as_primitive::<TimestampMicrosecondType>())
}

/// How far the deduplication of a version looks back.
fn lookback(ledger: &Ledger, version: &VersionId) -> i64 {
    let source =
        ledger.versions.get(version).and_then(|state| serde_json::from_value::<Source>(state.source.clone()).ok());
    source.and_then(|source| source.dedup).map_or(0, |dedup| dedup.lookback)
}
