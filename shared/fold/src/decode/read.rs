//! One JSON value, read as a column's type.

use std::ops::Range;

use jiter::{Jiter, JiterError, Peek};

use super::number::Number;
use super::time::parse_timestamp;
use crate::schema::{Source, TimestampUnit, Type};

/// A value of a column, before its row is known to be good.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Slot {
    Null,
    Boolean(bool),
    /// Of INT and BIGINT the number, of TIMESTAMP microseconds.
    Integer(i64),
    Double(f64),
    /// The unscaled value.
    Decimal(i128),
    /// A range of the element's text buffer.
    Text(Range<usize>),
    List(Vec<Slot>),
    Struct(Vec<Slot>),
    /// Valid JSON that the column's type does not hold, and what it is.
    Wrong(String),
}

impl Slot {
    /// How many values it holds inside.
    pub(super) fn items(&self) -> usize {
        match self {
            Slot::List(items) | Slot::Struct(items) => items.len() + items.iter().map(Slot::items).sum::<usize>(),
            _ => 0,
        }
    }
}

/// Not JSON, and where.
#[derive(Debug)]
pub(super) struct Malformed(pub(super) String);

impl Malformed {
    pub(super) fn at(json: &Jiter<'_>, error: JiterError) -> Self {
        Self(error.description(json))
    }
}

/// What a source says of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbers {
    /// The unit of numbers in a timestamp column. None: a number is not a timestamp.
    unit: Option<TimestampUnit>,
    /// Whether a string may hold one.
    quoted: bool,
}

impl Numbers {
    pub(super) fn of(source: &Source) -> Self {
        Self { unit: source.timestamp_unit, quoted: source.quoted_numbers }
    }
}

/// Reads the next value of `json`, which reads `bytes`, as a `ty`. Strings are appended to `text`.
pub(super) fn read_value(
    json: &mut Jiter<'_>,
    bytes: &[u8],
    ty: &Type,
    numbers: Numbers,
    text: &mut String,
) -> Result<Slot, Malformed> {
    let peek = json.peek().map_err(|e| Malformed::at(json, e))?;
    if peek == Peek::Null {
        json.known_null().map_err(|e| Malformed::at(json, e))?;
        return Ok(Slot::Null);
    }
    match ty {
        Type::Json => raw(json, bytes, peek, text),
        Type::Boolean if matches!(peek, Peek::True | Peek::False) => {
            json.known_bool(peek).map(Slot::Boolean).map_err(|e| Malformed::at(json, e))
        }
        Type::Text if peek == Peek::String => match json.known_str() {
            Ok(string) => Ok(Slot::Text(append(text, string))),
            Err(e) => Err(Malformed::at(json, e)),
        },
        Type::Timestamp if peek == Peek::String => match json.known_str() {
            Ok(string) => Ok(match parse_timestamp(string) {
                Some(micros) => Slot::Integer(micros),
                None => Slot::Wrong(format!("{:?} is no timestamp", shown(string))),
            }),
            Err(e) => Err(Malformed::at(json, e)),
        },
        Type::Int | Type::BigInt | Type::Double | Type::Decimal(..) | Type::Timestamp if peek.is_num() => {
            match json.known_number_bytes(peek) {
                Ok(number) => Ok(number_as(&Number::new(number), ty, numbers.unit)),
                Err(e) => Err(Malformed::at(json, e)),
            }
        }
        Type::Int | Type::BigInt | Type::Double | Type::Decimal(..) if peek == Peek::String && numbers.quoted => {
            match json.known_str() {
                Ok(string) => Ok(match Number::parse(string) {
                    Some(number) => number_as(&number, ty, None),
                    None => Slot::Wrong(format!("the string {:?} is not a number", shown(string))),
                }),
                Err(e) => Err(Malformed::at(json, e)),
            }
        }
        Type::Array(item) if peek == Peek::Array => {
            let mut items = vec![];
            let mut next = json.known_array().map_err(|e| Malformed::at(json, e))?;
            while next.is_some() {
                items.push(read_value(json, bytes, item, numbers, text)?);
                next = json.array_step().map_err(|e| Malformed::at(json, e))?;
            }
            Ok(match first_wrong(&items) {
                Some((i, what)) => Slot::Wrong(format!("item {i} is {item}: {what}")),
                None => Slot::List(items),
            })
        }
        Type::Struct(fields) if peek == Peek::Object => read_struct(json, bytes, fields, numbers, text),
        _ => {
            json.known_skip(peek).map_err(|e| Malformed::at(json, e))?;
            Ok(Slot::Wrong(format!("it is {}", kind_of(peek))))
        }
    }
}

