//! One agent and two aggregators, each with a ledger of its own: they die after a commit and before
//! its acknowledgement, come back or not, and the agent goes from one to the other and restarts.

use super::*;
use crate::frame::FrameKind;
use crate::limits::SENDER_HOLES_MAX;
use crate::message::Hello;

const SECOND: i64 = 1_000_000;
/// What tests hold instead of ten minutes.
const HOLD: i64 = 60 * SECOND;

fn place(site: usize) -> Place {
    Place(site as u64 + 1)
}

fn log(site: usize) -> LogId {
    LogId([site as u8 + 1; 16])
}

/// One that the journal holds: under which numbers, with which hash, and whether it was in doubt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    hash: BatchHash,
    in_doubt: bool,
}

#[derive(Default)]
struct Site {
    ledger: Ledger,
    journal: BTreeMap<BatchKey, Entry>,
    book: BTreeMap<BufferId, u32>,
    receiver: Receiver,
    /// Whether it can be reached.
    up: bool,
    /// Whether it is of this version: it takes batches in doubt, and knows what elsewhere means.
    knows: bool,
}

/// A batch on its way.
#[derive(Clone, Copy)]
struct Sent {
    key: BatchKey,
    spooled: Spooled,
    kind: FrameKind,
}

struct Pair {
    random: Random,
    agent: AgentId,
    life: u64,
    spool: BTreeMap<BatchKey, Spooled>,
    sealed: BTreeMap<BatchKey, BatchHash>,
    /// What each life has of its series.
    series: u32,
    sender: Sender,
    cursor: SenderCursor,
    sites: [Site; 2],
    at: Option<usize>,
    wire: Vec<Sent>,
    now: i64,
    trimmed: usize,
}

impl Pair {
    fn new(seed: u64, knows: [bool; 2]) -> Self {
        let mut sender = Sender::new(BufferId::new(1, 0), Vec::new());
        sender.hold_for(HOLD);
        Self {
            random: Random(seed * 2 + 1),
            agent: AgentId::new("t", AgentUuid([7; 16])).unwrap(),
            life: 1,
            spool: BTreeMap::new(),
            sealed: BTreeMap::new(),
            series: 0,
            sender,
            cursor: SenderCursor::default(),
            sites: knows.map(|knows| Site {
                up: true,
                knows,
                ..Site::default()
            }),
            at: None,
            wire: Vec::new(),
            now: 0,
            trimmed: 0,
        }
    }

    fn seal(&mut self, lane: Lane, bytes: u64) -> BatchKey {
        let buffer = BufferId::new(self.life, 0);
        let of_lane = |key: &&BatchKey| key.buffer == buffer && key.lane == lane;
        let number = self.sealed.keys().filter(of_lane).count() as u64;
        let key = BatchKey {
            buffer,
            lane,
            number,
        };
        let series_needed = self.series;
        if lane == Lane::Series {
            self.series += 1;
        }
        let hash = BatchHash::of(format!("{key}").as_bytes());
        let spooled = Spooled {
            count: 1,
            bytes,
            hash,
            series_needed: if lane == Lane::Alerts {
                0
            } else {
                series_needed
            },
            series_after: self.series,
        };
        self.spool.insert(key, spooled);
        self.sealed.insert(key, hash);
        self.sender.on_sealed(key, bytes);
        key
    }

    fn seal_some(&mut self, count: u64, bytes: u64) -> Vec<BatchKey> {
        (0..count)
            .map(|_| self.seal(Lane::Telemetry, bytes))
            .collect()
    }

