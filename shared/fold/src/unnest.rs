//! Unnesting in pieces, so that no event makes a batch that is too large for Arrow's offsets of 32 bits.
//!
//! A row is repeated for each element of its list. A list of 30,000 elements beside a text of 90,000 bytes makes 2.7 GB of text. So the
//! rows below an unnest are handed to it a few at a time, and a row of a long list as several rows of parts of it: unnested they are
//! the same rows in the same order.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, RecordBatchOptions};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};

/// Bytes that the columns beside the lists may take once they are repeated.
const PIECE_BYTES: usize = 32 << 20;
/// Rows that a filter above an unnest collects: so many texts of `max_record`'s default still fit one array.
const ROWS_ABOVE: usize = 1_024;

/// Puts [`Pieces`] below every unnest.
#[derive(Debug)]
pub(crate) struct InPieces;

impl PhysicalOptimizerRule for InPieces {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let rewritten = plan.transform_up(|node| {
            if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
                let lists = unnest.list_column_indices().to_vec();
                // Of lists that are unnested to different depths no part goes by itself.
                if lists.is_empty() || (lists.len() > 1 && lists.iter().any(|list| list.depth != 1)) {
                    return Ok(Transformed::no(node));
                }
                let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
                let pieces = Arc::new(Pieces { input: Arc::clone(unnest.input()), lists });
                return Ok(Transformed::yes(node.replace_children(vec![pieces], options)?));
            }
            if let Some(filter) = node.downcast_ref::<FilterExec>()
                && filter.batch_size() > ROWS_ABOVE
                && node.exists(|below| Ok(below.is::<UnnestExec>()))?
            {
                let smaller: Arc<dyn ExecutionPlan> = Arc::new(filter.with_batch_size(ROWS_ABOVE)?);
                return Ok(Transformed::yes(smaller));
            }
            Ok(Transformed::no(node))
        })?;
        Ok(rewritten.data)
    }

    fn name(&self) -> &'static str {
        "unnest_in_pieces"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The rows of `input`, a few at a time, long lists in parts.
#[derive(Debug)]
struct Pieces {
    input: Arc<dyn ExecutionPlan>,
    lists: Vec<ListUnnest>,
}

impl DisplayAs for Pieces {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pieces")
    }
}

impl ExecutionPlan for Pieces {
    fn name(&self) -> &'static str {
        "Pieces"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().ok_or_else(|| DataFusionError::Internal("Pieces has one input".to_string()))?;
        Ok(Arc::new(Self { input, lists: self.lists.clone() }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (schema, lists) = (self.input.schema(), self.lists.clone());
        let input = self.input.execute(partition, context)?;
        let pieces = input
            .map(move |batch| Ok::<_, DataFusionError>(stream::iter(pieces(batch?, lists.clone(), PIECE_BYTES))))
            .try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, pieces)))
    }
}

/// The pieces of a batch, each made when it is asked for.
fn pieces(batch: RecordBatch, lists: Vec<ListUnnest>, most: usize) -> impl Iterator<Item = Result<RecordBatch>> {
    let beside = bytes_beside(&batch, &lists);
    let lengths = lengths(&batch, &lists);
    let plan = plan(&beside, &lengths, most);
    plan.into_iter().map(move |piece| match piece {
        Piece::Rows(rows) => Ok(batch.slice(rows.start, rows.len())),
        Piece::Part(row, elements) => part(&batch, &lists, row, &elements),
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// Whole rows.
    Rows(Range<usize>),
    /// Elements of one row's lists.
    Part(usize, Range<usize>),
}

/// What a row is repeated to: elements of its longest list, and rows that these make.
#[derive(Clone, Copy)]
struct Length {
    elements: usize,
    rows: usize,
}

/// Pieces that take at most `most` bytes each once unnested, or one element.
fn plan(beside: &[usize], lengths: &[Length], most: usize) -> Vec<Piece> {
    let (mut plan, mut start, mut bytes) = (vec![], 0, 0);
    for (row, (beside, length)) in beside.iter().zip(lengths).enumerate() {
        let cost = beside.saturating_mul(length.rows);
        if bytes > 0 && bytes + cost > most {
            plan.push(Piece::Rows(start..row));
            (start, bytes) = (row, 0);
        }
        if cost > most && length.elements > 1 {
            let step = (length.elements as u128 * most as u128 / cost as u128).max(1) as usize;
            let parts = (0..length.elements).step_by(step);
            plan.extend(parts.map(|from| Piece::Part(row, from..length.elements.min(from + step))));
            start = row + 1;
        } else {
            bytes += cost;
        }
    }
    if start < beside.len() {
        plan.push(Piece::Rows(start..beside.len()));
    }
    plan
}

/// One row, whose lists hold these of their elements. A shorter list has none of them: it is padded as it would be as a whole.
fn part(batch: &RecordBatch, lists: &[ListUnnest], row: usize, elements: &Range<usize>) -> Result<RecordBatch> {
    let column = |(place, column): (usize, &ArrayRef)| -> Result<ArrayRef> {
        let one = column.slice(row, 1);
        let unnested = lists.iter().any(|list| list.index_in_input_schema == place);
        let Some(list) = one.as_list_opt::<i32>().filter(|list| unnested && list.is_valid(0)) else { return Ok(one) };
        let values = list.value(0);
        let (from, to) = (elements.start.min(values.len()), elements.end.min(values.len()));
        let DataType::List(item) = list.data_type() else { return Ok(one) };
        let offsets = OffsetBuffer::from_lengths([to - from]);
        Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values.slice(from, to - from), None)?))
    };
    let columns = batch.columns().iter().enumerate().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// The elements of each row's longest list.
