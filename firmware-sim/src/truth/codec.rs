//! Bytes of the truth ledger: header, varints, records. No file is touched here, and no decoder
//! trusts a length.

use super::{Event, Header, Source};
use crate::fault::FaultKind;
use crate::limits::{TEXT_BYTES_MAX, TRUTH_SERIES_MAX};
use crate::reading::{Reading, Value};

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const BLOCK_HEAD_BYTES: usize = 8;
const MAGIC: &[u8; 8] = b"TRIBTRTH";
const VERSION: u16 = 1;

const SERIES: u8 = 1;
const PUBLISHED: u8 = 2;
const ACKNOWLEDGED: u8 = 3;
const REFUSED: u8 = 4;
const END: u8 = 5;
const FAULTY: u8 = 16;

const F64: u8 = 0;
const I64: u8 = 2;
const BOOL: u8 = 3;
const TEXT: u8 = 4;

pub(super) fn encode_header(header: &Header) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    let source = match header.source {
        Source::Fleet => 0,
        Source::Replay => 1,
    };
    let numberless = u8::from(!header.numbered);
    out.extend_from_slice(&[source, header.qos, header.protocol, numberless, 0, 0]);
    out.extend_from_slice(&header.seed.to_le_bytes());
    out.extend_from_slice(&header.started_ms.to_le_bytes());
    out.extend_from_slice(&header.rate_hz.to_bits().to_le_bytes());
    out.extend_from_slice(&header.sensors.to_le_bytes());
    out.resize(HEADER_BYTES - 4, 0);
    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
    out
}

pub(super) fn decode_header(bytes: &[u8; HEADER_BYTES]) -> Result<Header, &'static str> {
    let mut input = Input { rest: bytes };
    if input.array::<8>()? != *MAGIC {
        return Err("it does not begin with TRIBTRTH");
    }
    if u16::from_le_bytes(input.array()?) != VERSION {
        return Err("another version wrote it");
    }
    let [source, qos, protocol, numberless, ..] = input.array::<6>()?;
    let source = match source {
        0 => Source::Fleet,
        1 => Source::Replay,
        _ => return Err("its source is unknown"),
    };
    let seed = u64::from_le_bytes(input.array()?);
    let started_ms = i64::from_le_bytes(input.array()?);
    let rate_hz = f64::from_bits(u64::from_le_bytes(input.array()?));
    let sensors = u32::from_le_bytes(input.array()?);
    input.array::<16>()?;
    let crc = u32::from_le_bytes(input.array()?);
    let (covered, _) = bytes.split_at(HEADER_BYTES - 4);
    if crc != crc32c::crc32c(covered) {
        return Err("the checksum of its header is wrong");
    }
    Ok(Header {
        source,
        qos,
        protocol,
        numbered: numberless == 0,
        seed,
        started_ms,
        rate_hz,
        sensors,
    })
}

/// The checksum of a block: over its length and its records.
pub(super) fn block_crc(records: &[u8]) -> u32 {
    let len = u32::try_from(records.len()).unwrap_or(u32::MAX);
    crc32c::crc32c_append(crc32c::crc32c(&len.to_le_bytes()), records)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// Appends one record; `last_us` is the block's running event time.
pub(super) fn put_event(out: &mut Vec<u8>, event: &Event, last_us: &mut i64) {
    match event {
        Event::Series {
            series,
            device,
            metric,
        } => {
            out.push(SERIES);
            put_varint(out, u64::from(*series));
            put_text(out, device);
            put_text(out, metric);
        }
        Event::Published(reading) => {
            out.push(PUBLISHED);
            put_varint(out, u64::from(reading.series));
            put_varint(out, reading.seq);
            put_varint(out, zigzag(reading.time_us.wrapping_sub(*last_us)));
            *last_us = reading.time_us;
            put_value(out, &reading.value);
        }
        Event::Acknowledged { series, seq } => put_numbers(out, ACKNOWLEDGED, *series, *seq),
        Event::Refused { series, seq } => put_numbers(out, REFUSED, *series, *seq),
        Event::Faulty { series, seq, kind } => {
            put_numbers(out, FAULTY, *series, *seq);
            out.push(kind.code());
        }
        Event::End {
            published,
            acknowledged,
        } => {
            out.push(END);
            put_varint(out, *published);
            put_varint(out, *acknowledged);
        }
    }
}

fn put_numbers(out: &mut Vec<u8>, tag: u8, series: u32, seq: u64) {
    out.push(tag);
    put_varint(out, u64::from(series));
    put_varint(out, seq);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::F64(x) => {
            out.push(F64);
            out.extend_from_slice(&x.to_bits().to_le_bytes());
        }
        Value::I64(x) => {
            out.push(I64);
            put_varint(out, zigzag(*x));
        }
        Value::Bool(x) => out.extend_from_slice(&[BOOL, u8::from(*x)]),
        Value::Text(text) => {
            out.push(TEXT);
            put_text(out, text);
        }
    }
}

/// What is left of a block's records.
pub(super) struct Input<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (head, rest) = self
            .rest
            .split_first_chunk::<N>()
            .ok_or("a record is cut short")?;
        self.rest = rest;
        Ok(*head)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number is too long")
    }

    fn text(&mut self) -> Result<&'a str, &'static str> {
        let len = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
        if len > TEXT_BYTES_MAX {
            return Err("a text is too long");
        }
        let (text, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or("a text is cut short")?;
        self.rest = rest;
        std::str::from_utf8(text).map_err(|_| "a text is not UTF-8")
    }

    fn series(&mut self) -> Result<u32, &'static str> {
        let series = self.varint()?;
        let known = u32::try_from(series)
            .ok()
            .filter(|n| (*n as usize) < TRUTH_SERIES_MAX);
        known.ok_or("a series number is too great")
    }

    /// The next record.
    pub(super) fn event(&mut self, last_us: &mut i64) -> Result<Event, &'static str> {
        let [tag] = self.array()?;
        Ok(match tag {
            SERIES => Event::Series {
                series: self.series()?,
                device: self.text()?.to_owned(),
                metric: self.text()?.to_owned(),
            },
            PUBLISHED => {
                let (series, seq) = (self.series()?, self.varint()?);
                *last_us = last_us.wrapping_add(unzigzag(self.varint()?));
                let (time_us, value) = (*last_us, self.value()?);
                Event::Published(Reading {
                    series,
                    seq,
                    time_us,
                    value,
                    written: None,
                    fault: None,
                })
            }
            ACKNOWLEDGED => Event::Acknowledged {
                series: self.series()?,
                seq: self.varint()?,
            },
            REFUSED => Event::Refused {
                series: self.series()?,
                seq: self.varint()?,
            },
            FAULTY => {
                let (series, seq, [code]) = (self.series()?, self.varint()?, self.array()?);
                let kind = FaultKind::from_code(code).ok_or("a fault is of an unknown kind")?;
                Event::Faulty { series, seq, kind }
            }
            END => Event::End {
                published: self.varint()?,
                acknowledged: self.varint()?,
            },
            _ => return Err("a record has an unknown tag"),
        })
    }

    fn value(&mut self) -> Result<Value, &'static str> {
        let [code] = self.array()?;
        Ok(match code {
            F64 => Value::F64(f64::from_bits(u64::from_le_bytes(self.array()?))),
            I64 => Value::I64(unzigzag(self.varint()?)),
            BOOL => Value::Bool(self.array()? != [0]),
            TEXT => Value::Text(self.text()?.into()),
            _ => return Err("a value has an unknown type"),
        })
    }
}
