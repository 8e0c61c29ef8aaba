//! A view of a disk that changes nothing: what is written through it is taken and forgotten, so
//! that a log, or checkpoints, which another process owns and may be writing, can be opened and
//! read without a lock.
//!
//! What opening would mend (a torn end, segments without a header) is mended in the view alone.
//! The owner goes on meanwhile: a segment may be gone, or be recycled, between two reads. Then
//! reading says that it can't, or that what stood there is damaged; [`is_there`] tells those
//! apart.
//!
//! [`is_there`]: ReadOnlyDisk::is_there

use crate::disk::{Disk, DiskFile, Stamp};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The view.
#[derive(Clone)]
pub struct ReadOnlyDisk(Arc<dyn Disk>);

impl ReadOnlyDisk {
    /// A view of `disk`.
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// Whether the file is still there.
    pub fn is_there(&self, path: &Path) -> bool {
        self.0.open(path).is_ok()
    }
}

impl Disk for ReadOnlyDisk {
    /// Nothing is made: what is written to it is forgotten.
    fn create(&self, _: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Forgotten(bytes)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(Viewed(self.0.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        match self.0.list(dir) {
            // As if it had been made.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            listed => listed,
        }
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// As much as anybody wants: nothing is taken.
    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn stamp(&self) -> io::Result<Stamp> {
        self.0.stamp()
    }
}

/// A file that is only read.
struct Viewed(Box<dyn DiskFile>);

impl DiskFile for Viewed {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is not there.
struct Forgotten(u64);

impl DiskFile for Forgotten {
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0)
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}
