//! What a simulated disk does wrong, and when its power goes. It holds no file.

use super::{SimDisk, World, lock};
use std::fmt;
use std::io;

/// What the power is to wait for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum After {
    /// Nothing: it goes now, between two calls.
    Between,
    /// So many calls that change something; the last of them is carried out, neither durable nor
    /// confirmed. None of them is the same as one.
    Operations(u64),
    /// As operations: so many syncs, of files or of directories.
    Syncs(u64),
    /// As operations: so many renames.
    Renames(u64),
}

impl fmt::Display for After {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between => write!(f, "between"),
            Self::Operations(count) => write!(f, "{count} operations"),
            Self::Syncs(count) => write!(f, "{count} syncs"),
            Self::Renames(count) => write!(f, "{count} renames"),
        }
    }
}

/// A call that changes something.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Data,
    Sync,
    Name,
    Rename,
}

/// What one call that changes something has to do.
pub(super) enum Power {
    /// Carry on.
    On,
    /// Carry it out, not durably, and do not confirm it: the power goes meanwhile.
    Going,
}

impl Power {
    pub fn confirm(self) -> io::Result<()> {
        match self {
            Self::On => Ok(()),
            Self::Going => Err(no_power()),
        }
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

/// How a sync ends.
pub(super) enum Synced {
    Well,
    /// It says that all is well, and nothing is durable.
    Lied,
}

/// What is to go wrong.
#[derive(Default)]
pub(super) struct Faults {
    off: bool,
    power: Option<After>,
    pub full: bool,
    fail_syncs: u32,
    fail_dir_syncs: u32,
    fail_writes: u32,
    fail_reads: u32,
    /// Reads that go well before those fail.
    good_reads: u32,
    lie_syncs: u32,
    /// A sync lied, and the power has not gone since.
    pub lied: bool,
}

/// Counts one down; whether it was there.
fn taken(left: &mut u32) -> bool {
    let there = *left > 0;
    *left = left.saturating_sub(1);
    there
}

impl Faults {
    pub fn is_off(&self) -> bool {
        self.off
    }

    pub fn cut(&mut self) {
        self.off = true;
    }

    pub fn powered(&self) -> io::Result<()> {
        if self.off { Err(no_power()) } else { Ok(()) }
    }

    /// A call that changes something begins.
    pub fn operate(&mut self, operation: Operation) -> io::Result<Power> {
        self.powered()?;
        let left = match &mut self.power {
            Some(After::Operations(left)) => left,
            Some(After::Syncs(left)) if operation == Operation::Sync => left,
            Some(After::Renames(left)) if operation == Operation::Rename => left,
            _ => return Ok(Power::On),
        };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return Ok(Power::On);
        }
        self.off = true;
        Ok(Power::Going)
    }

    /// Whether this write is to fail.
    pub fn write_fails(&mut self) -> bool {
        taken(&mut self.fail_writes)
    }

    pub fn read(&mut self) -> io::Result<()> {
        self.powered()?;
        if !taken(&mut self.good_reads) && taken(&mut self.fail_reads) {
            return Err(io::Error::other("a planted read error"));
        }
        Ok(())
    }

    pub fn sync(&mut self) -> io::Result<Synced> {
        if taken(&mut self.fail_syncs) {
            return Err(io::Error::other("a planted fdatasync error"));
        }
        Ok(self.lie())
    }

    pub fn sync_dir(&mut self) -> io::Result<Synced> {
        if taken(&mut self.fail_dir_syncs) {
            return Err(io::Error::other("a planted error of a directory's fsync"));
        }
        Ok(self.lie())
    }

    fn lie(&mut self) -> Synced {
        if taken(&mut self.lie_syncs) {
            self.lied = true;
            return Synced::Lied;
        }
        Synced::Well
    }

    /// What the next process on the same machine meets.
    pub fn after_kill(&self) -> Self {
        Self {
            full: self.full,
            lied: self.lied,
            ..Self::default()
        }
    }
}

/// Called when the power goes.
pub(super) type Hook = Box<dyn FnOnce() + Send>;

impl SimDisk {
    fn faults<T>(&self, change: impl FnOnce(&mut Faults) -> T) -> T {
        change(&mut self.locked().faults)
    }

    /// Whether the power is off: every call fails.
    pub fn is_off(&self) -> bool {
        self.faults(|faults| faults.off)
    }

    /// Lets the power go later, or now.
    pub fn power_off(&self, after: After) {
        self.faults(|faults| match after {
            After::Between => faults.off = true,
            after => faults.power = Some(after),
        });
    }

    /// Lets `operations` more changing operations succeed. The one after them is carried out but
    /// neither durable nor confirmed, and then everything fails, reads too.
    pub fn power_off_after(&self, operations: u64) {
        self.power_off(After::Operations(operations + 1));
    }

    /// Has `hook` called once, when the power goes or the process is killed, before the call during
    /// which it goes returns. It may look at anything but this disk's files.
    pub fn on_off(&self, hook: impl FnOnce() + Send + 'static) {
        *lock(&self.shared.hook) = Some(Box::new(hook));
    }

    /// Lets the next fdatasync fail with an I/O error; what it should have synced is never
    /// written later, though parts of it may survive.
    pub fn fail_next_sync(&self) {
        self.fail_syncs(1);
    }

    /// As [`fail_next_sync`](Self::fail_next_sync), for the next `times`.
    pub fn fail_syncs(&self, times: u32) {
        self.faults(|faults| faults.fail_syncs = times);
    }

    /// Lets the next `times` syncs of a directory fail with an I/O error; its names may survive.
    pub fn fail_dir_syncs(&self, times: u32) {
        self.faults(|faults| faults.fail_dir_syncs = times);
    }

    /// Lets the next `times` writes fail with an I/O error, half done.
    pub fn fail_writes(&self, times: u32) {
        self.faults(|faults| faults.fail_writes = times);
    }

    /// Lets the next `times` reads fail with an I/O error.
    pub fn fail_reads(&self, times: u32) {
        self.fail_reads_behind(0, times);
    }

    /// After `good` reads, the next `times` fail.
    pub fn fail_reads_behind(&self, good: u32, times: u32) {
        self.faults(|faults| (faults.good_reads, faults.fail_reads) = (good, times));
    }

    /// Lets the next `times` syncs, of files or of directories, say that all is well and make
    /// nothing durable. A later one that does not lie makes up for it.
    pub fn lie_syncs(&self, times: u32) {
        self.faults(|faults| faults.lie_syncs = times);
    }

    /// Whether a sync lied since the power was last cut.
    pub fn lied(&self) -> bool {
        self.faults(|faults| faults.lied)
    }

    /// Whether the disk has no free block: creations with a size, and writes to places that have
    /// no block yet, fail with `StorageFull`; others go on.
    pub fn set_full(&self, full: bool) {
        self.faults(|faults| faults.full = full);
    }

    /// Nothing goes wrong from now on that was planned to, unless the power is off already.
    pub fn heal(&self) {
        self.faults(|faults| {
            *faults = Faults {
                off: faults.off,
                lied: faults.lied,
                ..Faults::default()
            };
        });
    }
}

impl World {
    /// Counts an operation that changes something.
    pub(super) fn operate(&mut self, operation: Operation) -> io::Result<Power> {
        self.faults.powered()?;
        self.counts.operations += 1;
        self.faults.operate(operation)
    }
}
