//! What every service has: readiness with reasons, `/healthz`, `/readyz`, `/metrics`, a listener, retries.
//!
//! A component says through its [`Component`] what it waits for; the service is ready when nobody waits.

mod connections;
mod http;
mod process;
mod readiness;
mod retry;

pub use connections::serve;
pub use http::{ListenError, bind, health_routes, install_metrics};
pub use metrics_exporter_prometheus::PrometheusHandle;
pub use readiness::{Component, Readiness};
pub use retry::{Backoff, StartLimit};
pub use tokio_util::sync::CancellationToken as Shutdown;
