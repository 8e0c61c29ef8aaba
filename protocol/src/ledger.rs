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
use std::collections::{BTreeMap, HashMap, VecDeque};

mod checkpoint;

pub use checkpoint::CheckpointError;

/// The right to append one batch. Whoever has it must [commit](Ledger::commit) or
/// [abort](Ledger::abort) it; nobody but the ledger makes one.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "append the batch, then commit; or abort"]
pub struct Admission {
    agent: AgentId,
    key: BatchKey,
    hash: BatchHash,
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
}

/// What the ledger makes of one batch.
#[derive(PartialEq, Eq, Debug)]
#[must_use = "append on Fresh; acknowledge on Fresh and Replay, once committed"]
pub enum Verdict {
    /// Not seen before: append it, then commit.
    Fresh(Admission),
    /// The same batch is being written: it shares that copy's outcome.
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

/// What is held of one lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct LaneLedger {
    held: HeldRanges,
    /// Short hashes of the batches committed last, oldest first.
    recent: VecDeque<(u64, u64)>,
    pending: BTreeMap<u64, BatchHash>,
}

impl LaneLedger {
    fn remember(&mut self, number: u64, hash: BatchHash) {
        if self.recent.len() == LEDGER_HASHES_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((number, hash.short()));
    }

    fn held_hash(&self, number: u64) -> Option<u64> {
        self.recent
            .iter()
            .rev()
            .find(|(held, _)| *held == number)
            .map(|(_, short)| *short)
    }

