//! JSON records to rows, by the source's schema. The one decoder of every layer.
//!
//! A record holds one object, an array of objects, or objects on lines of their own. Every declared column is checked
//! whether it is built or not, so that all layers agree on what is a dead letter. A record that is not JSON is one dead
//! letter; of an array or of lines, a bad element is one alone.

mod build;
mod number;
mod read;
mod time;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use jiter::{Jiter, Peek};

use crate::schema::{META, Meta, Source};
use build::Builder;
use read::{Malformed, Numbers, Slot, kind_of, read_value};
pub use time::parse_timestamp;

/// Why an element or a record is a dead letter. The first that applies, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// Longer than `max_record`, or of more elements than `max_elements`.
    TooLarge,
    /// No bytes, or white space.
    Empty,
    /// Not UTF-8.
    NotUtf8,
    /// Not JSON, or not objects.
    Malformed,
    /// A value that its column's type does not hold.
    WrongType,
    /// No event time.
    MissingEventTime,
    /// An event time outside the source's bounds.
    EventTimeOutOfBounds,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 7] = [
        Reason::TooLarge,
        Reason::Empty,
        Reason::NotUtf8,
        Reason::Malformed,
        Reason::WrongType,
        Reason::MissingEventTime,
        Reason::EventTimeOutOfBounds,
    ];

    /// The name that users see.
    pub fn name(self) -> &'static str {
        match self {
            Reason::TooLarge => "too_large",
            Reason::Empty => "empty",
            Reason::NotUtf8 => "not_utf8",
            Reason::Malformed => "malformed",
            Reason::WrongType => "wrong_type",
            Reason::MissingEventTime => "missing_event_time",
            Reason::EventTimeOutOfBounds => "event_time_out_of_bounds",
        }
    }
}

/// A record to decode, and where it stands in the log.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since 1970; -1 if it has none.
    pub timestamp_ms: i64,
    /// The bytes.
    pub value: &'a [u8],
}

/// An element, or a whole record, that is no event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// The element's place in the record; 0 for the whole record.
    pub index: i32,
    /// Why.
    pub reason: Reason,
    /// What exactly, for people.
    pub detail: String,
}

/// What a value takes beside its text, about.
const VALUE_BYTES: usize = 8;

