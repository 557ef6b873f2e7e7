//! Whether a store puts an object only if there is none: the ledger rests on it.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use crate::error::Error;
use crate::files::SourceFiles;

/// How often an unclear first put is tried again, under another name.
const TRIES: u32 = 5;

/// Puts an object twice as one that must not exist yet, and asks that the second put is refused.
///
/// # Errors
/// [`Error::NoConditionalPuts`] if it is not; the store is unavailable.
pub(crate) async fn conditional_puts(files: &SourceFiles) -> Result<(), Error> {
    let mut tries = 0;
    loop {
        let path = files.layout.probe(&uuid::Uuid::new_v4().simple().to_string());
        let judged = probe(files, &path).await;
        if let Err(error) = files.store.delete(&path).await {
            tracing::debug!(%path, %error, "the probe's object was not removed");
        }
        tries += 1;
        match judged? {
            Puts::Conditional => return Ok(()),
            Puts::Unclear(_) if tries < TRIES => {}
            Puts::Unclear(source) => {
                return Err(Error::Unavailable { action: "write", path: path.to_string(), source });
            }
        }
    }
}

enum Puts {
    Conditional,
    /// A new object was said to exist: the client's own second try met the first, or the server was confused.
    Unclear(StoreError),
}

async fn probe(files: &SourceFiles, path: &Path) -> Result<Puts, Error> {
    let put = |bytes: &'static [u8]| {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        files.store.put_opts(path, Bytes::from_static(bytes).into(), options)
    };
    let exists =
        |error: &StoreError| matches!(error, StoreError::AlreadyExists { .. } | StoreError::Precondition { .. });
    let unsupported = |error: &StoreError| {
        matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. })
            || error.to_string().contains("NotImplemented")
    };
    let failed = |error: StoreError| match unsupported(&error) {
        true => Error::NoConditionalPuts { why: error.to_string() },
        false => Error::Unavailable { action: "write", path: path.to_string(), source: error },
    };
    match put(b"first").await {
        Ok(_) => {}
        Err(error) if exists(&error) => return Ok(Puts::Unclear(error)),
        Err(error) => return Err(failed(error)),
    }
    match put(b"second").await {
        Ok(_) => {
            let why = "it replaced an object that it was asked to put only if there was none".to_string();
            Err(Error::NoConditionalPuts { why })
        }
        Err(error) if exists(&error) => Ok(Puts::Conditional),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;
    use object_store::ObjectStore;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn a_store_with_conditional_puts_is_taken_and_left_clean() {
        let store = Arc::new(InMemory::new());
        let files = SourceFiles::new(Arc::clone(&store) as _, &Path::default(), "s");
        conditional_puts(&files).await.unwrap();
        let left: Vec<_> = store.list(None).collect().await;
        assert!(left.is_empty(), "{left:?}");
    }
}
