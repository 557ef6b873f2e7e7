//! `bifold upgrade`: declares views again under today's dialect, beside the versions that they have.

use bifold_fold::View;
use bifold_fold::dialect::TODAY;
use bifold_ledger::Ledger;
use bifold_store::{Journal, Kind};
use serde_json::{Value, json};

use crate::args::{Common, Upgrade};
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;

const COLUMNS: [&str; 7] = ["view", "source", "from", "from_dialect", "version", "dialect", "state"];

pub(crate) async fn run(common: &Common, command: Upgrade) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let known: Vec<&str> = context.views.iter().map(|view| view.any().name.as_str()).collect();
    if let Some(unknown) = command.views.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(Exit::Usage(format!("there is no view {unknown:?} in the pipeline; it has {}", known.join(", "))));
    }
    let wanted = |name: &String| command.all || command.views.contains(name);
    // Of views that are named all can be declared, or none is; of all views those that today's dialect does not refuse.
    let mut refused = vec![];
    for view in context.views.iter().filter(|view| wanted(&view.any().name)) {
        match view.today() {
            Err(error) if command.all => refused.push(error.to_string()),
            today => drop(today?),
        }
    }
    let mut rows = vec![];
    for source in &context.pipeline.sources {
        let opened = Journal::open_to_write(context.files(&source.name)?, "cli");
        let mut journal = within(command.shot.timeout, &context.store_name(), opened).await?;
        for view in context.readings_of(&source.name).filter(|view| wanted(&view.any().name)) {
            if let Ok(today) = view.today() {
                rows.push(upgrade(&mut journal, today).await?);
            }
        }
    }
    output::objects(command.shot.output(), &COLUMNS, &rows)?;
    if rows.iter().any(|row| row["state"] == "building") {
        eprintln!("declared; the versions before answer until a batch run has built these: `bifold batch run`");
    }
    match refused.is_empty() {
        true => Ok(()),
        false => Err(Exit::Usage(format!(
            "{} of the views are refused by today's dialect, and stay where they are:\n{}",
            refused.len(),
            refused.join("\n")
        ))),
    }
}

/// Declares a view, unless the ledger has it so already.
async fn upgrade(journal: &mut Journal, view: &View) -> Result<Value, Exit> {
    let before = journal.ledger();
    loop {
        let ledger = journal.ledger();
        if ledger.versions.get(&view.version).is_some_and(|version| version.active) {
            return Ok(row(&before, &ledger, view));
        }
        if !ledger.exists() || !ledger.versions.values().any(|known| known.active && known.view == view.name) {
            // `up` and `speed` begin with it, under today's dialect.
            return Ok(row(&before, &ledger, view));
        }
        if let Some(entry) = ledger.quarantine_in_force()
            && view.source.dedup.is_some()
        {
            let name = &view.source.name;
            let error = bifold_speed::Error::QuarantinedDedup { source_name: name.clone(), entry };
            return Err(Exit::Usage(error.to_string()));
        }
        match journal.append(view.declaration()).await {
            Ok(_) => {}
            Err(error) if error.kind() == Kind::Refused => drop(journal.refresh().await?),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What became of a view: the version that answered before, and today's.
fn row(before: &Ledger, ledger: &Ledger, view: &View) -> Value {
    let from = before.served(&view.name).or_else(|| before.newest(&view.name));
    let from_dialect = from.and_then(|version| before.versions.get(version)).map(|version| version.dialect);
    let state = match ledger.versions.get(&view.version).filter(|version| version.active) {
        None => "undeclared",
        Some(version) if version.complete() => "ready",
        Some(_) => "building",
    };
    json!({
        "view": view.name, "source": view.source.name, "from": from, "from_dialect": from_dialect,
        "version": view.version, "dialect": TODAY, "state": state,
    })
}
