//! Numbers that the journal lost and the lake has: held again, before any agent is told what is
//! held. Otherwise an agent that still has such a batch sends it, and it stands in the lake twice.

use super::Keeper;
use super::record::{self, RecordKind};
use super::store::Store;
use crate::lake::found::{Found, FoundLane};
use crate::limits::REPLAY_READ_BYTES;
use std::collections::BTreeMap;
use tributary_journal::{Entry, LifeId, LogError};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{AgentId, HashSum, LaneKey};
use tributary_protocol::ranges::{Held, HeldRanges};

impl Keeper {
    /// Takes in what the lake has of the entries that could not be read
    /// ([`unread`](super::KeeperParts::unread)). Before anything is asked of this keeper.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn take_in(&mut self, found: Vec<Found>) -> Result<(), LogError> {
        for flush in found {
            self.take_in_flush(flush)?;
        }
        Ok(())
    }

    fn take_in_flush(&mut self, flush: Found) -> Result<(), LogError> {
        let lost = Lost::of(&self.store, flush)?;
        for ((agent, key), lane) in lost.lanes {
            let mut held = HeldRanges::new();
            let ledger = self.judge.ledger.held(&agent, key);
            ledger.into_iter().for_each(|run| held.insert_known(run));
            let runs = lane.numbers.iter();
            let missing: Vec<(u64, u64)> = runs
                .flat_map(|run| held.missing(run.first, run.end))
                .collect();
            // The sum is that of all numbers that no entry brings any more: of these, unless
            // some are held by what stands in the checkpoint alone.
            let count: u64 = missing.iter().map(|(first, end)| end - first).sum();
            let known = lost.whole && count == lane.numbers.count();
            let mut sum = if known { lane.sum } else { HashSum::default() };
            for (first, end) in missing {
                tracing::warn!(%agent, lane = %key.lane, buffer = %key.buffer, first, end,
                    "the journal lost these batches and the lake has them: they stay held");
                // Apart, nobody knows whose it is; the lane has it once.
                let sum = std::mem::take(&mut sum);
                let run = Held { first, end, sum };
                self.judge.ledger.recover_run(&agent, key, run);
                // The next checkpoint knows it without the lake.
                self.checkpoint_due = true;
            }
        }
        Ok(())
    }
}

/// What a flush has and no entry that can be read brings.
struct Lost {
    lanes: BTreeMap<(AgentId, LaneKey), FoundLane>,
    /// All its entries were looked at.
    whole: bool,
}

impl Lost {
    fn of(store: &Store, flush: Found) -> Result<Self, LogError> {
        let mut lost = Self {
            lanes: flush.lanes,
            whole: true,
        };
        let (reader, life) = (store.reader(), LifeId(store.log().0));
        let mut read: Vec<Entry> = Vec::new();
        let mut next = flush.entries.start;
        while next < flush.entries.end {
            match reader.read(life, next, REPLAY_READ_BYTES, &mut read) {
                Ok(()) => {}
                Err(LogError::Damaged { numbers, .. }) => {
                    next = numbers.end;
                    continue;
                }
                Err(LogError::Trimmed { first, .. }) => {
                    lost.whole = false;
                    next = first.max(next + 1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let Some(last) = read.last() else { break };
            next = last.number + 1;
            for entry in read.drain(..) {
                lost.strike(entry);
            }
        }
        Ok(lost)
    }

    /// This entry can be read: what it holds is not lost.
    fn strike(&mut self, entry: Entry) {
        let kind = RecordKind::from_code(entry.kind).filter(|kind| kind.is_batch());
        let Some(record) = kind.and_then(|kind| record::parse(kind, entry.bytes).ok()) else {
            return;
        };
        let Ok(batch) = SealedBatch::open(record.sealed) else {
            return;
        };
        let (key, hash) = (batch.key(), batch.hash());
        let Some(lane) = self.lanes.get_mut(&(record.agent, key.lane_key())) else {
            return;
        };
        let own = key.number..key.number.saturating_add(1);
        let runs = match kind {
            Some(RecordKind::Gap) => record.runs.as_slice(),
            _ => std::slice::from_ref(&own),
        };
        for run in runs {
            for (first, end) in lane.numbers.within(run.start, run.end) {
                let addends = HashSum::default().with_each(hash, end - first);
                lane.sum = HashSum(lane.sum.0.wrapping_sub(addends.0));
                lane.numbers.remove(first, end);
            }
        }
    }
}
