//! Partitions, offset vectors and ranges of offsets.
//!
//! Every offset here is a Kafka position: the offset of the next record to read. A range `[start, end)` was seen
//! whole, also where transaction markers or aborted records leave numbers without a record.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A topic and the number of one of its partitions; written `topic/0`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition `partition` of `topic`.
    pub fn new(topic: impl Into<String>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// A text that is no `topic/partition` or no list of `topic/partition:next`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form {form}")]
pub struct NotOffsets {
    text: String,
    form: &'static str,
}

impl FromStr for TopicPartition {
    type Err = NotOffsets;

    fn from_str(text: &str) -> Result<Self, NotOffsets> {
        let bad = || NotOffsets { text: text.to_string(), form: "topic/partition" };
        let (topic, partition) = text.rsplit_once('/').ok_or_else(bad)?;
        let partition: i32 = partition.parse().map_err(|_| bad())?;
        if topic.is_empty() || partition < 0 {
            return Err(bad());
        }
        Ok(Self::new(topic, partition))
    }
}

impl Serialize for TopicPartition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TopicPartition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A vector of positions, one per partition. A partition that is absent stands at its origin.
///
/// As text: `topic/partition:next[,…]`, the OFFSETS of the command line and of HTTP.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offsets(pub BTreeMap<TopicPartition, i64>);

impl Offsets {
    /// The position in `at`, if it is named.
    pub fn get(&self, at: &TopicPartition) -> Option<i64> {
        self.0.get(at).copied()
    }

    /// The position in `at`, or the smallest possible one.
    pub fn or_zero(&self, at: &TopicPartition) -> i64 {
        self.get(at).unwrap_or(0)
    }

    /// Sets the position in `at` to `next` if that is further than what is there.
    pub fn advance(&mut self, at: &TopicPartition, next: i64) {
        match self.0.get_mut(at) {
            Some(position) => *position = (*position).max(next),
            None => {
                self.0.insert(at.clone(), next);
            }
        }
    }

    /// Advances every partition to the ends of `ranges`.
    pub fn advance_by(&mut self, ranges: &Ranges) {
        for (at, span) in ranges.iter().filter(|(_, span)| !span.is_empty()) {
            self.advance(at, span.end);
        }
    }

    /// The larger position per partition.
    pub fn max(mut self, other: &Offsets) -> Offsets {
        for (at, next) in &other.0 {
            self.advance(at, *next);
        }
        self
    }

    /// Whether this vector is at or above `other` in every partition that `other` names.
    pub fn reaches(&self, other: &Offsets) -> bool {
        other.0.iter().all(|(at, next)| self.or_zero(at) >= *next)
    }

    /// The partitions in which this vector is below `other`.
    pub fn short_of<'a>(&'a self, other: &'a Offsets) -> impl Iterator<Item = (&'a TopicPartition, i64, i64)> {
        other.0.iter().map(|(at, next)| (at, self.or_zero(at), *next)).filter(|(_, have, want)| have < want)
    }

    /// Whether no partition is named.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The partitions and their positions, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.0.iter().map(|(at, next)| (at, *next))
    }
}

impl FromIterator<(TopicPartition, i64)> for Offsets {
    fn from_iter<T: IntoIterator<Item = (TopicPartition, i64)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl fmt::Display for Offsets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (at, next)) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{at}:{next}")?;
        }
        Ok(())
    }
}

impl FromStr for Offsets {
    type Err = NotOffsets;

    fn from_str(text: &str) -> Result<Self, NotOffsets> {
        let mut offsets = Offsets::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let bad = || NotOffsets { text: part.to_string(), form: "topic/partition:next" };
            let (at, next) = part.rsplit_once(':').ok_or_else(bad)?;
            let next: i64 = next.parse().ok().filter(|next| *next >= 0).ok_or_else(bad)?;
            offsets.advance(&at.parse().map_err(|_| bad())?, next);
        }
        Ok(offsets)
    }
}

/// A half-open range of positions in one partition, with the leader epoch at its end where the log knows one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Span {
    /// The first position.
    pub start: i64,
    /// The position after the last.
    pub end: i64,
    /// The leader epoch of the last record seen before `end`; assigning with it lets the broker detect truncation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_epoch: Option<i32>,
}

impl Span {
    /// The range `[start, end)` without a leader epoch.
    pub fn new(start: i64, end: i64) -> Self {
        Self { start, end, leader_epoch: None }
    }

    /// Whether it holds no position.
    pub fn is_empty(&self) -> bool {
        self.end <= self.start
    }
}

/// One range per partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(pub BTreeMap<TopicPartition, Span>);

impl Ranges {
    /// The ranges, in order of partition.
    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Span)> {
        self.0.iter()
    }

    /// The range of one partition.
    pub fn get(&self, at: &TopicPartition) -> Option<&Span> {
        self.0.get(at)
    }

    /// Whether every range is empty.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(Span::is_empty)
    }

    /// The ends, as a vector.
    pub fn ends(&self) -> Offsets {
        self.0.iter().map(|(at, span)| (at.clone(), span.end)).collect()
    }

    /// The starts, as a vector.
    pub fn starts(&self) -> Offsets {
        self.0.iter().map(|(at, span)| (at.clone(), span.start)).collect()
    }

    /// How many positions the ranges hold.
    pub fn positions(&self) -> i64 {
        self.0.values().map(|span| (span.end - span.start).max(0)).sum()
    }

    /// Whether all ranges end at or below `cut`.
    pub fn below(&self, cut: &Offsets) -> bool {
        self.0.iter().all(|(at, span)| span.end <= cut.or_zero(at))
    }

    /// Whether all ranges start at or above `cut`.
    pub fn above(&self, cut: &Offsets) -> bool {
        self.0.iter().all(|(at, span)| span.start >= cut.or_zero(at))
    }
}

impl FromIterator<(TopicPartition, Span)> for Ranges {
    fn from_iter<T: IntoIterator<Item = (TopicPartition, Span)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}
