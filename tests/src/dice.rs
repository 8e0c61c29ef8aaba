//! Random numbers from a seed: the same seed, the same run of numbers. Not for secrets.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// A run of numbers; `SEED` in the environment replaces `seed`.
    pub fn new(seed: u64) -> Self {
        let asked = std::env::var("SEED").ok();
        let asked = asked.map(|text| text.parse().expect("SEED is a number"));
        Self(asked.unwrap_or(seed))
    }

    /// The same, whatever the environment says: for what must be the same twice in one run.
    pub fn unasked(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.bits() % bound
    }

    /// Puts `items` into another order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let place = self.below(last as u64 + 1) as usize;
            items.swap(last, place);
        }
    }
}
