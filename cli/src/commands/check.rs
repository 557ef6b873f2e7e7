//! `bifold check`: reads and compiles the pipeline, and names the views that keep an old dialect.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifold_fold::View;
use bifold_fold::dialect::{TODAY, shortcomings};
use bifold_ledger::{Dialect, Ledger};
use serde_json::json;

use crate::args::{Check, Common};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

/// How long the store may take to say which versions there are.
const STORE_WITHIN: Duration = Duration::from_secs(5);

pub(crate) async fn run(common: &Common, check: Check) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let ledgers = ledgers(&context).await;
    let mut views: Vec<&Arc<View>> = vec![];
    for readings in &context.views {
        match ledgers.get(&readings.any().source.name) {
            Some(ledger) => views.push(readings.chosen(ledger)?),
            None => views.push(readings.today()?),
        }
    }
    let row = |view: &&Arc<View>| {
        json!({
            "view": view.name,
            "source": view.source.name,
            "version": view.version,
            "dialect": view.dialect,
            "keys": view.keys.join(", "),
            "time_column": view.time_column,
            "columns": view.output.fields().iter()
                .map(|f| format!("{} {}", f.name(), bifold_serving::json::type_name(f.data_type())))
                .collect::<Vec<_>>().join(", "),
        })
    };
    let rows: Vec<_> = views.iter().map(row).collect();
    let columns = ["view", "source", "version", "dialect", "keys", "time_column", "columns"];
    output::objects(check.shot.output(), &columns, &rows)?;
    say_old_dialects(&views);
    Ok(())
}

/// The ledgers that the store has; none where it cannot be read, which is said.
async fn ledgers(context: &Context) -> BTreeMap<String, Arc<Ledger>> {
    let read = async {
        let journals = context.journals(STORE_WITHIN).await?;
        Ok::<_, Exit>(journals.into_iter().map(|(source, journal)| (source, journal.ledger())).collect())
    };
    read.await.unwrap_or_else(|error| {
        eprintln!("the store was not read, so views that keep an old dialect are not named: {error}");
        BTreeMap::new()
    })
}

/// Names each view on an old dialect, and what the dialect gets wrong.
pub(super) fn say_old_dialects(views: &[&Arc<View>]) {
    let mut by_dialect: BTreeMap<Dialect, Vec<&str>> = BTreeMap::new();
    for view in views.iter().filter(|view| view.dialect != TODAY) {
        by_dialect.entry(view.dialect).or_default().push(&view.name);
    }
    for (dialect, names) in by_dialect {
        let names = names.join(", ");
        eprintln!("declared under dialect {dialect}, and kept there: {names}");
        eprintln!("dialect {dialect} has these faults:\n  {}", shortcomings(dialect).join("\n  "));
        eprintln!(
            "`bifold upgrade VIEW` (or --all) declares a view under dialect {TODAY}, beside the version that answers now"
        );
    }
}
