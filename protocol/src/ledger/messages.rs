//! Which messages of an agent's write-ahead logs are in what is held: the same message sealed under
//! two buffers, after an image was restored or a disk lied, is told apart by it.
//!
//! Only the lanes that hold readings of messages are looked at, and only batches of readings count:
//! a declared loss is no reading that arrived. It is a function of what was committed, in order.

use super::{Admission, AgentLedger, Ledger, Refusal, Verdict};
use crate::batch::{Cover, GapReason, Kind, SealedBatch};
use crate::ids::{AgentId, BatchHash, BatchKey, BufferId, Lane, LaneKey};
use crate::limits::{
    COVERED_RUNS_MAX, LEDGER_MESSAGE_BUFFERS_MAX, LEDGER_MESSAGE_LANES_MAX, LEDGER_MESSAGE_RUNS_MAX,
};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use tributary_planted::planted;

/// What a batch says of messages, as far as a ledger has to know.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Covering {
    covers: Vec<Cover>,
    /// Whether its readings are all that the lane has of these messages.
    whole: bool,
    /// Whether its readings can be told apart by message.
    splits: bool,
}

impl Covering {
    /// What this batch says.
    pub fn of(batch: &SealedBatch) -> Self {
        let BatchKey { buffer, lane, .. } = batch.key();
        let covers = batch.covers().iter().copied();
        let reason = batch.gap().map(|gap| gap.reason);
        let covers: Vec<_> = match (lane, batch.kind(), reason) {
            (Lane::Telemetry | Lane::Events, Kind::Readings, _) => covers.collect(),
            // It stands between batches, and takes no messages from them.
            (Lane::Telemetry | Lane::Events, Kind::Gap, Some(GapReason::Refused)) => covers
                .filter(|cover| cover.buffer == buffer)
                .map(|cover| Cover { count: 0, ..cover })
                .collect(),
            _ => Vec::new(),
        };
        Self {
            covers,
            whole: !batch.is_shared(),
            splits: batch.tells_messages(),
        }
    }

    #[cfg(test)]
    pub(super) fn made(covers: Vec<Cover>, whole: bool, splits: bool) -> Self {
        Self {
            covers,
            whole,
            splits,
        }
    }

    /// Whether there is nothing to know.
    pub(super) fn is_empty(&self) -> bool {
        self.covers.is_empty()
    }

    fn count(&self) -> u64 {
        let counts = self.covers.iter().map(|cover| cover.count);
        counts.fold(0, u64::saturating_add)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let meets = |a: &Cover, b: &Cover| {
            let runs = (run_of(a), run_of(b));
            a.buffer == b.buffer && overlap(&runs.0, &runs.1).is_some()
        };
        let mut ours = self.covers.iter();
        ours.any(|a| other.covers.iter().any(|b| meets(a, b)))
    }
}

/// What is to be made of a batch that covers messages.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// So many of them are held under other buffers, and nothing can be done about it.
    Take { doubled: u64 },
    /// These are: it is not to be taken.
    Covered(Vec<Cover>),
    /// Some are being written under another buffer.
    Pending,
}

fn run_of(cover: &Cover) -> Range<u64> {
    cover.first..cover.first.saturating_add(cover.count)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// Batches of a lane that follow each other, of the life whose messages they cover: between them no
/// message gave the lane a reading.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Segment {
    pub numbers: Range<u64>,
    pub messages: Range<u64>,
}

impl Segment {
    fn goes_on_as(&self, next: &Self) -> bool {
        self.numbers.end == next.numbers.start && self.messages.end <= next.messages.start
    }
}

/// What is known of the messages of one life, in one lane.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Known {
    /// In batches of that very life, ascending by number.
    pub own: Vec<Segment>,
    /// In batches of other lives: runs of messages, ascending and apart.
    pub others: BTreeMap<BufferId, Vec<Range<u64>>>,
}

