//! What a document's slots mean: its readings with their times, numbers, qualities and units.

use super::convert::{Convert, Inexact};
use super::message::{Names, check_name};
use super::rows::{Row, Scalar, Span, head};
use super::rule::{Form, Unit, slot};
use super::walk::{Walk, check_name_length};
use super::{DeadLetter, time};
use tributary_protocol::reading::{Flags, Meta};

/// Quality words as the severities of OPC UA status codes (part 4, section 7.39): 0 is good.
const QUALITIES: [(&str, i32); 3] = [("good", 0), ("uncertain", 0x4000_0000), ("bad", i32::MIN)];

impl Walk<'_, '_> {
    #[inline]
    pub(super) fn slot(&self, slot: usize) -> Option<Scalar> {
        self.rows.slots.get(slot).copied().flatten()
    }

    fn name_of(&self, slot: usize) -> String {
        self.rule.places.name(slot).to_owned()
    }

    /// Gives the rows of one document, from `first` on, their names and times, and adds those of
    /// its slots. Gives its sequence number.
    pub(super) fn finish(&mut self, first: usize) -> Result<Option<i64>, DeadLetter> {
        // Batches hold no other: those are members like others.
        let own = self
            .slot(slot::SEQ)
            .and_then(integer)
            .filter(|seq| *seq >= 0);
        let seq = own.or(self.given.seq);
        if self.rule.form == Form::Waveform {
            self.finish_waveform(first, seq)?;
            return Ok(seq);
        }
        if self.rule.all && own.is_none() {
            self.push_slot(slot::SEQ)?;
        }
        let mut meta = self.meta(self.slot(slot::TIME))?;
        meta.device_seq = seq;
        match self.slot(slot::VALUES) {
            _ if !self.rule.all => self.finish_pointed(meta)?,
            Some(value) => self.finish_value(first, meta, value)?,
            None => self.finish_members(first, meta)?,
        }
        Ok(seq)
    }

    /// What has no meaning here after all: a member like others.
    fn push_slot(&mut self, slot: usize) -> Result<(), DeadLetter> {
        match self.slot(slot) {
            Some(value) => {
                let metric = self.rows.keep(self.rule.places.name(slot));
                self.push_member(metric, value)
            }
            None => Ok(()),
        }
    }

    /// The form with pointers to its values.
    fn finish_pointed(&mut self, mut meta: Meta) -> Result<(), DeadLetter> {
        meta.quality = self.quality()?;
        let unit = self.unit()?;
        let count = self.rule.places.slots() - slot::VALUES;
        let mut found = false;
        for place in 0..count {
            let Some(value) = self.slot(slot::VALUES + place) else {
                continue;
            };
            found = true;
            let named = self.rule.pointers.values.get(place);
            let (device, metric) = match named {
                Some((metric, _)) => (self.names.whole, self.rows.keep(metric)),
                None => (self.names.device, self.names.metric),
            };
            self.push_reading(Row {
                device,
                metric,
                unit,
                meta,
                value,
            })?;
        }
        if found {
            // The whole topic may be too long for a device although its parts are not.
            self.check_device()
        } else {
            let names = (0..count)
                .take(4)
                .map(|place| self.name_of(slot::VALUES + place));
            Err(DeadLetter::Missing(names.collect::<Vec<_>>().join("`, `")))
        }
    }

    fn check_device(&self) -> Result<(), DeadLetter> {
        match self.rule.names_members() {
            true => check_name("device name", self.rows.text(self.names.whole)),
            false => Ok(()),
        }
    }

    /// The form with a scalar `value`: what stands beside it keeps its place under its name.
    fn finish_value(
        &mut self,
        first: usize,
        mut meta: Meta,
        value: Scalar,
    ) -> Result<(), DeadLetter> {
        let Names { device, metric, .. } = self.names;
        for place in first..self.rows.len() {
            let Some(row) = self.rows.row(place) else {
                break;
            };
            check_name_length(self.rows.text(metric), self.rows.text(row.metric))?;
            let metric = self.rows.keep_joined(metric, row.metric);
            check_name("metric name", self.rows.text(metric))?;
            self.complete(
                place,
                Row {
                    device,
                    metric,
                    meta,
                    ..row
                },
            )?;
        }
        meta.quality = self.quality()?;
        let unit = self.unit()?;
        self.push_reading(Row {
            device,
            metric,
            unit,
            meta,
            value,
        })
    }

    fn finish_members(&mut self, first: usize, meta: Meta) -> Result<(), DeadLetter> {
        self.push_slot(slot::UNIT)?;
        self.push_slot(slot::QUALITY)?;
        if self.rows.len() > first {
            check_name("device name", self.rows.text(self.names.whole))?;
        }
        let unit = self.given.unit;
        for place in first..self.rows.len() {
            let Some(row) = self.rows.row(place) else {
                break;
            };
            check_name("metric name", self.rows.text(row.metric))?;
            self.complete(place, Row { unit, meta, ..row })?;
        }
        Ok(())
    }

