//! Asking the server.

use std::time::Duration;

use bifold_config::Config;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::args::OneShot;
use crate::exit::Exit;

/// A client of one server.
pub(crate) struct Client {
    url: String,
    http: reqwest::Client,
    timeout: Duration,
}

/// What a server said.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) text: String,
}

impl Reply {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Result<Value, Exit> {
        serde_json::from_str(&self.text).map_err(|e| Exit::Failed(format!("the server's answer is no JSON: {e}")))
    }

    /// The body, if it is an answer; else the problem, by the exit code that its status gives.
    pub(crate) fn answer(self) -> Result<Self, Exit> {
        if self.status < 400 {
            return Ok(self);
        }
        let said = match serde_json::from_str::<Value>(&self.text) {
            Ok(problem) => {
                let member = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default().to_string();
                let slug = member("type").rsplit('/').next().unwrap_or_default().to_string();
                let hint = member("hint");
                let hint = if hint.is_empty() { hint } else { format!("\nhint: {hint}") };
                let place = problem
                    .get("position")
                    .map_or(String::new(), |p| format!(" (line {}, column {})", p["line"], p["column"]));
                format!("{slug}: {}{place}{hint}", member("detail"))
            }
            Err(_) => format!("the server answered {}: {}", self.status, self.text.trim()),
        };
        Err(if self.status < 500 { Exit::Usage(said) } else { Exit::Failed(said) })
    }
}

impl Client {
    /// The server that `--url` names, else the configured one.
    pub(crate) fn new(config: &Config, shot: &OneShot) -> Self {
        let url = shot.url.clone().unwrap_or_else(|| format!("http://{}", config.serve.listen));
        Self { url: url.trim_end_matches('/').to_string(), http: reqwest::Client::new(), timeout: shot.timeout }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Reply, Exit> {
        // The server bounds its own work; a little more is left for its answer to arrive.
        let response = request.timeout(self.timeout + Duration::from_secs(5)).send().await;
        let response = response.map_err(|e| self.unreachable(&e))?;
        let status = response.status().as_u16();
        let text = response.text().await.map_err(|e| self.unreachable(&e))?;
        Ok(Reply { status, text })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Exit {
        let mut why = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            why = inner.to_string();
            source = inner.source();
        }
        Exit::Failed(format!(
            "no server answers at {} ({why}); start one with `bifold up`, or name it with --url",
            self.url
        ))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Reply, Exit> {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// `POST /v1/sql`.
    pub(crate) async fn sql(&self, sql: &str, at_least: Option<&str>) -> Result<Reply, Exit> {
        let timeout_ms = self.timeout.as_millis() as u64;
        let body = serde_json::json!({ "sql": sql, "at_least": at_least, "timeout_ms": timeout_ms });
        self.send(self.http.post(format!("{}/v1/sql", self.url)).json(&body)).await
    }

    /// `POST` of events.
    pub(crate) async fn post_events(&self, source: &str, query: &[(&str, &str)], body: Vec<u8>) -> Result<Reply, Exit> {
        // Whatever the source's name holds.
        let source = utf8_percent_encode(source, NON_ALPHANUMERIC);
        self.send(self.http.post(format!("{}/v1/events/{source}", self.url)).query(query).body(body)).await
    }
}
