//! The occupancy gap: which values were visited lately, and how far is a new one from the nearest
//! of them? (`docs/detection.md`.)
//!
//! A range of `M` bins with a saturating counter each: it doubles until it holds the value, and is
//! halved once, every so many readings, where what was visited lately needs less of it. What a gap
//! is worth is decided by who asks.

use bytes::{Buf, BufMut};

/// Readings before the first score.
pub const WARM: u8 = 100;
/// Doublings of the range for one value.
const DOUBLINGS_MAX: u32 = 120;
/// Bins that are added to the span.
const PAD: u16 = 3;

/// What one gap is tuned by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tuning {
    /// Readings after which every counter is halved.
    pub decay: u16,
    /// What a visit adds to its bin's counter.
    pub increment: u8,
    /// Counts that [`Novelty::sparsity`] gathers; 0 where nobody asks.
    pub gather: u8,
}

/// A value that was not visited lately.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Novelty {
    /// Bins to the nearest occupied one, at least 1.
    pub distance: u16,
    /// Bins from the first to the last occupied one, and some more, so that a narrow span says
    /// little.
    pub span: u16,
    /// Bins to walk from the nearest occupied one, away from the value, until so many counts are
    /// gathered: how sparse it is there already.
    pub sparsity: u16,
}

/// The bins of one input: `M + 16` bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Gap<const M: usize> {
    counters: [u8; M],
    /// Where the range begins; NaN before the first value.
    low: f32,
    /// How wide it is; 0 while only one value was seen.
    width: f32,
    /// Readings since the counters were halved.
    since: u16,
    /// Readings, saturating.
    seen: u8,
    /// The first occupied bin; behind the last one when none is.
    first: u8,
    /// The last occupied bin.
    last: u8,
}

impl<const M: usize> Default for Gap<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const M: usize> Gap<M> {
    const BINS: () = assert!(M.is_power_of_two() && M >= 8 && M <= 128);

    /// Nothing seen.
    pub fn new() -> Self {
        let () = Self::BINS;
        Self {
            counters: [0; M],
            low: f32::NAN,
            width: 0.0,
            since: 0,
            seen: 0,
            first: M as u8,
            last: 0,
        }
    }

    /// Readings that it has seen, up to [`WARM`].
    pub fn warmth(&self) -> u8 {
        self.seen.min(WARM)
    }

    /// Takes a value; `None` where it was visited lately, or nothing is known yet. A value that no
    /// range of finite width holds changes nothing.
    pub fn step(&mut self, tuning: &Tuning, value: f64) -> Option<Novelty> {
        let value = value as f32;
        if !value.is_finite() {
            return None;
        }
        if self.low.is_nan() {
            self.low = value;
        }
        if self.width == 0.0 {
            if value == self.low {
                self.seen = self.seen.saturating_add(1);
                return None;
            }
            if !self.open(tuning, value) {
                return None;
            }
        }
        if !self.widen(value) {
            return None;
        }
        let bin = self.bin_of(value);
        let novelty = self.novelty(tuning, bin);
        if let Some(counter) = self.counters.get_mut(bin) {
            *counter = counter.saturating_add(tuning.increment);
        }
        self.first = self.first.min(bin as u8);
        self.last = self.last.max(bin as u8);
        self.seen = self.seen.saturating_add(1);
        self.since += 1;
        if self.since >= tuning.decay {
            self.since = 0;
            self.forget();
        }
        novelty
    }

    /// The second value that is seen makes a range around both.
    fn open(&mut self, tuning: &Tuning, value: f32) -> bool {
        let distance = (value - self.low).abs();
        let width = 4.0 * distance;
        if !width.is_finite() {
            return false;
        }
        let only = self.low;
        self.width = width;
        self.low = only.min(value) - 1.5 * distance;
        let bin = self.bin_of(only);
        let visits = u32::from(self.seen.max(1)) * u32::from(tuning.increment);
        if let Some(counter) = self.counters.get_mut(bin) {
            *counter = visits.min(255) as u8;
        }
        (self.first, self.last) = (bin as u8, bin as u8);
        true
    }

