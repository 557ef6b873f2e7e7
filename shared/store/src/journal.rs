//! The ledger's I/O: reading on from where one stands, and appending with put-if-absent.
//!
//! ```text
//! writer:  decide on entries 1..n ──► put n+1 if absent ──┬─ created ─► won
//!                                                         ├─ exists ──► read it: mine (a retried put) or lost
//!                                                         └─ unknown ─► read it; absent: the same put again
//! ```
//!
//! Whoever creates number n+1 wins; the loser reads on and decides again. An entry never moves to another number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bifold_ledger::{Body, Entry, Ledger, Nonce, Number, Offsets, Refusal};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use object_store::{ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::failpoint::failpoint;
use crate::files::SourceFiles;
use crate::probe;

/// Entries between two snapshots.
const SNAPSHOT_EVERY: Number = 1_000;
/// Entries between two writings of the hint.
const HINT_EVERY: Number = 50;
/// Entries beyond the end that are looked for when a ledger is opened.
const LOOK_BEYOND: Number = 4;
/// Entries fetched at once when reading far.
const READ_AHEAD: usize = 32;
/// How often a put of unknown outcome is tried again.
const PUT_TRIES: u32 = 5;

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It stands at this number.
    Won(Number),
    /// Somebody else took the number; the ledger has been read on, and the caller decides again.
    Lost,
}

/// One process's view of a source's ledger.
#[derive(Debug)]
pub struct Journal {
    files: SourceFiles,
    writer: String,
    ledger: Arc<Ledger>,
}

#[derive(Serialize, Deserialize)]
struct Hint {
    number: Number,
    snapshot: Number,
}

#[derive(Serialize, Deserialize)]
struct Snapshot {
    format: u32,
    ledger: Ledger,
}

impl Journal {
    /// Opens the ledger behind `files` and reads it to its end. A source that has not begun has an empty one.
    /// `role` names the writer in entries.
    ///
    /// # Errors
    /// The store is unavailable, or an entry is invalid.
    pub async fn open(files: SourceFiles, role: &str) -> Result<Self, Error> {
        let writer = format!("{role}-{}", uuid::Uuid::new_v4().simple());
        let mut journal = Self { files, writer, ledger: Arc::new(Ledger::default()) };
        let hint = read_json::<Hint>(&journal.files, journal.files.layout.head()).await.unwrap_or(None);
        if let Some(hint) = &hint {
            journal.load_snapshot(hint).await?;
        }
        let mut ledger = journal.refresh().await?;
        if journal.is_behind_a_gap().await? {
            // Written while it was looked, or not there.
            ledger = journal.refresh().await?;
            if journal.is_behind_a_gap().await? && journal.refresh().await?.number == ledger.number {
                return Err(Error::Invalid {
                    source_name: journal.files.layout.source().to_string(),
                    number: ledger.number + 1,
                    why: "it is missing, though a later one is there".to_string(),
                });
            }
            ledger = journal.ledger();
        }
        match hint {
            // The hint is written after its entry: where the ledger ends below it, an entry is gone.
            Some(hint) if hint.number > ledger.number => Err(Error::Invalid {
                source_name: journal.files.layout.source().to_string(),
                number: ledger.number + 1,
                why: format!("it is missing, though entry {} was written", hint.number),
            }),
            _ => Ok(journal),
        }
    }

    /// The state as of the last read.
    pub fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// The source's files.
    pub fn files(&self) -> &SourceFiles {
        &self.files
    }

