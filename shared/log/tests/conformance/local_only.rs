//! What the local log promises beyond the contract.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use bifold_ledger::Offsets;
use bifold_log::{Error, LocalLog, Log, ReaderOptions};
use tokio::runtime::Runtime;

use crate::subject::{keyed, starts};

/// Names the folder to the process that `appended_records_survive_kill_9` starts.
const FOLDER: &str = "BIFOLD_TEST_LOCAL_FOLDER";

#[test]
fn reopening_keeps_everything() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let runtime = Runtime::new().expect("a runtime");
    let names = ["a".to_string(), "b".to_string()];
    let mut before = None;
    for round in 0..3 {
        let log = LocalLog::open(folder.path()).expect("nobody has it open");
        runtime.block_on(log.create_topic("a", 3)).expect("a topic");
        runtime.block_on(log.create_topic("b", 1)).expect("a topic");
        let described = runtime.block_on(log.describe(&names)).expect("topics");
        assert_eq!(before.get_or_insert(described.clone()), &described, "topics and ids stay");
        for topic in &names {
            let records = (0..700).map(|i| keyed(&format!("{}", i % 7), &format!("{topic} {round} {i}"))).collect();
            let ends = runtime.block_on(log.append(topic, records)).expect("records");
            let count: i64 = ends.iter().map(|(_, next)| next).sum();
            assert_eq!(count, 700 * (round + 1), "offsets go on");
        }
        let mut values = values(&log, "a", 3);
        let mut expected: Vec<_> =
            (0..=round).flat_map(|round| (0..700).map(move |i| format!("a {round} {i}"))).collect();
        values.sort();
        expected.sort();
        assert_eq!(values, expected);
    }
}

#[test]
fn a_second_open_is_locked_until_the_first_ends() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = LocalLog::open(folder.path()).expect("nobody has it open");
    let clone = first.clone();
    drop(first);
    for _ in 0..2 {
        let error = LocalLog::open(folder.path()).expect_err("a clone has it open");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
    }
    drop(clone);
    LocalLog::open(folder.path()).expect("nobody has it open");
}

#[test]
fn a_file_that_is_no_log_is_damaged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("log.redb"), vec![7; 100_000]).expect("a file");
    let error = LocalLog::open(folder.path()).expect_err("that is no log");
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
}

#[test]
fn appended_records_survive_kill_9() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut acknowledged = 0;
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "local_only::appends_until_killed", "--ignored", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("another process");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ends = lines.filter_map(|line| line.expect("a line").strip_prefix("end ")?.parse::<i64>().ok());
        acknowledged = ends.take(20).last().expect("the process appends");
        let error = LocalLog::open(folder.path()).expect_err("another process has it open");
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        // SIGKILL, in the middle of an append.
        child.kill().expect("it runs");
        child.wait().expect("it ends");

        let log = LocalLog::open(folder.path()).expect("its process has ended");
        let values = values(&log, "t", 1);
        assert!(values.len() as i64 >= acknowledged, "{} records of {acknowledged}", values.len());
        assert_eq!(values.len() % 10, 0, "an append is kept as a whole");
        assert!(values.iter().enumerate().all(|(i, value)| *value == i.to_string()));
    }
    assert!(acknowledged >= 3 * 200);
}

/// Not a test: the process that `appended_records_survive_kill_9` kills.
#[test]
#[ignore = "started by appended_records_survive_kill_9"]
fn appends_until_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = Runtime::new().expect("a runtime");
    let log = LocalLog::open(Path::new(&folder)).expect("nobody has it open");
    runtime.block_on(log.create_topic("t", 1)).expect("a topic");
    let at = starts("t", 1).remove(0).at;
    let bounds = runtime.block_on(log.bounds(std::slice::from_ref(&at))).expect("bounds");
    let mut end = bounds[&at].end;
    loop {
        let records = (end..end + 10).map(|i| keyed("k", &i.to_string())).collect();
        end = runtime.block_on(log.append("t", records)).expect("records").or_zero(&at);
        // On a line of its own, behind whatever the test harness has written.
        println!("\nend {end}");
    }
}

