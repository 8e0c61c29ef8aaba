//! How long a sink that failed is left alone. Pure: it is told the random number.

use crate::limits::{SINK_RETRY_MS_MAX, SINK_RETRY_MS_MIN};

/// Tries behind which pauses do not grow.
const TRIES_MAX: u32 = 30;

/// Tries that failed one behind another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// A try failed: milliseconds until the next. Between half of a step and all of it, each step
    /// twice the one before, so that sinks of several aggregators do not come back together.
    pub fn failed(&mut self, random: u64) -> u64 {
        let step = SINK_RETRY_MS_MIN.saturating_mul(1 << self.tries);
        let step = step.min(SINK_RETRY_MS_MAX);
        self.tries = self.tries.saturating_add(1).min(TRIES_MAX);
        step / 2 + random % (step / 2 + 1)
    }

    /// A try that only somebody at the target can help.
    pub fn stuck(&mut self, random: u64) -> u64 {
        self.tries = TRIES_MAX;
        self.failed(random)
    }

    /// A try went well.
    pub fn succeeded(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pauses_grow_and_are_bounded(randoms in proptest::collection::vec(any::<u64>(), 1..80)) {
            let mut backoff = Backoff::default();
            let mut step = SINK_RETRY_MS_MIN;
            for random in randoms {
                let pause = backoff.failed(random);
                prop_assert!((step / 2..=step).contains(&pause), "{pause} of {step}");
                step = (2 * step).min(SINK_RETRY_MS_MAX);
            }
        }
    }
}
