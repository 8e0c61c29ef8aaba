//! What the sealing stage knows of captures: a function of the log, and so of a checkpoint and the
//! messages after it.

use super::spans::{Added, Spans, read_origin, write_origin};
use super::{CaptureRecord, Index};
use crate::deadletter::put_back::{Done, LetterId};
use crate::limits::{CAPTURE_LENGTHS_MAX, CAPTURE_RANGES_MAX};
use crate::seal::Origin;
use bytes::{Buf, BufMut};
use tributary_journal::{LifeId, LifeSpan};

/// The state.
#[derive(Debug, Default)]
pub struct Captures {
    spans: Spans,
    /// Captures look back no further than here: what is before came under other rules.
    floor: Option<Origin>,
    /// Under which rules and windows all since then came.
    under: [u8; 32],
    /// Messages whose readings leave otherwise, or never: repeats, dead letters.
    apart: Done,
    /// Messages that may be repeats.
    doubtful: Done,
    /// Asked for by records whose messages are not sealed yet: device, times, and the record.
    fresh: Vec<(Box<str>, (i64, i64), Origin)>,
    /// Not part of the state.
    pub index: Index,
}

fn place(at: Origin) -> LetterId {
    LetterId {
        life: LifeId(at.buffer.0),
        number: at.number,
    }
}

impl Captures {
    /// Where captures look back to at most.
    pub fn floor(&self) -> Option<Origin> {
        self.floor
    }

    /// Other rules hold from `at` on, unless they are `under` as before: what is under way ends.
    /// Whether they are others.
    pub fn hold_under(&mut self, under: [u8; 32], at: Option<Origin>) -> bool {
        let are_others = self.under != under;
        if are_others {
            *self = Self {
                under,
                floor: self.floor.max(at),
                ..Self::default()
            };
        }
        are_others
    }

    /// Nothing before `at` is looked at any more.
    pub fn raise_floor(&mut self, at: Origin) {
        self.floor = self.floor.max(Some(at));
    }

    /// A message came that no capture may take.
    pub fn set_apart(&mut self, at: Origin) {
        self.apart
            .insert_range(LifeId(at.buffer.0), at.number..at.number + 1);
        self.bound(at);
    }

    /// A message came that may be a repeat.
    pub fn doubt(&mut self, at: Origin) {
        self.doubtful
            .insert_range(LifeId(at.buffer.0), at.number..at.number + 1);
        self.bound(at);
    }

    fn bound(&mut self, at: Origin) {
        if self.apart.ranges() + self.doubtful.ranges() > CAPTURE_RANGES_MAX {
            (self.apart, self.doubtful) = Default::default();
            self.raise_floor(Origin {
                number: at.number + 1,
                ..at
            });
        }
    }

    /// Whether a capture may take the readings of this message.
    pub fn may_take(&self, at: Origin) -> bool {
        self.floor.is_none_or(|floor| floor <= at) && !self.apart.holds(place(at))
    }

    /// Whether this message may be a repeat.
    pub fn is_doubtful(&self, at: Origin) -> bool {
        self.doubtful.holds(place(at))
    }

    /// The log has come to this received time.
    pub fn pass(&mut self, received: i64) {
        self.spans.pass(received);
    }

    /// Whether nothing is captured just now.
    pub fn is_idle(&self) -> bool {
        self.spans.is_empty()
    }

    /// A record asks for readings, one alert for `length_us` of them; gives the event times that
    /// are still to be looked for.
    pub fn add(&mut self, record: &CaptureRecord<'_>, at: Origin, length_us: i64) -> Added {
        let longest = length_us.saturating_mul(CAPTURE_LENGTHS_MAX);
        let (times, until) = ((record.from, record.to), record.received_to());
        let added = self.spans.add(record.device, times, until, (at, longest));
        if let Some(floor) = added.floor {
            self.raise_floor(floor);
        }
        for times in &added.new {
            self.fresh.push((record.device.into(), *times, at));
        }
        added
    }

    /// Whether a reading of the message at `at` is captured as it comes: if it came behind the
    /// record that asks for it.
    pub fn take(&mut self, device: &str, event: i64, (at, received): (Origin, i64)) -> bool {
        let is_before = self.fresh.iter().any(|(of, (from, to), asked)| {
            at < *asked && **of == *device && (*from..*to).contains(&event)
        });
        !is_before && self.spans.take(device, event, (at, received))
    }

    /// Goes on with what is known once the log holds less: see [`without`](Self::without).
    pub fn go_on(&mut self, without: Self, first: Origin) {
        let mut index = std::mem::take(&mut self.index);
        index.forget_before(first);
        *self = Self { index, ..without };
    }

    /// The event times that the record at `at` asked for, which is not sealed yet.
    pub fn asked_by(&self, at: Origin) -> Vec<(i64, i64)> {
        let fresh = self.fresh.iter().filter(|(.., asked)| *asked == at);
        fresh.map(|(_, times, _)| *times).collect()
    }

    /// All before this record is sealed. What a record asks for that stands there or behind waits.
    pub fn sealed(&mut self, covered_to: Origin) {
        self.fresh.retain(|(.., asked)| *asked >= covered_to);
    }

    /// What is known once the log holds nothing before `first`.
    pub fn without(&self, first: Origin, held: &[LifeSpan]) -> Self {
        let mut spans = self.spans.clone();
        spans.forget_before(first);
        let (mut apart, mut doubtful) = (self.apart.clone(), self.doubtful.clone());
        apart.keep_only(held);
        doubtful.keep_only(held);
        Self {
            spans,
            floor: self.floor,
            under: self.under,
            apart,
            doubtful,
            fresh: Vec::new(),
            index: Index::default(),
        }
    }

    /// Appends it, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_slice(&self.under);
        out.put_u8(u8::from(self.floor.is_some()));
        self.floor
            .iter()
            .for_each(|floor| write_origin(*floor, out));
        self.apart.write(out);
        self.doubtful.write(out);
        self.spans.write(out);
    }

    /// Takes it off the front of `input`; `None` when the bytes are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let (under, rest) = input.split_first_chunk()?;
        *input = rest;
        let floor = match input.try_get_u8().ok()? {
            0 => None,
            _ => Some(read_origin(input)?),
        };
        Some(Self {
            under: *under,
            floor,
            apart: Done::read(input)?,
            doubtful: Done::read(input)?,
            spans: Spans::read(input)?,
            fresh: Vec::new(),
            index: Index::default(),
        })
    }
}