    /// Whether one of the next entries but one is there: then the next one is missing, or was written just now.
    async fn is_behind_a_gap(&self) -> Result<bool, Error> {
        let (files, first) = (&self.files, self.ledger.number + 2);
        let wanted = stream::iter((0..LOOK_BEYOND).map(|i| read(files, files.layout.entry(first + i))));
        let found: Vec<_> = wanted.buffered(READ_AHEAD).collect().await;
        for entry in found {
            if entry?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads on to the end.
    ///
    /// # Errors
    /// The store is unavailable, or an entry is invalid: the source stops there.
    pub async fn refresh(&mut self) -> Result<Arc<Ledger>, Error> {
        let mut ahead = 1;
        loop {
            let first = self.ledger.number + 1;
            let files = &self.files;
            let wanted = stream::iter((0..ahead as u64).map(|i| read_entry(files, first + i)));
            let read: Vec<_> = wanted.buffered(READ_AHEAD).collect().await;
            for entry in read {
                match entry? {
                    Some(entry) => self.apply(&entry)?,
                    None => return Ok(self.ledger()),
                }
            }
            ahead = (ahead * 4).min(READ_AHEAD);
        }
    }

    /// Opens the ledger of a source as [`open`](Self::open) does, to write to it: in a store that can fence writers.
    ///
    /// # Errors
    /// As [`open`](Self::open); a store without conditional puts.
    pub async fn open_to_write(files: SourceFiles, role: &str) -> Result<Self, Error> {
        probe::conditional_puts(&files).await?;
        Self::open(files, role).await
    }

    /// Begins the source, unless somebody has, and checks that its topics are still the same ones.
    ///
    /// # Errors
    /// A topic that was deleted and made again; the store is unavailable; an entry is invalid.
    pub async fn begin(&mut self, topics: &BTreeMap<String, String>, origins: &Offsets) -> Result<(), Error> {
        while !self.ledger.exists() {
            let (source, format) = (self.files.layout.source().to_string(), bifold_ledger::FIRST_FORMAT);
            let (topics, origins) = (topics.clone(), origins.clone());
            self.append(Body::Created { format, source, topics, origins }).await?;
        }
        self.same_topics(topics)
    }

    /// Checks that topics are still those whose offsets the ledger holds: what was read before they were described is of them.
    ///
    /// # Errors
    /// A topic that was deleted and made again.
    pub fn same_topics(&self, topics: &BTreeMap<String, String>) -> Result<(), Error> {
        let other = topics.iter().find(|(topic, id)| self.ledger.topics.get(*topic).is_some_and(|known| known != *id));
        match other {
            Some((topic, _)) => Err(Error::Recreated { topic: topic.clone() }),
            None => Ok(()),
        }
    }

    /// Whether a file that a reader did not find is not named any more: it was replaced or removed meanwhile, and the reader starts again from
    /// a fresh ledger (rule 20). Else it is damage. `path` is the object's, or the file's below the source's folder.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub async fn is_superseded(&mut self, path: &str) -> Result<bool, Error> {
        let ledger = self.refresh().await?;
        let below = self.files.layout.relative(&object_store::path::Path::from(path));
        Ok(!ledger.names(below.as_deref().unwrap_or(path)))
    }

    /// Tries to write `body` as the next entry.
    ///
    /// # Errors
    /// The entry breaks a rule as the ledger stands, the store is unavailable, or an entry of somebody else is
    /// invalid. After [`Kind::Unavailable`](crate::Kind) the outcome is unknown: read on, and decide again.
    pub async fn append(&mut self, body: Body) -> Result<Appended, Error> {
        self.append_as(body, Nonce(uuid::Uuid::new_v4().simple().to_string())).await
    }

    /// [`append`](Self::append) under a nonce of the caller's, as a command that may be repeated uses.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub async fn append_as(&mut self, body: Body, nonce: Nonce) -> Result<Appended, Error> {
        if body.is_command() && self.ledger.commands.contains(&nonce) {
            return Ok(Appended::Won(self.ledger.number));
        }
        let format = body.needs_format();
        if self.ledger.exists() && format > self.ledger.format {
            // Older binaries stop at this entry, instead of at one that they cannot read.
            while self.ledger.format < format {
                let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
                Box::pin(self.append_as(Body::Format { format }, nonce)).await?;
            }
        }
        let number = self.ledger.number + 1;
        let refused = |refusal| Error::Refused { source_name: self.files.layout.source().to_string(), refusal };
        self.ledger.check(number, &body).map_err(refused)?;
        let at = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let entry = Entry { number, writer: self.writer.clone(), nonce, at, body };
        let bytes = Bytes::from(serde_json::to_vec_pretty(&entry).expect("an entry is JSON"));
        let path = self.files.layout.entry(number);
        let mut tries = 0;
        loop {
            let options = PutOptions { mode: PutMode::Create, ..Default::default() };
            let put = self.files.store.put_opts(&path, bytes.clone().into(), options).await;
            match put {
                Ok(_) => break,
                Err(error) => match read_entry(&self.files, number).await {
                    Ok(Some(there)) if there.nonce == entry.nonce => break,
                    Ok(Some(_)) => {
                        self.refresh().await?;
                        return Ok(Appended::Lost);
                    }
                    Ok(None) | Err(_) if tries < PUT_TRIES => {
                        tries += 1;
                        tracing::warn!(%path, %error, tries, "the outcome of a ledger put is unknown; trying it again");
                        tokio::time::sleep(Duration::from_millis(50 << tries)).await;
                    }
                    _ => {
                        return Err(Error::Unavailable { action: "append", path: path.to_string(), source: error });
                    }
                },
            }
        }
        failpoint("ledger.put");
        self.apply(&entry)?;
        self.write_hints().await;
        Ok(Appended::Won(number))
    }