/// Decodes records into batches of rows.
pub struct Decoder {
    source: Arc<Source>,
    numbers: Numbers,
    event_time: Option<usize>,
    /// A builder for each declared column that is wanted.
    columns: Vec<Option<Builder>>,
    meta: Vec<(Meta, Builder)>,
    schema: SchemaRef,
    rows: usize,
    /// About how much the rows take that wait, in bytes, and what each takes at least.
    bytes: usize,
    row_bytes: usize,
    /// The newest event time since it was last taken.
    newest: Option<i64>,
    // What one element needs, kept between elements.
    slots: Vec<Slot>,
    text: String,
    /// Which column stood at which place of the last object: producers repeat their order of keys.
    order: Vec<Option<usize>>,
    tape: Vec<u8>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("source", &self.source.name).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Decoder {
    /// A decoder that builds the columns of [`Source::schema`] whose names `wanted` accepts, in that schema's order.
    pub fn new(source: Arc<Source>, wanted: impl Fn(&str) -> bool) -> Self {
        let declared = source.columns.iter();
        let columns: Vec<Option<Builder>> =
            declared.map(|column| wanted(&column.name).then(|| Builder::new(&column.ty))).collect();
        let meta: Vec<(Meta, Builder)> =
            META.iter().filter(|m| wanted(m.name())).map(|m| (*m, Builder::new(&m.ty()))).collect();
        let built = source.columns.iter().zip(&columns).filter(|(_, builder)| builder.is_some());
        let fields = built
            .map(|(column, _)| Field::new(&column.name, column.ty.arrow(), true))
            .chain(meta.iter().map(|(meta, _)| Field::new(meta.name(), meta.ty().arrow(), true)));
        Self {
            schema: Arc::new(Schema::new(fields.collect::<Vec<_>>())),
            event_time: source.event_time_index(),
            slots: vec![Slot::Null; source.columns.len()],
            row_bytes: VALUE_BYTES * (columns.iter().flatten().count() + meta.len()),
            columns,
            meta,
            numbers: Numbers::of(&source),
            source,
            rows: 0,
            bytes: 0,
            newest: None,
            text: String::new(),
            order: vec![],
            tape: vec![],
        }
    }

    /// The schema of what [`finish`](Self::finish) gives.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// How many rows wait to be finished.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes these take. Rows may take many times the bytes of their records.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest event time decoded since this was last called, in microseconds.
    pub fn take_newest(&mut self) -> Option<i64> {
        self.newest.take()
    }

    /// Decodes one record: appends its events as rows and its bad elements to `dead`. Gives the number of events.
    pub fn push(&mut self, record: Envelope<'_>, dead: &mut Vec<DeadLetter>) -> usize {
        let before = self.rows;
        if let Err((reason, detail)) = self.push_record(&record, dead) {
            dead.push(DeadLetter { index: 0, reason, detail });
        }
        self.rows - before
    }

    /// The rows so far, as one batch.
    pub fn finish(&mut self) -> RecordBatch {
        let columns = self.columns.iter_mut().flatten().chain(self.meta.iter_mut().map(|(_, builder)| builder));
        let arrays: Vec<ArrayRef> = columns.map(Builder::finish).collect();
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .expect("builders follow the schema, row by row")
    }

    fn push_record(&mut self, record: &Envelope<'_>, dead: &mut Vec<DeadLetter>) -> Result<(), (Reason, String)> {
        let bytes = record.value;
        if bytes.len() as u64 > self.source.max_record {
            let limit = self.source.max_record;
            return Err((Reason::TooLarge, format!("{} bytes, the limit is {limit}", bytes.len())));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err((Reason::Empty, format!("{} bytes, no content", bytes.len())));
        }
        if let Err(e) = std::str::from_utf8(bytes) {
            return Err((Reason::NotUtf8, e.to_string()));
        }
        let first = bytes.iter().position(|b| !b.is_ascii_whitespace()).expect("not all is white space");
        match bytes[first] {
            b'[' => self.push_array(record, dead),
            _ => match self.read_whole(bytes) {
                Ok(()) => {
                    self.close_element(record, 0, dead);
                    Ok(())
                }
                Err(malformed) => self.push_lines(record, malformed, dead),
            },
        }
    }

    /// An array is judged whole before any of its elements is taken: one that is not JSON is one dead letter.
    fn push_array(&mut self, record: &Envelope<'_>, dead: &mut Vec<DeadLetter>) -> Result<(), (Reason, String)> {
        let most = self.source.max_elements.unwrap_or(u64::MAX);
        let elements = split_array(record.value, most).map_err(|unsplit| match unsplit {
            Unsplit::Malformed(malformed) => (Reason::Malformed, malformed.0),
            Unsplit::TooMany => too_many_elements(most),
        })?;
        for (index, range) in elements.into_iter().enumerate() {
            self.push_element(record, &record.value[range], index as i32, dead);
        }
        Ok(())
    }

    /// Objects on lines of their own, if there are several lines and one of them at least is an object.
    fn push_lines(
        &mut self,
        record: &Envelope<'_>,
        whole: Malformed,
        dead: &mut Vec<DeadLetter>,
    ) -> Result<(), (Reason, String)> {
        let lines: Vec<&[u8]> = record
            .value
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.iter().all(u8::is_ascii_whitespace))
            .collect();
        if lines.len() < 2 || !lines.iter().any(|line| is_object(line)) {
            return Err((Reason::Malformed, whole.0));
        }
        if let Some(most) = self.source.max_elements.filter(|most| lines.len() as u64 > *most) {
            return Err(too_many_elements(most));
        }
        for (index, line) in lines.into_iter().enumerate() {
            self.push_element(record, line, index as i32, dead);
        }
        Ok(())
    }

    fn push_element(&mut self, record: &Envelope<'_>, bytes: &[u8], index: i32, dead: &mut Vec<DeadLetter>) {
        match self.read_whole(bytes) {
            Ok(()) => self.close_element(record, index, dead),
            Err(malformed) => {
                // The place is one in the element, whatever its line in the record.
                let detail = malformed.0.replace(" at line 1 column ", " at column ");
                dead.push(DeadLetter { index, reason: Reason::Malformed, detail });
            }
        }
    }

    /// Reads one object, and nothing after it, into the slots.
    fn read_whole(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        let mut json = Jiter::with_tape(bytes, std::mem::take(&mut self.tape));
        let read = self.read_object(&mut json, bytes);
        let read = read.and_then(|()| json.finish().map_err(|e| Malformed::at(&json, e)));
        self.tape = json.into_tape();
        read
    }

    fn read_object(&mut self, json: &mut Jiter<'_>, bytes: &[u8]) -> Result<(), Malformed> {
        self.text.clear();
        self.slots.fill(Slot::Null);
        match json.peek().map_err(|e| Malformed::at(json, e))? {
            Peek::Object => {}
            other => return Err(Malformed(format!("not an object: it begins like {}", kind_of(other)))),
        }
        let mut place = 0;
        let mut column = match json.known_object() {
            Ok(Some(key)) => find(&self.source, &mut self.order, place, key),
            Ok(None) => return Ok(()),
            Err(e) => return Err(Malformed::at(json, e)),
        };
        loop {
            match column {
                None => json.next_skip().map_err(|e| Malformed::at(json, e))?,
                Some(i) => {
                    let ty = &self.source.columns[i].ty;
                    self.slots[i] = read_value(json, bytes, ty, self.numbers, &mut self.text)?;
                }
            }
            place += 1;
            column = match json.next_key() {
                Ok(Some(key)) => find(&self.source, &mut self.order, place, key),
                Ok(None) => return Ok(()),
                Err(e) => return Err(Malformed::at(json, e)),
            };
        }
    }

