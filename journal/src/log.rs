//! The segmented log: one piece of code for the write-ahead log, the spools, the aggregator's
//! journal and the dead letters.
//!
//! Entries are numbered per *life* ([`LifeId`]), written in frames (group commits), kept in
//! segments, and trimmed by whole segments. One [`LogWriter`], any number of [`LogReader`]s on
//! other threads. The log knows no content: an entry is a kind, a number and bytes. It takes no
//! lock on its directory ([`DirLock`](crate::DirLock) does) and decides nothing about time.
//!
//! Rules that callers build on:
//! - What [`LogWriter::append`] returned for is durable; nothing else is ever read.
//! - A number of a life names one entry for ever. After a crash the frame that was being written
//!   may be there or not; no other entry comes back, except that trimming may be undone.
//! - Damage never keeps a log from opening: it is copied aside, reported, and read around.

pub mod format;
mod frame;
mod quarantine;
mod reader;
mod recover;
mod scan;
mod settle;
mod state;
mod writer;

pub use frame::{Frame, FrameError};
pub use quarantine::{copy_path, is_kept, keep_copy, was_told};
pub use reader::LogReader;
pub use writer::{Appended, LogWriter};

use crate::disk::Disk;
use crate::limits::{QUOTA_SEGMENTS_MIN, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};
use bytes::Bytes;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One life of a log: a `BufferId` or a `LogId`. A greater one, by bytes, is a later life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LifeId(pub [u8; 16]);

impl fmt::Display for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for LifeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LifeId({self})")
    }
}

/// What a log is used for; stands in every segment, so that one is never taken for another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum LogKind {
    /// An agent's write-ahead log of messages.
    Wal = 1,
    /// An agent's sealed batches of one lane.
    Spool = 2,
    /// An aggregator's accepted batches.
    Journal = 3,
    /// Messages that could not be decoded.
    DeadLetter = 4,
}

impl LogKind {
    /// The kind's code in a segment's header.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Wal, Self::Spool, Self::Journal, Self::DeadLetter]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// How much a log may hold, and of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Bytes of a segment; see [`segment_bytes`](crate::limits::segment_bytes).
    pub segment_bytes: u64,
    /// Bytes of all segments together, the preallocated one included.
    pub quota_bytes: u64,
    /// Bytes of the file system that are left free.
    pub reserve_bytes: u64,
    /// What the log is used for.
    pub kind: LogKind,
}

impl LogConfig {
    fn check(&self) -> Result<(), LogError> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(LogError::SegmentBytes {
                bytes: self.segment_bytes,
            });
        }
        let least = self.segment_bytes.saturating_mul(QUOTA_SEGMENTS_MIN);
        if self.quota_bytes < least {
            return Err(LogError::QuotaBytes {
                bytes: self.quota_bytes,
                least,
            });
        }
        Ok(())
    }
}

/// In which life an opened log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Open {
    /// A new life with numbers from 0; must not be in the log yet. Older ones are only read.
    NewLife(LifeId),
    /// The greatest life that the log holds, numbers going on; `if_empty` when it holds none.
    SameLife {
        /// The life to begin in an empty log.
        if_empty: LifeId,
    },
}

/// A log, open.
#[derive(Debug)]
pub struct Opened {
    /// The only writer.
    pub writer: LogWriter,
    /// The first reader; clone it for more.
    pub reader: LogReader,
    /// What was found.
    pub recovery: Recovery,
}

/// What the log holds of one life: the numbers `first..end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LifeSpan {
    /// The life.
    pub life: LifeId,
    /// The smallest number still held.
    pub first: u64,
    /// One more than the greatest number.
    pub end: u64,
}

/// What opening a log found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Recovery {
    /// Every life found, oldest first, and last the one that goes on.
    pub lives: Vec<LifeSpan>,
    /// Bytes of frames that were being written when the power went: never acknowledged.
    pub torn_bytes: u64,
    /// What is damaged, of what was looked at: all headers, and the newest segment of each life.
    /// Found again at each open until the segment is trimmed; one that was moved aside, and that
    /// no reader meets, until it is removed from `quarantine/`.
    pub damage: Vec<Damage>,
}

impl Recovery {
    /// The damage that no reader meets, because it lies outside every [`LifeSpan`] or nobody knows
    /// how many entries it held: the caller declares it itself, once for each segment and offset,
    /// and durably before it trims that life. All other damage comes as [`LogError::Damaged`].
    pub fn unmet(&self) -> impl Iterator<Item = &Damage> {
        self.damage.iter().filter(|damage| {
            let numbers = &damage.numbers;
            let holds = |span: &LifeSpan| {
                let inside = span.first <= numbers.start && numbers.end <= span.end;
                span.life == damage.life && inside
            };
            numbers.is_empty() || !self.lives.iter().any(holds)
        })
    }
}

/// Entries that cannot be read back although they were durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The life.
    pub life: LifeId,
    /// The numbers; empty when it is unknown how many followed `start`. They may lie outside of
    /// what the log holds of the life, and the life may hold nothing else.
    pub numbers: Range<u64>,
    /// The segment's file name.
    pub segment: String,
    /// Where in the file the damage begins.
    pub offset: u64,
    /// Bytes until the next good frame.
    pub bytes: u64,
}

