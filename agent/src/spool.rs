//! Sealed batches on disk until they are acknowledged: one log for each lane, and the cursor that
//! says what was acknowledged. It decides nothing; the uplink's sender does.

use crate::limits::{CURSOR_SLOT_BYTES, SERIES_SPOOL_BYTES, SPOOL_SEGMENT_BYTES};
use crate::seal::Origin;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tributary_journal::{
    Cursor, CursorError, Damage, Disk, Frame, LifeId, Log, LogConfig, LogError, LogKind, LogReader,
    LogWriter, Open,
};
use tributary_protocol::batch::SealedBatch;
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
    disk.create_dir_all(dir).map_err(|source| CursorError::Io {
        doing: "making the folder of",
        path: dir.to_owned(),
        source,
    })?;
    let (cursor, body) =
        Cursor::open_sized(Arc::clone(disk), &dir.join("cursor"), CURSOR_SLOT_BYTES)?;
    let body = body
        .and_then(|bytes| CursorBody::read(&bytes).ok())
        .unwrap_or_default();
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
}

impl AgentSpool {
    /// What is there, lane by lane; what was acknowledged is not said.
    pub fn lane_starts(&self) -> Vec<LaneStart> {
        lane_starts(&self.readers, &CursorBody::default())
    }

    /// The end of what the newest readable batches of each life cover.
    fn newest_cover(&mut self) -> Option<Origin> {
        let lives = self.readers.get(&Lane::Telemetry)?.lives();
        let lives = lives.into_iter().rev().filter(|span| span.first < span.end);
        let keys: Vec<BatchKey> = lives
            .flat_map(|span| {
                let buffer = BufferId(span.life.0);
                let numbers = (span.first..span.end).rev();
                numbers.map(move |number| BatchKey {
                    buffer,
                    lane: Lane::Telemetry,
                    number,
                })
            })
            .collect();
        let batch = keys.into_iter().find_map(|key| self.read(key).ok())?;
        let ends = batch.covers().iter().map(|cover| Origin {
            buffer: cover.buffer,
            number: cover.first + cover.count,
        });
        ends.max()
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

impl Spool for AgentSpool {
    fn read(&mut self, key: BatchKey) -> Result<SealedBatch, SpoolError> {
        let failed = |reason: String| SpoolError { key, reason };
        let reader = self
            .readers
            .get(&key.lane)
            .ok_or_else(|| failed("no such lane".into()))?;
        let mut entries = Vec::new();
        let life = LifeId(key.buffer.0);
        reader
            .read(life, key.number, ONE_ENTRY, &mut entries)
            .map_err(|e| failed(e.to_string()))?;
        let entry = entries.into_iter().find(|entry| entry.number == key.number);
        let entry = entry.ok_or_else(|| failed("it is not there".into()))?;
        let batch = SealedBatch::open(entry.bytes).map_err(|e| failed(e.to_string()))?;
        if batch.key() != key {
            return Err(failed(format!("{} stands in its place", batch.key())));
        }
        Ok(batch)
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
