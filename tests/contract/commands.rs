//! Every command: flags, help, output, exit codes.

use serde_json::{Value, json};

use crate::harness::Case;
use crate::support::{COUNTS, answer, ask, bare, configure, one_partition, pipeline, positions, up, write};

pub(crate) const LINES: [&str; 3] = [
    r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":5}"#,
    r#"{"t":"2026-01-01T00:00:01Z","k":"b","n":7}"#,
    r#"{"t":"2026-01-01T00:00:02Z","k":"a","n":1}"#,
];

/// The words of each command and the flags of its own.
const COMMANDS: [(&[&str], &[&str]); 17] = [
    (&["up"], &["--listen"]),
    (&["collect"], &["--listen"]),
    (&["speed"], &["--listen"]),
    (&["serve"], &["--listen"]),
    (&["batch", "run"], &["--view", "--full", "--at-least", "--url", "--timeout", "--output"]),
    (&["batch", "runs"], &["--timeout", "--output"]),
    (&["batch", "schedule"], &["--listen"]),
    (&["verify"], &["--offline", "--url", "--timeout", "--output"]),
    (&["query"], &["--at-least", "--url", "--timeout", "--output"]),
    (&["views"], &["--url", "--timeout", "--output"]),
    (&["check"], &["--output"]),
    (&["plan"], &["--timeout", "--output"]),
    (&["files"], &["--layer", "--list", "--timeout", "--output"]),
    (&["dead-letters"], &["--url", "--timeout", "--output"]),
    (
        &["produce"],
        &[
            "--key",
            "--create-topic",
            "--format",
            "--rate",
            "--loop",
            "--shift-time",
            "--delimiter",
            "--from-line",
            "--url",
            "--timeout",
            "--output",
        ],
    ),
    (&["demo"], &["--input", "--once", "--seed", "--rate", "--for"]),
    (&["top"], &["--url", "--timeout"]),
];

