//! A disk of which one folder breaks by itself: at a write to one of its files, which fails, or at
//! which the power goes. Whatever else breaks, the disk below does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tributary_journal::sim_disk::After;
use tributary_journal::{Disk, DiskFile, SimDisk, Stamp};

/// What the next writes to the folder meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Aim {
    /// Nothing.
    #[default]
    None,
    /// So many of them fail.
    Fails(u32),
    /// At that one the power goes, and it is not made.
    Power(u32),
}

/// See the module. Clones have the same aim.
#[derive(Clone)]
pub struct Aimed {
    dir: PathBuf,
    aim: Arc<Mutex<Aim>>,
}

impl Aimed {
    /// Aimed at what is in this folder.
    pub fn at(dir: &str) -> Self {
        Self {
            dir: PathBuf::from(dir),
            aim: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Aim> {
        self.aim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the next writes meet.
    pub fn set(&self, aim: Aim) {
        *self.lock() = aim;
    }

    /// This disk, broken as aimed.
    pub fn on(&self, disk: SimDisk) -> AimedDisk {
        AimedDisk {
            disk,
            aimed: self.clone(),
        }
    }

    fn write(&self, disk: &SimDisk) -> io::Result<()> {
        let mut aim = self.lock();
        let failed = Err(io::Error::other("a planted write error"));
        match &mut *aim {
            Aim::None | Aim::Fails(0) => Ok(()),
            Aim::Fails(left) => {
                *left -= 1;
                failed
            }
            Aim::Power(left) => {
                *left = left.saturating_sub(1);
                if *left > 0 {
                    return Ok(());
                }
                *aim = Aim::None;
                disk.power_off(After::Between);
                failed
            }
        }
    }
}

/// A disk with an aim.
pub struct AimedDisk {
    disk: SimDisk,
    aimed: Aimed,
}

impl AimedDisk {
    fn file(&self, path: &Path, file: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        if !path.starts_with(&self.aimed.dir) {
            return file;
        }
        Box::new(AimedFile {
            file,
            disk: self.disk.clone(),
            aimed: self.aimed.clone(),
        })
    }
}

impl Disk for AimedDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(path, self.disk.create(path, bytes)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.file(path, self.disk.open(path)?))
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
        self.disk.sync_dir(dir)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.disk.free_bytes(dir)
    }

    fn stamp(&self) -> io::Result<Stamp> {
        self.disk.stamp()
    }
}

struct AimedFile {
    file: Box<dyn DiskFile>,
    disk: SimDisk,
    aimed: Aimed,
}

impl DiskFile for AimedFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.aimed.write(&self.disk)?;
        self.file.write_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.truncate(bytes)
    }
}
