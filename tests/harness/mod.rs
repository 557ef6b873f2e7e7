//! Starting the built binary, talking to it, and to a log: the local one, or the Kafka that `BIFOLD_TEST_KAFKA` names.
//!
//! Used by the contract tests and the system tests. Nothing here knows bifold's insides.
#![allow(dead_code, missing_docs, unreachable_pub)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;

/// The longest that anything is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime"));
static HTTP: LazyLock<reqwest::Client> = LazyLock::new(reqwest::Client::new);

/// The brokers that the tests run on; none: the local log.
pub fn brokers() -> Option<String> {
    std::env::var("BIFOLD_TEST_KAFKA").ok().filter(|brokers| !brokers.is_empty())
}

/// The store that the tests run on, such as `s3://bucket`; none: a folder of each case.
pub fn test_store() -> Option<String> {
    std::env::var("BIFOLD_TEST_STORE").ok().filter(|store| !store.is_empty())
}

/// A folder of its own with a pipeline and a configuration, and topics of its own.
pub struct Case {
    pub folder: tempfile::TempDir,
    /// Replaces `{topic}` in pipelines; unique on a shared broker.
    pub topic: String,
    brokers: Option<String>,
}

impl Case {
    /// A case on the log that the environment names. `{topic}` in `pipeline` stands for the case's topic.
    pub fn new(pipeline: &str) -> Self {
        Self::on(pipeline, brokers())
    }

    pub fn on(pipeline: &str, brokers: Option<String>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let topic = format!("t-{}", uuid::Uuid::new_v4().simple());
        let case = Self { folder, topic, brokers };
        case.write_pipeline(pipeline);
        let brokers = case.brokers.clone().unwrap_or_default();
        let store = test_store().map(|store| format!("[store]\nurl = '{store}/{}'\n", case.topic)).unwrap_or_default();
        let config = format!(
            "pipeline = 'pipeline.sql'\ndata_dir = 'data'\n[kafka]\nbrokers = '{brokers}'\ngroup_prefix = '{}'\n\
             {store}[collect]\nflush_interval = '300ms'\n[speed]\nepoch_interval = '400ms'\n[batch]\nschedule = 'off'\n",
            case.topic
        );
        std::fs::write(case.path("bifold.toml"), config).expect("write the configuration");
        case
    }

    /// Another installation: the same pipeline, topic and prefix of groups, with a folder and a store of its own.
    pub fn another(&self) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["pipeline.sql", "bifold.toml"] {
            std::fs::copy(self.path(name), folder.path().join(name)).expect("it is copied");
        }
        Self { folder, topic: self.topic.clone(), brokers: self.brokers.clone() }
    }

    pub fn is_kafka(&self) -> bool {
        self.brokers.is_some()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder in which the store's objects lie as files, also those of the tests' S3 server.
    pub fn store_folder(&self) -> PathBuf {
        match test_store() {
            None => self.path("data/store"),
            Some(_) => {
                let folder = std::env::var("BIFOLD_TEST_STORE_FOLDER").expect("BIFOLD_TEST_STORE_FOLDER is set, too");
                PathBuf::from(folder).join(&self.topic)
            }
        }
    }

    /// (Over)writes the pipeline.
    pub fn write_pipeline(&self, pipeline: &str) {
        std::fs::write(self.path("pipeline.sql"), pipeline.replace("{topic}", &self.topic))
            .expect("write the pipeline");
    }

    /// Makes the case's topic on Kafka; the local log makes its own (with `log.partitions`).
    pub fn create_topic(&self, partitions: i32) {
        let topic = self.topic.clone();
        self.create_topic_named(&topic, partitions);
    }

    pub fn create_topic_named(&self, topic: &str, partitions: i32) {
        let Some(brokers) = &self.brokers else { return };
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", brokers).create().expect("an admin client");
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let made = RUNTIME.block_on(admin.create_topics([&new], &AdminOptions::new())).expect("the broker answers");
        for result in made {
            result.expect("the topic is made");
        }
    }

    /// The binary with this case's configuration. The test's own BIFOLD_ variables are not passed on.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bifold"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BIFOLD_")) {
            command.env_remove(name);
        }
        command.args(arguments).arg("--config").arg(self.path("bifold.toml")).current_dir(self.folder.path());
        command
    }

    /// Runs a one-shot command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[], b"")
    }

    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Ran {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        // A command that does not read its input closes the pipe.
        let _ = stdin.write_all(input);
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts a service and waits until it says that it is ready.
    pub fn start(&self, role: &str) -> Service {
        self.start_with(&[role, "--listen", "127.0.0.1:0"], &[])
    }

    pub fn start_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let mut service = self.spawn(arguments, environment);
        service.wait_ready();
        service
    }

    /// Starts a service without waiting.
    pub fn spawn(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        self.spawn_command(self.command(arguments), arguments[0], environment)
    }

    /// The same through a shell's script, to which the binary and its arguments are `"$0" "$@"`.
    pub fn spawn_by(&self, script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let own = self.command(arguments);
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(own.get_program()).args(own.get_args());
        for (name, value) in own.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(self.folder.path());
        self.spawn_command(command, arguments[0], environment)
    }

    fn spawn_command(&self, mut command: Command, name: &str, environment: &[(&str, &str)]) -> Service {
        let log = self.path(&format!("{name}-{}.err", uuid::Uuid::new_v4().simple()));
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(&log).expect("a log file"));
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (lines, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
        Service { child, url: String::new(), log, lines: receiver }
    }

    /// Appends lines to the case's topic: through Kafka, else through `url`'s events endpoint for `source`.
    pub fn produce(&self, service: &Service, source: &str, lines: &[&str]) -> String {
        match &self.brokers {
            Some(_) => self.produce_to(&self.topic, lines.iter().map(|line| (None, Some(line.as_bytes().to_vec())))),
            None => {
                let reply = service.post(&format!("/v1/events/{source}"), lines.join("\n").into_bytes());
                assert_eq!(reply.status, 200, "{}", reply.text);
                reply.json()["offsets"].as_str().expect("offsets").to_string()
            }
        }
    }

    /// Produces to a Kafka topic by a client of its own; gives OFFSETS.
    pub fn produce_to(
        &self,
        topic: &str,
        records: impl IntoIterator<Item = (Option<Vec<u8>>, Option<Vec<u8>>)>,
    ) -> String {
        let brokers = self.brokers.as_ref().expect("a case on Kafka");
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", "1000000")
            .create()
            .expect("a producer");
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        RUNTIME.block_on(async {
            let mut sent = vec![];
            for (key, value) in records {
                let mut record = FutureRecord::<[u8], [u8]>::to(topic);
                record.key = key.as_deref();
                record.payload = value.as_deref();
                sent.push(producer.send_result(record).map_err(|(e, _)| e).expect("the queue has room"));
            }
            for delivery in sent {
                let delivered = delivery.await.expect("delivered").map_err(|(e, _)| e).expect("acknowledged");
                let end = ends.entry(delivered.partition).or_default();
                *end = (*end).max(delivered.offset + 1);
            }
        });
        let parts = ends.iter().map(|(partition, next)| format!("{topic}/{partition}:{next}"));
        parts.collect::<Vec<_>>().join(",")
    }
}

