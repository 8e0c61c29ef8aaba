//! Lanes of buffers that their agent has no more, each one run of numbers without a hole: a row of
//! about 49 bytes instead of runs, hashes and what others hold. What is held of them is judged as
//! before; whatever else happens to one of them opens its buffer again.

use super::{AgentLedger, LaneLedger, Verdict};
use crate::ids::{BatchHash, BatchKey, BufferId, HashSum, Lane, LaneKey};
use crate::limits::{
    AGENT_FOLDED_MAX, HELLO_LANES_MAX, LEDGER_FOLDED_HASHES_MAX, LEDGER_HASHES_MAX,
};
use crate::ranges::{Held, HeldRanges};
use std::collections::{BTreeMap, VecDeque};
use std::ops::{Bound, Range, RangeInclusive};
use tributary_planted::planted;

/// Lanes that are over.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Folded {
    lanes: BTreeMap<LaneKey, Held>,
    /// Short hashes of the newest of them, as [`LaneLedger`] keeps them; and of lanes that are over
    /// and can't be folded.
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

/// The oldest of these lanes. Lives that are greater than the newest are from before the agent's
/// storage was replaced.
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

    /// The buffers of these lanes.
    pub(super) fn of(&self, keys: RangeInclusive<LaneKey>) -> impl Iterator<Item = BufferId> {
        self.lanes.range(keys).map(|(key, _)| key.buffer)
    }

    fn recent(&self, key: LaneKey) -> impl DoubleEndedIterator<Item = &(u64, u64)> {
        self.recent.get(&key).into_iter().flatten()
    }

    pub(super) fn older(&self) -> OlderLanes {
        self.older
    }

    pub(super) fn set_older(&mut self, older: OlderLanes) {
        self.older = older;
    }

    /// Takes in hashes of a lane, newer than those that are known of it.
    fn remember(&mut self, key: LaneKey, newer: VecDeque<(u64, u64)>) {
        if newer.is_empty() {
            return;
        }
        let mut recent = self.forget(key);
        append(&mut recent, newer);
        self.hashes += recent.len();
        self.recent.insert(key, recent);
    }

    /// Takes out the hashes of a lane.
    fn forget(&mut self, key: LaneKey) -> VecDeque<(u64, u64)> {
        let recent = self.recent.remove(&key).unwrap_or_default();
        self.hashes -= recent.len();
        recent
    }

    /// Whether it is so much more than is kept that it can't wait for the next session.
    fn is_far_too_much(&self) -> bool {
        self.lanes.len() > AGENT_FOLDED_MAX + HELLO_LANES_MAX
            || self.hashes > 2 * LEDGER_FOLDED_HASHES_MAX
    }

    /// Gives up the rows of the oldest, and the hashes, if they are more than are kept.
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
        while self.hashes > LEDGER_FOLDED_HASHES_MAX {
            let Some(key) = oldest(&self.recent, newest) else {
                return;
            };
            self.forget(key);
        }
    }
}

fn append(recent: &mut VecDeque<(u64, u64)>, newer: VecDeque<(u64, u64)>) {
    recent.extend(newer);
    recent.drain(..recent.len().saturating_sub(LEDGER_HASHES_MAX));
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

    /// A buffer is drained, or it changed since: folds what of it is one run each.
    pub(super) fn fold(&mut self, buffer: BufferId) {
        for lane in Lane::ALL {
            visited(1);
            let key = LaneKey { buffer, lane };
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            let run = lane.as_one_run();
            let recent = std::mem::take(&mut lane.recent);
            if run.is_none() || !planted!(FoldForgetsHashes) {
                self.folded.remember(key, recent);
            }
            if let Some(run) = run {
                self.lanes.remove(&key);
                self.folded.lanes.insert(key, run);
            }
        }
    }

    /// Folds the buffers that the agent has no more, as far as they changed since the last look.
    pub(super) fn fold_drained(&mut self) {
        for buffer in std::mem::take(&mut self.changed) {
            debug_assert!(
                !self.unfolded.contains(&buffer),
                "a lane would be there twice"
            );
            self.fold(buffer);
        }
    }

    /// Keeps rows and hashes of what is folded within their bounds. `newest`: the buffer that the
    /// agent is filling.
    pub(super) fn bound_folded(&mut self, newest: BufferId) {
        self.folded.bound(newest);
    }

    /// The same while nobody knows the newest: a session tells. Until then a little more is kept,
    /// and of far too much the greatest counts as the newest.
    pub(super) fn bound_in_replay(&mut self) {
        if !self.folded.is_far_too_much() {
            return;
        }
        let open = self.lanes.last_key_value().map(|(key, _)| key);
        let folded = self.folded.lanes.last_key_value().map(|(key, _)| key);
        if let Some(greatest) = open.max(folded) {
            self.folded.bound(greatest.buffer);
        }
    }

    /// A lane changed: it is looked at when the next session opens, if its buffer is drained.
    pub(super) fn changed(&mut self, buffer: BufferId) {
        if !self.unfolded.iter().rev().any(|known| *known == buffer) {
            self.changed.insert(buffer);
        }
    }

    /// Opens what is folded of a buffer: something is about to change there.
    pub(super) fn open(&mut self, buffer: BufferId) {
        for lane in Lane::ALL {
            visited(1);
            let key = LaneKey { buffer, lane };
            if let Some(run) = self.folded.lanes.remove(&key) {
                let lane = LaneLedger {
                    held: run.into(),
                    ..LaneLedger::default()
                };
                self.lanes.insert(key, lane);
            }
            if let Some(lane) = self.lanes.get_mut(&key) {
                let newer = std::mem::replace(&mut lane.recent, self.folded.forget(key));
                append(&mut lane.recent, newer);
            }
        }
    }

    /// Short hashes that are known of a lane, oldest first.
    pub(super) fn recent(&self, key: LaneKey) -> impl DoubleEndedIterator<Item = &(u64, u64)> {
        let open = self.lanes.get(&key).into_iter();
        let open = open.flat_map(|lane| lane.recent.iter());
        self.folded.recent(key).chain(open)
    }

    /// The short hash under which a number is held, if it is still known.
    pub(super) fn held_hash(&self, key: BatchKey) -> Option<u64> {
        let mut recent = self.recent(key.lane_key()).rev();
        let found = recent.find(|(number, _)| *number == key.number);
        found.map(|(_, short)| *short)
    }

    /// What to make of a batch whose lane is folded and holds its number.
    pub(super) fn judge_folded(&self, key: BatchKey, hash: BatchHash) -> Option<Verdict> {
        let run = self.folded.get(key.lane_key())?;
        let held = (run.first..run.end).contains(&key.number);
        held.then(|| Verdict::of_held(self.held_hash(key), hash))
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
