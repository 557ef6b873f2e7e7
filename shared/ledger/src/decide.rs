//! What may be done next, decided from a [`Ledger`] alone.

use serde::{Deserialize, Serialize};

use crate::change::{Change, ChangeKind, Hole, parts};
use crate::entry::File;
use crate::ledger::{Ledger, VersionState};
use crate::names::{Number, VersionId};
use crate::offsets::{Offsets, TopicPartition};

/// How a batch view is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// From all archived rows below the boundary.
    Full,
    /// From the runs there are and the rows between the old boundary and the new.
    Incremental,
    /// There is nothing to do.
    None,
}

/// What a batch run does.
#[derive(Clone, PartialEq, Debug)]
pub struct BatchPlan {
    /// The ledger number it was planned on.
    pub plan: Number,
    /// The boundary it builds up to.
    pub boundary: Offsets,
    /// What it does for each version.
    pub versions: Vec<VersionPlan>,
}

/// What a batch run does for one version.
#[derive(Clone, PartialEq, Debug)]
pub struct VersionPlan {
    /// The version.
    pub version: VersionId,
    /// The view's name.
    pub view: String,
    /// How.
    pub mode: Mode,
    /// From where rows are read.
    pub from: Offsets,
    /// The runs that are kept.
    pub keep: Vec<File>,
    /// The `lost` and `quarantined` entries whose positions the batch view leaves out.
    pub holes: Vec<Number>,
}

/// What is to leave the archive, and the base views to be built before.
#[derive(Clone, PartialEq, Debug)]
pub struct ExpiryPlan {
    /// The ledger number it was planned on.
    pub plan: Number,
    /// Up to where the archive's past goes.
    pub below: Offsets,
    /// One base view for each active version: where it reaches to, how far its deduplication looks back, and of what it is built.
    pub bases: Vec<(Offsets, i64, VersionPlan)>,
}

/// An entry on the way to a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toward {
    /// `declared`: it is not folded.
    Declare,
    /// `selected`: it is complete, and another was chosen after it.
    Select,
    /// `retired`: it is building, and another was chosen after it. It is declared again then.
    Retire,
}

impl Ledger {
    /// The newest vector that a batch run may choose as boundary: the longest prefix of folded units that the archive
    /// wholly covers (every such prefix is a cut). Where the archive is more than `leap` offsets ahead of the fold in
    /// one partition, it is the archive's own frontier, if that is a cut which every building version can start from.
    pub fn next_boundary(&self, leap: i64) -> Offsets {
        let archived = self.origins.clone().max(&self.archived);
        let far_ahead = archived.iter().any(|(at, next)| next - self.frontier(at) > leap);
        let is_cut = || self.units.iter().all(|unit| unit.ranges.below(&archived) || unit.ranges.above(&archived));
        if far_ahead
            && is_cut()
            && self.judged_with(&archived).is_none()
            && self.building().all(|(_, version)| archived.reaches(&version.declared_at))
        {
            return archived;
        }
        let mut boundary = self.origins.clone().max(&self.boundary);
        let mut longest = boundary.clone();
        for unit in &self.units {
            if unit.ranges.iter().any(|(at, span)| span.end > self.archived(at)) {
                break;
            }
            longest.advance_by(&unit.ranges);
            if self.judged_with(&longest).is_none() {
                boundary.clone_from(&longest);
            }
        }
        boundary
    }

    /// What a batch run for `wanted` versions does up to `boundary`. A version that already stands there is left
    /// alone unless `full` is asked for; a leap takes all active versions along (rule 12).
    pub fn plan_batch(&self, wanted: &[VersionId], boundary: Offsets, full: bool) -> BatchPlan {
        let leaps = boundary.iter().any(|(at, next)| next > self.frontier(at));
        let versions = self
            .versions
            .iter()
            .filter(|(id, v)| v.active && (leaps || wanted.contains(id)))
            .map(|(id, version)| self.plan_version(id, version, &boundary, full))
            .collect();
        BatchPlan { plan: self.number, boundary, versions }
    }

