//! The command line. What each command's `--help` says is written here.

use std::path::PathBuf;
use std::time::Duration;

use bifold_ledger::TopicPartition;
use clap::{Args, Parser, Subcommand, ValueEnum};

/// One SQL view over a Kafka topic, exact from history and stream together.
///
/// Write a pipeline (CREATE TABLE over a topic, CREATE MATERIALIZED VIEW as an aggregate), then run it with `bifold up`.
/// Every answer says what it covers: per partition, the offsets from the batch view and those from the stream.
#[derive(Parser, Debug)]
#[command(name = "bifold", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command. Each overrides the environment, which overrides the configuration file.
#[derive(Args, Debug, Clone)]
pub(crate) struct Common {
    /// The configuration file [default: $BIFOLD_CONFIG, else ./bifold.toml if there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// The pipeline: a file, or a folder whose *.sql are read in order of name
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) pipeline: Option<String>,
    /// Where the local log, scratch files and the default store lie
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) data_dir: Option<String>,
    /// The object store: a path, file://, s3://bucket/prefix, gs://, az://
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Kafka's bootstrap servers; without any, the embedded local log is used
    #[arg(long, global = true, value_name = "HOST:PORT,…")]
    pub(crate) brokers: Option<String>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run everything in one process: collect, speed, batch schedule, serve
    ///
    /// Without brokers it runs on an embedded log and a local directory: nothing else has to be installed. Prints one
    /// line when it is ready. SIGTERM or Ctrl-C commits what is folded and exits 0.
    Up(Service),
    /// Archive the topics (batch layer): Kafka to Parquet, exactly once
    Collect(Service),
    /// Fold the topics as they arrive (speed layer) and commit epochs
    Speed(Service),
    /// Answer REST and SQL (serving layer); any number of them may run
    Serve(Service),
    /// Batch runs
    Batch {
        #[command(subcommand)]
        command: BatchCommand,
    },
    /// Recompute views from the archived bytes and compare with what is served
    ///
    /// Asks the server for each view's rows, waits until the archive reaches what they cover, runs the view's SQL as an
    /// ordinary query over rows decoded again from the original bytes, and compares. Exits 3 on any difference, or if a
    /// stored file is damaged, and names the groups or the file.
    Verify(Verify),
    /// Ask the server: any read-only SELECT over views
    Query(Query),
    /// List the views of the store: version, state, how far they reach
    Views(OneShot),
    /// Watch the services: lag, rates, memory, epochs, what is covered by which layer; q ends it
    ///
    /// On a terminal it draws every second. Otherwise it prints one JSON object and ends.
    Top(Top),
    /// Check the pipeline without running it
    ///
    /// Reads the store, too, where there is one: views that keep the SQL dialect that they were declared under are named, with what
    /// that gets wrong.
    Check(Check),
    /// Say what starting this pipeline would do: new versions, what made them, what has to be built again
    ///
    /// Changes nothing. Exits 0 if nothing would change, else 4.
    Plan(OneShot),
    /// Declare views again under today's SQL dialect, beside the versions that answer now
    ///
    /// An upgrade of bifold changes no answer: a view keeps the dialect that it was declared under. This moves it on; the version
    /// before answers until a batch run has built the new one.
    Upgrade(Upgrade),
    /// List the files that hold a source's archive, or its batch views, now
    ///
    /// Other tools read the archive's Parquet by this list: by a pattern of names they would read rows twice, once in files that were
    /// joined into another one and are not deleted yet.
    Files(Files),
    /// List the records of a source that could not be decoded, with reason and bytes
    DeadLetters(DeadLetters),
    /// Leave a range of offsets out of every view, or end that; without a range, list what is left out
    ///
    /// Takes effect with the batch run that leaves the range out; until then every answer that counts it names it in
    /// pending_holes. What lies in batch views already needs `bifold batch run --full`.
    Quarantine(Quarantine),
    /// Go on without offsets that are neither in Kafka nor in the archive
    ///
    /// Collect and speed stop a partition whose next offsets have been deleted. This records, for good, that they are lost;
    /// every answer then names them in holes.
    AcceptLoss(AcceptLoss),
    /// Account for every offset and every event of a source: against the log, the archive and each view
    ///
    /// Every offset is archived, absent in the log (markers, aborted transactions), or lost; every event is counted, filtered,
    /// deduplicated or quarantined by each view. Exits 3 if it does not come out even.
    Audit(Audit),
    /// Append records to a source's topic: NDJSON as it is, one line, one record; CSV and Parquet as JSON, a row each
    ///
    /// With brokers it produces to Kafka; without, it posts to the running server, and if none answers, opens the local
    /// log itself.
    Produce(Produce),
    /// See it work: a made-up shop's events, or yours, on an embedded log
    ///
    /// With --brokers the events go to a topic of that Kafka, which is created if it does not exist.
    Demo(Demo),
}

#[derive(Subcommand, Debug)]
pub(crate) enum BatchCommand {
    /// Recompute batch views from the archive and publish them
    ///
    /// Works beside running services or without them. It neither archives nor folds: without services the boundary is
    /// what the ledger allows.
    Run(BatchRun),
    /// List what the last runs did, newest last
    Runs(OneShot),
    /// Run by batch.schedule until it is stopped: a service of its own, as a part of `up` does
    ///
    /// A run that was missed is made up once, at once; runs of one source never overlap. Cron expressions are in UTC.
    Schedule(Service),
}

/// A service.
#[derive(Args, Debug)]
pub(crate) struct Service {
    /// Where to listen; port 0 is any free one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
}

/// Flags of one-shot commands.
#[derive(Args, Debug, Clone)]
pub(crate) struct OneShot {
    /// The server [default: the configured serve.listen]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How long to wait for what is asked for or cannot be reached
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
    /// How to print [default: table on a terminal, else json]
    #[arg(long, value_enum)]
    pub(crate) output: Option<Output>,
}

