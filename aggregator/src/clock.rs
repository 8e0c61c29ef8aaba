//! Time, for the shells alone: whatever decides is told it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Microseconds since 1970, UTC, by the system's clock.
pub fn wall_us() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// The time, as a shell tells it to whoever decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Now {
    /// Microseconds on a clock that never goes back. Whatever waits, waits for this one.
    pub at: i64,
    /// Microseconds since 1970, UTC, by the system's clock, which may jump: for people and
    /// certificates.
    pub wall_us: i64,
}

/// A clock that begins at 0, counts microseconds and never goes back.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since it began.
    pub fn now(self) -> i64 {
        i64::try_from(self.0.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Both clocks.
    pub fn told(self) -> Now {
        Now {
            at: self.now(),
            wall_us: wall_us(),
        }
    }

    /// Waits for this time.
    pub async fn sleep_until(self, at: i64) {
        let at = Duration::from_micros(u64::try_from(at).unwrap_or(0));
        tokio::time::sleep_until(self.0 + at).await;
    }
}
