//! Recomputing: the model of batch/src/recompute.rs.

use std::sync::Arc;

use bifold_ledger::{BatchPlan, Body, File, Ledger, Mode, Offsets, Part, PublishedVersion, VersionPlan};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::{appended, nonce, refused};
use crate::clock::sleep_ms;
use crate::content::{Content, Counted, add};
use crate::error::{Error, Kind};
use crate::files::SourceFiles;
use crate::journal::{Appended, Journal};
use crate::log::p;
use crate::world::{VIEWS, World};

const MOST_RUNS: usize = 3;
const TRIES: u32 = 5;
const KEPT_VERSIONS: usize = 1;

/// Runs now and then until it is asked to end.
pub(crate) async fn run(world: Arc<World>, process: usize) {
    let who = World::name(process);
    let recompute = Recompute { world, process, who };
    while !recompute.world.stopping(process) {
        let world = &recompute.world;
        sleep_ms(world.between(100, 900)).await;
        if let Err(error) = recompute.attempt().await {
            world.judge(&recompute.who, &error);
        }
    }
}

struct Recompute {
    world: Arc<World>,
    process: usize,
    who: String,
}

impl Recompute {
    async fn attempt(&self) -> Result<(), Error> {
        let world = &self.world;
        let mut journal = Journal::open_to_write(world.files(self.process), "batch").await?;
        if !journal.ledger().exists() {
            return Ok(());
        }
        let calm = world.is_calm();
        let full = !calm && world.chance(200);
        let views: Vec<&str> = if !calm && world.chance(300) { vec![world.pick(&VIEWS)] } else { VIEWS.to_vec() };
        for _ in 0..TRIES {
            let ledger = journal.refresh().await?;
            world.audit().same(&self.who, &ledger);
            let boundary = ledger.next_boundary(world.scenario.leap);
            self.note_traces(&ledger, &boundary);
            let wanted = ledger.versions.iter().filter(|(_, v)| v.active && views.contains(&v.view.as_str()));
            let wanted: Vec<_> = wanted.map(|(id, _)| id.clone()).collect();
            let plan = ledger.plan_batch(&wanted, boundary, full);
            let plan = self.mended(journal.files(), &ledger, plan).await?;
            let hint = self.tell_plan(journal.files(), &plan).await;
            let done = self.execute(&mut journal, &ledger, plan).await;
            if let Err(error) = journal.files().forget_note(&hint).await {
                world.say(&self.who, || error.to_string());
            }
            if done? {
                return self.retire_old_versions(&mut journal).await;
            }
            world.note("batch: overtaken, it starts over");
        }
        Ok(())
    }

    fn note_traces(&self, ledger: &Ledger, boundary: &Offsets) {
        let world = &self.world;
        let held = |unit: &bifold_ledger::Unit| {
            unit.ranges.iter().filter(|(at, span)| ledger.archived(at) >= span.end).count()
        };
        let next = ledger.units.iter().find(|unit| !unit.ranges.below(boundary));
        if let Some(unit) = next.filter(|unit| held(unit) < unit.ranges.0.len()) {
            let cut = unit.ranges.iter().any(|(at, span)| (span.start + 1..span.end).contains(&ledger.archived(at)));
            if cut {
                world.note("trace: the archive ends inside an epoch");
            }
            if held(unit) > 0 {
                world.note("trace: an epoch is archived in one partition and not in another");
            }
        }
    }

    /// The plan, with a full run for every version of whose batch view a file is missing or cut short.
    async fn mended(&self, files: &SourceFiles, ledger: &Ledger, mut plan: BatchPlan) -> Result<BatchPlan, Error> {
        for version in plan.versions.iter_mut().filter(|version| version.mode != Mode::Full) {
            for run in &version.keep {
                match files.check_length(run).await {
                    Ok(()) => continue,
                    Err(error) if error.kind() == Kind::Damaged => {
                        self.world.note("batch: a damaged view is built anew")
                    }
                    Err(error) => return Err(error),
                }
                let id = version.version.clone();
                let anew = ledger.plan_batch(std::slice::from_ref(&id), plan.boundary.clone(), true).versions;
                *version = anew.into_iter().find(|anew| anew.version == id).expect("it was in the plan");
                break;
            }
        }
        Ok(plan)
    }

    /// Tells compaction up to where this run builds.
    async fn tell_plan(&self, files: &SourceFiles, plan: &BatchPlan) -> Path {
        let path = files.layout.batch_plans().join(format!("{}.json", nonce(&self.world)));
        if plan.versions.iter().any(|version| version.mode != Mode::None) {
            let bytes = serde_json::to_vec(&plan.boundary).expect("offsets are JSON");
            if let Err(error) = files.put_note(&path, bytes.into()).await {
                self.world.say(&self.who, || error.to_string());
            }
        }
        path
    }

