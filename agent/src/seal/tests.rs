//! The sealing stage over a disk that loses power at any time: every reading of a message that was
//! durable in the log stands in exactly one batch, and every dead letter is there once.

use super::*;
use crate::catalogue::Catalogue;
use crate::configuration::{Announcement, Configurations, InForce, Texts};
use crate::deadletter::{DeadLetters, Letter};
use crate::decode::{Rules, UserProperties};
use crate::detect::Settings;
use crate::forward::Forward;
use crate::judge::{Judge, KernelClock};
use crate::limits::{CHECKPOINT_WAL_BYTES, DEAD_LETTER_BYTES, WAL_SEGMENT_BYTES};
use crate::pipeline::judging::deciding::JudgingCore;
use crate::spool::{self, AgentSpool, SpoolConfig};
use crate::wal::{Message, Qos, RecordKind, Replay};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::mpsc;
use tributary_journal::{
    Checkpoints, Disk, Frame, LifeId, Log, LogConfig, LogKind, LogReader, LogWriter, Open, SimDisk,
    Survival,
};
use tributary_protocol::batch::{Content, Decoder, GapReason};
use tributary_protocol::ids::LaneKey;
use tributary_protocol::session::{SenderCursor, Trim};
use tributary_uplink::{Sealed, Spool};

mod bad_input;
mod captured;
mod configured;
mod forwarded;
mod given_up;
mod judged;
mod put_back;

const DATA: &str = "/data";

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// One life of the agent's storage, as the pipeline opens it.
struct Life {
    present: BufferId,
    wal: LogWriter,
    stage: SealStage,
    spool: AgentSpool,
    sealed: mpsc::Receiver<Sealed>,
    /// What judges, where something does.
    judging: Option<JudgingCore>,
    now: i64,
}

fn log_config(kind: LogKind, segment_bytes: u64) -> LogConfig {
    LogConfig {
        segment_bytes,
        quota_bytes: 64 << 20,
        reserve_bytes: 0,
        kind,
    }
}

impl Life {
    fn open(disk: &Arc<dyn Disk>) -> (Self, LogReader) {
        Self::open_with(disk, &Rules::builtin())
    }

    fn open_with(disk: &Arc<dyn Disk>, rules: &Arc<Rules>) -> (Self, LogReader) {
        Self::open_sized(disk, rules, 64 * 1024)
    }

    fn open_sized(
        disk: &Arc<dyn Disk>,
        rules: &Arc<Rules>,
        wal_segment_bytes: u64,
    ) -> (Self, LogReader) {
        let letters = LogConfig {
            quota_bytes: DEAD_LETTER_BYTES,
            ..log_config(LogKind::DeadLetter, WAL_SEGMENT_BYTES)
        };
        let checkpoint_bytes_max = wal_segment_bytes / 4;
        Self::open_as(
            disk,
            rules,
            (wal_segment_bytes, checkpoint_bytes_max),
            letters,
            None,
        )
    }

    /// As the agent opens it, with logs of these sizes, and bytes between checkpoints.
    fn open_as(
        disk: &Arc<dyn Disk>,
        rules: &Arc<Rules>,
        (wal_segment_bytes, checkpoint_bytes_max): (u64, u64),
        letters: LogConfig,
        judged: Option<(Judge, JudgeStore)>,
    ) -> (Self, LogReader) {
        let sizes = (wal_segment_bytes, checkpoint_bytes_max, 64 << 20);
        Self::open_forwarding(disk, rules, sizes, (letters, judged), Forward::default())
    }

