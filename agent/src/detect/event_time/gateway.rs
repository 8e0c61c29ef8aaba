//! The gateway's own clock, as its log tells it: whether it is trusted, and a steady time without
//! its jumps.

use super::TimeSettings;

/// What a record of the log says of the gateway's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// When the record was received: µs since 1970, UTC.
    pub received_time: i64,
    /// Whether the kernel calls the clock synchronised, or did in this boot.
    pub synchronised: bool,
    /// The greatest received time in the log that came of a synchronised clock; 0 without one.
    pub greatest_time: i64,
}

/// What a record changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stepped {
    /// The clock went back.
    pub back: bool,
    /// It began or ceased to be trusted.
    pub trust_changed: bool,
}

/// The gateway's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct GatewayClock {
    /// The received time of the last record; `None` before the first one.
    pub received: Option<i64>,
    /// Received time without jumps: µs from the first record on.
    pub steady: i64,
    /// Whether the clock is trusted.
    pub trusted: bool,
    /// What time it is taken to be. Never before the greatest time in the log.
    pub now: i64,
}

impl GatewayClock {
    /// Takes a record.
    pub fn at(&mut self, told: &Gateway) -> Stepped {
        let trusted = told.synchronised && told.received_time >= told.greatest_time;
        let last = self.received.unwrap_or(told.received_time);
        let trust_changed = self.received.is_some() && trusted != self.trusted;
        // Where trust begins or ends, the clock was set: nothing is known of what passed.
        let passed = if trust_changed {
            0
        } else {
            told.received_time.saturating_sub(last).max(0)
        };
        self.steady = self.steady.saturating_add(passed);
        self.now = if trusted {
            told.received_time
        } else {
            let on = self.now.saturating_add(passed);
            on.max(told.received_time).max(told.greatest_time)
        };
        self.trusted = trusted;
        self.received = Some(told.received_time);
        Stepped {
            back: told.received_time < last,
            trust_changed,
        }
    }

    /// From which time on a device is too far ahead of a trusted clock.
    pub fn ahead_from(&self, settings: &TimeSettings) -> i64 {
        self.now.saturating_add(settings.future_skew_max_us)
    }

    /// The received time at which it will be this steady time.
    pub fn received_at(&self, steady: i64) -> i64 {
        let ahead = steady.saturating_sub(self.steady);
        self.received.unwrap_or(0).saturating_add(ahead)
    }
}
