//! The ledger as bytes: what a new journal segment begins after. Versioned, little endian, total
//! on arbitrary bytes. Pending batches and sessions are not in it: neither outlives the process.

use super::messages::{Known, Messages, Segment};
use super::{AgentLedger, Covered, LaneLedger, Ledger, OlderLanes};
use crate::ids::{AgentId, AgentUuid, BufferId, HashSum, Lane, LaneKey, LogId};
use crate::limits::{LEDGER_HASHES_MAX, NAME_BYTES_MAX, NUMBER_MAX};
use crate::ranges::{Held, HeldRanges};
use bytes::{Buf, BufMut, TryGetError};
use std::collections::BTreeSet;
use std::ops::Range;

/// Version 1 knew of no other journal, version 2 of no lanes without rows, version 3 of no message.
/// The oldest version that can say all is written; what an older build makes of that is in
/// `docs/wire.md`.
const VERSION: u16 = 4;

/// Why bytes are no checkpoint of a ledger.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes end too early.
    #[error("ledger checkpoint cut short")]
    Truncated,
    /// Bytes are left over.
    #[error("{0} bytes after the end of the ledger checkpoint")]
    Trailing(usize),
    /// Written by a version that this build does not know.
    #[error("ledger checkpoint of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// A field holds what it may not.
    #[error("ledger checkpoint: bad {0}")]
    Field(&'static str),
}

impl From<TryGetError> for CheckpointError {
    fn from(_: TryGetError) -> Self {
        Self::Truncated
    }
}

impl Ledger {
    /// Appends the ledger to `out`, the same bytes for the same content.
    pub fn write_checkpoint(&self, out: &mut Vec<u8>) {
        let version = self.version();
        out.put_u16_le(version);
        let mut agents: Vec<_> = self.agents.iter().collect();
        agents.sort_by_key(|(id, _)| *id);
        out.put_u32_le(agents.len() as u32);
        for (id, agent) in agents {
            out.put_u16_le(id.tenant().len() as u16);
            out.put_slice(id.tenant().as_bytes());
            out.put_slice(&id.uuid().0);
            out.put_u32_le(agent.unfolded.len() as u32);
            agent
                .unfolded
                .iter()
                .for_each(|buffer| out.put_slice(&buffer.0));
            if version >= 3 {
                let older = agent.folded.older();
                out.put_u64_le(older.lanes);
                out.put_u64_le(older.count);
                out.put_u128_le(older.sum.0);
            }
            write_lanes(out, version, agent);
            if version >= 4 {
                write_messages(out, &agent.messages);
            }
        }
    }

    /// The oldest version that can say all of it.
    fn version(&self) -> u16 {
        let agents = || self.agents.values();
        let mut lanes = agents().flat_map(|agent| agent.lanes.values());
        if agents().any(|agent| agent.messages.iter().next().is_some()) {
            4
        } else if agents().any(|agent| agent.folded.older() != OlderLanes::default()) {
            3
        } else if lanes.any(|lane| !lane.elsewhere.is_empty()) {
            2
        } else {
            1
        }
    }

    /// The ledger in `bytes`, all of which must be used.
    ///
    /// # Errors
    /// What is wrong with them; nothing of a bad checkpoint is used.
    pub fn read_checkpoint(mut bytes: &[u8]) -> Result<Self, CheckpointError> {
        let input = &mut bytes;
        let version = input.try_get_u16_le()?;
        if !(1..=VERSION).contains(&version) {
            return Err(CheckpointError::Version(version));
        }
        let mut ledger = Self::new();
        for _ in 0..input.try_get_u32_le()? {
            let (id, agent) = read_agent(version, input)?;
            if ledger.agents.insert(id, agent).is_some() {
                return Err(CheckpointError::Field("agent, which is there twice"));
            }
        }
        if input.has_remaining() {
            return Err(CheckpointError::Trailing(input.remaining()));
        }
        Ok(ledger)
    }
}

