//! The agent's end of a session: what to send next, what may be forgotten.
//!
//! It is told what is durable in the spools, what the aggregator holds and acknowledges, and says
//! which batch to send next: definitions of series first, then alerts, events, and live data with
//! a stated share for the backlog. Batches stay in the spools; it knows names, sizes and hashes.

use super::Illegal;
use crate::ids::{BatchHash, BatchKey, BufferId, HashSum, Lane, LaneKey, Session};
use crate::limits::{
    AGENT_BUFFERS_MAX, BACKLOG_SHARE_PERCENT, FAILOVER_HOLD_US, IN_FLIGHT_BATCHES, IN_FLIGHT_BYTES,
};
use crate::message::{Ack, AgainReason, Hello, LaneHeld, LaneState, Welcome};
use crate::ranges::{Held, HeldRanges};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use tributary_planted::planted;

mod acked;
mod choice;
mod doubt;
mod failover;
pub(crate) mod index;
mod lane;
mod state;
mod terms;

pub use acked::{AckedTo, Journal, Place};
use choice::overlap;
use doubt::Doubts;
use index::Index;
use lane::LaneOut;
pub use state::{SenderEvent, SenderState};
pub use terms::{LaneCursor, LaneStart, Lookup, Notice, Outgoing, SenderCursor, Trim, Urgency};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct InFlight {
    count: u64,
    bytes: u64,
    hash: BatchHash,
    series_needed: u32,
    series_after: u32,
    in_doubt: bool,
    /// Whether definitions before it were under way as well when it was sent: it may overtake them.
    ahead: bool,
}

/// Bounds of what may be under way, as agreed with the aggregator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Window {
    bytes: u64,
    batches: usize,
}

/// The agent's end of a session, across connections.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Sender {
    state: SenderState,
    session: Option<Session>,
    /// Where the other end is reached, and the journal that it said it has.
    place: Place,
    journal: Option<Journal>,
    takes_in_doubt: bool,
    /// What was sent and never acknowledged, and to whom; and the time, as it was last told.
    doubts: Doubts,
    now: i64,
    /// Whether the time was told, and whether what a cursor kept waits for that.
    timed: bool,
    recalled: bool,
    /// The journal of the newest session, and those that the cursor is known to name.
    last: Option<Journal>,
    saved: Vec<Journal>,
    present: BufferId,
    lanes: BTreeMap<LaneKey, LaneOut>,
    index: Index,
    /// Buffers that this session's `Hello` named; others wait for the next one.
    announced: BTreeSet<BufferId>,
    /// Series that this session's ledger knows, by buffer.
    series_known: BTreeMap<BufferId, u32>,
    pages: Vec<LaneHeld>,
    notices: Vec<Notice>,
    in_flight: BTreeMap<BatchKey, InFlight>,
    in_flight_bytes: u64,
    window: Window,
    /// Bytes sent while both kinds were there to send.
    contended: Contended,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Contended {
    live: u64,
    backlog: u64,
}

impl Contended {
    fn backlog_is_due(self) -> bool {
        self.backlog * 100 < (self.live + self.backlog) * BACKLOG_SHARE_PERCENT
    }

    fn count(&mut self, urgency: Urgency, bytes: u64) {
        match urgency {
            Urgency::Backlog => self.backlog += bytes,
            _ => self.live += bytes,
        }
        // The share is of the recent past: an hour ago is forgotten.
        if self.live + self.backlog > 64 * 1024 * 1024 {
            self.live /= 2;
            self.backlog /= 2;
        }
    }
}

impl Sender {
    /// An agent whose storage lives as `present`, with what its spools hold.
    pub fn new(present: BufferId, spooled: Vec<LaneStart>) -> Self {
        let lanes = spooled
            .into_iter()
            .map(|start| (start.key, LaneOut::new(&start)));
        let mut sender = Self {
            state: SenderState::Idle,
            session: None,
            place: Place::default(),
            journal: None,
            takes_in_doubt: false,
            doubts: Doubts::new(FAILOVER_HOLD_US),
            now: 0,
            timed: false,
            recalled: false,
            last: None,
            saved: Vec::new(),
            present,
            lanes: lanes.collect(),
            index: Index::default(),
            announced: BTreeSet::new(),
            series_known: BTreeMap::new(),
            pages: Vec::new(),
            notices: Vec::new(),
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            window: Window {
                bytes: IN_FLIGHT_BYTES,
                batches: IN_FLIGHT_BATCHES,
            },
            contended: Contended::default(),
        };
        sender.touch_all();
        sender
    }

    /// Where it stands.
    pub fn state(&self) -> SenderState {
        self.state
    }

    /// The session, while one is open.
    pub fn session(&self) -> Option<Session> {
        self.session
    }

