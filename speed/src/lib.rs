//! The speed layer: folds the log as it arrives, and commits epochs.
//!
//! - [`folder`]: consume, fold, commit; one per source, on a thread of its own
//! - [`fold`]: the versions that are folded, grouped by how they decode
//! - [`epoch`]: the open epoch and its slices
//! - [`live`]: what is newer than the ledger, for the serving layer
//! - [`http`]: `live` as Arrow IPC over HTTP

mod care;
pub mod epoch;
pub mod error;
pub mod fold;
pub mod folder;
pub mod http;
pub mod live;

pub use error::Error;
pub use folder::Folder;
pub use live::Live;
