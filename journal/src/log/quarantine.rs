//! Where damaged bytes are kept for people: `<dir>/quarantine/`, bounded.
//!
//! Best effort: nothing depends on it, and a full disk only means that there is no copy.

use crate::disk::Disk;
use crate::disk::DiskFile;
use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX, READ_BYTES};
use crate::log::Damage;
use crate::log::format::parse_segment_name;
use std::io;
use std::path::{Path, PathBuf};

fn dir_of(log_dir: &Path) -> PathBuf {
    log_dir.join("quarantine")
}

/// Whether `bytes` more still fit into the bounds.
fn has_room(disk: &dyn Disk, dir: &Path, bytes: u64) -> io::Result<bool> {
    let names = disk.list(dir)?;
    let mut held = bytes;
    for name in &names {
        held = held.saturating_add(disk.open(&dir.join(name))?.len()?);
    }
    Ok(names.len() < QUARANTINE_FILES_MAX && held <= QUARANTINE_BYTES_MAX)
}

/// Hands the bytes to `piece` with their place, until it says true.
fn in_pieces(
    file: &dyn DiskFile,
    at: u64,
    bytes: u64,
    mut piece: impl FnMut(u64, &[u8]) -> io::Result<bool>,
) -> io::Result<bool> {
    let mut buffer = vec![0; READ_BYTES];
    let mut done = 0;
    while done < bytes {
        let wanted = usize::try_from(bytes - done).map_or(READ_BYTES, |n| n.min(READ_BYTES));
        let read = file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), at + done)?;
        if read == 0 {
            break;
        }
        if piece(done, buffer.get(..read).unwrap_or_default())? {
            return Ok(true);
        }
        done += read as u64;
    }
    Ok(false)
}

/// Where the copy of what is damaged at `at` of a segment goes.
pub fn copy_path(log_dir: &Path, segment: &str, at: u64) -> PathBuf {
    dir_of(log_dir).join(format!("{segment}-{at}.bad"))
}

/// Whether the `bytes` bytes at `at` of a segment have their copy in `quarantine/`, or need none
/// because nothing was ever written there.
///
/// # Errors
/// When the disk fails.
pub fn is_kept(
    disk: &dyn Disk,
    log_dir: &Path,
    segment: &str,
    (at, bytes): (u64, u64),
) -> io::Result<bool> {
    let file = disk.open(&log_dir.join(segment))?;
    let written = |_, piece: &[u8]| Ok(piece.iter().any(|byte| *byte != 0));
    if !in_pieces(&*file, at, bytes, written)? {
        return Ok(true);
    }
    let copy = match disk.open(&copy_path(log_dir, segment, at)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        copy => copy?,
    };
    let mut there = vec![0; READ_BYTES];
    let differs = in_pieces(&*file, at, bytes, |done, piece| {
        let there = there.get_mut(..piece.len()).unwrap_or_default();
        Ok(copy.read_at(there, done)? != piece.len() || there != piece)
    })?;
    Ok(!differs)
}

/// Makes a file that is whole and durable once it has its name.
fn whole(
    disk: &dyn Disk,
    path: &Path,
    bytes: u64,
    fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<()> {
    let part = path.with_extension("part");
    match disk.remove(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = disk.create(&part, bytes)?;
    fill(&*file)?;
    file.sync_data()?;
    disk.rename(&part, path)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// Keeps these bytes as the copy of what is damaged, unless they are there.
///
/// # Errors
/// When the disk fails.
pub fn keep_copy(disk: &dyn Disk, log_dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let path = copy_path(log_dir, name, 0);
    disk.create_dir_all(&dir_of(log_dir))?;
    if let Ok(there) = disk.open(&path) {
        let mut held = vec![0; bytes.len()];
        let read = there.read_at(&mut held, 0)?;
        if read == bytes.len() && held == bytes {
            return Ok(());
        }
    }
    whole(disk, &path, bytes.len() as u64, |file| {
        file.write_at(bytes, 0)
    })
}

/// Copies `bytes` bytes at `at` of a segment to `quarantine/<segment>-<offset>.bad`, once.
pub(crate) fn copy(
    disk: &dyn Disk,
    log_dir: &Path,
    segment: &str,
    file: &dyn DiskFile,
    at: u64,
    bytes: u64,
) {
    let copied = || {
        let dir = dir_of(log_dir);
        let path = copy_path(log_dir, segment, at);
        disk.create_dir_all(&dir)?;
        if disk.open(&path).is_ok() || !has_room(disk, &dir, bytes)? {
            return Ok(());
        }
        if !in_pieces(file, at, bytes, |_, piece| {
            Ok(piece.iter().any(|byte| *byte != 0))
        })? {
            // Nothing was ever written there: what is missing is a whole segment.
            return Ok(());
        }
        let fill = |copy: &dyn DiskFile| {
            in_pieces(file, at, bytes, |done, piece| {
                copy.write_at(piece, done).map(|()| false)
            })
        };
        whole(disk, &path, bytes, |copy| fill(copy).map(|_| ()))
    };
    if let Err(error) = copied() {
        let log = log_dir.display();
        tracing::warn!(%log, segment, at, bytes, %error, "damaged bytes could not be copied aside");
    }
}

/// Moves a whole segment to `quarantine/`, or removes it when that is full. When no reader meets
/// the damage, its name there keeps where it ends, and [`unmet`] finds it again.
pub(crate) fn take(disk: &dyn Disk, log_dir: &Path, damage: &Damage, met: bool) -> io::Result<()> {
    let dir = dir_of(log_dir);
    let Damage {
        segment, numbers, ..
    } = damage;
    let from = log_dir.join(segment);
    disk.create_dir_all(&dir)?;
    if has_room(disk, &dir, damage.bytes)? {
        let name = if met {
            format!("{segment}.bad")
        } else {
            format!("{segment}.{:020}.bad", numbers.end)
        };
        disk.rename(&from, &dir.join(name))?;
        disk.sync_dir(&dir)?;
    } else {
        let log = log_dir.display();
        tracing::warn!(%log, segment, "no room in quarantine: a damaged segment is removed");
        disk.remove(&from)?;
    }
    disk.sync_dir(log_dir)
}

/// Makes sure that a segment which no reader meets is not reported again: it was told.
///
/// # Errors
/// When the disk fails; then it is.
pub fn was_told(disk: &dyn Disk, log_dir: &Path, damage: &Damage) -> io::Result<()> {
    let dir = dir_of(log_dir);
    let Damage {
        segment, numbers, ..
    } = damage;
    let from = dir.join(format!("{segment}.{:020}.bad", numbers.end));
    match disk.rename(&from, &dir.join(format!("{segment}.bad"))) {
        Ok(()) => disk.sync_dir(&dir),
        // One that is met, or stays where it is, has no such name.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The segments moved aside that no reader meets, as they were reported then.
pub(crate) fn unmet(disk: &dyn Disk, log_dir: &Path) -> Vec<Damage> {
    let dir = dir_of(log_dir);
    let names = disk.list(&dir).unwrap_or_default();
    let damage = |name: &String| {
        let (segment, end) = name.strip_suffix(".bad")?.rsplit_once('.')?;
        let (life, first) = parse_segment_name(segment)?;
        let end: u64 = (end.len() == 20).then(|| end.parse().ok())??;
        let bytes = disk.open(&dir.join(name)).and_then(|file| file.len());
        Some(Damage {
            life,
            numbers: first..end.max(first),
            segment: segment.to_owned(),
            offset: 0,
            bytes: bytes.ok()?,
        })
    };
    names.iter().filter_map(damage).collect()
}
