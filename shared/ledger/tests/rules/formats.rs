//! What is stored: golden files of the entries, OFFSETS as text, the format (rule 28).

use std::collections::BTreeSet;
use std::path::PathBuf;

use bifold_ledger::{
    ArchiveCounts, BaseView, Body, Dialect, Entry, FORMAT, File, Nonce, Offsets, PublishedVersion, Ranges, Seen, Span,
    Tail, TopicPartition,
};

use crate::dsl::{file, refused, run, show};

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}.json: {error}"))
}

fn offsets(text: &str) -> Offsets {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// Each kind as it is written today, by the name of its golden file: the kind, and what is special.
fn examples() -> Vec<(&'static str, Body)> {
    let ranges: Ranges = [
        (TopicPartition::new("wikipedia", 0), Span { start: 8000, end: 13100, leader_epoch: Some(3) }),
        (TopicPartition::new("import:2015", 0), Span::new(0, 39244)),
    ]
    .into_iter()
    .collect();
    let counts = ArchiveCounts {
        rows: 44340,
        dead: [("malformed".to_string(), 3), ("wrong_type".to_string(), 1)].into(),
        dead_by_partition: offsets("wikipedia/0:4"),
        absent: 2,
    };
    let published = |version: &str, runs: &[&str], full| PublishedVersion {
        version: version.into(),
        runs: runs.iter().map(|path| file(path)).collect(),
        full,
        ..PublishedVersion::default()
    };
    let one: Ranges = [(TopicPartition::new("wikipedia", 0), Span::new(8000, 8100))].into_iter().collect();
    vec![
        (
            "created",
            Body::Created {
                format: 1,
                source: "wikipedia".into(),
                topics: [
                    ("wikipedia".to_string(), "Zk9pT2JqU3Jj".to_string()),
                    ("import:2015".to_string(), String::new()),
                ]
                .into(),
                origins: offsets("import:2015/0:0,wikipedia/0:7000,wikipedia/1:6500"),
            },
        ),
        (
            "declared",
            Body::Declared {
                view: "edits_by_channel".into(),
                version: "3f9a0c".into(),
                sql: "SELECT channel, count(*) AS edits FROM wikipedia GROUP BY channel".into(),
                source: serde_json::Value::Null,
                dialect: Dialect::FIRST,
            },
        ),
        ("retired", Body::Retired { versions: vec!["3f9a0c".into(), "77e1b2".into()] }),
        ("selected", Body::Selected { version: "3f9a0c".into() }),
        (
            "archived",
            Body::Archived {
                ranges: ranges.clone(),
                rows: vec![file("rows/a"), file("rows/b")],
                dead: vec![file("dead/a")],
                counts,
                decoding: String::new(),
            },
        ),
        (
            "folded",
            Body::Folded {
                ranges,
                versions: vec!["3f9a0c".into(), "77e1b2".into()],
                delta: file("delta/a"),
                events: 44340,
                newest_event_us: None,
                holes: vec![],
                duplicates: 0,
                seen: None,
            },
        ),
        ("lost", Body::Lost { ranges: one.clone(), reason: "retention was too short".into() }),
        ("quarantined", Body::Quarantined { ranges: one.clone(), reason: "a bad deployment".into() }),
        ("lifted", Body::Lifted { quarantine: 40, reason: "they were right".into() }),
        (
            "compacted",
            Body::Compacted {
                replaces: vec![38, 39],
                ranges: one.clone(),
                versions: vec!["3f9a0c".into()],
                delta: file("delta/b"),
                holes: vec![17],
            },
        ),
        (
            "compacted_archive",
            Body::CompactedArchive {
                replaces: vec![36, 37],
                ranges: one,
                rows: vec![file("rows/c")],
                dead: vec![file("dead/c")],
            },
        ),
        (
            "published",
            Body::Published {
                plan: 41,
                boundary: offsets("import:2015/0:39244,wikipedia/0:13100,wikipedia/1:6500"),
                versions: vec![published("3f9a0c", &["view/a", "view/b"], true), published("77e1b2", &[], false)],
            },
        ),
        (
            "expired",
            Body::Expired {
                plan: 58,
                below: offsets("import:2015/0:39244,wikipedia/0:8000"),
                bases: vec![BaseView {
                    version: "3f9a0c".into(),
                    boundary: offsets("import:2015/0:40244,wikipedia/0:9000"),
                    lookback: 1000,
                    runs: vec![file("bases/3f9a0c/a")],
                    holes: vec![17],
                    newest_event_us: Some(1_442_016_000_000_000),
                    kept_from_us: None,
                    seen: None,
                }],
            },
        ),
        ("format", Body::Format { format: 1 }),
        (
            "declared_under_a_dialect",
            Body::Declared {
                view: "edits_by_channel".into(),
                version: "81b0de".into(),
                sql: "SELECT channel, count(*) AS edits FROM wikipedia GROUP BY channel".into(),
                source: serde_json::Value::Null,
                dialect: Dialect(2),
            },
        ),
        (
            "archived_with_tails",
            Body::Archived {
                ranges: [(TopicPartition::new("wikipedia", 0), Span::new(8000, 8100))].into_iter().collect(),
                rows: vec![File { tail: Some(Tail { bytes: 12, crc32: 9 }), ..file("rows/a") }],
                dead: vec![],
                counts: ArchiveCounts { rows: 100, ..ArchiveCounts::default() },
                decoding: "5e1f".into(),
            },
        ),
        (
            "folded_with_what_was_seen",
            Body::Folded {
                ranges: [(TopicPartition::new("wikipedia", 0), Span::new(8000, 8100))].into_iter().collect(),
                versions: vec!["3f9a0c".into()],
                delta: file("delta/a"),
                events: 97,
                newest_event_us: Some(1_442_016_000_000_000),
                holes: vec![],
                duplicates: 0,
                seen: Some(Box::new(Seen {
                    dead: [("3f9a0c".into(), [("malformed".to_string(), 3)].into())].into(),
                    newest_event_us: [(TopicPartition::new("wikipedia", 0), 1_442_016_000_000_000)].into(),
                    snapshots: [("products".to_string(), 12)].into(),
                })),
            },
        ),
    ]
}

fn example(body: Body) -> Entry {
    let number = if matches!(body, Body::Created { .. }) { 1 } else { 42 };
    let (writer, at) = ("speed/host-1".to_string(), "2026-11-21T10:00:00Z".to_string());
    Entry { number, writer, nonce: Nonce("5f0c9d".into()), at, body }
}

#[test]
fn entries_are_written_as_their_golden_files_say() {
    for (name, body) in examples() {
        assert!(name.starts_with(body.kind()), "{name}");
        let entry = example(body);
        let text = serde_json::to_string_pretty(&entry).expect("an entry is JSON") + "\n";
        if std::env::var_os("BIFOLD_WRITE_GOLDEN").is_some() {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.json"));
            std::fs::write(path, &text).expect("written");
        }
        assert_eq!(text, golden(name), "{name}");
        let read: Entry = serde_json::from_str(&text).expect(name);
        assert_eq!(read, entry, "{name}");
    }
}

#[test]
fn golden_files_of_every_age_load() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut kinds = BTreeSet::new();
    for path in std::fs::read_dir(folder).expect("the golden files") {
        let path = path.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let entry: Entry = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let again: Entry = serde_json::from_str(&serde_json::to_string(&entry).expect("JSON")).expect("its own JSON");
        assert_eq!(again, entry, "{}", path.display());
        kinds.insert(entry.body.kind());
    }
    let all: BTreeSet<_> = examples().iter().map(|(_, body)| body.kind()).collect();
    assert_eq!(kinds, all);
}

