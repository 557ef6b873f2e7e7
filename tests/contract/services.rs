//! The life of services: starting, being ready, ending, dying, and starting again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Case, brokers};
use crate::support::{COUNTS, answer, ask, metric, one_partition, partitions, problem, up};

const LINE: &str = r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":5}"#;

/// An address at which nothing listens.
const NOBODY: &str = "127.0.0.1:1";

#[test]
fn the_ready_line_is_all_of_stdout() {
    let case = one_partition(COUNTS);
    let mut command = case.command(&["up", "--listen", "127.0.0.1:0"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("it starts");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("stdout"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    let ready: Value = serde_json::from_str(&line).expect("JSON");
    let members: Vec<&String> = ready.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["event", "role", "url"]);
    assert_eq!((&ready["event"], &ready["role"]), (&json!("ready"), &json!("up")));
    let port = ready["url"].as_str().and_then(|url| url.strip_prefix("http://127.0.0.1:")).expect("a url");
    assert_ne!(port.parse::<u16>().expect("a port"), 0);
    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.expect("kill runs").success());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).expect("the end");
    assert_eq!(rest, "", "one line alone");
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "SIGINT ends well");
}

#[test]
fn sigterm_commits_what_is_folded() {
    let case = one_partition(COUNTS);
    // The interval is too long to help.
    let mut first = case.start_with(
        &["up", "--listen", "127.0.0.1:0"],
        &[("BIFOLD_SPEED__EPOCH_INTERVAL", "1h"), ("BIFOLD_COLLECT__FLUSH_INTERVAL", "1h")],
    );
    let offsets = case.produce(&first, "e", &[LINE, LINE]);
    answer(&first, "SELECT * FROM v", &offsets);
    assert_eq!(first.terminate(), Some(0), "{}", first.stderr());
    let report = case.run(&["verify", "--offline"]).json();
    assert_eq!(report[0]["coverage"]["partitions"][0]["speed"], json!([0, 2]), "{report:?}");
}

#[test]
fn sigterm_ends_requests_that_wait() {
    let case = one_partition(COUNTS);
    let mut up = up(&case);
    let beyond = format!("{}/0:1000", case.topic);
    let mut asking =
        case.command(&["query", "SELECT * FROM v", "--at-least", &beyond, "--timeout", "55s", "--url", &up.url]);
    let mut asking = asking.stderr(std::process::Stdio::null()).spawn().expect("it starts");
    up.wait("the request", |up| up.get("/healthz").status == 200);
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    let ended = asking.wait().expect("it ends");
    assert_eq!(ended.code(), Some(1));
}

#[test]
fn after_kill_9_the_same_command_goes_on() {
    let case = partitions(COUNTS, 3);
    let mut running = up(&case);
    let mut offsets = String::new();
    for round in 0..4 {
        let reply = running.post("/v1/events/e?key=k", [LINE; 5].join("\n").into_bytes());
        offsets = reply.json()["offsets"].as_str().expect("offsets").to_string();
        if round % 2 == 0 {
            answer(&running, "SELECT * FROM v", &offsets);
        }
        running.kill();
        running = up(&case);
    }
    let body = answer(&running, "SELECT * FROM v", &offsets);
    assert_eq!(body["rows"], json!([{"k": "a", "c": 20, "s": 100}]), "{body}");
    ask(&case, &running, &["batch", "run", "--at-least", "latest"]).json();
    assert_eq!(ask(&case, &running, &["verify"]).json()[0]["equal"], true);
}

#[test]
fn a_port_in_use_says_so() {
    let case = one_partition(COUNTS);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    case.run(&["up", "--listen", &address]).fails(1, &[&address, "in use", "--listen"]);
    case.run(&["up", "--listen", "nonsense"]).fails(2, &["nonsense", "serve.listen", "HOST:PORT"]);
}

#[test]
fn beyond_loopback_needs_allow_anonymous() {
    let case = one_partition(COUNTS);
    case.run(&["up", "--listen", "0.0.0.0:0"]).fails(2, &["0.0.0.0:0", "serve.allow_anonymous"]);
    case.run(&["up", "--listen", "[::]:0"]).fails(2, &["serve.allow_anonymous"]);
    let allowed = [("BIFOLD_SERVE__ALLOW_ANONYMOUS", "true")];
    let mut open = case.start_with(&["up", "--listen", "0.0.0.0:0"], &allowed);
    assert_eq!(open.terminate(), Some(0));
    let mut named = case.start_with(&["up", "--listen", "localhost:0"], &[]);
    assert_eq!(named.get("/healthz").status, 200);
    assert_eq!(named.terminate(), Some(0));
}

