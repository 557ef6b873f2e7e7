//! An embedded log in a directory, for one process: topics, partitions, dense offsets, timestamps, keys, headers,
//! durable appends. Stored with redb, a transactional key-value store in one file.
//!
//! Records are kept in batches of at most [`BATCH_RECORDS`] under `(topic, partition, first offset)`. Nothing ever
//! expires: every partition starts at 0.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bifold_ledger::{Offsets, TopicPartition};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::chunk::CHUNK_BYTES;
use crate::murmur2::partition_of;
use crate::{Alone, Bounds, Chunk, ChunkBuilder, Error, Log, Member, NewRecord, Reader, ReaderOptions, Start, Topic};

/// Topics: name to (number, id, partitions).
const TOPICS: TableDefinition<&str, (u32, &str, i32)> = TableDefinition::new("topics");
/// The next offset of each (topic, partition) that holds a record.
const ENDS: TableDefinition<(u32, i32), i64> = TableDefinition::new("ends");
/// Batches of records by (topic, partition, first offset).
const BATCHES: TableDefinition<(u32, i32, i64), &[u8]> = TableDefinition::new("batches");

/// The most records of one stored batch: what a reader has to pass over to reach an offset inside.
const BATCH_RECORDS: usize = 512;

/// A log in a directory.
#[derive(Clone)]
pub struct LocalLog {
    shared: Arc<Shared>,
}

/// How often, and how soon after each other, the database is opened again.
const REOPEN_TRIES: usize = 50;
const REOPEN_PAUSE: Duration = Duration::from_millis(20);

struct Shared {
    folder: PathBuf,
    /// None while it is being opened again.
    database: RwLock<Option<Arc<Database>>>,
    /// Counts appends; readers wait for it to move.
    appends: Mutex<u64>,
    appended: Condvar,
    /// Spreads records without a key.
    spread: Mutex<u32>,
}

impl std::fmt::Debug for LocalLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalLog").field("folder", &self.shared.folder).finish_non_exhaustive()
    }
}

