//! Where settings come from, and what is said about wrong ones.

use crate::harness::Case;
use crate::support::{COUNTS, bare, one_partition, pipeline, up, up_with, write};

fn view_named(name: &str) -> String {
    pipeline("k TEXT", "", &format!("CREATE MATERIALIZED VIEW {name} AS SELECT k, count(*) AS c FROM e GROUP BY k;"))
        .replace("{topic}", "e")
}

fn checked(ran: &crate::harness::Ran) -> Vec<String> {
    ran.json().iter().map(|row| row["view"].as_str().expect("a name").to_string()).collect()
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let case = Case::on(COUNTS, None);
    for name in ["of_default", "of_file", "of_variable", "of_flag"] {
        write(&case, &format!("w/{name}.sql"), view_named(name));
    }
    std::fs::rename(case.path("w/of_default.sql"), case.path("w/pipeline.sql")).expect("renamed");
    assert_eq!(checked(&bare(&case, "w", &["check"], &[])), ["of_default"]);
    write(&case, "w/bifold.toml", "pipeline = 'of_file.sql'\n");
    assert_eq!(checked(&bare(&case, "w", &["check"], &[])), ["of_file"]);
    let variable = [("BIFOLD_PIPELINE", "of_variable.sql")];
    assert_eq!(checked(&bare(&case, "w", &["check"], &variable)), ["of_variable"]);
    assert_eq!(checked(&bare(&case, "w", &["check", "--pipeline", "of_flag.sql"], &variable)), ["of_flag"]);
    // Flags may stand before the command, too.
    assert_eq!(checked(&bare(&case, "w", &["--pipeline", "of_flag.sql", "check"], &variable)), ["of_flag"]);
}

#[test]
fn the_file_is_named_by_flag_then_variable_then_the_working_directory() {
    let case = Case::on(COUNTS, None);
    for name in ["here", "there", "flagged"] {
        write(&case, &format!("{name}/p.sql"), view_named(name));
        write(&case, &format!("{name}/bifold.toml"), "pipeline = 'p.sql'\n");
    }
    assert_eq!(checked(&bare(&case, "here", &["check"], &[])), ["here"]);
    let named = [("BIFOLD_CONFIG", "../there/bifold.toml")];
    assert_eq!(checked(&bare(&case, "here", &["check"], &named)), ["there"]);
    assert_eq!(checked(&bare(&case, "here", &["check", "--config", "../flagged/bifold.toml"], &named)), ["flagged"]);
    bare(&case, "here", &["check", "--config", "none.toml"], &[]).fails(2, &["none.toml"]);
    bare(&case, "here", &["check"], &[("BIFOLD_CONFIG", "nowhere.toml")]).fails(2, &["nowhere.toml"]);
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let case = one_partition(COUNTS);
    write(&case, "conf/p.sql", view_named("v"));
    write(&case, "conf/bifold.toml", "pipeline = 'p.sql'\ndata_dir = 'd'\n[serve]\nlisten = '127.0.0.1:1'\n");
    write(&case, "elsewhere/lines", "{\"t\":1}\n");
    let ran = bare(&case, "elsewhere", &["produce", "e", "lines", "--config", "../conf/bifold.toml"], &[]);
    assert_eq!(ran.json()[0]["records"], 1);
    assert!(case.path("conf/d/log").is_dir(), "the local log lies in data_dir, beside the configuration");
    assert!(!case.path("elsewhere/d").exists());
}

