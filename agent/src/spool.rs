//! Sealed batches on disk until they are acknowledged: one log for each lane, and the cursor that
//! says what was acknowledged. It decides nothing; the uplink's sender does.

use crate::limits::{
    BATCH_READ_TRIES, CURSOR_SLOT_BYTES, SERIES_SPOOL_BYTES, SPOOL_SEGMENT_BYTES, SUSPECTS_MAX,
};
use crate::seal::Origin;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tributary_journal::{
    Cursor, CursorError, Damage, Disk, Frame, LifeId, Log, LogConfig, LogError, LogKind, LogReader,
    LogWriter, Open,
};
use tributary_protocol::batch::{Gap, GapReason, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, LaneKey};
use tributary_protocol::session::{LaneCursor, LaneStart, Trim};
use tributary_uplink::{Spool, SpoolError};

mod cursor;

pub use cursor::{CursorBody, CursorBodyError};

/// The lanes that this agent fills.
const LANES: [Lane; 2] = [Lane::Series, Lane::Telemetry];
/// The kind of a log's entry that is a sealed batch.
const ENTRY_BATCH: u8 = 1;
/// Bytes that reading one batch asks of the log: the log hands out one entry at least.
const ONE_ENTRY: usize = 1;

/// Why the spool can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// One of its logs.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Its cursor.
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// Its cursor was written by a newer version.
    #[error("{0}: use the newer program")]
    CursorBody(#[from] CursorBodyError),
}

/// What the cursor of the spool in `dir` says, before the spool is opened. A damaged one says
/// nothing, which only means that more is sent again.
fn read_cursor(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(Cursor, CursorBody), OpenError> {
    disk.create_dir_all(dir).map_err(|source| CursorError::Io {
        doing: "making the folder of",
        path: dir.to_owned(),
        source,
    })?;
    let path = dir.join("cursor");
    let (cursor, bytes) = Cursor::open_sized(Arc::clone(disk), &path, CURSOR_SLOT_BYTES)?;
    let body = match bytes.as_deref().map(CursorBody::read) {
        None => CursorBody::default(),
        Some(Ok(body)) => body,
        Some(Err(newer @ CursorBodyError::Version(_))) => return Err(newer.into()),
        Some(Err(error)) => {
            tracing::warn!(%error, "what was acknowledged is sent again");
            CursorBody::default()
        }
    };
    Ok((cursor, body))
}

/// The greatest life that the cursor in `dir` knows of.
///
/// # Errors
/// As [`open`].
pub fn greatest_life(disk: &Arc<dyn Disk>, dir: &Path) -> Result<u64, OpenError> {
    let (_, body) = read_cursor(disk, dir)?;
    Ok(body.covered_to.map_or(0, |origin| origin.buffer.life()))
}

/// Everything before this message is in sealed batches that are durable. Shared by who seals and
/// who trims: a segment goes only after a cursor that knows what it covered.
#[derive(Clone, Debug, Default)]
pub struct Covered(Arc<Mutex<Option<Origin>>>);

impl Covered {
    /// The first message that is not covered, as far as anybody said.
    pub fn origin(&self) -> Option<Origin> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves it on; never back.
    pub fn advance(&self, to: Origin) {
        let mut origin = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *origin = (*origin).max(Some(to));
    }
}

/// The spool, opened for a new life.
#[derive(Debug)]
pub struct Opened {
    /// Who seals writes here.
    pub writer: SpoolWriter,
    /// The uplink reads and trims here.
    pub reader: AgentSpool,
    /// What is there from earlier lives.
    pub lanes: Vec<LaneStart>,
    /// What is covered by it.
    pub covered: Covered,
    /// What is damaged.
    pub damage: Vec<Damage>,
}

/// Opens the spool below `dir` for the life `present`.
///
/// # Errors
/// A disk that fails, or files that belong to something else. Damage is no error.
pub fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    present: BufferId,
    quota_bytes: u64,
    reserve_bytes: u64,
) -> Result<Opened, OpenError> {
    let (cursor, body) = read_cursor(disk, dir)?;
    let mut writers = BTreeMap::new();
    let mut readers = BTreeMap::new();
    let mut damage = Vec::new();
    for lane in LANES {
        let quota = if lane == Lane::Series {
            SERIES_SPOOL_BYTES
        } else {
            quota_bytes
        };
        let config = LogConfig {
            segment_bytes: tributary_journal::limits::segment_bytes(quota).min(SPOOL_SEGMENT_BYTES),
            quota_bytes: quota,
            reserve_bytes,
            kind: LogKind::Spool,
        };
        let life = Open::NewLife(LifeId(present.0));
        let opened = Log::open(Arc::clone(disk), &dir.join(lane.name()), config, life)?;
        writers.insert(lane, opened.writer);
        readers.insert(lane, opened.reader);
        damage.extend(opened.recovery.damage);
    }
    let covered = Covered::default();
    if let Some(origin) = body.covered_to {
        covered.advance(origin);
    }
    let lanes = lane_starts(&readers, &body);
    let mut reader = AgentSpool {
        readers,
        cursor,
        covered: covered.clone(),
        trims: BTreeMap::new(),
        suspects: BTreeMap::new(),
    };
    if let Some(origin) = reader.newest_cover() {
        covered.advance(origin);
    }
    let writer = SpoolWriter {
        writers,
        frame: Frame::new(),
    };
    Ok(Opened {
        writer,
        reader,
        lanes,
        covered,
        damage,
    })
}

