//! What a store has to be able to do.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::harness::Case;
use crate::support::{COUNTS, one_partition};

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// How a server takes a put that is only for objects that do not exist.
#[derive(Clone, Copy)]
enum Puts {
    /// As any put, as older servers do.
    Ignored,
    /// Not at all.
    NotImplemented,
}

async fn serve(
    State((objects, puts)): State<(Objects, Puts)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut objects = objects.lock().expect("no holder panics");
    let path = uri.path().to_string();
    match method.as_str() {
        "PUT" => match puts {
            Puts::NotImplemented if headers.contains_key("if-none-match") => {
                let error = "<Error><Code>NotImplemented</Code><Message>A header you provided</Message></Error>";
                (StatusCode::NOT_IMPLEMENTED, error).into_response()
            }
            _ => {
                objects.insert(path, body);
                (StatusCode::OK, [("etag", "\"1\"")]).into_response()
            }
        },
        "GET" if uri.query().is_some_and(|query| query.contains("list-type")) => {
            "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
                .into_response()
        }
        "GET" | "HEAD" => match objects.get(&path) {
            Some(bytes) => {
                let headers = [("etag", "\"1\""), ("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")];
                (headers, bytes.clone()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        "POST" => {
            let keys = String::from_utf8_lossy(&body).into_owned();
            objects.retain(|path, _| !keys.contains(path.trim_start_matches("/bucket/")));
            "<?xml version=\"1.0\"?><DeleteResult></DeleteResult>".into_response()
        }
        other => panic!("{other} {uri} is not asked by a start"),
    }
}

/// A server that speaks enough S3 for bifold to start; its URL and what it holds.
fn server(puts: Puts) -> (String, Objects) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let objects = Objects::default();
    let routes = Router::new().fallback(serve).with_state((Arc::clone(&objects), puts));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            listener.set_nonblocking(true).expect("it can be awaited");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, routes).await.expect("it serves");
        });
    });
    (url, objects)
}

fn refused(case: &Case, puts: Puts) -> String {
    let (url, objects) = server(puts);
    let environment = [
        ("AWS_ENDPOINT", url.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_REGION", "us-east-1"),
        ("BIFOLD_STARTUP_TIMEOUT", "20s"),
    ];
    let ran = case.run_with(&["up", "--listen", "127.0.0.1:0", "--store", "s3://bucket/prefix"], &environment, b"");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""), "{}", ran.stderr);
    let left: Vec<String> = objects.lock().expect("no holder panics").keys().cloned().collect();
    assert!(left.is_empty(), "nothing was written: {left:?}");
    ran.stderr
}

#[test]
fn a_store_without_conditional_puts_is_refused_with_the_reason() {
    let case = one_partition(COUNTS);
    let said = refused(&case, Puts::Ignored);
    assert!(said.contains("no conditional puts") && said.contains("it replaced an object"), "{said}");
    let said = refused(&case, Puts::NotImplemented);
    assert!(said.contains("no conditional puts") && said.contains("NotImplemented"), "{said}");
}
