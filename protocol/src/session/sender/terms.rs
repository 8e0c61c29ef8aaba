//! What a sender is told and what it says, as plain values.

use super::{AckedTo, Journal};
use crate::ids::{BatchHash, BatchKey, LaneKey, LogId};
use crate::ranges::{Held, HeldRanges};
use std::ops::Range;

/// What a spool holds of one lane when the agent starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneStart {
    /// Which lane.
    pub key: LaneKey,
    /// The lowest number held.
    pub first: u64,
    /// One past the greatest number that is durable.
    pub end: u64,
    /// Bytes held, about.
    pub bytes: u64,
    /// What was acknowledged, as far as the cursor knows.
    pub acked: Vec<Held>,
}

/// What a cursor keeps of one lane and one that acknowledged of it, so that a restart sends little
/// again. Of one lane in the order in which they were met.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LaneCursor {
    /// Which lane.
    pub key: LaneKey,
    /// By whom.
    pub by: AckedTo,
    /// What was acknowledged.
    pub acked: Vec<Held>,
}

/// What a cursor keeps of a sender.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SenderCursor {
    /// What was acknowledged, lane by lane.
    pub lanes: Vec<LaneCursor>,
    /// Journals that may hold what they did not acknowledge, at most
    /// [`SENT_TO_MAX`](crate::limits::SENT_TO_MAX).
    pub sent_to: Vec<Journal>,
}

impl SenderCursor {
    /// What anybody acknowledged of a lane.
    pub fn acked(&self, key: LaneKey) -> HeldRanges {
        let mut acked = HeldRanges::new();
        let of_lane = |known: &&LaneCursor| known.key == key && known.by != AckedTo::Nobody;
        for known in self.lanes.iter().filter(of_lane) {
            known.acked.iter().for_each(|run| acked.insert_known(*run));
        }
        acked
    }
}

/// What people should hear of; nothing waits for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Notice {
    /// An aggregator does not hold what it acknowledged: its journal went back, or another took
    /// its place.
    WentBack {
        /// The journal that acknowledged it.
        log: LogId,
        /// Which lane.
        lane: LaneKey,
        /// Numbers that are gone from here: nobody can send them again.
        ranges: Vec<Range<u64>>,
        /// How many numbers are still here and are sent again.
        again: u64,
    },
}

/// What a spool says of a batch that is named to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// It is there, and this is its hash.
    There(BatchHash),
    /// It can't be read now, and may be another time: the disk or the system failed.
    Unread,
    /// It is not there, or not any more.
    Gone,
}

impl Lookup {
    pub(super) fn hash(self) -> Option<BatchHash> {
        match self {
            Self::There(hash) => Some(hash),
            Self::Unread | Self::Gone => None,
        }
    }
}

impl From<Option<BatchHash>> for Lookup {
    fn from(hash: Option<BatchHash>) -> Self {
        hash.map_or(Self::Gone, Self::There)
    }
}

/// A batch of the spool, as the sender has to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Its name.
    pub key: BatchKey,
    /// How many numbers it stands for, its own the first of them: of a gap perhaps many.
    pub count: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Its hash.
    pub hash: BatchHash,
    /// How many series must be known before it makes sense.
    pub series_needed: u32,
    /// For a batch of the lane `series`: how many series are known once it is taken.
    pub series_after: u32,
}

/// How a batch ranks against others that are on their way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Urgency {
    /// Sealed before this session.
    Backlog,
    /// Sealed since.
    Live,
    /// What happened to a device or a client: few, and named by themselves.
    Event,
    /// Alerts.
    Alert,
    /// Definitions of series: everything else waits for them.
    Series,
}

/// Numbers of a lane that may leave its spool.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trim {
    /// Which lane.
    pub key: LaneKey,
    /// Everything below this number is acknowledged.
    pub below: u64,
}
