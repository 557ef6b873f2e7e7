//! A writer that is wrong: it offers entries each of which breaks one rule. The journal refuses every one of them.

use std::sync::Arc;

use bifold_ledger::{
    ArchiveCounts, Body, ChangeKind, File, Ledger, Mode, Number, Offsets, PublishedVersion, Ranges, Span, VersionId,
    holes_of,
};

use super::speed::declared;
use super::{refused, topics};
use crate::clock::sleep_ms;
use crate::error::Error;
use crate::journal::Journal;
use crate::log::p;
use crate::world::World;

/// Offers wrong entries until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    let who = World::name(process);
    while !world.stopping(process) {
        sleep_ms(world.between(50, 500)).await;
        if let Err(error) = offer(&world, process, &who).await {
            world.judge(&who, &error);
        }
    }
}

async fn offer(world: &Arc<World>, process: usize, who: &str) -> Result<(), Error> {
    let mut journal = Journal::open(world.files(process), "intruder").await?;
    if !journal.ledger().exists() {
        return Ok(());
    }
    for _ in 0..4 {
        let ledger = journal.ledger();
        let drawn = if world.chance(500) { wrong(world, &ledger) } else { wrong_change(world, &ledger) };
        // Where the format has to be raised first, others may make it right meanwhile.
        let Some((what, body)) = drawn.filter(|(_, body)| body.needs_format() <= ledger.format) else { continue };
        match journal.append(body).await {
            Err(e) if refused(world, who, &e) => world.note(&format!("intruder: {what}")),
            Err(e) => return Err(e),
            Ok(done) => panic!("{who}: an entry that is wrong ({what}) is {done:?}"),
        }
    }
    Ok(())
}

fn file() -> File {
    File { path: "batch/none/00000000000000000001-none-0.parquet".into(), bytes: 1, crc32: 1, rows: 1, tail: None }
}

fn folded(at: i32, start: i64, end: i64, versions: Vec<VersionId>) -> Body {
    let ranges: Ranges = [(p(at), Span::new(start, end))].into_iter().collect();
    Body::Folded {
        ranges,
        versions,
        delta: file(),
        events: 1,
        newest_event_us: None,
        holes: vec![],
        duplicates: 0,
        seen: None,
    }
}

fn archived(at: i32, start: i64, end: i64) -> Body {
    let ranges: Ranges = [(p(at), Span::new(start, end))].into_iter().collect();
    let counts = ArchiveCounts::default();
    Body::Archived { ranges, rows: vec![file()], dead: vec![], counts, decoding: String::new() }
}

fn published(ledger: &Ledger, boundary: Offsets, versions: &[VersionId]) -> Body {
    let whole = ledger.origins.clone().max(&boundary);
    let lost = ledger.changes.iter().filter(|c| c.kind == ChangeKind::Lost && c.reaches_below(&whole));
    let holes: Vec<Number> = lost.map(|change| change.number).collect();
    let one = |version: &VersionId| (version.clone(), vec![file()], holes.clone());
    let versions = versions.iter().map(one).map(|(version, runs, holes)| PublishedVersion {
        version,
        runs,
        full: true,
        holes,
        ..PublishedVersion::default()
    });
    Body::Published { plan: ledger.number, boundary, versions: versions.collect() }
}

