//! Power cuts for the real programs: what they do to their disks is recorded once, operation by
//! operation (`tests/shim/disk.c`), and then the power goes at any of them. The disks are built up
//! as the cut leaves them, the real programs start on them, and everything that a device had an
//! acknowledgement for by then must come out, once.
//!
//! `log`, `inode` and `disk` are a model without files or processes. `recording` makes recordings,
//! `cuts` replays them, `bits` flips bits of what they left. In `faults` single calls fail.

pub mod bits;
pub mod cuts;
pub mod disk;
pub mod faults;
pub mod inode;
pub mod log;
pub mod proof;
pub mod recording;
pub mod tree;
pub mod truth;

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