    /// Meets a site, if it is up; the cursor is kept before anything is sent there.
    fn connect(&mut self, at: usize) {
        let site = &mut self.sites[at];
        if !site.up || self.at.is_some() {
            return;
        }
        self.sender.on_time(self.now);
        let hello = self
            .sender
            .on_connected_to(place(at), "gw", "test")
            .unwrap();
        site.receiver = Receiver::new();
        let hello = site.receiver.on_message(Message::Hello(hello)).unwrap();
        let buffers: Vec<_> = hello.lanes.iter().map(|lane| lane.key.buffer).collect();
        let session = site.ledger.open_session(&self.agent, &buffers);
        site.receiver.on_opened(session).unwrap();
        if site.knows {
            let left_out = site.ledger.declare_elsewhere(&self.agent, &hello, log(at));
            assert_eq!(left_out, 0);
        }
        self.check_elsewhere(at, &hello);
        let site = &self.sites[at];
        let lanes = hello.lanes.iter().map(|lane| LaneHeld {
            key: lane.key,
            ranges: site.ledger.held(&self.agent, lane.key),
            series_known: site.book.get(&lane.key.buffer).copied().unwrap_or(0),
        });
        let welcome = Welcome {
            session,
            log: log(at),
            lanes: lanes.collect(),
            takes_in_doubt: site.knows,
            ..welcome_of_nothing()
        };
        let spool = &self.spool;
        for page in welcome.pages() {
            let hash_of = |key: BatchKey| spool.get(&key).map(|spooled| spooled.hash);
            self.sender.on_welcome(page, hash_of).unwrap();
        }
        assert_eq!(self.sender.poll_notices(), [], "no journal was lost");
        if self.sender.needs_saving() {
            self.save();
        }
        assert!(!self.sender.needs_saving());
        self.at = Some(at);
        self.trim();
    }

    /// What is said to be elsewhere is held there, with the sum that is said.
    fn check_elsewhere(&self, at: usize, hello: &Hello) {
        for elsewhere in &hello.elsewhere {
            assert_ne!(elsewhere.log, log(at));
            let other = &self.sites[1 - at].ledger;
            assert!(elsewhere.log == log(1 - at) || elsewhere.log == LogId::FORGOTTEN);
            let held = other.held(&self.agent, elsewhere.key);
            for run in &elsewhere.ranges {
                let within =
                    |held: &&crate::ranges::Held| held.first <= run.first && run.end <= held.end;
                let held = held.iter().find(within);
                let here = self.sites[at].ledger.held(&self.agent, elsewhere.key);
                let here = here
                    .iter()
                    .any(|it| it.first <= run.first && run.end <= it.end);
                assert!(held.is_some() || here, "{elsewhere:?} is in neither");
            }
        }
    }

    fn save(&mut self) {
        self.cursor = self.sender.cursor();
        let cursor = self.cursor.clone();
        self.sender.on_saved(&cursor);
    }

    fn send(&mut self) {
        self.sender.on_time(self.now);
        while let Some((key, urgency)) = self.sender.poll_send() {
            let spooled = self.spool[&key];
            let outgoing = Outgoing {
                key,
                count: 1,
                bytes: spooled.bytes,
                hash: spooled.hash,
                series_needed: spooled.series_needed,
                series_after: spooled.series_after,
            };
            if self.sender.offer(&outgoing, urgency) {
                let kind = self.sender.frame_kind(key);
                self.wire.push(Sent { key, spooled, kind });
            }
        }
        assert!(self.wire.len() <= IN_FLIGHT_BATCHES);
    }

    /// One batch arrives, whichever.
    fn arrive(&mut self) {
        let Some(at) = self.at.filter(|_| !self.wire.is_empty()) else {
            return;
        };
        let pick = self.random.below(self.wire.len() as u64) as usize;
        let Sent { key, spooled, kind } = self.wire.remove(pick);
        let site = &mut self.sites[at];
        let session = site.receiver.on_batch().unwrap();
        let known = site.book.get(&key.buffer).copied().unwrap_or(0);
        if key.lane != Lane::Series && spooled.series_needed > known {
            let reason = AgainReason::SeriesUnknown;
            return site.receiver.on_again(key, reason, self.now);
        }
        match site.ledger.judge(session, &self.agent, key, spooled.hash) {
            Verdict::Fresh(admission) => {
                let entry = Entry {
                    hash: spooled.hash,
                    in_doubt: kind == FrameKind::BatchInDoubt,
                };
                assert_eq!(site.journal.insert(key, entry), None, "{key} twice");
                if key.lane == Lane::Series {
                    let known = site.book.entry(key.buffer).or_default();
                    *known = (*known).max(spooled.series_after);
                }
                site.ledger.commit(admission);
                site.receiver.on_durable(key, self.now);
            }
            Verdict::Replay { .. } => site.receiver.on_durable(key, self.now),
            Verdict::Refused(refusal) if !site.knows => {
                assert!(matches!(refusal, crate::ledger::Refusal::Holes { .. }));
                site.receiver.on_again(key, AgainReason::Holes, self.now);
            }
            other => panic!("{key} at {at}: {other:?}"),
        }
    }

