//! `bifold views`: what the store holds of each view.

use bifold_ledger::{Ledger, VersionState};
use serde_json::{Value, json};

use crate::args::{Common, OneShot};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

pub(crate) async fn run(common: &Common, shot: OneShot) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let mut rows = vec![];
    for (source, journal) in context.journals(shot.timeout).await? {
        let ledger = journal.ledger();
        for (id, version) in ledger.versions.iter().filter(|(_, version)| version.active) {
            rows.push(describe(&source, &ledger, &id.0, version));
        }
        for readings in context.readings_of(&source) {
            let view = readings.chosen(&ledger)?;
            if ledger.versions.get(&view.version).is_none_or(|version| !version.active) {
                let (name, version) = (&view.name, &view.version);
                rows.push(json!({
                    "view": name, "source": source, "version": version, "dialect": view.dialect, "state": "undeclared",
                }));
            }
        }
    }
    rows.sort_by_key(|row| (row["view"].to_string(), row["version"].to_string()));
    let columns = ["view", "source", "version", "dialect", "state", "boundary", "folded", "groups", "bytes"];
    output::objects(shot.output(), &columns, &rows)
}

fn describe(source: &str, ledger: &Ledger, id: &str, version: &VersionState) -> Value {
    let served = ledger.served(&version.view).is_some_and(|served| served.0 == id);
    let state = match (version.complete(), served) {
        (true, true) => "ready",
        (true, false) => "kept",
        (false, _) => "building",
    };
    let waits = (!version.complete()).then_some("waits for a batch run: bifold batch run");
    json!({
        "view": version.view,
        "source": source,
        "version": id,
        "dialect": version.dialect,
        "state": state,
        "waits": waits,
        "boundary": version.boundary.as_ref().map(ToString::to_string),
        "folded": ledger.effective().to_string(),
        "groups": version.runs.iter().map(|run| run.rows).sum::<u64>(),
        "bytes": version.runs.iter().map(|run| run.bytes).sum::<u64>(),
    })
}