/// An entry that is wrong as the ledger stands, if there is one of the kind that was drawn.
fn wrong(world: &World, ledger: &Ledger) -> Option<(&'static str, Body)> {
    let at = world.below(world.log().partitions() as u64) as i32;
    let (frontier, archive) = (ledger.frontier(&p(at)), ledger.archived(&p(at)));
    let active = ledger.active();
    let effective = ledger.origins.clone().max(&ledger.effective());
    let safe = ledger.origins.clone().max(&ledger.boundary);
    let some = |all: Vec<&VersionId>| if all.is_empty() { None } else { Some(world.pick(&all).clone()) };
    let versions = || ledger.versions.iter().filter(|(_, version)| version.active);
    Some(match world.below(20) {
        0 => {
            let origins = Offsets::default();
            ("created twice", Body::Created { format: 1, source: "s".into(), topics: topics(), origins })
        }
        1 => ("a newer format", Body::Format { format: 99 }),
        2 => ("an older format", Body::Format { format: 0 }),
        3 => ("folded with a gap", folded(at, frontier + 1, frontier + 2, active)),
        4 if frontier > ledger.origin(&p(at)) => ("folded twice", folded(at, frontier - 1, frontier + 1, active)),
        5 => ("folded, empty", folded(at, frontier, frontier, active)),
        6 if !active.is_empty() => {
            ("folded without a version", folded(at, frontier, frontier + 1, active[1..].to_vec()))
        }
        7 => ("archived with a gap", archived(at, archive + 1, archive + 2)),
        8 if archive > ledger.origin(&p(at)) => ("archived twice", archived(at, archive - 1, archive + 1)),
        9 => {
            let version = some(versions().map(|(id, _)| id).collect())?;
            ("declared twice", declared(&ledger.versions[&version].view, &version))
        }
        10 => ("selected, unknown", Body::Selected { version: "zz".into() }),
        11 => {
            let version = some(ledger.building().map(|(id, _)| id).collect())?;
            ("selected while building", Body::Selected { version })
        }
        12 => {
            let served = versions().filter(|(id, v)| ledger.served(&v.view) == Some(id));
            let others = |v: &bifold_ledger::VersionState| versions().filter(|(_, o)| o.view == v.view).count() > 1;
            let version = some(served.filter(|(_, v)| others(v)).map(|(id, _)| id).collect())?;
            ("retired while served", Body::Retired { versions: vec![version] })
        }
        13 if !active.is_empty() => {
            let mut boundary = effective;
            boundary.advance(&p(at), archive.max(frontier) + 1);
            ("published beyond the archive", published(ledger, boundary, &active))
        }
        14 => {
            // A cut through a unit, which is archived.
            let archived_whole = |unit: &&bifold_ledger::Unit| {
                unit.ranges.iter().all(|(at, span)| ledger.archived(at) >= span.end) && unit.ranges.positions() > 1
            };
            let unit = ledger.units.iter().filter(|unit| unit.ranges.above(&safe)).find(archived_whole)?;
            let (at, span) = unit.ranges.iter().next()?;
            let mut boundary = safe;
            boundary.advance(at, span.start + 1);
            if unit.ranges.0.len() == 1 && span.end == span.start + 1 {
                return None;
            }
            ("published through an epoch", published(ledger, boundary, &active))
        }
        15 => {
            let ahead = versions().filter(|(_, v)| v.boundary.as_ref().is_some_and(|b| !ledger.origins.reaches(b)));
            let version = some(ahead.map(|(id, _)| id).collect())?;
            ("published backwards", published(ledger, ledger.origins.clone(), &[version]))
        }
        16 => {
            let building = ledger.building().filter(|(_, v)| !safe.reaches(&v.declared_at));
            let version = some(building.map(|(id, _)| id).collect())?;
            ("first published too low", published(ledger, safe, &[version]))
        }
        17 if active.len() > 1 => {
            // As a batch run would leap, for one version alone.
            let boundary = ledger.next_boundary(0);
            if boundary.iter().all(|(at, next)| next <= ledger.frontier(at)) {
                return None;
            }
            ("a leap of one version", published(ledger, boundary, &active[..1]))
        }
        18 => {
            // A plan from before the newest publication.
            let version = some(versions().filter(|(_, v)| v.published.is_some()).map(|(id, _)| id).collect())?;
            let plan = ledger.versions[&version].published? - 1;
            let Body::Published { boundary, versions, .. } = published(ledger, safe, &[version]) else { return None };
            ("published after it was overtaken", Body::Published { plan, boundary, versions })
        }
        19 => {
            let plan = ledger.plan_batch(&active, safe.clone(), true);
            let version = plan.versions.iter().find(|version| version.mode == Mode::Full)?.version.clone();
            let twice = [version.clone(), version];
            match world.below(3) {
                0 => ("published twice in one", published(ledger, safe, &twice)),
                1 => ("published, nothing", published(ledger, safe, &[])),
                _ => {
                    let Body::Published { boundary, versions, .. } = published(ledger, safe, &twice[..1]) else {
                        return None;
                    };
                    ("a plan of the future", Body::Published { plan: ledger.number + 1, boundary, versions })
                }
            }
        }
        _ => return None,
    })
}

