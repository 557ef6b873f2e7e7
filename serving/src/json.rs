//! Rows as JSON, by the contract: integers with all their digits, decimals as strings, timestamps RFC 3339 in Z with a
//! fraction only if it is not 0, bytes base64, NaN and infinities as strings.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Decimal256Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Schema, TimeUnit, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use chrono::{DateTime, NaiveDate, SecondsFormat};
use serde_json::{Map, Number, Value, json};

/// The name of a type in `columns`.
pub fn type_name(ty: &DataType) -> String {
    match ty {
        DataType::Boolean => "boolean".to_string(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => "int".to_string(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".to_string(),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => "double".to_string(),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("decimal({p},{s})"),
        DataType::Date32 | DataType::Date64 => "date".to_string(),
        DataType::Timestamp(..) => "timestamp".to_string(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "bytes".to_string()
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("{}[]", type_name(item.data_type()))
        }
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Struct(_) => "struct".to_string(),
        _ => "text".to_string(),
    }
}

/// `columns` of a schema.
pub fn columns(schema: &Schema) -> Value {
    let one = |field: &arrow::datatypes::FieldRef| json!({"name": field.name(), "type": type_name(field.data_type())});
    Value::Array(schema.fields().iter().map(one).collect())
}

/// `rows` of a batch.
///
/// # Errors
/// A value that Arrow cannot show.
pub fn rows(batch: &RecordBatch) -> Result<Vec<Value>, ArrowError> {
    let schema = batch.schema();
    let mut columns = vec![];
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        columns.push((field.name(), values(column.as_ref())?));
    }
    let mut rows = Vec::with_capacity(batch.num_rows());
    for row in 0..batch.num_rows() {
        let mut object = Map::with_capacity(columns.len());
        for (name, values) in &mut columns {
            object.insert((*name).clone(), std::mem::take(&mut values[row]));
        }
        rows.push(Value::Object(object));
    }
    Ok(rows)
}

/// Microseconds since 1970 as RFC 3339.
pub fn timestamp_text(micros: i64) -> String {
    match DateTime::from_timestamp_micros(micros) {
        Some(time) if micros % 1_000_000 == 0 => time.to_rfc3339_opts(SecondsFormat::Secs, true),
        Some(time) if micros % 1_000 == 0 => time.to_rfc3339_opts(SecondsFormat::Millis, true),
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => format!("{micros} us since 1970"),
    }
}

fn double(value: f64) -> Value {
    match Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None if value.is_nan() => "NaN".into(),
        None if value > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn date(days: i32) -> Value {
    let date = NaiveDate::from_epoch_days(days);
    date.map_or_else(|| json!(days), |date| date.format("%Y-%m-%d").to_string().into())
}

/// The values of an array.
fn values(array: &dyn Array) -> Result<Vec<Value>, ArrowError> {
    macro_rules! each {
        ($array:expr, $show:expr) => {
            Ok($array.iter().map(|value| value.map_or(Value::Null, $show)).collect())
        };
    }
    macro_rules! numbers {
        ($ty:ty) => {
            each!(array.as_primitive::<$ty>(), |value| value.into())
        };
    }
    let bytes = |value: &[u8]| Value::String(base64::engine::general_purpose::STANDARD.encode(value));
    match array.data_type() {
        DataType::Null => Ok(vec![Value::Null; array.len()]),
        DataType::Boolean => each!(array.as_boolean(), Value::Bool),
        DataType::Int8 => numbers!(Int8Type),
        DataType::Int16 => numbers!(Int16Type),
        DataType::Int32 => numbers!(Int32Type),
        DataType::Int64 => numbers!(Int64Type),
        DataType::UInt8 => numbers!(UInt8Type),
        DataType::UInt16 => numbers!(UInt16Type),
        DataType::UInt32 => numbers!(UInt32Type),
        DataType::UInt64 => numbers!(UInt64Type),
        DataType::Float32 => each!(array.as_primitive::<Float32Type>(), |value| double(value.into())),
        DataType::Float64 => each!(array.as_primitive::<Float64Type>(), double),
        DataType::Utf8 => each!(array.as_string::<i32>(), |value| value.into()),
        DataType::LargeUtf8 => each!(array.as_string::<i64>(), |value| value.into()),
        DataType::Utf8View => each!(array.as_string_view(), |value| value.into()),
        DataType::Binary => each!(array.as_binary::<i32>(), bytes),
        DataType::LargeBinary => each!(array.as_binary::<i64>(), bytes),
        DataType::BinaryView => each!(array.as_binary_view(), bytes),
        DataType::Decimal128(_, scale) => {
            each!(array.as_primitive::<Decimal128Type>(), |value| decimal(value.to_string(), *scale))
        }
        DataType::Decimal256(_, scale) => {
            each!(array.as_primitive::<Decimal256Type>(), |value| decimal(value.to_string(), *scale))
        }
        DataType::Date32 => each!(array.as_primitive::<Date32Type>(), date),
        DataType::Timestamp(..) => {
            let micros =
                arrow::compute::cast(&array.slice(0, array.len()), &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            let micros = micros.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
            each!(micros, |value| timestamp_text(value).into())
        }
        DataType::List(_) => lists(array.as_list::<i32>()),
        DataType::LargeList(_) => lists(array.as_list::<i64>()),
        DataType::Dictionary(_, value) => values(&arrow::compute::cast(&array.slice(0, array.len()), value)?),
        DataType::Struct(fields) => {
            let children = array.as_struct();
            let mut columns = vec![];
            for (field, column) in fields.iter().zip(children.columns()) {
                columns.push((field.name(), values(column)?));
            }
            let object = |row: usize| match array.is_null(row) {
                true => Value::Null,
                false => Value::Object(columns.iter().map(|(name, v)| ((*name).clone(), v[row].clone())).collect()),
            };
            Ok((0..array.len()).map(object).collect())
        }
        _ => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array, &options)?;
            let show = |row: usize| match array.is_null(row) {
                true => Value::Null,
                false => formatter.value(row).to_string().into(),
            };
            Ok((0..array.len()).map(show).collect())
        }
    }
}

fn lists<O: arrow::array::OffsetSizeTrait>(
    array: &arrow::array::GenericListArray<O>,
) -> Result<Vec<Value>, ArrowError> {
    (0..array.len())
        .map(|row| match array.is_null(row) {
            true => Ok(Value::Null),
            false => Ok(Value::Array(values(&array.value(row))?)),
        })
        .collect()
}

/// An unscaled decimal with its point.
fn decimal(unscaled: String, scale: i8) -> Value {
    let Ok(scale) = usize::try_from(scale) else {
        return format!("{unscaled}{}", "0".repeat(scale.unsigned_abs().into())).into();
    };
    if scale == 0 {
        return unscaled.into();
    }
    let (sign, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => ("-", digits.to_string()),
        None => ("", unscaled),
    };
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_scale() {
        for (unscaled, scale, text) in
            [("1234", 2, "12.34"), ("-5", 2, "-0.05"), ("0", 3, "0.000"), ("7", 0, "7"), ("12", -2, "1200")]
        {
            assert_eq!(decimal(unscaled.to_string(), scale), Value::from(text));
        }
    }

    #[test]
    fn timestamps_have_a_fraction_only_if_it_is_not_zero() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_500_000, "1970-01-01T00:00:01.500Z"),
            (1, "1970-01-01T00:00:00.000001Z"),
            (-1_000_000, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(timestamp_text(micros), text);
        }
    }
}
