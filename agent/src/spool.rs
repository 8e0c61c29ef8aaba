//! Sealed batches on disk until they are acknowledged: one log for each lane, the declared losses
//! that stand for what was given up, and the cursor that says what was acknowledged. What is sent
//! when, the uplink's sender decides.

use crate::limits::{CURSOR_SLOT_BYTES, SPOOL_SEGMENT_BYTES};
use crate::seal::Origin;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tributary_journal::{
    Cursor, CursorError, Damage, Disk, LifeId, Log, LogConfig, LogError, LogKind, LogReader, Open,
    ReadOnlyDisk,
};
use tributary_protocol::ids::{BatchHash, BatchKey, BufferId, Lane, LaneKey};
use tributary_protocol::ranges::HeldRanges;
use tributary_protocol::session::{LaneStart, Sender};

mod cursor;
mod declare;
mod gaps;
mod keeper;
mod owed;
mod policy;
mod reader;
pub mod repair;
mod shed;
mod twice;
mod writer;

pub use cursor::{CursorBody, CursorBodyError};
pub use policy::{LanePolicy, Policy, RefuseNew, SpoolConfig};
pub use reader::AgentSpool;
pub use writer::SpoolWriter;

pub(crate) use declare::missing;
use declare::{declare_missing, declare_unmet, unaccounted};
use gaps::{Book, Gaps};
use keeper::{Keeper, SharedKeeper};
use owed::Owed;
pub(crate) use twice::{COPY_FOLDER, LaneReader};
use writer::LaneLog;

/// The lanes that this agent fills.
const LANES: [Lane; 5] = [
    Lane::Series,
    Lane::Alerts,
    Lane::Telemetry,
    Lane::Aggregates,
    Lane::Events,
];
/// Those of them that hold the readings of messages, and are sealed together.
pub const DATA_LANES: [Lane; 2] = [Lane::Telemetry, Lane::Events];
/// Those that hold what the judging stage says.
pub const JUDGED_LANES: [Lane; 2] = [Lane::Alerts, Lane::Aggregates];
/// The kind of a log's entry that is a sealed batch.
const ENTRY_BATCH: u8 = 1;
/// Bytes that reading one batch asks of the log: the log hands out one entry at least.
const ONE_ENTRY: usize = 1;
/// Bytes that reading many batches asks of the log at once.
const READ_STEP_BYTES: usize = 256 * 1024;
/// Bytes of a log that one batch takes at the very least: what is lost is counted generously.
const BATCH_BYTES_LEAST: u64 = 64;

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

