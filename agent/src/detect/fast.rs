//! Series that report faster than once a second are judged on windows of a second: their mean, and
//! how far apart their readings are. Pure: told each reading of such a series, how far its device's
//! time is, and the steady time. `docs/detection.md`, Fast series.
//!
//! A window closes when its device's watermark passes its end, or when by steady time it would
//! have; for ever. What comes on time for its device and behind a window that is closed, as out of
//! a stall, is taken into the next one. At most two of a series are open. These windows keep count,
//! sum, least and greatest alone; what `[[detect.window]]` says is not theirs.

mod checkpoint;
mod pace;

use super::event_time::{Progress, TimeSettings};
use super::sample::{DeviceSlot, SeriesSlot};
use super::slots::Slots;
use crate::limits::{
    FAST_ALONE_MAX, FAST_LATENESS_US, FAST_LOOK_US, FAST_WINDOW_US, FAST_WINDOWS_OPEN_MAX,
};
use std::collections::BTreeSet;

pub use pace::Pace;

/// No alarm.
const NEVER: i64 = i64::MAX;

/// What is known of one second of a series: 56 bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Second {
    /// Its first microsecond since 1970, UTC.
    pub from: i64,
    /// Readings, one at least.
    pub count: u32,
    /// Whether all their times are believed.
    pub trusted: bool,
    /// When the one that came last was received: µs since 1970, UTC.
    pub received: i64,
    /// How far its own time is ahead of the one that it is judged by: µs.
    pub skew: i64,
    sum: f64,
    least: f64,
    greatest: f64,
}

impl Second {
    fn of(from: i64) -> Self {
        Self {
            from,
            count: 0,
            trusted: true,
            received: 0,
            skew: 0,
            sum: 0.0,
            least: f64::INFINITY,
            greatest: f64::NEG_INFINITY,
        }
    }

    fn add(&mut self, reading: &FastReading<'_>) {
        self.count = self.count.saturating_add(1);
        self.trusted &= reading.trusted;
        self.received = reading.received;
        self.skew = reading.skew;
        self.sum += reading.value;
        self.least = self.least.min(reading.value);
        self.greatest = self.greatest.max(reading.value);
    }

    /// The first microsecond behind it.
    pub fn to(&self) -> i64 {
        self.from.saturating_add(FAST_WINDOW_US)
    }

    /// The mean of its readings; infinite or no number where the sum is beyond what a double holds.
    pub fn mean(&self) -> f64 {
        self.sum / f64::from(self.count)
    }

    /// How far the greatest is from the least; one reading alone says nothing of that.
    pub fn peak_to_peak(&self) -> Option<f64> {
        (self.count > 1).then_some(self.greatest - self.least)
    }
}

/// A reading of a fast series.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FastReading<'a> {
    /// When it was measured: µs since 1970, UTC.
    pub time: i64,
    /// A finite value.
    pub value: f64,
    /// Whether its time is believed.
    pub trusted: bool,
    /// When it was received: µs since 1970, UTC.
    pub received: i64,
    /// How far its own time is ahead of the one that it is judged by: µs.
    pub skew: i64,
    /// In which unit it is.
    pub unit: &'a str,
}

/// A window that closed.
#[derive(Clone, PartialEq, Debug)]
pub struct ClosedSecond {
    /// Of which series.
    pub series: SeriesSlot,
    /// Its device.
    pub device: DeviceSlot,
    /// How long it begins after the one that closed before it: µs, 0 for the first one.
    pub after: i64,
    /// How many seconds of one reading alone it is the last of, one behind the other, saturating.
    pub alone: u8,
    /// What its readings say.
    pub second: Second,
    /// In which unit.
    pub unit: Box<str>,
}

/// One fast series.
#[derive(Clone, PartialEq, Debug)]
struct FastSeries {
    device: DeviceSlot,
    /// Counts the series, so that an order by it is the same after a restart.
    age: u64,
    /// Up to here windows are closed for ever.
    closed: i64,
    /// Where the last one that closed begins.
    last: i64,
    /// How many of the last ones had one reading, up to [`FAST_ALONE_MAX`].
    alone: u8,
    /// The steady time at which its first window is looked at although nothing came.
    alarm: i64,
    unit: Box<str>,
    /// By time.
    open: [Option<Second>; FAST_WINDOWS_OPEN_MAX],
}

