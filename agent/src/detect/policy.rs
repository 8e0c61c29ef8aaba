//! When a score is an alert: a series that alerts often must alert louder, nothing is said while it
//! is learned, and nothing twice within a cool-down.

use bytes::{Buf, BufMut};

/// Readings before the first alert.
pub const LEARNING: u32 = 100;
/// Readings after an alert without another.
const COOL_DOWN: u32 = 30;
/// How much each recent alert asks for.
const LOUDER: f64 = 0.2;
/// By how much the memory of an alert fades with each reading: to a third in a thousand.
const FADE: f64 = 0.999_000_499_833_375; // exp(-1/1000)

/// The recent alerts of a series: 16 bytes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Policy {
    /// Recent alerts, fading.
    burden: f64,
    /// Readings, saturating at what anybody asks for.
    readings: u32,
    /// Readings since an alert was raised.
    quiet: u32,
}

impl Policy {
    /// The next reading, whatever it is.
    pub fn tick(&mut self) {
        self.readings = self.readings.saturating_add(1);
        self.quiet = self.quiet.saturating_add(1);
        self.burden *= FADE;
    }

    /// How much louder than at first an alert must be.
    pub fn loudness(&self) -> f64 {
        1.0 + LOUDER * self.burden
    }

    /// Readings that it still learns from.
    pub fn learns(&self) -> u32 {
        LEARNING.saturating_sub(self.readings)
    }

    /// Rules on the score of the reading at hand: its severity, and whether an alert is raised.
    pub fn rule(&mut self, score: f64) -> (f64, bool) {
        if self.readings <= LEARNING {
            return (0.0, false);
        }
        let severity = score / self.loudness();
        if severity < 1.0 {
            return (0.5 * severity, false);
        }
        self.burden += 1.0;
        if self.quiet <= COOL_DOWN {
            return (0.0, false);
        }
        self.quiet = 0;
        (severity, true)
    }
}

impl Policy {
    /// Appends its bytes, as in a checkpoint: burden (8 bytes), readings, quiet (4 each).
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.put_f64_le(self.burden);
        out.put_u32_le(self.readings);
        out.put_u32_le(self.quiet);
    }

    /// Takes its bytes off the front of `input`; `None` when they are none.
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        Some(Self {
            burden: input.try_get_f64_le().ok()?,
            readings: input.try_get_u32_le().ok()?,
            quiet: input.try_get_u32_le().ok()?,
        })
    }
}