impl LocalLog {
    /// Opens the log in `folder`, which is made if need be.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process has it open, [`Error::Unavailable`] or [`Error::Damaged`] otherwise.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let at = folder.display().to_string();
        let unavailable = |why: String| Error::Unavailable { at: at.clone(), why };
        std::fs::create_dir_all(folder).map_err(|e| unavailable(e.to_string()))?;
        let database = match Database::create(folder.join("log.redb")) {
            Ok(database) => database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(Error::Locked { folder: at }),
            // A file of another kind is an InvalidData error.
            Err(redb::DatabaseError::Storage(redb::StorageError::Io(e))) if e.kind() != ErrorKind::InvalidData => {
                return Err(unavailable(e.to_string()));
            }
            Err(e) => return Err(Error::Damaged { folder: at, why: e.to_string() }),
        };
        let shared = Shared {
            folder: folder.to_path_buf(),
            database: RwLock::new(Some(Arc::new(database))),
            appends: Mutex::new(0),
            appended: Condvar::new(),
            spread: Mutex::new(0),
        };
        let log = Self { shared: Arc::new(shared) };
        log.write(|transaction| {
            transaction.open_table(TOPICS)?;
            transaction.open_table(ENDS)?;
            transaction.open_table(BATCHES)?;
            Ok(())
        })?;
        Ok(log)
    }

    fn database(&self) -> Result<Arc<Database>, redb::Error> {
        self.shared.database.read().expect("no holder panics").clone().ok_or(redb::Error::PreviousIo)
    }

    /// Opens the database again: after a write that failed, as on a full disk, it takes no more.
    fn reopen(&self) {
        let mut database = self.shared.database.write().expect("no holder panics");
        // Readers let go of it soon, and with them its lock.
        *database = None;
        for _ in 0..REOPEN_TRIES {
            match Database::create(self.shared.folder.join("log.redb")) {
                Ok(opened) => {
                    *database = Some(Arc::new(opened));
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "the local log is not open yet");
                    std::thread::sleep(REOPEN_PAUSE);
                }
            }
        }
    }

    fn damaged(&self, error: redb::Error) -> Error {
        match error {
            redb::Error::PreviousIo => {
                self.reopen();
                let why = "an earlier write failed (is the disk full?); it was opened again, try once more".to_string();
                Error::Unavailable { at: self.shared.folder.display().to_string(), why }
            }
            redb::Error::Io(e) => {
                Error::Unavailable { at: self.shared.folder.display().to_string(), why: e.to_string() }
            }
            e => Error::Damaged { folder: self.shared.folder.display().to_string(), why: e.to_string() },
        }
    }

    fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, Error> {
        let done = || -> Result<T, redb::Error> {
            let transaction = self.database()?.begin_write()?;
            let value = work(&transaction)?;
            transaction.commit()?;
            Ok(value)
        };
        done().map_err(|e| self.damaged(e))
    }

    fn topic(&self, name: &str) -> Result<Option<(u32, Topic)>, Error> {
        let read = || -> Result<_, redb::Error> {
            let topics = self.database()?.begin_read()?.open_table(TOPICS)?;
            let found = topics.get(name)?;
            Ok(found.map(|row| {
                let (number, id, partitions) = row.value();
                (number, Topic { id: id.to_string(), partitions })
            }))
        };
        read().map_err(|e| self.damaged(e))
    }

    fn end(&self, topic: u32, partition: i32) -> Result<i64, Error> {
        let read = || -> Result<_, redb::Error> {
            let ends = self.database()?.begin_read()?.open_table(ENDS)?;
            Ok(ends.get((topic, partition))?.map_or(0, |end| end.value()))
        };
        read().map_err(|e| self.damaged(e))
    }

    fn append_now(&self, name: &str, records: &[NewRecord]) -> Result<Offsets, Error> {
        let (topic, described) = self.topic(name)?.ok_or_else(|| Error::Missing { what: name.to_string() })?;
        let mut by_partition: BTreeMap<i32, Vec<&NewRecord>> = BTreeMap::new();
        {
            let mut spread = self.shared.spread.lock().expect("no holder panics");
            for record in records {
                let partition = match &record.key {
                    Some(key) => partition_of(key, described.partitions),
                    None => {
                        *spread = spread.wrapping_add(1);
                        (*spread % described.partitions as u32) as i32
                    }
                };
                by_partition.entry(partition).or_default().push(record);
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as i64);
        let ends = self.write(|transaction| {
            let (mut ends, mut batches) = (transaction.open_table(ENDS)?, transaction.open_table(BATCHES)?);
            let mut after = Offsets::default();
            for (partition, records) in &by_partition {
                let mut next = ends.get((topic, *partition))?.map_or(0, |end| end.value());
                for batch in records.chunks(BATCH_RECORDS) {
                    batches.insert((topic, *partition, next), encode(batch, now).as_slice())?;
                    next += batch.len() as i64;
                }
                ends.insert((topic, *partition), next)?;
                after.advance(&TopicPartition::new(name, *partition), next);
            }
            Ok(after)
        })?;
        *self.shared.appends.lock().expect("no holder panics") += 1;
        self.shared.appended.notify_all();
        Ok(ends)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&LocalLog) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let log = self.clone();
        let failed = |e: tokio::task::JoinError| Error::Unavailable {
            at: self.shared.folder.display().to_string(),
            why: e.to_string(),
        };
        tokio::task::spawn_blocking(move || work(&log)).await.map_err(failed)?
    }
}

#[async_trait::async_trait]
impl Log for LocalLog {
    async fn describe(&self, names: &[String]) -> Result<BTreeMap<String, Topic>, Error> {
        let mut topics = BTreeMap::new();
        for name in names {
            if let Some((_, topic)) = self.topic(name)? {
                topics.insert(name.clone(), topic);
            }
        }
        Ok(topics)
    }

    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Bounds>, Error> {
        let mut bounds = BTreeMap::new();
        for at in partitions {
            let missing = || Error::Missing { what: at.to_string() };
            let (topic, described) = self.topic(&at.topic)?.ok_or_else(missing)?;
            if at.partition >= described.partitions {
                return Err(missing());
            }
            bounds.insert(at.clone(), Bounds { earliest: 0, end: self.end(topic, at.partition)? });
        }
        Ok(bounds)
    }

    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Offsets, Error> {
        let topic = topic.to_string();
        self.blocking(move |log| log.append_now(&topic, &records)).await
    }

    async fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        if partitions < 1 || name.is_empty() || name.contains('/') {
            return Err(Error::Invalid { why: format!("topic {name:?} with {partitions} partitions") });
        }
        let id = uuid::Uuid::new_v4().to_string();
        self.write(|transaction| {
            let mut topics = transaction.open_table(TOPICS)?;
            if topics.get(name)?.is_none() {
                let number = topics.iter()?.count() as u32;
                topics.insert(name, (number, id.as_str(), partitions))?;
            }
            Ok(())
        })
    }

    fn reader(&self, options: ReaderOptions) -> Result<Box<dyn Reader>, Error> {
        Ok(Box::new(LocalReader {
            log: self.clone(),
            with_keys: options.with_keys,
            partitions: Arc::default(),
            topics: vec![],
            next: vec![],
            turn: 0,
        }))
    }

    fn join(&self, _group: &str, _topics: &[String]) -> Result<Box<dyn Member>, Error> {
        Ok(Box::new(Alone))
    }
}

