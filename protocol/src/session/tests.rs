//! The tables of both ends, and both ends against each other over a connection that breaks, with a
//! ledger and processes that restart.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::ids::{AgentId, AgentUuid, BatchHash, BatchKey, BufferId, Lane, LogId, Session};
use crate::ledger::{Ledger, Verdict};
use crate::limits::{IN_FLIGHT_BATCHES, IN_FLIGHT_BYTES, LEDGER_HOLES_MAX};
use crate::message::{Ack, AgainReason, LaneHeld, Message, Welcome};
use std::collections::{BTreeMap, BTreeSet};

mod failover;
mod logs;
mod series;

fn grid<S: Copy + std::fmt::Debug, E: Copy + std::fmt::Debug>(
    states: &[S],
    events: &[E],
    on: impl Fn(S, E) -> Result<S, Illegal>,
) -> String {
    let mut out = String::new();
    for state in states {
        for event in events {
            let next = on(*state, *event).map_or("illegal".into(), |next| format!("{next:?}"));
            out.push_str(&format!("{state:?} + {event:?} -> {next}\n"));
        }
    }
    out
}

#[test]
fn the_tables_stay_as_they_are() {
    let receiver = grid(&ReceiverState::ALL, &ReceiverEvent::ALL, ReceiverState::on);
    let sender = grid(&SenderState::ALL, &SenderEvent::ALL, SenderState::on);
    let states = RouteState::all(3);
    let route = grid(&states, &RouteEvent::ALL, |state, event| state.on(event, 3));
    let all = format!("# receiver\n{receiver}\n# sender\n{sender}\n# route of 3\n{route}");
    assert_eq!(
        all,
        include_str!("../../tests/golden/session-tables.txt"),
        "{all}"
    );
}

/// xorshift: the same seed gives the same run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

#[derive(Clone, Copy)]
struct Spooled {
    /// How many numbers it stands for: one, unless it is a gap.
    count: u64,
    bytes: u64,
    hash: BatchHash,
    series_needed: u32,
    series_after: u32,
}

