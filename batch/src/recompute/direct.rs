//! Archived rows from their columns, through DataFusion's own Parquet scan.

use std::sync::Arc;

use bifold_archive::checked::CheckedStore;
use bifold_archive::row_schema;
use bifold_fold::{Engine, Source};
use bifold_ledger::{File, Hole, Part, TopicPartition};
use bifold_store::SourceFiles;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{DataFrame, col, lit};
use futures::{StreamExt, TryStreamExt, stream};

use crate::Error;

/// Files that are asked for at once.
const CHECKS_AT_ONCE: usize = 32;

/// The rows of `files` that lie in `part`; without one, all.
///
/// # Errors
/// A file that is missing or damaged, or the store is unavailable.
pub(super) async fn table(
    engine: &Engine,
    source: &Source,
    store: &SourceFiles,
    files: &[File],
    part: Option<&Part>,
) -> Result<DataFrame, Error> {
    // A scan takes a path that is not there for an empty folder.
    let checks: Vec<_> = files.iter().map(|file| store.check_length(file)).collect();
    stream::iter(checks).buffer_unordered(CHECKS_AT_ONCE).try_collect::<()>().await?;
    // A name of its own: DataFusion looks the store up when it reads.
    let store_url = format!("bifold://{}/", uuid::Uuid::new_v4().simple());
    let url = ObjectStoreUrl::parse(&store_url)?;
    let checked = CheckedStore::new(store, files.iter());
    engine.context().runtime_env().register_object_store(url.as_ref(), Arc::new(checked));
    let paths =
        files.iter().map(|file| ListingTableUrl::parse(format!("{store_url}{}", store.layout.object(&file.path))));
    let format = Arc::new(ParquetFormat::default().with_force_view_types(false).with_enable_pruning(true));
    let options = ListingOptions::new(format).with_file_extension(".parquet");
    let config = ListingTableConfig::new_with_multi_paths(paths.collect::<Result<Vec<_>, _>>()?)
        .with_listing_options(options)
        .with_schema(row_schema(source));
    let frame = engine.context().read_table(Arc::new(ListingTable::try_new(config)?))?;
    Ok(match part {
        Some(part) => frame.filter(within(part))?,
        None => frame,
    })
}

/// The predicate that a row lies in `part`.
fn within(part: &Part) -> Expr {
    let one = |at: &TopicPartition, to: i64| {
        let column = |name: &str| col(datafusion::common::Column::from_name(name));
        let here = column("_topic").eq(lit(at.topic.clone())).and(column("_partition").eq(lit(at.partition)));
        let above = column("_offset").gt_eq(lit(part.from.or_zero(at)));
        here.and(above).and(column("_offset").lt(lit(to)))
    };
    let inside = part.to.iter().map(|(at, to)| one(at, to)).reduce(Expr::or).unwrap_or(lit(false));
    let hole = |hole: &Hole| {
        let column = |name: &str| col(datafusion::common::Column::from_name(name));
        let here = column("_topic").eq(lit(hole.at.topic.clone())).and(column("_partition").eq(lit(hole.at.partition)));
        here.and(column("_offset").gt_eq(lit(hole.start))).and(column("_offset").lt(lit(hole.end)))
    };
    part.without.iter().map(hole).fold(inside, |inside, hole| inside.and(!hole))
}