fn lane_starts(readers: &BTreeMap<Lane, LogReader>, body: &CursorBody) -> Vec<LaneStart> {
    let mut starts = Vec::new();
    for (lane, reader) in readers {
        for span in reader
            .lives()
            .into_iter()
            .filter(|span| span.first < span.end)
        {
            let key = LaneKey {
                buffer: BufferId(span.life.0),
                lane: *lane,
            };
            let known = body.lanes.iter().find(|saved| saved.key == key);
            starts.push(LaneStart {
                key,
                first: span.first,
                end: span.end,
                bytes: reader.bytes_from(span.life, span.first),
                acked: known.map(|saved| saved.acked.clone()).unwrap_or_default(),
            });
        }
    }
    starts
}

/// The only writer of the spool.
#[derive(Debug)]
pub struct SpoolWriter {
    writers: BTreeMap<Lane, LogWriter>,
    frame: Frame,
}

impl SpoolWriter {
    /// Makes a batch durable. After an error nothing of it is, and it may come again.
    ///
    /// # Errors
    /// What the log says.
    pub fn append(&mut self, batch: &SealedBatch) -> Result<(), LogError> {
        let lane = batch.key().lane;
        let writer = self
            .writers
            .get_mut(&lane)
            .expect("every lane that is sealed has a spool");
        let number = writer.next_number();
        assert!(
            number == batch.key().number,
            "{} is not number {number}",
            batch.key()
        );
        self.frame.clear();
        let pushed = self.frame.push(ENTRY_BATCH, batch.bytes());
        pushed.expect("a sealed batch is smaller than an entry may be");
        writer.append(&self.frame)?;
        Ok(())
    }
}

/// The spool as the uplink sees it.
#[derive(Debug)]
pub struct AgentSpool {
    readers: BTreeMap<Lane, LogReader>,
    cursor: Cursor,
    covered: Covered,
    /// Acknowledged, but still here until the cursor says so.
    trims: BTreeMap<LaneKey, u64>,
    /// Batches that looked damaged, and how often.
    suspects: BTreeMap<BatchKey, u32>,
}

impl AgentSpool {
    /// What is there, lane by lane; what was acknowledged is not said.
    pub fn lane_starts(&self) -> Vec<LaneStart> {
        lane_starts(&self.readers, &CursorBody::default())
    }

    /// The end of what the newest readable batch covers; of an older life when the newest has none.
    fn newest_cover(&mut self) -> Option<Origin> {
        let lives = self.readers.get(&Lane::Telemetry)?.lives();
        for span in lives.into_iter().rev() {
            let buffer = BufferId(span.life.0);
            for number in (span.first..span.end).rev() {
                let lane = Lane::Telemetry;
                let key = BatchKey {
                    buffer,
                    lane,
                    number,
                };
                let covers = self.read_stored(key).ok().map(|batch| {
                    let ends = batch.covers().iter().map(|cover| Origin {
                        buffer: cover.buffer,
                        number: cover.first + cover.count,
                    });
                    ends.max()
                });
                if let Some(Some(end)) = covers {
                    return Some(end);
                }
            }
        }
        None
    }