    /// Builds and publishes a plan. False if the ledger refused it.
    async fn execute(&self, journal: &mut Journal, ledger: &Ledger, plan: BatchPlan) -> Result<bool, Error> {
        let world = &self.world;
        let mut published = vec![];
        for version in plan.versions.iter().filter(|version| version.mode != Mode::None) {
            world.note(&format!("batch: {:?}", version.mode));
            let runs = self.build(journal, ledger, version, &plan.boundary).await?;
            let full = version.mode == Mode::Full;
            published.push(PublishedVersion {
                version: version.version.clone(),
                runs,
                full,
                holes: version.holes.clone(),
                ..PublishedVersion::default()
            });
        }
        if published.is_empty() {
            return Ok(true);
        }
        let leaps = plan.boundary.iter().any(|(at, next)| next > ledger.frontier(at));
        let body = Body::Published { plan: plan.plan, boundary: plan.boundary.clone(), versions: published };
        assert_eq!(ledger.check(plan.plan + 1, &body), Ok(()), "{}: what is planned may be published", self.who);
        loop {
            match journal.append(body.clone()).await {
                Ok(done) => {
                    appended(world, self.process, done);
                    if done != Appended::Lost {
                        break;
                    }
                }
                Err(e) if refused(world, &self.who, &e) => return Ok(false),
                Err(e) => {
                    if e.kind() == Kind::Unavailable {
                        world.note("append: unknown");
                    }
                    return Err(e);
                }
            }
        }
        if leaps {
            world.note("batch: a leap");
        }
        Ok(true)
    }

    /// Builds the batch view of one version.
    async fn build(
        &self,
        journal: &Journal,
        ledger: &Ledger,
        plan: &VersionPlan,
        boundary: &Offsets,
    ) -> Result<Vec<File>, Error> {
        let (world, files) = (&self.world, journal.files());
        sleep_ms(world.pick(&[0, 20, 200, 900])).await;
        let id = &plan.version.0;
        let mut states = Counted::new();
        let without = ledger.parts_of(&plan.holes, &plan.from, boundary);
        if !without.is_empty() {
            world.note("batch: something is left out");
        }
        let part = Part { from: plan.from.clone(), to: boundary.clone(), without };
        for (unit, inside) in part.units(ledger) {
            for file in &unit.rows {
                let rows = Content::read(&files.get(file).await?).section("rows");
                add(&mut states, &rows.into_iter().filter(|(at, _)| inside || part.holds(&p(at.0), at.1)).collect());
            }
        }
        let mut keep = plan.keep.clone();
        if keep.len() >= MOST_RUNS {
            world.note("batch: runs are merged");
            for run in keep.drain(..) {
                add(&mut states, &Content::read(&files.get(&run).await?).section(id));
            }
        }
        if !states.is_empty() {
            let path = files.layout.run(&plan.version, ledger.number + 1, &nonce(world), keep.len());
            keep.push(self.upload(journal, path, Content::of(id, states)).await?);
        }
        Ok(keep)
    }

    /// A run goes up in one piece or in parts.
    async fn upload(&self, journal: &Journal, path: String, content: Content) -> Result<File, Error> {
        let files = journal.files();
        let bytes = content.write();
        if self.world.chance(500) {
            return files.put(path, bytes, 1).await;
        }
        let object = files.layout.object(&path);
        let failed = |source| Error::Unavailable { action: "write", path: object.to_string(), source };
        let mut upload = files.store.put_multipart(&object).await.map_err(failed)?;
        for part in bytes.chunks(bytes.len().div_ceil(3)) {
            upload.put_part(PutPayload::from(part.to_vec())).await.map_err(failed)?;
        }
        upload.complete().await.map_err(failed)?;
        Ok(File { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes), rows: 1, tail: None, path })
    }

    async fn retire_old_versions(&self, journal: &mut Journal) -> Result<(), Error> {
        let ledger = journal.refresh().await?;
        for view in VIEWS {
            let versions = ledger.retirable(view, KEPT_VERSIONS);
            if versions.is_empty() {
                continue;
            }
            match journal.append(Body::Retired { versions }).await {
                Ok(done) => {
                    appended(&self.world, self.process, done);
                    self.world.note("batch: old versions are retired");
                }
                Err(e) if refused(&self.world, &self.who, &e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
