//! Keeping a source small: the model of batch/src/maintain.rs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bifold_ledger::{ArchiveSizes, ArchiveUnit, Body, File, Ledger, Offsets, Ranges, Unit, holes_of};
use object_store::path::Path;

use super::{appended, nonce, refused};
use crate::clock::{now_ms, sleep_ms};
use crate::content::{Content, Counted, add};
use crate::error::{Error, Kind};
use crate::files::SourceFiles;
use crate::journal::{Appended, Journal};
use crate::world::{GRACE_MS, World};

const LOOK_EVERY_MS: u64 = 300;
/// Bytes that become one file.
const MOST_BYTES: u64 = 12_000;
const SIZES: ArchiveSizes = ArchiveSizes { small: 60, rows: 150, bytes: MOST_BYTES };
/// How long a batch run may take for its plan to be minded.
const LONGEST_RUN_MS: u64 = 8_000;

/// Files that nothing needs, and since when that is known.
type Orphans = BTreeMap<String, u64>;

/// Keeps the source small until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    let mut maintain = Maintain { who: World::name(process), world, process, under_way: BTreeMap::new() };
    let world = Arc::clone(&maintain.world);
    let (mut journal, mut orphans) = (None, Orphans::new());
    let sweep_every_ms = GRACE_MS / 4;
    let mut next_sweep = now_ms() + sweep_every_ms;
    while !world.stopping(process) {
        sleep_ms(LOOK_EVERY_MS).await;
        let sweep = now_ms() >= next_sweep;
        if let Err(error) = maintain.once(&mut journal, sweep.then_some(&mut orphans)).await {
            world.judge(&maintain.who, &error);
            journal = None;
        }
        if sweep {
            next_sweep = now_ms() + sweep_every_ms;
        }
    }
}

struct Maintain {
    world: Arc<World>,
    process: usize,
    who: String,
    /// The plans of batch runs, and since when they are known.
    under_way: BTreeMap<Path, u64>,
}

impl Maintain {
    async fn plans(&mut self, files: &SourceFiles) -> Result<Vec<Offsets>, Error> {
        let mut plans = vec![];
        let found = files.notes(&files.layout.batch_plans()).await?;
        self.under_way.retain(|path, _| found.contains(path));
        for path in found {
            if now_ms() - *self.under_way.entry(path.clone()).or_insert_with(now_ms) >= LONGEST_RUN_MS {
                self.world.note("maintain: the plan of a run that was killed is forgotten");
                files.forget_note(&path).await?;
            } else if let Some(bytes) = files.note(&path).await? {
                plans.extend(serde_json::from_slice::<Offsets>(&bytes).ok());
            }
        }
        Ok(plans)
    }

    async fn once(&mut self, journal: &mut Option<Journal>, sweep: Option<&mut Orphans>) -> Result<(), Error> {
        let world = Arc::clone(&self.world);
        let journal = match journal {
            Some(journal) => journal,
            none => none.insert(Journal::open_to_write(world.files(self.process), "maintain").await?),
        };
        let ledger = journal.refresh().await?;
        if !ledger.exists() {
            return Ok(());
        }
        world.audit().same(&self.who, &ledger);
        // Each by itself: one that cannot succeed must not keep the others from their work.
        let mut failed = Ok(());
        let deltas = world.scenario.compact_deltas;
        if let Some(free) = ledger.compactable(deltas, MOST_BYTES, &[]) {
            let plans = self.plans(journal.files()).await?;
            let minding = ledger.compactable(deltas, MOST_BYTES, &plans);
            if minding != Some(free) {
                world.note("maintain: the plan of a batch run is minded");
            }
            if let Some(units) = minding {
                failed = self.compact(journal, &ledger, units).await;
            }
        }
        let ledger = journal.ledger();
        if let Some(units) = ledger.compactable_archive(world.scenario.compact_archive, SIZES) {
            failed = self.compact_archive(journal, &ledger, units).await.and(failed);
        }
        if let Some(orphans) = sweep {
            let ledger = journal.refresh().await?;
            failed = self.sweep(journal.files(), &ledger, orphans).await.and(failed);
        }
        failed
    }

