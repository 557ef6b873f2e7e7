//! Events per CPU-second from a Kafka topic to queryable state: `bifold speed` alone, pinned to one core.
//!
//! ```text
//! bench/topic-to-state.sh [EVENTS]       starts a broker, builds, runs this
//! bifold-bench BIFOLD BROKERS [EVENTS]   measures the binary BIFOLD on a running broker
//! ```
//!
//! The events are about 190 bytes of JSON; the view counts, sums and counts distinct users by minute, region and action.
//! CPU seconds are the process's own (`/proc/PID/stat`, all threads, librdkafka's included), from start until every
//! event is folded; the share of each thread is printed as the profile.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PIPELINE: &str = r#"
CREATE TABLE events (
  time TIMESTAMP, "user" TEXT, region TEXT, action TEXT, amount BIGINT, session TEXT, page TEXT,
  WATERMARK FOR time AS time - INTERVAL '10 seconds'
) WITH (connector = 'kafka', topic = 'TOPIC', format = 'json');

CREATE MATERIALIZED VIEW by_minute AS
SELECT tumble(time, INTERVAL '1 minute') AS minute, region, action,
       count(*) AS events, sum(amount) AS amount, approx_distinct("user") AS users
FROM events GROUP BY 1, 2, 3;
"#;

const PARTITIONS: usize = 4;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, bifold, brokers, rest @ ..] = &arguments[..] else { bail!("usage: bifold-bench BIFOLD BROKERS [EVENTS]") };
    let events: usize = rest.first().map_or(Ok(5_000_000), |text| text.parse())?;
    let folder = std::env::temp_dir().join(format!("bifold-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measured = measure(bifold, brokers, events, &folder);
    std::fs::remove_dir_all(&folder)?;
    println!("{}", measured?);
    Ok(())
}

fn measure(bifold: &str, brokers: &str, events: usize, folder: &Path) -> Result<serde_json::Value> {
    let topic = format!("bench-{}", std::process::id());
    std::fs::write(folder.join("pipeline.sql"), PIPELINE.replace("TOPIC", &topic))?;
    let bytes = produce(bifold, brokers, events, folder)?;
    let mut speed = command(bifold, brokers, folder, "speed")
        .args(["--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start bifold speed")?;
    let measured = follow(&mut speed, events);
    speed.kill()?;
    speed.wait()?;
    let (cpu, wall, threads) = measured?;
    Ok(serde_json::json!({
        "events": events,
        "bytes_per_event": bytes as f64 / events as f64,
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "events_per_cpu_second": (events as f64 / cpu).round(),
        "cpu_seconds_by_thread": threads,
    }))
}

/// `bifold` with the benchmark's pipeline, pinned to one core where it is a service.
fn command(bifold: &str, brokers: &str, folder: &Path, word: &str) -> Command {
    let mut command = match word {
        "speed" => {
            let mut pinned = Command::new("taskset");
            pinned.args(["-c", "0", bifold]);
            pinned
        }
        _ => Command::new(bifold),
    };
    command.arg(word).current_dir(folder).args([
        "--brokers",
        brokers,
        "--data-dir",
        "data",
        "--pipeline",
        "pipeline.sql",
    ]);
    command.env("BIFOLD_LOG", "warn").env("BIFOLD_KAFKA__GROUP_PREFIX", format!("bench-{}", std::process::id()));
    command
}

/// Fills the topic; gives the bytes of all events.
fn produce(bifold: &str, brokers: &str, events: usize, folder: &Path) -> Result<usize> {
    let mut child = command(bifold, brokers, folder, "produce")
        .args(["events", "--create-topic", &PARTITIONS.to_string(), "--timeout", "10m"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start bifold produce")?;
    let mut input = std::io::BufWriter::with_capacity(1 << 20, child.stdin.take().context("stdin is piped")?);
    let mut random = StdRng::seed_from_u64(7);
    let mut bytes = 0;
    for i in 0..events {
        let line = event(&mut random, i);
        bytes += line.len();
        input.write_all(line.as_bytes())?;
        input.write_all(b"\n")?;
    }
    drop(input);
    ensure!(child.wait()?.success(), "bifold produce failed");
    Ok(bytes)
}

fn event(random: &mut StdRng, i: usize) -> String {
    const REGIONS: [&str; 8] =
        ["us-east", "us-west", "eu-west", "eu-north", "ap-south", "ap-east", "sa-east", "af-south"];
    const ACTIONS: [&str; 5] = ["view", "click", "search", "cart", "purchase"];
    let seconds = i / 5_000;
    let (minute, second, millis) = (seconds / 60 % 60, seconds % 60, i % 1_000);
    format!(
        "{{\"time\":\"2026-03-01T{:02}:{minute:02}:{second:02}.{millis:03}Z\",\"user\":\"user-{:06}\",\"region\":\"{}\",\
         \"action\":\"{}\",\"amount\":{},\"session\":\"{:016x}\",\"page\":\"/products/{}/details?from=newsletter\"}}",
        seconds / 3_600 % 24,
        random.random_range(0..200_000),
        REGIONS[random.random_range(0..REGIONS.len())],
        ACTIONS[random.random_range(0..ACTIONS.len())],
        random.random_range(0..10_000),
        random.random::<u64>(),
        random.random_range(0..50_000),
    )
}

/// Waits until the process has folded all events: CPU seconds, wall seconds, CPU seconds by thread.
fn follow(speed: &mut Child, events: usize) -> Result<(f64, f64, BTreeMap<String, f64>)> {
    let started = Instant::now();
    let mut line = String::new();
    BufReader::new(speed.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
    let ready: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("no ready line: {line:?}"))?;
    let url = ready["url"].as_str().context("a url")?.to_string();
    let address = url.trim_start_matches("http://").to_string();
    loop {
        let folded = metric(&address, "bifold_folded_events_total")?;
        if folded >= events as f64 {
            let threads = cpu_by_thread(speed.id())?;
            return Ok((threads.values().sum(), started.elapsed().as_secs_f64(), threads));
        }
        ensure!(started.elapsed() < Duration::from_secs(600), "only {folded} of {events} events were folded");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The sum of a metric's samples.
fn metric(address: &str, name: &str) -> Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let samples = text.lines().filter(|line| line.starts_with(name));
    Ok(samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

/// CPU seconds of each thread by name, from the scheduler's own accounting.
fn cpu_by_thread(process: u32) -> Result<BTreeMap<String, f64>> {
    let mut threads: BTreeMap<String, f64> = BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let path = task?.path();
        let name = std::fs::read_to_string(path.join("comm"))?.trim().to_string();
        let schedstat = std::fs::read_to_string(path.join("schedstat"))?;
        let nanos: f64 = schedstat.split_whitespace().next().context("a figure")?.parse()?;
        *threads.entry(name).or_default() += nanos / 1e9;
    }
    Ok(threads)
}
