//! Identifiers of the ledger.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The number of a ledger entry: 1, 2, 3, … without a gap.
pub type Number = u64;

/// A version of a view: the hash of all that decides its content. Two views of one name and two versions are told
/// apart by it alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionId(pub String);

impl fmt::Display for VersionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for VersionId {
    fn from(id: &str) -> Self {
        Self(id.to_string())
    }
}

/// The dialect that a version was declared under: what its SQL means, how its events decode, how its states finish. A
/// version keeps its dialect; entries from before there were dialects have the first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dialect(pub u32);

impl Dialect {
    /// The dialect of entries that name none.
    pub const FIRST: Dialect = Dialect(1);

    /// Whether it is the dialect of entries that name none.
    pub fn is_first(&self) -> bool {
        *self == Self::FIRST
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A random word by which a writer recognises its own entry after a put whose outcome it does not know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub String);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