#[test]
fn roles_of_their_own_refuse_the_local_log_and_say_why() {
    let case = Case::on(COUNTS, None);
    for role in ["collect", "speed", "serve"] {
        case.run(&[role, "--listen", "127.0.0.1:0"]).fails(2, &[role, "Kafka", "local log", "bifold up"]);
    }
}

#[test]
fn a_second_up_on_one_local_log_says_who_has_it() {
    let case = Case::on(COUNTS, None);
    let _first = up(&case);
    let second = case.run(&["up", "--listen", "127.0.0.1:0"]);
    second.fails(1, &["data/log"]);
}

#[test]
fn brokers_that_cannot_be_reached() {
    let case = Case::on(COUNTS, Some(NOBODY.to_string()));
    let environment = [("BIFOLD_STARTUP_TIMEOUT", "2s")];
    for role in ["up", "collect", "speed", "serve"] {
        let mut service = case.spawn(&[role, "--listen", "127.0.0.1:0"], &environment);
        assert_eq!(service.wait_exit(Duration::from_secs(40)), Some(1), "{role}: {}", service.stderr());
        let told = service.stderr();
        let last = told.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{role}: {told}"));
        assert!(last.contains(NOBODY), "{role} names the brokers: {last}");
    }
    let ran = case.run_with(&["produce", "e", "--timeout", "2s"], &[], LINE.as_bytes());
    ran.fails(1, &["127.0.0.1:1"]);
    case.run(&["batch", "run", "--at-least", "latest", "--timeout", "2s"]).fails(1, &["127.0.0.1:1"]);
}

#[test]
fn a_store_that_cannot_be_reached() {
    let case = one_partition(COUNTS);
    let store = "s3://bucket/prefix";
    let environment = [
        ("BIFOLD_STARTUP_TIMEOUT", "2s"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT", "http://127.0.0.1:1"),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_REGION", "us-east-1"),
    ];
    let mut service = case.spawn(&["up", "--listen", "127.0.0.1:0", "--store", store], &environment);
    assert_eq!(service.wait_exit(Duration::from_secs(60)), Some(1), "{}", service.stderr());
    let told = service.stderr();
    let last = told.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{told}"));
    assert!(last.contains("127.0.0.1:1") || last.contains("store"), "{last}");
    let started = std::time::Instant::now();
    case.run_with(&["views", "--store", store, "--timeout", "2s"], &environment, b"").fails(1, &["store"]);
    assert!(started.elapsed() < Duration::from_secs(30), "the timeout holds");
    // A path that cannot be a folder is a wrong configuration.
    crate::support::write(&case, "plain", "a file");
    let mut service = case.spawn(&["up", "--listen", "127.0.0.1:0", "--store", "plain/store"], &environment[..1]);
    assert_eq!(service.wait_exit(Duration::from_secs(60)), Some(2), "{}", service.stderr());
    assert!(service.stderr().contains("plain/store"), "{}", service.stderr());
}

#[test]
fn a_missing_topic_is_awaited_and_named() {
    let case = Case::new(COUNTS);
    if !case.is_kafka() {
        return;
    }
    // On a port that is known, for it is not ready; and beyond the startup timeout.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let listen = format!("127.0.0.1:{port}");
    let mut service = case.spawn(&["up", "--listen", &listen], &[("BIFOLD_STARTUP_TIMEOUT", "2s")]);
    service.url = format!("http://{listen}");
    let mut waited = 0;
    let mut reply = None;
    while waited < 40 {
        if std::net::TcpStream::connect(&listen).is_ok() {
            let ready = service.get("/readyz");
            if ready.status == 503 && ready.text.contains(&case.topic) {
                reply = Some(ready);
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(250));
        waited += 1;
    }
    let ready = reply.unwrap_or_else(|| panic!("not named: {}", service.stderr())).json();
    assert_eq!(ready["ready"], false, "{ready}");
    let reasons = ready["reasons"].as_array().expect("reasons");
    assert!(reasons.iter().any(|reason| reason.as_str().is_some_and(|text| text.contains(&case.topic))), "{ready}");
    assert_eq!(service.get("/healthz").status, 200);
    // Longer than startup_timeout: a missing topic is awaited without limit.
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(service.child.try_wait().expect("it can be asked"), None, "{}", service.stderr());
    case.create_topic(1);
    service.wait_ready();
    assert_eq!(service.get("/readyz").status, 200);
    let offsets = case.produce(&service, "e", &[LINE]);
    assert_eq!(answer(&service, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 1}]));
}