/// Agent, aggregator and the connection between them.
struct World {
    random: Random,
    agent: AgentId,
    life: u64,
    spool: BTreeMap<BatchKey, Spooled>,
    /// Declared losses, by their first number.
    gaps: BTreeMap<BatchKey, Spooled>,
    trimmed: BTreeSet<BatchKey>,
    sealed: BTreeMap<BatchKey, BatchHash>,
    series: u32,
    cursor: SenderCursor,
    sender: Sender,
    ledger: Ledger,
    /// What the journal holds, in its order; each must be there once.
    journal: Vec<(BatchKey, BatchHash)>,
    /// The journal's name, which is another one once it was lost.
    log: LogId,
    /// What was gone from the agent when a journal was lost, that under gaps apart, and what was
    /// told of it.
    gone: BTreeSet<BatchKey>,
    shed: BTreeSet<BatchKey>,
    told: BTreeSet<BatchKey>,
    book: BTreeMap<BufferId, u32>,
    receiver: Receiver,
    wire: Vec<(BatchKey, Spooled)>,
    now: i64,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed * 2 + 1),
            agent: AgentId::new("t", AgentUuid([7; 16])).unwrap(),
            life: 1,
            spool: BTreeMap::new(),
            gaps: BTreeMap::new(),
            trimmed: BTreeSet::new(),
            sealed: BTreeMap::new(),
            series: 0,
            cursor: SenderCursor::default(),
            sender: Sender::new(BufferId::new(1, 0), Vec::new()),
            ledger: Ledger::new(),
            journal: Vec::new(),
            log: LogId([1; 16]),
            gone: BTreeSet::new(),
            shed: BTreeSet::new(),
            told: BTreeSet::new(),
            book: BTreeMap::new(),
            receiver: Receiver::new(),
            wire: Vec::new(),
            now: 0,
        }
    }

    fn present(&self) -> BufferId {
        BufferId::new(self.life, 0)
    }

    fn seal_one(&mut self, lane: Lane, bytes: u64, needed: u32, after: u32) {
        let buffer = self.present();
        let lane_of = |key: &&BatchKey| key.buffer == buffer && key.lane == lane;
        let number = self.sealed.keys().filter(lane_of).count() as u64;
        let key = BatchKey {
            buffer,
            lane,
            number,
        };
        let hash = BatchHash::of(format!("{key}").as_bytes());
        let spooled = Spooled {
            count: 1,
            bytes,
            hash,
            series_needed: needed,
            series_after: after,
        };
        self.spool.insert(key, spooled);
        self.sealed.insert(key, hash);
        self.sender.on_sealed(key, bytes);
    }

    fn seal(&mut self) {
        if self.random.below(8) == 0 {
            let before = self.series;
            self.series += 1 + self.random.below(5) as u32;
            self.seal_one(Lane::Series, 200, before, self.series);
        }
        let bytes = 1 + self.random.below(64 * 1024);
        let lane = match self.random.below(6) {
            0 => Lane::Alerts,
            1 => Lane::Events,
            2 => Lane::Aggregates,
            _ => Lane::Telemetry,
        };
        // The others carry their names inline and need no series.
        let inline = lane != Lane::Telemetry;
        let needed = if inline { 0 } else { self.series };
        self.seal_one(lane, bytes, needed, 0);
    }

    /// The oldest batches of telemetry give way to a gap, as when a segment is shed.
    fn shed(&mut self) {
        let telemetry = |key: &&BatchKey| key.lane == Lane::Telemetry;
        let Some(first) = self.spool.keys().find(telemetry).copied() else {
            return;
        };
        let of_lane = |key: &BatchKey| key.lane_key() == first.lane_key();
        let held = self.spool.keys().filter(|key| of_lane(key)).count() as u64;
        let count = 1 + self.random.below(held.min(9));
        for number in first.number..first.number + count {
            self.spool.remove(&BatchKey { number, ..first });
        }
        let gap = Spooled {
            count,
            bytes: 150,
            hash: BatchHash::of(format!("gap {first} {count}").as_bytes()),
            series_needed: 0,
            series_after: 0,
        };
        self.gaps.insert(first, gap);
        // Now and then it hears of it only when it asks for one of these batches.
        if self.random.below(3) > 0 {
            let numbers = first.number..first.number + count;
            self.sender
                .on_shed(first.lane_key(), numbers, 10_000 * count);
        }
    }

    /// What stands under this number: the batch, or the gap that replaces it.
    fn stored(&self, key: BatchKey) -> (BatchKey, Spooled) {
        self.find(key)
            .unwrap_or_else(|| panic!("{key} is neither held nor shed"))
    }

    fn find(&self, key: BatchKey) -> Option<(BatchKey, Spooled)> {
        if let Some(spooled) = self.spool.get(&key) {
            return Some((key, *spooled));
        }
        let (first, gap) = self.gaps.range(..=key).next_back()?;
        let stands = first.lane_key() == key.lane_key() && key.number < first.number + gap.count;
        stands.then_some((*first, *gap))
    }

    fn connect(&mut self) {
        if self.sender.state() != SenderState::Idle {
            return;
        }
        let hello = self.sender.on_connected("gw", "test").unwrap();
        self.receiver = Receiver::new();
        let hello = self.receiver.on_message(Message::Hello(hello)).unwrap();
        let buffers: Vec<_> = hello.lanes.iter().map(|lane| lane.key.buffer).collect();
        let session = self.ledger.open_session(&self.agent, &buffers);
        self.receiver.on_opened(session).unwrap();
        let lanes = hello.lanes.iter().map(|lane| LaneHeld {
            key: lane.key,
            ranges: self.ledger.held(&self.agent, lane.key),
            series_known: self.book.get(&lane.key.buffer).copied().unwrap_or(0),
        });
        let welcome = Welcome {
            session,
            log: self.log,
            lanes: lanes.collect(),
            batch_bytes_max: 1 << 20,
            in_flight_bytes: IN_FLIGHT_BYTES as u32,
            in_flight_batches: IN_FLIGHT_BATCHES as u32,
            software: String::new(),
            more: false,
            takes_in_doubt: false,
        };
        for page in welcome.pages() {
            let mut sender =
                std::mem::replace(&mut self.sender, Sender::new(BufferId([0; 16]), Vec::new()));
            sender
                .on_welcome(page, |key| Some(self.find(key)?.1.hash))
                .unwrap();
            self.sender = sender;
        }
        for Notice::WentBack { lane, ranges, .. } in self.sender.poll_notices() {
            let numbers = ranges.into_iter().flatten();
            let keys = numbers.map(|number| BatchKey {
                buffer: lane.buffer,
                lane: lane.lane,
                number,
            });
            self.told.extend(keys);
        }
        self.trim();
    }

    /// The aggregator begins with an empty journal.
    fn lose_journal(&mut self) {
        self.lose();
        self.journal.clear();
        self.ledger = Ledger::new();
        self.book.clear();
        let (lives, _) = self.log.0.split_first_mut().unwrap();
        *lives += 1;
        let gaps = &self.gaps;
        let declared = |key: &BatchKey| {
            let gap = gaps.range(..=*key).next_back();
            gap.is_some_and(|(first, gap)| {
                first.lane_key() == key.lane_key() && key.number < first.number + gap.count
            })
        };
        let absent = self.sealed.keys().copied();
        let absent = absent.filter(|key| !self.spool.contains_key(key));
        let (shed, gone): (Vec<_>, Vec<_>) = absent.partition(declared);
        self.shed.extend(shed);
        self.gone.extend(gone);
    }

    fn send(&mut self) {
        while let Some((key, urgency)) = self.sender.poll_send() {
            let (key, spooled) = self.stored(key);
            let outgoing = Outgoing {
                key,
                count: spooled.count,
                bytes: spooled.bytes,
                hash: spooled.hash,
                series_needed: spooled.series_needed,
                series_after: spooled.series_after,
            };
            if self.sender.offer(&outgoing, urgency) {
                self.wire.push((key, spooled));
            }
        }
        assert!(self.wire.len() <= IN_FLIGHT_BATCHES);
    }

    /// One batch arrives, whichever; the journal takes it, or fails to.
    fn arrive(&mut self, journal_fails: bool) {
        if self.wire.is_empty() {
            return;
        }
        let pick = self.random.below(self.wire.len() as u64) as usize;
        let (key, spooled) = self.wire.remove(pick);
        let session = self.receiver.on_batch().unwrap();
        let known = self.book.get(&key.buffer).copied().unwrap_or(0);
        if spooled.series_needed > known {
            self.receiver
                .on_again(key, AgainReason::SeriesUnknown, self.now);
            return;
        }
        let verdict = if self
            .gaps
            .get(&key)
            .is_some_and(|gap| gap.hash == spooled.hash)
        {
            let numbers = key.number..key.number + spooled.count;
            self.ledger
                .judge_gap(session, &self.agent, key, (spooled.hash, numbers))
        } else {
            self.ledger.judge(session, &self.agent, key, spooled.hash)
        };
        match verdict {
            Verdict::Fresh(admission) if journal_fails => {
                self.ledger.abort(admission);
                self.receiver.on_again(key, AgainReason::Busy, self.now);
            }
            Verdict::Fresh(admission) => {
                for number in admission.runs().iter().cloned().flatten() {
                    self.journal
                        .push((BatchKey { number, ..key }, spooled.hash));
                }
                if key.lane == Lane::Series {
                    self.book
                        .insert(key.buffer, known.max(spooled.series_after));
                }
                self.ledger.commit(admission);
                self.receiver.on_durable(key, self.now);
            }
            Verdict::Replay { .. } => self.receiver.on_durable(key, self.now),
            other => panic!("an honest agent got {other:?} for {key}"),
        }
    }

    fn acknowledge(&mut self) {
        self.now += 3_000;
        if let Some(ack) = self.receiver.poll_ack(self.now) {
            self.sender.on_ack(&ack).unwrap();
            self.trim();
        }
    }

    fn trim(&mut self) {
        for trim in self.sender.poll_trims() {
            let doomed: Vec<_> = self
                .spool
                .keys()
                .filter(|key| key.lane_key() == trim.key && key.number < trim.below)
                .copied()
                .collect();
            let gone = |gap: &BatchKey, shed: &Spooled| {
                gap.lane_key() == trim.key && gap.number + shed.count <= trim.below
            };
            self.gaps.retain(|gap, shed| !gone(gap, shed));
            for key in doomed {
                let stored = self.journal.iter().any(|(held, _)| *held == key);
                assert!(stored, "{key} left the spool and is in no journal");
                self.spool.remove(&key);
                self.trimmed.insert(key);
            }
        }
    }

    fn lose(&mut self) {
        self.wire.clear();
        self.receiver.end();
        self.sender.on_lost();
    }

    fn restart_agent(&mut self) {
        self.wire.clear();
        self.receiver.end();
        self.life += 1;
        self.series = 0;
        let mut starts: BTreeMap<_, LaneStart> = BTreeMap::new();
        // What a log holds of a lane, as its own numbers say.
        for (key, spooled) in &self.spool {
            let start = starts.entry(key.lane_key()).or_insert_with(|| LaneStart {
                key: key.lane_key(),
                first: key.number,
                end: key.number,
                bytes: 0,
                acked: Vec::new(),
            });
            start.end = key.number + 1;
            start.bytes += spooled.bytes;
        }
        for start in starts.values_mut() {
            start.acked = self.cursor.acked(start.key).iter().copied().collect();
        }
        self.sender = Sender::new(self.present(), starts.into_values().collect());
        self.sender.recall(&self.cursor);
        for (first, gap) in &self.gaps {
            let numbers = first.number..first.number + gap.count;
            self.sender.on_shed(first.lane_key(), numbers, 0);
        }
    }

    fn restart_aggregator(&mut self) {
        self.lose();
        self.receiver = Receiver::new();
        self.ledger = Ledger::new();
        for (key, hash) in &self.journal {
            let new = if self.sealed[key] == *hash {
                self.ledger.recover(&self.agent, *key, *hash)
            } else {
                let run = key.number..key.number + 1;
                self.ledger.recover_gap(&self.agent, *key, (*hash, &[run]))
            };
            assert!(new, "{key} twice in the journal");
        }
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..27 => self.seal(),
            27..30 => self.shed(),
            30..50 => self.connect(),
            50..70 => self.send(),
            70..85 => {
                let fails = self.random.below(10) == 0;
                self.arrive(fails);
            }
            85..95 => self.acknowledge(),
            95 => self.cursor = self.sender.cursor(),
            96..98 => self.lose(),
            98 => self.restart_agent(),
            _ => self.restart_aggregator(),
        }
        let agent = &self.agent;
        for lane in self.ledger.lanes(agent) {
            assert!(lane.held.holes() <= LEDGER_HOLES_MAX);
        }
    }

    fn heal(&mut self) {
        for _ in 0..100_000 {
            if self.sender.wants_new_session() {
                self.lose();
            }
            self.connect();
            self.send();
            self.arrive(false);
            self.acknowledge();
            if self.sender.is_drained() {
                return;
            }
        }
        panic!("does not drain: {:?}", self.sender);
    }
}

