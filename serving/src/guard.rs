//! Who may ask from where: web pages of others are refused, and so are names that somebody else points at this machine.
//!
//! A browser sends requests of any page to any address, also to this machine. `Origin` and `Sec-Fetch-Site` say where the page came from.
//! A page whose own name resolves to a loopback address (DNS rebinding) counts as of the same origin for the browser; `Host` tells it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bifold_config::Serve;

use crate::problem::Problem;

/// What a listener admits.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Origins of others that may ask.
    cors: Vec<String>,
    /// Whether it listens on this machine alone.
    is_loopback: bool,
}

impl Guard {
    pub(crate) fn of(options: &Serve) -> Self {
        let cors = options.cors.iter().map(|origin| origin.trim_end_matches('/').to_string()).collect();
        Self { cors, is_loopback: options.is_loopback() }
    }

    /// The origin that the answer has to name, if the request comes from a page of others that may ask.
    fn admit(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, Problem> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let host = text(header::HOST);
        if let Some(host) = host
            && self.is_loopback
            && !is_loopback_name(host)
        {
            return Err(Problem::forbidden(format!(
                "the request is for {host:?}, and this server listens for this machine alone: ask http://127.0.0.1, or listen on another \
                 address (serve.listen)"
            )));
        }
        let foreign = |what: String| {
            let detail = format!("{what}: name its origin in serve.cors if it may ask");
            Err(Problem::forbidden(detail))
        };
        match text(header::ORIGIN) {
            Some(origin) if self.cors.iter().any(|known| known == origin || known == "*") => {
                Ok(headers.get(header::ORIGIN).cloned())
            }
            Some(origin) if origin.split_once("://").is_some_and(|(_, of)| Some(of) == host) => Ok(None),
            Some(origin) => foreign(format!("a page of {origin:?} asks")),
            None if text(HeaderName::from_static("sec-fetch-site")) == Some("cross-site") => {
                foreign("a page of another site asks".to_string())
            }
            None => Ok(None),
        }
    }
}

/// Whether a `Host` names this machine: `localhost`, or a loopback address, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Answers requests that are not admitted with 403. Names the origin of the others in the CORS headers.
pub(crate) async fn guard(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let origin = match guard.admit(request.headers()) {
        Ok(origin) => origin,
        Err(problem) => return problem.into_response(),
    };
    let is_preflight =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &origin {
        Some(_) if is_preflight => StatusCode::NO_CONTENT.into_response(),
        _ => next.run(request).await,
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        let allowed = HeaderValue::from_static("authorization, content-type, content-encoding");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(guard: &Guard, pairs: &[(&'static str, &str)]) -> Option<bool> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a value")));
        guard.admit(&pairs.collect()).ok().map(|origin| origin.is_some())
    }

    #[test]
    fn pages_of_others_and_names_of_others_are_refused() {
        let local = Guard { cors: vec!["https://app.example".to_string()], is_loopback: true };
        for (headers, admitted) in [
            // As curl and other programs ask.
            (&[("host", "127.0.0.1:7070")][..], Some(false)),
            (&[("host", "localhost")], Some(false)),
            (&[("host", "[::1]:7070")], Some(false)),
            (&[], Some(false)),
            (&[("host", "evil.example:7070")], None),
            (&[("host", "127.0.0.1.evil.example")], None),
            (&[("host", "")], None),
            // As browsers do.
            (&[("host", "127.0.0.1:7070"), ("origin", "http://127.0.0.1:7070")], Some(false)),
            (&[("host", "127.0.0.1:7070"), ("origin", "http://127.0.0.1:8080")], None),
            (&[("host", "127.0.0.1:7070"), ("origin", "https://evil.example")], None),
            (&[("host", "127.0.0.1:7070"), ("origin", "null")], None),
            (&[("host", "127.0.0.1:7070"), ("origin", "https://app.example")], Some(true)),
            (&[("host", "127.0.0.1:7070"), ("sec-fetch-site", "cross-site")], None),
            (&[("host", "127.0.0.1:7070"), ("sec-fetch-site", "same-origin")], Some(false)),
            (&[("host", "evil.example"), ("origin", "https://app.example")], None),
        ] {
            assert_eq!(judged(&local, headers), admitted, "{headers:?}");
        }
        let open = Guard { cors: vec![], is_loopback: false };
        assert_eq!(judged(&open, &[("host", "bifold.internal")]), Some(false));
        assert_eq!(judged(&open, &[("host", "bifold.internal"), ("origin", "https://bifold.internal")]), Some(false));
        assert_eq!(judged(&open, &[("host", "bifold.internal"), ("origin", "https://other")]), None);
    }
}
