//! How the sealing stage waits while the disk takes nothing, and when it gives up: that is for
//! whoever runs it to say.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Waits for the stage.
pub trait Pause: Send + Sync + Debug {
    /// Waits about so long. `false` when it is time to stop instead: what the disk did not take
    /// stays in the write-ahead log.
    fn pause(&self, wait: Duration) -> bool;
}

/// Waits on the stage's own thread, until it is told to [give up](Self::give_up).
#[derive(Debug, Default)]
pub struct Sleep(AtomicBool);

impl Sleep {
    /// From now on a disk that takes nothing ends the stage.
    pub fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Pause for Sleep {
    fn pause(&self, wait: Duration) -> bool {
        let goes_on = !self.0.load(Ordering::Relaxed);
        if goes_on {
            std::thread::sleep(wait);
        }
        goes_on
    }
}

/// Waits for no disk.
#[derive(Clone, Copy, Debug)]
pub struct Never;

impl Pause for Never {
    fn pause(&self, _: Duration) -> bool {
        false
    }
}
