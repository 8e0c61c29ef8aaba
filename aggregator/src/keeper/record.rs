//! Entries of the aggregator's journal: kinds, layout, and how they come back. Pure.
//!
//! Layout of the kinds that carry a batch (integers little endian):
//! version u8 · tenant length u16 · tenant · agent UUID 16 · accepted at i64 (µs since 1970) ·
//! the sealed batch to the end. Kind `gap` has before the sealed batch: count u16 of runs, and for
//! each its first number and one past its last, u64: the numbers that it took. Version 2 is laid
//! out as version 1, and says that the batch is in doubt, another may hold its readings as well:
//! its agent sent it to another aggregator first, and was not told what became of it; or messages
//! that it covers are in a batch of another buffer. Kind `held` has no batch after the time, but:
//! buffer 16 · lane u8 · count u16 of runs, and for each its first number and one past its last,
//! u64, and its hash sum, u128, 0 where it is not known.

use crate::limits::HELD_RUNS_MAX;
use bytes::{Buf, BufMut, Bytes};
use std::ops::Range;
use tributary_protocol::ids::{AgentId, AgentUuid, BufferId, HashSum, Lane, LaneKey};
use tributary_protocol::limits::{NAME_BYTES_MAX, NUMBER_MAX};
use tributary_protocol::ranges::Held;

/// The newest layout that this build writes: of what is in doubt. All else is of version 1, which
/// older builds read.
pub const VERSION: u8 = 2;

/// What a journal entry is. Retired codes are never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// A batch that was accepted.
    Batch = 1,
    /// A batch whose content does not verify, even when it was sent again: its number is held, its
    /// bytes are kept, no sink gets rows of it.
    Quarantined = 2,
    /// A declared loss that was accepted, with the numbers that nobody held before.
    Gap = 3,
    /// Numbers of a lane that the sinks had when the journal was begun: they are held, and no sink
    /// gets anything of them.
    Held = 4,
    /// Reserved: an agent was enrolled.
    Registry = 16,
    /// Reserved: an enrolment token was made or used.
    Token = 17,
    /// Reserved: an agent was revoked.
    Revocation = 18,
}

impl RecordKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Batch,
        Self::Quarantined,
        Self::Gap,
        Self::Held,
        Self::Registry,
        Self::Token,
        Self::Revocation,
    ];

    /// The kind's code in the journal.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether it carries a batch.
    pub fn is_batch(self) -> bool {
        matches!(self, Self::Batch | Self::Quarantined | Self::Gap)
    }

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// Why an entry cannot be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The entry ends within its header.
    #[error("journal record cut short")]
    Truncated,
    /// Written by a later version.
    #[error("journal record of version {0}; this build reads versions 1 to {VERSION}")]
    Version(u8),
    /// It names no agent.
    #[error("journal record without a usable tenant")]
    Tenant,
    /// The numbers of a gap, or those that are held, are none.
    #[error("journal record that takes impossible numbers")]
    Runs,
}

/// A batch as it stands in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BatchRecord {
    /// Who sent it.
    pub agent: AgentId,
    /// When it was accepted: microseconds since 1970, UTC.
    pub accepted_at: i64,
    /// Whether another batch may hold its readings as well, here or at another aggregator.
    pub in_doubt: bool,
    /// Of a gap, the numbers that it took.
    pub runs: Vec<Range<u64>>,
    /// Its sealed bytes, not yet verified.
    pub sealed: Bytes,
}

/// What stands before the sealed bytes.
pub fn header(agent: &AgentId, accepted_at: i64, in_doubt: bool) -> Vec<u8> {
    let tenant = agent.tenant().as_bytes();
    let mut out = Vec::with_capacity(tenant.len() + 27);
    out.put_u8(if in_doubt { VERSION } else { 1 });
    out.put_u16_le(tenant.len() as u16);
    out.put_slice(tenant);
    out.put_slice(&agent.uuid().0);
    out.put_i64_le(accepted_at);
    out
}

/// What stands between the header and the sealed bytes of a gap.
pub fn runs(taken: &[Range<u64>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 + 16 * taken.len());
    out.put_u16_le(taken.len() as u16);
    for run in taken {
        out.put_u64_le(run.start);
        out.put_u64_le(run.end);
    }
    out
}

