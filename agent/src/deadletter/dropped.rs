//! What was given up of the dead letters for lack of room, durably: how many, received when, and
//! the readings in them that are still to be declared lost.
//!
//! Most letters never were readings: nothing more is said of them than their number. Those that
//! were decoded and found no room among the series, or could not be sealed, or whose rules were
//! lost, are acknowledged readings, and stand under a gap once they are given up.
//!
//! It is written before letters go, in two slots that were taken ahead. After a crash what was
//! given up for lack of a block may be given up, and counted, once more: too much, never less.

use super::put_back::LetterId;
use crate::seal::{Origin, Refused};
use bytes::{Buf, BufMut};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::{Cursor, CursorError, Disk, LifeId, LogError};
use tributary_protocol::ids::BufferId;

const VERSION: u8 = 1;

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

fn both<T: Copy>(a: Option<T>, b: Option<T>, and: fn(T, T) -> T) -> Option<T> {
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
        out
    }

    fn read(mut bytes: &[u8]) -> Option<Self> {
        let input = &mut bytes;
        if input.try_get_u8().ok()? != VERSION {
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
        Some(body)
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
/// A disk that fails.
pub(crate) fn look(disk: Arc<dyn Disk>, dir: &Path) -> Result<Option<Tally>, CursorError> {
    let (_, value) = Cursor::open(disk, &path_of(dir))?;
    let body = value.and_then(|bytes| Body::read(&bytes));
    Ok(body.and_then(|body| body.gone.tally))
}

/// The slots, and what they say.
pub(super) struct Dropped {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Absent while there is no room for it.
    slots: Option<Cursor>,
    body: Body,
}

impl fmt::Debug for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Dropped");
        shown.field("body", &self.body).finish_non_exhaustive()
    }
}

impl Dropped {
    /// What is known of the letters in `dir`.
    pub(super) fn open(disk: &Arc<dyn Disk>, dir: &Path) -> Self {
        let mut dropped = Self {
            disk: Arc::clone(disk),
            path: path_of(dir),
            slots: None,
            body: Body::default(),
        };
        if let Err(error) = dropped.slots() {
            tracing::warn!(%error, "what is given up of dead letters can't be counted yet");
        }
        dropped
    }

    fn slots(&mut self) -> Result<&mut Cursor, CursorError> {
        if self.slots.is_none() {
            let (cursor, value) = Cursor::open(Arc::clone(&self.disk), &self.path)?;
            match value.map(|bytes| Body::read(&bytes)) {
                Some(Some(body)) => self.body = body,
                Some(None) => {
                    tracing::error!("what was given up of dead letters can't be understood");
                }
                None => {}
            }
            self.slots = Some(cursor);
        }
        Ok(self.slots.as_mut().expect("they were opened above"))
    }

    fn change(&mut self, change: impl FnOnce(&mut Body)) -> Result<(), LogError> {
        let path = self.path.clone();
        let failed = |error| LogError::Io {
            doing: "counting dead letters that are given up, in",
            path,
            source: std::io::Error::other(error),
        };
        if let Err(error) = self.slots() {
            return Err(failed(error));
        }
        let before = self.body;
        change(&mut self.body);
        let bytes = self.body.write();
        let written = self.slots().and_then(|slots| slots.write(&bytes));
        written.map_err(|error| {
            self.body = before;
            failed(error)
        })
    }

    /// Counts what is given up; `below` when it is all that is left of a life below a number.
    pub(super) fn count(&mut self, load: Load, below: Option<LetterId>) -> Result<(), LogError> {
        self.change(|body| {
            body.gone.add(load);
            body.below = below.or(body.below);
        })
    }

    /// What goes, since it is counted.
    pub(super) fn below(&self) -> Option<LetterId> {
        self.body.below
    }

    /// Which readings were not declared when the process before ended: all before `covered` is.
    pub(super) fn settle(&mut self, covered: Option<Origin>) -> Result<(), LogError> {
        let Some((under, staged)) = self.body.staged else {
            return Ok(());
        };
        let declared = covered.is_some_and(|covered| covered >= under);
        self.change(|body| {
            body.staged = None;
            if !declared {
                body.gone.owed = both(body.gone.owed, Some(staged), Refused::and);
            }
        })
    }

    /// Whether there are readings to declare.
    pub(super) fn owes(&self) -> bool {
        self.body.gone.owed.is_some()
    }

    /// The readings that the batch which covers all before `under` is to declare.
    pub(super) fn stage(&mut self, under: Origin) -> Result<Option<Refused>, LogError> {
        let Some(owed) = self.body.gone.owed else {
            return Ok(None);
        };
        self.change(|body| {
            // What the batch before declared is durable by now.
            body.staged = Some((under, owed));
            body.gone.owed = None;
        })?;
        Ok(Some(owed))
    }
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
        let open = || Dropped::open(&disk, dir);
        let below = LetterId {
            life: LifeId([4; 16]),
            number: 9,
        };
        open().count(load(50), Some(below)).unwrap();
        open().count(load(20), None).unwrap();
        let mut dropped = open();
        assert_eq!(dropped.below(), Some(below));
        let owed = dropped.stage(at(7)).unwrap().unwrap();
        assert_eq!(owed, Refused::one(3, 50).and(Refused::one(3, 20)));
        assert_eq!(dropped.stage(at(8)).unwrap(), None, "once");

        // The process ends before that batch is durable.
        let mut dropped = open();
        dropped.settle(Some(at(6))).unwrap();
        assert!(dropped.owes());
        assert_eq!(dropped.stage(at(9)).unwrap(), Some(owed));
        // And behind it.
        let mut dropped = open();
        dropped.settle(Some(at(9))).unwrap();
        assert!(!dropped.owes() && !open().owes());
        let tally = look(Arc::clone(&disk), dir).unwrap().unwrap();
        assert_eq!((tally.letters, tally.first, tally.last), (2, 20, 50));
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
        };
        let bytes = body.write();
        assert_eq!(Body::read(&bytes), Some(body));
        for end in 0..bytes.len() {
            assert_eq!(Body::read(&bytes[..end]), None);
        }
        assert_eq!(Body::read(&[2]), None);
    }
}
