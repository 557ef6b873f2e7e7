//! The pages of docs/reference say what the code does.

use std::collections::{BTreeMap, BTreeSet};

use bifold_config::{KEYS, Kind};

fn read(path: &str) -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The cells of a page's table rows whose first cell is code.
fn rows(page: &str) -> Vec<Vec<String>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let cells =
        |row: &str| row.trim_end_matches(" |").split(" | ").map(|cell| cell.trim_matches('`').to_string()).collect();
    rows.map(cells).collect()
}

/// The texts that stand in a source after each `before`, up to the next quote.
fn quoted_after(source: &str, before: &str) -> BTreeSet<String> {
    source.split(before).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_string).collect()
}

#[test]
fn every_key_is_documented_with_its_kind_and_default() {
    let documented: BTreeMap<String, (String, String)> = rows(&read("docs/reference/configuration.md"))
        .into_iter()
        .filter(|cells| cells.len() == 4)
        .map(|cells| (cells[0].clone(), (cells[1].clone(), cells[2].clone())))
        .collect();
    let kind = |kind: Kind| match kind {
        Kind::Text => "text",
        Kind::Path => "path",
        Kind::Duration => "duration",
        Kind::Size => "size",
        Kind::Integer => "integer",
        Kind::Boolean => "boolean",
        Kind::List => "list",
        Kind::Table => "table",
    };
    let known: BTreeMap<String, (String, String)> =
        KEYS.iter().map(|key| (key.name.to_string(), (kind(key.kind).to_string(), key.default.to_string()))).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_path_and_every_problem_is_documented() {
    let page = read("docs/reference/http.md");
    let rows = rows(&page);
    let paths: BTreeSet<String> =
        rows.iter().map(|cells| cells[0].clone()).filter(|cell| cell.starts_with('/')).collect();
    let sources = ["serving/src/api.rs", "shared/service/src/http.rs"].map(read).concat();
    assert_eq!(paths, quoted_after(&sources, ".route(\""));
    let problems: BTreeSet<(String, String)> = rows
        .iter()
        .filter(|cells| !cells[0].starts_with('/'))
        .flat_map(|cells| cells[1].split(", ").map(|status| (cells[0].clone(), status.to_string())))
        .collect();
    let source = read("serving/src/problem.rs");
    let made = source.split("Self::new(StatusCode::").skip(1).filter_map(|call| {
        let (name, rest) = call.split_once(", \"")?;
        let status = match name {
            "BAD_REQUEST" => 400,
            "FORBIDDEN" => 403,
            "NOT_FOUND" => 404,
            "METHOD_NOT_ALLOWED" => 405,
            "PAYLOAD_TOO_LARGE" => 413,
            "UNPROCESSABLE_ENTITY" => 422,
            "TOO_MANY_REQUESTS" => 429,
            "INTERNAL_SERVER_ERROR" => 500,
            "SERVICE_UNAVAILABLE" => 503,
            "GATEWAY_TIMEOUT" => 504,
            other => panic!("a status that this test does not know: {other}"),
        };
        Some((rest.split('"').next()?.to_string(), status.to_string()))
    });
    let made: BTreeSet<(String, String)> = made.collect();
    assert!(made.len() >= 14, "{made:?}");
    assert_eq!(problems, made);
}

#[test]
fn every_exit_code_and_command_is_documented() {
    let page = read("docs/reference/exit-codes.md");
    let source = read("cli/src/args.rs");
    let commands = source.split("pub(crate) enum Command {").nth(1).and_then(|rest| rest.split("\n}").next());
    let kebab = |name: &str| {
        let parts = name.char_indices().map(|(at, c)| match c.is_uppercase() && at > 0 {
            true => format!("-{}", c.to_lowercase()),
            false => c.to_lowercase().to_string(),
        });
        parts.collect::<String>()
    };
    let names = commands.expect("the commands").lines().filter_map(|line| {
        let line = line.trim();
        let name = line.split(['(', ' ']).next()?;
        line.starts_with(|c: char| c.is_uppercase()).then(|| kebab(name))
    });
    let names: Vec<String> = names.filter(|name| name != "batch").collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
    let exits = read("cli/src/exit.rs");
    for code in 0..=3 {
        assert!(page.contains(&format!("\n| {code} | ")), "{code}");
        assert!(code == 0 || exits.contains(&format!("=> {code}")), "exit code {code} stands in the code");
    }
}
