//! The values of a pane, for their quantiles: themselves while they are few, then a sketch of them
//! (DDSketch, Masson et al., VLDB 2019; `docs/decisions/0017`). Which values came decides, and not
//! in which order or in how many panes.

use crate::detect::state_error::StateError;
use crate::limits::{WINDOW_EXACT_MAX, WINDOW_SKETCH_BINS};
use bytes::{Buf, BufMut};
use sketches_ddsketch::{Config, DDSketch};

/// How far a sketch's quantile is from the value, at most, in parts of it.
pub(super) const RELATIVE_ERROR: f64 = 0.01;
/// Bins beyond these hold no value that there is.
const KEYS: std::ops::RangeInclusive<i32> = -36_000..=36_000;

/// Quantiles of the readings in a window: of the sorted values the one at `q (n - 1)`, rounded
/// down. Exact for up to 64 readings, and within 1 % of the value for more.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// Above 95 of 100.
    pub p95: f64,
    /// Above 99 of 100.
    pub p99: f64,
}

/// The values of a pane.
#[derive(Clone)]
pub(super) enum Values {
    /// All of them.
    Few(Vec<f64>),
    /// A sketch of them.
    Many(Box<DDSketch>),
    /// They are more than there was room for.
    Crowded,
}

fn config() -> Config {
    Config::new(RELATIVE_ERROR, WINDOW_SKETCH_BINS, f64::MIN_POSITIVE)
}

/// Values that room is made for when there are so many.
fn room(values: usize) -> usize {
    match values {
        0 => 0,
        _ => values.next_power_of_two().max(4),
    }
}

impl Values {
    pub fn new() -> Self {
        Self::Few(Vec::new())
    }

    /// Bytes beside itself.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Few(values) => 8 * room(values.len()),
            Self::Many(sketch) => size_of::<DDSketch>() + 8 * sketch.length(),
            Self::Crowded => 0,
        }
    }

    /// Takes a value. What would need more room is given up when there is none.
    pub fn add(&mut self, value: f64, has_room: bool) {
        let before = self.bytes();
        match self {
            Self::Few(values) if values.len() < WINDOW_EXACT_MAX => {
                if values.len() == room(values.len()) {
                    values.reserve_exact(room(values.len() + 1) - values.len());
                }
                values.push(value);
            }
            Self::Few(_) => self.sketch().add(value),
            Self::Many(sketch) => sketch.add(value),
            Self::Crowded => {}
        }
        if !has_room && self.bytes() > before {
            *self = Self::Crowded;
        }
    }

    /// Makes a sketch of what there is.
    fn sketch(&mut self) -> &mut DDSketch {
        if let Self::Few(values) = self {
            let mut sketch = Box::new(DDSketch::new(config()));
            values.iter().for_each(|value| sketch.add(*value));
            *self = Self::Many(sketch);
        }
        match self {
            Self::Many(sketch) => sketch,
            _ => {
                *self = Self::Many(Box::new(DDSketch::new(config())));
                self.sketch()
            }
        }
    }

    /// Takes all values of another pane.
    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Crowded, _) => {}
            (_, Self::Crowded) => *self = Self::Crowded,
            (_, Self::Few(values)) => values.iter().for_each(|value| self.add(*value, true)),
            (_, Self::Many(theirs)) => {
                // They have the same settings: nothing can be wrong.
                if self.sketch().merge(theirs).is_err() {
                    *self = Self::Crowded;
                }
            }
        }
    }

    /// The quantiles, which lie within `bounds`; `None` where there was no room, or no value.
    pub fn quantiles(&self, (min, max): (f64, f64)) -> Option<Quantiles> {
        let at: Box<dyn Fn(f64) -> Option<f64>> = match self {
            Self::Crowded => return None,
            Self::Few(values) => {
                let mut sorted = values.clone();
                sorted.sort_unstable_by(f64::total_cmp);
                Box::new(move |q| {
                    let rank = q * sorted.len().saturating_sub(1) as f64;
                    sorted.get(rank as usize).copied()
                })
            }
            Self::Many(sketch) => Box::new(move |q| sketch.quantile(q).ok().flatten()),
        };
        let at = |q| at(q).map(|value| value.clamp(min, max));
        Some(Quantiles {
            p50: at(0.5)?,
            p95: at(0.95)?,
            p99: at(0.99)?,
        })
    }

    /// Appends the values to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Few(values) => {
                out.put_u8(0);
                out.put_u8(values.len() as u8);
                values.iter().for_each(|value| out.put_f64_le(*value));
            }
            Self::Many(sketch) => match Bins::of(sketch) {
                Some(bins) => {
                    out.put_u8(1);
                    bins.write(out);
                }
                None => out.put_u8(2),
            },
            Self::Crowded => out.put_u8(2),
        }
    }

    /// The values at the front of `input`, which is moved behind them.
    pub fn read(input: &mut &[u8]) -> Result<Self, StateError> {
        match input.try_get_u8()? {
            0 => {
                let count = usize::from(input.try_get_u8()?);
                if count > WINDOW_EXACT_MAX {
                    return Err(StateError::Field("count of values"));
                }
                let mut values = Vec::with_capacity(room(count));
                for _ in 0..count {
                    let value = input.try_get_f64_le()?;
                    if !value.is_finite() {
                        return Err(StateError::Field("value"));
                    }
                    values.push(value);
                }
                Ok(Self::Few(values))
            }
            1 => Ok(Self::Many(Box::new(Bins::read(input)?.sketch()?))),
            2 => Ok(Self::Crowded),
            _ => Err(StateError::Field("kind of values")),
        }
    }
}

