//! Sizes and times of every format over one file, measured in turn.

use crate::input::{Cell, File, Item};
use crate::peers::{JsonGzip, OtlpZstd, Peer, SparkplugZstd};
use anyhow::{Result, bail, ensure};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tributary_protocol::batch::{Content, Decoder, SealedBatch, Sealer, Spec};
use tributary_protocol::frame;
use tributary_protocol::ids::{BatchKey, BufferId, Lane, SeriesId};
use tributary_protocol::reading::{Meta, Readings, Value, ValueType};
use tributary_protocol::series::SeriesDef;

/// Times that everything is measured; the median counts.
const ROUNDS: usize = 5;
/// Readings that one round encodes at least, so that short files give steady figures.
const ROUND_READINGS: usize = 30_000;

/// What a format takes.
#[derive(Clone, Serialize, Debug)]
pub struct Figures {
    /// Its name.
    pub format: String,
    /// Bytes of all batches.
    pub bytes: usize,
    /// Readings in them.
    pub readings: usize,
    /// Bytes per reading.
    pub bytes_per_reading: f64,
    /// Nanoseconds per reading, from readings in memory to bytes.
    pub encode_ns: f64,
    /// Nanoseconds per reading, from bytes to readings in memory.
    pub decode_ns: f64,
}

/// Tributary's own batches.
pub struct Ours {
    sealer: Sealer,
    decoder: Decoder,
    number: u64,
}

fn value(cell: &Cell) -> Value<'_> {
    match cell {
        Cell::Number(x) => Value::F64(*x),
        Cell::Truth(x) => Value::Bool(*x),
        Cell::Text(x) => Value::Str(x),
    }
}

impl Ours {
    fn new(verify: bool) -> Self {
        Self {
            sealer: Sealer::new().verifying(verify),
            decoder: Decoder::new(),
            number: 0,
        }
    }

    fn spec(&mut self, lane: Lane, sealed_at: i64, series_needed: usize) -> Spec {
        // Ids are 128 bits that nothing shortens.
        let buffer = BufferId::new(3, 0x9e37_79b9_7f4a_7c15);
        let key = BatchKey {
            buffer,
            lane,
            number: self.number,
        };
        self.number += 1;
        Spec {
            key,
            sealed_at,
            series_needed: series_needed as u32,
            covers: vec![],
        }
    }

    fn readings(items: &[Item]) -> Result<Readings> {
        let mut readings = Readings::new();
        for item in items {
            let meta = Meta {
                event_time: item.time,
                received_time: item.time,
                device_seq: Some(item.seq),
                ..Meta::default()
            };
            readings.push(SeriesId(item.series), meta, value(&item.value))?;
        }
        Ok(readings)
    }

    fn seal(&mut self, file: &File, readings: &mut Readings) -> Result<SealedBatch> {
        let latest = readings.rows().last().map_or(0, |row| row.meta.event_time);
        let spec = self.spec(Lane::Telemetry, latest + 1_003_217, file.metrics.len());
        Ok(self.sealer.readings(&spec, readings)?)
    }

    fn decode(&mut self, sealed: &SealedBatch) -> Result<Readings> {
        match SealedBatch::open(sealed.bytes().clone())?.decode(&mut self.decoder)? {
            Content::Readings(readings) => Ok(readings),
            _ => bail!("readings decoded to something else"),
        }
    }

    /// Bytes that the definitions of a file's series take, as a batch of their own.
    pub fn definition_bytes(file: &File) -> Result<usize> {
        let kind = |series: u32| match file.items.iter().find(|item| item.series == series) {
            Some(item) => value(&item.value).value_type(),
            None => ValueType::F64,
        };
        let defs: Result<Vec<_>, _> = file
            .metrics
            .iter()
            .zip(0u32..)
            .map(|(metric, series)| SeriesDef::new(&file.device, metric, None, kind(series)))
            .collect();
        let mut ours = Self::new(true);
        let spec = ours.spec(Lane::Series, 0, 0);
        let sealed = ours.sealer.series(&spec, 0, &defs?)?;
        Ok(sealed.bytes().len() + frame::HEADER_BYTES)
    }

