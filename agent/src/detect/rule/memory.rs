//! What kinds of rules remember beside what all of them do: time, intervals, the newest readings.

use super::expression::Inputs;
use super::run::Run;
use super::slope::Slope;
use super::{Kind, SilenceLimit};
use crate::detect::sample::Sample;

/// No time yet, where earlier is less.
pub(super) const NEVER_YET: i64 = i64::MIN;
/// Intervals after which a series has shown how long they are.
const RHYTHM_LEARNS: u32 = 8;
/// The weight of a new interval.
const RHYTHM_WEIGHT: f64 = 1.0 / 32.0;

/// The time of a state: microseconds since 1970 by event time, and steady time otherwise.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Clock {
    /// That of the newest reading.
    pub time: i64,
    /// The steady time at which that was received, or the agent came back.
    pub received: i64,
    /// Whether it is event time.
    pub by_event: bool,
    /// Whether there was a reading.
    pub runs: bool,
}

/// How a reading stands to those before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// It is the first one by this clock.
    First,
    /// It is the newest; the time of the one before.
    Newest(i64),
    /// Newer ones came before it.
    Old,
}

impl Clock {
    pub const UNSET: Self = Self {
        time: 0,
        received: 0,
        by_event: false,
        runs: false,
    };

    /// Takes the time of a reading.
    pub fn advance(&mut self, sample: &Sample, trusted: bool, late: bool) -> Order {
        let time = match trusted {
            true => sample.event_time,
            false => sample.received_time,
        };
        let anew = !self.runs || self.by_event != trusted;
        if late || (!anew && time < self.time) {
            return Order::Old;
        }
        let before = std::mem::replace(&mut self.time, time);
        self.received = match self.runs {
            true => self.received.max(sample.received_time),
            false => sample.received_time,
        };
        (self.runs, self.by_event) = (true, trusted);
        match anew {
            true => Order::First,
            false => Order::Newest(before),
        }
    }
}

/// How often a series sends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Rhythm {
    /// Microseconds between two readings.
    pub interval: f64,
    /// Intervals, saturating.
    pub count: u32,
    /// Whether the agent was away since the last reading: what it missed is no silence.
    pub away: bool,
}

impl Rhythm {
    pub const NEW: Self = Self {
        interval: 0.0,
        count: 0,
        away: false,
    };

    /// Microseconds that it may be silent; `None` until the series has shown it.
    pub fn limit(&self, limit: SilenceLimit) -> Option<i64> {
        match limit {
            SilenceLimit::Span(span) => Some(span),
            SilenceLimit::Intervals(intervals) => {
                (self.count >= RHYTHM_LEARNS).then_some((intervals * self.interval) as i64)
            }
        }
    }

    /// Takes the time from one reading to the next.
    pub fn learn(&mut self, interval: i64, limit: Option<i64>) {
        if interval > 0 {
            self.count = self.count.saturating_add(1);
            // A silence says little about what is usual.
            let interval = interval.min(limit.unwrap_or(i64::MAX)) as f64;
            let weight = RHYTHM_WEIGHT.max(1.0 / f64::from(self.count));
            self.interval += weight * (interval - self.interval);
        }
    }
}

/// The newest reading of one of the series that are looked at together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Cell {
    pub value: f64,
    pub event_time: i64,
    pub received: i64,
    pub trusted: bool,
    pub there: bool,
}

impl Cell {
    pub const EMPTY: Self = Self {
        value: 0.0,
        event_time: 0,
        received: 0,
        trusted: false,
        there: false,
    };

    /// Takes a reading, unless a newer one is there.
    pub fn take(&mut self, sample: &Sample) -> bool {
        let is_old = self.there
            && self.trusted == sample.trusted
            && sample.trusted
            && sample.event_time < self.event_time;
        if sample.late || is_old {
            return false;
        }
        *self = Self {
            value: sample.value,
            event_time: sample.event_time,
            received: sample.received_time,
            trusted: sample.trusted,
            there: true,
        };
        true
    }
}

/// What a kind of rule remembers beside.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Memory {
    Nothing,
    Slope(Box<Slope>),
    Run(Run),
    Rhythm(Rhythm),
    Pair(Box<[Cell; 2]>),
    Inputs(Box<Inputs>),
}

impl Memory {
    pub fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Threshold(..) | Kind::Range(_) => Self::Nothing,
            Kind::Rate(..) => Self::Slope(Box::new(Slope::new())),
            Kind::Stuck(..) => Self::Run(Run::NONE),
            Kind::Silence(_) => Self::Rhythm(Rhythm::NEW),
            Kind::Compare(..) => Self::Pair(Box::new([Cell::EMPTY; 2])),
            Kind::Expression(of, ..) => Self::Inputs(Box::new(Inputs::new(&of.program))),
        }
    }

    /// Bytes beyond the state itself.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Nothing | Self::Run(_) | Self::Rhythm(_) => 0,
            Self::Slope(_) => size_of::<Slope>(),
            Self::Pair(_) => size_of::<[Cell; 2]>(),
            Self::Inputs(inputs) => inputs.bytes(),
        }
    }
}
