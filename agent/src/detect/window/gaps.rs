//! How far apart the readings of a series are: the median of the last gaps between them.

use crate::detect::state_error::StateError;
use bytes::{Buf, BufMut};

/// Gaps that are kept.
const KEPT: usize = 9;
/// Gaps from which on their median is believed.
const KNOWN: u8 = 5;

/// The last gaps: 48 bytes.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Gaps {
    /// The time of the last reading; 0 before the first one.
    last: i64,
    /// µs.
    gaps: [f32; KEPT],
    /// How many there are, and where the next one goes.
    count: u8,
    next: u8,
}

impl Gaps {
    /// Takes the time of a reading that is not late.
    pub fn add(&mut self, time: i64) {
        let gap = time.saturating_sub(self.last);
        if gap <= 0 && self.last != 0 {
            return;
        }
        if self.last != 0 {
            if let Some(place) = self.gaps.get_mut(usize::from(self.next)) {
                *place = gap as f32;
            }
            self.count = (self.count + 1).min(KEPT as u8);
            self.next = (self.next + 1) % KEPT as u8;
        }
        self.last = time;
    }

    /// Goes on in another time: what comes next is no gap.
    pub fn begin_anew(&mut self) {
        self.last = 0;
    }

    /// The median; `None` while too few are known.
    pub fn median(&self) -> Option<i64> {
        if self.count < KNOWN {
            return None;
        }
        let mut gaps = self.gaps;
        let gaps = gaps.get_mut(..usize::from(self.count))?;
        gaps.sort_unstable_by(f32::total_cmp);
        gaps.get(gaps.len() / 2).map(|gap| *gap as i64)
    }

    /// Appends the gaps to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.last);
        self.gaps.iter().for_each(|gap| out.put_f32_le(*gap));
        out.put_u8(self.count);
        out.put_u8(self.next);
    }

    /// The gaps at the front of `input`, which is moved behind them.
    pub fn read(input: &mut &[u8]) -> Result<Self, StateError> {
        let mut read = Self {
            last: input.try_get_i64_le()?,
            ..Self::default()
        };
        for gap in &mut read.gaps {
            *gap = input.try_get_f32_le()?;
        }
        read.count = input.try_get_u8()?;
        read.next = input.try_get_u8()?;
        let fits = usize::from(read.count) <= KEPT && usize::from(read.next) < KEPT;
        fits.then_some(read).ok_or(StateError::Field("gaps"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_known_after_five_gaps_and_a_pause_does_not_move_it() {
        assert_eq!(size_of::<Gaps>(), 48);
        let mut gaps = Gaps::default();
        let mut time = 1_000;
        gaps.add(time);
        for _ in 0..4 {
            time += 100;
            gaps.add(time);
            gaps.add(time);
        }
        assert_eq!(gaps.median(), None);
        gaps.add(time + 100);
        assert_eq!(gaps.median(), Some(100));
        gaps.add(time + 1_000_000);
        gaps.add(time);
        assert_eq!(gaps.median(), Some(100));
        let mut bytes = Vec::new();
        gaps.write(&mut bytes);
        assert_eq!(Gaps::read(&mut bytes.as_slice()), Ok(gaps));
    }
}