    /// The same with a quota of the log, where this is what is forwarded.
    fn open_forwarding(
        disk: &Arc<dyn Disk>,
        rules: &Arc<Rules>,
        (wal_segment_bytes, checkpoint_bytes_max, wal_quota_bytes): (u64, u64, u64),
        (letters, judged): (LogConfig, Option<(Judge, JudgeStore)>),
        forward: Forward,
    ) -> (Self, LogReader) {
        let dir = Path::new(DATA);
        disk.create_dir_all(dir).unwrap();
        let checkpoints = Checkpoints::open(Arc::clone(disk), &dir.join("ckpt"), "agent").unwrap();
        let seen = crate::pipeline::greatest_life_seen(disk, dir, &checkpoints).unwrap();
        let present = crate::life::begin(disk, dir, seen).unwrap();
        let wal = Log::open(
            Arc::clone(disk),
            &dir.join("wal"),
            LogConfig {
                quota_bytes: wal_quota_bytes + forward.rules().ring_bytes(),
                ..log_config(LogKind::Wal, wal_segment_bytes)
            },
            Open::NewLife(LifeId(present.0)),
        )
        .unwrap();
        let texts = Texts::open(Arc::clone(disk), &dir.join("config")).unwrap();
        let config = SpoolConfig {
            reserve_bytes: 0,
            ..SpoolConfig::default()
        };
        let spool = spool::open(disk, &spool::dir(dir), present, &config).unwrap();
        let (judge, judged) = judged.unzip();
        let stores = Stores {
            spool: spool.writer,
            covered: spool.covered,
            dead: DeadLetters::open_with(disk, &dir.join("deadletter"), present, letters).unwrap(),
            checkpoints,
            texts,
            wal: wal.reader.clone(),
            catalogue: Catalogue::unkept(),
            judged,
        };
        let (sender, sealed) = mpsc::channel(100_000);
        let config = SealConfig {
            present,
            delay_us: 1_000,
            checkpoint_bytes_max,
            wal_quota_bytes,
            pause: Arc::new(Never),
            rules: Arc::clone(rules),
            forward,
        };
        let judging = JudgingCore::new(judge, KernelClock::default(), &stores, &config);
        let stage = SealStage::new(&config, stores, sender);
        let life = Self {
            present,
            wal: wal.writer,
            stage,
            spool: spool.reader,
            sealed,
            judging,
            now: 0,
        };
        (life, wal.reader)
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.now,
            wall: 1_700_000_000_000_000 + self.now,
        }
    }

    fn replay(&mut self, wal: LogReader) -> Option<()> {
        let from = self
            .stage
            .position()
            .map(|at| (LifeId(at.buffer.0), at.number));
        let mut replay = Replay::new(wal, from);
        while let Some(step) = replay.next_step().unwrap() {
            stored(self.stage.replayed(&step, self.now()))?;
        }
        Some(())
    }

    /// One group commit: durable, and then taken in. `None`: the disk gave up.
    fn commit(&mut self, messages: &[Vec<u8>]) -> Option<()> {
        self.commit_as(RecordKind::Message, messages)
    }

    fn commit_as(&mut self, kind: RecordKind, messages: &[Vec<u8>]) -> Option<()> {
        let record = |message: &Vec<u8>| (kind, message.clone());
        let records: Vec<_> = messages.iter().map(record).collect();
        self.commit_records(&records)
    }

    fn commit_records(&mut self, records: &[(RecordKind, Vec<u8>)]) -> Option<()> {
        let mut frame = Frame::new();
        for (kind, bytes) in records {
            frame.push(kind.code(), bytes).unwrap();
        }
        let appended = self.wal.append_reserved(&frame).ok()?;
        for (i, (kind, bytes)) in records.iter().enumerate() {
            let origin = Origin {
                buffer: self.present,
                number: appended.first + i as u64,
            };
            stored(self.stage.record(origin, kind.code(), bytes, self.now()))?;
        }
        Some(())
    }
}

/// `None` when the disk is gone; anything else that fails is a bug.
fn stored(result: Result<(), StageError>) -> Option<()> {
    match result {
        Ok(()) => Some(()),
        Err(StageError::Storage(_)) => None,
        Err(other) => panic!("{other}"),
    }
}

/// A power cut, behind which none, some or all of what was not synced is there.
fn crash(disk: &SimDisk, random: &mut Random, seed: u64) -> Arc<SimDisk> {
    Arc::new(disk.crash(survival(random, seed)))
}

fn survival(random: &mut Random, seed: u64) -> Survival {
    match random.below(3) {
        0 => Survival::Nothing,
        1 => Survival::RandomHalf(seed),
        _ => Survival::All,
    }
}

/// What is configured, with the decoding rules that are built in.
fn configurations(disk: &Arc<dyn Disk>) -> impl Fn(InForce) -> Configurations {
    let texts = Texts::open(Arc::clone(disk), &Path::new(DATA).join("config")).unwrap();
    move |in_force| Configurations::new(texts.clone(), Rules::builtin(), in_force)
}

