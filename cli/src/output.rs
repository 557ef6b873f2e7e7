//! Printing results: tables for people, JSON and CSV for programs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table};
use serde_json::Value;

use crate::args::{OneShot, Output};
use crate::exit::Exit;

impl OneShot {
    /// How to print.
    pub(crate) fn output(&self) -> Output {
        self.output.unwrap_or(if std::io::stdout().is_terminal() { Output::Table } else { Output::Json })
    }
}

/// Prints a line to stdout. A closed pipe ends the command quietly.
pub(crate) fn line(text: &str) -> Result<(), Exit> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => Err(Exit::failed(e)),
    }
}

/// Prints objects: one a line as JSON, else as rows with these columns.
pub(crate) fn objects(output: Output, columns: &[&str], objects: &[Value]) -> Result<(), Exit> {
    match output {
        Output::Json => objects.iter().try_for_each(|object| line(&object.to_string())),
        Output::Table => line(&table(columns, objects)),
        Output::Csv => {
            line(&columns.iter().map(|column| csv(column)).collect::<Vec<_>>().join(","))?;
            objects.iter().try_for_each(|object| line(&csv_line(columns, object)))
        }
    }
}

/// An object as a line of CSV.
pub(crate) fn csv_line(columns: &[&str], object: &Value) -> String {
    let cell = |column: &&str| match &object[*column] {
        // NULL is the empty field without quotes.
        Value::String(text) if text.is_empty() => "\"\"".to_string(),
        value => csv(&cell(value)),
    };
    columns.iter().map(cell).collect::<Vec<_>>().join(",")
}

/// Objects as a table.
pub(crate) fn table(columns: &[&str], objects: &[Value]) -> String {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    // A terminal that tells no width, or none that a table fits in, gets lines as long as they are.
    if table.width().is_none_or(|width| width < 20) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(columns);
    for object in objects {
        table.add_row(columns.iter().map(|column| cell(&object[*column])));
    }
    table.to_string()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn csv(text: &str) -> String {
    match text.contains(['"', ',', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_string(),
    }
}

/// Dead letters of a view, for people. None if there are none.
pub(crate) fn dead_letters(view: &str, source: &str, reasons: &BTreeMap<String, u64>) -> Option<String> {
    let (commonest, count) = reasons.iter().max_by_key(|(_, count)| **count)?;
    let all: u64 = reasons.values().sum();
    Some(format!(
        "view {view} does not count {all} dead letters of source {source}, of which {count} are {commonest}; \
         `bifold dead-letters {source}` lists them"
    ))
}

/// What answers leave out, for people: a line for the dead letters of each view, one for each hole.
pub(crate) fn left_out(coverage: &Value) -> Vec<String> {
    let mut lines = vec![];
    for element in coverage.as_array().into_iter().flatten() {
        let (view, source) = (cell(&element["view"]), cell(&element["source"]));
        let reasons = serde_json::from_value(element["dead_letter_reasons"].clone()).unwrap_or_default();
        lines.extend(dead_letters(&view, &source, &reasons));
        for hole in element["holes"].as_array().into_iter().flatten() {
            lines.push(format!(
                "view {view} does not count {}/{} [{},{}): {}, {}",
                cell(&hole["topic"]),
                hole["partition"],
                hole["range"][0],
                hole["range"][1],
                cell(&hole["kind"]),
                cell(&hole["reason"])
            ));
        }
    }
    lines
}

/// Coverage for people: `view w: w/0 batch [0,8) + speed [8,13)`.
pub(crate) fn coverage_lines(coverage: &Value) -> Vec<String> {
    let elements = coverage.as_array().cloned().unwrap_or_default();
    let part = |p: &Value| {
        format!(
            "{}/{} batch [{},{}) + speed [{},{})",
            cell(&p["topic"]),
            p["partition"],
            p["batch"][0],
            p["batch"][1],
            p["speed"][0],
            p["speed"][1]
        )
    };
    let one = |element: &Value| {
        let parts: Vec<String> = element["partitions"].as_array().into_iter().flatten().map(part).collect();
        format!("{} (version {}) covers {}", cell(&element["view"]), cell(&element["version"]), parts.join(", "))
    };
    elements.iter().map(one).collect()
}
