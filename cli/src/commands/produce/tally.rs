//! What of the records that are sent views will not count: they are decoded here as every layer does.

use std::collections::BTreeMap;
use std::sync::Arc;

use bifold_fold::{Decoder, Envelope, Reason, Source};

/// Rows after which the decoder's are dropped.
const MOST_ROWS: usize = 65_536;

/// Dead letters by reason.
pub(super) struct Tally {
    source: String,
    decoder: Decoder,
    reasons: BTreeMap<Reason, Found>,
    records: u64,
}

struct Found {
    count: u64,
    /// Where the first one stands, and what is wrong with it.
    first: String,
}

impl Tally {
    pub(super) fn new(source: &Arc<Source>) -> Self {
        let decoder = Decoder::new(Arc::clone(source), |_| false);
        Self { source: source.name.clone(), decoder, reasons: BTreeMap::new(), records: 0 }
    }

    /// Judges a record that is sent now; `place` says where it comes from.
    pub(super) fn add(&mut self, value: &[u8], place: impl Fn() -> String) {
        let timestamp_ms = chrono::Utc::now().timestamp_millis();
        let mut dead = vec![];
        self.decoder.push(Envelope { topic: "", partition: 0, offset: 0, timestamp_ms, value }, &mut dead);
        if self.decoder.rows() > MOST_ROWS {
            self.decoder.finish();
        }
        self.records += 1;
        for letter in dead {
            let first = || Found { count: 0, first: format!("{}: {}", place(), letter.detail) };
            self.reasons.entry(letter.reason).or_insert_with(first).count += 1;
        }
    }

    /// What to say of them. None if there are none.
    pub(super) fn warning(&self) -> Option<String> {
        let all: u64 = self.reasons.values().map(|found| found.count).sum();
        let (reason, commonest) = self.reasons.iter().max_by_key(|(_, found)| found.count)?;
        let (records, source, count) = (self.records, &self.source, commonest.count);
        Some(format!(
            "{all} dead letters in {records} records, which no view of source {source} counts; {count} of them are {}, the first in {}",
            reason.name(),
            commonest.first
        ))
    }
}
