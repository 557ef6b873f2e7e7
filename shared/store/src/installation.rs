//! Which installation a store belongs to: its name ends the names of consumer groups, so that two installations on one Kafka do not
//! take each other's partitions.
//!
//! The store holds a random name, put once. When and as what the store took the object is part of the id. So a store that was copied
//! or restored is another installation than the one that it was copied from.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStoreExt, PutMode, PutOptions};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::files::SourceFiles;

/// What the object holds.
#[derive(Serialize, Deserialize)]
struct Installation {
    name: String,
}

impl SourceFiles {
    /// The installation's id: letters, digits and a hyphen. The same for every process on this store.
    ///
    /// # Errors
    /// The store is unavailable, or the object is damaged.
    pub async fn installation(&self) -> Result<String, Error> {
        let path = self.layout.installation();
        loop {
            if let Some((meta, bytes)) = self.found(&path).await? {
                let held: Installation = serde_json::from_slice(&bytes).map_err(|e| Error::Damaged {
                    path: path.to_string(),
                    why: format!("it does not name an installation: {e}"),
                })?;
                return Ok(format!("{}-{:08x}", held.name, crc32fast::hash(taken_as(&meta).as_bytes())));
            }
            let name = uuid::Uuid::new_v4().simple().to_string()[..8].to_string();
            let bytes = serde_json::to_vec(&Installation { name }).expect("a name is JSON");
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.store.put_opts(&path, bytes.into(), options).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
                Err(source) => return Err(Error::Unavailable { action: "write", path: path.to_string(), source }),
            }
        }
    }

    async fn found(&self, path: &Path) -> Result<Option<(ObjectMeta, Bytes)>, Error> {
        let failed = |source| Error::Unavailable { action: "read", path: path.to_string(), source };
        match self.store.get(path).await {
            Ok(found) => {
                let meta = found.meta.clone();
                Ok(Some((meta, found.bytes().await.map_err(failed)?)))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(source) => Err(failed(source)),
        }
    }
}

/// When and as what the store took an object: a copy has another time, or another place on the disk.
fn taken_as(meta: &ObjectMeta) -> String {
    format!("{} {}", meta.last_modified.timestamp(), meta.e_tag.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::local::LocalFileSystem;

    use super::*;

    fn files(folder: &std::path::Path, source: &str) -> SourceFiles {
        let store = LocalFileSystem::new_with_prefix(folder).expect("it is a folder");
        SourceFiles::new(Arc::new(store), &Path::default(), source)
    }

    #[tokio::test]
    async fn sources_of_one_store_are_one_installation_and_a_copy_is_another() {
        let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let id = files(one.path(), "a").installation().await.expect("the store works");
        assert_eq!(files(one.path(), "b").installation().await.expect("the store works"), id);
        assert!(id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{id}");
        // With its time, as `cp -a` copies.
        let name = files(one.path(), "a").layout.installation().to_string();
        std::fs::copy(one.path().join(&name), other.path().join(&name)).expect("it is copied");
        let time = std::fs::metadata(one.path().join(&name)).and_then(|m| m.modified()).expect("it has a time");
        let copy = std::fs::File::options().write(true).open(other.path().join(&name)).expect("it is there");
        copy.set_modified(time).expect("the time is set");
        assert_ne!(files(other.path(), "a").installation().await.expect("the store works"), id);
    }

    #[tokio::test]
    async fn those_who_come_at_once_agree() {
        let folder = tempfile::tempdir().expect("a folder");
        let ids = futures::future::join_all(
            (0..16).map(|_| async { files(folder.path(), "a").installation().await.expect("the store works") }),
        );
        let ids = ids.await;
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }

    #[tokio::test]
    async fn a_damaged_name_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = files(folder.path(), "a");
        files.put_note(&files.layout.installation(), Bytes::from_static(b"x")).await.expect("it is put");
        let said = files.installation().await.expect_err("it is damaged").to_string();
        assert!(said.contains("installation.json"), "{said}");
    }
}
