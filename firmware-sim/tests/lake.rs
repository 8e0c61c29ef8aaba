//! A lake made by the test: Parquet files with the columns of the real one, and some more.

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_sim::fault::FaultKind;
use tributary_sim::reading::{Reading, Series, Value};
use tributary_sim::truth::{Event, Header, Source, TruthWriter};

pub const STARTED_MS: i64 = 1_700_000_000_000;

/// A row as the lake holds it.
#[derive(Clone, Debug)]
pub struct Row {
    pub device: String,
    pub metric: String,
    pub seq: Option<i64>,
    pub time_us: i64,
    pub received_us: i64,
    pub value: Value,
    /// Files without such rows have no column of that name, as those of earlier versions.
    pub in_doubt: bool,
}

/// A truth ledger and a lake that agree, to be spoiled.
pub struct Site {
    /// Whether readings say their numbers.
    pub numbered: bool,
    pub dir: tempfile::TempDir,
    pub series: Vec<Series>,
    pub readings: Vec<Reading>,
}

impl Site {
    /// Five series of all types, 200 readings each; the last ten were not acknowledged.
    pub fn new() -> Self {
        let series = |i: u32| Series {
            device: format!("plant-1/pump-{i:04}"),
            metric: "temperature".to_owned(),
            unit: None,
        };
        let mut readings = Vec::new();
        for seq in 0..200u64 {
            for series in 0..5u32 {
                let value = match series {
                    0 => Value::F64(seq as f64 / 3.0),
                    1 => Value::I64(seq as i64 - 100),
                    2 => Value::Bool(seq.is_multiple_of(3)),
                    3 => Value::Text(["running", "idle", "fault"][seq as usize % 3].into()),
                    _ => Value::F64([-0.0, 0.1 + 0.2, 5e-324, 1e300][seq as usize % 4]),
                };
                let time_us = (STARTED_MS + seq as i64 * 100) * 1_000;
                readings.push(Reading {
                    series,
                    seq,
                    time_us,
                    value,
                    written: None,
                    fault: None,
                });
            }
        }
        let dir = tempfile::tempdir().unwrap();
        Self {
            numbered: true,
            dir,
            series: (0..5).map(series).collect(),
            readings,
        }
    }

    pub fn truth(&self) -> PathBuf {
        self.dir.path().join("truth.bin")
    }

    pub fn lake(&self) -> PathBuf {
        self.dir.path().join("lake")
    }

    pub fn hour(&self) -> PathBuf {
        self.lake()
            .join("readings/event_date=2023-11-14/event_hour=22")
    }

    pub fn rows(&self) -> Vec<Row> {
        let row = |reading: &Reading| {
            let series = &self.series[reading.series as usize];
            Row {
                device: series.device.clone(),
                metric: series.metric.clone(),
                seq: Some(reading.seq as i64),
                time_us: reading.time_us,
                received_us: reading.time_us + 1_234,
                value: reading.value.clone(),
                in_doubt: false,
            }
        };
        self.readings.iter().map(row).collect()
    }

    pub fn write_truth(&self) {
        self.write_truth_with(0);
    }

    /// Behind the readings, so many that were never acknowledged and never arrived.
    pub fn write_truth_with(&self, more: u64) {
        let header = Header {
            source: Source::Fleet,
            qos: 1,
            protocol: 4,
            numbered: self.numbered,
            seed: 1,
            started_ms: STARTED_MS,
            rate_hz: 10.0,
            sensors: 5,
        };
        let mut writer = TruthWriter::create(&self.truth(), &header).unwrap();
        writer.name(&self.series).unwrap();
        for (n, reading) in self.readings.iter().enumerate() {
            writer.append(&Event::Published(reading.clone())).unwrap();
            if n % 7 == 0 {
                // Whatever is wrong with what was measured: it was published.
                let (series, seq, kind) = (reading.series, reading.seq, FaultKind::Spike);
                writer.append(&Event::Faulty { series, seq, kind }).unwrap();
            }
            if n < self.readings.len() - 10 {
                let (series, seq) = (reading.series, reading.seq);
                writer.append(&Event::Acknowledged { series, seq }).unwrap();
            }
        }
        let last = self.readings.last().unwrap();
        for n in 1..=more {
            let mut reading = last.clone();
            reading.seq += n;
            writer.append(&Event::Published(reading)).unwrap();
        }
        writer.finish().unwrap();
    }

    /// Truth and lake in full agreement: two files, and bookkeeping that is none of ours.
    pub fn write(&self) {
        self.write_truth();
        let rows = self.rows();
        write(&self.hour().join("a.parquet"), &rows[..600]);
        write(&self.hour().join("b.parquet"), &rows[600..]);
        std::fs::write(self.hour().join("c.parquet.tmp"), "half a file").unwrap();
        let own = self.lake().join("readings/_tributary");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("intent.parquet"), "no Parquet").unwrap();
        std::fs::create_dir_all(self.lake().join("alerts")).unwrap();
        std::fs::write(self.lake().join("alerts/x.parquet"), "no Parquet").unwrap();
    }
}

pub fn write(path: &Path, rows: &[Row]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let text = |pick: &dyn Fn(&Row) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(pick).collect::<StringArray>())
    };
    let time = |pick: &dyn Fn(&Row) -> i64| -> ArrayRef {
        let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(pick));
        Arc::new(times.with_timezone("UTC"))
    };
    let kind = |row: &Row| match row.value {
        Value::F64(_) => "f64",
        Value::I64(_) => "i64",
        Value::Bool(_) => "bool",
        Value::Text(_) => "str",
    };
    let floats = rows.iter().map(|row| {
        if let Value::F64(x) = row.value {
            Some(x)
        } else {
            None
        }
    });
    let wholes = rows.iter().map(|row| {
        if let Value::I64(x) = row.value {
            Some(x)
        } else {
            None
        }
    });
    let truths = rows.iter().map(|row| {
        if let Value::Bool(x) = row.value {
            Some(x)
        } else {
            None
        }
    });
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        ("tenant", text(&|_| Some("default".to_owned()))),
        (
            "row",
            Arc::new((0..rows.len() as i32).collect::<Int32Array>()),
        ),
        ("device", text(&|row| Some(row.device.clone()))),
        ("metric", text(&|row| Some(row.metric.clone()))),
        ("event_time", time(&|row| row.time_us)),
        ("received_time", time(&|row| row.received_us)),
        ("value_type", text(&|row| Some(kind(row).to_owned()))),
        ("value_f64", Arc::new(floats.collect::<Float64Array>())),
        ("value_i64", Arc::new(wholes.collect::<Int64Array>())),
        ("value_bool", Arc::new(truths.collect::<BooleanArray>())),
        (
            "value_str",
            text(&|row| match &row.value {
                Value::Text(x) => Some(x.to_string()),
                _ => None,
            }),
        ),
        (
            "device_seq",
            Arc::new(rows.iter().map(|row| row.seq).collect::<Int64Array>()),
        ),
    ];
    if rows.iter().any(|row| row.in_doubt) {
        let truths = rows.iter().map(|row| Some(row.in_doubt));
        columns.push(("in_doubt", Arc::new(truths.collect::<BooleanArray>())));
    }
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(250))
        .build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
