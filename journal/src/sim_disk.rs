//! A disk in memory for tests: it keeps what is synced apart from what is only written, loses
//! power at any operation, and fails on request.
//!
//! For the tests of every crate that stores something. What it models: data in pages of 4 KiB
//! that survive a power cut one by one unless synced; lengths, and creations, renames and
//! removals, that survive unless their file or directory was synced; blocks taken at creation; a
//! process that dies while the machine goes on; a failed fdatasync after which the pages count as
//! clean: they read well and are never written, unless they are written to again. What it does
//! not model: directories that a power cut takes back, permissions, time.

mod inode;

use crate::disk::{Disk, DiskFile, Stamp};
use inode::{Inode, PAGE_BYTES};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
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
    /// Operations until the power goes; none, if never.
    power_left: Option<u64>,
    full: bool,
    free_bytes: u64,
    fail_syncs: u32,
    fail_dir_syncs: u32,
    fail_writes: u32,
    random: u64,
}

/// How far an operation gets.
enum Power {
    On,
    /// It is carried out, not made durable, and not confirmed: the power goes meanwhile.
    Going,
}

impl World {
    fn new(random: u64) -> Self {
        Self {
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            unsynced: Vec::new(),
            dirs: BTreeSet::from([PathBuf::from("/")]),
            counts: SimCounts::default(),
            power_left: None,
            full: false,
            free_bytes: 1 << 40,
            fail_syncs: 0,
            fail_dir_syncs: 0,
            fail_writes: 0,
            random,
        }
    }

    fn powered(&self) -> io::Result<()> {
        match self.power_left {
            Some(0) => Err(no_power()),
            _ => Ok(()),
        }
    }

    /// Counts an operation that changes something.
    fn operate(&mut self) -> io::Result<Power> {
        self.powered()?;
        self.counts.operations += 1;
        match &mut self.power_left {
            None => Ok(Power::On),
            Some(left) => {
                *left -= 1;
                Ok(if *left == 0 { Power::Going } else { Power::On })
            }
        }
    }

