//! The archive: what its files hold, and how they are read.
//!
//! Rows whose columns were decoded by the same definition are read from their columns; those of an older definition,
//! and everything that `verify` reads, are decoded again from the original bytes ([`replay::Replay`]). What the log no longer
//! has is read from here as if it came from the log ([`records::Records`]).

pub mod records;
pub mod replay;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use bifold_fold::Source;
use bifold_ledger::{ArchiveUnit, Hole, Ledger, Offsets, TopicPartition};

/// The reason under which records without an event and without a mistake are kept: no dead letters.
pub const ABSENT: &str = "absent";

/// The fields of a header.
pub fn header_fields() -> Fields {
    vec![Field::new("name", DataType::Utf8, true), Field::new("value", DataType::Binary, true)].into()
}

fn log_fields() -> Vec<Field> {
    vec![
        Field::new("_topic", DataType::Utf8, true),
        Field::new("_partition", DataType::Int32, true),
        Field::new("_offset", DataType::Int64, true),
        Field::new("_index", DataType::Int32, true),
        Field::new("_timestamp", DataType::Timestamp(TimeUnit::Microsecond, None), true),
    ]
}

fn record_fields() -> Vec<Field> {
    let headers = DataType::List(Arc::new(Field::new_list_field(DataType::Struct(header_fields()), true)));
    vec![
        Field::new("_key", DataType::Binary, true),
        Field::new("_headers", headers, true),
        Field::new("_payload", DataType::Binary, true),
    ]
}

/// The schema of archived rows: the declared columns, the row's place in the log, and at a record's first row the record.
pub fn row_schema(source: &Source) -> SchemaRef {
    let declared = source.schema();
    let fields = declared.fields().iter().map(|field| field.as_ref().clone()).chain(record_fields());
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The schema of dead letters. A record's bytes stand at its first letter. `_alone` marks one dead letter of every record that has no archived row.
pub fn dead_schema() -> SchemaRef {
    let mut fields = log_fields();
    fields.extend(record_fields());
    fields.push(Field::new("reason", DataType::Utf8, true));
    fields.push(Field::new("detail", DataType::Utf8, true));
    fields.push(Field::new("_alone", DataType::Boolean, true));
    Arc::new(Schema::new(fields))
}

/// A part of the log: `[from, to)` in every partition, without holes.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// Where it starts.
    pub from: Offsets,
    /// Where it ends.
    pub to: Offsets,
    /// What is left out of it.
    pub without: Vec<Hole>,
}

impl Part {
    /// Whether the offset of a partition lies in it.
    pub fn holds(&self, at: &TopicPartition, offset: i64) -> bool {
        offset >= self.from.or_zero(at) && offset < self.to.or_zero(at) && !self.leaves_out(at, offset)
    }

    /// Whether the offset of a partition lies in one of its holes.
    pub fn leaves_out(&self, at: &TopicPartition, offset: i64) -> bool {
        self.without.iter().any(|hole| hole.start <= offset && offset < hole.end && hole.at == *at)
    }

    /// The units of the archive that reach into it, and whether each lies in it whole.
    pub fn units<'a>(&'a self, ledger: &'a Ledger) -> impl Iterator<Item = (&'a ArchiveUnit, bool)> {
        ledger.archive.iter().filter_map(|unit| {
            let touches = unit
                .ranges
                .iter()
                .any(|(at, span)| span.start < self.to.or_zero(at) && span.end > self.from.or_zero(at));
            let has_hole = |hole: &Hole| {
                unit.ranges.get(&hole.at).is_some_and(|span| span.start < hole.end && span.end > hole.start)
            };
            let inside =
                unit.ranges.below(&self.to) && unit.ranges.above(&self.from) && !self.without.iter().any(has_hole);
            touches.then_some((unit, inside))
        })
    }
}
