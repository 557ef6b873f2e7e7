//! An object store from its URL.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use crate::error::Error;

/// Opens the store at `url` (`file://`, `s3://`, `gs://`, `az://`) and gives the path below which bifold's objects
/// lie. Credentials and endpoints come from the environment, by the names each cloud's own tools use
/// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, …).
///
/// # Errors
/// A URL that cannot be used, or a directory that cannot be made.
pub fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), Error> {
    let failed = |why: String| Error::Url { url: url.to_string(), why };
    if let Some(folder) = url.strip_prefix("file://") {
        std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(e.to_string()))?;
        return Ok((Arc::new(store), Path::default()));
    }
    let parsed = url.parse().map_err(|e| failed(format!("{e}")))?;
    let environment = std::env::vars().map(|(name, value)| (name.to_lowercase(), value));
    let (store, path) = object_store::parse_url_opts(&parsed, environment).map_err(|e| failed(e.to_string()))?;
    Ok((Arc::from(store), path))
}
