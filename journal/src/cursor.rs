//! A small value that is replaced often and durably, in blocks taken once: two slots, written in
//! turn.
//!
//! Moving it forward needs no new block, so trimming, shedding and starting work on a full disk;
//! also when its file fails, since another one lies ready beside it. It knows nothing of what the
//! value means.

use crate::bytes_at::{Field, put, u32_at, u64_at};
use crate::disk::{Disk, DiskFile, read_surely};
use crate::limits::{CURSOR_SLOT_BYTES, CURSOR_SLOT_BYTES_MAX};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a slot begins: "TCUR".
pub const MAGIC: u32 = u32::from_le_bytes(*b"TCUR");
/// Bytes of a slot before its value.
pub const HEADER_BYTES: usize = 24;
/// A slot's header; the checksum is over everything behind it, to the end of the value.
pub const HEADER: [Field; 5] = [
    Field::new("slot_magic", 0, 4),
    Field::new("slot_crc32c", 4, 4),
    Field::new("slot_sequence", 8, 8),
    Field::new("value_bytes", 16, 4),
    Field::new("slot_bytes", 20, 4),
];
const SLOTS: u64 = 2;

/// Why a cursor could not be opened or moved.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// The value does not fit.
    #[error("a value of {bytes} bytes does not fit into the slots of {}: {most}", path.display())]
    TooLong {
        /// The cursor.
        path: PathBuf,
        /// The value.
        bytes: usize,
        /// What a slot takes.
        most: usize,
    },
    /// The size asked for is out of bounds.
    #[error("slots of {0} bytes: expected whole pages, at most {CURSOR_SLOT_BYTES_MAX}")]
    SlotBytes(u64),
    /// The disk failed; the value before the last one written is still there.
    #[error("{doing} cursor {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The cursor.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A cursor, open for writing.
pub struct Cursor {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    slot_bytes: u64,
    sequence: u64,
    /// A write or sync failed: the file is not written again, but replaced.
    failed: bool,
    damaged: bool,
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, sequence, .. } = self;
        f.debug_struct("Cursor")
            .field("path", path)
            .field("sequence", sequence)
            .finish()
    }
}

impl Cursor {
    /// Opens the cursor at `path`, or makes one with slots of 4 KiB, and returns the last value.
    ///
    /// # Errors
    /// When the disk fails. A damaged file gives the other slot's value, or none.
    pub fn open(disk: Arc<dyn Disk>, path: &Path) -> Result<(Self, Option<Vec<u8>>), CursorError> {
        Self::open_sized(disk, path, CURSOR_SLOT_BYTES)
    }

    /// As [`open`](Self::open), with slots of `slot_bytes` where the cursor is new. An existing
    /// one keeps its own size.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the size is not whole pages or too large.
    pub fn open_sized(
        disk: Arc<dyn Disk>,
        path: &Path,
        slot_bytes: u64,
    ) -> Result<(Self, Option<Vec<u8>>), CursorError> {
        let whole = slot_bytes > 0 && slot_bytes.is_multiple_of(CURSOR_SLOT_BYTES);
        if !whole || slot_bytes > CURSOR_SLOT_BYTES_MAX {
            return Err(CursorError::SlotBytes(slot_bytes));
        }
        let failed = |doing, source| CursorError::Io {
            doing,
            path: path.to_owned(),
            source,
        };
        match disk.open(path) {
            Ok(file) => {
                let bytes = file.len().map_err(|error| failed("opening", error))?;
                let held = bytes / SLOTS;
                let usable = bytes.is_multiple_of(SLOTS * CURSOR_SLOT_BYTES)
                    && (CURSOR_SLOT_BYTES..=CURSOR_SLOT_BYTES_MAX).contains(&held);
                let slot_bytes = if usable { held } else { slot_bytes };
                let found = newest(&*file, slot_bytes);
                let (sequence, value) = found.value.map_or((0, None), |(s, v)| (s, Some(v)));
                let path = path.to_owned();
                prepare(&*disk, &path, slot_bytes);
                let cursor = Self {
                    disk,
                    path,
                    file,
                    slot_bytes,
                    sequence,
                    failed: !usable,
                    damaged: found.damaged,
                };
                Ok((cursor, value))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = make(&*disk, path, slot_bytes, None);
                let file = made.map_err(|error| failed("making", error))?;
                let path = path.to_owned();
                prepare(&*disk, &path, slot_bytes);
                let cursor = Self {
                    disk,
                    path,
                    file,
                    slot_bytes,
                    sequence: 0,
                    failed: false,
                    damaged: false,
                };
                Ok((cursor, None))
            }
            Err(error) => Err(failed("opening", error)),
        }
    }

