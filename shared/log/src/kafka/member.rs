//! Membership in a consumer group, apart from reading: this consumer owns partitions and fetches nothing. A rebalance is
//! cooperative, and waits until the instance has committed what it read of the partitions that it loses.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bifold_ledger::{Offsets, TopicPartition};
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::{Error, Member, Owned, Turn};

/// How long the brokers may take to say who is in a group.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Events taken in one poll at most.
const EVENTS: usize = 16;

/// What is set before the user's own properties.
const DEFAULTS: [(&str, &str); 3] = [
    // A member that was killed holds its partitions for this long.
    ("session.timeout.ms", "6000"),
    ("heartbeat.interval.ms", "1000"),
    // How soon added partitions are shared out.
    ("topic.metadata.refresh.interval.ms", "5000"),
];

/// What the user's properties cannot change.
const MEMBER: [(&str, &str); 5] = [
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "latest"),
    ("allow.auto.create.topics", "false"),
];

#[derive(Debug, Default)]
struct State {
    /// None until the group has been formed for the first time.
    owned: Option<BTreeSet<TopicPartition>>,
    /// What waits to be given back.
    leaving: Vec<TopicPartition>,
    changed: bool,
    closing: bool,
}

/// What rebalances do to a member.
#[derive(Clone, Debug, Default)]
struct Rebalances(Arc<Mutex<State>>);

impl Rebalances {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no holder panics")
    }
}

impl ClientContext for Rebalances {}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let named = list.elements();
        let named = named.iter().map(|e| TopicPartition::new(e.topic(), e.partition()));
        let mut state = self.state();
        let done = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                state.owned.get_or_insert_default().extend(named);
                state.changed = true;
                consumer.incremental_assign(list).and_then(|()| consumer.pause(list))
            }
            _ if state.closing => consumer.incremental_unassign(list),
            _ => {
                state.leaving.extend(named);
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "a rebalance could not be followed; the group tries again");
        }
    }
}

/// A member of a Kafka consumer group.
pub(super) struct KafkaMember {
    consumer: BaseConsumer<Rebalances>,
    rebalances: Rebalances,
    /// Until the group has been formed: whether nobody else was in it when this member came. It then owns everything at once, for a
    /// predecessor that was killed would hold it up until its session is over.
    alone: bool,
    /// The last error.
    trouble: Option<String>,
}

impl KafkaMember {
    pub(super) fn new(
        config: &ClientConfig,
        user: &[&String],
        group: &str,
        topics: &[String],
    ) -> Result<Self, KafkaError> {
        let mut config = config.clone();
        for (name, value) in DEFAULTS {
            if !user.iter().any(|own| *own == name) {
                config.set(name, value);
            }
        }
        for (name, value) in MEMBER {
            config.set(name, value);
        }
        config.set("group.id", group);
        let rebalances = Rebalances::default();
        let consumer: BaseConsumer<Rebalances> = config.create_with_context(rebalances.clone())?;
        let members = consumer.fetch_group_list(Some(group), ASK_TIMEOUT);
        // Brokers that cannot say have not seen a group yet, or their answer does not matter: nothing can be read then.
        let alone = match members {
            Ok(list) => list.groups().iter().all(|group| group.members().len() <= 1),
            Err(error) => {
                tracing::debug!(group, %error, "the brokers do not say who is in the group");
                true
            }
        };
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        Ok(Self { consumer, rebalances, alone, trouble: None })
    }
}

impl Member for KafkaMember {
    fn poll(&mut self) -> Result<Turn, Error> {
        for _ in 0..EVENTS {
            match self.consumer.poll(Duration::ZERO) {
                None => break,
                // Fetched before it was paused: its reader is another.
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "the group's member reports an error; it goes on trying");
                    self.trouble = Some(error.to_string());
                }
            }
        }
        let mut state = self.rebalances.state();
        if !state.leaving.is_empty() {
            return Ok(Turn::Release);
        }
        match std::mem::take(&mut state.changed) {
            true => Ok(Turn::Changed),
            false => Ok(Turn::Stay),
        }
    }

    fn owned(&self) -> Owned {
        match &self.rebalances.state().owned {
            Some(partitions) => Owned::These(partitions.clone()),
            None if self.alone => Owned::All,
            None => Owned::Unknown,
        }
    }

    fn release(&mut self) {
        let leaving = {
            let mut state = self.rebalances.state();
            let leaving = std::mem::take(&mut state.leaving);
            if let Some(owned) = &mut state.owned {
                owned.retain(|at| !leaving.contains(at));
            }
            leaving
        };
        if leaving.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for at in &leaving {
            list.add_partition(&at.topic, at.partition);
        }
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            tracing::warn!(%error, "partitions could not be given back; the group tries again");
        }
    }

    fn commit(&mut self, positions: &Offsets) {
        let mut list = TopicPartitionList::new();
        for (at, next) in positions.iter() {
            if let Err(error) = list.add_partition_offset(&at.topic, at.partition, Offset::Offset(next)) {
                tracing::debug!(%error, "a position was not committed to the group");
            }
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            tracing::debug!(%error, "positions were not committed to the group");
        }
    }

    fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        // The consumer leaves the group when it is dropped, which ends with a rebalance of its own.
        self.rebalances.state().closing = true;
        self.release();
    }
}
