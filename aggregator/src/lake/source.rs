//! The journal as the lake reads it: entries become origins and contents. It decides nothing.

use super::LakeError;
use super::load::{Content, GapRow, Origin};
use super::sink::{Feed, Item};
use crate::keeper::record::{self, RecordKind};
use crate::limits::LAKE_READ_BYTES;
use std::collections::VecDeque;
use std::ops::Range;
use tributary_journal::{Entry, LifeId, LogError, LogReader};
use tributary_planted::planted;
use tributary_protocol::batch::{Content as Decoded, Decoder, Gap, GapPart, SealedBatch};
use tributary_protocol::ids::LogId;

/// The durable part of the journal.
pub struct JournalFeed {
    reader: LogReader,
    life: LifeId,
    decoder: Decoder,
    /// Read and not yet decoded: a few bytes may decode to thousands of rows.
    entries: VecDeque<Entry>,
    read: Vec<Entry>,
}

impl JournalFeed {
    /// The journal's life `log`, as this reader sees it.
    pub fn new(reader: LogReader, log: LogId) -> Self {
        Self {
            reader,
            life: LifeId(log.0),
            decoder: Decoder::new(),
            entries: VecDeque::new(),
            read: Vec::new(),
        }
    }

    /// Reads entries from `from` on; none when that is the durable end.
    fn read_on(&mut self, from: u64) -> Result<(), LogError> {
        let result = self
            .reader
            .read(self.life, from, LAKE_READ_BYTES, &mut self.read);
        self.entries.extend(self.read.drain(..));
        result
    }

    fn item(&mut self, entry: Entry) -> Item {
        let number = entry.number;
        match RecordKind::from_code(entry.kind) {
            Some(kind @ (RecordKind::Batch | RecordKind::Quarantined | RecordKind::Gap)) => {
                self.batch(entry, kind).unwrap_or_else(|reason| {
                    tracing::error!(number, reason, "a journal entry cannot be understood");
                    Item::Damaged(number..number + 1)
                })
            }
            _ => Item::Nothing(number),
        }
    }

    fn batch(&mut self, entry: Entry, kind: RecordKind) -> Result<Item, String> {
        let number = entry.number;
        let record = record::parse(kind, entry.bytes).map_err(|error| error.to_string())?;
        let sealed = record.sealed.clone();
        let batch = SealedBatch::open(record.sealed).map_err(|error| error.to_string())?;
        let origin = Origin {
            entry: number,
            agent: record.agent,
            key: batch.key(),
            hash: batch.hash(),
            in_doubt: record.in_doubt,
            sealed,
        };
        let content = if kind == RecordKind::Quarantined {
            Content::Refused {
                reason: "quarantined: it does not verify".to_owned(),
            }
        } else {
            match batch.decode(&mut self.decoder) {
                Ok(Decoded::Readings(readings)) if batch.names().is_empty() => {
                    Content::Readings(readings)
                }
                Ok(Decoded::Readings(readings)) => Content::Named(readings, batch.names().into()),
                Ok(Decoded::Series { .. }) => Content::Definitions,
                Ok(Decoded::Gap(gap)) => Content::Gap(gap_rows(&gap, &record.runs)),
                Err(error) => Content::Refused {
                    reason: error.to_string(),
                },
            }
        };
        Ok(Item::Batch(Box::new((origin, content))))
    }
}

/// What is lost by a gap that took these numbers: a row for each run of them. One that stands
/// under a number of its own takes that alone, whatever it tells of.
fn gap_rows(gap: &Gap, runs: &[Range<u64>]) -> Vec<GapRow> {
    let row = |part: GapPart, taken| GapRow {
        first: part.first,
        count: part.count,
        readings: part.readings,
        event_first: gap.event_first,
        event_last: gap.event_last,
        reason: gap.reason.name().to_owned(),
        detail: gap.detail.clone(),
        taken,
    };
    let inside = |run: &Range<u64>| {
        gap.first <= run.start
            && gap
                .first
                .checked_add(gap.count)
                .is_some_and(|end| run.end <= end)
    };
    if !runs.is_empty() && runs.iter().all(inside) {
        let parts = gap.parts(runs).into_iter();
        return parts.map(|part| row(part, part.count)).collect();
    }
    let whole = GapPart {
        first: gap.first,
        count: gap.count,
        readings: gap.readings,
    };
    vec![row(whole, 1)]
}

impl Feed for JournalFeed {
    fn first(&self) -> u64 {
        let segments = self.reader.segments();
        let own = segments.iter().filter(|segment| segment.life == self.life);
        own.map(|segment| segment.first).min().unwrap_or(0)
    }

    fn end(&self) -> u64 {
        self.reader.end(self.life).unwrap_or(0) + u64::from(planted!(BeyondDurable))
    }

    fn next(&mut self, from: u64) -> Result<Option<Item>, LakeError> {
        while self.entries.front().is_some_and(|it| it.number < from) {
            self.entries.pop_front();
        }
        if self.entries.front().is_none_or(|it| it.number != from) {
            self.entries.clear();
            match self.read_on(from) {
                Ok(()) => {}
                Err(LogError::Damaged { numbers, .. }) => {
                    return Ok(Some(Item::Damaged(numbers)));
                }
                // Segments go only when the lake has them: this one has lost its header.
                Err(LogError::Trimmed { first, .. }) if first > from => {
                    return Ok(Some(Item::Damaged(from..first)));
                }
                Err(error) => {
                    let reason = error.to_string();
                    return Err(LakeError::Journal { from, reason });
                }
            }
        }
        let entry = self.entries.pop_front();
        Ok(entry.map(|entry| self.item(entry)))
    }
}
