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
    Appended, Damage, Disk, Frame, LifeId, Log, LogConfig, LogError, LogKind, LogReader, LogWriter,
    Open,
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
    /// What is in the book: of each life of the log, all below this number. A gap that is durable
    /// and not yet in the book is needed, and stands at this number or above.
    taken_in: BTreeMap<LifeId, u64>,
}

impl State {
    fn took_in(&mut self, life: LifeId, below: u64) {
        let taken_in = self.taken_in.entry(life).or_default();
        *taken_in = below.max(*taken_in);
    }
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
            offset: 0,
            bytes: 0,
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

    /// The numbers of the lane that stand under gaps.
    pub(super) fn of(&self, key: LaneKey) -> Vec<Range<u64>> {
        let state = self.lock();
        let gaps = state.gaps.get(&key).into_iter().flatten();
        gaps.map(|(first, place)| *first..place.end).collect()
    }

    /// The gaps of the lane that stand for some of these numbers.
    pub(super) fn within(&self, key: LaneKey, numbers: Range<u64>) -> Vec<Range<u64>> {
        let state = self.lock();
        let Some(gaps) = state.gaps.get(&key).filter(|_| !numbers.is_empty()) else {
            return Vec::new();
        };
        let before = gaps.range(..=numbers.start).next_back();
        let from = before.map_or(numbers.start, |(first, _)| *first);
        let gaps = gaps.range(from..numbers.end);
        let gaps = gaps.map(|(first, place)| *first..place.end);
        gaps.filter(|gap| gap.end > numbers.start).collect()
    }

