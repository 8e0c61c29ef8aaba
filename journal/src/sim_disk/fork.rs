//! Disks made of a disk: what a machine finds after a power cut, what the next process finds, and
//! copies that both go on, as of an image or of a machine that was cloned.

use super::inode::Inode;
use super::{File, NameChange, SimDisk, Survival, World, lock};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Where the random numbers of a copy come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Salts {
    /// The copy draws what the original draws: a machine that was resumed twice.
    Same,
    /// The copy draws its own, from this seed.
    Other(u64),
}

impl SimDisk {
    /// Cuts the power: everything that uses this disk fails from now on, and the disk returned is
    /// what the machine finds when it starts again.
    pub fn crash(&self, survival: Survival) -> Self {
        let mut old = self.locked();
        old.faults.cut();
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
        Self::of(world)
    }

    /// Kills the process, and the machine goes on: everything that uses this disk fails from now
    /// on, and the disk returned is what the next process finds. It reads whatever was written;
    /// what was not synced, or not well, is as little durable as before.
    pub fn kill(&self) -> Self {
        let mut old = self.locked();
        old.faults.cut();
        let mut world = World::new(old.random ^ 0xdead);
        world.names = old.names.clone();
        world.synced_names = old.synced_names.clone();
        world.unsynced = old.unsynced.clone();
        world.dirs = old.dirs.clone();
        world.free_bytes = old.free_bytes;
        world.faults = old.faults.after_kill();
        Self::of(world)
    }

    /// A copy as it is now, unsynced things included, under power and without faults; this one goes
    /// on as well.
    pub fn fork(&self, salts: Salts) -> Self {
        let old = self.locked();
        let mut copies = Copies::default();
        let random = match salts {
            Salts::Same => old.random,
            Salts::Other(seed) => seed,
        };
        let mut world = World::new(random);
        world.names = copies.names(&old.names);
        world.synced_names = copies.names(&old.synced_names);
        let changes = old.unsynced.iter();
        world.unsynced = changes.map(|change| copies.change(change)).collect();
        world.dirs = old.dirs.clone();
        world.free_bytes = old.free_bytes;
        world.counts = old.counts;
        world.faults.lied = old.faults.lied;
        Self::of(world)
    }
}

/// Files by the one that each is a copy of: one file under two names stays one.
#[derive(Default)]
struct Copies(BTreeMap<usize, File>);

impl Copies {
    fn file(&mut self, file: &File) -> File {
        let key = Arc::as_ptr(file) as usize;
        let copy = || Arc::new(Mutex::new(Inode::clone(&lock(file))));
        Arc::clone(self.0.entry(key).or_insert_with(copy))
    }

    fn names<K: Clone + Ord>(&mut self, names: &BTreeMap<K, File>) -> BTreeMap<K, File> {
        let names = names.iter();
        names
            .map(|(path, file)| (path.clone(), self.file(file)))
            .collect()
    }

    fn change(&mut self, change: &NameChange) -> NameChange {
        match change {
            NameChange::Link(path, file) => NameChange::Link(path.clone(), self.file(file)),
            NameChange::Rename(from, to, file) => {
                NameChange::Rename(from.clone(), to.clone(), self.file(file))
            }
            NameChange::Unlink(path) => NameChange::Unlink(path.clone()),
        }
    }
}
