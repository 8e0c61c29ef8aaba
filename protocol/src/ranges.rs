//! Which numbers of a lane are held, with the hash sum of each run of them. Both ends keep it: the
//! ledger for what it committed, the agent for what was acknowledged. It judges nothing.

use crate::ids::{BatchHash, HashSum};

/// Numbers [first, end), and the sum of their batches' hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Held {
    /// The lowest number.
    pub first: u64,
    /// One past the greatest number.
    pub end: u64,
    /// The sum over all of them.
    pub sum: HashSum,
}

/// Stands for hashes that nobody knows: it adds nothing.
pub const UNKNOWN: BatchHash = BatchHash([0; 32]);

/// What is left of a run below `end`, without a sum.
fn before(run: &Held, end: u64) -> Option<Held> {
    (run.first < end).then(|| Held {
        end: run.end.min(end),
        sum: HashSum::default(),
        ..*run
    })
}

/// What is left of a run from `first` on, without a sum.
fn behind(run: &Held, first: u64) -> Option<Held> {
    (run.end > first).then(|| Held {
        first: run.first.max(first),
        sum: HashSum::default(),
        ..*run
    })
}

/// Runs of held numbers, ascending, apart from each other by at least one number.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct HeldRanges(Vec<Held>);

impl From<Held> for HeldRanges {
    fn from(run: Held) -> Self {
        Self(vec![run])
    }
}

impl HeldRanges {
    /// Nothing held.
    pub fn new() -> Self {
        Self::default()
    }

    /// The runs, ascending.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Held> + ExactSizeIterator {
        self.0.iter()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many runs of missing numbers lie below the greatest held one.
    pub fn holes(&self) -> usize {
        let from_zero = self.0.first().is_some_and(|run| run.first == 0);
        self.0.len() - usize::from(from_zero)
    }

