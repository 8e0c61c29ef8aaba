//! An agent's buffers as they lie on the disk: every log of its directory, read beside the agent
//! that may be running on it, without its lock and without changing anything.
//!
//! It mends nothing; what a repair may do is in [`spool::repair`].

mod names;
mod verify;

pub use names::SeriesNames;
pub(crate) use verify::check_batch;
pub use verify::{Fault, Verified, verify};

use crate::limits::{BUFFER_TRIES, SPOOL_SEGMENT_BYTES, WAL_SEGMENT_BYTES};
use crate::seal::Origin;
use crate::spool::{self, CursorBody};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::{
    Disk, Entry, LifeId, Log, LogConfig, LogError, LogKind, LogReader, Open, OsDisk, ReadOnlyDisk,
    Recovery,
};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchHash, BufferId, Lane, LaneKey};
use tributary_protocol::ranges::HeldRanges;
use tributary_protocol::session::AckedTo;

/// Bytes that one step of reading asks for.
const READ_BYTES: usize = 256 * 1024;
/// A life that no agent begins.
const NOBODY: LifeId = LifeId([0; 16]);

/// Why there is nothing to be seen.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// No agent was ever here.
    #[error(
        "{}: no agent's data is there; name its folder with --data-dir or --config{}",
        dir.display(), hint(dir)
    )]
    NoData {
        /// The directory.
        dir: PathBuf,
    },
    /// A log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The spool can't be read.
    #[error(transparent)]
    Spool(#[from] spool::OpenError),
}

/// `tributary run` keeps its agent's data in a directory of its own, in the one that it was given.
fn hint(dir: &Path) -> String {
    let inner = dir.join("agent");
    match inner.join("wal").is_dir() {
        true => format!(": {}", inner.display()),
        false => String::new(),
    }
}

/// Which log of the directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Which {
    /// Messages, before they are sealed.
    Wal,
    /// Sealed batches of a lane.
    Lane(Lane),
    /// The copy of the definitions of series.
    SeriesCopy,
    /// Declared losses that stand for batches.
    Gaps,
    /// Messages that gave no readings.
    DeadLetters,
}

impl Which {
    /// Every log.
    pub fn all() -> impl Iterator<Item = Self> {
        let lanes = Lane::ALL.into_iter().map(Self::Lane);
        [Self::Wal].into_iter().chain(lanes).chain([
            Self::SeriesCopy,
            Self::Gaps,
            Self::DeadLetters,
        ])
    }

    /// Its folder below the agent's.
    pub fn folder(self) -> PathBuf {
        match self {
            Self::Wal => "wal".into(),
            Self::Lane(lane) => Path::new("spool").join(lane.name()),
            Self::SeriesCopy => Path::new("spool").join(spool::COPY_FOLDER),
            Self::Gaps => "spool/gaps".into(),
            Self::DeadLetters => "deadletter".into(),
        }
    }

    fn kind(self) -> LogKind {
        match self {
            Self::Wal => LogKind::Wal,
            Self::Lane(_) | Self::SeriesCopy | Self::Gaps => LogKind::Spool,
            Self::DeadLetters => LogKind::DeadLetter,
        }
    }
}

/// One file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SegmentView {
    /// Its name.
    pub file: String,
    /// The first number in it.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// When it was begun: microseconds since 1970, UTC, by the clock of then.
    pub created_us: i64,
}

/// Numbers that an aggregator acknowledged, and their hash sum.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Acknowledged {
    /// Its journal; nothing where that is not known any more.
    pub log: Option<String>,
    /// The lowest.
    pub first: u64,
    /// One past the greatest.
    pub end: u64,
    /// 32 hexadecimal digits: the sum that the ledger keeps, too, as far as all of them are known
    /// here.
    pub hash_sum: String,
}

/// A loss that is declared here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GapView {
    /// First number.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// Readings, if anybody knows.
    pub readings: Option<u64>,
    /// Why.
    pub reason: String,
    /// What is known beside.
    pub detail: String,
}