#[test]
fn an_archived_entry_without_later_fields_has_their_defaults() {
    let entry: Entry = serde_json::from_str(&golden("archived_without_dead_by_partition")).expect("an old entry");
    let Body::Archived { counts, ranges, .. } = entry.body else { panic!("archived") };
    assert!(counts.dead_by_partition.is_empty());
    assert_eq!(ranges.iter().next().expect("a range").1.leader_epoch, None);
}

#[test]
fn an_entry_of_an_unknown_kind_does_not_load() {
    let unknown = golden("selected").replace("selected", "teleported");
    let error = serde_json::from_str::<Entry>(&unknown).expect_err("unknown").to_string();
    assert!(error.contains("unknown variant `teleported`"), "{error}");
}

#[test]
fn offsets_are_read_as_they_are_written() {
    for (text, written) in [
        ("w/0:5", "w/0:5"),
        ("w/1:2,w/0:5", "w/0:5,w/1:2"),
        ("w/10:1,w/9:1", "w/9:1,w/10:1"), // by number, not by text
        (" w/0:5 , w/1:2 ", "w/0:5,w/1:2"),
        ("import:2015/0:39244", "import:2015/0:39244"),
        ("import:2015/edits/0:7", "import:2015/edits/0:7"),
        ("a.b-c_d/3:9223372036854775807", "a.b-c_d/3:9223372036854775807"),
        ("w/0:0", "w/0:0"),
        ("", ""),
    ] {
        let read = offsets(text);
        assert_eq!(read.to_string(), written, "{text:?}");
        assert_eq!(offsets(written), read);
    }
}