#[test]
fn whatever_breaks_every_batch_is_stored_once_and_all_drains() {
    let mut declared = 0;
    for seed in 0..120 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
        }
        world.heal();
        let stored: BTreeMap<_, _> = world.journal.iter().copied().collect();
        assert_eq!(
            stored.len(),
            world.journal.len(),
            "seed {seed}: stored twice"
        );
        // Under each number the data or a declared loss; what was never shed, as data.
        for (key, hash) in &world.sealed {
            let shed = key.lane == Lane::Telemetry && stored.contains_key(key);
            assert!(
                stored.get(key) == Some(hash) || shed || key.lane == Lane::Series,
                "seed {seed} {key}"
            );
            declared += usize::from(stored.get(key).is_some_and(|held| held != hash));
        }
        let left: Vec<_> = world
            .spool
            .keys()
            .filter(|key| key.lane != Lane::Series)
            .collect();
        assert!(left.is_empty(), "seed {seed}: {left:?}");
        assert!(world.gaps.is_empty(), "seed {seed}: gaps are left");
    }
    assert!(declared > 100, "only {declared} numbers were declared");
}

#[test]
fn a_journal_that_is_lost_gets_all_that_is_still_there_and_the_rest_is_told() {
    let (mut again, mut told) = (0, 0);
    for seed in 500..560 {
        let mut world = World::new(seed);
        for _ in 0..600 {
            world.step();
            if world.random.below(150) == 0 {
                let held = world.journal.iter().map(|(key, _)| *key);
                again += held.filter(|key| world.spool.contains_key(key)).count();
                world.lose_journal();
            }
        }
        world.heal();
        let stored: BTreeSet<_> = world.journal.iter().map(|(key, _)| *key).collect();
        assert_eq!(stored.len(), world.journal.len(), "seed {seed}: twice");
        for key in world.sealed.keys().filter(|key| key.lane != Lane::Series) {
            let held = stored.contains(key) || world.gone.contains(key);
            assert!(held, "seed {seed} {key}");
        }
        for key in &world.told {
            let lost = world.gone.contains(key) || world.shed.contains(key);
            assert!(lost, "seed {seed} {key} was told, and it was never gone");
        }
        told += world.told.len();
    }
    assert!(again > 100 && told > 100, "{again} again, {told} told");
}

