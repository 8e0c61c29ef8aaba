//! Lanes of buffers that their agent has no more, each one run of numbers without a hole: a row of
//! about 49 bytes instead of runs, hashes and what others hold. What is held of them is judged as
//! before; whatever else happens to one of them opens its buffer again.

use super::{AgentLedger, LaneLedger, Verdict};
use crate::ids::{BatchHash, BatchKey, BufferId, HashSum, Lane, LaneKey};
use crate::limits::{AGENT_FOLDED_MAX, LEDGER_FOLDED_HASHES_MAX};
use crate::ranges::{Held, HeldRanges};
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range};
use tributary_planted::planted;

/// Lanes that are over.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Folded {
    lanes: BTreeMap<LaneKey, Held>,
    /// Short hashes of the newest of them, as [`LaneLedger`] keeps them.
    recent: BTreeMap<LaneKey, VecDeque<(u64, u64)>>,
    /// How many hashes that is.
    hashes: usize,
    /// What they are together of which the rows are given up.
    older: OlderLanes,
}

/// Lanes of one agent that are so old that a ledger only knows what they are together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct OlderLanes {
    /// How many they are.
    pub lanes: u64,
    /// How many numbers they hold.
    pub count: u64,
    /// The sum of the hashes.
    pub sum: HashSum,
}

/// Where a lane stands among all of its agent, the oldest first. Lives that are greater than the
/// newest are from before the agent's storage was replaced.
fn age(key: LaneKey, newest: BufferId) -> (bool, LaneKey) {
    (key.buffer <= newest, key)
}

/// The first of these lanes by [`age`].
fn oldest<T>(lanes: &BTreeMap<LaneKey, T>, newest: BufferId) -> Option<LaneKey> {
    let lane = Lane::Events;
    let buffer = newest;
    let replaced = (Bound::Excluded(LaneKey { buffer, lane }), Bound::Unbounded);
    let replaced = lanes.range(replaced).next();
    replaced
        .or_else(|| lanes.first_key_value())
        .map(|(key, _)| *key)
}

impl Folded {
    pub(super) fn lanes(
        &self,
    ) -> impl ExactSizeIterator<Item = (&LaneKey, &Held)> + DoubleEndedIterator {
        self.lanes.iter()
    }

    pub(super) fn get(&self, key: LaneKey) -> Option<&Held> {
        self.lanes.get(&key)
    }

    pub(super) fn recent(&self, key: LaneKey) -> impl ExactSizeIterator<Item = &(u64, u64)> {
        static NONE: VecDeque<(u64, u64)> = VecDeque::new();
        self.recent.get(&key).unwrap_or(&NONE).iter()
    }

    pub(super) fn older(&self) -> OlderLanes {
        self.older
    }

    pub(super) fn set_older(&mut self, older: OlderLanes) {
        self.older = older;
    }

    /// Opens a lane again.
    fn take(&mut self, key: LaneKey) -> Option<LaneLedger> {
        let run = self.lanes.remove(&key)?;
        Some(LaneLedger {
            held: run.into(),
            recent: self.forget(key),
            ..LaneLedger::default()
        })
    }

    fn put(&mut self, key: LaneKey, run: Held, recent: VecDeque<(u64, u64)>) {
        self.lanes.insert(key, run);
        if !recent.is_empty() {
            self.hashes += recent.len();
            self.recent.insert(key, recent);
        }
    }

    /// Takes out the hashes of a lane.
    fn forget(&mut self, key: LaneKey) -> VecDeque<(u64, u64)> {
        let recent = self.recent.remove(&key).unwrap_or_default();
        self.hashes -= recent.len();
        recent
    }

    /// Gives up the rows of the oldest, if they are more than are kept.
    fn bound(&mut self, newest: BufferId) {
        while self.lanes.len() > AGENT_FOLDED_MAX {
            let Some(key) = oldest(&self.lanes, newest) else {
                return;
            };
            let run = self.lanes.remove(&key);
            self.forget(key);
            let run = run.expect("the oldest of them is one of them");
            self.older.lanes = self.older.lanes.saturating_add(1);
            self.older.count = self.older.count.saturating_add(run.end - run.first);
            self.older.sum = self.older.sum.and(run.sum);
        }
    }
}

impl LaneLedger {
    /// The lane as one run, if that is all there is to know of it.
    fn as_one_run(&self) -> Option<Held> {
        let mut runs = self.held.iter();
        let run = runs.next().copied()?;
        let whole = runs.next().is_none() && self.elsewhere.fills_no_hole(&self.held);
        (whole && self.pending.is_empty()).then_some(run)
    }
}