/// What the log of a life begins with: its decoding rules, and these settings of detection.
fn announced(settings: &Settings) -> Vec<(RecordKind, Vec<u8>)> {
    let rules = Announcement(Rules::builtin().hash()).write();
    let detection = [&[1], settings.text().as_bytes()].concat();
    vec![
        (RecordKind::Configuration, rules),
        (RecordKind::Detection, detection),
    ]
}

/// A message of a device that has a session of its own, with QoS 1.
struct Sent<'a> {
    device: u64,
    seq: i64,
    dup: bool,
    will: bool,
    received: i64,
    topic: &'a str,
    payload: &'a str,
}

impl Sent<'_> {
    fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        Message {
            session: self.device,
            qos: Qos::AtLeastOnce,
            dup: self.dup,
            retain: false,
            v5: false,
            will: self.will,
            broker: false,
            packet_id: (self.seq % 60 + 1) as u16,
            received_time: self.received,
            topic: self.topic,
            properties: UserProperties::NONE,
            payload: self.payload.as_bytes(),
        }
        .write(&mut out);
        out
    }
}

fn message(device: u64, seq: i64, dup: bool) -> Vec<u8> {
    let payload = match seq % 10 {
        // Malformed: a dead letter.
        9 => format!("{{\"value\":{seq},"),
        8 => format!("{{\"a\":{seq},\"b\":true,\"seq\":{seq}}}"),
        _ => format!("{{\"value\":{seq}.25,\"seq\":{seq}}}"),
    };
    Sent {
        device,
        seq,
        dup,
        will: is_will(seq),
        received: 1_700_000_000_000_000 + seq,
        topic: &format!("site/d{device}/m"),
        payload: &payload,
    }
    .write()
}

/// Whether it is a client's will: its reading stands in the lane `events`.
fn is_will(seq: i64) -> bool {
    matches!(seq % 10, 3 | 6)
}

fn rows_of(seq: i64) -> u32 {
    match seq % 10 {
        9 => 0,
        8 => 2,
        _ => 1,
    }
}

/// What arrived, by (device, seq): how many rows. Series come from their own lane.
#[derive(Default)]
struct Arrived {
    rows: BTreeMap<(String, i64), u32>,
    books: BTreeMap<BufferId, Vec<SeriesDef>>,
    batches: BTreeMap<LaneKey, u64>,
    gaps: Vec<Cover>,
    /// Readings that are declared refused.
    refused: u64,
}

impl Arrived {
    /// Reads every batch of the spool that was not seen yet, as an aggregator would. `None` when
    /// the disk is gone.
    fn collect(&mut self, spool: &mut AgentSpool, lanes: &[(LaneKey, u64)]) -> Option<()> {
        let mut decoder = Decoder::new();
        for (key, end) in lanes {
            let next = self.batches.entry(*key).or_default();
            for number in *next..*end {
                let batch_key = BatchKey {
                    buffer: key.buffer,
                    lane: key.lane,
                    number,
                };
                let batch = spool.read(batch_key).ok()?;
                *next = number + 1;
                match batch.decode(&mut decoder).unwrap() {
                    Content::Series { base, defs } => {
                        let book = self.books.entry(key.buffer).or_default();
                        assert_eq!(book.len(), base as usize);
                        book.extend(defs);
                    }
                    Content::Readings(readings) => {
                        let is_event = key.lane == Lane::Events;
                        let book = match is_event {
                            true => batch.names(),
                            false => &self.books[&key.buffer],
                        };
                        assert!(batch.series_needed() as usize <= book.len());
                        for row in readings.rows() {
                            let series = &book[row.series.0 as usize];
                            let name = (series.device.to_string(), row.meta.device_seq.unwrap());
                            let ours = name.0.starts_with("site/d");
                            assert!(!ours || is_event == is_will(name.1), "{name:?}");
                            *self.rows.entry(name).or_default() += 1;
                        }
                    }
                    Content::Gap(gap) if gap.reason == GapReason::Refused => {
                        self.refused += gap.readings.unwrap();
                    }
                    Content::Gap(_) => self.gaps.extend(batch.covers()),
                }
            }
        }
        Some(())
    }
}

struct World {
    random: Random,
    sent: BTreeMap<(u64, i64), bool>,
    next: [i64; 3],
    ends: BTreeMap<LaneKey, u64>,
    arrived: Arrived,
}