impl FastSeries {
    fn first(&self) -> Option<&Second> {
        self.open.iter().flatten().next()
    }

    fn close_first(&mut self, slot: SeriesSlot, out: &mut Vec<ClosedSecond>) {
        self.open.sort_unstable_by_key(order);
        let Some(second) = self.open.first_mut().and_then(Option::take) else {
            return;
        };
        self.closed = self.closed.max(second.to());
        self.open.sort_unstable_by_key(order);
        let after = match std::mem::replace(&mut self.last, second.from) {
            i64::MIN => 0,
            last => second.from.saturating_sub(last),
        };
        self.alone = match second.count {
            1 => self.alone.saturating_add(1).min(FAST_ALONE_MAX),
            _ => 0,
        };
        out.push(ClosedSecond {
            series: slot,
            device: self.device,
            after,
            alone: self.alone,
            second,
            unit: self.unit.clone(),
        });
    }

    /// Where the window begins that takes a reading of this time: its own, or the next one that is
    /// not closed.
    fn window_of(&self, time: i64) -> i64 {
        let from = start_of(time).max(self.closed);
        let is_full = self.open.iter().all(Option::is_some);
        match self.first() {
            Some(first) if is_full => from.max(first.from),
            _ => from,
        }
    }

    /// Takes a reading, and appends the window that gives way to its own to `out`.
    fn add(&mut self, slot: SeriesSlot, reading: &FastReading<'_>, out: &mut Vec<ClosedSecond>) {
        let from = self.window_of(reading.time);
        let is_new = self.open.iter().flatten().all(|open| open.from != from);
        if is_new && self.open.iter().all(Option::is_some) {
            self.close_first(slot, out);
        }
        let place = self.open.iter_mut().find(|open| match open {
            Some(second) => second.from == from,
            None => true,
        });
        if let Some(place) = place {
            place.get_or_insert_with(|| Second::of(from)).add(reading);
        }
        self.open.sort_unstable_by_key(order);
        if *self.unit != *reading.unit {
            self.unit = reading.unit.into();
        }
    }
}

/// Free places are behind open windows.
fn order(open: &Option<Second>) -> i64 {
    open.map_or(i64::MAX, |second| second.from)
}

fn start_of(time: i64) -> i64 {
    time.div_euclid(FAST_WINDOW_US)
        .saturating_mul(FAST_WINDOW_US)
}

/// The fast series; see the module.
#[derive(Clone, Debug, Default)]
pub struct Fast {
    series: Slots<Box<FastSeries>>,
    /// Alarm, age and place of each series that has an open window.
    alarms: BTreeSet<(i64, u64, u32)>,
    next_age: u64,
    count: usize,
}

impl Fast {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this series is one.
    pub fn has(&self, series: SeriesSlot) -> bool {
        self.series.at(series.0).is_some()
    }

    /// This series is one from here on. The windows up to that of `judged`, the time of a reading
    /// that was taken before, do not open again; none was where that is the least one.
    pub fn begin(&mut self, series: SeriesSlot, device: DeviceSlot, judged: i64) {
        let closed = match judged {
            i64::MIN => i64::MIN,
            judged => start_of(judged).saturating_add(FAST_WINDOW_US),
        };
        let fresh = FastSeries {
            device,
            age: self.next_age,
            closed,
            last: i64::MIN,
            alone: 0,
            alarm: NEVER,
            unit: Box::default(),
            open: [None; FAST_WINDOWS_OPEN_MAX],
        };
        self.forget(series);
        if let Some(place) = self.series.room(series.0) {
            *place = Some(Box::new(fresh));
            self.next_age += 1;
            self.count += 1;
        }
    }

    /// Takes a reading that is not late, and appends what closes with it to `out`. `progress` is
    /// its device's, this reading included.
    pub fn step(
        &mut self,
        slot: SeriesSlot,
        reading: &FastReading<'_>,
        (progress, steady, time): (&Progress, i64, &TimeSettings),
        out: &mut Vec<ClosedSecond>,
    ) {
        let Some(series) = self.series.at_mut(slot.0) else {
            return;
        };
        let before = out.len();
        let watermark = watermark_of(progress);
        while series.first().is_some_and(|open| open.to() <= watermark) {
            series.close_first(slot, out);
        }
        series.closed = series.closed.max(start_of(watermark));
        series.add(slot, reading, out);
        if series.alarm == NEVER || out.len() > before {
            self.set_alarm(slot, |first| look_at(first, progress, steady, time));
        }
    }

