//! Which files may be deleted (rule 20): those that no entry in force names, and that none may name any more.

use crate::ledger::Ledger;
use crate::names::{Number, VersionId};
use crate::offsets::TopicPartition;

impl Ledger {
    /// Whether the file at `path`, below the source's folder, is not needed: nothing in force names it, and no writer that is
    /// still under way can name it in a valid entry. Whoever deletes it waits for a grace time, for readers with an older ledger
    /// and for what may not be told from the ledger: a compaction under way.
    pub fn is_orphan(&self, path: &str) -> bool {
        let (Some((folder, name)), false) = (path.split_once('/'), self.names(path)) else { return false };
        match folder {
            "deltas" => starts(name).is_some_and(|starts| starts.iter().any(|(at, start)| self.frontier(at) > *start)),
            "archive" | "dead-letters" => {
                starts(name).is_some_and(|starts| starts.iter().any(|(at, start)| self.archived(at) > *start))
            }
            "batch" => self.is_orphan_run(name).unwrap_or(false),
            "bases" => self.is_orphan_base(name).unwrap_or(false),
            _ => false,
        }
    }

    /// Whether something in force names the file at `path`, below the source's folder.
    pub fn names(&self, path: &str) -> bool {
        let is = |file: &crate::File| file.path == path;
        self.units.iter().any(|unit| is(&unit.delta))
            || self.archive.iter().any(|unit| unit.rows.iter().chain(&unit.dead).any(is))
            || self.versions.values().any(|version| version.active && version.files().any(is))
    }

    /// A base view's file: of a version that is not active, or was declared or published since, or whose plan is older than the newest
    /// `expired`.
    fn is_orphan_base(&self, name: &str) -> Option<bool> {
        let (version, name) = name.split_once('/')?;
        let number: Number = name.split('-').next()?.parse().ok()?;
        let state = self.versions.get(&VersionId(version.to_string()));
        // A run that is still at it gives up in time once another one has published.
        let overtaken = self.expired_by().is_some_and(|by| by >= number);
        let newer = |by: Option<Number>| by.is_some_and(|by| by >= number);
        Some(overtaken || state.is_none_or(|state| !state.active || state.declared >= number || newer(state.published)))
    }

    /// A run's file: of a version that is not active, or that was published or declared after the run was planned.
    fn is_orphan_run(&self, name: &str) -> Option<bool> {
        let (version, name) = name.split_once('/')?;
        let number: Number = name.split('-').next()?.parse().ok()?;
        let state = self.versions.get(&VersionId(version.to_string()));
        Some(match state.filter(|state| state.active) {
            None => true,
            Some(state) => state.declared >= number || state.published.is_some_and(|published| published >= number),
        })
    }
}

/// Where each partition of a file starts: `<number>-<nonce>@<topic>.<partition>.<start>[+…].<extension>`.
fn starts(name: &str) -> Option<Vec<(TopicPartition, i64)>> {
    let (_, starts) = name.split_once('@')?;
    let (starts, _) = starts.rsplit_once('.')?;
    let one = |part: &str| {
        let (rest, start) = part.rsplit_once('.')?;
        let (topic, partition) = rest.rsplit_once('.')?;
        Some((TopicPartition::new(topic.replace('~', ":"), partition.parse().ok()?), start.parse().ok()?))
    };
    starts.split(['+', '/']).map(one).collect()
}
