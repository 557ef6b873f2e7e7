//! What a batch view's positions hold that the version's own definition does not decode.

use std::collections::BTreeMap;

use arrow::array::AsArray;
use arrow::compute::filter_record_batch;
use bifold_archive::ABSENT;
use bifold_archive::replay::Replay;
use bifold_fold::View;
use bifold_ledger::{ArchiveUnit, Ledger, Mode, Part, Seen, VersionPlan};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::Recompute;
use super::ordered::held;
use crate::Error;

/// Dead letters by reason.
pub(super) type Reasons = BTreeMap<String, u64>;

impl Recompute {
    /// The dead letters in `part` that units hold which were decoded as the version decodes.
    pub(super) async fn dead_of(&self, units: &[(&ArchiveUnit, bool)], part: &Part) -> Result<Reasons, Error> {
        let mut reasons = Reasons::new();
        for file in units.iter().flat_map(|(unit, _)| &unit.dead) {
            let builder = ParquetRecordBatchReaderBuilder::try_new(self.files.get(file).await?)?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), ["_topic", "_partition", "_offset", "reason"]);
            for batch in builder.with_projection(mask).build()? {
                let batch = batch?;
                let batch = filter_record_batch(&batch, &held(part, &batch))?;
                let reason = batch.column_by_name("reason").expect("every dead letter has its reason");
                for reason in reason.as_string::<i32>().iter().flatten().filter(|reason| *reason != ABSENT) {
                    *reasons.entry(reason.to_string()).or_default() += 1;
                }
            }
        }
        Ok(reasons)
    }

    /// The dead letters in `part` of units that have to be decoded again.
    pub(super) async fn dead_when_replayed(
        &self,
        view: &View,
        units: &[&ArchiveUnit],
        part: &Part,
    ) -> Result<Reasons, Error> {
        let mut replay = Replay::new(&view.source, &self.files, units, part, |_| false);
        while replay.next().await?.is_some() {}
        Ok(replay.dead())
    }
}

/// What the batch view that a build begins with holds beside its states. None where nobody counted it.
pub(super) fn seen_before(ledger: &Ledger, plan: &VersionPlan) -> Option<Seen> {
    let state = &ledger.versions[&plan.version];
    match (plan.mode, &state.base) {
        (Mode::Full, None) => Some(Seen::default()),
        (Mode::Full, Some(base)) => base.seen.as_deref().cloned(),
        _ if state.published.is_none() => Some(Seen::default()),
        _ => state.seen.as_deref().cloned(),
    }
}

/// What an entry says of a build: only where its readers know of it.
pub(super) fn seen_after(ledger: &Ledger, plan: &VersionPlan, reasons: &Reasons) -> Option<Box<Seen>> {
    let mut seen = seen_before(ledger, plan).filter(|_| ledger.format >= Seen::FORMAT)?;
    seen.add_dead(&plan.version, reasons);
    seen.dead.retain(|version, _| *version == plan.version);
    Some(Box::new(seen))
}