const _: () = assert!(WINDOW_EXACT_MAX <= u8::MAX as usize);

/// What a sketch holds: how often each bin was hit.
#[derive(Default)]
struct Bins {
    zero: u64,
    positive: Vec<(i32, u64)>,
    negative: Vec<(i32, u64)>,
}

impl Bins {
    /// Out of the only form in which the library shows them: DataDog's, which its tests hold
    /// against their Java library (`encoding.rs` there).
    fn of(sketch: &DDSketch) -> Option<Self> {
        let bytes = sketch.to_java_bytes();
        let mut input = bytes.as_slice();
        let mut bins = Self::default();
        while let Ok(flag) = input.try_get_u8() {
            match flag {
                // Count, which is the sum of the others.
                0xA0 => drop(var_double(&mut input)?),
                // Sum, least, greatest: kept beside the sketch.
                0x84 | 0x88 | 0x8C => drop(input.try_get_u64_le().ok()?),
                // The mapping: always the same.
                0x02 => drop(input.try_get_u128_le().ok()?),
                0x04 => bins.zero = var_double(&mut input)? as u64,
                0x05 => bins.positive = bins_of(&mut input)?,
                0x07 => bins.negative = bins_of(&mut input)?,
                _ => return None,
            }
        }
        Some(bins)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.zero);
        for bins in [&self.positive, &self.negative] {
            out.put_u16_le(bins.len() as u16);
            for (key, count) in bins {
                out.put_i32_le(*key);
                out.put_u64_le(*count);
            }
        }
    }

    fn read(input: &mut &[u8]) -> Result<Self, StateError> {
        Ok(Self {
            zero: input.try_get_u64_le()?,
            positive: read_bins(input)?,
            negative: read_bins(input)?,
        })
    }

    fn sketch(&self) -> Result<DDSketch, StateError> {
        let config = config();
        let mut sketch = DDSketch::new(config);
        let signed = |bins: &[(i32, u64)], sign: f64| -> Vec<(f64, u64)> {
            let values = bins.iter();
            let value = |key: i32| config.value(key).min(f64::MAX);
            values.map(|(key, n)| (sign * value(*key), *n)).collect()
        };
        let mut all = vec![(0.0, self.zero)];
        all.extend(signed(&self.positive, 1.0));
        all.extend(signed(&self.negative, -1.0));
        let total = all
            .iter()
            .try_fold(0_u64, |sum, (_, n)| sum.checked_add(*n));
        // A double counts them exactly.
        if total.is_none_or(|total| total >= 1 << 53) {
            return Err(StateError::Field("count of a bin"));
        }
        for (value, count) in all {
            sketch.add_with_count(value, count);
        }
        Ok(sketch)
    }
}

