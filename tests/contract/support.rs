//! What the contract tests share: a plain HTTP client, small pipelines, words about offsets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;

use crate::harness::{Case, Ran, Reply, Service};

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));
static HTTP: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

/// A source `e` and a view `v` of it by `k`.
pub(crate) const COUNTS: &str = "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t) \
    WITH (connector = 'kafka', topic = '{topic}', format = 'json'); \
    CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c, sum(n) AS s FROM e GROUP BY k;";

/// A source `e` with one column more, and the views that follow.
pub(crate) fn pipeline(columns: &str, with: &str, views: &str) -> String {
    format!(
        "CREATE TABLE e (t TIMESTAMP, {columns}, WATERMARK FOR t AS t) \
         WITH (connector = 'kafka', topic = '{{topic}}', format = 'json'{with}); {views}"
    )
}

/// A case whose topic has one partition on either log.
pub(crate) fn one_partition(pipeline: &str) -> Case {
    partitions(pipeline, 1)
}

/// A case whose topic has so many partitions on either log.
pub(crate) fn partitions(pipeline: &str, partitions: i32) -> Case {
    let case = Case::new(pipeline);
    configure(&case, &format!("[log]\npartitions = {partitions}\n"));
    case.create_topic(partitions);
    case
}

/// Adds to the case's configuration: keys of tables that the harness does not write (`log`, `serve`, `store`).
pub(crate) fn configure(case: &Case, more: &str) {
    let path = case.path("bifold.toml");
    let text = std::fs::read_to_string(&path).expect("a configuration");
    std::fs::write(path, text + more).expect("write the configuration");
}

/// `up` on a free port.
pub(crate) fn up(case: &Case) -> Service {
    case.start("up")
}

/// `up` with variables of the environment.
pub(crate) fn up_with(case: &Case, environment: &[(&str, &str)]) -> Service {
    case.start_with(&["up", "--listen", "127.0.0.1:0"], environment)
}

/// Runs a one-shot command that asks this server.
pub(crate) fn ask(case: &Case, service: &Service, arguments: &[&str]) -> Ran {
    let mut arguments = arguments.to_vec();
    arguments.extend(["--url", service.url.as_str()]);
    case.run(&arguments)
}

/// The binary alone: no configuration is named, no `BIFOLD_` variable passed on.
pub(crate) fn bare(case: &Case, folder: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bifold"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BIFOLD_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment.iter().copied()).current_dir(case.path(folder)).stdin(Stdio::null());
    let output = command.output().expect("the binary starts");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Writes a file below the case's folder.
pub(crate) fn write(case: &Case, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = case.path(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
    std::fs::write(&path, text).expect("write a file");
    path
}

/// OFFSETS as a map.
pub(crate) fn positions(text: &str) -> BTreeMap<(String, i32), i64> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (at, next) = part.rsplit_once(':').expect("topic/partition:next");
            let (topic, partition) = at.rsplit_once('/').expect("topic/partition");
            ((topic.to_string(), partition.parse().expect("a partition")), next.parse().expect("an offset"))
        })
        .collect()
}

/// A reply with all its headers.
pub(crate) struct Full {
    pub(crate) reply: Reply,
    pub(crate) headers: BTreeMap<String, String>,
}

/// Any request.
pub(crate) fn request(service: &Service, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Full {
    RUNTIME.block_on(async {
        let method = method.parse().expect("a method");
        let mut request = HTTP.request(method, format!("{}{path}", service.url)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.timeout(crate::harness::PATIENCE).send().await.expect("the server answers");
        let status = response.status().as_u16();
        let text_of = |value: &reqwest::header::HeaderValue| value.to_str().unwrap_or_default().to_string();
        let headers: BTreeMap<String, String> =
            response.headers().iter().map(|(name, value)| (name.to_string(), text_of(value))).collect();
        let content_type = headers.get("content-type").cloned().unwrap_or_default();
        Full { reply: Reply { status, content_type, text: response.text().await.expect("a body") }, headers }
    })
}

/// Asserts that a reply is a problem document of this kind, whose detail has all `words`; gives it.
pub(crate) fn problem(reply: &Reply, status: u16, slug: &str, words: &[&str]) -> Value {
    assert_eq!(reply.status, status, "{}", reply.text);
    assert!(reply.content_type.starts_with("application/problem+json"), "{}: {}", reply.content_type, reply.text);
    let body = reply.json();
    assert_eq!(body["type"], format!("/problems/{slug}"), "{body}");
    assert_eq!(body["status"], status, "{body}");
    assert!(body["title"].as_str().is_some_and(|title| !title.is_empty()), "{body}");
    let detail = body["detail"].as_str().unwrap_or_else(|| panic!("a detail: {body}"));
    for word in words {
        assert!(detail.contains(word), "{word:?} is not in {detail:?}");
    }
    body
}

/// A query's body; it must be answered.
pub(crate) fn answer(service: &Service, sql: &str, at_least: &str) -> Value {
    let reply = service.sql(sql, Some(at_least));
    assert_eq!(reply.status, 200, "{sql}: {}\n{}", reply.text, service.stderr());
    reply.json()
}

/// The value of a metric whose labels are all of `labels`; 0 if it is not there.
pub(crate) fn metric(service: &Service, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = service.get("/metrics").text;
    let mut sum = 0.0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (found, of) = series.split_once('{').unwrap_or((series, ""));
        if found == name && labels.iter().all(|(label, value)| of.contains(&format!("{label}=\"{value}\""))) {
            sum += value.parse::<f64>().expect("a number");
        }
    }
    sum
}

/// The dead letters of source `e`, once there are `count`.
pub(crate) fn dead_letters(case: &Case, service: &Service, count: usize) -> Vec<Value> {
    let mut found = vec![];
    service.wait(&format!("{count} dead letters"), |_| {
        found = case.run(&["dead-letters", "e", "--output", "json"]).json();
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:#?}");
    found
}

/// The processor time that a service has used, in hundredths of a second (Linux; elsewhere 0).
pub(crate) fn cpu_ticks(service: &Service) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", service.child.id())).unwrap_or_default();
    // After the name in parentheses: state is the first, user and system time the 12th and 13th.
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum()
}

/// Kafka's partition of a key: murmur2 as the Java client has it.
pub(crate) fn murmur2_partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    let mut h: u32 = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("four bytes")).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^= h >> 15;
    h as i32
}

#[test]
fn the_tests_murmur2_is_the_java_clients() {
    for (text, hash) in [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)] {
        assert_eq!(murmur2(text.as_bytes()), hash);
    }
}
