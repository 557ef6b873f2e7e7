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

/// A random word by which a writer recognises its own entry after a put whose outcome it does not know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(pub String);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
