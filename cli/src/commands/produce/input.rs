//! What `produce` reads: NDJSON as it is; CSV and Parquet row by row, as JSON of the source's columns.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bifold_fold::{Source, Type};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::Format;
use crate::exit::Exit;

/// Bytes that a batch of lines has at most, but for its last line.
const BATCH_BYTES: usize = 8 << 20;
/// The longest line that is read: no broker takes a longer record.
const LONGEST_LINE: u64 = 256 << 20;

/// How a file is read.
#[derive(Clone, Copy, Default)]
pub(crate) struct Reading {
    /// What it is. None: its name says it.
    pub(crate) format: Option<Format>,
    /// What separates the fields of a line. None: the header says it.
    pub(crate) delimiter: Option<u8>,
    /// The first line that is read, from 1.
    pub(crate) from_line: u64,
}

/// A record, and the line that it begins at.
pub(crate) type Line = (u64, Vec<u8>);

/// A file being read.
pub(crate) struct Input {
    name: String,
    rows: Rows,
    /// The line, or the row, after the last one that was read.
    next: u64,
    from: u64,
    read: Arc<AtomicU64>,
    /// Bytes of the file; none of standard input.
    pub(crate) bytes: Option<u64>,
}

enum Rows {
    Lines(Box<dyn BufRead + Send>),
    Csv(Table),
    Parquet { reader: ParquetRecordBatchReader, source: Arc<Source> },
}

/// Rows of text under a header.
struct Table {
    reader: Box<csv::Reader<Box<dyn Read + Send>>>,
    /// What was read of it so far.
    lines: Arc<Mutex<Lines>>,
    names: Vec<String>,
    source: Arc<Source>,
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
    /// Opens a file; `-` is standard input. Without a format the name decides: `.csv`, `.tsv`, `.parquet`, else NDJSON; `.gz`
    /// may follow.
    pub(crate) fn open(path: &Path, reading: Reading, source: &Arc<Source>) -> Result<Self, Exit> {
        let name = path.display().to_string();
        let unreadable = |e: &dyn std::fmt::Display| Exit::Usage(format!("cannot read {name}: {e}"));
        let plain = name.strip_suffix(".gz").unwrap_or(&name);
        let by_name = match plain.rsplit_once('.') {
            Some((_, "csv")) => Format::Csv,
            Some((_, "tsv")) => Format::Tsv,
            Some((_, "parquet")) => Format::Parquet,
            _ => Format::Ndjson,
        };
        let format = reading.format.unwrap_or(by_name);
        let (source, read, from) = (Arc::clone(source), Arc::new(AtomicU64::new(0)), reading.from_line);
        if format == Format::Parquet {
            let file = File::open(path).map_err(|e| unreadable(&e))?;
            let bytes = file.metadata().ok().map(|metadata| metadata.len());
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| unreadable(&e))?;
            let reader = builder.with_batch_size(8_192).build().map_err(|e| unreadable(&e))?;
            return Ok(Self { name, rows: Rows::Parquet { reader, source }, next: 1, from, read, bytes });
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
                let by_format = (format == Format::Tsv).then_some(b'\t');
                Rows::Csv(
                    Table::open(text, reading.delimiter.or(by_format), source)
                        .map_err(|why| Exit::Usage(format!("{name}: {why}")))?,
                )
            }
            Format::Ndjson | Format::Parquet => Rows::Lines(Box::new(BufReader::with_capacity(1 << 20, text))),
        };
        Ok(Self { name, rows, next: 1, from, read, bytes })
    }

    /// Bytes of the file that have been read.
    pub(crate) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Where the next record is looked for.
    pub(crate) fn next_line(&self) -> u64 {
        self.next.max(self.from)
    }

    /// The next records, about `most`; none at the end.
    pub(crate) fn next(&mut self, most: usize) -> Result<Vec<Line>, Exit> {
        loop {
            let mut lines = self.read_lines(most)?;
            let at_end = lines.is_empty();
            lines.retain(|(line, _)| *line >= self.from);
            if at_end || !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    fn read_lines(&mut self, most: usize) -> Result<Vec<Line>, Exit> {
        let failed = |e: &dyn std::fmt::Display| Exit::Failed(format!("{}: {e}", self.name));
        match &mut self.rows {
            Rows::Lines(reader) => lines(&mut **reader, &mut self.next, most).map_err(|e| failed(&e)),
            Rows::Csv(table) => table.rows(&mut self.next, most).map_err(|e| failed(&e)),
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
                let first = self.next;
                self.next += rows.len() as u64;
                Ok((first..).zip(rows.into_iter().map(line)).collect())
            }
        }
    }
}

