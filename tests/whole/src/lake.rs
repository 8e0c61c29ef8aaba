//! The lake's files, read back with no part of what wrote them: rows of readings, and of gaps.

use bytes::Bytes;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row as Record};

/// A row of a table of readings.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Whose it is: buffer, lane, batch, row.
    pub identity: Identity,
    /// What measured.
    pub device: String,
    /// What was measured.
    pub metric: String,
    /// The device's own number.
    pub seq: Option<i64>,
    /// When: microseconds since 1970.
    pub event_time: i64,
    /// The value, as text that says its type and its bits.
    pub value: String,
    /// Nothing tells whether it is a repeat.
    pub maybe_repeat: bool,
}

/// What a row is for ever.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Identity {
    /// The agent's UUID.
    pub agent: String,
    /// The life of its storage.
    pub buffer: String,
    /// The lane's name.
    pub lane: String,
    /// Number of the batch.
    pub batch: i64,
    /// Row of the batch.
    pub row: i64,
}

/// A declared loss.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GapRow {
    /// The agent's UUID; empty: nobody knows.
    pub agent: String,
    /// The life of its storage.
    pub buffer: String,
    /// The lane's name.
    pub lane: String,
    /// Its first number.
    pub first: i64,
    /// How many.
    pub count: i64,
    /// Readings, if known.
    pub readings: Option<i64>,
    /// Why.
    pub reason: String,
}

fn field<'a>(record: &'a Record, name: &str) -> Result<&'a Field, String> {
    let mut columns = record.get_column_iter();
    let found = columns.find(|(column, _)| *column == name);
    found
        .map(|(_, field)| field)
        .ok_or_else(|| format!("no column `{name}`"))
}

fn text(record: &Record, name: &str) -> Result<String, String> {
    match field(record, name)? {
        Field::Str(text) => Ok(text.clone()),
        other => Err(format!("`{name}` is {other:?}")),
    }
}

fn number(record: &Record, name: &str) -> Result<Option<i64>, String> {
    match field(record, name)? {
        Field::Long(number) => Ok(Some(*number)),
        Field::Int(number) => Ok(Some(i64::from(*number))),
        Field::TimestampMicros(number) => Ok(Some(*number)),
        Field::Null => Ok(None),
        other => Err(format!("`{name}` is {other:?}")),
    }
}

fn some(record: &Record, name: &str) -> Result<i64, String> {
    number(record, name)?.ok_or_else(|| format!("`{name}` is null"))
}

fn truth(record: &Record, name: &str) -> Result<bool, String> {
    match field(record, name)? {
        Field::Bool(truth) => Ok(*truth),
        other => Err(format!("`{name}` is {other:?}")),
    }
}

fn value(record: &Record) -> Result<String, String> {
    let kind = text(record, "value_type")?;
    let of = match kind.as_str() {
        "f64" | "f32" => "value_f64",
        "i64" => "value_i64",
        "bool" => "value_bool",
        "str" => "value_str",
        _ => return Err(format!("a value of type `{kind}`")),
    };
    Ok(match field(record, of)? {
        Field::Double(double) => format!("{kind} {:016x}", double.to_bits()),
        Field::Long(whole) => format!("{kind} {whole}"),
        Field::Bool(truth) => format!("{kind} {truth}"),
        Field::Str(text) => format!("{kind} {text}"),
        other => return Err(format!("`{of}` is {other:?}")),
    })
}

fn row(record: &Record) -> Result<Row, String> {
    Ok(Row {
        identity: Identity {
            agent: text(record, "agent")?,
            buffer: text(record, "buffer")?,
            lane: text(record, "lane")?,
            batch: some(record, "batch")?,
            row: some(record, "row")?,
        },
        device: text(record, "device")?,
        metric: text(record, "metric")?,
        seq: number(record, "device_seq")?,
        event_time: some(record, "event_time")?,
        value: value(record)?,
        maybe_repeat: truth(record, "maybe_repeat")?,
    })
}

fn gap(record: &Record) -> Result<GapRow, String> {
    Ok(GapRow {
        agent: text(record, "agent")?,
        buffer: text(record, "buffer")?,
        lane: text(record, "lane")?,
        first: some(record, "first")?,
        count: some(record, "count")?,
        readings: number(record, "readings")?,
        reason: text(record, "reason")?,
    })
}

fn read<T>(
    files: &[(String, Bytes)],
    each: impl Fn(&Record) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let mut all = Vec::new();
    for (path, bytes) in files {
        let wrong = |what: String| format!("{path}: {what}");
        let reader = SerializedFileReader::new(bytes.clone());
        let reader = reader.map_err(|error| wrong(error.to_string()))?;
        let rows = reader.get_row_iter(None);
        for record in rows.map_err(|error| wrong(error.to_string()))? {
            let record = record.map_err(|error| wrong(error.to_string()))?;
            all.push(each(&record).map_err(wrong)?);
        }
    }
    Ok(all)
}

/// Every row of these files of readings.
///
/// # Errors
/// What is wrong with which file.
pub fn rows(files: &[(String, Bytes)]) -> Result<Vec<Row>, String> {
    read(files, row)
}

/// Every row of these files of gaps.
///
/// # Errors
/// What is wrong with which file.
pub fn gaps(files: &[(String, Bytes)]) -> Result<Vec<GapRow>, String> {
    read(files, gap)
}
