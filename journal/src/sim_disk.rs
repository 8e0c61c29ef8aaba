//! A disk in memory for tests: it keeps what is synced apart from what is only written, loses
//! power at any operation, and fails on request.
//!
//! For the tests of every crate that stores something. What it models: data in pages of 4 KiB
//! that survive a power cut one by one unless synced, the last of a file sector by sector of 512
//! bytes; lengths, and creations, renames and removals, that survive unless their file or directory
//! was synced; blocks taken at creation; a process that dies while the machine goes on; a failed
//! fdatasync after which the pages count as clean: they read well and are never written, unless
//! they are written to again; one that lies; copies that go on beside it. What it does not model:
//! directories that a power cut takes back, permissions, time.

mod faults;
mod flip;
mod fork;
mod inode;

pub use faults::After;
pub use flip::{FileClass, Flipped};
pub use fork::Salts;

use crate::disk::{Disk, DiskFile, Stamp};
use faults::{Faults, Hook, Operation, Synced};
use inode::{Inode, PAGE_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a power cut leaves of all that was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// Each page, length and name with a chance of one half, by this seed.
    RandomHalf(u64),
    /// Everything: it had been written back in time.
    All,
}

impl Survival {
    /// Whether the next unsynced thing survives.
    fn survives(self, random: &mut u64) -> bool {
        match self {
            Self::Nothing => false,
            Self::RandomHalf(_) => split_mix(random) & 1 == 1,
            Self::All => true,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What was done to a disk so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SimCounts {
    /// Calls that change something.
    pub operations: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// fdatasyncs of files.
    pub syncs: u64,
    /// Bytes read.
    pub bytes_read: u64,
}

type File = Arc<Mutex<Inode>>;

#[derive(Clone)]
enum NameChange {
    Link(PathBuf, File),
    Rename(PathBuf, PathBuf, File),
    Unlink(PathBuf),
}

impl NameChange {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Link(path, _) | Self::Unlink(path) => path.parent() == Some(dir),
            Self::Rename(from, to, _) => [from, to].iter().any(|p| p.parent() == Some(dir)),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, File>) {
        match self {
            Self::Link(path, file) => {
                names.insert(path.clone(), Arc::clone(file));
            }
            Self::Rename(from, to, file) => {
                names.remove(from);
                names.insert(to.clone(), Arc::clone(file));
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
        }
    }
}

struct World {
    names: BTreeMap<PathBuf, File>,
    synced_names: BTreeMap<PathBuf, File>,
    unsynced: Vec<NameChange>,
    dirs: BTreeSet<PathBuf>,
    counts: SimCounts,
    faults: Faults,
    free_bytes: u64,
    random: u64,
}

impl World {
    fn new(random: u64) -> Self {
        Self {
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced: Vec::new(),
            dirs: BTreeSet::from([PathBuf::from("/")]),
            counts: SimCounts::default(),
            faults: Faults::default(),
            free_bytes: 1 << 40,
            random,
        }
    }

    fn change(&mut self, change: NameChange) -> io::Result<()> {
        let operation = match change {
            NameChange::Rename(..) => Operation::Rename,
            NameChange::Link(..) | NameChange::Unlink(_) => Operation::Name,
        };
        let power = self.operate(operation)?;
        change.apply(&mut self.names);
        self.unsynced.push(change);
        power.confirm()
    }

    fn file(&self, path: &Path) -> io::Result<&File> {
        self.names
            .get(path)
            .ok_or_else(|| ErrorKind::NotFound.into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk, and what is called when its power goes.
struct Shared {
    world: Mutex<World>,
    hook: Mutex<Option<Hook>>,
}

impl Shared {
    fn locked(&self) -> Locked<'_> {
        Locked {
            world: Some(lock(&self.world)),
            shared: self,
        }
    }
}

/// The locked disk. When it is let go without power, the hook is called, outside of the lock.
struct Locked<'a> {
    world: Option<MutexGuard<'a, World>>,
    shared: &'a Shared,
}

const HELD: &str = "the lock is held until this is dropped";

impl Deref for Locked<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        self.world.as_ref().expect(HELD)
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut World {
        self.world.as_mut().expect(HELD)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let off = self.world.take().is_some_and(|world| world.faults.is_off());
        if !off {
            return;
        }
        let hook = lock(&self.shared.hook).take();
        if let Some(hook) = hook {
            hook();
        }
    }
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk")
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

impl Default for SimDisk {
    fn default() -> Self {
        Self::new(0)
    }
}

impl SimDisk {
    /// An empty disk; the seed is what its salts come from.
    pub fn new(seed: u64) -> Self {
        Self::of(World::new(seed))
    }

    fn of(world: World) -> Self {
        Self {
            shared: Arc::new(Shared {
                world: Mutex::new(world),
                hook: Mutex::new(None),
            }),
        }
    }

    fn locked(&self) -> Locked<'_> {
        self.shared.locked()
    }

    fn opened(&self, file: File) -> Box<dyn DiskFile> {
        Box::new(SimFile {
            shared: Arc::clone(&self.shared),
            file,
        })
    }

    /// What [`Disk::free_bytes`] says while the disk is not full.
    pub fn set_free_bytes(&self, bytes: u64) {
        self.locked().free_bytes = bytes;
    }

    /// What was done so far.
    pub fn counts(&self) -> SimCounts {
        self.locked().counts
    }

    /// All of a file, for tests that look at bytes or change them.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let world = self.locked();
        let inode = lock(world.file(path)?);
        let mut bytes = vec![0; inode.now.bytes as usize];
        inode.read(&mut bytes, 0);
        Ok(bytes)
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.locked();
        let mut inode = Inode::default();
        inode.write(bytes, 0);
        inode.sync();
        let file = Arc::new(Mutex::new(inode));
        world.names.insert(path.to_owned(), Arc::clone(&file));
        world.synced_names.insert(path.to_owned(), file);
        world
            .dirs
            .extend(path.ancestors().skip(1).map(Path::to_owned));
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.locked();
        world.faults.powered()?;
        if world.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| world.dirs.contains(dir)) {
            return Err(ErrorKind::NotFound.into());
        }
        if world.faults.full && bytes > 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let mut inode = Inode::default();
        inode.now.bytes = bytes;
        inode.taken_pages = bytes.div_ceil(PAGE_BYTES as u64);
        let file = Arc::new(Mutex::new(inode));
        world.change(NameChange::Link(path.to_owned(), Arc::clone(&file)))?;
        Ok(self.opened(file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let world = self.locked();
        world.faults.powered()?;
        let file = Arc::clone(world.file(path)?);
        Ok(self.opened(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = self.locked();
        world.faults.powered()?;
        if !world.dirs.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let names = world.names.keys().filter(|path| path.parent() == Some(dir));
        let names = names.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.locked();
        world.faults.powered()?;
        let file = Arc::clone(world.file(from)?);
        world.change(NameChange::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.locked();
        world.faults.powered()?;
        world.file(path)?;
        world.change(NameChange::Unlink(path.to_owned()))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = self.locked();
        world.faults.powered()?;
        world.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = self.locked();
        world.operate(Operation::Sync)?.confirm()?;
        if let Synced::Lied = world.faults.sync_dir()? {
            return Ok(());
        }
        let World {
            unsynced,
            synced_names,
            ..
        } = &mut *world;
        unsynced.retain(|change| {
            let touched = change.touches(dir);
            if touched {
                change.apply(synced_names);
            }
            !touched
        });
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let world = self.locked();
        world.faults.powered()?;
        Ok(if world.faults.full {
            0
        } else {
            world.free_bytes
        })
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let mut world = self.locked();
        let salt = split_mix(&mut world.random);
        Ok(Stamp {
            salt,
            created_us: world.counts.operations as i64,
        })
    }
}

struct SimFile {
    shared: Arc<Shared>,
    file: File,
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.shared.locked();
        let mut inode = lock(&self.file);
        world.faults.powered()?;
        if world.faults.full && inode.needs_blocks(offset + bytes.len() as u64) {
            return Err(ErrorKind::StorageFull.into());
        }
        let power = world.operate(Operation::Data)?;
        world.counts.writes += 1;
        if world.faults.write_fails() {
            inode.write(bytes.get(..bytes.len() / 2).unwrap_or_default(), offset);
            return Err(io::Error::other("a planted write error"));
        }
        world.counts.bytes_written += bytes.len() as u64;
        inode.write(bytes, offset);
        power.confirm()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.shared.locked();
        world.faults.read()?;
        let read = lock(&self.file).read(buffer, offset);
        world.counts.bytes_read += read as u64;
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.shared.locked();
        world.operate(Operation::Sync)?.confirm()?;
        world.counts.syncs += 1;
        let mut inode = lock(&self.file);
        match world.faults.sync() {
            Ok(Synced::Well) => inode.sync(),
            Ok(Synced::Lied) => {}
            Err(error) => {
                inode.dirty.clear();
                return Err(error);
            }
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        self.shared.locked().faults.powered()?;
        Ok(lock(&self.file).now.bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.shared.locked();
        let power = world.operate(Operation::Data)?;
        let mut inode = lock(&self.file);
        inode.now.cut(bytes);
        let pages = bytes.div_ceil(PAGE_BYTES as u64);
        inode.dirty.insert(pages.saturating_sub(1));
        inode.taken_pages = pages;
        power.confirm()
    }
}
