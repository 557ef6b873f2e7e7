//! `bifold demo`: everything in one process on an embedded log, fed with made-up events or a file of yours.

mod shop;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use shop::Shop;

use super::produce::Input;
use super::{batch, verify};
use crate::args::{BatchRun, Common, Demo, OneShot, Output, Verify};
use crate::client::Client;
use crate::context::{Context, configuration};
use crate::exit::Exit;
use crate::output::{coverage_lines, line, table};
use crate::services::{Signals, start_up};

/// The pipeline of the made-up shop.
const PIPELINE: &str = include_str!("../../../examples/shop/pipeline.sql");
/// Events of `--once`.
const ONCE: usize = 60_000;
/// Events sent at once.
const BATCH: usize = 5_000;
/// When the batch run takes part, without `--once`.
const BATCH_AFTER: Duration = Duration::from_secs(6);
/// Rows that are shown of a view.
const SHOWN: usize = 5;

/// What a demo runs with.
struct Stage {
    common: Common,
    context: Context,
    client: Client,
    shot: OneShot,
    source: String,
}

pub(crate) async fn run(common: &Common, demo: Demo) -> Result<(), Exit> {
    if demo.input.is_some() && common.pipeline.is_none() {
        return Err(Exit::Usage("--input needs --pipeline: the SQL that declares the file's columns and views".into()));
    }
    // Held until the end: a folder of its own vanishes with it.
    let (folder, _temporary) = folder(common)?;
    let pipeline = match &common.pipeline {
        Some(pipeline) => PathBuf::from(pipeline),
        None => {
            let path = folder.join("shop.sql");
            std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, PIPELINE)).map_err(Exit::failed)?;
            path
        }
    };
    let common = Common {
        config: common.config.clone(),
        pipeline: Some(pipeline.display().to_string()),
        data_dir: Some(folder.display().to_string()),
        store: common.store.clone(),
        brokers: Some(String::new()),
    };
    let flags = [
        ("serve.listen", demo.listen.clone(), "--listen"),
        ("batch.schedule", Some("off".to_string()), "demo"),
        ("collect.flush_interval", Some("1s".to_string()), "demo"),
        ("speed.epoch_interval", Some("1s".to_string()), "demo"),
    ];
    let flags: Vec<_> = flags.into_iter().filter_map(|(key, value, flag)| Some((key, value?, flag))).collect();
    let context = Context::with(configuration(&common, &flags)?).await?;
    let source = context.pipeline.sources[0].name.clone();
    let mut role = start_up(&context, Some(false)).await?;
    let mut signals = Signals::new()?;
    let started = async {
        if !role.wait_ready().await? {
            return Ok(());
        }
        let shot = OneShot { url: Some(role.url()), timeout: Duration::from_secs(60), output: Some(Output::Table) };
        let client = Client::new(&context.config, &shot);
        line(&format!("bifold runs in this process at {}; its data lies in {}", role.url(), folder.display()))?;
        let stage = Stage { common, context, client, shot, source };
        match &demo.input {
            Some(file) => stage.replay(file, demo.once).await?,
            None if demo.once => stage.shop_once(demo.seed).await?,
            None => stage.shop(demo.seed, demo.rate).await?,
        }
        stage.show().await?;
        if demo.once { stage.verify().await } else { stage.keep_serving(&role.url(), &demo).await }
    };
    let done = tokio::select! {
        done = started => done,
        () = signals.next() => Ok(()),
    };
    let ended = role.end().await;
    done.and(ended)
}

/// The data folder: the one named, else one of its own.
fn folder(common: &Common) -> Result<(PathBuf, Option<Temporary>), Exit> {
    if let Some(folder) = &common.data_dir {
        return Ok((PathBuf::from(folder), None));
    }
    let folder = std::env::temp_dir().join(format!("bifold-demo-{}", uuid::Uuid::new_v4().simple()));
    Ok((folder.clone(), Some(Temporary(folder))))
}

/// A folder that is removed at the end.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "the demo's folder was not removed");
        }
    }
}

impl Stage {
    /// A fixed number of events, with a batch run in the middle.
    async fn shop_once(&self, seed: u64) -> Result<(), Exit> {
        let start = DateTime::parse_from_rfc3339("2026-01-05T08:00:00Z").expect("a time").with_timezone(&Utc);
        let mut shop = Shop::new(seed, start);
        for sent in (0..ONCE).step_by(BATCH) {
            self.send((0..BATCH).map(|_| shop.next()).collect()).await?;
            if sent + BATCH == ONCE / 2 {
                self.batch_run().await?;
            }
        }
        line(&format!("{ONCE} events of a made-up shop were sent (seed {seed})"))
    }

