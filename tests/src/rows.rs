//! Finished rows as plain cells, free of Arrow's many types for one thing, so that answers of different engines compare.
//!
//! Integers of every width are one kind of cell, texts of every layout another; decimals, times and bytes are their
//! texts. Doubles compare within [`WITHIN`], everything else exactly.

use std::cmp::Ordering;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Float64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Value, json};

/// How far doubles may lie apart: relative, and absolute below 1.
pub const WITHIN: f64 = 1e-9;

/// One value.
#[derive(Clone, PartialEq, PartialOrd, Debug)]
pub enum Cell {
    /// NULL
    Null,
    /// A boolean.
    Boolean(bool),
    /// An integer of any width; also a decimal of scale 0.
    Integer(i128),
    /// A double.
    Double(f64),
    /// A text, or the text of a decimal, a time or bytes.
    Text(String),
    /// A list.
    List(Vec<Cell>),
}

impl Cell {
    /// Whether the cells are equal, doubles within `WITHIN`.
    pub fn is_like(&self, other: &Cell) -> bool {
        match (self, other) {
            (Cell::Double(a), Cell::Double(b)) => {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= WITHIN * a.abs().max(b.abs()).max(1.0)
            }
            (Cell::List(a), Cell::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_like(b)),
            (a, b) => a == b,
        }
    }

    /// The number in it, if it is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Cell::Integer(value) => Some(*value as f64),
            Cell::Double(value) => Some(*value),
            _ => None,
        }
    }

    /// The cell as JSON: integers with all their digits, doubles that are no numbers as texts.
    pub fn json(&self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Boolean(value) => json!(value),
            Cell::Integer(value) => match i64::try_from(*value) {
                Ok(value) => json!(value),
                Err(_) => json!(value.to_string()),
            },
            Cell::Double(value) if value.is_finite() => json!(value),
            Cell::Double(value) => json!(value.to_string()),
            Cell::Text(value) => json!(value),
            Cell::List(items) => items.iter().map(Cell::json).collect(),
        }
    }
}

/// An order for sorting rows alone: NaN stands where it stands.
fn order(a: &Cell, b: &Cell) -> Ordering {
    a.partial_cmp(b).unwrap_or(Ordering::Equal)
}

/// Finished rows, sorted by all their cells from the left.
#[derive(Clone, PartialEq, Debug)]
pub struct Rows {
    /// The columns' names.
    pub columns: Vec<String>,
    /// A cell for each column in every row.
    pub rows: Vec<Vec<Cell>>,
}

impl Rows {
    /// The rows of `batches`, which have one schema. Rows that start with their keys stand in the order of these.
    pub fn of(batches: &[RecordBatch]) -> Self {
        let mut columns = vec![];
        let mut rows = vec![];
        for batch in batches {
            columns = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
            let cells: Vec<Vec<Cell>> = batch.columns().iter().map(cells).collect();
            rows.extend((0..batch.num_rows()).map(|row| cells.iter().map(|column| column[row].clone()).collect()));
        }
        rows.sort_by(|a: &Vec<Cell>, b| {
            a.iter().zip(b).map(|(a, b)| order(a, b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        });
        Self { columns, rows }
    }

    /// Where `self` and `other` first differ, by `same(column, mine, theirs)`; none if nowhere.
    pub fn difference(&self, other: &Rows, same: impl Fn(usize, &Cell, &Cell) -> bool) -> Option<String> {
        if self.rows.len() != other.rows.len() {
            return Some(format!("{} rows against {}:\n{self}\nagainst\n{other}", self.rows.len(), other.rows.len()));
        }
        for (mine, theirs) in self.rows.iter().zip(&other.rows) {
            for (i, (a, b)) in mine.iter().zip(theirs).enumerate() {
                if !same(i, a, b) {
                    return Some(format!("column {:?}: {a:?} against {b:?} in\n{mine:?}\n{theirs:?}", self.columns[i]));
                }
            }
        }
        None
    }

    /// The rows as JSON: a list of lists.
    pub fn json(&self) -> Value {
        self.rows.iter().map(|row| row.iter().map(Cell::json).collect::<Value>()).collect()
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}", self.columns)?;
        self.rows.iter().try_for_each(|row| writeln!(f, "{row:?}"))
    }
}

fn cells(column: &ArrayRef) -> Vec<Cell> {
    let cell = |row: usize, cell: &dyn Fn(usize) -> Cell| if column.is_null(row) { Cell::Null } else { cell(row) };
    let all = |one: &dyn Fn(usize) -> Cell| (0..column.len()).map(|row| cell(row, one)).collect();
    match column.data_type() {
        DataType::Null => vec![Cell::Null; column.len()],
        DataType::Boolean => all(&|row| Cell::Boolean(column.as_boolean().value(row))),
        ty if ty.is_integer() => {
            let wide = cast(column, &DataType::Decimal128(38, 0)).expect("integers have at most 20 digits");
            all(&|row| Cell::Integer(wide.as_primitive::<Decimal128Type>().value(row)))
        }
        ty if ty.is_floating() => {
            let doubles = cast(column, &DataType::Float64).expect("floats are doubles");
            all(&|row| Cell::Double(doubles.as_primitive::<Float64Type>().value(row)))
        }
        DataType::List(_) => all(&|row| Cell::List(cells(&column.as_list::<i32>().value(row)))),
        _ => {
            let formatter = ArrayFormatter::try_new(column, &FormatOptions::default()).expect("every type has a text");
            all(&|row| Cell::Text(formatter.value(row).to_string()))
        }
    }
}
