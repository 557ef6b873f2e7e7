//! What rdkafka has no safe interface for: batch consume, topic ids, leader epochs.
//!
//! The only unsafe code of the project. Each block says which promise of librdkafka's header (`rdkafka.h`) it rests on.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::chunk::CHUNK_BYTES;
use crate::{ChunkBuilder, Start, Topic};

/// By how much more messages are asked for than have been taken.
const FASTER: usize = 64;

const NO_ERROR: rd::rd_kafka_resp_err_t = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;

/// Something that a consumer's queue delivered.
pub(super) enum Event<'a> {
    /// A record.
    Record {
        /// Gives the topic's name: costly enough not to be asked for every record.
        topic: &'a dyn Fn() -> &'a str,
        /// Equal for records of one topic.
        topic_key: usize,
        partition: i32,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&'a [u8]>,
        value: Option<&'a [u8]>,
        leader_epoch: Option<i32>,
    },
    /// The end of a partition: everything before `offset` has been delivered or passed over.
    End { topic: &'a str, partition: i32, offset: i64 },
    /// A position that the broker does not have.
    Reset { topic: &'a str, partition: i32, why: String },
    /// Anything else.
    Error { why: String },
}

/// A consumer's queue and room for a batch of its messages.
pub(super) struct Batch {
    queue: *mut rd::rd_kafka_queue_t,
    messages: Vec<*mut rd::rd_kafka_message_t>,
}

// SAFETY: librdkafka's queues may be used from any thread; `Batch` is used by one at a time (`&mut self`), and the
// message pointers in `messages` never outlive a call of `consume`.
unsafe impl Send for Batch {}

impl Batch {
    pub(super) fn new(consumer: &BaseConsumer) -> Self {
        // SAFETY: the client is valid while `consumer` lives; the queue reference taken here is given back on drop.
        let queue = unsafe { rd::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        assert!(!queue.is_null(), "a consumer with a group has a queue");
        Self { queue, messages: vec![] }
    }

    /// Takes up to `max` messages, or so many bytes as a chunk is to have, waiting up to `wait`, and hands each to `sink`, which says
    /// whether it has started a record in `chunk`; with `with_keys`, that record then gets the message's headers.
    pub(super) fn consume(
        &mut self,
        max: usize,
        wait: Duration,
        with_keys: bool,
        chunk: &mut ChunkBuilder,
        mut sink: impl FnMut(Event<'_>, &mut ChunkBuilder) -> bool,
    ) {
        // Only the first message is waited for: librdkafka would wait for the whole batch, until the time is over.
        let (mut taken, mut wait_ms, mut step) = (0, wait.as_millis().min(60_000) as i32, 1);
        while taken < max && chunk.bytes() < CHUNK_BYTES {
            let asked = step.min(max - taken);
            self.messages.resize(asked, ptr::null_mut());
            // SAFETY: the queue is valid until drop; there is room for `asked` pointers. Each of the pointers written is a message
            // that is ours to destroy, which happens below, after its last use.
            let n = unsafe {
                rd::rd_kafka_consume_batch_queue(self.queue, wait_ms, self.messages.as_mut_ptr(), self.messages.len())
            };
            let n = usize::try_from(n).unwrap_or(0);
            for message in &self.messages[..n] {
                // SAFETY: as above: valid, ours, and not used after the destroy.
                unsafe {
                    deliver(&**message, with_keys, chunk, &mut sink);
                    rd::rd_kafka_message_destroy(*message);
                }
            }
            taken += n;
            if n < asked {
                break;
            }
            // So many as are expected to fill the chunk, but not many more than have been seen.
            let fill = CHUNK_BYTES.saturating_sub(chunk.bytes()) * taken / chunk.bytes().max(1);
            (wait_ms, step) = (0, fill.clamp(1, taken * FASTER));
        }
    }

    /// Assigns exactly these partitions.
    pub(super) fn assign(&mut self, consumer: &BaseConsumer, starts: &[Start]) -> Result<(), String> {
        let list = List::new(starts.iter())?;
        // SAFETY: client and list are valid; librdkafka copies what it keeps.
        unsafe {
            let error = rd::rd_kafka_assign(consumer.client().native_ptr(), list.0);
            if error == NO_ERROR { Ok(()) } else { Err(text(rd::rd_kafka_err2str(error))) }
        }
    }

    /// Has the leader epochs of assigned partitions checked. By itself librdkafka only does so when it learns of an
    /// epoch later than those it knew, which it does not where it has read the partition before. `Ok(false)` if the
    /// partitions have not started yet: ask again.
    pub(super) fn check_epochs(&mut self, consumer: &BaseConsumer, starts: &[Start]) -> Result<bool, String> {
        let known = starts.iter().filter(|start| start.leader_epoch.is_some() && start.next > 0);
        let list = List::new(known)?;
        // SAFETY: client and list are valid, as are the list's `cnt` elements; the error is ours to destroy.
        unsafe {
            if (*list.0).cnt == 0 {
                return Ok(true);
            }
            let timeout_ms = 10_000;
            let error = rd::rd_kafka_seek_partitions(consumer.client().native_ptr(), list.0, timeout_ms);
            if !error.is_null() {
                let why = text(rd::rd_kafka_error_string(error));
                rd::rd_kafka_error_destroy(error);
                return Err(why);
            }
            use rd::rd_kafka_resp_err_t as code;
            for partition in std::slice::from_raw_parts((*list.0).elems, (*list.0).cnt as usize) {
                match partition.err {
                    NO_ERROR => {}
                    code::RD_KAFKA_RESP_ERR__STATE | code::RD_KAFKA_RESP_ERR__PREV_IN_PROGRESS => return Ok(false),
                    error => return Err(text(rd::rd_kafka_err2str(error))),
                }
            }
            Ok(true)
        }
    }
}

/// A list of partitions with offsets and leader epochs.
struct List(*mut rd::rd_kafka_topic_partition_list_t);

impl List {
    fn new<'a>(starts: impl Iterator<Item = &'a Start>) -> Result<Self, String> {
        // SAFETY: the list is ours until drop. Names are NUL-terminated for the call's duration, and copied; an element
        // is valid until the next one is added.
        unsafe {
            let list = Self(rd::rd_kafka_topic_partition_list_new(0));
            for start in starts {
                let topic = CString::new(start.at.topic.as_str()).map_err(|e| e.to_string())?;
                let partition = rd::rd_kafka_topic_partition_list_add(list.0, topic.as_ptr(), start.at.partition);
                (*partition).offset = start.next;
                if let Some(epoch) = start.leader_epoch {
                    rd::rd_kafka_topic_partition_set_leader_epoch(partition, epoch);
                }
            }
            Ok(list)
        }
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and nobody else's.
        unsafe { rd::rd_kafka_topic_partition_list_destroy(self.0) }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: the reference taken in `new`; dropped before the consumer (field order in the reader).
        unsafe { rd::rd_kafka_queue_destroy(self.queue) }
    }
}

/// # Safety
/// `message` must be a valid message of a consumer, not destroyed before this returns.
unsafe fn deliver(
    message: &rd::rd_kafka_message_t,
    with_keys: bool,
    chunk: &mut ChunkBuilder,
    sink: &mut impl FnMut(Event<'_>, &mut ChunkBuilder) -> bool,
) {
    let topic = || match message.rkt.is_null() {
        true => "",
        // SAFETY: a message's topic handle is valid as long as the message; names are ASCII by Kafka's rules.
        false => unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(message.rkt)) }.to_str().unwrap_or(""),
    };
    let bytes = |start: *const u8, length: usize| match start.is_null() {
        true => None,
        // SAFETY: librdkafka's pointer and length of a key or payload, valid as long as the message.
        false => Some(unsafe { std::slice::from_raw_parts(start, length) }),
    };
    // SAFETY: for every call below, `message` is valid as the caller promises.
    unsafe {
        let raw: *const rd::rd_kafka_message_t = message;
        let why = || text(rd::rd_kafka_message_errstr(raw));
        use rd::rd_kafka_resp_err_t as code;
        let event = match message.err {
            NO_ERROR => {
                let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
                let epoch = rd::rd_kafka_message_leader_epoch(raw);
                Event::Record {
                    topic: &topic,
                    topic_key: message.rkt as usize,
                    partition: message.partition,
                    offset: message.offset,
                    timestamp_ms: rd::rd_kafka_message_timestamp(raw, &mut kind),
                    key: if with_keys { bytes(message.key.cast(), message.key_len) } else { None },
                    value: bytes(message.payload.cast(), message.len),
                    leader_epoch: (epoch >= 0).then_some(epoch),
                }
            }
            code::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
                Event::End { topic: topic(), partition: message.partition, offset: message.offset }
            }
            code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET | code::RD_KAFKA_RESP_ERR__LOG_TRUNCATION => {
                Event::Reset { topic: topic(), partition: message.partition, why: why() }
            }
            _ => Event::Error { why: why() },
        };
        if sink(event, chunk) && with_keys {
            let mut headers = ptr::null_mut();
            if rd::rd_kafka_message_headers(raw, &mut headers) == NO_ERROR {
                let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
                let mut i = 0;
                while rd::rd_kafka_header_get_all(headers, i, &mut name, &mut value, &mut length) == NO_ERROR {
                    chunk.header(CStr::from_ptr(name).to_bytes(), bytes(value.cast(), length));
                    i += 1;
                }
            }
        }
    }
}