/// The next lines, at most `most`, without the empty ones. `next` is the number of the line that comes.
fn lines(reader: &mut dyn BufRead, next: &mut u64, most: usize) -> std::io::Result<Vec<Line>> {
    let (mut lines, mut bytes) = (vec![], 0);
    while lines.len() < most && bytes < BATCH_BYTES {
        let mut line = vec![];
        if (&mut *reader).take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.len() as u64 == LONGEST_LINE && line.last() != Some(&b'\n') {
            return Err(std::io::Error::other(format!("line {next} is longer than {} MiB", LONGEST_LINE >> 20)));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if !line.is_empty() && line != b"\r" {
            bytes += line.len();
            lines.push((*next, line));
        }
        *next += 1;
    }
    Ok(lines)
}

impl Table {
    /// Reads the header. Without a delimiter it is a comma, or a semicolon where the header has only those.
    fn open(text: Box<dyn Read + Send>, delimiter: Option<u8>, source: Arc<Source>) -> Result<Self, String> {
        let mut text = BufReader::new(text);
        // A byte-order mark, as spreadsheets write it, is not a part of the first name.
        if text.fill_buf().map_err(|e| e.to_string())?.starts_with(b"\xef\xbb\xbf") {
            text.consume(3);
        }
        let mut header = vec![];
        (&mut text).take(LONGEST_LINE).read_until(b'\n', &mut header).map_err(|e| e.to_string())?;
        let only_semicolons = header.contains(&b';') && !header.contains(&b',');
        let delimiter = delimiter.unwrap_or(if only_semicolons { b';' } else { b',' });
        let lines = Arc::<Mutex<Lines>>::default();
        let text = Watched { inner: std::io::Cursor::new(header).chain(text), lines: Arc::clone(&lines) };
        let text: Box<dyn Read + Send> = Box::new(text);
        let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text);
        let names: Vec<String> =
            reader.headers().map_err(|e| e.to_string())?.iter().map(|name| name.trim().to_string()).collect();
        let is_known = |name: &String| source.columns.iter().any(|column| column.name == *name);
        let unknown: Vec<&str> = names.iter().filter(|name| !is_known(name)).map(String::as_str).collect();
        let columns = || source.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        if !unknown.is_empty() && unknown.len() == names.len() {
            return Err(format!(
                "the first line names no column of source {}: {}; it has {}. Fields are separated by {:?} (--delimiter)",
                source.name,
                unknown.join(", "),
                columns(),
                char::from(delimiter)
            ));
        }
        if !unknown.is_empty() {
            let (unknown, source) = (unknown.join(", "), &source.name);
            eprintln!(
                "warning: {unknown}: not columns of source {source}, which has {}; views do not see them",
                columns()
            );
        }
        Ok(Self { reader: Box::new(reader), lines, names, source })
    }

    /// The next rows, at most `most`, as JSON. `next` is the number of the line that comes.
    fn rows(&mut self, next: &mut u64, most: usize) -> Result<Vec<Line>, String> {
        let mut rows = vec![];
        let mut record = csv::StringRecord::new();
        let line_of = |lines: &Mutex<Lines>, byte: u64| lines.lock().expect("no holder panics").line_of(byte);
        while rows.len() < most {
            let begins = self.reader.position().byte();
            let read = self.reader.read_record(&mut record);
            let line = line_of(&self.lines, record.position().map_or(begins, csv::Position::byte));
            match read {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    let line = line_of(&self.lines, begins);
                    return Err(format!("{}, in the row that begins at line {line}", what_is_wrong(&error)));
                }
            }
            // A quote in the middle of a field opens nothing.
            let holds_lines = record.iter().next_back().is_some_and(|text| text.contains(['\n', '\r']));
            if holds_lines && self.lines.lock().expect("no holder panics").ends_open() {
                return Err(format!(
                    "a quote of the row that begins at line {line} is not closed: the file ends within it"
                ));
            }
            let cells = self.names.iter().zip(record.iter()).filter(|(_, text)| !text.is_empty());
            let cells = cells.map(|(name, text)| (name.as_str(), cell(&self.source, name, text)));
            rows.push((line, object(cells)));
            *next = line_of(&self.lines, self.reader.position().byte());
        }
        Ok(rows)
    }
}

/// What is wrong with a row, without the reader's own count of lines.
fn what_is_wrong(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} fields where the header has {expected_len}")
        }
        csv::ErrorKind::Utf8 { err, .. } => format!("field {} is not UTF-8", err.field() + 1),
        _ => error.to_string(),
    }
}

/// Where lines break, and how many quotes there are, of the text that a CSV reader was given. The reader's own count knows one kind of
/// line end at a time.
#[derive(Default)]
struct Lines {
    /// The bytes after each break: after a line feed, or after a carriage return that no line feed follows.
    breaks: Vec<u64>,
    quotes: u64,
    read: u64,
    after_return: bool,
    ended: bool,
}

