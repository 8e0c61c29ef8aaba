//! From readings to sealed batches: the lane `telemetry` with the definitions that it needs, and
//! `events`, which names its series itself; and `alerts` and `aggregates`, apart from them.
//!
//! Pure: told each message of the log and the time, it says when a lane is due and hands out sealed
//! batches. It writes nothing; a batch counts as covered only once its spool made it durable.

use crate::decode::Reading;
use crate::limits::{DICTIONARY_BYTES_MAX, SERIES_BYTES_LEAST};
use dictionary::Dictionary;
use std::collections::{BTreeMap, HashMap};
use tributary_protocol::batch::{Cover, Gap, GapReason, SealError, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::{BatchKey, BufferId, Lane, SeriesId};
use tributary_protocol::limits::{
    BATCH_COVERS_MAX, BATCH_READINGS_TARGET, BATCH_TEXT_TARGET_BYTES, SERIES_PER_BATCH_MAX,
};
use tributary_protocol::reading::{Flags, Meta, ReadingError, Readings, Row, Value};
use tributary_protocol::series::{NameError, SeriesDef};

mod capture;
mod covers;
mod dictionary;
mod judge_store;
mod pause;
mod refused;
mod spoken;
mod stage;
mod waits;

pub use dictionary::OverShare;
pub use judge_store::{Ask, Asks, JudgeStore, JudgeWriter};
pub use pause::{Never, Pause, Sleep};
pub use refused::Refused;
pub use spoken::FromJudge;
pub use stage::{IDLE_WAIT, Now, SealConfig, SealStage, StageError, Stores};
pub use waits::Waits;

/// A message of the log: the life of its segment, and its number there. Later ones are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// The life of the write-ahead log.
    pub buffer: BufferId,
    /// The number in it.
    pub number: u64,
}

impl Origin {
    /// The first message behind those.
    pub(crate) fn behind(cover: &Cover) -> Self {
        Self {
            buffer: cover.buffer,
            number: cover.first.saturating_add(cover.count),
        }
    }
}

/// Why a message's readings cannot be taken in; it becomes a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// More series, or longer names, than a buffer may define.
    #[error(
        "more than {DICTIONARY_BYTES_MAX} bytes of names of series since the agent started (each \
         counts {SERIES_BYTES_LEAST} at least): too many devices or metrics"
    )]
    TooManySeries,
    /// More than one device or client may define while others need what is left.
    #[error(transparent)]
    Share(#[from] OverShare),
    /// More series than one batch may name itself.
    #[error("more than {SERIES_PER_BATCH_MAX} series in one event")]
    TooManyNames,
    /// A name that is none.
    #[error(transparent)]
    Series(#[from] NameError),
    /// A value that does not fit.
    #[error(transparent)]
    Reading(#[from] ReadingError),
}

impl TakeError {
    /// The reason in one word, as in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Share(_) => "series_share",
            _ => "series",
        }
    }
}

/// How a message comes in, beside its readings.
#[derive(Clone, Copy, Debug)]
pub struct Taking {
    /// The client that what is new of it counts for; none: a broker, or nobody.
    pub client: Option<u64>,
    /// Flags for its readings beside their own.
    pub more_flags: Flags,
    /// When, in microseconds on a clock that never goes back.
    pub now: i64,
}

/// What a lane gave up, because it could not be sealed together: each message for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// The message.
    pub origin: Origin,
    /// The flags that its readings got beside their own.
    pub more_flags: Flags,
    /// What was refused since the message before it whose readings wait.
    pub refused: Option<Refused>,
}

/// The series of one batch that names them itself.
#[derive(Debug, Default)]
struct Inline {
    places: HashMap<SeriesDef, SeriesId>,
    all: Vec<SeriesDef>,
}

