//! `bifold views`: what the store holds of each view.

use bifold_ledger::{Ledger, VersionState};
use serde_json::{Value, json};

use crate::args::{Common, OneShot};
use crate::client::Client;
use crate::context::{Context, configuration};
use crate::exit::Exit;
use crate::output;

const COLUMNS: [&str; 9] = ["view", "source", "version", "dialect", "state", "boundary", "folded", "groups", "bytes"];

pub(crate) async fn run(common: &Common, shot: OneShot) -> Result<(), Exit> {
    if shot.url.is_some() {
        return of_server(common, &shot).await;
    }
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
    output::objects(shot.output(), &COLUMNS, &rows)
}

/// The views of the server that `--url` names: what it answers from.
async fn of_server(common: &Common, shot: &OneShot) -> Result<(), Exit> {
    let client = Client::new(&configuration(common, &[])?, shot);
    let body = client.get("/v1/views").await?.answer()?.json()?;
    let ends = |coverage: &Value, layer: &str| {
        let parts = coverage["partitions"].as_array().into_iter().flatten();
        let parts = parts.map(|part| {
            format!("{}/{}:{}", part["topic"].as_str().unwrap_or_default(), part["partition"], part[layer][1])
        });
        parts.collect::<Vec<_>>().join(",")
    };
    let row = |view: &Value| {
        let coverage = &view["coverage"];
        json!({
            "view": view["name"], "source": view["source"], "version": view["version"], "state": view["state"],
            "boundary": ends(coverage, "batch"), "folded": ends(coverage, "speed"),
            "groups": view["size"]["batch_groups"], "bytes": view["size"]["batch_bytes"],
        })
    };
    let rows: Vec<Value> = body["views"].as_array().into_iter().flatten().map(row).collect();
    output::objects(shot.output(), &COLUMNS, &rows)
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
