//! The archive: what its files hold, and how they are read.
//!
//! Rows whose columns were decoded by the same definition are read from their columns; those of an older definition,
//! and everything that `verify` reads, are decoded again from the original bytes ([`replay::Replay`]). What the log no longer
//! has is read from here as if it came from the log ([`records::Records`]).

pub mod checked;
pub mod file;
pub mod records;
pub mod replay;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use bifold_fold::Source;

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
