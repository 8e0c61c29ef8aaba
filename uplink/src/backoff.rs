//! How long to wait before the next try: full jitter, doubling up to a bound. Told how often it
//! failed and given its randomness; owns no clock.

use crate::limits::{BACKOFF_MAX, BACKOFF_MIN};
use std::time::Duration;

/// A wait drawn evenly from zero to the bound that `failures` in a row allow. `random` is any
/// 64 bits; ten thousand agents with different ones do not come back at once.
pub(crate) fn wait(failures: u32, random: u64) -> Duration {
    let bound = BACKOFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX);
    let share = (random >> 11) as f64 / (1u64 << 53) as f64;
    bound.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_no_further() {
        assert_eq!(wait(0, 0), Duration::ZERO);
        assert!(wait(0, u64::MAX) <= BACKOFF_MIN);
        assert!(wait(3, u64::MAX) > BACKOFF_MIN * 7);
        assert!(wait(u32::MAX, u64::MAX) <= BACKOFF_MAX);
    }
}
