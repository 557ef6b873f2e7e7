//! How much memory batches take. Batches that were cut from one share its buffers: counted whole for each, the sum would grow with the square
//! of their number.

use std::collections::HashSet;

use arrow::array::{Array, ArrayData, RecordBatch};
use arrow::buffer::Buffer;

/// Buffers, each counted once.
#[derive(Debug, Default)]
pub struct Buffers {
    seen: HashSet<usize>,
}

impl Buffers {
    /// The bytes that a batch adds: of buffers that were not seen before.
    pub fn add(&mut self, batch: &RecordBatch) -> usize {
        batch.columns().iter().map(|column| self.add_data(&column.to_data())).sum()
    }

    /// The bytes of batches together.
    pub fn of<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> usize {
        let mut buffers = Self::default();
        batches.into_iter().map(|batch| buffers.add(batch)).sum()
    }

    fn add_data(&mut self, data: &ArrayData) -> usize {
        let nulls = data.nulls().map(|nulls| nulls.buffer());
        let own: usize = data.buffers().iter().chain(nulls).map(|buffer| self.add_buffer(buffer)).sum();
        own + data.child_data().iter().map(|child| self.add_data(child)).sum::<usize>()
    }

    fn add_buffer(&mut self, buffer: &Buffer) -> usize {
        // Where the allocation begins, wherever the slice of it does.
        match self.seen.insert(buffer.data_ptr().addr().get()) {
            true => buffer.capacity(),
            false => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, ListArray, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn parts_of_one_batch_are_as_large_as_the_batch() {
        let rows = 100_000;
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>((0..rows).map(|i| Some(vec![Some(i), None])));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("n", Arc::new(Int64Array::from_iter_values(0..rows))),
            ("s", Arc::new(StringArray::from_iter((0..rows).map(|i| (i % 3 > 0).then(|| format!("text {i}")))))),
            ("l", Arc::new(lists)),
        ];
        let whole = RecordBatch::try_from_iter(columns).expect("a batch");
        let parts: Vec<RecordBatch> = (0..100).map(|i| whole.slice(i * 1_000, 1_000)).collect();
        let bytes = Buffers::of([&whole]);
        assert_eq!(Buffers::of(&parts), bytes);
        assert_eq!(Buffers::of(parts.iter().chain([&whole])), bytes);
        assert!(bytes >= 8 * rows as usize && bytes <= whole.get_array_memory_size(), "{bytes}");
        // As Arrow counts them, the parts are a hundred times as much.
        assert!(parts.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() > 90 * bytes);
    }
}