    /// A batch became durable in its spool.
    pub fn on_sealed(&mut self, key: BatchKey, bytes: u64) {
        let lane_key = key.lane_key();
        let lane = self
            .lanes
            .entry(lane_key)
            .or_insert_with(|| LaneOut::empty(lane_key, key.number));
        lane.end = lane.end.max(key.number + 1);
        lane.bytes += bytes;
        if key.buffer == self.present && self.state == SenderState::Sending {
            self.announced.insert(key.buffer);
        }
        self.touch(lane_key);
    }

    /// The spool gave up what it held of these numbers: a gap stands for them, durably, and
    /// `bytes` bytes fewer are held.
    pub fn on_shed(&mut self, key: LaneKey, numbers: Range<u64>, bytes: u64) {
        let empty = || LaneOut::empty(key, numbers.start);
        let lane = self.lanes.entry(key).or_insert_with(empty);
        lane.shed(&numbers);
        lane.bytes = lane.bytes.saturating_sub(bytes);
        self.touch(key);
    }

    /// A connection to `place` stands: what to say first.
    ///
    /// # Errors
    /// When one stood already.
    pub fn on_connected_to(
        &mut self,
        place: Place,
        name: &str,
        software: &str,
    ) -> Result<Hello, Illegal> {
        self.state = self.state.on(SenderEvent::Connected)?;
        self.place = place;
        let buffers: BTreeSet<BufferId> = self.lanes.keys().map(|key| key.buffer).collect();
        let older = buffers.into_iter().filter(|buffer| *buffer != self.present);
        self.announced = older.take(AGENT_BUFFERS_MAX - 1).collect();
        self.announced.insert(self.present);
        let lanes = self
            .lanes
            .iter()
            .filter(|(key, lane)| lane.end > 0 && self.announced.contains(&key.buffer))
            .map(|(key, lane)| LaneState {
                key: *key,
                first: if planted!(ElsewhereUnsaid) {
                    0
                } else {
                    lane.first
                },
                end: lane.end,
                open: key.buffer == self.present,
            });
        let mut hello = Hello {
            name: name.to_owned(),
            software: software.to_owned(),
            lanes: lanes.collect(),
            elsewhere: Vec::new(),
        };
        self.say_elsewhere(&mut hello);
        Ok(hello)
    }

    /// A connection stands, to the one place that there is: what to say first.
    ///
    /// # Errors
    /// When one stood already.
    pub fn on_connected(&mut self, name: &str, software: &str) -> Result<Hello, Illegal> {
        self.on_connected_to(self.place, name, software)
    }

    /// A page of the answer. `look_up` looks a batch up in its spool, and is asked about batches
    /// that the aggregator holds and that were not acknowledged here; and about those that it lost
    /// and that were trimmed: a spool often has them for a while.
    ///
    /// # Errors
    /// When no answer was expected.
    pub fn on_welcome<L: Into<Lookup>>(
        &mut self,
        welcome: Welcome,
        mut look_up: impl FnMut(BatchKey) -> L,
    ) -> Result<(), Illegal> {
        let mut look_up = |key| look_up(key).into();
        if welcome.more {
            self.state = self.state.on(SenderEvent::WelcomePage)?;
            self.pages.extend(welcome.lanes);
            return Ok(());
        }
        self.state = self.state.on(SenderEvent::Welcome)?;
        self.session = Some(welcome.session);
        let journal = Journal {
            place: self.place,
            log: welcome.log,
        };
        self.meet(journal, welcome.takes_in_doubt);
        self.window = Window {
            bytes: u64::from(welcome.in_flight_bytes).clamp(1, IN_FLIGHT_BYTES),
            batches: (welcome.in_flight_batches as usize).clamp(1, IN_FLIGHT_BATCHES),
        };
        let mut held = std::mem::take(&mut self.pages);
        held.extend(welcome.lanes);
        self.series_known.clear();
        self.index.wanted.clear();
        for lane in self.lanes.values_mut() {
            lane.begin_session();
        }
        for held in held {
            let Some(lane) = self.lanes.get_mut(&held.key) else {
                continue;
            };
            let says = (journal, held.ranges.as_slice());
            let (equal, differs) = lane.compare(held.key, says, &mut look_up);
            if held.key.lane == Lane::Series {
                // Numbers of series mean what was defined: it is not known what others defined.
                let known = if differs { 0 } else { held.series_known };
                self.series_known.insert(held.key.buffer, known);
            }
            for run in equal.iter() {
                self.doubts.settled(held.key, &(run.first..run.end));
            }
            for lost in lane.confirm(says, equal) {
                lane.reclaim(held.key, &lost, &mut look_up);
                // Also what is gone from here: a cursor says that it was held once.
                for (first, end) in &lost.numbers {
                    self.doubts.taken_back(held.key, *first..*end);
                }
                self.notices.push(lane.went_back(held.key, lost));
            }
        }
        for (key, lane) in &mut self.lanes {
            lane.split_backlog(key.buffer == self.present);
        }
        self.touch_all();
        Ok(())
    }

