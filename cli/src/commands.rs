//! One-shot commands, a file each.

pub(crate) mod audit;
pub(crate) mod batch;
pub(crate) mod changes;
pub(crate) mod check;
pub(crate) mod dead_letters;
pub(crate) mod demo;
pub(crate) mod files;
pub(crate) mod plan;
pub(crate) mod produce;
pub(crate) mod query;
pub(crate) mod top;
pub(crate) mod upgrade;
pub(crate) mod verify;
pub(crate) mod views;