/// How results are printed.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// One object a line; of `query`, the body.
    Json,
    /// With a header line.
    Csv,
}

#[derive(Args, Debug)]
pub(crate) struct BatchRun {
    /// Only this view (repeat for several)
    #[arg(long = "view", value_name = "VIEW")]
    pub(crate) views: Vec<String>,
    /// From the origin, not from the last batch view
    #[arg(long)]
    pub(crate) full: bool,
    /// Wait until the boundary reaches this: topic/partition:next[,…], or latest
    #[arg(long, value_name = "OFFSETS")]
    pub(crate) at_least: Option<String>,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The views [default: all]
    #[arg(value_name = "VIEW")]
    pub(crate) views: Vec<String>,
    /// Without a server: merge from the store at the durable frontier
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Query {
    /// The SELECT
    #[arg(value_name = "SQL")]
    pub(crate) sql: String,
    /// Wait until the answer reaches this: topic/partition:next[,…], or latest
    #[arg(long, value_name = "OFFSETS")]
    pub(crate) at_least: Option<String>,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Check {
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Upgrade {
    /// The views
    #[arg(value_name = "VIEW", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) views: Vec<String>,
    /// Every view of the pipeline
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Top {
    /// The server [default: the configured serve.listen]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How long to wait for each answer
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct DeadLetters {
    /// The source
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Files {
    /// The source
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Of which layer
    #[arg(long, value_enum, default_value = "archive")]
    pub(crate) layer: Layer,
    /// One line for DuckDB's read_parquet: ['…', '…'], without dead letters
    #[arg(long)]
    pub(crate) list: bool,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

/// What files hold.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Decoded rows with their original bytes.
    Archive,
    /// States of batch views.
    View,
}

#[derive(Args, Debug)]
pub(crate) struct Quarantine {
    /// The source
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// The partition
    #[arg(long, value_name = "TOPIC/PARTITION", requires_all = ["from", "to", "reason"], conflicts_with = "lift")]
    pub(crate) partition: Option<TopicPartition>,
    /// The first offset
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) from: Option<i64>,
    /// The offset after the last
    #[arg(long, value_name = "OFFSET", requires = "partition", value_parser = clap::value_parser!(i64).range(0..))]
    pub(crate) to: Option<i64>,
    /// End the quarantine that this ledger entry began (needs --reason)
    #[arg(long, value_name = "LEDGER", requires = "reason")]
    pub(crate) lift: Option<u64>,
    /// Why, for whoever reads the coverage
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct AcceptLoss {
    /// The source
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Only of this partition (repeat for several)
    #[arg(long = "partition", value_name = "TOPIC/PARTITION")]
    pub(crate) partitions: Vec<TopicPartition>,
    /// Why, for whoever reads the coverage
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// The source
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

/// What a file holds.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON value a line, sent as it is.
    Ndjson,
    /// Comma-separated values under a header; empty is null.
    Csv,
    /// The same, separated by tabs.
    Tsv,
    /// Apache Parquet.
    Parquet,
}

/// Where event times are moved to.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShiftTime {
    /// The time of sending.
    Now,
}

/// One character of one byte.
fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if *byte != b'"' && *byte != b'\n' && *byte != b'\r' => Ok(*byte),
        _ if text == "\\t" => Ok(b'\t'),
        _ => Err("write one character, such as ';'".to_string()),
    }
}

/// A rate above zero.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(rate),
        _ => Err("write a number of records a second, above 0".to_string()),
    }
}

#[derive(Args, Debug)]
pub(crate) struct Produce {
    /// The source
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// Files: NDJSON, .csv, .tsv, .parquet, all but the last also .gz; - is standard input [default: -]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The column whose value is the record's key
    #[arg(long, value_name = "COLUMN")]
    pub(crate) key: Option<String>,
    /// What the files are, whatever their names
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// What separates the fields of a CSV file [default: a comma, or a semicolon if the header has only those]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    pub(crate) delimiter: Option<u8>,
    /// Go on at this line of the first file (of a Parquet file: its row); counted from 1, a CSV file's header included
    #[arg(long, value_name = "LINE", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) from_line: u64,
    /// Records a second [default: as fast as they go]
    #[arg(long, value_name = "RECORDS", value_parser = rate)]
    pub(crate) rate: Option<f64>,
    /// Read the files again and again, until Ctrl-C or SIGTERM
    #[arg(long)]
    pub(crate) r#loop: bool,
    /// Move event times so that the newest event so far is now, and the others as late behind it as they were
    #[arg(long, value_enum, value_name = "TO")]
    pub(crate) shift_time: Option<ShiftTime>,
    /// Create the topic with this many partitions if it does not exist
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) create_topic: Option<i32>,
    #[command(flatten)]
    pub(crate) shot: OneShot,
}

#[derive(Args, Debug)]
pub(crate) struct Demo {
    /// Replay this NDJSON file (also .gz) instead of the made-up shop; needs --pipeline
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// A fixed number of events, then verify and exit
    #[arg(long)]
    pub(crate) once: bool,
    /// With --brokers: send made-up events also into a topic that holds records already
    #[arg(long)]
    pub(crate) append: bool,
    /// Where to listen; port 0 is any free one
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// The seed of the made-up events
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Run this long, with a batch run every minute, then verify and exit
    #[arg(long = "for", value_parser = humantime::parse_duration, value_name = "DURATION", conflicts_with_all = ["once", "input"])]
    pub(crate) time: Option<Duration>,
    /// Made-up events a second, without --once
    #[arg(long, default_value_t = 2_000, value_name = "EVENTS")]
    pub(crate) rate: usize,
}
