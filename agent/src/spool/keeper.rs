//! Keeps in the cursor what was acknowledged, and then lets go of it, where a disk may be waited
//! for. What leaves on an acknowledgement alone stands in both slots before: one of them may be
//! damaged, and what no cursor knows would be declared.

use super::gaps::Book;
use super::owed::Owed;
use super::shed::lane_key;
use super::{Covered, CursorBody, LaneReader};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tributary_journal::{Cursor, CursorError, LifeId, SegmentInfo};
use tributary_protocol::ids::{Lane, LaneKey};

/// Keeps what was acknowledged, for who sends and for who sheds.
#[derive(Clone, Debug)]
pub(super) struct SharedKeeper(Arc<Mutex<Keeper>>);

impl SharedKeeper {
    pub(super) fn new(keeper: Keeper) -> Self {
        Self(Arc::new(Mutex::new(keeper)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Keeper> {
        // Each step leaves it whole, also where the one before it panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what was acknowledged, and then lets go of it.
#[derive(Debug)]
pub(super) struct Keeper {
    present: LifeId,
    readers: BTreeMap<Lane, LaneReader>,
    book: Book,
    covered: Covered,
    cursor: Cursor,
    /// What the slot says that is not the newest; nothing, as long as it is not known.
    older: CursorBody,
    newest: CursorBody,
    /// Acknowledged, but still here until the cursor says so.
    trims: BTreeMap<LaneKey, u64>,
    /// Acknowledged and gone, which a cursor that is on its way need not know yet.
    gone: BTreeMap<LaneKey, u64>,
    owed: Owed,
}

impl Keeper {
    pub(super) fn new(
        present: LifeId,
        readers: BTreeMap<Lane, LaneReader>,
        (book, covered): (Book, Covered),
        (cursor, newest): (Cursor, CursorBody),
        owed: Owed,
    ) -> Self {
        Self {
            present,
            readers,
            book,
            covered,
            cursor,
            older: CursorBody::default(),
            newest,
            trims: BTreeMap::new(),
            gone: BTreeMap::new(),
            owed,
        }
    }

    /// Begins a cursor where there was none: from now on one says that nothing else was
    /// acknowledged.
    pub(super) fn begin(&mut self, body: CursorBody) {
        if let Err(error) = self.write(body) {
            tracing::warn!(%error, "the spool's cursor can't be written");
        }
    }

    /// Keeps a cursor, and lets go of what it and those before it say. Whether it is kept.
    pub(super) fn keep(&mut self, mut body: CursorBody, trims: BTreeMap<LaneKey, u64>) -> bool {
        self.trims.extend(trims);
        for (key, below) in &mut self.trims {
            // What was taken back since is sent again.
            let first = first_held(&self.readers, &self.book, *key).unwrap_or(*below);
            *below = body.taken_back(*key, &(first..*below)).unwrap_or(*below);
            // The sender may have forgotten them; until they are gone, they are acknowledged.
            body.knows_acked(*key, 0..*below);
        }
        let unknown = |key: &LaneKey, below: &mut u64| {
            let is_known = body.accounted(*key).first_missing(0, *below).is_none();
            let reader = self.readers.get(&key.lane);
            let is_here = reader.is_some_and(|it| it.end(LifeId(key.buffer.0)).is_some());
            // Where the cursor names the lane and not these, they would be declared.
            let is_named = body.sender.lanes.iter().any(|known| known.key == *key);
            !is_known && (is_here || is_named || !self.book.of(*key).is_empty())
        };
        self.gone.retain(unknown);
        for (key, below) in &self.gone {
            body.knows_acked(*key, 0..*below);
        }
        let frees = self.frees();
        let written = self.write(body.clone());
        let written = written.and_then(|()| if frees { self.write(body) } else { Ok(()) });
        match written {
            Ok(()) if frees => self.unlink(),
            Ok(()) => self.trims.clear(),
            // Nothing is lost: what stays is sent again, and judged a replay.
            Err(error) => {
                tracing::warn!(%error, "the spool's cursor can't be written");
                return false;
            }
        }
        true
    }

    /// Makes sure that the cursor knows these numbers of a lane to be acknowledged, before they
    /// go.
    pub(super) fn know(&mut self, key: LaneKey, numbers: Range<u64>) -> Result<(), CursorError> {
        if numbers.is_empty() {
            return Ok(());
        }
        let says = |body: &CursorBody| {
            let accounted = body.accounted(key);
            accounted
                .first_missing(numbers.start, numbers.end)
                .is_none()
        };
        // Written in turn, so that twice is both.
        for _ in 0..2 {
            if !says(&self.older) || !says(&self.newest) {
                let mut body = self.newest.clone();
                body.knows_acked(key, 0..numbers.end);
                self.write(body)?;
            }
        }
        let gone = self.gone.entry(key).or_default();
        *gone = numbers.end.max(*gone);
        Ok(())
    }

    /// Writes a cursor: what its sender says, but for what is owed; and what is so now, since that
    /// may be gone from here behind it.
    pub(super) fn write(&mut self, mut body: CursorBody) -> Result<(), CursorError> {
        // In this order: what is covered lies below the ends.
        body.covered = self.covered.all();
        body.ends = self.ends();
        self.owed.stays_in(&mut body);
        if let Err(error) = self.cursor.write(&body.write()) {
            // The slot of the older one was written to.
            self.older = CursorBody::default();
            return Err(error);
        }
        self.older = std::mem::replace(&mut self.newest, body);
        Ok(())
    }

    /// How far each lane went, of what is here or under gaps.
    fn ends(&self) -> BTreeMap<LaneKey, u64> {
        let lanes = self.readers.iter();
        let lanes = lanes.filter(|(lane, _)| **lane != Lane::Series);
        let held = lanes.flat_map(|(lane, reader)| {
            let spans = reader.lives().into_iter();
            spans.map(|span| (lane_key(span.life, *lane), span.end))
        });
        let mut ends: BTreeMap<LaneKey, u64> = held.collect();
        for (key, end) in self.book.ends() {
            let known = ends.entry(key).or_default();
            *known = end.max(*known);
        }
        ends
    }

    /// Whether anything goes that takes room: whole segments, or gaps.
    fn frees(&self) -> bool {
        self.trims.iter().any(|(key, below)| {
            let life = LifeId(key.buffer.0);
            let reader = self.readers.get(&key.lane);
            let segments = reader.map(|reader| reader.closed(self.present));
            let goes = |segment: &SegmentInfo| segment.life == life && segment.end <= *below;
            segments.is_some_and(|segments| segments.iter().any(goes))
                || self.book.of(*key).iter().any(|gap| gap.end <= *below)
        })
    }

    fn unlink(&mut self) {
        for (key, below) in std::mem::take(&mut self.trims) {
            let Some(reader) = self.readers.get(&key.lane) else {
                continue;
            };
            let trimmed = reader.trim(LifeId(key.buffer.0), below);
            let forgotten = trimmed.and_then(|_| self.book.forget(key, below));
            if let Err(error) = forgotten {
                tracing::warn!(lane = %key.lane, %error, "acknowledged batches can't be removed");
                self.trims.insert(key, below);
            }
        }
    }
}

/// The first number of a lane that is here, or under a gap.
pub(super) fn first_held(
    readers: &BTreeMap<Lane, LaneReader>,
    book: &Book,
    key: LaneKey,
) -> Option<u64> {
    let spans = readers.get(&key.lane).map(LaneReader::lives);
    let spans = spans.into_iter().flatten();
    let of_life = spans.filter(|span| span.life.0 == key.buffer.0);
    let gaps = book.of(key).into_iter().map(|gap| gap.start);
    of_life.map(|span| span.first).chain(gaps).min()
}
