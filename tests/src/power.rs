//! Power cuts for the real programs: what they do to their disks is recorded once, operation by
//! operation (`tests/shim/disk.c`), and then the power goes at any of them. The disks are built up
//! as the cut leaves them, the real programs start on them, and everything that a device had an
//! acknowledgement for by then must come out, once. The devices come back, too, and send again what
//! they have no answer to; and the power may go a second time meanwhile.
//!
//! `log`, `inode` and `disk` are a model of disks without files or processes, `wire` is one of
//! devices. `recording` makes recordings, `stored` says what they had stored when; `cuts` replays
//! them, `recovery` and `devices` are what follows, `bits` flips bits of what was left. In `faults`
//! single calls fail, and then the power goes.

use crate::dice::Dice;

pub mod bits;
pub mod cuts;
pub mod devices;
pub mod disk;
pub mod faults;
pub mod inode;
pub mod listener;
pub mod log;
pub mod proof;
pub mod recording;
pub mod recovery;
pub mod stored;
pub mod tree;
pub mod truth;
pub mod wire;

/// What a power cut leaves of what was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Each page, length and name with a chance of one half, by this seed; some pages are torn
    /// between sectors of 512 bytes.
    Half(u64),
    /// Everything: it had been written back in time.
    All,
}

/// What makes names durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// An fsync of their directory alone, and what is left survives name by name: the least that
    /// a file system may do.
    ByDirectory,
    /// Any sync, and what is left survives up to one of them: a file system with a journal.
    Journal,
}

impl Survival {
    /// Each of the three in turn.
    pub fn by_dice(number: u64, dice: &mut Dice) -> Self {
        match number % 3 {
            0 => Self::Nothing,
            1 => Self::Half(dice.bits()),
            _ => Self::All,
        }
    }
}

impl Names {
    /// Either.
    pub fn by_dice(dice: &mut Dice) -> Self {
        match dice.below(2) {
            0 => Self::ByDirectory,
            _ => Self::Journal,
        }
    }
}
