//! What a file holds, in place of states and rows: how often each record is counted.

use std::collections::BTreeMap;

use bytes::Bytes;

/// How often each (partition, offset) is counted.
pub(crate) type Counted = BTreeMap<(i32, i64), u32>;

/// A file's sections: the rows or dead letters of an archive file, the states of each version in a delta or run.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content(pub(crate) BTreeMap<String, Counted>);

impl Content {
    /// One section.
    pub(crate) fn of(name: impl Into<String>, counted: Counted) -> Self {
        Self([(name.into(), counted)].into())
    }

    /// As it is stored.
    pub(crate) fn write(&self) -> Bytes {
        let sections: BTreeMap<&String, Vec<(i32, i64, u32)>> = self
            .0
            .iter()
            .map(|(name, counted)| (name, counted.iter().map(|((p, o), times)| (*p, *o, *times)).collect()))
            .collect();
        serde_json::to_vec(&sections).expect("it is JSON").into()
    }

    /// What [`write`](Self::write) wrote.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let sections: BTreeMap<String, Vec<(i32, i64, u32)>> =
            serde_json::from_slice(bytes).expect("a file whose checksum holds is what was written");
        let counted = |list: Vec<(i32, i64, u32)>| list.into_iter().map(|(p, o, times)| ((p, o), times)).collect();
        Self(sections.into_iter().map(|(name, list)| (name, counted(list))).collect())
    }

    /// A section; empty if there is none.
    pub(crate) fn section(&self, name: &str) -> Counted {
        self.0.get(name).cloned().unwrap_or_default()
    }
}

/// Adds `more` to `counted`.
pub(crate) fn add(counted: &mut Counted, more: &Counted) {
    for (record, times) in more {
        *counted.entry(*record).or_default() += times;
    }
}

/// Counts `record` once more.
pub(crate) fn count(counted: &mut Counted, record: (i32, i64)) {
    *counted.entry(record).or_default() += 1;
}

/// The first records that are counted differently, for a message.
pub(crate) fn difference(have: &Counted, want: &Counted) -> String {
    let all = have.keys().chain(want.keys()).collect::<std::collections::BTreeSet<_>>();
    let wrong = all.into_iter().filter_map(|at| {
        let (have, want) = (have.get(at).copied().unwrap_or(0), want.get(at).copied().unwrap_or(0));
        (have != want).then(|| format!("p{}@{} counts {have} times, not {want}", at.0, at.1))
    });
    wrong.take(6).collect::<Vec<_>>().join(", ")
}
