//! The batch layer: the master dataset, and batch views recomputed from it.
//!
//! - [`audit`]: what became of every offset and every event
//! - [`collect`]: Kafka → archive, exactly once through the ledger
//! - [`recompute`]: archive → batch views, published atomically
//! - [`maintain`]: compaction, and deleting what nothing needs
//! - [`progress`]: how far work over the archive has come
//! - [`runs`]: what runs did, kept for people
//! - [`schedule`]: when runs start by themselves
//! - [`verify`]: an answer against plain SQL over the payloads
//! - [`dead_letters`]: what could not be decoded

pub mod audit;
pub mod collect;
pub mod dead_letters;
pub mod error;
pub mod maintain;
pub mod progress;
pub mod recompute;
pub mod runs;
pub mod schedule;
pub mod verify;

pub use collect::Collector;
pub use error::Error;
pub use recompute::{Recompute, Report};
