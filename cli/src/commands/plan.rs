//! `bifold plan`: what starting this pipeline would do to the views of the store.

use std::collections::BTreeSet;
use std::time::Duration;

use bifold_fold::View;
use bifold_fold::dialect::TODAY;
use bifold_fold::view::Readings;
use bifold_ledger::{Ledger, Toward, VersionState};
use bifold_serving::json::timestamp_text;
use serde_json::{Map, Value, json};

use super::check::say_old_dialects;
use crate::args::{Common, OneShot};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;

const COLUMNS: [&str; 8] = ["view", "source", "action", "from", "version", "dialect", "rows", "why"];

pub(crate) async fn run(common: &Common, shot: OneShot) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let (mut rows, mut kept) = (vec![], vec![]);
    for (source, journal) in context.journals(shot.timeout.min(Duration::from_secs(60))).await? {
        let ledger = journal.ledger();
        for readings in context.readings_of(&source) {
            rows.push(row(readings, &ledger)?);
            kept.push(readings.chosen(&ledger)?);
        }
        rows.extend(left_behind(&context, &ledger));
    }
    output::objects(shot.output(), &COLUMNS, &rows)?;
    say_old_dialects(&kept);
    match rows.iter().all(|row| matches!(row["action"].as_str(), Some("none" | "left"))) {
        true => Ok(()),
        false => Err(Exit::Planned),
    }
}

/// What becomes of a view of the pipeline.
fn row(readings: &Readings, ledger: &Ledger) -> Result<Value, Exit> {
    let view = readings.chosen(ledger)?;
    let before = ledger.newest(&view.name);
    let next = readings.next_entry(ledger, true)?.map(|(_, toward, _)| toward);
    let (action, why) = match (next, before.and_then(|version| ledger.versions.get(version))) {
        (None, _) => ("none", String::new()),
        (Some(Toward::Select), _) => ("select", "an earlier version of the view is answered from again".to_string()),
        (Some(_), None) if archived(ledger) == 0 => {
            ("new", "the view is new, and there is nothing to build it from".to_string())
        }
        (Some(_), None) => ("new", "the view is new: a batch run builds it from the archive".to_string()),
        (Some(_), Some(state)) => ("rebuild", changed(state, view)),
    };
    let rebuilds = matches!(action, "new" | "rebuild");
    Ok(json!({
        "view": view.name, "source": view.source.name, "action": action, "from": before, "version": view.version,
        "dialect": view.dialect, "rows": if rebuilds { archived(ledger) } else { 0 }, "why": why,
    }))
}

/// Rows of the archive: what a batch run reads to build a version.
fn archived(ledger: &Ledger) -> u64 {
    ledger.archive.iter().flat_map(|unit| &unit.rows).map(|file| file.rows).sum()
}

/// Views of the store that the pipeline does not have any more.
fn left_behind(context: &Context, ledger: &Ledger) -> Vec<Value> {
    let known: BTreeSet<&str> = context.views.iter().map(|view| view.any().name.as_str()).collect();
    let active = ledger.versions.iter().filter(|(_, state)| state.active && !known.contains(state.view.as_str()));
    active
        .map(|(version, state)| {
            json!({
                "view": state.view, "source": ledger.source, "action": "left", "from": version, "version": version,
                "dialect": state.dialect, "rows": 0,
                "why": "the pipeline does not have it; it goes on being folded and answered",
            })
        })
        .collect()
}

/// What makes a view another version than the one that the store has.
fn changed(state: &VersionState, view: &View) -> String {
    let source = serde_json::to_value(&*view.source).expect("a source is JSON");
    let mut reasons = source_changes(&state.source, &source);
    if state.sql != view.sql {
        reasons.insert(0, "its SELECT or its options changed".to_string());
    }
    if state.dialect != view.dialect {
        reasons.push(format!("it was declared under dialect {}, and today's is {TODAY}", state.dialect));
    }
    if reasons.is_empty() {
        reasons.push("this build keeps the states of its aggregates in another form".to_string());
    }
    reasons.join("; ")
}

/// What differs between two definitions of a source: columns by name, options by theirs.
fn source_changes(before: &Value, now: &Value) -> Vec<String> {
    let empty = Map::new();
    let (old, new) = (before.as_object().unwrap_or(&empty), now.as_object().unwrap_or(&empty));
    let mut reasons = vec![];
    let columns = |of: &Map<String, Value>| -> Vec<(String, String)> {
        let all = of.get("columns").and_then(Value::as_array).cloned().unwrap_or_default();
        all.iter()
            .map(|column| (column["name"].as_str().unwrap_or_default().to_string(), column["ty"].to_string()))
            .collect()
    };
    let (before, now) = (columns(old), columns(new));
    for (name, ty) in &now {
        match before.iter().find(|(known, _)| known == name) {
            None => reasons.push(format!("column {name:?} of the source is new")),
            Some((_, other)) if other != ty => reasons.push(format!("column {name:?} of the source has another type")),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|(name, _)| !now.iter().any(|(known, _)| known == name));
    reasons.extend(gone.map(|(name, _)| format!("column {name:?} of the source is gone")));
    if reasons.is_empty() && before != now {
        reasons.push("the columns of the source have another order".to_string());
    }
    let options: BTreeSet<&String> = old.keys().chain(new.keys()).filter(|name| *name != "columns").collect();
    let differs = options.into_iter().filter(|name| old.get(*name) != new.get(*name));
    reasons.extend(differs.map(|name| {
        let shown = |of: &Map<String, Value>| shown(name, of.get(name));
        let option = name.trim_end_matches("_us");
        format!("{option} of the source was {}, and is {}", shown(old), shown(new))
    }));
    reasons
}

/// The value of an option as one would write it.
fn shown(name: &str, value: Option<&Value>) -> String {
    let micros = |value: &Value| value.as_i64().unwrap_or_default();
    match (name, value) {
        ("quoted_numbers", None) => "false".to_string(),
        (_, None | Some(Value::Null)) => "not set".to_string(),
        ("event_time_min_us" | "event_time_max_us", Some(value)) => timestamp_text(micros(value)),
        (name, Some(value)) if name.ends_with("_us") => {
            humantime::format_duration(Duration::from_micros(micros(value).unsigned_abs())).to_string()
        }
        (_, Some(value)) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_of_a_source_is_named() {
        let before = json!({"topics": ["t"], "columns": [{"name": "a", "ty": "Int"}, {"name": "b", "ty": "Text"}], "max_record": 10});
        let now = json!({"topics": ["t"], "columns": [{"name": "a", "ty": "BigInt"}, {"name": "c", "ty": "Text"}],
                         "max_record": 20, "quoted_numbers": true, "event_time_min_us": 946_684_800_000_000_i64, "event_time_max_ahead_us": 5_400_000_000_i64});
        assert_eq!(
            source_changes(&before, &now),
            [
                "column \"a\" of the source has another type",
                "column \"c\" of the source is new",
                "column \"b\" of the source is gone",
                "event_time_max_ahead of the source was not set, and is 1h 30m",
                "event_time_min of the source was not set, and is 2000-01-01T00:00:00Z",
                "max_record of the source was 10, and is 20",
                "quoted_numbers of the source was false, and is true",
            ]
        );
        assert!(source_changes(&now, &now).is_empty());
    }
}
