//! Open windows as bytes, by the names of their series and what their configuration means.
//! Versioned, little endian, total on arbitrary bytes. Counters are the process's, and not kept.

use super::device::Device;
use super::gaps::Gaps;
use super::open::{Kind, Open};
use super::series::{Held, Series};
use super::spec::WindowSpecs;
use super::{Kept, Windows};
use crate::detect::event_time::{Progress, TimeSettings};
use crate::detect::sample::{DeviceSlot, SeriesSlot};
use crate::detect::state_error::{StateError, read_name, read_version, write_name};
use crate::limits::WINDOW_SPECS_MAX;
use bytes::{Buf, BufMut};
use std::collections::HashMap;
use std::sync::Arc;

const VERSION: u16 = 1;

/// Device and metric of a series.
pub type SeriesNames<'a> = &'a dyn Fn(SeriesSlot) -> Option<(&'a str, &'a str)>;
/// The places of a device's metric; `None` when it has none.
pub type SeriesPlaces<'a> = &'a mut dyn FnMut(&str, &str) -> Option<(SeriesSlot, DeviceSlot)>;

impl Windows {
    /// Appends the state to `out`. A series without names is left out.
    pub fn write_checkpoint(&self, out: &mut Vec<u8>, names: SeriesNames<'_>) {
        out.put_u16_le(VERSION);
        out.put_u16_le(self.specs.len() as u16);
        for (place, spec) in (0..).zip(self.specs.iter()) {
            let text = spec.text();
            out.put_u32_le(text.len() as u32);
            out.put_slice(text.as_bytes());
            let kind = self.specs.at(place).map(|(_, shape)| Kind::of(shape));
            out.put_u8(kind.map_or(u8::MAX, Kind::code));
        }
        out.put_u64_le(self.next_age);
        let series = self.by_age(names);
        // Devices stand in the order of their oldest series.
        let mut places: HashMap<u32, u32> = HashMap::new();
        let mut devices: Vec<(&str, Progress)> = Vec::new();
        for (device, _, series) in &series {
            let slot = series.device.0;
            if let Some(kept) = self
                .devices
                .at(slot)
                .filter(|_| !places.contains_key(&slot))
            {
                places.insert(slot, devices.len() as u32);
                devices.push((device, kept.progress));
            }
        }
        out.put_u32_le(devices.len() as u32);
        for (name, progress) in devices {
            write_name(out, name);
            out.put_i64_le(progress.watermark);
            out.put_i64_le(progress.newest);
            out.put_i64_le(progress.heard);
        }
        out.put_u32_le(series.len() as u32);
        for (_, metric, series) in series {
            out.put_u32_le(places.get(&series.device.0).copied().unwrap_or(u32::MAX));
            write_name(out, metric);
            write_series(out, series);
        }
    }

