//! Reads the lake's Parquet files by their columns, without Arrow.
//!
//! Only the columns that the comparison needs are read; others may come and go. Nothing here
//! judges a row.

use crate::limits::{VERIFY_DEPTH_MAX, VERIFY_ROWS};
use crate::replay::time::Rfc3339;
use parquet::basic::{LogicalType, TimeUnit};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type,
};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// A value as its row states it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cell<'a> {
    F64(f64),
    F32(f64),
    I64(i64),
    Bool(bool),
    Text(&'a str),
    /// The type is unknown, or its column is null.
    Nothing(&'a str),
}

/// One row of the lake.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) device: &'a str,
    pub(super) metric: &'a str,
    pub(super) seq: Option<i64>,
    pub(super) time_us: i64,
    pub(super) received_us: i64,
    pub(super) value: Cell<'a>,
    /// Whether another batch may hold it as well; of old files nobody says so.
    pub(super) in_doubt: bool,
}

impl Row<'_> {
    pub(super) fn describe(&self, file: &Path) -> String {
        let value = match self.value {
            Cell::F64(x) => format!("f64 {x:?} (bits {:016x})", x.to_bits()),
            Cell::F32(x) => format!("f32 {x:?}"),
            Cell::I64(x) => format!("i64 {x}"),
            Cell::Bool(x) => format!("bool {x}"),
            Cell::Text(x) => format!("str {x:?}"),
            Cell::Nothing(kind) => format!("no value of type `{kind}`"),
        };
        let seq = self
            .seq
            .map_or_else(|| "none".to_owned(), |seq| seq.to_string());
        let (device, metric, time) = (self.device, self.metric, Rfc3339(self.time_us));
        let file = file.file_name().unwrap_or_default().to_string_lossy();
        format!("{device} {metric} seq {seq} at {time}: {value} in {file}")
    }
}

/// A declared loss, as its row states it.
#[derive(Clone, Copy, Debug)]
pub(super) struct GapRow {
    /// Readings; none: unknown.
    pub(super) readings: Option<i64>,
    pub(super) event_last_us: i64,
}

/// What lies below a lake; each in order of its names.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    /// Folders of bookkeeping.
    pub(super) skipped: Vec<PathBuf>,
    /// Folders that are not followed.
    pub(super) too_deep: Vec<PathBuf>,
}

/// The Parquet files of the readings below `root`.
pub(super) fn files(root: &Path) -> std::io::Result<Found> {
    let readings = root.join("readings");
    let from = if readings.is_dir() {
        readings
    } else {
        root.to_owned()
    };
    let mut found = Found::default();
    walk(&from, 0, &mut found)?;
    for paths in [&mut found.files, &mut found.skipped, &mut found.too_deep] {
        paths.sort();
    }
    Ok(found)
}

/// The Parquet files of another table beside the readings of `root`.
pub(super) fn files_of(root: &Path, table: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Found::default();
    let table = root.join(table);
    if table.is_dir() {
        walk(&table, 0, &mut found)?;
    }
    found.files.sort();
    Ok(found.files)
}

fn walk(folder: &Path, depth: usize, found: &mut Found) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if name.starts_with('_') || name.starts_with('.') {
                found.skipped.push(path);
            } else if depth >= VERIFY_DEPTH_MAX {
                found.too_deep.push(path);
            } else {
                walk(&path, depth + 1, found)?;
            }
        } else if path
            .extension()
            .is_some_and(|extension| extension == "parquet")
        {
            found.files.push(path);
        }
    }
    Ok(())
}

