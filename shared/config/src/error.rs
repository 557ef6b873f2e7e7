//! What can be wrong with a configuration. All of it is the user's to mend: exit code 2.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The built-in default.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("the default"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "the environment variable {name}"),
            Origin::Flag(name) => write!(f, "{name}"),
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML. The line itself is not shown: it may hold a password.
    #[error("{} is not valid TOML: line {line}, column {column}: {why}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// Why.
        why: String,
    },
    /// A key that does not exist.
    #[error("unknown key {key:?} in {origin}; the nearest is {nearest:?}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands.
        origin: Origin,
        /// A key that exists.
        nearest: &'static str,
    },
    /// A value that its key cannot take.
    #[error("{key} = {value:?} in {origin}: {why}")]
    Value {
        /// The key.
        key: String,
        /// The value, without what may be a password.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What is wrong with it.
        why: String,
    },
}
