//! In which unit each series is measured, for its aggregates: as its newest reading with a unit
//! says. A bounded number of units; a series of one more has none.

use super::kept::{read_text, write_text};
use crate::detect::SeriesSlot;
use crate::limits::UNITS_MAX;
use bytes::{Buf, BufMut};

/// The units; see the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Units {
    known: Vec<Box<str>>,
    /// By series: which of them, counted from 1; 0 is none.
    of_series: Vec<u16>,
}

impl Units {
    /// A reading of a series says this; an empty text says nothing.
    pub fn note(&mut self, SeriesSlot(series): SeriesSlot, unit: &str) {
        if unit.is_empty() || self.of(SeriesSlot(series)) == unit {
            return;
        }
        let place = self.known.iter().position(|known| **known == *unit);
        if place.is_none() && self.known.len() < UNITS_MAX {
            self.known.push(unit.into());
        }
        let place = place.unwrap_or(self.known.len() - 1);
        let is_it = self.known.get(place).is_some_and(|known| **known == *unit);
        self.set(series, if is_it { place as u16 + 1 } else { 0 });
    }

    fn set(&mut self, series: u32, code: u16) {
        let series = series as usize;
        if series >= self.of_series.len() {
            self.of_series.resize(series + 1, 0);
        }
        if let Some(of_series) = self.of_series.get_mut(series) {
            *of_series = code;
        }
    }

    /// The unit of a series; none is empty.
    pub fn of(&self, SeriesSlot(series): SeriesSlot) -> &str {
        let code = self.of_series.get(series as usize).copied();
        let place = usize::from(code.unwrap_or(0)).checked_sub(1);
        let unit = place.and_then(|place| self.known.get(place));
        unit.map_or("", |unit| unit)
    }

    /// Another series may have this place.
    pub fn forget(&mut self, SeriesSlot(series): SeriesSlot) {
        if let Some(of_series) = self.of_series.get_mut(series as usize) {
            *of_series = 0;
        }
    }

    /// Appends all of it, as in a checkpoint; `names`: the device and the metric of a series.
    pub fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        names: &dyn Fn(SeriesSlot) -> Option<(&'a str, &'a str)>,
    ) {
        out.put_u16_le(self.known.len() as u16);
        for unit in &self.known {
            write_text(unit, out);
        }
        let all = (0..).zip(&self.of_series);
        let all = all.filter(|(_, code)| **code != 0);
        let all = all.filter_map(|(series, code)| Some((names(SeriesSlot(series))?, *code)));
        let all: Vec<_> = all.collect();
        out.put_u32_le(all.len() as u32);
        for ((device, metric), code) in all {
            write_text(device, out);
            write_text(metric, out);
            out.put_u16_le(code);
        }
    }

    /// Takes it off the front of `input`; `None` when the bytes are none.
    pub fn read(
        input: &mut &[u8],
        series: &mut dyn FnMut(&str, &str) -> Option<SeriesSlot>,
    ) -> Option<Self> {
        let mut units = Self::default();
        let count = usize::from(input.try_get_u16_le().ok()?);
        for _ in 0..count.min(UNITS_MAX) {
            units.known.push(read_text(input)?.into());
        }
        for _ in 0..input.try_get_u32_le().ok()? {
            let SeriesSlot(place) = series(read_text(input)?, read_text(input)?)?;
            units.set(place, input.try_get_u16_le().ok()?);
        }
        Some(units)
    }
}

const _: () = assert!(0 < UNITS_MAX && UNITS_MAX < u16::MAX as usize);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_unit_of_a_series_holds_within_bounds() {
        let mut units = Units::default();
        let [one, other] = [3, 7].map(SeriesSlot);
        for unit in ["°C", "", "K", ""] {
            units.note(one, unit);
        }
        units.note(other, "°C");
        assert_eq!((units.of(one), units.of(other)), ("K", "°C"));
        assert_eq!(units.of(SeriesSlot(0)), "");
        let mut bytes = Vec::new();
        units.write(&mut bytes, &|SeriesSlot(series)| match series {
            3 => Some(("d", "one")),
            _ => Some(("d", "other")),
        });
        let back = Units::read(&mut bytes.as_slice(), &mut |_, metric| match metric {
            "one" => Some(one),
            _ => Some(other),
        });
        assert_eq!(back.unwrap(), units);
        units.forget(one);
        for number in units.known.len()..UNITS_MAX {
            units.note(one, &format!("u{number}"));
        }
        let last = units.of(one).to_owned();
        units.note(other, "one too many");
        assert_eq!((units.of(one), units.of(other)), (&*last, ""));
    }
}
