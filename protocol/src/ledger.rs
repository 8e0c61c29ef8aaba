//! The ledger: what an aggregator holds of every agent, and what it makes of one more batch.
//!
//! A number of a lane is absent, pending or held. [`Ledger::judge`] makes it pending, only
//! [`Ledger::commit`] makes it held, and [`Ledger::abort`] makes it absent again. It stores no
//! batch, sends no acknowledgement, and knows no clock.

use crate::ids::{AgentId, BatchHash, BatchKey, BufferId, HashSum, LaneKey, Session};
use crate::limits::{
    AGENT_BUFFERS_MAX, AGENT_LANES_MAX, LEDGER_HASHES_MAX, LEDGER_HOLES_MAX, LEDGER_PENDING_MAX,
    NUMBER_MAX,
};
use crate::ranges::{Held, HeldRanges};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::ops::Range;
use tributary_planted::planted;

mod checkpoint;
mod elsewhere;
mod folded;
mod lanes;
mod messages;

pub use checkpoint::CheckpointError;
use elsewhere::Covered;
use folded::Folded;
pub use folded::OlderLanes;
pub use lanes::LaneSummary;
pub use messages::Covering;
use messages::Messages;

/// The right to append one batch. Whoever has it must [commit](Ledger::commit) or
/// [abort](Ledger::abort) it; nobody but the ledger makes one.
#[derive(PartialEq, Eq, Debug)]
#[cfg_attr(feature = "model", derive(Clone, Hash))]
#[must_use = "append the batch, then commit; or abort"]
pub struct Admission {
    agent: AgentId,
    key: BatchKey,
    hash: BatchHash,
    runs: Vec<Range<u64>>,
    gap: bool,
    covering: Covering,
    doubled: u64,
}

impl Admission {
    /// Whose batch it is.
    pub fn agent(&self) -> &AgentId {
        &self.agent
    }

    /// Which batch it is.
    pub fn key(&self) -> BatchKey {
        self.key
    }

    /// The numbers that become held by it: its own; of a gap, those that nobody else holds.
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }
}

/// What the ledger makes of one batch.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "append on Fresh; acknowledge on Fresh and Replay, once committed"]
pub enum Verdict {
    /// Not seen before: append it, then commit.
    Fresh(Admission),
    /// The same batch, or a gap that stands for it, is being written: it shares that one's outcome.
    Pending,
    /// Held: acknowledge again, write nothing.
    Replay {
        /// Whether the hash was still known and is the same; otherwise it is taken on trust and
        /// counted.
        verified: bool,
    },
    /// Held or being written with another hash: a clone, or a disk that lied. Never acknowledged.
    Conflict,
    /// From a session that a newer one has fenced.
    Stale {
        /// The session that counts.
        current: Session,
    },
    /// Refused for a bound; nothing is held of it.
    Refused(Refusal),
}

impl Verdict {
    /// Of a batch whose number is held, with a hash of which this is known.
    fn of_held(known: Option<u64>, hash: BatchHash) -> Self {
        match known {
            Some(short) if short != hash.short() => Self::Conflict,
            known => Self::Replay {
                verified: known.is_some(),
            },
        }
    }
}

/// The bound for which a batch is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// One more hole than a ledger keeps of a lane.
    #[error(
        "it would leave more than {LEDGER_HOLES_MAX} holes in its lane; number {take} would be \
         taken"
    )]
    Holes {
        /// The lowest number that is missing.
        take: u64,
    },
    /// One more buffer than a ledger keeps of an agent.
    #[error("the agent has more than {AGENT_BUFFERS_MAX} buffers that are not drained yet")]
    Buffers,
    /// More batches between judgement and commit than are allowed.
    #[error("more than {LEDGER_PENDING_MAX} batches of the agent wait for their commit")]
    Busy,
    /// No lane grows that long.
    #[error("batch numbers end at {NUMBER_MAX}")]
    Number,
}

