//! Asks the kernel, and who keeps its clock, whether the clock is right. What is made of the answer
//! is decided elsewhere.

use crate::judge::KernelClock;
use std::path::Path;

/// What `adjtimex` returns while nobody has synchronised the clock.
const TIME_ERROR: i32 = 5;
/// Stands there once systemd-timesyncd has set the clock in this boot.
const TIMESYNCD: &str = "/run/systemd/timesync/synchronized";
/// Another text with each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is said now.
pub(super) fn ask() -> KernelClock {
    KernelClock {
        synchronised: synchronised(kernel(), Path::new(TIMESYNCD)),
        boot: std::fs::read(BOOT_ID).map_or(0, |id| named(&id)),
    }
}

/// Whether the kernel calls its clock synchronised; `None` where it does not say, as where a
/// container may not ask.
#[cfg(target_os = "linux")]
fn kernel() -> Option<bool> {
    use rtime_clock::adjtime::{Timex, adjtimex};
    // Without modes nothing is adjusted.
    let state = adjtimex(&mut Timex::new()).ok()?;
    Some(state != TIME_ERROR)
}

#[cfg(not(target_os = "linux"))]
fn kernel() -> Option<bool> {
    None
}

/// One of the two is enough: the kernel calls a clock that timesyncd corrects rarely not
/// synchronised after a while.
fn synchronised(kernel: Option<bool>, timesyncd: &Path) -> Option<bool> {
    match timesyncd.exists() {
        true => Some(true),
        false => kernel,
    }
}

fn named(boot: &[u8]) -> u64 {
    let mut name = [0; 8];
    blake3::Hasher::new()
        .update(boot)
        .finalize_xof()
        .fill(&mut name);
    u64::from_le_bytes(name).max(1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn either_is_enough_and_nobody_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("synchronized");
        for kernel in [None, Some(false), Some(true)] {
            assert_eq!(synchronised(kernel, &file), kernel);
        }
        std::fs::write(&file, "").unwrap();
        for kernel in [None, Some(false), Some(true)] {
            assert_eq!(synchronised(kernel, &file), Some(true));
        }
    }

    #[test]
    fn this_kernel_names_its_boot_the_same_each_time() {
        assert_eq!(ask().boot, ask().boot);
        assert_ne!(named(b"a"), named(b"b"));
    }
}
