//! Which units may become one: epochs (`compacted`), archive files (`compacted_archive`).

use std::collections::BTreeSet;

use crate::change::ChangeKind;
use crate::entry::File;
use crate::ledger::{ArchiveUnit, Ledger, Unit};
use crate::names::Number;
use crate::offsets::{Offsets, Ranges};

/// Of archive units: how many rows and bytes one may become, and of how many rows it is small.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveSizes {
    /// Rows of one that is still joined with others.
    pub small: u64,
    /// Rows at most.
    pub rows: u64,
    /// Bytes at most.
    pub bytes: u64,
}

impl Ledger {
    /// The units that become one where at least `least` could: no boundary lies inside, and every active version has states in all or
    /// none of them (rule 26). Their deltas have at most `most` bytes together; one of more than half of that is joined only where no others can be.
    ///
    /// Nor do the `plans` of batch runs under way lie inside: a run would find its boundary torn when it has done its work.
    pub fn compactable(&self, least: usize, most: u64, plans: &[Offsets]) -> Option<&[Unit]> {
        let active: Vec<_> = self.versions.iter().filter(|(_, version)| version.active).collect();
        // Units that lie alike to every version can be joined.
        let place = |unit: &Unit| {
            let of = |(id, version): &(&_, &crate::VersionState)| {
                (unit.versions.contains(id), unit.ranges.above(version.needs_from()))
            };
            let above: Vec<bool> =
                std::iter::once(&self.boundary).chain(plans).map(|cut| unit.ranges.above(cut)).collect();
            // What leaves a loss out is not joined with what counts some of it.
            let lost = self.changes.iter().filter(|change| change.kind == ChangeKind::Lost);
            let left_out = lost.map(|change| unit.touches(change).then(|| unit.holes.contains(&change.number)));
            (above, active.iter().map(of).collect::<Vec<_>>(), left_out.collect::<Vec<_>>())
        };
        let mut runs: Vec<_> = self.units.chunk_by(|a, b| place(a) == place(b)).collect();
        runs.retain(|run| run.len() >= least.max(2));
        runs.sort_by_key(|run| std::cmp::Reverse(run.len()));
        // What is large already is written again only where nothing else can be joined.
        let mut small = runs.iter().flat_map(|run| run.split(|unit| unit.delta.bytes > most / 2));
        let mut any = runs.iter().flat_map(|run| (0..run.len()).map(|start| &run[start..]));
        small.find_map(|units| first_of(units, most)).or_else(|| any.find_map(|units| first_of(units, most)))
    }

    /// At least `least` archive units that may become one, or fewer if they are as large as one may become.
    pub fn compactable_archive(&self, least: usize, sizes: ArchiveSizes) -> Option<&[ArchiveUnit]> {
        let sum = |unit: &ArchiveUnit, of: fn(&File) -> u64| unit.rows.iter().chain(&unit.dead).map(of).sum::<u64>();
        let mut start = 0;
        while start < self.archive.len() {
            let (mut end, mut rows, mut bytes) = (start, 0, 0);
            let mut is_full = false;
            while let Some(unit) = self.archive.get(end) {
                let own = sum(unit, |file| file.rows);
                rows += own;
                bytes += sum(unit, |file| file.bytes);
                is_full = rows > sizes.rows || bytes > sizes.bytes;
                let alike = unit.decoding == self.archive[start].decoding;
                if !alike || own > sizes.small || is_full {
                    break;
                }
                end += 1;
            }
            if end - start >= least.max(2) || (end - start >= 2 && is_full) {
                return Some(&self.archive[start..end]);
            }
            start = end.max(start + 1);
        }
        None
    }
}

/// The first of these units that have at most `most` bytes together. None if those are not two.
fn first_of(units: &[Unit], most: u64) -> Option<&[Unit]> {
    let mut bytes = 0;
    let fits = |unit: &&Unit| {
        bytes += unit.delta.bytes;
        bytes <= most
    };
    let count = units.iter().take_while(fits).count();
    (count >= 2).then(|| &units[..count])
}

impl Ranges {
    /// The positions of several ranges that follow each other.
    pub fn joined<'a>(parts: impl IntoIterator<Item = &'a Ranges>) -> Self {
        let mut ranges = Ranges::default();
        for (at, span) in parts.into_iter().flat_map(Ranges::iter).filter(|(_, span)| !span.is_empty()) {
            let whole = ranges.0.entry(at.clone()).or_insert(*span);
            whole.end = span.end;
            whole.leader_epoch = span.leader_epoch;
        }
        ranges
    }
}

/// The changes that units leave out, together.
pub fn holes_of<'a>(units: impl IntoIterator<Item = &'a Unit>) -> Vec<Number> {
    let holes: BTreeSet<Number> = units.into_iter().flat_map(|unit| unit.holes.iter().copied()).collect();
    holes.into_iter().collect()
}
