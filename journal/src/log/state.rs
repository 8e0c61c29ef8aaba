//! What writer and readers of one log share: the segments, the spare ones, and their bytes.
//!
//! Held under one lock, for moments only: no call to the disk is made under it but those of
//! trimming and rolling, which must not pass each other.

use crate::disk::Disk;
use crate::limits::{INDEX_STRIDE_BYTES, SEGMENT_HEADER_BYTES, SPARES_MAX, SPARES_SHORT_MAX};
use crate::log::format::{FrameKey, segment_name};
use crate::log::{LifeId, LifeSpan, LogConfig, LogError, SegmentInfo};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A segment's name: whose numbers, and from where.
pub(crate) type SegmentKey = (LifeId, u64);

/// One segment on disk.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Bytes of the file.
    pub bytes: u64,
    /// One more than the last number: that of the next segment, or of the last durable frame.
    pub end: u64,
    /// Where the last durable frame ends; for a segment that has a successor, the file's end.
    pub limit: u64,
    pub key: FrameKey,
    pub created_us: i64,
    /// Places of some frames: (first number, offset), ascending.
    pub index: Vec<(u64, u64)>,
    /// A write or sync of it failed: never written again, so never recycled.
    pub failed: bool,
    /// An open before this one made its end durable, and cut off the rest.
    pub settled: bool,
}

impl Segment {
    /// Remembers where a frame stands, if the last place remembered is far enough away.
    pub fn mark(&mut self, first: u64, at: u64) {
        let last = self
            .index
            .last()
            .map_or(SEGMENT_HEADER_BYTES, |(_, at)| *at);
        if at >= last.saturating_add(INDEX_STRIDE_BYTES) {
            self.index.push((first, at));
        }
    }

    /// Where to begin to look for `number`.
    pub fn nearest(&self, number: u64) -> (u64, u64) {
        let behind = self.index.partition_point(|(first, _)| *first <= number);
        let place = behind.checked_sub(1).and_then(|i| self.index.get(i));
        place.copied().unwrap_or((0, SEGMENT_HEADER_BYTES))
    }
}

/// The mutable part.
#[derive(Debug)]
pub(crate) struct State {
    pub segments: BTreeMap<SegmentKey, Segment>,
    /// File names of spare segments, each of the configured size.
    pub spares: Vec<String>,
    /// The number of the next spare file.
    pub next_spare: u64,
    /// What trimming did to the names could not be made durable yet.
    pub names_unsynced: bool,
    /// A segment renamed to a spare one, not to be written while its old name may come back.
    pub waiting: Option<String>,
    /// The life that is written, and its next number.
    pub life: LifeId,
    pub next: u64,
    /// The writer found no room for another segment, and none was made since.
    pub short: bool,
}

impl State {
    /// Spare segments that are worth keeping. Where room is short, an ordinary roll must find the
    /// one that it leaves behind, too: what is given back to the disk, others may take.
    pub fn spares_wanted(&self) -> usize {
        if self.short {
            SPARES_SHORT_MAX
        } else {
            SPARES_MAX
        }
    }

    /// The segment that holds `number`, or would.
    pub fn segment_of(&self, life: LifeId, number: u64) -> Option<(SegmentKey, &Segment)> {
        let below = self.segments.range((life, 0)..=(life, number));
        below.last().map(|(key, segment)| (*key, segment))
    }

    pub fn of_life(&self, life: LifeId) -> impl DoubleEndedIterator<Item = (u64, &Segment)> {
        let all = self.segments.range((life, 0)..=(life, u64::MAX));
        all.map(|((_, first), segment)| (*first, segment))
    }

    pub fn span(&self, life: LifeId) -> Option<LifeSpan> {
        let first = self.of_life(life).next().map(|(first, _)| first);
        if life == self.life {
            return Some(LifeSpan {
                life,
                first: first.unwrap_or(self.next),
                end: self.next,
            });
        }
        let end = self.of_life(life).next_back()?.1.end;
        Some(LifeSpan {
            life,
            first: first?,
            end,
        })
    }

    /// Every life, oldest first.
    pub fn lives(&self) -> Vec<LifeSpan> {
        let mut lives: Vec<LifeId> = self.segments.keys().map(|(life, _)| *life).collect();
        lives.push(self.life);
        lives.sort_unstable();
        lives.dedup();
        lives
            .into_iter()
            .filter_map(|life| self.span(life))
            .collect()
    }
}

