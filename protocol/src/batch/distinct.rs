//! Distinct numbers among many, and the rank of each.
//!
//! It is used where few numbers repeat: shared time stamps, and series with few levels.

/// Scratch to find distinct numbers by hashing.
#[derive(Default)]
pub(super) struct Distinct {
    table: Vec<u32>,
    /// Every distinct number once; sorted by [`rank`](Self::rank).
    pub levels: Vec<u64>,
    /// For each one the place of its number, as found.
    place: Vec<u32>,
    /// From place as found to rank.
    ranks: Vec<u32>,
}

impl Distinct {
    /// Finds the distinct numbers, unless there are more than `most`.
    pub fn find(&mut self, numbers: &[u64], most: usize) -> bool {
        let slots = (numbers.len() * 2).next_power_of_two().max(2);
        let shift = 64 - slots.trailing_zeros();
        self.table.clear();
        self.table.resize(slots, 0);
        self.levels.clear();
        self.place.clear();
        // Series that are sampled together repeat each other's times in the same order.
        let mut next = 0;
        for number in numbers {
            let place = if self.levels.get(next) == Some(number) {
                next
            } else {
                self.find_one(*number, shift)
            };
            if self.levels.len() > most {
                return false;
            }
            self.place.push(place as u32);
            next = place + 1;
        }
        true
    }

    fn find_one(&mut self, number: u64, shift: u32) -> usize {
        let mut at = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize;
        loop {
            let Some(slot) = self.table.get_mut(at) else {
                at = 0;
                continue;
            };
            let Some(place) = slot.checked_sub(1) else {
                self.levels.push(number);
                *slot = self.levels.len() as u32;
                return self.levels.len() - 1;
            };
            if self.levels.get(place as usize) == Some(&number) {
                return place as usize;
            }
            at += 1;
        }
    }

    /// Sorts the numbers, and replaces each number by its rank.
    pub fn rank(&mut self, numbers: &mut [u64]) {
        let mut order: Vec<u32> = (0..self.levels.len() as u32).collect();
        let key = |place: &u32| self.levels.get(*place as usize).copied();
        order.sort_by_key(key);
        self.ranks.clear();
        self.ranks.resize(order.len(), 0);
        for (rank, place) in order.iter().enumerate() {
            if let Some(slot) = self.ranks.get_mut(*place as usize) {
                *slot = rank as u32;
            }
        }
        self.levels.sort_unstable();
        for (number, place) in numbers.iter_mut().zip(&self.place) {
            *number = self
                .ranks
                .get(*place as usize)
                .copied()
                .map_or(0, u64::from);
        }
    }
}
