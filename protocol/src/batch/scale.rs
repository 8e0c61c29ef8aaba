//! Between floating-point values and small integers, exactly.
//!
//! Most sensors print decimals or scale raw counts. A [`Scale`] gives the integer behind a value,
//! and a correction in units of the last place where rounding made the value a neighbour of what
//! the integer stands for. Only `k * step / 10^e` and `k * factor` are computed, each correctly
//! rounded by IEEE 754, so that every machine gives the same bits.
//!
//! After P. Afroozeh, L. Kuffó, P. Boncz, "ALP: Adaptive Lossless floating-Point Compression",
//! SIGMOD 2024, with corrections in place of its exceptions.

use crate::reading::ValueType;

/// Greatest exponent of a decimal scale: 10^22 is the last power of ten that is a double.
pub(super) const EXPONENT_MAX: u8 = 22;
/// Greatest step of a decimal scale.
pub(super) const STEP_MAX: u64 = 1 << 32;

const POWERS: [f64; EXPONENT_MAX as usize + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
/// Values are looked at, at most, to find the scale of a run.
const SAMPLE: usize = 48;
/// Units of the last place by which a decimal may be off and still count as one.
const NOISE: u64 = 2;

/// How the values of a run become integers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scale {
    /// The place of the bit pattern in the order of all values of the type; of an integer, itself.
    Raw,
    /// `value = k * step / 10^exponent`.
    Decimal {
        /// At most [`EXPONENT_MAX`].
        exponent: u8,
        /// At least 1, at most [`STEP_MAX`].
        step: u64,
    },
    /// `value = k * factor`, the factor by its bits as a double.
    Factor(u64),
}

/// A bit pattern's place in the order of all values of its type, -0.0 just below 0.0.
#[inline]
pub(super) fn place(value_type: ValueType, bits: u64) -> i64 {
    match value_type {
        ValueType::F64 => {
            let s = bits as i64;
            s ^ (((s >> 63) as u64) >> 1) as i64
        }
        ValueType::F32 => {
            let s = bits as u32 as i32;
            i64::from(s ^ (((s >> 31) as u32) >> 1) as i32)
        }
        _ => bits as i64,
    }
}

/// The inverse of [`place`]; of a single, only the low 32 bits of the place count.
#[inline]
pub(super) fn at_place(value_type: ValueType, place: i64) -> u64 {
    match value_type {
        ValueType::F64 => (place ^ (((place >> 63) as u64) >> 1) as i64) as u64,
        ValueType::F32 => {
            let place = place as i32;
            u64::from((place ^ (((place >> 31) as u32) >> 1) as i32) as u32)
        }
        _ => place as u64,
    }
}

#[inline]
fn power(exponent: u8) -> f64 {
    POWERS.get(usize::from(exponent)).copied().unwrap_or(1.0)
}

#[inline]
fn number(value_type: ValueType, bits: u64) -> f64 {
    match value_type {
        ValueType::F32 => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    }
}

#[inline]
fn place_of(value_type: ValueType, x: f64) -> i64 {
    match value_type {
        ValueType::F32 => place(value_type, u64::from((x as f32).to_bits())),
        _ => place(value_type, x.to_bits()),
    }
}

impl Scale {
    /// The place of the value that `k` stands for.
    #[inline]
    pub fn value(self, value_type: ValueType, k: i64) -> i64 {
        match self {
            Self::Raw => k,
            Self::Decimal { exponent, step } => {
                let whole = k.wrapping_mul(step as i64);
                place_of(value_type, whole as f64 / power(exponent))
            }
            Self::Factor(bits) => place_of(value_type, k as f64 * f64::from_bits(bits)),
        }
    }

    /// The integer nearest to a value, or none that this scale has.
    #[inline]
    pub fn nearest(self, value_type: ValueType, bits: u64) -> Option<i64> {
        match self {
            Self::Raw => Some(place(value_type, bits)),
            Self::Decimal { exponent, step } => {
                let whole = round(number(value_type, bits) * power(exponent))?;
                if step == 1 {
                    Some(whole)
                } else {
                    round(whole as f64 / step as f64)
                }
            }
            Self::Factor(factor) => round(number(value_type, bits) / f64::from_bits(factor)),
        }
    }

    /// How many units of the last place a value is off from the nearest one that this scale has.
    fn off(self, value_type: ValueType, bits: u64) -> u64 {
        let Some(k) = self.nearest(value_type, bits) else {
            return u64::MAX;
        };
        place(value_type, bits)
            .wrapping_sub(self.value(value_type, k))
            .unsigned_abs()
    }
}