    /// Events at a steady rate, with the views moving and a batch run taking part.
    async fn shop(&self, seed: u64, rate: usize) -> Result<(), Exit> {
        let mut shop = Shop::new(seed, Utc::now());
        let (started, mut sent, mut batched) = (Instant::now(), 0, false);
        line(&format!("a made-up shop sends {rate} events a second (seed {seed}); the views move:"))?;
        while started.elapsed() < 2 * BATCH_AFTER {
            shop.at(Utc::now());
            self.send((0..rate).map(|_| shop.next()).collect()).await?;
            sent += rate;
            line(&format!("  {sent:>7} events sent; {}", self.totals().await?))?;
            if !batched && started.elapsed() >= BATCH_AFTER {
                self.batch_run().await?;
                batched = true;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    /// A file's lines, with a batch run after the first half of what is read before the end.
    async fn replay(&self, file: &std::path::Path, once: bool) -> Result<(), Exit> {
        let mut input = Input::open(file, None, &self.context.source(&self.source)?)?;
        let (mut sent, mut batched) = (0, false);
        loop {
            // The batch run takes part early, also in a short file.
            let lines = input.next(if batched { BATCH } else { BATCH / 20 })?;
            if lines.is_empty() {
                break;
            }
            sent += lines.len();
            self.post(lines).await?;
            line(&format!("  {sent:>7} events sent"))?;
            if !batched {
                self.batch_run().await?;
                batched = true;
            }
            if !once {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        line(&format!("{sent} lines of {} were sent", file.display()))
    }

    async fn send(&self, events: Vec<String>) -> Result<(), Exit> {
        self.post(events.into_iter().map(String::into_bytes).collect()).await
    }

    async fn post(&self, lines: Vec<Vec<u8>>) -> Result<(), Exit> {
        let path = format!("/v1/events/{}", self.source);
        self.client.post(&path, &[], lines.join(&b'\n')).await?.answer()?;
        Ok(())
    }

    async fn totals(&self) -> Result<String, Exit> {
        let reply = self.client.sql("SELECT * FROM totals", Some("latest")).await?.answer()?.json()?;
        let row = &reply["rows"][0];
        let revenue = row["revenue"].as_str().unwrap_or("0");
        Ok(format!("counted {}, purchases {}, revenue {revenue}", row["events"], row["purchases"]))
    }

    async fn batch_run(&self) -> Result<(), Exit> {
        line("a batch run recomputes the views from the archive and takes over what it covers:")?;
        let run = BatchRun { views: vec![], full: false, at_least: Some("latest".into()), shot: self.shot.clone() };
        batch::run(&self.common, run).await
    }

    /// An answer of each view, with what it covers.
    async fn show(&self) -> Result<(), Exit> {
        for view in &self.context.views {
            // The newest window first, in it the largest of the first aggregate.
            let aggregate =
                view.output.fields().iter().map(|field| field.name()).find(|name| !view.keys.contains(name));
            let order: Vec<String> =
                view.time_column.iter().chain(aggregate).map(|column| format!("\"{column}\" DESC")).collect();
            let order = if view.keys.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
            let sql = format!("SELECT * FROM \"{}\"{order} LIMIT {SHOWN}", view.name);
            let body = self.client.sql(&sql, Some("latest")).await?.answer()?.json()?;
            let columns: Vec<&str> =
                body["columns"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
            let rows: Vec<Value> = body["rows"].as_array().cloned().unwrap_or_default();
            line(&format!("\n{sql}"))?;
            line(&table(&columns, &rows))?;
            for covered in coverage_lines(&body["coverage"]) {
                line(&covered)?;
            }
        }
        Ok(())
    }

    async fn verify(&self) -> Result<(), Exit> {
        line("\nevery view against plain SQL over the archived bytes (bifold verify):")?;
        verify::run(&self.common, Verify { views: vec![], offline: false, shot: self.shot.clone() }).await
    }

    /// Says what to try, and goes on until Ctrl-C.
    async fn keep_serving(&self, url: &str, demo: &Demo) -> Result<(), Exit> {
        let view = self.context.views.first().map_or("totals", |view| view.name.as_str());
        line("\nIt goes on until Ctrl-C. Try:")?;
        line(&format!(
            "  curl -s {url}/v1/sql -d '{{\"sql\": \"SELECT * FROM {view} LIMIT 5\", \"at_least\": \"latest\"}}'"
        ))?;
        line(&format!("  curl -s '{url}/v1/views/{view}/rows?limit=5'"))?;
        line(&format!("  curl -s {url}/v1/sources"))?;
        let mut shop = Shop::new(demo.seed + 1, Utc::now());
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if demo.input.is_none() {
                shop.at(Utc::now());
                self.send((0..demo.rate).map(|_| shop.next()).collect()).await?;
            }
        }
    }
}
