//! Faults of sensors: which there are, how long each lasts, and what a reading has to do with one.
//!
//! A fault is put between what a shape gives and the reading that is published, so that the truth
//! holds what was really sent: nothing here changes what is lost or doubled.

use crate::reading::Reading;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::{Duration, Instant};

/// What is wrong with a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// One value far off.
    Spike,
    /// All values off by the same.
    Level,
    /// The same value again and again.
    Stuck,
    /// Level and spread of a vibration rise.
    Bearing,
    /// The value falls to 0.
    Dropout,
}

impl FaultKind {
    /// All of them, by their codes.
    pub const ALL: [Self; 5] = [
        Self::Spike,
        Self::Level,
        Self::Stuck,
        Self::Bearing,
        Self::Dropout,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Spike => "spike",
            Self::Level => "level shift",
            Self::Stuck => "stuck sensor",
            Self::Bearing => "bearing fault",
            Self::Dropout => "dropout",
        }
    }

    /// Its code in the truth ledger.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The kind with this code, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// How many readings it lasts.
    pub fn readings(self) -> u32 {
        match self {
            Self::Spike => 1,
            Self::Dropout => 3,
            Self::Level | Self::Stuck => 100,
            Self::Bearing => 150,
        }
    }

    /// How many readings of it there must be before it can be told from a sensor that is well: a
    /// fault that the end of a run cuts shorter does not count.
    pub fn telling(self) -> u32 {
        match self {
            Self::Spike | Self::Dropout => 1,
            Self::Level | Self::Stuck => 30,
            Self::Bearing => 50,
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for FaultKind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// Readings behind a fault that still have to do with it: a detector may notice its end.
pub const AFTERMATH_READINGS: u32 = 30;

/// What a reading has to do with a fault of its series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The fault.
    pub kind: FaultKind,
    /// Event time of its first reading: microseconds since 1970, UTC.
    pub first_us: i64,
    /// The place of this reading from that one on; behind the fault's own it is aftermath.
    pub nth: u32,
}

impl Mark {
    /// Whether the fault is in the reading itself.
    pub fn is_faulty(&self) -> bool {
        self.nth < self.kind.readings()
    }
}

/// How many faults a fleet has, and from when on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FaultConfig {
    /// Faults a minute in the whole fleet; 0: none.
    pub per_minute: f64,
    /// The first comes so long after the fleet began.
    pub after: Duration,
}

impl FaultConfig {
    /// No faults.
    pub const NONE: Self = Self {
        per_minute: 0.0,
        after: Duration::from_secs(12),
    };
}

impl Default for FaultConfig {
    fn default() -> Self {
        Self::NONE
    }
}

/// Who wants to know of readings that have to do with a fault.
pub trait Observer: fmt::Debug + Send + Sync {
    /// The reading is about to be written to a socket, for the first time.
    fn writing(&self, reading: &Reading, mark: Mark, at: Instant);
}