/// Passes every row of the file to `each`. What cannot be read is said in words; the rows before
/// it were passed on.
pub(super) fn read_rows(path: &Path, each: &mut dyn FnMut(Row<'_>)) -> Result<(), String> {
    // The reader of a damaged file may find one of its own assumptions broken and panic. Where the
    // process aborts on a panic, nothing is caught here, and it does not say that all is well.
    let read = catch_unwind(AssertUnwindSafe(|| read_file(path, each)));
    read.unwrap_or_else(|_| Err("the Parquet reader panicked: the file is damaged".to_owned()))
}

/// As [`read_rows`], for a file of declared losses.
pub(super) fn read_gaps(path: &Path, each: &mut dyn FnMut(GapRow)) -> Result<(), String> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        by_group(path, &mut |group, rows| {
            let mut readings = Column::<Int64Type>::open(group, "readings", int64)?;
            let mut last = Column::<Int64Type>::open(group, "event_last", int64)?;
            last.is_micros(group)?;
            readings.read(rows)?;
            last.read(rows)?;
            for _ in 0..rows {
                each(GapRow {
                    readings: readings.take().copied(),
                    event_last_us: last.present()?,
                });
            }
            Ok(())
        })
    }));
    read.unwrap_or_else(|_| Err("the Parquet reader panicked: the file is damaged".to_owned()))
}

/// As [`read_rows`], for a file of alerts: the id and the state of each that has both.
pub(super) fn read_alerts(path: &Path, each: &mut dyn FnMut(&str, &str)) -> Result<(), String> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        by_group(path, &mut |group, rows| {
            let mut ids = Column::<ByteArrayType>::open(group, "alert_id", byte_array)?;
            let mut states = Column::<ByteArrayType>::open(group, "state", byte_array)?;
            ids.read(rows)?;
            states.read(rows)?;
            for _ in 0..rows {
                if let (Some(id), Some(state)) = (ids.maybe_text()?, states.maybe_text()?) {
                    each(id, state);
                }
            }
            Ok(())
        })
    }));
    read.unwrap_or_else(|_| Err("the Parquet reader panicked: the file is damaged".to_owned()))
}

/// As [`read_rows`], for a file of any table: whose each row is, and its `json`, where it has one.
pub(super) fn read_identities(
    path: &Path,
    each: &mut dyn FnMut(super::Identity, Option<&str>),
) -> Result<(), String> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        by_group(path, &mut |group, rows| {
            let mut buffer = Column::<ByteArrayType>::open(group, "buffer", byte_array)?;
            let mut lane = Column::<ByteArrayType>::open(group, "lane", byte_array)?;
            let mut batch = Column::<Int64Type>::open(group, "batch", int64)?;
            let mut row = Column::<Int32Type>::open(group, "row", int32)?;
            let json = has(group, "json")
                .then(|| Column::<ByteArrayType>::open(group, "json", byte_array));
            let mut json = json.transpose()?;
            buffer.read(rows)?;
            lane.read(rows)?;
            batch.read(rows)?;
            row.read(rows)?;
            if let Some(json) = &mut json {
                json.read(rows)?;
            }
            for _ in 0..rows {
                let identity = super::Identity {
                    buffer: buffer.text()?.to_owned(),
                    lane: lane.text()?.to_owned(),
                    batch: batch.present()?,
                    row: row
                        .take()
                        .copied()
                        .ok_or_else(|| Column::<Int32Type>::null("row"))?,
                };
                let json = match &mut json {
                    Some(json) => json.maybe_text()?,
                    None => None,
                };
                each(identity, json);
            }
            Ok(())
        })
    }));
    read.unwrap_or_else(|_| Err("the Parquet reader panicked: the file is damaged".to_owned()))
}

/// As [`read_rows`], for a file of declared losses, with whose they are.
pub(super) fn read_losses(path: &Path, each: &mut dyn FnMut(super::Loss)) -> Result<(), String> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        by_group(path, &mut |group, rows| {
            let mut buffer = Column::<ByteArrayType>::open(group, "buffer", byte_array)?;
            let mut lane = Column::<ByteArrayType>::open(group, "lane", byte_array)?;
            let mut reason = Column::<ByteArrayType>::open(group, "reason", byte_array)?;
            let mut first = Column::<Int64Type>::open(group, "first", int64)?;
            let mut count = Column::<Int64Type>::open(group, "count", int64)?;
            let mut readings = Column::<Int64Type>::open(group, "readings", int64)?;
            buffer.read(rows)?;
            lane.read(rows)?;
            reason.read(rows)?;
            first.read(rows)?;
            count.read(rows)?;
            readings.read(rows)?;
            for _ in 0..rows {
                each(super::Loss {
                    buffer: buffer.text()?.to_owned(),
                    lane: lane.text()?.to_owned(),
                    first: first.present()?,
                    count: count.present()?,
                    readings: readings.take().copied(),
                    reason: reason.text()?.to_owned(),
                });
            }
            Ok(())
        })
    }));
    read.unwrap_or_else(|_| Err("the Parquet reader panicked: the file is damaged".to_owned()))
}