/// What one log holds of one life.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LogView {
    /// The life of the storage that wrote it.
    pub buffer: String,
    /// Its folder: `wal`, `spool/telemetry`, …
    pub log: String,
    /// The lane, of sealed batches.
    pub lane: Option<String>,
    /// The first number that is held.
    pub first: u64,
    /// One past the last.
    pub end: u64,
    /// Bytes of its segments.
    pub bytes: u64,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentView>,
    /// What was acknowledged, as the cursor says; of a lane alone.
    pub acknowledged: Vec<Acknowledged>,
    /// What is neither acknowledged nor under a gap: batches that are still to be sent. Of
    /// definitions of series all, while something of their buffer is; none otherwise.
    pub waiting: u64,
    /// Declared losses.
    pub gaps: Vec<GapView>,
}

impl LogView {
    /// Whether it holds definitions of series.
    pub fn is_series(&self) -> bool {
        self.lane.as_deref() == Some(Lane::Series.name())
    }
}

/// One open log.
pub(crate) struct Opened {
    pub(crate) which: Which,
    pub(crate) reader: LogReader,
    pub(crate) recovery: Recovery,
}

/// A look at an agent's directory.
pub struct View {
    dir: PathBuf,
    pub(crate) logs: Vec<Opened>,
    cursor: CursorBody,
    /// Declared losses of each lane, by first number.
    gaps: BTreeMap<LaneKey, Vec<GapView>>,
}

impl View {
    /// Looks at the logs in `data_dir`.
    ///
    /// # Errors
    /// [`BufferError`].
    pub fn open(data_dir: &Path) -> Result<Self, BufferError> {
        if !data_dir.join("wal").is_dir() {
            let dir = data_dir.to_owned();
            return Err(BufferError::NoData { dir });
        }
        let mut tries = 1;
        loop {
            match Self::look(data_dir) {
                // A segment went between its name and its header.
                Err(BufferError::Log(LogError::Io { source, .. }))
                    if source.kind() == io::ErrorKind::NotFound && tries < BUFFER_TRIES =>
                {
                    tries += 1;
                }
                looked => return looked,
            }
        }
    }

