//! The units that make an answer, and what it covers.
//!
//! ```text
//! ledger n ─► served versions ─► durable cover [origin, b) + [b, d) ─► live units from d ─► f ≥ at_least? ─► finish
//!    ▲                                                                        │ no, or a speed instance knows more
//!    └────────────────────────────── read again ◄─────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use bifold_fold::View;
use bifold_fold::live::{LiveAnswer, LiveRequest};
use bifold_ledger::{Cover, Gap, Hole, Holes, Ledger, LiveUnit, Offsets, Seen, VersionId, chain};
use serde_json::{Value, json};

use crate::catalog::{Catalog, ServedSource};
use crate::json::timestamp_text;
use crate::problem::Problem;

/// How long to wait before looking again for what was asked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the ledger is read again because a speed instance is ahead of it.
const RETRIES: usize = 5;

/// A view's finished rows and what they cover.
#[derive(Debug, Clone)]
pub struct ViewAnswer {
    /// The view.
    pub view: Arc<View>,
    /// The rows.
    pub rows: Arc<Vec<RecordBatch>>,
    /// The element of `coverage`.
    pub coverage: Value,
}

/// What a query waits for.
#[derive(Debug, Clone, Default)]
pub enum AtLeast {
    /// Nothing.
    #[default]
    Now,
    /// The log's end when asked.
    Latest,
    /// These positions.
    Offsets(Offsets),
}

impl AtLeast {
    /// Reads `latest` or OFFSETS.
    ///
    /// # Errors
    /// Neither.
    pub fn parse(text: Option<&str>) -> Result<Self, Problem> {
        match text {
            None | Some("") => Ok(AtLeast::Now),
            Some("latest") => Ok(AtLeast::Latest),
            Some(text) => match text.parse() {
                Ok(offsets) => Ok(AtLeast::Offsets(offsets)),
                Err(e) => Err(Problem::bad_query(format!("at_least: {e}"))),
            },
        }
    }
}

