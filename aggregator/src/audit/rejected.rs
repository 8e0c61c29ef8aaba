//! What the lake could not write as rows: the lists in `rejected/`, and the batches beside them.

use super::LaneId;
use super::lane_of;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use tributary_protocol::ids::BatchHash;
use tributary_protocol::limits::BATCH_BYTES_MAX;

/// An entry of a list in `rejected/`.
#[derive(serde::Deserialize)]
pub(super) struct Rejected {
    pub(super) entry: u64,
    offset: u64,
    bytes: usize,
    agent: String,
    batch: String,
    hash: String,
    pub(super) reason: String,
}

impl Rejected {
    /// Its bytes.
    pub(super) fn read(&self, file: &mut File) -> Option<Vec<u8>> {
        if self.bytes > BATCH_BYTES_MAX {
            return None;
        }
        let mut bytes = vec![0; self.bytes];
        file.seek(SeekFrom::Start(self.offset)).ok()?;
        file.read_exact(&mut bytes).ok()?;
        Some(bytes)
    }

    pub(super) fn of(&self) -> Option<(LaneId, u64)> {
        let mut parts = self.batch.split('/');
        let (buffer, lane, number) = (parts.next()?, parts.next()?, parts.next()?);
        let lane = lane_of(&self.agent, buffer, lane)?;
        Some((lane, number.parse().ok()?))
    }

    pub(super) fn hash(&self) -> Option<BatchHash> {
        let mut hash = [0; 32];
        for (i, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(self.hash.get(2 * i..2 * i + 2)?, 16).ok()?;
        }
        Some(BatchHash(hash))
    }
}
