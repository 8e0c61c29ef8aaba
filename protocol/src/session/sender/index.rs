//! Which lanes may have something to send, to trim or left at all, kept up as they change: what a
//! batch costs does not depend on how many lanes there are. It decides nothing.

use super::{LaneKey, Sender};
use crate::ids::{BufferId, Lane};
use std::collections::{BTreeMap, BTreeSet};

/// Lanes that are looked through together, the oldest buffer first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(super) enum Class {
    Series,
    Alerts,
    Events,
    Bulk,
}

impl Class {
    fn of(lane: Lane) -> Self {
        match lane {
            Lane::Series => Self::Series,
            Lane::Alerts => Self::Alerts,
            Lane::Events => Self::Events,
            Lane::Telemetry | Lane::Aggregates => Self::Bulk,
        }
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Index {
    /// Lanes with something that this session's ledger lacks, and with their series known.
    ready: BTreeMap<Class, BTreeSet<LaneKey>>,
    /// Buffers of which a batch waits for definitions.
    pub(super) wanted: BTreeSet<BufferId>,
    /// Lanes that changed since the last look at what may be trimmed.
    changed: BTreeSet<LaneKey>,
    /// Batches and bytes that nobody acknowledged, of each lane with some and of all but series.
    left: BTreeMap<LaneKey, (u64, u64)>,
    total: (u64, u64),
}

impl Index {
    /// The lanes of a class that may have something to send.
    pub(super) fn ready(&self, class: Class) -> impl Iterator<Item = &LaneKey> {
        let ready = self.ready.get(&class).into_iter().flatten();
        ready.inspect(|_| visited())
    }

    pub(super) fn take_changed(&mut self) -> BTreeSet<LaneKey> {
        std::mem::take(&mut self.changed)
    }

    /// Batches and bytes that nobody acknowledged.
    pub(super) fn total(&self) -> (u64, u64) {
        self.total
    }

    fn set_ready(&mut self, key: LaneKey, ready: bool) {
        let of_class = self.ready.entry(Class::of(key.lane)).or_default();
        match ready {
            true => of_class.insert(key),
            false => of_class.remove(&key),
        };
    }

    fn set_left(&mut self, key: LaneKey, left: (u64, u64)) {
        if key.lane == Lane::Series {
            return;
        }
        let before = match left.0 {
            0 => self.left.remove(&key),
            _ => self.left.insert(key, left),
        };
        let before = before.unwrap_or_default();
        self.total.0 = self.total.0 + left.0 - before.0;
        self.total.1 = self.total.1 + left.1 - before.1;
    }
}

impl Sender {
    /// A lane changed.
    pub(super) fn touch(&mut self, key: LaneKey) {
        visited();
        let lane = self.lanes.get(&key);
        let ready = lane.is_some_and(|lane| {
            self.announced.contains(&key.buffer)
                && self.has_series(&key, lane)
                && lane.settled.first_missing(lane.first, lane.end).is_some()
        });
        let left = lane.map(|lane| match lane.unacknowledged() {
            (0, _) => (0, 0),
            left => left,
        });
        self.index.set_ready(key, ready);
        self.index.set_left(key, left.unwrap_or_default());
        self.index.changed.insert(key);
    }

    /// All of a buffer may have changed.
    pub(super) fn touch_buffer(&mut self, buffer: BufferId) {
        for lane in Lane::ALL {
            let key = LaneKey { buffer, lane };
            if self.lanes.contains_key(&key) {
                self.touch(key);
            }
        }
    }

    /// Everything may have changed.
    pub(super) fn touch_all(&mut self) {
        let keys: Vec<LaneKey> = self.lanes.keys().copied().collect();
        keys.into_iter().for_each(|key| self.touch(key));
    }

    /// Forgets a buffer of which nothing is left.
    pub(super) fn drop_buffer(&mut self, buffer: BufferId) {
        for lane in Lane::ALL {
            let key = LaneKey { buffer, lane };
            self.lanes.remove(&key);
            self.index.set_ready(key, false);
            self.index.set_left(key, (0, 0));
        }
        self.index.wanted.remove(&buffer);
        self.doubts.retain(|key| key.buffer != buffer);
    }
}

/// Counts lanes that were looked at, so that a test sees what a batch costs.
#[cfg(test)]
pub(crate) fn visited() {
    VISITED.set(VISITED.get() + 1);
}

#[cfg(not(test))]
pub(super) fn visited() {}

#[cfg(test)]
thread_local! {
    pub(crate) static VISITED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}