/// Answers views, each with its coverage. Views of one source are read at one ledger number and one frontier.
///
/// # Errors
/// An unknown view, one that is being built, `at_least` not reached by `deadline`, durable units that do not join.
pub async fn answer(
    catalog: &Catalog,
    names: &BTreeSet<String>,
    at_least: &AtLeast,
    deadline: Instant,
) -> Result<BTreeMap<String, ViewAnswer>, Problem> {
    let mut by_source: BTreeMap<String, (Arc<ServedSource>, Vec<String>)> = BTreeMap::new();
    for name in names {
        let found = tokio::time::timeout_at(deadline.into(), catalog.find(name)).await;
        let source = found.map_err(|_| Problem::timeout("the ledger was still being read; ask again"))??;
        let entry = by_source.entry(source.source.name.clone()).or_insert_with(|| (source, vec![]));
        entry.1.push(name.clone());
    }
    if let AtLeast::Offsets(asked) = at_least {
        // What concerns sources that the query does not use is reached by saying nothing of them.
        let topics: Vec<&String> = catalog.sources.values().flat_map(|source| &source.source.topics).collect();
        if let Some((at, _)) = asked.iter().find(|(at, _)| !topics.contains(&&at.topic)) {
            let detail = format!("at_least names {at}, which no source of the pipeline reads");
            return Err(Problem::bad_query(detail));
        }
    }
    let mut answers = BTreeMap::new();
    for (source, names) in by_source.values() {
        let asked = tokio::time::timeout_at(deadline.into(), wanted(catalog, source, at_least)).await;
        let asked = asked.map_err(|_| Problem::not_yet("the log did not say in time where it ends"))??;
        // What was short when it was last looked at.
        let mut short = None;
        loop {
            let tried =
                tokio::time::timeout_at(deadline.into(), answer_source(catalog, source, names, &asked, deadline)).await;
            match (tried, short) {
                (Ok(Ok(Tried::Answered(found))), _) => {
                    answers.extend(found);
                    break;
                }
                (Ok(Ok(Tried::Short(found))), _) if Instant::now() < deadline => {
                    short = Some(found);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
                (Ok(Ok(Tried::Short(found))), _) | (Err(_), Some(found)) => return Err(Problem::not_yet(found)),
                (Err(_), None) => {
                    return Err(Problem::timeout("the views were still being read; reading goes on, ask again"));
                }
                (Ok(Err(problem)), _) => return Err(problem),
            }
        }
    }
    Ok(answers)
}

/// What of `at_least` concerns a source.
async fn wanted(catalog: &Catalog, source: &ServedSource, at_least: &AtLeast) -> Result<Offsets, Problem> {
    match at_least {
        AtLeast::Now => Ok(Offsets::default()),
        AtLeast::Latest => Ok(bifold_log::survey(&*catalog.log, &source.source.topics).await?.ends()),
        AtLeast::Offsets(asked) => Ok(asked
            .iter()
            .filter(|(at, _)| source.source.topics.contains(&at.topic))
            .map(|(at, next)| (at.clone(), next))
            .collect()),
    }
}

enum Tried {
    Answered(BTreeMap<String, ViewAnswer>),
    /// The frontier is below what was asked for, and how far.
    Short(String),
}

async fn answer_source(
    catalog: &Catalog,
    source: &Arc<ServedSource>,
    names: &[String],
    asked: &Offsets,
    deadline: Instant,
) -> Result<Tried, Problem> {
    let mut missed = false;
    for retry in 0.. {
        let ledger = source.ledger().await?;
        let covers = covers(&ledger, names)?;
        let versions: Vec<VersionId> = covers.iter().map(|(_, cover)| cover.version.clone()).collect();
        let have = versions.iter().flat_map(|version| source.slices_of(version)).collect();
        let request = LiveRequest { versions, after: ledger.number, have };
        // An instance that does not answer must not take the time that the answer without it needs.
        let within = (deadline.saturating_duration_since(Instant::now()) / 2).max(LOOK_EVERY);
        let asked_all = catalog.speed.iter().map(|instances| instances.live(&source.source.name, &request, within));
        let mut live: Vec<_> = futures::future::join_all(asked_all).await.into_iter().flatten().collect();
        // An instance that stands further in the ledger may have dropped what we would need of it.
        if live.iter().any(|answer| answer.ledger > ledger.number) && retry < RETRIES {
            continue;
        }
        // Nor may a unit be used whose holes this ledger does not know.
        for answer in &mut live {
            answer.units.retain(|unit| unit.holes.iter().all(|change| ledger.change_at(*change).is_some()));
        }
        let Some(joined) = join(&covers, &live) else {
            match retry < RETRIES {
                true => continue,
                false => return Err(Problem::incomplete("the views of this query do not end alike")),
            }
        };
        // Of what is covered, not of what an instance has beyond it.
        let newest = joined.units.iter().map(|unit| unit.newest_event_us).fold(ledger.newest_event_us, Option::max);
        let frontier = covers.iter().map(|(_, cover)| &cover.frontier).fold(joined.frontier.clone(), |f, d| f.max(d));
        if !frontier.reaches(asked) {
            return Ok(Tried::Short(short_of(&frontier, asked)));
        }
        let mut answers = BTreeMap::new();
        let mut unknown_slice = false;
        for (name, cover) in &covers {
            let view = source.view(&catalog.engine, &ledger, &cover.version).await?;
            let durable = match source.durable(&catalog.engine, &view, cover).await {
                Ok(durable) => durable,
                // A file that is gone may have been superseded: a fresh ledger says.
                Err(problem) if problem.slug() == "damaged" && !missed => {
                    (unknown_slice, missed) = (true, true);
                    tracing::warn!(?problem, "a file cannot be read; reading the ledger again");
                    break;
                }
                Err(problem) => return Err(problem),
            };
            let given: Vec<_> =
                joined.units.iter().flat_map(|unit| unit.slices.get(&cover.version)).flatten().cloned().collect();
            let Some(slices) = source.keep_slices(&cover.version, &given) else {
                unknown_slice = true;
                break;
            };
            let rows = source.finished(&catalog.engine, &view, &durable, &slices).await?;
            let live: Vec<_> = joined.units.iter().map(|unit| (&unit.ranges, unit.holes.as_slice())).collect();
            let seen = std::iter::once(cover.seen.as_ref()).chain(joined.units.iter().map(|unit| unit.seen.as_ref()));
            let beside = (Seen::of_all(seen), ledger.holes(cover, &live));
            let newest = newest.max(cover.newest_event_us);
            let coverage = coverage(&view, cover, &ledger, &frontier, newest, &beside);
            answers.insert(name.clone(), ViewAnswer { view, rows, coverage });
        }
        if unknown_slice && retry < RETRIES {
            continue;
        }
        if unknown_slice {
            return Err(Problem::unavailable("the speed layer's slices change faster than they can be read"));
        }
        return Ok(Tried::Answered(answers));
    }
    unreachable!("the loop above ends by its own")
}

/// The durable cover of each view's served version.
fn covers(ledger: &Ledger, names: &[String]) -> Result<Vec<(String, Cover)>, Problem> {
    let mut covers = vec![];
    for name in names {
        let Some(version) = ledger.served(name) else {
            return Err(Problem::building(name, progress(ledger, name)));
        };
        let cover = ledger.cover(version).map_err(|gap| match gap {
            Gap::Building(_) => Problem::building(name, progress(ledger, name)),
            gap => {
                metrics::counter!("bifold_incomplete_total", "view" => name.clone()).increment(1);
                Problem::incomplete(gap.to_string())
            }
        })?;
        covers.push((name.clone(), cover));
    }
    Ok(covers)
}

/// How much of what a building view needs is archived: 0 to 1.
pub fn progress(ledger: &Ledger, view: &str) -> f64 {
    let Some(version) = ledger.newest(view).and_then(|id| ledger.versions.get(id)) else { return 0.0 };
    if version.complete() {
        return 1.0;
    }
    let (mut need, mut have) = (0, 0);
    for (at, next) in version.declared_at.iter() {
        let origin = ledger.origin(at);
        need += next - origin;
        have += ledger.archived(at).min(next) - origin;
    }
    if need == 0 { 0.0 } else { have as f64 / need as f64 }
}

struct Joined {
    units: Vec<bifold_fold::live::UnitAnswer>,
    frontier: Offsets,
}

/// Chains what the instances offer from the durable frontier. None if the covers do not end alike: read again.
fn join(covers: &[(String, Cover)], live: &[LiveAnswer]) -> Option<Joined> {
    let durable = covers.first().map(|(_, cover)| cover.frontier.clone()).unwrap_or_default();
    if covers.iter().any(|(_, cover)| cover.frontier != durable) {
        return None;
    }
    // A unit counts only with states of every version that is asked for.
    let whole = |unit: &&bifold_fold::live::UnitAnswer| {
        covers.iter().all(|(_, cover)| unit.slices.contains_key(&cover.version))
    };
    let offered: Vec<_> = live.iter().flat_map(|answer| &answer.units).filter(whole).collect();
    let metas: Vec<LiveUnit> =
        offered.iter().map(|unit| LiveUnit { ranges: unit.ranges.clone(), folded_under: unit.folded_under }).collect();
    let chain = chain(&durable, &metas);
    Some(Joined { units: chain.used.iter().map(|i| offered[*i].clone()).collect(), frontier: chain.frontier })
}

fn short_of(frontier: &Offsets, asked: &Offsets) -> String {
    let parts = frontier.short_of(asked).map(|(at, have, want)| format!("{at} is at {have}, asked for {want}"));
    parts.collect::<Vec<_>>().join(", ")
}

/// Elements of `holes` and `pending_holes`.
fn holes_json(ledger: &Ledger, holes: &[Hole]) -> Vec<Value> {
    let one = |hole: &Hole| {
        let change = ledger.change_at(hole.change);
        json!({
            "topic": hole.at.topic,
            "partition": hole.at.partition,
            "range": [hole.start, hole.end],
            "kind": change.map(|change| change.kind),
            "reason": change.map(|change| change.reason.as_str()),
            "ledger": hole.change,
        })
    };
    holes.iter().map(one).collect()
}

fn coverage(
    view: &View,
    cover: &Cover,
    ledger: &Ledger,
    frontier: &Offsets,
    newest: Option<i64>,
    (seen, holes): &(Option<Seen>, Holes),
) -> Value {
    let mut partitions = vec![];
    let all: BTreeSet<_> = frontier.iter().chain(ledger.origins.iter()).map(|(at, _)| at).collect();
    for at in all {
        let origin = ledger.origin(at);
        let boundary = cover.boundary.get(at).unwrap_or(origin).max(origin);
        partitions.push(json!({
            "topic": at.topic,
            "partition": at.partition,
            "batch": [origin, boundary],
            "speed": [boundary, frontier.get(at).unwrap_or(boundary).max(boundary)],
        }));
    }
    let dead = seen.as_ref().map(|seen| seen.dead.get(&cover.version).cloned().unwrap_or_default());
    let watermark = newest.map(|newest| timestamp_text(newest.saturating_sub(view.source.watermark_delay_us)));
    let mut coverage = json!({
        "view": view.name,
        "version": cover.version,
        "source": view.source.name,
        "ledger": ledger.number,
        "watermark": watermark,
        "holes": holes_json(ledger, &holes.holes),
        "pending_holes": holes_json(ledger, &holes.pending),
        "dead_letters": dead.as_ref().map(|reasons| reasons.values().sum::<u64>()),
        "partitions": partitions,
    });
    if let Some(reasons) = dead.filter(|reasons| !reasons.is_empty()) {
        coverage["dead_letter_reasons"] = json!(reasons);
    }
    if view.retention_us.is_some() {
        coverage["kept_from"] = cover.kept_from_us.map(timestamp_text).into();
    }
    coverage
}
