//! `[detect]`: how patient event time is.

use crate::limits::{FUTURE_SKEW_S, IDLE_TIMEOUT_MS, LATENESS_MS};
use tributary_settings::Section;

/// How patient event time is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeSettings {
    /// How far a device's watermark stays behind its newest reading.
    pub allowed_lateness_us: i64,
    /// Silence after which a device's watermark no longer stays behind, and its windows close
    /// without it.
    pub idle_timeout_us: i64,
    /// How far a time may be ahead before it is not believed.
    pub future_skew_max_us: i64,
}

impl Default for TimeSettings {
    fn default() -> Self {
        Self::of(LATENESS_MS.1, IDLE_TIMEOUT_MS.1, FUTURE_SKEW_S.1)
    }
}

impl TimeSettings {
    fn of(lateness_ms: u64, idle_ms: u64, skew_s: u64) -> Self {
        let us = |count: u64, us: i64| i64::try_from(count).unwrap_or(i64::MAX).saturating_mul(us);
        Self {
            allowed_lateness_us: us(lateness_ms, 1_000),
            idle_timeout_us: us(idle_ms, 1_000),
            future_skew_max_us: us(skew_s, 1_000_000),
        }
    }

    /// Reads `[detect]`; what is wrong is reported there.
    pub fn read(section: &mut Section) -> Self {
        let mut within = |name: &'static str, (least, default, most): (u64, u64, u64)| {
            section.within(name, (least, most), default)
        };
        Self::of(
            within("allowed_lateness_ms", LATENESS_MS),
            within("idle_timeout_ms", IDLE_TIMEOUT_MS),
            within("future_skew_max_s", FUTURE_SKEW_S),
        )
    }

    /// The settings as lines below `[detect]`.
    pub fn text(&self) -> String {
        format!(
            "allowed_lateness_ms = {}\nidle_timeout_ms = {}\nfuture_skew_max_s = {}\n",
            self.allowed_lateness_us / 1_000,
            self.idle_timeout_us / 1_000,
            self.future_skew_max_us / 1_000_000,
        )
    }
}
