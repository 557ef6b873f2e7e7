//! `bifold dead-letters`: what could not be decoded.

use base64::Engine as _;
use bifold_serving::json::timestamp_text;
use serde_json::json;

use crate::args::{Common, DeadLetters};
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;

pub(crate) async fn run(common: &Common, letters: DeadLetters) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let source = context.source(&letters.source)?;
    let files = context.files(&source.name)?;
    let opened = bifold_store::Journal::open(files.clone(), "cli");
    let journal = within(letters.shot.timeout, &context.store_name(), opened).await?;
    let mut rows = vec![];
    bifold_batch::dead_letters::each(&files, &journal.ledger(), |letter| {
        rows.push(json!({
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "index": letter.index,
            "timestamp": letter.timestamp_us.map(timestamp_text),
            "reason": letter.reason,
            "detail": letter.detail,
            "payload_base64": base64::engine::general_purpose::STANDARD.encode(&letter.payload),
        }));
        Ok(())
    })
    .await?;
    let columns = ["topic", "partition", "offset", "index", "timestamp", "reason", "detail", "payload_base64"];
    output::objects(letters.shot.output(), &columns, &rows)
}
