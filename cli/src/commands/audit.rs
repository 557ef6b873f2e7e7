//! `bifold audit`: whether every offset and every event is accounted for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bifold_batch::audit::{self, Seen};
use bifold_ledger::{Ledger, Offsets, TopicPartition};
use bifold_log::{Log, ReaderOptions, Start, Survey, survey};
use bifold_store::{Journal, SourceFiles};
use serde_json::{Value, json};

use crate::args::{Audit, Common};
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;

/// How often it begins anew because files were replaced.
const TRIES: usize = 5;
const COLUMNS: [&str; 20] = [
    "view",
    "topic",
    "partition",
    "from",
    "to",
    "positions",
    "records",
    "gaps",
    "lost",
    "expired",
    "in_log",
    "behind",
    "events",
    "dead_letters",
    "absent",
    "counted",
    "filtered",
    "deduplicated",
    "left_out",
    "even",
];

pub(crate) async fn run(common: &Common, audit: Audit) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let source = context.source(&audit.source)?;
    let files = context.files(&source.name)?;
    let opened = Journal::open(files.clone(), "cli");
    let mut journal = within(audit.shot.timeout, &context.store_name(), opened).await?;
    if !journal.ledger().exists() {
        return Err(bifold_batch::Error::NotBegun { source_name: source.name.clone() }.into());
    }
    let log = match context.log() {
        Ok(log) => Some(log),
        Err(bifold_log::Error::Locked { .. }) => {
            eprintln!("the local log is held by a server: the archive is not compared with it");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let found = match &log {
        Some(log) => Some(within(audit.shot.timeout, &context.log_name(), survey(&**log, &source.topics)).await?),
        None => None,
    };
    if let Some(found) = &found {
        journal.same_topics(&found.ids)?;
        if let Some(missing) = found.missing.first() {
            return Err(Exit::Failed(format!(
                "topic {missing} does not exist: there is nothing to compare the archive with"
            )));
        }
    }
    let with_log = log.as_deref().zip(found.as_ref());
    let mut tries = 0;
    let (rows, uneven) = loop {
        let ledger = journal.refresh().await?;
        tries += 1;
        match account(&context, &files, &ledger, with_log, audit.shot.timeout).await? {
            Ok(done) => break done,
            // A file that was replaced meanwhile is no damage.
            Err(error) => match error.file() {
                Some(file) if tries < TRIES && journal.is_superseded(file).await? => {}
                _ => return Err(batch_damaged(error)),
            },
        }
    };
    output::objects(audit.shot.output(), &COLUMNS, &rows)?;
    match uneven.is_empty() {
        true => Ok(()),
        false => Err(Exit::Difference(format!(
            "the audit of {} does not come out even:\n  {}",
            source.name,
            uneven.join("\n  ")
        ))),
    }
}

/// The lines of an audit, and what does not come out even; or the failure of a file, which may have been replaced.
async fn account(
    context: &Context,
    files: &SourceFiles,
    ledger: &Ledger,
    with_log: Option<(&dyn Log, &Survey)>,
    patience: Duration,
) -> Result<Result<(Vec<Value>, Vec<String>), bifold_batch::Error>, Exit> {
    let start = |at: &TopicPartition| {
        with_log.and_then(|(_, found)| found.bounds.get(at)).map_or(i64::MAX, |bounds| bounds.earliest)
    };
    // How many offsets the log has that are not archived yet.
    let behind = |at: &TopicPartition, to: i64| {
        let bounds = with_log.and_then(|(_, found)| found.bounds.get(at));
        bounds.map(|bounds| (bounds.end - to).max(0))
    };
    let archived = match audit::archive(files, ledger, start).await {
        Ok(archived) => archived,
        Err(error) => return Ok(Err(error)),
    };
    let in_log = match with_log {
        Some((log, found)) => Some(read_log(log, ledger, found, patience).await?),
        None => None,
    };
    let (mut rows, mut uneven) = (vec![], vec![]);
    for (at, held) in &archived {
        let (from, to) = (ledger.kept_from(at), ledger.archived(at));
        let positions = to - from;
        let gaps = positions - held.records as i64 - held.lost;
        let seen = in_log.as_ref().map(|seen| seen.get(at).copied().unwrap_or_default());
        let mut wrong = vec![];
        if gaps < 0 || held.twice > 0 {
            wrong
                .push(format!("{} records stand at {positions} positions, {} of them twice", held.records, held.twice));
        }
        if let Some(seen) = seen.filter(|seen| *seen != held.in_log) {
            let (in_log, archived) = (seen.records, held.in_log.records);
            wrong.push(match in_log == archived {
                true => format!("the {in_log} records of the log are not those of the archive"),
                false => format!("the log has {in_log} records where the archive has {archived}"),
            });
        }
        rows.push(json!({
            "source": ledger.source, "topic": at.topic, "partition": at.partition, "from": from, "to": to, "positions": positions,
            "records": held.records, "gaps": gaps, "lost": held.lost, "expired": held.expired, "in_log": seen.map(|seen| seen.records), "behind": behind(at, to),
            "events": held.events, "dead_letters": held.dead_letters, "absent": held.absent, "even": wrong.is_empty(),
        }));
        uneven.extend(wrong.into_iter().map(|why| format!("{at}: {why}")));
    }
    uneven.extend(against_ledger(ledger, &archived));
    for (version, state) in ledger.versions.iter().filter(|(_, state)| state.active) {
        let used = match audit::view(&context.engine, files, ledger, version).await {
            Ok(used) => used,
            Err(error) => return Ok(Err(error)),
        };
        for (at, used) in used {
            let sum = used.counted + used.filtered + used.deduplicated + used.left_out;
            let even = sum == used.events;
            rows.push(json!({
                "source": ledger.source, "view": state.view, "version": version, "topic": at.topic, "partition": at.partition,
                "from": used.from, "to": ledger.archived(&at), "events": used.events, "counted": used.counted,
                "filtered": used.filtered, "deduplicated": used.deduplicated, "left_out": used.left_out, "dead_letters": used.dead_letters,
                "even": even,
            }));
            if !even {
                uneven.push(format!("{at}: view {} uses {sum} of {} events", state.view, used.events));
            }
        }
    }
    Ok(Ok((rows, uneven)))
}

/// A damaged file is what an audit looks for.
fn batch_damaged(error: bifold_batch::Error) -> Exit {
    match error {
        bifold_batch::Error::Store(error @ bifold_store::Error::Damaged { .. }) => Exit::Difference(error.to_string()),
        error => error.into(),
    }
}

/// What the ledger has counted, against what the files hold.
fn against_ledger(ledger: &Ledger, archived: &BTreeMap<TopicPartition, audit::Archived>) -> Vec<String> {
    let sum = |of: fn(&audit::Archived) -> u64| archived.values().map(of).sum::<u64>();
    let (counts, removed) = (&ledger.counts, ledger.removed);
    let (dead, absent) = (counts.dead.values().sum::<u64>(), counts.absent);
    let events = sum(|held| held.events + held.aside.0);
    let aside = sum(|held| held.aside.1) + removed.dead;
    let pairs = match aside == 0 {
        true => vec![
            ("events", events + removed.rows, counts.rows),
            ("dead letters", sum(|held| held.dead_letters), dead),
            ("absent records", sum(|held| held.absent), absent),
        ],
        // Of what left the archive, or is lost, it is not known any more which of the two it was.
        false => vec![
            ("events", events + removed.rows, counts.rows),
            ("dead letters and absent records", sum(|held| held.dead_letters + held.absent) + aside, dead + absent),
        ],
    };
    let differs = pairs.into_iter().filter(|(_, files, ledger)| files != ledger);
    differs
        .map(|(what, files, ledger)| format!("the archive's files hold {files} {what}, the ledger counted {ledger}"))
        .collect()
}

/// What the log still has of what is archived.
async fn read_log(
    log: &dyn Log,
    ledger: &Ledger,
    found: &Survey,
    patience: Duration,
) -> Result<BTreeMap<TopicPartition, Seen>, Exit> {
    let mut left = Offsets::default();
    let mut starts = vec![];
    for (at, bounds) in &found.bounds {
        let next = bounds.earliest.max(ledger.kept_from(at));
        if next < ledger.archived(at) {
            left.advance(at, ledger.archived(at));
            starts.push(Start { at: at.clone(), next, leader_epoch: None });
        }
    }
    let mut reader = log.reader(ReaderOptions::default())?;
    let reading = move || -> Result<BTreeMap<TopicPartition, Seen>, Exit> {
        let mut seen: BTreeMap<TopicPartition, Seen> = BTreeMap::new();
        reader.assign(&starts)?;
        let mut last = Instant::now();
        while !left.is_empty() {
            let chunk = reader.poll(10_000, Duration::from_millis(200))?;
            for record in chunk.records().filter(|record| left.get(record.at).is_some_and(|end| record.offset < end)) {
                seen.entry(record.at.clone()).or_default().add(record.offset, record.value);
            }
            for (at, next, _) in chunk.positions() {
                if left.get(at).is_some() {
                    last = Instant::now();
                }
                if left.get(at).is_some_and(|end| next >= end) {
                    left.0.remove(at);
                }
            }
            if last.elapsed() > patience {
                return Err(Exit::Failed(format!("the log could not be read up to {left} in time")));
            }
        }
        Ok(seen)
    };
    tokio::task::spawn_blocking(reading).await.map_err(Exit::failed)?
}
