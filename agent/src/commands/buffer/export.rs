//! `buffer export`: the readings of sealed batches as CSV or JSON lines, or the batches as they
//! are. They stay where they are.

use super::CommandError;
use crate::buffer::{Met, SeriesNames, View, Which, check_batch, gap_of, spans, walk};
use crate::civil::rfc3339_micros;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::ids::{BufferId, Lane, LaneKey};
use tributary_protocol::reading::{Readings, Row, Value};
use tributary_protocol::series::SeriesDef;

/// Write the readings of batches that are still here, or the sealed batches themselves. They stay
/// where they are, and are sent as before.
#[derive(Args, Debug)]
pub(super) struct ExportArguments {
    /// A folder to make, with a file for each lane of each buffer; or `-`: standard output. Raw
    /// batches go there one after the other, each behind its length (4 bytes, little endian).
    #[arg(long, value_name = "DIR|-")]
    output: PathBuf,
    /// How readings are written.
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    /// The sealed bytes of each batch, instead of its readings.
    #[arg(long)]
    raw: bool,
    /// Only this buffer.
    #[arg(long, value_name = "ID")]
    buffer: Option<BufferId>,
    /// Only this lane.
    #[arg(long, value_name = "LANE")]
    lane: Option<Lane>,
    /// Only from this number on.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
    /// Only below this number.
    #[arg(long, value_name = "NUMBER", default_value_t = u64::MAX)]
    to: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

impl Format {
    fn ending(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
        }
    }
}

/// The columns of a CSV file.
const COLUMNS: [&str; 14] = [
    "buffer",
    "lane",
    "batch",
    "row",
    "device",
    "metric",
    "unit",
    "event_time",
    "received_time",
    "value_type",
    "value",
    "quality",
    "device_seq",
    "flags",
];

/// What was written, and what could not be.
#[derive(Default)]
struct Counts {
    batches: u64,
    readings: u64,
    unnamed: u64,
    gaps: u64,
    damaged: u64,
}

pub(super) fn run(
    dir: &Path,
    which: &ExportArguments,
    out: &mut dyn Write,
    notes: &mut dyn Write,
) -> Result<bool, CommandError> {
    let view = View::open(dir)?;
    let to_stdout = which.output.as_os_str() == "-";
    if !to_stdout {
        made(&which.output, std::fs::create_dir(&which.output))?;
    }
    let mut counts = Counts::default();
    let mut header = false;
    for lane in Lane::ALL
        .into_iter()
        .filter(|lane| which.lane.is_none_or(|of| of == *lane))
    {
        // Definitions are no readings; as they are, they are batches like others.
        if lane == Lane::Series && !which.raw {
            continue;
        }
        let Some(log) = view.log(Which::Lane(lane)) else {
            continue;
        };
        for (life, numbers) in spans(&log.reader) {
            let key = LaneKey {
                buffer: BufferId(life.0),
                lane,
            };
            let numbers = numbers.start.max(which.from)..numbers.end.min(which.to);
            if numbers.is_empty() || which.buffer.is_some_and(|of| of != key.buffer) {
                continue;
            }
            let mut file = match (to_stdout, which.raw) {
                (true, _) | (_, true) => None,
                _ => Some(create(&which.output, key, which.format)?),
            };
            let mut own_header = false;
            let mut sink = Sink {
                which,
                names: SeriesNames::of(&view, key.buffer),
                decoder: Decoder::new(),
                out: match &mut file {
                    Some(file) => file,
                    None => &mut *out,
                },
                header: match to_stdout {
                    true => &mut header,
                    false => &mut own_header,
                },
                counts: &mut counts,
            };
            let mut failed = Ok(());
            walk(&log.reader, life, numbers, |met| {
                if failed.is_ok() {
                    failed = sink.take(key, met, notes);
                }
            });
            failed?;
            sink.out.flush()?;
            if let Some(file) = file {
                file.into_inner()
                    .map_err(|error| error.into_error())?
                    .sync_all()?;
            }
        }
    }
    tell(&counts, which.raw, notes)?;
    Ok(counts.damaged == 0)
}

