//! How far work over the archive has come, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Rows that were read, and of how many; its clones are one.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    what: Mutex<String>,
    rows: AtomicU64,
    of: AtomicU64,
}

/// What a [`Progress`] says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// What is being done.
    pub what: String,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that the files to read hold; 0 if that is not known.
    pub of: u64,
}

impl Progress {
    /// Something new begins, over files with this many rows.
    pub fn begin(&self, what: impl Into<String>, of: u64) {
        *self.0.what.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
        self.0.rows.store(0, Ordering::Relaxed);
        self.0.of.store(of, Ordering::Relaxed);
    }

    /// So many rows were read by now.
    pub fn at(&self, rows: u64) {
        self.0.rows.store(rows, Ordering::Relaxed);
    }

    /// So many more rows were read.
    pub fn add(&self, rows: u64) {
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
    }

    /// What it says now.
    pub fn reached(&self) -> Reached {
        Reached {
            what: self.0.what.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            rows: self.0.rows.load(Ordering::Relaxed),
            of: self.0.of.load(Ordering::Relaxed),
        }
    }
}
