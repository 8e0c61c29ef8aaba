//! Tributary's storage: a segmented log, cursors, checkpoints, and small state that may be rebuilt.
//!
//! In the order data travels: [`disk`] is the seam to the file system, [`meter`] counts what goes
//! through it, [`commit`] decides when a
//! group commit closes, [`log`] is the one log with its uses (WAL, spool, journal, dead letters),
//! [`cursor`] and [`checkpoint`] keep what must survive beside a log, [`state_db`] keeps what may
//! be lost. [`sim_disk`] is a disk for tests: it breaks on request.
//!
//! This crate knows bytes, numbers and files. It knows no reading, no batch, no protocol and no
//! network, and starts no thread. *Durable* always means: after a successful `fdatasync`.
//! `docs/storage.md` holds the byte layouts and the rules of recovery.
#![forbid(unsafe_code)]

pub mod disk;
pub mod limits;
pub mod meter;
pub mod read_only;

pub mod commit;
pub mod log;

pub mod checkpoint;
pub mod cursor;
pub mod state_db;

pub mod sim_disk;

mod bytes_at;

pub use checkpoint::{Checkpoint, CheckpointError, Checkpoints};
pub use commit::{CommitPolicy, GroupCommit, Wear, WearBudget};
pub use cursor::{Cursor, CursorError};
pub use disk::{DirLock, Disk, DiskFile, LockError, OsDisk, Stamp};
pub use log::{
    Appended, Damage, Entry, Frame, FrameError, LifeId, LifeSpan, Log, LogConfig, LogError,
    LogKind, LogReader, LogWriter, Open, Opened, Recovery, SegmentInfo, copy_path, is_kept,
    keep_copy, was_told,
};
pub use meter::{Counts, Meter, MeteredDisk};
pub use read_only::ReadOnlyDisk;
pub use sim_disk::{SimDisk, Survival};
pub use state_db::{Batch, StateDb, StateDbError, StateReader};
