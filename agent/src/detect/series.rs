//! The detector of one series, by its preset.

use super::calm::Calm;
use super::plain::Plain;
use super::preset::Preset;

/// The part of a detector that gave the greatest score.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The value is far from all that were visited lately.
    Value,
    /// What it has beyond its time of the week is.
    Weekly,
    /// The mean of the last readings is.
    Mean,
    /// The step from the reading before is.
    Step,
    /// The value repeats for much longer than ever.
    Stuck,
}

/// What a detector makes of a reading.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Judgement {
    /// 1 or more on an alert, 0 where one is held back, below a half otherwise.
    pub severity: f64,
    /// Whether an alert is raised.
    pub alert: bool,
    /// The part that spoke, if one did.
    pub part: Option<Part>,
}

impl Judgement {
    /// Nothing is said.
    pub(super) const NOTHING: Self = Self {
        severity: 0.0,
        alert: false,
        part: None,
    };

    /// The severity as a score from 0 to 1; an alert has a half or more.
    pub fn score(&self) -> f64 {
        self.severity / (1.0 + self.severity)
    }
}

/// The detector of a series: at most 768 bytes of state.
#[derive(Clone, PartialEq, Debug)]
pub enum SeriesDetector {
    /// The presets `sensitive`, `balanced` and `quiet`.
    Plain(Box<Plain>),
    /// The preset `calm`.
    Calm(Box<Calm>),
}

const STATE_BYTES_MAX: usize = 768;
const _: () = assert!(size_of::<Plain>() <= STATE_BYTES_MAX);
const _: () = assert!(size_of::<Calm>() <= STATE_BYTES_MAX);

impl SeriesDetector {
    /// A detector that has seen nothing.
    pub fn new(preset: Preset) -> Self {
        match preset {
            Preset::Calm => Self::Calm(Box::new(Calm::new())),
            plain => Self::Plain(Box::new(Plain::new(plain))),
        }
    }

    /// Readings that it still needs before it alerts.
    pub fn learns(&self) -> u32 {
        match self {
            Self::Plain(plain) => plain.learns(),
            Self::Calm(calm) => calm.learns(),
        }
    }

    /// Judges a reading. `weekly`: whether its clock is trusted to tell the time of the week. A
    /// value that is no number, or whose time is before one that was seen, changes no model and
    /// scores nothing.
    pub fn step(&mut self, weekly: bool, time_us: i64, value: f64) -> Judgement {
        match self {
            Self::Plain(plain) => plain.step(weekly, time_us, value),
            Self::Calm(calm) => calm.step(weekly, time_us, value),
        }
    }
}
