//! Asking speed instances for what is newer than the ledger.

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bifold_fold::live::{LiveAnswer, LiveRequest, decode};

/// The longest that a speed instance may take; without it, f is only lower.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// The longest that the other end may leave what was sent unacknowledged: a machine that is gone does not say so.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// How long an instance that did not answer is left alone at least, and for as long as it was waited for: answers go on without it
/// meanwhile, and do not wait for it each.
const LEFT_ALONE: Duration = Duration::from_millis(500);

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
    /// Until when it is left alone.
    alone_until: Mutex<Option<Instant>>,
}

impl HttpSpeed {
    /// The instance at `url`.
    pub fn new(url: &str) -> Self {
        let client = reqwest::Client::builder().connect_timeout(CONNECT_WITHIN);
        #[cfg(target_os = "linux")]
        let client = client.tcp_user_timeout(ACKNOWLEDGED_WITHIN);
        let client = client.build().expect("these settings can be built");
        Self { url: url.trim_end_matches('/').to_string(), client, alone_until: Mutex::default() }
    }

    fn alone_until(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.alone_until.lock().expect("no holder panics")
    }

    /// What it answers; else why not, and whether it cannot be reached at all.
    async fn ask(&self, source: &str, request: &LiveRequest) -> Result<LiveAnswer, (String, bool)> {
        let failed = |e: reqwest::Error| (e.to_string(), !e.is_status() && !e.is_decode());
        let url = format!("{}/live/{source}", self.url);
        let response = self.client.post(url).timeout(TIMEOUT).json(request).send().await.map_err(failed)?;
        let body = response.error_for_status().map_err(failed)?.bytes().await.map_err(failed)?;
        decode(&body).map_err(|e| (e.to_string(), false))
    }
}

#[async_trait::async_trait]
impl SpeedSource for HttpSpeed {
    async fn live(&self, source: &str, request: &LiveRequest) -> Option<LiveAnswer> {
        if self.alone_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let asked = Instant::now();
        match self.ask(source, request).await {
            Ok(answer) => {
                *self.alone_until() = None;
                Some(answer)
            }
            Err((error, unreachable)) => {
                if unreachable {
                    *self.alone_until() = Some(Instant::now() + asked.elapsed().max(LEFT_ALONE));
                }
                metrics::counter!("bifold_speed_unreachable_total", "url" => self.url.clone()).increment(1);
                tracing::debug!(url = self.url, source, error, "a speed instance did not answer");
                None
            }
        }
    }
}