struct LocalReader {
    log: LocalLog,
    with_keys: bool,
    partitions: Arc<[TopicPartition]>,
    topics: Vec<u32>,
    next: Vec<i64>,
    /// The partition that is read first in the next poll.
    turn: usize,
}

impl Reader for LocalReader {
    fn assign(&mut self, starts: &[Start]) -> Result<(), Error> {
        self.topics = starts
            .iter()
            .map(|start| {
                let found = self.log.topic(&start.at.topic)?;
                found.map(|(number, _)| number).ok_or_else(|| Error::Missing { what: start.at.topic.clone() })
            })
            .collect::<Result<_, _>>()?;
        self.partitions = starts.iter().map(|start| start.at.clone()).collect();
        self.next = starts.iter().map(|start| start.next).collect();
        Ok(())
    }

    fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Chunk, Error> {
        let until = Instant::now() + wait;
        loop {
            let seen = *self.log.shared.appends.lock().expect("no holder panics");
            let chunk = self.read(max_records)?;
            if !chunk.is_empty() {
                return Ok(chunk.build());
            }
            let mut appends = self.log.shared.appends.lock().expect("no holder panics");
            while *appends == seen {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(chunk.build());
                }
                appends = self.log.shared.appended.wait_timeout(appends, left).expect("no holder panics").0;
            }
        }
    }
}

impl LocalReader {
    fn read(&mut self, max_records: usize) -> Result<ChunkBuilder, Error> {
        let mut chunk = ChunkBuilder::new(Arc::clone(&self.partitions));
        let count = self.partitions.len();
        let turn = self.turn;
        for i in (0..count).map(|i| (turn + i) % count) {
            let end = self.log.end(self.topics[i], self.partitions[i].partition)?;
            if self.next[i] > end {
                return Err(Error::OutOfRange { at: self.partitions[i].clone(), next: self.next[i] });
            }
            if self.next[i] < end && chunk.len() < max_records && chunk.bytes() < CHUNK_BYTES {
                self.read_partition(i, max_records, &mut chunk).map_err(|e| self.log.damaged(e))?;
            }
        }
        self.turn = (self.turn + 1) % count.max(1);
        Ok(chunk)
    }

    fn read_partition(&mut self, i: usize, max: usize, chunk: &mut ChunkBuilder) -> Result<(), redb::Error> {
        let (topic, partition) = (self.topics[i], self.partitions[i].partition);
        let batches = self.log.database()?.begin_read()?.open_table(BATCHES)?;
        // The batch that holds the next offset is the last one that starts at or below it.
        let upto = batches.range((topic, partition, 0)..=(topic, partition, self.next[i]))?.next_back();
        let first = match upto {
            Some(batch) => batch?.0.value().2,
            None => return Ok(()),
        };
        for batch in batches.range((topic, partition, first)..=(topic, partition, i64::MAX))? {
            let (key, value) = batch?;
            let mut offset = key.value().2;
            let mut rest = value.value();
            while let Some(record) = decode(&mut rest) {
                if offset >= self.next[i] {
                    if chunk.len() >= max || chunk.bytes() >= CHUNK_BYTES {
                        return Ok(());
                    }
                    chunk.record(i, offset, record.timestamp_ms, record.key.filter(|_| self.with_keys), record.value);
                    self.next[i] = offset + 1;
                    chunk.position(i, offset + 1, None);
                }
                offset += 1;
            }
        }
        Ok(())
    }
}

struct Stored<'a> {
    timestamp_ms: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

/// A stored batch: for each record its timestamp, then key and value, each with its length first, -1 for none.
fn encode(records: &[&NewRecord], now_ms: i64) -> Vec<u8> {
    let mut batch = Vec::new();
    for record in records {
        batch.extend_from_slice(&now_ms.to_le_bytes());
        for bytes in [&record.key, &record.value] {
            batch.extend_from_slice(&bytes.as_ref().map_or(-1, |bytes| bytes.len() as i32).to_le_bytes());
            batch.extend_from_slice(bytes.as_deref().unwrap_or_default());
        }
    }
    batch
}

fn decode<'a>(rest: &mut &'a [u8]) -> Option<Stored<'a>> {
    let (timestamp, after) = rest.split_first_chunk::<8>()?;
    *rest = after;
    let mut take = || -> Option<Option<&'a [u8]>> {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = i32::from_le_bytes(*length);
        let (bytes, after) = after.split_at_checked(length.max(0) as usize)?;
        *rest = after;
        Some((length >= 0).then_some(bytes))
    };
    let (key, value) = (take()?, take()?);
    Some(Stored { timestamp_ms: i64::from_le_bytes(*timestamp), key, value })
}
