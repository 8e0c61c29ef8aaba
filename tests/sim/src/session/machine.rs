//! An agent in the session world: the sender of `tributary-protocol` over a spool, as
//! `tributary-uplink` drives it. It decides nothing that the sender decides.

use super::spool::{Item, Spool};
use super::way::{Way, Ways};
use crate::dice::Dice;
use crate::net::ConnectionId;
use crate::plan::Shape;
use std::collections::BTreeMap;
use tributary_protocol::ids::{BatchHash, BatchKey, BufferId, Lane, LaneKey};
use tributary_protocol::message::{Ack, AgainReason};
use tributary_protocol::session::Sender;

/// Microseconds of the first wait for another dial, and of the longest.
const BACKOFF_US: (i64, i64) = (500_000, 60_000_000);
/// Microseconds that a refusal for lack of room is waited for, at most.
const BUSY_US_MAX: i64 = 10_000_000;

/// The bound of a wait after so many failures.
pub fn backoff(failures: u32) -> i64 {
    let (least, most) = BACKOFF_US;
    least.saturating_mul(1 << failures.min(16)).min(most)
}

/// What an agent loses with the power.
#[derive(Debug)]
pub struct Process {
    /// What it decides with.
    pub sender: Sender,
    /// Its connection, from the dial on.
    pub connection: Option<ConnectionId>,
    /// Whether the last page of `Welcome` was heard on it.
    pub greeted: bool,
    /// Dials and sessions that failed in a row.
    failures: u32,
    /// Whether this session acknowledged anything.
    acked: bool,
    /// Nothing is sent before this; and how often in a row there was no room.
    hold: (i64, u32),
    /// To whom it goes, where it has a list.
    pub way: Option<Way>,
}

/// A gateway: what is on its disk, and its process.
#[derive(Debug)]
pub struct Machine {
    /// Whose identity it has: that of the agent at this place.
    pub agent: usize,
    /// Its own place, and so that of its link.
    pub place: usize,
    /// Its disk.
    pub spool: Spool,
    /// The aggregators that it may go to, if it has a list.
    ways: Option<Ways>,
    /// Its process, while it has power.
    pub process: Option<Process>,
    /// Grows at every start.
    pub life: u64,
    /// Batches sealed so far.
    pub seals: u32,
    /// Series of the present buffer.
    series: u32,
    /// One past the last number of each lane of the present buffer.
    ends: BTreeMap<Lane, u64>,
    waits: u64,
}

impl Process {
    fn new(sender: Sender, way: Option<Way>) -> Self {
        Self {
            sender,
            connection: None,
            greeted: false,
            failures: 0,
            acked: false,
            hold: (0, 0),
            way,
        }
    }

    /// When it may send again, if not now.
    pub fn held_until(&self, now: i64) -> Option<i64> {
        Some(self.hold.0).filter(|until| *until > now)
    }

    /// What an acknowledgement says about coming back and about room.
    pub fn note(&mut self, ack: &Ack, now: i64) {
        self.acked |= !ack.ranges.is_empty();
        let busy = |again: &tributary_protocol::message::Again| again.reason == AgainReason::Busy;
        if !ack.again.iter().any(busy) {
            self.hold = (0, 0);
            return;
        }
        let (_, times) = self.hold;
        let wait = backoff(times).min(BUSY_US_MAX);
        self.hold = (now + wait, times.saturating_add(1));
    }
}

impl Machine {
    /// A new gateway, without power.
    pub fn new(agent: usize, ways: Option<Ways>) -> Self {
        Self {
            agent,
            ways,
            place: agent,
            spool: Spool::default(),
            process: None,
            life: 0,
            seals: 0,
            series: 0,
            ends: BTreeMap::new(),
            waits: 0,
        }
    }

    /// The same machine once more, as it stands: a copy that was resumed.
    pub fn twin(&self, place: usize, now: i64) -> Self {
        let mut twin = Self {
            agent: self.agent,
            ways: self.ways.clone(),
            place,
            spool: self.spool.clone(),
            process: None,
            life: self.life,
            seals: self.seals,
            series: self.series,
            ends: self.ends.clone(),
            waits: 0,
        };
        twin.process = Some(twin.begin(now));
        twin
    }

    /// The buffer that it fills. All agents name theirs alike: only their identity tells which is
    /// whose.
    pub fn present(&self) -> BufferId {
        BufferId::new(self.life, 0)
    }

    fn begin(&self, now: i64) -> Process {
        let mut sender = Sender::new(self.present(), self.spool.starts());
        if let Some(ways) = &self.ways {
            ways.prepare(&mut sender, now);
        }
        sender.recall(self.spool.cursor());
        for gap in self.spool.gaps() {
            sender.on_shed(gap.key.lane_key(), gap.key.number..gap.end(), 0);
        }
        Process::new(sender, self.ways.as_ref().map(|ways| Way::new(ways, now)))
    }

