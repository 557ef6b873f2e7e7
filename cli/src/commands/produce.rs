//! `bifold produce`: NDJSON, CSV or Parquet into a source's topic.

mod input;
mod pace;
mod shift;
mod tally;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bifold_ledger::Offsets;
use bifold_log::{LocalLog, Log, NewRecord};
use bifold_service::Shutdown;
use serde_json::{Value, json};

use crate::args::{Common, OneShot, Produce, ShiftTime};
use crate::client::Client;
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;
use crate::services::Signals;

pub(crate) use input::{Input, Reading};
use pace::Pace;
use shift::Shift;
use tally::Tally;

/// Records sent at once.
const BATCH: usize = 20_000;
/// How long records that are under way are waited for when `--loop` is stopped.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Where records go.
enum Target {
    Log(Arc<dyn Log>),
    Server(Client),
}

pub(crate) async fn run(common: &Common, produce: Produce) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let source = context.source(&produce.source)?;
    if let Some(key) = &produce.key {
        source.check_key(key).map_err(|why| Exit::Usage(format!("--key: {why}")))?;
    }
    let topic = source.topics[0].clone();
    let target = target(&context, &produce.shot).await?;
    if let Target::Log(log) = &target {
        let described =
            within(produce.shot.timeout, &context.log_name(), log.describe(std::slice::from_ref(&topic))).await?;
        let partitions = match (produce.create_topic, context.is_local()) {
            (Some(partitions), _) => Some(partitions),
            (None, true) => Some(context.config.log.partitions),
            (None, false) => None,
        };
        match partitions {
            _ if described.contains_key(&topic) => {}
            Some(partitions) => log.create_topic(&topic, partitions).await?,
            None => {
                let hint = "create it, or let --create-topic PARTITIONS do it";
                return Err(Exit::Failed(format!("topic {topic} does not exist; {hint}")));
            }
        }
    }
    let mut shift = match produce.shift_time {
        Some(ShiftTime::Now) => Some(Shift::new(&source).ok_or_else(|| {
            Exit::Usage(format!("--shift-time: source {} has no event time (WATERMARK FOR …)", source.name))
        })?),
        None => None,
    };
    let files = if produce.files.is_empty() { vec![PathBuf::from("-")] } else { produce.files.clone() };
    if produce.r#loop && files.iter().any(|file| file.as_os_str() == "-") {
        return Err(Exit::Usage("--loop reads files again and again, which standard input cannot be".to_string()));
    }
    let (mut records, mut ends) = (0, Offsets::default());
    let mut pace = Pace::new(produce.rate);
    let mut tally = Tally::new(&source);
    let mut from_line = produce.from_line;
    // Without --loop a signal ends the process at once, as it does elsewhere.
    let stop = Shutdown::new();
    if produce.r#loop {
        tokio::spawn(stop_at_a_signal(Signals::new()?, stop.clone()));
    }
    'reading: loop {
        let before = records;
        for file in &files {
            let reading = Reading { format: produce.format, delimiter: produce.delimiter, from_line };
            from_line = 1;
            let mut input = Input::open(file, reading, &source)?;
            loop {
                let first = input.next_line();
                let go_on = || format!("go on with --from-line {first} of {}", file.display());
                let lines = match input.next(pace.batch(BATCH)) {
                    Ok(lines) if lines.is_empty() => break,
                    Ok(lines) => lines,
                    Err(failure) => {
                        pace.end();
                        return Err(with_more(
                            failure,
                            &format!("{}; fix the file, then {}", so_far(records, &ends), go_on()),
                        ));
                    }
                };
                let now = chrono::Utc::now();
                let lines: Vec<Vec<u8>> = lines
                    .into_iter()
                    .map(|(number, line)| {
                        let line = match &mut shift {
                            Some(shift) => shift.apply(line, now),
                            None => line,
                        };
                        tally.add(&line, || format!("line {number} of {}", file.display()));
                        line
                    })
                    .collect();
                let count = lines.len();
                let reached = match send(&target, &context.log_name(), &produce, &topic, lines).await {
                    Ok(reached) => reached,
                    Err(failure) => {
                        pace.end();
                        let next = match &failure {
                            // The server has refused them.
                            Exit::Usage(_) => format!("none of the next {count} is in"),
                            _ => format!("of the next {count} it is not known whether they are in"),
                        };
                        let said = format!("{}; {next}; {}", so_far(records, &ends), go_on());
                        return Err(with_more(failure, &said));
                    }
                };
                (records, ends) = (records + count, ends.max(&reached));
                let part = input.bytes.map(|bytes| (input.read(), bytes));
                tokio::select! {
                    () = pace.sent(count, part.filter(|_| files.len() == 1 && !produce.r#loop)) => {}
                    () = stop.cancelled() => break 'reading,
                }
            }
        }
        if !produce.r#loop {
            break;
        }
        if records == before {
            return Err(Exit::Usage("--loop: there is no record in these files".to_string()));
        }
    }
    pace.end();
    if let Some(warning) = tally.warning() {
        eprintln!("warning: {warning}");
    }
    let last = json!({ "source": produce.source, "records": records, "offsets": ends.to_string() });
    output::objects(produce.shot.output(), &["source", "records", "offsets"], &[last])
}