    fn look(data_dir: &Path) -> Result<Self, BufferError> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::new(Arc::new(OsDisk)));
        // The cursor first: what it says is acknowledged may be trimmed by the time it is looked
        // for, and nothing that it does not know of is.
        let cursor = spool::acknowledged(&disk, &spool::dir(data_dir))?;
        let mut logs = Vec::new();
        for which in Which::all() {
            let config = LogConfig {
                segment_bytes: match which {
                    Which::Lane(_) => SPOOL_SEGMENT_BYTES,
                    _ => WAL_SEGMENT_BYTES,
                },
                quota_bytes: u64::MAX,
                reserve_bytes: 0,
                kind: which.kind(),
            };
            let dir = data_dir.join(which.folder());
            let opened = Log::open(Arc::clone(&disk), &dir, config, Open::NewLife(NOBODY))?;
            logs.push(Opened {
                which,
                reader: opened.reader,
                recovery: opened.recovery,
            });
        }
        let mut view = Self {
            dir: data_dir.to_owned(),
            logs,
            cursor,
            gaps: BTreeMap::new(),
        };
        view.gaps = view.declared();
        Ok(view)
    }

    /// Where it looks.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn log(&self, which: Which) -> Option<&Opened> {
        self.logs.iter().find(|log| log.which == which)
    }

    /// The declared losses that stand for batches of the spool.
    fn declared(&self) -> BTreeMap<LaneKey, Vec<GapView>> {
        let mut gaps: BTreeMap<LaneKey, Vec<GapView>> = BTreeMap::new();
        let Some(log) = self.log(Which::Gaps) else {
            return gaps;
        };
        for (life, numbers) in spans(&log.reader) {
            walk(&log.reader, life, numbers, |met| {
                let Met::Entry(entry) = met else { return };
                let Ok(batch) = SealedBatch::open(entry.bytes) else {
                    return;
                };
                if let Some(gap) = gap_of(&batch) {
                    gaps.entry(batch.key().lane_key()).or_default().push(gap);
                }
            });
        }
        for gaps in gaps.values_mut() {
            gaps.sort_by_key(|gap| gap.first);
        }
        gaps
    }

    /// Whether each of these numbers of a lane was acknowledged, or stands under a gap.
    pub(crate) fn is_accounted(&self, key: LaneKey, numbers: Range<u64>) -> bool {
        let accounted = self.accounted(key);
        accounted.missing(numbers.start, numbers.end).is_empty()
    }

    /// Numbers that were acknowledged, or stand under a gap.
    fn accounted(&self, key: LaneKey) -> HeldRanges {
        let mut accounted = self.cursor.sender.acked(key);
        for gap in self.gaps(key) {
            accounted.insert_missing(gap.first, gap.end, BatchHash([0; 32]));
        }
        accounted
    }

    /// Numbers that are neither here, nor acknowledged, nor under a gap: a start of the agent, or a
    /// repair, declares them.
    pub(crate) fn missing(&self) -> Vec<(LaneKey, Range<u64>)> {
        spool::missing(&self.cursor, &self.held(), |key| {
            self.gaps(key)
                .iter()
                .map(|gap| gap.first..gap.end)
                .collect()
        })
    }

    /// What the lanes hold, but for definitions of series.
    fn held(&self) -> BTreeMap<LaneKey, Range<u64>> {
        let lanes = self.logs.iter().filter_map(|log| match log.which {
            Which::Lane(Lane::Series) => None,
            Which::Lane(lane) => Some((lane, &log.reader)),
            _ => None,
        });
        let held = lanes.flat_map(|(lane, reader)| {
            let spans = spans(reader).into_iter();
            spans.map(move |(life, numbers)| {
                let buffer = BufferId(life.0);
                (LaneKey { buffer, lane }, numbers)
            })
        });
        held.collect()
    }

    /// Up to which message everything is sealed, of the life that was sealed last.
    pub(crate) fn sealed_to(&self) -> Option<Origin> {
        self.cursor.covered.get(&Lane::Telemetry).copied()
    }

    /// The declared losses of a lane that stand for batches of its log.
    pub fn gaps(&self, key: LaneKey) -> &[GapView] {
        self.gaps.get(&key).map_or(&[], Vec::as_slice)
    }

    /// What was acknowledged of a lane, by whom, as the cursor says.
    fn acknowledged(&self, key: LaneKey) -> Vec<Acknowledged> {
        let mut acknowledged = Vec::new();
        for known in self
            .cursor
            .sender
            .lanes
            .iter()
            .filter(|known| known.key == key)
        {
            let log = match known.by {
                AckedTo::Journal(journal) => Some(journal.log.to_string()),
                AckedTo::Somebody => None,
                // It is sent again.
                AckedTo::Nobody => continue,
            };
            acknowledged.extend(known.acked.iter().map(|run| Acknowledged {
                log: log.clone(),
                first: run.first,
                end: run.end,
                hash_sum: format!("{:032x}", run.sum.0),
            }));
        }
        acknowledged
    }

    /// What each log holds of each life, oldest life first.
    pub fn list(&self) -> Vec<LogView> {
        let mut list: Vec<LogView> = Vec::new();
        for log in &self.logs {
            for (life, numbers) in spans(&log.reader) {
                list.push(self.view(log, life, numbers));
            }
        }
        let mut seen: Vec<LaneKey> = Vec::new();
        for view in &list {
            seen.extend(key_of(view));
        }
        // Lanes of which nothing is left but what is declared.
        for key in self.gaps.keys().filter(|key| !seen.contains(key)) {
            list.push(self.lane_view(*key, 0..0, Vec::new()));
        }
        list.sort_by(|a, b| a.buffer.cmp(&b.buffer));
        // Which definitions an aggregator has nobody writes down: they are needed as long as
        // something of their buffer is.
        let needed: BTreeSet<String> = list
            .iter()
            .filter(|view| view.waiting > 0 && !view.is_series())
            .map(|view| view.buffer.clone())
            .collect();
        for view in &mut list {
            if view.is_series() && !needed.contains(&view.buffer) {
                view.waiting = 0;
            }
        }
        list
    }

    fn view(&self, log: &Opened, life: LifeId, numbers: Range<u64>) -> LogView {
        let segments = log.reader.segments().into_iter();
        let segments = segments.filter(|segment| segment.life == life);
        let segments = segments.map(|segment| SegmentView {
            file: segment
                .path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            first: segment.first,
            end: segment.end,
            bytes: segment.bytes,
            created_us: segment.created_us,
        });
        let segments: Vec<SegmentView> = segments.collect();
        let buffer = BufferId(life.0);
        if let Which::Lane(lane) = log.which {
            return self.lane_view(LaneKey { buffer, lane }, numbers, segments);
        }
        LogView {
            buffer: buffer.to_string(),
            log: log.which.folder().display().to_string(),
            lane: None,
            first: numbers.start,
            end: numbers.end,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments,
            acknowledged: Vec::new(),
            waiting: 0,
            gaps: Vec::new(),
        }
    }

    fn lane_view(&self, key: LaneKey, numbers: Range<u64>, segments: Vec<SegmentView>) -> LogView {
        let acknowledged = self.acknowledged(key);
        let gaps = self.gaps(key).to_vec();
        let taken = acknowledged
            .iter()
            .map(|run| run.first..run.end)
            .chain(gaps.iter().map(|gap| gap.first..gap.end));
        let mut open = vec![numbers.clone()];
        for taken in taken {
            open = open
                .into_iter()
                .flat_map(|run| {
                    let before = run.start..run.end.min(taken.start);
                    let after = run.start.max(taken.end)..run.end;
                    [before, after]
                })
                .filter(|run| !run.is_empty())
                .collect();
        }
        LogView {
            buffer: key.buffer.to_string(),
            log: Which::Lane(key.lane).folder().display().to_string(),
            lane: Some(key.lane.name().to_owned()),
            first: numbers.start,
            end: numbers.end,
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            segments,
            acknowledged,
            waiting: open.iter().map(|run| run.end - run.start).sum(),
            gaps,
        }
    }
}

