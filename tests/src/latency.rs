//! How long an alert takes, from the socket of the client that publishes to that of one that
//! subscribes: a load of readings with planted spikes, a subscriber in the same process, and what
//! becomes of each spike. The programs are real and run on the same processors.

pub mod cases;
pub mod cpu;
pub mod device;
pub mod figures;
pub mod load;
pub mod restarts;
pub mod subscriber;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970, UTC, that never go back: one wall clock reading, and a steady clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    begun: Instant,
    wall_us: i64,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            begun: Instant::now(),
            wall_us: micros(wall.expect("it is later than 1970")),
        }
    }

    /// The time.
    pub fn now(&self) -> i64 {
        self.wall_us + micros(self.begun.elapsed())
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).expect("times of this century")
}