impl AgentLedger {
    /// The lanes of a buffer.
    pub(super) fn of_buffer(&self, buffer: BufferId) -> impl Iterator<Item = &LaneLedger> {
        let lane = |lane| LaneKey { buffer, lane };
        let lanes = self.lanes.range(lane(Lane::Series)..=lane(Lane::Events));
        lanes.map(|(_, lane)| lane).inspect(|_| visited(1))
    }

    /// Folds what of a buffer is one run each.
    pub(super) fn fold(&mut self, buffer: BufferId) {
        for lane in Lane::ALL {
            let key = LaneKey { buffer, lane };
            let Some(run) = self.lanes.get(&key).and_then(LaneLedger::as_one_run) else {
                continue;
            };
            let recent = self.lanes.remove(&key).map(|lane| lane.recent);
            let recent = recent.filter(|_| !planted!(FoldForgetsHashes));
            self.folded.put(key, run, recent.unwrap_or_default());
        }
    }

    /// Folds all buffers that the agent has no more. `newest`: the one that it is filling.
    pub(super) fn fold_drained(&mut self, newest: BufferId) {
        visited(self.lanes.len());
        let mut drained: Vec<BufferId> = self.lanes.keys().map(|key| key.buffer).collect();
        drained.dedup();
        drained.retain(|buffer| !self.unfolded.contains(buffer));
        for buffer in &drained {
            self.fold(*buffer);
        }
        self.bound_folded(newest);
    }

    /// Keeps rows and hashes of what is folded within their bounds.
    pub(super) fn bound_folded(&mut self, newest: BufferId) {
        self.folded.bound(newest);
        self.bound_recent(newest);
    }

    /// Forgets the hashes of the oldest lanes that the agent has no more, if they are more than
    /// are kept.
    fn bound_recent(&mut self, newest: BufferId) {
        let lanes = self
            .lanes
            .iter()
            .filter(|(_, lane)| !lane.recent.is_empty());
        let drained = lanes.filter(|(key, _)| !self.unfolded.contains(&key.buffer));
        let mut open: Vec<LaneKey> = drained.map(|(key, _)| *key).collect();
        open.sort_by_key(|key| std::cmp::Reverse(age(*key, newest)));
        let of = |key| self.lanes.get(key).map_or(0, |lane| lane.recent.len());
        let mut kept = self.folded.hashes + open.iter().map(of).sum::<usize>();
        while kept > LEDGER_FOLDED_HASHES_MAX {
            let folded = oldest(&self.folded.recent, newest);
            let of_open = open.last().copied();
            let is_older =
                |key: &LaneKey| folded.is_none_or(|it| age(*key, newest) < age(it, newest));
            let gone = match of_open.filter(is_older) {
                Some(key) => {
                    open.pop();
                    let lane = self.lanes.get_mut(&key);
                    lane.map(|lane| std::mem::take(&mut lane.recent))
                }
                None => folded.map(|key| self.folded.forget(key)),
            };
            kept -= gone.map_or(kept, |gone| gone.len());
        }
    }

    /// Opens what is folded of a buffer: something is about to change there.
    pub(super) fn open(&mut self, buffer: BufferId) {
        for lane in Lane::ALL {
            let key = LaneKey { buffer, lane };
            if let Some(lane) = self.folded.take(key) {
                self.lanes.insert(key, lane);
            }
        }
    }

    /// What to make of a batch whose lane is folded and holds its number.
    pub(super) fn judge_folded(&self, key: BatchKey, hash: BatchHash) -> Option<Verdict> {
        let run = self.folded.get(key.lane_key())?;
        let held = (run.first..run.end).contains(&key.number);
        let known = || {
            let mut recent = self.folded.recent.get(&key.lane_key())?.iter().rev();
            recent.find(|(number, _)| *number == key.number)
        };
        held.then(|| Verdict::of_held(known().map(|(_, short)| *short), hash))
    }

    /// What of these numbers is absent, and whether all of them are covered.
    pub(super) fn absent(&self, key: LaneKey, numbers: &Range<u64>) -> (Vec<Range<u64>>, bool) {
        let missing = |held: &HeldRanges| held.missing(numbers.start, numbers.end);
        if let Some(lane) = self.lanes.get(&key) {
            return (lane.absent(numbers), missing(&lane.covered()).is_empty());
        }
        let folded = self.folded.get(key).copied();
        let absent = missing(&folded.map(HeldRanges::from).unwrap_or_default()).into_iter();
        let absent: Vec<_> = absent.map(|(first, end)| first..end).collect();
        let covered = absent.is_empty();
        (absent, covered)
    }
}

/// Counts lanes that were looked at, so that a test sees what a batch costs.
#[cfg(test)]
pub(super) fn visited(lanes: usize) {
    VISITED.set(VISITED.get() + lanes);
}

#[cfg(not(test))]
pub(super) fn visited(_: usize) {}

#[cfg(test)]
thread_local! {
    pub(super) static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
