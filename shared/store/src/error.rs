//! What can go wrong with the store, and what to do about it.

use bifold_ledger::{Number, Refusal};

/// What a caller does about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Try again later.
    Unavailable,
    /// Look at the ledger again and decide again.
    Refused,
    /// A stored object is missing, cut short or altered: somebody has to look.
    Damaged,
    /// The configuration has to be mended.
    Invalid,
}

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not do what it was asked.
    #[error("the store cannot {action} {path}: {source}")]
    Unavailable {
        /// What it was asked to do.
        action: &'static str,
        /// With which object.
        path: String,
        /// Why not.
        source: object_store::Error,
    },
    /// The store's URL cannot be used.
    #[error("cannot open the store {url}: {why}")]
    Url {
        /// The URL.
        url: String,
        /// Why not.
        why: String,
    },
    /// The store puts an object where there is one already.
    #[error(
        "the store has no conditional puts: {why}; the ledger needs a store that honours If-None-Match: *, \
         such as Amazon S3, Google Cloud Storage, Azure Blob Storage, or a local folder"
    )]
    NoConditionalPuts {
        /// What it did.
        why: String,
    },
    /// A file that an entry names is not what was written.
    #[error("the file {path} is damaged: {why}")]
    Damaged {
        /// The file.
        path: String,
        /// How it differs.
        why: String,
    },
    /// An entry that breaks a rule was about to be written.
    #[error("the ledger of {source_name} refuses the entry: {refusal}")]
    Refused {
        /// The source.
        source_name: String,
        /// The rule.
        refusal: Refusal,
    },
    /// An entry in the store breaks a rule: the source stops there.
    #[error("entry {number} of the ledger of {source_name} is invalid: {why}")]
    Invalid {
        /// The source.
        source_name: String,
        /// The entry.
        number: Number,
        /// Why.
        why: String,
    },
    /// A topic that is not the one whose offsets the ledger holds.
    #[error(
        "topic {topic} was deleted and created again: its offsets are not those of the ledger; \
         give the source a new name to start anew, or bring back the topic"
    )]
    Recreated {
        /// The topic.
        topic: String,
    },
    /// The source was written by a newer bifold.
    #[error(
        "the source {source_name} needs ledger format {format}, this bifold knows {}; run a newer bifold",
        bifold_ledger::FORMAT
    )]
    Newer {
        /// The source.
        source_name: String,
        /// The format needed.
        format: u32,
    },
}

impl Error {
    /// What to do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Error::Unavailable { .. } => Kind::Unavailable,
            Error::Url { .. } | Error::NoConditionalPuts { .. } | Error::Newer { .. } | Error::Recreated { .. } => {
                Kind::Invalid
            }
            Error::Refused { .. } => Kind::Refused,
            Error::Damaged { .. } | Error::Invalid { .. } => Kind::Damaged,
        }
    }
}
