//! What of one window of one series is open: panes, sessions, or a count.

mod counted;
mod hops;
mod sessions;

use super::aggregate::{Closed, Closing};
use super::spec::Shape;
use super::summary::{Item, Summary};
use crate::detect::state_error::StateError;
use crate::limits::{WINDOW_OPEN_MAX, WINDOW_STATE_BYTES_MAX};
use bytes::{Buf, BufMut};
use counted::Counted;
use hops::Hops;
use sessions::Sessions;

/// Before any time that is placed.
pub(super) const BEFORE: i64 = i64::MIN;
/// Times within this are placed, so that no length of a window leads beyond what can be told.
pub(super) const PLACED: std::ops::RangeInclusive<i64> = -(1 << 61)..=1 << 61;

/// Bytes of all that is open, and what they may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    pub used: usize,
    pub most: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            used: 0,
            most: WINDOW_STATE_BYTES_MAX,
        }
    }
}

impl Room {
    pub fn is_left(&self) -> bool {
        self.used < self.most
    }

    pub fn taken(&mut self, bytes: usize) {
        self.used = self.used.saturating_add(bytes);
    }

    pub fn freed(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Adds a reading to what is open.
    pub fn add(&mut self, summary: &mut Summary, item: &Item) {
        if item.late {
            summary.late = summary.late.saturating_add(1);
            return;
        }
        let before = summary.bytes();
        summary.add(item, self.is_left());
        self.freed(before);
        self.taken(summary.bytes());
    }
}

/// What became of a reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taken {
    /// It is in a window, or counted there as late.
    In,
    /// All windows that it could be in are closed.
    Behind,
    /// There is no room to open another.
    NoRoom,
}

/// What is open.
#[derive(Clone)]
pub(super) enum Open {
    Hops(Hops),
    Sessions(Sessions),
    Counted(Counted),
}

impl Open {
    pub fn new(shape: &Shape) -> Self {
        match shape {
            Shape::Hop(_) => Self::Hops(Hops::new()),
            Shape::Session { .. } => Self::Sessions(Sessions::new()),
            Shape::Count { .. } => Self::Counted(Counted::default()),
        }
    }

    /// Takes a reading. `watermark` is its device's, which it may have moved.
    pub fn step(&mut self, shape: &Shape, item: &Item, watermark: i64, room: &mut Room) -> Taken {
        match (self, shape) {
            (Self::Hops(hops), Shape::Hop(hop)) => hops.step(hop, item, watermark, room),
            (Self::Sessions(sessions), Shape::Session { gap, length_max }) => {
                sessions.step((*gap, *length_max), item, room)
            }
            (Self::Counted(counted), Shape::Count { .. }) => counted.step(item, room),
            // Made and read with their shape.
            _ => Taken::Behind,
        }
    }

    /// The event time at which the next window closes; `None` when nothing is open.
    pub fn due(&self, shape: &Shape) -> Option<i64> {
        match (self, shape) {
            (Self::Hops(hops), Shape::Hop(hop)) => hops.due(hop),
            (Self::Sessions(sessions), Shape::Session { gap, length_max }) => {
                sessions.due((*gap, *length_max))
            }
            (
                Self::Counted(counted),
                Shape::Count {
                    readings,
                    length_max,
                },
            ) => counted.due((*readings, *length_max)),
            _ => None,
        }
    }

    /// Closes the window that is due next. `interval`: how far apart the series's readings are.
    pub fn close(
        &mut self,
        shape: &Shape,
        interval: Option<i64>,
        closed: Closed,
        room: &mut Room,
    ) -> Option<Closing> {
        match (self, shape) {
            (Self::Hops(hops), Shape::Hop(hop)) => hops.close(hop, interval, closed, room),
            (Self::Sessions(sessions), Shape::Session { gap, length_max }) => {
                sessions.close((*gap, *length_max), closed, room)
            }
            (Self::Counted(counted), Shape::Count { readings, .. }) => {
                counted.close(*readings, closed, room)
            }
            _ => None,
        }
    }

    /// Whether there are more open ones than may be.
    pub fn is_crowded(&self) -> bool {
        self.len() > WINDOW_OPEN_MAX
    }

    /// Panes, sessions or counts that are open.
    pub fn len(&self) -> usize {
        match self {
            Self::Hops(hops) => hops.panes().len(),
            Self::Sessions(sessions) => sessions.open().len(),
            Self::Counted(counted) => counted.open().len(),
        }
    }

