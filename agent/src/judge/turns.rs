//! How often series may give way to others: each time costs a row that is written, and one that is
//! read where the other is known. Series that report in turn, somewhat more of them than may be
//! watched, would have each reading cost that. So there are so many turns a second; whoever finds
//! none takes nobody's place, which lets those behind it find theirs again. Told the time that has
//! passed by the log: steady time, µs.

use crate::limits::{SERIES_TURNS_BURST, SERIES_TURNS_PER_SECOND};
use bytes::{Buf, BufMut};

/// What one costs.
const TURN: u64 = 1_000_000;
const FULL: u64 = SERIES_TURNS_BURST * TURN;

/// Turns that are left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Turns {
    left: u64,
    at: i64,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            left: FULL,
            at: i64::MIN,
        }
    }
}

impl Turns {
    /// Takes one; whether there was one.
    pub fn take(&mut self, now: i64) -> bool {
        let elapsed = now.saturating_sub(self.at).max(0) as u64;
        self.at = now;
        let more = elapsed.saturating_mul(SERIES_TURNS_PER_SECOND);
        self.left = self.left.saturating_add(more).min(FULL);
        let has = self.left >= TURN;
        if has {
            self.left -= TURN;
        }
        has
    }

    /// Appends its bytes, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.left);
        out.put_i64_le(self.at);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let left = input.try_get_u64_le().ok()?.min(FULL);
        let at = input.try_get_i64_le().ok()?;
        Some(Self { left, at })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_burst_and_then_so_many_a_second() {
        let mut turns = Turns::default();
        let taken = |turns: &mut Turns, now| {
            let tries = 0..2 * SERIES_TURNS_BURST;
            tries.filter(|_| turns.take(now)).count() as u64
        };
        assert_eq!(taken(&mut turns, 0), SERIES_TURNS_BURST);
        assert_eq!(taken(&mut turns, 1_000_000), SERIES_TURNS_PER_SECOND);
        assert_eq!(taken(&mut turns, 1_500_000), SERIES_TURNS_PER_SECOND / 2);
        assert!(!turns.take(1_000_000), "a time that goes back gives none");
        let mut bytes = Vec::new();
        turns.write(&mut bytes);
        assert_eq!(Turns::read(&mut bytes.as_slice()), Some(turns.clone()));
        assert_eq!(taken(&mut turns, i64::MAX), SERIES_TURNS_BURST);
    }
}