/// What the cursor of the spool in `dir` says, before the spool is opened. Where no slot can be
/// read it says nothing: what is still here is sent again, and what is gone is not declared, since
/// it may have been acknowledged.
fn read_cursor(disk: &Arc<dyn Disk>, dir: &Path) -> Result<(Cursor, CursorBody), OpenError> {
    disk.create_dir_all(dir).map_err(|source| CursorError::Io {
        doing: "making the folder of",
        path: dir.to_owned(),
        source,
    })?;
    let path = dir.join("cursor");
    let (cursor, bytes) = Cursor::open_sized(Arc::clone(disk), &path, CURSOR_SLOT_BYTES)?;
    let lost = || CursorBody {
        is_lost: true,
        ..CursorBody::default()
    };
    let body = match bytes.as_deref().map(CursorBody::read) {
        None => lost(),
        Some(Ok(body)) => body,
        Some(Err(newer @ CursorBodyError::Version(_))) => return Err(newer.into()),
        Some(Err(error)) => {
            tracing::warn!(%error, "what is still here is sent again, what is gone not declared");
            lost()
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
    let lives = body.covered.values().map(|origin| origin.buffer.life());
    Ok(lives.max().unwrap_or(0))
}

/// What the cursor in `dir` says, before the spool is opened.
///
/// # Errors
/// As [`open`].
pub fn acknowledged(disk: &Arc<dyn Disk>, dir: &Path) -> Result<CursorBody, OpenError> {
    read_cursor(disk, dir).map(|(_, body)| body)
}

/// The numbers that stand under a gap, before the spool is opened.
fn gaps_in(
    disk: &Arc<dyn Disk>,
    dir: &Path,
) -> Result<Vec<(LaneKey, std::ops::Range<u64>)>, OpenError> {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::new(Arc::clone(disk)));
    Ok(Gaps::open(&disk, &dir.join("gaps"), LifeId([0; 16]))?
        .book
        .all())
}

/// Everything before these messages is in sealed batches that are durable, lane by lane. Shared by
/// who seals and who trims: a segment goes only after a cursor that knows what it covered.
///
/// Whenever a lane of readings is sealed, all are, `telemetry` last: it is the furthest behind. The
/// lanes `alerts` and `aggregates` go their own ways: each covers the messages of which it has what
/// was said.
#[derive(Clone, Debug, Default)]
pub struct Covered(Arc<Mutex<BTreeMap<Lane, Origin>>>);

impl Covered {
    /// The first message that a lane does not cover, as far as anybody said.
    pub fn of(&self, lane: Lane) -> Option<Origin> {
        self.all().get(&lane).copied()
    }

    /// The first message that some lane does not cover.
    pub fn least(&self) -> Option<Origin> {
        self.of(Lane::Telemetry)
    }

    /// What each lane covers.
    pub fn all(&self) -> BTreeMap<Lane, Origin> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Moves a lane on; never back. Nothing is behind `telemetry`.
    pub fn advance(&self, lane: Lane, to: Origin) {
        let mut covered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut move_on = |lane: Lane| {
            let origin = covered.entry(lane).or_insert(to);
            *origin = to.max(*origin);
        };
        match lane {
            Lane::Telemetry => DATA_LANES.into_iter().for_each(move_on),
            other => move_on(other),
        }
    }

    /// Moves every lane of readings on.
    pub fn advance_all(&self, to: Origin) {
        self.advance(Lane::Telemetry, to);
    }
}

/// The spool, opened for a new life.
#[derive(Debug)]
pub struct Opened {
    /// Who seals writes here.
    pub writer: SpoolWriter,
    /// The uplink reads and trims here.
    pub reader: AgentSpool,
    /// Who decides what to send, knowing what is there from earlier lives.
    pub sender: Sender,
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
    config: &SpoolConfig,
) -> Result<Opened, OpenError> {
    open_sized(disk, dir, (present, SPOOL_SEGMENT_BYTES), config)
}

/// As [`open`], with segments of at most `segment_bytes`.
///
/// # Errors
/// As there.
pub(crate) fn open_sized(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    (present, segment_bytes): (BufferId, u64),
    config: &SpoolConfig,
) -> Result<Opened, OpenError> {
    let (cursor, mut body) = read_cursor(disk, dir)?;
    let mut owed = Owed::default();
    let mut gaps = Gaps::open(disk, &dir.join("gaps"), LifeId(present.0))?;
    let mut logs = BTreeMap::new();
    let mut readers = BTreeMap::new();
    let mut damage = std::mem::take(&mut gaps.damage);
    for lane in LANES {
        let policy = config.lane(lane);
        let config = LogConfig {
            segment_bytes: tributary_journal::limits::segment_bytes(policy.quota_bytes)
                .min(segment_bytes),
            quota_bytes: policy.quota_bytes,
            reserve_bytes: config.reserve_bytes,
            kind: LogKind::Spool,
        };
        let life = Open::NewLife(LifeId(present.0));
        let log_dir = dir.join(lane.name());
        let opened = Log::open(Arc::clone(disk), &log_dir, config, life)?;
        if lane != Lane::Series {
            let place = (&**disk, &*log_dir);
            declare_unmet(place, lane, &opened.recovery, &body, &mut gaps, &mut owed)?;
            declare_missing(lane, &opened.reader, &body, &mut gaps, &mut owed)?;
            finish_shedding(lane, &opened.reader, &gaps.book)?;
        }
        let (copy, reader) = twice::open((disk, dir), (lane, config), &opened, &mut damage);
        readers.insert(lane, reader);
        damage.extend(opened.recovery.damage);
        let log = LaneLog {
            writer: opened.writer,
            reader: opened.reader,
            copy,
            policy,
        };
        logs.insert(lane, log);
    }
    let covered = Covered::default();
    for (lane, origin) in &body.covered {
        covered.advance(*lane, *origin);
    }
    acknowledge(&gaps.book, &body);
    let was_lost = body.is_lost;
    pass_over(&readers, &gaps.book, &mut body);
    let sender = recalled(present, &readers, &gaps.book, &body);
    let life = LifeId(present.0);
    let known = (gaps.book.clone(), covered.clone());
    let keeper = Keeper::new(life, readers.clone(), known, (cursor, body.clone()), owed);
    let keeper = SharedKeeper::new(keeper);
    let reader = AgentSpool::new(readers, keeper.clone(), gaps.book.clone());
    for lane in DATA_LANES.into_iter().chain(JUDGED_LANES) {
        if let Some(origin) = reader.newest_cover(lane)? {
            covered.advance(lane, origin);
        }
    }
    if was_lost {
        keeper.lock().begin(body);
    }
    Ok(Opened {
        writer: SpoolWriter::new(logs, gaps, keeper),
        reader,
        sender,
        covered,
        damage,
    })
}

/// What earlier lives heard acknowledged.
fn acknowledge(book: &Book, body: &CursorBody) {
    for known in &body.sender.lanes {
        let acked = body.sender.acked(known.key);
        let below = acked.first_missing(0, u64::MAX).unwrap_or(0);
        book.acknowledge(known.key, below);
    }
}

/// Where the cursor does not tell all that was acknowledged, what is gone without a word is taken
/// for acknowledged, also from the next start on: nobody knows better.
fn pass_over(readers: &BTreeMap<Lane, LaneReader>, book: &Book, body: &mut CursorBody) {
    if body.tells_all() {
        return;
    }
    let spans = readers.iter().flat_map(|(lane, reader)| {
        let spans = reader.lives().into_iter();
        spans.map(|span| (shed::lane_key(span.life, *lane), span.first..span.end))
    });
    let mut held: BTreeMap<LaneKey, std::ops::Range<u64>> = spans.collect();
    for (key, numbers) in book.all() {
        held.entry(key).or_insert(numbers.start..numbers.start);
    }
    for (key, numbers) in unaccounted(body, &held, |key| book.of(key)) {
        tracing::warn!(buffer = %key.buffer, lane = key.lane.name(), ?numbers,
            "gone, and no cursor says whether acknowledged: not declared");
        body.knows_acked(key, numbers);
    }
    body.is_lost = false;
}

/// Who decides what to send, as it was before the restart.
fn recalled(
    present: BufferId,
    readers: &BTreeMap<Lane, LaneReader>,
    book: &Book,
    body: &CursorBody,
) -> Sender {
    let mut sender = Sender::new(present, lane_starts(readers, book, body));
    sender.recall(&body.sender);
    for (key, numbers) in book.all() {
        sender.on_shed(key, numbers, 0);
    }
    sender
}

/// What was declared, and still there when the process before ended. Only what stands under gaps
/// from the oldest number on is gone: what is declared further up has more before it.
fn finish_shedding(lane: Lane, reader: &LogReader, book: &Book) -> Result<(), LogError> {
    for span in reader.lives() {
        let LaneKey { buffer, lane } = shed::lane_key(span.life, lane);
        let mut number = span.first;
        while let Some(numbers) = book.numbers(BatchKey {
            buffer,
            lane,
            number,
        }) {
            number = numbers.end;
        }
        reader.trim(span.life, number)?;
    }
    Ok(())
}

/// What there is of each lane: in its log, and under gaps. What lies between them is neither, so it
/// was acknowledged.
fn lane_starts(
    readers: &BTreeMap<Lane, LaneReader>,
    book: &Book,
    body: &CursorBody,
) -> Vec<LaneStart> {
    let mut held: BTreeMap<LaneKey, (HeldRanges, u64)> = BTreeMap::new();
    let nothing = BatchHash([0; 32]);
    for (lane, reader) in readers {
        for span in reader.lives() {
            let (numbers, bytes) = held.entry(shed::lane_key(span.life, *lane)).or_default();
            numbers.insert_missing(span.first, span.end, nothing);
            *bytes = reader.bytes_from(span.life, span.first);
        }
    }
    for (key, gap) in book.all() {
        let (numbers, _) = held.entry(key).or_default();
        numbers.insert_missing(gap.start, gap.end, nothing);
    }
    held.retain(|_, (numbers, _)| !numbers.is_empty());
    let starts = held.into_iter().map(|(key, (numbers, bytes))| {
        let mut acked = body.sender.acked(key);
        let first = numbers.iter().next().map_or(0, |run| run.first);
        for (from, to) in numbers.missing(first, numbers.end()) {
            acked.insert_missing(from, to, nothing);
        }
        LaneStart {
            key,
            first,
            end: numbers.end(),
            bytes,
            acked: acked.iter().copied().collect(),
        }
    });
    starts.collect()
}

/// The spool's folder below an agent's data directory.
pub fn dir(data_dir: &Path) -> PathBuf {
    data_dir.join("spool")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