#[test]
fn what_is_no_offsets_is_refused_by_name() {
    for text in ["w", "w/0", "w:5", "w/0:", "w/0:x", "w/x:5", "w/-1:5", "w/0:-5", "/0:5", "w/:5", "w/0:1.5", "latest"] {
        let error = format!("w/1:1,{text}").parse::<Offsets>().expect_err(text).to_string();
        assert_eq!(error, format!("{text:?} is not of the form topic/partition:next"));
    }
    let error = "w0".parse::<TopicPartition>().expect_err("no number").to_string();
    assert_eq!(error, "\"w0\" is not of the form topic/partition");
}

#[test]
fn offsets_compare_by_partition() {
    let (a, b) = (offsets("w/0:5,w/1:2"), offsets("w/0:3,w/2:4"));
    assert_eq!(a.clone().max(&b).to_string(), "w/0:5,w/1:2,w/2:4");
    assert!(a.reaches(&offsets("w/0:5")) && a.reaches(&offsets("")) && a.reaches(&offsets("w/7:0")) && !a.reaches(&b));
    let short: Vec<_> = a.short_of(&b).map(|(at, have, want)| (at.to_string(), have, want)).collect();
    assert_eq!(short, [("w/2".to_string(), 0, 4)]);
}

#[test]
fn rule_28_a_binary_stops_at_a_format_above_its_own() {
    assert_eq!(run("D v1; M 4; D v2").format, FORMAT);
    refused(&[("D v1; M 5", "the source needs ledger format 5, this bifold knows 4; run a newer bifold")]);
    let Body::Created { source, topics, origins, .. } = examples().remove(0).1 else { panic!("created") };
    let newer = Body::Created { format: FORMAT + 1, source, topics, origins };
    assert!(bifold_ledger::Ledger::default().check(1, &newer).is_err());
}

#[test]
fn rule_28_a_format_is_never_lowered() {
    refused(&[("D v1; M 0", "")]);
}

#[test]
fn rule_28_a_snapshot_states_the_format() {
    let snapshot = serde_json::to_value(run("D v1; F p0→1")).expect("a ledger is JSON");
    assert_eq!((snapshot["format"].as_u64(), snapshot["number"].as_u64()), (Some(1), Some(3)));
    assert_eq!(show(&run("O(3,4)").origins), "(3,4)");
}
