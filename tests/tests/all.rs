//! What crosses layers, in one binary: each test binary links all of DataFusion.
//!
//! - [`law`]: batch ⊕ speed = one fold over everything = plain SQL
//! - [`metrics`]: what /metrics gives is documented
//! - [`reference`]: docs/reference says what the code does
//! - [`refused`]: docs/reference/sql.md says why a statement is refused
//! - [`edges`]: which crate may depend on which, and where unsafe code may stand

mod dockerfile;
mod edges;
mod law;
mod metrics;
mod reference;
mod refused;
