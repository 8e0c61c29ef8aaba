//! What a sender sends next: alerts, events, then definitions as far as a batch waits for them,
//! live data with a share for the backlog, and last the definitions that nothing waits for.

use super::index::{Class, visited};
use super::lane::LaneOut;
use super::{HeldRanges, Sender, SenderState, Urgency, key_of};
use crate::ids::{BatchKey, BufferId, Lane, LaneKey};
use std::ops::Range;

impl Sender {
    /// The batch to read from its spool and [offer](Self::offer) next, if one may be sent.
    pub fn poll_send(&mut self) -> Option<(BatchKey, Urgency)> {
        if self.state != SenderState::Sending
            || self.in_flight.len() >= self.window.batches
            || self.in_flight_bytes >= self.window.bytes
        {
            return None;
        }
        if let Some(key) = self.first_of(Class::Alerts, None) {
            return Some((key, Urgency::Alert));
        }
        if let Some(key) = self.first_of(Class::Events, None) {
            return Some((key, Urgency::Event));
        }
        if let Some(key) = self.wanted_definition() {
            return Some((key, Urgency::Series));
        }
        // Few beside the readings, and worth more on a line that carries not all of them.
        let live = self.live(Lane::Aggregates);
        let live = live.or_else(|| self.live(Lane::Telemetry));
        let backlog = self.first_of(Class::Bulk, Some(false));
        let bulk = match (live, backlog) {
            (Some(_), Some(key)) if self.contended.backlog_is_due() => {
                Some((key, Urgency::Backlog))
            }
            (Some(key), _) => Some((key, Urgency::Live)),
            (None, backlog) => backlog.map(|key| (key, Urgency::Backlog)),
        };
        let definition = || self.first_of(Class::Series, None);
        bulk.or_else(|| definition().map(|key| (key, Urgency::Series)))
    }

    /// The lowest batch, oldest buffer first, of the lanes of a class.
    fn first_of(&self, class: Class, live: Option<bool>) -> Option<BatchKey> {
        let mut ready = self.index.ready(class);
        ready.find_map(|key| self.next_of(*key, live))
    }

    /// The lowest batch of a lane of the present buffer that was sealed since the session began.
    fn live(&self, lane: Lane) -> Option<BatchKey> {
        let buffer = self.present;
        let key = LaneKey { buffer, lane };
        let there = self.lanes.get(&key);
        let there = there.filter(|lane| self.has_series(&key, lane));
        there.and_then(|_| self.next_of(key, Some(true)))
    }

    /// The next batch of definitions that some batch waits for: only as far as it needs them.
    fn wanted_definition(&self) -> Option<BatchKey> {
        self.index.wanted.iter().find_map(|buffer| {
            visited();
            let series = LaneKey {
                buffer: *buffer,
                lane: Lane::Series,
            };
            let under_way = key_of(series, 0)..key_of(series, u64::MAX);
            let under_way = self.in_flight.range(under_way);
            let under_way = under_way.map(|(_, flight)| flight.series_after).max();
            let known = self.series_known(*buffer).max(under_way.unwrap_or(0));
            let short = known < self.awaited(*buffer);
            short.then(|| self.next_of(series, None)).flatten()
        })
    }

    /// How many series of a buffer some batch waits for.
    pub(super) fn awaited(&self, buffer: BufferId) -> u32 {
        let lanes = Lane::ALL.into_iter().filter(|lane| *lane != Lane::Series);
        let lanes = lanes.filter_map(|lane| self.lanes.get(&LaneKey { buffer, lane }));
        lanes.map(|lane| lane.series_awaited).max().unwrap_or(0)
    }

    /// The next batch of a lane. `live`: only what was sealed since the session began, or only
    /// what was before.
    fn next_of(&self, key: LaneKey, live: Option<bool>) -> Option<BatchKey> {
        if !self.announced.contains(&key.buffer) {
            return None;
        }
        let lane = self.lanes.get(&key)?;
        let waiting = self.waiting(key);
        let early = |number| lane.early.contains(&number) && self.is_under_way(key, &(0..number));
        let known = self.series_known(key.buffer);
        let stuck = |number| {
            lane.stuck
                .get(&number)
                .is_some_and(|needed| *needed > known)
        };
        let blocked = |numbers: &Range<u64>| {
            self.is_under_way(key, numbers)
                || overlap(&waiting, numbers)
                || early(numbers.start)
                || stuck(numbers.start)
        };
        let live = live.map(|live| (live, key.buffer == self.present));
        let next = lane.next(live, &waiting, blocked);
        next.map(|number| key_of(key, number))
    }

    pub(super) fn is_under_way(&self, lane: LaneKey, numbers: &Range<u64>) -> bool {
        let keys = key_of(lane, numbers.start)..key_of(lane, numbers.end);
        self.in_flight.range(keys).next().is_some()
    }

    /// How many series of a buffer this session's ledger knows.
    pub(super) fn series_known(&self, buffer: BufferId) -> u32 {
        self.series_known.get(&buffer).copied().unwrap_or(0)
    }

    pub(super) fn has_series(&self, key: &LaneKey, lane: &LaneOut) -> bool {
        // Definitions overtake each other on the way; their own lane never waits.
        key.lane == Lane::Series || lane.series_awaited <= self.series_known(key.buffer)
    }

    /// Whether nothing at all may be sent.
    pub(super) fn has_nothing_to_send(&self) -> bool {
        let classes = [Class::Series, Class::Alerts, Class::Events, Class::Bulk];
        let mut next = classes.into_iter().map(|class| self.first_of(class, None));
        next.all(|next| next.is_none())
    }
}

pub(super) fn overlap(runs: &[&HeldRanges], numbers: &Range<u64>) -> bool {
    let within = |runs: &&HeldRanges| !runs.within(numbers.start, numbers.end).is_empty();
    runs.iter().any(within)
}
