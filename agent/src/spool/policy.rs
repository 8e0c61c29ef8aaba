//! What each lane of the spool may hold, and what gives way when that is used up. It carries
//! nothing out.

use crate::limits::{
    AGGREGATES_SPOOL_BYTES, ALERTS_SPOOL_BYTES, EVENTS_SPOOL_BYTES, SERIES_SPOOL_BYTES,
    SPOOL_QUOTA_BYTES,
};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
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
    /// The lane `alerts`.
    pub alerts: LanePolicy,
    /// The lane `aggregates`.
    pub aggregates: LanePolicy,
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
            alerts: lane(Policy::DropOldest, ALERTS_SPOOL_BYTES),
            aggregates: lane(Policy::DropOldest, AGGREGATES_SPOOL_BYTES),
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
            Lane::Events => self.events,
            Lane::Alerts => self.alerts,
            Lane::Aggregates => self.aggregates,
            Lane::Telemetry => self.telemetry,
        }
    }
}

/// Whether what comes is to be refused at the door, because the spool is full and its policy is
/// `drop-newest`. Shared with the sources.
#[derive(Clone, Default, Debug)]
pub struct RefuseNew(Arc<Refusing>);

#[derive(Default, Debug)]
struct Refusing {
    on: AtomicBool,
    over: Notify,
}

impl RefuseNew {
    /// Whether to refuse.
    pub fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// Waits until there is nothing to refuse. Cancel safe.
    pub async fn over(&self) {
        let mut over = pin!(self.0.over.notified());
        // In line before it is looked at: an end in between is not missed.
        over.as_mut().enable();
        while self.is_on() {
            over.as_mut().await;
            over.set(self.0.over.notified());
            over.as_mut().enable();
        }
    }

    /// Says whether to refuse; whether that is news.
    pub fn set(&self, on: bool) -> bool {
        let news = self.0.on.swap(on, Ordering::Relaxed) != on;
        if news && !on {
            self.0.over.notify_waiters();
        }
        news
    }
}
