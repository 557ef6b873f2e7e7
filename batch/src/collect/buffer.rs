//! Records between the log and the archive: decoded rows, dead letters and original bytes, not durable yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Int32Builder, Int64Builder, ListBuilder, RecordBatch, StringBuilder,
    StructBuilder, TimestampMicrosecondBuilder,
};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::Field;
use bifold_archive::{ABSENT, dead_schema, header_fields, row_schema};
use bifold_fold::{DeadLetter, Decoder, Envelope, Reason, Source};
use bifold_ledger::{ArchiveCounts, Offsets, Ranges, Span, TopicPartition};
use bifold_log::{Chunk, Record};

/// What waits to be archived.
pub(super) struct Buffer {
    source: Arc<Source>,
    decoder: Decoder,
    extra: Extra,
    batches: Vec<RecordBatch>,
    dead: DeadRows,
    ranges: Ranges,
    counts: ArchiveCounts,
    bytes: usize,
    rows: usize,
    most_rows: u64,
    since: Option<Instant>,
    found: Vec<DeadLetter>,
    /// Dead letters that nobody was told of yet.
    news: News,
    told: Option<Instant>,
}

/// Dead letters since they were last told of.
#[derive(Default)]
pub(super) struct News {
    counts: BTreeMap<Reason, u64>,
    /// Where the last one of each reason stands, and what is wrong with it.
    examples: BTreeMap<Reason, String>,
}

impl News {
    fn add(&mut self, record: &Record<'_>, letter: &DeadLetter) {
        *self.counts.entry(letter.reason).or_default() += 1;
        let example = || format!("{} at offset {}: {}", record.at, record.offset, letter.detail);
        self.examples.entry(letter.reason).or_insert_with(example);
    }

    /// How many there are, the commonest reason, how many it has, and one of them. None if there are none.
    pub(super) fn summary(&self) -> Option<(u64, Reason, u64, &str)> {
        let (reason, count) = self.counts.iter().max_by_key(|(_, count)| **count)?;
        Some((self.counts.values().sum(), *reason, *count, &self.examples[reason]))
    }
}

/// What a flush makes durable.
pub(super) struct Taken {
    pub(super) rows: RecordBatch,
    pub(super) dead: RecordBatch,
    pub(super) ranges: Ranges,
    pub(super) counts: ArchiveCounts,
}

/// Rows of one batch.
const BATCH_ROWS: usize = 16_384;
/// Bytes that they take, about.
const BATCH_BYTES: usize = 64 << 20;
/// Bytes that wait in memory at most, about.
const BUFFER_BYTES: usize = 256 << 20;
/// What a row takes beside what is decoded: its place in columns that are mostly empty.
const EXTRA_BYTES: usize = 64;

