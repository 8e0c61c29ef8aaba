//! What a window says of its readings once it is closed.

use super::quantiles::Quantiles;
use super::summary::Summary;
use crate::detect::sample::{DeviceSlot, SeriesSlot};
use std::sync::Arc;

/// Why a window closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Closed {
    /// Its device's watermark passed its end.
    Watermark,
    /// Its device fell silent, and its end is over by received time.
    Idle,
    /// It has as many readings as it takes.
    Full,
    /// There were too many open ones, or its series gave way to another.
    Crowded,
    /// Its device's time began anew, far from here.
    Anew,
}

/// The readings of one window of one series.
#[derive(Clone, PartialEq, Debug)]
pub struct Aggregate {
    /// The series.
    pub series: SeriesSlot,
    /// Its device.
    pub device: DeviceSlot,
    /// The name of the window.
    pub window: Arc<str>,
    /// Where it begins: µs since 1970, UTC. Of sessions and counts the first reading's time.
    pub from: i64,
    /// Where it ends, itself not in it. Of sessions and counts 1 µs behind the last reading.
    pub to: i64,
    /// Readings in it: at least 1.
    pub count: u64,
    /// The least value.
    pub min: f64,
    /// The greatest value.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation of these readings; 0 of one. The greatest double where its square is
    /// none.
    pub std: f64,
    /// The value of the first reading by event time.
    pub first: f64,
    /// The value of the last one.
    pub last: f64,
    /// p50, p95 and p99; `None` where the bound of all windows left no room for them.
    pub quantiles: Option<Quantiles>,
    /// Readings of its time that came late while it was open: counted here, and not in it.
    pub late: u64,
    /// Whether the series was present through the window, and nothing of it came late.
    pub complete: bool,
    /// Whether the time of every reading is believed.
    pub trusted: bool,
    /// Why it closed.
    pub closed: Closed,
}

/// A window on its way out.
pub(super) struct Closing {
    pub from: i64,
    pub to: i64,
    pub summary: Summary,
    /// Whether it got all that it could have, as far as its kind can tell.
    pub present: bool,
    pub closed: Closed,
}

impl Closing {
    /// The aggregate; `None` of a window without readings.
    pub fn aggregate(
        self,
        window: Arc<str>,
        series: SeriesSlot,
        device: DeviceSlot,
    ) -> Option<Aggregate> {
        let summary = &self.summary;
        (summary.count > 0).then(|| Aggregate {
            series,
            device,
            window,
            from: self.from,
            to: self.to,
            count: summary.count,
            min: summary.min,
            max: summary.max,
            mean: summary.mean(),
            std: summary.std(),
            first: summary.first.1,
            last: summary.last.1,
            quantiles: summary.quantiles(),
            late: summary.late,
            complete: self.present
                && summary.late == 0
                && !matches!(self.closed, Closed::Crowded | Closed::Anew),
            trusted: summary.trusted,
            closed: self.closed,
        })
    }
}

/// Whether a series whose readings are `interval` apart was present from `from` to `to`: none of
/// its edges is empty for two intervals, and half of the readings that there should be are there.
pub(super) fn is_present(summary: &Summary, (from, to): (i64, i64), interval: Option<i64>) -> bool {
    let Some(interval) = interval else {
        return false;
    };
    let patience = interval.saturating_mul(2);
    let reached = i64::try_from(summary.count).unwrap_or(i64::MAX);
    summary.first.0.saturating_sub(from) <= patience
        && to.saturating_sub(summary.last.0) <= patience
        && reached.saturating_mul(patience) >= to.saturating_sub(from)
}
