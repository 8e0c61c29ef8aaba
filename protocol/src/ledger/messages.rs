//! Which messages of an agent's write-ahead logs are in what is held. The same message sealed under
//! two buffers, after an image was restored or a disk lied, is noticed by it. It decides nothing:
//! whatever comes is taken.
//!
//! Only the lanes that hold readings of messages are looked at, and only batches of readings count:
//! a declared loss is no reading that arrived. It is a function of what was committed, in order.

use super::{Admission, AgentLedger, Ledger, Verdict};
use crate::batch::{Cover, GapReason, Kind, SealedBatch};
use crate::ids::{AgentId, BatchHash, BatchKey, BufferId, Lane, LaneKey};
use crate::limits::LEDGER_MESSAGE_RUNS_MAX;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// The messages that a batch covers, as far as a ledger has to know.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Covering(pub(super) Vec<Cover>);

impl Covering {
    /// What this batch says.
    pub fn of(batch: &SealedBatch) -> Self {
        let BatchKey { buffer, lane, .. } = batch.key();
        let covers = batch.covers().iter().copied();
        let reason = batch.gap().map(|gap| gap.reason);
        Self(match (lane, batch.kind(), reason) {
            (Lane::Telemetry | Lane::Events, Kind::Readings, _) => covers.collect(),
            // It stands between batches, and takes no messages from them.
            (Lane::Telemetry | Lane::Events, Kind::Gap, Some(GapReason::Refused)) => covers
                .filter(|cover| cover.buffer == buffer)
                .map(|cover| Cover { count: 0, ..cover })
                .collect(),
            _ => Vec::new(),
        })
    }
}

fn run_of(cover: &Cover) -> Range<u64> {
    cover.first..cover.first.saturating_add(cover.count)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

/// How many messages are in some of these runs.
fn count(mut runs: Vec<Range<u64>>) -> u64 {
    runs.sort_by_key(|run| run.start);
    let (mut count, mut end) = (0, 0);
    for run in runs {
        let from = run.start.max(end);
        count += run.end.saturating_sub(from);
        end = end.max(run.end);
    }
    count
}

/// Batches of a lane that follow each other, of the life whose messages they cover: between them no
/// message gave the lane a reading.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Segment {
    pub numbers: Range<u64>,
    pub messages: Range<u64>,
}

impl Segment {
    /// As one, if the other goes on where this ends. Several batches may be of one message.
    fn with(&self, next: &Self) -> Option<Self> {
        let follows = self.numbers.end == next.numbers.start;
        let follows = follows && self.messages.start <= next.messages.start;
        follows.then(|| Self {
            numbers: self.numbers.start..next.numbers.end,
            messages: self.messages.start..next.messages.end.max(self.messages.end),
        })
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
    fn runs(&self) -> usize {
        self.own.len() + self.others.values().map(Vec::len).sum::<usize>()
    }

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
            if let Some(joined) = one.with(next) {
                self.own.splice(at..at + 2, [joined]);
            }
        }
    }

    /// Messages that are in batches of another life.
    pub(super) fn add(&mut self, by: BufferId, run: Range<u64>) {
        let runs = self.others.entry(by).or_default();
        let from = runs.partition_point(|it| it.end < run.start);
        let mut joined = run;
        let met = |it: &&Range<u64>| it.start <= joined.end;
        let meets = runs.iter().skip(from).take_while(met).count();
        for run in runs.drain(from..from + meets) {
            joined = joined.start.min(run.start)..joined.end.max(run.end);
        }
        runs.insert(from, joined);
    }

    /// What of these messages is in batches that are held, but for those of one buffer, of `own`:
    /// the life that they are of.
    fn held(&self, run: &Range<u64>, but: BufferId, own: BufferId) -> Vec<Range<u64>> {
        let own = self.own.iter().filter(|_| own != but);
        let own = own.map(|segment| &segment.messages);
        let others = self.others.iter().filter(|(by, _)| **by != but);
        let others = others.flat_map(|(_, runs)| {
            let from = runs.partition_point(|it| it.end <= run.start);
            let meets = |it: &&Range<u64>| it.start < run.end;
            runs.iter().skip(from).take_while(meets)
        });
        let all = own.chain(others);
        all.filter_map(|held| overlap(held, run)).collect()
    }

    /// Forgets the run of the lowest messages.
    fn forget_lowest(&mut self) {
        let own = self.own.first().map(|it| it.messages.start);
        let firsts = self.others.iter();
        let firsts = firsts.filter_map(|(by, runs)| Some((runs.first()?.start, *by)));
        match (own, firsts.min()) {
            (own, Some((other, by))) if own.is_none_or(|own| other < own) => {
                let runs = self.others.entry(by).or_default();
                runs.remove(0);
                if runs.is_empty() {
                    self.others.remove(&by);
                }
            }
            (Some(_), _) => {
                self.own.remove(0);
            }
            (None, _) => {}
        }
    }
}

/// What is known of one agent's messages.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Messages {
    /// By lane, and the life that the messages are of.
    known: BTreeMap<LaneKey, Known>,
    /// The same, as they were begun.
    order: VecDeque<LaneKey>,
    /// How many runs that is.
    runs: usize,
    /// Of batches between judgement and commit.
    pending: BTreeMap<BatchKey, Covering>,
}