const _: () = assert!(WINDOW_SKETCH_BINS <= u16::MAX as u32);

fn read_bins(input: &mut &[u8]) -> Result<Vec<(i32, u64)>, StateError> {
    let count = input.try_get_u16_le()?;
    if u32::from(count) > WINDOW_SKETCH_BINS {
        return Err(StateError::Field("count of bins"));
    }
    let mut bins = Vec::new();
    for _ in 0..count {
        let (key, count) = (input.try_get_i32_le()?, input.try_get_u64_le()?);
        if !KEYS.contains(&key) {
            return Err(StateError::Field("bin"));
        }
        bins.push((key, count));
    }
    Ok(bins)
}

fn bins_of(input: &mut &[u8]) -> Option<Vec<(i32, u64)>> {
    let mut key = 0_i64;
    let mut bins = Vec::new();
    for _ in 0..var_long(input)? {
        let delta = var_long(input)?;
        let delta = (delta >> 1) as i64 ^ -((delta & 1) as i64);
        key = key.checked_add(delta)?;
        bins.push((i32::try_from(key).ok()?, var_double(input)? as u64));
    }
    Some(bins)
}

/// Seven bits a byte, the lowest first; the ninth byte has eight.
fn var_long(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..=56).step_by(7) {
        let next = u64::from(input.try_get_u8().ok()?);
        if next < 0x80 || shift == 56 {
            return Some(value | next << shift);
        }
        value |= (next & 0x7f) << shift;
    }
    None
}

