//! The store: where everything lies, and how the ledger is read and appended to.
//!
//! - [`open`]: an object store from a URL
//! - [`layout`]: every object's path is made here
//! - [`files`]: immutable files with a checksum, named by ledger entries
//! - [`installation`]: whose the store is
//! - [`journal`]: the ledger's I/O: put-if-absent, tailing, snapshots
//! - [`failpoint`]: where tests kill the process
//!
//! A local directory survives `kill -9` of the process, not a loss of power: nothing there is fsynced.

pub mod error;
pub mod failpoint;
pub mod files;
pub mod installation;
pub mod journal;
pub mod layout;
pub mod open;
mod probe;
mod profile;

pub use error::{Error, Kind};
pub use files::SourceFiles;
pub use journal::{Appended, Journal};
pub use layout::Layout;
pub use open::{open, private_folder};