impl World {
    /// Sends some messages of a device; first again what got no PUBACK, as a client does.
    fn send(&mut self, life: &mut Life) -> Option<()> {
        let device = self.random.below(3);
        let mut frame = Vec::new();
        let mut pairs = Vec::new();
        for (pair, _) in self
            .sent
            .iter()
            .filter(|(pair, acked)| !**acked && pair.0 == device)
        {
            frame.push(message(pair.0, pair.1, true));
            pairs.push(*pair);
        }
        for _ in 0..self.random.below(20) {
            let seq = &mut self.next[device as usize];
            frame.push(message(device, *seq, false));
            pairs.push((device, *seq));
            *seq += 1;
        }
        for pair in &pairs {
            self.sent.entry(*pair).or_insert(false);
        }
        if frame.is_empty() {
            return Some(());
        }
        let mut records = Vec::new();
        for (bytes, (_, seq)) in frame.into_iter().zip(&pairs) {
            // A will is published by the agent itself: nobody refuses it.
            records.push(match !is_will(*seq) && self.random.below(6) == 0 {
                true => (RecordKind::Refused, [vec![2], bytes].concat()),
                false => (RecordKind::Message, bytes),
            });
        }
        life.commit_records(&records)?;
        for pair in pairs {
            self.sent.insert(pair, true);
        }
        Some(())
    }

    /// What the uplink does: reads what is sealed, now and then has it acknowledged and trimmed.
    fn uplink(&mut self, life: &mut Life) -> Option<()> {
        while let Ok(sealed) = life.sealed.try_recv() {
            let end = self.ends.entry(sealed.key.lane_key()).or_default();
            *end = (*end).max(sealed.key.number + 1);
        }
        let mut lanes: Vec<_> = self.ends.iter().map(|(key, end)| (*key, *end)).collect();
        lanes.sort_by_key(|(key, _)| (key.lane != Lane::Series, *key));
        self.arrived.collect(&mut life.spool, &lanes)?;
        let data = |(key, _): &&(LaneKey, u64)| key.lane != Lane::Series;
        for (key, end) in lanes.iter().filter(data) {
            life.spool.trim(Trim {
                key: *key,
                below: *end,
            });
        }
        life.spool.save(&SenderCursor::default())();
        Some(())
    }
}

fn run(seed: u64) {
    let sim = Arc::new(SimDisk::new(seed));
    let mut disk: Arc<SimDisk> = sim;
    let mut world = World {
        random: Random(seed * 2 + 1),
        sent: BTreeMap::new(),
        next: [0; 3],
        ends: BTreeMap::new(),
        arrived: Arrived::default(),
    };
    for life_number in 0..8 {
        let dynamic: Arc<dyn Disk> = disk.clone();
        let (mut life, wal) = Life::open(&dynamic);
        for start in life.spool.lane_starts() {
            let end = world.ends.entry(start.key).or_default();
            *end = (*end).max(start.end);
        }
        let last = life_number == 7;
        if !last {
            // Power fails somewhere in the middle of what follows.
            disk.power_off_after(1 + world.random.below(90));
        }
        let mut powered = life.replay(wal).is_some();
        for _ in 0..40 {
            life.now += 400;
            powered = powered && world.send(&mut life).is_some();
            powered = powered && stored(life.stage.tick(life.now())).is_some();
            if !powered {
                break;
            }
            powered = world.random.below(4) > 0 || world.uplink(&mut life).is_some();
        }
        if last {
            while world.sent.values().any(|acked| !acked) {
                world.send(&mut life).unwrap();
            }
            life.stage.finish(life.now()).unwrap();
            world.uplink(&mut life).unwrap();
            break;
        }
        drop(life);
        disk = crash(&disk, &mut world.random, seed);
    }
    check(world, disk, seed);
}

