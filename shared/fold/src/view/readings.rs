//! A view of a pipeline under each dialect: which of them it means, the ledger says.

use std::sync::Arc;

use bifold_ledger::{Body, Dialect, Ledger, Toward};

use super::View;
use super::compile::{compile, compile_under};
use crate::dialect::TODAY;
use crate::engine::Engine;
use crate::error::PipelineError;
use crate::pipeline::{Pipeline, ViewText};

/// A view as today's dialect reads it, and as earlier ones do.
#[derive(Clone, Debug)]
pub struct Readings {
    today: Result<Arc<View>, PipelineError>,
    earlier: Vec<Arc<View>>,
}

impl Readings {
    /// Compiles a view under every dialect that understands it.
    ///
    /// # Errors
    /// No dialect understands it: what today's says.
    pub async fn of(engine: &Engine, pipeline: &Pipeline, text: &ViewText) -> Result<Self, PipelineError> {
        let today = compile(engine, pipeline, text).await;
        let mut earlier = vec![];
        for dialect in (1..TODAY.0).rev().map(Dialect) {
            earlier.extend(compile_under(engine, pipeline, text, dialect).await.ok());
        }
        match today {
            Err(error) if earlier.is_empty() => Err(error),
            today => Ok(Self { today, earlier }),
        }
    }

    /// The version that the pipeline means: an active one of the same text, whatever its dialect, the one chosen last; else
    /// today's.
    ///
    /// # Errors
    /// No version of the text is active, and today's dialect refuses it.
    pub fn chosen(&self, ledger: &Ledger) -> Result<&Arc<View>, PipelineError> {
        let chosen = |view: &&Arc<View>| {
            let state = ledger.versions.get(&view.version).filter(|state| state.active);
            state.map(|state| state.chosen)
        };
        let known = self.all().filter(|view| chosen(view).is_some()).max_by_key(chosen);
        known.map_or_else(|| self.today(), Ok)
    }

    /// The next entry on the way to the ledger having what the pipeline means; none if it has. `starts` says that its writer starts: then it
    /// also takes back what another process has chosen. Else two processes with two pipelines would undo each other's choices indefinitely.
    ///
    /// # Errors
    /// As of [`chosen`](Self::chosen).
    pub fn next_entry(
        &self,
        ledger: &Ledger,
        starts: bool,
    ) -> Result<Option<(Arc<View>, Toward, Body)>, PipelineError> {
        let view = self.chosen(ledger)?;
        let toward = ledger.toward(&view.name, &view.version).filter(|toward| starts || *toward == Toward::Declare);
        Ok(toward.map(|toward| {
            let body = match toward {
                Toward::Declare => view.declaration(),
                Toward::Select => Body::Selected { version: view.version.clone() },
                Toward::Retire => Body::Retired { versions: vec![view.version.clone()] },
            };
            (Arc::clone(view), toward, body)
        }))
    }

    /// The view as today's dialect reads it.
    ///
    /// # Errors
    /// Today's dialect refuses it.
    pub fn today(&self) -> Result<&Arc<View>, PipelineError> {
        self.today.as_ref().map_err(Clone::clone)
    }

    /// The view as the newest dialect that understands it reads it: for its name and its columns.
    pub fn any(&self) -> &Arc<View> {
        self.all().next().expect("one dialect understands it, else it is not made")
    }

    fn all(&self) -> impl Iterator<Item = &Arc<View>> {
        self.today.iter().chain(&self.earlier)
    }
}