    /// Doubles the range until it holds the value; `false`, and nothing is changed, where it would
    /// not be finite.
    fn widen(&mut self, value: f32) -> bool {
        let is_within = |low: f32, width: f32| value >= low && value < low + width;
        if is_within(self.low, self.width) {
            return true;
        }
        let (mut low, mut width, mut doublings) = (self.low, self.width, 0);
        while doublings < DOUBLINGS_MAX && !is_within(low, width) {
            low = if value < low { low - width } else { low };
            width *= 2.0;
            doublings += 1;
        }
        if !(low.is_finite() && (low + width).is_finite()) {
            return false;
        }
        for _ in 0..doublings {
            self.double(value < self.low);
        }
        true
    }

    /// Twice the range, downwards or upwards: two bins become one.
    fn double(&mut self, down: bool) {
        let offset = if down { M / 2 } else { 0 };
        let mut merged = [0u8; M];
        let (pairs, _) = self.counters.as_chunks::<2>();
        for (to, [a, b]) in merged.iter_mut().skip(offset).zip(pairs) {
            *to = a.saturating_add(*b);
        }
        self.counters = merged;
        if down {
            self.low -= self.width;
        }
        self.width *= 2.0;
        if self.first <= self.last {
            self.first = offset as u8 + self.first / 2;
            self.last = offset as u8 + self.last / 2;
        }
    }

    /// The value's bin; the nearest one for a value outside.
    fn bin_of(&self, value: f32) -> usize {
        let place = (value - self.low) / self.width * M as f32;
        // Truncates, and what is below 0 is 0.
        (place as usize).min(M - 1)
    }

    fn novelty(&self, tuning: &Tuning, bin: usize) -> Option<Novelty> {
        let is_free = self.counters.get(bin) == Some(&0);
        if !is_free || self.seen < WARM || self.first > self.last {
            return None;
        }
        let (below, from) = self.counters.split_at_checked(bin)?;
        let is_occupied = |counter: &u8| *counter != 0;
        let down = below.iter().rposition(is_occupied);
        let up = from.iter().position(is_occupied).map(|bins| bin + bins);
        let (down_bins, up_bins) = (down.map(|at| bin - at), up.map(|at| at - bin));
        let distance = match (down_bins, up_bins) {
            (Some(down), Some(up)) => down.min(up),
            (down, up) => down.or(up)?,
        };
        let nearest =
            |at: Option<usize>, bins: Option<usize>| at.filter(|_| bins == Some(distance));
        let gather = tuning.gather;
        let below = nearest(down, down_bins).map(|at| {
            let kept = self.counters.get(usize::from(self.first)..=at);
            walk(kept.unwrap_or_default().iter().rev(), gather)
        });
        let above = nearest(up, up_bins).map(|at| {
            let kept = self.counters.get(at..=usize::from(self.last));
            walk(kept.unwrap_or_default().iter(), gather)
        });
        let sparsity = match (below, above) {
            (Some(below), Some(above)) => below.min(above),
            (below, above) => below.or(above)?,
        };
        Some(Novelty {
            distance: distance as u16,
            span: u16::from(self.last - self.first) + PAD,
            sparsity,
        })
    }

    /// Halves every counter; a range that is much too wide for what is left is halved once.
    fn forget(&mut self) {
        for counter in &mut self.counters {
            *counter >>= 1;
        }
        let is_occupied = |counter: &u8| *counter != 0;
        let first = self.counters.iter().position(is_occupied);
        let last = self.counters.iter().rposition(is_occupied);
        let (Some(first), Some(last)) = (first, last) else {
            (self.first, self.last) = (M as u8, 0);
            return;
        };
        (self.first, self.last) = (first as u8, last as u8);
        let span = last - first + 1;
        if (3..=M / 3).contains(&span) {
            self.halve(first, last);
        }
    }

    /// Half the range, around what is occupied: each bin becomes two.
    fn halve(&mut self, first: usize, last: usize) {
        let start = (first + last).div_ceil(2).saturating_sub(M / 4).min(M / 2);
        let half = self.counters;
        let kept = half.get(start..).unwrap_or_default();
        for (pair, counter) in self.counters.as_chunks_mut::<2>().0.iter_mut().zip(kept) {
            *pair = [*counter; 2];
        }
        // In this order it overflows nowhere, and rounds the same: M is a power of two.
        self.low += self.width * (start as f32 / M as f32);
        self.width *= 0.5;
        self.first = 2 * (first - start) as u8;
        self.last = 2 * (last - start) as u8 + 1;
    }
}