/// The topics among `names` that exist, with their ids.
pub(super) fn describe_topics(
    client: &BaseConsumer,
    names: &[String],
    timeout: Duration,
) -> Result<BTreeMap<String, Topic>, String> {
    let owned: Vec<CString> =
        names.iter().map(|name| CString::new(name.as_str())).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let mut pointers: Vec<*const c_char> = owned.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = timeout.as_millis() as i32;
    // SAFETY: everything made here is destroyed here, in reverse order; the client outlives the call; results are read
    // before their event is destroyed; the names outlive the collection made of them.
    unsafe {
        let handle = client.client().native_ptr();
        let queue = rd::rd_kafka_queue_new(handle);
        let options = rd::rd_kafka_AdminOptions_new(handle, rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
        rd::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, ptr::null_mut(), 0);
        let collection = rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
        rd::rd_kafka_DescribeTopics(handle, collection, options, queue);
        let event = rd::rd_kafka_queue_poll(queue, timeout_ms + 1_000);
        let described = if event.is_null() {
            Err("no answer in time".to_string())
        } else if rd::rd_kafka_event_error(event) != NO_ERROR {
            Err(text(rd::rd_kafka_event_error_string(event)))
        } else {
            topics_of(event)
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_TopicCollection_destroy(collection);
        rd::rd_kafka_AdminOptions_destroy(options);
        rd::rd_kafka_queue_destroy(queue);
        described
    }
}

/// # Safety
/// `event` must be a valid result of DescribeTopics.
unsafe fn topics_of(event: *mut rd::rd_kafka_event_t) -> Result<BTreeMap<String, Topic>, String> {
    // SAFETY: as the caller promises; the descriptions live as long as the event.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err("the broker's answer is of another kind".to_string());
        }
        let mut count = 0;
        let descriptions = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut topics = BTreeMap::new();
        for i in 0..count {
            let description = *descriptions.add(i);
            let error = rd::rd_kafka_TopicDescription_error(description);
            let code = rd::rd_kafka_error_code(error);
            use rd::rd_kafka_resp_err_t as codes;
            if code == codes::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                || code == codes::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
                || code == codes::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
            {
                continue;
            }
            if code != NO_ERROR {
                return Err(text(rd::rd_kafka_error_string(error)));
            }
            let mut partitions = 0;
            rd::rd_kafka_TopicDescription_partitions(description, &mut partitions);
            let id = text(rd::rd_kafka_Uuid_base64str(rd::rd_kafka_TopicDescription_topic_id(description)));
            let name = text(rd::rd_kafka_TopicDescription_name(description));
            topics.insert(name, Topic { id, partitions: partitions as i32 });
        }
        Ok(topics)
    }
}

/// # Safety
/// `from` must be null or a NUL-terminated text that is valid during the call.
unsafe fn text(from: *const c_char) -> String {
    match from.is_null() {
        true => String::new(),
        // SAFETY: as the caller promises.
        false => unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned(),
    }
}
