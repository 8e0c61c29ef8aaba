//! What was given up of the dead letters for lack of room, durably: how many, received when, and
//! the readings in them that are still to be declared lost.
//!
//! Most letters never were readings: nothing more is said of them than their number. Those that
//! were decoded and found no room among the series, or could not be sealed, or whose rules were
//! lost, are acknowledged readings, and stand under a gap once they are given up.
//!
//! It is written before letters go, in two slots that were taken ahead, and says with the same
//! write up to where the log is covered: nothing that was read before that is read again, and
//! whatever comes behind it finds those letters gone. Slots that can't be had, or written, hold up
//! nothing: then no letter that is kept goes.

use super::OpenError;
use super::put_back::LetterId;
use crate::seal::{Origin, Refused};
use bytes::{Buf, BufMut};
use metrics::gauge;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::{Cursor, CursorError, Disk, LifeId};
use tributary_protocol::ids::BufferId;

/// Version 1 did not say what is covered.
pub(super) const VERSION: u8 = 2;

/// Letters that were given up, by when they were received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tally {
    /// How many.
    pub letters: u64,
    /// When the first of them was received: µs since 1970, UTC.
    pub first: i64,
    /// When the last was.
    pub last: i64,
}

impl Tally {
    /// One letter.
    pub(super) fn one(received_time: i64) -> Self {
        Self {
            letters: 1,
            first: received_time,
            last: received_time,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            letters: self.letters.saturating_add(other.letters),
            first: self.first.min(other.first),
            last: self.last.max(other.last),
        }
    }
}

/// Letters, and the readings that they owe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Load {
    pub tally: Option<Tally>,
    pub owed: Option<Refused>,
}

impl Load {
    pub(super) fn add(&mut self, other: Self) {
        self.tally = both(self.tally, other.tally, Tally::and);
        self.owed = both(self.owed, other.owed, Refused::and);
    }
}

pub(super) fn both<T: Copy>(a: Option<T>, b: Option<T>, and: fn(T, T) -> T) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(and(a, b)),
        (a, b) => a.or(b),
    }
}

/// What the slots say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Body {
    gone: Load,
    /// Letters of this life below this number are counted: what is left of them goes.
    below: Option<LetterId>,
    /// Readings that the batch declares which covers all before this message.
    staged: Option<(Origin, Refused)>,
    /// Everything before this message was covered when letters were given up.
    covered: Option<Origin>,
}

impl Body {
    fn write(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let tally = self.gone.tally;
        out.put_u8(tally.is_some().into());
        if let Some(tally) = tally {
            out.put_u64_le(tally.letters);
            out.put_i64_le(tally.first);
            out.put_i64_le(tally.last);
        }
        out.put_u8(self.gone.owed.is_some().into());
        if let Some(owed) = self.gone.owed {
            owed.write(&mut out);
        }
        out.put_u8(self.below.is_some().into());
        if let Some(below) = self.below {
            out.put_slice(&below.life.0);
            out.put_u64_le(below.number);
        }
        out.put_u8(self.staged.is_some().into());
        if let Some((under, staged)) = &self.staged {
            out.put_slice(&under.buffer.0);
            out.put_u64_le(under.number);
            staged.write(&mut out);
        }
        out.put_u8(self.covered.is_some().into());
        if let Some(covered) = &self.covered {
            out.put_slice(&covered.buffer.0);
            out.put_u64_le(covered.number);
        }
        out
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let input = &mut bytes;
        let version = input.try_get_u8().ok()?;
        if !(1..=VERSION).contains(&version) {
            return None;
        }
        let mut body = Self::default();
        if input.try_get_u8().ok()? == 1 {
            body.gone.tally = Some(Tally {
                letters: input.try_get_u64_le().ok()?,
                first: input.try_get_i64_le().ok()?,
                last: input.try_get_i64_le().ok()?,
            });
        }
        if input.try_get_u8().ok()? == 1 {
            body.gone.owed = Some(Refused::read(input)?);
        }
        if input.try_get_u8().ok()? == 1 {
            let (life, number) = take_place(input)?;
            let life = LifeId(life);
            body.below = Some(LetterId { life, number });
        }
        if input.try_get_u8().ok()? == 1 {
            let (life, number) = take_place(input)?;
            let buffer = BufferId(life);
            body.staged = Some((Origin { buffer, number }, Refused::read(input)?));
        }
        if version > 1 && input.try_get_u8().ok()? == 1 {
            let (life, number) = take_place(input)?;
            let buffer = BufferId(life);
            body.covered = Some(Origin { buffer, number });
        }
        Some(body)
    }

    /// What the slots at `path` hold. What is damaged says nothing, and nobody can mend it.
    fn held(path: &Path, cursor: &Cursor, value: Option<Vec<u8>>) -> Result<Self, OpenError> {
        let version = value.as_ref().and_then(|bytes| bytes.first()).copied();
        if let Some(version) = version.filter(|version| *version > VERSION) {
            return Err(OpenError::NewerVersion {
                path: path.to_owned(),
                version,
            });
        }
        let none = value.is_none() && !cursor.damaged();
        let body = value.and_then(|bytes| Self::read(&bytes));
        if body.is_none() && !none {
            tracing::error!("what was given up of dead letters can't be understood");
        }
        Ok(body.unwrap_or_default())
    }
}

