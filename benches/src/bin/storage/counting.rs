//! Real files, counted: what is written and how often it is made durable.
//!
//! It counts what Tributary asks for at its storage seam; what the file system adds is not in it.

use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tributary_journal::{Disk, DiskFile, OsDisk, Stamp};

/// What went through a [`CountingDisk`] so far.
#[derive(Clone, Copy, Default, Debug, Serialize, Deserialize)]
pub struct Counts {
    /// Bytes written to files.
    pub written_bytes: u64,
    /// Calls of fdatasync.
    pub fdatasyncs: u64,
    /// Calls of fsync on a directory.
    pub dir_syncs: u64,
}

#[derive(Default)]
struct Totals {
    written_bytes: AtomicU64,
    fdatasyncs: AtomicU64,
    dir_syncs: AtomicU64,
}

/// [`OsDisk`], counted.
#[derive(Clone, Default)]
pub struct CountingDisk(Arc<Totals>);

impl CountingDisk {
    /// What went through so far.
    pub fn counts(&self) -> Counts {
        let Totals {
            written_bytes,
            fdatasyncs,
            dir_syncs,
        } = &*self.0;
        Counts {
            written_bytes: written_bytes.load(Ordering::Relaxed),
            fdatasyncs: fdatasyncs.load(Ordering::Relaxed),
            dir_syncs: dir_syncs.load(Ordering::Relaxed),
        }
    }

    fn counted(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let totals = Arc::clone(&self.0);
        Box::new(CountingFile { file, totals })
    }
}

impl Disk for CountingDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.counted(OsDisk.create(path, bytes)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.counted(OsDisk.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsDisk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsDisk.remove(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsDisk.create_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.dir_syncs.fetch_add(1, Ordering::Relaxed);
        OsDisk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        OsDisk.free_bytes(dir)
    }

    fn stamp(&self) -> io::Result<Stamp> {
        OsDisk.stamp()
    }
}

struct CountingFile {
    file: Box<dyn DiskFile>,
    totals: Arc<Totals>,
}

impl DiskFile for CountingFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let length = bytes.len() as u64;
        self.totals
            .written_bytes
            .fetch_add(length, Ordering::Relaxed);
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.totals.fdatasyncs.fetch_add(1, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_and_syncs_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let disk = CountingDisk::default();
        let file = disk.create(&dir.path().join("a"), 4096).unwrap();
        file.write_at(&[1; 100], 0).unwrap();
        file.sync_data().unwrap();
        disk.open(&dir.path().join("a"))
            .unwrap()
            .write_at(&[1; 11], 9)
            .unwrap();
        disk.sync_dir(dir.path()).unwrap();
        let counts = disk.counts();
        assert_eq!(
            (counts.written_bytes, counts.fdatasyncs, counts.dir_syncs),
            (111, 1, 1)
        );
    }
}