#[test]
fn help_of_every_command_names_its_flags() {
    let case = Case::on(COUNTS, None);
    let all = bare(&case, "", &["--help"], &[]);
    assert_eq!(all.code, Some(0));
    for (words, flags) in COMMANDS {
        assert!(all.stdout.contains(words[0]), "{} is in: {}", words[0], all.stdout);
        let arguments: Vec<&str> = words.iter().copied().chain(["--help"]).collect();
        let help = bare(&case, "", &arguments, &[]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{words:?}");
        assert!(help.stdout.contains(&format!("Usage: bifold {}", words.join(" "))), "{}", help.stdout);
        for flag in flags.iter().chain(&["--config", "--pipeline", "--data-dir", "--store", "--brokers"]) {
            assert!(help.stdout.contains(flag), "{words:?} has {flag}: {}", help.stdout);
        }
    }
    let version = bare(&case, "", &["--version"], &[]);
    assert_eq!(version.code, Some(0));
    assert!(version.stdout.starts_with("bifold "), "{}", version.stdout);
}

#[test]
fn wrong_usage_is_2_and_words_on_stderr() {
    let case = Case::on(COUNTS, None);
    for arguments in [
        &[][..],
        &["frobnicate"],
        &["up", "--frobnicate"],
        &["batch"],
        &["query"],
        &["query", "SELECT 1", "--timeout", "soon"],
        &["query", "SELECT 1", "--output", "xml"],
        &["produce"],
        &["produce", "e", "--create-topic", "0"],
        &["dead-letters"],
    ] {
        let ran = bare(&case, "", arguments, &[]);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn unknown_sources_and_views_are_2_and_name_what_there_is() {
    let case = one_partition(COUNTS);
    case.run_with(&["produce", "nope"], &[], b"{}\n").fails(2, &["nope", "e"]);
    case.run(&["dead-letters", "nope"]).fails(2, &["nope", "e"]);
    let up = up(&case);
    case.run(&["batch", "run", "--view", "nope"]).fails(2, &["nope", "v"]);
    ask(&case, &up, &["verify", "nope"]).fails(2, &["nope", "v"]);
    case.run(&["verify", "nope", "--offline"]).fails(2, &["nope", "v"]);
    case.run(&["batch", "run", "--at-least", "other/0:1"]).fails(2, &["other/0"]);
    case.run(&["batch", "run", "--at-least", "nonsense"]).fails(2, &["nonsense"]);
}

#[test]
fn no_pipeline_is_2_and_says_what_to_do() {
    let case = Case::on(COUNTS, None);
    std::fs::remove_file(case.path("pipeline.sql")).expect("removed");
    for arguments in [&["check"][..], &["up", "--listen", "127.0.0.1:0"], &["views"], &["batch", "run"]] {
        case.run(arguments).fails(2, &["pipeline.sql", "--pipeline"]);
    }
    write(&case, "pipeline.sql", "-- nothing yet\n");
    case.run(&["check"]).fails(2, &["pipeline.sql", "CREATE TABLE"]);
}

#[test]
fn check_names_line_column_caret_and_hint() {
    let case = Case::on(COUNTS, None);
    let source = "CREATE TABLE e (t TIMESTAMP, k TEXT, n BIGINT, WATERMARK FOR t AS t)\n  \
                  WITH (connector = 'kafka', topic = 'x', format = 'json');\n";
    for (view, line, column, words) in [
        ("CREATE MATERIALIZED VIEW v AS\n  SELECT k, cuont(*) AS c FROM e GROUP BY k;", 4, 13, &["cuont"][..]),
        ("CREATE MATERIALIZED VIEW v AS\n  SELECT k, random() AS c FROM e GROUP BY k;", 4, 13, &["random"]),
        ("CREATE MATERIALIZED VIEW v AS\n  SELECT k, now() AS c FROM e GROUP BY k;", 4, 13, &["now"]),
        ("CREATE MATERIALIZED VIEW v AS\n  SELECT k, count(*) AS c FROM nope GROUP BY k;", 4, 32, &["nope"]),
        ("CREATE MATERIALIZED VIEW v AS\n  SELECT k, sum(m) AS c FROM e GROUP BY k;", 4, 17, &["m"]),
        ("CREATE MATERIALIZED VIEW v AS\n  SELECT k, array_agg(n) AS c FROM e GROUP BY k;", 4, 13, &["array_agg"]),
        ("CREATE MATERIALIZED VIEW v AS\n  SELECT k, count(*) AS c FROM e GROUP k;", 4, 34, &["GROUP"]),
    ] {
        write(&case, "pipeline.sql", format!("{source}{view}"));
        let ran = case.run(&["check"]);
        ran.fails(2, words);
        ran.fails(2, &["pipeline.sql", "^"]);
        let place = format!("{line}:{column}");
        let long = format!("line {line}, column {column}");
        assert!(ran.stderr.contains(&place) || ran.stderr.contains(&long), "{place} is in: {}", ran.stderr);
        // A service says the same, at once.
        if words == ["cuont"] {
            case.run(&["up", "--listen", "127.0.0.1:0"]).fails(2, &["cuont", "^"]);
        }
    }
}

#[test]
fn check_refuses_wrong_sources() {
    let case = Case::on(COUNTS, None);
    for (table, word) in [
        (
            "CREATE TABLE e (t TIMESTAMP, WATERMARK FOR t AS t) WITH (connector = 'file', topic = 'x', format = 'json');",
            "file",
        ),
        (
            "CREATE TABLE e (t TIMESTAMP, WATERMARK FOR t AS t) WITH (connector = 'kafka', topic = 'x', format = 'xml');",
            "xml",
        ),
        ("CREATE TABLE e (t TIMESTAMP, WATERMARK FOR t AS t) WITH (connector = 'kafka', format = 'json');", "topic"),
        (
            "CREATE TABLE e (t TIMESTAMP, WATERMARK FOR t AS t) \
             WITH (connector = 'kafka', topic = 'x', format = 'json', timestmp_unit = 's');",
            "timestmp_unit",
        ),
        (
            "CREATE TABLE e (t TIMESTAMP, WATERMARK FOR t AS t) \
             WITH (connector = 'kafka', topic = 'x', format = 'json', timestamp_unit = 'h');",
            "timestamp_unit",
        ),
        (
            "CREATE TABLE e (t TIMESTAMP, WATERMARK FOR t AS t) \
             WITH (connector = 'kafka', topic = 'x', format = 'json', event_time_min = 'then');",
            "event_time_min",
        ),
        (
            "CREATE TABLE e (t TIMESTAMP, WATERMARK FOR u AS u) WITH (connector = 'kafka', topic = 'x', format = 'json');",
            "u",
        ),
    ] {
        write(&case, "pipeline.sql", table);
        case.run(&["check"]).fails(2, &["pipeline.sql", word]);
    }
}

#[test]
fn check_prints_the_views() {
    let case = Case::on(COUNTS, None);
    let rows = case.run(&["check", "--output", "json"]).json();
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["view"], &rows[0]["source"]), (&json!("v"), &json!("e")));
    assert!(rows[0]["version"].is_string(), "{rows:?}");
    let table = case.run(&["check", "--output", "table"]);
    assert!(table.code == Some(0) && table.stdout.contains('│'), "{}", table.stdout);
    let csv = case.run(&["check", "--output", "csv"]);
    assert!(csv.stdout.starts_with("view,"), "{}", csv.stdout);
}

#[test]
fn query_prints_the_body_a_table_or_csv() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let odd = [r#"{"t":"2026-01-01T00:00:00Z","k":"a \"q\", b","n":5}"#, r#"{"t":"2026-01-01T00:00:00Z","n":null}"#];
    let offsets = case.produce(&up, "e", &odd);
    let sql = "SELECT k, c, s FROM v ORDER BY c, k NULLS LAST";
    let body = ask(&case, &up, &["query", sql, "--at-least", &offsets]).json();
    assert_eq!(body.len(), 1, "the body, on one line");
    let expected = json!([{"k": "a \"q\", b", "c": 1, "s": 5}, {"k": null, "c": 1, "s": null}]);
    assert_eq!(body[0]["rows"], expected);
    let members: Vec<&String> = body[0].as_object().expect("an object").keys().collect();
    assert_eq!(members, ["columns", "rows", "coverage", "as_of", "truncated"]);
    let csv = ask(&case, &up, &["query", sql, "--at-least", "latest", "--output", "csv"]);
    assert_eq!(csv.stdout, "k,c,s\n\"a \"\"q\"\", b\",1,5\n,1,\n", "{}", csv.stderr);
    let table = ask(&case, &up, &["query", sql, "--output", "table"]);
    assert!(table.stdout.contains("a \"q\", b") && table.stdout.contains("batch [0,0)"), "{}", table.stdout);
    // Flags may stand before and after the command's words.
    let mut arguments = vec!["query", "--output", "csv", "--url", &up.url, "SELECT count(*) AS n FROM v"];
    assert_eq!(case.run(&arguments).stdout, "n\n2\n");
    arguments[2] = "json";
    assert_eq!(case.run(&arguments).json()[0]["rows"], json!([{"n": 2}]));
}

#[test]
fn query_exit_codes() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    ask(&case, &up, &["query", "SELEC 1"]).fails(2, &["bad-query", "SELEC"]);
    ask(&case, &up, &["query", "SELECT * FROM nope", "--output", "csv"]).fails(2, &["unknown-view", "nope"]);
    ask(&case, &up, &["query", "SELECT x FROM v"]).fails(2, &["bad-query", "x"]);
    let beyond = format!("{}/0:1000", case.topic);
    ask(&case, &up, &["query", "SELECT * FROM v", "--at-least", &beyond, "--timeout", "300ms"])
        .fails(1, &["not-yet", "1000"]);
    ask(&case, &up, &["query", "SELECT * FROM v", "--at-least", "garbage"]).fails(2, &["garbage"]);
    let gone = ["query", "SELECT 1 AS one", "--url", "http://127.0.0.1:1", "--timeout", "2s"];
    case.run(&gone).fails(1, &["http://127.0.0.1:1", "bifold up"]);
}