#[test]
fn without_a_file_the_defaults_hold() {
    let case = Case::on(COUNTS, None);
    write(&case, "w/pipeline.sql", view_named("v"));
    write(&case, "w/lines", "{}\n{}\n");
    // Nobody listens on a closed port of the flag's.
    let ran = bare(&case, "w", &["produce", "e", "lines", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!(ran.json()[0]["records"], 2);
    assert!(case.path("w/bifold-data/log").is_dir());
    // The default of log.partitions is 4: 2 records lie in no partition beyond.
    for key in crate::support::positions(ran.json()[0]["offsets"].as_str().expect("offsets")).keys() {
        assert!((0..4).contains(&key.1) && key.0 == "e", "{key:?}");
    }
}

#[test]
fn data_dir_and_store_by_flag_and_by_environment() {
    let case = Case::on(COUNTS, None);
    let up = case.start_with(
        &["up", "--listen", "127.0.0.1:0", "--data-dir", "flagged"],
        &[("BIFOLD_DATA_DIR", "unused"), ("BIFOLD_STORE__URL", "elsewhere/store")],
    );
    let offsets = case.produce(&up, "e", &[r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":1}"#]);
    up.rows("SELECT * FROM v", &offsets);
    assert!(case.path("flagged/log").is_dir());
    assert!(!case.path("flagged/store").exists() && !case.path("unused").exists());
    up.wait("something in the store", |_| {
        ["", "data"].iter().any(|_| !crate::harness::files_below(&case.path("elsewhere/store")).is_empty())
    });
}

#[test]
fn unknown_keys_name_the_nearest() {
    let case = Case::on(COUNTS, None);
    write(&case, "bifold.toml", "[serve]\nlisen = '127.0.0.1:0'\n");
    case.run(&["check"]).fails(2, &["serve.lisen", "serve.listen", "bifold.toml"]);
    write(&case, "bifold.toml", "pipline = 'x.sql'\n");
    case.run(&["check"]).fails(2, &["pipline", "pipeline"]);
    write(&case, "bifold.toml", "[sevre]\nquery_timeout = '1s'\n");
    case.run(&["check"]).fails(2, &["sevre", "serve.query_timeout"]);
    write(&case, "bifold.toml", "");
    let variable = [("BIFOLD_SPEED__EPOCH_INTERVALL", "1s")];
    case.run_with(&["check"], &variable, b"").fails(2, &["BIFOLD_SPEED__EPOCH_INTERVALL", "speed.epoch_interval"]);
    let variable = [("BIFOLD_KAFKA__PROPERTIE__X", "1s")];
    case.run_with(&["check"], &variable, b"").fails(2, &["BIFOLD_KAFKA__PROPERTIE__X", "kafka.properties"]);
}

#[test]
fn variables_without_two_underscores_are_ignored() {
    let case = Case::on(COUNTS, None);
    let environment = [("BIFOLD_WHATEVER", "1"), ("BIFOLD_SERVE", "x"), ("BIFOLD_TEST_KAFKA", "y")];
    assert_eq!(checked(&case.run_with(&["check"], &environment, b"")), ["v"]);
}

#[test]
fn the_short_variables_set_their_keys() {
    let case = Case::on(COUNTS, None);
    case.run_with(&["check"], &[("BIFOLD_STARTUP_TIMEOUT", "soon")], b"")
        .fails(2, &["startup_timeout", "soon", "BIFOLD_STARTUP_TIMEOUT"]);
    case.run_with(&["check"], &[("BIFOLD_PIPELINE", "gone.sql")], b"").fails(2, &["gone.sql"]);
    let fine = [("BIFOLD_STARTUP_TIMEOUT", "0s")];
    assert_eq!(checked(&case.run_with(&["check"], &fine, b"")), ["v"]);
}

#[test]
fn durations_and_sizes_need_a_unit() {
    let case = Case::on(COUNTS, None);
    for (text, words) in [
        ("[collect]\nflush_interval = 10\n", ["collect.flush_interval", "10"]),
        ("[collect]\nflush_interval = '10'\n", ["collect.flush_interval", "10"]),
        ("[speed]\nepoch_interval = '10 parsecs'\n", ["speed.epoch_interval", "10 parsecs"]),
        ("[collect]\nmax_record = '1000'\n", ["collect.max_record", "1000"]),
        ("[batch]\nmemory = 2\n", ["batch.memory", "2"]),
        ("[batch]\nschedule = 'hourly'\n", ["batch.schedule", "hourly"]),
        ("[batch]\nschedule = '61 * * * *'\n", ["batch.schedule", "61 * * * *"]),
        ("[log]\npartitions = 0\n", ["log.partitions", "0"]),
        ("[serve]\nmax_result_rows = 'many'\n", ["serve.max_result_rows", "many"]),
        ("[serve]\nallow_anonymous = 'perhaps'\n", ["serve.allow_anonymous", "perhaps"]),
        ("[serve]\nquery_memory = '1'\n", ["serve.query_memory", "1"]),
        ("[serve]\nquery_timeout = '-1s'\n", ["serve.query_timeout", "-1s"]),
        ("[store]\nurl = 'ftp://x/y'\n", ["store.url", "ftp"]),
    ] {
        write(&case, "bifold.toml", text);
        case.run(&["check"]).fails(2, &words);
    }
    for text in [
        "[batch]\nschedule = '*/5 * * * *'\n",
        "[batch]\nschedule = 'off'\nmemory = '512MiB'\nleap = 1_000\n",
        "[collect]\nmax_record = '64KiB'\nflush_rows = 500_000\n",
        "startup_timeout = '0s'\n[serve]\nquery_timeout = '1m 30s'\nspeed = ['http://a:1', 'http://b:2']\n",
        "[kafka]\nproperties = { 'sasl.password' = 'x' }\n",
        "[kafka.properties]\nsecurity.protocol = 'plaintext'\n",
    ] {
        write(&case, "bifold.toml", text);
        assert_eq!(checked(&case.run(&["check"])), ["v"], "{text}");
    }
}

#[test]
fn a_broken_file_names_the_place() {
    let case = Case::on(COUNTS, None);
    write(&case, "bifold.toml", "pipeline = 'pipeline.sql'\n[serve\n");
    case.run(&["check"]).fails(2, &["bifold.toml", "line 2"]);
}

#[test]
fn every_key_can_be_set_by_environment() {
    let case = Case::on(COUNTS, None);
    for (key, value) in [
        ("STORE__URL", "s"),
        ("KAFKA__BROKERS", ""),
        ("KAFKA__GROUP_PREFIX", "g"),
        ("KAFKA__PROPERTIES__SASL__PASSWORD", "p"),
        ("LOG__PARTITIONS", "2"),
        ("COLLECT__FLUSH_INTERVAL", "1s"),
        ("COLLECT__FLUSH_ROWS", "10"),
        ("COLLECT__MAX_RECORD", "1KiB"),
        ("COLLECT__LISTEN", "127.0.0.1:0"),
        ("SPEED__EPOCH_INTERVAL", "1s"),
        ("SPEED__EPOCH_ROWS", "10"),
        ("SPEED__LISTEN", "127.0.0.1:0"),
        ("BATCH__SCHEDULE", "off"),
        ("BATCH__MEMORY", "1GiB"),
        ("BATCH__LEAP", "5"),
        ("SERVE__LISTEN", "127.0.0.1:0"),
        ("SERVE__SPEED", "http://a:1,http://b:1"),
        ("SERVE__QUERY_TIMEOUT", "1s"),
        ("SERVE__MAX_RESULT_ROWS", "5"),
        ("SERVE__ALLOW_ANONYMOUS", "true"),
    ] {
        let name = format!("BIFOLD_{key}");
        assert_eq!(checked(&case.run_with(&["check"], &[(&name, value)], b"")), ["v"], "{name}");
    }
}

#[test]
fn librdkafkas_properties_are_passed_on() {
    let case = Case::on(COUNTS, Some("127.0.0.1:1".to_string()));
    let environment = [("BIFOLD_KAFKA__PROPERTIES__NO__SUCH__PROPERTY", "1")];
    case.run_with(&["produce", "e", "--timeout", "2s"], &environment, b"{}\n").fails(2, &["no.such.property"]);
}

#[test]
fn a_folder_of_sql_is_read_in_order_of_name() {
    let case = Case::on(COUNTS, None);
    let text = view_named("v");
    let (table, view) = text.split_once("; ").expect("two statements");
    write(&case, "p/10_source.sql", format!("{table};"));
    write(&case, "p/20_views.sql", view);
    write(&case, "p/notes.txt", "not SQL");
    assert_eq!(checked(&case.run(&["check", "--pipeline", "p"])), ["v"]);
    write(
        &case,
        "p/15_bad.sql",
        "CREATE TABLE\n  f (t TIMESTAMPP) WITH (connector = 'kafka', topic = 'x', format = 'json');",
    );
    case.run(&["check", "--pipeline", "p"]).fails(2, &["15_bad.sql", "TIMESTAMPP", "2", "^"]);
}

#[test]
fn settings_reach_the_service() {
    let case = one_partition(COUNTS);
    let up = up_with(&case, &[("BIFOLD_SERVE__MAX_RESULT_ROWS", "1")]);
    let lines = [r#"{"t":"2026-01-01T00:00:00Z","k":"a","n":1}"#, r#"{"t":"2026-01-01T00:00:00Z","k":"b","n":1}"#];
    let offsets = case.produce(&up, "e", &lines);
    crate::support::problem(
        &up.sql("SELECT * FROM v", Some(&offsets)),
        422,
        "limit-exceeded",
        &["1", "max_result_rows"],
    );
}

#[test]
fn log_level_is_of_the_environment_and_logs_go_to_stderr() {
    let case = one_partition(COUNTS);
    let quiet = up_with(&case, &[("BIFOLD_LOG", "error")]);
    assert!(!quiet.stderr().contains("INFO"), "{}", quiet.stderr());
    drop(quiet);
    let mut plain = up(&case);
    assert_eq!(plain.terminate(), Some(0));
    assert!(plain.stderr().contains("INFO"), "info is the default: {}", plain.stderr());
}

#[test]
fn logs_are_json_if_asked_for() {
    let case = one_partition(COUNTS);
    let mut up = up_with(&case, &[("BIFOLD_LOG_FORMAT", "json")]);
    assert_eq!(up.terminate(), Some(0));
    let logs = up.stderr();
    assert!(!logs.is_empty());
    for line in logs.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for member in ["timestamp", "level", "message", "target"] {
            assert!(entry[member].is_string(), "no {member}: {line}");
        }
    }
}

#[test]
fn messages_hold_no_secrets() {
    let case = Case::on(COUNTS, None);
    for (text, words) in [
        ("[kafka]\nproperties = { 'sasl.password' = 'hunter2 }\n", "line 2, column"),
        ("[kafka\nproperties = { 'sasl.password' = 'hunter2' }\n", "not valid TOML: line 1"),
        ("[store]\nurl = 'ftp://me:hunter2@host/x'\n", "ftp://…@host/x"),
        ("[kafka]\nproperties = 'sasl.password=hunter2'\n", "kafka.properties"),
    ] {
        write(&case, "bifold.toml", text);
        let ran = case.run(&["views"]);
        assert_eq!(ran.code, Some(2), "{text}: {}", ran.stderr);
        assert!(ran.stderr.contains(words) && !ran.stderr.contains("hunter2"), "{text}: {}", ran.stderr);
    }
}

#[test]
#[cfg(unix)]
fn data_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::on(COUNTS, None);
    let _up = case.start("up");
    if !case.is_kafka() {
        let mode = std::fs::metadata(case.path("data")).expect("a folder").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
    }
}