fn made<T>(path: &Path, made: std::io::Result<T>) -> Result<T, CommandError> {
    made.map_err(|source| CommandError::Export {
        path: path.to_owned(),
        source,
    })
}

fn create(dir: &Path, key: LaneKey, format: Format) -> Result<BufWriter<File>, CommandError> {
    let path = dir.join(format!("{}-{}.{}", key.buffer, key.lane, format.ending()));
    let file = OpenOptions::new().write(true).create_new(true).open(&path);
    Ok(BufWriter::new(made(&path, file)?))
}

fn tell(counts: &Counts, raw: bool, notes: &mut dyn Write) -> Result<(), CommandError> {
    let Counts {
        batches,
        readings,
        unnamed,
        gaps,
        damaged,
    } = counts;
    match raw {
        true => writeln!(notes, "{batches} batches")?,
        false => writeln!(notes, "{readings} readings of {batches} batches")?,
    }
    for (count, what) in [
        (
            unnamed,
            "readings are of series whose names only the aggregator still has",
        ),
        (gaps, "batches among them declare a loss"),
        (damaged, "numbers can't be read"),
    ] {
        if *count > 0 {
            writeln!(notes, "{count} {what}")?;
        }
    }
    Ok(())
}

/// Where the batches of one lane go.
struct Sink<'a> {
    which: &'a ExportArguments,
    names: SeriesNames,
    decoder: Decoder,
    out: &'a mut dyn Write,
    header: &'a mut bool,
    counts: &'a mut Counts,
}

impl Sink<'_> {
    fn take(&mut self, key: LaneKey, met: Met, notes: &mut dyn Write) -> Result<(), CommandError> {
        let entry = match met {
            Met::Entry(entry) => entry,
            Met::Damaged(numbers, file, (offset, _)) => {
                self.counts.damaged += numbers.end - numbers.start;
                let (first, end) = (numbers.start, numbers.end);
                let lane = key.lane;
                writeln!(
                    notes,
                    "{} {lane} {first}..{end}: damaged in {file}, from byte {offset} on",
                    key.buffer
                )?;
                return Ok(());
            }
            Met::Gone => return Ok(()),
            Met::Failed(error) => {
                self.counts.damaged += 1;
                return Ok(writeln!(notes, "{error}")?);
            }
        };
        let number = entry.number;
        match check_batch(entry, key.lane, key.buffer, &mut self.decoder) {
            Ok(batch) => self.write(&batch),
            Err(what) => {
                self.counts.damaged += 1;
                let (buffer, lane) = (key.buffer, key.lane);
                Ok(writeln!(notes, "{buffer} {lane} {number}: {what}")?)
            }
        }
    }

    fn write(&mut self, batch: &SealedBatch) -> Result<(), CommandError> {
        self.counts.batches += 1;
        if self.which.raw {
            return self.write_raw(batch);
        }
        match batch.decode(&mut self.decoder) {
            Ok(Content::Readings(readings)) => self.write_readings(batch, &readings),
            Ok(Content::Gap(_)) => {
                self.counts.gaps += 1;
                let Some(gap) = gap_of(batch).filter(|_| self.which.format == Format::Jsonl) else {
                    return Ok(());
                };
                let (buffer, lane) = (batch.key().buffer.to_string(), batch.key().lane.name());
                let line = json!({
                    "buffer": buffer, "lane": lane, "batch": batch.key().number, "gap": gap,
                });
                Ok(writeln!(self.out, "{line}")?)
            }
            _ => Ok(()),
        }
    }

    fn write_raw(&mut self, batch: &SealedBatch) -> Result<(), CommandError> {
        if self.which.output.as_os_str() == "-" {
            let bytes = u32::try_from(batch.bytes().len()).unwrap_or(u32::MAX);
            self.out.write_all(&bytes.to_le_bytes())?;
            return Ok(self.out.write_all(batch.bytes())?);
        }
        let key = batch.key();
        let name = format!("{}-{}-{:020}.batch", key.buffer, key.lane, key.number);
        let path = self.which.output.join(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = made(&path, file)?;
        file.write_all(batch.bytes())?;
        Ok(file.sync_all()?)
    }

    fn write_readings(
        &mut self,
        batch: &SealedBatch,
        readings: &Readings,
    ) -> Result<(), CommandError> {
        if self.which.format == Format::Csv && !*self.header {
            *self.header = true;
            writeln!(self.out, "{}", COLUMNS.join(","))?;
        }
        let mut known: BTreeMap<u32, Option<SeriesDef>> = BTreeMap::new();
        let mut lines = csv::WriterBuilder::new().from_writer(Vec::new());
        for (place, row) in readings.rows().iter().enumerate() {
            let own = batch.names();
            let names = &self.names;
            let def = known.entry(row.series.0).or_insert_with(|| match own {
                [] => names.get(row.series).cloned(),
                own => own.get(row.series.0 as usize).cloned(),
            });
            self.counts.readings += 1;
            self.counts.unnamed += u64::from(def.is_none());
            let line = Line {
                batch,
                place,
                row,
                def: def.as_ref(),
                value: readings.value(row),
            };
            match self.which.format {
                Format::Csv => {
                    let fields = lines.write_record(line.fields());
                    fields.map_err(std::io::Error::other)?;
                }
                Format::Jsonl => writeln!(self.out, "{}", line.json())?,
            }
        }
        let lines = lines.into_inner().map_err(|error| error.into_error())?;
        Ok(self.out.write_all(&lines)?)
    }
}

