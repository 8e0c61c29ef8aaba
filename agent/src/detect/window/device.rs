//! What of a device's series is due next.

use crate::detect::event_time::{Progress, TimeSettings};
use std::collections::BTreeSet;

/// A window that may close, in the order in which windows do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Due {
    /// The event time at which it is over.
    pub to: i64,
    /// Which series is older.
    pub age: u64,
    /// Where its window stands in the configuration.
    pub spec: u16,
    pub series: u32,
}

/// One device that has windows.
#[derive(Clone)]
pub(super) struct Device {
    pub progress: Progress,
    /// The next window of each series and kind, or a time before that.
    pub due: BTreeSet<Due>,
    /// The steady time at which the first of these is over, or one before that.
    pub alarm: Option<i64>,
    /// Series that have windows.
    pub series: u32,
}

impl Device {
    pub fn new(progress: Progress) -> Self {
        Self {
            progress,
            due: BTreeSet::new(),
            alarm: None,
            series: 0,
        }
    }

    /// The steady time at which event time `to` is over if nothing more comes: when the device's
    /// own time would have passed it by the allowed lateness, and it counts as idle.
    pub fn over_at(&self, to: i64, time: &TimeSettings) -> i64 {
        let left = to.saturating_sub(self.progress.newest);
        let wait = left.saturating_add(time.allowed_lateness_us);
        let wait = wait.max(time.idle_timeout_us);
        self.progress.heard.saturating_add(wait)
    }
}