#[test]
fn a_gap_waits_for_what_it_stands_for_and_is_under_way() {
    let buffer = BufferId::new(1, 1);
    let key = |number| BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    (0..4).for_each(|number| sender.on_sealed(key(number), 10));
    for number in 0..2 {
        let (next, urgency) = sender.poll_send().unwrap();
        assert_eq!(next, key(number));
        assert!(sender.offer(&outgoing(next, 10), urgency));
    }
    // It asks for number 2, and is given the gap over 0 to 2.
    let (next, urgency) = sender.poll_send().unwrap();
    assert_eq!(next, key(2));
    let gap = Outgoing {
        count: 3,
        ..outgoing(key(0), 10)
    };
    assert!(!sender.offer(&gap, urgency));
    assert_eq!(sender.poll_send(), Some((key(3), Urgency::Live)));
    let range = |first, end| crate::message::AckRange {
        key: key(0).lane_key(),
        first,
        end,
    };
    let ack = |first, end| Ack {
        ranges: vec![range(first, end)],
        again: Vec::new(),
    };
    sender.on_ack(&ack(0, 2)).unwrap();
    assert_eq!(sender.poll_send(), Some((key(0), Urgency::Live)));
    assert!(sender.offer(&gap, urgency));
    sender.on_ack(&ack(0, 1)).unwrap();
    let trim = Trim {
        key: key(0).lane_key(),
        below: 3,
    };
    assert_eq!(sender.poll_trims(), [trim]);
    assert_eq!(sender.backlog().0, 1);
}

