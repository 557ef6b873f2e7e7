//! States in parts by group. Arrow's texts and lists have offsets of 32 bits: what is merged at once may hold 2 GiB of a column, so a view
//! that holds more is merged part by part. A part has every state of its groups, so parts are merged and finished by themselves.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;
use datafusion::common::hash_utils::{RandomState, create_hashes};

use crate::Result;
use crate::view::View;

/// Bytes of one column that a part is to have at most: groups are shared out by their hashes, so not evenly.
const PART_BYTES: usize = 512 << 20;
/// Bytes of one column from which states are split.
const SPLIT_BYTES: usize = 1 << 30;

impl View {
    /// These states, in parts that share no group. One part, unless a column has more bytes than are merged at once.
    ///
    /// # Errors
    /// A key that cannot be hashed.
    pub(super) fn parts(&self, states: Vec<RecordBatch>) -> Result<Vec<Vec<RecordBatch>>> {
        self.parts_beyond(states, (SPLIT_BYTES, PART_BYTES))
    }

    fn parts_beyond(&self, states: Vec<RecordBatch>, (split, part): (usize, usize)) -> Result<Vec<Vec<RecordBatch>>> {
        let columns = self.stored.fields().len();
        let bytes = |column: usize| states.iter().map(|batch| variable_bytes(batch.column(column))).sum::<usize>();
        let most = (0..columns).map(bytes).max().unwrap_or(0);
        if most <= split || self.ungrouped {
            return Ok(vec![states]);
        }
        let count = most.div_ceil(part);
        let mut parts = vec![vec![]; count];
        let seed = RandomState::with_seed(0);
        for batch in states {
            let mut hashes = vec![0; batch.num_rows()];
            create_hashes(&batch.columns()[..self.key_count()], &seed, &mut hashes)?;
            let mut rows: Vec<Vec<u32>> = vec![vec![]; count];
            for (row, hash) in hashes.iter().enumerate() {
                rows[(hash % count as u64) as usize].push(row as u32);
            }
            for (part, rows) in parts.iter_mut().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
                part.push(take_record_batch(&batch, &UInt32Array::from(rows))?);
            }
        }
        Ok(parts)
    }
}

/// The bytes and items of an array that offsets count.
fn variable_bytes(array: &ArrayRef) -> usize {
    match array.data_type() {
        DataType::Utf8 => span(array.as_string::<i32>().value_offsets()),
        DataType::Binary => span(array.as_binary::<i32>().value_offsets()),
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let (first, items) = (list.value_offsets()[0] as usize, span(list.value_offsets()));
            items.max(variable_bytes(&list.values().slice(first, items)))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(variable_bytes).max().unwrap_or(0),
        _ => 0,
    }
}

fn span(offsets: &[i32]) -> usize {
    (offsets[offsets.len() - 1] - offsets[0]) as usize
}