#[test]
fn a_demo_of_so_long_ends_verified() {
    let case = one_partition(COUNTS);
    let done = case.run(&["demo", "--for", "8s", "--listen", "127.0.0.1:0", "--rate", "100", "--data-dir", "demo"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.contains("events were sent (seed 1)"), "{}", done.stdout);
    assert!(done.stdout.contains("a batch run recomputes"), "{}", done.stdout);
}

#[test]
fn top_says_what_runs_as_json_where_nobody_watches() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    ask(&case, &up, &["batch", "run", "--at-least", &offsets]);
    let done = ask(&case, &up, &["top"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let status: serde_json::Value = serde_json::from_str(&done.stdout).expect("one object");
    assert_eq!(status["url"], up.url);
    assert_eq!(status["waits"], serde_json::json!([]));
    let partition = &status["sources"][0]["partitions"][0];
    let positions = ["origin", "batch", "speed", "log_end"].map(|member| partition[member].as_i64().unwrap_or(-1));
    assert_eq!(positions, [0, 3, 3, 3], "{status}");
    assert!(status["memory_bytes"].as_f64() > Some(1e6), "{status}");
    assert_eq!(status["views"][0]["state"], "ready", "{status}");
    case.run(&["top", "--url", "http://127.0.0.1:1"]).fails(1, &["no server answers at http://127.0.0.1:1"]);
}

#[test]
fn a_batch_run_says_which_views_nothing_folds_yet() {
    let case = one_partition(COUNTS);
    let mut service = up(&case);
    let offsets = case.produce(&service, "e", &LINES);
    answer(&service, "SELECT * FROM v", &offsets);
    assert_eq!(service.terminate(), Some(0));
    case.write_pipeline(&format!("{COUNTS} CREATE MATERIALIZED VIEW later AS SELECT count(*) AS n FROM e;"));
    // Somebody folded a moment ago, and may do so again.
    let done = case.run(&["batch", "run"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("view later: nothing to do, for nothing folds it yet"), "{}", done.stderr);
    // Nobody does: the run declares it, and builds it.
    let done = case.run_with(&["batch", "run", "--output", "json"], &[("BIFOLD_BATCH__LEAP_AFTER", "0s")], b"");
    assert!(done.json().iter().any(|report| report["view"] == "later" && report["mode"] == "full"), "{}", done.stdout);
}

#[test]
fn demo_ends_at_sigterm() {
    let case = Case::on(COUNTS, None);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bifold"));
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--rate", "200", "--data-dir", "demo"];
    command.args(arguments).current_dir(case.folder.path()).stderr(std::process::Stdio::null());
    let mut demo = command.stdout(std::process::Stdio::piped()).spawn().expect("it starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(demo.stdout.take().expect("stdout")));
    lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("counted"))).expect("a view moves").expect("a line");
    let ended = std::process::Command::new("kill").arg(demo.id().to_string()).status();
    assert!(ended.expect("kill runs").success());
    assert_eq!(demo.wait().expect("it ends").code(), Some(0));
}

#[test]
fn keyed_records_lie_where_javas_murmur2_puts_them() {
    let case = crate::support::partitions(COUNTS, 5);
    let up = up(&case);
    for key in ["a", "21", "foobar", "käse", "a-little-bit-longer-string"] {
        let line = json!({"t": "2026-01-01T00:00:00Z", "k": key, "n": 1}).to_string();
        let expected = crate::support::murmur2_partition(key.as_bytes(), 5);
        let ran = case.run_with(&["produce", "e", "--key", "k", "--url", &up.url], &[], line.as_bytes());
        let offsets = ran.json()[0]["offsets"].as_str().expect("offsets").to_string();
        let at: Vec<i32> = positions(&offsets).into_keys().map(|(_, partition)| partition).collect();
        assert_eq!(at, [expected], "{key}");
        let reply = up.post("/v1/events/e?key=k", line.into_bytes());
        let offsets = reply.json()["offsets"].as_str().expect("offsets").to_string();
        let at: Vec<i32> = positions(&offsets).into_keys().map(|(_, partition)| partition).collect();
        assert_eq!(at, [expected], "{key} by HTTP");
    }
}

#[test]
fn produce_without_a_server_opens_the_local_log() {
    let case = Case::on(COUNTS, None);
    let arguments = ["produce", "e", "--url", "http://127.0.0.1:1", "--create-topic", "2"];
    let ran = case.run_with(&arguments, &[], LINES.join("\n").as_bytes());
    let last = ran.json().pop().expect("a line");
    assert_eq!(last["records"], 3);
    let offsets = last["offsets"].as_str().expect("offsets").to_string();
    assert!(positions(&offsets).keys().all(|(_, partition)| (0..2).contains(partition)), "{offsets}");
    let up = up(&case);
    assert_eq!(answer(&up, "SELECT sum(c) AS n FROM v", &offsets)["rows"], json!([{"n": 3}]));
    let sources = up.get("/v1/sources").json();
    assert_eq!(sources["sources"][0]["partitions"].as_array().map(Vec::len), Some(2), "{sources}");
    // The server that holds the log does not answer at that address: it is said who has the log.
    let ran = case.run_with(&arguments, &[], LINES[0].as_bytes());
    ran.fails(1, &["log", "http://127.0.0.1:1"]);
}

#[test]
fn produce_makes_a_topic_on_kafka_only_if_told() {
    let case = Case::new(COUNTS);
    if !case.is_kafka() {
        return;
    }
    case.run_with(&["produce", "e"], &[], LINES[0].as_bytes()).fails(1, &[&case.topic, "--create-topic"]);
    let ran = case.run_with(&["produce", "e", "--create-topic", "3"], &[], LINES.join("\n").as_bytes());
    assert_eq!(ran.json()[0]["records"], 3);
    // It exists: that is no failure.
    let ran = case.run_with(&["produce", "e", "--create-topic", "3"], &[], LINES[0].as_bytes());
    assert_eq!(ran.json()[0]["records"], 1);
    let up = up(&case);
    assert_eq!(answer(&up, "SELECT sum(c) AS n FROM v", "latest")["rows"], json!([{"n": 4}]));
}

#[test]
fn an_unknown_key_column_is_2() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let arguments = ["produce", "e", "--key", "kk", "--url", &up.url];
    case.run_with(&arguments, &[], LINES[0].as_bytes()).fails(2, &["kk", "k"]);
}

#[test]
fn views_lists_the_store() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    answer(&up, "SELECT * FROM v", &offsets);
    let rows = case.run(&["views", "--output", "json"]).json();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["view"], &rows[0]["state"]), (&json!("v"), &json!("ready")));
    case.run(&["batch", "run", "--at-least", &offsets]).json();
    let rows = case.run(&["views", "--output", "json"]).json();
    assert_eq!(rows[0]["boundary"], offsets);
    let table = case.run(&["views", "--output", "table"]);
    assert!(table.stdout.contains("ready"), "{}", table.stdout);
}