    /// Puts a row in its place, its value and unit as the rule wants them.
    fn complete(&mut self, place: usize, row: Row) -> Result<(), DeadLetter> {
        let row = self.converted(row)?;
        self.rows.replace(place, row)
    }

    /// Adds a row, its value and unit as the rule wants them.
    #[inline]
    pub(super) fn push_reading(&mut self, row: Row) -> Result<(), DeadLetter> {
        let row = self.converted(row)?;
        self.rows.push(row)
    }

    /// The row with its value scaled and typed, and with the unit that is configured for it.
    #[inline]
    fn converted(&mut self, mut row: Row) -> Result<Row, DeadLetter> {
        let rule = self.rule;
        if rule.plain {
            return Ok(row);
        }
        let convert = rule.converts.of(self.rows.text(row.metric));
        row.value = self.value_by(convert, row.value, row.metric)?;
        row.unit = self.unit_by(convert, row.unit);
        Ok(row)
    }

    pub(super) fn value_by(
        &mut self,
        convert: &Convert,
        value: Scalar,
        metric: Span,
    ) -> Result<Scalar, DeadLetter> {
        convert
            .apply(value, self.rows)
            .map_err(|Inexact(value, why)| {
                let metric = head(self.rows.text(metric));
                DeadLetter::Type { metric, value, why }
            })
    }

    /// The unit that is configured, otherwise what the message says.
    pub(super) fn unit_by(&mut self, convert: &Convert, said: Span) -> Span {
        let fixed = match &self.rule.pointers.unit {
            Unit::Fixed(unit) if said == Span::default() => Some(unit),
            _ => None,
        };
        match convert.unit.as_ref().or(fixed) {
            Some(unit) => self.rows.keep(unit),
            None => said,
        }
    }

    /// Times and flags of a reading with this time of the device.
    #[inline]
    pub(super) fn meta(&self, given: Option<Scalar>) -> Result<Meta, DeadLetter> {
        let received_time = self.received_time;
        let given = self.time(given)?;
        let event_time = given.unwrap_or(received_time);
        let mut meta = Meta {
            event_time,
            received_time,
            quality: self.given.quality.unwrap_or(0),
            device_seq: None,
            flags: Flags::default(),
        };
        if given.is_none() {
            meta.flags = meta.flags.with(Flags::NO_DEVICE_TIME);
        }
        if time::is_suspect(event_time, received_time) {
            meta.flags = meta.flags.with(Flags::CLOCK_SUSPECT);
        }
        Ok(meta)
    }

    /// What the device says about when.
    #[inline]
    pub(super) fn time(&self, given: Option<Scalar>) -> Result<Option<i64>, DeadLetter> {
        let unit = self.rule.time_unit;
        let time = match given {
            None | Some(Scalar::Null) => return Ok(self.given.time),
            Some(Scalar::I64(ts)) => time::from_integer(ts, unit),
            Some(Scalar::F64(ts)) => time::from_float(ts, unit),
            Some(Scalar::Str(span)) => time::from_text(self.rows.text(span), unit),
            Some(Scalar::Bool(_)) => Err("is a truth value"),
        };
        let wrong = |why| DeadLetter::Time(self.name_of(slot::TIME), why);
        time.map(Some).map_err(wrong)
    }

    #[inline]
    pub(super) fn quality(&self) -> Result<i32, DeadLetter> {
        let wrong = || DeadLetter::Quality(self.name_of(slot::QUALITY));
        match self.slot(slot::QUALITY) {
            None | Some(Scalar::Null) => Ok(self.given.quality.unwrap_or(0)),
            Some(Scalar::Str(span)) => quality_word(self.rows.text(span)).ok_or_else(wrong),
            Some(number) => integer(number).and_then(quality_code).ok_or_else(wrong),
        }
    }

    #[inline]
    pub(super) fn unit(&self) -> Result<Span, DeadLetter> {
        match self.slot(slot::UNIT) {
            None | Some(Scalar::Null) => Ok(self.given.unit),
            Some(Scalar::Str(span)) if self.rows.text(span).is_empty() => Ok(Span::default()),
            Some(Scalar::Str(span)) => check_name("unit", self.rows.text(span)).map(|()| span),
            Some(_) => Err(DeadLetter::Unit(self.name_of(slot::UNIT))),
        }
    }
}

/// The quality that a word stands for.
pub(super) fn quality_word(word: &str) -> Option<i32> {
    let mut known = QUALITIES.iter();
    known
        .find(|(name, _)| word.eq_ignore_ascii_case(name))
        .map(|(_, code)| *code)
}

/// The quality that a number stands for: OPC UA's codes are unsigned, and 0x80000000 is what the
/// word `bad` stands for.
pub(super) fn quality_code(code: i64) -> Option<i32> {
    let unsigned = || u32::try_from(code).ok().map(u32::cast_signed);
    i32::try_from(code).ok().or_else(unsigned)
}

/// The integer that a scalar is, also one written with a fraction of zero.
fn integer(scalar: Scalar) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match scalar {
        Scalar::I64(value) => Some(value),
        Scalar::F64(value) if value.fract() == 0.0 && value.abs() <= EXACT => Some(value as i64),
        _ => None,
    }
}