    /// Seals every batch, and checks that it decodes to what went in.
    fn check(&mut self, file: &File, batch: usize) -> Result<(Vec<Readings>, Vec<SealedBatch>)> {
        let (mut blocks, mut sealed) = (Vec::new(), Vec::new());
        for items in file.items.chunks(batch) {
            let block = Self::readings(items)?;
            let one = self.seal(file, &mut block.clone())?;
            let decoded = self.decode(&one)?;
            let mut order: Vec<&Item> = items.iter().collect();
            order.sort_by_key(|item| (item.series, item.time));
            ensure!(
                order.len() == decoded.len(),
                "{}: another number of readings",
                file.name
            );
            for (item, row) in order.into_iter().zip(decoded.rows()) {
                let meta = Meta {
                    event_time: item.time,
                    received_time: item.time,
                    device_seq: Some(item.seq),
                    ..Meta::default()
                };
                let same = match (value(&item.value), decoded.value(row)) {
                    (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
                    (a, b) => a == b,
                };
                let right = same && meta == row.meta && row.series.0 == item.series;
                ensure!(right, "{}: {item:?} decoded to {row:?}", file.name);
            }
            blocks.push(block);
            sealed.push(one);
        }
        Ok((blocks, sealed))
    }
}

/// Encode and decode times of one format, a round each.
#[derive(Default)]
struct Times {
    encode: Vec<f64>,
    decode: Vec<f64>,
}

impl Times {
    fn figures(mut self, format: &str, bytes: usize, readings: usize) -> Figures {
        Figures {
            format: format.to_owned(),
            bytes,
            readings,
            bytes_per_reading: bytes as f64 / readings as f64,
            encode_ns: median(&mut self.encode),
            decode_ns: median(&mut self.decode),
        }
    }
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

/// What this thread has computed so far, in nanoseconds: what else the machine does is not in it.
fn cpu_ns() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Nanoseconds per reading of `repeats` calls that each go through `readings`.
fn timed(readings: usize, repeats: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = cpu_ns();
    for _ in 0..repeats {
        run()?;
    }
    Ok((cpu_ns() - start) as f64 / (readings * repeats) as f64)
}

/// Measures all formats over one file.
pub fn file(file: &File, batch: usize) -> Result<Vec<Figures>> {
    let readings = file.items.len();
    let repeats = ROUND_READINGS.div_ceil(readings.max(1));
    let (mut ours, mut verified) = (Ours::new(false), Ours::new(true));
    let (blocks, sealed) = ours.check(file, batch)?;
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(JsonGzip),
        Box::new(OtlpZstd::new()?),
        Box::new(SparkplugZstd::new()?),
    ];
    let mut sent: Vec<Vec<Vec<u8>>> = Vec::new();
    for peer in &mut peers {
        let batches = file.items.chunks(batch);
        sent.push(
            batches
                .map(|items| peer.encode(file, items))
                .collect::<Result<_>>()?,
        );
    }
    let (mut own, mut checked) = (Times::default(), Times::default());
    let mut theirs: Vec<Times> = peers.iter().map(|_| Times::default()).collect();
    for _ in 0..ROUNDS {
        own.encode
            .push(seal_all(&mut ours, file, &blocks, readings, repeats)?);
        checked
            .encode
            .push(seal_all(&mut verified, file, &blocks, readings, repeats)?);
        own.decode.push(timed(readings, repeats, || {
            sealed.iter().try_for_each(|one| {
                ours.decode(one).map(|all| {
                    std::hint::black_box(all);
                })
            })
        })?);
        for ((peer, times), sent) in peers.iter_mut().zip(&mut theirs).zip(&sent) {
            times.encode.push(timed(readings, repeats, || {
                file.items.chunks(batch).try_for_each(|items| {
                    std::hint::black_box(peer.encode(file, items)?);
                    Ok(())
                })
            })?);
            times.decode.push(timed(readings, repeats, || {
                let counts = sent.iter().map(|bytes| peer.decode(bytes));
                let count = counts.sum::<Result<usize>>()?;
                ensure!(
                    count == readings,
                    "{}: {count} readings decoded",
                    peer.name()
                );
                Ok(())
            })?);
        }
    }
    checked.decode.clone_from(&own.decode);
    let bytes = sealed
        .iter()
        .map(|one| one.bytes().len() + frame::HEADER_BYTES)
        .sum();
    let mut all = vec![own.figures("tributary", bytes, readings)];
    all.push(checked.figures("  verified", bytes, readings));
    for ((peer, times), sent) in peers.iter().zip(theirs).zip(&sent) {
        all.push(times.figures(peer.name(), sent.iter().map(Vec::len).sum(), readings));
    }
    Ok(all)
}

/// Sealing brings rows into order in place, so each round gets copies, made outside the clock; one
/// at a time, as an agent seals what it has just collected.
fn seal_all(
    ours: &mut Ours,
    file: &File,
    blocks: &[Readings],
    readings: usize,
    repeats: usize,
) -> Result<f64> {
    let mut sum = 0.0;
    for block in (0..repeats).flat_map(|_| blocks) {
        let mut copy = block.clone();
        sum += timed(1, 1, || {
            std::hint::black_box(ours.seal(file, &mut copy)?);
            Ok(())
        })?;
    }
    Ok(sum / (readings * repeats) as f64)
}

/// The figures of all files together, readings weighing equally.
pub fn total<'a>(files: impl Iterator<Item = &'a [Figures]>) -> Vec<Figures> {
    let mut total: Vec<Figures> = Vec::new();
    for formats in files {
        if total.is_empty() {
            let zero = Figures {
                bytes: 0,
                readings: 0,
                bytes_per_reading: 0.0,
                encode_ns: 0.0,
                decode_ns: 0.0,
                format: String::new(),
            };
            total = formats
                .iter()
                .map(|one| Figures {
                    format: one.format.clone(),
                    ..zero.clone()
                })
                .collect();
        }
        for (sum, one) in total.iter_mut().zip(formats) {
            let (old, new) = (sum.readings as f64, one.readings as f64);
            let mean = |a: f64, b: f64| (a * old + b * new) / (old + new).max(1.0);
            sum.encode_ns = mean(sum.encode_ns, one.encode_ns);
            sum.decode_ns = mean(sum.decode_ns, one.decode_ns);
            sum.bytes += one.bytes;
            sum.readings += one.readings;
            sum.bytes_per_reading = sum.bytes as f64 / sum.readings as f64;
        }
    }
    total
}