impl Inline {
    fn series(&mut self, reading: &Reading<'_>) -> Result<SeriesId, TakeError> {
        let unit = (!reading.unit.is_empty()).then_some(reading.unit);
        let value_type = reading.value.value_type();
        let definition = SeriesDef::new(reading.device, reading.metric, unit, value_type)?;
        if let Some(known) = self.places.get(&definition) {
            return Ok(*known);
        }
        if self.all.len() >= SERIES_PER_BATCH_MAX {
            return Err(TakeError::TooManyNames);
        }
        let id = SeriesId(self.all.len() as u32);
        self.all.push(definition.clone());
        self.places.insert(definition, id);
        Ok(id)
    }

    fn truncate(&mut self, count: usize) {
        for definition in self.all.drain(count.min(self.all.len())..) {
            self.places.remove(&definition);
        }
    }
}

/// What waits to be sealed in one lane.
#[derive(Default)]
struct Filling {
    readings: Readings,
    /// The messages whose readings wait.
    messages: Vec<GivenUp>,
    inline: Inline,
    next: u64,
}

impl Filling {
    fn clear(&mut self) {
        self.readings.clear();
        self.messages.clear();
        self.inline.truncate(0);
    }
}

/// The lanes of this life, as they are being filled. All of them are sealed together, so that one
/// place in the log says what all of them cover.
pub struct Lanes {
    present: BufferId,
    delay_us: i64,
    dictionary: Dictionary,
    telemetry: Filling,
    events: Filling,
    /// Readings of a capture, in batches of their own before the others.
    aside: Vec<Readings>,
    /// What was refused and acknowledged since the last message whose readings wait: it is declared
    /// with the next batch of telemetry.
    refused: Option<Refused>,
    covers: Vec<Cover>,
    /// When the oldest reading came in.
    since: Option<i64>,
    next_series: u64,
    sealer: Sealer,
}

impl Lanes {
    /// Empty lanes of the life `present`, sealed at the latest `delay_us` after a first reading.
    pub fn new(present: BufferId, delay_us: i64) -> Self {
        Self {
            present,
            delay_us,
            dictionary: Dictionary::default(),
            telemetry: Filling::default(),
            events: Filling::default(),
            aside: Vec::new(),
            refused: None,
            covers: Vec::new(),
            since: None,
            next_series: 0,
            sealer: Sealer::new(),
        }
    }

    fn filling(&mut self, lane: Lane) -> &mut Filling {
        match lane {
            Lane::Events => &mut self.events,
            _ => &mut self.telemetry,
        }
    }

    /// How many readings wait to be sealed.
    pub fn waiting(&self) -> usize {
        self.telemetry.readings.len() + self.events.readings.len()
    }

    /// Whether a message would make a batch too large: seal first. One message's readings stand in
    /// one batch.
    pub fn must_seal_before(
        &self,
        lane: Lane,
        origin: Origin,
        readings: usize,
        text_bytes: usize,
    ) -> bool {
        let continues = self
            .covers
            .last()
            .is_some_and(|cover| cover.buffer == origin.buffer);
        let no_cover_left = !continues && self.covers.len() >= BATCH_COVERS_MAX;
        let filling = match lane {
            Lane::Events => &self.events,
            _ => &self.telemetry,
        };
        let rows = filling.readings.len() + readings > BATCH_READINGS_TARGET;
        let texts = filling.readings.text_bytes() + text_bytes > BATCH_TEXT_TARGET_BYTES;
        // Each reading may bring a name.
        let names =
            lane == Lane::Events && filling.inline.all.len() + readings > SERIES_PER_BATCH_MAX;
        no_cover_left || ((rows || texts || names) && !filling.readings.is_empty())
    }