impl Lines {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.after_return && *byte != b'\n' {
                self.breaks.push(self.read);
            }
            self.read += 1;
            self.after_return = *byte == b'\r';
            self.quotes += u64::from(*byte == b'"');
            if *byte == b'\n' {
                self.breaks.push(self.read);
            }
        }
    }

    /// The line, from 1, of the row that begins at `byte`. The reader leaves the line feed of the row before to this one.
    fn line_of(&self, byte: u64) -> u64 {
        let before = self.breaks.partition_point(|at| *at <= byte);
        let is_line_feed = self.breaks.get(before) == Some(&(byte + 1));
        before as u64 + u64::from(is_line_feed) + 1
    }

    /// Whether the text ended within a quote.
    fn ends_open(&self) -> bool {
        self.ended && self.quotes % 2 == 1
    }
}

/// Tells of what is read through it.
struct Watched<R> {
    inner: R,
    lines: Arc<Mutex<Lines>>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut lines = self.lines.lock().expect("no holder panics");
        lines.ended |= read == 0 && !buffer.is_empty();
        lines.add(&buffer[..read]);
        Ok(read)
    }
}

/// A JSON object of names and JSON values.
fn object<'a>(fields: impl Iterator<Item = (&'a str, String)>) -> Vec<u8> {
    let fields: Vec<String> = fields.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
    format!("{{{}}}", fields.join(",")).into_bytes()
}

/// A text as JSON of the column that it stands in. What does not look like the column's type becomes a string, which the
/// source then takes or dead-letters.
fn cell(source: &Source, name: &str, text: &str) -> String {
    let json = match source.columns.iter().find(|column| column.name == name).map(|column| &column.ty) {
        Some(Type::Int | Type::BigInt | Type::Double | Type::Decimal(..)) => number(text),
        Some(Type::Timestamp) if source.timestamp_unit.is_some() => number(text),
        Some(Type::Boolean) => {
            ["true", "false"].into_iter().find(|word| word.eq_ignore_ascii_case(text)).map(String::from)
        }
        Some(Type::Json | Type::Struct(_) | Type::Array(_)) => {
            serde_json::from_str::<&RawValue>(text).is_ok().then(|| text.to_string())
        }
        Some(Type::Text | Type::Timestamp) | None => None,
    };
    json.unwrap_or_else(|| Value::from(text).to_string())
}

/// A number as JSON writes it: without spaces around it, a plus or leading zeros. None if it is not a number.
fn number(text: &str) -> Option<String> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let rest = digits.trim_start_matches('0');
    let zero = if rest.len() < digits.len() && !rest.starts_with(|c: char| c.is_ascii_digit()) { "0" } else { "" };
    let json = format!("{sign}{zero}{rest}");
    serde_json::from_str::<serde_json::Number>(&json).is_ok().then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Arc<Source> {
        let text = "CREATE TABLE s (h TEXT) WITH (connector = 'kafka', topic = 's')";
        Arc::new(bifold_fold::pipeline::parse("s.sql", text, 1_000u64).expect("a source").sources.remove(0))
    }

    fn table(text: &str) -> Table {
        Table::open(Box::new(std::io::Cursor::new(text.as_bytes().to_vec())), None, source()).expect("a table")
    }

    #[test]
    fn rows_are_at_the_lines_that_an_editor_shows() {
        for (text, lines) in [
            ("h\na\nb\nc\n", [2, 3, 4]),
            ("h\r\na\r\nb\r\nc\r\n", [2, 3, 4]),
            ("h\ra\rb\rc\r", [2, 3, 4]),
            ("h\r\na\nb\r\nc\n", [2, 3, 4]),
            ("h\na\r\nb\nc", [2, 3, 4]),
            ("h\n\"a\n1\"\nb\nc\n", [2, 4, 5]),
            ("\u{feff}h\r\n\"a\r\n1\"\r\nb\r\nc\r\n", [2, 4, 5]),
        ] {
            let mut table = table(text);
            let found: Vec<u64> = table.rows(&mut 1, 10).expect("rows").into_iter().map(|(line, _)| line).collect();
            assert_eq!(found, lines, "{text:?}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_takes_no_rows_with_it() {
        let mut open = table("h\na\n\"5 inch\nb\nc\n");
        assert_eq!(open.rows(&mut 1, 1).expect("the first row").len(), 1);
        let said = open.rows(&mut 1, 10).expect_err("the quote is open");
        assert!(said.contains("line 3 is not closed"), "{said}");
        let mut table = table("h\n5\" pipe\nb");
        assert_eq!(table.rows(&mut 1, 10).expect("it opens nothing").len(), 2);
    }

    #[test]
    fn numbers_of_tables_are_written_as_json_has_them() {
        for (text, json) in [
            ("7", Some("7")),
            ("007", Some("7")),
            ("-007.50", Some("-7.50")),
            ("+1", Some("1")),
            ("000", Some("0")),
            ("0", Some("0")),
            ("00.5", Some("0.5")),
            (" 12 ", Some("12")),
            ("1e3", Some("1e3")),
            (".5", None),
            ("NaN", None),
            ("1,5", None),
            ("", None),
            ("-", None),
            ("--1", None),
        ] {
            assert_eq!(number(text).as_deref(), json, "{text:?}");
        }
    }
}