/// Numbers between judgement and commit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Pending {
    end: u64,
    hash: BatchHash,
    gap: bool,
}

/// What is held of one lane.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct LaneLedger {
    held: HeldRanges,
    /// Short hashes of the batches committed last, oldest first; of gaps none, since what a gap
    /// holds may come as data, too.
    recent: VecDeque<(u64, u64)>,
    /// By first number; apart from each other and from what is held.
    pending: BTreeMap<u64, Pending>,
    /// What is not held because others hold it.
    elsewhere: Covered,
}

impl LaneLedger {
    /// What is being written under `number`.
    fn pending_at(&self, number: u64) -> Option<&Pending> {
        let (_, pending) = self.pending.range(..=number).next_back()?;
        (number < pending.end).then_some(pending)
    }

    /// The numbers among these that are neither held nor being written, nor held by others.
    fn absent(&self, numbers: &Range<u64>) -> Vec<Range<u64>> {
        let mut absent = Vec::new();
        for (first, end) in self.held.missing(numbers.start, numbers.end) {
            let mut at = first;
            for (first, pending) in self.pending.range(..end) {
                if pending.end > at {
                    absent.push(at..(*first).max(at));
                    at = pending.end;
                }
            }
            absent.push(at..end.max(at));
        }
        absent.retain(|run| !run.is_empty());
        self.elsewhere.without(absent)
    }

    /// Whether nothing is known of it.
    fn is_blank(&self) -> bool {
        self.pending.is_empty() && self.held.is_empty() && self.elsewhere.is_empty()
    }

    /// These numbers are held from now on; `false` when some were.
    fn hold(&mut self, run: &Range<u64>, hash: BatchHash) -> bool {
        let times = match planted!(GapSummedOnce) {
            true => 1,
            false => run.end - run.start,
        };
        self.elsewhere.take_out(run);
        self.held.insert_run(Held {
            first: run.start,
            end: run.end,
            sum: HashSum::default().with_each(hash, times),
        })
    }

    /// What is held, here or by others.
    fn covered(&self) -> HeldRanges {
        let mut covered = self.held.clone();
        self.elsewhere.add_to(&mut covered);
        covered
    }

    fn remember(&mut self, number: u64, hash: BatchHash) {
        if self.recent.len() == LEDGER_HASHES_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((number, hash.short()));
    }