    /// Starts: another life, another buffer.
    pub fn start(&mut self, now: i64) {
        self.life += 1;
        self.series = 0;
        self.ends.clear();
        self.process = Some(self.begin(now));
    }

    fn seal_one(&mut self, lane: Lane, bytes: u64, (needed, after): (u32, u32)) -> Item {
        let end = self.ends.entry(lane).or_default();
        let key = BatchKey {
            buffer: BufferId::new(self.life, 0),
            lane,
            number: *end,
        };
        *end += 1;
        let content = [
            self.place as u64,
            self.life,
            u64::from(lane.code()),
            key.number,
        ];
        let content: Vec<u8> = content.iter().flat_map(|part| part.to_le_bytes()).collect();
        let item = Item {
            key,
            count: 1,
            gap: false,
            bytes,
            hash: BatchHash::of(&content),
            series_needed: needed,
            series_after: after,
        };
        self.spool.put(item);
        if let Some(process) = &mut self.process {
            process.sender.on_sealed(key, bytes);
        }
        item
    }

    /// Seals the next batch, and before it now and then definitions; what was sealed.
    pub fn seal(&mut self, seed: u64, shape: &Shape) -> Vec<Item> {
        let mut dice = Dice::of(seed, "seal", self.place as u64, u64::from(self.seals));
        self.seals += 1;
        let mut sealed = Vec::new();
        if dice.one_in(8) {
            let before = self.series;
            self.series += 1 + dice.below(5) as u32;
            sealed.push(self.seal_one(Lane::Series, 200, (before, self.series)));
        }
        let lane = match dice.below(8) {
            0 => Lane::Alerts,
            1 => Lane::Events,
            2 => Lane::Aggregates,
            _ => Lane::Telemetry,
        };
        // Readings are most of it.
        let most = match lane {
            Lane::Telemetry => shape.batch_bytes,
            _ => shape.batch_bytes.min(1_000),
        };
        let bytes = 1 + dice.below(most);
        // The others carry their names inline and need no series.
        let needed = if lane == Lane::Telemetry {
            self.series
        } else {
            0
        };
        sealed.push(self.seal_one(lane, bytes, (needed, 0)));
        sealed
    }

    /// Gives up its oldest readings, as many as there are and at most so many; the gap. `told`: its
    /// sender hears of it now, and not only when it asks for one of them.
    pub fn shed(&mut self, numbers: u64, told: bool) -> Option<Item> {
        let (first, follow) = self.spool.oldest_readings()?;
        let count = follow.min(numbers);
        let content = format!("gap {first} {count} of {} in {}", self.place, self.life);
        let gap = Item {
            key: first,
            count,
            gap: true,
            bytes: 150,
            hash: BatchHash::of(content.as_bytes()),
            series_needed: 0,
            series_after: 0,
        };
        let bytes = self.spool.shed(gap);
        if let Some(process) = self.process.as_mut().filter(|_| told) {
            let numbers = first.number..gap.end();
            process.sender.on_shed(first.lane_key(), numbers, bytes);
        }
        Some(gap)
    }

    /// The connection is over, or the dial failed: how long to wait for the next one.
    pub fn lost(&mut self, seed: u64) -> i64 {
        self.waits += 1;
        let mut dice = Dice::of(seed, "backoff", self.place as u64, self.waits);
        let Some(process) = &mut self.process else {
            return 0;
        };
        process.sender.on_lost();
        process.connection = None;
        process.greeted = false;
        // Only an acknowledgement shows that coming back at once is of any use.
        process.failures = match std::mem::take(&mut process.acked) {
            true => 0,
            false => process.failures.saturating_add(1),
        };
        dice.us(0, backoff(process.failures))
    }

    /// Gives up what was acknowledged; what that was.
    pub fn trim(&mut self) -> Vec<Item> {
        let present = self.present();
        let Some(process) = &mut self.process else {
            return Vec::new();
        };
        let trims = process.sender.poll_trims().into_iter();
        trims
            .flat_map(|trim| self.spool.trim(trim, present))
            .collect()
    }

    /// Whether everything that it ever sealed left its spool.
    pub fn is_drained(&self) -> bool {
        let drained = |process: &Process| process.sender.is_drained();
        self.process.as_ref().is_some_and(drained) && self.spool.left().next().is_none()
    }

    /// The lanes with something left, for whoever looks into a run that does not drain.
    pub fn left(&self) -> Vec<(LaneKey, u64)> {
        let left = self.spool.left();
        left.map(|item| (item.key.lane_key(), item.key.number))
            .take(4)
            .collect()
    }
}
