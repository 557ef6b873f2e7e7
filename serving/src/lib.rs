//! The serving layer: batch view ⊕ committed deltas ⊕ open epochs, behind REST and SQL.
//!
//! - [`catalog`]: sources, views and what of them is in memory
//! - [`snapshot`]: the units that make an answer, and what it covers
//! - [`speed`]: asking speed instances for what is newer than the ledger
//! - [`sql`]: read-only SQL over finished views
//! - [`api`]: the HTTP surface
//! - [`json`]: rows as JSON
//! - [`problem`]: errors as RFC 9457 documents
//!
//! Stateless: any number of replicas. An answer is exact for the coverage that it states.

pub mod api;
mod bounds;
pub mod cache;
pub mod catalog;
mod clauses;
mod collected;
mod events;
mod guard;
pub mod json;
pub mod problem;
pub mod snapshot;
pub mod speed;
pub mod sql;
mod subqueries;
mod sum;
mod threads;
pub mod warnings;

pub use api::routes;
pub use catalog::{Catalog, SourceSpec};
pub use events::key_of;
pub use problem::Problem;
pub use speed::{SpeedSource, speed_source};
pub use threads::are_stuck;
