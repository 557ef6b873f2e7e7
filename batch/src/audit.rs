//! What became of every offset and every event below the archive's frontier, as far as the archive still holds it.
//!
//! ```text
//! positions = records + gaps in the log (markers, aborted) + lost        records  = with events + dead alone + absent (null, empty)
//! events    = counted + filtered + deduplicated + left out, per view     elements = events + dead letters
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{and, and_not, concat_batches, filter, filter_record_batch};
use arrow::datatypes::{Int32Type, Int64Type};
use bifold_archive::ABSENT;
use bifold_archive::replay::Replay;
use bifold_fold::view::compile_stored;
use bifold_fold::{Dedup, Engine, View};
use bifold_ledger::{ChangeKind, File, Ledger, Part, Span, TopicPartition, VersionId};
use bifold_store::SourceFiles;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Error;
use crate::collect::buffer::sorted;

/// Rows that go through a view's input at once.
const AT_ONCE: usize = 262_144;

/// Records, told apart by where they stand and what they hold: two of these are equal only if the records are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub records: u64,
    /// The sum of a hash of each.
    pub sum: u64,
}

impl Seen {
    /// Adds a record.
    pub fn add(&mut self, offset: i64, value: Option<&[u8]>) {
        let mut hasher = DefaultHasher::new();
        hasher.write_i64(offset);
        hasher.write_u8(u8::from(value.is_some()));
        hasher.write(value.unwrap_or_default());
        self.records += 1;
        self.sum = self.sum.wrapping_add(hasher.finish());
    }
}

/// What the archive holds of one partition.
#[derive(Clone, Debug, Default)]
pub struct Archived {
    /// Records from where the log still begins.
    pub in_log: Seen,
    /// All records.
    pub records: u64,
    /// Events.
    pub events: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Records without an event and without a mistake.
    pub absent: u64,
    /// Positions that are lost.
    pub lost: i64,
    /// Positions that left the archive.
    pub expired: i64,
    /// Rows of files at positions that left the archive, or are lost: events, and others.
    pub aside: (u64, u64),
    /// Offsets that stand there more than once.
    pub twice: u64,
}

/// What the archive holds of every partition; `log_start` says where the log still has them.
///
/// # Errors
/// A file that is missing or damaged; the store is unavailable.
pub async fn archive(
    files: &SourceFiles,
    ledger: &Ledger,
    log_start: impl Fn(&TopicPartition) -> i64,
) -> Result<BTreeMap<TopicPartition, Archived>, Error> {
    let mut found: BTreeMap<TopicPartition, Archived> = BTreeMap::new();
    // Also those of which nothing was archived yet.
    for (at, next) in ledger.effective().max(&ledger.archived).iter().map(|(at, _)| (at, ledger.archived(at))) {
        let lost = ledger.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
        let spans = lost.filter_map(|change| change.ranges.get(at));
        let from = ledger.kept_from(at);
        let lost = spans.map(|span| (span.end.min(next) - span.start.max(from)).max(0)).sum();
        let expired = ledger.kept_from(at) - ledger.origin(at);
        found.insert(at.clone(), Archived { lost, expired, ..Archived::default() });
    }
    let lost: Vec<_> = ledger.changes.iter().filter(|change| change.kind == ChangeKind::Lost).collect();
    let mut offsets: BTreeSet<(TopicPartition, i64)> = BTreeSet::new();
    for unit in &ledger.archive {
        // A record stands in one file alone, whose rows of it follow each other: only of a unit can there be two.
        offsets.clear();
        let of = |rows: &[File], dead: bool| rows.iter().map(move |file| (file.clone(), dead)).collect::<Vec<_>>();
        for (file, dead) in of(&unit.rows, false).into_iter().chain(of(&unit.dead, true)) {
            let builder = ParquetRecordBatchReaderBuilder::try_new(files.get(&file).await?)?;
            let mut names = vec!["_topic", "_partition", "_offset", "_index", "_payload"];
            names.extend(dead.then_some(["_alone", "reason"]).into_iter().flatten());
            let mask = ProjectionMask::columns(builder.parquet_schema(), names);
            for batch in builder.with_projection(mask).build()? {
                let batch = batch?;
                let column = |name: &str| batch.column_by_name(name).expect("every archived file has this column");
                let (topic, payload) = (column("_topic").as_string::<i32>(), column("_payload").as_binary::<i32>());
                let partition = column("_partition").as_primitive::<Int32Type>();
                let offset = column("_offset").as_primitive::<Int64Type>();
                for row in 0..batch.num_rows() {
                    let at = TopicPartition::new(topic.value(row), partition.value(row));
                    let reason = dead.then(|| column("reason").as_string::<i32>().value(row));
                    let whole = match dead {
                        true => column("_alone").as_boolean().value(row),
                        false => payload.is_valid(row),
                    };
                    let start = log_start(&at);
                    let of = found.entry(at.clone()).or_default();
                    let here = Span::new(offset.value(row), offset.value(row) + 1);
                    let gone = here.start < ledger.kept_from(&at);
                    if whole && !gone && here.start >= start {
                        of.in_log.add(here.start, payload.is_valid(row).then(|| payload.value(row)));
                    }
                    // What a collector still archived of what had just been accepted as lost counts nowhere.
                    if gone || lost.iter().any(|change| change.overlaps(&at, &here)) {
                        match reason {
                            None => of.aside.0 += 1,
                            Some(_) => of.aside.1 += 1,
                        }
                        continue;
                    }
                    match reason {
                        None => of.events += 1,
                        Some(ABSENT) => of.absent += 1,
                        Some(_) => of.dead_letters += 1,
                    }
                    if whole {
                        of.records += 1;
                        of.twice += u64::from(!offsets.insert((at, offset.value(row))));
                    }
                }
            }
        }
    }
    Ok(found)
}

