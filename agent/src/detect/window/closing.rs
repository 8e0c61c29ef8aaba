//! When windows close: by their device's watermark, by its silence, or because its time began anew.
//!
//! Each device notes when the next window of each of its series is due, and has one alarm for when
//! it stays silent. Both may be too early, never too late: a reading that moves them costs nothing,
//! and who comes to his turn is looked at again.

use super::aggregate::{Aggregate, Closed};
use super::device::Due;
use super::series::Series;
use super::{Kept, Windows};
use crate::detect::event_time::Progress;
use crate::detect::sample::{DeviceSlot, SeriesSlot};
use std::sync::Arc;

/// Up to where windows close.
#[derive(Clone, Copy)]
enum Until {
    /// The device's watermark.
    Watermark,
    /// What is over by this steady time.
    Steady(i64),
    /// All that is open.
    All,
}

impl Windows {
    /// Closes the window of a series that is due next of its kind.
    pub(super) fn close_one(
        &mut self,
        slot: SeriesSlot,
        series: &mut Series,
        place: usize,
        closed: Closed,
        out: &mut Vec<Aggregate>,
    ) {
        let specs = Arc::clone(&self.specs);
        let median = series.gaps.median();
        let device = series.device;
        let Some(held) = series.held.get_mut(place) else {
            return;
        };
        let Some((spec, shape)) = specs.at(held.spec) else {
            return;
        };
        let interval = spec.expected_interval.or(median);
        let closing = held.open.close(shape, interval, closed, &mut self.room);
        let aggregate =
            closing.and_then(|closing| closing.aggregate(Arc::clone(&spec.name), slot, device));
        let Some(aggregate) = aggregate else {
            return;
        };
        self.counts.closed += 1;
        self.counts.incomplete += u64::from(!aggregate.complete);
        self.counts.closed_idle += u64::from(aggregate.closed == Closed::Idle);
        self.counts.closed_crowded += u64::from(aggregate.closed == Closed::Crowded);
        out.push(aggregate);
    }

    /// Closes all that is open of a series, before it is [forgotten](Self::forget).
    pub fn close(&mut self, slot: SeriesSlot, out: &mut Vec<Aggregate>) {
        let specs = Arc::clone(&self.specs);
        self.with_series(slot, |windows, series| {
            for place in 0..series.held.len() {
                while series.due(place, &specs).is_some() {
                    windows.close_one(slot, series, place, Closed::Crowded, out);
                }
            }
        });
    }

    /// Sees to it that the device knows when the next window of a series is due, or an earlier
    /// time.
    pub(super) fn note_due(&mut self, slot: SeriesSlot, series: &mut Series, place: usize) {
        let specs = Arc::clone(&self.specs);
        let due = series.due(place, &specs);
        let age = series.age;
        let (Some(held), Some(device)) = (
            series.held.get_mut(place),
            self.devices.at_mut(series.device.0),
        ) else {
            return;
        };
        // One that is too early is looked at again, once it comes to its turn.
        let stands = match (held.noted, due) {
            (Some(noted), Some(due)) => noted <= due,
            (noted, due) => noted == due,
        };
        if stands {
            return;
        }
        let at = |to: i64| Due {
            to,
            age,
            spec: held.spec,
            series: slot.0,
        };
        if let Some(noted) = held.noted {
            device.due.remove(&at(noted));
        }
        if let Some(due) = due {
            device.due.insert(at(due));
        }
        held.noted = due;
    }

    /// A device was heard of: what its watermark passed closes.
    pub(super) fn hear(&mut self, slot: DeviceSlot, progress: &Progress, out: &mut Vec<Aggregate>) {
        let Some(device) = self.devices.at_mut(slot.0) else {
            return;
        };
        if progress.watermark < device.progress.watermark {
            self.begin_anew(slot, progress, out);
            return;
        }
        device.progress = *progress;
        self.close_due(slot, Until::Watermark, out);
    }

    /// Closes windows of a device, in order.
    fn close_due(&mut self, slot: DeviceSlot, until: Until, out: &mut Vec<Aggregate>) {
        while let Some(due) = self.first_due(slot) {
            let Some(device) = self.devices.at(slot.0) else {
                return;
            };
            let closed = match until {
                Until::Watermark if due.to <= device.progress.watermark => Closed::Watermark,
                Until::Steady(now) if device.over_at(due.to, &self.time) <= now => Closed::Idle,
                Until::All => Closed::Anew,
                _ => return,
            };
            let series = SeriesSlot(due.series);
            self.with_series(series, |windows, held| {
                let place = held.place_of(due.spec);
                windows.close_one(series, held, place, closed, out);
                windows.note_due(series, held, place);
            });
        }
    }

