//! The whole system: published truth, four processes, restarts at every failpoint, damage, late events.

#[path = "../harness/mod.rs"]
mod harness;
