//! From readings to sealed batches: the lane `telemetry` and the definitions that it needs.
//!
//! Pure: told each message of the log and the time, it says when a lane is due and hands out sealed
//! batches. It writes nothing; a batch counts as covered only once its spool made it durable.

use crate::decode::Reading;
use crate::limits::{DICTIONARY_BYTES_MAX, SERIES_BATCH_BYTES};
use std::collections::{BTreeMap, HashMap};
use tributary_protocol::batch::{Cover, Gap, GapReason, SealError, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, SeriesId};
use tributary_protocol::limits::{
    BATCH_COVERS_MAX, BATCH_READINGS_TARGET, BATCH_TEXT_TARGET_BYTES, SERIES_MAX,
    SERIES_PER_BATCH_MAX,
};
use tributary_protocol::reading::{Flags, Meta, ReadingError, Readings, Row, Value};
use tributary_protocol::series::{NameError, SeriesDef};

mod stage;

pub use stage::{IDLE_WAIT, Now, SealConfig, SealStage, StageError, Stores};

/// A message of the log: the life of its segment, and its number there. Later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// The life of the write-ahead log.
    pub buffer: BufferId,
    /// The number in it.
    pub number: u64,
}

/// Why a message's readings cannot be taken in; it becomes a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// More series, or longer names, than a buffer may define.
    #[error(
        "more than {SERIES_MAX} series, or {DICTIONARY_BYTES_MAX} bytes of their names, since the \
         agent started: too many devices or metrics"
    )]
    TooManySeries,
    /// A name that is none.
    #[error(transparent)]
    Series(#[from] NameError),
    /// A value that does not fit.
    #[error(transparent)]
    Reading(#[from] ReadingError),
}

/// The series of this life, by name.
#[derive(Debug, Default)]
struct Dictionary {
    places: HashMap<Box<[u8]>, SeriesId>,
    /// By number; the first `sealed` of them are in sealed batches.
    all: Vec<SeriesDef>,
    sealed: usize,
    bytes: usize,
    scratch: Vec<u8>,
}

impl Dictionary {
    fn len(&self) -> u32 {
        self.all.len() as u32
    }

    /// The series of a reading. Type and unit belong to its name: when they change, it is another.
    fn series(&mut self, reading: &Reading<'_>) -> Result<SeriesId, TakeError> {
        let Reading {
            device,
            metric,
            unit,
            value,
            ..
        } = reading;
        self.scratch.clear();
        for part in [device, metric, unit] {
            self.scratch.extend_from_slice(part.as_bytes());
            // Names hold no control character, so a 0 separates them.
            self.scratch.push(0);
        }
        self.scratch.push(value.value_type().code());
        if let Some(known) = self.places.get(self.scratch.as_slice()) {
            return Ok(*known);
        }
        let bytes = self.bytes + self.scratch.len();
        if self.places.len() >= SERIES_MAX || bytes > DICTIONARY_BYTES_MAX {
            return Err(TakeError::TooManySeries);
        }
        let unit = (!unit.is_empty()).then_some(*unit);
        let definition = SeriesDef::new(device, metric, unit, value.value_type())?;
        let id = SeriesId(self.len());
        self.places.insert(self.scratch.as_slice().into(), id);
        self.all.push(definition);
        self.bytes = bytes;
        Ok(id)
    }

    /// The next definitions to be sealed together: a bounded number, of bounded bytes.
    fn fresh(&self) -> &[SeriesDef] {
        let fresh = self.all.get(self.sealed..).unwrap_or_default();
        let mut bytes = 0;
        let fits = fresh
            .iter()
            .take(SERIES_PER_BATCH_MAX)
            .take_while(|series| {
                let unit = series.unit.as_deref().map_or(0, str::len);
                bytes += series.device.len() + series.metric.len() + unit;
                bytes <= SERIES_BATCH_BYTES
            });
        fresh.get(..fits.count()).unwrap_or_default()
    }
}

/// What a lane gave up, because it could not be sealed together: each message for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// The message.
    pub origin: Origin,
    /// The flags that its readings got beside their own.
    pub more_flags: Flags,
}

