//! In which unit each series is measured, for its aggregates: as its newest reading with a unit
//! says. A bounded number of units; a series of one more has none.

use super::kept::{read_text, write_text};
use crate::detect::SeriesSlot;
use crate::limits::UNITS_MAX;
use bytes::{Buf, BufMut};
use std::collections::{BTreeSet, HashMap};

/// The units; see the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Units {
    /// Each with how many series have it.
    known: Vec<(Box<str>, u32)>,
    /// Where each of them is.
    places: HashMap<Box<str>, u16>,
    /// Places of those that no series has: the next ones that have to go.
    unused: BTreeSet<u16>,
    /// By series: which of them, counted from 1; 0 is none.
    of_series: Vec<u16>,
}

impl Units {
    /// A reading of a series says this; an empty text says nothing. It takes no longer where there
    /// is no room.
    pub fn note(&mut self, SeriesSlot(series): SeriesSlot, unit: &str) {
        if unit.is_empty() || self.of(SeriesSlot(series)) == unit {
            return;
        }
        // The one that it had may be the one that has to go.
        self.set(series, 0);
        if let Some(place) = self.place_of(unit) {
            self.set(series, place + 1);
        }
    }

    /// Where a unit is; where it is new, in the place of one that no series has if need be.
    fn place_of(&mut self, unit: &str) -> Option<u16> {
        if let Some(place) = self.places.get(unit) {
            return Some(*place);
        }
        let place = match self.known.len() < UNITS_MAX {
            true => {
                self.known.push((unit.into(), 0));
                self.known.len() as u16 - 1
            }
            false => {
                let place = *self.unused.first()?;
                let (known, _) = self.known.get_mut(usize::from(place))?;
                let gone = std::mem::replace(known, unit.into());
                self.places.remove(&gone);
                place
            }
        };
        self.places.insert(unit.into(), place);
        Some(place)
    }

    fn set(&mut self, series: u32, code: u16) {
        let series = series as usize;
        if series >= self.of_series.len() {
            self.of_series.resize(series + 1, 0);
        }
        let Some(of_series) = self.of_series.get_mut(series) else {
            return;
        };
        let before = std::mem::replace(of_series, code);
        self.use_by(before, -1);
        self.use_by(code, 1);
    }

    /// So many series more have a unit.
    fn use_by(&mut self, code: u16, more: i32) {
        let Some(place) = code.checked_sub(1) else {
            return;
        };
        if let Some((_, used)) = self.known.get_mut(usize::from(place)) {
            *used = used.saturating_add_signed(more);
            match *used {
                0 => self.unused.insert(place),
                _ => self.unused.remove(&place),
            };
        }
    }

    /// The unit of a series; none is empty.
    pub fn of(&self, SeriesSlot(series): SeriesSlot) -> &str {
        let code = self.of_series.get(series as usize).copied();
        let place = usize::from(code.unwrap_or(0)).checked_sub(1);
        let unit = place.and_then(|place| self.known.get(place));
        unit.map_or("", |(unit, _)| unit)
    }

    /// Another series may have this place.
    pub fn forget(&mut self, SeriesSlot(series): SeriesSlot) {
        if (series as usize) < self.of_series.len() {
            self.set(series, 0);
        }
    }

    /// Appends all of it, as in a checkpoint; `names`: the device and the metric of a series.
    pub fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        names: &dyn Fn(SeriesSlot) -> Option<(&'a str, &'a str)>,
    ) {
        out.put_u16_le(self.known.len() as u16);
        for (unit, _) in &self.known {
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
            let place = units.known.len() as u16;
            let unit: Box<str> = read_text(input)?.into();
            units.known.push((unit.clone(), 0));
            units.unused.insert(place);
            units.places.insert(unit, place);
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
        // K and what it had before are nobody's any more; one after another takes up the rest.
        let mut series = (100..).map(SeriesSlot);
        for number in 2..UNITS_MAX {
            units.note(series.next().unwrap(), &format!("u{number}"));
        }
        assert_eq!(units.known.len(), UNITS_MAX);
        units.note(one, "instead of K");
        assert_eq!(units.of(one), "instead of K");
        units.note(SeriesSlot(4), "one too many");
        assert_eq!((units.of(SeriesSlot(4)), units.of(other)), ("", "°C"));
        units.note(SeriesSlot(4), "°C");
        assert_eq!(units.of(SeriesSlot(4)), "°C", "one that is known");
        // A series that says another one each time has the place of its last one.
        for turn in 0..3 {
            let unit = format!("turn {turn}");
            units.note(one, &unit);
            assert_eq!(units.of(one), unit);
        }
        assert_eq!(units.known.len(), UNITS_MAX);
        assert_eq!(units.places.len(), UNITS_MAX);
    }
}