/// Seven bits a byte, the highest first, of a double that was shifted so that small integers are
/// short.
fn var_double(input: &mut &[u8]) -> Option<f64> {
    let one = 1_f64.to_bits();
    let mut bits = 0_u64;
    for shift in (1..=57).rev().step_by(7) {
        let next = u64::from(input.try_get_u8().ok()?);
        if shift == 1 || next < 0x80 {
            bits |= next << if shift == 1 { 0 } else { shift };
            break;
        }
        bits |= (next & 0x7f) << shift;
    }
    Some(f64::from_bits(bits.rotate_right(6).wrapping_add(one)) - 1.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn values(all: &[f64]) -> Values {
        let mut values = Values::new();
        all.iter().for_each(|value| values.add(*value, true));
        values
    }

    fn bounds(all: &[f64]) -> (f64, f64) {
        let fold = |f: fn(f64, f64) -> f64, from| all.iter().copied().fold(from, f);
        (
            fold(f64::min, f64::INFINITY),
            fold(f64::max, f64::NEG_INFINITY),
        )
    }

    fn bytes(values: &Values) -> Vec<u8> {
        let mut out = Vec::new();
        values.write(&mut out);
        out
    }

    /// What is stated of a quantile: within 1 % of the value, where that is not smaller than the
    /// largest of its sign by more than a sketch's bins span.
    fn is_near(quantile: f64, exact: f64, all: &[f64]) -> bool {
        let same = all.iter().filter(|value| **value * exact > 0.0);
        let largest = same.fold(0.0_f64, |largest, value| largest.max(value.abs()));
        let error = (quantile - exact).abs();
        error <= (RELATIVE_ERROR + 1e-9) * exact.abs() || error <= largest / 5e8
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => -100.0..100.0_f64,
            2 => (-20.0..20.0_f64).prop_map(|e| 10_f64.powf(e)),
            1 => (-300.0..308.0_f64).prop_map(|e| -10_f64.powf(e)),
            1 => Just(0.0), 1 => Just(21.5), 1 => Just(f64::MAX), 1 => Just(f64::MIN_POSITIVE),
        ]
    }

    proptest! {
        #[test]
        fn quantiles_are_exact_for_few_and_within_the_stated_error_for_many(
            all in proptest::collection::vec(any_value(), 1..400),
        ) {
            let quantiles = values(&all).quantiles(bounds(&all)).unwrap();
            let mut sorted = all.clone();
            sorted.sort_by(f64::total_cmp);
            for (q, told) in [(0.5, quantiles.p50), (0.95, quantiles.p95), (0.99, quantiles.p99)] {
                let exact = sorted[(q * (all.len() - 1) as f64) as usize];
                if all.len() <= WINDOW_EXACT_MAX {
                    prop_assert_eq!(told, exact);
                }
                prop_assert!(is_near(told, exact, &all), "{q}: {told} for {exact}");
            }
        }

        #[test]
        fn neither_order_nor_panes_nor_a_checkpoint_matter(
            all in proptest::collection::vec(any_value(), 1..300), at in 0_usize..300,
        ) {
            let (ours, theirs) = all.split_at(at % all.len());
            let mut merged = values(ours);
            merged.merge(&values(theirs));
            let mut reversed = all.clone();
            reversed.reverse();
            let whole = values(&all);
            let told = whole.quantiles(bounds(&all));
            prop_assert_eq!(merged.quantiles(bounds(&all)), told);
            prop_assert_eq!(values(&reversed).quantiles(bounds(&all)), told);
            let kept = bytes(&whole);
            let mut restored = Values::read(&mut kept.as_slice()).unwrap();
            prop_assert_eq!(bytes(&restored), kept.clone());
            prop_assert_eq!(restored.bytes(), whole.bytes());
            restored.merge(&values(ours));
            let mut live = whole.clone();
            live.merge(&values(ours));
            prop_assert_eq!(bytes(&restored), bytes(&live));
            for cut in 0..kept.len() {
                prop_assert!(Values::read(&mut &kept[..cut]).is_err());
            }
        }

        #[test]
        fn arbitrary_bytes_are_values_or_an_error(
            kind in 0_u8..4, rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [&[kind], rest.as_slice()].concat();
            if let Ok(mut values) = Values::read(&mut bytes.as_slice()) {
                values.add(1.0, true);
                values.quantiles((0.0, 2.0));
            }
        }
    }

    #[test]
    fn their_size_is_bounded() {
        let mut few = values(&[1.0; WINDOW_EXACT_MAX]);
        assert_eq!(few.bytes(), 512);
        few.add(1.0, true);
        let one_bin = few.bytes();
        assert!(one_bin < 1_500, "{one_bin}");
        let spread: Vec<f64> = (-3_000..3_000)
            .map(|i| f64::from(i).signum() * 10_f64.powf(f64::from(i) / 10.0))
            .collect();
        let most = values(&spread).bytes();
        assert!(most <= 16 * WINDOW_SKETCH_BINS as usize + 256, "{most}");
    }

    #[test]
    fn what_finds_no_room_tells_no_quantiles() {
        let mut crowded = values(&[1.0; 4]);
        crowded.add(2.0, false);
        assert_eq!(crowded.quantiles((1.0, 2.0)), None);
        let mut fits = values(&[1.0; 5]);
        fits.add(2.0, false);
        assert!(fits.quantiles((1.0, 2.0)).is_some());
        fits.merge(&crowded);
        assert_eq!((fits.quantiles((1.0, 2.0)), fits.bytes()), (None, 0));
    }

    #[test]
    fn what_is_kept_is_what_it_was() {
        // Ascending keys, so that a checkpoint of this version is read by every later one.
        let many: Vec<f64> = [0.0, 1.0, -1.0, 2.0]
            .iter()
            .copied()
            .cycle()
            .take(65)
            .collect();
        let kept: String = bytes(&values(&many))
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let golden = "01110000000000000002000000000010000000000000002200000010000000000000000100\
                      000000001000000000000000";
        assert_eq!(kept, golden);
    }
}
