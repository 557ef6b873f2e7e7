//! The log: partitions that grow, with offsets that no reader sees, and a head that is dropped.

use std::collections::BTreeMap;

use bifold_ledger::{Offsets, TopicPartition};

use crate::clock::now_us;
use crate::content::Counted;
use crate::rng::mix;

/// The topic.
pub(crate) const TOPIC: &str = "w";

/// The partition `number`.
pub(crate) fn p(number: i32) -> TopicPartition {
    TopicPartition::new(TOPIC, number)
}

/// What stands at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    /// An event of every view.
    Event,
    /// A record that does not decode.
    Dead,
    /// A transaction's marker: no reader sees it.
    Marker,
}

/// Where a partition starts and ends now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bounds {
    /// The oldest offset there is.
    pub(crate) earliest: i64,
    /// The next one to be written.
    pub(crate) end: i64,
}

/// Records polled, and up to where.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) events: Vec<(i32, i64)>,
    pub(crate) dead: Vec<(i32, i64)>,
    pub(crate) positions: Vec<(TopicPartition, i64)>,
}

/// The position asked for is no longer there.
#[derive(Debug)]
pub(crate) struct OutOfRange;

/// All partitions of the topic.
#[derive(Debug)]
pub(crate) struct Log {
    seed: u64,
    bounds: Vec<Bounds>,
    /// The partitions' bounds before their heads were dropped, and when that was.
    before: Vec<(u64, Bounds)>,
}

impl Log {
    /// Partitions that start at `origins`.
    pub(crate) fn new(seed: u64, origins: &[i64]) -> Self {
        let bounds: Vec<_> = origins.iter().map(|at| Bounds { earliest: *at, end: *at }).collect();
        Self { seed, before: bounds.iter().map(|bounds| (0, *bounds)).collect(), bounds }
    }

    /// What stands at an offset.
    pub(crate) fn record(&self, partition: i32, offset: i64) -> Record {
        match mix(self.seed ^ mix(((partition as u64) << 32) | offset as u64)) % 10 {
            0 => Record::Marker,
            1 => Record::Dead,
            _ => Record::Event,
        }
    }

    /// Where the partitions start and end.
    pub(crate) fn bounds(&self) -> BTreeMap<TopicPartition, Bounds> {
        self.bounds.iter().enumerate().map(|(i, bounds)| (p(i as i32), *bounds)).collect()
    }

    /// Where the partitions end.
    pub(crate) fn ends(&self) -> Offsets {
        self.bounds.iter().enumerate().map(|(i, bounds)| (p(i as i32), bounds.end)).collect()
    }

    /// How many partitions there are.
    pub(crate) fn partitions(&self) -> usize {
        self.bounds.len()
    }

    /// Writes `records` more into a partition.
    pub(crate) fn grow(&mut self, partition: usize, records: i64) {
        self.bounds[partition].end += records;
    }

    /// Adds a partition, which starts at 0.
    pub(crate) fn add(&mut self) {
        self.bounds.push(Bounds { earliest: 0, end: 0 });
        self.before.push((0, Bounds { earliest: 0, end: 0 }));
    }

    /// Drops what lies below `earliest`.
    pub(crate) fn expire(&mut self, partition: usize, earliest: i64) {
        let bounds = &mut self.bounds[partition];
        self.before[partition] = (now_us(), *bounds);
        bounds.earliest = bounds.earliest.max(earliest.min(bounds.end));
    }

    /// Up to where a reader has fetched that began at `since_us` and stands at `from`, if it keeps up to `most` offsets. It fetches also
    /// while its process does something else, so that it has what was there before the head was dropped.
    pub(crate) fn fetch(&self, at: &TopicPartition, from: i64, (since_us, most): (u64, i64)) -> i64 {
        let bounds = self.bounds[at.partition as usize];
        let (dropped_us, before) = self.before[at.partition as usize];
        match from {
            _ if from >= bounds.earliest => bounds.end.min(from + most),
            _ if from >= before.earliest && since_us < dropped_us => before.end.min(from + most),
            _ => from,
        }
    }

    /// Up to `most` offsets from a position on, for a reader that has fetched up to `fetched`: those it keeps, though the log drops them.
    pub(crate) fn poll(
        &self,
        at: &TopicPartition,
        from: i64,
        (most, fetched): (i64, i64),
    ) -> Result<Chunk, OutOfRange> {
        let bounds = self.bounds[at.partition as usize];
        let to = match from < bounds.earliest {
            true if from >= fetched => return Err(OutOfRange),
            true => fetched.min(from + most),
            false => bounds.end.min(from + most),
        };
        let mut chunk = Chunk::default();
        for offset in from..to {
            match self.record(at.partition, offset) {
                Record::Event => chunk.events.push((at.partition, offset)),
                Record::Dead => chunk.dead.push((at.partition, offset)),
                Record::Marker => {}
            }
        }
        if to > from {
            chunk.positions.push((at.clone(), to));
        }
        Ok(chunk)
    }

    /// Each event of `[from, to)`, once.
    pub(crate) fn events(&self, partition: i32, from: i64, to: i64, into: &mut Counted) {
        for offset in from..to {
            if self.record(partition, offset) == Record::Event {
                *into.entry((partition, offset)).or_default() += 1;
            }
        }
    }

    /// Each dead letter of `[from, to)`, once.
    pub(crate) fn dead(&self, partition: i32, from: i64, to: i64, into: &mut Counted) {
        for offset in from..to {
            if self.record(partition, offset) == Record::Dead {
                *into.entry((partition, offset)).or_default() += 1;
            }
        }
    }
}
