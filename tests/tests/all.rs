//! What crosses layers, in one binary: each test binary links all of DataFusion.
//!
//! - [`law`]: batch ⊕ speed = one fold over everything = plain SQL
//! - [`metrics`]: what /metrics gives is documented
//! - [`reference`]: docs/reference says what the code does
//! - [`edges`]: which crate may depend on which, and where unsafe code may stand

mod edges;
mod law;
mod metrics;
mod reference;
