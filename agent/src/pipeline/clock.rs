//! The clocks of this machine, read in one place.

use crate::seal::Now;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clocks.
pub(super) struct Clock(Instant);

impl Clock {
    pub fn new() -> Self {
        Self(Instant::now())
    }

    pub fn now(&self) -> Now {
        Now {
            monotonic: i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX),
            wall: i64::try_from(wall().as_micros()).unwrap_or(i64::MAX),
        }
    }
}

fn wall() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