    fn plan_version(&self, id: &VersionId, version: &VersionState, boundary: &Offsets, full: bool) -> VersionPlan {
        let nothing = boundary == &self.origins && version.published.is_none();
        let (mode, from, keep) = match &version.boundary {
            _ if nothing => (Mode::None, boundary.clone(), vec![]),
            None if !boundary.reaches(&version.declared_at) => (Mode::None, boundary.clone(), vec![]),
            Some(before) if !full && before.reaches(boundary) => (Mode::None, before.clone(), version.runs.clone()),
            Some(before) if !full && version.published.is_some() => {
                (Mode::Incremental, before.clone(), version.runs.clone())
            }
            // What left the archive stands in the base view alone.
            _ => match &version.base {
                Some(base) => (Mode::Full, self.origins.clone().max(&base.boundary), base.runs.clone()),
                None => (Mode::Full, self.origins.clone(), vec![]),
            },
        };
        let holes = self.holes_of(version, mode, &from, boundary);
        VersionPlan { version: id.clone(), view: version.view.clone(), mode, from, keep, holes }
    }

    /// What a batch view leaves out (rule 21): everything lost; the quarantines in force that end at or below its boundary. An
    /// incremental run goes on leaving out what its base did, and leaves pending what reaches below where it starts.
    fn holes_of(&self, version: &VersionState, mode: Mode, from: &Offsets, boundary: &Offsets) -> Vec<Number> {
        let mut holes = match (mode, &version.base) {
            (Mode::Full, None) => vec![],
            (Mode::Full, Some(base)) => base.holes.clone(),
            (Mode::Incremental | Mode::None, _) => version.holes.clone(),
        };
        if mode == Mode::None {
            return holes;
        }
        for change in &self.changes {
            let left_out = match change.kind {
                ChangeKind::Lost => change.reaches_below(boundary),
                ChangeKind::Quarantined => change.lifted.is_none() && change.ranges.below(boundary),
                ChangeKind::Expired => mode == Mode::Full && version.base.is_none(),
            };
            if left_out && (mode == Mode::Full || change.ranges.above(from)) && !holes.contains(&change.number) {
                holes.push(change.number);
            }
        }
        holes
    }

    /// What may leave the archive of what lies below `wish`: nothing above a boundary, nothing while a version is building, nothing
    /// that a quarantine's middle would be left of (rule 27). `lookback` says how far a version's deduplication looks back.
    pub fn expirable(&self, wish: &Offsets, lookback: impl Fn(&VersionId) -> i64) -> Option<ExpiryPlan> {
        let active: Vec<_> = self.versions.iter().filter(|(_, version)| version.active).collect();
        if active.is_empty() || self.building().next().is_some() {
            return None;
        }
        let mut below: Offsets = wish.iter().map(|(at, next)| (at.clone(), next)).collect();
        for (id, version) in &active {
            let boundary = version.boundary.as_ref()?;
            for (at, next) in &mut below.0 {
                *next = (*next).min(boundary.get(at).unwrap_or_else(|| self.origin(at)) - lookback(id));
            }
        }
        loop {
            below.0.retain(|at, next| *next > self.kept_from(at));
            if below.is_empty() {
                return None;
            }
            let kept = self.origins.clone().max(&self.expired).max(&below);
            let reach = |(id, version): &(&VersionId, &VersionState)| -> Offsets {
                let of = |(at, next): (&TopicPartition, i64)| {
                    let ahead = if next > self.kept_from(at) { lookback(id) } else { 0 };
                    let before = version.base.as_ref().map_or(0, |base| base.boundary.or_zero(at));
                    (at.clone(), (next + ahead).max(before))
                };
                kept.iter().map(of).collect()
            };
            let reaches: Vec<Offsets> = active.iter().map(reach).collect();
            let quarantines = self.changes.iter().filter(|c| c.kind == ChangeKind::Quarantined && c.lifted.is_none());
            let straddles = |c: &&Change| reaches.iter().any(|cut| c.reaches_below(cut) && !c.ranges.below(cut));
            let Some(change) = quarantines.clone().find(straddles) else {
                let base = |((id, version), reach): (&(&VersionId, &VersionState), Offsets)| {
                    let from = version.base.as_ref().map_or(&self.origins, |base| &base.boundary);
                    let (id, from) = ((*id).clone(), self.origins.clone().max(from));
                    let holes = self.holes_of(version, Mode::Full, &from, &reach);
                    let keep = version.base.as_ref().map_or(vec![], |base| base.runs.clone());
                    let view = version.view.clone();
                    (reach, lookback(&id), VersionPlan { version: id, view, mode: Mode::Full, from, keep, holes })
                };
                let bases = active.iter().zip(reaches).map(base).collect();
                return Some(ExpiryPlan { plan: self.number, below, bases });
            };
            // All of it goes, or nothing: its rows stay until it lies below.
            let before = below.clone();
            for (at, span) in change.ranges.iter() {
                let back = active.iter().map(|(id, _)| lookback(id)).max().unwrap_or(0);
                if let Some(next) = below.0.get_mut(at) {
                    *next = (*next).min(span.start - back);
                }
            }
            if below == before {
                return None;
            }
        }
    }

