//! The log: one small seam with two implementations, held to one conformance suite (`tests/conformance.rs`).
//!
//! A log holds topics; a topic, numbered partitions; a partition, records at rising offsets. [`Log`] describes topics,
//! knows where partitions start and end, appends, and gives [`Reader`]s. A reader delivers [`Chunk`]s: records and the
//! positions reached, which pass over what no reader may see (transaction markers, aborted records). Several instances
//! share a topic's partitions as [`Member`]s of a group.
//!
//! - [`kafka`]: Apache Kafka, through librdkafka
//! - [`local`]: an embedded log in a directory, for one process

pub mod chunk;
pub mod error;
pub mod kafka;
pub mod local;
pub mod member;
pub mod murmur2;
pub mod survey;
pub mod unread;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use bifold_ledger::{Ledger, Offsets, TopicPartition};

pub use chunk::{Chunk, ChunkBuilder, Header, Record};
pub use error::Error;
pub use kafka::KafkaLog;
pub use local::LocalLog;
pub use member::{Alone, Member, Owned, Seat, Turn};
pub use survey::{Survey, survey, topic_ids};
pub use unread::Unread;

/// What a log says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// The id by which a recreated topic is told from the old one; empty where the log has none.
    pub id: String,
    /// How many partitions it has.
    pub partitions: i32,
}

/// Where a partition starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset still there.
    pub earliest: i64,
    /// The end that committed readers can reach: the last stable offset.
    pub end: i64,
}

/// A record to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Decides the partition, by Kafka's murmur2; without one, records are spread.
    pub key: Option<Vec<u8>>,
    /// The bytes.
    pub value: Option<Vec<u8>>,
}

/// Where to start reading a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The partition.
    pub at: TopicPartition,
    /// The next offset to read.
    pub next: i64,
    /// The leader epoch of the record before it, where one is known: with it a truncated log is noticed.
    pub leader_epoch: Option<i32>,
}

impl Start {
    /// Where partitions are read from, with the leader epochs that `ledger` knows.
    pub fn all(ledger: &Ledger, next: &Offsets) -> Vec<Self> {
        let start = |(at, next): (&TopicPartition, i64)| Self {
            at: at.clone(),
            next,
            leader_epoch: ledger.leader_epoch_at(at, next),
        };
        next.iter().map(start).collect()
    }
}

/// How a reader reads.
#[derive(Clone, Copy, Debug)]
pub struct ReaderOptions {
    /// Whether keys and headers are delivered.
    pub with_keys: bool,
    /// The memory of the process, in bytes: what is fetched ahead of what is read takes a part of it.
    pub memory: u64,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { with_keys: false, memory: 1 << 30 }
    }
}

/// A log of topics.
#[async_trait::async_trait]
pub trait Log: Send + Sync + Debug {
    /// The topics among `names` that exist.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log cannot be asked.
    async fn describe(&self, names: &[String]) -> Result<BTreeMap<String, Topic>, Error>;

    /// Where partitions start and end now.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the log cannot be asked, [`Error::Missing`] for a partition that does not exist.
    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Bounds>, Error>;

    /// Appends records to a topic, in order per partition, and gives the next offset after the last of them for every
    /// partition that got any. They are durable when this returns. After an error some may have been appended.
    ///
    /// # Errors
    /// [`Error::Unavailable`], [`Error::Missing`], or a record that the log refuses.
    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Offsets, Error>;

    /// Creates a topic; one that exists already is left as it is.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or a name that the log refuses.
    async fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error>;

    /// A new reader, without partitions.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the log's configuration cannot be used.
    fn reader(&self, options: ReaderOptions) -> Result<Box<dyn Reader>, Error>;

    /// Joins `group`, whose members share the partitions of `topics`. Dropping the member leaves it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the log's configuration cannot be used.
    fn join(&self, group: &str, topics: &[String]) -> Result<Box<dyn Member>, Error>;
}

/// Reads partitions. Its calls block: it lives on a thread of its own.
pub trait Reader: Send {
    /// Reads these partitions from now on, and no others. Everything not delivered yet is forgotten.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    fn assign(&mut self, starts: &[Start]) -> Result<(), Error>;

    /// What has arrived, at most about `max_records`; waits up to `wait` for more. Records of one partition come in
    /// order, without a gap but what committed readers may not see. Empty if nothing came.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if a position is no longer in the log; [`Error::Truncated`] if the log was cut and written
    /// anew below it. Other partitions may go on after [`assign`](Self::assign).
    fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Chunk, Error>;
}
