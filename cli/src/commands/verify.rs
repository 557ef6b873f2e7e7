//! `bifold verify`: what is served against plain SQL over the archived bytes.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::datatypes::DataType;
use bifold_batch::progress::Progress;
use bifold_fold::View;
use bifold_ledger::{Hole, Offsets, TopicPartition, VersionId};
use bifold_serving::snapshot::{AtLeast, answer};
use bifold_serving::{Catalog, SourceSpec};
use bifold_store::Journal;
use serde_json::{Value, json};

use crate::args::{Common, Verify};
use crate::client::Client;
use crate::context::{Context, within};
use crate::exit::Exit;
use crate::output;
use crate::progress::shown;

/// How often a view is asked for anew because its retention moved on, or files were replaced.
const TRIES: usize = 5;
/// Groups that are named of a difference.
const NAMED_GROUPS: usize = 10;
/// How far floating-point sums may differ by the order of adding: relative to the value, or to the column's largest.
const ROUNDING: f64 = 1e-9;
/// Which part of the largest number read is nothing: the rounding of a spread that is zero.
const NOTHING: f64 = 1e-13;
/// How far quantiles from sketches may differ.
const SKETCH_ERROR: f64 = 0.05;

/// What was served of a view.
struct Served {
    rows: Vec<Value>,
    coverage: Value,
}

/// What comparing found.
struct Compared {
    groups: usize,
    differing: Vec<String>,
    differing_count: usize,
    max_relative_error: f64,
}

pub(crate) async fn run(common: &Common, verify: Verify) -> Result<(), Exit> {
    let context = Context::load(common).await?;
    let mut journals = BTreeMap::new();
    for source in &context.pipeline.sources {
        let opened = open_ledger(&context, &source.name);
        journals.insert(source.name.clone(), within(verify.shot.timeout, &context.store_name(), opened).await?);
    }
    let wanted = wanted(&context, &journals, &verify.views)?;
    let mut rows = vec![];
    let mut differences = vec![];
    let mut failures = vec![];
    let progress = Progress::default();
    for (source, name) in wanted {
        match shown(&progress, verify_one(&context, &verify, &source, &name, &progress)).await {
            Ok((report, found)) => {
                rows.push(report);
                differences.extend(found);
            }
            Err(Exit::Difference(found)) => differences.push(found),
            Err(failure) => failures.push(failure),
        }
    }
    let columns = ["view", "version", "equal", "groups", "differing", "max_relative_error"];
    output::objects(verify.shot.output(), &columns, &rows)?;
    if differences.is_empty() {
        // The first decides on the exit code; all are told.
        let told = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        return match failures.into_iter().next() {
            None => Ok(()),
            Some(Exit::Usage(_)) => Err(Exit::Usage(told)),
            Some(_) => Err(Exit::Failed(told)),
        };
    }
    // What could not be checked is said, too, but a difference decides.
    differences.extend(failures.iter().map(ToString::to_string));
    Err(Exit::Difference(differences.join("\n")))
}

/// A view's report, and its differences in words.
async fn verify_one(
    context: &Context,
    verify: &Verify,
    source: &str,
    name: &str,
    progress: &Progress,
) -> Result<(Value, Option<String>), Exit> {
    let mut journal = open_ledger(context, source).await?;
    for _ in 0..TRIES {
        let served = match verify.offline {
            true => offline(context, source, name, verify.shot.timeout).await?,
            false => online(&Client::new(&context.config, &verify.shot), name).await?,
        };
        if let Some(checked) = check(context, &mut journal, name, &served, verify.shot.timeout, progress).await? {
            return Ok(checked);
        }
    }
    Err(Exit::Failed(format!(
        "view {name}: files and retention moved on faster than it could be checked; verify again"
    )))
}

/// Opens a source's ledger. An entry that is damaged is what `verify` looks for.
async fn open_ledger(context: &Context, source: &str) -> Result<Journal, Exit> {
    Journal::open(context.files(source)?, "verify").await.map_err(|error| match error.kind() {
        bifold_store::Kind::Damaged => Exit::Difference(error.to_string()),
        _ => error.into(),
    })
}

/// The views to check, with their sources: those named, or all that are served.
fn wanted(
    context: &Context,
    journals: &BTreeMap<String, Journal>,
    views: &[String],
) -> Result<Vec<(String, String)>, Exit> {
    let mut known = vec![];
    for (source, journal) in journals {
        let ledger = journal.ledger();
        let mut names: BTreeSet<String> =
            ledger.versions.values().filter(|version| version.active).map(|version| version.view.clone()).collect();
        names.extend(context.views_of(source).iter().map(|view| view.name.clone()));
        // A view that has moved to another source is no longer this one's.
        names.retain(|name| {
            let declaring = context.views.iter().find(|view| view.any().name == *name);
            declaring.is_none_or(|view| view.any().source.name == *source)
        });
        known.extend(names.into_iter().map(|name| (source.clone(), name)));
    }
    if let Some(unknown) = views.iter().find(|view| !known.iter().any(|(_, name)| name == *view)) {
        let names: Vec<&str> = known.iter().map(|(_, name)| name.as_str()).collect();
        return Err(Exit::Usage(format!("there is no view {unknown:?}; there is {}", names.join(", "))));
    }
    known.retain(|(_, name)| views.is_empty() || views.contains(name));
    Ok(known)
}

