//! What can go wrong with a log.

use bifold_ledger::TopicPartition;

/// A failure of the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The log cannot be reached, or does not answer: try again.
    #[error("the log at {at} is unavailable: {why}")]
    Unavailable {
        /// Its address or folder.
        at: String,
        /// Why.
        why: String,
    },
    /// A topic or partition that does not exist.
    #[error("{what} does not exist in the log")]
    Missing {
        /// The topic or partition.
        what: String,
    },
    /// A position that the log no longer, or not yet, holds.
    #[error("{at} has no offset {next}")]
    OutOfRange {
        /// The partition.
        at: TopicPartition,
        /// The position.
        next: i64,
    },
    /// The log was cut below a position and written anew.
    #[error("{at} was truncated below offset {next} and written anew (unclean leader election): {why}")]
    Truncated {
        /// The partition.
        at: TopicPartition,
        /// The position.
        next: i64,
        /// What the broker said.
        why: String,
    },
    /// A record that is larger than the log takes.
    #[error("a record is larger than the log takes: {why}; raise the topic's max.message.bytes")]
    TooLarge {
        /// What the log said.
        why: String,
    },
    /// Configuration that the log refuses.
    #[error("the log's configuration cannot be used: {why}")]
    Invalid {
        /// Why.
        why: String,
    },
    /// Another process has the local log open.
    #[error("the local log in {folder} is open in another process; stop it, or set kafka.brokers to use several")]
    Locked {
        /// The folder.
        folder: String,
    },
    /// The local log's files cannot be used.
    #[error("the local log in {folder} is damaged: {why}")]
    Damaged {
        /// The folder.
        folder: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable { .. } | Error::Missing { .. })
    }
}