/// One log, as its writer and readers share it.
pub(crate) struct Shared {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub config: LogConfig,
    state: Mutex<State>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, config: LogConfig, state: State) -> Self {
        Self {
            disk,
            dir: dir.to_owned(),
            config,
            state: Mutex::new(state),
        }
    }

    /// The state. Every change to it is one assignment or one map operation, so that a reader's
    /// panic leaves nothing half done.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn path_of(&self, (life, first): SegmentKey) -> PathBuf {
        self.dir.join(segment_name(life, first))
    }

    /// Bytes of all segments, the spare ones too.
    pub fn held_bytes(&self, state: &State) -> u64 {
        let segments: u64 = state.segments.values().map(|segment| segment.bytes).sum();
        let spares = state.spares.len() + usize::from(state.waiting.is_some());
        segments + spares as u64 * self.config.segment_bytes
    }

    /// Makes one more spare segment, if quota and reserve allow it. Its blocks are durably its
    /// own; its name is so after the next sync of the directory.
    pub fn make_spare(&self, state: &mut State) -> Result<(), LogError> {
        let held_bytes = self.held_bytes(state);
        let bytes = self.config.segment_bytes;
        if held_bytes.saturating_add(bytes) > self.config.quota_bytes {
            let quota_bytes = self.config.quota_bytes;
            return Err(LogError::Full {
                dir: self.dir.clone(),
                quota_bytes,
                held_bytes,
            });
        }
        let free = self.disk.free_bytes(&self.dir);
        let free = free.map_err(|error| LogError::io("asking for room in", &self.dir, error))?;
        if free < self.config.reserve_bytes.saturating_add(bytes) {
            return Err(self.no_space());
        }
        let name = spare_name(state.next_spare);
        state.next_spare += 1;
        let path = self.dir.join(&name);
        match self
            .disk
            .create(&path, bytes)
            .and_then(|file| file.sync_data())
        {
            Ok(()) => {
                state.spares.push(name);
                Ok(())
            }
            Err(error) => {
                // If it is there, it is of no use; if that fails too, the next open removes it.
                let _ = self.disk.remove(&path);
                if error.kind() == io::ErrorKind::StorageFull {
                    return Err(self.no_space());
                }
                Err(LogError::io("preallocating", &path, error))
            }
        }
    }

    pub fn no_space(&self) -> LogError {
        LogError::NoSpace {
            dir: self.dir.clone(),
            reserve_bytes: self.config.reserve_bytes,
        }
    }

    /// Gives up the segments of `life` that hold only numbers below `below`, oldest first, each
    /// durably before the next: what is left never has a hole. The newest segment of the life
    /// that is written stays; it says where numbering goes on.
    pub fn trim(&self, life: LifeId, below: u64) -> Result<u64, LogError> {
        let mut freed = 0;
        loop {
            let mut state = self.lock();
            if state.names_unsynced {
                // One that failed before: what it removed goes before what this one removes.
                self.sync_names(&mut state)?;
            }
            let mut of_life = state.of_life(life);
            let Some((first, oldest)) = of_life.next() else {
                return Ok(freed);
            };
            let last = of_life.next().is_none();
            if oldest.end > below || (last && life == state.life) {
                return Ok(freed);
            }
            let bytes = oldest.bytes;
            let recyclable = bytes == self.config.segment_bytes && !oldest.failed;
            drop(of_life);
            let path = self.path_of((life, first));
            let spare = (recyclable && state.spares.len() < state.spares_wanted()).then(|| {
                state.next_spare += 1;
                spare_name(state.next_spare - 1)
            });
            let gone = match &spare {
                Some(name) => self.disk.rename(&path, &self.dir.join(name)),
                None => self.disk.remove(&path),
            };
            match gone {
                // Somebody removed it by hand: it is gone, as it should be.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done.map_err(|error| LogError::io("trimming", &path, error))?,
            }
            state.segments.remove(&(life, first));
            if spare.is_none() {
                freed += bytes;
            }
            state.waiting = spare;
            state.names_unsynced = true;
            self.sync_names(&mut state)?;
        }
    }

    /// Makes durable what trimming did to the names, and with that a recycled segment usable.
    pub fn sync_names(&self, state: &mut State) -> Result<(), LogError> {
        let synced = self.disk.sync_dir(&self.dir);
        synced.map_err(|error| LogError::io("syncing the names in", &self.dir, error))?;
        state.names_unsynced = false;
        let Some(name) = state.waiting.take() else {
            return Ok(());
        };
        let path = self.dir.join(&name);
        if self.disk.open(&path).is_err() {
            // Somebody removed it by hand.
            return Ok(());
        }
        // While it waited, another one may have been made.
        if state.spares.len() < state.spares_wanted() || self.disk.remove(&path).is_err() {
            state.spares.push(name);
        }
        Ok(())
    }

    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.lock();
        let info = |(key, segment): (&SegmentKey, &Segment)| SegmentInfo {
            life: key.0,
            first: key.1,
            end: segment.end,
            bytes: segment.bytes,
            created_us: segment.created_us,
            path: self.path_of(*key),
        };
        state.segments.iter().map(info).collect()
    }
}

/// A spare segment's file name. What stands in it means nothing.
pub(crate) fn spare_name(number: u64) -> String {
    format!("{number:020}.spare")
}

/// The number in a spare segment's file name.
pub(crate) fn parse_spare_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".spare")?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}