/// The integer nearest to `y`, which must be small enough to be exact.
#[inline]
fn round(y: f64) -> Option<i64> {
    /// Added to a double below 2^51, it leaves no bits for a fraction.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    (y.abs() < (1u64 << 51) as f64).then_some(((y + SHIFT) - SHIFT) as i64)
}

/// Finds the scale of a run.
pub(super) fn detect(value_type: ValueType, values: &[u64]) -> Scale {
    let stride = values.len().div_ceil(SAMPLE).max(1);
    let sample = || values.iter().step_by(stride).copied();
    let count = sample().count();
    let exponent_max = if value_type == ValueType::F32 {
        12
    } else {
        EXPONENT_MAX
    };
    let plain = |exponent| Scale::Decimal { exponent, step: 1 };
    let decimal = (0..=exponent_max).find(|exponent| {
        let scale = plain(*exponent);
        let (mut wrong, mut seen) = (0, 0);
        sample().all(|bits| {
            seen += 1;
            wrong += usize::from(!is_decimal(scale, value_type, bits));
            // Most exponents fail at once: three in a row say so.
            wrong * 8 <= count && (wrong < 3 || wrong * 2 < seen)
        })
    });
    let Some(exponent) = decimal else {
        return Scale::Raw;
    };
    with_step(value_type, exponent, sample(), count)
}

fn is_decimal(scale: Scale, value_type: ValueType, bits: u64) -> bool {
    let Some(k) = scale.nearest(value_type, bits) else {
        return false;
    };
    let off = place(value_type, bits)
        .wrapping_sub(scale.value(value_type, k))
        .unsigned_abs();
    // What rounds to 0 without being it has its digits further down.
    off <= NOISE && (k != 0 || number(value_type, bits) == 0.0)
}

/// The decimal scale whose step divides all integers, or the factor that gives more values exactly.
fn with_step(
    value_type: ValueType,
    exponent: u8,
    sample: impl Iterator<Item = u64> + Clone,
    count: usize,
) -> Scale {
    let plain = Scale::Decimal { exponent, step: 1 };
    let integers = sample
        .clone()
        .filter_map(|bits| plain.nearest(value_type, bits));
    let step = integers.fold(0, |all, k| gcd(all, k.unsigned_abs()));
    if count < 8 || step <= 1 || step > STEP_MAX {
        return plain;
    }
    let decimal = Scale::Decimal { exponent, step };
    let factor = Scale::Factor((step as f64 / power(exponent)).to_bits());
    let exact = |scale: Scale| {
        sample
            .clone()
            .filter(|b| scale.off(value_type, *b) == 0)
            .count()
    };
    if exact(factor) > exact(decimal) {
        factor
    } else {
        decimal
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    if a == 1 {
        return 1;
    }
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn found(values: &[f64]) -> Scale {
        let bits: Vec<u64> = values.iter().map(|x| x.to_bits()).collect();
        detect(ValueType::F64, &bits)
    }

    #[test]
    fn scales_are_found() {
        let decimals: Vec<f64> = (0..40).map(|i| f64::from(i * 7 + 1) / 100.0).collect();
        assert_eq!(
            found(&decimals),
            Scale::Decimal {
                exponent: 2,
                step: 1
            }
        );
        let even: Vec<f64> = (0..40).map(|i| f64::from(i * 20) / 1000.0).collect();
        assert_eq!(
            found(&even),
            Scale::Decimal {
                exponent: 2,
                step: 2
            }
        );
        let counts: Vec<f64> = (0..40)
            .map(|i| f64::from(i * 131 - 700) * 0.000_061)
            .collect();
        assert_eq!(found(&counts), Scale::Factor(0.000_061f64.to_bits()));
        let irrational: Vec<f64> = (1..40).map(|i| f64::from(i).sqrt().sin()).collect();
        assert_eq!(found(&irrational), Scale::Raw);
        assert_eq!(found(&[f64::NAN, f64::INFINITY]), Scale::Raw);
    }

    proptest! {
        #[test]
        fn places_are_in_order_and_come_back(a in any::<u64>(), b in any::<u64>()) {
            let (x, y) = (f64::from_bits(a), f64::from_bits(b));
            prop_assert_eq!(at_place(ValueType::F64, place(ValueType::F64, a)), a);
            if x < y {
                prop_assert!(place(ValueType::F64, a) < place(ValueType::F64, b));
            }
            let (a, b) = (a & 0xffff_ffff, b & 0xffff_ffff);
            prop_assert_eq!(at_place(ValueType::F32, place(ValueType::F32, a)), a);
            if f32::from_bits(a as u32) < f32::from_bits(b as u32) {
                prop_assert!(place(ValueType::F32, a) < place(ValueType::F32, b));
            }
        }
    }
}
