//! Appending: one write and one fdatasync a frame, in segments that are made ahead.
//!
//! Decides nothing about when a frame closes ([`GroupCommit`](crate::GroupCommit) does), and
//! never retries an fdatasync on the same file.

use crate::disk::DiskFile;
use crate::limits::{SEGMENT_HEADER_BYTES, SPARES_MAX, SPARES_SHORT_MAX};
use crate::log::format::{FrameKey, SegmentHeader, encode_frame, frame_bytes};
use crate::log::frame::Frame;
use crate::log::state::{Segment, Shared, State};
use crate::log::{LifeId, LogError};
use std::io;
use std::sync::Arc;
use tributary_planted::planted;

/// What a durable frame's entries are called: `first..first + count` of `life`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The life.
    pub life: LifeId,
    /// The first entry's number.
    pub first: u64,
    /// Entries in the frame.
    pub count: u32,
}

/// The segment that is being written.
struct Active {
    file: Box<dyn DiskFile>,
    first: u64,
    key: FrameKey,
    /// Where the next frame goes.
    at: u64,
    bytes: u64,
    /// It was the last one that there was room for: kept for what frees room.
    last: bool,
}

/// The one writer of a log.
pub struct LogWriter {
    shared: Arc<Shared>,
    life: LifeId,
    next: u64,
    active: Option<Active>,
    /// The frame as it is written.
    scratch: Vec<u8>,
}

impl std::fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            shared, life, next, ..
        } = self;
        f.debug_struct("LogWriter")
            .field("dir", &shared.dir)
            .field("life", life)
            .field("next", next)
            .finish_non_exhaustive()
    }
}

/// Whether a roll may use the last segment that the quota allows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Only if one more can be had behind it.
    LeaveOne,
    /// Whatever is there.
    UseLast,
}

