//! When and how to connect again: the wait, and which version of MQTT. Pure; given its randomness.

use super::link::Cause;
use super::{Protocol, Version};
use crate::limits::{BROKER_BACKOFF, BROKER_MALFORMED_MAX};
use std::time::Duration;

/// Waits that double from one failure to the next, up to a bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after another failure: drawn evenly between the least wait and the bound, so that
    /// many agents do not come back at once. `random` is any 64 bits.
    pub(super) fn next_wait(&mut self, random: u64) -> Duration {
        let (least, most) = BROKER_BACKOFF;
        self.failures = self.failures.saturating_add(1);
        let bound = least.saturating_mul(1 << self.failures.min(16)).min(most);
        let share = (random >> 11) as f64 / (1u64 << 53) as f64;
        least + (bound - least).mul_f64(share)
    }

    /// The broker does what it should.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// Which version to speak.
#[derive(Clone, Copy, Debug)]
pub(super) struct Versions {
    wanted: Protocol,
    now: Version,
    /// It was accepted once.
    worked: bool,
    malformed: u32,
}

impl Versions {
    pub(super) fn new(wanted: Protocol) -> Self {
        let now = match wanted {
            Protocol::Auto | Protocol::V5 => Version::V5,
            Protocol::V4 => Version::V4,
        };
        Self {
            wanted,
            now,
            worked: false,
            malformed: 0,
        }
    }

    pub(super) fn now(&self) -> Version {
        self.now
    }

    pub(super) fn connected(&mut self) {
        self.worked = true;
    }

    /// A message came whole.
    pub(super) fn understood(&mut self) {
        self.malformed = 0;
    }

    /// A connection ended, `open` or on the way there. Whether the next one speaks another version.
    ///
    /// A broker that knows no MQTT 5 may answer in the form of 3.1.1, which the client library
    /// waits in vain to make sense of, or close without a word: so an answer that never came
    /// counts as a refusal, as long as this version never worked.
    pub(super) fn broken(&mut self, cause: Cause, open: bool) -> bool {
        if self.wanted != Protocol::Auto {
            return false;
        }
        let other = match cause {
            Cause::Version => true,
            Cause::Closed | Cause::Malformed | Cause::Silent if !open => !self.worked,
            Cause::Malformed => {
                self.malformed += 1;
                self.now == Version::V5 && self.malformed >= BROKER_MALFORMED_MAX
            }
            _ => false,
        };
        if other {
            self.worked = false;
            self.malformed = 0;
            self.now = match self.now {
                Version::V5 => Version::V4,
                Version::V4 => Version::V5,
            };
        }
        other
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_bound_and_begin_anew() {
        let (least, most) = BROKER_BACKOFF;
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_wait(0), least);
        let mut longest = least;
        for _ in 0..100 {
            let wait = backoff.next_wait(u64::MAX);
            assert!(wait >= longest.mul_f64(0.999) && wait <= most, "{wait:?}");
            longest = wait;
        }
        assert!(longest > most.mul_f64(0.999));
        backoff.reset();
        assert!(backoff.next_wait(u64::MAX) <= 2 * least);
    }

    #[test]
    fn version_5_gives_way_only_when_it_is_refused_or_never_answered() {
        let mut auto = Versions::new(Protocol::Auto);
        assert!(!auto.broken(Cause::Unreachable, false));
        assert!(
            !auto.broken(Cause::Refused, false),
            "a wrong password is no version"
        );
        assert_eq!(auto.now(), Version::V5);
        assert!(auto.broken(Cause::Version, false));
        assert_eq!(auto.now(), Version::V4);
        auto.connected();
        for cause in [Cause::Closed, Cause::Silent, Cause::Malformed] {
            assert!(!auto.broken(cause, true), "{cause:?}");
            assert!(!auto.broken(cause, false), "it worked before: {cause:?}");
        }
        assert!(
            auto.broken(Cause::Version, false),
            "the broker was replaced"
        );
        assert!(auto.broken(Cause::Closed, false), "no word is no");
        assert_eq!(auto.now(), Version::V4);
    }

    #[test]
    fn what_cannot_be_read_in_5_is_tried_in_3_1_1_once_it_came_again_and_again() {
        let mut auto = Versions::new(Protocol::Auto);
        for _ in 0..BROKER_MALFORMED_MAX - 1 {
            auto.connected();
            assert!(!auto.broken(Cause::Malformed, true));
        }
        auto.understood();
        for _ in 0..BROKER_MALFORMED_MAX - 1 {
            assert!(!auto.broken(Cause::Malformed, true));
        }
        assert!(auto.broken(Cause::Malformed, true));
        assert_eq!(auto.now(), Version::V4);
    }

    #[test]
    fn a_version_that_was_asked_for_is_kept_to() {
        for (wanted, version) in [(Protocol::V5, Version::V5), (Protocol::V4, Version::V4)] {
            let mut fixed = Versions::new(wanted);
            assert!(!fixed.broken(Cause::Version, false));
            assert_eq!(fixed.now(), version);
        }
    }
}