    /// The parts of these changes in `[from, to)`.
    pub fn parts_of(&self, changes: &[Number], from: &Offsets, to: &Offsets) -> Vec<Hole> {
        changes.iter().filter_map(|number| self.change_at(*number)).flat_map(|change| parts(change, from, to)).collect()
    }

    /// The version of `view` that answers: the complete, active one whose newest `declared` or `selected` has the
    /// highest number.
    pub fn served(&self, view: &str) -> Option<&VersionId> {
        self.versions
            .iter()
            .filter(|(_, v)| v.view == view && v.active && v.complete())
            .max_by_key(|(_, v)| v.chosen)
            .map(|(id, _)| id)
    }

    /// The newest active version of `view`, complete or building.
    pub fn newest(&self, view: &str) -> Option<&VersionId> {
        self.versions
            .iter()
            .filter(|(_, v)| v.view == view && v.active)
            .max_by_key(|(_, v)| v.declared)
            .map(|(id, _)| id)
    }

    /// The next entry on the way to `version` being what `view` is to have; none if it is. A process that starts with it in its
    /// pipeline writes these, once: a version is declared, or, if it is still there from before, chosen again. Of several processes
    /// with several pipelines the last one that started decides.
    pub fn toward(&self, view: &str, version: &VersionId) -> Option<Toward> {
        let Some(state) = self.versions.get(version).filter(|state| state.active) else { return Some(Toward::Declare) };
        let newer = |other: &VersionState| other.view == view && other.active && other.chosen > state.chosen;
        match self.versions.values().any(newer) {
            false => None,
            true if state.complete() => Some(Toward::Select),
            // Only what is complete can be chosen: it begins anew.
            true => Some(Toward::Retire),
        }
    }

    /// The versions that wait for a batch run.
    pub fn building(&self) -> impl Iterator<Item = (&VersionId, &VersionState)> {
        self.versions.iter().filter(|(_, v)| v.active && !v.complete())
    }

    /// Versions of a view beyond the newest `keep` that are not served: they may be retired once a newer is served.
    pub fn retirable(&self, view: &str, keep: usize) -> Vec<VersionId> {
        let Some(served) = self.served(view) else { return vec![] };
        let served_at = self.versions[served].declared;
        let mut older: Vec<_> =
            self.versions.iter().filter(|(_, v)| v.view == view && v.active && v.declared < served_at).collect();
        older.sort_by_key(|(_, v)| std::cmp::Reverse(v.chosen));
        older.into_iter().skip(keep).map(|(id, _)| id.clone()).collect()
    }
}
