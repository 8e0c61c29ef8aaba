//! One Parquet file of the lake, as bytes: how it is encoded, and what its footer says of it.
//! It knows neither where it will lie nor whether it is there already.

use super::columns::digest;
use super::load::{Sum, Sums};
use super::{LakeError, Table};
use crate::limits::ROW_GROUP_ROWS;
use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use tributary_protocol::ids::LogId;

/// The key of the footer's metadata.
pub const FOOTER_KEY: &str = "tributary";
/// The layout of [`Footer`]; fields are only added.
pub const FOOTER_VERSION: u32 = 1;

/// Count and hash sum of batches of one lane, as text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaneSum {
    /// Tenant and UUID of the agent, with `/` between.
    pub agent: String,
    /// The buffer.
    pub buffer: String,
    /// The lane.
    pub lane: String,
    /// How many batches.
    pub batches: u64,
    /// Their readings.
    pub rows: u64,
    /// Their hash sum, 32 hexadecimal digits.
    pub hash_sum: String,
}

impl LaneSum {
    /// All sums as text, in their order.
    pub fn all(sums: &Sums) -> Vec<Self> {
        let row = |((agent, lane), sum): (&(_, tributary_protocol::ids::LaneKey), &Sum)| {
            let agent: &tributary_protocol::ids::AgentId = agent;
            Self {
                agent: agent.to_string(),
                buffer: lane.buffer.to_string(),
                lane: lane.lane.name().to_owned(),
                batches: sum.batches,
                rows: sum.rows,
                hash_sum: format!("{:032x}", sum.hash_sum.0),
            }
        };
        sums.iter().map(row).collect()
    }
}

/// What a file says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Footer {
    /// The layout.
    pub version: u32,
    /// The journal.
    pub log: String,
    /// First entry of the flush.
    pub first: u64,
    /// One past its last entry.
    pub end: u64,
    /// The table.
    pub table: String,
    /// Rows in this file.
    pub rows: u64,
    /// BLAKE3 over the rows, see [`digest`].
    pub digest: String,
    /// The batches whose first row lies here.
    pub lanes: Vec<LaneSum>,
}

/// The flush that a file belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The journal.
    pub log: LogId,
    /// The first entry.
    pub first: u64,
    /// One past the last entry.
    pub end: u64,
}

/// A file, ready to be put.
#[derive(Clone, PartialEq, Debug)]
pub struct EncodedFile {
    /// Its bytes.
    pub bytes: Bytes,
    /// How many rows it has.
    pub rows: u64,
    /// Their digest.
    pub digest: String,
}

/// Encodes rows as a Parquet file.
///
/// # Errors
/// When Parquet refuses the rows.
pub fn encode(
    span: Span,
    table: Table,
    rows: &RecordBatch,
    sums: &Sums,
) -> Result<EncodedFile, LakeError> {
    let footer = Footer {
        version: FOOTER_VERSION,
        log: span.log.to_string(),
        first: span.first,
        end: span.end,
        table: table.name().to_owned(),
        rows: rows.num_rows() as u64,
        digest: digest(rows),
        lanes: LaneSum::all(sums),
    };
    let text = serde_json::to_string(&footer).expect("a footer has only strings and numbers");
    let key_values = vec![KeyValue::new(FOOTER_KEY.to_owned(), text)];
    let properties = properties(key_values);
    let parquet_schema = ArrowSchemaConverter::new()
        .schema_root("reading")
        .convert(&rows.schema())?;
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_parquet_schema(parquet_schema)
        // Without it a reader would be told of dictionaries, which are only how we held the rows.
        .with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(Vec::new(), rows.schema(), options)?;
    writer.write(rows)?;
    let bytes = Bytes::from(writer.into_inner()?);
    Ok(EncodedFile {
        bytes,
        rows: footer.rows,
        digest: footer.digest,
    })
}

fn properties(key_values: Vec<KeyValue>) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("tributary version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(
            ZstdLevel::try_new(3).expect("3 is a level of zstd"),
        ))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_key_value_metadata(Some(key_values));
    // Within a series these rise by nearly equal steps.
    let rising = [
        "batch",
        "row",
        "event_time",
        "received_time",
        "detection_time",
        "device_seq",
    ];
    for name in rising {
        let column = ColumnPath::from(name);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    builder.build()
}

/// What the footer of these bytes says, if they are a whole file of the lake.
///
/// # Errors
/// [`LakeError::Damaged`].
pub fn footer(path: &str, bytes: &Bytes) -> Result<Footer, LakeError> {
    footer_of(path, bytes).map(|(footer, _)| footer)
}

/// What the footer of a file says, and how many rows Parquet says that it has; nothing but the
/// footer is read.
///
/// # Errors
/// [`LakeError::Damaged`].
pub fn footer_of(path: &str, file: &impl ChunkReader) -> Result<(Footer, u64), LakeError> {
    let damaged = |reason: String| LakeError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let metadata = ParquetMetaDataReader::new()
        .parse_and_finish(file)
        .map_err(|error| damaged(error.to_string()))?;
    let text = metadata
        .file_metadata()
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == FOOTER_KEY))
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| damaged("its footer says nothing of Tributary".to_owned()))?;
    let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
    let footer = serde_json::from_str(text).map_err(|error| damaged(error.to_string()))?;
    Ok((footer, rows))
}

/// The rows of these bytes, in row groups, for whoever checks a lake.
///
/// # Errors
/// [`LakeError::Damaged`] for what is no Parquet file.
pub fn rows(path: &str, bytes: &Bytes) -> Result<Vec<RecordBatch>, LakeError> {
    let damaged = |reason: String| LakeError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())
        .and_then(|builder| builder.build())
        .map_err(|error| damaged(error.to_string()))?;
    reader
        .map(|batch| batch.map_err(|error| damaged(error.to_string())))
        .collect()
}
