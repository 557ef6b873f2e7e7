//! `bifold demo`: everything in one process on an embedded log, fed with made-up events or a file of yours.

mod screen;
mod shop;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bifold_batch::progress::Progress;
use bifold_fold::View;
use chrono::{DateTime, Utc};
use ratatui::text::Line;
use screen::Screen;
use serde_json::Value;
use shop::Shop;

use super::produce::{Input, Reading};
use super::top::picture::source_lines;
use super::top::status::Watch;
use super::{batch, verify};
use crate::args::{BatchRun, Common, Demo, OneShot, Output, Verify};
use crate::client::Client;
use crate::context::{Context, configuration, within};
use crate::exit::Exit;
use crate::output::{coverage_lines, table};
use crate::progress::shown;
use crate::services::{Signals, start_up};

/// The pipeline of the made-up shop.
const PIPELINE: &str = include_str!("../../../examples/shop/pipeline.sql");
/// Events of `--once`.
const ONCE: usize = 60_000;
/// Events sent at once.
const BATCH: usize = 5_000;
/// When the first batch run takes part, without `--once`.
const BATCH_AFTER: Duration = Duration::from_secs(6);
/// When the others do.
const BATCH_EVERY: Duration = Duration::from_secs(60);
/// How often plain lines tell of the events, after the first batch run.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Rows that are shown of a view.
const SHOWN: usize = 5;

/// What a demo runs with.
struct Stage {
    common: Common,
    context: Context,
    client: Client,
    shot: OneShot,
    source: String,
    screen: Screen,
    watch: Watch,
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
        brokers: Some(common.brokers.clone().unwrap_or_default()),
    };
    let flags = [
        ("serve.listen", demo.listen.clone(), "--listen"),
        ("batch.schedule", Some("off".to_string()), "demo"),
        ("collect.flush_interval", Some("1s".to_string()), "demo"),
        ("speed.epoch_interval", Some("1s".to_string()), "demo"),
    ];
    let flags: Vec<_> = flags.into_iter().filter_map(|(key, value, flag)| Some((key, value?, flag))).collect();
    let context = Context::with(configuration(&common, &flags)?).await?;
    create_topics(&context, demo.append).await?;
    let mut role = start_up(&context, Some(false)).await?;
    let (mut while_starting, mut signals) = (Signals::new()?, Signals::new()?);
    let started = async {
        if !role.wait_ready(&mut while_starting).await? {
            return Ok(());
        }
        let place = format!("bifold runs in this process at {}; its data lies in {}", role.url(), folder.display());
        let mut stage = Stage::new(common, context, role.url());
        stage.screen.say(&place)?;
        stage.play(&demo).await
    };
    let done = tokio::select! {
        done = started => done,
        () = signals.next() => Ok(()),
    };
    let ended = role.end().await;
    done.and(ended)
}

