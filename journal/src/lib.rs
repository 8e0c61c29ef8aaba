//! Tributary's storage: a segmented log, cursors, checkpoints, and small state that may be rebuilt.
//!
//! In the order data travels: [`disk`] is the seam to the file system, [`log`] the one log with
//! its uses (WAL, spool, journal, dead letters), [`sim_disk`] is a disk for tests: it breaks on request.
//!
//! This crate knows bytes, numbers and files. It knows no reading, no batch, no protocol and no
//! network, and starts no thread. *Durable* always means: after a successful `fdatasync`.
//! `docs/storage.md` holds the byte layouts and the rules of recovery.
#![forbid(unsafe_code)]

pub mod disk;
pub mod limits;
pub mod log;
pub mod sim_disk;

mod bytes_at;

pub use disk::{DirLock, Disk, DiskFile, LockError, OsDisk, Stamp};
pub use log::{
    Appended, Damage, Entry, Frame, FrameError, LifeId, LifeSpan, Log, LogConfig, LogError,
    LogKind, LogReader, LogWriter, Open, Opened, Recovery, SegmentInfo,
};
pub use sim_disk::{SimDisk, Survival};
