//! `bifold dead-letters`: what could not be decoded.

use base64::Engine as _;
use bifold_serving::json::timestamp_text;
use serde_json::json;

use crate::args::{Common, DeadLetters, Output};
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;

const COLUMNS: [&str; 8] = ["topic", "partition", "offset", "index", "timestamp", "reason", "detail", "payload_base64"];
const TABLE_COLUMNS: [&str; 8] = ["topic", "partition", "offset", "index", "timestamp", "reason", "detail", "payload"];
/// Characters of a record that a table shows.
const SHOWN: usize = 60;

pub(crate) async fn run(common: &Common, letters: DeadLetters) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let source = context.source(&letters.source)?;
    let files = context.files(&source.name)?;
    let opened = bifold_store::Journal::open(files.clone(), "cli");
    let journal = within(letters.shot.timeout, &context.store_name(), opened).await?;
    let format = letters.shot.output();
    // A record may hold very many of them, each printed with all of it: nothing is kept that is not shown as a table.
    let mut rows = vec![];
    if format == Output::Csv {
        output::objects(format, &COLUMNS, &[])?;
    }
    bifold_batch::dead_letters::each(&files, &journal.ledger(), |letter| {
        let mut row = json!({
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "index": letter.index,
            "timestamp": letter.timestamp_us.map(timestamp_text),
            "reason": letter.reason,
            "detail": letter.detail,
            "payload_base64": base64::engine::general_purpose::STANDARD.encode(&letter.payload),
        });
        match format {
            Output::Table => {
                row["payload"] = beginning(&letter.payload).into();
                row["payload_base64"] = serde_json::Value::Null;
                rows.push(row);
            }
            Output::Json => output::line(&row.to_string())?,
            Output::Csv => output::line(&output::csv_line(&COLUMNS, &row))?,
        }
        Ok::<(), Exit>(())
    })
    .await?;
    if format == Output::Table {
        output::objects(format, &TABLE_COLUMNS, &rows)?;
    }
    Ok(())
}

/// The beginning of a record, for people.
fn beginning(payload: &[u8]) -> String {
    let text = String::from_utf8_lossy(payload);
    let mut shown = String::new();
    for c in text.chars().take(SHOWN) {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
