//! The ledger: its words and its pure decisions.
//!
//! A source's ledger is an append-only list of [`Entry`]s. Replaying them gives a [`Ledger`], the one state from which
//! every layer decides what it may commit, what a batch run may publish and what an answer is made of. Nothing here
//! does I/O, knows DataFusion or a broker: simulations of the protocol build and run in seconds.
//!
//! - [`offsets`]: partitions, offset vectors, ranges
//! - [`entry`]: what an entry says
//! - [`ledger`] replays
//! - `check`, `refusal`: the rules an entry is checked by
//! - [`decide`]: boundaries, batch plans, the served version
//! - [`cover`]: which units make an answer
//! - `standing`: how partitions stand to what the log still has
//! - `extent`: what an open epoch covers
//! - `part`: a part of the log, and the archive's units of it
//! - `compaction`: which units may become one
//! - [`change`]: positions that are left out: lost, quarantined
//! - `orphan`: which files may be deleted
//! - [`names`] holds identifiers

pub mod change;
mod check;
mod compaction;
pub mod cover;
pub mod decide;
pub mod entry;
mod extent;
pub mod ledger;
pub mod names;
pub mod offsets;
mod orphan;
mod part;
mod refusal;
mod standing;

pub use change::{Change, ChangeKind, Hole};
pub use compaction::{ArchiveSizes, holes_of};
pub use cover::{Chain, Cover, Gap, Holes, LiveUnit, chain};
pub use decide::{BatchPlan, ExpiryPlan, Mode, Toward, VersionPlan};
pub use entry::{ArchiveCounts, BaseView, Body, Entry, File, PublishedVersion, Seen, Tail};
pub use extent::Extent;
pub use ledger::{ArchiveUnit, Ledger, Unit, VersionState};
pub use names::{Dialect, Nonce, Number, VersionId};
pub use offsets::{Offsets, Ranges, Span, TopicPartition};
pub use part::Part;
pub use refusal::Refusal;
pub use standing::{Standing, Stopped};

/// The newest ledger format that this binary reads and writes.
///
/// 1: the first. 2: `lost`, `quarantined`, `lifted`, `compacted`, `compacted_archive`. 3: `expired`, and `published` with times. 4: `declared` with a
/// dialect, and what else a range held in `folded`, `published` and `expired`.
pub const FORMAT: u32 = 4;
/// The format of a new source: it is raised by what needs more.
pub const FIRST_FORMAT: u32 = 1;