/// Lanes that are folded are written like the others: whose buffer is drained and which is one run
/// is folded when it is read.
fn write_lanes(out: &mut Vec<u8>, version: u16, agent: &AgentLedger) {
    let folded = agent.folded.lanes();
    let mut folded = folded.peekable();
    out.put_u32_le((agent.lanes.len() + agent.folded.lanes().len()) as u32);
    let nowhere = Covered::default();
    let write_folded = |out: &mut Vec<u8>, key: &LaneKey, run: &Held| {
        write_lane(out, *key, &(*run).into(), agent.recent(*key));
        write_elsewhere(out, version, &nowhere);
    };
    for (key, lane) in &agent.lanes {
        while let Some((before, run)) = folded.next_if(|(before, _)| *before < key) {
            write_folded(out, before, run);
        }
        write_lane(out, *key, &lane.held, agent.recent(*key));
        write_elsewhere(out, version, &lane.elsewhere);
    }
    folded.for_each(|(key, run)| write_folded(out, key, run));
}

fn write_lane<'a>(
    out: &mut Vec<u8>,
    key: LaneKey,
    held: &HeldRanges,
    recent: impl Iterator<Item = &'a (u64, u64)>,
) {
    out.put_slice(&key.buffer.0);
    out.put_u8(key.lane.code());
    write_runs(out, held);
    let recent: Vec<_> = recent.collect();
    let recent = recent.get(recent.len().saturating_sub(LEDGER_HASHES_MAX)..);
    let recent = recent.unwrap_or_default();
    out.put_u32_le(recent.len() as u32);
    for (number, short) in recent {
        out.put_u64_le(*number);
        out.put_u64_le(*short);
    }
}

fn write_elsewhere(out: &mut Vec<u8>, version: u16, elsewhere: &Covered) {
    if version < 2 {
        return;
    }
    out.put_u64_le(elsewhere.floor());
    out.put_u32_le(elsewhere.by_log().len() as u32);
    for (log, runs) in elsewhere.by_log() {
        out.put_slice(&log.0);
        write_runs(out, runs);
    }
}

fn write_runs(out: &mut Vec<u8>, runs: &HeldRanges) {
    out.put_u32_le(runs.iter().len() as u32);
    for run in runs.iter() {
        out.put_u64_le(run.first);
        out.put_u64_le(run.end);
        out.put_u128_le(run.sum.0);
    }
}

fn read_agent(version: u16, input: &mut &[u8]) -> Result<(AgentId, AgentLedger), CheckpointError> {
    let tenant_bytes = usize::from(input.try_get_u16_le()?);
    if tenant_bytes > NAME_BYTES_MAX {
        return Err(CheckpointError::Field("tenant"));
    }
    let (tenant, rest) = input
        .split_at_checked(tenant_bytes)
        .ok_or(CheckpointError::Truncated)?;
    *input = rest;
    let tenant = std::str::from_utf8(tenant).map_err(|_| CheckpointError::Field("tenant"))?;
    let uuid = AgentUuid(read_16(input)?);
    let id = AgentId::new(tenant, uuid).map_err(|_| CheckpointError::Field("tenant"))?;
    let mut agent = AgentLedger::default();
    // No bound on counts here: each item takes input, and what was written must be read.
    for _ in 0..input.try_get_u32_le()? {
        agent.unfolded.push(BufferId(read_16(input)?));
    }
    if version >= 3 {
        agent.folded.set_older(OlderLanes {
            lanes: input.try_get_u64_le()?,
            count: input.try_get_u64_le()?,
            sum: HashSum(input.try_get_u128_le()?),
        });
    }
    for _ in 0..input.try_get_u32_le()? {
        let (key, lane) = read_lane(version, input)?;
        if agent.lanes.insert(key, lane).is_some() {
            return Err(CheckpointError::Field("lane, which is there twice"));
        }
    }
    if version >= 4 {
        agent.messages = read_messages(input)?;
    }
    let unfolded: BTreeSet<_> = agent.unfolded.iter().collect();
    let drained = agent.lanes.keys().map(|key| key.buffer);
    let drained = drained.filter(|buffer| !unfolded.contains(buffer));
    agent.changed = drained.collect();
    agent.fold_drained();
    agent.bound_in_replay();
    Ok((id, agent))
}

