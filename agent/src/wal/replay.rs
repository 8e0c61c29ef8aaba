//! What the log held before this start: its records from a position on, in order, piece by piece.

use super::{Record, RecordError};
use crate::limits::REPLAY_STEP_BYTES;
use std::collections::VecDeque;
use std::ops::Range;
use tributary_journal::{Entry, LifeId, LogError, LogReader};
use tributary_planted::planted;

/// One step of a replay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replayed {
    /// A record; [`Record::parse`] reads `bytes`.
    Record {
        /// The life that it was written in.
        life: LifeId,
        /// Its number there.
        number: u64,
        /// Its kind.
        kind: u8,
        /// Its bytes.
        bytes: bytes::Bytes,
    },
    /// Records that were durable and cannot be read: to be declared as a gap.
    Damaged {
        /// The life.
        life: LifeId,
        /// Their numbers.
        numbers: Range<u64>,
    },
    /// Records that are gone, although nobody should have trimmed them: to be declared as well.
    Missing {
        /// The life.
        life: LifeId,
        /// Their numbers.
        numbers: Range<u64>,
    },
}

impl Replayed {
    /// The record, read; `None` for what is damaged or missing.
    pub fn record(&self) -> Option<Result<Record<'_>, RecordError>> {
        match self {
            Self::Record { kind, bytes, .. } => Some(Record::parse(*kind, bytes)),
            Self::Damaged { .. } | Self::Missing { .. } => None,
        }
    }
}

/// Walks a log from a position on, through all later lives, to its end.
#[derive(Debug)]
pub struct Replay {
    reader: LogReader,
    /// What is still to be read of each life, oldest first.
    spans: VecDeque<(LifeId, Range<u64>)>,
    read: VecDeque<Entry>,
}

impl Replay {
    /// Everything from `position` on: a life and a number in it; `None`: from the beginning.
    pub fn new(reader: LogReader, position: Option<(LifeId, u64)>) -> Self {
        let lives = reader.lives().into_iter();
        let spans = lives
            .filter(|span| position.is_none_or(|(life, _)| span.life >= life))
            .map(|span| match position {
                // Not `max`: what is missing before the first one held is said, not passed over.
                Some((life, number)) if life == span.life => (life, number..span.end),
                _ => (span.life, span.first..span.end),
            })
            .collect();
        Self {
            reader,
            spans,
            read: VecDeque::new(),
        }
    }

    /// The next step; `None` at the end.
    ///
    /// # Errors
    /// [`LogError::Io`] when a file cannot be read.
    pub fn next_step(&mut self) -> Result<Option<Replayed>, LogError> {
        loop {
            if let Some(Entry {
                life,
                number,
                kind,
                bytes,
            }) = self.read.pop_front()
            {
                return Ok(Some(Replayed::Record {
                    life,
                    number,
                    kind,
                    bytes,
                }));
            }
            let Some((life, span)) = self.spans.front_mut() else {
                return Ok(None);
            };
            if span.is_empty() {
                self.spans.pop_front();
                continue;
            }
            let mut entries = Vec::new();
            let life = *life;
            match self
                .reader
                .read(life, span.start, REPLAY_STEP_BYTES, &mut entries)
            {
                Ok(()) => {
                    let Some(last) = entries.last() else {
                        self.spans.pop_front();
                        continue;
                    };
                    span.start = last.number + 1;
                    self.read = entries.into();
                }
                Err(LogError::Damaged { numbers, .. }) => {
                    span.start = numbers.end.max(span.start + 1);
                    if planted!(Blind12) {
                        span.start = span.end;
                    }
                    return Ok(Some(Replayed::Damaged { life, numbers }));
                }
                Err(LogError::Trimmed { first, .. }) => {
                    let numbers = span.start..first.max(span.start + 1);
                    span.start = numbers.end;
                    return Ok(Some(Replayed::Missing { life, numbers }));
                }
                Err(error) => return Err(error),
            }
        }
    }
}