#[test]
fn a_gap_is_one_batch_of_the_backlog() {
    let buffer = BufferId::new(1, 1);
    let key = |number| BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    (0..10).for_each(|number| sender.on_sealed(key(number), 100));
    assert_eq!(sender.backlog(), (10, 1_000));
    sender.on_shed(key(0).lane_key(), 2..8, 600);
    assert_eq!(sender.backlog(), (5, 400));
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    for count in [1, 1, 6] {
        let (next, urgency) = sender.poll_send().unwrap();
        let batch = Outgoing {
            count,
            ..outgoing(next, 80)
        };
        assert!(sender.offer(&batch, urgency));
        let range = crate::message::AckRange {
            key: next.lane_key(),
            first: next.number,
            end: next.number + count,
        };
        let ack = Ack {
            ranges: vec![range],
            again: Vec::new(),
        };
        sender.on_ack(&ack).unwrap();
    }
    assert_eq!(sender.backlog(), (2, 160));
    sender.poll_trims();
    assert_eq!(sender.backlog(), (2, 160));
}

fn welcome_of_nothing() -> Welcome {
    Welcome {
        session: Session(1),
        log: LogId([1; 16]),
        lanes: Vec::new(),
        batch_bytes_max: 1 << 20,
        in_flight_bytes: 1 << 18,
        in_flight_batches: 16,
        software: String::new(),
        more: false,
        takes_in_doubt: false,
    }
}

