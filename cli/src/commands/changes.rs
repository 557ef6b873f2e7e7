//! `bifold quarantine` and `bifold accept-loss`: what a person decides not to count.

use std::time::Duration;

use bifold_ledger::{Body, Change, ChangeKind, Ledger, Nonce, Number, Ranges, Span, TopicPartition};
use bifold_log::survey;
use bifold_store::{Appended, Journal, Kind};
use serde_json::{Value, json};

use crate::args::{AcceptLoss, Common, Quarantine};
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;

const COLUMNS: [&str; 9] = ["source", "ledger", "kind", "topic", "partition", "from", "to", "reason", "lifted"];

pub(crate) async fn quarantine(common: &Common, command: Quarantine) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let mut journal = opened(&context, &command.source, command.shot.timeout).await?;
    let ledger = journal.ledger();
    check_reason(command.reason.as_deref())?;
    if command.reason.is_some() && command.partition.is_none() && command.lift.is_none() {
        let hint = "name a range (--partition T/P --from A --to B), or a quarantine to --lift";
        return Err(Exit::Usage(format!("--reason alone says nothing: {hint}")));
    }
    let body = match (&command.partition, command.lift) {
        (None, None) => {
            let rows: Vec<Value> = ledger.changes.iter().flat_map(|c| rows(&command.source, c)).collect();
            return output::objects(command.shot.output(), &COLUMNS, &rows);
        }
        (Some(at), _) => {
            let (from, to) = (command.from.unwrap_or_default(), command.to.unwrap_or_default());
            let ranges = range(&ledger, at, from, to)?;
            Body::Quarantined { ranges, reason: command.reason.unwrap_or_default() }
        }
        (None, Some(quarantine)) => Body::Lifted { quarantine, reason: command.reason.unwrap_or_default() },
    };
    let lifted = command.lift;
    let number = decide(&mut journal, body).await?;
    let ledger = journal.ledger();
    let change = ledger.change_at(lifted.unwrap_or(number));
    let rows: Vec<Value> = change.into_iter().flat_map(|c| rows(&command.source, c)).collect();
    output::objects(command.shot.output(), &COLUMNS, &rows)?;
    eprintln!("{}", takes_effect(&ledger, change, lifted.is_some()));
    Ok(())
}

pub(crate) async fn accept_loss(common: &Common, command: AcceptLoss) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let mut journal = opened(&context, &command.source, command.shot.timeout).await?;
    let source = context.source(&command.source)?;
    let log = context.log()?;
    let found = within(command.shot.timeout, &context.log_name(), survey(&*log, &source.topics)).await?;
    check_reason(Some(&command.reason))?;
    if let Some(unknown) = command.partitions.iter().find(|at| !found.bounds.contains_key(*at)) {
        let names: Vec<String> = found.bounds.keys().map(ToString::to_string).collect();
        return Err(Exit::Usage(format!("the log has no partition {unknown}; it has {}", names.join(", "))));
    }
    journal.same_topics(&found.ids)?;
    let named = |at: &&TopicPartition| command.partitions.is_empty() || command.partitions.contains(*at);
    let named = found.bounds.keys().filter(named).cloned().collect();
    let ranges = journal.ledger().standing_to_archive(&found.ranges(&named)).gone();
    if ranges.is_empty() {
        eprintln!("nothing is lost: the archive and the log join in every partition asked for");
        return output::objects(command.shot.output(), &COLUMNS, &[]);
    }
    let number = decide(&mut journal, Body::Lost { ranges, reason: command.reason }).await?;
    let ledger = journal.ledger();
    let rows: Vec<Value> = ledger.change_at(number).into_iter().flat_map(|c| rows(&command.source, c)).collect();
    output::objects(command.shot.output(), &COLUMNS, &rows)?;
    eprintln!("recorded; the layers go on behind it, and every answer names it in its holes");
    Ok(())
}