    /// The window of a device that is due first, by what is open now.
    fn first_due(&mut self, slot: DeviceSlot) -> Option<Due> {
        loop {
            let due = *self.devices.at(slot.0)?.due.first()?;
            let specs = Arc::clone(&self.specs);
            let mut truly = None;
            let series = SeriesSlot(due.series);
            self.with_series(series, |windows, held| {
                let place = held.place_of(due.spec);
                truly = held.due(place, &specs);
                if truly != Some(due.to) {
                    // It was noted too early; nothing is noted too late.
                    held.forget_noted(place);
                    windows.note_due(series, held, place);
                }
            });
            if truly == Some(due.to) {
                return Some(due);
            }
            self.devices.at_mut(slot.0)?.due.remove(&due);
        }
    }

    /// Does something with a series that has windows.
    pub(super) fn with_series(
        &mut self,
        slot: SeriesSlot,
        act: impl FnOnce(&mut Self, &mut Series),
    ) {
        let Some(Kept::Matched(mut series)) = self.series.take(slot.0) else {
            return;
        };
        act(self, &mut series);
        if let Some(kept) = self.series.room(slot.0) {
            *kept = Some(Kept::Matched(series));
        }
    }

    /// A device's time began anew: what is open closes, and goes on there.
    fn begin_anew(&mut self, slot: DeviceSlot, progress: &Progress, out: &mut Vec<Aggregate>) {
        let specs = Arc::clone(&self.specs);
        let of_device = |(place, kept): (u32, &Kept)| match kept {
            Kept::Matched(series) if series.device == slot => Some((series.age, place)),
            _ => None,
        };
        let mut all: Vec<(u64, u32)> = self.series.iter().filter_map(of_device).collect();
        all.sort_unstable();
        let closed_before: Vec<Vec<i64>> = all
            .iter()
            .map(|(_, place)| match self.series.at(*place) {
                Some(Kept::Matched(series)) => series.closed_to(),
                _ => Vec::new(),
            })
            .collect();
        self.close_due(slot, Until::All, out);
        for ((_, place), closed_before) in all.iter().zip(closed_before) {
            if let Some(Kept::Matched(series)) = self.series.at_mut(*place) {
                series.begin_anew(&specs, progress.newest, &closed_before);
            }
        }
        if let Some(device) = self.devices.at_mut(slot.0) {
            device.progress = *progress;
        }
    }

    pub(super) fn set_alarm(&mut self, slot: DeviceSlot) {
        let Some(device) = self.devices.at_mut(slot.0) else {
            return;
        };
        let Some(first) = device.due.first() else {
            return;
        };
        let at = device.over_at(first.to, &self.time);
        if device.alarm.is_some_and(|alarm| alarm <= at) {
            return;
        }
        if let Some(alarm) = device.alarm.replace(at) {
            self.alarms.remove(&(alarm, slot.0));
        }
        self.alarms.insert((at, slot.0));
    }

    /// The steady time at which [`tick`](Self::tick) closes a window if nothing comes before.
    pub fn poll_timeout(&mut self) -> Option<i64> {
        loop {
            let (at, device) = *self.alarms.first()?;
            let slot = DeviceSlot(device);
            let due = self.first_due(slot);
            let device = self.devices.at_mut(slot.0);
            let truly = match (&device, due) {
                (Some(device), Some(due)) => Some(device.over_at(due.to, &self.time)),
                _ => None,
            };
            if truly.is_some_and(|truly| truly <= at) {
                return Some(at);
            }
            // It was set before the device was heard of again.
            self.alarms.remove(&(at, slot.0));
            if let Some(device) = device {
                device.alarm = truly;
            }
            if let Some(truly) = truly {
                self.alarms.insert((truly, slot.0));
            }
        }
    }

    /// Closes what is over by steady time `now` although nothing more came, and appends it to
    /// `out`: device by device, the one first whose first window was over first.
    pub fn tick(&mut self, now: i64, out: &mut Vec<Aggregate>) {
        let mut over: Vec<(i64, u64, DeviceSlot)> = Vec::new();
        while let Some((at, device)) = self.alarms.first().copied().filter(|(at, _)| *at <= now) {
            self.alarms.remove(&(at, device));
            let slot = DeviceSlot(device);
            if let Some(device) = self.devices.at_mut(device) {
                device.alarm = None;
            }
            // Alarms may be early, and places are the process's: the order is by neither.
            let due = self.first_due(slot);
            if let (Some(due), Some(device)) = (due, self.devices.at(slot.0)) {
                over.push((device.over_at(due.to, &self.time), due.age, slot));
            }
        }
        over.sort_unstable_by_key(|(at, age, _)| (*at, *age));
        for (_, _, slot) in over {
            self.close_due(slot, Until::Steady(now), out);
            self.set_alarm(slot);
        }
    }
}
