//! The gateway's own clock, as its log tells it: whether it is trusted, and a steady time without
//! its jumps.

use super::TimeSettings;
use crate::limits::{CLOCK_BELIEVED_AFTER_US, CLOCK_DISORDER_US, CLOCK_STEP_US};

/// What a record of the log says of the gateway's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gateway {
    /// When the record was received: µs since 1970, UTC.
    pub received_time: i64,
    /// Whether the kernel calls the clock synchronised, or did in this boot.
    pub synchronised: bool,
    /// The greatest received time in the log of a clock that was trusted; 0 without one.
    pub greatest_time: i64,
}

/// What a record changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Stepped {
    /// The clock went back.
    pub back: bool,
    /// It was set ahead.
    pub ahead: bool,
    /// It began or ceased to be trusted.
    pub trust_changed: bool,
}

/// The gateway's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct GatewayClock {
    /// The received time of the last record, or of one just before it that was further; `None`
    /// before the first one.
    pub received: Option<i64>,
    /// Received time without jumps: µs from the first record on.
    pub steady: i64,
    /// Whether the clock is trusted.
    pub trusted: bool,
    /// What time it is taken to be. Never before the greatest time in the log.
    pub now: i64,
    /// The steady time since which it is behind the greatest time in the log.
    pub behind_since: Option<i64>,
}

impl GatewayClock {
    /// Takes a record.
    pub fn at(&mut self, told: &Gateway) -> Stepped {
        let last = self.received.unwrap_or(told.received_time);
        let back = last.saturating_sub(told.received_time);
        let received = match back {
            1..=CLOCK_DISORDER_US => last,
            _ => told.received_time,
        };
        let trusted = self.trusts(told, received);
        let stepped = Stepped {
            back: back > CLOCK_DISORDER_US,
            ahead: received.saturating_sub(last) > CLOCK_STEP_US,
            trust_changed: self.received.is_some() && trusted != self.trusted,
        };
        // Where the clock was set, nothing is known of what passed.
        let passed = match stepped.trust_changed || stepped.ahead {
            true => 0,
            false => received.saturating_sub(last).max(0),
        };
        self.steady = self.steady.saturating_add(passed);
        self.now = if trusted {
            received
        } else {
            let on = self.now.saturating_add(passed);
            on.max(received).max(told.greatest_time)
        };
        self.trusted = trusted;
        self.received = Some(received);
        stepped
    }

    /// Whether the clock is trusted. One that is behind the log for long enough is right, and the
    /// log has been where no clock should have been.
    fn trusts(&mut self, told: &Gateway, received: i64) -> bool {
        let behind = told.synchronised && received < told.greatest_time;
        let since = self.behind_since.unwrap_or(self.steady);
        let long = self.steady.saturating_sub(since) >= CLOCK_BELIEVED_AFTER_US;
        self.behind_since = (behind && !long).then_some(since);
        told.synchronised && (!behind || long)
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