    /// One past the greatest number of each lane that stands under a gap.
    pub(super) fn ends(&self) -> Vec<(LaneKey, u64)> {
        let state = self.lock();
        let lanes = state.gaps.iter();
        let ends = lanes.filter_map(|(key, gaps)| Some((*key, gaps.last_key_value()?.1.end)));
        ends.collect()
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
        state.took_in(life, number + 1);
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

    /// The number below which everything is acknowledged, of each lane.
    pub(super) fn all_acked(&self) -> Vec<(LaneKey, u64)> {
        let state = self.lock();
        let acked = state.acked.iter();
        acked.map(|(key, below)| (*key, *below)).collect()
    }

    /// This number of the lane is acknowledged no more.
    pub(super) fn take_back(&self, key: LaneKey, number: u64) {
        let mut state = self.lock();
        let acked = state.acked.entry(key).or_default();
        *acked = (*acked).min(number);
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
        // Only what is in the book may go: the log may hold more by now.
        let mut needed = state.taken_in.clone();
        for place in state.gaps.values().flat_map(BTreeMap::values) {
            let least = needed.entry(place.life).or_insert(place.number);
            *least = place.number.min(*least);
        }
        drop(state);
        for (life, below) in needed {
            self.reader.trim(life, below)?;
        }
        Ok(())
    }

    /// What was shed since the last call, but for what is acknowledged by now: whoever hears of it
    /// would wait for what may be gone.
    pub(super) fn take_news(&self) -> Vec<Shed> {
        let mut state = self.lock();
        let news = std::mem::take(&mut state.news).into_iter();
        let acked = |key: &LaneKey| state.acked.get(key).copied().unwrap_or(0);
        news.filter(|shed| shed.numbers.end > acked(&shed.key))
            .collect()
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
    /// What is damaged of the log.
    pub(super) damage: Vec<Damage>,
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
        let mut damage = opened.recovery.damage;
        load(&book, &mut damage)?;
        let mut gaps = Self {
            writer: opened.writer,
            frame: Frame::new(),
            book,
            damage,
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
        let stored = self.store(gap)?;
        self.book.insert(gap, stored.life, stored.first);
        Ok(())
    }

    /// Makes a gap durable that is not in the book yet. Others forget theirs meanwhile.
    fn store(&mut self, gap: &SealedBatch) -> Result<Appended, LogError> {
        self.frame.clear();
        let pushed = self.frame.push(ENTRY_BATCH, gap.bytes());
        pushed.expect("a sealed batch is smaller than an entry may be");
        self.writer.append_reserved(&self.frame)
    }
}

/// Fills the book with what the log holds. A declaration that is damaged stands for numbers that
/// nobody knows any more: they are missed where the lane begins, and declared anew.
fn load(book: &Book, damage: &mut Vec<Damage>) -> Result<(), LogError> {
    for span in book.reader.lives() {
        let mut next = span.first;
        while next < span.end {
            let mut entries = Vec::new();
            match book.reader.read(span.life, next, LOAD_BYTES, &mut entries) {
                Ok(()) => {}
                Err(LogError::Damaged {
                    life,
                    numbers,
                    segment,
                    offset,
                    bytes,
                }) => {
                    tracing::error!(%life, ?numbers, segment, "a declared loss is damaged");
                    next = numbers.end.max(next + 1);
                    damage.push(Damage {
                        life,
                        numbers,
                        segment,
                        offset,
                        bytes,
                    });
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
        book.lock().took_in(span.life, span.end);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::super::shed;
    use super::*;
    use tributary_journal::SimDisk;
    use tributary_protocol::batch::Sealer;
    use tributary_protocol::ids::{BufferId, Lane};

    /// The uplink forgets what is acknowledged while the sealing stage declares more: at the worst
    /// instant, behind the fdatasync and before the book knows.
    #[test]
    fn a_gap_that_is_durable_stays_while_another_is_forgotten() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let present = BufferId::new(1, 1);
        let mut gaps = Gaps::open(&disk, Path::new("/gaps"), LifeId(present.0)).unwrap();
        let key = LaneKey {
            buffer: present,
            lane: Lane::Telemetry,
        };
        let gap = |first| {
            let sealed = shed::unknown(key, (first, first + 1), "a test", &mut Sealer::new());
            sealed.unwrap().remove(0)
        };
        gaps.append(&gap(0)).unwrap();
        let declared = gap(1);
        let stored = gaps.store(&declared).unwrap();
        let segments = |gaps: &Gaps| gaps.book.reader.segments().len();
        let mut last = (gap(2), gaps.store(&gap(2)).unwrap());
        while segments(&gaps) == 1 {
            // Into a second segment: what is forgotten goes with the first.
            let next = gap(last.0.key().number + 1);
            last = (next.clone(), gaps.store(&next).unwrap());
        }
        gaps.book.forget(key, 1).unwrap();
        gaps.book.insert(&declared, stored.life, stored.first);
        let of = |number| BatchKey {
            buffer: key.buffer,
            lane: key.lane,
            number,
        };
        assert!(gaps.book.read(of(0)).is_none());
        assert_eq!(gaps.book.read(of(1)).unwrap().unwrap(), declared);
        // It goes once it may.
        gaps.book.insert(&last.0, last.1.life, last.1.first);
        gaps.book.forget(key, 2).unwrap();
        assert_eq!(segments(&gaps), 1);
    }

    /// It is given up while its acknowledgement is on the way, and told behind it.
    #[test]
    fn what_is_acknowledged_is_not_told_as_given_up() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
        let present = BufferId::new(2, 1);
        let gaps = Gaps::open(&disk, Path::new("/gaps"), LifeId(present.0)).unwrap();
        let key = LaneKey {
            buffer: BufferId::new(1, 1),
            lane: Lane::Telemetry,
        };
        let told = |numbers: Range<u64>| {
            gaps.book.tell(Shed {
                key,
                numbers,
                bytes: 10,
            });
        };
        told(0..2);
        told(2..5);
        gaps.book.acknowledge(key, 4);
        let news = gaps.book.take_news().into_iter();
        // Of the second one is open, and the gap stands for all of it.
        let numbers: Vec<_> = news.map(|shed| shed.numbers).collect();
        assert_eq!(numbers, vec![2..5; 1]);
        told(4..6);
        gaps.book.acknowledge(key, 6);
        assert_eq!(gaps.book.take_news().len(), 0);
    }
}
