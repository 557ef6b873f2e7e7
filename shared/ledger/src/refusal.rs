//! Why an entry may not stand at its number.

use crate::FORMAT;
use crate::names::{Number, VersionId};
use crate::offsets::TopicPartition;

/// Why an entry may not stand at its number.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// Not the next number.
    #[error("entry {number} does not follow entry {after}")]
    Number {
        /// The entry's number.
        number: Number,
        /// The last number.
        after: Number,
    },
    /// `created` elsewhere than at number 1, or something else there.
    #[error("an entry of kind {kind} cannot stand at number {number}")]
    Place {
        /// Its kind.
        kind: &'static str,
        /// Its number.
        number: Number,
    },
    /// Written by a newer bifold.
    #[error("the source needs ledger format {format}, this bifold knows {FORMAT}; run a newer bifold")]
    Format {
        /// The format needed.
        format: u32,
    },
    /// A kind of entry that the format in force does not know.
    #[error("an entry of kind {kind} needs ledger format {format}, in force is {now}")]
    NeedsFormat {
        /// Its kind.
        kind: &'static str,
        /// The format needed.
        format: u32,
        /// The format in force.
        now: u32,
    },
    /// A `format` below the one in force.
    #[error("the format cannot go back from {now} to {format}")]
    OlderFormat {
        /// The entry's format.
        format: u32,
        /// The format in force.
        now: u32,
    },
    /// A plan from the future.
    #[error("a plan at {plan} cannot be published as entry {number}")]
    Plan {
        /// The plan's number.
        plan: Number,
        /// The entry's number.
        number: Number,
    },
    /// One version named twice.
    #[error("version {version} is named twice")]
    Twice {
        /// The version.
        version: VersionId,
    },
    /// An entry without a position.
    #[error("an entry of kind {kind} that holds nothing")]
    Empty {
        /// Its kind.
        kind: &'static str,
    },
    /// A range that does not continue where the ledger stands.
    #[error("{kind} {at} from {start}, but the frontier is {frontier}")]
    Start {
        /// The entry's kind.
        kind: &'static str,
        /// The partition.
        at: TopicPartition,
        /// Where the range starts.
        start: i64,
        /// Where it had to start.
        frontier: i64,
    },
    /// A delta that lacks an active version, or holds one that is not active.
    #[error("the entry holds versions {}, active are {}", list(has), list(active))]
    Versions {
        /// What it holds.
        has: Vec<VersionId>,
        /// What it had to hold.
        active: Vec<VersionId>,
    },
    /// A version that must not be active is, or must be and is not.
    #[error("version {version} is {}active", if *active { "" } else { "not " })]
    Active {
        /// The version.
        version: VersionId,
        /// Whether it is active.
        active: bool,
    },
    /// A version that is served cannot be retired alone.
    #[error("version {version} is served; retire all versions of its view, or select another first")]
    Served {
        /// The version.
        version: VersionId,
    },
    /// A version that is still building cannot be selected.
    #[error("version {version} is still building")]
    Building {
        /// The version.
        version: VersionId,
    },
    /// The boundary reaches beyond the archive.
    #[error("the boundary {at}:{boundary} is beyond the archive, which ends at {archived}")]
    NotArchived {
        /// The partition.
        at: TopicPartition,
        /// The boundary there.
        boundary: i64,
        /// The archive's frontier there.
        archived: i64,
    },
    /// The boundary cuts through a folded unit.
    #[error("the boundary cuts through the epoch of entry {unit}")]
    Torn {
        /// The unit's number.
        unit: Number,
    },
    /// The boundary would go back.
    #[error("version {version} has a boundary above the one offered")]
    Backwards {
        /// The version.
        version: VersionId,
    },
    /// A batch view that holds, or says it holds, what was beyond the view's retention before.
    #[error("version {version} holds groups only from a later time on than the one offered")]
    KeptFrom {
        /// The version.
        version: VersionId,
    },
    /// Somebody published or declared one of the versions since the plan.
    #[error("version {version} was published or declared by entry {by}, after the plan at {plan}")]
    Overtaken {
        /// The version.
        version: VersionId,
        /// The entry that did.
        by: Number,
        /// The plan's number.
        plan: Number,
    },
    /// Positions that are archived cannot be lost.
    #[error("{at} [{start}, …) cannot be lost: it is archived up to {archived}")]
    Archived {
        /// The partition.
        at: TopicPartition,
        /// Where the range starts.
        start: i64,
        /// The archive's frontier there.
        archived: i64,
    },
    /// A range that another change already speaks of.
    #[error("{at} [{start}, {end}) overlaps what entry {by} says of it")]
    Overlaps {
        /// The partition.
        at: TopicPartition,
        /// Where the range starts.
        start: i64,
        /// Where it ends.
        end: i64,
        /// The other change.
        by: Number,
    },
    /// No such change, or it is lifted already.
    #[error("entry {number} is no quarantine in force")]
    NoQuarantine {
        /// The entry named.
        number: Number,
    },
    /// Something was lost, quarantined or lifted below the boundary since the plan.
    #[error("entry {by} changes what counts below the boundary, after the plan at {plan}")]
    Changed {
        /// The entry that did.
        by: Number,
        /// The plan's number.
        plan: Number,
    },
    /// With dedup: a boundary below what was folded when lost rows were still there.
    #[error(
        "what entry {by} says is lost was there when events above the boundary were judged duplicates; the boundary has to pass them"
    )]
    Judged {
        /// The change.
        by: Number,
    },
    /// Positions that are lost, quarantined or gone, and neither left out nor above what the entry holds.
    #[error("what entry {change} leaves out has to be left out of {kind}")]
    NotLeftOut {
        /// The change.
        change: Number,
        /// The entry's kind.
        kind: &'static str,
    },
    /// A unit that was replaced or is not needed any more.
    #[error("entry {number} is no current unit")]
    NotCurrent {
        /// The entry named.
        number: Number,
    },
    /// Units that do not follow each other, or a result that is not what they hold.
    #[error("the units do not make up what is to replace them: {why}")]
    NotTheSame {
        /// How they differ.
        why: &'static str,
    },
    /// A compacted unit that a boundary would cut through.
    #[error("the boundary of version {version} lies inside the compacted epochs")]
    Inside {
        /// The version.
        version: VersionId,
    },
    /// Positions that left the archive: what stands of them in base views cannot be changed.
    #[error(
        "{at} [{start}, …) cannot be {kind}: the base views of entry {by} hold it up to {end}, and its events left the archive"
    )]
    Gone {
        /// What was to be done.
        kind: &'static str,
        /// The partition.
        at: TopicPartition,
        /// Where the range starts.
        start: i64,
        /// Up to where the base view reaches.
        end: i64,
        /// The entry that removed it.
        by: Number,
    },
    /// Another `expired` came first.
    #[error("entry {by} removed more of the archive, after the plan at {plan}")]
    Expired {
        /// The entry that did.
        by: Number,
        /// The plan's number.
        plan: Number,
    },
    /// A base view that does not reach to where the archive is to begin, or reaches beyond its version's boundary.
    #[error("the base view of version {version} reaches to {at}:{boundary}; it has to reach from {least} to {most}")]
    Base {
        /// The version.
        version: VersionId,
        /// The partition.
        at: TopicPartition,
        /// Its boundary there.
        boundary: i64,
        /// The least that it may be.
        least: i64,
        /// The most.
        most: i64,
    },
    /// A leap that leaves a version behind.
    #[error("a boundary above the frontier must name all active versions; {missing} is missing")]
    Leap {
        /// A version that is missing.
        missing: VersionId,
    },
    /// The first boundary of a version lies below the frontier at its declaration.
    #[error("the first boundary of version {version} must reach the frontier at its declaration")]
    First {
        /// The version.
        version: VersionId,
    },
}

fn list(versions: &[VersionId]) -> String {
    let names: Vec<&str> = versions.iter().map(|version| version.0.as_str()).collect();
    format!("[{}]", names.join(", "))
}