fn read_lane(version: u16, input: &mut &[u8]) -> Result<(LaneKey, LaneLedger), CheckpointError> {
    let buffer = BufferId(read_16(input)?);
    let lane = Lane::from_code(input.try_get_u8()?).ok_or(CheckpointError::Field("lane"))?;
    let held = read_runs(input)?;
    let mut ledger = LaneLedger {
        held,
        ..LaneLedger::default()
    };
    for _ in 0..input.try_get_u32_le()? {
        ledger
            .recent
            .push_back((input.try_get_u64_le()?, input.try_get_u64_le()?));
    }
    if version >= 2 {
        ledger.elsewhere = read_elsewhere(input)?;
    }
    Ok((LaneKey { buffer, lane }, ledger))
}

fn read_elsewhere(input: &mut &[u8]) -> Result<Covered, CheckpointError> {
    let floor = input.try_get_u64_le()?;
    if floor > NUMBER_MAX {
        return Err(CheckpointError::Field("floor"));
    }
    let mut by_log = Vec::new();
    for _ in 0..input.try_get_u32_le()? {
        by_log.push((LogId(read_16(input)?), read_runs(input)?));
    }
    Ok(Covered::from_parts(by_log, floor))
}

fn read_runs(input: &mut &[u8]) -> Result<HeldRanges, CheckpointError> {
    let mut runs = HeldRanges::new();
    for _ in 0..input.try_get_u32_le()? {
        let (first, end) = (input.try_get_u64_le()?, input.try_get_u64_le()?);
        let sum = HashSum(input.try_get_u128_le()?);
        if end > NUMBER_MAX || !runs.insert_run(Held { first, end, sum }) {
            return Err(CheckpointError::Field("range"));
        }
    }
    Ok(runs)
}

fn write_messages(out: &mut Vec<u8>, messages: &Messages) {
    out.put_u32_le(messages.iter().count() as u32);
    let put_range = |out: &mut Vec<u8>, range: &Range<u64>| {
        out.put_u64_le(range.start);
        out.put_u64_le(range.end);
    };
    for (key, known) in messages.iter() {
        out.put_slice(&key.buffer.0);
        out.put_u8(key.lane.code());
        out.put_u32_le(known.own.len() as u32);
        for segment in &known.own {
            put_range(out, &segment.numbers);
            put_range(out, &segment.messages);
        }
        out.put_u32_le(known.others.len() as u32);
        for (by, runs) in &known.others {
            out.put_slice(&by.0);
            out.put_u32_le(runs.len() as u32);
            runs.iter().for_each(|run| put_range(out, run));
        }
    }
}

fn read_messages(input: &mut &[u8]) -> Result<Messages, CheckpointError> {
    let mut messages = Messages::default();
    for _ in 0..input.try_get_u32_le()? {
        let buffer = BufferId(read_16(input)?);
        let lane = Lane::from_code(input.try_get_u8()?).ok_or(CheckpointError::Field("lane"))?;
        let mut known = Known::default();
        for _ in 0..input.try_get_u32_le()? {
            known.own.push(Segment {
                numbers: read_range(input)?,
                messages: read_range(input)?,
            });
        }
        for _ in 0..input.try_get_u32_le()? {
            let by = BufferId(read_16(input)?);
            for _ in 0..input.try_get_u32_le()? {
                known.add(by, read_range(input)?);
            }
        }
        if !messages.insert(LaneKey { buffer, lane }, known) {
            return Err(CheckpointError::Field("messages, which are there twice"));
        }
    }
    messages.bound();
    Ok(messages)
}

fn read_range(input: &mut &[u8]) -> Result<Range<u64>, CheckpointError> {
    let range = input.try_get_u64_le()?..input.try_get_u64_le()?;
    match range.start <= range.end && range.end <= NUMBER_MAX {
        true => Ok(range),
        false => Err(CheckpointError::Field("range of messages")),
    }
}

fn read_16(input: &mut &[u8]) -> Result<[u8; 16], CheckpointError> {
    let (id, rest) = input
        .split_first_chunk()
        .ok_or(CheckpointError::Truncated)?;
    let id = *id;
    *input = rest;
    Ok(id)
}