    fn unlink(&mut self) {
        for (key, below) in std::mem::take(&mut self.trims) {
            let Some(reader) = self.readers.get(&key.lane) else {
                continue;
            };
            if let Err(error) = reader.trim(LifeId(key.buffer.0), below) {
                tracing::warn!(lane = %key.lane, %error, "acknowledged batches can't be removed");
                self.trims.insert(key, below);
            }
        }
    }
}

impl AgentSpool {
    fn read_stored(&mut self, key: BatchKey) -> Result<SealedBatch, ReadError> {
        let reader = self.readers.get(&key.lane).ok_or(ReadError::Missing)?;
        let mut entries = Vec::new();
        match reader.read(LifeId(key.buffer.0), key.number, ONE_ENTRY, &mut entries) {
            Ok(()) => {}
            Err(LogError::Damaged { .. }) => return Err(ReadError::Damaged("its frame".into())),
            Err(LogError::Trimmed { .. }) => return Err(ReadError::Missing),
            Err(error) => return Err(ReadError::Disk(error)),
        }
        let entry = entries.into_iter().find(|entry| entry.number == key.number);
        let entry = entry.ok_or(ReadError::Missing)?;
        match SealedBatch::open(entry.bytes) {
            Ok(batch) if batch.key() == key => Ok(batch),
            Ok(other) => Err(ReadError::Damaged(format!("{} stands there", other.key()))),
            Err(error) => Err(ReadError::Damaged(error.to_string())),
        }
    }
}

impl AgentSpool {
    /// Whether a batch that looks damaged is to be read once more: a disk that fails for a moment
    /// gives wrong bytes, too, and a declared loss is for ever.
    fn may_pass(&mut self, key: BatchKey) -> bool {
        if self.suspects.len() >= SUSPECTS_MAX {
            self.suspects.clear();
        }
        let tries = self.suspects.entry(key).or_insert(0);
        *tries += 1;
        let may_pass = *tries < BATCH_READ_TRIES;
        if !may_pass {
            self.suspects.remove(&key);
        }
        may_pass
    }
}

/// Why a batch can't be read.
enum ReadError {
    /// Its bytes are not what was written.
    Damaged(String),
    /// It is not there.
    Missing,
    /// The disk, or the system, fails; it may be there another time.
    Disk(LogError),
}

/// The gap that stands in for a damaged batch, under its number. It is made of the name alone, so
/// that it is the same whenever it is made again.
fn gap_for(key: BatchKey) -> Option<SealedBatch> {
    let spec = Spec {
        key,
        sealed_at: 0,
        series_needed: 0,
        covers: Vec::new(),
    };
    let gap = Gap {
        first: key.number,
        count: 1,
        readings: None,
        event_first: 0,
        event_last: 0,
        reason: GapReason::Damaged,
        detail: "the batch can't be read back from the spool".to_owned(),
        each: Vec::new(),
    };
    Sealer::new().gap(&spec, &gap).ok()
}

impl Spool for AgentSpool {
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
        let failed = |reason: String, passing| SpoolError {
            key,
            reason,
            passing,
        };
        match self.read_stored(key) {
            Ok(batch) => Ok(batch),
            Err(ReadError::Disk(error)) => Err(failed(error.to_string(), true)),
            Err(ReadError::Missing) => Err(failed("it is not there".into(), false)),
            Err(ReadError::Damaged(what)) if self.may_pass(key) => Err(failed(what, true)),
            Err(ReadError::Damaged(what)) if key.lane == Lane::Series => {
                // Without its definitions nothing of the buffer can be named.
                Err(failed(format!("damaged: {what}"), false))
            }
            Err(ReadError::Damaged(what)) => {
                tracing::error!(%key, what, "a batch can't be read back: declared as a gap");
                metrics::counter!("tributary_agent_batches_damaged_total").increment(1);
                gap_for(key).ok_or_else(|| failed("its gap can't be made".into(), false))
            }
        }
    }

    fn trim(&mut self, trim: Trim) {
        self.trims.insert(trim.key, trim.below);
    }

    fn save(&mut self, cursor: &[LaneCursor]) {
        let body = CursorBody {
            covered_to: self.covered.origin(),
            lanes: cursor.to_vec(),
        };
        match self.cursor.write(&body.write()) {
            Ok(()) => self.unlink(),
            // Nothing is lost: what stays is sent again, and judged a replay.
            Err(error) => tracing::warn!(%error, "the spool's cursor can't be written"),
        }
    }
}