    /// Takes in the readings of the next message, all or none of them, and covers it.
    ///
    /// # Errors
    /// When one of them cannot be taken; none is then, and the message is still to be
    /// [passed](Self::pass) as a dead letter.
    pub fn take<'a>(
        &mut self,
        lane: Lane,
        origin: Origin,
        readings: impl Iterator<Item = Reading<'a>>,
        taking: Taking,
    ) -> Result<(), TakeError> {
        let Taking {
            client,
            more_flags,
            now,
        } = taking;
        let Self {
            dictionary,
            telemetry,
            events,
            refused,
            ..
        } = self;
        let filling = match lane {
            Lane::Events => events,
            _ => telemetry,
        };
        let (before, names) = (filling.readings.len(), filling.inline.all.len());
        for reading in readings {
            let series = match lane {
                Lane::Events => filling.inline.series(&reading),
                _ => dictionary.series(&reading, client),
            };
            let taken = series.and_then(|series| {
                let mut meta = reading.meta;
                meta.flags = meta.flags.with(more_flags);
                Ok(filling.readings.push(series, meta, reading.value)?)
            });
            if let Err(error) = taken {
                filling.readings.truncate(before);
                filling.inline.truncate(names);
                return Err(error);
            }
        }
        if filling.readings.len() > before {
            let refused = refused.take_if(|_| lane == Lane::Telemetry);
            filling.messages.push(GivenUp {
                origin,
                more_flags,
                refused,
            });
            self.since.get_or_insert(now);
        }
        self.cover(origin);
        Ok(())
    }

    /// Covers a message that gives no readings: a repeat, a dead letter, a control record.
    pub fn pass(&mut self, origin: Origin) {
        self.cover(origin);
    }

    /// Declares what was acknowledged and given up, with the next batch; with the first message, if
    /// each is sealed for itself.
    pub fn declare(&mut self, lost: Refused) {
        let first = self.telemetry.messages.first_mut();
        let place = first.map_or(&mut self.refused, |first| &mut first.refused);
        add(place, lost);
    }

    /// Covers a message that was refused although it is acknowledged.
    pub fn refuse(&mut self, origin: Origin, refused: Refused, now: i64) {
        add(&mut self.refused, refused);
        self.since.get_or_insert(now);
        self.cover(origin);
    }

    /// Every series with a reading that waits, and the newest such reading.
    pub fn latest(&self) -> impl Iterator<Item = (&SeriesDef, &Meta, Value<'_>)> {
        let telemetry = newest(&self.telemetry.readings, self.dictionary.all());
        telemetry.chain(newest(&self.events.readings, &self.events.inline.all))
    }

    /// When a lane is due, if nothing else comes: microseconds on the clock of `now`.
    pub fn poll_timeout(&self) -> Option<i64> {
        self.since.map(|since| since.saturating_add(self.delay_us))
    }

    /// Whether a lane is due.
    pub fn is_due(&self, now: i64) -> bool {
        let is_full = |filling: &Filling| filling.readings.len() >= BATCH_READINGS_TARGET;
        !self.aside.is_empty()
            || is_full(&self.telemetry)
            || is_full(&self.events)
            || self.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Everything before this message is covered by what waits, once that is durable.
    pub fn covered_to(&self) -> Option<Origin> {
        self.covers.last().map(Origin::behind)
    }

    /// Seals what waits in one lane; nothing when nothing does. Telemetry's
    /// [definitions](Self::seal_series) must be durable before, and what was refused is declared in
    /// a batch of its own, to be made durable together with the other.
    ///
    /// # Errors
    /// When the readings cannot be sealed together. They all wait as before then: [give them
    /// up](Self::give_up), and seal each message for itself.
    pub fn seal_lane(&mut self, lane: Lane, sealed_at: i64) -> Result<Vec<SealedBatch>, SealError> {
        let refused = match lane {
            Lane::Telemetry => self.all_refused(),
            _ => None,
        };
        let first = self.filling(lane).next;
        let mut number = first + u64::from(refused.is_some());
        let (aside, missed) = match lane {
            Lane::Telemetry => self.seal_aside(number, sealed_at),
            _ => Default::default(),
        };
        number += aside.len() as u64;
        let readings = self.seal_readings(lane, (number, sealed_at))?;
        let mut sealed = Vec::new();
        if let Some(refused) = refused {
            let gap = refused.gap(first);
            let spec = self.spec(lane, first, (sealed_at, 0));
            sealed.push(self.sealer.gap(&spec, &gap)?);
            self.refused = None;
        }
        if lane == Lane::Telemetry {
            capture::count_missed("much", missed);
            self.aside.clear();
        }
        sealed.extend(aside);
        sealed.extend(readings);
        let filling = self.filling(lane);
        filling.next += sealed.len() as u64;
        filling.clear();
        Ok(sealed)
    }

    fn all_refused(&self) -> Option<Refused> {
        let before = self.telemetry.messages.iter().filter_map(|m| m.refused);
        before.chain(self.refused).reduce(Refused::and)
    }

    fn seal_readings(
        &mut self,
        lane: Lane,
        (number, sealed_at): (u64, i64),
    ) -> Result<Option<SealedBatch>, SealError> {
        let needed = match lane {
            Lane::Events => 0,
            _ => self.dictionary.len(),
        };
        let spec = self.spec(lane, number, (sealed_at, needed));
        let Self {
            sealer,
            telemetry,
            events,
            aside,
            ..
        } = self;
        let sealed = match lane {
            Lane::Events if !events.readings.is_empty() => {
                sealer.named(&spec, &events.inline.all, &mut events.readings)
            }
            Lane::Telemetry if telemetry.readings.is_empty() => return Ok(None),
            Lane::Telemetry if aside.is_empty() => sealer.readings(&spec, &mut telemetry.readings),
            Lane::Telemetry => sealer.shared(&spec, &mut telemetry.readings),
            _ => return Ok(None),
        };
        sealed.map(Some)
    }

    fn spec(&self, lane: Lane, number: u64, (sealed_at, series_needed): (i64, u32)) -> Spec {
        Spec {
            key: self.key(lane, number),
            sealed_at,
            series_needed,
            covers: self.covers.clone(),
        }
    }

    /// Forgets the readings that wait in a lane, and says of which messages they were.
    pub fn give_up(&mut self, lane: Lane) -> Vec<GivenUp> {
        let filling = self.filling(lane);
        let messages = std::mem::take(&mut filling.messages);
        filling.clear();
        if lane == Lane::Telemetry {
            self.aside.clear();
        }
        messages
    }

    /// Takes this for what was refused, instead of what is, and gives that back.
    pub fn set_refused(&mut self, refused: Option<Refused>) -> Option<Refused> {
        std::mem::replace(&mut self.refused, refused)
    }

    /// Everything that waited is durable, or given up.
    pub fn clear(&mut self) {
        self.telemetry.clear();
        self.aside.clear();
        self.events.clear();
        self.covers.clear();
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
        let number = self.telemetry.next;
        let spec = Spec {
            covers: lost.copied().into_iter().collect(),
            ..self.spec(Lane::Telemetry, number, (sealed_at, 0))
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
        self.telemetry.next += 1;
        Ok(sealed)
    }

    /// The next batch of definitions that the readings need; `None` when all are sealed.
    ///
    /// # Errors
    /// As for [`seal_lane`](Self::seal_lane).
    pub fn seal_series(&mut self, sealed_at: i64) -> Result<Option<SealedBatch>, SealError> {
        let fresh = self.dictionary.fresh();
        if fresh.is_empty() {
            return Ok(None);
        }
        let base = self.dictionary.sealed();
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
        let count = fresh.len();
        self.dictionary.seal(count);
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

fn add(place: &mut Option<Refused>, more: Refused) {
    *place = Some(place.map_or(more, |before| before.and(more)));
}

/// The newest reading of each series.
fn newest<'a>(
    readings: &'a Readings,
    names: &'a [SeriesDef],
) -> impl Iterator<Item = (&'a SeriesDef, &'a Meta, Value<'a>)> {
    let mut newest: BTreeMap<SeriesId, &Row> = BTreeMap::new();
    for row in readings.rows() {
        let known = newest.entry(row.series).or_insert(row);
        if known.meta.event_time <= row.meta.event_time {
            *known = row;
        }
    }
    newest.into_iter().filter_map(|(series, row)| {
        let definition = names.get(series.0 as usize)?;
        Some((definition, &row.meta, readings.value(row)))
    })
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
