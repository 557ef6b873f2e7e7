//! Whether a store puts an object only if there is none: the ledger rests on it.

use bytes::Bytes;
use object_store::{Error as StoreError, ObjectStoreExt, PutMode, PutOptions};

use crate::error::Error;
use crate::files::SourceFiles;

/// Puts an object twice as one that must not exist yet, and asks that the second put is refused.
///
/// # Errors
/// [`Error::NoConditionalPuts`] if it is not; the store is unavailable.
pub(crate) async fn conditional_puts(files: &SourceFiles) -> Result<(), Error> {
    let path = files.layout.probe(&uuid::Uuid::new_v4().simple().to_string());
    let put = |bytes: &'static [u8]| {
        let options = PutOptions { mode: PutMode::Create, ..Default::default() };
        files.store.put_opts(&path, Bytes::from_static(bytes).into(), options)
    };
    let refused = |why: String| Error::NoConditionalPuts { why };
    let unsupported = |error: &StoreError| {
        matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. })
            || error.to_string().contains("NotImplemented")
    };
    let first = put(b"first").await;
    let second = match first {
        // Where the answer to a put was lost, the client's own second try finds its object.
        Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => put(b"second").await,
        Err(error) => Err(error),
    };
    let judged = match second {
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(()),
        Ok(_) => Err(refused("it replaced an object that it was asked to put only if there was none".to_string())),
        Err(error) if unsupported(&error) => Err(refused(error.to_string())),
        Err(source) => Err(Error::Unavailable { action: "write", path: path.to_string(), source }),
    };
    if let Err(error) = files.store.delete(&path).await {
        tracing::debug!(%path, %error, "the probe's object was not removed");
    }
    judged
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::StreamExt;
    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use object_store::path::Path;

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
