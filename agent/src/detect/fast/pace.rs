//! How fast a series reports, by the times of its readings alone.

use crate::limits::{FAST_BELOW_US, PACE_CHANGE_US, PACE_GAP_MAX_US, PACE_GAPS, SLOW_ABOVE_US};
use bytes::{Buf, BufMut};

/// The share of a new gap in the smoothed one is one in so many.
const SMOOTH: i64 = 16;

/// What is known of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// So many gaps were seen, which is too few.
    Learning(u8),
    /// About once a second, or slower.
    Slow,
    /// Faster.
    Fast,
    /// What windows of another series say, which is no reading.
    Derived,
}

/// How fast a series reports: 12 bytes. The first ten gaps say it, and a change holds once it was
/// so for 30 seconds of the series' own time: jitter and a burst after a pause change nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// The smoothed gap: µs.
    gap: u32,
    /// For how long it has been that of another pace: µs.
    across: u32,
    state: State,
    /// Whether what judges the series was last told windows of it.
    on_windows: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            gap: 0,
            across: 0,
            state: State::Learning(0),
            on_windows: false,
        }
    }
}

impl Pace {
    /// Of a series that windows of another one say.
    pub fn derived() -> Self {
        Self {
            state: State::Derived,
            ..Self::default()
        }
    }

    /// Whether the series is what windows of another one say.
    pub fn is_derived(&self) -> bool {
        self.state == State::Derived
    }

    /// Whether it is faster than once a second.
    pub fn is_fast(&self) -> bool {
        self.state == State::Fast
    }

    /// Whether what judges the series was last told windows of it, not readings.
    pub fn is_on_windows(&self) -> bool {
        self.on_windows
    }

    /// What judges the series is told windows of it from here on, or readings.
    pub fn set_on_windows(&mut self, is: bool) {
        self.on_windows = is;
    }

    /// Takes a reading, `gap` microseconds after the newest one before it: 0 when it is older.
    pub fn step(&mut self, gap: i64) {
        let gap = gap.clamp(0, PACE_GAP_MAX_US);
        let seen = match self.state {
            State::Learning(seen) => i64::from(seen) + 1,
            State::Slow | State::Fast => SMOOTH,
            State::Derived => return,
        };
        let smoothed = i64::from(self.gap);
        // Between the two, both of which fit.
        self.gap = (smoothed + (gap - smoothed) / seen) as u32;
        let is = i64::from(self.gap);
        let other = match self.state {
            State::Learning(seen) if seen + 1 < PACE_GAPS => {
                self.state = State::Learning(seen + 1);
                return;
            }
            State::Learning(_) if is < FAST_BELOW_US => State::Fast,
            State::Learning(_) => State::Slow,
            State::Slow if is < FAST_BELOW_US => State::Fast,
            State::Fast if is > SLOW_ABOVE_US => State::Slow,
            _ => {
                self.across = 0;
                return;
            }
        };
        self.across = self.across.saturating_add(gap as u32);
        let first = matches!(self.state, State::Learning(_));
        if first || i64::from(self.across) >= PACE_CHANGE_US {
            self.across = 0;
            self.state = other;
        }
    }

    /// Appends its bytes, as in a checkpoint: smoothed gap, time across (4 bytes each), state (1):
    /// gaps seen, or 253 slow, 254 fast, 255 derived; then whether it is on windows (1).
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.gap);
        out.put_u32_le(self.across);
        out.put_u8(match self.state {
            State::Learning(seen) => seen,
            State::Slow => 253,
            State::Fast => 254,
            State::Derived => 255,
        });
        out.put_u8(u8::from(self.on_windows));
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let gap = input.try_get_u32_le().ok()?;
        let across = input.try_get_u32_le().ok()?;
        let state = match input.try_get_u8().ok()? {
            seen if seen < PACE_GAPS => State::Learning(seen),
            253 => State::Slow,
            254 => State::Fast,
            255 => State::Derived,
            _ => return None,
        };
        let on_windows = input.try_get_u8().ok()? != 0;
        (i64::from(gap) <= PACE_GAP_MAX_US).then_some(Self {
            gap,
            across,
            state,
            on_windows,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(gaps: impl IntoIterator<Item = i64>) -> Pace {
        let mut pace = Pace::default();
        gaps.into_iter().for_each(|gap| pace.step(gap));
        pace
    }

    #[test]
    fn it_is_known_after_ten_gaps() {
        assert_eq!(size_of::<Pace>(), 12);
        assert!(!of([100_000; 9]).is_fast());
        assert!(of([100_000; 10]).is_fast());
        assert!(!of([1_000_000; 10]).is_fast());
        assert!(!of([760_000; 10]).is_fast());
        assert!(of([740_000; 10]).is_fast());
        // What brings ten readings of one time at once is fast as well.
        assert!(of([vec![4_000_000], vec![0; 9]].concat()).is_fast());
    }

    #[test]
    fn a_pause_or_a_burst_changes_nothing_and_another_pace_does_after_half_a_minute() {
        let mut pace = of([100_000; 50]);
        for _ in 0..20 {
            pace.step(3_600_000_000);
            (0..20).for_each(|_| pace.step(100_000));
            assert!(pace.is_fast());
        }
        (0..33).for_each(|_| pace.step(1_100_000));
        assert!(pace.is_fast());
        (0..30).for_each(|_| pace.step(1_100_000));
        assert!(!pace.is_fast());
        // A backlog without times of its own comes all at once.
        (0..10_000).for_each(|_| pace.step(100));
        (0..100).for_each(|_| pace.step(1_000_000));
        assert!(!pace.is_fast());
        (0..320).for_each(|_| pace.step(100_000));
        assert!(pace.is_fast());
    }

    #[test]
    fn whatever_once_was_fast_is_slow_at_one_hertz() {
        let backlog = vec![10_000; 3_000];
        for before in [vec![100_000; 10], backlog, vec![100_000; 100_000]] {
            let mut pace = of(before);
            assert!(pace.is_fast());
            (0..80).for_each(|_| pace.step(1_000_000));
            assert!(!pace.is_fast());
        }
    }

    proptest! {
        #[test]
        fn one_hertz_with_jitter_is_never_fast(
            jitter in proptest::collection::vec(-400_000_i64..400_000, 600),
        ) {
            let mut pace = Pace::default();
            let mut newest = 0;
            for (second, jitter) in (1_i64..).zip(jitter) {
                let time = second * 1_000_000 + jitter;
                pace.step(time - newest);
                newest = newest.max(time);
                prop_assert!(!pace.is_fast());
            }
        }

        #[test]
        fn it_reads_what_it_wrote_and_no_bytes_panic(
            gaps in proptest::collection::vec(0_i64..5_000_000, 0..200),
            bytes in proptest::collection::vec(any::<u8>(), 0..13),
        ) {
            let mut pace = of(gaps);
            pace.set_on_windows(pace.is_fast());
            let mut written = Vec::new();
            pace.write(&mut written);
            prop_assert_eq!(Pace::read(&mut written.as_slice()).unwrap(), pace);
            if let Some(mut read) = Pace::read(&mut bytes.as_slice()) {
                read.step(i64::MAX);
                read.step(i64::MIN);
            }
        }
    }
}