    /// Whether `number` would open one more hole than is allowed, if everything pending were
    /// committed too. Pending numbers are few, and each can open one hole at most.
    fn opens_too_many_holes(&self, number: u64) -> bool {
        let (before, after) = if self.pending.is_empty() {
            (self.held.holes(), self.held.holes_with(number))
        } else {
            let mut all = self.held.clone();
            for (pending, hash) in &self.pending {
                all.insert(*pending, *hash);
            }
            (all.holes(), all.holes_with(number))
        };
        // What fills a hole is taken even where a damaged journal left too many of them.
        after > LEDGER_HOLES_MAX && after > before
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct AgentLedger {
    session: u64,
    lanes: BTreeMap<LaneKey, LaneLedger>,
    /// Buffers that the agent still announces or that it has begun since.
    unfolded: Vec<BufferId>,
    pending: usize,
}

impl AgentLedger {
    /// Counts a buffer among those that are not drained; the oldest gives way to it.
    fn unfold(&mut self, buffer: BufferId) {
        if self.unfolded.contains(&buffer) {
            return;
        }
        if self.unfolded.len() >= AGENT_BUFFERS_MAX {
            self.unfolded.remove(0);
        }
        self.unfolded.push(buffer);
    }

    fn bound(&self, key: BatchKey) -> Result<(), Refusal> {
        if key.number >= NUMBER_MAX {
            return Err(Refusal::Number);
        }
        if self.pending >= LEDGER_PENDING_MAX {
            return Err(Refusal::Busy);
        }
        if self.unfolded.len() >= AGENT_BUFFERS_MAX && !self.unfolded.contains(&key.buffer) {
            return Err(Refusal::Buffers);
        }
        let Some(lane) = self.lanes.get(&key.lane_key()) else {
            let room = self.lanes.len() < AGENT_LANES_MAX;
            return if room { Ok(()) } else { Err(Refusal::Buffers) };
        };
        if lane.opens_too_many_holes(key.number) {
            return Err(Refusal::Holes {
                take: lane.held.first_missing(0, u64::MAX).unwrap_or(0),
            });
        }
        Ok(())
    }
}

/// Everything that an aggregator holds, by agent, buffer and lane.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    agents: HashMap<AgentId, AgentLedger>,
}

/// What a ledger holds of one lane, for audit and status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneSummary {
    /// Which lane.
    pub key: LaneKey,
    /// What is committed.
    pub held: HeldRanges,
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
        entry.unfolded.retain(|buffer| announced.contains(buffer));
        for (key, lane) in &mut entry.lanes {
            if !entry.unfolded.contains(&key.buffer) && lane.pending.is_empty() {
                lane.recent = VecDeque::new();
            }
        }
        Session(entry.session)
    }

    /// The session of `agent` that counts.
    pub fn session(&self, agent: &AgentId) -> Option<Session> {
        self.agents.get(agent).map(|entry| Session(entry.session))
    }

    /// What to make of a declared loss. First committed wins between data and gap: a gap over a
    /// number that is held is a replay, whatever is held there.
    pub fn judge_gap(
        &mut self,
        session: Session,
        agent: &AgentId,
        key: BatchKey,
        hash: BatchHash,
    ) -> Verdict {
        match self.judge(session, agent, key, hash) {
            Verdict::Conflict if self.is_held(agent, key) => Verdict::Replay { verified: false },
            verdict => verdict,
        }
    }

    fn is_held(&self, agent: &AgentId, key: BatchKey) -> bool {
        let lane = self
            .agents
            .get(agent)
            .and_then(|entry| entry.lanes.get(&key.lane_key()));
        lane.is_some_and(|lane| lane.held.contains(key.number))
    }

    /// What to make of one batch of `agent`, sent in `session`.
    pub fn judge(
        &mut self,
        session: Session,
        agent: &AgentId,
        key: BatchKey,
        hash: BatchHash,
    ) -> Verdict {
        let entry = self.agents.entry(agent.clone()).or_default();
        if session.0 < entry.session {
            return Verdict::Stale {
                current: Session(entry.session),
            };
        }
        if let Some(lane) = entry.lanes.get(&key.lane_key()) {
            if lane.held.contains(key.number) {
                return match lane.held_hash(key.number) {
                    Some(short) if short != hash.short() => Verdict::Conflict,
                    known => Verdict::Replay {
                        verified: known.is_some(),
                    },
                };
            }
            if let Some(pending) = lane.pending.get(&key.number) {
                return if *pending == hash {
                    Verdict::Pending
                } else {
                    Verdict::Conflict
                };
            }
        }
        if let Err(refusal) = entry.bound(key) {
            return Verdict::Refused(refusal);
        }
        entry.unfold(key.buffer);
        entry.pending += 1;
        entry
            .lanes
            .entry(key.lane_key())
            .or_default()
            .pending
            .insert(key.number, hash);
        Verdict::Fresh(Admission {
            agent: agent.clone(),
            key,
            hash,
        })
    }

    /// The batch is durable: its number is held from now on.
    pub fn commit(&mut self, admission: Admission) {
        let Admission { agent, key, hash } = admission;
        if let Some(lane) = self.end_pending(&agent, key) {
            let new = lane.held.insert(key.number, hash);
            assert!(new, "{key} of {agent} was pending, and so it was not held");
            lane.remember(key.number, hash);
        }
    }

    /// The batch did not become durable: its number is absent again, and nothing is left of it.
    pub fn abort(&mut self, admission: Admission) {
        let Admission { agent, key, .. } = admission;
        let empty = self
            .end_pending(&agent, key)
            .is_some_and(|lane| lane.pending.is_empty() && lane.held.is_empty());
        let Some(entry) = self.agents.get_mut(&agent).filter(|_| empty) else {
            return;
        };
        entry.lanes.remove(&key.lane_key());
        if !entry.lanes.keys().any(|lane| lane.buffer == key.buffer) {
            entry.unfolded.retain(|buffer| *buffer != key.buffer);
        }
    }

    fn end_pending(&mut self, agent: &AgentId, key: BatchKey) -> Option<&mut LaneLedger> {
        let entry = self.agents.get_mut(agent)?;
        let lane = entry.lanes.get_mut(&key.lane_key())?;
        if lane.pending.remove(&key.number).is_some() {
            entry.pending -= 1;
        }
        Some(lane)
    }

    /// Takes in a batch that the journal holds, when it is read back after a start. `false` when
    /// it was held already: the journal holds it twice, which must not be.
    pub fn recover(&mut self, agent: &AgentId, key: BatchKey, hash: BatchHash) -> bool {
        let entry = self.agents.entry(agent.clone()).or_default();
        entry.unfold(key.buffer);
        let lane = entry.lanes.entry(key.lane_key()).or_default();
        let new = lane.held.insert(key.number, hash);
        if new {
            lane.remember(key.number, hash);
        }
        new
    }

    /// What is committed of one lane of `agent`; empty when nothing is.
    pub fn held(&self, agent: &AgentId, key: LaneKey) -> Vec<Held> {
        let lane = self
            .agents
            .get(agent)
            .and_then(|entry| entry.lanes.get(&key));
        lane.map(|lane| lane.held.iter().copied().collect())
            .unwrap_or_default()
    }

    /// The agents of which anything is known.
    pub fn agents(&self) -> impl Iterator<Item = &AgentId> {
        self.agents.keys()
    }

    /// What is committed of every lane of `agent`, ordered by buffer and lane.
    pub fn lanes(&self, agent: &AgentId) -> Vec<LaneSummary> {
        let lanes = self
            .agents
            .get(agent)
            .into_iter()
            .flat_map(|entry| &entry.lanes);
        lanes
            .map(|(key, lane)| LaneSummary {
                key: *key,
                held: lane.held.clone(),
            })
            .collect()
    }

    /// Count and hash sum of everything committed of `agent`.
    pub fn total(&self, agent: &AgentId) -> (u64, HashSum) {
        let lanes = self
            .agents
            .get(agent)
            .into_iter()
            .flat_map(|entry| entry.lanes.values());
        lanes.fold((0, HashSum::default()), |(count, sum), lane| {
            (count + lane.held.count(), sum.and(lane.held.sum()))
        })
    }
}

#[cfg(test)]
mod tests;
