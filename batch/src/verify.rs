//! What a view's SQL says of the archive, as an ordinary DataFusion query over rows decoded again from the original
//! bytes: no states, no stored columns. It shares nothing with what it checks but the decoder.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use bifold_archive::Part;
use bifold_archive::replay::Replay;
use bifold_fold::{Engine, View};
use bifold_ledger::{Hole, Ledger, Offsets};
use bifold_store::SourceFiles;
use datafusion::datasource::MemTable;

use crate::Error;
use crate::progress::Progress;

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
