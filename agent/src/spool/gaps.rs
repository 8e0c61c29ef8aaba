//! Declared losses that stand for batches of the spool: a small log of its own, which is written
//! before what it replaces goes, and the book of what is in it.
//!
//! Its blocks are taken ahead, and it may use the reserve: on a full disk it is what frees room.

use super::{ENTRY_BATCH, ONE_ENTRY};
use crate::limits::{GAP_SEGMENT_BYTES, GAP_SPOOL_BYTES, GAPS_MAX};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tributary_journal::{
    Disk, Frame, LifeId, Log, LogConfig, LogError, LogKind, LogReader, LogWriter, Open,
};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchKey, LaneKey};
use tributary_uplink::Shed;

/// Segments that are prepared ahead.
const SPARES: usize = 2;
/// Bytes that one step of loading reads.
const LOAD_BYTES: usize = 256 * 1024;

/// Where a gap lies in the log, and where its numbers end.
#[derive(Clone, Copy, Debug)]
struct Place {
    end: u64,
    life: LifeId,
    number: u64,
}

#[derive(Debug, Default)]
struct State {
    gaps: BTreeMap<LaneKey, BTreeMap<u64, Place>>,
    /// Everything below is acknowledged.
    acked: BTreeMap<LaneKey, u64>,
    /// What was shed and not yet told to who sends.
    news: Vec<Shed>,
}

/// Which numbers of the spool stand under a gap; shared by who writes and who reads.
#[derive(Clone, Debug)]
pub(super) struct Book {
    state: Arc<Mutex<State>>,
    reader: LogReader,
}

impl Book {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is one map operation: whole even if who made it panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The numbers of the gap that stands for this batch.
    pub(super) fn numbers(&self, key: BatchKey) -> Option<Range<u64>> {
        let state = self.lock();
        let (first, place) = place_of(&state, key)?;
        Some(first..place.end)
    }

    /// The gap that stands for this batch.
    pub(super) fn read(&self, key: BatchKey) -> Option<Result<SealedBatch, LogError>> {
        let Place { life, number, .. } = place_of(&self.lock(), key)?.1;
        let mut entries = Vec::new();
        let read = self.reader.read(life, number, ONE_ENTRY, &mut entries);
        let damaged = || LogError::Damaged {
            life,
            numbers: number..number + 1,
            segment: String::new(),
        };
        Some(read.and_then(|()| {
            let entry = entries.into_iter().find(|entry| entry.number == number);
            let batch = entry.and_then(|entry| SealedBatch::open(entry.bytes).ok());
            let batch = batch.filter(|batch| batch.key().lane_key() == key.lane_key());
            batch.ok_or_else(damaged)
        }))
    }

    /// Every gap: its lane, and its numbers.
    pub(super) fn all(&self) -> Vec<(LaneKey, Range<u64>)> {
        let state = self.lock();
        let lanes = state.gaps.iter();
        let gaps = lanes.flat_map(|(key, gaps)| {
            let numbers = gaps.iter().map(|(first, place)| *first..place.end);
            numbers.map(|numbers| (*key, numbers))
        });
        gaps.collect()
    }

    fn insert(&self, batch: &SealedBatch, life: LifeId, number: u64) {
        let numbers = batch.numbers();
        let place = Place {
            end: numbers.end,
            life,
            number,
        };
        let mut state = self.lock();
        let lane = state.gaps.entry(batch.key().lane_key()).or_default();
        lane.insert(numbers.start, place);
    }

    /// Everything of the lane below this number is acknowledged.
    pub(super) fn acknowledge(&self, key: LaneKey, below: u64) {
        let mut state = self.lock();
        let acked = state.acked.entry(key).or_default();
        *acked = (*acked).max(below);
    }

    /// The number below which everything of the lane is acknowledged.
    pub(super) fn acked(&self, key: LaneKey) -> u64 {
        self.lock().acked.get(&key).copied().unwrap_or(0)
    }

