//! What `produce` reads: NDJSON as it is; CSV and Parquet row by row, as JSON of the source's columns.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifold_fold::{Source, Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::Format;
use crate::exit::Exit;

/// Bytes that a batch of lines has at most, but for its last line.
const BATCH_BYTES: usize = 8 << 20;

/// A file being read.
pub(crate) struct Input {
    name: String,
    rows: Rows,
    read: Arc<AtomicU64>,
    /// Bytes of the file; none of standard input.
    pub(crate) bytes: Option<u64>,
}

enum Rows {
    Lines(Box<dyn BufRead + Send>),
    Csv { reader: Box<csv::Reader<Box<dyn Read + Send>>>, names: Vec<String>, source: Arc<Source> },
    Parquet { reader: ParquetRecordBatchReader, source: Arc<Source> },
}

/// Counts what is read through it.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl Input {
    /// Opens a file; `-` is standard input. Without a `format` the name decides: `.csv`, `.tsv`, `.parquet`, else NDJSON; `.gz`
    /// may follow.
    pub(crate) fn open(path: &Path, format: Option<Format>, source: &Arc<Source>) -> Result<Self, Exit> {
        let name = path.display().to_string();
        let unreadable = |e: &dyn std::fmt::Display| Exit::Usage(format!("cannot read {name}: {e}"));
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let by_name = match plain.rsplit_once('.') {
            Some((_, "csv")) => Format::Csv,
            Some((_, "tsv")) => Format::Tsv,
            Some((_, "parquet")) => Format::Parquet,
            _ => Format::Ndjson,
        };
        let (format, source, read) = (format.unwrap_or(by_name), Arc::clone(source), Arc::new(AtomicU64::new(0)));
        if format == Format::Parquet {
            let file = File::open(path).map_err(|e| unreadable(&e))?;
            let bytes = file.metadata().ok().map(|metadata| metadata.len());
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(&e))?;
            let reader = builder.with_batch_size(8_192).build().map_err(|e| unreadable(&e))?;
            return Ok(Self { name, rows: Rows::Parquet { reader, source }, read, bytes });
        }
        let (inner, bytes): (Box<dyn Read + Send>, _) = if path == Path::new("-") {
            (Box::new(std::io::stdin()), None)
        } else {
            let file = File::open(path).map_err(|e| unreadable(&e))?;
            let bytes = file.metadata().ok().map(|metadata| metadata.len());
            (Box::new(file), bytes)
        };
        let counted = Counted { inner, read: Arc::clone(&read) };
        let text: Box<dyn Read + Send> = match plain.len() < name.len() {
            true => Box::new(flate2::read::MultiGzDecoder::new(counted)),
            false => Box::new(counted),
        };
        let rows = match format {
            Format::Csv | Format::Tsv => {
                let delimiter = if format == Format::Tsv { b'\t' } else { b',' };
                let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
                let names = reader.headers().map_err(|e| unreadable(&e))?.iter().map(String::from).collect();
                Rows::Csv { reader: Box::new(reader), names, source }
            }
            Format::Ndjson | Format::Parquet => Rows::Lines(Box::new(BufReader::with_capacity(1 << 20, text))),
        };
        Ok(Self { name, rows, read, bytes })
    }

    /// Bytes of the file that have been read.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The next records, about `most`; none at the end.
    pub(crate) fn next(&mut self, most: usize) -> Result<Vec<Vec<u8>>, Exit> {
        let failed = |e: &dyn std::fmt::Display| Exit::Failed(format!("{}: {e}", self.name));
        match &mut self.rows {
            Rows::Lines(reader) => lines(&mut **reader, most).map_err(|e| failed(&e)),
            Rows::Csv { reader, names, source } => {
                let mut rows = vec![];
                let mut record = csv::StringRecord::new();
                while rows.len() < most && reader.read_record(&mut record).map_err(|e| failed(&e))? {
                    let cells = names.iter().zip(record.iter()).filter(|(_, text)| !text.is_empty());
                    let cells = cells.map(|(name, text)| (name.as_str(), cell(source, name, text)));
                    rows.push(object(cells));
                }
                Ok(rows)
            }
            Rows::Parquet { reader, source } => {
                let Some(batch) = reader.next().transpose().map_err(|e| failed(&e))? else { return Ok(vec![]) };
                let rows = bifold_serving::json::rows(&batch).map_err(|e| failed(&e))?;
                self.read.fetch_add(batch.get_array_memory_size() as u64, Ordering::Relaxed);
                let line = |row: Value| match row {
                    Value::Object(fields) => object(fields.iter().map(|(name, value)| {
                        let text = match value {
                            Value::String(text) => cell(source, name, text),
                            value => value.to_string(),
                        };
                        (name.as_str(), text)
                    })),
                    other => other.to_string().into_bytes(),
                };
                Ok(rows.into_iter().map(line).collect())
            }
        }
    }
}

/// The next lines, at most `most`, without the empty ones.
fn lines(reader: &mut dyn BufRead, most: usize) -> std::io::Result<Vec<Vec<u8>>> {
    let (mut lines, mut bytes) = (vec![], 0);
    while lines.len() < most && bytes < BATCH_BYTES {
        let mut line = vec![];
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !line.is_empty() && line != b"\r" {
            bytes += line.len();
            lines.push(line);
        }
    }
    Ok(lines)
}

/// A JSON object of names and JSON values.
fn object<'a>(fields: impl Iterator<Item = (&'a str, String)>) -> Vec<u8> {
    let fields: Vec<String> = fields.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

/// A text as JSON of the column that it stands in. What does not look like the column's type becomes a string, which the
/// source then takes or dead-letters.
fn cell(source: &Source, name: &str, text: &str) -> String {
    let is_number = || serde_json::from_str::<serde_json::Number>(text).is_ok();
    let bare = match source.columns.iter().find(|column| column.name == name).map(|column| &column.ty) {
        Some(Type::Int | Type::BigInt | Type::Double | Type::Decimal(..)) => is_number(),
        Some(Type::Timestamp) => source.timestamp_unit.is_some() && is_number(),
        Some(Type::Boolean) => matches!(text, "true" | "false"),
        Some(Type::Json | Type::Struct(_) | Type::Array(_)) => serde_json::from_str::<&RawValue>(text).is_ok(),
        Some(Type::Text) | None => false,
    };
    if bare { text.to_string() } else { Value::from(text).to_string() }
}
