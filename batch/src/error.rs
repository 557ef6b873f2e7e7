//! What can go wrong in the batch layer.

use datafusion::error::DataFusionError;

use crate::recompute::Report;

/// A failure of the batch layer.
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
    Fold(bifold_fold::Error),
    /// A view that cannot be compiled.
    #[error(transparent)]
    Pipeline(#[from] bifold_fold::PipelineError),
    /// DataFusion failed.
    #[error(transparent)]
    DataFusion(DataFusionError),
    /// Parquet failed.
    #[error(transparent)]
    Parquet(#[from] parquet::errors::ParquetError),
    /// Arrow failed.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
    /// Scratch files failed.
    #[error("cannot use the scratch folder {folder}: {source}")]
    Scratch {
        /// The folder.
        folder: String,
        /// Why.
        source: std::io::Error,
    },
    /// The ledger does not allow the boundary that was asked for.
    #[error("the boundary {asked} was not reached in time: the ledger allows {allowed}{}", hint(why))]
    NotReached {
        /// What was asked for.
        asked: String,
        /// What could be had.
        allowed: String,
        /// What is behind.
        why: String,
    },
    /// A source that has not begun.
    #[error("source {source_name} has no ledger in this store yet; start `bifold up`, or `collect` and `speed`")]
    NotBegun {
        /// The source.
        source_name: String,
    },
    /// A view or source that does not exist.
    #[error("there is no {what} {name:?}; there is {known}")]
    Unknown {
        /// "view" or "source".
        what: &'static str,
        /// Its name.
        name: String,
        /// What there is.
        known: String,
    },
    /// Others published again and again.
    #[error("other batch runs published before this one {tries} times; it gave up")]
    Overtaken {
        /// How often.
        tries: u32,
    },
    /// Some views could not be built; the others were published.
    #[error("{}", failed.iter().map(|(view, error)| format!("view {view}: {error}")).collect::<Vec<_>>().join("; "))]
    Views {
        /// The views, and why.
        failed: Vec<(String, Box<Error>)>,
        /// What the run did for the others.
        published: Vec<Report>,
    },
    /// A view that needs more memory than there is.
    #[error("it needs more than batch.memory, which is {memory}: {why}; raise it, or build from less at once")]
    Memory {
        /// The limit, in bytes, for people.
        memory: String,
        /// What asked for more.
        why: String,
    },
    /// An internal failure.
    #[error("internal: {0}")]
    Internal(String),
}

fn hint(why: &str) -> String {
    if why.is_empty() { String::new() } else { format!(" ({why})") }
}

impl From<DataFusionError> for Error {
    fn from(error: DataFusionError) -> Self {
        damage(&error).unwrap_or(Error::DataFusion(error))
    }
}

impl From<bifold_fold::Error> for Error {
    fn from(error: bifold_fold::Error) -> Self {
        damage(&error).unwrap_or(Error::Fold(error))
    }
}

/// The damaged file that a scan or its planning came across.
fn damage(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let mut cause = Some(error);
    // A stream of archived rows or of runs fails with an error of this layer.
    let ours = std::iter::from_fn(|| {
        let error = cause?;
        cause = error.source();
        Some(error)
    });
    let ours = ours.filter_map(|error| match error.downcast_ref::<Error>() {
        Some(Error::Store(bifold_store::Error::Damaged { path, why })) => Some((path.as_str(), why.as_str())),
        _ => None,
    });
    let (path, why) = bifold_archive::checked::damage_in(error).or_else(|| ours.into_iter().next())?;
    Some(bifold_store::Error::Damaged { path: path.to_string(), why: why.to_string() }.into())
}

impl Error {
    /// Whether it came of one view and what it reads: others may be built.
    pub(crate) fn is_of_a_view(&self) -> bool {
        match self {
            Error::Fold(_) | Error::Pipeline(_) | Error::DataFusion(_) | Error::Parquet(_) | Error::Arrow(_) => true,
            _ => matches!(self, Error::Memory { .. } | Error::Internal(_)),
        }
    }

    /// Whether a batch of rows was too large for what is made of it: in smaller ones it may fit.
    pub(crate) fn is_of_batch_size(&self) -> bool {
        match self {
            Error::Fold(error) => error.is_of_batch_size(),
            Error::DataFusion(error) => bifold_fold::is_of_batch_size(error),
            Error::Arrow(error) => bifold_fold::is_of_batch_size(error),
            _ => false,
        }
    }

    /// The file that is missing or damaged, if that is what failed.
    pub fn file(&self) -> Option<&str> {
        match self {
            Error::Store(bifold_store::Error::Damaged { path, .. }) => Some(path),
            // A scan that was under way.
            Error::DataFusion(error) => match error.find_root() {
                DataFusionError::ObjectStore(error) => match &**error {
                    object_store::Error::NotFound { path, .. } => Some(path),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        }
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
