//! Stored files that somebody altered or cut short: `verify` ends with 3 and names the groups or the file.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Decimal128Array, Int64Array, RecordBatch, StringArray};
use bifold_fold::delta;
use bifold_ledger::{Body, Entry, File};

use crate::events::{NOBODY, PIPELINE, batch, check, lines, produce, verify, verify_offline};
use crate::harness::{Case, Ran};

/// A store with a batch view over events 0..100 and several committed epochs above it, and nobody running.
/// It lies on the log that the environment names.
fn store() -> Case {
    let case = Case::new(PIPELINE);
    case.create_topic(3);
    produce(&case, &lines(0..100));
    let mut up = case.start("up");
    check(&up, 0..100, "before the damage");
    batch(&case, &up);
    for part in 1..4 {
        let new = lines(part * 100..(part + 1) * 100);
        let new: Vec<&str> = new.iter().map(String::as_str).collect();
        let folded = || entries(&case).iter().filter(|entry| matches!(entry.body, Body::Folded { .. })).count();
        let before = folded();
        case.produce(&up, "e", &new);
        check(&up, 0..(part + 1) * 100, "before the damage");
        up.wait("an epoch", |_| folded() > before);
    }
    verify(&case, &up, "before the damage");
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    verify_offline(&case, "before the damage");
    case
}

fn entry_paths(case: &Case) -> Vec<PathBuf> {
    crate::harness::files_below(&case.store_folder().join("sources/e/ledger"))
}

/// Every entry of the ledger.
fn entries(case: &Case) -> Vec<Entry> {
    let read = |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
    entry_paths(case).iter().filter_map(read).collect()
}

fn object(case: &Case, file: &File) -> PathBuf {
    case.store_folder().join("sources/e").join(&file.path)
}

/// The newest delta, the number of its entry, and the versions in it.
fn newest_delta(case: &Case) -> (u64, File, Vec<bifold_ledger::VersionId>) {
    let found = entries(case).into_iter().rev().find_map(|entry| match entry.body {
        Body::Folded { delta, versions, .. } => Some((entry.number, delta, versions)),
        _ => None,
    });
    found.expect("an epoch was committed")
}

/// The version of the view `by_key`.
fn version_of_by_key(case: &Case) -> bifold_ledger::VersionId {
    let found = entries(case).into_iter().find_map(|entry| match entry.body {
        Body::Declared { view, version, .. } if view == "by_key" => Some(version),
        _ => None,
    });
    found.expect("the view is declared")
}

/// Adds one to the first number of a column of states.
fn plus_one(column: &ArrayRef) -> ArrayRef {
    if let Some(numbers) = column.as_any().downcast_ref::<Int64Array>() {
        return Arc::new(
            numbers.iter().enumerate().map(|(i, n)| n.map(|n| n + i64::from(i == 0))).collect::<Int64Array>(),
        );
    }
    let numbers = column.as_any().downcast_ref::<Decimal128Array>().expect("a count or a sum");
    let changed =
        numbers.iter().enumerate().map(|(i, n)| n.map(|n| n + i128::from(i == 0))).collect::<Decimal128Array>();
    Arc::new(changed.with_data_type(numbers.data_type().clone()))
}

/// Rewrites the newest delta as a valid delta in which one group of `by_key` has another number in state column
/// `column`. Gives the key that the group has.
fn falsify(case: &Case, column: &str, mend_the_entry: bool) -> String {
    let (number, file, versions) = newest_delta(case);
    let bytes = std::fs::read(object(case, &file)).expect("the delta is there");
    let changed = version_of_by_key(case);
    let mut sections = vec![];
    let mut key = String::new();
    for version in versions {
        let mut batches = delta::read(&bytes, &version).expect("a delta");
        let schema = batches.first().expect("the epoch holds events").schema();
        if version == changed {
            let at = schema.index_of(column).expect("a column of states");
            let mut columns = batches[0].columns().to_vec();
            columns[at] = plus_one(&columns[at]);
            let keys = columns[1].as_any().downcast_ref::<StringArray>().expect("the key k");
            key = keys.value(0).to_string();
            batches[0] = RecordBatch::try_new(schema.clone(), columns).expect("the same types");
        }
        sections.push((version, schema, batches));
    }
    let altered = delta::write(&sections).expect("a delta");
    assert_ne!(altered, bytes);
    std::fs::write(object(case, &file), &altered).expect("write the delta");
    if mend_the_entry {
        let path = case.store_folder().join("sources/e/ledger").join(format!("{number:020}.json"));
        let mut entry: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&path).expect("the entry")).expect("an entry is JSON");
        entry["delta"]["bytes"] = altered.len().into();
        entry["delta"]["crc32"] = crc32(&altered).into();
        std::fs::write(&path, entry.to_string()).expect("write the entry");
    }
    key
}

