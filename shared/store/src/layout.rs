//! Where everything lies. All object paths are made here.
//!
//! ```text
//! installation.json                                   the installation's name, put once
//! sources/<source>/ledger/<number, 20 digits>.json      entries
//! sources/<source>/ledger-head.json                     a hint: the newest entry and snapshot somebody saw
//! sources/<source>/ledger-snapshots/<number>.json       the state after an entry
//! sources/<source>/archive/<number>-<nonce>@<starts>.parquet
//! sources/<source>/dead-letters/<number>-<nonce>@<starts>.parquet
//! sources/<source>/deltas/<number>-<nonce>@<starts>.delta
//! sources/<source>/batch/<version>/<number>-<nonce>-<run>.parquet
//! sources/<source>/bases/<version>/<number>-<nonce>-<run>.parquet
//! sources/<source>/batch-runs/<start, 20 digits>.json   what batch runs did; nothing rests on them
//! sources/<source>/batch-plans/<nonce>.json             up to where a batch run under way is building; a hint
//! sources/<source>/probe/<nonce>                        for a moment, at a writer's start
//! ```
//!
//! `<number>` is the lowest entry that may name the file; `<starts>` is `topic.partition.offset` of each partition,
//! joined by `+`, broken into folders where a name would be longer than file systems take.

use bifold_ledger::{Nonce, Number, Ranges, VersionId};
use object_store::path::Path;

/// The longest part of a path between two slashes.
const LONGEST_NAME: usize = 180;

/// The paths of one source.
#[derive(Clone, Debug)]
pub struct Layout {
    root: Path,
    source: String,
}

impl Layout {
    /// The paths of `source` in a store whose objects start at `root`.
    pub fn new(root: &Path, source: &str) -> Self {
        Self { root: root.clone(), source: source.to_string() }
    }

    /// The source's name.
    pub fn source(&self) -> &str {
        &self.source
    }

    fn base(&self) -> Path {
        self.root.clone().join("sources").join(self.source.as_str())
    }

    /// The name of the installation, for all sources.
    pub fn installation(&self) -> Path {
        self.root.clone().join("installation.json")
    }

    /// An entry of the ledger.
    pub fn entry(&self, number: Number) -> Path {
        self.base().join("ledger").join(format!("{number:020}.json"))
    }

    /// The hint of the ledger's head.
    pub fn head(&self) -> Path {
        self.base().join("ledger-head.json")
    }

    /// A snapshot of the ledger.
    pub fn snapshot(&self, number: Number) -> Path {
        self.base().join("ledger-snapshots").join(format!("{number:020}.json"))
    }

    /// The folders of files that entries name.
    pub fn file_folders(&self) -> Vec<Path> {
        ["deltas", "archive", "dead-letters", "batch", "bases"]
            .into_iter()
            .map(|folder| self.base().join(folder))
            .collect()
    }

    /// An object's path below the source's folder, as entries name it.
    pub fn relative(&self, object: &Path) -> Option<String> {
        let base = format!("{}/", self.base());
        object.as_ref().strip_prefix(&base).map(str::to_string)
    }

    /// The folder of the plans of batch runs under way: hints for compaction; nothing rests on them.
    pub fn batch_plans(&self) -> Path {
        self.base().join("batch-plans")
    }

    /// The folder of batch runs' records.
    pub fn batch_runs(&self) -> Path {
        self.base().join("batch-runs")
    }

    /// The record of a batch run.
    pub fn batch_run(&self, name: &str) -> Path {
        self.batch_runs().join(format!("{name}.json"))
    }

    /// An object that is put to see how the store puts, and removed again.
    pub fn probe(&self, nonce: &str) -> Path {
        self.base().join("probe").join(nonce)
    }

    /// The object behind a file's path, which is relative to the source's folder.
    pub fn object(&self, relative: &str) -> Path {
        relative.split('/').fold(self.base(), |path, part| path.join(part))
    }

    /// A file of archived rows.
    pub fn archive(&self, number: Number, nonce: &Nonce, ranges: &Ranges) -> String {
        named("archive", number, nonce, ranges, "parquet")
    }

    /// A file of dead letters.
    pub fn dead_letters(&self, number: Number, nonce: &Nonce, ranges: &Ranges) -> String {
        named("dead-letters", number, nonce, ranges, "parquet")
    }

    /// The delta of an epoch.
    pub fn delta(&self, number: Number, nonce: &Nonce, ranges: &Ranges) -> String {
        named("deltas", number, nonce, ranges, "delta")
    }

    /// A run of a batch view.
    pub fn run(&self, version: &VersionId, number: Number, nonce: &Nonce, run: usize) -> String {
        format!("batch/{version}/{number:020}-{nonce}-{run}.parquet")
    }

    /// A run of a base view.
    pub fn base_view(&self, version: &VersionId, number: Number, nonce: &Nonce, run: usize) -> String {
        format!("bases/{version}/{number:020}-{nonce}-{run}.parquet")
    }
}

fn named(folder: &str, number: Number, nonce: &Nonce, ranges: &Ranges, extension: &str) -> String {
    let mut name = format!("{folder}/{number:020}-{nonce}@");
    let mut part = name.len() - folder.len() - 1;
    for (i, (at, span)) in ranges.iter().enumerate() {
        let start = format!("{}.{}.{}", at.topic.replace(':', "~"), at.partition, span.start);
        if part + start.len() + 1 > LONGEST_NAME {
            name.push('/');
            part = 0;
        } else if i > 0 {
            name.push('+');
            part += 1;
        }
        part += start.len();
        name.push_str(&start);
    }
    format!("{name}.{extension}")
}

#[cfg(test)]
mod tests {
    use bifold_ledger::{Span, TopicPartition};

    use super::*;

    #[test]
    fn a_file_of_many_partitions_has_no_part_that_is_too_long_for_a_file_system() {
        let ranges: Ranges = (0..300).map(|p| (TopicPartition::new("a-topic", p), Span::new(7, 9))).collect();
        let path = Layout::new(&Path::default(), "s").delta(12, &Nonce("n".into()), &ranges);
        assert!(path.starts_with("deltas/00000000000000000012-n@a-topic.0.7+a-topic.1.7+"), "{path}");
        assert!(path.split('/').all(|part| part.len() <= LONGEST_NAME + 10), "{path}");
        assert_eq!(path.matches("a-topic.").count(), 300);
    }
}
