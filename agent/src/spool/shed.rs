//! What a segment held, so that a gap can stand for it: how many readings under each number, from
//! when, and which messages it covered. It reads, and removes nothing.

use super::READ_STEP_BYTES;
use std::ops::Range;
use tributary_journal::{LifeId, LogError, LogReader};
use tributary_protocol::batch::{
    Cover, Gap, GapReason, Kind, SealError, SealedBatch, Sealer, Spec,
};
use tributary_protocol::ids::{BatchKey, BufferId, LaneKey};
use tributary_protocol::limits::{BATCH_COVERS_MAX, GAP_NUMBERS_MAX};

/// What the numbers from `first` on held.
#[derive(Debug)]
pub(super) struct Contents {
    key: LaneKey,
    first: u64,
    each: Vec<Option<u32>>,
    times: Option<(i64, i64)>,
    /// One range for each origin buffer, the newest last.
    covers: Vec<Cover>,
    sealed_at: i64,
    /// Of the batches that could be read.
    bytes: u64,
}

impl Contents {
    fn new(key: LaneKey, first: u64) -> Self {
        Self {
            key,
            first,
            each: Vec::new(),
            times: None,
            covers: Vec::new(),
            sealed_at: 0,
            bytes: 0,
        }
    }

    /// Readings, where all are known.
    pub(super) fn readings(&self) -> Option<u64> {
        let each = self.each.iter();
        each.map(|count| count.map(u64::from)).sum()
    }

    /// Bytes of the batches, as far as they could be read.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn end(&self) -> u64 {
        self.first + self.each.len() as u64
    }

    fn take(&mut self, batch: &SealedBatch) {
        let readings = match (batch.kind(), batch.gap()) {
            // A loss that it declared stands under the new gap, too.
            (Kind::Gap, Some(gap)) => gap.readings.and_then(|count| u32::try_from(count).ok()),
            _ => Some(batch.rows()),
        };
        self.each.push(readings);
        self.bytes += batch.bytes().len() as u64;
        let (first, last) = (batch.event_first(), batch.event_last());
        let (a, b) = self.times.unwrap_or((first, last));
        self.times = Some((a.min(first), b.max(last)));
        self.sealed_at = batch.sealed_at();
        for cover in batch.covers() {
            self.cover(cover);
        }
    }

    fn cover(&mut self, cover: &Cover) {
        let end = |cover: &Cover| cover.first + cover.count;
        match self.covers.iter_mut().find(|it| it.buffer == cover.buffer) {
            Some(known) => {
                let until = end(known).max(end(cover));
                known.first = known.first.min(cover.first);
                known.count = until - known.first;
            }
            None => self.covers.push(*cover),
        }
        if self.covers.len() > BATCH_COVERS_MAX {
            self.covers.remove(0);
        }
    }

    /// The gap that stands for it.
    pub(super) fn gap(
        &self,
        (reason, detail): (GapReason, String),
        sealer: &mut Sealer,
    ) -> Result<SealedBatch, SealError> {
        let spec = Spec {
            key: BatchKey {
                buffer: self.key.buffer,
                lane: self.key.lane,
                number: self.first,
            },
            sealed_at: self.sealed_at,
            series_needed: 0,
            covers: self.covers.clone(),
        };
        let (event_first, event_last) = self.times.unwrap_or((self.sealed_at, self.sealed_at));
        let gap = Gap {
            first: self.first,
            count: self.each.len() as u64,
            readings: self.readings(),
            event_first,
            event_last,
            reason,
            detail,
            each: self.each.clone(),
        };
        sealer.gap(&spec, &gap)
    }
}

/// What the numbers `from..to` of a lane held, in as many pieces as gaps are needed.
pub(super) fn contents(
    reader: &LogReader,
    key: LaneKey,
    (from, to): (u64, u64),
) -> Result<Vec<Contents>, LogError> {
    let mut pieces = Vec::new();
    let mut piece = Contents::new(key, from);
    let mut entries = Vec::new();
    while piece.end() < to {
        if piece.each.len() == GAP_NUMBERS_MAX {
            let next = Contents::new(key, piece.end());
            pieces.push(std::mem::replace(&mut piece, next));
        }
        let next = piece.end();
        entries.clear();
        match reader.read(LifeId(key.buffer.0), next, READ_STEP_BYTES, &mut entries) {
            Ok(()) => {}
            Err(LogError::Damaged { numbers, .. }) => {
                let end = numbers.end.clamp(next + 1, to);
                let room = (GAP_NUMBERS_MAX - piece.each.len()) as u64;
                let count = (end - next).min(room) as usize;
                piece.each.resize(piece.each.len() + count, None);
                continue;
            }
            Err(error) => return Err(error),
        }
        if entries.is_empty() {
            // It ends before its name says: nobody knows what was there.
            piece.each.push(None);
        }
        for entry in entries.drain(..) {
            if entry.number != piece.end() || entry.number >= to {
                break;
            }
            if piece.each.len() == GAP_NUMBERS_MAX {
                break;
            }
            let number = entry.number;
            match SealedBatch::open(entry.bytes) {
                Ok(batch) if batch.key().number == number => piece.take(&batch),
                _ => piece.each.push(None),
            }
        }
    }
    pieces.push(piece);
    Ok(pieces)
}

/// The gaps for numbers of which nothing is known any more, `from..to`.
pub(super) fn unknown(
    key: LaneKey,
    (from, to): (u64, u64),
    detail: &str,
    sealer: &mut Sealer,
) -> Result<Vec<SealedBatch>, SealError> {
    let mut gaps = Vec::new();
    let mut at = from;
    while at < to {
        let mut piece = Contents::new(key, at);
        let count = (to - at).min(GAP_NUMBERS_MAX as u64);
        piece.each.resize(count as usize, None);
        gaps.push(piece.gap((GapReason::Damaged, detail.to_owned()), sealer)?);
        at += count;
    }
    Ok(gaps)
}

/// The gap for the numbers of another that can't be read back: the same whenever it is made again.
pub(super) fn unknown_gap(key: LaneKey, numbers: Range<u64>) -> Result<SealedBatch, SealError> {
    let mut contents = Contents::new(key, numbers.start);
    let count = numbers.end.saturating_sub(numbers.start);
    contents.each.resize(count as usize, None);
    let detail = "the gap that stood for them can't be read back from the spool";
    let about = (GapReason::Damaged, detail.to_owned());
    contents.gap(about, &mut Sealer::new())
}

/// The gap that stands in for one batch, with what is known of it: of a damaged one its name alone,
/// so that it is the same whenever it is made again.
pub(super) fn gap_for(
    key: BatchKey,
    known: Option<&SealedBatch>,
) -> Result<SealedBatch, SealError> {
    let mut contents = Contents::new(key.lane_key(), key.number);
    let about = match known {
        None => {
            contents.each.push(None);
            let detail = "the batch can't be read back from the spool";
            (GapReason::Damaged, detail.to_owned())
        }
        Some(batch) => {
            contents.take(batch);
            (GapReason::Shed, "newest first, as configured".to_owned())
        }
    };
    contents.gap(about, &mut Sealer::new())
}

/// The buffer whose life this is.
pub(super) fn lane_key(life: LifeId, lane: tributary_protocol::ids::Lane) -> LaneKey {
    LaneKey {
        buffer: BufferId(life.0),
        lane,
    }
}
