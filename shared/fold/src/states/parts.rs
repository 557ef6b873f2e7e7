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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringArray};
    use arrow::util::pretty::pretty_format_batches;

    use super::*;
    use crate::engine::Engine;
    use crate::states::Input;
    use crate::{pipeline, view};

    fn lines(batches: &[RecordBatch]) -> Vec<String> {
        let text = pretty_format_batches(batches).expect("it is shown").to_string();
        let mut lines: Vec<String> = text.lines().skip(3).map(str::to_string).collect();
        lines.sort_unstable();
        lines
    }

    #[tokio::test]
    async fn parts_share_no_group_and_merge_to_what_the_whole_does() {
        let engine = Engine::new();
        let sql = "CREATE TABLE s (k TEXT, n BIGINT) WITH (connector = 'kafka', topic = 's'); \
            CREATE MATERIALIZED VIEW v AS SELECT k, n, count(*) AS c, max(k) AS m FROM s GROUP BY 1, 2;";
        let pipeline = pipeline::parse("p.sql", sql, 1u64 << 20).expect("it is a pipeline");
        let view = view::compile_all(&engine, &pipeline).await.expect("it compiles").remove(0);
        let input = Input::new(&engine, Arc::clone(&view)).await.expect("it is planned");
        let mut states = vec![];
        for part in 0..5 {
            let keys: ArrayRef = Arc::new(StringArray::from_iter(
                (0..300).map(|i| (i % 7 > 0).then(|| format!("key {}", (i + part * 40) % 400))),
            ));
            let numbers: ArrayRef =
                Arc::new(arrow::array::Int64Array::from_iter((0..300i64).map(|i| (i % 5 > 0).then_some(i % 3))));
            let rows = RecordBatch::try_from_iter([("k", keys), ("n", numbers)]).expect("columns of one length");
            states.extend(input.fold(&[rows]).await.expect("it folds"));
        }
        let parts = view.parts_beyond(states.clone(), (100, 700)).expect("it is split");
        assert!(parts.len() > 5, "{} parts", parts.len());
        assert_eq!(view.parts_beyond(states.clone(), (1 << 20, 700)).expect("it is left whole").len(), 1);
        let (mut of, mut reduced, mut finished) = (HashMap::new(), vec![], vec![]);
        for (number, part) in parts.into_iter().enumerate() {
            let merged = view.reduce(&engine, part.clone()).await.expect("it merges");
            for line in lines(&merged.iter().map(|batch| batch.project(&[0, 1]).expect("its keys")).collect::<Vec<_>>())
            {
                assert!(line.starts_with('+') || of.insert(line.clone(), number).is_none(), "{line} is in two parts");
            }
            reduced.extend(merged);
            finished.extend(view.finish(&engine, part).await.expect("it finishes"));
        }
        let rows = |batches: &[RecordBatch]| {
            lines(batches).into_iter().filter(|line| line.starts_with('|')).collect::<Vec<_>>()
        };
        let whole = view.finish(&engine, states.clone()).await.expect("it finishes");
        let cells = |line: String| line.split('|').map(|cell| cell.trim().to_string()).collect::<Vec<_>>();
        let sorted = |batches: &[RecordBatch]| {
            let mut rows: Vec<_> = rows(batches).into_iter().map(cells).collect();
            rows.sort();
            rows
        };
        assert_eq!(sorted(&finished), sorted(&whole));
        assert_eq!(sorted(&reduced), sorted(&view.reduce(&engine, states).await.expect("it merges")));
    }
}
