//! What could not be decoded, as `bifold dead-letters` prints it.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType};
use bifold_archive::ABSENT;
use bifold_archive::replay::each_record;
use bifold_fold::{Decoder, Envelope, Source};
use bifold_ledger::{ArchiveUnit, Ledger};
use bifold_store::SourceFiles;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Error;

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

/// Hands every dead letter of the archive to `sink`, in order of archiving: what the definition in force does not decode, whatever it was
/// when it was archived.
///
/// # Errors
/// A file that is missing or damaged, the store is unavailable, or what `sink` says.
pub async fn each<E: From<Error>>(
    files: &SourceFiles,
    ledger: &Ledger,
    mut sink: impl FnMut(DeadLetter) -> Result<(), E>,
) -> Result<(), E> {
    let source = definition_in_force(ledger).map(Arc::new);
    for unit in &ledger.archive {
        match &source {
            Some(source) if unit.decoding != source.decoding() => {
                decoded_again(files, unit, source, &mut sink).await?;
            }
            _ => archived(files, unit, &mut sink).await?,
        }
    }
    Ok(())
}

/// The source definition of the version that was chosen last. None if no version is active.
fn definition_in_force(ledger: &Ledger) -> Option<Source> {
    let active = ledger.versions.values().filter(|version| version.active);
    serde_json::from_value(active.max_by_key(|version| version.chosen)?.source.clone()).ok()
}

/// The dead letters of records that were decoded by another definition.
async fn decoded_again<E: From<Error>>(
    files: &SourceFiles,
    unit: &ArchiveUnit,
    source: &Arc<Source>,
    sink: &mut impl FnMut(DeadLetter) -> Result<(), E>,
) -> Result<(), E> {
    let mut decoder = Decoder::new(Arc::clone(source), |_| false);
    let mut dead = vec![];
    // A record's bytes are wanted only where it has a dead letter.
    let judge = |record: Envelope<'_>| -> Result<(), Failure<E>> {
        dead.clear();
        if decoder.push(record, &mut dead) > 0 {
            decoder.finish();
        }
        let payload = if dead.is_empty() { Bytes::new() } else { Bytes::copy_from_slice(record.value) };
        for letter in &dead {
            let letter = DeadLetter {
                topic: record.topic.to_string(),
                partition: record.partition,
                offset: record.offset,
                index: letter.index,
                timestamp_us: (record.timestamp_ms >= 0).then(|| record.timestamp_ms.saturating_mul(1_000)),
                reason: letter.reason.name().to_string(),
                detail: letter.detail.clone(),
                payload: payload.clone(),
            };
            sink(letter).map_err(Failure::Sink)?;
        }
        Ok(())
    };
    each_record(files, unit, judge).await.map_err(|failure| match failure {
        Failure::Store(error) => Error::from(error).into(),
        Failure::Sink(error) => error,
    })
}

/// Of reading, or of whom the letters are handed to.
enum Failure<E> {
    Store(bifold_store::Error),
    Sink(E),
}

impl<E> From<bifold_store::Error> for Failure<E> {
    fn from(error: bifold_store::Error) -> Self {
        Failure::Store(error)
    }
}

/// The dead letters of a unit as they were archived.
async fn archived<E: From<Error>>(
    files: &SourceFiles,
    unit: &ArchiveUnit,
    sink: &mut impl FnMut(DeadLetter) -> Result<(), E>,
) -> Result<(), E> {
    for file in &unit.dead {
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