    fn apply(&mut self, entry: &Entry) -> Result<(), Error> {
        let source_name = || self.files.layout.source().to_string();
        let applied = Arc::make_mut(&mut self.ledger).apply(entry);
        applied.map_err(|refusal| match refusal {
            Refusal::Format { format } => Error::Newer { source_name: source_name(), format },
            refusal => Error::Invalid { source_name: source_name(), number: entry.number, why: refusal.to_string() },
        })
    }

    async fn load_snapshot(&mut self, hint: &Hint) -> Result<(), Error> {
        if hint.snapshot == 0 {
            return Ok(());
        }
        let path = self.files.layout.snapshot(hint.snapshot);
        match read_json::<Snapshot>(&self.files, path.clone()).await {
            Ok(Some(snapshot)) if snapshot.format > bifold_ledger::FORMAT => {
                Err(Error::Newer { source_name: self.files.layout.source().to_string(), format: snapshot.format })
            }
            Ok(Some(snapshot)) => {
                self.ledger = Arc::new(snapshot.ledger);
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::warn!(%path, %error, "a ledger snapshot cannot be read; reading the entries instead");
                Ok(())
            }
        }
    }

    /// Snapshots and hints only speed up reading: a failure to write one is logged and forgotten.
    async fn write_hints(&self) {
        let number = self.ledger.number;
        let store = &self.files.store;
        if number.is_multiple_of(SNAPSHOT_EVERY) {
            let snapshot = Snapshot { format: self.ledger.format, ledger: (*self.ledger).clone() };
            let bytes = serde_json::to_vec(&snapshot).expect("a ledger is JSON");
            if let Err(error) = store.put(&self.files.layout.snapshot(number), bytes.into()).await {
                tracing::warn!(%error, number, "a ledger snapshot was not written");
                return;
            }
            failpoint("ledger.snapshot_written");
        }
        if number.is_multiple_of(HINT_EVERY) {
            let hint = Hint { number, snapshot: number - number % SNAPSHOT_EVERY };
            let bytes = serde_json::to_vec(&hint).expect("a hint is JSON");
            if let Err(error) = store.put(&self.files.layout.head(), bytes.into()).await {
                tracing::warn!(%error, number, "the ledger's hint was not written");
            }
            failpoint("ledger.hint_written");
        }
    }
}

async fn read_entry(files: &SourceFiles, number: Number) -> Result<Option<Entry>, Error> {
    let source_name = || files.layout.source().to_string();
    let path = files.layout.entry(number);
    let Some(bytes) = read(files, path.clone()).await? else { return Ok(None) };
    match serde_json::from_slice::<Entry>(&bytes) {
        Ok(entry) if entry.number == number => Ok(Some(entry)),
        Ok(entry) => Err(Error::Invalid {
            source_name: source_name(),
            number,
            why: format!("it says that it is entry {}", entry.number),
        }),
        Err(e) => Err(newer_format(&bytes, source_name()).unwrap_or_else(|| Error::Invalid {
            source_name: source_name(),
            number,
            why: format!("it cannot be read: {e}"),
        })),
    }
}

/// An entry that this binary cannot read may still say which format it needs.
fn newer_format(bytes: &[u8], source_name: String) -> Option<Error> {
    let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let format = u32::try_from(value.get("format")?.as_u64()?).ok()?;
    (format > bifold_ledger::FORMAT).then_some(Error::Newer { source_name, format })
}

async fn read(files: &SourceFiles, path: object_store::path::Path) -> Result<Option<Bytes>, Error> {
    let unavailable = |source| Error::Unavailable { action: "read", path: path.to_string(), source };
    match files.store.get(&path).await {
        Ok(got) => Ok(Some(got.bytes().await.map_err(unavailable)?)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(unavailable(e)),
    }
}

async fn read_json<T: serde::de::DeserializeOwned>(
    files: &SourceFiles,
    path: object_store::path::Path,
) -> Result<Option<T>, Error> {
    let Some(bytes) = read(files, path.clone()).await? else { return Ok(None) };
    let parsed = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|e| Error::Damaged { path: path.to_string(), why: e.to_string() })
}