impl Known {
    fn add_own(&mut self, new: Segment) {
        let at = self
            .own
            .partition_point(|it| it.numbers.start < new.numbers.start);
        self.own.insert(at, new);
        // With the one behind it first: its place stays.
        for at in [Some(at), at.checked_sub(1)].into_iter().flatten() {
            let (Some(one), Some(next)) = (self.own.get(at), self.own.get(at + 1)) else {
                continue;
            };
            if one.goes_on_as(next) {
                let joined = Segment {
                    numbers: one.numbers.start..next.numbers.end,
                    messages: one.messages.start..next.messages.end,
                };
                self.own.splice(at..at + 2, [joined]);
            }
        }
        if self.own.len() > LEDGER_MESSAGE_RUNS_MAX {
            self.own.remove(0);
        }
    }

    fn add(&mut self, by: BufferId, run: Range<u64>) {
        if run.is_empty() {
            return;
        }
        let full = self.others.len() >= LEDGER_MESSAGE_BUFFERS_MAX;
        if full && !self.others.contains_key(&by) {
            self.others.pop_first();
        }
        let runs = self.others.entry(by).or_default();
        runs.push(run);
        *runs = union(std::mem::take(runs));
        if runs.len() > LEDGER_MESSAGE_RUNS_MAX {
            runs.remove(0);
        }
    }

    /// What of these messages is in batches that are held; `but`: not in those of that very life.
    fn held(&self, run: &Range<u64>, but: Option<BufferId>) -> Vec<Range<u64>> {
        let own = self.own.iter().filter(|_| but.is_none());
        let own = own.map(|segment| &segment.messages);
        let others = self.others.iter().filter(|(by, _)| Some(**by) != but);
        let all = own.chain(others.flat_map(|(_, runs)| runs));
        union(all.filter_map(|held| overlap(held, run)).collect())
    }
}

/// Runs, ascending and apart.
fn union(mut runs: Vec<Range<u64>>) -> Vec<Range<u64>> {
    runs.sort_by_key(|run| run.start);
    let mut union: Vec<Range<u64>> = Vec::with_capacity(runs.len());
    for run in runs {
        match union.last_mut() {
            Some(last) if run.start <= last.end => last.end = run.end.max(last.end),
            _ => union.push(run),
        }
    }
    union
}

/// What is known of one agent's messages.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Messages {
    /// By lane, and the life that the messages are of.
    known: BTreeMap<LaneKey, Known>,
    /// The same, as they were begun.
    order: VecDeque<LaneKey>,
    /// Of batches between judgement and commit.
    pending: Vec<(BatchKey, Covering)>,
}