async fn online(client: &Client, view: &str) -> Result<Served, Exit> {
    let sql = format!("SELECT * FROM \"{}\"", view.replace('"', "\"\""));
    let reply = client.sql(&sql, None).await?;
    if reply.status >= 500
        && let Ok(problem) = reply.json()
        && problem["type"] == "/problems/damaged"
    {
        return Err(Exit::Difference(format!("view {view}: {}", problem["detail"].as_str().unwrap_or_default())));
    }
    if reply.status == 422
        && let Ok(problem) = reply.json()
        && problem["type"] == "/problems/limit-exceeded"
    {
        let detail = problem["detail"].as_str().unwrap_or_default();
        return Err(Exit::Usage(format!("view {view} is too large to ask the server for ({detail}); use --offline")));
    }
    let body = reply.answer()?.json()?;
    let coverage = body["coverage"].get(0).cloned().unwrap_or_default();
    for line in output::left_out(&body["coverage"]) {
        eprintln!("warning: {line}");
    }
    Ok(Served { rows: body["rows"].as_array().cloned().unwrap_or_default(), coverage })
}

/// Merges from the store alone, at the durable frontier.
async fn offline(context: &Context, source: &str, view: &str, timeout: Duration) -> Result<Served, Exit> {
    let spec =
        SourceSpec { source: context.source(source)?, files: context.files(source)?, views: context.views_of(source) };
    let catalog =
        Catalog::new(vec![spec], Arc::new(NoLog), vec![], context.engine.clone(), context.config.serve.memory);
    let names = std::iter::once(view.to_string()).collect();
    let mut answers = answer(&catalog, &names, &AtLeast::Now, Instant::now() + timeout).await.map_err(|problem| {
        let said = format!("view {view}: {}", problem.detail());
        if problem.slug() == "damaged" { Exit::Difference(said) } else { Exit::Failed(said) }
    })?;
    let answer = answers.remove(view).ok_or_else(|| Exit::Failed(format!("view {view} has no answer")))?;
    let mut rows = vec![];
    for batch in answer.rows.iter() {
        rows.extend(bifold_serving::json::rows(batch).map_err(Exit::failed)?);
    }
    Ok(Served { rows, coverage: answer.coverage })
}