    /// Whether these numbers would open one more hole than is allowed, if everything pending were
    /// committed too. What is pending is little, and each of it can open one hole at most.
    fn opens_too_many_holes(&self, numbers: &Range<u64>) -> bool {
        let single = numbers.end - numbers.start == 1;
        let fills_none = self.elsewhere.fills_no_hole(&self.held);
        let (before, after) = if self.pending.is_empty() && single && fills_none {
            (self.held.holes(), self.held.holes_with(numbers.start))
        } else {
            let mut all = self.covered();
            for (first, pending) in &self.pending {
                all.insert_missing(*first, pending.end, pending.hash);
            }
            let before = all.holes();
            all.insert_missing(numbers.start, numbers.end, BatchHash([0; 32]));
            (before, all.holes())
        };
        // What fills a hole is taken, also where a damaged journal left too many of them.
        after > LEDGER_HOLES_MAX && after > before
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct AgentLedger {
    session: u64,
    lanes: BTreeMap<LaneKey, LaneLedger>,
    /// Buffers that the agent still announces or that it has begun since.
    unfolded: Vec<BufferId>,
    /// Drained buffers that changed since the last session opened: they may be folded.
    changed: BTreeSet<BufferId>,
    /// Lanes of drained buffers, each one run.
    folded: Folded,
    /// Which messages are in what is held.
    messages: Messages,
    pending: usize,
}

impl AgentLedger {
    /// Makes numbers pending, if no bound is broken: those of `gap`, or the batch's own.
    fn admit(
        &mut self,
        agent: &AgentId,
        key: BatchKey,
        hash: BatchHash,
        gap: Option<Vec<Range<u64>>>,
    ) -> Verdict {
        let is_gap = gap.is_some();
        let own = key.number..key.number.saturating_add(1);
        let runs = gap.unwrap_or_else(|| vec![own]);
        let whole = runs.first().zip(runs.last());
        let whole = whole.map_or(0..0, |(first, last)| first.start..last.end);
        if let Err(refusal) = self.bound(key, &whole) {
            return Verdict::Refused(refusal);
        }
        self.unfold(key.buffer);
        self.pending += runs.len();
        let lane = self.lanes.entry(key.lane_key()).or_default();
        for run in &runs {
            let pending = Pending {
                end: run.end,
                hash,
                gap: is_gap,
            };
            lane.pending.insert(run.start, pending);
            if planted!(HeldAtJudge) {
                lane.held.insert_missing(run.start, run.end, hash);
            }
        }
        Verdict::Fresh(Admission {
            agent: agent.clone(),
            key,
            hash,
            runs,
            gap: is_gap,
            covering: Covering::default(),
            doubled: 0,
        })
    }

    /// Counts a buffer among those that are not drained; the oldest gives way to it.
    fn unfold(&mut self, buffer: BufferId) {
        // Mostly it is the newest.
        if self.unfolded.iter().rev().any(|known| *known == buffer) {
            return;
        }
        self.open(buffer);
        if self.unfolded.len() >= AGENT_BUFFERS_MAX {
            let oldest = self.unfolded.remove(0);
            self.fold(oldest);
            self.bound_in_replay();
        }
        self.changed.remove(&buffer);
        self.unfolded.push(buffer);
    }

    fn bound(&self, key: BatchKey, numbers: &Range<u64>) -> Result<(), Refusal> {
        if numbers.end > NUMBER_MAX {
            return Err(Refusal::Number);
        }
        if self.pending >= LEDGER_PENDING_MAX {
            return Err(Refusal::Busy);
        }
        if self.unfolded.len() >= AGENT_BUFFERS_MAX && !self.unfolded.contains(&key.buffer) {
            return Err(Refusal::Buffers);
        }
        let Some(lane) = self.lanes.get(&key.lane_key()) else {
            // What is folded is opened again; with one run it has room for more.
            let room = self.lanes.len() < AGENT_LANES_MAX;
            let room = room || self.folded.get(key.lane_key()).is_some();
            return if room { Ok(()) } else { Err(Refusal::Buffers) };
        };
        if lane.opens_too_many_holes(numbers) {
            return Err(Refusal::Holes {
                take: lane.covered().first_missing(0, u64::MAX).unwrap_or(0),
            });
        }
        Ok(())
    }

    fn drop_if_blank(&mut self, key: LaneKey) {
        if self.lanes.get(&key).is_some_and(LaneLedger::is_blank) {
            self.lanes.remove(&key);
        }
    }
}

/// Everything that an aggregator holds, by agent, buffer and lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    agents: HashMap<AgentId, AgentLedger>,
}

impl Hash for Ledger {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut agents: Vec<_> = self.agents.iter().collect();
        agents.sort_by_key(|(id, _)| *id);
        agents.hash(state);
    }
}

impl Ledger {
    /// A ledger that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a session of `agent`, and so fences every earlier one. `announced` are the buffers
    /// that the agent still has: what is not among them is drained, and costs no place any more.
    pub fn open_session(&mut self, agent: &AgentId, announced: &[BufferId]) -> Session {
        let entry = self.agents.entry(agent.clone()).or_default();
        entry.session += 1;
        let unfolded = std::mem::take(&mut entry.unfolded).into_iter();
        let (kept, drained): (Vec<_>, Vec<_>) =
            unfolded.partition(|buffer| announced.contains(buffer));
        entry.unfolded = kept;
        entry.changed.extend(drained);
        if planted!(Blind4) {
            let busy = |lane: &LaneLedger| !lane.pending.is_empty();
            let lanes = &mut entry.lanes;
            lanes.retain(|key, lane| announced.contains(&key.buffer) || busy(lane));
        }
        let newest = announced.iter().max().copied();
        entry.fold_drained();
        entry.bound_folded(newest.unwrap_or(BufferId([0xff; 16])));
        Session(entry.session)
    }