fn outgoing(key: BatchKey, bytes: u64) -> Outgoing {
    let hash = BatchHash::of(&key.number.to_le_bytes());
    Outgoing {
        key,
        count: 1,
        bytes,
        hash,
        series_needed: 0,
        series_after: 0,
    }
}

#[test]
fn live_data_goes_first_and_the_backlog_gets_its_share() {
    let buffer = BufferId::new(1, 1);
    let key = |number| BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    (0..1_000).for_each(|number| sender.on_sealed(key(number), 10_000));
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    let (mut live, mut backlog) = (0, 0);
    for round in 0..200 {
        sender.on_sealed(key(1_000 + round), 10_000);
        let (next, urgency) = sender.poll_send().unwrap();
        match urgency {
            Urgency::Live => live += 1,
            Urgency::Backlog => backlog += 1,
            other => panic!("{other:?}"),
        }
        assert!(sender.offer(&outgoing(next, 10_000), urgency));
        let range = crate::message::AckRange {
            key: next.lane_key(),
            first: next.number,
            end: next.number + 1,
        };
        sender
            .on_ack(&Ack {
                ranges: vec![range],
                again: Vec::new(),
            })
            .unwrap();
    }
    assert!(
        (55..65).contains(&backlog),
        "{backlog} of the backlog, {live} live"
    );
    assert_eq!(
        sender.poll_trims(),
        [Trim {
            key: key(0).lane_key(),
            below: backlog
        }]
    );
}

#[test]
fn a_small_backlog_is_no_island() {
    let buffer = BufferId::new(1, 1);
    let key = |number| BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    (0..10).for_each(|number| sender.on_sealed(key(number), 10_000));
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    sender.on_sealed(key(10), 10_000);
    assert_eq!(sender.poll_send(), Some((key(0), Urgency::Live)));
}

