//! A bit that flips on a machine's disk, and what nobody can read back for it: found by opening
//! the log that it hit, before and after, on a copy.
//!
//! Some bits are flipped back, because it is known that they cost what is promised: one in the last
//! frame of a log looks like a frame that was being written; of what is kept twice (a segment's
//! header, a checkpoint, a cursor, definitions of series) both copies.

use crate::limits::SEGMENT_BYTES;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::sim_disk::{FileClass, Flipped, Salts};
use tributary_journal::{Disk, LifeId, Log, LogConfig, LogError, LogKind, Open, SimDisk, Survival};

/// What a flipped bit hit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    /// In which folder.
    pub dir: PathBuf,
    /// Entries of the log there that can't be read any more.
    pub lost: BTreeSet<(LifeId, u64)>,
}

/// The bits that flipped on one machine's disk.
#[derive(Clone, Debug, Default)]
pub struct Bits {
    /// What is kept twice, and was hit once.
    hit: BTreeSet<PathBuf>,
}

impl Bits {
    /// Flips a bit of this class, which one as `random` says; what came of it.
    pub fn flip(&mut self, disk: &SimDisk, class: FileClass, random: u64) -> Option<Hit> {
        let before = disk.fork(Salts::Other(9));
        let flipped = disk.flip(class, random)?;
        let hit = self.hit(disk, &before, (class, &flipped));
        if hit.is_none() {
            disk.flip_bit(&flipped.path, flipped.offset, flipped.bit);
        }
        hit
    }

    fn hit(
        &mut self,
        disk: &SimDisk,
        before: &SimDisk,
        (class, flipped): (FileClass, &Flipped),
    ) -> Option<Hit> {
        let dir = flipped.path.parent()?;
        if let Some(twice) = kept_twice(class, &flipped.path)
            && !self.hit.insert(twice)
        {
            return None;
        }
        let Some(kind) = kind_of(dir) else {
            return Some(Hit {
                dir: dir.to_owned(),
                lost: BTreeSet::new(),
            });
        };
        let was = held(before, dir, kind)?;
        let is = held(disk, dir, kind)?;
        let lost: BTreeSet<_> = was.into_keys().filter(|it| !is.contains_key(it)).collect();
        // What is behind it in the page cache alone may be gone by the time somebody looks.
        let durable = entries(
            &disk.fork(Salts::Other(9)).crash(Survival::Nothing),
            dir,
            kind,
        )?;
        let is_last = |(life, number): &(LifeId, u64)| {
            let next = (*life, number + 1);
            !lost.contains(&next) && !durable.contains_key(&next)
        };
        let spared = match twin(dir) {
            Some(_) => !lost.is_empty(),
            None => lost.iter().any(is_last),
        };
        (!spared).then(|| Hit {
            dir: dir.to_owned(),
            lost,
        })
    }
}

/// The name of what a file is one of two copies of, or has both copies of.
fn kept_twice(class: FileClass, path: &Path) -> Option<PathBuf> {
    match class {
        FileClass::SegmentHeader | FileClass::CursorSlot => Some(path.to_owned()),
        FileClass::CheckpointHeader | FileClass::CheckpointBody => {
            let name = path.file_name()?.to_str()?;
            let set = name.split(|letter: char| letter.is_ascii_digit()).next();
            Some(path.with_file_name(set.unwrap_or_default()))
        }
        FileClass::FrameHeader | FileClass::FramePayload | FileClass::Other => None,
    }
}

/// What kind of log is in a folder of an agent or of an aggregator.
fn kind_of(dir: &Path) -> Option<LogKind> {
    let name = dir.file_name()?.to_str()?;
    match name {
        "wal" => Some(LogKind::Wal),
        "journal" => Some(LogKind::Journal),
        "deadletter" => Some(LogKind::DeadLetter),
        _ if dir.parent()?.ends_with("spool") => Some(LogKind::Spool),
        _ => None,
    }
}

/// The dead letters on an agent's disk, whole.
pub fn letters(disk: &SimDisk) -> Vec<Bytes> {
    let letters = entries(disk, Path::new("/data/deadletter"), LogKind::DeadLetter);
    letters.unwrap_or_default().into_values().collect()
}

/// The folder that holds what is in this one once more.
fn twin(dir: &Path) -> Option<PathBuf> {
    match dir.file_name()?.to_str()? {
        "series" => Some(dir.with_file_name("series-copy")),
        "series-copy" => Some(dir.with_file_name("series")),
        _ => None,
    }
}

/// Entries of a log that can be read, there or where they lie once more.
fn held(disk: &SimDisk, dir: &Path, kind: LogKind) -> Option<BTreeMap<(LifeId, u64), Bytes>> {
    let mut held = entries(disk, dir, kind)?;
    if let Some(twin) = twin(dir) {
        held.extend(entries(disk, &twin, kind)?);
    }
    Some(held)
}

/// Entries of a log that can be read, by a process that opens it now.
fn entries(disk: &SimDisk, dir: &Path, kind: LogKind) -> Option<BTreeMap<(LifeId, u64), Bytes>> {
    let disk: Arc<dyn Disk> = Arc::new(disk.fork(Salts::Other(9)));
    let config = LogConfig {
        segment_bytes: SEGMENT_BYTES,
        quota_bytes: 1 << 40,
        reserve_bytes: 0,
        kind,
    };
    let life = Open::NewLife(LifeId([0xff; 16]));
    let log = Log::open(disk, dir, config, life).ok()?;
    let mut found = BTreeMap::new();
    for span in log.reader.lives() {
        let mut next = span.first;
        while next < span.end {
            let mut read = Vec::new();
            match log.reader.read(span.life, next, usize::MAX, &mut read) {
                Ok(()) => {}
                Err(LogError::Damaged { numbers, .. }) => {
                    next = numbers.end.max(next + 1);
                    continue;
                }
                Err(_) => break,
            }
            let Some(last) = read.last() else { break };
            next = last.number + 1;
            let read = read.into_iter();
            found.extend(read.map(|entry| ((entry.life, entry.number), entry.bytes)));
        }
    }
    Some(found)
}
