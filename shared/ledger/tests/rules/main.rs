//! The rules of the ledger, each a named test on the pure decisions; docs/ledger-rules.md says which test holds which
//! rule. Traces are written in the small language of [`dsl`].

mod answering;
mod changes;
mod dsl;
mod expiring;
mod extents;
mod folding;
mod formats;
mod listed;
mod publishing;
mod simulation;
mod traces;
mod writers;