fn take_place(input: &mut &[u8]) -> Option<([u8; 16], u64)> {
    let (life, rest) = input.split_first_chunk()?;
    *input = rest;
    Some((*life, input.try_get_u64_le().ok()?))
}

/// Where it lies, beside the letters in `dir`.
fn path_of(dir: &Path) -> PathBuf {
    dir.with_extension("dropped")
}

/// What was given up of the letters in `dir`, ever.
///
/// # Errors
/// A disk that fails, or slots of a newer version.
pub(crate) fn look(disk: Arc<dyn Disk>, dir: &Path) -> Result<Option<Tally>, OpenError> {
    let path = path_of(dir);
    let (cursor, value) = Cursor::open(disk, &path)?;
    Ok(Body::held(&path, &cursor, value)?.gone.tally)
}

/// The slots, and what they say.
pub(super) struct Dropped {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Absent while there is no room for them.
    slots: Option<Cursor>,
    body: Body,
    /// What was covered when the process began.
    at_start: Option<Origin>,
    /// What is staged is from a process before, and it is not written yet what became of it.
    unsettled: bool,
    /// They could not be had, or written, the last time.
    failing: bool,
}

impl fmt::Debug for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Dropped");
        shown.field("body", &self.body).finish_non_exhaustive()
    }
}

impl Dropped {
    /// What is known of the letters in `dir`.
    ///
    /// # Errors
    /// A disk that fails other than by being full, or slots of a newer version.
    pub(super) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Result<Self, OpenError> {
        let mut dropped = Self {
            disk: Arc::clone(disk),
            path: path_of(dir),
            slots: None,
            body: Body::default(),
            at_start: None,
            unsettled: false,
            failing: false,
        };
        match dropped.load() {
            // There are none: where there are some, they need no block.
            Err(OpenError::Cursor(error)) if is_full(&error) => dropped.failed(&error),
            loaded => loaded?,
        }
        Ok(dropped)
    }

    fn load(&mut self) -> Result<(), OpenError> {
        let (cursor, value) = Cursor::open(Arc::clone(&self.disk), &self.path)?;
        self.body = Body::held(&self.path, &cursor, value)?;
        self.unsettled = self.body.staged.is_some();
        self.slots = Some(cursor);
        Ok(())
    }

    /// Takes the slots that there was no room for, if the disk has `free_bytes` by now.
    pub(super) fn prepare(&mut self, free_bytes: u64) {
        let free = || self.disk.free_bytes(self.path.parent()?).ok();
        if self.slots.is_none()
            && free().is_some_and(|free| free >= free_bytes)
            && let Err(error) = self.load()
        {
            self.failed(&error);
        }
    }

    /// Says once that nothing can be counted, and nothing goes until that is over.
    fn failed(&mut self, error: &dyn fmt::Display) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(%error, "what is given up of dead letters can't be counted for now");
        }
        gauge!("tributary_agent_dead_letters_uncounted").set(1.0);
    }

    /// Changes what the slots say, durably; whether that could be done.
    fn change(&mut self, change: impl FnOnce(&mut Body)) -> bool {
        if self.slots.is_none()
            && let Err(error) = self.load()
        {
            self.failed(&error);
            return false;
        }
        let mut body = self.body;
        if self.unsettled {
            body.settle(self.at_start);
        }
        change(&mut body);
        let written = self.slots.as_mut().map(|slots| slots.write(&body.write()));
        if let Some(Err(error)) = written {
            self.failed(&error);
            return false;
        }
        self.body = body;
        self.unsettled = false;
        self.failing = false;
        gauge!("tributary_agent_dead_letters_uncounted").set(0.0);
        true
    }

    /// Counts what is given up once everything before `covered` is covered; `below` when it is all
    /// that is left of the letters below it. Whether that is durable.
    pub(super) fn count(&mut self, load: Load, below: Option<LetterId>, covered: Origin) -> bool {
        self.change(|body| {
            body.gone.add(load);
            body.below = below.or(body.below);
            body.covered = body.covered.max(Some(covered));
        })
    }

    /// What goes, since it is counted.
    pub(super) fn below(&self) -> Option<LetterId> {
        self.body.below
    }

    /// Everything before this message was covered when letters were given up.
    pub(super) fn covered(&self) -> Option<Origin> {
        self.body.covered
    }

    /// Decides which readings were not declared when the process before ended: all before
    /// `covered` is.
    pub(super) fn settle(&mut self, covered: Option<Origin>) {
        self.at_start = covered;
        if self.unsettled {
            self.change(|_| {});
        }
    }

    /// Whether there are readings to declare.
    pub(super) fn owes(&self) -> bool {
        self.body.gone.owed.is_some()
    }

    /// The readings that the batch which covers all before `under` is to declare.
    pub(super) fn stage(&mut self, under: Origin) -> Option<Refused> {
        if !self.owes() && !self.unsettled {
            return None;
        }
        let mut owed = None;
        let staged = self.change(|body| {
            // What the batch before declared is durable by now.
            owed = body.gone.owed.take();
            body.staged = owed.map(|owed| (under, owed));
        });
        owed.filter(|_| staged)
    }
}

