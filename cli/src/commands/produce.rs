//! `bifold produce`: NDJSON into a source's topic.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bifold_ledger::Offsets;
use bifold_log::{LocalLog, Log, NewRecord};
use serde_json::{Value, json};

use crate::args::{Common, OneShot, Produce};
use crate::client::Client;
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;

/// Lines sent at once.
const BATCH_LINES: usize = 20_000;
/// Bytes sent at once.
const BATCH_BYTES: usize = 8 << 20;

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
    let files = if produce.files.is_empty() { vec![PathBuf::from("-")] } else { produce.files.clone() };
    let (mut records, mut ends) = (0, Offsets::default());
    for file in files {
        let mut reader = open(&file)?;
        loop {
            let lines =
                read_lines(&mut *reader, BATCH_LINES).map_err(|e| Exit::Failed(format!("{}: {e}", file.display())))?;
            if lines.is_empty() {
                break;
            }
            records += lines.len();
            let reached = send(&target, &context.log_name(), &produce, &topic, lines).await?;
            ends = ends.max(&reached);
        }
    }
    let last = json!({ "source": produce.source, "records": records, "offsets": ends.to_string() });
    output::objects(produce.shot.output(), &["source", "records", "offsets"], &[last])
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

pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>, Exit> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(path).map_err(|e| Exit::Usage(format!("cannot read {}: {e}", path.display())))?;
    let plain: Box<dyn Read + Send> = match path.extension().is_some_and(|extension| extension == "gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    Ok(Box::new(BufReader::with_capacity(1 << 20, plain)))
}

/// The next lines, at most `most`, without the empty ones.
pub(crate) fn read_lines(reader: &mut dyn BufRead, most: usize) -> std::io::Result<Vec<Vec<u8>>> {
    let (mut lines, mut bytes) = (vec![], 0);
    while lines.len() < most && bytes < BATCH_BYTES {
        let mut line = vec![];
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !line.is_empty() && line != b"\r" {
            bytes += line.len();
            lines.push(line);
        }
    }
    Ok(lines)
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
            let path = format!("/v1/events/{}", produce.source);
            let reply = client.post(&path, &query, body).await?.answer()?.json()?;
            match &reply["offsets"] {
                Value::String(text) => text.parse().map_err(Exit::failed),
                _ => Err(Exit::Failed("the server's answer names no offsets".to_string())),
            }
        }
    }
}
