//! `bifold batch run`: one run of every source that is asked for.

use std::sync::Arc;
use std::time::Duration;

use bifold_batch::progress::Progress;
use bifold_batch::recompute::{Recompute, Request};
use bifold_batch::runs::{Trigger, runs};
use bifold_fold::Source;
use bifold_ledger::{Mode, Offsets};
use serde_json::Value;

use crate::args::{BatchRun, Common, OneShot};
use crate::client::Client;
use crate::context::{Context, offsets, within};
use crate::exit::Exit;
use crate::output;
use crate::progress::shown;

/// What is shown of a run's reports.
pub(crate) const COLUMNS: [&str; 8] =
    ["view", "version", "mode", "boundary", "rows_read", "groups", "ledger", "elapsed_ms"];

pub(crate) async fn run(common: &Common, run: BatchRun) -> Result<(), Exit> {
    let progress = Progress::default();
    let (rows, ended) = shown(&progress, reports(common, &run, &progress)).await?;
    output::objects(run.shot.output(), &COLUMNS, &rows)?;
    ended
}

/// Does a run: an object for each version that was built or had nothing to do, and the failure of the others.
pub(crate) async fn reports(
    common: &Common,
    run: &BatchRun,
    progress: &Progress,
) -> Result<(Vec<Value>, Result<(), Exit>), Exit> {
    let context = Context::load(common).await?;
    let asked = match run.at_least.as_deref() {
        None => None,
        Some("latest") => Some(log_ends(&context, &run.shot).await?),
        Some(text) => Some(offsets(text)?),
    };
    let sources = sources_of(&context, &run.views, run.shot.timeout).await?;
    if let Some(asked) = &asked
        && let known = &context.pipeline.sources
        && let Some((at, _)) = asked.iter().find(|(at, _)| !known.iter().any(|s| s.topics.contains(&at.topic)))
    {
        return Err(Exit::Usage(format!("--at-least names {at}, which no source of the pipeline reads")));
    }
    let (mut done, mut ended) = (vec![], Ok(()));
    for source in &sources {
        let of_source = |asked: &Offsets| -> Offsets {
            asked.iter().filter(|(at, _)| source.topics.contains(&at.topic)).map(|(at, n)| (at.clone(), n)).collect()
        };
        let recompute = Recompute { progress: progress.clone(), ..recompute_of(&context, Arc::clone(source))? };
        let request = Request {
            views: run.views.clone(),
            full: run.full,
            at_least: asked.as_ref().map(of_source),
            timeout: run.shot.timeout,
        };
        match recompute.run(&request, Trigger::Command).await {
            Ok(reports) => done.extend(reports),
            Err(error) => {
                if let bifold_batch::Error::Views { published, .. } = &error {
                    done.extend(published.iter().cloned());
                }
                // The first failure ends the command; the others are printed here.
                match ended {
                    Ok(()) => ended = Err(error.into()),
                    Err(_) => eprintln!("error: source {}: {error}", source.name),
                }
            }
        }
    }
    for view in undeclared(&context, run, &sources).await? {
        eprintln!("view {view}: nothing to do, for nothing folds it yet; `bifold up` or `bifold speed` begins with it");
    }
    for (source, journal) in context.journals(run.shot.timeout).await? {
        let ledger = journal.ledger();
        for report in
            done.iter().filter(|report| sources.iter().any(|one| one.name == source) && report.mode != Mode::None)
        {
            let seen = ledger.versions.get(&report.version).and_then(|state| state.seen.as_ref());
            let reasons = seen.and_then(|seen| seen.dead.get(&report.version));
            if let Some(line) = reasons.and_then(|reasons| output::dead_letters(&report.view, &source, reasons)) {
                eprintln!("warning: {line}");
            }
        }
    }
    let rows = done.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(Exit::failed)?;
    Ok((rows, ended))
}

/// The views asked for that are in the pipeline, but not in the ledger: the speed layer puts them there.
async fn undeclared(context: &Context, run: &BatchRun, sources: &[Arc<Source>]) -> Result<Vec<String>, Exit> {
    let mut names = vec![];
    for (source, journal) in context.journals(run.shot.timeout).await? {
        let ledger = journal.ledger();
        let asked = |name: &String| run.views.is_empty() || run.views.contains(name);
        for readings in context.readings_of(&source) {
            let view = readings.chosen(&ledger)?;
            let known = ledger.versions.get(&view.version).is_some_and(|version| version.active);
            if !known && asked(&view.name) && sources.iter().any(|one| one.name == source) {
                names.push(view.name.clone());
            }
        }
    }
    Ok(names)
}

