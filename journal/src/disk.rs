//! The storage seam: the few operations that everything durable here is made of, and real files.
//!
//! Small, so that a test can break the disk under everything. Names, formats and the order of
//! operations are decided above. Nothing here retries.

use crate::limits::READ_TRIES;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a new segment is stamped with. Comes from the disk so that a simulated one can make it
/// from its seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// A random number that no earlier segment had.
    pub salt: u64,
    /// Microseconds since 1970, UTC: for people and for replay by time; nothing is decided by it.
    pub created_us: i64,
}

/// A file system, as far as this crate needs one. Used as `Arc<dyn Disk>`.
pub trait Disk: Send + Sync + 'static {
    /// Makes a new file of `bytes` zero bytes whose blocks are taken at once, so that later writes
    /// within it need none. Fails if it exists. The name is durable after [`sync_dir`] only.
    ///
    /// [`sync_dir`]: Disk::sync_dir
    ///
    /// # Errors
    /// `StorageFull` when there is no room, and whatever else the system says.
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// Whatever the system says.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Names of the files in `dir`, in no order; directories are left out.
    ///
    /// # Errors
    /// Whatever the system says.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Renames a file within its directory, in one step, over whatever has that name. Durable
    /// after [`sync_dir`](Disk::sync_dir).
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Unlinks a file. Durable after [`sync_dir`](Disk::sync_dir).
    ///
    /// # Errors
    /// Whatever the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and the missing ones above it, durable on return.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable: creations, renames, removals.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Bytes that an unprivileged writer may still take on the file system of `dir`.
    ///
    /// # Errors
    /// Whatever the system says.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;

    /// What to stamp a new segment with.
    ///
    /// # Errors
    /// When there is no source of randomness.
    fn stamp(&self) -> io::Result<Stamp>;
}

/// Reads as [`DiskFile::read_at`], a few times over where that fails: what a disk does not give
/// back for a moment is not damaged, and what is taken for damaged is declared lost for ever.
///
/// # Errors
/// What the system said last.
pub(crate) fn read_surely(
    file: &dyn DiskFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut read = file.read_at(buffer, offset);
    for _ in 1..READ_TRIES {
        if read.is_ok() {
            break;
        }
        read = file.read_at(buffer, offset);
    }
    read
}

/// An open file. All calls take `&self`: one writer, any number of readers.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes` at `offset`, in one call if the system takes it.
    ///
    /// # Errors
    /// Whatever the system says; part of it may be written then.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Reads at `offset` until `buffer` is full or the file ends, and says how much it was.
    ///
    /// # Errors
    /// Whatever the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// fdatasync: what was written is durable on return. After an error nothing is known about it,
    /// and a second call would lie.
    ///
    /// # Errors
    /// Whatever the system says.
    fn sync_data(&self) -> io::Result<()>;

    /// Bytes of the file.
    ///
    /// # Errors
    /// Whatever the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Whatever the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file to `bytes`, and gives its blocks back.
    ///
    /// # Errors
    /// Whatever the system says.
    fn truncate(&self, bytes: u64) -> io::Result<()>;
}

/// Real files. New ones can be read and written by their owner alone. Salts come from
/// `/dev/urandom`.
#[derive(Clone, Copy, Default, Debug)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        if let Err(error) = preallocate(&file, bytes) {
            drop(file);
            fs::remove_file(path)?;
            return Err(error);
        }
        Ok(Box::new(OsFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Box::new(OsFile(file)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
        fs::create_dir_all(path)?;
        for dir in missing {
            if let Some(parent) = dir.parent() {
                let parent = if parent.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    parent
                };
                self.sync_dir(parent)?;
            }
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let mut salt = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut salt)?;
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let created_us = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Ok(Stamp {
            salt: u64::from_le_bytes(salt),
            created_us,
        })
    }
}

/// Takes the blocks of `bytes`. Where the file system cannot, the file only gets its length, and
/// a full disk shows at a write instead of here.
fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(bytes),
        Err(error) => Err(error.into()),
    }
}

struct OsFile(File);

impl DiskFile for OsFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match FileExt::read_at(&self.0, rest, offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

/// Why a directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error(
        "another process ({holder}) is using {}: stop it, or choose another data directory",
        dir.display()
    )]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The holder's process id, as far as it is known.
        holder: String,
    },
    /// The lock file cannot be used.
    #[error("cannot lock {}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A directory's one owner: an exclusive `flock` on `<dir>/lock`, held for the life of the value
/// and given back by the system however the process ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Takes `dir`, and makes it when it is missing.
    ///
    /// # Errors
    /// [`LockError::Held`] at once when another process, or another value in this one, has it.
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            dir: dir.to_owned(),
            source,
        };
        OsDisk.create_dir_all(dir).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Only for the message; a lock file of no text still locks.
                let _ = file.take(64).read_to_string(&mut text);
                let holder = match text.trim() {
                    "" => "process id unknown".to_owned(),
                    pid => format!("process {pid}"),
                };
                return Err(LockError::Held {
                    dir: dir.to_owned(),
                    holder,
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: file })
    }
}
