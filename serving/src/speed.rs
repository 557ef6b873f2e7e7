//! Asking speed instances for what is newer than the ledger.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bifold_fold::live::{CHECKSUM, LiveAnswer, LiveRequest, decode};

/// The longest that a speed instance may take; without it, f is only lower.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// The longest that the other end may leave what was sent unacknowledged: a machine that is gone does not say so.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);
/// How long an instance that did not answer is left alone at least, and for as long as it was waited for: answers go on without it
/// meanwhile, and do not wait for it each.
const LEFT_ALONE: Duration = Duration::from_millis(500);

/// How often the addresses behind a name are asked for.
const RESOLVE_EVERY: Duration = Duration::from_secs(2);
/// What a name stands behind that has an address for every instance.
const BY_DNS: &str = "dns+http://";

/// One speed instance or several.
#[async_trait::async_trait]
pub trait SpeedSource: Send + Sync + Debug {
    /// What they have of a source beyond the reader's ledger; of one that cannot be reached, or does not answer `within` that time,
    /// nothing.
    async fn live(&self, source: &str, request: &LiveRequest, within: Duration) -> Vec<LiveAnswer>;
}

/// The instances that one item of `serve.speed` names: `http://host:port` is one, `dns+http://host:port` those at every
/// address that the name has, asked for again and again.
///
/// # Errors
/// An item that is neither.
pub fn speed_source(item: &str) -> Result<Arc<dyn SpeedSource>, String> {
    match item.strip_prefix(BY_DNS) {
        Some(address) => {
            let address = address.trim_end_matches('/');
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            match port {
                Some(Ok(_)) => Ok(Arc::new(DnsSpeed::new(address))),
                _ => Err(format!("{item:?} names no port; write {BY_DNS}host:port")),
            }
        }
        None => Ok(Arc::new(HttpSpeed::new(item))),
    }
}

/// The speed instances at the addresses of one name.
#[derive(Debug)]
pub struct DnsSpeed {
    address: String,
    found: tokio::sync::Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    next: Option<Instant>,
    instances: BTreeMap<SocketAddr, Arc<HttpSpeed>>,
}

impl DnsSpeed {
    fn new(address: &str) -> Self {
        Self { address: address.to_string(), found: tokio::sync::Mutex::default() }
    }

    /// The instances there are now. A name that cannot be resolved leaves those that were known.
    async fn instances(&self) -> Vec<Arc<HttpSpeed>> {
        let mut found = self.found.lock().await;
        if found.next.is_none_or(|next| Instant::now() >= next) {
            found.next = Some(Instant::now() + RESOLVE_EVERY);
            match tokio::time::timeout(CONNECT_WITHIN, tokio::net::lookup_host(&self.address)).await {
                Ok(Ok(addresses)) => {
                    let mut before = std::mem::take(&mut found.instances);
                    let kept = |at: SocketAddr| {
                        (at, before.remove(&at).unwrap_or_else(|| Arc::new(HttpSpeed::new(&format!("http://{at}")))))
                    };
                    found.instances = addresses.map(kept).collect();
                }
                Ok(Err(error)) => tracing::warn!(address = self.address, %error, "a name of serve.speed is not known"),
                Err(_) => tracing::warn!(address = self.address, "a name of serve.speed is not answered in time"),
            }
        }
        found.instances.values().cloned().collect()
    }
}

#[async_trait::async_trait]
impl SpeedSource for DnsSpeed {
    async fn live(&self, source: &str, request: &LiveRequest, within: Duration) -> Vec<LiveAnswer> {
        let instances = self.instances().await;
        let asked = instances.iter().map(|instance| instance.live(source, request, within));
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }
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
    async fn ask(&self, source: &str, request: &LiveRequest, within: Duration) -> Result<LiveAnswer, (String, bool)> {
        let failed = |e: reqwest::Error| (e.to_string(), !e.is_status() && !e.is_decode());
        // Whatever the source's name holds.
        let url = format!("{}/live/{}", self.url, utf8_percent_encode(source, NON_ALPHANUMERIC));
        let response = self.client.post(url).timeout(within).json(request).send().await.map_err(failed)?;
        let response = response.error_for_status().map_err(failed)?;
        let told = response.headers().get(CHECKSUM).and_then(|told| told.to_str().ok()).map(str::to_string);
        let body = response.bytes().await.map_err(failed)?;
        let found = format!("{:08x}", crc32fast::hash(&body));
        // The last build tells none.
        if told.as_ref().is_some_and(|told| *told != found) {
            return Err((format!("the CRC-32 of its answer is {found}, not {}", told.unwrap_or_default()), false));
        }
        decode(&body).map_err(|e| (e.to_string(), false))
    }
}

#[async_trait::async_trait]
impl SpeedSource for HttpSpeed {
    async fn live(&self, source: &str, request: &LiveRequest, within: Duration) -> Vec<LiveAnswer> {
        if self.alone_until().is_some_and(|until| Instant::now() < until) {
            return vec![];
        }
        let asked = Instant::now();
        match self.ask(source, request, within.min(TIMEOUT)).await {
            Ok(answer) => {
                *self.alone_until() = None;
                vec![answer]
            }
            Err((error, unreachable)) => {
                if unreachable {
                    *self.alone_until() = Some(Instant::now() + asked.elapsed().max(LEFT_ALONE));
                }
                metrics::counter!("bifold_speed_unreachable_total", "url" => self.url.clone()).increment(1);
                tracing::debug!(url = self.url, source, error, "a speed instance did not answer");
                vec![]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_stands_for_every_address_it_has() {
        assert!(speed_source("dns+http://nowhere").unwrap_err().contains("names no port"));
        let named = DnsSpeed::new("localhost:7071");
        let first = named.instances().await;
        assert!(!first.is_empty());
        assert!(first.iter().all(|instance| instance.url.ends_with(":7071")), "{first:?}");
        named.found.lock().await.next = None;
        let again = named.instances().await;
        assert!(first.iter().zip(&again).all(|(a, b)| Arc::ptr_eq(a, b)), "an instance stays the same one");
    }
}