/// The lanes of this life, as they are being filled.
pub struct Lanes {
    present: BufferId,
    delay_us: i64,
    dictionary: Dictionary,
    readings: Readings,
    covers: Vec<Cover>,
    /// The messages whose readings wait.
    messages: Vec<GivenUp>,
    /// When the oldest reading came in.
    since: Option<i64>,
    next_series: u64,
    next_telemetry: u64,
    sealer: Sealer,
}

impl Lanes {
    /// Empty lanes of the life `present`, sealed at the latest `delay_us` after a first reading.
    pub fn new(present: BufferId, delay_us: i64) -> Self {
        Self {
            present,
            delay_us,
            dictionary: Dictionary::default(),
            readings: Readings::new(),
            covers: Vec::new(),
            messages: Vec::new(),
            since: None,
            next_series: 0,
            next_telemetry: 0,
            sealer: Sealer::new(),
        }
    }

    /// How many readings wait to be sealed.
    pub fn waiting(&self) -> usize {
        self.readings.len()
    }

    /// Whether `message` would make the batch too large: seal first. One message's readings stand
    /// in one batch.
    pub fn must_seal_before(&self, origin: Origin, readings: usize, text_bytes: usize) -> bool {
        let continues = self
            .covers
            .last()
            .is_some_and(|cover| cover.buffer == origin.buffer);
        let no_cover_left = !continues && self.covers.len() >= BATCH_COVERS_MAX;
        let rows =
            !self.readings.is_empty() && self.readings.len() + readings > BATCH_READINGS_TARGET;
        let texts = self.readings.text_bytes() + text_bytes > BATCH_TEXT_TARGET_BYTES;
        no_cover_left || rows || (texts && !self.readings.is_empty())
    }