impl LogWriter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (life, next) = {
            let state = shared.lock();
            (state.life, state.next)
        };
        Self {
            shared,
            life,
            next,
            active: None,
            scratch: Vec::new(),
        }
    }

    /// Makes a frame durable: one write, one fdatasync, and on return every reader sees it.
    ///
    /// When the disk fails, the same frame goes with the same numbers into a new segment; when
    /// that fails too, the frame is not durable, and appending it (or another) later tries a new
    /// segment again. After an error a frame may still be found at the next open, unless another
    /// took its numbers.
    ///
    /// # Errors
    /// [`LogError::Full`] and [`LogError::NoSpace`] when it needs a segment that quota or disk do
    /// not allow: nothing was written, and one segment is kept for
    /// [`append_reserved`](Self::append_reserved). [`LogError::Io`] when the disk fails.
    pub fn append(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        self.append_with(frame, Room::LeaveOne)
    }

    /// As [`append`](Self::append), and may use the segment kept back by it: for records that
    /// free room, as a gap before its segments are trimmed.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn append_reserved(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        self.append_with(frame, Room::UseLast)
    }

    fn append_with(&mut self, frame: &Frame, room: Room) -> Result<Appended, LogError> {
        if frame.is_empty() {
            return Err(LogError::FrameEmpty);
        }
        let bytes = frame_bytes(frame.len_bytes());
        let segment_bytes = self.shared.config.segment_bytes;
        if bytes > segment_bytes - SEGMENT_HEADER_BYTES {
            return Err(LogError::FrameBytes {
                bytes,
                segment_bytes,
            });
        }
        let ready = self.make_ready(bytes, room);
        if let Some(ready) = ready {
            let short = ready.as_ref().is_err_and(LogError::is_full);
            self.shared.lock().short = short;
            ready?;
        }
        if let Err(error) = self.write(frame) {
            let log = self.shared.dir.display();
            tracing::error!(%log, %error, "a segment failed; its frame goes into a new one");
            self.roll(Room::UseLast)?;
            self.write(frame)?;
        }
        Ok(self.publish(frame, bytes))
    }

    /// Sees to a segment that takes `bytes`; nothing when the active one does.
    fn make_ready(&mut self, bytes: u64, room: Room) -> Option<Result<(), LogError>> {
        let fits = |active: &&mut Active| active.at + bytes <= active.bytes;
        let Some(active) = self.active.as_mut().filter(fits) else {
            return Some(self.roll_or_retry(room));
        };
        if !active.last || room == Room::UseLast {
            return None;
        }
        let mut state = self.shared.lock();
        if state.spares.is_empty()
            && let Err(error) = self.shared.make_spare(&mut state)
        {
            return Some(Err(error));
        }
        active.last = false;
        Some(Ok(()))
    }

    /// Writes the frame at the end of the active segment. On any error the segment is given up.
    fn write(&mut self, frame: &Frame) -> Result<(), LogError> {
        let active = self
            .active
            .as_ref()
            .expect("a roll that succeeded left a segment to write");
        encode_frame(
            active.key,
            self.next,
            frame.count(),
            frame.payload(),
            &mut self.scratch,
        );
        let written = active
            .file
            .write_at(&self.scratch, active.at)
            .and_then(|()| match planted!(Blind5) {
                true => active.file.sync_data().or_else(|_| active.file.sync_data()),
                false if planted!(SyncSkipped) && self.next.is_multiple_of(3) => Ok(()),
                false => active.file.sync_data(),
            });
        let Err(error) = written else { return Ok(()) };
        let key = (self.life, active.first);
        self.active = None;
        if let Some(segment) = self.shared.lock().segments.get_mut(&key) {
            segment.failed = true;
        }
        Err(self.io_error("writing a frame to", &self.shared.path_of(key), error))
    }

    fn publish(&mut self, frame: &Frame, bytes: u64) -> Appended {
        let appended = Appended {
            life: self.life,
            first: self.next,
            count: frame.count(),
        };
        self.next += u64::from(frame.count());
        let mut state = self.shared.lock();
        state.next = self.next;
        if let Some(active) = &mut self.active {
            let at = active.at;
            active.at += bytes;
            if let Some(segment) = state.segments.get_mut(&(self.life, active.first)) {
                segment.mark(appended.first, at);
                segment.limit = active.at;
                segment.end = self.next;
            }
        }
        appended
    }

    /// Begins a segment, on another file if the first one fails.
    fn roll_or_retry(&mut self, room: Room) -> Result<(), LogError> {
        match self.roll(room) {
            Err(error @ LogError::Io { .. }) => {
                let log = self.shared.dir.display();
                tracing::error!(%log, %error, "a segment could not be begun; trying another");
                self.roll(Room::UseLast)
            }
            decided => decided,
        }
    }

    /// Begins a segment at the next number. Its header and its name are durable before this
    /// returns; a segment of the same name, which then holds no durable frame, is replaced.
    fn roll(&mut self, room: Room) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if state.spares.is_empty() && state.waiting.is_some() {
            shared.sync_names(&mut state)?;
        }
        if state.spares.is_empty() {
            shared.make_spare(&mut state)?;
        }
        let Some(spare) = state.spares.pop() else {
            return Err(shared.no_space());
        };
        // From here to the insertion the spare belongs to nobody; put it back on an early end.
        let held = self.begin(&mut state, &spare, room);
        match held {
            Ok(mut active) => {
                if state.spares.is_empty()
                    && let Err(error) = shared.make_spare(&mut state)
                {
                    tracing::warn!(log = %shared.dir.display(), %error, "no segment ahead");
                    active.last = true;
                }
                self.active = Some(active);
                Ok(())
            }
            Err((error, Spare::Unused)) => {
                state.spares.push(spare);
                Err(error)
            }
            Err((error, Spare::Spoilt)) => {
                // Its name may be there, and ends the segment before it for readers and for the
                // next open: nothing more goes into that one.
                self.active = None;
                // Its next use would be a retry on the same file.
                if let Err(error) = shared.disk.remove(&shared.dir.join(&spare)) {
                    tracing::warn!(log = %shared.dir.display(), spare, %error, "left behind");
                }
                Err(error)
            }
        }
    }

    fn begin(
        &self,
        state: &mut State,
        spare: &str,
        room: Room,
    ) -> Result<Active, (LogError, Spare)> {
        let shared = &self.shared;
        let segment_bytes = shared.config.segment_bytes;
        if room == Room::LeaveOne && state.spares.is_empty() {
            state.spares.push(spare.to_owned());
            let ahead = shared.make_spare(state);
            state.spares.retain(|name| name != spare);
            ahead.map_err(|error| (error, Spare::Unused))?;
        }
        let from = shared.dir.join(spare);
        let key = (self.life, self.next);
        let to = shared.path_of(key);
        let begun = || {
            let stamp = shared.disk.stamp()?;
            let mut header =
                SegmentHeader::new(shared.config.kind, self.life, self.next, segment_bytes);
            header.salt = stamp.salt;
            header.created_us = stamp.created_us;
            let file = shared.disk.open(&from)?;
            file.write_at(&header.encode(), 0)?;
            file.sync_data()?;
            shared.disk.rename(&from, &to)?;
            Ok((header, file))
        };
        let (header, file) = begun().map_err(|error| {
            (
                self.io_error("beginning a segment in", &from, error),
                Spare::Spoilt,
            )
        })?;
        let segment = Segment {
            bytes: segment_bytes,
            end: self.next,
            limit: SEGMENT_HEADER_BYTES,
            key: header.key(),
            created_us: header.created_us,
            index: Vec::new(),
            failed: false,
            settled: false,
        };
        if let Some((first, before)) = state.segments.range_mut((self.life, 0)..key).next_back() {
            debug_assert!(first.1 < self.next);
            // Frames behind its durable end, written but not confirmed, are void from now on.
            before.end = self.next;
        }
        state.segments.insert(key, segment);
        let synced = shared.disk.sync_dir(&shared.dir);
        synced.map_err(|error| {
            (
                self.io_error("syncing the names in", &to, error),
                Spare::Spoilt,
            )
        })?;
        let (first, at) = (self.next, SEGMENT_HEADER_BYTES);
        Ok(Active {
            file,
            first,
            key: header.key(),
            at,
            bytes: segment_bytes,
            last: false,
        })
    }

    fn io_error(&self, doing: &'static str, path: &std::path::Path, error: io::Error) -> LogError {
        if error.kind() == io::ErrorKind::StorageFull {
            return self.shared.no_space();
        }
        LogError::io(doing, path, error)
    }

    /// Prepares segments until `spares` are ready, so that as many rolls need no new block.
    ///
    /// # Errors
    /// When quota, disk or reserve have no room for another; those that were made stay.
    pub fn prepare(&mut self, spares: usize) -> Result<(), LogError> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        while state.spares.len() < spares.min(SPARES_SHORT_MAX) {
            shared.make_spare(&mut state)?;
        }
        Ok(())
    }

    /// Segments that are ready behind the one that is written.
    pub fn spares(&self) -> usize {
        self.shared.lock().spares.len()
    }

    /// Gives a spare segment back to the disk, if one can be spared; whether it did.
    pub fn give_back(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if state.spares.len() <= SPARES_MAX {
            return false;
        }
        let spare = state.spares.pop();
        spare.is_some_and(|name| shared.disk.remove(&shared.dir.join(name)).is_ok())
    }

    /// Whether an ordinary append that needs another segment would find one just now.
    pub fn can_roll(&self) -> bool {
        let state = self.shared.lock();
        let (held_bytes, config) = (self.shared.held_bytes(&state), &self.shared.config);
        let missing = SPARES_SHORT_MAX.saturating_sub(state.spares.len()) as u64;
        let more = missing * config.segment_bytes;
        drop(state);
        let free = || self.shared.disk.free_bytes(&self.shared.dir).unwrap_or(0);
        let within_quota = held_bytes.saturating_add(more) <= config.quota_bytes;
        missing == 0 || (within_quota && free() >= config.reserve_bytes.saturating_add(more))
    }

    /// The number that the next entry gets.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The life that is written.
    pub fn life(&self) -> LifeId {
        self.life
    }

    /// Bytes of all segments on disk, the preallocated one included.
    pub fn bytes(&self) -> u64 {
        self.shared.held_bytes(&self.shared.lock())
    }

    /// Bytes of payload that the active segment still takes.
    pub fn room_bytes(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.bytes - active.at)
    }
}

/// What became of a spare segment that could not be begun.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spare {
    Unused,
    Spoilt,
}
