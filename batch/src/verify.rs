//! What a view's SQL says of the archive, as an ordinary DataFusion query over rows decoded again from the original
//! bytes: no states, no stored columns. It shares nothing with what it checks but the decoder.
//!
//! What left the archive cannot be recomputed: there the base view's states are taken as they are, and the rows after them are
//! decoded again and folded anew.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Float64Type};
use bifold_archive::replay::Replay;
use bifold_fold::{Dedup, Engine, View};
use bifold_ledger::{BaseView, Hole, Ledger, Offsets, Part, TopicPartition};
use bifold_store::SourceFiles;
use datafusion::datasource::MemTable;
use datafusion::physical_plan::collect;

use crate::Error;
use crate::collect::buffer::sorted;
use crate::progress::Progress;
use crate::recompute::{SMALL_BATCHES, held, read_run};

/// What a view should say.
#[derive(Debug)]
pub struct Expected {
    /// Its rows.
    pub rows: Vec<RecordBatch>,
    /// The largest absolute value that is no integer among what the view reads: by it one tells rounding from spread.
    pub magnitude: f64,
}

/// The rows of `view` over every archived record below `frontier` but those in `holes`; `progress` hears how far it has come.
///
/// # Errors
/// A file that is missing or damaged; DataFusion's failure.
pub async fn expected(
    engine: &Engine,
    view: &View,
    files: &SourceFiles,
    ledger: &Ledger,
    (frontier, holes): (&Offsets, &[Hole]),
    progress: &Progress,
) -> Result<Expected, Error> {
    let mut found = expected_by(engine, view, files, ledger, (frontier, holes), progress).await;
    for rows in SMALL_BATCHES {
        if found.as_ref().err().is_some_and(Error::is_of_batch_size) {
            let small = engine.clone().with_batch_rows(rows);
            found = expected_by(&small, view, files, ledger, (frontier, holes), progress).await;
        }
    }
    found
}

async fn expected_by(
    engine: &Engine,
    view: &View,
    files: &SourceFiles,
    ledger: &Ledger,
    (frontier, holes): (&Offsets, &[Hole]),
    progress: &Progress,
) -> Result<Expected, Error> {
    let base = ledger.versions.get(&view.version).and_then(|version| version.base.as_ref());
    if let Some(base) = base {
        return above_base(engine, view, files, ledger, base, (frontier, holes), progress).await;
    }
    let part = Part { from: ledger.origins.clone(), to: frontier.clone(), without: holes.to_vec() };
    let units: Vec<_> = part.units(ledger).map(|(unit, _)| unit).collect();
    let files_rows = units.iter().flat_map(|unit| &unit.rows).map(|file| file.rows).sum();
    progress.begin(format!("verify: {}", view.name), files_rows);
    let (mut rows, mut magnitude) = (vec![], 0.0f64);
    // Every column: the table then has the source's own schema.
    let mut replay = Replay::new(&view.source, files, &units, &part, |_| true);
    while let Some(batch) = replay.next().await? {
        progress.add(batch.num_rows() as u64);
        magnitude = magnitude.max(largest(&batch, &view.needed)?);
        rows.push(batch);
    }
    let table = MemTable::try_new(view.source.schema(), vec![rows])?;
    Ok(Expected { rows: view.plain(engine, Arc::new(table)).await?, magnitude })
}

/// The same where the archive's past is gone: the base view, and every archived record above it.
async fn above_base(
    engine: &Engine,
    view: &View,
    files: &SourceFiles,
    ledger: &Ledger,
    base: &BaseView,
    (frontier, holes): (&Offsets, &[Hole]),
    progress: &Progress,
) -> Result<Expected, Error> {
    let from = ledger.origins.clone().max(&base.boundary);
    let own = Part { from: from.clone(), to: frontier.clone(), without: holes.to_vec() };
    let back = |(at, next): (&TopicPartition, i64)| (at.clone(), (next - base.lookback).max(ledger.kept_from(at)));
    let read = Part { from: from.iter().map(back).collect(), ..own.clone() };
    let units: Vec<_> = read.units(ledger).map(|(unit, _)| unit).collect();
    progress
        .begin(format!("verify: {}", view.name), units.iter().flat_map(|unit| &unit.rows).map(|file| file.rows).sum());
    let mut dedup = Dedup::new(&view.source, view.dialect)?;
    let (mut rows, mut magnitude) = (vec![], 0.0f64);
    for unit in units {
        let mut replay = Replay::new(&view.source, files, &[unit], &read, |_| true);
        let mut batches = vec![];
        while let Some(batch) = replay.next().await? {
            progress.add(batch.num_rows() as u64);
            batches.push(batch);
        }
        let Some(first) = batches.first() else { continue };
        let batch = sorted(&concat_batches(&first.schema(), &batches)?);
        let batch = match &mut dedup {
            None => batch,
            Some(dedup) => {
                let kept = arrow::compute::and(&dedup.admit(&batch)?, &held(&own, &batch))?;
                filter_record_batch(&batch, &kept)?
            }
        };
        magnitude = magnitude.max(largest(&batch, &view.needed)?);
        rows.push(batch);
    }
    let table = Arc::new(MemTable::try_new(view.source.schema(), vec![rows])?);
    let folded = collect(view.partial(view.input_plan(engine, table).await?)?, engine.task()).await?;
    let mut states = folded.into_iter().map(|batch| view.to_stored(batch)).collect::<Result<Vec<_>, _>>()?;
    for run in &base.runs {
        states.extend(read_run(files, run).await?);
    }
    Ok(Expected { rows: view.finish(engine, states).await?, magnitude })
}

/// The largest finite absolute value in these columns, of those that hold fractions.
fn largest(batch: &RecordBatch, columns: &[String]) -> Result<f64, Error> {
    let mut largest = 0.0f64;
    for column in columns.iter().filter_map(|name| batch.column_by_name(name)) {
        if column.data_type().is_floating() || column.data_type().is_decimal() {
            let numbers = cast(column, &DataType::Float64)?;
            let numbers = numbers.as_primitive::<Float64Type>().iter().flatten().map(f64::abs);
            largest = numbers.filter(|number| number.is_finite()).fold(largest, f64::max);
        }
    }
    Ok(largest)
}
