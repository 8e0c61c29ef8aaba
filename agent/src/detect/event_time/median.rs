//! What most devices take the time to be, for a gateway whose own clock nobody trusts: the median
//! of the distances of their clocks from steady time.

use crate::limits::CLOCK_MEDIAN_EVERY_US;

/// The median, computed anew when enough changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Median {
    /// The lower median of the clocks' distances from steady time; 0 before the first one.
    pub offset: i64,
    /// The steady time at which it was computed.
    pub computed_at: i64,
    /// Of how many clocks.
    pub computed_of: u32,
    /// Clocks that there are.
    pub clocks: u32,
    room: Vec<i64>,
}

impl Median {
    /// A device told its time; whether for the first time.
    pub fn claimed(&mut self, fresh: bool) {
        self.clocks = self.clocks.saturating_add(u32::from(fresh));
    }

    /// A device was forgotten; whether it had told its time.
    pub fn forgot(&mut self, had: bool) {
        self.clocks = self.clocks.saturating_sub(u32::from(had));
    }

    /// The time by the median clock. Of two the earlier one: what is wrong is rather ahead than
    /// behind, for clocks that were never set are not asked.
    pub fn at(&mut self, steady: i64, distances: impl Iterator<Item = i64>) -> i64 {
        let grown = self.clocks.abs_diff(self.computed_of) > self.computed_of / 4;
        let old = steady.saturating_sub(self.computed_at) >= CLOCK_MEDIAN_EVERY_US;
        if grown || old {
            self.compute(steady, distances);
        }
        self.offset.saturating_add(steady)
    }

    fn compute(&mut self, steady: i64, distances: impl Iterator<Item = i64>) {
        self.room.clear();
        self.room.extend(distances);
        let middle = self.room.len().saturating_sub(1) / 2;
        if !self.room.is_empty() {
            self.offset = *self.room.select_nth_unstable(middle).1;
        }
        self.computed_at = steady;
        self.computed_of = self.room.len() as u32;
        self.clocks = self.computed_of;
    }
}
