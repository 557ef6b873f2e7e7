//! A source stays small: deltas and archive files are compacted, orphans are deleted, and nothing that counts goes with them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::events::{PIPELINE, batch, check, lines, verify, verify_offline};
use crate::harness::{Case, PATIENCE, Service, files_below};
use crate::left_out::audit;
use crate::restart::assert_reached;

/// Failpoints that compaction passes.
pub(crate) const POINTS: [&str; 4] =
    ["compact.delta_written", "compact.compacted", "compact.archive_written", "compact.archive_compacted"];

/// Compacts and deletes all the time.
const EAGER: [(&str, &str); 4] = [
    ("BIFOLD_BATCH__COMPACT_DELTAS", "4"),
    ("BIFOLD_BATCH__COMPACT_FILES", "4"),
    ("BIFOLD_STORE__ORPHAN_GRACE", "2s"),
    ("BIFOLD_SPEED__EPOCH_INTERVAL", "150ms"),
];

fn up(case: &Case, more: &[(&str, &str)]) -> Service {
    case.spawn(&["up", "--listen", "127.0.0.1:0"], &[&EAGER[..], more].concat())
}

fn entries(case: &Case) -> Vec<Value> {
    let folder = case.store_folder().join("sources/e/ledger");
    let read = |path| serde_json::from_slice(&std::fs::read(path).expect("an entry")).expect("JSON");
    files_below(&folder).into_iter().map(read).collect()
}

fn kinds(case: &Case, kind: &str) -> usize {
    entries(case).iter().filter(|entry| entry["kind"] == kind).count()
}

/// Deltas and archive files that the store holds.
fn files(case: &Case) -> BTreeSet<String> {
    let all = ["deltas", "archive", "dead-letters"].into_iter();
    let below = |folder: &str| files_below(&case.store_folder().join("sources/e").join(folder));
    all.flat_map(below).map(|path| path.display().to_string()).collect()
}

/// Sends events bit by bit until `done`; gives how many.
fn send_until(case: &Case, up: &Service, from: usize, mut done: impl FnMut(usize) -> bool) -> usize {
    let (mut next, until) = (from, Instant::now() + PATIENCE);
    while !done(next) {
        assert!(Instant::now() < until, "it did not come to pass: {}", up.stderr());
        let lines = lines(next..next + 10);
        case.produce(up, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>());
        next += 10;
        std::thread::sleep(Duration::from_millis(300));
    }
    next
}

#[test]
fn deltas_and_archive_files_are_compacted_and_what_nothing_needs_is_deleted() {
    let case = Case::new(PIPELINE);
    case.create_topic(3);
    let mut up = up(&case, &[]);
    up.wait_ready();
    let end = send_until(&case, &up, 0, |_| kinds(&case, "compacted") >= 2 && kinds(&case, "compacted_archive") >= 2);
    check(&up, 0..end, "compacted");
    verify(&case, &up, "compacted");
    // Those that were replaced are deleted after the grace time, and those that took their place are not.
    let most = files(&case).len();
    up.wait("orphans are deleted", |up| {
        up.get("/metrics")
            .text
            .lines()
            .any(|line| line.starts_with("bifold_orphans_deleted_total") && !line.ends_with(" 0"))
    });
    check(&up, 0..end, "after the orphans are gone");
    batch(&case, &up);
    let end = send_until(&case, &up, end, |next| next >= end + 50);
    check(&up, 0..end, "after a batch run");
    batch(&case, &up);
    up.wait("few files are left", |_| files(&case).len() < most);
    verify(&case, &up, "few files");
    assert_eq!(case.run(&["batch", "run", "--full", "--output", "json"]).code, Some(0));
    check(&up, 0..end, "after a full run");
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    verify_offline(&case, "at rest");
    audit(&case, "compacted");
}

#[test]
fn killed_while_it_compacts_it_counts_exactly() {
    let points = ["compact.delta_written", "compact.compacted", "compact.archive_written", "compact.archive_compacted"];
    for point in points {
        let case = Case::new(PIPELINE);
        case.create_topic(3);
        let mut first = up(&case, &[("BIFOLD_FAILPOINT", point)]);
        first.wait_ready();
        let (mut end, until) = (0, Instant::now() + PATIENCE);
        while first.child.try_wait().expect("it can be waited for").is_none() {
            assert!(Instant::now() < until, "{point} was not reached: {}", first.stderr());
            let lines = lines(end..end + 10);
            // What is not acknowledged when it dies may be there or not: it is sent to a running process alone.
            match case.is_kafka() {
                true => drop(case.produce(&first, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>())),
                false => {
                    let sent = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        case.produce(&first, "e", &lines.iter().map(String::as_str).collect::<Vec<_>>())
                    }));
                    if sent.is_err() {
                        break;
                    }
                }
            }
            end += 10;
            std::thread::sleep(Duration::from_millis(250));
        }
        assert_reached(&mut first, point);
        let mut second = up(&case, &[]);
        second.wait_ready();
        let rows = second.rows("SELECT c FROM total", "latest");
        let counted = rows[0]["c"].as_u64().expect("a count") as usize;
        // The last lines may have been appended without an answer.
        let end = if counted > end / 10 * 9 { end + 10 } else { end };
        check(&second, 0..end, point);
        verify(&case, &second, point);
        batch(&case, &second);
        check(&second, 0..end, point);
        assert_eq!(second.terminate(), Some(0), "{point}: {}", second.stderr());
        verify_offline(&case, point);
        audit(&case, point);
    }
}
