//! The whole system: published truth, four processes, restarts at every failpoint, damage, late events, changed views, what is left out.

#[path = "../harness/mod.rs"]
mod harness;

mod change;
mod collectors;
mod damage;
mod dialects;
mod docs;
mod events;
mod examples;
mod hostile;
mod identity;
mod installations;
mod late;
mod left_out;
mod manifests;
mod micro_batch;
mod restart;
mod retention;
mod roles;
mod small;
mod truth;
