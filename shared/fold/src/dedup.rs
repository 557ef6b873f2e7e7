//! Which rows are duplicates: those with equal columns among the previous N offsets of their partition, themselves duplicates or
//! not. The same operator in every layer; whoever begins in the middle of a partition shows it the N offsets before, first.
//!
//! Rows are equal where SQL's `DISTINCT` finds them equal: NULL equals NULL. A key is remembered by 128 bits of SipHash, about 70
//! bytes a row, of the rows of N offsets at most.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use bifold_ledger::Dialect;
use serde::{Deserialize, Serialize};

use crate::functions::canonical;
use crate::schema::Source;

/// `dedup` and `dedup_lookback` of a source.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DedupBy {
    /// The columns whose values tell rows apart.
    pub columns: Vec<String>,
    /// How many offsets are looked back.
    pub lookback: i64,
}

/// Columns of the log that the operator reads beside its own.
const PLACE: [&str; 3] = ["_topic", "_partition", "_offset"];

/// The operator, and what it remembers.
pub struct Dedup {
    by: DedupBy,
    dialect: Dialect,
    converter: RowConverter,
    partitions: HashMap<(String, i32), Window>,
}

impl std::fmt::Debug for Dedup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dedup").field("by", &self.by).finish_non_exhaustive()
    }
}

/// The rows of the last N offsets of a partition.
#[derive(Default)]
struct Window {
    /// The newest offset of each key.
    last: HashMap<u128, i64>,
    /// The same by offset, oldest first; a key that came again stands there several times.
    order: VecDeque<(i64, u128)>,
}

impl Window {
    /// Whether the row is a duplicate; it is remembered either way.
    fn is_duplicate(&mut self, offset: i64, key: u128, lookback: i64) -> bool {
        while let Some((old, key)) = self.order.front().copied().filter(|(old, _)| *old < offset - lookback) {
            self.order.pop_front();
            if self.last.get(&key) == Some(&old) {
                self.last.remove(&key);
            }
        }
        self.order.push_back((offset, key));
        self.last.insert(key, offset).is_some()
    }
}

impl Dedup {
    /// The operator of `source`, if it has one, as a dialect means equality.
    ///
    /// # Errors
    /// Columns of a type that cannot be compared.
    pub fn new(source: &Source, dialect: Dialect) -> Result<Option<Self>, ArrowError> {
        let Some(by) = source.dedup.clone() else { return Ok(None) };
        let schema = source.schema();
        let fields = by.columns.iter().map(|name| {
            let field = schema.field_with_name(name)?;
            Ok(SortField::new(field.data_type().clone()))
        });
        let converter = RowConverter::new(fields.collect::<Result<_, ArrowError>>()?)?;
        Ok(Some(Self { by, dialect, converter, partitions: HashMap::new() }))
    }

    /// Whether the operator reads a column.
    pub fn reads(&self, name: &str) -> bool {
        PLACE.contains(&name) || self.by.columns.iter().any(|column| column == name)
    }

    /// How many offsets it looks back.
    pub fn lookback(&self) -> i64 {
        self.by.lookback
    }

    /// Which rows are no duplicates. Rows of one partition come in the log's order, over all calls.
    ///
    /// # Errors
    /// Arrow's failure.
    pub fn admit(&mut self, rows: &RecordBatch) -> Result<BooleanArray, ArrowError> {
        let column = |name: &str| {
            rows.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("there is no column {name}")))
        };
        let key = |name: &String| match self.dialect.is_first() {
            true => column(name).cloned(),
            false => canonical::of_array(column(name)?),
        };
        let columns = self.by.columns.iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let keys = self.converter.convert_columns(&columns)?;
        let (topics, partitions) = (column("_topic")?.as_string::<i32>(), column("_partition")?);
        let partitions = partitions.as_primitive::<Int32Type>();
        let offsets = column("_offset")?.as_primitive::<Int64Type>();
        let mut admitted = Vec::with_capacity(rows.num_rows());
        let mut row = 0;
        // Rows of a partition come in runs.
        while row < rows.num_rows() {
            let (topic, partition) = (topics.value(row), partitions.value(row));
            let window = self.partitions.entry((topic.to_string(), partition)).or_default();
            while row < rows.num_rows() && partitions.value(row) == partition && topics.value(row) == topic {
                let key = hash(keys.row(row).as_ref());
                admitted.push(!window.is_duplicate(offsets.value(row), key, self.by.lookback));
                row += 1;
            }
        }
        Ok(BooleanArray::from(admitted))
    }
}

/// Two hashes of a key, with keys of their own.
fn hash(key: &[u8]) -> u128 {
    let (mut low, mut high) = (DefaultHasher::new(), DefaultHasher::new());
    low.write(key);
    high.write_u8(0x5b);
    high.write(key);
    u128::from(low.finish()) | u128::from(high.finish()) << 64
}