    /// Judges the slots as one event: a row, or a dead letter.
    fn close_element(&mut self, record: &Envelope<'_>, index: i32, dead: &mut Vec<DeadLetter>) {
        if let Err((reason, detail)) = self.judge(record) {
            dead.push(DeadLetter { index, reason, detail });
            return;
        }
        for (builder, slot) in self.columns.iter_mut().zip(&self.slots) {
            if let Some(builder) = builder {
                builder.append(slot, &self.text);
            }
        }
        for (meta, builder) in &mut self.meta {
            match meta {
                Meta::Topic => builder.append_text(record.topic),
                Meta::Partition => builder.append(&Slot::Integer(record.partition.into()), ""),
                Meta::Offset => builder.append(&Slot::Integer(record.offset), ""),
                Meta::Index => builder.append(&Slot::Integer(index.into()), ""),
                Meta::Timestamp if record.timestamp_ms < 0 => builder.append(&Slot::Null, ""),
                Meta::Timestamp => builder.append(&Slot::Integer(record.timestamp_ms.saturating_mul(1_000)), ""),
            }
        }
        self.rows += 1;
        let items: usize = self.slots.iter().map(Slot::items).sum();
        self.bytes += self.row_bytes + self.text.len() + items * VALUE_BYTES;
    }

    fn judge(&mut self, record: &Envelope<'_>) -> Result<(), (Reason, String)> {
        for (slot, column) in self.slots.iter().zip(&self.source.columns) {
            if let Slot::Wrong(what) = slot {
                return Err((Reason::WrongType, format!("column {:?} is {}: {what}", column.name, column.ty)));
            }
        }
        let Some(event_time) = self.event_time else { return Ok(()) };
        let column = &self.source.columns[event_time].name;
        let Slot::Integer(time) = self.slots[event_time] else {
            return Err((Reason::MissingEventTime, format!("column {column:?} is absent or null")));
        };
        let out = |bound: &str| Err((Reason::EventTimeOutOfBounds, format!("column {column:?} is {bound}")));
        if self.source.event_time_min_us.is_some_and(|min| time < min) {
            return out("before event_time_min");
        }
        if self.source.event_time_max_us.is_some_and(|max| time > max) {
            return out("after event_time_max");
        }
        let ahead = |ahead: i64| record.timestamp_ms.saturating_mul(1_000).saturating_add(ahead);
        if record.timestamp_ms >= 0 && self.source.event_time_max_ahead_us.is_some_and(|max| time > ahead(max)) {
            return out("further beyond the record's timestamp than event_time_max_ahead");
        }
        self.newest = self.newest.max(Some(time));
        Ok(())
    }
}

/// The column of a key, guessed first from the last object's order.
fn find(source: &Source, order: &mut Vec<Option<usize>>, place: usize, key: &str) -> Option<usize> {
    if let Some(Some(guess)) = order.get(place).copied()
        && source.columns[guess].name == key
    {
        return Some(guess);
    }
    let found = source.columns.iter().position(|column| column.name == key);
    if order.len() <= place {
        order.resize(place + 1, None);
    }
    order[place] = found;
    found
}

fn too_many_elements(most: u64) -> (Reason, String) {
    (Reason::TooLarge, format!("more than {most} elements, the limit"))
}

/// Why the elements of a record cannot be told.
enum Unsplit {
    Malformed(Malformed),
    TooMany,
}

/// Where the elements of a JSON array stand, if there are at most `most`.
fn split_array(bytes: &[u8], most: u64) -> Result<Vec<Range<usize>>, Unsplit> {
    let mut json = Jiter::new(bytes);
    let mut elements = vec![];
    let malformed = |json: &Jiter<'_>, e| Unsplit::Malformed(Malformed::at(json, e));
    let mut peek = json.next_array().map_err(|e| malformed(&json, e))?;
    while let Some(first) = peek {
        if elements.len() as u64 == most {
            return Err(Unsplit::TooMany);
        }
        let start = json.current_index();
        json.known_skip(first).map_err(|e| malformed(&json, e))?;
        elements.push(start..json.current_index());
        peek = json.array_step().map_err(|e| malformed(&json, e))?;
    }
    json.finish().map_err(|e| malformed(&json, e))?;
    Ok(elements)
}

fn is_object(line: &[u8]) -> bool {
    let mut json = Jiter::new(line);
    matches!(json.peek(), Ok(Peek::Object)) && json.next_skip().is_ok() && json.finish().is_ok()
}