/// The ledger of a source that has begun.
async fn opened(context: &Context, source: &str, timeout: Duration) -> Result<Journal, Exit> {
    let source = context.source(source)?;
    let opened = Journal::open_to_write(context.files(&source.name)?, "cli");
    let journal = within(timeout, &context.store_name(), opened).await?;
    match journal.ledger().exists() {
        true => Ok(journal),
        false => Err(bifold_batch::Error::NotBegun { source_name: source.name.clone() }.into()),
    }
}

/// A reason is for whoever reads the coverage.
fn check_reason(reason: Option<&str>) -> Result<(), Exit> {
    match reason {
        Some(text) if text.trim().is_empty() => {
            Err(Exit::Usage("--reason is empty: say why, for whoever reads the coverage".to_string()))
        }
        _ => Ok(()),
    }
}

/// The range asked for, of a partition that the source has.
fn range(ledger: &Ledger, at: &TopicPartition, from: i64, to: i64) -> Result<Ranges, Exit> {
    let known = ledger.effective().max(&ledger.archived);
    if known.get(at).is_none() {
        let names: Vec<String> = known.iter().map(|(at, _)| at.to_string()).collect();
        return Err(Exit::Usage(format!("the ledger knows no partition {at}; it knows {}", names.join(", "))));
    }
    if from >= to || from < ledger.origin(at) {
        let origin = ledger.origin(at);
        return Err(Exit::Usage(format!(
            "[{from}, {to}) is no range of {at}: --from is at least {origin}, --to larger"
        )));
    }
    Ok([(at.clone(), Span::new(from, to))].into_iter().collect())
}

fn refuse_dedup(ledger: &Ledger) -> Result<(), Exit> {
    let dedups = |source: &Value| source.get("dedup").is_some_and(|dedup| !dedup.is_null());
    let of = ledger.versions.values().find(|version| version.active && dedups(&version.source));
    match of {
        None => Ok(()),
        Some(version) => Err(Exit::Usage(format!(
            "view {} reads a source with dedup, and a quarantine there would decide anew which of equal rows counts: \
             that is not built",
            version.view
        ))),
    }
}

/// Puts a command, whoever else writes meanwhile.
async fn decide(journal: &mut Journal, body: Body) -> Result<Number, Exit> {
    let nonce = Nonce(uuid::Uuid::new_v4().simple().to_string());
    loop {
        if matches!(body, Body::Quarantined { .. }) {
            refuse_dedup(&journal.ledger())?;
        }
        match journal.append_as(body.clone(), nonce.clone()).await {
            Ok(Appended::Won(number)) => return Ok(number),
            Ok(Appended::Lost) => {}
            Err(error) if error.kind() == Kind::Refused => return Err(Exit::Usage(error.to_string())),
            Err(error) => return Err(error.into()),
        }
    }
}

/// When a change is no longer pending.
fn takes_effect(ledger: &Ledger, change: Option<&Change>, lifted: bool) -> &'static str {
    let served: Vec<_> = ledger.versions.values().filter(|version| version.active).collect();
    let below = |change: &Change| served.iter().any(|v| v.boundary.as_ref().is_some_and(|b| change.reaches_below(b)));
    match change {
        _ if lifted => "recorded; views count it again after `bifold batch run --full`",
        Some(change) if below(change) => {
            "recorded; batch views hold it already: it is left out after `bifold batch run --full`, and is named in pending_holes until then"
        }
        _ => {
            "recorded; it is left out by the batch run that passes all of it at once, else by `bifold batch run --full`, and is named in \
             pending_holes until then"
        }
    }
}

/// A row for each of a change's ranges.
fn rows(source: &str, change: &Change) -> Vec<Value> {
    let kind = match change.kind {
        ChangeKind::Lost => "lost",
        ChangeKind::Quarantined => "quarantined",
        ChangeKind::Expired => "expired",
    };
    let row = |(at, span): (&TopicPartition, &Span)| {
        json!({
            "source": source, "ledger": change.number, "kind": kind, "topic": at.topic, "partition": at.partition,
            "from": span.start, "to": span.end, "reason": change.reason, "lifted": change.lifted,
        })
    };
    change.ranges.iter().map(row).collect()
}