#[test]
fn nothing_else_is_sent_while_its_series_are_unknown() {
    let buffer = BufferId::new(1, 1);
    let key = |lane, number| BatchKey {
        buffer,
        lane,
        number,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    sender.on_sealed(key(Lane::Telemetry, 0), 10);
    sender.on_sealed(key(Lane::Series, 0), 10);
    let (reading, urgency) = sender.poll_send().unwrap();
    assert_eq!((reading.lane, urgency), (Lane::Telemetry, Urgency::Live));
    let batch = Outgoing {
        series_needed: 3,
        ..outgoing(reading, 10)
    };
    assert!(!sender.offer(&batch, urgency));
    let (series, urgency) = sender.poll_send().unwrap();
    assert_eq!((series.lane, urgency), (Lane::Series, Urgency::Series));
    let definitions = Outgoing {
        series_after: 3,
        ..outgoing(series, 10)
    };
    assert!(sender.offer(&definitions, urgency));
    assert_eq!(sender.poll_send(), None);
    let range = crate::message::AckRange {
        key: series.lane_key(),
        first: 0,
        end: 1,
    };
    sender
        .on_ack(&Ack {
            ranges: vec![range],
            again: Vec::new(),
        })
        .unwrap();
    assert_eq!(sender.poll_send(), Some((reading, Urgency::Live)));
    assert!(sender.offer(&batch, urgency));
}

#[test]
fn what_is_live_goes_aggregates_first() {
    let buffer = BufferId::new(1, 1);
    let key = |lane| BatchKey {
        buffer,
        lane,
        number: 0,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    let order = [
        Lane::Alerts,
        Lane::Events,
        Lane::Aggregates,
        Lane::Telemetry,
    ];
    for lane in order.into_iter().rev() {
        sender.on_sealed(key(lane), 10);
    }
    for lane in order {
        let (next, urgency) = sender.poll_send().unwrap();
        assert_eq!(next, key(lane));
        assert!(sender.offer(&outgoing(next, 10), urgency));
    }
}

#[test]
fn an_ack_of_what_was_never_sent_trims_nothing() {
    let buffer = BufferId::new(1, 1);
    let key = BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number: 0,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    sender.on_sealed(key, 10);
    sender.on_connected("a", "b").unwrap();
    sender.on_welcome(welcome_of_nothing(), |_| None).unwrap();
    let range = crate::message::AckRange {
        key: key.lane_key(),
        first: 0,
        end: 1 << 61,
    };
    sender
        .on_ack(&Ack {
            ranges: vec![range],
            again: Vec::new(),
        })
        .unwrap();
    assert_eq!(sender.poll_trims(), []);
    assert!(!sender.is_drained());
}

#[test]
fn a_ledger_that_holds_something_else_trims_nothing() {
    let buffer = BufferId::new(1, 1);
    let key = BatchKey {
        buffer,
        lane: Lane::Telemetry,
        number: 0,
    };
    let mut sender = Sender::new(buffer, Vec::new());
    sender.on_sealed(key, 10);
    sender.on_connected("a", "b").unwrap();
    let sum = crate::ids::HashSum::default().with(BatchHash::of(b"another"));
    let ranges = vec![crate::ranges::Held {
        first: 0,
        end: 1,
        sum,
    }];
    let lanes = vec![LaneHeld {
        key: key.lane_key(),
        ranges,
        series_known: 0,
    }];
    let welcome = Welcome {
        lanes,
        ..welcome_of_nothing()
    };
    sender
        .on_welcome(welcome, |_| Some(BatchHash::of(b"ours")))
        .unwrap();
    assert_eq!(sender.poll_trims(), []);
    assert_eq!(sender.poll_send(), Some((key, Urgency::Live)));
}

#[test]
fn acks_wait_for_each_other_but_not_long() {
    let mut receiver = Receiver::new();
    receiver
        .on_message(Message::Hello(crate::message::Hello::default()))
        .unwrap();
    receiver.on_opened(Session(1)).unwrap();
    let key = |number| BatchKey {
        buffer: BufferId::new(1, 1),
        lane: Lane::Telemetry,
        number,
    };
    for number in [0, 1, 2, 9] {
        receiver.on_durable(key(number), 1_000);
    }
    assert_eq!(receiver.poll_ack(1_001), None);
    let at = receiver.poll_timeout().unwrap();
    let ack = receiver.poll_ack(at).unwrap();
    let ranges: Vec<_> = ack
        .ranges
        .iter()
        .map(|range| (range.first, range.end))
        .collect();
    assert_eq!(ranges, [(0, 3), (9, 10)]);
    assert_eq!(receiver.poll_timeout(), None);
    (0..64).for_each(|number| receiver.on_durable(key(100 + number), at));
    assert!(receiver.poll_ack(at).is_some());
}
