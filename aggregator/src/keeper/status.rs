//! What is known about the keeper from outside: without asking it, and by asking. Bounded.

use super::books::Books;
use super::twins::{Sign, TwinStatus, Twins};
use crate::limits::{AGENTS_SEEN_MAX, STATUS_AGENTS_MAX, STATUS_LANES_MAX, TWINS_LISTED_MAX};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tributary_protocol::ids::{AgentId, BufferId};
use tributary_protocol::ledger::Ledger;
use tributary_protocol::message::Hello;

/// What is known without asking.
#[derive(Debug, Default)]
pub struct KeeperStatus {
    end: AtomicU64,
    batches: AtomicU64,
    rows: AtomicU64,
    bytes: AtomicU64,
    damaged: AtomicU64,
    trouble: Mutex<Option<String>>,
    twins: Mutex<Twins>,
}

impl KeeperStatus {
    /// One past the last durable entry.
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Batches accepted since the start.
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// Readings and definitions in them.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Their sealed bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Journal entries that recovery could not read: their batches are asked for again, and the
    /// lake declares them.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(super) fn set_damaged(&self, entries: u64) {
        self.damaged.store(entries, Ordering::Relaxed);
        metrics::counter!("tributary_aggregator_journal_damaged_entries_total").increment(entries);
    }

    /// Why nothing is accepted, if so.
    pub fn trouble(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// There was a sign that this agent is two machines; now, in microseconds since 1970.
    pub fn saw(&self, agent: &AgentId, sign: Sign, now: i64) {
        let mut twins = self.twins();
        let alarm = twins.on_sign(agent, sign, now);
        count(&mut twins, agent, sign);
        drop(twins);
        if let Some(alarm) = alarm {
            alarm.say(agent);
        }
    }

    /// A session begins of an agent that fills this buffer, where the ledger knows another one of
    /// the same life, perhaps.
    pub(super) fn fills(&self, agent: &AgentId, buffers: (BufferId, Option<BufferId>), now: i64) {
        let mut twins = self.twins();
        let (sign, alarm) = twins.on_hello(agent, buffers, now);
        if let Some(sign) = sign {
            count(&mut twins, agent, sign);
        }
        drop(twins);
        if let Some(alarm) = alarm {
            alarm.say(agent);
        }
    }

    fn twins(&self) -> MutexGuard<'_, Twins> {
        self.twins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_end(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    pub(super) fn add(&self, batches: u64, rows: u64, bytes: u64) {
        self.batches.fetch_add(batches, Ordering::Relaxed);
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

fn count(twins: &mut Twins, agent: &AgentId, sign: Sign) {
    let agent = twins.label(agent);
    let name = "tributary_aggregator_identity_signs_total";
    metrics::counter!(name, "agent" => agent, "sign" => sign.name()).increment(1);
}

/// What agents said of themselves since the start.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<AgentId, (String, String, i64)>);

impl Seen {
    pub(super) fn note(&mut self, agent: &AgentId, hello: &Hello, now: i64) {
        if self.0.len() >= AGENTS_SEEN_MAX && !self.0.contains_key(agent) {
            return;
        }
        let said = (hello.name.clone(), hello.software.clone(), now);
        self.0.insert(agent.clone(), said);
    }
}

/// What is held of one lane.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LaneStatus {
    /// The buffer.
    pub buffer: String,
    /// The lane.
    pub lane: String,
    /// Numbers held: first, and one past the last.
    pub ranges: Vec<(u64, u64)>,
    /// How many batches.
    pub batches: u64,
    /// Their hash sum.
    pub hash_sum: String,
}

/// What is known of one agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AgentStatus {
    /// Tenant and UUID.
    pub agent: String,
    /// What it calls itself; empty when it has not been seen since the start.
    pub name: String,
    /// Its software.
    pub software: String,
    /// When its last session began: microseconds since 1970, UTC.
    pub last_hello_us: Option<i64>,
    /// How many lanes there are.
    pub lanes_total: usize,
    /// The lanes of its newest buffers.
    pub lanes: Vec<LaneStatus>,
}

/// What the keeper says when it is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct StatusReport {
    /// How many agents there are.
    pub agents_total: usize,
    /// The first of them, by name.
    pub agents: Vec<AgentStatus>,
    /// How many books of series there are.
    pub books: usize,
    /// How many batches lie in quarantine.
    pub quarantined: usize,
    /// How many agents there were signs of, since the start, that they are two machines.
    pub twins_total: usize,
    /// Those with the latest signs.
    pub twins: Vec<TwinStatus>,
}

