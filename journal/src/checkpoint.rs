//! Whole states that replace each other: written aside, made durable, then named; the last two
//! valid ones are kept. Files for the next ones are [prepared](Checkpoints::prepare), and the
//! oldest one's is written again: on a full disk, too, whoever asked for enough room has it.
//!
//! A checkpoint says nothing about logs: where it stands in one is in its body. Nothing here
//! decides when one is due.

use crate::bytes_at::{Field, put, u16_at, u32_at, u64_at};
use crate::disk::{Disk, DiskFile, read_surely};
use crate::limits::{CHECKPOINT_BYTES_MAX, CHECKPOINTS_KEPT, READ_BYTES};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a checkpoint begins.
pub const MAGIC: [u8; 8] = *b"TRIBCKP\n";
/// The version that this code writes, and the newest that it reads.
pub const VERSION: u16 = 1;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 40;
/// A checkpoint's header; the last checksum is over all fields before it.
pub const HEADER: [Field; 7] = [
    Field::new("checkpoint_magic", 0, 8),
    Field::new("checkpoint_version", 8, 2),
    Field::new("checkpoint_flags", 10, 2),
    Field::new("body_crc32c", 12, 4),
    Field::new("checkpoint_sequence", 16, 8),
    Field::new("body_bytes", 24, 8),
    Field::new("header_crc32c", 32, 4),
];

/// A valid checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Grows by at least one from each to the next.
    pub sequence: u64,
    /// The caller's bytes.
    pub body: Vec<u8>,
}

/// Why a checkpoint could not be written or looked for; those before it are still there.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The body is too long.
    #[error("a checkpoint of {0} bytes: at most {CHECKPOINT_BYTES_MAX} fit")]
    TooLong(u64),
    /// The name cannot be part of a file name.
    #[error("`{0}` names no checkpoint: expected letters, digits and `_`")]
    Name(String),
    /// The disk failed.
    #[error("{doing} checkpoint {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The checkpoints of one name in one directory.
pub struct Checkpoints {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    name: String,
    /// All that are there, valid or not.
    sequences: BTreeSet<u64>,
    /// Those among them that are known to be valid.
    valid: BTreeSet<u64>,
    /// Files that are prepared, by number.
    spares: BTreeSet<u64>,
    /// Bytes that each file is to have room for.
    room_bytes: u64,
    next: u64,
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            dir,
            name,
            sequences,
            ..
        } = self;
        f.debug_struct("Checkpoints")
            .field("dir", dir)
            .field("name", name)
            .field("sequences", sequences)
            .finish_non_exhaustive()
    }
}

