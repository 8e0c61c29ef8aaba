//! The judging stage ahead of the log and the sealing stage behind it, over power cuts: every alert
//! and every aggregate stands in its lane exactly once, and is the one that a log without a crash
//! gives.

use super::*;
use crate::alert::AlertState;
use crate::detect::Preset;
use crate::judge::{Known, Said, Spoken, What};
use crate::pipeline::judging::deciding::Published;
use crate::spool::JUDGED_LANES;
use crate::wal::{Queue, Record, Replayed};
use std::collections::{BTreeSet, VecDeque};

mod small_log;

const STORAGE: &[u8] = b"agent";
const DEVICES: u64 = 3;

fn settings() -> Settings {
    Settings {
        preset: Preset::Sensitive,
        weekly: false,
        ..Settings::default()
    }
}

fn announcements() -> Vec<(RecordKind, Vec<u8>)> {
    announced(&settings())
}

/// A value that wanders, and now and then one that does not belong.
fn reading(device: u64, seq: i64, dup: bool) -> Vec<u8> {
    let odd = seq > 110 && (seq + device as i64 * 7) % 37 == 0;
    let value = (seq as f64 * 0.7).sin() + if odd { 50.0 + seq as f64 } else { 0.0 };
    let ts = 1_700_000_000_000_000 + seq * 1_000_000;
    let payload = format!("{{\"value\":{value},\"seq\":{seq},\"ts\":{ts}}}");
    Sent {
        device,
        seq,
        dup,
        will: false,
        received: ts,
        topic: &format!("site/d{device}/m"),
        payload: &payload,
    }
    .write()
}

fn alert_of(said: Said) -> Option<Spoken> {
    match said.what {
        What::Alert(spoken) => Some(spoken),
        What::Again(_) | What::Aggregate(_) | What::Forgotten => None,
    }
}

/// The device and the number of a message, if it is one.
fn message_of(kind: u8, bytes: &[u8]) -> Option<(u64, i64)> {
    let Ok(Record::Message(message)) = Record::parse(kind, bytes) else {
        return None;
    };
    let payload: serde_json::Value = serde_json::from_slice(message.payload).unwrap();
    let device = message.topic.strip_prefix("site/d").unwrap();
    let device = device.strip_suffix("/m").unwrap();
    Some((device.parse().unwrap(), payload["seq"].as_i64().unwrap()))
}

fn aggregate_id((device, seq): (u64, i64)) -> (String, String) {
    (format!("{device} {seq}"), "aggregate".to_owned())
}

/// Stands for windows: every fourth message of a device closes one, when it first comes. Where each
/// came first is what the log says, as far as it is durable.
#[derive(Default)]
struct Made(BTreeMap<(u64, i64), Origin>);

impl Made {
    fn of(&mut self, origin: Origin, kind: u8, bytes: &[u8]) -> Option<Said> {
        let key = message_of(kind, bytes).filter(|(_, seq)| seq % 4 == 3);
        let new = key.filter(|key| *self.0.entry(*key).or_insert(origin) == origin);
        new.map(|(device, seq)| {
            let (id, state) = aggregate_id((device, seq));
            let spoken = Spoken {
                device: format!("site/d{device}"),
                metric: "m".into(),
                meta: Meta::default(),
                state: AlertState::Raised,
                is_present: false,
                is_passing: false,
                json: format!("{{\"id\":\"{id}\",\"state\":\"{state}\"}}"),
            };
            Said {
                origin,
                topic: "tributary/aggregates/of/a/test".into(),
                what: What::Aggregate(spoken),
            }
        })
    }

    /// What was behind the end of the log came never.
    fn forget_from(&mut self, end: Option<Origin>) {
        self.0
            .retain(|_, origin| end.is_some_and(|end| *origin < end));
    }
}

/// Records of a device up to a message.
struct Ahead {
    records: Vec<(RecordKind, Vec<u8>)>,
    device: usize,
    upto: i64,
}

/// A life with the judging stage, which is ahead: the real one, but for windows.
struct Gateway {
    life: Life,
    judging: JudgingCore,
    /// What it said, and the sealing stage was not yet given.
    said: VecDeque<FromJudge>,
    /// What it published, by id and state.
    published: BTreeSet<(String, String)>,
    /// What was judged, and is not durable yet.
    ahead: VecDeque<Ahead>,
    next: u64,
    asks: Asks,
    /// Has no thread here: it writes when it is told to.
    writer: JudgeWriter,
    made: Made,
}