/// Every reading stands in exactly one batch or in what is declared refused, however often its
/// message came and was refused; every dead letter is there once.
fn check(mut world: World, disk: Arc<dyn Disk>, seed: u64) {
    let mut refused = 0;
    for (device, seq) in world.sent.keys() {
        let name = if seq % 10 == 8 {
            format!("site/d{device}/m")
        } else {
            format!("site/d{device}")
        };
        let rows = world.arrived.rows.remove(&(name, *seq)).unwrap_or(0);
        assert!(
            rows == rows_of(*seq) || (rows == 0 && !is_will(*seq)),
            "seed {seed}: {rows} rows of device {device}, seq {seq}"
        );
        refused += u64::from(rows_of(*seq) - rows);
    }
    assert_eq!(world.arrived.gaps, [], "seed {seed}: nothing was damaged");
    assert_eq!(world.arrived.refused, refused, "seed {seed}: declared");
    assert!(world.arrived.rows.is_empty(), "{:?}", world.arrived.rows);
    let dead = DeadLetters::open(
        &disk,
        &Path::new(DATA).join("deadletter"),
        BufferId::new(99, 0),
        0,
    )
    .unwrap();
    let mut buried = BTreeMap::new();
    for span in dead.reader().lives() {
        let mut entries = Vec::new();
        if span.first < span.end {
            dead.reader()
                .read(span.life, span.first, usize::MAX >> 1, &mut entries)
                .unwrap();
        }
        for entry in entries {
            let letter = Letter::read(&entry.bytes).unwrap();
            *buried
                .entry((letter.topic.to_owned(), letter.payload.to_vec()))
                .or_insert(0) += 1;
        }
    }
    let expected = world
        .sent
        .keys()
        .filter(|(_, seq)| rows_of(*seq) == 0)
        .count();
    assert_eq!(buried.len(), expected, "seed {seed}");
    assert!(
        buried.values().all(|copies| *copies == 1),
        "seed {seed}: {buried:?}"
    );
}

#[test]
fn whenever_the_power_fails_every_acknowledged_reading_is_sealed_once() {
    for seed in 0..20 {
        run(seed);
    }
}

/// The lanes of a life's spool, definitions first.
fn lanes_of(life: &Life) -> Vec<(LaneKey, u64)> {
    let starts = life.spool.lane_starts().into_iter();
    let mut lanes: Vec<_> = starts.map(|start| (start.key, start.end)).collect();
    lanes.sort_by_key(|(key, _)| (key.lane != Lane::Series, *key));
    lanes
}

#[test]
fn messages_that_cannot_be_read_back_are_declared_and_the_others_arrive() {
    let disk = Arc::new(SimDisk::new(3));
    let dynamic: Arc<dyn Disk> = disk.clone();
    let (mut life, log) = Life::open(&dynamic);
    for frame in 0..3 {
        let messages: Vec<_> = (0..4).map(|i| message(0, frame * 10 + i, false)).collect();
        life.commit(&messages).unwrap();
    }
    let wal = log.segments().remove(0).path;
    drop(life);
    let bytes = disk.contents(&wal).unwrap();
    let needle = b"\"seq\":11";
    let at = bytes
        .windows(needle.len())
        .position(|window| window == needle)
        .unwrap();
    disk.flip_bit(&wal, at as u64, 0);

    let (mut life, wal) = Life::open(&dynamic);
    life.replay(wal).unwrap();
    life.stage.finish(life.now()).unwrap();
    let mut arrived = Arrived::default();
    let lanes = lanes_of(&life);
    arrived.collect(&mut life.spool, &lanes).unwrap();
    let seqs: Vec<i64> = arrived.rows.keys().map(|(_, seq)| *seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 20, 21, 22, 23]);
    let lost: Vec<_> = arrived
        .gaps
        .iter()
        .map(|gap| (gap.first, gap.count))
        .collect();
    assert_eq!(lost, [(4, 4)]);
}

#[test]
fn a_flood_of_readings_is_sealed_in_batches_of_the_target_size() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(4));
    let (mut life, _) = Life::open(&disk);
    let numbers: Vec<String> = (0..3_000).map(|n| n.to_string()).collect();
    let payload = format!("[{}]", numbers.join(","));
    for packet_id in 1..=4 {
        let mut record = Vec::new();
        Message {
            session: 1,
            qos: Qos::AtLeastOnce,
            dup: false,
            retain: false,
            v5: false,
            will: false,
            broker: false,
            packet_id,
            received_time: 1,
            topic: "d/m",
            properties: UserProperties::NONE,
            payload: payload.as_bytes(),
        }
        .write(&mut record);
        life.commit(&[record]).unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    let mut rows = Vec::new();
    while let Ok(sealed) = life.sealed.try_recv() {
        if sealed.key.lane == Lane::Telemetry {
            rows.push(life.spool.read(sealed.key).unwrap().rows());
        }
    }
    // A message is never cut: two of them would be beyond the target.
    assert_eq!(rows, [3_000; 4]);
}

