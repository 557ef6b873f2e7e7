//! To be written.
pub(crate) const RETIRED: &str = "publish.retired";
