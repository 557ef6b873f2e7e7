//! To be written.
pub const RETIRED: &str = "publish.retired";
