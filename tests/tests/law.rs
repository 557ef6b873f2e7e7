//! The law: `finish(batch(L[0,B)) ⊕ speed(L[B,F))) = finish(batch(L[0,F)))`, for random logs, cuts and merge orders.
//!
//! - [`log`]: random logs, with all that a producer can get wrong
//! - [`views`]: the views that are held to the law, in bifold's SQL, in DataFusion's and in DuckDB's
//! - [`pieces`]: one log folded as layers fold it: an archived prefix, epochs, slices, states through files
//! - [`property`]: the property test
//! - [`claims`]: what the property test cannot say: sums beyond their type, large sets, views that are hard to compile
//! - [`golden`]: ids of states and states of old, which must never change
//! - [`corners`]: SQL that the parser, the optimizer or Arrow get wrong, with the right values
//! - [`differential`]: random views and queries, answered for tests/differential
//! - [`duckdb`]: some of the views over one log, written out for tests/duckdb/law.py

mod claims;
mod corners;
mod dedup;
mod differential;
mod duckdb;
mod golden;
mod log;
mod pieces;
mod property;
mod retention;
mod views;
