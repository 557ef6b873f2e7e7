//! Whether an entry may stand at its number: the rules, one function per kind of entry.

use std::collections::{BTreeMap, BTreeSet};

use crate::FORMAT;
use crate::change::{Change, ChangeKind};
use crate::entry::{BaseView, Body, PublishedVersion};
use crate::ledger::{Ledger, sorted};
use crate::names::{Number, VersionId};
use crate::offsets::{Offsets, Ranges, Span, TopicPartition};
use crate::refusal::Refusal;

impl Ledger {
    /// Whether `body` may be entry `number`, given `self.number` entries before it.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn check(&self, number: Number, body: &Body) -> Result<(), Refusal> {
        if number != self.number + 1 {
            return Err(Refusal::Number { number, after: self.number });
        }
        if (number == 1) != matches!(body, Body::Created { .. }) {
            return Err(Refusal::Place { kind: body.kind(), number });
        }
        if number > 1 && body.needs_format() > self.format {
            return Err(Refusal::NeedsFormat { kind: body.kind(), format: body.needs_format(), now: self.format });
        }
        match body {
            Body::Created { format, .. } | Body::Format { format } => match *format {
                format if format > FORMAT => Err(Refusal::Format { format }),
                format if format < self.format => Err(Refusal::OlderFormat { format, now: self.format }),
                _ => Ok(()),
            },
            Body::Declared { version, .. } => self.expect_active(version, false),
            Body::Retired { versions } => self.check_retired(versions),
            Body::Selected { version } => {
                self.expect_active(version, true)?;
                match self.versions[version].complete() {
                    true => Ok(()),
                    false => Err(Refusal::Building { version: version.clone() }),
                }
            }
            Body::Archived { ranges, .. } => starts_at("archived", ranges, |at| self.archived(at)),
            Body::Folded { ranges, versions, .. } => {
                starts_at("folded", ranges, |at| self.frontier(at))?;
                let (has, active) = (sorted(versions), self.active());
                if has != active { Err(Refusal::Versions { has, active }) } else { Ok(()) }
            }
            Body::Lost { ranges, .. } => self.check_lost(ranges),
            Body::Quarantined { ranges, .. } => self.check_quarantined(ranges),
            Body::Lifted { quarantine, .. } => self.check_lifted(*quarantine),
            Body::Expired { plan, below, bases } => self.check_expired(*plan, below, bases),
            Body::Compacted { replaces, ranges, versions, holes, .. } => {
                self.check_compacted(replaces, ranges, versions, holes)
            }
            Body::CompactedArchive { replaces, ranges, .. } => self.check_compacted_archive(replaces, ranges),
            Body::Published { plan, boundary, versions } => self.check_published(*plan, boundary, versions),
        }
    }

    fn expect_active(&self, version: &VersionId, want: bool) -> Result<(), Refusal> {
        let active = self.versions.get(version).is_some_and(|v| v.active);
        if active == want { Ok(()) } else { Err(Refusal::Active { version: version.clone(), active }) }
    }

    fn check_retired(&self, versions: &[VersionId]) -> Result<(), Refusal> {
        if versions.is_empty() {
            return Err(Refusal::Empty { kind: "retired" });
        }
        for version in versions {
            self.expect_active(version, true)?;
            let view = &self.versions[version].view;
            let dropped = self.versions.iter().all(|(id, v)| !v.active || v.view != *view || versions.contains(id));
            if !dropped && self.served(view) == Some(version) {
                return Err(Refusal::Served { version: version.clone() });
            }
        }
        Ok(())
    }

    /// A quarantine names something that no other change in force speaks of.
    fn check_quarantined(&self, ranges: &Ranges) -> Result<(), Refusal> {
        self.check_not_gone("quarantined", ranges)?;
        self.check_apart("quarantined", ranges, |change| change.lifted.is_none() && change.kind != ChangeKind::Expired)
    }

    /// That no base view holds some of `ranges`: nothing can be taken out of it or put in (rule 27).
    fn check_not_gone(&self, kind: &'static str, ranges: &Ranges) -> Result<(), Refusal> {
        let Some(by) = self.expired_by() else { return Ok(()) };
        for (at, span) in ranges.iter() {
            let bases = self.versions.values().filter(|version| version.active).filter_map(|v| v.base.as_ref());
            let end = bases.map(|base| base.boundary.or_zero(at)).max().unwrap_or(0).max(self.expired.or_zero(at));
            if span.start < end {
                return Err(Refusal::Gone { kind, at: at.clone(), start: span.start, end, by });
            }
        }
        Ok(())
    }

    /// A loss below `boundary`, where some of what lies above was folded when it was still there: with dedup its rows decided what
    /// else counts. The batch view does not have them, so that it has to reach as far as they did (rule 23).
    pub(crate) fn judged_with(&self, boundary: &Offsets) -> Option<Number> {
        let dedup = self.versions.values().any(|version| version.active && version.deduplicates());
        let decided = |change: &&Change| {
            let between = |(at, span): (&TopicPartition, &Span)| {
                let boundary = boundary.or_zero(at);
                span.start < boundary && boundary < change.frontier.or_zero(at)
            };
            change.kind == ChangeKind::Lost && change.ranges.iter().any(between)
        };
        self.changes.iter().filter(|_| dedup).find(decided).map(|change| change.number)
    }

    /// The newest entry that removed some of the archive.
    pub(crate) fn expired_by(&self) -> Option<Number> {
        self.changes.iter().rev().find(|change| change.kind == ChangeKind::Expired).map(|change| change.number)
    }

    fn check_lost(&self, ranges: &Ranges) -> Result<(), Refusal> {
        for (at, span) in ranges.iter() {
            if span.start < self.archived(at) {
                let (start, archived) = (span.start, self.archived(at));
                return Err(Refusal::Archived { at: at.clone(), start, archived });
            }
        }
        // A quarantine of what is lost is no obstacle: both leave it out.
        self.check_apart("lost", ranges, |change| change.kind == ChangeKind::Lost)
    }

    /// That `ranges` hold something, and nothing that one of these changes speaks of.
    fn check_apart(&self, kind: &'static str, ranges: &Ranges, these: impl Fn(&Change) -> bool) -> Result<(), Refusal> {
        if ranges.is_empty() {
            return Err(Refusal::Empty { kind });
        }
        for change in self.changes.iter().filter(|change| these(change)) {
            if let Some((at, span)) = ranges.iter().find(|(at, span)| change.overlaps(at, span)) {
                let (start, end, by) = (span.start, span.end, change.number);
                return Err(Refusal::Overlaps { at: at.clone(), start, end, by });
            }
        }
        Ok(())
    }

    fn check_lifted(&self, number: Number) -> Result<(), Refusal> {
        let in_force = |change: &Change| change.kind == ChangeKind::Quarantined && change.lifted.is_none();
        match self.change_at(number).filter(|change| in_force(change)) {
            Some(change) => self.check_not_gone("lifted", &change.ranges),
            None => Err(Refusal::NoQuarantine { number }),
        }
    }

    /// What leaves the archive lies below every boundary, and every active version has a base view that stands for it (rule 27).
    fn check_expired(&self, plan: Number, below: &Offsets, bases: &[BaseView]) -> Result<(), Refusal> {
        if plan > self.number {
            return Err(Refusal::Plan { plan, number: self.number + 1 });
        }
        if below.iter().all(|(at, end)| end <= self.kept_from(at)) {
            return Err(Refusal::Empty { kind: "expired" });
        }
        if let Some(by) = self.expired_by().filter(|by| *by > plan) {
            return Err(Refusal::Expired { by, plan });
        }
        if let Some((id, _)) = self.building().next() {
            return Err(Refusal::Building { version: id.clone() });
        }
        let (has, active) = (sorted(bases.iter().map(|base| &base.version)), self.active());
        if has != active {
            return Err(Refusal::Versions { has, active });
        }
        if bases.is_empty() {
            return Err(Refusal::Empty { kind: "expired" });
        }
        let kept = self.origins.clone().max(&self.expired).max(below);
        for base in bases {
            let version = &self.versions[&base.version];
            if version.declared > plan {
                return Err(Refusal::Overtaken { version: base.version.clone(), by: version.declared, plan });
            }
            let before = version.base.as_ref().map(|base| &base.boundary);
            let most = version.boundary.as_ref().unwrap_or(&self.origins);
            let all: BTreeSet<_> = kept.iter().chain(base.boundary.iter()).map(|(at, _)| at).collect();
            for at in all {
                // Where no more is removed, no more is looked back at that is gone.
                let gone = kept.or_zero(at) > self.kept_from(at);
                let least = kept.or_zero(at) + if gone { base.lookback } else { 0 };
                let least = least.max(before.map_or(0, |before| before.or_zero(at)));
                let (boundary, most) = (base.boundary.or_zero(at).max(self.origin(at)), most.or_zero(at));
                if boundary < least || boundary > most.max(self.origin(at)) {
                    let (version, at) = (base.version.clone(), at.clone());
                    return Err(Refusal::Base { version, at, boundary, least, most });
                }
            }
            if let Some(by) = self.changed_since(plan, &base.boundary) {
                return Err(Refusal::Changed { by, plan });
            }
            self.check_left_out("expired", &base.version, &base.boundary, &base.holes, true)?;
            let quarantines = self.changes.iter().filter(|c| c.kind == ChangeKind::Quarantined && c.lifted.is_none());
            for change in quarantines.filter(|change| change.reaches_below(&base.boundary)) {
                if !change.ranges.below(&base.boundary) || !base.holes.contains(&change.number) {
                    return Err(Refusal::NotLeftOut { change: change.number, kind: "expired" });
                }
            }
        }
        Ok(())
    }

    /// That `holes` name what states of a version up to `boundary` have to leave out: all that is lost; all that its base view leaves
    /// out, if they are made `from_it`; all that left the archive, if it was declared too late for one; and nothing that is not known.
    fn check_left_out(
        &self,
        kind: &'static str,
        version: &VersionId,
        boundary: &Offsets,
        holes: &[Number],
        from_it: bool,
    ) -> Result<(), Refusal> {
        let base = self.versions.get(version).and_then(|version| version.base.as_ref());
        let must = |change: &&Change| match (change.kind, base) {
            (ChangeKind::Lost, _) => change.reaches_below(boundary),
            (ChangeKind::Expired, None) => true,
            (_, Some(base)) => from_it && base.holes.contains(&change.number),
            (ChangeKind::Quarantined, None) => false,
        };
        if let Some(change) = self.changes.iter().filter(must).find(|change| !holes.contains(&change.number)) {
            return Err(Refusal::NotLeftOut { change: change.number, kind });
        }
        match holes.iter().find(|number| self.change_at(**number).is_none()) {
            Some(number) => Err(Refusal::NoQuarantine { number: *number }),
            None => Ok(()),
        }
    }

    /// Units that follow each other in the ledger become one (rule 26).
    fn check_compacted(
        &self,
        replaces: &[Number],
        ranges: &Ranges,
        versions: &[VersionId],
        holes: &[Number],
    ) -> Result<(), Refusal> {
        let Some(first) = replaces.first() else { return Err(Refusal::Empty { kind: "compacted" }) };
        let numbers: Vec<Number> = self.units.iter().map(|unit| unit.number).collect();
        let at = numbers.iter().position(|number| number == first).ok_or(Refusal::NotCurrent { number: *first })?;
        if let Some(gone) = replaces.iter().find(|number| !numbers.contains(number)) {
            return Err(Refusal::NotCurrent { number: *gone });
        }
        if numbers[at..].iter().take(replaces.len()).ne(replaces) {
            return Err(Refusal::NotTheSame { why: "they do not follow each other" });
        }
        let units = &self.units[at..at + replaces.len()];
        if !same_positions(ranges, units.iter().map(|unit| &unit.ranges)) {
            return Err(Refusal::NotTheSame { why: "the positions differ" });
        }
        for change in holes.iter().filter_map(|number| self.change_at(*number)) {
            if units.iter().any(|unit| unit.touches(change) && !unit.holes.contains(&change.number)) {
                return Err(Refusal::NotTheSame { why: "one leaves out what another counts" });
            }
        }
        let of_all = sorted(holes);
        if of_all != sorted(&units.iter().flat_map(|unit| unit.holes.iter().copied()).collect::<BTreeSet<_>>()) {
            return Err(Refusal::NotTheSame { why: "the holes differ" });
        }
        for (id, version) in self.versions.iter().filter(|(_, version)| version.active) {
            let has = units.iter().filter(|unit| unit.versions.contains(id)).count();
            if has != if versions.contains(id) { units.len() } else { 0 } {
                return Err(Refusal::NotTheSame { why: "the versions differ" });
            }
            let cut = version.needs_from();
            if !ranges.below(cut) && !ranges.above(cut) {
                return Err(Refusal::Inside { version: id.clone() });
            }
        }
        // Also a boundary of versions that are retired: the next one starts from it.
        if !ranges.below(&self.boundary) && !ranges.above(&self.boundary) {
            return Err(Refusal::NotTheSame { why: "the newest boundary lies inside" });
        }
        Ok(())
    }

    /// Archive files that follow each other and were decoded alike become one.
    fn check_compacted_archive(&self, replaces: &[Number], ranges: &Ranges) -> Result<(), Refusal> {
        let Some(first) = replaces.first() else { return Err(Refusal::Empty { kind: "compacted_archive" }) };
        let at = self.archive.iter().position(|unit| unit.number == *first);
        let at = at.ok_or(Refusal::NotCurrent { number: *first })?;
        let units = &self.archive[at..(at + replaces.len()).min(self.archive.len())];
        if units.iter().map(|unit| unit.number).ne(replaces.iter().copied()) {
            return Err(Refusal::NotTheSame { why: "they do not follow each other" });
        }
        if units.iter().any(|unit| unit.decoding != units[0].decoding) {
            return Err(Refusal::NotTheSame { why: "they were decoded by different definitions" });
        }
        match same_positions(ranges, units.iter().map(|unit| &unit.ranges)) {
            true => Ok(()),
            false => Err(Refusal::NotTheSame { why: "the positions differ" }),
        }
    }

    fn check_published(&self, plan: Number, boundary: &Offsets, versions: &[PublishedVersion]) -> Result<(), Refusal> {
        if versions.is_empty() {
            return Err(Refusal::Empty { kind: "published" });
        }
        if plan > self.number {
            return Err(Refusal::Plan { plan, number: self.number + 1 });
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = versions.iter().find(|published| !names.insert(&published.version)) {
            return Err(Refusal::Twice { version: twice.version.clone() });
        }
        let boundary = &self.origins.clone().max(boundary);
        for (at, next) in boundary.iter() {
            if next > self.archived(at) {
                return Err(Refusal::NotArchived { at: at.clone(), boundary: next, archived: self.archived(at) });
            }
        }
        if let Some(unit) = self.units.iter().find(|u| !u.ranges.below(boundary) && !u.ranges.above(boundary)) {
            return Err(Refusal::Torn { unit: unit.number });
        }
        if let Some(by) = self.changed_since(plan, boundary) {
            return Err(Refusal::Changed { by, plan });
        }
        if let Some(by) = self.judged_with(boundary) {
            return Err(Refusal::Judged { by });
        }
        for published in versions {
            self.check_left_out("published", &published.version, boundary, &published.holes, published.full)?;
            self.expect_active(&published.version, true)?;
            let version = &self.versions[&published.version];
            for by in [Some(version.declared), version.published].into_iter().flatten() {
                if by > plan {
                    return Err(Refusal::Overtaken { version: published.version.clone(), by, plan });
                }
            }
            // What is beyond a view's retention does not come back, but by a full run, and then not what its base view lacks.
            let before = match (published.full, &version.base) {
                (true, base) => base.as_ref().and_then(|base| base.kept_from_us),
                (false, _) => version.kept_from_us,
            };
            if published.kept_from_us < before {
                return Err(Refusal::KeptFrom { version: published.version.clone() });
            }
            match &version.boundary {
                Some(before) if !boundary.reaches(before) => {
                    return Err(Refusal::Backwards { version: published.version.clone() });
                }
                None if !boundary.reaches(&version.declared_at) => {
                    return Err(Refusal::First { version: published.version.clone() });
                }
                _ => {}
            }
        }
        let leaps = boundary.iter().any(|(at, next)| next > self.frontier(at));
        let missing = || self.active().into_iter().find(|id| versions.iter().all(|p| p.version != *id));
        match leaps.then(missing).flatten() {
            Some(missing) => Err(Refusal::Leap { missing }),
            None => Ok(()),
        }
    }

    /// A change after `plan` whose positions reach below `boundary` (rule 12).
    fn changed_since(&self, plan: Number, boundary: &Offsets) -> Option<Number> {
        // What left the archive counts as before, in base views.
        let changes = self.changes.iter().filter(|change| change.kind != ChangeKind::Expired);
        let changes = changes.filter(|change| change.reaches_below(boundary));
        changes.flat_map(|change| [Some(change.number), change.lifted]).flatten().find(|by| *by > plan)
    }
}

fn starts_at(kind: &'static str, ranges: &Ranges, frontier: impl Fn(&TopicPartition) -> i64) -> Result<(), Refusal> {
    if ranges.is_empty() {
        return Err(Refusal::Empty { kind });
    }
    for (at, span) in ranges.iter().filter(|(_, span)| !span.is_empty()) {
        if span.start != frontier(at) {
            return Err(Refusal::Start { kind, at: at.clone(), start: span.start, frontier: frontier(at) });
        }
    }
    Ok(())
}

/// Whether `ranges` are the positions of `parts`, which follow each other in every partition.
fn same_positions<'a>(ranges: &Ranges, parts: impl Iterator<Item = &'a Ranges>) -> bool {
    let mut joined: BTreeMap<&TopicPartition, (i64, i64)> = BTreeMap::new();
    for part in parts {
        for (at, span) in part.iter().filter(|(_, span)| !span.is_empty()) {
            let known = joined.entry(at).or_insert((span.start, span.start));
            if known.1 != span.start {
                return false;
            }
            known.1 = span.end;
        }
    }
    let whole = ranges.iter().filter(|(_, span)| !span.is_empty()).map(|(at, span)| (at, (span.start, span.end)));
    joined.into_iter().eq(whole)
}