    /// Replaces epochs by one.
    async fn compact(&self, journal: &mut Journal, ledger: &Ledger, units: &[Unit]) -> Result<(), Error> {
        let world = &self.world;
        let started = now_ms();
        let versions: Vec<_> = ledger.active().into_iter().filter(|id| units[0].versions.contains(id)).collect();
        let mut sections: BTreeMap<String, Counted> =
            versions.iter().map(|version| (version.0.clone(), Counted::new())).collect();
        let files = journal.files().clone();
        for unit in units {
            let content = Content::read(&files.get(&unit.delta).await?);
            sections.iter_mut().for_each(|(id, counted)| add(counted, &content.section(id)));
        }
        let ranges = Ranges::joined(units.iter().map(|unit| &unit.ranges));
        let path = files.layout.delta(ledger.number + 1, &nonce(world), &ranges);
        let file = files.put(path, Content(sections).write(), 1).await?;
        let holes = holes_of(units);
        if !holes.is_empty() {
            world.note("maintain: epochs that pass over what is lost are compacted");
        }
        let replaces = units.iter().map(|unit| unit.number).collect();
        self.put(journal, Body::Compacted { replaces, ranges, versions, delta: file, holes }, started).await
    }

    /// Replaces archive files by bigger ones of the same rows.
    async fn compact_archive(
        &self,
        journal: &mut Journal,
        ledger: &Ledger,
        units: &[ArchiveUnit],
    ) -> Result<(), Error> {
        let started = now_ms();
        let ranges = Ranges::joined(units.iter().map(|unit| &unit.ranges));
        let (nonce, number, files) = (nonce(&self.world), ledger.number + 1, journal.files().clone());
        let rows: Vec<&File> = units.iter().flat_map(|unit| &unit.rows).collect();
        let rows = merged(&files, &rows, "rows", files.layout.archive(number, &nonce, &ranges)).await?;
        let dead: Vec<&File> = units.iter().flat_map(|unit| &unit.dead).collect();
        let dead = merged(&files, &dead, "dead", files.layout.dead_letters(number, &nonce, &ranges)).await?;
        let replaces = units.iter().map(|unit| unit.number).collect();
        self.put(journal, Body::CompactedArchive { replaces, ranges, rows, dead }, started).await
    }

    /// Puts a replacement, unless somebody else was faster or it took so long that its files may be gone.
    async fn put(&self, journal: &mut Journal, body: Body, started: u64) -> Result<(), Error> {
        let world = &self.world;
        loop {
            if now_ms() - started >= GRACE_MS / 2 {
                world.note("maintain: a replacement that took too long is given up");
                return Ok(());
            }
            match journal.append(body.clone()).await {
                Ok(done) => {
                    appended(world, self.process, done);
                    if done != Appended::Lost {
                        return Ok(());
                    }
                }
                Err(e) if refused(world, &self.who, &e) => return Ok(()),
                Err(e) => {
                    if e.kind() == Kind::Unavailable {
                        world.note("append: unknown");
                    }
                    return Err(e);
                }
            }
        }
    }

    /// Deletes what nothing has needed for the grace time.
    async fn sweep(&self, files: &SourceFiles, ledger: &Ledger, orphans: &mut Orphans) -> Result<(), Error> {
        let mut found: BTreeSet<String> = files.files().await?.into_iter().collect();
        found.retain(|path| ledger.is_orphan(path));
        orphans.retain(|path, _| found.contains(path));
        for path in found {
            let since = *orphans.entry(path.clone()).or_insert_with(now_ms);
            if now_ms() - since >= GRACE_MS {
                files.delete(&path).await?;
                orphans.remove(&path);
            }
        }
        Ok(())
    }
}

/// One file of what several hold; none if that is nothing.
async fn merged(files: &SourceFiles, parts: &[&File], section: &str, path: String) -> Result<Vec<File>, Error> {
    let mut all = Counted::new();
    for file in parts {
        add(&mut all, &Content::read(&files.get(file).await?).section(section));
    }
    if all.is_empty() {
        return Ok(vec![]);
    }
    let rows = parts.iter().map(|file| file.rows).sum();
    Ok(vec![files.put(path, Content::of(section, all).write(), rows).await?])
}