/// A limit on the size of files stands for the disk's end: writes beyond it fail, until it is raised.
#[test]
fn after_a_full_disk_it_takes_records_again_and_has_lost_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut child = Command::new("sh")
        // The signal that comes with the failed write would end the process.
        .args(["-c", "trap '' XFSZ; exec prlimit --fsize=8000000:unlimited \"$0\" \"$@\""])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "local_only::appends_until_full_and_after", "--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("another process");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut told = |what: &str| {
        let line = lines.find_map(|line| line.strip_prefix(what).map(str::to_string));
        line.unwrap_or_else(|| panic!("it has not said {what:?}")).parse::<i64>().expect("a number")
    };
    let full = told("full ");
    assert!(full > 0, "it was full from the beginning");
    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &child.id().to_string()]).status();
    assert!(raised.expect("prlimit runs").success());
    writeln!(child.stdin.take().expect("piped"), "go on").expect("it listens");
    let after = told("after ");
    assert!(after > full, "{after}");
    assert!(child.wait().expect("it ends").success());

    // All that was acknowledged, in order; what was refused is there as a whole or not at all.
    let log = LocalLog::open(folder.path()).expect("its process has ended");
    let numbers: Vec<usize> = values(&log, "t", 1)
        .iter()
        .map(|value| value.trim_end_matches('x').trim_end().parse().expect("a number"))
        .collect();
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
    assert_eq!(numbers.len() as i64, after);
}

/// Not a test: the process whose disk is full.
#[test]
#[ignore = "started by after_a_full_disk_it_takes_records_again_and_has_lost_none"]
fn appends_until_full_and_after() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let runtime = Runtime::new().expect("a runtime");
    let log = LocalLog::open(Path::new(&folder)).expect("nobody has it open");
    runtime.block_on(log.create_topic("t", 1)).expect("a topic");
    let at = starts("t", 1).remove(0).at;
    let end = || runtime.block_on(log.bounds(std::slice::from_ref(&at))).map(|bounds| bounds[&at].end);
    let append = |from: i64| {
        let records = (from..from + 10).map(|i| keyed("k", &format!("{i} {}", "x".repeat(10_000)))).collect();
        runtime.block_on(log.append("t", records)).map(|ends| ends.or_zero(&at))
    };
    let mut acknowledged = 0;
    // Again and again: one failure is not the only one.
    let mut failures = 0;
    while failures < 5 {
        match append(acknowledged) {
            Ok(now) => acknowledged = now,
            Err(error) => {
                assert!(matches!(error, Error::Unavailable { .. }), "{error}");
                failures += 1;
            }
        }
    }
    println!("\nfull {acknowledged}");
    std::io::stdin().read_line(&mut String::new()).expect("a line");
    // It may say once more that a write has failed; it goes on where it has said that it ends.
    let tried = std::time::Instant::now();
    let from = loop {
        match end() {
            Ok(end) => break end,
            Err(error) => assert!(tried.elapsed() < std::time::Duration::from_secs(20), "{error}"),
        }
    };
    assert_eq!(from, acknowledged, "what is refused is not there");
    loop {
        match append(from) {
            Ok(now) => break println!("\nafter {now}"),
            Err(error) => assert!(tried.elapsed() < std::time::Duration::from_secs(20), "{error}"),
        }
    }
}

/// The texts of all records of a topic.
fn values(log: &LocalLog, topic: &str, partitions: i32) -> Vec<String> {
    let mut reader = log.reader(ReaderOptions::default()).expect("a reader");
    reader.assign(&starts(topic, partitions)).expect("an assignment");
    let mut values = vec![];
    let mut positions = Offsets::default();
    loop {
        let chunk = reader.poll(10_000, std::time::Duration::ZERO).expect("a chunk");
        if chunk.is_empty() {
            let count: i64 = positions.iter().map(|(_, next)| next).sum();
            assert_eq!(values.len() as i64, count, "offsets are dense");
            return values;
        }
        chunk.positions().for_each(|(at, next, _)| positions.advance(at, next));
        values
            .extend(chunk.records().map(|record| String::from_utf8_lossy(record.value.expect("a value")).into_owned()));
    }
}
