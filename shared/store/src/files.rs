//! Immutable files of one source: written once, then named by a ledger entry with their length and checksum.

use std::sync::Arc;

use bifold_ledger::File;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::error::Error;
use crate::layout::Layout;

/// The files of one source.
#[derive(Clone, Debug)]
pub struct SourceFiles {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// The source's paths.
    pub layout: Layout,
}

impl SourceFiles {
    /// The files of `source` in `store`, whose objects start at `root`.
    pub fn new(store: Arc<dyn ObjectStore>, root: &Path, source: &str) -> Self {
        Self { store, layout: Layout::new(root, source) }
    }

    /// Writes a file at `path` below the source's folder. It is durable when this returns.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn put(&self, path: String, bytes: Bytes, rows: u64) -> Result<File, Error> {
        let file = File { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes), rows, tail: None, path };
        let object = self.layout.object(&file.path);
        let put = self.store.put(&object, bytes.into()).await;
        put.map_err(|source| Error::Unavailable { action: "write", path: object.to_string(), source })?;
        Ok(file)
    }

    /// Writes a note: an object for people, that no entry names.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn put_note(&self, path: &Path, bytes: Bytes) -> Result<(), Error> {
        let put = self.store.put(path, bytes.into()).await;
        put.map(drop).map_err(|source| Error::Unavailable { action: "write", path: path.to_string(), source })
    }

    /// Reads a note; none if there is none.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn note(&self, path: &Path) -> Result<Option<Bytes>, Error> {
        let failed = |source| Error::Unavailable { action: "read", path: path.to_string(), source };
        match self.store.get(path).await {
            Ok(found) => found.bytes().await.map(Some).map_err(failed),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }

    /// The notes in a folder, by name.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn notes(&self, folder: &Path) -> Result<Vec<Path>, Error> {
        let listed = self.store.list(Some(folder)).map_ok(|found| found.location).try_collect::<Vec<_>>().await;
        let failed = |source| Error::Unavailable { action: "list", path: folder.to_string(), source };
        let mut paths = listed.map_err(failed)?;
        paths.sort();
        Ok(paths)
    }

    /// Removes a note.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn forget_note(&self, path: &Path) -> Result<(), Error> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Unavailable { action: "delete", path: path.to_string(), source }),
        }
    }

    /// The files of deltas, archive, dead letters and batch views that the store has.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn files(&self) -> Result<Vec<String>, Error> {
        let mut found = vec![];
        for folder in self.layout.file_folders() {
            let failed = |source| Error::Unavailable { action: "list", path: folder.to_string(), source };
            let mut listed = self.store.list(Some(&folder));
            while let Some(object) = listed.try_next().await.map_err(failed)? {
                found.extend(self.layout.relative(&object.location));
            }
        }
        Ok(found)
    }

    /// Deletes a file that nothing needs.
    ///
    /// # Errors
    /// The store is unavailable.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        self.forget_note(&self.layout.object(path)).await
    }

    /// Asks whether a file is there, and as long as its entry says, without reading it.
    ///
    /// # Errors
    /// The store is unavailable, or the file is missing or cut short.
    pub async fn check_length(&self, file: &File) -> Result<(), Error> {
        let object = self.layout.object(&file.path);
        let damaged = |why: String| Error::Damaged { path: object.to_string(), why };
        match self.store.head(&object).await {
            Ok(found) if found.size == file.bytes => Ok(()),
            Ok(found) => Err(damaged(format!("it has {} bytes, the ledger says {}", found.size, file.bytes))),
            Err(object_store::Error::NotFound { .. }) => Err(damaged("it does not exist".into())),
            Err(source) => Err(Error::Unavailable { action: "read", path: object.to_string(), source }),
        }
    }

    /// Checks a file against what its entry says, without holding it in memory.
    ///
    /// # Errors
    /// The store is unavailable, or the file is missing, cut short or altered.
    pub async fn check(&self, file: &File) -> Result<(), Error> {
        let object = self.layout.object(&file.path);
        let unavailable = |source| Error::Unavailable { action: "read", path: object.to_string(), source };
        let damaged = |why: String| Error::Damaged { path: object.to_string(), why };
        let mut parts = match self.store.get(&object).await {
            Ok(got) => got.into_stream(),
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("it does not exist".into())),
            Err(e) => return Err(unavailable(e)),
        };
        let (mut hasher, mut bytes) = (crc32fast::Hasher::new(), 0);
        while let Some(part) = parts.try_next().await.map_err(unavailable)? {
            hasher.update(&part);
            bytes += part.len() as u64;
        }
        same(file, bytes, hasher.finalize()).map_err(damaged)
    }

    /// Reads a file whole and checks it against what its entry says.
    ///
    /// # Errors
    /// The store is unavailable, or the file is missing, cut short or altered.
    pub async fn get(&self, file: &File) -> Result<Bytes, Error> {
        let object = self.layout.object(&file.path);
        let unavailable = |source| Error::Unavailable { action: "read", path: object.to_string(), source };
        let damaged = |why: String| Error::Damaged { path: object.to_string(), why };
        let bytes = match self.store.get(&object).await {
            Ok(got) => got.bytes().await.map_err(unavailable)?,
            Err(object_store::Error::NotFound { .. }) => return Err(damaged("it does not exist".into())),
            Err(e) => return Err(unavailable(e)),
        };
        same(file, bytes.len() as u64, crc32fast::hash(&bytes)).map_err(damaged)?;
        Ok(bytes)
    }
}

/// How a file of this length and checksum differs from what its entry says.
fn same(file: &File, bytes: u64, crc32: u32) -> Result<(), String> {
    match (bytes == file.bytes, crc32 == file.crc32) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("it has {bytes} bytes, the ledger says {}", file.bytes)),
        (true, false) => Err(format!("its CRC-32 is {crc32:08x}, the ledger says {:08x}", file.crc32)),
    }
}
