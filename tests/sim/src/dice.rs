//! Random numbers from a seed: one run of them for each purpose and entity, so that what is taken
//! away in one place moves nothing in another. Not for secrets.

/// The constant of SplitMix64 (Steele, Lea, Flood 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A run of random numbers.
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// The finaliser of SplitMix64: every bit of the input reaches every bit of the output.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Dice {
    /// The run of the `n`-th time that `entity` needs some for `purpose`.
    pub fn of(seed: u64, purpose: &str, entity: u64, n: u64) -> Self {
        let start = mix(seed.wrapping_add(GOLDEN));
        let fold = |state: u64, more: u64| mix((state ^ more).wrapping_add(GOLDEN));
        let named = purpose
            .bytes()
            .fold(start, |at, byte| fold(at, u64::from(byte)));
        Self(fold(fold(named, entity), n))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number below `bound`, which is at least one.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound.max(1)
    }

    /// A number of microseconds from `low` up to `high`, which is beyond it.
    pub fn us(&mut self, low: i64, high: i64) -> i64 {
        low + self.below(high.saturating_sub(low).max(1) as u64) as i64
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// The place that is drawn among these weights.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        let place = weights.iter().position(|weight| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        place.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purpose_entity_and_time_has_its_own_run() {
        let first = |seed, purpose, entity, n| Dice::of(seed, purpose, entity, n).bits();
        let all = [
            first(1, "delay", 0, 0),
            first(2, "delay", 0, 0),
            first(1, "seal", 0, 0),
            first(1, "delay", 1, 0),
            first(1, "delay", 0, 1),
        ];
        let mut different = all.to_vec();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), all.len());
        assert_eq!(all[0], first(1, "delay", 0, 0));
    }

    #[test]
    fn weights_are_kept() {
        let mut dice = Dice::of(7, "test", 0, 0);
        let mut drawn = [0; 3];
        (0..10_000).for_each(|_| drawn[dice.weighted(&[1, 0, 9])] += 1);
        assert_eq!(drawn[1], 0);
        assert!((700..1300).contains(&drawn[0]), "{drawn:?}");
    }
}