fn read_runs(bytes: &mut Bytes) -> Result<Vec<Range<u64>>, RecordError> {
    let truncated = |_| RecordError::Truncated;
    let count = usize::from(bytes.try_get_u16_le().map_err(truncated)?);
    let mut runs = Vec::new();
    let mut at = 0;
    for _ in 0..count {
        let first = bytes.try_get_u64_le().map_err(truncated)?;
        let end = bytes.try_get_u64_le().map_err(truncated)?;
        if first < at || first >= end || end > NUMBER_MAX {
            return Err(RecordError::Runs);
        }
        at = end;
        runs.push(first..end);
    }
    Ok(runs)
}

/// Who, when, and whether it is in doubt.
fn read_head(bytes: &mut Bytes) -> Result<(AgentId, i64, bool), RecordError> {
    let truncated = |_| RecordError::Truncated;
    let version = bytes.try_get_u8().map_err(truncated)?;
    if !(1..=VERSION).contains(&version) {
        return Err(RecordError::Version(version));
    }
    let tenant_bytes = usize::from(bytes.try_get_u16_le().map_err(truncated)?);
    if tenant_bytes > NAME_BYTES_MAX {
        return Err(RecordError::Tenant);
    }
    if bytes.len() < tenant_bytes + 24 {
        return Err(RecordError::Truncated);
    }
    let tenant = bytes.split_to(tenant_bytes);
    let tenant = std::str::from_utf8(&tenant).map_err(|_| RecordError::Tenant)?;
    let mut uuid = [0; 16];
    bytes.copy_to_slice(&mut uuid);
    let accepted_at = bytes.get_i64_le();
    let agent = AgentId::new(tenant, AgentUuid(uuid)).map_err(|_| RecordError::Tenant)?;
    Ok((agent, accepted_at, version == VERSION))
}

/// Reads an entry of this kind that carries a batch.
///
/// # Errors
/// What is wrong with it; total on arbitrary bytes.
pub fn parse(kind: RecordKind, mut bytes: Bytes) -> Result<BatchRecord, RecordError> {
    let (agent, accepted_at, in_doubt) = read_head(&mut bytes)?;
    let runs = match kind {
        RecordKind::Gap => read_runs(&mut bytes)?,
        _ => Vec::new(),
    };
    Ok(BatchRecord {
        agent,
        accepted_at,
        in_doubt,
        runs,
        sealed: bytes,
    })
}

/// Numbers that the sinks had when the journal was begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldRecord {
    /// Whose they are.
    pub agent: AgentId,
    /// Of which lane.
    pub key: LaneKey,
    /// They, ascending; a sum is 0 where it is not known apart.
    pub runs: Vec<Held>,
}

impl HeldRecord {
    /// As it stands in the journal: at most [`HELD_RUNS_MAX`] runs.
    pub fn encode(&self, accepted_at: i64) -> Vec<u8> {
        let mut out = header(&self.agent, accepted_at, false);
        out.put_slice(&self.key.buffer.0);
        out.put_u8(self.key.lane.code());
        let runs = self.runs.get(..HELD_RUNS_MAX).unwrap_or(&self.runs);
        out.put_u16_le(runs.len() as u16);
        for run in runs {
            out.put_u64_le(run.first);
            out.put_u64_le(run.end);
            out.put_u128_le(run.sum.0);
        }
        out
    }

