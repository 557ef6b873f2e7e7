//! The contract, tested from outside: the built binary, HTTP and a Kafka client alone.

#[path = "../harness/mod.rs"]
mod harness;
mod support;

mod answers;
mod batch;
mod commands;
mod configuration;
mod decoding;
mod greedy;
mod http;
mod ingest;
mod produce;
mod services;
mod store;
mod values;