/// `bifold batch runs`: what the last runs did, newest last.
pub(crate) async fn list(common: &Common, shot: OneShot) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let mut rows = vec![];
    for source in &context.pipeline.sources {
        let files = context.files(&source.name)?;
        for run in within(shot.timeout, &context.store_name(), runs(&files)).await? {
            let views = run.views.iter().filter(|view| view.mode != Mode::None);
            let views: Vec<String> = views.map(|view| view.view.clone()).collect();
            rows.push(serde_json::json!({
                "source": run.source,
                "started": run.started.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
                "elapsed_ms": run.elapsed_ms,
                "trigger": run.trigger,
                "outcome": run.outcome,
                "published": views.join(", "),
                "rows_read": run.views.iter().map(|view| view.rows_read).sum::<u64>(),
                "boundary": run.views.first().map(|view| view.boundary.clone()),
                "error": run.error,
            }));
        }
    }
    rows.sort_by_key(|row| row["started"].to_string());
    let columns = ["started", "source", "trigger", "outcome", "published", "rows_read", "elapsed_ms", "error"];
    output::objects(shot.output(), &columns, &rows)
}

/// Batch runs of a source by the configuration.
pub(crate) fn recompute_of(context: &Context, source: Arc<Source>) -> Result<Recompute, Exit> {
    Ok(Recompute {
        files: context.files(&source.name)?,
        views: context.readings_of(&source.name).cloned().collect(),
        source,
        scratch: context.config.data_dir.join("scratch"),
        memory: context.config.batch.memory,
        leap: context.config.batch.leap,
        leap_after: context.config.batch.leap_after,
        grace: context.config.store.orphan_grace,
        progress: Progress::default(),
    })
}

/// The sources whose views are asked for; all, if none is.
async fn sources_of(context: &Context, views: &[String], timeout: Duration) -> Result<Vec<Arc<Source>>, Exit> {
    let mut sources = vec![];
    let mut known = vec![];
    for (name, journal) in context.journals(timeout).await? {
        let ledger = journal.ledger();
        let active = ledger.versions.values().filter(|version| version.active).map(|version| version.view.clone());
        let mut names: Vec<String> = active.collect();
        names.extend(context.views_of(&name).iter().map(|view| view.name.clone()));
        if views.is_empty() || names.iter().any(|name| views.contains(name)) {
            sources.push(context.source(&name)?);
        }
        known.extend(names);
    }
    known.sort();
    known.dedup();
    match views.iter().find(|view| !known.contains(view)) {
        Some(unknown) => {
            Err(bifold_batch::Error::Unknown { what: "view", name: unknown.clone(), known: known.join(", ") }.into())
        }
        None => Ok(sources),
    }
}

/// Where the log ends now. A local log that a server holds is asked for there.
pub(crate) async fn log_ends(context: &Context, shot: &OneShot) -> Result<Offsets, Exit> {
    let topics: Vec<String> = context.pipeline.sources.iter().flat_map(|source| source.topics.clone()).collect();
    let log = match context.log() {
        Ok(log) => log,
        Err(bifold_log::Error::Locked { .. }) => return ends_of_server(&Client::new(&context.config, shot)).await,
        Err(error) => return Err(error.into()),
    };
    Ok(within(shot.timeout, &context.log_name(), bifold_log::survey(&*log, &topics)).await?.ends())
}

async fn ends_of_server(client: &Client) -> Result<Offsets, Exit> {
    let body = client.get("/v1/sources").await?.answer()?.json()?;
    let mut ends = Offsets::default();
    for source in body["sources"].as_array().into_iter().flatten() {
        for partition in source["partitions"].as_array().into_iter().flatten() {
            let number = partition["partition"].as_i64().and_then(|n| i32::try_from(n).ok());
            if let (Value::String(topic), Some(number), Some(end)) =
                (&partition["topic"], number, partition["log_end"].as_i64())
            {
                ends.advance(&bifold_ledger::TopicPartition::new(topic, number), end);
            }
        }
    }
    Ok(ends)
}
