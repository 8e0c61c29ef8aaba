//! How often series may give way to others: each time costs a row that is written, and one that is
//! read where the other is known. Series that report in turn, somewhat more of them than may be
//! watched, would have each reading cost that. So there are so many turns a second; whoever finds
//! none takes nobody's place, which lets those behind it find theirs again. A device that gives way
//! to itself has turns of another kind, half as many: however many names it makes up, those of the
//! others are left. Told the time that has passed by the log: steady time, µs.

use crate::limits::{SERIES_TURNS_BURST, SERIES_TURNS_PER_SECOND};
use bytes::{Buf, BufMut};

/// What one costs.
const TURN: u64 = 1_000_000;
/// What one costs where a device gives way to itself.
const OWN_TURN: u64 = 2 * TURN;
const FULL: u64 = SERIES_TURNS_BURST * TURN;

/// Turns that are left.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Turns {
    others: Bucket,
    own: Bucket,
}

impl Turns {
    /// Takes one; whether there was one. `is_own`: of a device that gives way to itself.
    pub fn take(&mut self, now: i64, is_own: bool) -> bool {
        match is_own {
            true => self.own.take(now, OWN_TURN),
            false => self.others.take(now, TURN),
        }
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.others.write(out);
        self.own.write(out);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            others: Bucket::read(input)?,
            own: Bucket::read(input)?,
        })
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Bucket {
    left: u64,
    at: i64,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            left: FULL,
            at: i64::MIN,
        }
    }
}

impl Bucket {
    fn take(&mut self, now: i64, cost: u64) -> bool {
        let elapsed = now.saturating_sub(self.at).max(0) as u64;
        self.at = self.at.max(now);
        let more = elapsed.saturating_mul(SERIES_TURNS_PER_SECOND);
        self.left = self.left.saturating_add(more).min(FULL);
        let has = self.left >= cost;
        if has {
            self.left -= cost;
        }
        has
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.left);
        out.put_i64_le(self.at);
    }

    fn read(input: &mut &[u8]) -> Option<Self> {
        let left = input.try_get_u64_le().ok()?.min(FULL);
        let at = input.try_get_i64_le().ok()?;
        Some(Self { left, at })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn taken(turns: &mut Turns, now: i64, is_own: bool) -> u64 {
        let tries = 0..2 * SERIES_TURNS_BURST;
        tries.filter(|_| turns.take(now, is_own)).count() as u64
    }

    #[test]
    fn there_is_a_burst_and_then_so_many_a_second() {
        let mut turns = Turns::default();
        assert_eq!(taken(&mut turns, 0, false), SERIES_TURNS_BURST);
        let second = taken(&mut turns, 1_000_000, false);
        assert_eq!(second, SERIES_TURNS_PER_SECOND);
        let half = taken(&mut turns, 1_500_000, false);
        assert_eq!(half, SERIES_TURNS_PER_SECOND / 2);
        let mut bytes = Vec::new();
        turns.write(&mut bytes);
        assert_eq!(Turns::read(&mut bytes.as_slice()), Some(turns.clone()));
        assert_eq!(taken(&mut turns, i64::MAX, false), SERIES_TURNS_BURST);
    }

    #[test]
    fn a_time_that_goes_back_gives_none_and_none_is_given_twice() {
        let mut turns = Turns::default();
        assert_eq!(taken(&mut turns, 1_500_000, false), SERIES_TURNS_BURST);
        assert!(!turns.take(1_000_000, false));
        assert!(!turns.take(1_500_000, false));
    }

    #[test]
    fn one_that_gives_way_to_itself_has_half_as_many_and_leaves_the_others_theirs() {
        let mut turns = Turns::default();
        assert_eq!(taken(&mut turns, 0, true), SERIES_TURNS_BURST / 2);
        let mut bytes = Vec::new();
        turns.write(&mut bytes);
        assert_eq!(Turns::read(&mut bytes.as_slice()), Some(turns.clone()));
        let second = taken(&mut turns, 1_000_000, true);
        assert_eq!(second, SERIES_TURNS_PER_SECOND / 2);
        assert_eq!(taken(&mut turns, 1_000_000, false), SERIES_TURNS_BURST);
    }
}
