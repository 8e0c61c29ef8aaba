//! What each lane of the spool may hold, and what gives way when that is used up. It carries
//! nothing out.

use crate::decode::{Incoming, Rows, Rules};
use crate::limits::{EVENTS_SPOOL_BYTES, SERIES_SPOOL_BYTES, SPOOL_QUOTA_BYTES};
use crate::wal::Refused;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tributary_protocol::ids::Lane;

/// What gives way when a lane of the spool is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Nothing: no more is acknowledged until there is room.
    Block,
    /// The oldest segment, declared as a gap.
    DropOldest,
    /// What comes: refused at the door, and declared where it was acknowledged.
    DropNewest,
}

impl Policy {
    /// Every policy, with its name in the configuration.
    pub const NAMES: [(&str, Self); 3] = [
        ("block", Self::Block),
        ("drop-oldest", Self::DropOldest),
        ("drop-newest", Self::DropNewest),
    ];
}

/// What one lane may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LanePolicy {
    /// What gives way.
    pub policy: Policy,
    /// Bytes of its segments.
    pub quota_bytes: u64,
    /// How old a segment may get before it is given up; without it, as old as it likes.
    pub max_age: Option<Duration>,
}

/// What the spool may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolConfig {
    /// Readings.
    pub telemetry: LanePolicy,
    /// What happened to devices and clients.
    pub events: LanePolicy,
    /// Bytes of the file system that are left free.
    pub reserve_bytes: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        let lane = |policy, quota_bytes| LanePolicy {
            policy,
            quota_bytes,
            max_age: None,
        };
        Self {
            telemetry: lane(Policy::DropOldest, SPOOL_QUOTA_BYTES),
            events: lane(Policy::DropOldest, EVENTS_SPOOL_BYTES),
            reserve_bytes: crate::limits::RESERVE_BYTES,
        }
    }
}

impl SpoolConfig {
    /// What a lane may hold. Definitions are never given up.
    pub(super) fn lane(&self, lane: Lane) -> LanePolicy {
        match lane {
            Lane::Series => LanePolicy {
                policy: Policy::Block,
                quota_bytes: SERIES_SPOOL_BYTES,
                max_age: None,
            },
            Lane::Events | Lane::Alerts => self.events,
            Lane::Telemetry | Lane::Aggregates => self.telemetry,
        }
    }
}

/// Whether what comes is to be refused at the door, because the spool is full and its policy is
/// `drop-newest`. Shared with the sources, which count what they refuse by the decoding rules.
#[derive(Clone, Debug)]
pub struct RefuseNew {
    on: Arc<AtomicBool>,
    rules: Arc<Rules>,
}

impl Default for RefuseNew {
    fn default() -> Self {
        Self {
            on: Arc::default(),
            rules: Rules::builtin(),
        }
    }
}

impl RefuseNew {
    /// The same, counting by these rules.
    pub fn counting_by(self, rules: Arc<Rules>) -> Self {
        Self { rules, ..self }
    }

    /// Whether to refuse.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// What is lost when this message is refused although it is acknowledged. What would have been
    /// a dead letter holds no reading.
    pub fn loss(&self, message: &Incoming<'_>) -> Refused {
        let mut rows = Rows::new();
        let readings = match self.rules.decode(message, &mut rows) {
            Ok(_) => rows.len() as u64,
            Err(_) => 0,
        };
        Refused::one(readings, message.received_time)
    }

    /// Says whether to refuse; whether that is news.
    pub(crate) fn set(&self, on: bool) -> bool {
        self.on.swap(on, Ordering::Relaxed) != on
    }
}
