//! Where damaged bytes are kept for people: `<dir>/quarantine/`, bounded.
//!
//! Best effort: nothing depends on it, and a full disk only means that there is no copy.

use crate::disk::Disk;
use crate::disk::DiskFile;
use crate::limits::{QUARANTINE_BYTES_MAX, QUARANTINE_FILES_MAX, READ_BYTES};
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
        let path = dir.join(format!("{segment}-{at}.bad"));
        disk.create_dir_all(&dir)?;
        if disk.open(&path).is_ok() || !has_room(disk, &dir, bytes)? {
            return Ok(());
        }
        let copy = disk.create(&path, bytes)?;
        let mut done = 0;
        while done < bytes {
            let mut buffer = vec![0; READ_BYTES.min((bytes - done) as usize)];
            let read = file.read_at(&mut buffer, at + done)?;
            if read == 0 {
                break;
            }
            copy.write_at(buffer.get(..read).unwrap_or_default(), done)?;
            done += read as u64;
        }
        copy.sync_data()?;
        disk.sync_dir(&dir)
    };
    if let Err(error) = copied() {
        let log = log_dir.display();
        tracing::warn!(%log, segment, at, bytes, %error, "damaged bytes could not be copied aside");
    }
}

/// Moves a whole segment to `quarantine/`, or removes it when that is full.
pub(crate) fn take(disk: &dyn Disk, log_dir: &Path, segment: &str, bytes: u64) -> io::Result<()> {
    let dir = dir_of(log_dir);
    let from = log_dir.join(segment);
    disk.create_dir_all(&dir)?;
    if has_room(disk, &dir, bytes)? {
        disk.rename(&from, &dir.join(format!("{segment}.bad")))?;
        disk.sync_dir(&dir)?;
    } else {
        disk.remove(&from)?;
    }
    disk.sync_dir(log_dir)
}
