//! What the agent knows beside its logs, up to one message of the write-ahead log: a checkpoint
//! plus the messages after it give everything back. Versioned, total on arbitrary bytes.

use crate::capture::Captures;
use crate::configuration::InForce;
use crate::deadletter::put_back::Done;
use crate::marks::{Marks, MarksError};
use crate::seal::Origin;
use bytes::{Buf, BufMut};
use std::collections::BTreeSet;
use tributary_protocol::ids::BufferId;

/// Version 1 ended behind the declared places: its rules were the ones that always hold, and no
/// dead letter was put back. Version 2 ended behind those: nothing was captured.
const VERSION: u16 = 3;

/// Why bytes are no checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes end too early.
    #[error("checkpoint cut short")]
    Truncated,
    /// Written by a version that this build does not know.
    #[error("checkpoint of version {0}; this build reads version {VERSION}")]
    Version(u16),
    /// The marks in it.
    #[error("checkpoint: {0}")]
    Marks(#[from] MarksError),
}

/// The agent's state at one place of its write-ahead log.
#[derive(Debug)]
pub struct Checkpoint {
    /// The first message that is not in it. Every lane covers all before it.
    pub position: Origin,
    /// Which messages were seen.
    pub marks: Marks,
    /// Damaged places of the log that stand under a gap already.
    pub declared: BTreeSet<u64>,
    /// By which rules messages are decoded.
    pub in_force: InForce,
    /// Which dead letters were put back.
    pub put_back: Done,
    /// Before this record no checkpoint of any stage needs the log; `None`: nobody said so.
    pub needed: Option<Origin>,
    /// What is captured.
    pub captures: Captures,
}

impl Checkpoint {
    /// What is known where there is none; its position means nothing.
    pub fn of_nothing() -> Self {
        Self {
            position: Origin {
                buffer: BufferId([0; 16]),
                number: 0,
            },
            marks: Marks::new(),
            declared: BTreeSet::new(),
            in_force: InForce::default(),
            put_back: Done::default(),
            needed: None,
            captures: Captures::default(),
        }
    }

    /// The checkpoint as bytes.
    pub fn write(
        position: Origin,
        marks: &Marks,
        declared: &BTreeSet<u64>,
        in_force: InForce,
        put_back: &Done,
        (needed, captures): (Option<Origin>, &Captures),
    ) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u16_le(VERSION);
        write_origin(position, &mut out);
        marks.write_checkpoint(&mut out);
        out.put_u32_le(declared.len() as u32);
        declared.iter().for_each(|place| out.put_u64_le(*place));
        in_force.write(&mut out);
        put_back.write(&mut out);
        out.put_u8(u8::from(needed.is_some()));
        needed.iter().for_each(|at| write_origin(*at, &mut out));
        captures.write(&mut out);
        out
    }

    /// The checkpoint in `bytes`. What a later version adds behind it is passed over.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(mut bytes: &[u8]) -> Result<Self, CheckpointError> {
        let input = &mut bytes;
        let version = Self::read_version(input)?;
        let position = Self::read_origin(input)?;
        let marks = Marks::read_checkpoint(input)?;
        let short = |_| CheckpointError::Truncated;
        let mut declared = BTreeSet::new();
        for _ in 0..input.try_get_u32_le().map_err(short)? {
            declared.insert(input.try_get_u64_le().map_err(short)?);
        }
        let (in_force, put_back) = match version {
            1 => Default::default(),
            _ => {
                let short = CheckpointError::Truncated;
                let in_force = InForce::read(input).ok_or(short.clone())?;
                (in_force, Done::read(input).ok_or(short)?)
            }
        };
        let short = CheckpointError::Truncated;
        let (needed, captures) = match version {
            1 | 2 => Default::default(),
            _ => {
                let is_needed = input.try_get_u8().map_err(|_| short.clone())? != 0;
                let needed = is_needed.then(|| Self::read_origin(input)).transpose()?;
                (needed, Captures::read(input).ok_or(short)?)
            }
        };
        Ok(Self {
            position,
            marks,
            declared,
            in_force,
            put_back,
            needed,
            captures,
        })
    }

    /// Only the position of the checkpoint in `input`, which is moved behind it.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn read_position(input: &mut &[u8]) -> Result<Origin, CheckpointError> {
        Self::read_version(input)?;
        Self::read_origin(input)
    }

    fn read_version(input: &mut &[u8]) -> Result<u16, CheckpointError> {
        let short = |_| CheckpointError::Truncated;
        match input.try_get_u16_le().map_err(short)? {
            version @ 1..=VERSION => Ok(version),
            version => Err(CheckpointError::Version(version)),
        }
    }

    fn read_origin(input: &mut &[u8]) -> Result<Origin, CheckpointError> {
        let short = |_| CheckpointError::Truncated;
        let (id, rest) = input
            .split_first_chunk()
            .ok_or(CheckpointError::Truncated)?;
        let buffer = BufferId(*id);
        *input = rest;
        Ok(Origin {
            buffer,
            number: input.try_get_u64_le().map_err(short)?,
        })
    }
}

fn write_origin(origin: Origin, out: &mut Vec<u8>) {
    out.put_slice(&origin.buffer.0);
    out.put_u64_le(origin.number);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use crate::decode::RulesHash;
    use tributary_journal::LifeId;

    fn written(in_force: InForce, put_back: &Done) -> (Origin, Vec<u8>) {
        let position = Origin {
            buffer: BufferId::new(7, 3),
            number: 40,
        };
        let declared = BTreeSet::from([5, 9]);
        (
            position,
            Checkpoint::write(
                position,
                &Marks::new(),
                &declared,
                in_force,
                put_back,
                (Some(position), &Captures::default()),
            ),
        )
    }

    #[test]
    fn what_is_in_force_comes_back() {
        for in_force in [
            InForce::Unsaid,
            InForce::Named(RulesHash([7; 32])),
            InForce::Lost,
        ] {
            let mut put_back = Done::default();
            put_back.insert_range(LifeId([3; 16]), 4..9);
            let (position, bytes) = written(in_force, &put_back);
            let read = Checkpoint::read(&bytes).unwrap();
            assert_eq!((read.position, read.in_force), (position, in_force));
            assert_eq!(read.declared, BTreeSet::from([5, 9]));
            assert_eq!((read.put_back, read.needed), (put_back, Some(position)));
            for length in 0..bytes.len() {
                assert!(Checkpoint::read(&bytes[..length]).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn a_checkpoint_of_version_1_or_2_is_still_read_and_of_version_4_refused() {
        let (position, mut bytes) = written(InForce::Unsaid, &Done::default());
        // What is needed, and no captures.
        bytes.truncate(bytes.len() - (1 + 24) - (32 + 1 + 4 + 4 + 8 + 4));
        bytes[0] = 2;
        let read = Checkpoint::read(&bytes).unwrap();
        assert_eq!((read.position, read.needed), (position, None));
        // One byte of what is in force, and four of no letters.
        bytes.truncate(bytes.len() - 5);
        bytes[0] = 1;
        let read = Checkpoint::read(&bytes).unwrap();
        assert_eq!((read.position, read.in_force), (position, InForce::Unsaid));
        bytes[0] = 4;
        let error = Checkpoint::read(&bytes).unwrap_err();
        assert_eq!(error, CheckpointError::Version(4));
    }
}
