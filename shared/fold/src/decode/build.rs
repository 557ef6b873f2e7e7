//! Columns of Arrow, built from slots.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, ListArray,
    NullBufferBuilder, StringBuilder, StructArray, TimestampMicrosecondBuilder,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};

use super::read::Slot;
use crate::schema::{Type, item_field, struct_fields};

/// Builds a column of a declared type.
pub(super) enum Builder {
    Boolean(BooleanBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    List { item: Type, items: Box<Builder>, ends: Vec<i32>, valid: NullBufferBuilder },
    Struct { fields: Vec<(String, Type)>, columns: Vec<Builder>, valid: NullBufferBuilder },
}

impl Builder {
    pub(super) fn new(ty: &Type) -> Self {
        match ty {
            Type::Boolean => Builder::Boolean(BooleanBuilder::new()),
            Type::Int => Builder::Int(Int32Builder::new()),
            Type::BigInt => Builder::BigInt(Int64Builder::new()),
            Type::Double => Builder::Double(Float64Builder::new()),
            Type::Decimal(..) => Builder::Decimal(Decimal128Builder::new().with_data_type(ty.arrow())),
            Type::Text | Type::Json => Builder::Text(StringBuilder::new()),
            Type::Timestamp => Builder::Timestamp(TimestampMicrosecondBuilder::new()),
            Type::Array(item) => Builder::List {
                item: (**item).clone(),
                items: Box::new(Builder::new(item)),
                ends: vec![0],
                valid: NullBufferBuilder::new(0),
            },
            Type::Struct(fields) => Builder::Struct {
                fields: fields.clone(),
                columns: fields.iter().map(|(_, ty)| Builder::new(ty)).collect(),
                valid: NullBufferBuilder::new(0),
            },
        }
    }

    /// Appends a slot that was read as this column's type; texts are ranges of `text`.
    pub(super) fn append(&mut self, slot: &Slot, text: &str) {
        match (self, slot) {
            (Builder::Boolean(b), Slot::Boolean(value)) => b.append_value(*value),
            (Builder::Boolean(b), _) => b.append_null(),
            (Builder::Int(b), Slot::Integer(value)) => b.append_value(*value as i32),
            (Builder::Int(b), _) => b.append_null(),
            (Builder::BigInt(b), Slot::Integer(value)) => b.append_value(*value),
            (Builder::BigInt(b), _) => b.append_null(),
            (Builder::Double(b), Slot::Double(value)) => b.append_value(*value),
            (Builder::Double(b), _) => b.append_null(),
            (Builder::Decimal(b), Slot::Decimal(value)) => b.append_value(*value),
            (Builder::Decimal(b), _) => b.append_null(),
            (Builder::Text(b), Slot::Text(range)) => b.append_value(&text[range.clone()]),
            (Builder::Text(b), _) => b.append_null(),
            (Builder::Timestamp(b), Slot::Integer(value)) => b.append_value(*value),
            (Builder::Timestamp(b), _) => b.append_null(),
            (Builder::List { items, ends, valid, .. }, slot) => {
                let values = if let Slot::List(values) = slot { values.as_slice() } else { &[] };
                for value in values {
                    items.append(value, text);
                }
                ends.push(ends.last().expect("it starts with 0") + values.len() as i32);
                valid.append(matches!(slot, Slot::List(_)));
            }
            (Builder::Struct { columns, valid, .. }, slot) => {
                let values = if let Slot::Struct(values) = slot { Some(values) } else { None };
                for (i, column) in columns.iter_mut().enumerate() {
                    column.append(values.map_or(&Slot::Null, |values| &values[i]), text);
                }
                valid.append(values.is_some());
            }
        }
    }

    pub(super) fn append_text(&mut self, text: &str) {
        match self {
            Builder::Text(builder) => builder.append_value(text),
            _ => unreachable!("only text columns are given texts"),
        }
    }

    /// The column so far; the builder starts anew.
    pub(super) fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::Int(b) => Arc::new(b.finish()),
            Builder::BigInt(b) => Arc::new(b.finish()),
            Builder::Double(b) => Arc::new(b.finish()),
            Builder::Decimal(b) => Arc::new(b.finish()),
            Builder::Text(b) => Arc::new(b.finish()),
            Builder::Timestamp(b) => Arc::new(b.finish()),
            Builder::List { item, items, ends, valid } => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])));
                Arc::new(ListArray::new(item_field(item), offsets, items.finish(), valid.finish()))
            }
            Builder::Struct { fields, columns, valid } => {
                let rows = valid.len();
                let nulls = valid.finish();
                let arrays = columns.iter_mut().map(Builder::finish).collect();
                let built = StructArray::try_new_with_length(struct_fields(fields), arrays, nulls, rows);
                Arc::new(built.expect("children are as long as their parent"))
            }
        }
    }
}