async fn check(
    context: &Context,
    journal: &mut Journal,
    name: &str,
    served: &Served,
    timeout: Duration,
    progress: &Progress,
) -> Result<Option<(Value, Option<String>)>, Exit> {
    let frontier = frontier_of(&served.coverage)?;
    let holes = holes_of(&served.coverage["holes"])?;
    let lost = |hole: &&Value| hole["kind"] == "lost";
    if let Some(lost) = served.coverage["pending_holes"].as_array().into_iter().flatten().find(lost) {
        let why = format!(
            "view {name} counts {}/{} {}, which is lost: the archive cannot recompute it; a batch run leaves it out, then verify again",
            lost["topic"].as_str().unwrap_or_default(),
            lost["partition"],
            lost["range"]
        );
        return Err(Exit::Failed(why));
    }
    let until = Instant::now() + timeout;
    let ledger = loop {
        let ledger = journal.refresh().await?;
        let archived = ledger.origins.clone().max(&ledger.archived);
        let Some((at, have, want)) = archived.short_of(&frontier).next() else { break ledger };
        if Instant::now() >= until {
            let why =
                format!("{at} is archived up to {have}, the answer covers it up to {want}; is `collect` running?");
            return Err(Exit::Failed(format!("view {name}: the archive did not reach the answer in time: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let version = VersionId(served.coverage["version"].as_str().unwrap_or_default().to_string());
    let state = ledger.versions.get(&version);
    let state = state.ok_or_else(|| Exit::Failed(format!("the ledger knows no version {version} of view {name}")))?;
    let engine = &context.engine;
    let view = bifold_fold::view::compile_stored(engine, state.into()).await?;
    let kept_from = state.kept_from_us.filter(|_| view.retention_us.is_some());
    if served.coverage["kept_from"].as_str() != kept_from.map(bifold_serving::json::timestamp_text).as_deref() {
        return Ok(None);
    }
    if let Some(base) = &state.base {
        let left_out = ledger.parts_of(&base.holes, &ledger.origins, &base.boundary);
        if below(left_out.into_iter(), &base.boundary) != below(holes.iter().cloned(), &base.boundary) {
            let why = format!(
                "view {name} counts or leaves out what left the archive otherwise than the base view of it, because of a quarantine that \
                 was made or lifted: `bifold batch run --full --view {name}` makes it whole, then verify again"
            );
            return Err(Exit::Failed(why));
        }
    }
    let (batches, rounding) =
        match bifold_batch::verify::expected(engine, &view, journal.files(), &ledger, (&frontier, &holes), progress)
            .await
        {
            Ok(expected) => (expected.rows, expected.magnitude * NOTHING),
            Err(bifold_batch::Error::Store(error @ bifold_store::Error::Damaged { .. })) => {
                // A file that was replaced meanwhile is no damage.
                if let bifold_store::Error::Damaged { path, .. } = &error
                    && journal.is_superseded(path).await?
                {
                    return Ok(None);
                }
                return Err(Exit::Difference(format!("view {name}: {error}")));
            }
            Err(error) => return Err(error.into()),
        };
    let batches = view.rows_kept_from(batches, kept_from).map_err(Exit::failed)?;
    let mut expected = vec![];
    for batch in &batches {
        expected.extend(bifold_serving::json::rows(batch).map_err(Exit::failed)?);
    }
    let compared = compare(&view, &served.rows, &expected, rounding);
    let mut report = json!({
        "view": name,
        "version": version,
        "equal": compared.differing_count == 0,
        "groups": compared.groups,
        "differing": compared.differing_count,
        "max_relative_error": compared.max_relative_error,
        "coverage": served.coverage,
    });
    if let Some(base) = &state.base {
        report["base"] = ledger.origins.clone().max(&base.boundary).to_string().into();
    }
    let found = (compared.differing_count > 0).then(|| {
        let more = compared.differing_count - compared.differing.len();
        let more = if more > 0 { format!("\n  … and {more} more") } else { String::new() };
        format!(
            "view {name} differs in {} groups:\n  {}{more}",
            compared.differing_count,
            compared.differing.join("\n  ")
        )
    });
    Ok(Some((report, found)))
}

/// What of these holes lies below `cut`.
fn below(holes: impl Iterator<Item = Hole>, cut: &Offsets) -> BTreeSet<(TopicPartition, i64, i64)> {
    let clipped = holes.map(|hole| (hole.end.min(cut.or_zero(&hole.at)), hole));
    clipped.filter(|(end, hole)| hole.start < *end).map(|(end, hole)| (hole.at, hole.start, end)).collect()
}

/// Where an answer's coverage ends.
fn frontier_of(coverage: &Value) -> Result<Offsets, Exit> {
    let mut frontier = Offsets::default();
    for partition in coverage["partitions"].as_array().into_iter().flatten() {
        let number = partition["partition"].as_i64().and_then(|n| i32::try_from(n).ok());
        match (partition["topic"].as_str(), number, partition["speed"][1].as_i64()) {
            (Some(topic), Some(number), Some(end)) => frontier.advance(&TopicPartition::new(topic, number), end),
            _ => return Err(Exit::Failed("the answer's coverage cannot be read".to_string())),
        }
    }
    Ok(frontier)
}

/// What an answer leaves out.
fn holes_of(holes: &Value) -> Result<Vec<Hole>, Exit> {
    let one = |hole: &Value| {
        let number = hole["partition"].as_i64().and_then(|n| i32::try_from(n).ok());
        let range = (hole["range"][0].as_i64(), hole["range"][1].as_i64());
        match (hole["topic"].as_str(), number, range, hole["ledger"].as_u64()) {
            (Some(topic), Some(number), (Some(start), Some(end)), Some(change)) => {
                Ok(Hole { at: TopicPartition::new(topic, number), start, end, change })
            }
            _ => Err(Exit::Failed("the answer's holes cannot be read".to_string())),
        }
    };
    holes.as_array().into_iter().flatten().map(one).collect()
}

/// Compares rows by their keys; where the keys are not all shown, by everything that is exact.
/// Numbers that differ by less than `nothing` are equal.
fn compare(view: &View, served: &[Value], expected: &[Value], nothing: f64) -> Compared {
    let inexact: BTreeSet<&str> = view
        .output
        .fields()
        .iter()
        .filter(|f| {
            matches!(f.data_type(), DataType::Float64 | DataType::Float32) || view.approximate.contains(f.name())
        })
        .map(|f| f.name().as_str())
        .collect();
    let all_keys_shown = view.all_keys_shown;
    let key = |row: &Value| -> String {
        let columns = view.output.fields().iter().map(|field| field.name().as_str());
        let of_key = columns.filter(|name| match all_keys_shown {
            true => view.keys.iter().any(|key| key == name),
            false => !inexact.contains(name),
        });
        of_key.map(|name| format!("{name} = {}", row[name])).collect::<Vec<_>>().join(", ")
    };
    let mut groups: BTreeMap<String, (Vec<&Value>, Vec<&Value>)> = BTreeMap::new();
    for row in served {
        groups.entry(key(row)).or_default().0.push(row);
    }
    for row in expected {
        groups.entry(key(row)).or_default().1.push(row);
    }
    let largest = |name: &str| {
        let values = expected.iter().filter_map(|row| row[name].as_f64());
        values.map(f64::abs).fold(0.0, f64::max)
    };
    let scales: BTreeMap<&str, f64> = inexact.iter().map(|name| (*name, largest(name))).collect();
    let mut compared =
        Compared { groups: groups.len(), differing: vec![], differing_count: 0, max_relative_error: 0.0 };
    for (group, (served, expected)) in &mut groups {
        // Where keys are not shown, several rows look alike but for what is inexact.
        for rows in [&mut *served, &mut *expected] {
            rows.sort_by(|a, b| in_order(view, &inexact, a, b));
        }
        let mut wrong = vec![];
        if served.len() != expected.len() {
            wrong.push(format!("{} rows served, {} recomputed", served.len(), expected.len()));
        }
        for (a, b) in served.iter().zip(expected.iter()) {
            for field in view.output.fields() {
                let name = field.name().as_str();
                let tolerance =
                    if view.approximate.iter().any(|known| known == name) { SKETCH_ERROR } else { ROUNDING };
                let scale = scales.get(name).copied().unwrap_or(0.0);
                match difference(&a[name], &b[name], inexact.contains(name), tolerance, scale, nothing) {
                    Ok(error) => compared.max_relative_error = compared.max_relative_error.max(error),
                    Err(error) => {
                        compared.max_relative_error = compared.max_relative_error.max(error);
                        wrong.push(format!("{name} is {} served, {} recomputed", a[name], b[name]));
                    }
                }
            }
        }
        if !wrong.is_empty() {
            compared.differing_count += 1;
            if compared.differing.len() < NAMED_GROUPS {
                compared.differing.push(format!("({group}): {}", wrong.join("; ")));
            }
        }
    }
    compared
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// An order of rows that both sides have: by what is exact, then by what is nearly equal.
fn in_order(view: &View, inexact: &BTreeSet<&str>, a: &Value, b: &Value) -> Ordering {
    let names = || view.output.fields().iter().map(|field| field.name().as_str());
    let exact =
        names().filter(|name| !inexact.contains(name)).map(|name| a[name].to_string().cmp(&b[name].to_string()));
    let of = |row: &Value, name: &str| number(&row[name]).unwrap_or(f64::NEG_INFINITY);
    let nearly = names().filter(|name| inexact.contains(name)).map(|name| of(a, name).total_cmp(&of(b, name)));
    exact.chain(nearly).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

/// The relative error of two values: within what is allowed, or beyond it.
fn difference(a: &Value, b: &Value, inexact: bool, tolerance: f64, scale: f64, nothing: f64) -> Result<f64, f64> {
    if a == b {
        return Ok(0.0);
    }
    let (Some(x), Some(y)) = (number(a), number(b)) else { return Err(1.0) };
    let error = (x - y).abs() / x.abs().max(y.abs()).max(f64::MIN_POSITIVE);
    // A sum that nearly cancels is judged by the size of what was added, which the column's largest stands for.
    let allowed = error <= tolerance || (x - y).abs() <= (tolerance * 1e-3 * scale).max(nothing);
    if inexact && allowed { Ok(error) } else { Err(error) }
}

/// The log of an offline check: there is none.
#[derive(Debug)]
struct NoLog;

fn no_log() -> bifold_log::Error {
    bifold_log::Error::Unavailable { at: "offline".to_string(), why: "an offline check asks no log".to_string() }
}

#[async_trait::async_trait]
impl bifold_log::Log for NoLog {
    async fn describe(&self, _: &[String]) -> Result<BTreeMap<String, bifold_log::Topic>, bifold_log::Error> {
        Err(no_log())
    }

    async fn bounds(
        &self,
        _: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, bifold_log::Bounds>, bifold_log::Error> {
        Err(no_log())
    }

    async fn append(&self, _: &str, _: Vec<bifold_log::NewRecord>) -> Result<Offsets, bifold_log::Error> {
        Err(no_log())
    }

    async fn create_topic(&self, _: &str, _: i32) -> Result<(), bifold_log::Error> {
        Err(no_log())
    }

    fn reader(&self, _: bifold_log::ReaderOptions) -> Result<Box<dyn bifold_log::Reader>, bifold_log::Error> {
        Err(no_log())
    }

    fn join(&self, _: &str, _: &[String]) -> Result<Box<dyn bifold_log::Member>, bifold_log::Error> {
        Err(no_log())
    }
}