    fn acknowledge(&mut self) {
        self.now += 6_000;
        let Some(at) = self.at else { return };
        if let Some(ack) = self.sites[at].receiver.poll_ack(self.now) {
            self.sender.on_ack(&ack).unwrap();
            self.trim();
        }
    }

    fn trim(&mut self) {
        for trim in self.sender.poll_trims() {
            let doomed = |key: &BatchKey| key.lane_key() == trim.key && key.number < trim.below;
            let doomed: Vec<_> = self
                .spool
                .keys()
                .filter(|key| doomed(key))
                .copied()
                .collect();
            for key in doomed {
                let held = self
                    .sites
                    .iter()
                    .any(|site| site.journal.contains_key(&key));
                assert!(held, "{key} left the spool and is in no journal");
                self.spool.remove(&key);
                self.trimmed += 1;
            }
        }
    }

    fn lose(&mut self) {
        self.wire.clear();
        if let Some(at) = self.at.take() {
            self.sites[at].receiver.end();
            self.sender.on_lost_at(self.now);
        }
    }

    /// The aggregator takes whatever is on its way, and dies before it says so.
    fn die_silently(&mut self) {
        let Some(at) = self.at else { return };
        while !self.wire.is_empty() {
            self.arrive();
        }
        self.lose();
        self.sites[at].up = false;
        let (agent, site) = (self.agent.clone(), &mut self.sites[at]);
        site.ledger = Ledger::new();
        for (key, entry) in &site.journal {
            assert!(site.ledger.recover(&agent, *key, entry.hash));
        }
    }

    fn restart_agent(&mut self) {
        self.lose();
        self.life += 1;
        self.series = 0;
        let mut starts: BTreeMap<_, LaneStart> = BTreeMap::new();
        for (key, spooled) in &self.spool {
            let start = starts.entry(key.lane_key()).or_insert_with(|| LaneStart {
                key: key.lane_key(),
                first: key.number,
                end: key.number,
                bytes: 0,
                acked: self.cursor.acked(key.lane_key()).iter().copied().collect(),
            });
            start.end = key.number + 1;
            start.bytes += spooled.bytes;
        }
        let present = BufferId::new(self.life, 0);
        self.sender = Sender::new(present, starts.into_values().collect());
        self.sender.hold_for(HOLD);
        self.sender.on_time(self.now);
        self.sender.recall(&self.cursor);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..27 => {
                let lane = match self.random.below(9) {
                    0 => Lane::Series,
                    1 => Lane::Alerts,
                    _ => Lane::Telemetry,
                };
                let bytes = 1 + self.random.below(64 * 1024);
                self.seal(lane, bytes);
            }
            27..45 => {
                let at = self.random.below(2) as usize;
                self.connect(at);
            }
            45..65 => self.send(),
            65..80 => self.arrive(),
            80..90 => self.acknowledge(),
            90 => self.now += HOLD / 3,
            91 => self.save(),
            92..94 => self.lose(),
            94..96 => self.die_silently(),
            96..99 => {
                let at = self.random.below(2) as usize;
                self.sites[at].up = true;
            }
            _ => self.restart_agent(),
        }
        let agent = &self.agent;
        for site in &self.sites {
            for lane in site.ledger.lanes(agent) {
                let mut all = lane.held.clone();
                all.insert_missing(0, lane.floor, crate::ranges::UNKNOWN);
                for run in lane.elsewhere.iter().flat_map(|(_, runs)| runs.iter()) {
                    all.insert_missing(run.first, run.end, crate::ranges::UNKNOWN);
                }
                assert!(all.holes() <= SENDER_HOLES_MAX + IN_FLIGHT_BATCHES);
            }
        }
    }

    /// With one of them back for good, and the other never.
    fn heal_at(&mut self, at: usize) {
        self.lose();
        self.sites[at].up = true;
        for _ in 0..100_000 {
            if self.sender.wants_new_session() {
                self.lose();
            }
            self.connect(at);
            self.send();
            self.arrive();
            self.acknowledge();
            if self.wire.is_empty() {
                let wakes = self.sender.poll_timeout();
                self.now = self.now.max(wakes.unwrap_or(self.now));
            }
            if self.sender.is_drained() {
                return;
            }
        }
        panic!("does not drain at {at}: {:?}", self.sender);
    }

    /// Everything is somewhere with its own hash, and of what is at both at most one copy says that
    /// there is no other.
    fn judge(&self, seed: u64) -> (usize, usize) {
        let (mut both, mut marked) = (0, 0);
        for (key, hash) in self
            .sealed
            .iter()
            .filter(|(key, _)| key.lane != Lane::Series)
        {
            let entries = self.sites.iter().filter_map(|site| site.journal.get(key));
            let entries: Vec<_> = entries.collect();
            assert!(!entries.is_empty(), "seed {seed}: {key} is nowhere");
            assert!(entries.iter().all(|entry| entry.hash == *hash));
            marked += entries.iter().filter(|entry| entry.in_doubt).count();
            if entries.len() == 2 {
                both += 1;
                let plain = entries.iter().filter(|entry| !entry.in_doubt).count();
                assert!(plain <= 1, "seed {seed}: {key} is twice and not marked");
            }
        }
        (both, marked)
    }
}

