//! Who waits for what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// What a component waits for until it says otherwise: no news.
const STARTING: &str = "starting";

/// What every component of a process waits for. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeMap<String, Option<String>>>>,
}

/// One component's voice.
#[derive(Clone, Debug)]
pub struct Component {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// Adds a component, which is starting until it says otherwise.
    pub fn component(&self, name: impl Into<String>) -> Component {
        let component = Component { name: name.into(), readiness: self.clone() };
        component.waiting(STARTING);
        component
    }

    /// Adds a component that waits for nothing until it says otherwise.
    pub fn ready_component(&self, name: impl Into<String>) -> Component {
        let component = Component { name: name.into(), readiness: self.clone() };
        self.waiting.lock().expect("no holder panics").insert(component.name.clone(), None);
        component
    }

    /// Why the service is not ready; empty if it is.
    pub fn reasons(&self) -> Vec<String> {
        let waiting = self.waiting.lock().expect("no holder panics");
        waiting.iter().filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_ref()?))).collect()
    }

    /// Whether nobody waits.
    pub fn is_ready(&self) -> bool {
        self.reasons().is_empty()
    }
}

impl Component {
    /// Says what it waits for.
    pub fn waiting(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Says that it waits for nothing.
    pub fn ready(&self) {
        self.set(None);
    }

    fn set(&self, reason: Option<String>) {
        let mut waiting = self.readiness.waiting.lock().expect("no holder panics");
        let before = waiting.insert(self.name.clone(), reason.clone());
        if before != Some(reason.clone()) {
            match reason {
                Some(reason) if reason == STARTING => {}
                Some(reason) => tracing::info!(component = self.name, reason, "waiting"),
                None => tracing::info!(component = self.name, "ready"),
            }
        }
    }
}
