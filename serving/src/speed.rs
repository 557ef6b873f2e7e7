//! Asking speed instances for what is newer than the ledger.

use std::fmt::Debug;
use std::time::Duration;

use bifold_fold::live::{LiveAnswer, LiveRequest, decode};

/// The longest that a speed instance may take; without it, f is only lower.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A speed instance.
#[async_trait::async_trait]
pub trait SpeedSource: Send + Sync + Debug {
    /// What it has of a source beyond the reader's ledger; none if it cannot be reached.
    async fn live(&self, source: &str, request: &LiveRequest) -> Option<LiveAnswer>;
}

/// A speed instance behind HTTP.
#[derive(Debug)]
pub struct HttpSpeed {
    url: String,
    client: reqwest::Client,
}

impl HttpSpeed {
    /// The instance at `url`.
    pub fn new(url: &str) -> Self {
        Self { url: url.trim_end_matches('/').to_string(), client: reqwest::Client::new() }
    }

    async fn ask(&self, source: &str, request: &LiveRequest) -> Result<LiveAnswer, String> {
        let url = format!("{}/live/{source}", self.url);
        let response = self.client.post(url).timeout(TIMEOUT).json(request).send().await.map_err(|e| e.to_string())?;
        let response = response.error_for_status().map_err(|e| e.to_string())?;
        let body = response.bytes().await.map_err(|e| e.to_string())?;
        decode(&body).map_err(|e| e.to_string())
    }
}

#[async_trait::async_trait]
impl SpeedSource for HttpSpeed {
    async fn live(&self, source: &str, request: &LiveRequest) -> Option<LiveAnswer> {
        match self.ask(source, request).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                metrics::counter!("bifold_speed_unreachable_total", "url" => self.url.clone()).increment(1);
                tracing::debug!(url = self.url, source, error, "a speed instance did not answer");
                None
            }
        }
    }
}
