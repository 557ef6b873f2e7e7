//! Partitions of a source that no instance of a role reads, though the log has something for it there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bifold_ledger::TopicPartition;

use crate::Survey;

/// Watches the partitions that other instances have. An instance that reads a partition moves its frontier in the ledger; a frontier
/// that stands while the log goes on is nobody's.
#[derive(Debug)]
pub struct Unread {
    after: Duration,
    standing: BTreeMap<TopicPartition, (i64, Instant)>,
}

impl Unread {
    /// A partition is unread when its frontier has stood still for `after`.
    pub fn new(after: Duration) -> Self {
        Self { after, standing: BTreeMap::new() }
    }

    /// What is unread now, and how many offsets each lies behind; `mine` is what this instance reads, `frontier` how far the
    /// ledger is.
    pub fn look(
        &mut self,
        survey: &Survey,
        mine: &BTreeSet<TopicPartition>,
        frontier: impl Fn(&TopicPartition) -> i64,
        now: Instant,
    ) -> BTreeMap<TopicPartition, i64> {
        self.standing.retain(|at, _| survey.bounds.contains_key(at) && !mine.contains(at));
        let mut unread = BTreeMap::new();
        for (at, bounds) in survey.bounds.iter().filter(|(at, _)| !mine.contains(at)) {
            let reached = frontier(at).max(bounds.earliest);
            let (stood, since) = *self.standing.entry(at.clone()).or_insert((reached, now));
            if stood != reached || reached >= bounds.end {
                self.standing.insert(at.clone(), (reached, now));
            } else if now.duration_since(since) >= self.after {
                unread.insert(at.clone(), bounds.end - reached);
            }
        }
        unread
    }

    /// What to say of unread partitions. None if there are none.
    pub fn why(unread: &BTreeMap<TopicPartition, i64>, group: &str) -> Option<String> {
        let (at, behind) = unread.first_key_value()?;
        let more =
            if unread.len() > 1 { format!(" (and {} more partitions)", unread.len() - 1) } else { String::new() };
        Some(format!(
            "nobody reads {at}{more}: it lies {behind} offsets behind the log and stands still; see which members the consumer \
             group {group} has"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Bounds;

    fn survey(ends: &[i64]) -> Survey {
        let bounds = ends
            .iter()
            .enumerate()
            .map(|(p, end)| (TopicPartition::new("t", p as i32), Bounds { earliest: 0, end: *end }));
        Survey { bounds: bounds.collect(), ..Survey::default() }
    }

    #[test]
    fn a_partition_that_stands_behind_the_log_is_unread_and_one_that_moves_is_not() {
        let mine = BTreeSet::from([TopicPartition::new("t", 0)]);
        let (begin, minute) = (Instant::now(), Duration::from_secs(60));
        let mut unread = Unread::new(minute);
        let mut look = |halves: u32, ends: &[i64], reached: &[i64]| {
            let frontier = |at: &TopicPartition| reached[at.partition as usize];
            let found = unread.look(&survey(ends), &mine, frontier, begin + minute / 2 * halves);
            found.into_iter().map(|(at, behind)| (at.partition, behind)).collect::<Vec<_>>()
        };
        // Of partition 0, which is its own, it says nothing.
        assert_eq!(look(0, &[9, 9, 9], &[0, 5, 9]), []);
        assert_eq!(look(1, &[9, 9, 9], &[0, 6, 9]), []);
        assert_eq!(look(2, &[9, 9, 9], &[0, 6, 9]), []);
        // The frontier of 1 has stood for a minute; 2 is at the end of the log.
        assert_eq!(look(3, &[9, 10, 9], &[0, 6, 9]), [(1, 4)]);
        // 2 gets records: the time counts from when it was last at the end.
        assert_eq!(look(4, &[9, 10, 12], &[0, 10, 9]), []);
        assert_eq!(look(5, &[9, 10, 12], &[0, 10, 9]), [(2, 3)]);
        assert_eq!(look(6, &[9, 10, 12], &[0, 10, 12]), []);
    }
}
