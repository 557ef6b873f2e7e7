//! A reader of assigned partitions, in batches.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bifold_ledger::TopicPartition;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::native::{Batch, Event};
use crate::{Chunk, ChunkBuilder, Error, Reader, Start};

/// How long partitions may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct KafkaReader {
    // Dropped before the consumer: it holds the consumer's queue.
    batch: Batch,
    consumer: BaseConsumer,
    brokers: String,
    with_keys: bool,
    partitions: Arc<[TopicPartition]>,
    places: HashMap<(String, i32), usize>,
    next: Vec<i64>,
}

impl KafkaReader {
    pub(super) fn new(consumer: BaseConsumer, with_keys: bool, brokers: String) -> Self {
        let batch = Batch::new(&consumer);
        Self { batch, consumer, brokers, with_keys, partitions: Arc::default(), places: HashMap::new(), next: vec![] }
    }
}

impl Reader for KafkaReader {
    fn assign(&mut self, starts: &[Start]) -> Result<(), Error> {
        self.partitions = starts.iter().map(|start| start.at.clone()).collect();
        self.places = starts.iter().enumerate().map(|(i, s)| ((s.at.topic.clone(), s.at.partition), i)).collect();
        self.next = starts.iter().map(|start| start.next).collect();
        let unavailable = |why| Error::Unavailable { at: self.brokers.clone(), why };
        self.batch.assign(&self.consumer, starts).map_err(unavailable)?;
        // librdkafka (2.12.1) aborts the process if a partition is taken away again before it has stopped. The
        // order to stop and its answer follow each other through the queue of librdkafka's main thread: so do these
        // two questions, behind them.
        for _ in 0..2 {
            self.consumer.assignment().map_err(|e| unavailable(e.to_string()))?;
        }
        // A commit under way holds the start of partitions up until it is answered.
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.batch.check_epochs(&self.consumer, starts).map_err(unavailable)? {
            if Instant::now() > deadline {
                return Err(unavailable("assigned partitions do not start".to_string()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn poll(&mut self, max_records: usize, wait: Duration) -> Result<Chunk, Error> {
        let mut chunk = ChunkBuilder::new(Arc::clone(&self.partitions));
        let (places, next, partitions) = (&self.places, &mut self.next, &self.partitions);
        let mut failure = None;
        // Records of one partition come in long runs: the last partition's place is remembered by its pointer.
        let mut last: Option<((usize, i32), usize)> = None;
        self.batch.consume(max_records, wait, self.with_keys, &mut chunk, |event, chunk| match event {
            Event::Record { topic, topic_key, partition, offset, timestamp_ms, key, value, leader_epoch } => {
                let index = match last {
                    Some((known, index)) if known == (topic_key, partition) => index,
                    _ => match places.get(&(topic().to_string(), partition)) {
                        Some(index) => *index,
                        None => return false,
                    },
                };
                last = Some(((topic_key, partition), index));
                // What was fetched before a new assignment is not ours any more.
                if offset < next[index] {
                    return false;
                }
                next[index] = offset + 1;
                chunk.record(index, offset, timestamp_ms, key, value);
                chunk.position(index, offset + 1, leader_epoch);
                true
            }
            Event::End { topic, partition, offset } => {
                if let Some(index) = places.get(&(topic.to_string(), partition)).copied()
                    && offset > next[index]
                {
                    next[index] = offset;
                    // What was passed may be of a later epoch than the last record, and nobody tells which.
                    chunk.position(index, offset, None);
                }
                false
            }
            Event::Reset { topic, partition, why } => {
                if let Some(index) = places.get(&(topic.to_string(), partition)).copied() {
                    let (at, next) = (partitions[index].clone(), next[index]);
                    failure = Some(match why.contains("truncat") {
                        true => Error::Truncated { at, next, why },
                        false => Error::OutOfRange { at, next },
                    });
                }
                false
            }
            Event::Error { why } => {
                tracing::warn!(%why, "the Kafka consumer reports an error; it goes on trying");
                false
            }
        });
        match failure {
            Some(failure) => Err(failure),
            None => Ok(chunk.build()),
        }
    }
}
