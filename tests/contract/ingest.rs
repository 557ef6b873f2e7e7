//! `POST /v1/events/{source}`: what it takes, whom it takes it from, and what it says.

use std::io::Write;

use serde_json::json;

use crate::support::{COUNTS, answer, configure, one_partition, pipeline, problem, up};

const COUNT: &str = "CREATE MATERIALIZED VIEW v AS SELECT count(*) AS c FROM e;";

fn element(n: usize) -> String {
    format!(r#"{{"t":"2026-01-01T00:00:00Z","n":{n}}}"#)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    encoder.write_all(text).and_then(|()| encoder.finish()).expect("it is compressed")
}

#[test]
fn gzip_and_arrays_are_taken() {
    let case = one_partition(&pipeline("n BIGINT", "", COUNT));
    let up = up(&case);
    let mut events = 0;
    let mut counted = |body: Vec<u8>, headers: &[(&str, &str)], records: usize, more: usize| {
        let reply = up.ask_with("POST", "/v1/events/e", headers, body);
        assert_eq!((reply.status, &reply.json()["accepted"]), (200, &json!(records)), "{}", reply.text);
        events += more;
        let offsets = reply.json()["offsets"].as_str().expect("offsets").to_string();
        assert_eq!(answer(&up, "SELECT * FROM v", &offsets)["rows"], json!([{"c": events}]));
    };
    let lines = format!("{}\n{}\n", element(1), element(2));
    counted(gzip(lines.as_bytes()), &[("content-encoding", "gzip")], 2, 2);
    // A line is a record, whatever it holds; an array over several lines is a record for each element.
    counted(format!("[{},{}]", element(1), element(2)).into_bytes(), &[], 1, 2);
    counted(format!(" [\n  {},\n  {},\n  {}\n]\n", element(1), element(2), element(3)).into_bytes(), &[], 3, 3);
    counted(b"[\n]".to_vec(), &[], 0, 0);
    // So is one that is larger than a record may be.
    let many: Vec<String> = (0..40_000).map(element).collect();
    counted(format!("[{}]", many.join(",")).into_bytes(), &[("content-type", "application/json")], 40_000, 40_000);
    problem(
        &up.ask_with("POST", "/v1/events/e", &[("content-encoding", "gzip")], b"{}".to_vec()),
        400,
        "bad-query",
        &["gzip"],
    );
    problem(
        &up.ask_with("POST", "/v1/events/e", &[("content-encoding", "br")], b"{}".to_vec()),
        400,
        "bad-query",
        &["br"],
    );
    // 100 MB in 100 KB.
    let bomb = gzip(&vec![b' '; 100 << 20]);
    problem(
        &up.ask_with("POST", "/v1/events/e", &[("content-encoding", "gzip")], bomb),
        413,
        "limit-exceeded",
        &["64 MiB"],
    );
}

#[test]
fn what_does_not_decode_is_refused_where_that_is_asked_for() {
    let case = one_partition(&pipeline("n BIGINT", "", COUNT));
    let up = up(&case);
    let body = format!("{}\n{{\"n\":1}}\nnope\n\n[{},{{}}]\n{}\n", element(1), element(2), element(3));
    let reply = up.post("/v1/events/e?validate=true", body.into_bytes());
    assert_eq!(reply.status, 207, "{}", reply.text);
    let body = reply.json();
    assert_eq!(body["accepted"], 2, "{body}");
    let rejected: Vec<_> =
        body["rejected"].as_array().expect("a list").iter().map(|one| (&one["line"], &one["reason"])).collect();
    let expected = [
        (&json!(2), &json!("missing_event_time")),
        (&json!(3), &json!("malformed")),
        (&json!(5), &json!("missing_event_time")),
    ];
    assert_eq!(rejected, expected);
    assert!(body["rejected"][1]["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    let view = answer(&up, "SELECT * FROM v", body["offsets"].as_str().expect("offsets"));
    assert_eq!((&view["rows"], &view["coverage"][0]["dead_letters"]), (&json!([{"c": 2}]), &json!(0)), "{view}");
    let none = up.post("/v1/events/e?validate=true", b"nope".to_vec());
    assert_eq!((none.status, &none.json()["accepted"]), (207, &json!(0)), "{}", none.text);
    problem(&up.post("/v1/events/e?validate=perhaps", b"{}".to_vec()), 400, "bad-query", &["validate"]);
}

#[test]
fn the_route_can_be_turned_off() {
    let case = one_partition(COUNTS);
    configure(&case, "[serve]\ningest = false\n");
    let up = up(&case);
    problem(&up.post("/v1/events/e", b"{}".to_vec()), 403, "forbidden", &["serve.ingest"]);
    assert_eq!(up.get("/v1/views").status, 200);
}

#[test]
fn pages_of_others_are_refused() {
    let case = one_partition(COUNTS);
    configure(&case, "[serve]\ncors = ['https://app.example']\n");
    let up = up(&case);
    let own = format!("http://{}", up.url.trim_start_matches("http://"));
    for (method, path) in
        [("POST", "/v1/events/e"), ("POST", "/v1/sql"), ("GET", "/v1/views"), ("GET", "/v1/views/v/rows")]
    {
        let ask = |headers: &[(&str, &str)]| up.ask_with(method, path, headers, b"{}".to_vec());
        problem(&ask(&[("origin", "https://evil.example")]), 403, "forbidden", &["evil.example", "serve.cors"]);
        problem(&ask(&[("sec-fetch-site", "cross-site")]), 403, "forbidden", &["serve.cors"]);
        problem(&ask(&[("host", "evil.example")]), 403, "forbidden", &["evil.example"]);
        for good in
            [&[("origin", own.as_str())][..], &[("origin", "https://app.example")], &[("host", "localhost:1")], &[]]
        {
            assert_ne!(ask(good).status, 403, "{good:?}");
        }
    }
    let asked = [("origin", "https://app.example"), ("access-control-request-method", "POST")];
    assert_eq!(up.ask_with("OPTIONS", "/v1/sql", &asked, vec![]).status, 204);
    let asked = [("origin", "https://evil.example"), ("access-control-request-method", "POST")];
    assert_eq!(up.ask_with("OPTIONS", "/v1/sql", &asked, vec![]).status, 403);
    // Health is anybody's.
    assert_eq!(up.ask_with("GET", "/healthz", &[("origin", "https://evil.example")], vec![]).status, 200);
}