fn read_file(path: &Path, each: &mut dyn FnMut(Row<'_>)) -> Result<(), String> {
    by_group(path, &mut |group, rows| read_group(group, rows, each))
}

fn by_group(
    path: &Path,
    each: &mut dyn FnMut(&dyn RowGroupReader, usize) -> Result<(), String>,
) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    for place in 0..reader.num_row_groups() {
        let group = reader
            .get_row_group(place)
            .map_err(|error| error.to_string())?;
        let rows = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        each(group.as_ref(), rows)?;
    }
    Ok(())
}

fn read_group(
    group: &dyn RowGroupReader,
    rows: usize,
    each: &mut dyn FnMut(Row<'_>),
) -> Result<(), String> {
    let mut device = Column::<ByteArrayType>::open(group, "device", byte_array)?;
    let mut metric = Column::<ByteArrayType>::open(group, "metric", byte_array)?;
    let mut time = Column::<Int64Type>::open(group, "event_time", int64)?;
    let mut received = Column::<Int64Type>::open(group, "received_time", int64)?;
    let mut kind = Column::<ByteArrayType>::open(group, "value_type", byte_array)?;
    let mut float = Column::<DoubleType>::open(group, "value_f64", double)?;
    let mut whole = Column::<Int64Type>::open(group, "value_i64", int64)?;
    let mut truth = Column::<BoolType>::open(group, "value_bool", boolean)?;
    let mut text = Column::<ByteArrayType>::open(group, "value_str", byte_array)?;
    let mut seq = Column::<Int64Type>::open(group, "device_seq", int64)?;
    let mut in_doubt = has(group, "in_doubt")
        .then(|| Column::<BoolType>::open(group, "in_doubt", boolean))
        .transpose()?;
    time.is_micros(group)?;
    received.is_micros(group)?;
    let mut left = rows;
    while left > 0 {
        let count = left.min(VERIFY_ROWS);
        device.read(count)?;
        metric.read(count)?;
        time.read(count)?;
        received.read(count)?;
        kind.read(count)?;
        float.read(count)?;
        whole.read(count)?;
        truth.read(count)?;
        text.read(count)?;
        seq.read(count)?;
        if let Some(in_doubt) = &mut in_doubt {
            in_doubt.read(count)?;
        }
        for _ in 0..count {
            let (device, metric) = (device.text()?, metric.text()?);
            let (time_us, received_us) = (time.present()?, received.present()?);
            let seq = seq.take().copied();
            let kind = kind.text()?;
            let (float, whole) = (float.take().copied(), whole.take().copied());
            let (truth, text) = (truth.take().copied(), text.maybe_text()?);
            let value = match kind {
                "f64" => float.map(Cell::F64),
                "f32" => float.map(Cell::F32),
                "i64" => whole.map(Cell::I64),
                "bool" => truth.map(Cell::Bool),
                "str" => text.map(Cell::Text),
                _ => None,
            };
            let value = value.unwrap_or(Cell::Nothing(kind));
            let in_doubt = in_doubt.as_mut().and_then(Column::take).copied();
            each(Row {
                device,
                metric,
                seq,
                time_us,
                received_us,
                value,
                in_doubt: in_doubt.unwrap_or(false),
            });
        }
        left -= count;
    }
    Ok(())
}

/// Whether there is such a column: earlier files lack those that came later.
fn has(group: &dyn RowGroupReader, name: &str) -> bool {
    let mut columns = group.metadata().columns().iter();
    columns.any(|column| column.column_path().string() == name)
}

/// One column of a row group, read in blocks.
struct Column<T: DataType> {
    name: &'static str,
    place: usize,
    reader: ColumnReaderImpl<T>,
    full_level: i16,
    levels: Vec<i16>,
    values: Vec<T::T>,
    next_level: usize,
    next_value: usize,
}

impl<T: DataType> Column<T> {
    fn open(
        group: &dyn RowGroupReader,
        name: &'static str,
        pick: fn(ColumnReader) -> Option<ColumnReaderImpl<T>>,
    ) -> Result<Self, String> {
        let columns = group.metadata().columns();
        let place = columns
            .iter()
            .position(|column| column.column_path().string() == name);
        let place = place.ok_or_else(|| format!("there is no column `{name}`"))?;
        let schema = group.metadata().schema_descr().column(place);
        if schema.max_rep_level() != 0 {
            return Err(format!("the column `{name}` is repeated"));
        }
        let full_level = schema.max_def_level();
        let reader = group
            .get_column_reader(place)
            .map_err(|error| error.to_string())?;
        let reader = pick(reader)
            .ok_or_else(|| format!("the column `{name}` is {}", schema.physical_type()))?;
        Ok(Self {
            name,
            place,
            reader,
            full_level,
            levels: Vec::with_capacity(VERIFY_ROWS),
            values: Vec::with_capacity(VERIFY_ROWS),
            next_level: 0,
            next_value: 0,
        })
    }

    fn is_micros(&self, group: &dyn RowGroupReader) -> Result<(), String> {
        let schema = group.metadata().schema_descr().column(self.place);
        match schema.logical_type_ref() {
            Some(LogicalType::Timestamp(stamp)) if stamp.unit == TimeUnit::MICROS => Ok(()),
            other => Err(format!("the column `{}` is {other:?}, not µs", self.name)),
        }
    }

    fn read(&mut self, count: usize) -> Result<(), String> {
        self.levels.clear();
        self.values.clear();
        (self.next_level, self.next_value) = (0, 0);
        let levels = Some(&mut self.levels);
        let read = self
            .reader
            .read_records(count, levels, None, &mut self.values);
        let (rows, ..) = read.map_err(|error| format!("column `{}`: {error}", self.name))?;
        if rows != count {
            return Err(format!(
                "the column `{}` ends before its rows do",
                self.name
            ));
        }
        Ok(())
    }

    /// The next row's value, `None` when it is null.
    fn take(&mut self) -> Option<&T::T> {
        let level = match self.full_level {
            0 => 0,
            _ => self.levels.get(self.next_level).copied()?,
        };
        self.next_level += 1;
        if level < self.full_level {
            return None;
        }
        self.next_value += 1;
        self.values.get(self.next_value - 1)
    }

    fn null(name: &str) -> String {
        format!("the column `{name}` is null in a row")
    }
}

impl Column<Int64Type> {
    fn present(&mut self) -> Result<i64, String> {
        let name = self.name;
        self.take().copied().ok_or_else(|| Self::null(name))
    }
}

impl Column<ByteArrayType> {
    fn maybe_text(&mut self) -> Result<Option<&str>, String> {
        let name = self.name;
        let text = self.take().map(ByteArray::as_utf8).transpose();
        text.map_err(|_| format!("the column `{name}` is not UTF-8"))
    }

    fn text(&mut self) -> Result<&str, String> {
        let name = self.name;
        self.maybe_text()?.ok_or_else(|| Self::null(name))
    }
}

fn byte_array(reader: ColumnReader) -> Option<ColumnReaderImpl<ByteArrayType>> {
    if let ColumnReader::ByteArrayColumnReader(reader) = reader {
        Some(reader)
    } else {
        None
    }
}

fn int64(reader: ColumnReader) -> Option<ColumnReaderImpl<Int64Type>> {
    if let ColumnReader::Int64ColumnReader(reader) = reader {
        Some(reader)
    } else {
        None
    }
}

fn int32(reader: ColumnReader) -> Option<ColumnReaderImpl<Int32Type>> {
    if let ColumnReader::Int32ColumnReader(reader) = reader {
        Some(reader)
    } else {
        None
    }
}

fn double(reader: ColumnReader) -> Option<ColumnReaderImpl<DoubleType>> {
    if let ColumnReader::DoubleColumnReader(reader) = reader {
        Some(reader)
    } else {
        None
    }
}

fn boolean(reader: ColumnReader) -> Option<ColumnReaderImpl<BoolType>> {
    if let ColumnReader::BoolColumnReader(reader) = reader {
        Some(reader)
    } else {
        None
    }
}
