//! A simulation: two processes of each role over one log and one failing store, in virtual time, by seed.
//!
//! ```text
//! seed ─► weather: kills, freezes, slow and lost calls, retention, losses, commands ─► processes ─► store ─► auditor
//!                                                                              (journal, files, decisions: the real ones)
//! ```
//!
//! After the weather nothing fails any more: then all that the log holds becomes archived, folded, built and answered, in bounded time.
//!
//! | Variable | Does |
//! |---|---|
//! | `BIFOLD_SIM_SEEDS=10000` | runs so many seeds and prints what was reached |
//! | `BIFOLD_SIM_SEED=7` | runs that one alone and prints its steps |
//!
//! The store's sources are compiled here once more, with a `tokio` whose `sleep` is the simulation's: tokio's own paused clock is a feature
//! that would have every dependency built twice.

#[allow(dead_code, unreachable_pub)]
#[path = "../../src/error.rs"]
mod error;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/failpoint.rs"]
mod failpoint;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/files.rs"]
mod files;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/journal.rs"]
mod journal;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/layout.rs"]
mod layout;
#[allow(dead_code, unreachable_pub)]
#[path = "../../src/probe.rs"]
mod probe;

mod audit;
mod clock;
mod content;
mod counts;
mod log;
mod rng;
mod roles;
mod seeds;
mod store;
mod world;

extern crate self as tokio;
extern crate tokio as real_tokio;
pub use real_tokio::{pin, runtime, test};

/// What the store's sources know of time.
pub mod time {
    /// Waits in virtual time.
    pub fn sleep(duration: std::time::Duration) -> impl Future<Output = ()> + Send {
        crate::clock::sleep(duration)
    }
}