/// A command that has ended.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// The lines of stdout as JSON, after a good end.
    pub fn json(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    /// Asserts an exit code and that stderr says each of `words`.
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
    }
}

/// A running service. Killed when dropped.
pub struct Service {
    pub child: Child,
    pub url: String,
    pub log: PathBuf,
    lines: std::sync::mpsc::Receiver<String>,
}

/// `POST /v1/sql` to a server.
pub fn sql_at(url: &str, sql: &str, at_least: Option<&str>) -> Reply {
    let body = serde_json::json!({ "sql": sql, "at_least": at_least, "timeout_ms": 30_000 });
    send(HTTP.post(format!("{url}/v1/sql")).body(body.to_string()))
}

/// The same of a query that has so many milliseconds.
pub fn ask_within(url: &str, sql: &str, timeout_ms: u64) -> Reply {
    let body = serde_json::json!({ "sql": sql, "timeout_ms": timeout_ms });
    send(HTTP.post(format!("{url}/v1/sql")).body(body.to_string()))
}

/// An HTTP reply.
pub struct Reply {
    pub status: u16,
    pub content_type: String,
    pub text: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }
}

impl Service {
    /// Waits for the ready line.
    pub fn wait_ready(&mut self) {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                let ready: Value = serde_json::from_str(&line).expect("the ready line is JSON");
                assert_eq!(ready["event"], "ready", "{line}");
                self.url = ready["url"].as_str().expect("a url").to_string();
            }
            Err(_) => panic!("not ready: {}", self.stderr()),
        }
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM; gives the exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
        self.wait_exit(Duration::from_secs(30))
    }

    /// Waits for the end; gives the exit code (none if a signal ended it).
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let until = Instant::now() + within;
        loop {
            match self.child.try_wait().expect("it can be waited for") {
                Some(status) => return status.code(),
                None if Instant::now() >= until => panic!("did not end in {within:?}: {}", self.stderr()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn get(&self, path: &str) -> Reply {
        send(HTTP.get(format!("{}{path}", self.url)))
    }

    pub fn post(&self, path: &str, body: Vec<u8>) -> Reply {
        send(HTTP.post(format!("{}{path}", self.url)).body(body))
    }

    /// A request with these headers, and none of a client's own but `Host`.
    pub fn ask_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let method = method.parse().expect("a method");
        let request = HTTP.request(method, format!("{}{path}", self.url)).body(body);
        send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
    }

    /// `POST /v1/sql`, as it is.
    pub fn sql(&self, sql: &str, at_least: Option<&str>) -> Reply {
        sql_at(&self.url, sql, at_least)
    }

    /// The rows of a query that reaches `at_least`.
    pub fn rows(&self, sql: &str, at_least: &str) -> Vec<Value> {
        let reply = self.sql(sql, Some(at_least));
        assert_eq!(reply.status, 200, "{sql}: {}\n{}", reply.text, self.stderr());
        reply.json()["rows"].as_array().expect("rows").clone()
    }

    /// Waits until `done` says so.
    pub fn wait(&self, what: &str, mut done: impl FnMut(&Service) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < until, "{what} did not come to pass: {}", self.stderr());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
    }
}

fn send(request: reqwest::RequestBuilder) -> Reply {
    RUNTIME.block_on(async {
        let response = request.timeout(PATIENCE).send().await.expect("the server answers");
        let status = response.status().as_u16();
        let header = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = header.unwrap_or_default().to_string();
        Reply { status, content_type, text: response.text().await.expect("a body") }
    })
}

/// All files below a folder, with their paths relative to it.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