/// Damages the newest checkpoint of the judging stage, where there is an older one; whether it did.
fn damage(disk: &dyn Disk) -> bool {
    let dir = Path::new(DATA).join("ckpt");
    let files = disk.list(&dir).unwrap_or_default().into_iter();
    let mut files: Vec<_> = files
        .filter(|name| name.starts_with("judge-") && name.ends_with(".ckpt"))
        .collect();
    files.sort();
    if files.len() < 2 {
        return false;
    }
    let file = disk.open(&dir.join(files.pop().unwrap())).unwrap();
    let mut byte = [0];
    file.read_at(&mut byte, 60).unwrap();
    file.write_at(&[!byte[0]], 60).unwrap();
    file.sync_data().unwrap();
    true
}

impl Gateway {
    fn open(disk: &Arc<dyn Disk>, made: Made) -> (Self, LogReader) {
        Self::open_sized(disk, made, (64 * 1024, 4 * 1024, 64 << 20))
    }

    /// With a log of such segments, bytes between checkpoints and quota.
    fn open_sized(disk: &Arc<dyn Disk>, made: Made, sizes: (u64, u64, u64)) -> (Self, LogReader) {
        let dir = Path::new(DATA);
        disk.create_dir_all(dir).unwrap();
        let checkpoints = Checkpoints::open(Arc::clone(disk), &dir.join("ckpt"), "judge").unwrap();
        let configurations = configurations(disk);
        let mut held = checkpoints.valid().into_iter();
        let good = held.next().map(|held| {
            let known = Known::unpack(&held.body).unwrap();
            Judge::read_checkpoint(STORAGE, &configurations, &known.body).unwrap()
        });
        let older = held.next().map(|held| Known::position(&held.body).unwrap());
        let judge = good.unwrap_or_else(|| Judge::new(STORAGE, configurations(InForce::default())));
        let (store, writer) = JudgeStore::new(checkpoints, (judge.position(), older));
        let asks = store.asks();
        let letters = log_config(LogKind::DeadLetter, WAL_SEGMENT_BYTES);
        let rules = Rules::builtin();
        let kept = (letters, Some((judge, store)));
        let (mut life, wal) = Life::open_forwarding(disk, &rules, sizes, kept, Forward::default());
        let gateway = Self {
            judging: life.judging.take().unwrap(),
            life,
            said: VecDeque::new(),
            published: BTreeSet::new(),
            ahead: VecDeque::new(),
            next: 0,
            asks,
            writer,
            made,
        };
        (gateway, wal)
    }

    /// Replays the log for both stages, and begins this life's.
    fn begin(&mut self, wal: LogReader) -> Option<()> {
        let now = self.life.now();
        while let Some(step) = self.judging.judge_replayed(now).unwrap() {
            if let Replayed::Record {
                life,
                number,
                kind,
                bytes,
            } = &step
            {
                let origin = Origin {
                    buffer: BufferId(life.0),
                    number: *number,
                };
                let aggregate = self.made.of(origin, *kind, bytes);
                self.judging.said().extend(aggregate);
            }
            self.judging.tell(false);
            self.take_told();
        }
        self.judging.begin(now);
        self.made.forget_from(self.judging.judge().position());
        self.life.replay(wal)?;
        self.judge(&announcements());
        self.life.commit_records(&announcements())
    }

    /// Judges records, which are not durable yet.
    fn judge(&mut self, records: &[(RecordKind, Vec<u8>)]) {
        for (kind, bytes) in records {
            let origin = Origin {
                buffer: self.life.present,
                number: self.next,
            };
            self.next += 1;
            self.judging
                .judge_record(kind.code(), bytes, self.life.now());
            let aggregate = self.made.of(origin, kind.code(), bytes);
            self.judging.said().extend(aggregate);
            self.judging.tell(true);
            self.take_told();
        }
    }

    fn take_told(&mut self) {
        let published = self.judging.published();
        self.published
            .extend(published.iter().filter_map(id_and_state));
        self.said.extend(self.judging.take());
    }

    fn hand_in(&mut self, records: Vec<(RecordKind, Vec<u8>)>, device: usize, upto: i64) {
        self.judge(&records);
        self.ahead.push_back(Ahead {
            records,
            device,
            upto,
        });
    }

