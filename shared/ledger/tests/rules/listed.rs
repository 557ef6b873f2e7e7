//! docs/ledger-rules.md lists what these tests hold, no more and no less.

use std::collections::BTreeSet;
use std::path::PathBuf;

const DOC: &str = include_str!("../../../../docs/ledger-rules.md");

/// The names of the tests of this binary.
fn tests() -> BTreeSet<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut names = BTreeSet::new();
    for file in std::fs::read_dir(folder).expect("the sources of the tests") {
        let text = std::fs::read_to_string(file.expect("a file").path()).expect("text");
        let mut test = false;
        for line in text.lines().map(str::trim_start) {
            match line.strip_prefix("fn ") {
                Some(rest) if test => {
                    names.insert(rest.split('(').next().expect("a name").to_string());
                    test = false;
                }
                _ => test |= line == "#[test]",
            }
        }
    }
    names
}

/// The rows of the document's tables: the first cell and the last.
fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = DOC.lines().filter(|line| line.starts_with("| ")).map(|line| {
        let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        (cells[0], cells[cells.len() - 1])
    });
    rows.filter(|(_, last)| *last != "Tests")
}

/// The test names among the words in code font.
fn listed(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_listed_exists() {
    let tests = tests();
    for (what, cell) in rows() {
        for name in listed(cell) {
            assert!(tests.contains(name), "{what}: no test {name}");
        }
    }
}

#[test]
fn every_rule_and_trace_test_is_listed() {
    let listed: BTreeSet<_> = rows().flat_map(|(_, cell)| listed(cell)).collect();
    for test in tests().iter().filter(|name| name.starts_with("rule_") || name.starts_with("trace_")) {
        assert!(listed.contains(test.as_str()), "{test} is not in docs/ledger-rules.md");
    }
}

#[test]
fn every_rule_has_a_row_and_every_row_says_what_holds_it() {
    let numbered: Vec<_> = rows().filter_map(|(what, _)| what.parse::<u32>().ok()).collect();
    assert_eq!(numbered, (1..=28).collect::<Vec<_>>());
    for (what, cell) in rows() {
        assert!(listed(cell).next().is_some() || cell.contains("not built yet: "), "{what}: {cell:?}");
        let prefix = what.parse::<u32>().map(|number| format!("rule_{number:02}_"));
        for name in listed(cell).filter(|name| name.starts_with("rule_")) {
            assert!(prefix.as_ref().is_ok_and(|prefix| name.starts_with(prefix)), "{name} stands in the row {what}");
        }
    }
}