    /// Replaces the value, durably: one write, one fdatasync. After a crash it is this value or,
    /// if this did not return, perhaps the one before. When the file fails, another takes its
    /// place, with this value in both slots.
    ///
    /// # Errors
    /// When the value is too long, or neither the file nor a new one can be written.
    pub fn write(&mut self, value: &[u8]) -> Result<(), CursorError> {
        let most = self.value_bytes_max();
        if value.len() > most {
            let path = self.path.clone();
            return Err(CursorError::TooLong {
                path,
                bytes: value.len(),
                most,
            });
        }
        let sequence = self.sequence + 1;
        let slot = encode(sequence, self.slot_bytes, value);
        if !self.failed {
            let at = sequence % SLOTS * self.slot_bytes;
            match self
                .file
                .write_at(&slot, at)
                .and_then(|()| self.file.sync_data())
            {
                Ok(()) => {
                    self.sequence = sequence;
                    return Ok(());
                }
                Err(error) => {
                    let cursor = self.path.display();
                    tracing::error!(%cursor, %error, "a cursor's file failed and is replaced");
                    self.failed = true;
                }
            }
        }
        let made = make(
            &*self.disk,
            &self.path,
            self.slot_bytes,
            Some((sequence, value)),
        );
        let path = &self.path;
        self.file = made.map_err(|source| CursorError::Io {
            doing: "replacing",
            path: path.clone(),
            source,
        })?;
        self.sequence = sequence;
        self.failed = false;
        prepare(&*self.disk, &self.path, self.slot_bytes);
        Ok(())
    }

    /// Bytes of a value, at most.
    pub fn value_bytes_max(&self) -> usize {
        self.slot_bytes as usize - HEADER_BYTES
    }

    /// Whether a slot was found that held something and could not be read: the value returned is
    /// an older one, or none although there was one. An interrupted write looks the same.
    pub fn damaged(&self) -> bool {
        self.damaged
    }
}

/// The name of the file that takes the place of one that fails.
fn spare_of(path: &Path) -> Option<PathBuf> {
    let mut name = path.file_name()?.to_owned();
    name.push(".new");
    Some(path.with_file_name(name))
}

/// Takes the blocks of the next file while there are some; best effort.
fn prepare(disk: &dyn Disk, path: &Path, slot_bytes: u64) {
    if let Some(spare) = spare_of(path)
        && let Err(error) = spare_file(disk, &spare, slot_bytes)
    {
        tracing::debug!(cursor = %path.display(), %error, "no file lies ready for a cursor");
    }
}

/// The file of that name, empty or not, of two slots.
fn spare_file(disk: &dyn Disk, spare: &Path, slot_bytes: u64) -> io::Result<Box<dyn DiskFile>> {
    match disk.open(spare) {
        Ok(file) if file.len()? == SLOTS * slot_bytes => return Ok(file),
        Ok(_) => disk.remove(spare)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    disk.create(spare, SLOTS * slot_bytes)
}

/// A file of two slots, complete and durable before it has its name. Both hold the value: one of
/// them may be damaged later.
fn make(
    disk: &dyn Disk,
    path: &Path,
    slot_bytes: u64,
    first: Option<(u64, &[u8])>,
) -> io::Result<Box<dyn DiskFile>> {
    let (Some(dir), Some(spare)) = (path.parent(), spare_of(path)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    disk.create_dir_all(dir)?;
    let filled = || {
        let file = match first {
            Some(_) => spare_file(disk, &spare, slot_bytes)?,
            None => {
                // What an earlier one left there is no value of this one.
                match disk.remove(&spare) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => disk.create(&spare, SLOTS * slot_bytes)?,
                }
            }
        };
        if let Some((newest, value)) = first {
            for sequence in [newest - 1, newest] {
                let slot = encode(sequence, slot_bytes, value);
                file.write_at(&slot, sequence % SLOTS * slot_bytes)?;
            }
        }
        file.sync_data()?;
        Ok(file)
    };
    let file = filled().inspect_err(|_| {
        // A file that failed is not written again.
        let _ = disk.remove(&spare);
    })?;
    disk.rename(&spare, path)?;
    disk.sync_dir(dir)?;
    Ok(file)
}

fn encode(sequence: u64, slot_bytes: u64, value: &[u8]) -> Vec<u8> {
    let mut slot = vec![0; HEADER_BYTES];
    put(&mut slot, 0, &MAGIC.to_le_bytes());
    put(&mut slot, 8, &sequence.to_le_bytes());
    put(&mut slot, 16, &(value.len() as u32).to_le_bytes());
    put(&mut slot, 20, &(slot_bytes as u32).to_le_bytes());
    slot.extend_from_slice(value);
    let crc = slot.get(8..).map_or(0, crc32c::crc32c);
    put(&mut slot, 4, &crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8], slot_bytes: u64) -> Option<(u64, Vec<u8>)> {
    if u32_at(slot, 0)? != MAGIC || u64::from(u32_at(slot, 20)?) != slot_bytes {
        return None;
    }
    let bytes = u32_at(slot, 16)? as usize;
    let end = HEADER_BYTES.checked_add(bytes)?;
    let summed = slot.get(8..end)?;
    (crc32c::crc32c(summed) == u32_at(slot, 4)?)
        .then(|| Some((u64_at(slot, 8)?, slot.get(HEADER_BYTES..end)?.to_vec())))?
}

struct Found {
    value: Option<(u64, Vec<u8>)>,
    damaged: bool,
}

fn newest(file: &dyn DiskFile, slot_bytes: u64) -> Found {
    let mut found = Found {
        value: None,
        damaged: false,
    };
    for place in 0..SLOTS {
        let mut slot = vec![0; slot_bytes as usize];
        // A slot that cannot be read is a damaged one.
        let Ok(read) = read_surely(file, &mut slot, place * slot_bytes) else {
            found.damaged = true;
            continue;
        };
        slot.truncate(read);
        match decode(&slot, slot_bytes) {
            Some(value) => found.value = found.value.take().max(Some(value)),
            None => found.damaged |= slot.iter().any(|byte| *byte != 0),
        }
    }
    found
}