    /// The session of `agent` that counts.
    pub fn session(&self, agent: &AgentId) -> Option<Session> {
        self.agents.get(agent).map(|entry| Session(entry.session))
    }

    /// What to make of a declared loss that stands for these numbers (see
    /// [`numbers`](crate::batch::SealedBatch::numbers)). Each is judged by itself, and first
    /// committed wins between data and gap: the gap takes those that are neither held nor being
    /// written, and with none left it is a replay, whatever is held there.
    pub fn judge_gap(
        &mut self,
        session: Session,
        agent: &AgentId,
        key: BatchKey,
        (hash, numbers): (BatchHash, Range<u64>),
    ) -> Verdict {
        let entry = self.agents.entry(agent.clone()).or_default();
        if session.0 < entry.session {
            return Verdict::Stale {
                current: Session(entry.session),
            };
        }
        let (absent, covered) = entry.absent(key.lane_key(), &numbers);
        let absent = match planted!(GapOverData) {
            true => vec![numbers],
            false => absent,
        };
        if absent.is_empty() {
            return match covered {
                true => Verdict::Replay { verified: false },
                false => Verdict::Pending,
            };
        }
        entry.admit(agent, key, hash, Some(absent))
    }

    /// What to make of one batch of `agent`, sent in `session`.
    pub fn judge(
        &mut self,
        session: Session,
        agent: &AgentId,
        key: BatchKey,
        hash: BatchHash,
    ) -> Verdict {
        self.judge_covering(session, agent, (key, hash), Covering::default())
    }

    /// As [`judge`](Self::judge), with the messages that it covers: how many of them others hold is
    /// [told](Admission::doubled).
    pub fn judge_covering(
        &mut self,
        session: Session,
        agent: &AgentId,
        (key, hash): (BatchKey, BatchHash),
        covering: Covering,
    ) -> Verdict {
        let entry = self.agents.entry(agent.clone()).or_default();
        if session.0 < entry.session {
            return Verdict::Stale {
                current: Session(entry.session),
            };
        }
        if let Some(held) = entry.judge_folded(key, hash) {
            return held;
        }
        if let Some(lane) = entry.lanes.get(&key.lane_key()) {
            if lane.held.contains(key.number) {
                return Verdict::of_held(entry.held_hash(key), hash);
            }
            let pending = lane.pending_at(key.number);
            if let Some(pending) = pending.filter(|_| !planted!(NoPending)) {
                return if pending.gap || pending.hash == hash {
                    Verdict::Pending
                } else {
                    Verdict::Conflict
                };
            }
        }
        entry.admit_covering(agent, (key, hash), covering)
    }

    /// The batch is durable: its numbers are held from now on.
    pub fn commit(&mut self, admission: Admission) {
        let Admission {
            agent, key, hash, ..
        } = &admission;
        let Some(lane) = self.end_pending(&admission) else {
            return;
        };
        for run in &admission.runs {
            let new = lane.hold(run, *hash);
            let new = new || planted!(HeldAtJudge) || planted!(NoPending) || planted!(GapOverData);
            assert!(new, "{key} of {agent} was pending, and so it was not held");
        }
        if !admission.gap {
            lane.remember(key.number, *hash);
        }
        self.recover_covering(agent, *key, &admission.covering);
    }