/// One reading.
struct Line<'a> {
    batch: &'a SealedBatch,
    place: usize,
    row: &'a Row,
    def: Option<&'a SeriesDef>,
    value: Value<'a>,
}

impl Line<'_> {
    /// Device, metric and unit; the number of the series where it has no name here.
    fn names(&self) -> (String, String, String) {
        let unnamed = || {
            let metric = format!("series {}", self.row.series.0);
            (String::new(), metric, String::new())
        };
        self.def.map_or_else(unnamed, |def| {
            let unit = def.unit.as_deref().unwrap_or_default();
            (
                def.device.to_string(),
                def.metric.to_string(),
                unit.to_owned(),
            )
        })
    }

    fn fields(&self) -> [String; 14] {
        let (key, meta) = (self.batch.key(), &self.row.meta);
        let (device, metric, unit) = self.names();
        let value = match self.value {
            Value::F64(x) => format!("{x:?}"),
            Value::F32(x) => format!("{x:?}"),
            Value::I64(x) => x.to_string(),
            Value::Bool(x) => x.to_string(),
            Value::Str(text) => text.to_owned(),
        };
        [
            key.buffer.to_string(),
            key.lane.name().to_owned(),
            key.number.to_string(),
            self.place.to_string(),
            device,
            metric,
            unit,
            rfc3339_micros(meta.event_time),
            rfc3339_micros(meta.received_time),
            self.value.value_type().name().to_owned(),
            value,
            meta.quality.to_string(),
            meta.device_seq
                .map_or_else(String::new, |seq| seq.to_string()),
            meta.flags.0.to_string(),
        ]
    }

    fn json(&self) -> serde_json::Value {
        let (key, meta) = (self.batch.key(), &self.row.meta);
        let (device, metric, unit) = self.names();
        let value = match self.value {
            // What JSON has no number for is told as text.
            Value::F64(x) if !x.is_finite() => json!(format!("{x:?}")),
            Value::F32(x) if !x.is_finite() => json!(format!("{x:?}")),
            Value::F64(x) => json!(x),
            Value::F32(x) => json!(f64::from(x)),
            Value::I64(x) => json!(x),
            Value::Bool(x) => json!(x),
            Value::Str(text) => json!(text),
        };
        json!({
            "buffer": key.buffer.to_string(),
            "lane": key.lane.name(),
            "batch": key.number,
            "row": self.place,
            "device": device,
            "metric": metric,
            "unit": unit,
            "event_time": rfc3339_micros(meta.event_time),
            "received_time": rfc3339_micros(meta.received_time),
            "value_type": self.value.value_type().name(),
            "value": value,
            "quality": meta.quality,
            "device_seq": meta.device_seq,
            "flags": meta.flags.0,
        })
    }
}
