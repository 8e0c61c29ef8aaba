//! A record of the kind `forward`: by which rules and windows readings are forwarded from here on.
//! Total on arbitrary bytes.

use super::Forward;
use crate::wal::{Batch, Queue, RecordKind};

const VERSION: u8 = 1;

/// What it says:
///
/// | at | bytes | field |
/// |---|---|---|
/// | 0 | 1 | version: 1 |
/// | 1 | 32 | [fingerprint](Forward::fingerprint) of the rules and windows |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announced(pub [u8; 32]);

impl Announced {
    /// The record's bytes.
    pub fn write(self) -> Vec<u8> {
        [&[VERSION][..], &self.0].concat()
    }

    /// The record in `bytes`; `None` when they are none of this version.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let fingerprint = bytes.strip_prefix(&[VERSION])?;
        // What a later version adds behind it is passed over.
        fingerprint.first_chunk().copied().map(Self)
    }
}

/// Has the log say by what this life forwards; whether there was room. Call it behind the settings
/// of detection, and before any message is handed to the log.
pub fn announce(queue: &Queue, forward: &Forward) -> bool {
    let mut batch = Batch::new();
    let announced = Announced(forward.fingerprint());
    batch.control(RecordKind::Forward, &announced.write());
    let room = queue.try_room(batch.len_bytes());
    room.map(|room| queue.push(batch, room)).is_some()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_and_what_is_none_is_told() {
        let announced = Announced([7; 32]);
        let mut bytes = announced.write();
        assert_eq!(Announced::read(&bytes), Some(announced));
        for length in 0..bytes.len() {
            assert_eq!(Announced::read(&bytes[..length]), None, "{length}");
        }
        bytes.push(1);
        assert_eq!(Announced::read(&bytes), Some(announced));
        bytes[0] = 2;
        assert_eq!(Announced::read(&bytes), None);
    }
}