#[test]
fn verify_asks_the_server_or_merges_offline() {
    let case = one_partition(COUNTS);
    let mut up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    answer(&up, "SELECT * FROM v", &offsets);
    let check = |row: &Value| {
        assert_eq!((&row["view"], &row["equal"]), (&json!("v"), &json!(true)), "{row}");
        assert_eq!((&row["groups"], &row["differing"]), (&json!(2), &json!(0)), "{row}");
        assert_eq!(row["max_relative_error"].as_f64(), Some(0.0), "{row}");
        assert!(row["version"].is_string(), "{row}");
        let speed_end = &row["coverage"]["partitions"][0]["speed"][1];
        assert_eq!(speed_end, 3, "{row}");
    };
    let rows = ask(&case, &up, &["verify"]).json();
    assert_eq!(rows.len(), 1);
    check(&rows[0]);
    case.run(&["batch", "run", "--at-least", &offsets]).json();
    let more = case.produce(&up, "e", &LINES);
    answer(&up, "SELECT * FROM v", &more);
    let rows = ask(&case, &up, &["verify", "v", "--output", "json"]).json();
    let partition = &rows[0]["coverage"]["partitions"][0];
    assert_eq!((&partition["batch"], &partition["speed"]), (&json!([0, 3]), &json!([3, 6])), "{rows:?}");
    assert_eq!(up.terminate(), Some(0));
    let rows = case.run(&["verify", "--offline"]).json();
    assert_eq!((&rows[0]["equal"], &rows[0]["groups"]), (&json!(true), &json!(2)), "{rows:?}");
    let gone = case.run(&["verify", "--url", "http://127.0.0.1:1", "--timeout", "2s"]);
    gone.fails(1, &["http://127.0.0.1:1"]);
}