impl Body {
    /// What was staged is owed again, unless all before `covered` is covered and it stands there.
    fn settle(&mut self, covered: Option<Origin>) {
        let staged = self.staged.take();
        let open = staged.filter(|(under, _)| covered.is_none_or(|covered| covered < *under));
        let open = open.map(|(_, owed)| owed);
        self.gone.owed = both(self.gone.owed, open, Refused::and);
    }
}

fn is_full(error: &CursorError) -> bool {
    matches!(error, CursorError::Io { source, .. } if source.kind() == ErrorKind::StorageFull)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use tributary_journal::SimDisk;

    fn load(received_time: i64) -> Load {
        Load {
            tally: Some(Tally::one(received_time)),
            owed: Some(Refused::one(3, received_time)),
        }
    }

    fn at(number: u64) -> Origin {
        let buffer = BufferId::new(1, 1);
        Origin { buffer, number }
    }

    #[test]
    fn readings_are_owed_until_the_batch_that_declares_them_is_durable() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let dir = Path::new("/dead");
        let open = || Dropped::open(&disk, dir).unwrap();
        let below = LetterId {
            life: LifeId([4; 16]),
            number: 9,
        };
        assert!(open().count(load(50), Some(below), at(4)));
        assert!(open().count(load(20), None, at(3)));
        let mut dropped = open();
        assert_eq!(
            (dropped.below(), dropped.covered()),
            (Some(below), Some(at(4)))
        );
        let owed = dropped.stage(at(7)).unwrap();
        assert_eq!(owed, Refused::one(3, 50).and(Refused::one(3, 20)));
        assert_eq!(dropped.stage(at(8)), None, "once");

        // The process ends before that batch is durable.
        let mut dropped = open();
        dropped.settle(Some(at(6)));
        assert!(dropped.owes());
        assert_eq!(dropped.stage(at(9)), Some(owed));
        // And behind it.
        let mut dropped = open();
        dropped.settle(Some(at(9)));
        assert!(!dropped.owes() && !open().owes());
        let tally = look(Arc::clone(&disk), dir).unwrap().unwrap();
        assert_eq!((tally.letters, tally.first, tally.last), (2, 20, 50));
    }

    #[test]
    fn what_could_not_be_settled_is_not_written_over() {
        let sim = SimDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let dir = Path::new("/dead");
        let mut dropped = Dropped::open(&disk, dir).unwrap();
        assert!(dropped.count(load(50), None, at(4)));
        let owed = dropped.stage(at(7)).unwrap();
        drop(dropped);
        // Neither the slots nor others in their place can be written at the next start.
        let mut dropped = Dropped::open(&disk, dir).unwrap();
        sim.fail_writes(2);
        sim.set_full(true);
        dropped.settle(Some(at(6)));
        assert_eq!(
            dropped.stage(at(8)),
            None,
            "it is not durable where it will stand"
        );
        assert!(!dropped.count(load(20), None, at(8)));
        sim.set_full(false);
        assert_eq!(dropped.stage(at(9)), Some(owed));
        let mut dropped = Dropped::open(&disk, dir).unwrap();
        dropped.settle(Some(at(8)));
        assert!(dropped.owes(), "the batch up to 9 is not there");
    }

    #[test]
    fn slots_of_a_newer_version_are_left_alone() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let dir = Path::new("/dead");
        let path = path_of(dir);
        let (mut cursor, _) = Cursor::open(Arc::clone(&disk), &path).unwrap();
        let newer = [&[VERSION + 1], &b"whatever it says"[..]].concat();
        cursor.write(&newer).unwrap();
        let error = Dropped::open(&disk, dir).unwrap_err().to_string();
        assert!(error.ends_with("version 3, this program knows up to 2: use the newer program"));
        assert_eq!(look(Arc::clone(&disk), dir).unwrap_err().to_string(), error);
        let (_, value) = Cursor::open(disk, &path).unwrap();
        assert_eq!(value, Some(newer));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let body = Body {
            gone: load(5),
            below: Some(LetterId {
                life: LifeId([4; 16]),
                number: 9,
            }),
            staged: Some((at(7), Refused::one(1, 2))),
            covered: Some(at(6)),
        };
        let bytes = body.write();
        assert_eq!(Body::read(&bytes), Some(body));
        for end in 0..bytes.len() {
            assert_eq!(Body::read(&bytes[..end]), None);
        }
        let old = [&[1], &bytes[1..bytes.len() - 25]].concat();
        let covered = None;
        assert_eq!(Body::read(&old), Some(Body { covered, ..body }));
        assert_eq!(Body::read(&[3]), None);
    }
}