impl Checkpoints {
    /// Opens the checkpoints called `name` in `dir`, which is made when it is missing, and clears
    /// away what an interrupted write left. Those found are durable, and may be more than two.
    ///
    /// # Errors
    /// When the disk fails. Whether a checkpoint is damaged is not looked at yet.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, name: &str) -> Result<Self, CheckpointError> {
        let usable = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(usable) {
            return Err(CheckpointError::Name(name.to_owned()));
        }
        let failed = |source| CheckpointError::Io {
            doing: "looking for",
            path: dir.to_owned(),
            source,
        };
        disk.create_dir_all(dir).map_err(failed)?;
        let mut opened = Self {
            disk,
            dir: dir.to_owned(),
            name: name.to_owned(),
            sequences: BTreeSet::new(),
            valid: BTreeSet::new(),
            spares: BTreeSet::new(),
            room_bytes: 0,
            next: 1,
        };
        for file in opened.disk.list(dir).map_err(failed)? {
            if let Some(sequence) = opened.parse(&file, ".ckpt") {
                opened.sequences.insert(sequence);
                opened.next = opened.next.max(sequence.saturating_add(1));
            } else if let Some(number) = opened.parse(&file, ".spare") {
                opened.spares.insert(number);
                opened.next = opened.next.max(number.saturating_add(1));
            } else if opened.parse(&file, ".tmp").is_some() {
                opened.disk.remove(&dir.join(file)).map_err(failed)?;
            }
        }
        // The process before may have been killed between a rename and this.
        opened.disk.sync_dir(dir).map_err(failed)?;
        Ok(opened)
    }

    fn parse(&self, file: &str, suffix: &str) -> Option<u64> {
        let rest = file.strip_prefix(&self.name)?.strip_prefix('-')?;
        let digits = rest.strip_suffix(suffix)?;
        (digits.len() == 20).then(|| digits.parse().ok())?
    }

    fn path(&self, sequence: u64, suffix: &str) -> PathBuf {
        self.dir
            .join(format!("{}-{sequence:020}{suffix}", self.name))
    }

    /// Writes a checkpoint, durably, and removes all but the last two valid ones. The removal is
    /// not made durable, to save a second sync: after a power cut older ones may be back.
    ///
    /// # Errors
    /// When the body is too long or the disk fails; the checkpoints before are untouched then.
    pub fn write(&mut self, body: &[u8]) -> Result<u64, CheckpointError> {
        self.write_parts(&[body])
    }

    /// As [`write`](Self::write); the body is the parts, one after the other.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_parts(&mut self, parts: &[&[u8]]) -> Result<u64, CheckpointError> {
        let bytes: u64 = parts.iter().map(|part| part.len() as u64).sum();
        if bytes > CHECKPOINT_BYTES_MAX {
            return Err(CheckpointError::TooLong(bytes));
        }
        let sequence = self.next;
        self.next += 1;
        if self.sequences.len() > CHECKPOINTS_KEPT {
            // A power cut brought one back: its file may be the one to write.
            self.prune();
        }
        let path = self.path(sequence, ".ckpt");
        let needed = HEADER_BYTES as u64 + bytes;
        // The next one may be somewhat longer.
        self.room_bytes = self.room_bytes.max(needed + needed / 4);
        let mut from = PathBuf::new();
        let mut written = |this: &mut Self| {
            let (file, found) = this.aside(sequence, needed)?;
            from = found;
            file.write_at(&encode_header(sequence, bytes, parts), 0)?;
            let mut at = HEADER_BYTES as u64;
            for part in parts {
                file.write_at(part, at)?;
                at += part.len() as u64;
            }
            file.sync_data()?;
            this.disk.rename(&from, &path)?;
            this.disk.sync_dir(&this.dir)
        };
        if let Err(source) = written(self) {
            // Of no use to anybody under either name; if that fails too, the next open removes
            // the one, and prunes the other in time.
            let _ = self.disk.remove(&from);
            let _ = self.disk.remove(&path);
            return Err(CheckpointError::Io {
                doing: "writing",
                path,
                source,
            });
        }
        self.sequences.insert(sequence);
        self.valid.insert(sequence);
        self.prune();
        self.fill_up();
        Ok(sequence)
    }

    /// Takes room ahead: from now on, the files of the last two checkpoints and of the next one are
    /// to have room for a body of `bytes`, as far as the disk has it.
    pub fn prepare(&mut self, bytes: u64) {
        self.room_bytes = HEADER_BYTES as u64 + bytes.min(CHECKPOINT_BYTES_MAX);
        self.fill_up();
    }

    /// Makes the spare files that are missing; what the disk has no room for now is tried again.
    fn fill_up(&mut self) {
        // Once two are kept, one file is ahead; until then those that they will need, too.
        let kept = self.sequences.len().min(CHECKPOINTS_KEPT);
        let ahead = CHECKPOINTS_KEPT + 1 - kept;
        let long = |number: &&u64| self.bytes_of(**number) >= self.room_bytes;
        let there = self.spares.iter().filter(long).count();
        for _ in there..ahead {
            let number = self.next;
            self.next += 1;
            let path = self.path(number, ".spare");
            if self.disk.create(&path, self.room_bytes).is_err() {
                // Without it, the next one needs a new file.
                break;
            }
            self.spares.insert(number);
        }
        while self.spares.len() > ahead {
            let shortest = self.spares.iter().copied();
            let Some(shortest) = shortest.min_by_key(|number| self.bytes_of(*number)) else {
                return;
            };
            let _ = self.disk.remove(&self.path(shortest, ".spare"));
            self.spares.remove(&shortest);
        }
    }

    fn bytes_of(&self, spare: u64) -> u64 {
        let file = self.disk.open(&self.path(spare, ".spare"));
        file.and_then(|file| file.len()).unwrap_or(0)
    }

    /// A file that takes `needed` bytes without a new block, and its name: a spare one, or a new
    /// one, for which the disk must have room.
    fn aside(&mut self, sequence: u64, needed: u64) -> io::Result<(Box<dyn DiskFile>, PathBuf)> {
        let fits = |number: &&u64| self.bytes_of(**number) >= needed;
        if let Some(number) = self.spares.iter().find(fits).copied() {
            let path = self.path(number, ".spare");
            // Whatever becomes of it: a file that failed is not written again.
            self.spares.remove(&number);
            return Ok((self.disk.open(&path)?, path));
        }
        let temporary = self.path(sequence, ".tmp");
        let file = match self.disk.create(&temporary, needed.max(self.room_bytes)) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                // The spare ones are too short, and their blocks may be what is missing.
                for number in std::mem::take(&mut self.spares) {
                    let _ = self.disk.remove(&self.path(number, ".spare"));
                }
                self.disk.create(&temporary, needed)?
            }
            created => created?,
        };
        Ok((file, temporary))
    }

    /// Gives up a checkpoint's file: it is a spare one from now on.
    fn give_up(&mut self, sequence: u64) -> io::Result<()> {
        let spare = self.path(sequence, ".spare");
        self.disk.rename(&self.path(sequence, ".ckpt"), &spare)?;
        self.spares.insert(sequence);
        Ok(())
    }

    /// Gives up a checkpoint that is whole and that its caller can't read, another version's: it is
    /// not one of the last two valid ones any more.
    ///
    /// # Errors
    /// When the disk fails; the checkpoint stays then.
    pub fn discard(&mut self, sequence: u64) -> Result<(), CheckpointError> {
        if !self.sequences.contains(&sequence) {
            return Ok(());
        }
        self.give_up(sequence)
            .map_err(|source| CheckpointError::Io {
                doing: "giving up",
                path: self.path(sequence, ".ckpt"),
                source,
            })?;
        self.sequences.remove(&sequence);
        self.valid.remove(&sequence);
        Ok(())
    }

    /// Gives up what stands below the last two valid ones. What cannot be removed, or is back after
    /// a power cut, stays until the next time.
    fn prune(&mut self) {
        let mut valid = 0;
        for sequence in self.sequences.clone().into_iter().rev() {
            if valid == CHECKPOINTS_KEPT {
                match self.give_up(sequence) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        let path = self.path(sequence, ".ckpt");
                        tracing::warn!(path = %path.display(), %error, "could not be removed");
                        continue;
                    }
                    _ => {}
                }
                self.sequences.remove(&sequence);
                self.valid.remove(&sequence);
            } else if self.valid.contains(&sequence) || self.verify(sequence) {
                self.valid.insert(sequence);
                valid += 1;
            }
        }
    }

    /// Whether the checkpoint is whole, without holding it.
    fn verify(&self, sequence: u64) -> bool {
        self.read(sequence, |_| {}).is_some()
    }

    /// The valid checkpoints, newest first: two as a rule, more after a power cut, and the older
    /// ones then stand where a log has been trimmed already. Whoever needs only the newest takes
    /// [`newest`](Self::newest): this holds all of them in memory.
    pub fn valid(&self) -> Vec<Checkpoint> {
        self.sequences
            .iter()
            .rev()
            .filter_map(|sequence| self.load(*sequence))
            .collect()
    }

    /// The newest valid checkpoint.
    pub fn newest(&self) -> Option<Checkpoint> {
        self.sequences
            .iter()
            .rev()
            .find_map(|sequence| self.load(*sequence))
    }

    /// The sequence of the newest checkpoint, valid or not.
    pub fn newest_sequence(&self) -> Option<u64> {
        self.sequences.last().copied()
    }

    /// The checkpoint with this sequence, if it is there and valid.
    pub fn load(&self, sequence: u64) -> Option<Checkpoint> {
        let mut body = Vec::new();
        self.read(sequence, |piece| body.extend_from_slice(piece))?;
        Some(Checkpoint { sequence, body })
    }

    /// Reads the body in pieces; `None`, perhaps after some pieces, when it is not valid.
    fn read(&self, sequence: u64, mut piece: impl FnMut(&[u8])) -> Option<()> {
        let path = self.path(sequence, ".ckpt");
        let file = self.disk.open(&path).ok();
        let whole = file.and_then(|file| read_valid(&*file, sequence, &mut piece));
        if whole.is_none() {
            tracing::warn!(path = %path.display(), "this checkpoint is damaged: not used");
        }
        whole
    }
}

