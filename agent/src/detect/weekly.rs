//! What is usual at this time of the week: a mean for every two hours, and what a value has beside
//! it. The clock is UTC's, and must be trusted by whoever asks.

use bytes::{Buf, BufMut};

/// Two-hour buckets of a week.
const BUCKETS: usize = 84;
const WEEK_S: f64 = 7.0 * 86_400.0;
/// 2010-01-04T00:00:00Z, a Monday: weeks begin there.
const MONDAY_US: i64 = 1_262_563_200_000_000;
/// The least weight of a new value.
const WEIGHT_MIN: f64 = 0.2;

/// Visits of a bucket that are counted: its mean moves by a fifth before.
const VISITS_MAX: u64 = 7;
/// Bits of the visits of a bucket.
const BITS: usize = 3;
/// Buckets whose visits stand in one word.
const A_WORD: usize = 21;
/// The lowest bit of each of them.
const LOWEST: u64 = 0o111_111_111_111_111_111_111;

/// The means of a series: 368 bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Weekly {
    means: [f32; BUCKETS],
    /// Visits, 21 buckets a word.
    visits: [u64; BUCKETS / A_WORD],
}

impl Default for Weekly {
    fn default() -> Self {
        Self {
            means: [0.0; BUCKETS],
            visits: [0; BUCKETS / A_WORD],
        }
    }
}

impl Weekly {
    /// What `value` has beyond the mean of its time, before it becomes part of it.
    pub fn residual(&mut self, time_us: i64, value: f64) -> f64 {
        self.residual_at(bucket(time_us), value)
    }

    /// The same of a time in this bucket.
    pub(super) fn residual_at(&mut self, bucket: usize, value: f64) -> f64 {
        let word = self.visits.get_mut(bucket / A_WORD);
        let (Some(mean), Some(word)) = (self.means.get_mut(bucket), word) else {
            return 0.0;
        };
        let shift = BITS * (bucket % A_WORD);
        let visits = (*word >> shift) & VISITS_MAX;
        if visits == 0 {
            *mean = value as f32;
        }
        let residual = value - f64::from(*mean);
        let weight = WEIGHT_MIN.max(1.0 / (visits as f64 + 1.0));
        *mean += (weight * residual) as f32;
        if visits < VISITS_MAX {
            *word += 1 << shift;
        }
        residual
    }

    /// Whether this bucket was visited.
    pub(super) fn knows(&self, bucket: usize) -> bool {
        let word = self.visits.get(bucket / A_WORD);
        word.is_some_and(|word| (word >> (BITS * (bucket % A_WORD))) & VISITS_MAX > 0)
    }

    /// How many of its buckets were visited, of 84.
    pub fn known(&self) -> u32 {
        let known = |word: &u64| ((word | word >> 1 | word >> 2) & LOWEST).count_ones();
        self.visits.iter().map(known).sum()
    }
}

impl Weekly {
    /// Appends its bytes, as in a checkpoint: the means (4 bytes each), then the visits (8 bytes
    /// a word).
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        self.means.iter().for_each(|mean| out.put_f32_le(*mean));
        self.visits.iter().for_each(|word| out.put_u64_le(*word));
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        let mut weekly = Self::default();
        for mean in &mut weekly.means {
            *mean = input.try_get_f32_le().ok()?;
        }
        for word in &mut weekly.visits {
            *word = input.try_get_u64_le().ok()?;
        }
        Some(weekly)
    }
}

/// The bucket of a time, of 84.
pub(super) fn bucket(time_us: i64) -> usize {
    let seconds = time_us.saturating_sub(MONDAY_US) as f64 / 1e6;
    let part = seconds.rem_euclid(WEEK_S) / WEEK_S;
    ((part * BUCKETS as f64) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_has_its_buckets_and_begins_on_monday() {
        const HOUR: i64 = 3_600_000_000;
        assert_eq!(size_of::<Weekly>(), 368);
        assert_eq!(bucket(MONDAY_US), 0);
        assert_eq!(bucket(MONDAY_US - 1), BUCKETS - 1);
        assert_eq!(bucket(MONDAY_US + 2 * HOUR), 1);
        assert_eq!(bucket(MONDAY_US + 7 * 24 * HOUR), 0);
        assert!(bucket(i64::MIN) < BUCKETS && bucket(i64::MAX) < BUCKETS);
    }

    #[test]
    fn a_bucket_is_known_from_its_first_visit_and_no_other_by_it() {
        let mut weekly = Weekly::default();
        for known in 1..=BUCKETS as u32 {
            // In the middle of its two hours.
            let time_us = MONDAY_US + i64::from(2 * known - 1) * 3_600_000_000;
            for visit in 0..20 {
                weekly.residual(time_us, f64::from(visit));
                assert_eq!(weekly.known(), known, "visit {visit}");
            }
            let bucket = bucket(time_us);
            assert!(weekly.knows(bucket) && !weekly.knows(bucket + 1));
        }
        weekly.residual(MONDAY_US, 0.0);
        assert_eq!(weekly.known(), BUCKETS as u32);
    }

    #[test]
    fn the_mean_follows_and_the_first_value_is_it() {
        let mut weekly = Weekly::default();
        assert_eq!(weekly.residual(0, 10.0), 0.0);
        assert_eq!(weekly.residual(0, 12.0), 2.0);
        assert_eq!(weekly.residual(0, 11.0), 0.0, "half of two");
        assert_eq!(weekly.residual(MONDAY_US, 50.0), 0.0, "another time");
    }
}