    /// Every series that has windows, with its names, the oldest first.
    fn by_age<'n>(&self, names: SeriesNames<'n>) -> Vec<(&'n str, &'n str, &Series)> {
        let matched = self.series.iter().filter_map(|(place, kept)| match kept {
            Kept::Matched(series) => {
                let (device, metric) = names(SeriesSlot(place))?;
                Some((device, metric, &**series))
            }
            Kept::Unmatched(_) => None,
        });
        let mut all: Vec<_> = matched.collect();
        all.sort_unstable_by_key(|(_, _, series)| series.age);
        all
    }

    /// The state at the front of `input`, which is moved behind it. Left out is what `places` has
    /// no place for, and what is of windows that `specs` does not have.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read_checkpoint(
        input: &mut &[u8],
        specs: Arc<WindowSpecs>,
        time: TimeSettings,
        places: SeriesPlaces<'_>,
    ) -> Result<Self, StateError> {
        read_version(input, VERSION)?;
        let known = read_specs(input, &specs)?;
        let mut state = Self::new(specs, time);
        state.next_age = input.try_get_u64_le()?;
        let mut devices: Vec<(String, Progress)> = Vec::new();
        for _ in 0..input.try_get_u32_le()? {
            let name = read_name(input)?.to_owned();
            let (watermark, newest) = (input.try_get_i64_le()?, input.try_get_i64_le()?);
            let heard = input.try_get_i64_le()?;
            let progress = Progress {
                watermark,
                newest,
                // No window asks for it.
                newest_at: heard,
                heard,
            };
            devices.push((name, progress));
        }
        let mut last_age = None;
        for _ in 0..input.try_get_u32_le()? {
            let device = devices.get(input.try_get_u32_le()? as usize);
            let (device, progress) = device.ok_or(StateError::Field("device of a series"))?;
            let metric = read_name(input)?;
            let series = read_series(input, &known)?;
            if last_age.is_some_and(|last| last >= series.age) || series.age >= state.next_age {
                return Err(StateError::Field("age of a series"));
            }
            last_age = Some(series.age);
            if let Some((slot, device)) = places(device, metric) {
                state.restore(slot, device, *progress, series)?;
            }
        }
        Ok(state)
    }

    fn restore(
        &mut self,
        slot: SeriesSlot,
        device: DeviceSlot,
        progress: Progress,
        mut series: Series,
    ) -> Result<(), StateError> {
        let has_places =
            self.series.room(slot.0).is_some() && self.devices.room(device.0).is_some();
        if !has_places {
            return Ok(());
        }
        if self.series.at(slot.0).is_some() {
            return Err(StateError::Field("series: there twice"));
        }
        series.device = device;
        // It looks for its windows anew with its next reading.
        series.revision = self.revision.wrapping_sub(1);
        self.room.taken(series.bytes() + series.open_bytes());
        if let Some(kept) = self.devices.room(device.0) {
            kept.get_or_insert_with(|| Device::new(progress)).series += 1;
        }
        for place in 0..series.held.len() {
            self.note_due(slot, &mut series, place);
        }
        if let Some(kept) = self.series.room(slot.0) {
            *kept = Some(Kept::Matched(Box::new(series)));
        }
        self.set_alarm(device);
        Ok(())
    }
}

/// A kind of window in a checkpoint: where it stands now, if it still means the same.
type Known = (Option<u16>, Kind);

fn read_specs(input: &mut &[u8], specs: &WindowSpecs) -> Result<Vec<Known>, StateError> {
    let count = usize::from(input.try_get_u16_le()?);
    if count > WINDOW_SPECS_MAX {
        return Err(StateError::Field("count of windows"));
    }
    let mut known = Vec::new();
    for _ in 0..count {
        let bytes = input.try_get_u32_le()? as usize;
        let (text, rest) = input.split_at_checked(bytes).ok_or(StateError::Truncated)?;
        *input = rest;
        let text = std::str::from_utf8(text).map_err(|_| StateError::Field("window"))?;
        let kind = Kind::from_code(input.try_get_u8()?);
        let kind = kind.ok_or(StateError::Field("kind of window"))?;
        let place = specs.place_of(text);
        let now = place.and_then(|place| specs.at(place));
        if now.is_some_and(|(_, shape)| Kind::of(shape) != kind) {
            return Err(StateError::Field("kind of window"));
        }
        known.push((place, kind));
    }
    Ok(known)
}

fn write_series(out: &mut Vec<u8>, series: &Series) {
    out.put_u64_le(series.age);
    series.gaps.write(out);
    out.put_u16_le(series.held.len() as u16);
    for held in &series.held {
        out.put_u16_le(held.spec);
        held.open.write(out);
    }
}

fn read_series(input: &mut &[u8], known: &[Known]) -> Result<Series, StateError> {
    let mut series = Series::new(DeviceSlot(0), input.try_get_u64_le()?);
    series.gaps = Gaps::read(input)?;
    for _ in 0..input.try_get_u16_le()? {
        let spec = known.get(usize::from(input.try_get_u16_le()?));
        let (place, kind) = *spec.ok_or(StateError::Field("window of a series"))?;
        let open = Open::read(input, kind)?;
        let Some(place) = place else {
            continue;
        };
        let Err(at) = series.find(place) else {
            return Err(StateError::Field("window of a series: there twice"));
        };
        let held = Held {
            spec: place,
            noted: None,
            open,
        };
        series.held.insert(at, held);
    }
    Ok(series)
}
