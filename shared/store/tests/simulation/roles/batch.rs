//! Recomputing: the model of batch/src/recompute.rs.

use std::sync::Arc;

use bifold_ledger::{ArchiveUnit, BatchPlan, Body, File, Ledger, Mode, Offsets, PublishedVersion, VersionPlan};
use object_store::{ObjectStoreExt, PutPayload};

use super::{appended, nonce, refused};
use crate::clock::sleep_ms;
use crate::content::{Content, Counted, add};
use crate::error::{Error, Kind};
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
        let calm = world.calm.load(std::sync::atomic::Ordering::Relaxed);
        let full = !calm && world.chance(200);
        let views: Vec<&str> = if !calm && world.chance(300) { vec![world.pick(&VIEWS)] } else { VIEWS.to_vec() };
        // At rest somebody bridges what the log dropped and the archive has.
        let leap = if calm { 0 } else { world.scenario.leap };
        for _ in 0..TRIES {
            let ledger = journal.refresh().await?;
            world.audit().same(&self.who, &ledger);
            let boundary = ledger.next_boundary(leap);
            self.note_traces(&ledger, &boundary);
            let wanted = ledger.versions.iter().filter(|(_, v)| v.active && views.contains(&v.view.as_str()));
            let wanted: Vec<_> = wanted.map(|(id, _)| id.clone()).collect();
            let plan = ledger.plan_batch(&wanted, boundary, full);
            if self.execute(&mut journal, &ledger, plan).await? {
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
        for (unit, inside) in units(ledger, &plan.from, boundary) {
            for file in &unit.rows {
                let rows = Content::read(&files.get(file).await?).section("rows");
                let part = |at: &(i32, i64)| {
                    inside || (at.1 >= plan.from.or_zero(&p(at.0)) && at.1 < boundary.or_zero(&p(at.0)))
                };
                add(&mut states, &rows.into_iter().filter(|(at, _)| part(at)).collect());
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
        Ok(File { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes), rows: 1, path })
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

/// The units of the archive that reach into `[from, to)`, and whether each lies in it whole.
fn units<'a>(ledger: &'a Ledger, from: &Offsets, to: &Offsets) -> Vec<(&'a ArchiveUnit, bool)> {
    let touches = |unit: &&ArchiveUnit| {
        unit.ranges.iter().any(|(at, span)| span.start < to.or_zero(at) && span.end > from.or_zero(at))
    };
    let inside = |unit: &ArchiveUnit| unit.ranges.below(to) && unit.ranges.above(from);
    ledger.archive.iter().filter(touches).map(|unit| (unit, inside(unit))).collect()
}