impl<const M: usize> Gap<M> {
    /// Appends its bytes, as in a checkpoint: low, width (4 bytes each, little endian), since (2),
    /// seen, first, last (1 each), then the counters.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_f32_le(self.low);
        out.put_f32_le(self.width);
        out.put_u16_le(self.since);
        out.put_slice(&[self.seen, self.first, self.last]);
        out.put_slice(&self.counters);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        let (low, width) = (input.try_get_f32_le().ok()?, input.try_get_f32_le().ok()?);
        let since = input.try_get_u16_le().ok()?;
        let ([seen, first, last], rest) = input.split_first_chunk()?;
        let (counters, rest) = rest.split_first_chunk()?;
        *input = rest;
        let is_new = low.is_nan() && width == 0.0;
        let is_range = low.is_finite() && width >= 0.0 && (low + width).is_finite();
        let spans = usize::from(*first) <= M && usize::from(*last) < M;
        ((is_new || is_range) && spans).then_some(Self {
            counters: *counters,
            low,
            width,
            since,
            seen: *seen,
            first: *first,
            last: *last,
        })
    }
}

/// Counters to walk over until so much is gathered, or there are no more.
fn walk<'a>(counters: impl Iterator<Item = &'a u8>, gather: u8) -> u16 {
    let (mut gathered, mut walked) = (0, 0);
    for counter in counters {
        gathered += u32::from(*counter);
        walked += 1;
        if gathered >= gather.into() {
            break;
        }
    }
    walked
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TUNING: Tuning = Tuning {
        decay: 2_000,
        increment: 4,
        gather: 8,
    };

    #[test]
    fn its_state_is_what_is_said() {
        assert_eq!(size_of::<Gap<128>>(), 144);
        assert_eq!(size_of::<Gap<64>>(), 80);
    }

    #[test]
    fn one_value_alone_scores_nothing_and_the_first_other_one_opens_the_range() {
        let mut gap = Gap::<128>::new();
        for _ in 0..500 {
            assert_eq!(gap.step(&TUNING, 5.0), None);
        }
        // 5 and 6 in a range from 3.5 to 7.5: 32 bins lie between them.
        let novelty = Novelty {
            distance: 32,
            span: 3,
            sparsity: 1,
        };
        assert_eq!(gap.step(&TUNING, 6.0), Some(novelty));
        assert_eq!(gap.step(&TUNING, 6.0), None, "visited now");
    }

    #[test]
    fn what_no_finite_range_holds_changes_nothing() {
        let mut gap = Gap::<64>::new();
        for i in 0..200 {
            gap.step(&TUNING, 1e6 * f64::from(i % 7));
        }
        let before = gap.clone();
        for value in [f64::MAX, f64::MIN, 3.4e38, -3.4e38, f64::NAN, f64::INFINITY] {
            assert_eq!(gap.step(&TUNING, value), None);
            assert_eq!(gap, before, "{value}");
        }
        let mut empty = Gap::<64>::new();
        empty.step(&TUNING, f64::INFINITY);
        assert_eq!(empty.step(&TUNING, 1.0), None);
        assert_eq!((empty.low, empty.seen), (1.0, 1));
    }

    #[test]
    fn a_range_near_the_greatest_floats_may_be_halved() {
        let tuning = Tuning {
            decay: 16,
            ..TUNING
        };
        let mut gap = Gap::<64>::new();
        for value in [0.0, 3e37].into_iter().chain([1e30; 200]) {
            gap.step(&tuning, value);
            assert!((gap.low + gap.width).is_finite());
        }
    }

    proptest! {
        #[test]
        fn the_span_is_that_of_the_counters(
            values in proptest::collection::vec(-50i32..50, 1..400),
            wide in any::<f32>(),
        ) {
            let tuning = Tuning { decay: 16, ..TUNING };
            let mut gap = Gap::<64>::new();
            for (i, value) in values.iter().enumerate() {
                let value = if i % 97 == 96 { f64::from(wide) } else { f64::from(*value) };
                if let Some(novelty) = gap.step(&tuning, value) {
                    prop_assert!((1..64).contains(&novelty.distance));
                    prop_assert!((1..=64).contains(&novelty.sparsity));
                }
                let occupied: Vec<usize> =
                    (0..64).filter(|bin| gap.counters[*bin] != 0).collect();
                if gap.width > 0.0 && !occupied.is_empty() {
                    prop_assert_eq!(usize::from(gap.first), occupied[0]);
                    prop_assert_eq!(usize::from(gap.last), *occupied.last().unwrap());
                }
                prop_assert!((gap.low + gap.width).is_finite());
            }
        }
    }
}
