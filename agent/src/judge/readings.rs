//! The last readings around what is said of a series. Its own [`Recent`] has them where it is
//! judged reading by reading; a fast one's has seconds, so its readings are kept here while there
//! is any rule or group: 57 bytes each, and their place.

use super::kept::{read_text, write_text};
use super::recent::{KEPT, Recent};
use super::series::{Seen, Series};
use crate::detect::SeriesSlot;
use bytes::{Buf, BufMut};
use std::collections::HashMap;

/// The last readings of fast series.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Readings(HashMap<u32, Recent>);

impl Readings {
    /// Takes a reading of a fast series, `step` microseconds behind the one before.
    pub fn push(&mut self, SeriesSlot(series): SeriesSlot, step: i64, value: f64) {
        self.0.entry(series).or_default().push(step, value);
    }

    /// What was kept of a series is of no use.
    pub fn forget(&mut self, SeriesSlot(series): SeriesSlot) {
        self.0.remove(&series);
    }

    fn of(&self, SeriesSlot(series): SeriesSlot) -> Option<&Recent> {
        self.0.get(&series)
    }

    /// Appends those of these series, as in a checkpoint; `names`: the device and the metric of a
    /// series.
    pub fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        series: &[SeriesSlot],
        names: &dyn Fn(SeriesSlot) -> Option<(&'a str, &'a str)>,
    ) {
        let all = series.iter();
        let all = all.filter_map(|series| Some((names(*series)?, self.of(*series)?)));
        let all: Vec<_> = all.collect();
        out.put_u32_le(all.len() as u32);
        for ((device, metric), recent) in all {
            write_text(device, out);
            write_text(metric, out);
            recent.write(out);
        }
    }

    /// Takes them off the front of `input`; `None` when the bytes are none. One that `series` knows
    /// no place for is left out.
    pub fn read(
        input: &mut &[u8],
        series: &mut dyn FnMut(&str, &str) -> Option<SeriesSlot>,
    ) -> Option<Self> {
        let mut readings = Self::default();
        for _ in 0..input.try_get_u32_le().ok()? {
            let (device, metric) = (read_text(input)?, read_text(input)?);
            let recent = Recent::read(input)?;
            if let Some(SeriesSlot(series)) = series(device, metric) {
                readings.0.insert(series, recent);
            }
        }
        Some(readings)
    }
}

impl Series {
    /// Keeps a reading of a fast series, where anything may show it.
    pub(super) fn keep_reading(&mut self, seen: &Seen<'_>, step: i64) {
        if !self.settings.rules.is_empty() || !self.settings.groups.is_empty() {
            self.readings.push(seen.at.series, step, seen.sample.value);
        }
    }

    /// The last readings of a series, to show around what a rule or a group says of it; the one at
    /// hand, where its series has not taken it yet, is the last of them.
    pub(super) fn readings_of(
        &self,
        (device, metric): (&str, &str),
        at_hand: Option<&Seen<'_>>,
    ) -> Vec<(i64, f64)> {
        let Some((series, _)) = self.watched.series(device, metric) else {
            return Vec::new();
        };
        let watch = self.watched.look(series);
        // What is of a time that began anew is not shown.
        let watch = watch.filter(|watch| watch.newest != i64::MIN);
        let mut around = watch.map_or(Vec::new(), |watch| {
            let recent = match watch.pace.is_on_windows() {
                true => self.readings.of(series),
                false => Some(&watch.recent).filter(|_| !watch.pace.is_derived()),
            };
            recent.map_or(Vec::new(), |recent| recent.around(watch.newest))
        });
        let at_hand = at_hand.map(|seen| (seen.at.series, seen.sample));
        if let Some((_, sample)) = at_hand.filter(|(of, _)| *of == series)
            && sample.value.is_finite()
        {
            around.retain(|(time, _)| *time <= sample.event_time);
            around.push((sample.event_time, sample.value));
            around.drain(..around.len().saturating_sub(KEPT));
        }
        around
    }
}