/// What a view does with the events of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// From where: what lies before stands in its base view alone.
    pub from: i64,
    /// Events by the view's definition of the source.
    pub events: u64,
    /// Those that it aggregates.
    pub counted: u64,
    /// Those that its WHERE leaves out.
    pub filtered: u64,
    /// Duplicates.
    pub deduplicated: u64,
    /// Those that its batch view leaves out: quarantined.
    pub left_out: u64,
    /// Elements that its definition of the source does not decode.
    pub dead_letters: u64,
}

/// What a version does with the events of each partition below the archive's frontier.
///
/// # Errors
/// A file that is missing or damaged; DataFusion's failure.
pub async fn view(
    engine: &Engine,
    files: &SourceFiles,
    ledger: &Ledger,
    version: &VersionId,
) -> Result<BTreeMap<TopicPartition, Used>, Error> {
    let state = &ledger.versions[version];
    let view = compile_stored(engine, state.into()).await?;
    let mut found = BTreeMap::new();
    for (at, next) in ledger.archived.iter() {
        let part = Part {
            from: std::iter::once((at.clone(), ledger.kept_from(at))).collect(),
            to: std::iter::once((at.clone(), next)).collect(),
            without: vec![],
        };
        let holes = ledger.parts_of(&state.holes, &part.from, &part.to);
        let kept = Part { without: holes, ..part.clone() };
        // With dedup the archive goes further back than what the base view holds: those rows are looked back at.
        let based = state.base.as_ref().map_or(0, |base| base.boundary.or_zero(at));
        let from = ledger.kept_from(at).max(based);
        let mut dead_letters = 0;
        let units: Vec<_> = part.units(ledger).map(|(unit, _)| unit).collect();
        if from > part.from.or_zero(at) {
            // What is only looked back at is in its base view.
            let own = Part { from: std::iter::once((at.clone(), from)).collect(), ..part.clone() };
            let units: Vec<_> = own.units(ledger).map(|(unit, _)| unit).collect();
            let mut replay = Replay::new(&view.source, files, &units, &own, |_| false);
            while replay.next().await?.is_some() {}
            dead_letters = replay.dead().values().sum();
        }
        let mut dedup = Dedup::new(&view.source, view.dialect)?;
        let (mut used, mut waiting, mut rows) = (Used { from, dead_letters, ..Used::default() }, vec![], 0);
        for unit in units {
            let mut replay = Replay::new(&view.source, files, &[unit], &part, |_| true);
            let mut batches = vec![];
            while let Some(batch) = replay.next().await? {
                batches.push(batch);
            }
            if from == part.from.or_zero(at) {
                used.dead_letters += replay.dead().values().sum::<u64>();
            }
            let Some(first) = batches.first() else { continue };
            let batch = sorted(&concat_batches(&first.schema(), &batches)?);
            let offsets = batch.column_by_name("_offset").expect("every event has one").as_primitive::<Int64Type>();
            let held: BooleanArray = offsets.values().iter().map(|offset| Some(kept.holds(at, *offset))).collect();
            let own: BooleanArray = offsets.values().iter().map(|offset| Some(*offset >= used.from)).collect();
            used.events += own.true_count() as u64;
            used.left_out += and_not(&own, &held)?.true_count() as u64;
            let (batch, own) = (filter_record_batch(&batch, &held)?, filter(&own, &held)?);
            let own = own.as_boolean();
            let batch = match &mut dedup {
                None => filter_record_batch(&batch, own)?,
                Some(dedup) => {
                    let admitted = dedup.admit(&batch)?;
                    used.deduplicated += and_not(own, &admitted)?.true_count() as u64;
                    filter_record_batch(&batch, &and(own, &admitted)?)?
                }
            };
            rows += batch.num_rows();
            waiting.push(batch);
            if rows >= AT_ONCE {
                used.counted += counted(engine, &view, std::mem::take(&mut waiting)).await?;
                rows = 0;
            }
        }
        used.counted += counted(engine, &view, waiting).await?;
        used.filtered = (used.events - used.left_out - used.deduplicated).saturating_sub(used.counted);
        found.insert(at.clone(), used);
    }
    Ok(found)
}

/// How many of these events a view aggregates.
async fn counted(engine: &Engine, view: &View, rows: Vec<RecordBatch>) -> Result<u64, Error> {
    let table = Arc::new(MemTable::try_new(view.source.schema(), vec![rows])?);
    // Unnested they may be very many more: they are counted as they come.
    let mut out = execute_stream(view.input_plan(engine, table).await?, engine.task())?;
    let mut counted = 0;
    while let Some(batch) = out.next().await {
        counted += batch?.num_rows() as u64;
    }
    Ok(counted)
}
