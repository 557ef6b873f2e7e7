//! What a reader delivers: records of several partitions in one buffer, and the positions reached.

use std::sync::Arc;

use bifold_ledger::TopicPartition;

/// Bytes after which a chunk takes no further record: what is decoded of it at once, and copied, is bounded.
pub(crate) const CHUNK_BYTES: usize = 16 << 20;

/// Records and positions. Bytes lie in one buffer, so a chunk costs a handful of allocations however many records.
#[derive(Debug, Default)]
pub struct Chunk {
    partitions: Arc<[TopicPartition]>,
    data: Vec<u8>,
    records: Vec<Place>,
    positions: Vec<Position>,
}

/// How far a chunk brings one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    partition: u32,
    next: i64,
    leader_epoch: Option<i32>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    partition: u32,
    offset: i64,
    timestamp_ms: i64,
    /// Where the bytes start; key, value and headers follow each other.
    start: usize,
    key: Option<u32>,
    value: Option<u32>,
    headers: u32,
}

/// One record of a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The partition.
    pub at: &'a TopicPartition,
    /// The partition's place in the reader's assignment.
    pub index: usize,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since 1970; -1 if it has none.
    pub timestamp_ms: i64,
    /// The key, if the reader delivers keys.
    pub key: Option<&'a [u8]>,
    /// The bytes; none for a tombstone.
    pub value: Option<&'a [u8]>,
    headers: &'a [u8],
}

/// A header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its bytes.
    pub value: Option<&'a [u8]>,
}

impl Chunk {
    /// Whether nothing was read and no position moved.
    pub fn is_empty(&self) -> bool {
        self.positions.is_empty()
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The bytes of keys, values and headers.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }

    /// The records, in order per partition.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.records.iter().map(|place| self.record(place))
    }

    /// The partitions that moved, with the next position and the leader epoch of what lies before it, where one is
    /// known. A position and the epoch of another one do not belong together: the log would look truncated.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, i64, Option<i32>)> {
        self.positions.iter().map(|p| (&self.partitions[p.partition as usize], p.next, p.leader_epoch))
    }

    /// The same in chunks of at most `most` records each. Positions between them have no leader epoch; the last has the chunk's own.
    pub fn pieces(&self, most: usize) -> impl Iterator<Item = Chunk> + '_ {
        let count = self.records.len().div_ceil(most.max(1)).max(1);
        (0..count).map(move |piece| {
            let places = self.records.iter().skip(piece * most).take(most);
            let mut builder = ChunkBuilder::new(Arc::clone(&self.partitions));
            for record in places.map(|place| self.record(place)) {
                builder.record(record.index, record.offset, record.timestamp_ms, record.key, record.value);
                for header in record.headers() {
                    builder.header(header.name.as_bytes(), header.value);
                }
                builder.position(record.index, record.offset + 1, None);
            }
            if piece + 1 == count {
                for position in &self.positions {
                    builder.position(position.partition as usize, position.next, position.leader_epoch);
                }
            }
            builder.build()
        })
    }

    fn record(&self, place: &Place) -> Record<'_> {
        let mut at = place.start;
        let mut take = |length: Option<u32>| {
            let bytes = &self.data[at..at + length.unwrap_or(0) as usize];
            at += bytes.len();
            length.map(|_| bytes)
        };
        let (key, value) = (take(place.key), take(place.value));
        let headers = take(Some(place.headers)).expect("a length was given");
        Record {
            at: &self.partitions[place.partition as usize],
            index: place.partition as usize,
            offset: place.offset,
            timestamp_ms: place.timestamp_ms,
            key,
            value,
            headers,
        }
    }
}

impl<'a> Record<'a> {
    /// The headers, in order, if the reader delivers them.
    pub fn headers(&self) -> impl Iterator<Item = Header<'a>> {
        let mut rest = self.headers;
        std::iter::from_fn(move || {
            let name = take_length(&mut rest)?.unwrap_or_default();
            let value = take_length(&mut rest)?;
            Some(Header { name: std::str::from_utf8(name).unwrap_or("?"), value })
        })
    }
}

/// Reads a length and that many bytes; a length of -1 means none.
fn take_length<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let Ok(length) = usize::try_from(i32::from_le_bytes(*length)) else {
        *rest = after;
        return Some(None);
    };
    let (bytes, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(Some(bytes))
}

/// Fills a [`Chunk`].
#[derive(Debug)]
pub struct ChunkBuilder {
    chunk: Chunk,
    /// The place of each partition in `chunk.positions`.
    moved: Vec<Option<usize>>,
}

impl ChunkBuilder {
    /// An empty chunk of a reader of `partitions`.
    pub fn new(partitions: Arc<[TopicPartition]>) -> Self {
        let moved = vec![None; partitions.len()];
        Self { chunk: Chunk { partitions, ..Chunk::default() }, moved }
    }

    /// How many records there are so far.
    pub fn len(&self) -> usize {
        self.chunk.records.len()
    }

    /// Whether there are none so far.
    pub fn is_empty(&self) -> bool {
        self.chunk.records.is_empty()
    }

    /// The bytes so far.
    pub fn bytes(&self) -> usize {
        self.chunk.data.len()
    }

    /// Starts a record of the partition at `index`. Its headers follow by [`header`](Self::header).
    pub fn record(&mut self, index: usize, offset: i64, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let start = self.chunk.data.len();
        for bytes in [key, value].into_iter().flatten() {
            self.chunk.data.extend_from_slice(bytes);
        }
        let length = |bytes: Option<&[u8]>| bytes.map(|bytes| bytes.len() as u32);
        let (key, value) = (length(key), length(value));
        self.chunk.records.push(Place { partition: index as u32, offset, timestamp_ms, start, key, value, headers: 0 });
    }

    /// Adds a header to the record started last.
    pub fn header(&mut self, name: &[u8], value: Option<&[u8]>) {
        let data = &mut self.chunk.data;
        let before = data.len();
        for bytes in [Some(name), value] {
            data.extend_from_slice(&bytes.map_or(-1, |bytes| bytes.len() as i32).to_le_bytes());
            data.extend_from_slice(bytes.unwrap_or_default());
        }
        let added = (data.len() - before) as u32;
        self.chunk.records.last_mut().expect("a record was started").headers += added;
    }

    /// Says that the partition at `index` has been read up to `next`.
    pub fn position(&mut self, index: usize, next: i64, leader_epoch: Option<i32>) {
        let positions = &mut self.chunk.positions;
        match self.moved[index] {
            Some(place) => {
                positions[place].next = next;
                positions[place].leader_epoch = leader_epoch;
            }
            None => {
                self.moved[index] = Some(positions.len());
                positions.push(Position { partition: index as u32, next, leader_epoch });
            }
        }
    }

    /// The chunk.
    pub fn build(self) -> Chunk {
        self.chunk
    }
}
