//! One device's time: its watermark, and whether its clock was set back.

use super::{Progress, TimeSettings};
use crate::limits::CLOCK_BACK_AFTER_US;

/// Nothing yet.
const NEVER: i64 = i64::MIN;

/// One device's time: 72 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DeviceClock {
    /// The greatest time of its readings.
    pub newest: i64,
    /// The steady time at which that came.
    pub newest_at: i64,
    /// What is before this is late.
    pub watermark: i64,
    /// The steady time of its last reading.
    pub heard: i64,
    /// How far its clock is from steady time, whether believed or not.
    pub distance: i64,
    /// The steady time and the event time of the first of the late readings since the last one
    /// that was on time.
    pub late_since: i64,
    pub late_from: i64,
    /// Whether its clock was set back, and its times are not believed until it is where it was.
    pub astray: bool,
    /// How far the last time that it said, or was given, is from steady time, where that was not
    /// believed.
    pub doubted: i64,
    /// Whether that was a time of its own.
    pub doubts_own: bool,
}

impl Default for DeviceClock {
    fn default() -> Self {
        Self {
            newest: NEVER,
            newest_at: NEVER,
            watermark: NEVER,
            heard: NEVER,
            distance: NEVER,
            late_since: NEVER,
            late_from: NEVER,
            astray: false,
            doubted: NEVER,
            doubts_own: false,
        }
    }
}

impl DeviceClock {
    /// As if nothing had been heard of it, but what its clock says.
    pub fn anew(&self) -> Self {
        Self {
            distance: self.distance,
            ..Self::default()
        }
    }

    /// Whether it ever had a reading that was not late.
    pub fn is_heard(&self) -> bool {
        self.newest != NEVER
    }

    /// Takes what its clock says; whether it says something for the first time.
    pub fn claim(&mut self, distance: i64) -> bool {
        let fresh = self.distance == NEVER;
        self.distance = distance.max(NEVER + 1);
        fresh
    }

    /// How far its clock is from steady time.
    pub fn claimed(&self) -> Option<i64> {
        (self.distance != NEVER).then_some(self.distance)
    }

    /// After enough silence nothing is waited for behind what came.
    pub fn fall_idle(&mut self, steady: i64, settings: &TimeSettings) {
        if steady.saturating_sub(self.heard) >= settings.idle_timeout_us {
            self.watermark = self.watermark.max(self.newest);
        }
    }

    /// Where its time would be by now; `None` when nothing is known of it.
    pub fn time_by_now(&self, steady: i64) -> Option<i64> {
        let passed = steady.saturating_sub(self.newest_at).max(0);
        self.is_heard().then(|| self.newest.saturating_add(passed))
    }

    /// Takes whether a time is believed, which is its own or given to it.
    pub fn doubt(&mut self, distance: i64, is_own: bool, doubted: bool) {
        // What has no time of its own says nothing of its device's clock.
        if is_own || !self.doubts_own {
            let distance = distance.max(NEVER + 1);
            self.doubted = if doubted { distance } else { NEVER };
            self.doubts_own = is_own && doubted;
        }
    }

    /// How far its clock is from steady time, where that is not believed.
    pub fn doubted(&self) -> Option<i64> {
        (self.doubted != NEVER).then_some(self.doubted)
    }

    /// A reading was on time.
    pub fn on_time(&mut self) {
        self.late_since = NEVER;
        self.late_from = NEVER;
        self.astray = false;
    }

    /// Takes a late reading; whether its device's clock was set back: nothing was on time for long,
    /// and the late times go on as fast as time does. A backlog comes faster.
    pub fn is_set_back(&mut self, time: i64, steady: i64) -> bool {
        if self.late_since == NEVER {
            self.late_since = steady;
            self.late_from = time;
            return false;
        }
        let passed = steady.saturating_sub(self.late_since);
        let told = time.saturating_sub(self.late_from);
        let live = told >= passed / 2 && told <= passed.saturating_mul(2);
        self.astray = passed >= CLOCK_BACK_AFTER_US && live;
        if passed >= CLOCK_BACK_AFTER_US && !live {
            // Looked at anew from here on.
            self.late_since = steady;
            self.late_from = time;
        }
        self.astray
    }

    /// Moves on with a reading.
    pub fn take(&mut self, time: i64, late: bool, steady: i64, settings: &TimeSettings) {
        self.heard = steady;
        if late {
            return;
        }
        if time >= self.newest {
            self.newest = time;
            self.newest_at = steady;
        }
        let behind = self.newest.saturating_sub(settings.allowed_lateness_us);
        self.watermark = self.watermark.max(behind);
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            watermark: self.watermark,
            newest: self.newest,
            newest_at: self.newest_at,
            heard: self.heard,
        }
    }
}
