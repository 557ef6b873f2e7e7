//! The fold: one view, compiled once, run the same way over history and over the stream.
//!
//! - [`pipeline`]: sources and views from SQL text
//! - [`schema`]: sources and their columns
//! - [`dialect`]: what a statement means, by when its view was declared
//! - [`sql`]: statements corrected before they are planned
//! - [`decode`]: JSON records to rows
//! - [`dedup`]: which rows are duplicates
//! - [`view`]: a view compiled to group keys, aggregates and what finishes them
//! - [`engine`]: the DataFusion context that views are compiled and run in
//! - [`buffers`]: how much memory batches take
//! - [`states`]: rows → states → fewer states → values
//! - [`delta`]: the file that one epoch's states are stored in
//! - [`live`]: states that are newer than the ledger, between speed and serving
//!
//! States merge: ⊕ is associative and commutative, and nothing is its identity. A group may stand in any number of
//! state rows; only [`View::finish`] makes it one.

pub mod buffers;
pub mod decode;
pub mod dedup;
pub mod delta;
pub mod dialect;
pub mod engine;
pub mod error;
mod exact;
mod functions;
pub mod live;
pub mod memory;
pub mod pipeline;
mod readable;
mod rewrite;
pub mod schema;
pub mod sql;
pub mod states;
mod times;
mod unnest;
pub mod view;

pub use decode::{DeadLetter, Decoder, Envelope, Reason};
pub use dedup::{Dedup, DedupBy};
pub use engine::{Engine, STACK};
pub use error::{Error, PipelineError, is_of_batch_size};
pub use pipeline::{Pipeline, ViewText};
pub use readable::readable;
pub use schema::{Column, Source, Type};
pub use view::View;

/// What failed in a fold, or what it made.
pub type Result<T, E = Error> = std::result::Result<T, E>;