/// Makes the topics on a Kafka; the local log's are made where it is opened. Records that somebody else has there stay alone, unless one says so.
async fn create_topics(context: &Context, append: bool) -> Result<(), Exit> {
    if context.is_local() {
        return Ok(());
    }
    let log = context.log()?;
    for topic in context.pipeline.sources.iter().flat_map(|source| &source.topics) {
        let made = log.create_topic(topic, context.config.log.partitions);
        within(context.config.startup_timeout.unwrap_or(Duration::MAX), &context.log_name(), made).await?;
    }
    for source in context.pipeline.sources.iter().filter(|_| !append) {
        // A demo that goes on after it was killed knows its own records.
        let journal = bifold_store::Journal::open(context.files(&source.name)?, "cli").await?;
        if journal.ledger().exists() {
            continue;
        }
        let found = bifold_log::survey(&*log, &source.topics).await?;
        if let Some((at, _)) = found.bounds.iter().find(|(_, bounds)| bounds.end > 0) {
            return Err(Exit::Usage(format!(
                "the topic {} holds records already, and the demo would send made-up ones into it; name another pipeline with \
                 --pipeline, or say --append",
                at.topic
            )));
        }
    }
    Ok(())
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
    fn new(common: Common, context: Context, url: String) -> Self {
        let shot = OneShot { url: Some(url), timeout: Duration::from_secs(60), output: Some(Output::Table) };
        let source = context.pipeline.sources[0].name.clone();
        let client = Client::new(&context.config, &shot);
        let watch = Watch::new(Client::new(&context.config, &shot), vec![]);
        Self { common, context, client, shot, source, screen: Screen::plain(), watch }
    }

    async fn play(&mut self, demo: &Demo) -> Result<(), Exit> {
        match &demo.input {
            Some(file) => self.replay(file, demo.once).await?,
            None if demo.once => self.shop_once(demo.seed).await?,
            None => self.shop(demo).await?,
        }
        self.screen.close();
        self.show().await?;
        if demo.once || demo.time.is_some() {
            return self.verify().await;
        }
        self.hint()?;
        std::future::pending().await
    }

    /// A fixed number of events, with a batch run in the middle.
    async fn shop_once(&mut self, seed: u64) -> Result<(), Exit> {
        let start = DateTime::parse_from_rfc3339("2026-01-05T08:00:00Z").expect("a time").with_timezone(&Utc);
        let mut shop = Shop::new(seed, start);
        for sent in (0..ONCE).step_by(BATCH) {
            self.send((0..BATCH).map(|_| shop.next()).collect()).await?;
            if sent + BATCH == ONCE / 2 {
                self.batch_run().await?;
            }
        }
        self.screen.say(&format!("{ONCE} events of a made-up shop were sent (seed {seed})"))
    }

    /// Events at a steady rate, with the views moving and batch runs taking part: so long, or until Ctrl-C.
    async fn shop(&mut self, demo: &Demo) -> Result<(), Exit> {
        let (rate, seed) = (demo.rate, demo.seed);
        let mut shop = Shop::new(seed, Utc::now());
        self.screen.say(&format!("a made-up shop sends {rate} events a second (seed {seed}); the views move:"))?;
        self.screen = Screen::with_picture();
        let (started, mut sent, mut batch_due, mut hinted) = (Instant::now(), 0, BATCH_AFTER, false);
        let mut tell_due = Duration::ZERO;
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        while demo.time.is_none_or(|time| started.elapsed() < time) {
            seconds.tick().await;
            shop.at(Utc::now());
            self.send((0..rate).map(|_| shop.next()).collect()).await?;
            sent += rate;
            if self.screen.has_picture() {
                self.draw(None).await?;
            } else if started.elapsed() >= tell_due {
                let totals = self.totals().await?;
                self.screen.say(&format!("  {sent:>7} events sent; {totals}"))?;
                tell_due = if hinted { started.elapsed() + TELL_EVERY } else { Duration::ZERO };
            }
            if started.elapsed() >= batch_due {
                self.batch_run().await?;
                batch_due = started.elapsed() + BATCH_EVERY;
            }
            if !hinted && started.elapsed() >= 2 * BATCH_AFTER {
                hinted = true;
                self.show().await?;
                self.hint()?;
            }
        }
        self.screen.say(&format!("{sent} events were sent (seed {seed})"))
    }

    /// The layers' state, the first view's newest rows, and how far a batch run has come.
    async fn draw(&mut self, batch: Option<&Progress>) -> Result<(), Exit> {
        let status = self.watch.look().await?;
        let mut lines: Vec<Line<'static>> = status.sources.iter().flat_map(source_lines).collect();
        let reached = batch.map(Progress::reached);
        lines.push(Line::from(reached.map_or(String::new(), |reached| {
            format!("  {}: {} of {} rows", reached.what, reached.rows, reached.of.max(reached.rows))
        })));
        if let Some(sql) = self.context.views.first().map(|view| newest_rows(view.any())) {
            let (text, _) = self.answer(&sql).await?;
            lines.extend(text.lines().map(|line| Line::from(line.to_string())));
        }
        self.screen.draw(lines)
    }

    /// A file's lines, with a batch run after the first half of what is read before the end.
    async fn replay(&mut self, file: &std::path::Path, once: bool) -> Result<(), Exit> {
        let mut input = Input::open(file, Reading::default(), &self.context.source(&self.source)?)?;
        let (mut sent, mut batched) = (0, false);
        loop {
            // The batch run takes part early, also in a short file.
            let lines = input.next(if batched { BATCH } else { BATCH / 20 })?;
            if lines.is_empty() {
                break;
            }
            sent += lines.len();
            self.post(lines.into_iter().map(|(_, line)| line).collect()).await?;
            self.screen.say(&format!("  {sent:>7} events sent"))?;
            if !batched {
                self.batch_run().await?;
                batched = true;
            }
            if !once {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        self.screen.say(&format!("{sent} lines of {} were sent", file.display()))
    }

    async fn send(&self, events: Vec<String>) -> Result<(), Exit> {
        self.post(events.into_iter().map(String::into_bytes).collect()).await
    }

    async fn post(&self, lines: Vec<Vec<u8>>) -> Result<(), Exit> {
        self.client.post_events(&self.source, &[], lines.join(&b'\n')).await?.answer()?;
        Ok(())
    }

    async fn totals(&self) -> Result<String, Exit> {
        let reply = self.client.sql("SELECT * FROM totals", Some("latest")).await?.answer()?.json()?;
        let row = &reply["rows"][0];
        let revenue = row["revenue"].as_str().unwrap_or("0");
        // Dead letters show once they are durable; until then they are what the answer covers and does not count.
        let partitions = reply["coverage"][0]["partitions"].as_array().cloned().unwrap_or_default();
        let covered: i64 =
            partitions.iter().filter_map(|part| Some(part["speed"][1].as_i64()? - part["batch"][0].as_i64()?)).sum();
        let bad = covered - row["events"].as_i64().unwrap_or(0);
        Ok(format!("counted {}, malformed {bad}, purchases {}, revenue {revenue}", row["events"], row["purchases"]))
    }

    async fn batch_run(&mut self) -> Result<(), Exit> {
        self.screen.say("a batch run recomputes the views from the archive and takes over what it covers:")?;
        let run = BatchRun { views: vec![], full: false, at_least: Some("latest".into()), shot: self.shot.clone() };
        let (common, progress) = (self.common.clone(), Progress::default());
        let (rows, ended) = if self.screen.has_picture() {
            let told = progress.clone();
            let working = tokio::spawn(async move { batch::reports(&common, &run, &progress).await });
            while !working.is_finished() {
                self.draw(Some(&told)).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            working.await.map_err(Exit::failed)??
        } else {
            shown(&progress, batch::reports(&common, &run, &progress)).await?
        };
        self.screen.say(&table(&batch::COLUMNS, &rows))?;
        ended
    }

    /// The rows of a query as a table, and what they cover in words.
    async fn answer(&self, sql: &str) -> Result<(String, Vec<String>), Exit> {
        let body = self.client.sql(sql, Some("latest")).await?.answer()?.json()?;
        let columns: Vec<&str> =
            body["columns"].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect();
        let rows: Vec<Value> = body["rows"].as_array().cloned().unwrap_or_default();
        Ok((table(&columns, &rows), coverage_lines(&body["coverage"])))
    }

    /// An answer of each view, with what it covers.
    async fn show(&mut self) -> Result<(), Exit> {
        for view in self.context.views.clone() {
            let sql = newest_rows(view.any());
            let (rows, coverage) = self.answer(&sql).await?;
            self.screen.say(&format!("\n{sql}\n{rows}\n{}", coverage.join("\n")))?;
        }
        Ok(())
    }

    async fn verify(&mut self) -> Result<(), Exit> {
        self.screen.say("\nevery view against plain SQL over the archived bytes (bifold verify):")?;
        verify::run(&self.common, Verify { views: vec![], offline: false, shot: self.shot.clone() }).await
    }

    /// Says what to try.
    fn hint(&mut self) -> Result<(), Exit> {
        let view = self.context.views.first().map_or("totals", |view| view.any().name.as_str());
        let url = self.client.url().to_string();
        self.screen.say(&format!(
            "\nIt goes on until Ctrl-C. Try:\n  \
             curl -s {url}/v1/sql -d '{{\"sql\": \"SELECT * FROM {view} LIMIT 5\", \"at_least\": \"latest\"}}'\n  \
             curl -s '{url}/v1/views/{view}/rows?limit=5'\n  \
             curl -s {url}/v1/sources\n  \
             bifold top --url {url}"
        ))
    }
}

/// The newest window first, in it the largest of the first aggregate.
fn newest_rows(view: &View) -> String {
    let aggregate = view.output.fields().iter().map(|field| field.name()).find(|name| !view.keys.contains(name));
    let order: Vec<String> =
        view.time_column.iter().chain(aggregate).map(|column| format!("\"{column}\" DESC")).collect();
    let order = if view.keys.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
    format!("SELECT * FROM \"{}\"{order} LIMIT {SHOWN}", view.name)
}
