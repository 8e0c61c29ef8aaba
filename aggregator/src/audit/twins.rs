//! Signs on disk that an agent is two machines: a life of its storage under two names, and batches
//! that contradict what is held. They are no disagreement: each is kept apart, as it should be.

use super::Numbers;
use super::report::Alarm;
use crate::keeper::reseal::is_from_quarantine;
use crate::limits::{AUDIT_ALARMS_MAX, QUARANTINE_FILES_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tributary_protocol::ids::{AgentId, AgentUuid, BufferId, LaneKey};
use tributary_protocol::ledger::Ledger;
use tributary_protocol::ranges::HeldRanges;

const COPIED: &str = "if a copy or an older image of its disk was used, see docs/identity.md; if \
                      its storage was replaced, and the old one is gone, this is of no matter";
const CONTRARY: &str = "another machine has its identity, or its disk lied: see docs/identity.md; \
                        `tributary-aggregator quarantine ls` lists them, `replay` takes them in";

/// Lives of this agent's storage that stand under more than one name, and how many these are.
fn copied(ledger: &Ledger, agent: &AgentId) -> BTreeMap<u64, BTreeSet<BufferId>> {
    let mut lives: BTreeMap<u64, BTreeSet<BufferId>> = BTreeMap::new();
    for lane in ledger.lanes(agent) {
        let buffer = lane.key.buffer;
        if !is_from_quarantine(buffer) {
            lives.entry(buffer.life()).or_default().insert(buffer);
        }
    }
    lives.retain(|_, names| names.len() > 1);
    lives
}

/// The UUID, lane and number in the name of a file of the quarantine.
fn parse(name: &str) -> Option<(AgentUuid, LaneKey, u64)> {
    let mut parts = name.split('-');
    let uuid = parts.next()?.parse().ok()?;
    let (buffer, lane) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some((uuid, LaneKey { buffer, lane }, parts.next()?.parse().ok()?))
}

/// Batches in quarantine that did not come there because they never verified, by agent.
fn contrary(dir: &Path, unverified: [&Numbers; 2]) -> BTreeMap<AgentUuid, u64> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = files
        .take(2 * QUARANTINE_FILES_MAX)
        .filter_map(|file| file.file_name().into_string().ok());
    let mut counts = BTreeMap::new();
    for (uuid, key, number) in names.filter_map(|name| parse(&name)) {
        let is_of = |((agent, lane), numbers): (&(AgentId, LaneKey), &HeldRanges)| {
            agent.uuid() == uuid && *lane == key && numbers.contains(number)
        };
        let mut all = unverified.into_iter().flatten();
        if !all.any(is_of) {
            *counts.entry(uuid).or_default() += 1;
        }
    }
    counts
}

/// The alarms, and how many more there are. `unverified`: the numbers of batches that never
/// verified.
pub(super) fn alarms(
    ledger: &Ledger,
    quarantine: &Path,
    unverified: [&Numbers; 2],
) -> (Vec<Alarm>, u64) {
    let mut agents: Vec<&AgentId> = ledger.agents().collect();
    agents.sort_unstable();
    let contrary = contrary(quarantine, unverified);
    let (mut alarms, mut more) = (Vec::new(), 0);
    let mut push = |agent: &AgentId, what: String, todo: &str| {
        if alarms.len() >= AUDIT_ALARMS_MAX {
            more += 1;
            return;
        }
        let (agent, todo) = (agent.to_string(), todo.to_owned());
        alarms.push(Alarm { agent, what, todo });
    };
    for agent in agents {
        if let Some(count) = contrary.get(&agent.uuid()) {
            let what = format!("{count} batches in quarantine contradict what is held");
            push(agent, what, CONTRARY);
        }
        let copied = copied(ledger, agent);
        if let Some((life, names)) = copied.last_key_value() {
            let names: Vec<_> = names.iter().take(4).map(ToString::to_string).collect();
            let what = format!(
                "{} lives of its storage stand under more than one name, the last of them {life}: \
                 {}",
                copied.len(),
                names.join(", ")
            );
            push(agent, what, COPIED);
        }
    }
    (alarms, more)
}