/// The same of what is left out, and of what becomes one.
fn wrong_change(world: &World, ledger: &Ledger) -> Option<(&'static str, Body)> {
    let at = p(world.below(world.log().partitions() as u64) as i32);
    let range = |start: i64, end: i64| -> Ranges { [(at.clone(), Span::new(start, end))].into_iter().collect() };
    let lost = |ranges: Ranges| Body::Lost { ranges, reason: "wrong".into() };
    let (origin, archived) = (ledger.origin(&at), ledger.archived(&at));
    Some(match world.below(12) {
        0 => ("lost, nothing", lost(range(archived, archived))),
        1 if archived > origin => ("lost, though archived", lost(range(archived - 1, archived + 2))),
        2 => {
            let lost_before = ledger.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
            let above = |ranges: &&Ranges| ranges.iter().all(|(at, span)| span.start >= ledger.archived(at));
            ("lost twice", lost(lost_before.map(|change| &change.ranges).find(above)?.clone()))
        }
        3 => ("quarantined, nothing", Body::Quarantined { ranges: Ranges::default(), reason: "wrong".into() }),
        4 => {
            let change = ledger.changes.iter().find(|change| change.lifted.is_none())?;
            ("quarantined twice", Body::Quarantined { ranges: change.ranges.clone(), reason: "wrong".into() })
        }
        5 => {
            let none = |change: &&bifold_ledger::Change| change.kind == ChangeKind::Lost || change.lifted.is_some();
            let quarantine = ledger.changes.iter().find(none).map_or(1, |change| change.number);
            ("lifted, though not in force", Body::Lifted { quarantine, reason: "wrong".into() })
        }
        6 | 11 => {
            let active = ledger.active();
            let boundary = ledger.origins.clone().max(&ledger.boundary);
            let Body::Published { plan, boundary, mut versions } = published(ledger, boundary, &active) else {
                return None;
            };
            let first = versions.first_mut()?;
            let what = match first.holes.pop() {
                Some(_) => "published with what is lost",
                None => {
                    first.holes.push(1);
                    "published with a hole that nothing made"
                }
            };
            (what, Body::Published { plan, boundary, versions })
        }
        7 | 8 => wrong_compaction(world, ledger)?,
        _ => wrong_archive_compaction(world, ledger)?,
    })
}

fn wrong_compaction(world: &World, ledger: &Ledger) -> Option<(&'static str, Body)> {
    let body = |units: &[&bifold_ledger::Unit]| Body::Compacted {
        replaces: units.iter().map(|unit| unit.number).collect(),
        ranges: Ranges::joined(units.iter().map(|unit| &unit.ranges)),
        versions: units.first().map(|unit| unit.versions.clone()).unwrap_or_default(),
        delta: file(),
        holes: holes_of(units.iter().copied()),
    };
    let units: Vec<_> = ledger.units.iter().collect();
    let cuts = || ledger.versions.values().filter(|v| v.active).map(|v| v.boundary.as_ref().unwrap_or(&v.declared_at));
    let cut = |pair: &&[&bifold_ledger::Unit]| {
        let ranges = Ranges::joined(pair.iter().map(|unit| &unit.ranges));
        cuts().chain([&ledger.boundary]).any(|cut| !ranges.below(cut) && !ranges.above(cut))
    };
    if let Some(pair) = units.windows(2).find(cut) {
        return Some(("compacted over a boundary", body(pair)));
    }
    if units.len() < 2 {
        return Some(("compacted, nothing", body(&[])));
    }
    let first = world.below(units.len() as u64 - 1) as usize;
    let pair = [units[first], units[first + 1]];
    let Body::Compacted { mut replaces, mut ranges, mut versions, delta, mut holes } = body(&pair) else { return None };
    let what = match world.below(5) {
        0 => {
            replaces[1] = 1;
            "compacted, what is not there"
        }
        1 => {
            replaces.reverse();
            "compacted in another order"
        }
        2 => {
            ranges.0.values_mut().next()?.end += 1;
            "compacted to other positions"
        }
        3 => {
            holes.push(1);
            "compacted with other holes"
        }
        _ => {
            let lost = versions.iter().position(|id| ledger.versions[id].active)?;
            versions.remove(lost);
            "compacted without a version"
        }
    };
    Some((what, Body::Compacted { replaces, ranges, versions, delta, holes }))
}

fn wrong_archive_compaction(world: &World, ledger: &Ledger) -> Option<(&'static str, Body)> {
    let units = &ledger.archive;
    let body = |replaces: Vec<Number>, ranges: Ranges| {
        let (rows, dead) = (vec![file()], vec![]);
        Body::CompactedArchive { replaces, ranges, rows, dead }
    };
    if units.len() < 2 {
        return Some(("an archive compacted, nothing", body(vec![], Ranges::default())));
    }
    let other = |pair: &&[bifold_ledger::ArchiveUnit]| pair[0].decoding != pair[1].decoding;
    let pair = match units.windows(2).find(other) {
        Some(pair) if world.chance(300) => {
            let replaces = pair.iter().map(|unit| unit.number).collect();
            let ranges = Ranges::joined(pair.iter().map(|unit| &unit.ranges));
            return Some(("an archive compacted of two decodings", body(replaces, ranges)));
        }
        _ => units.windows(2).find(|pair| !other(pair))?,
    };
    let mut replaces: Vec<Number> = pair.iter().map(|unit| unit.number).collect();
    let mut ranges = Ranges::joined(pair.iter().map(|unit| &unit.ranges));
    let what = match world.below(3) {
        0 => {
            replaces[0] = 1;
            "an archive compacted, what is not there"
        }
        1 => {
            replaces.reverse();
            "an archive compacted in another order"
        }
        _ => {
            ranges.0.values_mut().next()?.end += 1;
            "an archive compacted to other positions"
        }
    };
    Some((what, body(replaces, ranges)))
}