    /// One past the greatest held number; 0 when nothing is held.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |run| run.end)
    }

    /// How many numbers are held.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.first).sum()
    }

    /// The sum over everything held.
    pub fn sum(&self) -> HashSum {
        self.0
            .iter()
            .fold(HashSum::default(), |sum, run| sum.and(run.sum))
    }

    /// The place of the first run that ends beyond `number`.
    fn place(&self, number: u64) -> usize {
        self.0.partition_point(|run| run.end <= number)
    }

    /// Whether `number` is held.
    pub fn contains(&self, number: u64) -> bool {
        self.0
            .get(self.place(number))
            .is_some_and(|run| run.first <= number)
    }

    /// How many holes there would be with `number` as well.
    pub fn holes_with(&self, number: u64) -> usize {
        let place = self.place(number);
        let after = self.0.get(place);
        if after.is_some_and(|run| run.first <= number) {
            return self.holes();
        }
        let before = place.checked_sub(1).and_then(|i| self.0.get(i));
        let joins_before = before.map_or(0, |run| run.end) == number;
        let joins_after = after.is_some_and(|run| run.first == number + 1);
        match (joins_before, joins_after) {
            (true, true) => self.holes() - 1,
            (true, false) | (false, true) => self.holes(),
            // In the middle of a hole, or beyond everything behind a new one.
            (false, false) => self.holes() + 1,
        }
    }

    /// Adds one number; `false` when it was held already, and nothing changed.
    pub fn insert(&mut self, number: u64, hash: BatchHash) -> bool {
        self.insert_run(Held {
            first: number,
            end: number + 1,
            sum: HashSum::default().with(hash),
        })
    }

    /// Adds a run of numbers none of which is held; `false` when one is (or the run is empty), and
    /// nothing changed.
    pub fn insert_run(&mut self, run: Held) -> bool {
        let place = self.place(run.first);
        if run.first >= run.end || self.0.get(place).is_some_and(|next| next.first < run.end) {
            return false;
        }
        let before = place.checked_sub(1).filter(|i| {
            self.0
                .get(*i)
                .is_some_and(|previous| previous.end == run.first)
        });
        let after = self
            .0
            .get(place)
            .filter(|next| next.first == run.end)
            .copied();
        match (before, after) {
            (Some(i), next) => {
                if let Some(grown) = self.0.get_mut(i) {
                    grown.end = next.map_or(run.end, |next| next.end);
                    let tail = next.map_or(HashSum::default(), |next| next.sum);
                    grown.sum = grown.sum.and(run.sum).and(tail);
                }
                if next.is_some() {
                    self.0.remove(place);
                }
            }
            (None, Some(next)) => {
                if let Some(grown) = self.0.get_mut(place) {
                    grown.first = run.first;
                    grown.sum = run.sum.and(next.sum);
                }
            }
            (None, None) => self.0.insert(place, run),
        }
        true
    }

    /// Adds those numbers of [first, end) that are not held, each with `hash`; what they were.
    pub fn insert_missing(&mut self, first: u64, end: u64, hash: BatchHash) -> Vec<(u64, u64)> {
        let missing = self.missing(first, end);
        for (first, end) in &missing {
            self.insert_run(Held {
                first: *first,
                end: *end,
                sum: HashSum::default().with_each(hash, end - first),
            });
        }
        missing
    }

    /// Adds what is not held of this run: with its sum if that is all of it, otherwise with none.
    pub fn insert_known(&mut self, run: Held) {
        if !self.insert_run(run) {
            self.insert_missing(run.first, run.end, UNKNOWN);
        }
    }

    /// Takes numbers out. What is left of a run that reaches across a border has no sum any more:
    /// nobody knows how much of it these numbers were.
    pub fn remove(&mut self, first: u64, end: u64) {
        let (from, to) = (self.place(first), self.place(end));
        let cut = self.0.get(to).filter(|run| run.first < end);
        let to = to + usize::from(cut.is_some());
        if first >= end || from >= to {
            return;
        }
        let whole: Vec<Held> = self.0.drain(from..to).collect();
        let left = whole.iter().filter_map(|run| before(run, first));
        let right = whole.iter().filter_map(|run| behind(run, end));
        let left: Vec<Held> = left.chain(right).collect();
        self.0.splice(from..from, left);
    }

    /// The runs of numbers in [from, end) that are held, ascending.
    pub fn within(&self, from: u64, end: u64) -> Vec<(u64, u64)> {
        let runs = self.0.iter().skip(self.place(from));
        let runs = runs.take_while(|run| run.first < end);
        runs.map(|run| (run.first.max(from), run.end.min(end)))
            .collect()
    }

    /// The lowest number in [from, end) that is not held.
    pub fn first_missing(&self, from: u64, end: u64) -> Option<u64> {
        let run = self.0.get(self.place(from)).filter(|run| run.first <= from);
        let missing = run.map_or(from, |run| run.end);
        (missing < end).then_some(missing)
    }

    /// The runs of numbers in [from, end) that are not held, ascending.
    pub fn missing(&self, from: u64, end: u64) -> Vec<(u64, u64)> {
        let mut out = Vec::new();
        let mut at = from;
        for run in self.0.iter().skip(self.place(from)) {
            if run.first >= end {
                break;
            }
            if at < run.first {
                out.push((at, run.first));
            }
            at = at.max(run.end);
        }
        if at < end {
            out.push((at, end));
        }
        out
    }

    /// The sum over what is held in [from, end); `None` when a run reaches across a border, because
    /// its sum can't be taken apart.
    pub fn sum_within(&self, from: u64, end: u64) -> Option<HashSum> {
        let mut sum = HashSum::default();
        for run in self
            .0
            .iter()
            .skip(self.place(from))
            .take_while(|run| run.first < end)
        {
            if run.first < from || run.end > end {
                return None;
            }
            sum = sum.and(run.sum);
        }
        Some(sum)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn hash(number: u64) -> BatchHash {
        BatchHash::of(&number.to_le_bytes())
    }

    proptest! {
        /// Whatever the order of numbers, the runs are those of a plain set.
        #[test]
        fn runs_are_those_of_a_set(numbers in proptest::collection::vec(0u64..60, 0..80)) {
            let mut held = HeldRanges::new();
            let mut model = BTreeSet::new();
            for number in numbers {
                let expected = {
                    let mut with = held.clone();
                    with.insert(number, hash(number));
                    with.holes()
                };
                prop_assert_eq!(held.holes_with(number), expected);
                prop_assert_eq!(held.insert(number, hash(number)), model.insert(number));
            }
            for number in 0..62 {
                prop_assert_eq!(held.contains(number), model.contains(&number));
                let missing = (number..62).find(|n| !model.contains(n));
                prop_assert_eq!(held.first_missing(number, 62), missing);
            }
            prop_assert_eq!(held.count(), model.len() as u64);
            let sum = model.iter().fold(HashSum::default(), |sum, n| sum.with(hash(*n)));
            prop_assert_eq!(held.sum(), sum);
            let runs: Vec<_> = held.iter().copied().collect();
            for pair in runs.windows(2) {
                prop_assert!(pair.first().unwrap().end < pair.last().unwrap().first);
            }
            for run in &runs {
                let sum = (run.first..run.end).fold(HashSum::default(), |s, n| s.with(hash(n)));
                prop_assert_eq!(run.sum, sum);
            }
            let missing: u64 = held.missing(0, 62).iter().map(|(a, b)| b - a).sum();
            prop_assert_eq!(missing, 62 - held.count());
            prop_assert_eq!(held.sum_within(0, 62), Some(held.sum()));
        }

        /// What a run adds is what each of its numbers would have added.
        #[test]
        fn a_run_adds_what_is_missing(
            numbers in proptest::collection::vec(0u64..60, 0..40),
            (first, count) in (0u64..50, 0u64..20),
        ) {
            let mut one_by_one = HeldRanges::new();
            numbers.iter().for_each(|n| { one_by_one.insert(*n, hash(*n)); });
            let mut at_once = one_by_one.clone();
            let new = (first..first + count).filter(|n| one_by_one.insert(*n, hash(999))).count();
            let added = at_once.insert_missing(first, first + count, hash(999));
            prop_assert_eq!(added.iter().map(|(a, b)| b - a).sum::<u64>(), new as u64);
            prop_assert_eq!(at_once, one_by_one);
        }
    }

    proptest! {
        /// What is taken out is out, and whole runs keep their sums.
        #[test]
        fn what_is_taken_out_is_out(
            numbers in proptest::collection::vec(0u64..60, 0..60),
            (first, count) in (0u64..60, 0u64..30),
        ) {
            let mut held = HeldRanges::new();
            let mut model: BTreeSet<u64> = BTreeSet::new();
            numbers.iter().for_each(|n| { held.insert(*n, hash(*n)); model.insert(*n); });
            let before = held.clone();
            held.remove(first, first + count);
            model.retain(|n| !(first..first + count).contains(n));
            for number in 0..62 {
                prop_assert_eq!(held.contains(number), model.contains(&number));
            }
            let within: u64 = held.within(5, 40).iter().map(|(a, b)| b - a).sum();
            prop_assert_eq!(within, model.range(5..40).count() as u64);
            for run in held.iter() {
                let whole = before.iter().any(|old| (old.first, old.end) == (run.first, run.end));
                let sum = (run.first..run.end).fold(HashSum::default(), |s, n| s.with(hash(n)));
                prop_assert_eq!(run.sum, if whole { sum } else { HashSum::default() });
            }
            // And in again, without a sum where nobody knows it.
            before.iter().for_each(|run| held.insert_known(*run));
            prop_assert_eq!(held.count(), before.count());
        }
    }

    #[test]
    fn a_run_across_a_border_has_no_sum() {
        let mut held = HeldRanges::new();
        for number in 4..8 {
            held.insert(number, hash(number));
        }
        assert_eq!(held.sum_within(5, 9), None);
        assert_eq!(held.sum_within(0, 6), None);
        assert!(held.sum_within(4, 8).is_some());
        assert_eq!(held.sum_within(8, 20), Some(HashSum::default()));
    }
}
