//! Detection on the gateway: what a series, a machine or a rule says of a reading. Pure: told each
//! reading and its time, no clock, no file, no message. `docs/detection.md` is the algorithm.

mod gap;
mod recent;
mod stuck;
mod weekly;

mod calm;
mod plain;
mod policy;
mod preset;
mod series;
mod settings;

mod pattern;
mod rule;
mod sample;
mod slots;
mod state_error;

mod event_time;
mod fast;
mod window;

mod group;
mod state;
mod vibration;
mod watched;

pub use calm::Calm;
pub use event_time::{EventTime, Gateway, Progress, TimeCounts, TimeSettings, TimeVerdict, Timed};
pub use fast::{ClosedSecond, Fast, FastReading, Pace, Second};
pub use group::{GroupEngine, GroupEvent, GroupSpecs};
pub use plain::Plain;
pub use preset::Preset;
pub use rule::{RuleChange, RuleCounts, RuleEngine, RuleEvent, RuleTally, Rules, RulesError};
pub use sample::{DeviceSlot, Place, Sample, SeriesSlot};
pub use series::{Judgement, Part, SeriesDetector};
pub use settings::{ClockTrust, FastMode, Settings};
pub use state::{Change, Row, StateGroup};
pub use state_error::StateError;
pub use vibration::{
    VibrationCounts, VibrationEngine, VibrationError, VibrationFeatures, VibrationSpecs,
};
pub(crate) use window::patterns;
pub use window::{
    Aggregate, Closed, Quantiles, WindowCounts, WindowKind, WindowSpec, WindowSpecs, Windows,
};
