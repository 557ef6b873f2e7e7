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
    let failed = |why: String| Error::Url { url: url.to_string(), why };
    if let Some(folder) = url.strip_prefix("file://") {
        std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
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

/// One request is tried again for a short time only: services and commands have patience of their own, which they can
/// explain.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 5, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() }
}
