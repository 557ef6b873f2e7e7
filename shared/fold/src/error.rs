//! What can go wrong with pipelines, views and states.

use std::fmt;

use datafusion::error::DataFusionError;

use crate::functions::size::IN_ONE_BATCH;

/// A place in a pipeline's text, what is wrong there, and what to do.
///
/// Shown as the line with a caret under the place:
///
/// ```text
/// pipeline.sql:7:8: there is no column "pag"
///   |
/// 7 | SELECT pag, count(*)
///   |        ^
/// hint: did you mean "page"?
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineError {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// The line's text.
    pub text: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for PipelineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        // Tabs stay tabs, so that the caret stands under its place however wide they are shown.
        let before = self.text.chars().chain(std::iter::repeat(' ')).take(self.column.saturating_sub(1) as usize);
        let caret: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        writeln!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        write!(f, "{margin} |\n{number} | {}\n{margin} | {caret}^", self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PipelineError {}

/// A failure of the fold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A sum that its type does not hold: judged at finish, never wrapped.
    #[error("{column} of view {view} overflows {ty} in group {group}")]
    Overflow {
        /// The view.
        view: String,
        /// The aggregate.
        column: String,
        /// Its type.
        ty: String,
        /// The group's keys.
        group: String,
    },
    /// A group of which an aggregate keeps more values than it may.
    #[error(
        "view {view} keeps {values} values in group {group}, more than {most}: group by more, or count with approx_distinct"
    )]
    TooManyValues {
        /// The view.
        view: String,
        /// The group's keys.
        group: String,
        /// How many there are.
        values: usize,
        /// How many there may be.
        most: usize,
    },
    /// States that are not what this view's states are.
    #[error("these are no states of view {view}: {why}")]
    States {
        /// The view.
        view: String,
        /// How they differ.
        why: String,
    },
    /// DataFusion failed.
    #[error(transparent)]
    DataFusion(#[from] DataFusionError),
    /// Arrow failed.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

impl Error {
    /// Whether a batch of rows was too large for what is made of it, so that smaller ones may do.
    pub fn is_of_batch_size(&self) -> bool {
        match self {
            Error::DataFusion(error) => is_of_batch_size(error),
            Error::Arrow(error) => is_of_batch_size(error),
            _ => false,
        }
    }
}

/// The same of a library's failure: it names no kind of it.
pub fn is_of_batch_size(error: &dyn std::error::Error) -> bool {
    let text = error.to_string();
    text.contains(IN_ONE_BATCH) || text.to_lowercase().contains("offset overflow")
}
