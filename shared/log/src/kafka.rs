//! Apache Kafka, through librdkafka.
//!
//! Readers are assigned partitions; which ones, a member of the group says, which is a consumer of its own. Positions come from
//! the records and from the end-of-partition events, which pass over transaction markers.

mod member;
mod native;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bifold_ledger::{Offsets, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::{Bounds, Error, Log, Member, NewRecord, Reader, ReaderOptions, Topic};

/// How long one question to the brokers may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a record may wait for its acknowledgement.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);

/// Questions asked at a time.
const QUESTIONS: usize = 8;

/// What is set before the user's own properties.
const DEFAULTS: [(&str, &str); 4] = [
    ("client.id", "bifold"),
    ("reconnect.backoff.max.ms", "500"),
    ("fetch.queue.backoff.ms", "5"),
    ("fetch.wait.max.ms", "20"),
];

/// Properties of a consumer that exactness rests on: the user's cannot change them.
const CONSUMER: [(&str, &str); 6] = [
    ("isolation.level", "read_committed"),
    ("auto.offset.reset", "error"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
];

/// Properties of the producer.
const PRODUCER: [(&str, &str); 9] = [
    // A record that is reported as failed is not appended later.
    ("message.timeout.ms", "55000"),
    ("topic.metadata.propagation.max.ms", "5000"),
    // Larger records are the broker's to refuse: what it takes becomes an event or a dead letter.
    ("message.max.bytes", "67108864"),
    ("enable.idempotence", "true"),
    // A topic is created on purpose or not at all, even where brokers would create it.
    ("allow.auto.create.topics", "false"),
    ("partitioner", "murmur2_random"),
    ("compression.codec", "lz4"),
    ("linger.ms", "5"),
    ("queue.buffering.max.messages", "500000"),
];

/// The bytes of one answer of a broker; a single record may be larger.
const FETCH_MAX_BYTES: &str = "fetch.max.bytes";

/// The group of the client that asks; it consumes nothing.
const QUESTIONS_GROUP: &str = "bifold-questions";
/// Descriptions in a row that fail before another client asks.
const REPLACED_AFTER: u32 = 2;

/// A Kafka cluster.
pub struct KafkaLog {
    brokers: String,
    config: ClientConfig,
    properties: BTreeMap<String, String>,
    /// The client that is asked, and how often in a row the cluster's description was not to be had from it.
    questions: Mutex<(Arc<BaseConsumer>, u32)>,
    producer: tokio::sync::OnceCell<FutureProducer>,
}

impl std::fmt::Debug for KafkaLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaLog").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl KafkaLog {
    /// A client of the cluster at `brokers`. Does not connect yet.
    ///
    /// # Errors
    /// [`Error::Invalid`] for properties that librdkafka refuses.
    pub fn new(brokers: &str, properties: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut config = ClientConfig::new();
        for (name, value) in DEFAULTS {
            config.set(name, value);
        }
        for (name, value) in properties {
            config.set(name, value);
        }
        config.set("bootstrap.servers", brokers);
        config.set_log_level(rdkafka::config::RDKafkaLogLevel::Warning);
        let questions = consumer(&config, QUESTIONS_GROUP)?;
        Ok(Self {
            brokers: brokers.to_string(),
            config,
            properties: properties.clone(),
            questions: Mutex::new((Arc::new(questions), 0)),
            producer: tokio::sync::OnceCell::new(),
        })
    }

    fn unavailable(&self, why: impl ToString) -> Error {
        Error::Unavailable { at: self.brokers.clone(), why: why.to_string() }
    }

    fn not_appended(&self, topic: &str, error: KafkaError) -> Error {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                Error::Missing { what: topic.to_string() }
            }
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                Error::TooLarge { why: format!("{topic}: {error}") }
            }
            _ => self.unavailable(error),
        }
    }

    /// Runs a blocking question off the async threads.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&BaseConsumer) -> Result<T, String> + Send + 'static,
    ) -> Result<T, Error> {
        let client = Arc::clone(&self.questions().0);
        let answer = tokio::task::spawn_blocking(move || question(&client)).await;
        answer.map_err(|e| self.unavailable(e))?.map_err(|why| self.unavailable(why))
    }

    fn questions(&self) -> std::sync::MutexGuard<'_, (Arc<BaseConsumer>, u32)> {
        self.questions.lock().expect("no holder panics")
    }

    /// Notes whether the cluster could be described. A client that a broker's restart has left without a controller may wait for
    /// one for ever: it is replaced.
    fn described(&self, done: bool) -> Result<(), Error> {
        let mut questions = self.questions();
        questions.1 = if done { 0 } else { questions.1 + 1 };
        if questions.1 >= REPLACED_AFTER {
            let old = std::mem::replace(&mut *questions, (Arc::new(consumer(&self.config, QUESTIONS_GROUP)?), 0));
            drop(questions);
            // Its end may take a while.
            tokio::task::spawn_blocking(move || drop(old));
        }
        Ok(())
    }

    async fn producer(&self) -> Result<&FutureProducer, Error> {
        let create = || async {
            let mut config = self.config.clone();
            for (name, value) in PRODUCER {
                config.set(name, value);
            }
            config.create().map_err(|e: KafkaError| Error::Invalid { why: e.to_string() })
        };
        self.producer.get_or_try_init(create).await
    }
}