#[test]
fn verify_names_a_damaged_file_with_3() {
    let case = one_partition(COUNTS);
    let mut up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    case.run(&["batch", "run", "--at-least", &offsets]).json();
    assert_eq!(up.terminate(), Some(0));
    let store = case.store_folder();
    let parquet: Vec<_> = crate::harness::files_below(&store)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "parquet"))
        .collect();
    assert!(parquet.len() >= 2, "an archived file and a batch view's: {parquet:?}");
    for file in parquet {
        let whole = std::fs::read(&file).expect("read");
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        // Cut short; a byte turned; gone.
        let mut turned = whole.clone();
        turned[whole.len() / 2] ^= 0x55;
        for bad in [Some(whole[..whole.len() / 2].to_vec()), Some(turned), None] {
            match &bad {
                Some(bytes) => std::fs::write(&file, bytes).expect("written"),
                None => std::fs::remove_file(&file).expect("removed"),
            }
            let ran = case.run(&["verify", "--offline"]);
            ran.fails(3, &[&name]);
        }
        std::fs::write(&file, whole).expect("written");
    }
    assert_eq!(case.run(&["verify", "--offline"]).json()[0]["equal"], true);
}

#[test]
fn several_sources_and_views_in_one_pipeline() {
    let text = pipeline("k TEXT", "", "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM e GROUP BY k; ")
        + "CREATE TABLE f (t TIMESTAMP, k TEXT, WATERMARK FOR t AS t) \
           WITH (connector = 'kafka', topic = '{topic}-f', format = 'json'); \
           CREATE MATERIALIZED VIEW w AS SELECT k, count(*) AS c FROM f GROUP BY k; \
           CREATE MATERIALIZED VIEW all_of_f AS SELECT count(*) AS c FROM f;";
    let case = one_partition(&text);
    case.create_topic_named(&format!("{}-f", case.topic), 1);
    let up = up(&case);
    for (source, line) in [("e", LINES[0]), ("f", LINES[0]), ("f", LINES[1])] {
        assert_eq!(up.post(&format!("/v1/events/{source}"), line.into()).status, 200);
    }
    let sql = "SELECT v.k, v.c AS of_e, w.c AS of_f, (SELECT c FROM all_of_f) AS everything FROM v JOIN w ON v.k = w.k";
    let body = answer(&up, sql, "latest");
    assert_eq!(body["rows"], json!([{"k": "a", "of_e": 1, "of_f": 1, "everything": 2}]));
    let mut covered: Vec<&str> =
        body["coverage"].as_array().expect("coverage").iter().map(|c| c["view"].as_str().expect("a view")).collect();
    covered.sort_unstable();
    assert_eq!(covered, ["all_of_f", "v", "w"]);
    let rows = ask(&case, &up, &["batch", "run", "--at-least", "latest"]).json();
    let mut done: Vec<&str> = rows.iter().map(|row| row["view"].as_str().expect("a view")).collect();
    done.sort_unstable();
    assert_eq!(done, ["all_of_f", "v", "w"]);
    assert_eq!(case.run(&["batch", "run", "--view", "w"]).json().len(), 1);
    assert_eq!(case.run(&["batch", "run", "--view", "w", "--view", "v"]).json().len(), 2);
    assert!(ask(&case, &up, &["verify"]).json().iter().all(|row| row["equal"] == true));
    assert_eq!(ask(&case, &up, &["verify", "w"]).json().len(), 1);
}

