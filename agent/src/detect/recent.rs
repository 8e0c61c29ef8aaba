//! The recent mean and deviation of a series, and how far a value is from them.

use bytes::{Buf, BufMut};

/// The weight of a new value.
const WEIGHT: f64 = 0.002;

/// An exponentially weighted mean and variance: 24 bytes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Recent {
    mean: f64,
    variance: f64,
    /// Values, saturating.
    count: u32,
}

impl Recent {
    /// Takes a value; how many deviations it was from the mean before it.
    pub fn step(&mut self, value: f64) -> f64 {
        self.count = self.count.saturating_add(1);
        follow(&mut self.mean, &mut self.variance, self.count, value)
    }
}

/// Moves a mean and a variance towards their `count`th value; how many deviations it was from the
/// mean before it.
pub(super) fn follow(mean: &mut f64, variance: &mut f64, count: u32, value: f64) -> f64 {
    if count == 1 {
        *mean = value;
        return 0.0;
    }
    let distance = value - *mean;
    let deviation = variance.sqrt();
    let weight = weight(count);
    *mean += weight * distance;
    *variance = (1.0 - weight) * (*variance + weight * distance * distance);
    if deviation > 0.0 {
        distance / deviation
    } else if distance == 0.0 {
        0.0
    } else {
        f64::INFINITY.copysign(distance)
    }
}

/// The weight of the `count`th value: while there are few, each counts the same.
pub(super) fn weight(count: u32) -> f64 {
    WEIGHT.max(1.0 / f64::from(count))
}

impl Recent {
    /// Appends its bytes, as in a checkpoint: mean, variance (8 bytes each), count (4).
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_f64_le(self.mean);
        out.put_f64_le(self.variance);
        out.put_u32_le(self.count);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            mean: input.try_get_f64_le().ok()?,
            variance: input.try_get_f64_le().ok()?,
            count: input.try_get_u32_le().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_is_in_deviations() {
        assert_eq!(size_of::<Recent>(), 24);
        let mut recent = Recent::default();
        for i in 0..20_000 {
            recent.step(f64::from(i % 2) * 2.0);
        }
        // Zeros and twos: mean and deviation 1.
        let far = recent.step(6.0);
        assert!((far - 5.0).abs() < 0.02, "{far}");
    }
}
