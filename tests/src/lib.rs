//! What tests share: [`rows`], finished rows as cells that compare.

pub mod rows;