    /// What was judged: durable batches, and those to send again.
    ///
    /// # Errors
    /// When no session is open.
    pub fn on_ack(&mut self, ack: &Ack) -> Result<(), Illegal> {
        self.state = self.state.on(SenderEvent::Ack)?;
        for range in &ack.ranges {
            let from = BatchKey {
                number: range.first,
                ..key_of(range.key, 0)
            };
            let to = BatchKey {
                number: range.end,
                ..key_of(range.key, 0)
            };
            // Only what is in flight can be judged in this session.
            let acked: Vec<BatchKey> = self.in_flight.range(from..to).map(|(k, _)| *k).collect();
            for key in acked {
                self.on_durable(key);
            }
        }
        for again in &ack.again {
            self.on_again(again.key, again.reason);
        }
        Ok(())
    }

    fn end_flight(&mut self, key: BatchKey) -> Option<InFlight> {
        let flight = self.in_flight.remove(&key)?;
        self.in_flight_bytes -= flight.bytes;
        Some(flight)
    }

    fn on_durable(&mut self, key: BatchKey) {
        let (Some(flight), Some(journal)) = (self.end_flight(key), self.journal) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&key.lane_key()) {
            let numbers = key.number..key.number + flight.count;
            self.doubts.settled(key.lane_key(), &numbers);
            lane.early.remove(&key.number);
            lane.settle_all(journal, numbers, flight.hash);
        }
        if key.lane == Lane::Series {
            let known = self.series_known.entry(key.buffer).or_default();
            *known = (*known).max(flight.series_after);
            if self.awaited(key.buffer) <= self.series_known(key.buffer) {
                self.index.wanted.remove(&key.buffer);
            }
            self.touch_buffer(key.buffer);
        } else {
            self.touch(key.lane_key());
        }
    }

    fn on_again(&mut self, key: BatchKey, reason: AgainReason) {
        let (Some(flight), Some(journal)) = (self.end_flight(key), self.journal) else {
            return;
        };
        if let Some(lane) = self.lanes.get_mut(&key.lane_key()) {
            match reason {
                AgainReason::SeriesUnknown => lane.series_awaited = flight.series_needed,
                AgainReason::Holes => {
                    lane.live_from = 0;
                    lane.unsettle_elsewhere(journal);
                }
                AgainReason::Damaged | AgainReason::Busy => {}
            }
        }
        if reason == AgainReason::Busy {
            // A frame that could not be written may be found after a restart.
            self.is_in_doubt_at(journal, key, flight.count);
        }
        if reason == AgainReason::SeriesUnknown {
            self.index.wanted.insert(key.buffer);
            match self.lanes.get_mut(&key.lane_key()) {
                Some(lane) if flight.ahead && key.lane == Lane::Series => {
                    lane.early.insert(key.number);
                }
                _ if flight.ahead => {}
                _ => self.define_again(key.buffer),
            }
        }
        self.touch(key.lane_key());
    }

    /// The ledger lacks definitions that it was thought to have: all of the buffer once more. What
    /// is under way was sent before them.
    fn define_again(&mut self, buffer: BufferId) {
        self.series_known.remove(&buffer);
        let series = LaneKey {
            buffer,
            lane: Lane::Series,
        };
        if let Some(lane) = self.lanes.get_mut(&series) {
            lane.settled = HeldRanges::new();
        }
        let of_buffer = self.in_flight.iter_mut();
        let of_buffer = of_buffer.filter(|(key, _)| key.buffer == buffer);
        of_buffer.for_each(|(_, flight)| flight.ahead = true);
        self.touch_buffer(buffer);
    }

    /// The connection is gone. What was in flight is sent again in the next session.
    pub fn on_lost(&mut self) {
        if let Some(journal) = self.journal {
            let in_flight = std::mem::take(&mut self.in_flight);
            for (key, flight) in in_flight {
                self.is_in_doubt_at(journal, key, flight.count);
                let lane = self.lanes.get_mut(&key.lane_key());
                if let Some(lane) = lane.filter(|_| planted!(DoubtAcked)) {
                    lane.settle_all(journal, key.number..key.number + flight.count, flight.hash);
                }
            }
        }
        self.state = SenderState::Idle;
        self.session = None;
        self.journal = None;
        self.pages.clear();
        if planted!(FlightKept) {
            return;
        }
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    /// Whether a batch that was [asked for](Self::poll_send) is to be sent now; if so, it counts
    /// as under way. Otherwise it waits for series that the aggregator does not know yet, or is a
    /// gap that was not known here, and waits for what it stands for and is under way.
    pub fn offer(&mut self, batch: &Outgoing, urgency: Urgency) -> bool {
        let numbers = batch.key.number..batch.key.number.saturating_add(batch.count);
        let lane_key = batch.key.lane_key();
        let blocked =
            self.is_under_way(lane_key, &numbers) || overlap(&self.waiting(lane_key), &numbers);
        let in_doubt = self.is_in_doubt(lane_key, &numbers) || planted!(MarkAlways);
        let ahead =
            lane_key.lane == Lane::Series && self.is_under_way(lane_key, &(0..numbers.start));
        let known = self.series_known(batch.key.buffer);
        let Some(lane) = self.lanes.get_mut(&lane_key) else {
            return false;
        };
        if batch.count > 1 {
            lane.shed(&numbers);
            if blocked {
                self.touch(lane_key);
                return false;
            }
        }
        let builds_on_skipped = lane.skipped.range(..numbers.start).next().is_some();
        if lane_key.lane == Lane::Series && builds_on_skipped && batch.series_needed > known {
            lane.stuck.insert(numbers.start, batch.series_needed);
            return false;
        }
        if batch.key.lane != Lane::Series && batch.series_needed > known {
            lane.series_awaited = batch.series_needed;
            self.index.wanted.insert(lane_key.buffer);
            self.touch(lane_key);
            return false;
        }
        let Outgoing {
            key,
            count,
            bytes,
            hash,
            series_needed,
            series_after,
        } = *batch;
        self.in_flight.insert(
            key,
            InFlight {
                count,
                bytes,
                hash,
                series_needed,
                series_after,
                in_doubt,
                ahead,
            },
        );
        self.in_flight_bytes += bytes;
        if planted!(CursorCountsInFlight)
            && let Some(journal) = self.journal
        {
            lane.acked
                .insert(journal, (numbers.start, numbers.end), hash);
        }
        if matches!(urgency, Urgency::Live | Urgency::Backlog) {
            self.contended.count(urgency, bytes);
        }
        if batch.count > 1 || planted!(CursorCountsInFlight) {
            self.touch(lane_key);
        }
        true
    }

    /// A batch cannot be read from its spool: it is passed over until the agent starts again. What
    /// a journal lost after it was trimmed is told to be gone.
    pub fn skip(&mut self, key: BatchKey) {
        let Some(lane) = self.lanes.get_mut(&key.lane_key()) else {
            return;
        };
        if let (true, Some(journal)) = (lane.skip(key.number), self.journal) {
            let gone = key.number..key.number.saturating_add(1);
            self.notices.push(Notice::WentBack {
                log: journal.log,
                lane: key.lane_key(),
                ranges: Vec::from([gone]),
                again: 0,
            });
        }
        self.touch(key.lane_key());
    }

    /// What may leave the spools since the last call. The definitions of a buffer's series go
    /// when nothing else of the buffer is left.
    pub fn poll_trims(&mut self) -> Vec<Trim> {
        let mut trims = Vec::new();
        let changed = self.index.take_changed();
        for key in changed.iter().filter(|key| key.lane != Lane::Series) {
            let below = self.lanes.get_mut(key).and_then(LaneOut::trim);
            trims.extend(below.map(|below| Trim { key: *key, below }));
        }
        let mut buffers: Vec<BufferId> = changed.iter().map(|key| key.buffer).collect();
        buffers.dedup();
        buffers.retain(|buffer| *buffer != self.present);
        for buffer in buffers {
            let of = |lane| LaneKey { buffer, lane };
            let mut lanes = Lane::ALL
                .into_iter()
                .filter_map(|lane| self.lanes.get(&of(lane)));
            if lanes.any(|lane| lane.unacknowledged().0 > 0) {
                continue;
            }
            let key = of(Lane::Series);
            let series = self.lanes.get(&key).map(|lane| lane.end);
            trims.extend(series.map(|below| Trim { key, below }));
            self.drop_buffer(buffer);
        }
        trims
    }

    /// What to tell people since the session began.
    pub fn poll_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// How many batches are on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Batches not yet acknowledged, and about how many bytes they are.
    pub fn backlog(&self) -> (u64, u64) {
        self.index.total()
    }

    /// Whether everything that is durable here is acknowledged.
    pub fn is_drained(&self) -> bool {
        self.backlog().0 == 0
    }

    /// Whether buffers wait that this session's `Hello` had no room for, and nothing else is left
    /// to do: time for a new session.
    pub fn wants_new_session(&self) -> bool {
        self.state == SenderState::Sending
            && self.in_flight.is_empty()
            && !self.any_waits()
            && self
                .lanes
                .keys()
                .any(|key| !self.announced.contains(&key.buffer))
            && self.has_nothing_to_send()
    }
}

fn key_of(lane: LaneKey, number: u64) -> BatchKey {
    BatchKey {
        buffer: lane.buffer,
        lane: lane.lane,
        number,
    }
}
