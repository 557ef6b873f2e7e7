//! The examples' answers, with a batch run in the middle of their events: those that their maker computed by itself.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::Case;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("examples").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn check(name: &str) {
    let folder = folder(name);
    let pipeline = read(&folder.join("pipeline.sql"));
    let (before, rest) = pipeline.split_once("topic = '").expect("a topic");
    let (_, after) = rest.split_once('\'').expect("its end");
    let source = before.split_once("CREATE TABLE ").and_then(|(_, rest)| rest.split_once(' ')).expect("a source").0;
    // One partition: where times are equal, the maker takes the event that came last.
    let case = Case::new(&format!("{before}topic = '{{topic}}'{after}"));
    let config = case.path("bifold.toml");
    std::fs::write(&config, format!("{}[log]\npartitions = 1\n", read(&config))).expect("written");
    case.create_topic(1);
    let up = case.start("up");
    let events = read(&folder.join("events.ndjson"));
    let lines: Vec<&str> = events.lines().collect();
    let halves = lines.split_at(lines.len() / 2);
    let first = case.produce(&up, source, halves.0);
    let runs = case.run(&["batch", "run", "--at-least", &first, "--url", &up.url]).json();
    assert!(runs.iter().all(|run| run["mode"] != "none"), "{name}: {runs:?}");
    let end = case.produce(&up, source, halves.1);
    let answers: Vec<Value> = serde_json::from_str(&read(&folder.join("answers.json"))).expect("answers");
    assert!(answers.len() > 1);
    for answer in answers {
        let sql = answer["sql"].as_str().expect("a query");
        let expected = answer["rows"].as_array().expect("rows");
        assert!(!expected.is_empty(), "{name}: {sql} has no rows to compare");
        assert_eq!(&up.rows(sql, &end), expected, "{name}: {sql}");
    }
    let report = case.run(&["verify", "--url", &up.url]).json();
    assert!(report.iter().all(|view| view["equal"] == true), "{name}: {report:?}");
}

macro_rules! examples {
    ($($test:ident: $folder:literal),* $(,)?) => {
        $(#[test] fn $test() { check($folder); })*

        #[test]
        fn every_example_is_checked() {
            let root = folder("");
            let mut there: Vec<String> = std::fs::read_dir(&root)
                .expect("examples")
                .map(|entry| entry.expect("an entry").path())
                .filter(|path| path.join("answers.json").exists() || path.is_dir())
                .map(|path| path.file_name().expect("a name").to_string_lossy().into_owned())
                .collect();
            there.sort();
            // The shop is the demo's own.
            let mut checked = vec![$($folder),*, "shop"];
            checked.sort_unstable();
            assert_eq!(there, checked);
            for name in checked {
                assert!(root.join(name).join("README.md").exists(), "{name} has a README.md");
            }
        }
    };
}

examples! {
    access_logs: "access-logs",
    fraud: "fraud",
    inventory: "inventory",
    iot: "iot",
    online_users: "online-users",
    vehicles: "vehicles",
    wiki: "wiki",
}