/// The first signal lets the records come in that are under way. A second one ends the process, and so it ends where they take too long.
async fn stop_at_a_signal(mut signals: Signals, stop: Shutdown) {
    signals.next().await;
    stop.cancel();
    tokio::select! {
        () = signals.next() => {}
        () = tokio::time::sleep(STOP_WITHIN) => {}
    }
    eprintln!("error: stopped while records were under way: of the last ones it is not known whether they are in");
    std::process::exit(1);
}

/// What is in for certain.
fn so_far(records: usize, ends: &Offsets) -> String {
    match records {
        0 => "no record was acknowledged".to_string(),
        records => format!("{records} records were acknowledged (up to {ends})"),
    }
}

/// A failure in the middle, with how far it came.
fn with_more(failure: Exit, more: &str) -> Exit {
    let said = format!("{failure}\n{more}");
    match failure {
        Exit::Usage(_) => Exit::Usage(said),
        _ => Exit::Failed(said),
    }
}

/// Kafka; else the running server; else the local log.
async fn target(context: &Context, shot: &OneShot) -> Result<Target, Exit> {
    if !context.is_local() {
        return Ok(Target::Log(context.log()?));
    }
    let client = Client::new(&context.config, shot);
    if client.get("/healthz").await.is_ok() {
        return Ok(Target::Server(client));
    }
    match LocalLog::open(&context.config.data_dir.join("log")) {
        Ok(log) => Ok(Target::Log(Arc::new(log))),
        Err(error) => Err(Exit::Failed(format!("{error}; no server answers at {} either", client.url()))),
    }
}

async fn send(target: &Target, at: &str, produce: &Produce, topic: &str, lines: Vec<Vec<u8>>) -> Result<Offsets, Exit> {
    match target {
        Target::Log(log) => {
            let record = |line: Vec<u8>| NewRecord {
                key: produce.key.as_deref().and_then(|key| bifold_serving::key_of(&line, key)),
                value: Some(line),
            };
            let appended = log.append(topic, lines.into_iter().map(record).collect());
            within(produce.shot.timeout, at, appended).await
        }
        Target::Server(client) => {
            let mut body = lines.join(&b'\n');
            body.push(b'\n');
            let mut query = vec![("topic", topic)];
            query.extend(produce.key.as_deref().map(|key| ("key", key)));
            let reply = client.post_events(&produce.source, &query, body).await?.answer()?.json()?;
            match &reply["offsets"] {
                Value::String(text) => text.parse().map_err(Exit::failed),
                _ => Err(Exit::Failed("the server's answer names no offsets".to_string())),
            }
        }
    }
}