#[test]
fn between_two_aggregators_nothing_is_lost_and_what_is_twice_is_marked() {
    let (mut both, mut marked, mut trimmed) = (0, 0, 0);
    for seed in 0..150 {
        let mut pair = Pair::new(seed, [true, true]);
        for _ in 0..700 {
            pair.step();
        }
        pair.heal_at((seed % 2) as usize);
        let (of_both, of_marked) = pair.judge(seed);
        both += of_both;
        marked += of_marked;
        trimmed += pair.trimmed;
    }
    assert!(
        both > 100 && marked > both / 2 && trimmed > 10_000,
        "{both} {marked} {trimmed}"
    );
}

/// The second is of an older version: it hears nothing of what it does not know, and still nothing
/// is lost.
#[test]
fn an_older_aggregator_beside_a_newer_one_loses_nothing() {
    for seed in 1_000..1_040 {
        let mut pair = Pair::new(seed, [true, false]);
        for _ in 0..700 {
            pair.step();
            let plain = pair.wire.iter().all(|sent| sent.kind == FrameKind::Batch);
            assert!(pair.at != Some(1) || plain);
        }
        pair.heal_at(1);
        for (key, hash) in &pair.sealed {
            let held = pair.sites.iter().filter_map(|site| site.journal.get(key));
            let held: Vec<_> = held.collect();
            assert!(
                key.lane == Lane::Series || !held.is_empty(),
                "{seed}: {key}"
            );
            assert!(held.iter().all(|entry| entry.hash == *hash));
        }
    }
}

/// The first dies with everything on its way committed and nothing said.
fn died_with_two_in_flight() -> Pair {
    let mut pair = Pair::new(1, [true, true]);
    pair.seal_some(2, 10);
    pair.connect(0);
    pair.send();
    assert_eq!(pair.wire.len(), 2);
    pair.die_silently();
    pair.seal(Lane::Telemetry, 10);
    pair
}

fn numbers(pair: &Pair) -> Vec<(u64, FrameKind)> {
    let sent = pair.wire.iter();
    sent.map(|sent| (sent.key.number, sent.kind)).collect()
}

#[test]
fn what_is_in_doubt_waits_and_goes_marked_while_what_is_new_goes_at_once() {
    let mut pair = died_with_two_in_flight();
    pair.connect(1);
    pair.send();
    assert_eq!(numbers(&pair), [(2, FrameKind::Batch)]);
    pair.arrive();
    pair.acknowledge();
    assert!(!pair.sender.is_drained());
    assert_eq!(pair.sender.poll_timeout(), Some(HOLD));
    pair.now = HOLD - 1;
    pair.send();
    assert_eq!(numbers(&pair), []);
    pair.now = HOLD;
    pair.send();
    let doubt = FrameKind::BatchInDoubt;
    assert_eq!(numbers(&pair), [(0, doubt), (1, doubt)]);
    (0..2).for_each(|_| pair.arrive());
    pair.acknowledge();
    assert!(pair.sender.is_drained());
    assert_eq!(pair.judge(1), (2, 2));
}

