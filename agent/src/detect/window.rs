//! Windows over event time, for each series: tumbling, sliding, sessions, counts. Pure: told each
//! reading, how far its device's time is, and the steady time. `docs/detection.md`, Windows.
//!
//! A window closes when its device's watermark passes its end, or when its device is silent and its
//! end is over by steady time; for ever: no late reading opens it again. What comes out is a
//! function of what was told. What closes with one reading comes by the end of the window, then by
//! the age of the series, then by the order of the configuration.

mod aggregate;
mod checkpoint;
mod closing;
mod device;
mod gaps;
mod matching;
mod open;
mod quantiles;
mod read;
mod series;
mod spec;
mod summary;

use super::event_time::{Progress, TimeSettings};
use super::sample::{Place, Sample, SeriesSlot};
use super::slots::Slots;
use device::Device;
use open::{PLACED, Room, Taken};
use series::Series;
use std::collections::BTreeSet;
use std::sync::Arc;
use summary::Item;

pub use aggregate::{Aggregate, Closed};
pub use quantiles::Quantiles;
pub(crate) use read::patterns;
pub use spec::{WindowKind, WindowSpec, WindowSpecs};

/// What windows made of readings, since the start of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WindowCounts {
    /// Windows that closed with readings in them.
    pub closed: u64,
    /// Of these: by silence of their device, incomplete, or because too many were open.
    pub closed_idle: u64,
    /// See there.
    pub incomplete: u64,
    /// See there.
    pub closed_crowded: u64,
    /// Readings that came late and found their window open: counted in its aggregate.
    pub late: u64,
    /// Readings, late or not, all of whose windows of one kind were closed: in no aggregate.
    pub behind: u64,
    /// Readings that are no finite number.
    pub not_finite: u64,
    /// Readings whose time is beyond what is placed.
    pub not_placed: u64,
    /// Readings that found no room to open a window.
    pub no_room: u64,
    /// Open windows that were let go of: their series forgotten, or their configuration gone.
    pub dropped: u64,
}

/// What is kept of a series.
#[derive(Clone)]
enum Kept {
    /// No window is for it, by the configuration of this revision.
    Unmatched(u32),
    Matched(Box<Series>),
}

/// All open windows.
#[derive(Clone)]
pub struct Windows {
    specs: Arc<WindowSpecs>,
    time: TimeSettings,
    /// Counts configurations, so that series find theirs anew.
    revision: u32,
    series: Slots<Kept>,
    devices: Slots<Device>,
    /// When windows of silent devices may be due, at the earliest: steady time and device.
    alarms: BTreeSet<(i64, u32)>,
    /// The age of the next series.
    next_age: u64,
    room: Room,
    counts: WindowCounts,
}

impl Windows {
    /// No window open. `time` as event time has it.
    pub fn new(specs: Arc<WindowSpecs>, time: TimeSettings) -> Self {
        Self {
            specs,
            time,
            revision: 0,
            series: Slots::default(),
            devices: Slots::default(),
            alarms: BTreeSet::new(),
            next_age: 0,
            room: Room::default(),
            counts: WindowCounts::default(),
        }
    }

    /// Takes a reading and appends what closes with it to `out`. `progress` is its device's, this
    /// reading included. Whether it fell behind a closed window: then it is late for that one,
    /// though perhaps not behind the watermark.
    ///
    /// Call [`tick`](Self::tick) with the record's steady time before.
    pub fn step(
        &mut self,
        place: &Place<'_>,
        sample: &Sample,
        progress: &Progress,
        out: &mut Vec<Aggregate>,
    ) -> bool {
        if self.specs.is_empty() {
            return false;
        }
        self.hear(place.device, progress, out);
        let behind = self.step_series(place, sample, progress, out);
        self.set_alarm(place.device);
        behind
    }

    fn step_series(
        &mut self,
        place: &Place<'_>,
        sample: &Sample,
        progress: &Progress,
        out: &mut Vec<Aggregate>,
    ) -> bool {
        if !sample.value.is_finite() {
            self.counts.not_finite += 1;
            return false;
        }
        if !PLACED.contains(&sample.event_time) {
            self.counts.not_placed += 1;
            return false;
        }
        let Some(mut series) = self.matched(place, progress) else {
            return false;
        };
        let item = Item {
            time: sample.event_time,
            value: sample.value,
            trusted: sample.trusted,
            late: sample.late,
        };
        if !item.late {
            series.gaps.add(item.time);
        }
        let behind = self.take(place.series, &mut series, &item, out);
        if let Some(kept) = self.series.room(place.series.0) {
            *kept = Some(Kept::Matched(series));
        }
        behind
    }

    /// Puts a reading into the windows of its series. Whether it was behind one of them.
    fn take(
        &mut self,
        slot: SeriesSlot,
        series: &mut Series,
        item: &Item,
        out: &mut Vec<Aggregate>,
    ) -> bool {
        let specs = Arc::clone(&self.specs);
        let (mut behind, mut counted_late) = (false, false);
        let device = self.devices.at(series.device.0);
        let watermark = device.map_or(i64::MIN, |device| device.progress.watermark);
        for place in 0..series.held.len() {
            let Some(held) = series.held.get_mut(place) else {
                continue;
            };
            let Some((_, shape)) = specs.at(held.spec) else {
                continue;
            };
            match held.open.step(shape, item, watermark, &mut self.room) {
                Taken::In => counted_late |= item.late,
                Taken::Behind => behind = true,
                Taken::NoRoom => self.counts.no_room += 1,
            }
            while series
                .held
                .get(place)
                .is_some_and(|held| held.open.is_crowded())
            {
                self.close_one(slot, series, place, Closed::Crowded, out);
            }
            // A count that is full is due at once.
            while series
                .due(place, &specs)
                .is_some_and(|due| due <= watermark)
            {
                self.close_one(slot, series, place, Closed::Watermark, out);
            }
            self.note_due(slot, series, place);
        }
        self.counts.late += u64::from(counted_late);
        self.counts.behind += u64::from(behind);
        behind
    }

    /// Bytes of all that is open.
    pub fn state_bytes(&self) -> usize {
        self.room.used
    }

    /// What windows made of readings.
    pub fn counts(&self) -> &WindowCounts {
        &self.counts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