    /// Sets the alarm of a series by its first open window.
    fn set_alarm(&mut self, slot: SeriesSlot, at: impl FnOnce(&Second) -> i64) {
        let Some(series) = self.series.at_mut(slot.0) else {
            return;
        };
        let alarm = series.first().map_or(NEVER, at);
        let before = std::mem::replace(&mut series.alarm, alarm);
        let age = series.age;
        if before != NEVER {
            self.alarms.remove(&(before, age, slot.0));
        }
        if alarm != NEVER {
            self.alarms.insert((alarm, age, slot.0));
        }
    }

    /// The steady time at which [`tick`](Self::tick) may close a window if nothing comes before.
    pub fn poll_timeout(&self) -> Option<i64> {
        self.alarms.first().map(|(at, ..)| *at)
    }

    /// Closes what is over by `steady` although nothing more of its series came, and appends it to
    /// `out`. `progress` is how far a device's time is.
    pub fn tick(
        &mut self,
        (steady, time): (i64, &TimeSettings),
        progress: impl Fn(DeviceSlot) -> Option<Progress>,
        out: &mut Vec<ClosedSecond>,
    ) {
        let mut over = Vec::new();
        while let Some(alarm) = self.alarms.first().copied()
            && alarm.0 <= steady
        {
            self.alarms.remove(&alarm);
            over.push(SeriesSlot(alarm.2));
        }
        for slot in over {
            let Some(series) = self.series.at_mut(slot.0) else {
                continue;
            };
            series.alarm = NEVER;
            let progress = progress(series.device);
            let is_over = |second: &Second| match &progress {
                Some(progress) => {
                    second.to() <= watermark_of(progress)
                        || over_at(second, progress, time) <= steady
                }
                None => true,
            };
            while series.first().is_some_and(is_over) {
                series.close_first(slot, out);
            }
            self.set_alarm(slot, |first| match &progress {
                Some(progress) => look_at(first, progress, steady, time),
                None => steady,
            });
        }
    }

    /// A series is no fast one any more, or not at hand; its open windows are dropped.
    pub fn forget(&mut self, slot: SeriesSlot) {
        if let Some(series) = self.series.take(slot.0) {
            self.alarms.remove(&(series.alarm, series.age, slot.0));
            self.count -= 1;
        }
    }

    /// All of them, the one first that is one for longest.
    pub fn slots(&self) -> Vec<SeriesSlot> {
        let mut all: Vec<(u64, u32)> = self
            .series
            .iter()
            .map(|(place, series)| (series.age, place))
            .collect();
        all.sort_unstable();
        all.into_iter()
            .map(|(_, place)| SeriesSlot(place))
            .collect()
    }
}

/// Up to where windows close: however patient the device's own watermark is, two open ones are
/// enough so.
fn watermark_of(progress: &Progress) -> i64 {
    let behind = progress.newest.saturating_sub(FAST_LATENESS_US);
    progress.watermark.max(behind)
}

/// The steady time at which the watermark would be at a window's end, if the device's time passed
/// as steady time does since its newest reading.
fn over_at(second: &Second, progress: &Progress, time: &TimeSettings) -> i64 {
    let lateness = time.allowed_lateness_us.min(FAST_LATENESS_US);
    let left = second.to().saturating_sub(progress.newest);
    let left = left.saturating_add(lateness).max(0);
    progress.newest_at.saturating_add(left)
}

/// The steady time at which a window is looked at: when it is over, on a grid that all series
/// share, so that one tick of the log does for many.
fn look_at(second: &Second, progress: &Progress, steady: i64, time: &TimeSettings) -> i64 {
    let at = over_at(second, progress, time).max(steady.saturating_add(1));
    let grids = at.div_euclid(FAST_LOOK_US) + i64::from(at.rem_euclid(FAST_LOOK_US) > 0);
    grids.saturating_mul(FAST_LOOK_US).min(NEVER - 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