#[test]
fn the_first_is_back_in_time_and_nothing_is_twice() {
    let mut pair = died_with_two_in_flight();
    pair.connect(1);
    pair.send();
    pair.arrive();
    pair.acknowledge();
    pair.lose();
    pair.now = HOLD / 2;
    pair.sites[0].up = true;
    pair.connect(0);
    // Its Welcome names them.
    assert!(pair.sender.is_drained());
    assert_eq!(pair.judge(1), (0, 0));
    let held = &pair.sites[0].ledger.lanes(&pair.agent)[0];
    assert_eq!((held.held.end(), held.held.holes()), (2, 0));
}

#[test]
fn a_restart_while_in_doubt_waits_as_long_from_then_on() {
    let mut pair = died_with_two_in_flight();
    pair.now = HOLD / 2;
    pair.restart_agent();
    pair.seal(Lane::Telemetry, 10);
    pair.connect(1);
    pair.send();
    // All of the life before may be there; what this life sealed is not.
    let keys: Vec<_> = pair
        .wire
        .iter()
        .map(|sent| sent.key.buffer.life())
        .collect();
    assert_eq!(keys, [2]);
    pair.arrive();
    pair.acknowledge();
    assert_eq!(pair.sender.poll_timeout(), Some(HOLD + HOLD / 2));
    pair.now = HOLD + HOLD / 2;
    pair.send();
    let doubt = FrameKind::BatchInDoubt;
    assert_eq!(numbers(&pair), [(0, doubt), (1, doubt), (2, doubt)]);
}

/// Whoever opens a spool does not know the time yet.
#[test]
fn what_a_cursor_kept_waits_from_when_the_time_is_told() {
    let mut pair = died_with_two_in_flight();
    pair.lose();
    let start = LaneStart {
        key: pair.spool.keys().next().unwrap().lane_key(),
        first: 0,
        end: 3,
        bytes: 30,
        acked: Vec::new(),
    };
    pair.save();
    pair.sender = Sender::new(BufferId::new(2, 0), vec![start]);
    pair.sender.hold_for(HOLD);
    pair.sender.recall(&pair.cursor);
    pair.now = 9 * HOLD;
    pair.connect(1);
    pair.send();
    assert_eq!(numbers(&pair), [], "all of it may be at the first");
    assert_eq!(pair.sender.poll_timeout(), Some(10 * HOLD));
}

/// A ledger without room for what is elsewhere asks for the lowest number that it lacks; it gets
/// what others hold as well, as long as it is here.
#[test]
fn who_sees_holes_where_others_hold_gets_it_all() {
    let mut pair = Pair::new(1, [true, true]);
    pair.seal_some(9, 40_000);
    pair.connect(0);
    let live = pair.seal_some(2, 40_000);
    pair.send();
    pair.wire.retain(|sent| live.contains(&sent.key));
    while !pair.wire.is_empty() {
        pair.arrive();
    }
    pair.acknowledge();
    pair.lose();
    pair.now = HOLD;
    pair.connect(1);
    let (next, urgency) = pair.sender.poll_send().unwrap();
    let batch = Outgoing {
        hash: pair.spool[&next].hash,
        ..outgoing(next, 40_000)
    };
    assert!(pair.sender.offer(&batch, urgency));
    let again = crate::message::Again {
        key: next,
        reason: AgainReason::Holes,
    };
    let ack = Ack {
        ranges: Vec::new(),
        again: vec![again],
    };
    pair.sender.on_ack(&ack).unwrap();
    let mut marked = Vec::new();
    for _ in 0..20 {
        pair.send();
        let in_doubt = pair
            .wire
            .iter()
            .filter(|sent| sent.kind == FrameKind::BatchInDoubt);
        marked.extend(in_doubt.map(|sent| sent.key));
        while !pair.wire.is_empty() {
            pair.arrive();
        }
        pair.acknowledge();
    }
    marked.retain(|key| live.contains(key));
    marked.dedup();
    assert_eq!(marked, live, "held by the first, and marked for that");
    assert_eq!(pair.sites[1].journal.len(), 11);
}