    /// The batch did not become durable: its numbers are absent again, and nothing is left of it.
    pub fn abort(&mut self, admission: Admission) {
        if planted!(AbortKeepsPending) {
            return;
        }
        let empty = self
            .end_pending(&admission)
            .is_some_and(|lane| lane.pending.is_empty() && lane.held.is_empty());
        let Admission { agent, key, .. } = admission;
        let Some(entry) = self.agents.get_mut(&agent).filter(|_| empty) else {
            return;
        };
        entry.drop_if_blank(key.lane_key());
        let begun = |lane: &LaneLedger| !(lane.held.is_empty() && lane.pending.is_empty());
        if !entry.of_buffer(key.buffer).any(begun) {
            entry.unfolded.retain(|buffer| *buffer != key.buffer);
            if entry.of_buffer(key.buffer).next().is_some() {
                entry.changed(key.buffer);
            }
        }
    }

    fn end_pending(&mut self, admission: &Admission) -> Option<&mut LaneLedger> {
        let entry = self.agents.get_mut(&admission.agent)?;
        entry.changed(admission.key.buffer);
        entry.messages.end(admission.key);
        let lane = entry.lanes.get_mut(&admission.key.lane_key())?;
        for run in &admission.runs {
            if lane.pending.remove(&run.start).is_some() {
                entry.pending -= 1;
            }
        }
        Some(lane)
    }

    /// Takes in a batch that the journal holds, when it is read back after a start. `false` when
    /// it was held already: the journal holds it twice, which must not be.
    pub fn recover(&mut self, agent: &AgentId, key: BatchKey, hash: BatchHash) -> bool {
        let entry = self.agents.entry(agent.clone()).or_default();
        entry.unfold(key.buffer);
        let lane = entry.lanes.entry(key.lane_key()).or_default();
        let new = lane.hold(&(key.number..key.number + 1), hash);
        if new {
            lane.remember(key.number, hash);
        }
        new
    }

    /// Takes in a gap that the journal holds, with the numbers that it took; as
    /// [`recover`](Self::recover).
    pub fn recover_gap(
        &mut self,
        agent: &AgentId,
        key: BatchKey,
        (hash, runs): (BatchHash, &[Range<u64>]),
    ) -> bool {
        let entry = self.agents.entry(agent.clone()).or_default();
        entry.unfold(key.buffer);
        let lane = entry.lanes.entry(key.lane_key()).or_default();
        let taken = |run: &Range<u64>| {
            lane.elsewhere.take_out(run);
            let new = lane.held.insert_missing(run.start, run.end, hash);
            new == [(run.start, run.end)]
        };
        // All of them, whatever the first ones were.
        runs.iter().map(taken).filter(|new| !new).count() == 0
    }

    /// Takes in a run of numbers that is known to be committed although the journal can't say so
    /// any more: those of it that are not held. With its sum, if that is all of it.
    pub fn recover_run(&mut self, agent: &AgentId, key: LaneKey, run: Held) {
        let entry = self.agents.entry(agent.clone()).or_default();
        entry.unfold(key.buffer);
        let lane = entry.lanes.entry(key).or_default();
        lane.elsewhere.take_out(&(run.first..run.end));
        lane.held.insert_known(run);
    }

    /// What is committed of one lane of `agent`; empty when nothing is.
    pub fn held(&self, agent: &AgentId, key: LaneKey) -> Vec<Held> {
        let Some(entry) = self.agents.get(agent) else {
            return Vec::new();
        };
        if let Some(run) = entry.folded.get(key) {
            return vec![*run];
        }
        let lane = entry.lanes.get(&key);
        let mut held = lane.map(|lane| lane.held.clone()).unwrap_or_default();
        for (first, pending) in lane.into_iter().flat_map(|lane| &lane.pending) {
            if planted!(WelcomeSaysPending) {
                held.insert_missing(*first, pending.end, pending.hash);
            }
        }
        held.iter().copied().collect()
    }

    /// The agents of which anything is known.
    pub fn agents(&self) -> impl Iterator<Item = &AgentId> {
        self.agents.keys()
    }
}

#[cfg(test)]
mod tests;
