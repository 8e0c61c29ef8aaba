//! Definitions of series lie on the disk twice: without one of them nothing that needs it can be
//! named, and there is nothing that could stand for it. The copy is a log of its own with the same
//! batches under the same numbers, and is written first: it holds all that the lane's log holds,
//! and at most what was on its way there, until it fails. What one of them can't give back, the
//! other does.

use super::{ENTRY_BATCH, ONE_ENTRY};
use crate::limits::SERIES_COPY_SEGMENT_BYTES;
use bytes::Bytes;
use metrics::counter;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tributary_journal::{
    Damage, Disk, Frame, LifeId, LifeSpan, Log, LogConfig, LogError, LogReader, LogWriter, Open,
    Opened, SegmentInfo,
};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::{BatchKey, Lane};

/// The folder of the copy below the spool's.
pub(crate) const COPY_FOLDER: &str = "series-copy";

/// Opens the copy of a lane whose log is open, where it has one: its writer, and who reads both.
pub(super) fn open(
    (disk, dir): (&Arc<dyn Disk>, &Path),
    (lane, config): (Lane, LogConfig),
    log: &Opened,
    damage: &mut Vec<Damage>,
) -> (Option<LogWriter>, LaneReader) {
    if lane != Lane::Series {
        return (None, LaneReader::new(log.reader.clone(), None));
    }
    let config = LogConfig {
        segment_bytes: config.segment_bytes.min(SERIES_COPY_SEGMENT_BYTES),
        ..config
    };
    let life = Open::NewLife(log.writer.life());
    let copy = match Log::open(Arc::clone(disk), &dir.join(COPY_FOLDER), config, life) {
        Ok(copy) => copy,
        Err(error) => {
            // What makes the lane safer must not keep an agent from starting.
            tracing::error!(%error, "the copy of the definitions of series can't be opened");
            counter!("tributary_agent_series_copy_errors_total").increment(1);
            return (None, LaneReader::new(log.reader.clone(), None));
        }
    };
    damage.extend(copy.recovery.damage);
    let reader = LaneReader::new(log.reader.clone(), Some(copy.reader));
    (Some(copy.writer), reader)
}

/// Makes batches durable in the copy, but for those that are: what failed behind it comes again as
/// it was.
pub(super) fn append_copy(
    copy: &mut LogWriter,
    frame: &mut Frame,
    batches: &[SealedBatch],
) -> Result<(), LogError> {
    let next = copy.next_number();
    frame.clear();
    for batch in batches.iter().filter(|batch| batch.key().number >= next) {
        let pushed = frame.push(ENTRY_BATCH, batch.bytes());
        pushed.expect("a sealed batch is smaller than an entry may be");
    }
    if frame.is_empty() {
        return Ok(());
    }
    match copy.append(frame) {
        Err(error) if error.is_full() => copy.append_reserved(frame),
        appended => appended,
    }
    .map(|_| ())
}

/// Reads a lane, which may lie on the disk twice.
#[derive(Clone, Debug)]
pub(crate) struct LaneReader {
    log: LogReader,
    copy: Option<LogReader>,
}

/// What stands under a number.
pub(super) enum Stands {
    /// The batch.
    Batch(SealedBatch),
    /// A good frame, with bytes in it that are not the batch, and why.
    Other(Bytes, String),
    /// Nothing.
    Nothing,
}

impl LaneReader {
    fn new(log: LogReader, copy: Option<LogReader>) -> Self {
        Self { log, copy }
    }

    fn logs(&self) -> impl Iterator<Item = &LogReader> {
        [&self.log].into_iter().chain(&self.copy)
    }

    /// The batch of this name, from wherever it can be read; otherwise what the lane's log says.
    ///
    /// # Errors
    /// As [`LogReader::read`].
    pub(super) fn read(&self, key: BatchKey) -> Result<Stands, LogError> {
        let first = read_from(&self.log, key);
        match (&first, &self.copy) {
            (Ok(Stands::Batch(_)), _) | (_, None) => first,
            (_, Some(copy)) => match read_from(copy, key) {
                Ok(Stands::Batch(batch)) => Ok(Stands::Batch(batch)),
                // One that is there another time is not passed over.
                Err(error @ LogError::Io { .. }) => Err(error),
                // Where the log has lost all trace of it, the copy may say what became of it.
                second if matches!(first, Ok(Stands::Nothing) | Err(LogError::Trimmed { .. })) => {
                    second
                }
                _ => first,
            },
        }
    }

    /// What is held of each life, oldest first.
    pub(crate) fn lives(&self) -> Vec<LifeSpan> {
        let mut lives: BTreeMap<LifeId, LifeSpan> = BTreeMap::new();
        for span in self.logs().flat_map(LogReader::lives) {
            let known = lives.entry(span.life).or_insert(span);
            if known.first == known.end {
                *known = span;
            } else if span.first < span.end {
                known.first = known.first.min(span.first);
                known.end = known.end.max(span.end);
            }
        }
        lives.into_values().collect()
    }

    /// One more than the last number of `life`; `None` when nothing is held of it.
    pub(super) fn end(&self, life: LifeId) -> Option<u64> {
        self.logs().filter_map(|log| log.end(life)).max()
    }

    /// About how many bytes the batches of `life` from `from` on take.
    pub(super) fn bytes_from(&self, life: LifeId, from: u64) -> u64 {
        let bytes = self.logs().map(|log| log.bytes_from(life, from));
        bytes.max().unwrap_or(0)
    }

    /// As [`LogReader::trim`].
    pub(super) fn trim(&self, life: LifeId, below: u64) -> Result<(), LogError> {
        self.logs()
            .try_for_each(|log| log.trim(life, below).map(|_| ()))
    }

    /// The segments that are written to no more while the life `present` goes on.
    pub(super) fn closed(&self, present: LifeId) -> Vec<SegmentInfo> {
        let closed = self.logs().flat_map(|log| {
            let mut segments = log.segments();
            segments.pop_if(|newest| newest.life == present);
            segments
        });
        closed.collect()
    }

    #[cfg(test)]
    pub(super) fn segments(&self) -> Vec<SegmentInfo> {
        self.log.segments()
    }
}

fn read_from(log: &LogReader, key: BatchKey) -> Result<Stands, LogError> {
    let mut entries = Vec::new();
    log.read(LifeId(key.buffer.0), key.number, ONE_ENTRY, &mut entries)?;
    let entry = entries.into_iter().find(|entry| entry.number == key.number);
    let Some(entry) = entry else {
        return Ok(Stands::Nothing);
    };
    Ok(match SealedBatch::open(entry.bytes.clone()) {
        Ok(batch) if batch.key() == key => Stands::Batch(batch),
        Ok(other) => Stands::Other(entry.bytes, format!("{} stands there", other.key())),
        Err(error) => Stands::Other(entry.bytes, error.to_string()),
    })
}