/// CRC-32 (ISO-HDLC), bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// `verify` through a server that was started anew, and without one.
fn verify_both(case: &Case, expect: impl Fn(&Ran, &str)) {
    let mut up = case.start("up");
    expect(&case.run(&["verify", "by_key", "--url", &up.url, "--output", "json"]), "through the server");
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    expect(&case.run(&["verify", "by_key", "--offline", "--output", "json"]), "offline");
}

#[test]
fn a_valid_delta_with_another_number_is_found_and_its_group_named() {
    for column in ["s0", "s1"] {
        let case = store();
        let key = falsify(&case, column, true);
        verify_both(&case, |ran, how| {
            assert_eq!(ran.code, Some(3), "{how}, {column}: {}{}", ran.stdout, ran.stderr);
            assert!(ran.stderr.contains(&format!("k = \"{key}\"")), "{how}: {}", ran.stderr);
            assert!(ran.stderr.contains("view by_key differs in 1 groups"), "{how}: {}", ran.stderr);
            let report: serde_json::Value = serde_json::from_str(ran.stdout.trim()).expect("a report");
            assert_eq!((&report["equal"], &report["differing"]), (&false.into(), &1.into()), "{how}");
        });
        // The other view was left alone; all views together are not equal.
        let ran = case.run(&["verify", "total", "--offline", "--output", "json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let ran = case.run(&["verify", "--offline", "--output", "json"]);
        assert_eq!(ran.code, Some(3), "{}", ran.stderr);
        assert_eq!(ran.stdout.lines().count(), 2, "every view has its report: {}", ran.stdout);
        // A batch run over what the archive holds mends it.
        let ran = case.run(&["batch", "run", "--full"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        verify_offline(&case, "after a batch run over the altered delta");
    }
}

/// Cuts the last bytes off a file.
fn cut_short(path: &PathBuf) {
    let bytes = std::fs::read(path).expect("the file is there");
    std::fs::write(path, &bytes[..bytes.len() - 9]).expect("write the file");
}

/// Asserts that `verify` ends with 3 and names this file, through a server and without.
fn names_the_file(case: &Case, file: &File) {
    verify_both(case, |ran, how| {
        assert_eq!(ran.code, Some(3), "{how}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(&file.path), "{how}: {} is not named in {}", file.path, ran.stderr);
    });
}

#[test]
fn a_delta_that_its_entry_does_not_describe_is_named() {
    let case = store();
    falsify(&case, "s0", false);
    names_the_file(&case, &newest_delta(&case).1);
}

#[test]
fn a_delta_cut_short_is_named() {
    let case = store();
    let (_, file, _) = newest_delta(&case);
    cut_short(&object(&case, &file));
    names_the_file(&case, &file);
    // Asking for rows is refused too, with the file; it is no empty answer.
    let up = case.start("up");
    let reply = up.sql("SELECT * FROM by_key", None);
    assert_eq!(reply.status, 500, "{}", reply.text);
    assert_eq!(reply.json()["type"], "/problems/damaged");
    assert!(reply.text.contains(&file.path), "{}", reply.text);
}

#[test]
fn a_missing_delta_is_named() {
    let case = store();
    let (_, file, _) = newest_delta(&case);
    std::fs::remove_file(object(&case, &file)).expect("the delta is there");
    names_the_file(&case, &file);
}

#[test]
fn a_batch_run_cut_short_is_named() {
    let case = store();
    let version = version_of_by_key(&case);
    let runs = entries(&case).into_iter().rev().find_map(|entry| match entry.body {
        Body::Published { versions, .. } => versions.into_iter().find(|published| published.version == version),
        _ => None,
    });
    let file = runs.expect("a batch view").runs.pop().expect("a run");
    cut_short(&object(&case, &file));
    names_the_file(&case, &file);
    // Computed anew from the archive it is right again: any batch run sees that it has to be.
    let ran = case.run(&["batch", "run", "--output", "json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("it is built anew"), "{}", ran.stderr);
    let modes: Vec<_> = ran.json().iter().map(|report| (report["view"].clone(), report["mode"].clone())).collect();
    assert!(modes.contains(&("by_key".into(), "full".into())), "{modes:?}");
    verify_offline(&case, "after a batch run");
}

#[test]
fn an_archive_file_cut_short_or_missing_is_named() {
    let case = store();
    let file = entries(&case).into_iter().find_map(|entry| match entry.body {
        Body::Archived { mut rows, .. } => rows.pop(),
        _ => None,
    });
    let file = file.expect("an archive file");
    let object = object(&case, &file);
    for missing in [false, true] {
        match missing {
            false => cut_short(&object),
            true => std::fs::remove_file(&object).expect("the file is there"),
        }
        names_the_file(&case, &file);
        let before = entry_paths(&case).len();
        let ran = case.run(&["batch", "run", "--full"]);
        assert_eq!(ran.code, Some(3), "a batch run over a damaged archive fails: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(&file.path), "{} is not named in {}", file.path, ran.stderr);
        assert_eq!(entry_paths(&case).len(), before, "it publishes nothing");
    }
}

#[test]
fn a_flipped_bit_in_the_archive_never_becomes_a_batch_view() {
    let case = store();
    let file = entries(&case).into_iter().find_map(|entry| match entry.body {
        Body::Archived { mut rows, .. } => rows.pop(),
        _ => None,
    });
    let file = file.expect("an archive file");
    assert!(file.tail.is_some(), "its parts have checksums: {file:?}");
    let object = object(&case, &file);
    let whole = std::fs::read(&object).expect("the file is there");
    let mut found = 0;
    for place in (1..12).map(|i| whole.len() * i / 12) {
        let mut altered = whole.clone();
        altered[place] ^= 1;
        std::fs::write(&object, &altered).expect("it can be written");
        let before = entry_paths(&case).len();
        let ran = case.run(&["batch", "run", "--full"]);
        std::fs::write(&object, &whole).expect("it can be written");
        if ran.code == Some(3) {
            found += 1;
            assert!(ran.stderr.contains(&file.path), "{} is not named in {}", file.path, ran.stderr);
            assert_eq!(entry_paths(&case).len(), before, "it publishes nothing");
        } else {
            // No view reads what stands there.
            assert_eq!(ran.code, Some(0), "byte {place}: {}{}", ran.stdout, ran.stderr);
            verify_offline(&case, "after a bit was flipped where no view reads");
        }
    }
    assert!(found >= 3, "{found} of 11 flipped bits were found");
}

#[test]
fn a_dead_letter_file_cut_short_is_named() {
    let case = store();
    let file = entries(&case).into_iter().find_map(|entry| match entry.body {
        Body::Archived { mut dead, .. } => dead.pop(),
        _ => None,
    });
    let file = file.expect("a file of dead letters");
    cut_short(&object(&case, &file));
    let ran = case.run(&["dead-letters", "e"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains(&file.path), "{} is not named in {}", file.path, ran.stderr);
    // Every recompute that decodes again reads them too.
    names_the_file(&case, &file);
}

#[test]
fn a_newer_format_is_said_by_every_command_and_how_to_mend_it() {
    let newer = [
        // A raised format in a kind of entry that this binary knows, and a kind that it does not know.
        |number: u64| serde_json::json!({ "number": number, "writer": "w", "nonce": "n", "at": "", "kind": "format", "format": 99 }),
        |number: u64| serde_json::json!({ "number": number, "writer": "w", "nonce": "n", "at": "", "kind": "riddle", "format": 99, "x": 1 }),
    ];
    for entry in newer {
        let case = store();
        let number = entry_paths(&case).len() as u64 + 1;
        let path = case.store_folder().join("sources/e/ledger").join(format!("{number:020}.json"));
        let mut up = case.start("up");
        std::fs::write(&path, entry(number).to_string()).expect("write the entry");
        let says = |text: &str, who: &str| {
            for word in ["99", "newer bifold", "source e"] {
                assert!(text.contains(word), "{who}: {word:?} is not in: {text}");
            }
        };
        // A running one stops: it commits nothing more.
        assert_eq!(up.wait_exit(std::time::Duration::from_secs(30)), Some(1), "{}", up.stderr());
        says(&up.stderr(), "a running up");
        let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &[]);
        assert_eq!(up.wait_exit(std::time::Duration::from_secs(30)), Some(1), "{}", up.stderr());
        says(&up.stderr(), "up");
        if case.is_kafka() {
            for role in ["collect", "speed", "serve"] {
                let mut service = case.spawn(&[role, "--listen", "127.0.0.1:0"], &[("BIFOLD_STARTUP_TIMEOUT", "3s")]);
                assert_eq!(
                    service.wait_exit(std::time::Duration::from_secs(30)),
                    Some(1),
                    "{role}: {}",
                    service.stderr()
                );
                says(&service.stderr(), role);
            }
        }
        let commands: &[&[&str]] = &[
            &["verify", "--offline"],
            &["views"],
            &["batch", "run"],
            &["dead-letters", "e"],
            &["verify", "--url", NOBODY],
        ];
        for command in commands {
            let ran = case.run(command);
            assert_eq!(ran.code, Some(1), "{command:?}: {}{}", ran.stdout, ran.stderr);
            says(&ran.stderr, command[0]);
        }
        assert_eq!(entry_paths(&case).len() as u64, number, "nobody wrote behind it");
    }
}

#[test]
fn a_damaged_snapshot_or_hint_only_slows_reading_down() {
    let case = Case::on(PIPELINE, None);
    produce(&case, &lines(0..100));
    let mut up = case.start("up");
    check(&up, 0..100, "before the damage");
    assert_eq!(up.terminate(), Some(0), "{}", up.stderr());
    crate::restart::fill_ledger(&case, 1_001);
    let source = case.store_folder().join("sources/e");
    let snapshots = crate::harness::files_below(&source.join("ledger-snapshots"));
    assert_eq!(snapshots.len(), 1);
    verify_offline(&case, "through the snapshot");
    for damaged in [&snapshots[0], &source.join("ledger-head.json")] {
        cut_short(damaged);
        verify_offline(&case, "past a damaged snapshot or hint");
        std::fs::remove_file(damaged).expect("it is there");
        verify_offline(&case, "past a missing snapshot or hint");
    }
}

#[test]
fn a_ledger_entry_cut_short_stops_everything_and_is_named() {
    let case = store();
    let (number, _, _) = newest_delta(&case);
    let path = case.store_folder().join("sources/e/ledger").join(format!("{number:020}.json"));
    cut_short(&path);
    let before = entry_paths(&case).len();
    for command in [&["views"][..], &["batch", "run"], &["dead-letters", "e"]] {
        case.run(command).fails(1, &[&format!("entry {number} of the ledger of e")]);
    }
    let mut up = case.spawn(&["up", "--listen", "127.0.0.1:0"], &[]);
    assert_eq!(up.wait_exit(std::time::Duration::from_secs(30)), Some(1), "{}", up.stderr());
    assert!(up.stderr().contains(&format!("entry {number} of the ledger of e")), "{}", up.stderr());
    assert_eq!(entry_paths(&case).len(), before, "nobody writes behind it");
}

#[test]
fn verify_ends_with_3_at_a_ledger_entry_cut_short() {
    let case = store();
    let (number, _, _) = newest_delta(&case);
    cut_short(&case.store_folder().join("sources/e/ledger").join(format!("{number:020}.json")));
    case.run(&["verify", "--offline"]).fails(3, &[&format!("entry {number} of the ledger of e")]);
}
