//! Which series have which windows: with their first reading, with another configuration, and once
//! they are forgotten.

use super::device::Device;
use super::series::{Held, Series};
use super::{Kept, WindowSpecs, Windows};
use crate::detect::event_time::{Progress, TimeSettings};
use crate::detect::sample::{DeviceSlot, Place, SeriesSlot};
use std::ops::Range;
use std::sync::Arc;

impl Windows {
    /// The series of a reading, taken out; `None` when no window is for it, or there is no room.
    pub(super) fn matched(
        &mut self,
        place: &Place<'_>,
        progress: &Progress,
    ) -> Option<Box<Series>> {
        let revision = self.revision;
        match self.series.at(place.series.0) {
            Some(Kept::Unmatched(known)) if *known == revision => return None,
            Some(Kept::Matched(series)) if series.device != place.device => {
                // Somebody forgot to say that the place is another's.
                self.forget(place.series);
            }
            _ => {}
        }
        let known = match self.series.take(place.series.0) {
            Some(Kept::Matched(series)) => Some(series),
            _ => None,
        };
        if let Some(series) = known {
            return match series.revision == revision {
                true => Some(series),
                false => self.match_anew(place, series),
            };
        }
        if self
            .specs
            .places_for(place.device_name, place.metric)
            .next()
            .is_none()
        {
            self.unmatched(place.series);
            return None;
        }
        // Both have a place, or neither.
        let has_places = self.series.room(place.series.0).is_some()
            && self.devices.room(place.device.0).is_some();
        if !has_places || !self.room.is_left() {
            self.counts.no_room += 1;
            return None;
        }
        let series = Box::new(Series::new(place.device, self.next_age));
        self.next_age += 1;
        self.room.taken(series.bytes());
        let device = self.devices.room(place.device.0)?;
        let device = device.get_or_insert_with(|| Device::new(*progress));
        device.series += 1;
        self.match_anew(place, series)
    }

    /// How many places of series there are, taken or not.
    pub fn places_len(&self) -> usize {
        self.series.len()
    }

    /// Counts, for each window of the configuration, of the series at these places those that it is
    /// for.
    pub fn tally(&self, at: Range<usize>, counts: &mut [usize]) {
        for (_, kept) in self.series.range(at) {
            let Kept::Matched(series) = kept else {
                continue;
            };
            for held in &series.held {
                if let Some(count) = counts.get_mut(usize::from(held.spec)) {
                    *count += 1;
                }
            }
        }
    }

    /// No window is for this series, by the configuration as it is.
    fn unmatched(&mut self, slot: SeriesSlot) {
        if let Some(kept) = self.series.room(slot.0) {
            *kept = Some(Kept::Unmatched(self.revision));
        }
    }

    /// Gives a series the windows of this revision that it does not have yet.
    fn match_anew(&mut self, place: &Place<'_>, mut series: Box<Series>) -> Option<Box<Series>> {
        let specs = Arc::clone(&self.specs);
        self.room.freed(series.bytes());
        for spec in specs.places_for(place.device_name, place.metric) {
            if let (Err(at), Some((_, shape))) = (series.find(spec), specs.at(spec)) {
                series.held.insert(at, Held::new(spec, shape));
            }
        }
        series.revision = self.revision;
        self.room.taken(series.bytes());
        if series.held.is_empty() {
            // Its windows are gone with the configuration that it had.
            self.let_go(&series);
            self.unmatched(place.series);
            return None;
        }
        Some(series)
    }

    /// Goes on with other windows. Those that mean the same as before go on as if nothing had
    /// been; those that are gone are dropped with what was open of them.
    pub fn replace(&mut self, specs: Arc<WindowSpecs>, time: TimeSettings) {
        let places: Vec<Option<u16>> = self
            .specs
            .iter()
            .map(|spec| specs.place_of(&spec.text()))
            .collect();
        for (_, device) in self.devices.iter_mut() {
            device.due.clear();
        }
        let matched: Vec<u32> = self.series.iter().map(|(place, _)| place).collect();
        self.specs = specs;
        self.time = time;
        self.revision = self.revision.wrapping_add(1);
        for place in matched {
            let slot = SeriesSlot(place);
            self.with_series(slot, |windows, series| {
                windows.room.freed(series.bytes() + series.open_bytes());
                windows.counts.dropped += series.move_to(&places);
                windows.room.taken(series.bytes() + series.open_bytes());
                for place in 0..series.held.len() {
                    series.forget_noted(place);
                    windows.note_due(slot, series, place);
                }
            });
        }
        let devices: Vec<u32> = self.devices.iter().map(|(place, _)| place).collect();
        devices
            .into_iter()
            .for_each(|place| self.set_alarm(DeviceSlot(place)));
    }

    /// Forgets a series with its open windows; its place may be another one's then.
    pub fn forget(&mut self, slot: SeriesSlot) {
        let Some(Kept::Matched(mut series)) = self.series.take(slot.0) else {
            return;
        };
        self.counts.dropped += series.open_windows();
        self.room.freed(series.open_bytes());
        series.held.iter_mut().for_each(Held::empty);
        for place in 0..series.held.len() {
            // What is empty is not due.
            self.note_due(slot, &mut series, place);
        }
        self.let_go(&series);
    }

    /// Lets go of a series of which nothing is open, and of its device with its last one.
    fn let_go(&mut self, series: &Series) {
        self.room.freed(series.bytes());
        let slot = series.device.0;
        let Some(device) = self.devices.at_mut(slot) else {
            return;
        };
        device.series = device.series.saturating_sub(1);
        if device.series == 0 {
            if let Some(alarm) = device.alarm {
                self.alarms.remove(&(alarm, slot));
            }
            self.devices.take(slot);
        }
    }
}