impl Buffer {
    /// An empty buffer, which is full at `most_rows`.
    pub(super) fn new(source: Arc<Source>, most_rows: u64) -> Self {
        Self {
            most_rows,
            decoder: Decoder::new(Arc::clone(&source), |_| true),
            source,
            extra: Extra::default(),
            batches: vec![],
            dead: DeadRows::default(),
            ranges: Ranges::default(),
            counts: ArchiveCounts::default(),
            bytes: 0,
            rows: 0,
            since: None,
            found: vec![],
            news: News::default(),
            told: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What waits, in bytes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.decoder.bytes()
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows as u64 >= self.most_rows || self.bytes() >= BUFFER_BYTES
    }

    /// The dead letters that nobody was told of yet. None if there are none, or it is not `every` since they were last taken.
    pub(super) fn take_news(&mut self, every: Duration) -> Option<News> {
        if self.news.counts.is_empty() || self.told.is_some_and(|told| told.elapsed() < every) {
            return None;
        }
        self.told = Some(Instant::now());
        Some(std::mem::take(&mut self.news))
    }

    /// How long the oldest record has waited.
    pub(super) fn age(&self) -> Duration {
        self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Takes a chunk in, from its record at `from` on, until the buffer is full. `read` says where each partition has been read up to, and
    /// hears how far it is now. Gives the place of the record to go on with, which is the chunk's length when all is taken.
    pub(super) fn push(&mut self, chunk: &Chunk, from: usize, read: &mut Offsets) -> usize {
        if chunk.is_empty() {
            return chunk.len();
        }
        self.since.get_or_insert_with(Instant::now);
        let mut passed: BTreeMap<&TopicPartition, i64> = BTreeMap::new();
        for (place, record) in chunk.records().enumerate().skip(from) {
            self.push_record(&record);
            if self.decoder.rows() >= BATCH_ROWS || self.decoder.bytes() >= BATCH_BYTES {
                self.close_batch();
            }
            passed.insert(record.at, record.offset + 1);
            if self.is_full() && place + 1 < chunk.len() {
                passed.into_iter().for_each(|(at, next)| self.advance(at, next, None, read));
                return place + 1;
            }
        }
        for (at, next, leader_epoch) in chunk.positions() {
            self.advance(at, next, leader_epoch, read);
        }
        chunk.len()
    }

    fn advance(&mut self, at: &TopicPartition, next: i64, leader_epoch: Option<i32>, read: &mut Offsets) {
        let span = self.ranges.0.entry(at.clone()).or_insert_with(|| Span::new(read.or_zero(at), next));
        span.end = next;
        // The epoch belongs to the position: after a marker none is known.
        span.leader_epoch = leader_epoch;
        read.advance(at, next);
    }

    /// Says that `[start, end)` of a partition holds nothing that could be read.
    pub(super) fn pass(&mut self, at: &TopicPartition, start: i64, end: i64) {
        self.since.get_or_insert_with(Instant::now);
        self.ranges.0.insert(at.clone(), Span::new(start, end));
    }

    fn push_record(&mut self, record: &Record<'_>) {
        let Some(value) = record.value else {
            self.absent(record);
            return;
        };
        let envelope = Envelope {
            topic: &record.at.topic,
            partition: record.at.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            value,
        };
        self.found.clear();
        let events = self.decoder.push(envelope, &mut self.found);
        self.rows += events + self.found.len();
        self.bytes += value.len() + record.key.map_or(0, <[u8]>::len) + EXTRA_BYTES * (events + self.found.len());
        self.counts.rows += events as u64;
        for event in 0..events {
            self.extra.push(record, event == 0);
        }
        if events == 0 && self.found.is_empty() {
            // An empty array: no event and no mistake, but its bytes are kept.
            self.absent(record);
        }
        for (i, letter) in self.found.iter().enumerate() {
            let place = Letter { index: letter.index, whole: i == 0, alone: events == 0 && i == 0 };
            self.bytes += letter.detail.len();
            self.dead.push(record, place, letter.reason.name(), &letter.detail);
            self.news.add(record, letter);
            *self.counts.dead.entry(letter.reason.name().to_string()).or_default() += 1;
            *self.counts.dead_by_partition.0.entry(record.at.clone()).or_default() += 1;
        }
    }

    fn absent(&mut self, record: &Record<'_>) {
        self.rows += 1;
        self.bytes += EXTRA_BYTES;
        self.counts.absent += 1;
        self.dead.push(record, Letter { index: 0, whole: true, alone: true }, ABSENT, "");
    }

    fn close_batch(&mut self) {
        self.bytes += self.decoder.bytes();
        let decoded = self.decoder.finish();
        let columns = decoded.columns().iter().cloned().chain(self.extra.finish()).collect();
        let batch = RecordBatch::try_new(row_schema(&self.source), columns);
        self.batches.push(batch.expect("an extra row was pushed for every decoded one"));
    }

    /// Everything that waits, sorted by partition and offset. The buffer is empty after it.
    pub(super) fn take(&mut self) -> Taken {
        if self.decoder.rows() > 0 {
            self.close_batch();
        }
        let rows = concat_batches(&row_schema(&self.source), &std::mem::take(&mut self.batches));
        let taken = Taken {
            rows: sorted(&rows.expect("all batches have the schema")),
            dead: sorted(&self.dead.finish()),
            ranges: std::mem::take(&mut self.ranges),
            counts: std::mem::take(&mut self.counts),
        };
        self.bytes = 0;
        self.rows = 0;
        self.since = None;
        taken
    }
}

/// The columns that archived rows have beside what is decoded.
struct Extra {
    key: BinaryBuilder,
    headers: Headers,
    payload: BinaryBuilder,
}

impl Default for Extra {
    fn default() -> Self {
        Self { key: BinaryBuilder::new(), headers: new_headers(), payload: BinaryBuilder::new() }
    }
}

impl Extra {
    /// `whole`: with the record's bytes, which stand at one of its rows alone. A record may hold very many.
    fn push(&mut self, record: &Record<'_>, whole: bool) {
        self.key.append_option(record.key.filter(|_| whole));
        append_headers(&mut self.headers, record, whole);
        self.payload.append_option(record.value.filter(|_| whole));
    }

    fn finish(&mut self) -> [ArrayRef; 3] {
        [Arc::new(self.key.finish()), Arc::new(self.headers.finish()), Arc::new(self.payload.finish())]
    }
}

type Headers = ListBuilder<StructBuilder>;

fn new_headers() -> Headers {
    let fields = header_fields();
    let item = Field::new_list_field(arrow::datatypes::DataType::Struct(fields.clone()), true);
    ListBuilder::new(StructBuilder::from_fields(fields, 0)).with_field(item)
}

/// The record's headers, or NULL where its bytes do not stand.
fn append_headers(headers: &mut Headers, record: &Record<'_>, whole: bool) {
    for header in record.headers().filter(|_| whole) {
        let item = headers.values();
        item.field_builder::<StringBuilder>(0).expect("the first field is text").append_value(header.name);
        item.field_builder::<BinaryBuilder>(1).expect("the second field is bytes").append_option(header.value);
        item.append(true);
    }
    headers.append(whole);
}

/// Where a dead letter stands in its record.
struct Letter {
    index: i32,
    /// Whether the record's bytes stand at it: at the first letter of each record.
    whole: bool,
    /// Whether it is the first of a record that has no archived row.
    alone: bool,
}

/// Rows of the dead-letter table.
struct DeadRows {
    topic: StringBuilder,
    partition: Int32Builder,
    offset: Int64Builder,
    index: Int32Builder,
    timestamp: TimestampMicrosecondBuilder,
    key: BinaryBuilder,
    headers: Headers,
    payload: BinaryBuilder,
    reason: StringBuilder,
    detail: StringBuilder,
    alone: BooleanBuilder,
}

impl Default for DeadRows {
    fn default() -> Self {
        Self {
            topic: StringBuilder::new(),
            partition: Int32Builder::new(),
            offset: Int64Builder::new(),
            index: Int32Builder::new(),
            timestamp: TimestampMicrosecondBuilder::new(),
            key: BinaryBuilder::new(),
            headers: new_headers(),
            payload: BinaryBuilder::new(),
            reason: StringBuilder::new(),
            detail: StringBuilder::new(),
            alone: BooleanBuilder::new(),
        }
    }
}

impl DeadRows {
    fn push(&mut self, record: &Record<'_>, letter: Letter, reason: &str, detail: &str) {
        self.topic.append_value(&record.at.topic);
        self.partition.append_value(record.at.partition);
        self.offset.append_value(record.offset);
        self.index.append_value(letter.index);
        let timestamp = (record.timestamp_ms >= 0).then(|| record.timestamp_ms.saturating_mul(1_000));
        self.timestamp.append_option(timestamp);
        self.key.append_option(record.key.filter(|_| letter.whole));
        append_headers(&mut self.headers, record, letter.whole);
        self.payload.append_option(record.value.filter(|_| letter.whole));
        self.reason.append_value(reason);
        self.detail.append_value(detail);
        self.alone.append_value(letter.alone);
    }

    fn finish(&mut self) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.topic.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.index.finish()),
            Arc::new(self.timestamp.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.detail.finish()),
            Arc::new(self.alone.finish()),
        ];
        RecordBatch::try_new(dead_schema(), columns).expect("columns follow the schema, row by row")
    }
}

/// In the log's order: by topic, partition, offset, index.
pub(crate) fn sorted(rows: &RecordBatch) -> RecordBatch {
    let column = |name: &str| rows.column_by_name(name).expect("every archived row has its place in the log").clone();
    let by = ["_topic", "_partition", "_offset", "_index"];
    let columns: Vec<SortColumn> = by.iter().map(|name| SortColumn { values: column(name), options: None }).collect();
    let order = lexsort_to_indices(&columns, None).expect("these types can be sorted");
    take_record_batch(rows, &order).expect("the indices are the batch's own")
}