    /// Makes the oldest frame that was judged durable.
    fn commit(&mut self, acked: &mut [i64]) -> Option<()> {
        if let Some(ahead) = self.ahead.pop_front() {
            self.life.commit_records(&ahead.records)?;
            acked[ahead.device] = ahead.upto;
        }
        Some(())
    }

    /// The sealing stage hears some of what was said, and does what is due.
    fn hear(&mut self, most: u64, asked: bool) -> Option<()> {
        if self.asks.take() != Ask::No || asked {
            self.judging.checkpoint();
            self.take_told();
        }
        self.hear_some(most);
        stored(self.life.stage.tick(self.life.now()))
    }

    /// The sealing stage hears all that was said, as far as it takes it.
    fn hear_all(&mut self) {
        self.hear_some(u64::MAX);
        self.life.stage.tick(self.life.now()).unwrap();
    }

    fn hear_some(&mut self, most: u64) {
        for _ in 0..most {
            let is_taken = self.life.stage.takes_judged();
            let Some(from) = self.said.pop_front_if(|_| is_taken) else {
                break;
            };
            self.life.stage.judged(from, self.life.now());
        }
    }
}

/// The id and state of what was published; `None` of what says that a topic's state is over.
fn id_and_state(published: &Published) -> Option<(String, String)> {
    let said: serde_json::Value = serde_json::from_slice(&published.json).ok()?;
    let text = |key: &str| said[key].as_str().unwrap().to_owned();
    Some((text("id"), text("state")))
}

/// What the lanes hold: how often each alert stands there, by id and state, and each aggregate.
#[derive(Default)]
struct Lake {
    said: BTreeMap<(String, String), u32>,
    published: BTreeSet<(String, String)>,
    seen: BTreeMap<LaneKey, u64>,
}

impl Lake {
    fn collect(&mut self, life: &mut Life) -> Option<()> {
        let mut decoder = Decoder::new();
        let starts = life.spool.lane_starts().into_iter();
        let lanes: Vec<_> = starts.map(|start| (start.key, start.end)).collect();
        for (key, end) in lanes {
            let next = self.seen.entry(key).or_default();
            for number in *next..end {
                let LaneKey { buffer, lane } = key;
                if JUDGED_LANES.contains(&lane) {
                    let batch = life
                        .spool
                        .read(BatchKey {
                            buffer,
                            lane,
                            number,
                        })
                        .ok()?;
                    let Content::Readings(readings) = batch.decode(&mut decoder).unwrap() else {
                        panic!("nothing is declared in this lane");
                    };
                    for row in readings.rows() {
                        let Value::Str(json) = readings.value(row) else {
                            panic!("what is said is a text");
                        };
                        let alert: serde_json::Value = serde_json::from_str(json).unwrap();
                        let text = |key: &str| alert[key].as_str().unwrap().to_owned();
                        *self.said.entry((text("id"), text("state"))).or_default() += 1;
                    }
                }
                *next = number + 1;
            }
            life.spool.trim(Trim { key, below: end });
        }
        life.spool.save(&SenderCursor::default())();
        Some(())
    }
}

/// What a log without a crash gives.
fn expected(next: &[i64]) -> BTreeMap<(String, String), u32> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut judge = Judge::new(STORAGE, configurations(&disk)(InForce::default()));
    let (mut said, mut number) = (Vec::new(), 0);
    let mut record = |kind: RecordKind, bytes: &[u8]| {
        let origin = Origin {
            buffer: BufferId::new(1, 1),
            number,
        };
        number += 1;
        judge.record(origin, kind.code(), bytes, 0, &mut said);
    };
    for (kind, bytes) in announcements() {
        record(kind, &bytes);
    }
    for (device, next) in (0..DEVICES).zip(next) {
        for seq in 0..*next {
            record(RecordKind::Message, &reading(device, seq, false));
        }
    }
    let mut alerts = BTreeMap::new();
    for spoken in said.into_iter().filter_map(alert_of) {
        let alert: serde_json::Value = serde_json::from_str(&spoken.json).unwrap();
        let state = match spoken.state {
            AlertState::Raised => "raised",
            AlertState::Acknowledged => "acknowledged",
            AlertState::Cleared => "cleared",
        };
        let id = alert["id"].as_str().unwrap().to_owned();
        *alerts.entry((id, state.to_owned())).or_default() += 1;
    }
    for (device, next) in (0..DEVICES).zip(next) {
        let windows = (0..*next).filter(|seq| seq % 4 == 3);
        alerts.extend(windows.map(|seq| (aggregate_id((device, seq)), 1)));
    }
    alerts
}

