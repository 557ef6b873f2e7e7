//! Writing an archive file: Parquet that can be checked in parts.
//!
//! ```text
//! "PAR1" · column chunk · column chunk · … · page indexes, footer
//! └───── segment ─────┘ └─ segment ──┘       └────── tail ──────┘
//! ```
//!
//! A scan reads a few columns of a file. So the footer holds a CRC-32 for each segment, which is one column chunk of one row
//! group, and the file's ledger entry holds one of the tail.

use arrow::array::RecordBatch;
use bifold_ledger::Tail;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::properties::WriterProperties;

/// Rows of a row group.
const GROUP_ROWS: usize = 131_072;
/// The footer's key of the segments' checksums: eight hexadecimal digits for each, in the file's order.
const KEY: &str = "bifold.crc32";
/// Parquet's last bytes: the footer's length and a magic number.
const END: usize = 8;

/// A Parquet file of one batch.
///
/// # Errors
/// Parquet's failure.
pub fn write(rows: &RecordBatch) -> Result<(Bytes, Tail)> {
    let level = ZstdLevel::try_new(1).expect("1 is a level");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_column_dictionary_enabled("_payload".into(), false)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties))?;
    writer.write(rows)?;
    writer.flush()?;
    writer.sync()?;
    let data = writer.inner();
    let segments = segments(writer.flushed_row_groups(), data.len())?;
    let sums: String =
        segments.iter().map(|segment| format!("{:08x}", crc32fast::hash(&data[segment.clone()]))).collect();
    let start = data.len();
    writer.append_key_value_metadata(KeyValue::new(KEY.to_string(), sums));
    let bytes = writer.into_inner()?;
    let tail = Tail { bytes: (bytes.len() - start) as u64, crc32: crc32fast::hash(&bytes[start..]) };
    Ok((bytes.into(), tail))
}

/// A part of a file, and the CRC-32 of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) crc32: u32,
}

/// The segments that the tail of a file tells of. `start` is where the tail begins.
///
/// # Errors
/// A tail that does not fit the file: it was written by something else.
pub(crate) fn segments_of(tail: &Bytes, start: u64) -> Result<Vec<Segment>> {
    let metadata = metadata_of(tail)?;
    let file = metadata.file_metadata().key_value_metadata();
    let sums = file.and_then(|pairs| pairs.iter().find(|pair| pair.key == KEY)?.value.clone());
    let sums = sums.ok_or_else(|| ParquetError::General(format!("the footer has no {KEY}")))?;
    let start = usize::try_from(start).map_err(|e| ParquetError::General(e.to_string()))?;
    let places = segments(metadata.row_groups(), start)?;
    if sums.len() != places.len() * 8 || !sums.is_ascii() {
        return Err(ParquetError::General(format!("{KEY} has {} digits for {} parts", sums.len(), places.len())));
    }
    let sum = |i: usize| u32::from_str_radix(&sums[i * 8..(i + 1) * 8], 16);
    let segments = places.into_iter().enumerate().map(|(i, place)| {
        let crc32 = sum(i).map_err(|e| ParquetError::General(format!("{KEY}: {e}")))?;
        Ok(Segment { start: place.start as u64, end: place.end as u64, crc32 })
    });
    segments.collect()
}

fn metadata_of(tail: &Bytes) -> Result<ParquetMetaData> {
    let short = || ParquetError::General("the footer is longer than the file's tail".to_string());
    let (body, end) = tail.split_last_chunk::<END>().ok_or_else(short)?;
    let length = u32::from_le_bytes([end[0], end[1], end[2], end[3]]) as usize;
    let footer = body.len().checked_sub(length).ok_or_else(short)?;
    ParquetMetaDataReader::decode_metadata(&body[footer..])
}

/// Where the column chunks lie: from each one's start to the next one's, the first from the file's start, the last up to `end`.
fn segments(groups: &[RowGroupMetaData], end: usize) -> Result<Vec<std::ops::Range<usize>>> {
    let mut starts: Vec<usize> =
        groups.iter().flat_map(|group| group.columns()).map(|c| c.byte_range().0 as usize).collect();
    starts.sort_unstable();
    starts.dedup();
    if let Some(first) = starts.first_mut() {
        *first = 0;
    }
    let ends = starts.iter().skip(1).copied().chain(std::iter::once(end));
    let segments: Vec<_> = starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
    match segments.iter().any(|segment| segment.start > segment.end) {
        true => Err(ParquetError::General("a column starts after the footer".to_string())),
        false => Ok(segments),
    }
}
