//! What can go wrong in the speed layer.

/// A failure of the speed layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] bifold_store::Error),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] bifold_log::Error),
    /// A fold failed.
    #[error(transparent)]
    Fold(#[from] bifold_fold::Error),
    /// A view that cannot be compiled.
    #[error(transparent)]
    Pipeline(#[from] bifold_fold::PipelineError),
    /// Arrow failed.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// A fold panicked: a fault of bifold or of a library.
    #[error("the fold panicked: {0}; this is a bug of bifold")]
    Panicked(String),
    /// Dedup where a quarantine is in force: it would decide anew which of equal rows counts.
    #[error(
        "source {source_name} has dedup now, and the quarantine of ledger entry {entry} is in force: which of equal rows counts would \
         be decided anew, which is not built; lift it (`bifold quarantine {source_name} --lift {entry} --reason …`), or give the source a new name"
    )]
    QuarantinedDedup {
        /// The source.
        source_name: String,
        /// The entry.
        entry: u64,
    },
    /// A version that this bifold would not make of the same SQL: its states have other ids.
    #[error(
        "view {view} is version {theirs} in the ledger, but {ours} to this bifold: \
         its states are of another kind; run the bifold that declared it"
    )]
    OtherVersion {
        /// The view.
        view: String,
        /// The ledger's version.
        theirs: String,
        /// What this binary makes of it.
        ours: String,
    },
}

impl Error {
    /// Whether it came of the records that were folded: another fold of them ends alike.
    pub fn is_of_records(&self) -> bool {
        matches!(self, Error::Fold(_) | Error::Arrow(_) | Error::Panicked(_))
    }

    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Store(e) => e.kind() == bifold_store::Kind::Unavailable,
            Error::Log(e) => e.is_transient(),
            _ => false,
        }
    }
}