    /// Forgets the gaps of the lane below this number, and gives up their room in the log.
    pub(super) fn forget(&self, key: LaneKey, below: u64) -> Result<(), LogError> {
        let mut state = self.lock();
        let Some(lane) = state.gaps.get_mut(&key) else {
            return Ok(());
        };
        let before = lane.len();
        lane.retain(|_, place| place.end > below);
        let gone = before > lane.len();
        if lane.is_empty() {
            state.gaps.remove(&key);
        }
        if !gone {
            return Ok(());
        }
        let mut needed: BTreeMap<LifeId, u64> = BTreeMap::new();
        for place in state.gaps.values().flat_map(BTreeMap::values) {
            let least = needed.entry(place.life).or_insert(place.number);
            *least = place.number.min(*least);
        }
        drop(state);
        for span in self.reader.lives() {
            let below = needed.get(&span.life).copied().unwrap_or(span.end);
            self.reader.trim(span.life, below)?;
        }
        Ok(())
    }

    /// What was shed since the last call.
    pub(super) fn take_news(&self) -> Vec<Shed> {
        std::mem::take(&mut self.lock().news)
    }

    pub(super) fn tell(&self, shed: Shed) {
        self.lock().news.push(shed);
    }

    fn count(&self) -> usize {
        self.lock().gaps.values().map(BTreeMap::len).sum()
    }
}

fn place_of(state: &State, key: BatchKey) -> Option<(u64, Place)> {
    let lane = state.gaps.get(&key.lane_key())?;
    let (first, place) = lane.range(..=key.number).next_back()?;
    (key.number < place.end).then_some((*first, *place))
}

/// The only writer of the log of gaps.
#[derive(Debug)]
pub(super) struct Gaps {
    writer: LogWriter,
    frame: Frame,
    pub(super) book: Book,
}

impl Gaps {
    /// Opens the log in `dir` for the life `present`, and reads what is in it.
    pub(super) fn open(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        present: LifeId,
    ) -> Result<Self, LogError> {
        let config = LogConfig {
            segment_bytes: GAP_SEGMENT_BYTES,
            quota_bytes: GAP_SPOOL_BYTES,
            reserve_bytes: 0,
            kind: LogKind::Spool,
        };
        let opened = Log::open(Arc::clone(disk), dir, config, Open::NewLife(present))?;
        let book = Book {
            state: Arc::default(),
            reader: opened.reader,
        };
        load(&book)?;
        let mut gaps = Self {
            writer: opened.writer,
            frame: Frame::new(),
            book,
        };
        gaps.prepare();
        Ok(gaps)
    }

    /// Takes blocks ahead; whether there are any.
    pub(super) fn prepare(&mut self) -> bool {
        self.writer.prepare(SPARES).is_ok() || self.writer.spares() > 0
    }

    /// Makes a gap durable. What it stands for may go then.
    pub(super) fn append(&mut self, gap: &SealedBatch) -> Result<(), LogError> {
        if self.book.count() >= GAPS_MAX {
            return Err(LogError::Full {
                dir: "the spool's declared losses".into(),
                quota_bytes: GAP_SPOOL_BYTES,
                held_bytes: self.writer.bytes(),
            });
        }
        self.frame.clear();
        let pushed = self.frame.push(ENTRY_BATCH, gap.bytes());
        pushed.expect("a sealed batch is smaller than an entry may be");
        let appended = self.writer.append_reserved(&self.frame)?;
        self.book.insert(gap, appended.life, appended.first);
        Ok(())
    }
}

/// Fills the book with what the log holds. A declaration that is damaged stands for numbers that
/// nobody knows any more; who misses them asks for them, and finds them damaged.
fn load(book: &Book) -> Result<(), LogError> {
    for span in book.reader.lives() {
        let mut next = span.first;
        while next < span.end {
            let mut entries = Vec::new();
            match book.reader.read(span.life, next, LOAD_BYTES, &mut entries) {
                Ok(()) => {}
                Err(LogError::Damaged { numbers, .. }) => {
                    tracing::error!(life = %span.life, ?numbers, "a declared loss is damaged");
                    next = numbers.end.max(next + 1);
                    continue;
                }
                Err(error) => return Err(error),
            }
            let Some(last) = entries.last() else { break };
            next = last.number + 1;
            for entry in entries {
                match SealedBatch::open(entry.bytes) {
                    Ok(batch) => book.insert(&batch, entry.life, entry.number),
                    Err(error) => tracing::error!(%error, "a declared loss can't be understood"),
                }
            }
        }
    }
    Ok(())
}