impl Messages {
    /// What is known, as it was begun.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&LaneKey, &Known)> {
        let order = self.order.iter();
        order.filter_map(|key| self.known.get_key_value(key))
    }

    /// Lives and lanes, and the runs of all of them.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        assert_eq!(self.known.len(), self.order.len());
        assert_eq!(
            self.known.values().map(Known::runs).sum::<usize>(),
            self.runs
        );
        (self.known.len(), self.runs)
    }

    /// Takes in what is known of a life and lane; `false` when there was something.
    pub(super) fn insert(&mut self, key: LaneKey, known: Known) -> bool {
        self.order.push_back(key);
        self.runs += known.runs();
        self.known.insert(key, known).is_none()
    }

    /// Changes what is known of the messages of one life, in one lane.
    fn change(&mut self, key: LaneKey, change: impl FnOnce(&mut Known)) {
        let known = self.known.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Known::default()
        });
        self.runs -= known.runs();
        change(known);
        self.runs += known.runs();
        self.bound();
    }

    /// Keeps no more than may be kept: the lowest run of the life and lane that was begun first
    /// goes.
    pub(super) fn bound(&mut self) {
        while self.runs > LEDGER_MESSAGE_RUNS_MAX {
            let Some(first) = self.order.front() else {
                return;
            };
            let left = self.known.get_mut(first).map_or(0, |known| {
                let before = known.runs();
                known.forget_lowest();
                self.runs -= before - known.runs();
                known.runs()
            });
            if left == 0 {
                self.known.remove(first);
                self.order.pop_front();
            }
        }
    }

    /// A batch is being written.
    fn begin(&mut self, key: BatchKey, covering: &Covering) {
        if !covering.0.is_empty() {
            self.pending.insert(key, covering.clone());
        }
    }

    /// It is not any more: it is held, or it never was.
    pub(super) fn end(&mut self, key: BatchKey) {
        self.pending.remove(&key);
    }

    /// A batch is held.
    fn add(&mut self, key: BatchKey, covering: &Covering) {
        let BatchKey {
            buffer,
            lane,
            number,
        } = key;
        let own = covering.0.iter().filter(|it| it.buffer == buffer);
        let is_one = own.count() == 1;
        for cover in &covering.0 {
            let messages = run_of(cover);
            let origin = LaneKey {
                buffer: cover.buffer,
                lane,
            };
            if cover.buffer == buffer && is_one {
                let numbers = number..number + 1;
                self.change(origin, |known| known.add_own(Segment { numbers, messages }));
            } else if !messages.is_empty() {
                self.change(origin, |known| known.add(buffer, messages));
            }
        }
    }

    /// How many of these messages are in batches of other buffers, held or being written. A buffer
    /// has each reading once.
    fn doubled(&self, key: BatchKey, covering: &Covering) -> u64 {
        let others = |other: &&BatchKey| other.lane == key.lane && other.buffer != key.buffer;
        let pending = self.pending.iter().filter(|(other, _)| others(other));
        let pending: Vec<&Cover> = pending.flat_map(|(_, covering)| &covering.0).collect();
        let held = |cover: &Cover| {
            let origin = LaneKey {
                buffer: cover.buffer,
                lane: key.lane,
            };
            let run = run_of(cover);
            let known = self.known.get(&origin);
            let mut held =
                known.map_or_else(Vec::new, |known| known.held(&run, key.buffer, cover.buffer));
            let pending = pending.iter().filter(|it| it.buffer == cover.buffer);
            held.extend(pending.filter_map(|it| overlap(&run_of(it), &run)));
            count(held)
        };
        let each = covering.0.iter().map(held);
        each.fold(0, u64::saturating_add)
    }
}

impl Admission {
    /// How many of the messages that it covers are in batches of other buffers, held or being
    /// written: some of its readings may be there twice.
    pub fn doubled(&self) -> u64 {
        self.doubled
    }
}

impl AgentLedger {
    /// As [`admit`](Self::admit), with the messages that it covers.
    pub(super) fn admit_covering(
        &mut self,
        agent: &AgentId,
        (key, hash): (BatchKey, BatchHash),
        covering: Covering,
    ) -> Verdict {
        let mut verdict = self.admit(agent, key, hash, None);
        if let Verdict::Fresh(admission) = &mut verdict {
            admission.doubled = self.messages.doubled(key, &covering);
            self.messages.begin(key, &covering);
            admission.covering = covering;
        }
        verdict
    }
}

impl Ledger {
    /// Sets what an admission covers, instead of what it did; nothing, where its readings can't be
    /// used: then it doubles nothing, either.
    pub fn set_covering(&mut self, admission: &mut Admission, covering: Covering) {
        let Some(entry) = self.agents.get_mut(&admission.agent) else {
            return;
        };
        entry.messages.end(admission.key);
        admission.doubled = entry.messages.doubled(admission.key, &covering);
        entry.messages.begin(admission.key, &covering);
        admission.covering = covering;
    }

    /// Takes in what a batch that was [recovered](Self::recover), and was not held before, says of
    /// messages.
    pub fn recover_covering(&mut self, agent: &AgentId, key: BatchKey, covering: &Covering) {
        if let Some(entry) = self
            .agents
            .get_mut(agent)
            .filter(|_| !covering.0.is_empty())
        {
            entry.messages.add(key, covering);
        }
    }
}