impl Messages {
    /// What is known, as it was begun.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&LaneKey, &Known)> {
        let order = self.order.iter();
        order.filter_map(|key| self.known.get_key_value(key))
    }

    /// Lives and lanes, and the most runs and buffers of one.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let runs = self.known.values().map(|known| known.own.len()).max();
        let buffers = self.known.values().map(|known| known.others.len()).max();
        let (runs, buffers) = (runs.unwrap_or(0), buffers.unwrap_or(0));
        assert_eq!(self.known.len(), self.order.len());
        (self.known.len(), runs, buffers)
    }

    /// Takes in what is known of a life and lane; `false` when there was something.
    pub(super) fn insert(&mut self, key: LaneKey, known: Known) -> bool {
        self.order.push_back(key);
        self.known.insert(key, known).is_none()
    }

    fn of(&mut self, key: LaneKey) -> &mut Known {
        if !self.known.contains_key(&key) {
            if self.order.len() >= LEDGER_MESSAGE_LANES_MAX
                && let Some(first) = self.order.pop_front()
            {
                self.known.remove(&first);
            }
            self.order.push_back(key);
        }
        self.known.entry(key).or_default()
    }

    /// A batch is being written.
    pub(super) fn begin(&mut self, key: BatchKey, covering: &Covering) {
        if !covering.is_empty() {
            self.pending.push((key, covering.clone()));
        }
    }

    /// It is not any more: it is held, or it never was.
    pub(super) fn end(&mut self, key: BatchKey) {
        self.pending.retain(|(pending, _)| *pending != key);
    }

    /// A batch is held.
    pub(super) fn add(&mut self, key: BatchKey, covering: &Covering) {
        if !covering.whole {
            return;
        }
        let BatchKey {
            buffer,
            lane,
            number,
        } = key;
        let own = covering.covers.iter().filter(|it| it.buffer == buffer);
        let is_one = own.count() == 1;
        for cover in &covering.covers {
            let messages = run_of(cover);
            let origin = LaneKey {
                buffer: cover.buffer,
                lane,
            };
            if cover.buffer == buffer && is_one {
                let numbers = number..number + 1;
                self.of(origin).add_own(Segment { numbers, messages });
            } else if !messages.is_empty() {
                self.of(origin).add(buffer, messages);
            }
        }
    }

    /// What is to be made of a batch; `takes`: whether its agent can be told that it is covered.
    pub(super) fn find(&self, key: BatchKey, covering: &Covering, takes: bool) -> Found {
        let (mut held, mut count) = (Vec::new(), 0);
        for cover in &covering.covers {
            let origin = LaneKey {
                buffer: cover.buffer,
                lane: key.lane,
            };
            // A life seals a message of its own once.
            let but = Some(key.buffer).filter(|buffer| *buffer == cover.buffer);
            let known = self.known.get(&origin);
            let runs = known.map(|it| it.held(&run_of(cover), but));
            for run in runs.into_iter().flatten() {
                count += run.end - run.start;
                held.push(Cover {
                    buffer: cover.buffer,
                    first: run.start,
                    count: run.end - run.start,
                });
            }
        }
        let all = count > 0 && count == covering.count();
        if takes && all {
            // Runs are at most as many as covers and what lies between them.
            let whole = covering.covers.iter().filter(|cover| cover.count > 0);
            return Found::Covered(whole.copied().collect());
        }
        let meets = |(pending, other): &(BatchKey, Covering)| {
            pending.lane == key.lane && other.whole && covering.overlaps(other)
        };
        if takes && self.pending.iter().any(meets) && !planted!(CoveredIgnoresPending) {
            return Found::Pending;
        }
        if takes && count > 0 && covering.splits {
            held.truncate(COVERED_RUNS_MAX);
            return Found::Covered(held);
        }
        Found::Take { doubled: count }
    }
}

impl Admission {
    /// How many of the messages that it covers are held under another buffer as well: some of its
    /// readings may be there twice.
    pub fn doubled(&self) -> u64 {
        self.doubled
    }

    /// Sets what it says of messages once it is committed; nothing, where its readings can't be
    /// used.
    pub fn set_covering(&mut self, covering: Covering) {
        self.covering = covering;
    }
}

impl AgentLedger {
    /// As [`admit`](Self::admit), unless its messages are held under another buffer.
    pub(super) fn admit_covering(
        &mut self,
        agent: &AgentId,
        (key, hash): (BatchKey, BatchHash),
        (covering, takes): (Covering, bool),
    ) -> Verdict {
        let doubled = match self.messages.find(key, &covering, takes) {
            Found::Covered(messages) => return Verdict::Covered(messages),
            Found::Pending => return Verdict::Refused(Refusal::Busy),
            Found::Take { doubled } => doubled,
        };
        let mut verdict = self.admit(agent, key, hash, None);
        if let Verdict::Fresh(admission) = &mut verdict {
            self.messages.begin(key, &covering);
            admission.covering = covering;
            admission.doubled = doubled;
        }
        verdict
    }
}

impl Ledger {
    /// Takes in what a batch that was [recovered](Self::recover), and was not held before, says of
    /// messages.
    pub fn recover_covering(&mut self, agent: &AgentId, key: BatchKey, covering: &Covering) {
        if let Some(entry) = self.agents.get_mut(agent).filter(|_| !covering.is_empty()) {
            entry.messages.add(key, covering);
        }
    }
}
