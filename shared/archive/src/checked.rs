//! A store that checks the parts of archive files as a scan reads them.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bifold_ledger::{File, Tail};
use bifold_store::{Error, SourceFiles};
use bytes::{Bytes, BytesMut};
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::OnceCell;

use crate::file::{Segment, segments_of};

/// The store, which answers reads of known files only with bytes that were checked against what the ledger says. A read of a part
/// reads the segments that it lies in; the store reads a whole file once before the first scan if the file has no checksums of its parts.
pub struct CheckedStore {
    files: SourceFiles,
    known: HashMap<Path, Known>,
}

/// A file, and its segments once they are read.
struct Known {
    file: File,
    segments: OnceCell<Option<Segments>>,
}

struct Segments {
    data: Vec<Segment>,
    tail: Bytes,
}

impl fmt::Debug for CheckedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedStore").field("files", &self.known.len()).finish_non_exhaustive()
    }
}

impl fmt::Display for CheckedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checked {}", self.files.store)
    }
}

impl CheckedStore {
    /// The store of `files`, of which `known` are checked.
    pub fn new<'a>(files: &SourceFiles, known: impl Iterator<Item = &'a File>) -> Self {
        let known = known.map(|file| {
            let known = Known { file: file.clone(), segments: OnceCell::new() };
            (files.layout.object(&file.path), known)
        });
        Self { files: files.clone(), known: known.collect() }
    }

    /// The bytes of `ranges`, each checked.
    async fn read(&self, path: &Path, known: &Known, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let segments = known.segments.get_or_try_init(|| self.segments(path, known)).await?;
        let Some(segments) = segments else { return self.files.store.get_ranges(path, ranges).await };
        let mut needed: Vec<usize> = ranges.iter().flat_map(|range| segments.within(range)).collect();
        needed.sort_unstable();
        needed.dedup();
        let places: Vec<Range<u64>> = needed.iter().map(|i| segments.data[*i].start..segments.data[*i].end).collect();
        let found = self.files.store.get_ranges(path, &places).await?;
        for (i, bytes) in needed.iter().zip(&found) {
            let segment = &segments.data[*i];
            check(path, (segment.start, segment.end - segment.start, segment.crc32), bytes)?;
        }
        let segment = |i: usize| &found[needed.binary_search(&i).expect("it was read")];
        Ok(ranges.iter().map(|range| segments.cut(range, segment)).collect())
    }

    /// The segments of a file. None if it has no checksums of its parts: then it was checked whole.
    async fn segments(&self, path: &Path, known: &Known) -> Result<Option<Segments>> {
        let Some(tail @ Tail { bytes, crc32 }) = known.file.tail.filter(|tail| tail.bytes <= known.file.bytes) else {
            self.files.check(&known.file).await.map_err(failed)?;
            return Ok(None);
        };
        let start = known.file.bytes - tail.bytes;
        let found = self.files.store.get_range(path, start..known.file.bytes).await?;
        check(path, (start, bytes, crc32), &found)?;
        let damaged = |e: parquet::errors::ParquetError| Error::Damaged { path: path.to_string(), why: e.to_string() };
        let data = segments_of(&found, start).map_err(|e| failed(damaged(e)))?;
        Ok(Some(Segments { data, tail: found }))
    }
}

impl Segments {
    /// Where the tail starts.
    fn end(&self) -> u64 {
        self.data.last().map_or(0, |last| last.end)
    }

    /// The segments that a range touches.
    fn within(&self, range: &Range<u64>) -> Range<usize> {
        let first = self.data.partition_point(|segment| segment.end <= range.start);
        let last = self.data.partition_point(|segment| segment.start < range.end);
        first..last.max(first)
    }

    /// The bytes of a range, from the segments read and the tail.
    fn cut<'a>(&self, range: &Range<u64>, bytes_of: impl Fn(usize) -> &'a Bytes) -> Bytes {
        let tail = (self.end(), &self.tail);
        let parts = self.within(range).map(|i| (self.data[i].start, bytes_of(i)));
        let parts = parts.chain((range.end > self.end()).then_some(tail));
        let cut = |(start, bytes): (u64, &Bytes)| {
            let from = range.start.saturating_sub(start) as usize;
            let to = ((range.end - start) as usize).min(bytes.len());
            bytes.slice(from.min(to)..to)
        };
        let mut parts: Vec<Bytes> = parts.map(cut).collect();
        if parts.len() == 1 {
            return parts.remove(0);
        }
        let mut whole = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        whole.freeze()
    }
}