    /// Takes in the readings of the next message, all or none of them, and covers it.
    ///
    /// # Errors
    /// When one of them cannot be taken; none is then, and the message is still to be
    /// [passed](Self::pass) as a dead letter.
    pub fn take<'a>(
        &mut self,
        origin: Origin,
        readings: impl Iterator<Item = Reading<'a>>,
        more_flags: Flags,
        now: i64,
    ) -> Result<(), TakeError> {
        let before = self.readings.len();
        for reading in readings {
            let taken = self.dictionary.series(&reading).and_then(|series| {
                let mut meta = reading.meta;
                meta.flags = meta.flags.with(more_flags);
                Ok(self.readings.push(series, meta, reading.value)?)
            });
            if let Err(error) = taken {
                self.readings.truncate(before);
                return Err(error);
            }
        }
        if self.readings.len() > before {
            self.since.get_or_insert(now);
            self.messages.push(GivenUp { origin, more_flags });
        }
        self.cover(origin);
        Ok(())
    }

    /// Covers a message that gives no readings: a repeat, a dead letter, a control record.
    pub fn pass(&mut self, origin: Origin) {
        self.cover(origin);
    }

    fn cover(&mut self, origin: Origin) {
        match self.covers.last_mut() {
            Some(cover) if cover.buffer == origin.buffer => {
                cover.count = origin.number + 1 - cover.first;
            }
            _ => {
                let Origin { buffer, number } = origin;
                self.covers.push(Cover {
                    buffer,
                    first: number,
                    count: 1,
                });
            }
        }
    }

    /// Every series with a reading that waits, and the newest such reading.
    pub fn latest(&self) -> impl Iterator<Item = (&SeriesDef, &Meta, Value<'_>)> {
        let mut newest: BTreeMap<SeriesId, &Row> = BTreeMap::new();
        for row in self.readings.rows() {
            let known = newest.entry(row.series).or_insert(row);
            if known.meta.event_time <= row.meta.event_time {
                *known = row;
            }
        }
        newest.into_iter().filter_map(|(series, row)| {
            let definition = self.dictionary.all.get(series.0 as usize)?;
            Some((definition, &row.meta, self.readings.value(row)))
        })
    }

    /// When a lane is due, if nothing else comes: microseconds on the clock of `now`.
    pub fn poll_timeout(&self) -> Option<i64> {
        self.since.map(|since| since.saturating_add(self.delay_us))
    }

    /// Whether a lane is due.
    pub fn is_due(&self, now: i64) -> bool {
        self.readings.len() >= BATCH_READINGS_TARGET
            || self.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Everything before this message is covered by what waits, once that is durable.
    pub fn covered_to(&self) -> Option<Origin> {
        self.covers.last().map(|cover| Origin {
            buffer: cover.buffer,
            number: cover.first + cover.count,
        })
    }

    /// Seals the readings that wait; `None` when there are none. Their
    /// [definitions](Self::seal_series) must be durable before.
    ///
    /// # Errors
    /// When they cannot be sealed together. Nothing is changed then: [give them
    /// up](Self::give_up), and seal each message for itself.
    pub fn seal_readings(&mut self, sealed_at: i64) -> Result<Option<SealedBatch>, SealError> {
        if self.readings.is_empty() {
            self.clear();
            return Ok(None);
        }
        let spec = Spec {
            key: self.key(Lane::Telemetry, self.next_telemetry),
            sealed_at,
            series_needed: self.dictionary.len(),
            covers: self.covers.clone(),
        };
        let sealed = self.sealer.readings(&spec, &mut self.readings)?;
        self.next_telemetry += 1;
        self.clear();
        Ok(Some(sealed))
    }

    /// Forgets the readings that wait, and says of which messages they were.
    pub fn give_up(&mut self) -> Vec<GivenUp> {
        let messages = std::mem::take(&mut self.messages);
        self.clear();
        messages
    }

    fn clear(&mut self) {
        self.readings.clear();
        self.covers.clear();
        self.messages.clear();
        self.since = None;
    }

    /// Declares messages that were durable and cannot be read back: a batch of kind gap, with a
    /// number of its own, that covers them as far as they are known. Nothing may wait to be
    /// sealed.
    ///
    /// # Errors
    /// A broken invariant: it holds nothing from outside.
    pub fn seal_gap(
        &mut self,
        lost: Option<&Cover>,
        detail: String,
        sealed_at: i64,
    ) -> Result<SealedBatch, SealError> {
        let number = self.next_telemetry;
        let key = self.key(Lane::Telemetry, number);
        let spec = Spec {
            key,
            sealed_at,
            series_needed: 0,
            covers: lost.copied().into_iter().collect(),
        };
        let gap = Gap {
            first: number,
            count: 1,
            readings: None,
            event_first: sealed_at,
            event_last: sealed_at,
            reason: GapReason::Damaged,
            detail,
            each: Vec::new(),
        };
        let sealed = self.sealer.gap(&spec, &gap)?;
        self.next_telemetry += 1;
        Ok(sealed)
    }

    /// The next batch of definitions that the readings need; `None` when all are sealed.
    ///
    /// # Errors
    /// As for [`seal_readings`](Self::seal_readings).
    pub fn seal_series(&mut self, sealed_at: i64) -> Result<Option<SealedBatch>, SealError> {
        let fresh = self.dictionary.fresh();
        if fresh.is_empty() {
            return Ok(None);
        }
        let base = self.dictionary.sealed as u32;
        let key = BatchKey {
            buffer: self.present,
            lane: Lane::Series,
            number: self.next_series,
        };
        let spec = Spec {
            key,
            sealed_at,
            series_needed: base,
            covers: Vec::new(),
        };
        let sealed = self.sealer.series(&spec, base, fresh)?;
        self.dictionary.sealed += fresh.len();
        self.next_series += 1;
        Ok(Some(sealed))
    }

    fn key(&self, lane: Lane, number: u64) -> BatchKey {
        BatchKey {
            buffer: self.present,
            lane,
            number,
        }
    }
}

/// Bytes of text values among these readings.
pub fn text_bytes<'a>(readings: impl Iterator<Item = Reading<'a>>) -> usize {
    let bytes = readings.map(|reading| match reading.value {
        Value::Str(text) => text.len(),
        _ => 0,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests;
