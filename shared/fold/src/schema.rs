//! Sources: a schema over topics, and what decides how their records decode.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use bifold_ledger::Dialect;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::dedup::DedupBy;

/// The type of a declared column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Type {
    /// `BOOLEAN`
    Boolean,
    /// `INT`: 32 bits
    Int,
    /// `BIGINT`: 64 bits
    BigInt,
    /// `DOUBLE`
    Double,
    /// `DECIMAL(p, s)`
    Decimal(u8, i8),
    /// `TEXT`
    Text,
    /// `TIMESTAMP`: UTC, microseconds
    Timestamp,
    /// `JSON`: any JSON value, as its text
    Json,
    /// `STRUCT<…>`
    Struct(Vec<(String, Type)>),
    /// `T[]`
    Array(Box<Type>),
}

impl Type {
    /// The Arrow type: one canonical form in every layer (view types are never used, for they hash differently).
    pub fn arrow(&self) -> DataType {
        match self {
            Type::Boolean => DataType::Boolean,
            Type::Int => DataType::Int32,
            Type::BigInt => DataType::Int64,
            Type::Double => DataType::Float64,
            Type::Decimal(p, s) => DataType::Decimal128(*p, *s),
            Type::Text | Type::Json => DataType::Utf8,
            Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            Type::Struct(fields) => DataType::Struct(struct_fields(fields)),
            Type::Array(item) => DataType::List(item_field(item)),
        }
    }
}

pub(crate) fn struct_fields(fields: &[(String, Type)]) -> Fields {
    fields.iter().map(|(name, ty)| Field::new(name, ty.arrow(), true)).collect()
}

pub(crate) fn item_field(item: &Type) -> Arc<Field> {
    Arc::new(Field::new_list_field(item.arrow(), true))
}

