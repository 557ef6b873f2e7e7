//! What could not be decoded, as `bifold dead-letters` prints it.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bifold_ledger::Ledger;
use bifold_store::SourceFiles;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Error;
use bifold_archive::ABSENT;

/// One dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The element's place in its record.
    pub index: i32,
    /// The record's timestamp in microseconds since 1970.
    pub timestamp_us: Option<i64>,
    /// Why.
    pub reason: String,
    /// What exactly.
    pub detail: String,
    /// The whole record.
    pub payload: Bytes,
}

/// Hands every dead letter of the archive to `sink`, in order of archiving.
///
/// # Errors
/// A file that is missing or damaged, the store is unavailable, or what `sink` says.
pub async fn each<E: From<Error>>(
    files: &SourceFiles,
    ledger: &Ledger,
    mut sink: impl FnMut(DeadLetter) -> Result<(), E>,
) -> Result<(), E> {
    for file in ledger.archive.iter().flat_map(|unit| &unit.dead) {
        let bytes = files.get(file).await.map_err(Error::from)?;
        // The bytes of a record stand at its first letter; the others follow it.
        let (mut of, mut whole) = (None, Bytes::new());
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).and_then(|builder| builder.build());
        for batch in reader.map_err(Error::from)? {
            let batch = batch.map_err(Error::from)?;
            let column = |name: &str| batch.column_by_name(name).expect("every dead-letter file has this column");
            let (topic, reason) = (column("_topic").as_string::<i32>(), column("reason").as_string::<i32>());
            let detail = column("detail").as_string::<i32>();
            let partition = column("_partition").as_primitive::<Int32Type>();
            let offset = column("_offset").as_primitive::<Int64Type>();
            let index = column("_index").as_primitive::<Int32Type>();
            let timestamp = column("_timestamp").as_primitive::<TimestampMicrosecondType>();
            let payload = column("_payload").as_binary::<i32>();
            for row in (0..batch.num_rows()).filter(|row| reason.value(*row) != ABSENT) {
                let record = (topic.value(row).to_string(), partition.value(row), offset.value(row));
                if payload.is_valid(row) || of.as_ref() != Some(&record) {
                    (of, whole) = (Some(record), Bytes::copy_from_slice(payload.value(row)));
                }
                sink(DeadLetter {
                    topic: topic.value(row).to_string(),
                    partition: partition.value(row),
                    offset: offset.value(row),
                    index: index.value(row),
                    timestamp_us: timestamp.is_valid(row).then(|| timestamp.value(row)),
                    reason: reason.value(row).to_string(),
                    detail: detail.value(row).to_string(),
                    payload: whole.clone(),
                })?;
            }
        }
    }
    Ok(())
}