    fn change(&mut self, change: NameChange) -> io::Result<()> {
        let power = self.operate()?;
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

impl Power {
    fn confirm(self) -> io::Result<()> {
        match self {
            Self::On => Ok(()),
            Self::Going => Err(no_power()),
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
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
        Self {
            world: Arc::new(Mutex::new(World::new(seed))),
        }
    }

    /// Cuts the power: everything that uses this disk fails from now on, and the disk returned is
    /// what the machine finds when it starts again.
    pub fn crash(&self, survival: Survival) -> Self {
        let mut old = lock(&self.world);
        old.power_left = Some(0);
        let mut chance = match survival {
            Survival::RandomHalf(seed) => seed,
            _ => 0,
        };
        let mut world = World::new(old.random ^ 0x5eed);
        world.dirs = old.dirs.clone();
        world.free_bytes = old.free_bytes;
        let mut names = old.synced_names.clone();
        for change in &old.unsynced {
            if survival.survives(&mut chance) {
                change.apply(&mut names);
            }
        }
        for (path, file) in names {
            let found = lock(&file).after_power_cut(survival, &mut chance);
            world.names.insert(path, Arc::new(Mutex::new(found)));
        }
        world.synced_names = world.names.clone();
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Kills the process, and the machine goes on: everything that uses this disk fails from now
    /// on, and the disk returned is what the next process finds. It reads whatever was written;
    /// what was not synced, or not well, is as little durable as before.
    pub fn kill(&self) -> Self {
        let mut old = lock(&self.world);
        old.power_left = Some(0);
        let mut world = World::new(old.random ^ 0xdead);
        world.names = old.names.clone();
        world.synced_names = old.synced_names.clone();
        world.unsynced = old.unsynced.clone();
        world.dirs = old.dirs.clone();
        world.full = old.full;
        world.free_bytes = old.free_bytes;
        Self {
            world: Arc::new(Mutex::new(world)),
        }
    }

    /// Lets `operations` more changing operations succeed. The one after them is carried out but
    /// neither durable nor confirmed, and then everything fails, reads too.
    pub fn power_off_after(&self, operations: u64) {
        lock(&self.world).power_left = Some(operations + 1);
    }

    /// Flips one bit of a file, on the medium.
    ///
    /// # Panics
    /// When there is no such byte: the test is wrong.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) {
        let world = lock(&self.world);
        let mut inode = lock(
            world
                .file(path)
                .expect("the test names a file that is there"),
        );
        let place = offset / PAGE_BYTES as u64;
        let inside = (offset % PAGE_BYTES as u64) as usize;
        assert!(
            offset < inode.now.bytes,
            "no byte {offset} in {}",
            path.display()
        );
        inode.flip(place, inside, bit);
    }

    /// Lets the next fdatasync fail with an I/O error; what it should have synced is never
    /// written later, though parts of it may survive.
    pub fn fail_next_sync(&self) {
        self.fail_syncs(1);
    }

    /// As [`fail_next_sync`](Self::fail_next_sync), for the next `times`.
    pub fn fail_syncs(&self, times: u32) {
        lock(&self.world).fail_syncs = times;
    }

    /// Lets the next `times` syncs of a directory fail with an I/O error; its names may survive.
    pub fn fail_dir_syncs(&self, times: u32) {
        lock(&self.world).fail_dir_syncs = times;
    }

    /// Lets the next `times` writes fail with an I/O error, half done.
    pub fn fail_writes(&self, times: u32) {
        lock(&self.world).fail_writes = times;
    }

    /// Whether the disk has no free block: creations with a size, and writes to places that have
    /// no block yet, fail with `StorageFull`; others go on.
    pub fn set_full(&self, full: bool) {
        lock(&self.world).full = full;
    }

    /// What [`Disk::free_bytes`] says while the disk is not full.
    pub fn set_free_bytes(&self, bytes: u64) {
        lock(&self.world).free_bytes = bytes;
    }

    /// What was done so far.
    pub fn counts(&self) -> SimCounts {
        lock(&self.world).counts
    }

    /// All of a file, for tests that look at bytes or change them.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let world = lock(&self.world);
        let inode = lock(world.file(path)?);
        let mut bytes = vec![0; inode.now.bytes as usize];
        inode.read(&mut bytes, 0);
        Ok(bytes)
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut world = lock(&self.world);
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
        let mut world = lock(&self.world);
        world.powered()?;
        if world.names.contains_key(path) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !path.parent().is_some_and(|dir| world.dirs.contains(dir)) {
            return Err(ErrorKind::NotFound.into());
        }
        if world.full && bytes > 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let mut inode = Inode::default();
        inode.now.bytes = bytes;
        inode.taken_pages = bytes.div_ceil(PAGE_BYTES as u64);
        let file = Arc::new(Mutex::new(inode));
        world.change(NameChange::Link(path.to_owned(), Arc::clone(&file)))?;
        Ok(Box::new(SimFile {
            world: Arc::clone(&self.world),
            file,
        }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let world = lock(&self.world);
        world.powered()?;
        let file = Arc::clone(world.file(path)?);
        Ok(Box::new(SimFile {
            world: Arc::clone(&self.world),
            file,
        }))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let world = lock(&self.world);
        world.powered()?;
        if !world.dirs.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let names = world.names.keys().filter(|path| path.parent() == Some(dir));
        let names = names.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.powered()?;
        let file = Arc::clone(world.file(from)?);
        world.change(NameChange::Rename(from.to_owned(), to.to_owned(), file))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.powered()?;
        world.file(path)?;
        world.change(NameChange::Unlink(path.to_owned()))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.powered()?;
        world.dirs.extend(path.ancestors().map(Path::to_owned));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.operate()?.confirm()?;
        if world.fail_dir_syncs > 0 {
            world.fail_dir_syncs -= 1;
            return Err(io::Error::other("a planted error of a directory's fsync"));
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
        let world = lock(&self.world);
        world.powered()?;
        Ok(if world.full { 0 } else { world.free_bytes })
    }

    fn stamp(&self) -> io::Result<Stamp> {
        let mut world = lock(&self.world);
        let salt = split_mix(&mut world.random);
        Ok(Stamp {
            salt,
            created_us: world.counts.operations as i64,
        })
    }
}

struct SimFile {
    world: Arc<Mutex<World>>,
    file: File,
}

impl DiskFile for SimFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = lock(&self.world);
        let mut inode = lock(&self.file);
        world.powered()?;
        if world.full && inode.needs_blocks(offset + bytes.len() as u64) {
            return Err(ErrorKind::StorageFull.into());
        }
        let power = world.operate()?;
        world.counts.writes += 1;
        if world.fail_writes > 0 {
            world.fail_writes -= 1;
            inode.write(bytes.get(..bytes.len() / 2).unwrap_or_default(), offset);
            return Err(io::Error::other("a planted write error"));
        }
        world.counts.bytes_written += bytes.len() as u64;
        inode.write(bytes, offset);
        power.confirm()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = lock(&self.world);
        world.powered()?;
        let read = lock(&self.file).read(buffer, offset);
        world.counts.bytes_read += read as u64;
        Ok(read)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = lock(&self.world);
        world.operate()?.confirm()?;
        world.counts.syncs += 1;
        let mut inode = lock(&self.file);
        if world.fail_syncs > 0 {
            world.fail_syncs -= 1;
            inode.dirty.clear();
            return Err(io::Error::other("a planted fdatasync error"));
        }
        inode.sync();
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        lock(&self.world).powered()?;
        Ok(lock(&self.file).now.bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut world = lock(&self.world);
        let power = world.operate()?;
        let mut inode = lock(&self.file);
        inode.now.cut(bytes);
        let pages = bytes.div_ceil(PAGE_BYTES as u64);
        inode.dirty.insert(pages.saturating_sub(1));
        inode.taken_pages = pages;
        power.confirm()
    }
}