#[test]
fn roles_of_their_own_on_kafka() {
    let case = one_partition(COUNTS);
    if !case.is_kafka() {
        return;
    }
    let mut speed = case.start("speed");
    let mut collect = case.start("collect");
    let speeds = format!("http://127.0.0.1:1,{}", speed.url);
    let mut serve = case.start_with(&["serve", "--listen", "127.0.0.1:0"], &[("BIFOLD_SERVE__SPEED", &speeds)]);
    for service in [&speed, &collect, &serve] {
        assert_eq!((service.get("/healthz").status, service.get("/readyz").status), (200, 200));
        assert_eq!(service.get("/metrics").status, 200);
    }
    let offsets = case.produce(&serve, "e", &[LINE, LINE, "nope"]);
    assert_eq!(answer(&serve, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 2}]));
    let report = case.run(&["batch", "run", "--at-least", &offsets]).json();
    assert_eq!(report[0]["boundary"], offsets);
    let offsets = serve.post("/v1/events/e", LINE.into()).json()["offsets"].as_str().expect("offsets").to_string();
    let body = answer(&serve, "SELECT c FROM v", &offsets);
    assert_eq!(body["rows"], json!([{"c": 3}]));
    let p = &body["coverage"][0]["partitions"][0];
    assert_eq!((&p["batch"], &p["speed"]), (&json!([0, 3]), &json!([3, 4])));
    assert_eq!(ask(&case, &serve, &["verify"]).json()[0]["equal"], true);
    collect.wait("the count of dead letters", |collect| {
        metric(collect, "bifold_dead_letters_total", &[("reason", "malformed")]) == 1.0
    });
    assert_eq!(metric(&speed, "bifold_dead_letters_total", &[]), 0.0, "counted by collect alone");
    // A missing speed layer lowers f: still an answer, by what is durable.
    speed.wait("the epoch", |_| serve.get("/v1/sources").json()["sources"][0]["partitions"][0]["folded"] == 4);
    speed.kill();
    assert_eq!(answer(&serve, "SELECT c FROM v", &offsets)["rows"], json!([{"c": 3}]));
    let more = case.produce(&serve, "e", &[LINE]);
    let body = json!({"sql": "SELECT c FROM v", "at_least": more, "timeout_ms": 500});
    problem(&serve.post("/v1/sql", body.to_string().into_bytes()), 503, "not-yet", &[]);
    let sql = serve.sql("SELECT c FROM v", None).json();
    assert_eq!((&sql["rows"], &sql["coverage"][0]["partitions"][0]["speed"]), (&json!([{"c": 3}]), &json!([3, 4])));
    for service in [&mut collect, &mut serve] {
        assert_eq!(service.terminate(), Some(0), "{}", service.stderr());
    }
    // Again, and it goes on where the ledger stands.
    let again = case.start("speed");
    let serve = case.start_with(&["serve", "--listen", "127.0.0.1:0"], &[("BIFOLD_SERVE__SPEED", &again.url)]);
    assert_eq!(answer(&serve, "SELECT c FROM v", &more)["rows"], json!([{"c": 4}]));
}

#[test]
fn in_up_the_other_listeners_are_not_opened() {
    let case = one_partition(COUNTS);
    let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").to_string();
    let (speed, collect) = (free(), free());
    let environment = [("BIFOLD_SPEED__LISTEN", speed.as_str()), ("BIFOLD_COLLECT__LISTEN", collect.as_str())];
    let _up = crate::support::up_with(&case, &environment);
    for address in [&speed, &collect] {
        assert!(std::net::TcpStream::connect(address.as_str()).is_err(), "{address} is open");
    }
}

#[test]
fn the_log_of_these_tests_is_the_one_that_was_asked_for() {
    assert_eq!(Case::new(COUNTS).is_kafka(), brokers().is_some());
}
