//! A sensor that is stuck: one value again and again, much longer than this series ever did.

use bytes::{Buf, BufMut};

/// Changes of value that must have been seen.
const CHANGES_MIN: u8 = 50;
/// Repeats below which nothing is stuck.
const RUN_MIN: f64 = 20.0;
/// How much longer than the longest run so far.
const TIMES_LONGER: f64 = 4.0;
/// By how much the longest run shrinks with each reading.
const SHRINK: f64 = 1.0 - 1.0 / 50_000.0;

/// The runs of a series: 24 bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Stuck {
    /// The value before; NaN before the first one.
    before: f64,
    /// The longest run so far, shrinking.
    longest: f64,
    /// Repeats of the value before.
    run: u32,
    /// Changes, saturating.
    changes: u8,
    /// Whether this run was told already.
    told: bool,
}

impl Default for Stuck {
    fn default() -> Self {
        Self {
            before: f64::NAN,
            longest: 0.0,
            run: 0,
            changes: 0,
            told: false,
        }
    }
}

impl Stuck {
    /// The value before; NaN before the first one.
    pub fn before(&self) -> f64 {
        self.before
    }

    /// Takes a value that is a number; `true` once in a run that is too long.
    pub fn step(&mut self, value: f64) -> bool {
        if value == self.before {
            self.run = self.run.saturating_add(1);
        } else {
            self.changes = self.changes.saturating_add(u8::from(!self.before.is_nan()));
            self.longest = self.longest.max(f64::from(self.run));
            (self.run, self.told) = (0, false);
        }
        self.longest *= SHRINK;
        self.before = value;
        let too_long = f64::from(self.run) >= RUN_MIN.max(TIMES_LONGER * self.longest);
        let is_news = too_long && !self.told && self.changes >= CHANGES_MIN;
        self.told |= is_news;
        is_news
    }
}

impl Stuck {
    /// Appends its bytes, as in a checkpoint: before, longest (8 bytes each), run (4), changes,
    /// told (1 each).
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_f64_le(self.before);
        out.put_f64_le(self.longest);
        out.put_u32_le(self.run);
        out.put_slice(&[self.changes, u8::from(self.told)]);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            before: input.try_get_f64_le().ok()?,
            longest: input.try_get_f64_le().ok()?,
            run: input.try_get_u32_le().ok()?,
            changes: input.try_get_u8().ok()?,
            told: input.try_get_u8().ok()? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_told_once_and_only_if_it_is_much_longer_than_any_before() {
        assert_eq!(size_of::<Stuck>(), 24);
        let mut stuck = Stuck::default();
        for i in 0..60 {
            for _ in 0..=9 {
                assert!(!stuck.step(f64::from(i)), "runs of nine repeats are usual");
            }
        }
        let told: Vec<u32> = (0..200).filter(|_| stuck.step(-1.0)).collect();
        // The first of them changes the value; 36 repeats less what nine shrank by.
        assert_eq!(told, [36]);
        assert!(!stuck.step(7.0));
        assert_eq!(
            (0..200).filter(|_| stuck.step(7.0)).count(),
            0,
            "200 are usual now"
        );
    }

    #[test]
    fn a_series_that_never_changes_is_not_stuck() {
        let mut stuck = Stuck::default();
        assert!((0..10_000).all(|_| !stuck.step(1.0)));
    }
}