    /// Up to where windows are closed for ever.
    pub fn closed_to(&self) -> i64 {
        match self {
            Self::Hops(hops) => hops.closed,
            Self::Sessions(sessions) => sessions.closed,
            Self::Counted(_) => BEFORE,
        }
    }

    /// Goes on, with nothing open, in another time, which is at `newest`. What was closed there
    /// before stays so; where only the other time was, windows that begin from here on are new.
    pub fn begin_anew(&mut self, shape: &Shape, newest: i64, closed_before: i64) {
        let newest = newest.clamp(*PLACED.start(), *PLACED.end());
        let far = closed_before > newest;
        match (self, shape) {
            (Self::Hops(hops), Shape::Hop(hop)) => {
                hops.closed = match far {
                    true => hop.last_end(newest - 1),
                    false => closed_before,
                };
            }
            (Self::Sessions(sessions), _) => sessions.closed = closed_before.min(newest),
            _ => {}
        }
    }

    /// The same with nothing open.
    pub fn emptied(&self) -> Self {
        match self {
            Self::Hops(hops) => Self::Hops(Hops::of(Vec::new(), hops.closed)),
            Self::Sessions(open) => Self::Sessions(Sessions::of(Vec::new(), open.closed)),
            Self::Counted(_) => Self::Counted(Counted::default()),
        }
    }

    /// Bytes of what is open.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Hops(hops) => hops.panes().iter().map(|(_, pane)| pane.bytes()).sum(),
            Self::Sessions(sessions) => sessions.open().iter().map(Summary::bytes).sum(),
            Self::Counted(counted) => counted.open().iter().map(Summary::bytes).sum(),
        }
    }

    /// Appends what is open to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_i64_le(self.closed_to());
        out.put_u16_le(self.len() as u16);
        match self {
            Self::Hops(hops) => {
                for (start, pane) in hops.panes() {
                    out.put_i64_le(*start);
                    pane.write(out);
                }
            }
            Self::Sessions(sessions) => sessions.open().iter().for_each(|open| open.write(out)),
            Self::Counted(counted) => counted.open().iter().for_each(|open| open.write(out)),
        }
    }

    /// What is open at the front of `input`, which is moved behind it.
    pub fn read(input: &mut &[u8], kind: Kind) -> Result<Self, StateError> {
        let closed = input.try_get_i64_le()?;
        // It ends behind what is placed in it.
        if closed != BEFORE && closed.unsigned_abs() > 1 << 62 {
            return Err(StateError::Field("end of closed windows"));
        }
        let count = usize::from(input.try_get_u16_le()?);
        if count > WINDOW_OPEN_MAX || (kind == Kind::Count && count > 1) {
            return Err(StateError::Field("count of open windows"));
        }
        let mut panes: Vec<(i64, Summary)> = Vec::new();
        for _ in 0..count {
            let start = match kind {
                Kind::Hop => input.try_get_i64_le()?,
                Kind::Session | Kind::Count => 0,
            };
            let summary = Summary::read(input)?;
            let ascends = panes.last().is_none_or(|(last, _)| *last < start);
            if kind == Kind::Hop && !(ascends && PLACED.contains(&start)) {
                return Err(StateError::Field("pane"));
            }
            let times = [summary.first.0, summary.last.0];
            let placed = times.iter().all(|time| PLACED.contains(time));
            // Only a pane may hold nothing but late readings.
            if !placed && (kind != Kind::Hop || summary.count > 0) {
                return Err(StateError::Field("time of a reading"));
            }
            panes.push((start, summary));
        }
        let mut summaries = panes.iter().map(|(_, summary)| summary.clone());
        Ok(match kind {
            Kind::Hop => Self::Hops(Hops::of(panes, closed)),
            Kind::Session => Self::Sessions(Sessions::of(summaries.collect(), closed)),
            Kind::Count => Self::Counted(Counted::of(summaries.next())),
        })
    }
}

/// Which form what is open has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Hop,
    Session,
    Count,
}

impl Kind {
    pub fn of(shape: &Shape) -> Self {
        match shape {
            Shape::Hop(_) => Self::Hop,
            Shape::Session { .. } => Self::Session,
            Shape::Count { .. } => Self::Count,
        }
    }

    /// Its number in a checkpoint, which is never used for another.
    pub fn code(self) -> u8 {
        match self {
            Self::Hop => 0,
            Self::Session => 1,
            Self::Count => 2,
        }
    }

    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Hop, Self::Session, Self::Count]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

const _: () = assert!(WINDOW_OPEN_MAX <= u16::MAX as usize);
