//! What a view's SQL says of the archive, as an ordinary DataFusion query over rows decoded again from the original
//! bytes: no states, no stored columns. It shares nothing with what it checks but the decoder.

use std::sync::Arc;

use arrow::array::RecordBatch;
use bifold_fold::{Engine, View};
use bifold_ledger::{Ledger, Offsets};
use bifold_store::SourceFiles;
use datafusion::datasource::MemTable;

use crate::Error;
use crate::archive::Part;
use crate::archive::replay::Replay;

/// The rows of `view` over every archived record below `frontier`.
///
/// # Errors
/// A file that is missing or damaged; DataFusion's failure.
pub async fn expected(
    engine: &Engine,
    view: &View,
    files: &SourceFiles,
    ledger: &Ledger,
    frontier: &Offsets,
) -> Result<Vec<RecordBatch>, Error> {
    let part = Part { from: ledger.origins.clone(), to: frontier.clone() };
    let units: Vec<_> = part.units(ledger).map(|(unit, _)| unit).collect();
    let mut rows = vec![];
    // Every column: the table then has the source's own schema.
    let mut replay = Replay::new(&view.source, files, &units, &part, |_| true);
    while let Some(batch) = replay.next().await? {
        rows.push(batch);
    }
    let table = MemTable::try_new(view.source.schema(), vec![rows])?;
    Ok(view.plain(engine, Arc::new(table)).await?)
}
