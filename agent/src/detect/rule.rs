//! Rules that a person writes, `[[detect.rule]]`: what of which readings is worth an alert, and
//! what the alert says. `docs/detection.md`, Rules.
//!
//! [`Rules`] is a checked set of them, [`RuleEngine`] what they remember of series and devices.
//! Both are pure: told each reading and its time. What becomes of an alert is not decided here.

mod band;
mod channel;
mod checkpoint;
mod due;
mod engine;
mod event;
mod expression;
mod memory;
mod message;
mod read;
mod run;
mod set;
mod slope;
mod state;
mod text;

pub use checkpoint::RulesError;
pub use engine::RuleEngine;
pub use event::{RuleChange, RuleCounts, RuleEvent, RuleTally};
pub use set::Rules;

use crate::alert::Severity;
use crate::detect::pattern::Pattern;
use band::Band;
use expression::Expression;
use message::Template;
use std::sync::Arc;

/// When a run of one value is too long.
#[derive(Clone, Copy, PartialEq, Debug)]
enum RunLimit {
    /// After so many microseconds.
    Span(i64),
    /// At so many readings.
    Readings(u32),
}

/// When no data are too few.
#[derive(Clone, Copy, PartialEq, Debug)]
enum SilenceLimit {
    /// After so many microseconds.
    Span(i64),
    /// After so many intervals; how long one is the series itself shows.
    Intervals(f64),
}

/// The other series that one is compared with.
#[derive(Clone, PartialEq, Debug)]
struct Other {
    /// Another device than the series's own.
    device: Option<Box<str>>,
    metric: Box<str>,
    /// What is added to its value.
    offset: f64,
    /// How it is compared.
    op: Op,
    /// Microseconds after which a value is too old to be compared.
    stale: i64,
}

/// How two values are compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Above,
    AtLeast,
    Below,
    AtMost,
    Differs,
}

impl Op {
    const NAMES: [(&str, Self); 5] = [
        (">", Self::Above),
        (">=", Self::AtLeast),
        ("<", Self::Below),
        ("<=", Self::AtMost),
        ("!=", Self::Differs),
    ];

    fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(_, op)| *op == self);
        named.map_or("", |(name, _)| name)
    }
}

/// What a rule asks of readings.
#[derive(Clone, PartialEq, Debug)]
enum Kind {
    /// The value leaves a band, for so many microseconds.
    Threshold(Band, i64),
    /// The value is none that the sensor can measure.
    Range(Band),
    /// The value changes faster, over so many microseconds, than a band of changes a second.
    Rate(Band, i64),
    /// The value repeats, within a tolerance.
    Stuck(RunLimit, f64),
    /// Nothing comes.
    Silence(SilenceLimit),
    /// The value against that of another series, the difference in a band, for so many
    /// microseconds.
    Compare(Other, Band, i64),
    /// An expression over readings of a device is true, for so many microseconds; values older
    /// than so many are not looked at.
    Expression(Box<Expression>, i64, i64),
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Threshold(..) => "threshold",
            Self::Range(_) => "range",
            Self::Rate(..) => "rate",
            Self::Stuck(..) => "stuck",
            Self::Silence(_) => "silence",
            Self::Compare(..) => "compare",
            Self::Expression(..) => "expression",
        }
    }

    /// Microseconds that it must hold before it is worth an alert.
    fn hold(&self) -> i64 {
        match self {
            Self::Threshold(_, hold) | Self::Compare(_, _, hold) | Self::Expression(_, hold, _) => {
                *hold
            }
            Self::Range(_) | Self::Rate(..) | Self::Stuck(..) | Self::Silence(_) => 0,
        }
    }

    /// Whether what was last seen goes on to be so while nothing new comes. A rate of change and a
    /// run of one value are of readings, and nothing without them.
    fn lasts(&self) -> bool {
        matches!(
            self,
            Self::Threshold(..) | Self::Range(_) | Self::Compare(..) | Self::Expression(..)
        )
    }

    /// Whether it is about several series of a device together.
    fn is_joint(&self) -> bool {
        matches!(self, Self::Compare(..) | Self::Expression(..))
    }
}

/// One rule.
#[derive(Clone, PartialEq, Debug)]
struct Rule {
    name: Arc<str>,
    device: Pattern,
    metric: Pattern,
    kind: Kind,
    severity: Severity,
    message: Template,
    message_cleared: Template,
    /// Microseconds after an alert before the next of the same series.
    cool_down: i64,
    /// The rule as it is kept.
    text: String,
    /// The beginning of BLAKE3 of that: what says that a state was of this very rule.
    hash: [u8; 16],
}

impl Rule {
    /// The place among the series that this rule looks at together; `None` where it does not look
    /// at this one. A rule of one series has one place.
    fn input(&self, device: &str, metric: &str) -> Option<u8> {
        match &self.kind {
            Kind::Compare(other, ..) => {
                if self.metric.fits(metric) && self.device.fits(device) {
                    return Some(0);
                }
                let is_device = match &other.device {
                    Some(other) => **other == *device,
                    None => self.device.fits(device),
                };
                (is_device && *other.metric == *metric).then_some(1)
            }
            Kind::Expression(expression, ..) => {
                let mut metrics = expression.program.metrics.iter();
                let place = metrics.position(|known| **known == *metric)?;
                self.device.fits(device).then_some(place as u8)
            }
            _ => (self.metric.fits(metric) && self.device.fits(device)).then_some(0),
        }
    }

    /// The device that a state is about which a reading of `device` belongs to.
    fn subject_device<'a>(&'a self, device: &'a str) -> &'a str {
        match &self.kind {
            Kind::Compare(
                Other {
                    device: Some(_), ..
                },
                ..,
            ) => self.device.text(),
            _ => device,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
