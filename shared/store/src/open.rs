//! An object store from its URL.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, RetryConfig};

use crate::error::Error;
use crate::profile::with_profile;

/// Opens the store at `url` (`file://`, `s3://`, `gs://`, `az://`) and gives the path below which bifold's objects
/// lie. Credentials and endpoints come from the environment, by the names each cloud's own tools use
/// (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT`, …); for S3 also from the AWS command line's profiles.
///
/// # Errors
/// A URL that cannot be used, or a directory that cannot be made.
pub fn open(url: &str) -> Result<(Arc<dyn ObjectStore>, Path), Error> {
    let failed = |why: String| Error::Url { url: without_user(url), why };
    if let Some(folder) = url.strip_prefix("file://") {
        private_folder(std::path::Path::new(folder)).map_err(|e| failed(e.to_string()))?;
        let store = LocalFileSystem::new_with_prefix(folder).map_err(|e| failed(e.to_string()))?;
        return Ok((Arc::new(store), Path::default()));
    }
    let parsed: url::Url = url.parse().map_err(|e| failed(format!("{e}")))?;
    let root = Path::from_url_path(parsed.path()).map_err(|e| failed(e.to_string()))?;
    let store: Result<Arc<dyn ObjectStore>, object_store::Error> = match parsed.scheme() {
        "s3" => {
            let builder =
                with_profile(AmazonS3Builder::from_env(), &|name| std::env::var(name).ok()).map_err(failed)?;
            builder.with_url(url).with_retry(retry()).build().map(|s| Arc::new(s) as _)
        }
        "gs" => {
            GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retry()).build().map(|s| Arc::new(s) as _)
        }
        "az" => MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retry()).build().map(|s| Arc::new(s) as _),
        scheme => return Err(failed(format!("unknown scheme {scheme:?}; use file://, s3://, gs:// or az://"))),
    };
    Ok((store.map_err(|e| failed(e.to_string()))?, root))
}

/// Makes a folder for its owner alone: it holds what others produce. One that is there stays as it is.
///
/// # Errors
/// The file system's.
pub fn private_folder(folder: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// A URL that may be shown: without a user and a password.
fn without_user(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://…@{host}"),
        None => url.to_string(),
    }
}

/// One request is tried again for a short time only: services and commands have patience of their own, which they can
/// explain.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() }
}
