//! What the fold promises before any state is made: how records decode, what a pipeline may say, and what a view is.

mod bad_pipelines;
mod decoding;
mod good_pipelines;
mod projections;
mod support;
mod total;
mod values;
mod views;