fn read_valid(file: &dyn DiskFile, sequence: u64, piece: &mut impl FnMut(&[u8])) -> Option<()> {
    let mut header = vec![0; HEADER_BYTES];
    if read_surely(file, &mut header, 0).ok()? != HEADER_BYTES {
        return None;
    }
    let (body_bytes, body_crc) = decode_header(&header, sequence)?;
    if file.len().ok()? < HEADER_BYTES as u64 + body_bytes {
        return None;
    }
    let mut buffer = vec![0; READ_BYTES];
    let (mut crc, mut done) = (0, 0);
    while done < body_bytes {
        let wanted = usize::try_from(body_bytes - done).map_or(READ_BYTES, |n| n.min(READ_BYTES));
        let buffer = buffer.get_mut(..wanted)?;
        if read_surely(file, buffer, HEADER_BYTES as u64 + done).ok()? != wanted {
            return None;
        }
        crc = crc32c::crc32c_append(crc, buffer);
        piece(buffer);
        done += wanted as u64;
    }
    (crc == body_crc).then_some(())
}

fn encode_header(sequence: u64, body_bytes: u64, parts: &[&[u8]]) -> Vec<u8> {
    let crc = parts
        .iter()
        .fold(0, |crc, part| crc32c::crc32c_append(crc, part));
    let mut header = vec![0; HEADER_BYTES];
    put(&mut header, 0, &MAGIC);
    put(&mut header, 8, &VERSION.to_le_bytes());
    put(&mut header, 12, &crc.to_le_bytes());
    put(&mut header, 16, &sequence.to_le_bytes());
    put(&mut header, 24, &body_bytes.to_le_bytes());
    let crc = header.get(..32).map_or(0, crc32c::crc32c);
    put(&mut header, 32, &crc.to_le_bytes());
    header
}

/// Bytes and checksum of the body.
fn decode_header(header: &[u8], sequence: u64) -> Option<(u64, u32)> {
    let good = header.starts_with(&MAGIC)
        && crc32c::crc32c(header.get(..32)?) == u32_at(header, 32)?
        && u16_at(header, 8)? <= VERSION
        && u64_at(header, 16)? == sequence;
    let body_bytes = u64_at(header, 24)?;
    (good && body_bytes <= CHECKPOINT_BYTES_MAX).then_some((body_bytes, u32_at(header, 12)?))
}