fn key_of(view: &LogView) -> Option<LaneKey> {
    Some(LaneKey {
        buffer: view.buffer.parse().ok()?,
        lane: view.lane.as_ref()?.parse().ok()?,
    })
}

/// The loss that a batch declares.
pub(crate) fn gap_of(batch: &SealedBatch) -> Option<GapView> {
    let gap = batch.gap()?;
    let numbers = batch.numbers();
    Some(GapView {
        first: numbers.start,
        end: numbers.end,
        readings: gap.readings,
        reason: gap.reason.name().to_owned(),
        detail: gap.detail.clone(),
    })
}

/// The numbers that a log holds of each life.
pub(crate) fn spans(reader: &LogReader) -> Vec<(LifeId, Range<u64>)> {
    let lives = reader.lives().into_iter();
    let lives = lives.filter(|span| span.life != NOBODY && span.first < span.end);
    lives
        .map(|span| (span.life, span.first..span.end))
        .collect()
}

/// What a walk meets.
pub(crate) enum Met {
    Entry(Entry),
    /// Numbers that can't be read, in which file, from which byte on, and how many bytes.
    Damaged(Range<u64>, String, (u64, u64)),
    /// The agent let go of them meanwhile.
    Gone,
    /// The system says no.
    Failed(LogError),
}

/// Hands over the entries `numbers`, in order.
pub(crate) fn walk(
    reader: &LogReader,
    life: LifeId,
    numbers: Range<u64>,
    mut each: impl FnMut(Met),
) {
    let mut next = numbers.start;
    let mut read = Vec::new();
    while next < numbers.end {
        match reader.read(life, next, READ_BYTES, &mut read) {
            Ok(()) => {}
            Err(LogError::Damaged {
                numbers: bad,
                segment,
                offset,
                bytes,
                ..
            }) => {
                let bad = bad.start..bad.end.min(numbers.end);
                next = bad.end.max(next + 1);
                each(Met::Damaged(bad, segment, (offset, bytes)));
                continue;
            }
            Err(LogError::Trimmed { first, .. }) => {
                next = first.max(next + 1);
                each(Met::Gone);
                continue;
            }
            Err(error) => return each(Met::Failed(error)),
        }
        let Some(last) = read.last() else { break };
        next = last.number + 1;
        for entry in read.drain(..).filter(|entry| entry.number < numbers.end) {
            each(Met::Entry(entry));
        }
    }
}