fn read_struct(
    json: &mut Jiter<'_>,
    bytes: &[u8],
    fields: &[(String, Type)],
    numbers: Numbers,
    text: &mut String,
) -> Result<Slot, Malformed> {
    let mut values = vec![Slot::Null; fields.len()];
    let place = |key: Option<&str>| key.map(|key| fields.iter().position(|(name, _)| name == key));
    let mut next = match json.known_object() {
        Ok(key) => place(key),
        Err(e) => return Err(Malformed::at(json, e)),
    };
    while let Some(field) = next {
        match field {
            Some(i) => values[i] = read_value(json, bytes, &fields[i].1, numbers, text)?,
            None => json.next_skip().map_err(|e| Malformed::at(json, e))?,
        }
        next = match json.next_key() {
            Ok(key) => place(key),
            Err(e) => return Err(Malformed::at(json, e)),
        };
    }
    Ok(match first_wrong(&values) {
        Some((i, what)) => Slot::Wrong(format!("field {:?} is {}: {what}", fields[i].0, fields[i].1)),
        None => Slot::Struct(values),
    })
}

fn first_wrong(slots: &[Slot]) -> Option<(usize, &str)> {
    slots.iter().enumerate().find_map(|(i, slot)| match slot {
        Slot::Wrong(what) => Some((i, &**what)),
        _ => None,
    })
}

/// Any value, as its own text.
fn raw(json: &mut Jiter<'_>, bytes: &[u8], peek: Peek, text: &mut String) -> Result<Slot, Malformed> {
    let start = json.current_index();
    json.known_skip(peek).map_err(|e| Malformed::at(json, e))?;
    let value = std::str::from_utf8(&bytes[start..json.current_index()]).expect("the record is UTF-8");
    Ok(Slot::Text(append(text, value)))
}

fn append(text: &mut String, string: &str) -> Range<usize> {
    let start = text.len();
    text.push_str(string);
    start..text.len()
}

fn number_as(number: &Number<'_>, ty: &Type, unit: Option<TimestampUnit>) -> Slot {
    let (slot, wrong) = match ty {
        Type::Int => {
            let int = number.integer().filter(|n| i32::try_from(*n).is_ok());
            (int.map(Slot::Integer), "is no whole number of 32 bits")
        }
        Type::BigInt => (number.integer().map(Slot::Integer), "is no whole number of 64 bits"),
        Type::Double => (number.double().map(Slot::Double), "is out of range"),
        Type::Decimal(precision, scale) => {
            (number.decimal(*precision, *scale).map(Slot::Decimal), "has too many digits before or behind the point")
        }
        Type::Timestamp => match unit {
            Some(unit) => (number.floor_at(unit.to_micros(|| number.order())).map(Slot::Integer), "is out of range"),
            None => (None, "is a number, and the source has no timestamp_unit; 'auto' goes by the number's size"),
        },
        _ => (None, "is a number"),
    };
    slot.unwrap_or_else(|| Slot::Wrong(format!("{} {wrong}", shown(number.text()))))
}

/// The beginning of a text, for people.
fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let cut = if text.chars().nth(MOST).is_some() { "…" } else { "" };
    text.chars().take(MOST).chain(cut.chars()).collect()
}

/// What a value is, by how it begins.
pub(super) fn kind_of(peek: Peek) -> &'static str {
    match peek {
        Peek::Null => "null",
        Peek::True | Peek::False => "a boolean",
        Peek::String => "a string",
        Peek::Array => "an array",
        Peek::Object => "an object",
        peek if peek.is_num() => "a number",
        _ => "no JSON",
    }
}