/// What is fetched ahead by a process of so much memory. A record that waits costs a few hundred bytes beside its own; an answer of a
/// broker is taken apart at once, however many partitions it is of, so it has to be small.
fn read_ahead(memory: u64) -> [(&'static str, String); 3] {
    [
        (FETCH_MAX_BYTES, (memory / 64).clamp(1 << 20, 50 << 20).to_string()),
        ("queued.max.messages.kbytes", (memory / 16 / 1024).clamp(1024, 65_536).to_string()),
        ("queued.min.messages", (memory / 4096).clamp(1000, 200_000).to_string()),
    ]
}

fn consumer(config: &ClientConfig, group: &str) -> Result<BaseConsumer, Error> {
    let mut config = config.clone();
    for (name, value) in CONSUMER {
        config.set(name, value);
    }
    config.set("group.id", group);
    config.create().map_err(|e| Error::Invalid { why: e.to_string() })
}

#[async_trait::async_trait]
impl Log for KafkaLog {
    async fn describe(&self, names: &[String]) -> Result<BTreeMap<String, Topic>, Error> {
        // librdkafka refuses to be asked for a topic twice.
        let names: Vec<String> = names.iter().collect::<BTreeSet<_>>().into_iter().cloned().collect();
        let described = self.ask(move |client| native::describe_topics(client, &names, ASK_TIMEOUT)).await;
        self.described(described.is_ok())?;
        described
    }

    async fn bounds(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, Bounds>, Error> {
        // One question each, several at a time: a broker far away would make many partitions wait for each other.
        let each = partitions.len().div_ceil(QUESTIONS).max(1);
        let asked = partitions.chunks(each).map(|some| {
            let some = some.to_vec();
            self.ask(move |client| {
                let one = |at: &TopicPartition| match client.fetch_watermarks(&at.topic, at.partition, ASK_TIMEOUT) {
                    Ok((earliest, end)) => Ok(Ok((at.clone(), Bounds { earliest, end }))),
                    Err(error) => match error.rdkafka_error_code() {
                        Some(RDKafkaErrorCode::UnknownPartition | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                            Ok(Err(Error::Missing { what: at.to_string() }))
                        }
                        _ => Err(error.to_string()),
                    },
                };
                some.iter().map(one).collect::<Result<Result<Vec<_>, Error>, String>>()
            })
        });
        let mut bounds = BTreeMap::new();
        for some in futures::future::join_all(asked).await {
            bounds.extend(some??);
        }
        Ok(bounds)
    }

    async fn append(&self, topic: &str, records: Vec<NewRecord>) -> Result<Offsets, Error> {
        let producer = self.producer().await?;
        let mut sent = Vec::with_capacity(records.len());
        for record in &records {
            let mut message = FutureRecord::<[u8], [u8]>::to(topic);
            message.key = record.key.as_deref();
            message.payload = record.value.as_deref();
            loop {
                match producer.send_result(message) {
                    Ok(delivery) => break sent.push(delivery),
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                        message = back;
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    Err((error, _)) => return Err(self.not_appended(topic, error)),
                }
            }
        }
        let mut ends = Offsets::default();
        for delivery in sent {
            let delivered = tokio::time::timeout(DELIVERY_TIMEOUT, delivery).await;
            match delivered.map_err(|e| self.unavailable(e))?.map_err(|e| self.unavailable(e))? {
                Ok(delivery) => ends.advance(&TopicPartition::new(topic, delivery.partition), delivery.offset + 1),
                Err((error, _)) => return Err(self.not_appended(topic, error)),
            }
        }
        Ok(ends)
    }

    async fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        let admin: AdminClient<DefaultClientContext> =
            self.config.create().map_err(|e| Error::Invalid { why: e.to_string() })?;
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT)).operation_timeout(Some(ASK_TIMEOUT));
        let created = admin.create_topics([&topic], &options).await;
        match created.map_err(|e| self.unavailable(e))?.pop() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | Some(Ok(_)) => Ok(()),
            Some(Err((name, code))) => Err(Error::Invalid { why: format!("topic {name}: {code}") }),
            None => Err(self.unavailable("no answer to the creation of a topic")),
        }
    }

    fn reader(&self, options: ReaderOptions) -> Result<Box<dyn Reader>, Error> {
        let mut config = self.config.clone();
        let own = |name: &str| self.properties.contains_key(name);
        for (name, value) in read_ahead(options.memory).into_iter().filter(|(name, _)| !own(name)) {
            // It has to lie between the two: who sets them sets it.
            if name != FETCH_MAX_BYTES || !(own("message.max.bytes") || own("receive.message.max.bytes")) {
                config.set(name, value);
            }
        }
        let consumer = consumer(&config, "bifold-reader")?;
        Ok(Box::new(reader::KafkaReader::new(consumer, options.with_keys, self.brokers.clone())))
    }

    fn join(&self, group: &str, topics: &[String]) -> Result<Box<dyn Member>, Error> {
        let own: Vec<&String> = self.properties.keys().collect();
        let member = member::KafkaMember::new(&self.config, &own, group, topics);
        Ok(Box::new(member.map_err(|e| Error::Invalid { why: e.to_string() })?))
    }
}
