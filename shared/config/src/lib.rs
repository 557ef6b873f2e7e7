//! Configuration: `bifold.toml`, then the environment, then flags; strict.
//!
//! [`load`] reads all three into a [`Config`]. Every key is known by name ([`keys`]); an unknown one is an error that
//! names the nearest. Every error says where the value came from.

mod error;
mod keys;
mod load;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use error::{Error, Origin};
pub use keys::{KEYS, Key, Kind};
pub use load::{Overrides, load};

/// Everything that can be configured. Field names are the keys of `bifold.toml`.
#[derive(Clone, Debug)]
pub struct Config {
    /// The pipeline: a file, or a folder whose `*.sql` are read in order of name.
    pub pipeline: PathBuf,
    /// The local log, scratch files and the default store.
    pub data_dir: PathBuf,
    /// How long a service waits for brokers and store at start; none: for ever.
    pub startup_timeout: Option<Duration>,
    /// The object store.
    pub store: Store,
    /// Kafka.
    pub kafka: Kafka,
    /// The local log.
    pub log: Log,
    /// The collector.
    pub collect: Collect,
    /// The speed layer.
    pub speed: Speed,
    /// The batch layer.
    pub batch: Batch,
    /// The serving layer.
    pub serve: Serve,
}

/// `[store]`
#[derive(Clone, Debug)]
pub struct Store {
    /// A URL with a scheme that the object store knows; a path has become `file://…`.
    pub url: String,
    /// How long nothing has needed a file before it is deleted.
    pub orphan_grace: Duration,
}

/// `[kafka]`
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Bootstrap servers; empty: the embedded local log.
    pub brokers: String,
    /// Consumer groups are `<prefix>.<source>.<role>`.
    pub group_prefix: String,
    /// Passed to librdkafka as they are.
    pub properties: BTreeMap<String, String>,
}

/// `[log]`
#[derive(Clone, Debug)]
pub struct Log {
    /// Partitions of a new topic of the local log.
    pub partitions: i32,
}

/// `[collect]`
#[derive(Clone, Debug)]
pub struct Collect {
    /// The longest time that a record waits in memory.
    pub flush_interval: Duration,
    /// The most rows that wait in memory.
    pub flush_rows: u64,
    /// The largest record that is decoded, in bytes.
    pub max_record: u64,
    /// The most elements of a record that is decoded.
    pub max_elements: u64,
    /// Where health and metrics are served.
    pub listen: String,
}

/// `[speed]`
#[derive(Clone, Debug)]
pub struct Speed {
    /// The longest an epoch stays open.
    pub epoch_interval: Duration,
    /// The most events of an epoch.
    pub epoch_rows: u64,
    /// The memory of one source's fold, in bytes: epochs are committed early to stay below it.
    pub memory: u64,
    /// Where live states, health and metrics are served.
    pub listen: String,
}

/// `[batch]`
#[derive(Clone, Debug)]
pub struct Batch {
    /// When batch runs start by themselves.
    pub schedule: Schedule,
    /// The memory of a batch run, in bytes.
    pub memory: u64,
    /// Offsets behind the archive, in one partition, from which a run may leap over the speed layer.
    pub leap: i64,
    /// How long no epoch was committed, though the archive has more, when a run leaps over the speed layer.
    pub leap_after: Duration,
    /// Deltas that an answer joins, beyond which they are compacted.
    pub compact_deltas: usize,
    /// Small archive entries beyond which they are compacted.
    pub compact_files: usize,
    /// Where `bifold batch schedule` listens.
    pub listen: String,
}

/// When batch runs start by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Never.
    Off,
    /// Again and again, this long after the start of the last.
    Every(Duration),
    /// By a cron expression, in UTC.
    Cron(String),
}

/// `[serve]`
#[derive(Clone, Debug)]
pub struct Serve {
    /// Where the API is served.
    pub listen: String,
    /// The speed instances.
    pub speed: Vec<String>,
    /// The longest a query may run.
    pub query_timeout: Duration,
    /// The most that a request may ask for.
    pub max_timeout: Duration,
    /// The most bytes of working memory of a query, beside the views' rows.
    pub query_memory: u64,
    /// The most bytes of views that are kept between queries.
    pub memory: u64,
    /// The most rows of an answer.
    pub max_result_rows: u64,
    /// How long it goes on answering after it was told to end.
    pub drain: Duration,
    /// Whether to serve beyond loopback without authentication.
    pub allow_anonymous: bool,
    /// Whether events can be appended over HTTP.
    pub ingest: bool,
    /// Origins of web pages of others that may ask.
    pub cors: Vec<String>,
}

impl Serve {
    /// Whether it listens for this machine alone.
    pub fn is_loopback(&self) -> bool {
        let host = self.listen.rsplit_once(':').map_or(&*self.listen, |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}