    /// Reads an entry of the kind [`RecordKind::Held`].
    ///
    /// # Errors
    /// What is wrong with it; total on arbitrary bytes.
    pub fn parse(mut bytes: Bytes) -> Result<Self, RecordError> {
        let truncated = |_| RecordError::Truncated;
        let (agent, ..) = read_head(&mut bytes)?;
        let mut buffer = [0; 16];
        bytes.try_copy_to_slice(&mut buffer).map_err(truncated)?;
        let lane = Lane::from_code(bytes.try_get_u8().map_err(truncated)?);
        let key = LaneKey {
            buffer: BufferId(buffer),
            lane: lane.ok_or(RecordError::Runs)?,
        };
        let count = usize::from(bytes.try_get_u16_le().map_err(truncated)?);
        let (mut runs, mut at) = (Vec::new(), 0);
        for _ in 0..count {
            let first = bytes.try_get_u64_le().map_err(truncated)?;
            let end = bytes.try_get_u64_le().map_err(truncated)?;
            let sum = HashSum(bytes.try_get_u128_le().map_err(truncated)?);
            if first < at || first >= end || end > NUMBER_MAX {
                return Err(RecordError::Runs);
            }
            at = end;
            runs.push(Held { first, end, sum });
        }
        Ok(Self { agent, key, runs })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::limits::{
        GAP_RUNS_BYTES_MAX, GAP_RUNS_MAX, HELD_RUNS_BYTES_MAX, RECORD_HEADER_BYTES_MAX,
    };
    use proptest::prelude::*;

    fn agent(tenant: &str) -> AgentId {
        AgentId::new(tenant, AgentUuid([3; 16])).unwrap()
    }

    #[test]
    fn a_record_comes_back() {
        let tenants = ["a".to_owned(), "ü".repeat(128)];
        for (tenant, in_doubt) in tenants.into_iter().zip([false, true]) {
            let mut bytes = header(&agent(&tenant), -5, in_doubt);
            assert!(bytes.len() <= RECORD_HEADER_BYTES_MAX);
            bytes.extend_from_slice(b"sealed");
            let record = parse(RecordKind::Batch, bytes.into()).unwrap();
            assert_eq!(record.agent, agent(&tenant));
            assert_eq!(record.in_doubt, in_doubt);
            assert_eq!(
                (record.accepted_at, &record.sealed[..]),
                (-5, &b"sealed"[..])
            );
        }
    }

    #[test]
    fn a_gap_comes_back_with_what_it_took() {
        let taken: Vec<_> = (0..GAP_RUNS_MAX as u64).map(|i| 3 * i..3 * i + 2).collect();
        let mut bytes = header(&agent(&"ü".repeat(128)), 7, false);
        bytes.extend(runs(&taken));
        assert!(bytes.len() <= RECORD_HEADER_BYTES_MAX + GAP_RUNS_BYTES_MAX);
        for end in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..end]);
            assert!(parse(RecordKind::Gap, cut).is_err(), "{end}");
        }
        bytes.extend_from_slice(b"sealed");
        let record = parse(RecordKind::Gap, bytes.into()).unwrap();
        assert_eq!((record.runs, &record.sealed[..]), (taken, &b"sealed"[..]));
    }

    #[test]
    fn what_the_sinks_had_comes_back_with_its_sums() {
        let run = |i: u64| Held {
            first: 3 * i,
            end: 3 * i + 2,
            sum: HashSum(u128::MAX - u128::from(i)),
        };
        let record = HeldRecord {
            agent: agent(&"ü".repeat(128)),
            key: LaneKey {
                buffer: BufferId::new(7, 9),
                lane: Lane::Alerts,
            },
            runs: (0..HELD_RUNS_MAX as u64).map(run).collect(),
        };
        let bytes = Bytes::from(record.encode(7));
        assert!(bytes.len() <= RECORD_HEADER_BYTES_MAX + HELD_RUNS_BYTES_MAX);
        for end in 0..bytes.len() {
            assert!(HeldRecord::parse(bytes.slice(..end)).is_err(), "{end}");
        }
        assert_eq!(HeldRecord::parse(bytes), Ok(record));
    }

    #[test]
    fn every_cut_within_the_header_is_noticed() {
        let whole = Bytes::from(header(&agent("acme"), 1, true));
        for end in 0..whole.len() {
            assert!(
                parse(RecordKind::Batch, whole.slice(..end)).is_err(),
                "{end}"
            );
        }
    }

    #[test]
    fn what_is_in_no_doubt_is_read_by_older_builds_and_later_versions_are_refused() {
        let mut bytes = header(&agent("acme"), 1, false);
        assert_eq!(bytes[0], 1);
        bytes[0] = VERSION + 1;
        let error = parse(RecordKind::Batch, bytes.into()).unwrap_err();
        assert_eq!(error, RecordError::Version(VERSION + 1));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let bytes = Bytes::from(bytes);
            let _ = parse(RecordKind::Gap, bytes.clone());
            let _ = HeldRecord::parse(bytes);
        }
    }
}