/// One entry, read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The life it was written in.
    pub life: LifeId,
    /// Its number there.
    pub number: u64,
    /// The caller's kind.
    pub kind: u8,
    /// The caller's bytes.
    pub bytes: Bytes,
}

/// One segment, for the catalogue and for `buffer ls`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentInfo {
    /// The life.
    pub life: LifeId,
    /// The first number.
    pub first: u64,
    /// One more than the last number, so far.
    pub end: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// When it was begun, by the clock of then.
    pub created_us: i64,
    /// The file.
    pub path: PathBuf,
}

/// Why the log could not do something.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The quota is used up; nothing was written.
    #[error(
        "the log in {} holds {held_bytes} of {quota_bytes} bytes: nothing fits until it is \
         trimmed; raise its quota if that happens in normal use",
        dir.display()
    )]
    Full {
        /// The log's directory.
        dir: PathBuf,
        /// Its quota.
        quota_bytes: u64,
        /// What it holds.
        held_bytes: u64,
    },
    /// The file system is full, but for the reserve; nothing was written.
    #[error(
        "the disk under {} has no room for another segment with {reserve_bytes} bytes in reserve: \
         free some",
        dir.display()
    )]
    NoSpace {
        /// The log's directory.
        dir: PathBuf,
        /// The configured reserve.
        reserve_bytes: u64,
    },
    /// The disk failed; nothing of the call is durable.
    #[error("{} {}: {source}", doing, path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// These entries were durable and cannot be read; go on at `numbers.end`.
    #[error(
        "entries {}..{} of life {life} are damaged in {segment}, from byte {offset} on",
        numbers.start, numbers.end
    )]
    Damaged {
        /// The life.
        life: LifeId,
        /// What cannot be read, never empty.
        numbers: Range<u64>,
        /// The file it stood in.
        segment: String,
        /// Where in the file.
        offset: u64,
        /// How many bytes, to the next good frame.
        bytes: u64,
    },
    /// The entries asked for were trimmed.
    #[error("entries of life {life} below {first} are gone: they were trimmed")]
    Trimmed {
        /// The life.
        life: LifeId,
        /// The smallest number still held; the life's end when nothing is.
        first: u64,
    },
    /// The life that was to be new is in the log.
    #[error("life {life} was begun before: a new life needs an id of its own")]
    LifeExists {
        /// The life.
        life: LifeId,
    },
    /// A frame without entries.
    #[error("an empty frame was to be appended")]
    FrameEmpty,
    /// The frame cannot fit into a segment of this log.
    #[error("a frame of {bytes} bytes does not fit into segments of {segment_bytes}")]
    FrameBytes {
        /// The frame, with its header.
        bytes: u64,
        /// The log's segments.
        segment_bytes: u64,
    },
    /// A segment belongs to a log of another kind.
    #[error(
        "{} is a segment of another log (kind code {kind}, expected {expected:?}): check the paths",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its kind's code.
        kind: u8,
        /// What the log is.
        expected: LogKind,
    },
    /// A segment was written by a newer version.
    #[error(
        "{} has format version {version}, this program knows up to {}: use the newer program",
        path.display(),
        format::VERSION
    )]
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
    /// The configured size of a segment is out of bounds.
    #[error("segments of {bytes} bytes: expected {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}")]
    SegmentBytes {
        /// What was configured.
        bytes: u64,
    },
    /// The configured quota is too small.
    #[error("a quota of {bytes} bytes: expected at least {least}, {QUOTA_SEGMENTS_MIN} segments")]
    QuotaBytes {
        /// What was configured.
        bytes: u64,
        /// The least for these segments.
        least: u64,
    },
}

impl LogError {
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    /// Whether trimming, or freeing disk space, mends it: stop acknowledging and try again.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoSpace { .. })
    }
}

/// The door into a log.
#[derive(Debug)]
pub struct Log;

impl Log {
    /// Opens the log in `dir`, which is made when it is missing.
    ///
    /// Reads every segment's header and scans the newest segment of each life. What is found is
    /// never appended to: the first [`append`](LogWriter::append) begins a new segment. What it
    /// then says that the log holds is durable, whatever the process before had confirmed. Opens
    /// on a full disk and beyond its quota, too; appending is what waits then.
    ///
    /// # Errors
    /// Wrong configuration, a segment of another log or of a newer version, or a disk that fails,
    /// by not making durable what was found, too: opening again tries again. Damage is not an
    /// error.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: LogConfig,
        open: Open,
    ) -> Result<Opened, LogError> {
        config.check()?;
        let (shared, recovery) = recover::recover(disk, dir, config, open)?;
        let shared = Arc::new(shared);
        let writer = LogWriter::new(Arc::clone(&shared));
        Ok(Opened {
            writer,
            reader: LogReader::new(shared),
            recovery,
        })
    }
}