/// The spool's folder below an agent's data directory.
pub fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("spool")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_journal::SimDisk;
    use tributary_protocol::batch::{Content, Decoder, Kind};
    use tributary_protocol::ids::SeriesId;
    use tributary_protocol::reading::{Meta, Readings, Value};

    fn batch(buffer: BufferId, number: u64) -> SealedBatch {
        let mut readings = Readings::new();
        for value in 0..50 {
            let value = Value::F64(f64::from(value) * 1.37);
            readings.push(SeriesId(0), Meta::default(), value).unwrap();
        }
        let key = BatchKey {
            buffer,
            lane: Lane::Telemetry,
            number,
        };
        let spec = Spec {
            key,
            sealed_at: 1,
            series_needed: 1,
            covers: Vec::new(),
        };
        Sealer::new().readings(&spec, &mut readings).unwrap()
    }

    #[test]
    fn a_damaged_batch_is_declared_under_its_own_number_the_same_each_time() {
        let sim = SimDisk::new(1);
        let disk: Arc<dyn Disk> = Arc::new(sim.clone());
        let dir = Path::new("/spool");
        let present = BufferId::new(1, 1);
        let mut opened = open(&disk, dir, present, 64 << 20, 0).unwrap();
        let batches: Vec<_> = (0..3).map(|number| batch(present, number)).collect();
        for batch in &batches {
            opened.writer.append(batch).unwrap();
        }
        let segment = opened.reader.readers[&Lane::Telemetry]
            .segments()
            .remove(0)
            .path;
        let bytes = sim.contents(&segment).unwrap();
        let needle = batches[1].bytes();
        let at = bytes
            .windows(needle.len())
            .position(|window| window == &needle[..])
            .unwrap();
        sim.flip_bit(&segment, at as u64 + 60, 3);

        let key = batches[1].key();
        // A disk that fails for a moment declares nothing.
        for _ in 1..BATCH_READ_TRIES {
            assert!(opened.reader.read(key).unwrap_err().passing);
        }
        let gap = opened.reader.read(key).unwrap();
        assert_eq!((gap.kind(), gap.key()), (Kind::Gap, key));
        assert_eq!(gap_for(key).unwrap().bytes(), gap.bytes());
        let Content::Gap(what) = gap.decode(&mut Decoder::new()).unwrap() else {
            panic!("a gap holds a gap");
        };
        assert_eq!((what.first, what.count, what.readings), (1, 1, None));
        for whole in [0, 2] {
            let read = opened.reader.read(batches[whole].key()).unwrap();
            assert_eq!(read.bytes(), batches[whole].bytes());
        }
    }

    #[test]
    fn what_covers_most_is_found_again() {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(2));
        let dir = Path::new("/spool");
        let first = BufferId::new(1, 1);
        let mut opened = open(&disk, dir, first, 64 << 20, 0).unwrap();
        let key = BatchKey {
            buffer: first,
            lane: Lane::Telemetry,
            number: 0,
        };
        let covers = vec![tributary_protocol::batch::Cover {
            buffer: first,
            first: 5,
            count: 7,
        }];
        let spec = Spec {
            key,
            sealed_at: 1,
            series_needed: 1,
            covers,
        };
        let mut readings = Readings::new();
        readings
            .push(SeriesId(0), Meta::default(), Value::Bool(true))
            .unwrap();
        let sealed = Sealer::new().readings(&spec, &mut readings).unwrap();
        opened.writer.append(&sealed).unwrap();
        drop(opened);
        let opened = open(&disk, dir, BufferId::new(2, 9), 64 << 20, 0).unwrap();
        let covered = Origin {
            buffer: first,
            number: 12,
        };
        assert_eq!(opened.covered.origin(), Some(covered));
        assert_eq!(opened.lanes.len(), 1);
    }
}
