//! Waveforms: many samples of one metric in one message, each a reading with its own time.
//!
//! Sample `i` was taken at `start + i / rate`, rounded to the microsecond. Without a time of the
//! device the last sample counts as taken when the message was received.

use super::message::Names;
use super::read::is_rate;
use super::rows::{Row, Scalar, Span};
use super::rule::{Samples, slot};
use super::walk::Walk;
use super::{DeadLetter, time};
use tributary_protocol::limits::MESSAGE_READINGS_MAX;
use tributary_protocol::reading::{Flags, Meta};

/// The samples of a binary payload.
pub(super) fn binary(
    walk: &mut Walk<'_, '_>,
    samples: Samples,
    payload: &[u8],
) -> Result<(), DeadLetter> {
    let skip = walk.rule.skip_bytes;
    let Some(bytes) = payload.get(skip..) else {
        return Err(DeadLetter::Waveform(format!(
            "{} bytes, where {skip} stand before the samples",
            payload.len()
        )));
    };
    let width = match samples {
        Samples::I16Le | Samples::I16Be => 2,
        Samples::F32Le | Samples::F32Be => 4,
    };
    if bytes.len() % width != 0 {
        return Err(DeadLetter::Waveform(format!(
            "{} bytes, which are no whole samples of {width} bytes",
            bytes.len()
        )));
    }
    if bytes.len() / width > MESSAGE_READINGS_MAX {
        return Err(DeadLetter::TooManyReadings);
    }
    let value: fn(&[u8]) -> Option<Scalar> = match samples {
        Samples::I16Le => |bytes| Some(integer(i16::from_le_bytes(bytes.try_into().ok()?))),
        Samples::I16Be => |bytes| Some(integer(i16::from_be_bytes(bytes.try_into().ok()?))),
        Samples::F32Le => |bytes| Some(float(f32::from_le_bytes(bytes.try_into().ok()?))),
        Samples::F32Be => |bytes| Some(float(f32::from_be_bytes(bytes.try_into().ok()?))),
    };
    for sample in bytes.chunks_exact(width).filter_map(value) {
        walk.push_sample(sample)?;
    }
    walk.finish_waveform(0, walk.given.seq)
}

fn integer(sample: i16) -> Scalar {
    Scalar::I64(i64::from(sample))
}

/// A double holds every single exactly.
fn float(sample: f32) -> Scalar {
    Scalar::F64(f64::from(sample))
}

impl Walk<'_, '_> {
    /// The array of samples of a JSON document.
    pub(super) fn read_samples(&mut self) -> Result<(), DeadLetter> {
        self.json.expect(b'[', "`[`")?;
        if self.json.take(b']') {
            return Ok(());
        }
        loop {
            let place = self.samples;
            let wrong = || DeadLetter::Waveform(format!("sample {place} is no number"));
            if let Some(b'{' | b'[' | b'"' | b't' | b'f') = self.json.peek() {
                return Err(wrong());
            }
            let sample = self.json.scalar(self.rows)?;
            match sample {
                Scalar::Null | Scalar::I64(_) | Scalar::F64(_) => self.push_sample(sample)?,
                // An integer with more digits than any sample has.
                Scalar::Str(_) | Scalar::Bool(_) => return Err(wrong()),
            }
            if self.json.take(b']') {
                return Ok(());
            }
            self.json.expect(b',', "`,` or `]`")?;
        }
    }

    /// Adds a sample; its place stands in for its time until the waveform is whole. One that is
    /// null has a place and no reading.
    fn push_sample(&mut self, value: Scalar) -> Result<(), DeadLetter> {
        let Names { device, metric, .. } = self.names;
        let meta = Meta {
            event_time: self.samples as i64,
            ..Meta::default()
        };
        self.samples += 1;
        self.rows.push(Row {
            device,
            metric,
            unit: Span::default(),
            meta,
            value,
        })
    }

    /// Gives the samples from row `first` on their times.
    pub(super) fn finish_waveform(
        &mut self,
        first: usize,
        seq: Option<i64>,
    ) -> Result<(), DeadLetter> {
        let has_samples =
            self.rule.pointers.samples.is_none() || self.slot(slot::SAMPLES).is_some();
        if !has_samples {
            return Err(DeadLetter::Missing(
                self.rule.places.name(slot::SAMPLES).to_owned(),
            ));
        }
        let rate_hz = self.rate_hz()?;
        let given = self.time(self.slot(slot::TIME))?;
        let last = self.samples.saturating_sub(1) as i64;
        let start =
            given.unwrap_or_else(|| self.received_time.saturating_sub(behind(last, rate_hz)));
        let (quality, unit) = (self.quality()?, self.unit()?);
        let (rule, metric) = (self.rule, self.names.metric);
        let convert = rule.converts.of(self.rows.text(metric));
        let unit = self.unit_by(convert, unit);
        for place in first..self.rows.len() {
            let Some(row) = self.rows.row(place) else {
                break;
            };
            let event_time = start.saturating_add(behind(row.meta.event_time, rate_hz));
            let mut flags = Flags::default();
            if given.is_none() {
                flags = flags.with(Flags::NO_DEVICE_TIME);
            }
            if time::is_suspect(event_time, self.received_time) {
                flags = flags.with(Flags::CLOCK_SUSPECT);
            }
            let meta = Meta {
                event_time,
                received_time: self.received_time,
                quality,
                device_seq: seq,
                flags,
            };
            let value = match rule.plain {
                true => row.value,
                false => self.value_by(convert, row.value, metric)?,
            };
            let row = Row {
                unit,
                meta,
                value,
                ..row
            };
            self.rows.replace(place, row)?;
        }
        Ok(())
    }

    /// Samples a second: what the message says, otherwise what the rule does.
    fn rate_hz(&self) -> Result<f64, DeadLetter> {
        let said = match self.slot(slot::RATE) {
            None | Some(Scalar::Null) => self.rule.rate_hz,
            Some(Scalar::I64(rate)) => Some(rate as f64),
            Some(Scalar::F64(rate)) => Some(rate),
            Some(Scalar::Bool(_) | Scalar::Str(_)) => Some(f64::NAN),
        };
        said.filter(|rate| is_rate(*rate)).ok_or_else(|| {
            DeadLetter::Waveform(match said {
                Some(_) => "a rate that is no number above 0 and up to 1,000,000 Hz".into(),
                None => "no rate in the message, and no `rate_hz` in its rule".into(),
            })
        })
    }
}

/// Microseconds from the first sample to this one.
fn behind(sample: i64, rate_hz: f64) -> i64 {
    (sample as f64 * 1e6 / rate_hz).round() as i64
}
