//! What `/metrics` gives is what its reference, the dashboard and the alert rules say.

use std::collections::BTreeSet;

/// Every metric that the code names stands in docs/reference/metrics.md, the dashboard and the alerts name no other.
#[test]
fn metrics_are_documented() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    let reference = read("docs/reference/metrics.md");
    let documented: BTreeSet<String> = reference
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_string())
        .collect();
    let mut named = BTreeSet::new();
    let mut folders: Vec<_> =
        ["batch", "cli", "serving", "shared", "speed"].iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&entry).expect("a source");
                let own = text.split("# TYPE ").skip(1).filter_map(|rest| rest.split_once(' '));
                named.extend(own.filter(|(name, _)| name.starts_with("process_")).map(|(name, _)| name.to_string()));
                for part in text.split("metrics::").skip(1) {
                    let call =
                        part.split_once("!(\"").filter(|(kind, _)| ["counter", "gauge", "histogram"].contains(kind));
                    named.extend(call.and_then(|(_, rest)| rest.split_once('"')).map(|(name, _)| name.to_string()));
                }
            }
        }
    }
    assert!(named.len() > 15, "{named:?}");
    assert_eq!(named, documented);
    for path in ["deploy/grafana/bifold.json", "deploy/prometheus/alerts.yaml"] {
        let text = read(path);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let used: BTreeSet<&str> = words.filter(|word| word.starts_with("bifold_")).collect();
        assert!(!used.is_empty(), "{path}");
        let unknown: Vec<_> = used.iter().filter(|name| !documented.contains(**name)).collect();
        assert!(unknown.is_empty(), "{path} names {unknown:?}");
    }
}