fn check(path: &Path, (start, length, crc32): (u64, u64, u32), bytes: &Bytes) -> Result<()> {
    let damaged = |why: String| Err(failed(Error::Damaged { path: path.to_string(), why }));
    if bytes.len() as u64 != length {
        return damaged(format!("of {length} bytes at {start} it has {}", bytes.len()));
    }
    match crc32fast::hash(bytes) {
        found if found == crc32 => Ok(()),
        found => damaged(format!("the CRC-32 of {length} bytes at {start} is {found:08x}, not {crc32:08x}")),
    }
}

fn failed(error: Error) -> object_store::Error {
    match error {
        Error::Unavailable { source, .. } => source,
        error => object_store::Error::Generic { store: "archive", source: Box::new(error) },
    }
}

/// The damaged file that made a scan fail, if that is the reason.
pub fn damage_in<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<(&'a str, &'a str)> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(Error::Damaged { path, why }) = error.downcast_ref::<Error>() {
            return Some((path, why));
        }
        cause = error.source();
    }
    None
}

#[async_trait]
impl ObjectStore for CheckedStore {
    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(known) = self.known.get(path).filter(|_| !options.head) else {
            return self.files.store.get_opts(path, options).await;
        };
        let size = known.file.bytes;
        let invalid = |e| object_store::Error::Generic { store: "archive", source: Box::new(e) };
        let range =
            options.range.as_ref().map_or(Ok(0..size), |range: &GetRange| range.as_range(size).map_err(invalid))?;
        let bytes = self.read(path, known, std::slice::from_ref(&range)).await?.remove(0);
        let meta =
            ObjectMeta { location: path.clone(), last_modified: Default::default(), size, e_tag: None, version: None };
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default() })
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match self.known.get(path) {
            Some(known) => self.read(path, known, ranges).await,
            None => self.files.store.get_ranges(path, ranges).await,
        }
    }

    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.files.store.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(&self, path: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.files.store.put_multipart_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.store.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::file;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use object_store::memory::InMemory;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    const PATH: &str = "archive/a.parquet";

    fn rows() -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..400));
        let texts = (0..400).map(|i| format!("text {}", i * 7919 % 1009));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(texts));
        RecordBatch::try_from_iter([("n", numbers), ("t", texts)]).expect("both have the same rows")
    }

    /// A store with `bytes` where the ledger names `file`.
    async fn store_of(file: &File, bytes: Bytes) -> (CheckedStore, Path) {
        let files = SourceFiles::new(Arc::new(InMemory::new()), &Path::from("root"), "s");
        files.put(file.path.clone(), bytes, file.rows).await.expect("memory takes everything");
        let object = files.layout.object(&file.path);
        (CheckedStore::new(&files, std::iter::once(file)), object)
    }

    fn written() -> (File, Bytes) {
        let (bytes, tail) = file::write(&rows()).expect("rows can be written");
        let crc32 = crc32fast::hash(&bytes);
        (File { path: PATH.into(), bytes: bytes.len() as u64, crc32, rows: 400, tail: Some(tail) }, bytes)
    }

    #[tokio::test]
    async fn every_range_reads_as_it_was_written() {
        let (file, bytes) = written();
        for file in [file.clone(), File { tail: None, ..file }] {
            let (store, path) = store_of(&file, bytes.clone()).await;
            let whole = store.get(&path).await.expect("it is there").bytes().await.expect("it can be read");
            assert_eq!(whole, bytes);
            for start in (0..bytes.len()).step_by(13) {
                for end in [start + 1, start + 200, start + 1500, bytes.len()].map(|end| end.min(bytes.len())) {
                    let found = store.get_range(&path, start as u64..end as u64).await.expect("it can be read");
                    assert_eq!(found, bytes.slice(start..end), "{start}..{end}");
                }
            }
        }
        let read =
            ParquetRecordBatchReaderBuilder::try_new(bytes).expect("it is Parquet").build().expect("it can be read");
        assert_eq!(read.collect::<Result<Vec<_>, _>>().expect("it can be read"), [rows()]);
    }

    #[tokio::test]
    async fn a_flipped_bit_anywhere_is_found_by_whoever_reads_it() {
        let (file, bytes) = written();
        for file in [file.clone(), File { tail: None, ..file }] {
            for place in 0..bytes.len() {
                let mut altered = bytes.to_vec();
                altered[place] ^= 1 << (place % 8);
                let (store, path) = store_of(&file, altered.into()).await;
                let error = store.get_range(&path, place as u64..place as u64 + 1).await.expect_err("it was altered");
                let (damaged, _) = damage_in(&error).unwrap_or_else(|| panic!("byte {place}: {error}"));
                assert_eq!(damaged, path.as_ref());
            }
        }
    }
}