/// What SQL calls an Arrow type, for messages.
pub(crate) fn sql_name(ty: &DataType) -> String {
    match ty {
        DataType::Boolean => "BOOLEAN".to_string(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "INT".to_string(),
        DataType::Int64 => "BIGINT".to_string(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => "BIGINT UNSIGNED".to_string(),
        DataType::Float32 | DataType::Float64 => "DOUBLE".to_string(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("DECIMAL({p},{s})"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "TEXT".to_string(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP".to_string(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "TIMESTAMP(9)".to_string(),
        DataType::Timestamp(..) => "TIMESTAMP WITH TIME ZONE".to_string(),
        DataType::Date32 | DataType::Date64 => "DATE".to_string(),
        DataType::Interval(_) | DataType::Duration(_) => "INTERVAL".to_string(),
        DataType::List(item) => format!("{}[]", sql_name(item.data_type())),
        DataType::Struct(_) => "STRUCT".to_string(),
        other => other.to_string(),
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Boolean => f.write_str("BOOLEAN"),
            Type::Int => f.write_str("INT"),
            Type::BigInt => f.write_str("BIGINT"),
            Type::Double => f.write_str("DOUBLE"),
            Type::Decimal(p, s) => write!(f, "DECIMAL({p},{s})"),
            Type::Text => f.write_str("TEXT"),
            Type::Timestamp => f.write_str("TIMESTAMP"),
            Type::Json => f.write_str("JSON"),
            Type::Struct(fields) => {
                f.write_str("STRUCT<")?;
                for (i, (name, ty)) in fields.iter().enumerate() {
                    write!(f, "{}{name:?} {ty}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str(">")
            }
            Type::Array(item) => write!(f, "{item}[]"),
        }
    }
}

/// A declared column. Its name is the JSON field's, case and all.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The type.
    pub ty: Type,
}

/// What a number in a timestamp column counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TimestampUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// What fits the number's size: below 10^11 seconds, below 10^14 milliseconds, below 10^17 microseconds, else nanoseconds.
    Auto,
}

impl TimestampUnit {
    /// Microseconds of a number of this unit.
    pub fn micros(self, number: f64) -> f64 {
        let order = || number.abs().log10().floor() as i64 + 1;
        number * 10f64.powi(self.to_micros(order) as i32)
    }

    /// The power of ten by which a number becomes microseconds; `order` counts its digits before the point.
    pub(crate) fn to_micros(self, order: impl FnOnce() -> i64) -> i64 {
        match self {
            TimestampUnit::Seconds => 6,
            TimestampUnit::Milliseconds => 3,
            TimestampUnit::Microseconds => 0,
            TimestampUnit::Nanoseconds => -3,
            TimestampUnit::Auto => match order() {
                ..=11 => 6,
                12..=14 => 3,
                15..=17 => 0,
                _ => -3,
            },
        }
    }
}

/// A source: topics of one schema, and all that decides how a record of theirs decodes. Times are microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Source {
    /// The source's name.
    pub name: String,
    /// The topics it reads.
    pub topics: Vec<String>,
    /// The declared columns.
    pub columns: Vec<Column>,
    /// The event-time column, if one is declared.
    pub event_time: Option<String>,
    /// How far the watermark stays behind the newest event time.
    pub watermark_delay_us: i64,
    /// What numbers in timestamp columns count; none: numbers are no timestamps.
    pub timestamp_unit: Option<TimestampUnit>,
    /// The earliest event time that is no dead letter.
    pub event_time_min_us: Option<i64>,
    /// The latest event time that is no dead letter.
    pub event_time_max_us: Option<i64>,
    /// How far an event time may lie beyond its record's timestamp.
    pub event_time_max_ahead_us: Option<i64>,
    /// The longest record that is decoded, in bytes.
    pub max_record: u64,
    /// The most elements of a record that is decoded. None: as many as there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_elements: Option<u64>,
    /// Whether a string that holds exactly one JSON number is that number for the columns of numbers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub quoted_numbers: bool,
    /// Which rows are duplicates, and are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<DedupBy>,
    /// How long events stay in the archive, by event time, before its newest watermark. None: for ever. No part of the definition:
    /// it decides nothing of an event.
    #[serde(skip)]
    pub archive_retention_us: Option<i64>,
}

impl Source {
    /// The declared columns and, after them, the [`META`] columns: what a view's SQL can name.
    pub fn schema(&self) -> SchemaRef {
        let declared = self.columns.iter().map(|column| Field::new(&column.name, column.ty.arrow(), true));
        Arc::new(Schema::new(declared.chain(META.iter().map(meta_field)).collect::<Vec<_>>()))
    }

    /// The hash of the definition: records decode alike wherever it is the same. Which of the rows are duplicates does not matter to it.
    pub fn decoding(&self) -> String {
        let text = serde_json::to_string(&Self { dedup: None, ..self.clone() }).expect("a source is JSON");
        Sha256::digest(text.as_bytes())[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The source as a dialect reads its definition.
    pub(crate) fn under(&self, dialect: Dialect) -> Self {
        match dialect {
            Dialect::FIRST => Self { quoted_numbers: false, max_elements: None, ..self.clone() },
            _ => self.clone(),
        }
    }

    /// Whether a wrong event time can be only so late: one that is bounded does not drive all others out.
    pub fn bounds_event_time(&self) -> bool {
        self.event_time_max_us.is_some() || self.event_time_max_ahead_us.is_some()
    }

    /// Whether records can be keyed by `column`: it is declared.
    ///
    /// # Errors
    /// It is not; says which columns there are.
    pub fn check_key(&self, column: &str) -> Result<(), String> {
        match self.columns.iter().any(|declared| declared.name == column) {
            true => Ok(()),
            false => {
                let known: Vec<&str> = self.columns.iter().map(|declared| declared.name.as_str()).collect();
                Err(format!("source {:?} has no column {column:?} for a key; it has {}", self.name, known.join(", ")))
            }
        }
    }

    /// The place of the event-time column.
    pub fn event_time_index(&self) -> Option<usize> {
        let name = self.event_time.as_ref()?;
        self.columns.iter().position(|column| column.name == *name)
    }
}

/// Columns that every event has beside the declared ones: where it stands in the log.
pub const META: [Meta; 5] = [Meta::Topic, Meta::Partition, Meta::Offset, Meta::Index, Meta::Timestamp];

/// A column that comes from the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Meta {
    /// `_topic`
    Topic,
    /// `_partition`
    Partition,
    /// `_offset`
    Offset,
    /// `_index`: the event's place in its record
    Index,
    /// `_timestamp`: the record's timestamp
    Timestamp,
}

impl Meta {
    /// The column's name.
    pub fn name(self) -> &'static str {
        match self {
            Meta::Topic => "_topic",
            Meta::Partition => "_partition",
            Meta::Offset => "_offset",
            Meta::Index => "_index",
            Meta::Timestamp => "_timestamp",
        }
    }

    /// The column's type.
    pub fn ty(self) -> Type {
        match self {
            Meta::Topic => Type::Text,
            Meta::Partition | Meta::Index => Type::Int,
            Meta::Offset => Type::BigInt,
            Meta::Timestamp => Type::Timestamp,
        }
    }
}

fn meta_field(meta: &Meta) -> Field {
    Field::new(meta.name(), meta.ty().arrow(), true)
}

/// Names that a declared column cannot have.
pub(crate) const RESERVED: [&str; 8] =
    ["_topic", "_partition", "_offset", "_index", "_timestamp", "_key", "_headers", "_payload"];