fn run(seed: u64) -> (usize, usize, usize) {
    let mut disk = Arc::new(SimDisk::new(seed));
    let mut random = Random(seed * 2 + 1);
    let (mut lake, mut made) = (Lake::default(), Made::default());
    let (mut acked, mut next, mut damaged) = ([0_i64; 3], [0_i64; 3], 0);
    for life_number in 0..10 {
        let dynamic: Arc<dyn Disk> = disk.clone();
        damaged += usize::from(random.below(3) == 0 && damage(&*dynamic));
        let (mut gateway, wal) = Gateway::open(&dynamic, made);
        let last = life_number == 9;
        if !last {
            disk.power_off_after(20 + random.below(150));
        }
        let mut powered = gateway.begin(wal).is_some();
        // What clients redeliver, and then what they measure.
        let mut sent = acked;
        for _ in 0..60 {
            if !powered {
                break;
            }
            gateway.life.now += 10_000 + random.below(400_000) as i64;
            let device = random.below(DEVICES);
            let place = device as usize;
            let mut records = Vec::new();
            for seq in sent[place]..next[place] {
                records.push((RecordKind::Message, reading(device, seq, true)));
            }
            for _ in 0..random.below(20) {
                records.push((RecordKind::Message, reading(device, next[place], false)));
                next[place] += 1;
            }
            sent[place] = next[place];
            if !records.is_empty() {
                gateway.hand_in(records, place, next[place]);
            }
            let (most, asked) = (random.below(6), random.below(10) == 0);
            powered = gateway.hear(most, asked).is_some();
            if random.below(3) == 0 {
                gateway.writer.step();
            }
            while powered && gateway.ahead.len() as u64 > random.below(4) {
                powered = gateway.commit(&mut acked).is_some();
            }
            powered = powered && (random.below(5) > 0 || lake.collect(&mut gateway.life).is_some());
        }
        if last {
            for device in 0..DEVICES {
                let place = device as usize;
                let resent = (sent[place]..next[place]).map(|seq| reading(device, seq, true));
                let records: Vec<_> = resent.map(|bytes| (RecordKind::Message, bytes)).collect();
                if !records.is_empty() {
                    gateway.hand_in(records, place, next[place]);
                }
            }
            while !gateway.ahead.is_empty() {
                gateway.commit(&mut acked).unwrap();
            }
            while !gateway.said.is_empty() {
                gateway.life.now += 200_000;
                gateway.writer.step();
                gateway.hear(u64::MAX, false).unwrap();
            }
            gateway.life.stage.finish(gateway.life.now()).unwrap();
            lake.collect(&mut gateway.life).unwrap();
            lake.published.append(&mut gateway.published);
            break;
        }
        lake.published.append(&mut gateway.published);
        made = gateway.made;
        disk = crash(&disk, &mut random, seed);
    }
    let expected = expected(&next);
    let missing: Vec<_> = expected
        .keys()
        .filter(|key| !lake.said.contains_key(*key))
        .collect();
    let doubled = lake
        .said
        .iter()
        .filter(|(key, count)| expected.get(*key) != Some(*count));
    let doubled: Vec<_> = doubled.collect();
    assert!(
        missing.is_empty() && doubled.is_empty(),
        "seed {seed}: {missing:?} {doubled:?}"
    );
    let unsaid = lake.said.keys().find(|key| !lake.published.contains(*key));
    assert_eq!(unsaid, None, "seed {seed}: stored, and never published");
    let aggregates = lake.said.keys().filter(|(_, state)| state == "aggregate");
    let aggregates = aggregates.count();
    (lake.said.len() - aggregates, aggregates, damaged)
}

#[test]
fn whenever_the_power_fails_every_alert_and_aggregate_is_stored_once() {
    let (alerts, aggregates, damaged) = (0..16).map(run).fold((0, 0, 0), |all, one| {
        (all.0 + one.0, all.1 + one.1, all.2 + one.2)
    });
    assert!(
        alerts > 100 && aggregates > 1_000 && damaged > 10,
        "only {alerts}, {aggregates}, {damaged}"
    );
}
