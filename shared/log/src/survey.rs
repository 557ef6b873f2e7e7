//! What a log holds of some topics, asked in one go.

use std::collections::{BTreeMap, BTreeSet};

use bifold_ledger::{Offsets, Ranges, Span, TopicPartition};

use crate::{Bounds, Error, Log};

/// What a log holds of some topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Topics that do not exist.
    pub missing: Vec<String>,
    /// The ids of those that do.
    pub ids: BTreeMap<String, String>,
    /// Their partitions, and where each starts and ends.
    pub bounds: BTreeMap<TopicPartition, Bounds>,
}

impl Survey {
    /// Where the partitions start.
    pub fn earliest(&self) -> Offsets {
        self.bounds.iter().map(|(at, bounds)| (at.clone(), bounds.earliest)).collect()
    }

    /// What the log has of these partitions.
    pub fn ranges(&self, of: &BTreeSet<TopicPartition>) -> Ranges {
        let own = self.bounds.iter().filter(|(at, _)| of.contains(*at));
        own.map(|(at, bounds)| (at.clone(), Span::new(bounds.earliest, bounds.end))).collect()
    }

    /// Where the partitions end.
    pub fn ends(&self) -> Offsets {
        self.bounds.iter().map(|(at, bounds)| (at.clone(), bounds.end)).collect()
    }
}

/// Asks `log` for `topics`.
///
/// # Errors
/// [`Error::Unavailable`] if the log cannot be asked.
pub async fn survey(log: &dyn Log, topics: &[String]) -> Result<Survey, Error> {
    let found = log.describe(topics).await?;
    let missing = topics.iter().filter(|topic| !found.contains_key(*topic)).cloned().collect();
    let mut partitions = vec![];
    for (name, topic) in &found {
        partitions.extend((0..topic.partitions).map(|partition| TopicPartition::new(name, partition)));
    }
    let bounds = log.bounds(&partitions).await?;
    let ids = found.into_iter().map(|(name, topic)| (name, topic.id)).collect();
    Ok(Survey { missing, ids, bounds })
}

/// The ids of `topics` now. What was read of a topic before it was asked for is of the topic with this id: a topic that was deleted and
/// made again reads on at the same offsets, and nothing but the id tells.
///
/// # Errors
/// [`Error::Unavailable`] if the log cannot be asked, [`Error::Missing`] for a topic that is gone.
pub async fn topic_ids(log: &dyn Log, topics: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let found = log.describe(topics).await?;
    match topics.iter().find(|topic| !found.contains_key(*topic)) {
        Some(gone) => Err(Error::Missing { what: gone.clone() }),
        None => Ok(found.into_iter().map(|(name, topic)| (name, topic.id)).collect()),
    }
}
