//! A disk that counts what it is asked to write and to make durable, so that somebody can hold that
//! against a budget. What it costs the device is a model: see `docs/storage.md`.

use crate::disk::{Disk, DiskFile, Stamp};
use crate::limits::COMMIT_COST_BYTES;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was asked for so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Bytes written to files.
    pub written_bytes: u64,
    /// fdatasyncs of files.
    pub fdatasyncs: u64,
    /// fsyncs of directories.
    pub dir_syncs: u64,
}

impl Counts {
    /// About how many bytes the device writes for it: what was written, and for each time that it
    /// was made durable a page and the file system's own journal.
    pub fn device_bytes(&self) -> u64 {
        let commits = self.fdatasyncs.saturating_add(self.dir_syncs);
        let own = commits.saturating_mul(COMMIT_COST_BYTES);
        self.written_bytes.saturating_add(own)
    }
}

#[derive(Debug, Default)]
struct Totals {
    written_bytes: AtomicU64,
    fdatasyncs: AtomicU64,
    dir_syncs: AtomicU64,
}

/// Counts for everybody who has a clone of it.
#[derive(Clone, Debug, Default)]
pub struct Meter(Arc<Totals>);

impl Meter {
    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let of = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            written_bytes: of(&self.0.written_bytes),
            fdatasyncs: of(&self.0.fdatasyncs),
            dir_syncs: of(&self.0.dir_syncs),
        }
    }

    /// Counts what went past the disk: another library's writes.
    pub fn count(&self, written_bytes: u64, fdatasyncs: u64) {
        add(&self.0.written_bytes, written_bytes);
        add(&self.0.fdatasyncs, fdatasyncs);
    }
}

fn add(total: &AtomicU64, more: u64) {
    total.fetch_add(more, Ordering::Relaxed);
}

/// A disk with a meter.
pub struct MeteredDisk {
    disk: Arc<dyn Disk>,
    meter: Meter,
}

impl MeteredDisk {
    /// `disk`, counted by `meter`.
    pub fn new(disk: Arc<dyn Disk>, meter: Meter) -> Self {
        Self { disk, meter }
    }

    fn metered(&self, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let meter = self.meter.clone();
        Box::new(MeteredFile { file, meter })
    }
}

impl Disk for MeteredDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.metered(self.disk.create(path, bytes)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.metered(self.disk.open(path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        add(&self.meter.0.dir_syncs, 1);
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn stamp(&self) -> io::Result<Stamp> {
        self.disk.stamp()
    }
}

struct MeteredFile {
    file: Box<dyn DiskFile>,
    meter: Meter,
}

impl DiskFile for MeteredFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        add(&self.meter.0.written_bytes, bytes.len() as u64);
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        add(&self.meter.0.fdatasyncs, 1);
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::SimDisk;

    #[test]
    fn writes_and_syncs_are_counted_whoever_asks() {
        let meter = Meter::default();
        let disk = MeteredDisk::new(Arc::new(SimDisk::new(1)), meter.clone());
        let dir = Path::new("/d");
        disk.create_dir_all(dir).unwrap();
        let file = disk.create(&dir.join("a"), 4096).unwrap();
        file.write_at(&[1; 100], 0).unwrap();
        file.sync_data().unwrap();
        let again = disk.open(&dir.join("a")).unwrap();
        again.write_at(&[1; 11], 9).unwrap();
        disk.sync_dir(dir).unwrap();
        meter.count(1_000, 1);
        let counts = Counts {
            written_bytes: 1_111,
            fdatasyncs: 2,
            dir_syncs: 1,
        };
        assert_eq!(meter.counts(), counts);
        assert_eq!(counts.device_bytes(), 1_111 + 3 * COMMIT_COST_BYTES);
    }
}