pub(super) fn report(
    ledger: &Ledger,
    books: &Books,
    seen: &Seen,
    quarantined: usize,
    status: &KeeperStatus,
) -> StatusReport {
    let mut all: Vec<&AgentId> = ledger.agents().collect();
    all.sort_unstable();
    let agents_total = all.len();
    let shown = all.into_iter().take(STATUS_AGENTS_MAX);
    let agents = shown
        .map(|agent| agent_status(ledger, seen, agent))
        .collect();
    let twins = status.twins();
    StatusReport {
        twins_total: twins.count(),
        twins: twins.list(TWINS_LISTED_MAX),
        agents_total,
        agents,
        books: books.count(),
        quarantined,
    }
}

fn agent_status(ledger: &Ledger, seen: &Seen, agent: &AgentId) -> AgentStatus {
    let newest = ledger.newest_lanes(agent, STATUS_LANES_MAX);
    let newest = newest.iter().map(|lane| LaneStatus {
        buffer: lane.key.buffer.to_string(),
        lane: lane.key.lane.name().to_owned(),
        ranges: lane.held.iter().map(|run| (run.first, run.end)).collect(),
        batches: lane.held.count(),
        hash_sum: format!("{:032x}", lane.held.sum().0),
    });
    let lanes = newest.collect();
    let said = seen.0.get(agent);
    let (name, software) = said.map_or_else(Default::default, |(name, software, _)| {
        (name.clone(), software.clone())
    });
    AgentStatus {
        agent: agent.to_string(),
        name,
        software,
        last_hello_us: said.map(|(_, _, at)| *at),
        lanes_total: ledger.lanes_count(agent),
        lanes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_protocol::ids::{AgentUuid, BatchHash, BatchKey, BufferId, Lane};
    use tributary_protocol::ledger::Verdict;

    #[test]
    fn of_an_agent_with_many_lives_the_newest_lanes_are_said_and_all_counted() {
        let agent = AgentId::new("acme", AgentUuid([1; 16])).unwrap();
        let (mut ledger, lives) = (Ledger::new(), STATUS_LANES_MAX as u64);
        for life in 1..=lives {
            // Every other one stays announced, and so is not folded.
            let announced = (1..=life).filter(|life| life % 2 == 1 && *life > lives / 2);
            let announced: Vec<_> = announced.map(|life| BufferId::new(life, 7)).collect();
            let session = ledger.open_session(&agent, &announced);
            for lane in [Lane::Alerts, Lane::Telemetry] {
                let (buffer, number) = (BufferId::new(life, 7), 0);
                let key = BatchKey {
                    buffer,
                    lane,
                    number,
                };
                let hash = BatchHash::of(b"a batch");
                let Verdict::Fresh(admission) = ledger.judge(session, &agent, key, hash) else {
                    panic!("{key} is new")
                };
                ledger.commit(admission);
            }
        }
        let status = agent_status(&ledger, &Seen::default(), &agent);
        assert_eq!(status.lanes_total as u64, 2 * lives);
        let said = status
            .lanes
            .iter()
            .map(|lane| (lane.buffer.clone(), lane.lane.clone()));
        let all = ledger
            .lanes(&agent)
            .into_iter()
            .rev()
            .take(STATUS_LANES_MAX);
        let all = all.map(|lane| (lane.key.buffer.to_string(), lane.key.lane.name().to_owned()));
        assert!(said.eq(all));
        assert_eq!(status.lanes[0].buffer, BufferId::new(lives, 7).to_string());
    }
}
