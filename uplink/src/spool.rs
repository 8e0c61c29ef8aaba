//! What the uplink needs of whoever keeps the batches: no storage is known here.

use std::ops::Range;
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchKey, LaneKey};
use tributary_protocol::session::{SenderCursor, Trim};

/// A batch that became durable in its spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Which.
    pub key: BatchKey,
    /// Its bytes.
    pub bytes: u64,
}

/// Batches that their spool gave up: a gap stands for them, durably, and is handed out instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// Of which lane.
    pub key: LaneKey,
    /// Which numbers.
    pub numbers: Range<u64>,
    /// Bytes that they held.
    pub bytes: u64,
}

/// Why a batch can't be read from its spool.
#[derive(Debug, thiserror::Error)]
#[error("batch {key} can't be read from the spool: {reason}")]
pub struct SpoolError {
    /// Which.
    pub key: BatchKey,
    /// Why.
    pub reason: String,
    /// Whether it may well be read another time: the disk or the system failed, not the batch.
    pub passing: bool,
}

/// What is done where a disk may be waited for: whether it was kept, durably.
pub type Save = Box<dyn FnOnce() -> bool + Send>;

/// Where batches are until they are acknowledged.
pub trait Spool: Send {
    /// A batch that is durable here.
    ///
    /// # Errors
    /// When the disk fails, or when it is gone for good; then it is passed over. For damage a gap
    /// of the same name is handed out, and for what was given up the gap that stands for it.
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError>;
    /// What was given up since the last call.
    fn take_sheds(&mut self) -> Vec<Shed> {
        Vec::new()
    }
    /// Everything below is acknowledged and may go.
    fn trim(&mut self, trim: Trim);
    /// Keeps what was acknowledged, so that a restart sends little again, and lets go of what was
    /// [trimmed](Self::trim) until now: gives the part of it that waits for a disk. It runs on
    /// another thread, and is over before there is another one.
    fn save(&mut self, cursor: &SenderCursor) -> Save;
}
