//! What is held, lane by lane, for whoever looks: audit and status. It changes nothing.

use super::{Ledger, OlderLanes};
use crate::ids::{AgentId, BatchKey, BufferId, HashSum, Lane, LaneKey, LogId};
use crate::ranges::HeldRanges;

/// What a ledger holds of one lane, for audit and status.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneSummary {
    /// Which lane.
    pub key: LaneKey,
    /// What is committed.
    pub held: HeldRanges,
    /// What others hold, by journal, and is not held here.
    pub elsewhere: Vec<(LogId, HeldRanges)>,
    /// Everything below was acknowledged by somebody.
    pub floor: u64,
}

impl Ledger {
    /// What is committed of every lane of `agent`, ordered by buffer and lane; of those that are
    /// [older](Self::older) not.
    pub fn lanes(&self, agent: &AgentId) -> Vec<LaneSummary> {
        let mut all = self.newest_lanes(agent, usize::MAX);
        all.reverse();
        all
    }

    /// The last of [`lanes`](Self::lanes), `most` of them, the last one first: the others cost
    /// nothing.
    pub fn newest_lanes(&self, agent: &AgentId, most: usize) -> Vec<LaneSummary> {
        let Some(entry) = self.agents.get(agent) else {
            return Vec::new();
        };
        let open = entry.lanes.iter().rev().map(|(key, lane)| LaneSummary {
            key: *key,
            held: lane.held.clone(),
            elsewhere: lane.elsewhere.by_log().to_vec(),
            floor: lane.elsewhere.floor(),
        });
        let folded = entry.folded.lanes().rev().map(|(key, run)| LaneSummary {
            key: *key,
            held: (*run).into(),
            elsewhere: Vec::new(),
            floor: 0,
        });
        let mut newest: Vec<_> = open.take(most).chain(folded.take(most)).collect();
        newest.sort_by_key(|lane| std::cmp::Reverse(lane.key));
        newest.truncate(most);
        newest
    }

    /// Whether this number is held, and under which short hash, if that is still known.
    pub fn held_as(&self, agent: &AgentId, key: BatchKey) -> Option<Option<u64>> {
        let entry = self.agents.get(agent)?;
        let folded = entry.folded.get(key.lane_key());
        let folded = folded.is_some_and(|run| (run.first..run.end).contains(&key.number));
        let open = entry.lanes.get(&key.lane_key());
        let held = folded || open.is_some_and(|lane| lane.held.contains(key.number));
        held.then(|| entry.held_hash(key))
    }

    /// A buffer of the same life as this one, of which anything is known: an agent's storage counts
    /// its lives, so there was a copy of it.
    pub fn another_of_life(&self, agent: &AgentId, buffer: BufferId) -> Option<BufferId> {
        let entry = self.agents.get(agent)?;
        let bound = |random, lane| LaneKey {
            buffer: BufferId::new(buffer.life(), random),
            lane,
        };
        let of_life = bound(0, Lane::Series)..=bound(u64::MAX, Lane::Events);
        let open = entry
            .lanes
            .range(of_life.clone())
            .map(|(key, _)| key.buffer);
        let folded = entry.folded.of(of_life);
        open.chain(folded).find(|other| *other != buffer)
    }

    /// How many [`lanes`](Self::lanes) there are.
    pub fn lanes_count(&self, agent: &AgentId) -> usize {
        let entry = self.agents.get(agent);
        entry.map_or(0, |entry| entry.lanes.len() + entry.folded.lanes().len())
    }

    /// Lanes of `agent` that are so many and so old that only their sum is known.
    pub fn older(&self, agent: &AgentId) -> OlderLanes {
        let entry = self.agents.get(agent);
        entry.map(|entry| entry.folded.older()).unwrap_or_default()
    }

    /// Count and hash sum of everything committed of `agent`.
    pub fn total(&self, agent: &AgentId) -> (u64, HashSum) {
        let older = self.older(agent);
        let lanes = self.lanes(agent).into_iter();
        lanes.fold((older.count, older.sum), |(count, sum), lane| {
            (
                count.saturating_add(lane.held.count()),
                sum.and(lane.held.sum()),
            )
        })
    }
}
