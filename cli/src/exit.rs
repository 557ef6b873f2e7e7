//! How a command ends, if not well: the exit codes of the contract.

/// A failure, with its exit code.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Exit {
    /// 1: unreachable, timeout, internal.
    #[error("{0}")]
    Failed(String),
    /// 2: usage, configuration, pipeline or query.
    #[error("{0}")]
    Usage(String),
    /// 3: verify found a difference, or a file is damaged.
    #[error("{0}")]
    Difference(String),
    /// 4: what `plan` was asked would change something. It has said what.
    #[error("starting this pipeline would change the views of the store")]
    Planned,
}

impl Exit {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Exit::Failed(_) => 1,
            Exit::Usage(_) => 2,
            Exit::Difference(_) => 3,
            Exit::Planned => 4,
        }
    }

    pub(crate) fn failed(error: impl std::fmt::Display) -> Self {
        Exit::Failed(error.to_string())
    }

    pub(crate) fn usage(error: impl std::fmt::Display) -> Self {
        Exit::Usage(error.to_string())
    }
}

impl From<bifold_config::Error> for Exit {
    fn from(error: bifold_config::Error) -> Self {
        Exit::usage(error)
    }
}

impl From<bifold_fold::pipeline::ReadError> for Exit {
    fn from(error: bifold_fold::pipeline::ReadError) -> Self {
        Exit::usage(error)
    }
}

impl From<bifold_fold::PipelineError> for Exit {
    fn from(error: bifold_fold::PipelineError) -> Self {
        Exit::usage(error)
    }
}

impl From<bifold_store::Error> for Exit {
    fn from(error: bifold_store::Error) -> Self {
        match error.kind() {
            bifold_store::Kind::Invalid if matches!(error, bifold_store::Error::Url { .. }) => Exit::usage(error),
            _ => Exit::failed(error),
        }
    }
}

impl From<bifold_log::Error> for Exit {
    fn from(error: bifold_log::Error) -> Self {
        match error {
            bifold_log::Error::Invalid { .. } => Exit::usage(error),
            error => Exit::failed(error),
        }
    }
}

impl From<bifold_batch::Error> for Exit {
    fn from(error: bifold_batch::Error) -> Self {
        match error {
            bifold_batch::Error::Store(error @ bifold_store::Error::Damaged { .. }) => {
                Exit::Difference(error.to_string())
            }
            bifold_batch::Error::Store(error) => error.into(),
            bifold_batch::Error::Log(error) => error.into(),
            bifold_batch::Error::Unknown { .. } => Exit::usage(error),
            error => Exit::failed(error),
        }
    }
}

impl From<bifold_service::ListenError> for Exit {
    fn from(error: bifold_service::ListenError) -> Self {
        Exit::failed(error)
    }
}