fn lengths(batch: &RecordBatch, lists: &[ListUnnest]) -> Vec<Length> {
    let mut lengths = vec![Length { elements: 1, rows: 1 }; batch.num_rows()];
    for list in lists {
        let Some(array) = batch.column(list.index_in_input_schema).as_list_opt::<i32>() else { continue };
        for (row, length) in lengths.iter_mut().enumerate() {
            let range = array.value_offsets()[row] as usize..array.value_offsets()[row + 1] as usize;
            let rows = if list.depth > 1 { leaves(array.values(), &range, list.depth - 1) } else { range.len() };
            length.elements = length.elements.max(range.len());
            length.rows = length.rows.max(rows);
        }
    }
    lengths
}

/// How many rows the values in `range` make when they are unnested `depth` times more.
fn leaves(values: &ArrayRef, range: &Range<usize>, depth: usize) -> usize {
    let Some(list) = values.as_list_opt::<i32>().filter(|_| depth > 0) else { return range.len() };
    let offsets = list.value_offsets();
    leaves(list.values(), &(offsets[range.start] as usize..offsets[range.end] as usize), depth - 1).max(range.len())
}

/// The bytes that each row has in the columns that are repeated.
fn bytes_beside(batch: &RecordBatch, lists: &[ListUnnest]) -> Vec<usize> {
    let mut bytes = vec![0; batch.num_rows()];
    for (place, column) in batch.columns().iter().enumerate() {
        if lists.iter().all(|list| list.index_in_input_schema != place) {
            add_bytes(column, &mut bytes);
        }
    }
    bytes
}

/// Adds to `bytes` what each row of an array takes.
fn add_bytes(array: &ArrayRef, bytes: &mut [usize]) {
    match array.data_type() {
        DataType::Utf8 => {
            let offsets = array.as_string::<i32>().offsets();
            bytes.iter_mut().zip(offsets.lengths()).for_each(|(bytes, length)| *bytes += length + 4);
        }
        DataType::Binary => {
            let offsets = array.as_binary::<i32>().offsets();
            bytes.iter_mut().zip(offsets.lengths()).for_each(|(bytes, length)| *bytes += length + 4);
        }
        DataType::List(_) => {
            let list = array.as_list::<i32>();
            let mut items = vec![0; list.values().len()];
            add_bytes(list.values(), &mut items);
            let range = |row: usize| list.value_offsets()[row] as usize..list.value_offsets()[row + 1] as usize;
            bytes.iter_mut().enumerate().for_each(|(row, bytes)| *bytes += items[range(row)].iter().sum::<usize>() + 4);
        }
        DataType::Struct(_) => array.as_struct().columns().iter().for_each(|column| add_bytes(column, bytes)),
        ty => bytes.iter_mut().for_each(|bytes| *bytes += ty.primitive_width().unwrap_or(16)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use arrow::datatypes::Int32Type;

    fn batch() -> RecordBatch {
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "bbbbbbbbbbbbbbbbbbbb", "c", "d"]));
        let some = |values: Vec<i32>| Some(values.into_iter().map(Some).collect::<Vec<_>>());
        let tags: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            some(vec![1, 2]),
            some((0..10).collect()),
            None,
            some(vec![]),
        ]));
        let others: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            some(vec![7]),
            some(vec![1, 2, 3]),
            some(vec![9]),
            some(vec![]),
        ]));
        RecordBatch::try_from_iter([("k", keys), ("t", tags), ("o", others)]).expect("columns of one length")
    }

    fn lists() -> Vec<ListUnnest> {
        [1, 2].map(|index_in_input_schema| ListUnnest { index_in_input_schema, depth: 1 }).to_vec()
    }

    /// The rows of a batch as an unnest gives them.
    fn unnested(batch: &RecordBatch) -> Vec<(String, Option<i32>, Option<i32>)> {
        let keys = batch.column(0).as_string::<i32>();
        let item = |column: usize, row: usize, i: usize| {
            let list = batch.column(column).as_list::<i32>();
            let values = list.is_valid(row).then(|| list.value(row))?;
            let values = values.as_primitive::<Int32Type>();
            (i < values.len()).then(|| values.value(i))
        };
        let length = |row: usize| {
            let one = |column: usize| {
                let list = batch.column(column).as_list::<i32>();
                if list.is_valid(row) { list.value(row).len() } else { 0 }
            };
            one(1).max(one(2))
        };
        let rows = (0..batch.num_rows()).flat_map(|row| (0..length(row)).map(move |i| (row, i)));
        rows.map(|(row, i)| (keys.value(row).to_string(), item(1, row, i), item(2, row, i))).collect()
    }

    #[test]
    fn pieces_unnest_to_the_same_rows_in_the_same_order() {
        let whole = unnested(&batch());
        for most in [1, 30, 60, 100, 250, 10_000] {
            let found: Vec<RecordBatch> = pieces(batch(), lists(), most).collect::<Result<_>>().expect("it can be cut");
            assert_eq!(found.iter().flat_map(unnested).collect::<Vec<_>>(), whole, "at most {most} bytes");
            if most == 60 {
                assert!(found.len() > 4, "{} pieces", found.len());
            }
        }
        assert_eq!(pieces(batch(), lists(), 10_000).count(), 1);
    }

    #[test]
    fn a_list_beside_a_large_text_is_cut() {
        let lengths = [Length { elements: 30_000, rows: 30_000 }];
        let plan = plan(&[90_000], &lengths, PIECE_BYTES);
        assert!(plan.len() > 80, "{} pieces", plan.len());
        assert_eq!(plan[0], Piece::Part(0, 0..372));
        assert!(matches!(plan.last(), Some(Piece::Part(0, Range { end: 30_000, .. }))));
    }
}