/// A record of the log with this payload.
fn record(topic: &str, payload: &[u8], packet_id: u16) -> Vec<u8> {
    of_client(1, topic, payload, packet_id)
}

/// The same, of another client than the first.
fn of_client(session: u64, topic: &str, payload: &[u8], packet_id: u16) -> Vec<u8> {
    let mut out = Vec::new();
    Message {
        session,
        qos: Qos::AtLeastOnce,
        dup: false,
        retain: false,
        v5: false,
        will: false,
        broker: false,
        packet_id,
        received_time: 1_700_000_000_000_000,
        topic,
        properties: UserProperties::NONE,
        payload,
    }
    .write(&mut out);
    out
}

#[test]
fn texts_that_do_not_shrink_are_sealed_in_time() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(5));
    let (mut life, _) = Life::open(&disk);
    let mut random = Random(77);
    for packet_id in 1..=60 {
        let printable = |_| char::from(33 + random.below(94) as u8);
        let text: String = (0..40_000).map(printable).collect();
        let payload = format!("{{\"value\":{}}}", serde_json::to_string(&text).unwrap());
        life.commit(&[record("camera/thumbnail", payload.as_bytes(), packet_id)])
            .unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    let mut arrived = 0;
    while let Ok(sealed) = life.sealed.try_recv() {
        if sealed.key.lane == Lane::Telemetry {
            arrived += life.spool.read(sealed.key).unwrap().rows();
        }
    }
    assert_eq!(arrived, 60);
}

#[test]
fn lives_with_nothing_but_dead_letters_use_up_no_covers() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(6));
    for _ in 0..40 {
        let (mut life, wal) = Life::open(&disk);
        life.replay(wal).unwrap();
        life.commit(&[record("d/m", b"\xff", 1)]).unwrap();
    }
    let (mut life, wal) = Life::open(&disk);
    life.replay(wal).unwrap();
    life.commit(&[record("d/m", b"21.5", 2)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let dead: u64 = life
        .stage
        .dead
        .reader()
        .lives()
        .iter()
        .map(|span| span.end - span.first)
        .sum();
    assert_eq!(dead, 40);
    let telemetry = lanes_of(&life)
        .into_iter()
        .filter(|(key, _)| key.lane == Lane::Telemetry);
    assert_eq!(telemetry.map(|(_, end)| end).sum::<u64>(), 1);
}

#[test]
fn a_log_at_its_quota_is_trimmed_without_another_message() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(7));
    let (mut life, log) = Life::open(&disk);
    life.stage.wal_quota_bytes = 512 * 1024;
    life.stage.checkpoint_due = u64::MAX;
    let held = |log: &LogReader| log.segments().iter().map(|s| s.bytes).sum::<u64>();
    let mut packet_id = 0;
    while held(&log) <= 512 * 1024 {
        packet_id = packet_id % 60_000 + 1;
        life.commit(&[record("d/m", b"21.5", packet_id)]).unwrap();
    }
    for _ in 0..3 {
        life.stage.tick(life.now()).unwrap();
    }
    assert!(
        held(&log) <= 256 * 1024,
        "{} bytes are still held",
        held(&log)
    );
}

#[test]
fn on_a_disk_without_a_free_block_the_log_goes_on_in_its_own() {
    let disk = Arc::new(SimDisk::new(8));
    let dynamic: Arc<dyn Disk> = disk.clone();
    let (mut life, log) = Life::open(&dynamic);
    life.stage.checkpoint_due = u64::MAX;
    life.commit(&[record("d/m", b"1", 1)]).unwrap();
    // The first checkpoint is still to come.
    disk.set_full(true);
    let (mut full, mut packet_id) = (0, 1);
    for _ in 0..5_000 {
        packet_id = packet_id % 60_000 + 1;
        life.now += 500;
        let payload = format!("{packet_id}.5");
        let message = record("d/m", payload.as_bytes(), packet_id);
        while life.commit(std::slice::from_ref(&message)).is_none() {
            assert!(log.is_short());
            full += 1;
            assert!(full < 1_000, "wedged after {packet_id} messages");
            life.stage.tick(life.now()).unwrap();
        }
        life.stage.tick(life.now()).unwrap();
    }
    assert!(full > 0, "the log was never full");
    let held: u64 = log.segments().iter().map(|segment| segment.bytes).sum();
    assert!(held <= 4 * 64 * 1024, "{held} bytes");
}