#[test]
fn verify_pairs_rows_whose_keys_are_not_shown() {
    let views = "CREATE MATERIALIZED VIEW hidden AS SELECT k, avg(x) AS mean FROM e GROUP BY k, y; \
                 CREATE MATERIALIZED VIEW twice AS SELECT k, k AS same, avg(x) AS mean FROM e GROUP BY k, y; \
                 CREATE MATERIALIZED VIEW \"web:clicks\" AS SELECT stddev(x) AS spread, count(*) AS n FROM e;";
    let case = one_partition(&pipeline("k TEXT, y INT, x DOUBLE", "", views));
    let up = up(&case);
    let lines: Vec<String> = (0..60)
        .map(|i| format!(r#"{{"t":"2026-01-01T00:00:00Z","k":"a","y":{},"x":{}}}"#, i % 20, f64::from(i % 20) / 7.0))
        .collect();
    for chunk in lines.chunks(7) {
        let offsets = case.produce(&up, "e", &chunk.iter().map(String::as_str).collect::<Vec<_>>());
        answer(&up, "SELECT * FROM hidden", &offsets);
    }
    let rows = ask(&case, &up, &["verify"]).json();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(rows.iter().all(|row| row["equal"] == true), "{rows:?}");
    assert_eq!(answer(&up, "SELECT n FROM \"web:clicks\"", "latest")["rows"], json!([{"n": 60}]));
}

#[test]
fn verify_takes_the_rounding_of_a_spread_for_nothing() {
    let views = "CREATE MATERIALIZED VIEW v AS SELECT stddev(x) AS spread FROM e;";
    let case = one_partition(&pipeline("x DOUBLE", "", views));
    let up = up(&case);
    for _ in 0..12 {
        let offsets = case.produce(&up, "e", &[r#"{"t":"2026-01-01T00:00:00Z","x":0.1}"#; 5]);
        answer(&up, "SELECT * FROM v", &offsets);
    }
    assert_eq!(ask(&case, &up, &["verify"]).json()[0]["equal"], true);
}

#[test]
fn verify_checks_what_it_can() {
    let views = "CREATE MATERIALIZED VIEW a_sum AS SELECT sum(n) AS s FROM e; \
                 CREATE MATERIALIZED VIEW b_count AS SELECT count(*) AS c FROM e;";
    let case = one_partition(&pipeline("n BIGINT", "", views));
    let up = up(&case);
    let most = r#"{"t":"2026-01-01T00:00:00Z","n":9223372036854775807}"#;
    let offsets = case.produce(&up, "e", &[most, most]);
    answer(&up, "SELECT * FROM b_count", &offsets);
    let ran = ask(&case, &up, &["verify"]);
    ran.fails(2, &["a_sum", "overflow"]);
    let report: Value = serde_json::from_str(ran.stdout.trim()).expect("one report");
    assert_eq!((&report["view"], &report["equal"]), (&json!("b_count"), &json!(true)));
}

#[test]
fn a_view_that_moved_to_another_source_is_served_from_there() {
    let table = |name: &str| {
        format!(
            "CREATE TABLE {name} (t TIMESTAMP, n BIGINT, WATERMARK FOR t AS t) \
             WITH (connector = 'kafka', topic = '{{topic}}-{name}', format = 'json'); "
        )
    };
    let pipeline = |of: &str| {
        format!(
            "{}{}CREATE MATERIALIZED VIEW v AS SELECT sum(n) AS s FROM {of}; \
             CREATE MATERIALIZED VIEW w AS SELECT count(*) AS c FROM a;",
            table("a"),
            table("b")
        )
    };
    let case = Case::new(&pipeline("a"));
    configure(&case, "[log]\npartitions = 1\n");
    for source in ["a", "b"] {
        case.create_topic_named(&format!("{}-{source}", case.topic), 1);
    }
    let mut first = up(&case);
    for (source, n) in [("a", 1), ("b", 100)] {
        let line = format!(r#"{{"t":"2026-01-01T00:00:00Z","n":{n}}}"#);
        assert_eq!(first.post(&format!("/v1/events/{source}"), line.into()).status, 200);
    }
    assert_eq!(answer(&first, "SELECT s FROM v", "latest")["rows"], json!([{"s": 1}]));
    assert_eq!(first.terminate(), Some(0));
    case.write_pipeline(&pipeline("b"));
    let second = up(&case);
    ask(&case, &second, &["batch", "run", "--at-least", "latest"]).json();
    assert_eq!(answer(&second, "SELECT s FROM v", "latest")["rows"], json!([{"s": 100}]));
    let listed = second.get("/v1/views").json();
    let of_v: Vec<&Value> = listed["views"].as_array().expect("views").iter().filter(|v| v["name"] == "v").collect();
    assert_eq!(of_v.len(), 1, "{listed}");
    assert!(ask(&case, &second, &["verify"]).json().iter().all(|row| row["equal"] == true));
}

#[test]
fn nothing_to_do_is_0() {
    let case = one_partition(COUNTS);
    let listed = case.run(&["views", "--output", "json"]).json();
    assert_eq!((listed.len(), &listed[0]["view"]), (1, &json!("v")), "{listed:?}");
    assert_eq!(case.run(&["dead-letters", "e"]).json().len(), 0);
    let up = up(&case);
    assert_eq!(case.run(&["batch", "run"]).json()[0]["mode"], "none");
    let report = &ask(&case, &up, &["verify"]).json()[0];
    assert_eq!((&report["equal"], &report["groups"]), (&json!(true), &json!(0)), "{report}");
    let ran = case.run_with(&["produce", "e", "--url", &up.url], &[], b"");
    assert_eq!(ran.json()[0], json!({"source": "e", "records": 0, "offsets": ""}));
}

#[test]
fn dead_letters_as_csv_and_table() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    up.post("/v1/events/e", b"nope".to_vec());
    crate::support::dead_letters(&case, &up, 1);
    let csv = case.run(&["dead-letters", "e", "--output", "csv"]);
    let header = "topic,partition,offset,index,timestamp,reason,detail,payload_base64";
    assert_eq!(csv.stdout.lines().next(), Some(header), "{}", csv.stderr);
    assert!(
        csv.stdout.contains(&format!("{},0,0,0,", case.topic)) && csv.stdout.contains("bm9wZQ=="),
        "{}",
        csv.stdout
    );
    assert!(case.run(&["dead-letters", "e", "--output", "table"]).stdout.contains("malformed"));
}

#[test]
fn the_timeout_of_one_shots_holds() {
    // A server that takes the connection and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let case = Case::on(COUNTS, None);
    let started = std::time::Instant::now();
    case.run(&["query", "SELECT 1 AS one", "--url", &url, "--timeout", "1s"]).fails(1, &[&url]);
    case.run(&["verify", "--url", &url, "--timeout", "1s"]).fails(1, &[&url]);
    assert!(started.elapsed() < std::time::Duration::from_secs(40), "{:?}", started.elapsed());
}

#[test]
fn plan_says_what_starting_a_pipeline_would_do() {
    let text = |columns: &str, options: &str, views: &str| pipeline(columns, options, views);
    let view = "CREATE MATERIALIZED VIEW v AS SELECT k, count(*) AS c FROM e GROUP BY k;";
    let case = one_partition(&text("k TEXT, n BIGINT", "", view));
    let plan = |code: i32| {
        let ran = case.run(&["plan", "--output", "json"]);
        assert_eq!(ran.code, Some(code), "{}\n{}", ran.stdout, ran.stderr);
        assert!(!ran.stderr.contains("error"), "{}", ran.stderr);
        ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("a row")).collect::<Vec<_>>()
    };
    let rows = plan(4);
    assert_eq!((&rows[0]["action"], &rows[0]["rows"]), (&json!("new"), &json!(0)), "{rows:?}");
    let mut service = up(&case);
    case.produce(&service, "e", &[r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":1}"#]);
    case.run(&["batch", "run", "--at-least", "latest", "--url", &service.url]);
    assert_eq!(plan(0)[0]["action"], "none");
    assert_eq!(service.terminate(), Some(0));
    // A column that the view does not read, an option, the SELECT, and a view beside it.
    let more = format!("{view} CREATE MATERIALIZED VIEW w AS SELECT sum(n) AS s FROM e;");
    for (columns, options, views, words) in [
        ("k TEXT, n BIGINT, z TEXT", "", view, vec!["column \"z\" of the source is new"]),
        (
            "k TEXT, n BIGINT",
            ", quoted_numbers = 'false'",
            view,
            vec!["quoted_numbers of the source was true, and is false"],
        ),
        ("k TEXT, n INT", "", view, vec!["column \"n\" of the source has another type"]),
        ("k TEXT, n BIGINT", "", &view.replace("count(*)", "count(n)"), vec!["its SELECT or its options changed"]),
        ("k TEXT, n BIGINT", "", &more, vec!["the view is new"]),
    ] {
        case.write_pipeline(&text(columns, options, views));
        let rows = plan(4);
        for words in words {
            let said = |row: &Value| row["why"].as_str().is_some_and(|why| why.contains(words));
            assert!(rows.iter().any(|row| said(row) && row["rows"] == 1), "{words}: {rows:?}");
        }
    }
    // What is not in the pipeline any more stays; going back changes nothing.
    case.write_pipeline(&text("k TEXT, n BIGINT", "", &view.replace("VIEW v", "VIEW x")));
    let rows = plan(4);
    assert_eq!(rows.iter().map(|row| row["action"].clone()).collect::<Vec<_>>(), ["new", "left"], "{rows:?}");
    case.write_pipeline(&text("k TEXT, n BIGINT", "", view));
    assert_eq!(plan(0)[0]["action"], "none");
}

#[test]
fn files_names_what_counts_also_while_files_are_joined() {
    let case = one_partition(COUNTS);
    let up = crate::support::up_with(
        &case,
        &[("BIFOLD_BATCH__COMPACT_FILES", "2"), ("BIFOLD_COLLECT__FLUSH_INTERVAL", "50ms")],
    );
    let listed = || {
        let rows = case.run(&["files", "e", "--output", "json"]).json();
        assert!(rows.iter().all(|row| row["layer"] == "archive" && row["kind"] == "rows"), "{rows:?}");
        for row in &rows {
            let path = row["path"].as_str().expect("a path");
            if crate::harness::test_store().is_none() {
                let bytes = std::fs::metadata(path).unwrap_or_else(|e| panic!("{path}: {e}")).len();
                assert_eq!(Some(bytes), row["bytes"].as_u64(), "{path}");
            }
        }
        (rows.len(), rows.iter().filter_map(|row| row["rows"].as_u64()).sum::<u64>())
    };
    let mut events = 0;
    let mut most = 0;
    for _ in 0..6 {
        let offsets = case.produce(&up, "e", &LINES);
        answer(&up, "SELECT * FROM v", &offsets);
        events += LINES.len() as u64;
        up.wait("it is archived", |_| listed().1 == events);
        most = most.max(listed().0);
    }
    // Some were joined, and every row stands in the list once.
    up.wait("files are joined", |_| listed().0 < 4);
    assert_eq!(listed().1, events);
    let list = case.run(&["files", "e", "--list"]).stdout;
    assert!(
        list.starts_with("['") && list.trim_end().ends_with("']") && list.matches(".parquet'").count() == listed().0,
        "{list}"
    );
    case.run(&["batch", "run", "--at-least", "latest", "--url", &up.url]);
    let views = case.run(&["files", "e", "--layer", "view", "--output", "json"]).json();
    assert_eq!((&views[0]["view"], &views[0]["kind"]), (&json!("v"), &json!("states")), "{views:?}");
    case.run(&["files", "nope"]).fails(2, &["nope"]);
}

#[test]
fn views_of_a_url_are_those_of_that_server() {
    let case = one_partition(COUNTS);
    let up = up(&case);
    let offsets = case.produce(&up, "e", &LINES);
    answer(&up, "SELECT * FROM v", &offsets);
    let nowhere = case.path("nowhere");
    let arguments = ["views", "--url", &up.url, "--data-dir", nowhere.to_str().expect("a path"), "--output", "json"];
    let rows = case.run(&arguments).json();
    assert_eq!(
        (&rows[0]["view"], &rows[0]["state"], &rows[0]["folded"]),
        (&json!("v"), &json!("ready"), &json!(offsets)),
        "{rows:?}"
    );
    case.run(&["views", "--url", "http://127.0.0.1:1"]).fails(1, &["no server answers"]);
}
