//! Clients that publish with QoS 1 to a gateway that loses power between any two turns, or in the
//! middle of one, and an aggregator behind a link that breaks; everything by a seed.

use super::*;
use crate::config::Config;
use crate::seal::Never;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use tributary_journal::sim_disk::Salts;
use tributary_journal::{LifeId, LogConfig, LogKind, Open, SimDisk, Survival};
use tributary_protocol::batch::{Content, Decoder, SealedBatch};
use tributary_protocol::ids::{Lane, LaneKey};
use tributary_protocol::series::SeriesDef;
use tributary_uplink::Spool;

mod doors;
mod image;
mod site;

use site::Site;

/// 2026-05-01.
const BEGIN: i64 = 1_777_593_600_000_000;
const DEVICES: u64 = 3;
const SIZES: Sizes = Sizes {
    wal_segment_bytes: 64 * 1024,
    spool_segment_bytes: 64 * 1024,
    letter_segment_bytes: 64 * 1024,
    checkpoint_bytes_max: 4 * 1024,
};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn settings() -> Settings {
    let config = Config::parse("[agent]\ndata_dir = \"/data\"\n", []).unwrap();
    let mut settings = Settings::from_config(&config);
    settings.wal_quota_bytes = 4 << 20;
    settings.spool.reserve_bytes = 0;
    settings
}

fn open(disk: &SimDisk, pause: Arc<dyn Pause>, heard: Heard, now: Now) -> Gateway {
    let dynamic: Arc<dyn Disk> = Arc::new(disk.clone());
    let outside = Outside {
        pause,
        heard,
        kernel: KernelClock::default(),
    };
    Gateway::open(&dynamic, &settings(), SIZES, outside, now).unwrap()
}

fn at(monotonic: i64) -> Now {
    Now {
        monotonic,
        wall: BEGIN + monotonic,
    }
}

/// An MQTT 3.1.1 packet.
fn packet(head: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len() < 128, "one byte says how long it is");
    [&[head, body.len() as u8], &*body].concat()
}

/// A CONNECT of a client whose session is kept.
fn connect(client: &str) -> Vec<u8> {
    let head = [0, 4, b'M', b'Q', b'T', b'T', 4, 0, 0, 0, 0];
    packet(0x10, &[&head, &[client.len() as u8], client.as_bytes()])
}

fn publish(device: u64, (id, seq): (u16, i64), dup: bool) -> Vec<u8> {
    let topic = format!("site/d{device}/m");
    let payload = format!("{{\"value\":{seq}.25,\"seq\":{seq}}}");
    packet(
        if dup { 0x3a } else { 0x32 },
        &[
            &[0, topic.len() as u8],
            topic.as_bytes(),
            &id.to_be_bytes(),
            payload.as_bytes(),
        ],
    )
}

/// A device that sends everything until it is acknowledged.
#[derive(Default)]
struct Device {
    number: u64,
    door: Option<u64>,
    is_in: bool,
    next_id: u16,
    next_seq: i64,
    /// Not acknowledged: packet id and number.
    outbox: VecDeque<(u16, i64)>,
    /// What was acknowledged, and when that was said.
    acknowledged: Vec<i64>,
}

impl Device {
    fn send(&mut self, gateway: &mut Gateway) {
        let Some(door) = self.door.filter(|_| self.is_in && self.outbox.len() < 20) else {
            return;
        };
        self.next_id = self.next_id % 1_000 + 1;
        let message = (self.next_id, self.next_seq);
        self.next_seq += 1;
        self.outbox.push_back(message);
        gateway
            .door(door)
            .bytes(&publish(self.number, message, false));
    }

    fn connect(&mut self, gateway: &mut Gateway, door: u64, now: Now) {
        assert!(gateway.door(door).connect(now));
        gateway
            .door(door)
            .bytes(&connect(&format!("device {}", self.number)));
        (self.door, self.is_in) = (Some(door), false);
    }

    fn gone(&mut self) {
        (self.door, self.is_in) = (None, false);
    }

    /// Takes in what the gateway says; gives it.
    fn hear(&mut self, gateway: &mut Gateway) -> Vec<u8> {
        let Some(door) = self.door else {
            return Vec::new();
        };
        let said = gateway.door(door).said();
        let mut rest = said.as_slice();
        while let [kind, 2, first, second, behind @ ..] = rest {
            rest = behind;
            match kind {
                0x20 => {
                    assert_eq!(*second, 0, "let in");
                    self.is_in = true;
                    for message in &self.outbox {
                        gateway
                            .door(door)
                            .bytes(&publish(self.number, *message, true));
                    }
                }
                0x40 => {
                    let id = u16::from_be_bytes([*first, *second]);
                    // One that was sent twice is acknowledged twice.
                    if let Some(place) = self.outbox.iter().position(|it| it.0 == id) {
                        self.acknowledged
                            .extend(self.outbox.remove(place).map(|it| it.1));
                    }
                }
                other => panic!("{other:02x}"),
            }
        }
        assert_eq!(rest, [0; 0]);
        if gateway.door(door).is_over() {
            self.gone();
        }
        said
    }
}

/// One run.
struct World {
    random: Random,
    disk: SimDisk,
    now: i64,
    devices: Vec<Device>,
    site: Site,
    doors: u64,
    trace: blake3::Hasher,
    turns: BTreeMap<&'static str, u64>,
    /// Disks as they were while something was acknowledged.
    shadows: Arc<Mutex<Vec<SimDisk>>>,
    shadows_seen: usize,
}

fn name_of(part: Part) -> &'static str {
    match part {
        Part::Door(_) => "door",
        Part::Commit => "commit",
        Part::Judge => "judge",
        Part::Keep => "keep",
        Part::Seal => "seal",
        Part::Uplink => "uplink",
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let devices = (0..DEVICES).map(|number| Device {
            number,
            ..Device::default()
        });
        Self {
            random: Random(seed * 2 + 1),
            disk: SimDisk::new(seed),
            now: 0,
            devices: devices.collect(),
            site: Site::new(),
            doors: 0,
            trace: blake3::Hasher::new(),
            turns: BTreeMap::new(),
            shadows: Arc::default(),
            shadows_seen: 0,
        }
    }

    /// Keeps the disk as it is at some of the acknowledgements.
    fn heard(&self) -> Heard {
        let (disk, shadows) = (self.disk.clone(), Arc::clone(&self.shadows));
        let heard = AtomicU32::new(0);
        Arc::new(move |_, _| {
            if heard.fetch_add(1, Ordering::Relaxed).is_multiple_of(16) {
                shadows.lock().unwrap().push(disk.fork(Salts::Other(7)));
            }
        })
    }

    fn open(&self) -> Gateway {
        open(&self.disk, Arc::new(Never), self.heard(), at(self.now))
    }

    /// One turn of one part that is due, or of the uplink, or some time passes; `None` when the
    /// power is off.
    fn step(&mut self, gateway: &mut Gateway) -> Option<()> {
        let now = at(self.now);
        if self.random.below(3) == 0 {
            let uplink = gateway.uplink();
            let done = self.site.step(uplink, self.now, &mut self.random);
            self.trace.update(done.as_bytes());
            return (!self.disk.is_off()).then_some(());
        }
        let due = gateway.due(now);
        let ready: Vec<_> = due.iter().filter(|(_, at)| *at <= self.now).collect();
        if ready.is_empty() {
            let next = due.iter().map(|(_, at)| *at).min();
            let some = self.now + 1 + self.random.below(20_000) as i64;
            self.now = next.map_or(some, |next| next.min(some));
            return Some(());
        }
        let (part, _) = *ready[self.random.below(ready.len() as u64) as usize];
        *self.turns.entry(name_of(part)).or_default() += 1;
        let turned = gateway.turn(part, now);
        let counts = self.disk.counts();
        let note = format!("{} {part:?} {counts:?}", self.now);
        self.trace.update(note.as_bytes());
        self.look_at_shadows(gateway);
        match turned {
            Ok(()) if !self.disk.is_off() => {}
            Ok(()) | Err(PipelineError::Stage(_) | PipelineError::Replay(_)) => {
                assert!(self.disk.is_off(), "{part:?}: {turned:?}");
                return None;
            }
            Err(error) => panic!("{error}"),
        }
        for place in 0..self.devices.len() {
            let said = self.devices[place].hear(gateway);
            self.trace.update(&said);
        }
        Some(())
    }

    /// Whatever was acknowledged is in the log of a machine that lost power at that instant.
    fn look_at_shadows(&mut self, gateway: &mut Gateway) {
        let committed = gateway.tap().committed;
        for shadow in std::mem::take(&mut *self.shadows.lock().unwrap()) {
            let last = committed
                .last()
                .expect("acknowledged, and not durable")
                .origin;
            let disk: Arc<dyn Disk> = Arc::new(shadow.crash(Survival::Nothing));
            let config = LogConfig {
                segment_bytes: SIZES.wal_segment_bytes,
                quota_bytes: 64 << 20,
                reserve_bytes: 0,
                kind: LogKind::Wal,
            };
            let life = Open::NewLife(LifeId([0xff; 16]));
            let log = tributary_journal::Log::open(disk, Path::new("/data/wal"), config, life);
            let lives = log.unwrap().reader.lives();
            let held = lives.iter().find(|span| span.life.0 == last.buffer.0);
            assert!(held.is_some_and(|span| span.end > last.number), "{held:?}");
            self.shadows_seen += 1;
        }
    }

    fn device_does_something(&mut self, gateway: &mut Gateway) {
        let place = self.random.below(DEVICES) as usize;
        let hangs_up = self.random.below(30) == 0;
        let now = at(self.now);
        let device = &mut self.devices[place];
        match device.door {
            None => {
                self.doors += 1;
                device.connect(gateway, self.doors, now);
            }
            Some(door) if hangs_up => {
                gateway.door(door).hang_up();
                device.gone();
            }
            Some(_) => device.send(gateway),
        }
    }

    /// A life that ends by a power cut, between two turns or at an operation of the disk.
    fn life(&mut self) {
        let mut gateway = self.open();
        let turns = match self.random.below(2) {
            0 => 20 + self.random.below(1_500),
            _ => {
                self.disk.power_off_after(self.random.below(400));
                u64::MAX
            }
        };
        for _ in 0..turns {
            if self.random.below(6) == 0 {
                self.device_does_something(&mut gateway);
            }
            if self.step(&mut gateway).is_none() {
                break;
            }
        }
    }

    fn cut(&mut self) {
        let survival = match self.random.below(3) {
            0 => Survival::Nothing,
            1 => Survival::RandomHalf(self.random.below(1 << 40)),
            _ => Survival::All,
        };
        self.disk = self.disk.crash(survival);
        self.devices.iter_mut().for_each(Device::gone);
        self.site.cut();
        self.now += 1_000_000;
    }

    /// The last life: everybody says what is left, and the gateway stops once all is acknowledged.
    fn heal(&mut self) {
        let mut gateway = self.open();
        for place in 0..self.devices.len() {
            self.doors += 1;
            self.devices[place].connect(&mut gateway, self.doors, at(self.now));
        }
        let is_quiet = |world: &Self| {
            let mut devices = world.devices.iter();
            devices.all(|device| device.is_in && device.outbox.is_empty())
        };
        let mut steps = 0;
        while !is_quiet(self) {
            self.step(&mut gateway).unwrap();
            steps += 1;
            assert!(steps < 100_000, "it is quiet at last");
        }
        gateway.stop();
        while !(gateway.has_ended() && self.site.is_drained()) {
            self.step(&mut gateway).unwrap();
            steps += 1;
            assert!(steps < 100_000, "it ends at last");
        }
    }
}

/// How often each reading stands in these batches: by device and number.
fn rows_of(batches: &[SealedBatch]) -> BTreeMap<(String, i64), u32> {
    let mut books: BTreeMap<BufferId, BTreeMap<u32, SeriesDef>> = BTreeMap::new();
    let mut rows = BTreeMap::new();
    let mut decoder = Decoder::new();
    let lane = |batch: &SealedBatch| batch.key().lane;
    for batch in batches.iter().filter(|it| lane(it) == Lane::Series) {
        if let Content::Series { base, defs } = batch.decode(&mut decoder).unwrap() {
            let book = books.entry(batch.key().buffer).or_default();
            book.extend((base..).zip(defs));
        }
    }
    for batch in batches.iter().filter(|it| lane(it) == Lane::Telemetry) {
        let Content::Readings(readings) = batch.decode(&mut decoder).unwrap() else {
            panic!("nothing is lost: {:?}", batch.key());
        };
        for row in readings.rows() {
            let series = &books[&batch.key().buffer][&row.series.0];
            let seq = row.meta.device_seq.unwrap();
            *rows.entry((series.device.to_string(), seq)).or_default() += 1;
        }
    }
    rows
}

/// How often each reading is in the spool, of which nothing went out yet.
fn sealed(gateway: &mut Gateway) -> BTreeMap<(String, i64), u32> {
    let spool = gateway.uplink().spool();
    let mut batches = Vec::new();
    for start in spool.lane_starts() {
        let LaneKey { buffer, lane } = start.key;
        let keys = (start.first..start.end).map(|number| BatchKey {
            buffer,
            lane,
            number,
        });
        batches.extend(keys.map(|key| spool.read(key).unwrap()));
    }
    rows_of(&batches)
}

/// What came of one run: its trace, how much was published, and which parts had how many turns.
fn run(seed: u64) -> (blake3::Hash, usize, BTreeMap<&'static str, u64>, usize) {
    let mut world = World::new(seed);
    for _ in 0..6 {
        world.life();
        world.cut();
    }
    world.heal();
    let rows = rows_of(&world.site.journal);
    let mut published = 0;
    for device in &world.devices {
        let name = format!("site/d{}", device.number);
        let mut acknowledged = device.acknowledged.clone();
        acknowledged.sort_unstable();
        assert_eq!(acknowledged, Vec::from_iter(0..device.next_seq), "{name}");
        for seq in 0..device.next_seq {
            let there = rows.get(&(name.clone(), seq)).copied();
            assert_eq!(there, Some(1), "seed {seed}: {name} {seq}");
        }
        published += acknowledged.len();
    }
    assert_eq!(rows.len(), published, "seed {seed}: and nothing else");
    let marked = &world.site.marked;
    assert_eq!(marked.len(), 0, "seed {seed}: a lie about {marked:?}");
    let hash = world.trace.finalize();
    (hash, published, world.turns, world.shadows_seen)
}

#[test]
fn whenever_the_power_fails_what_was_acknowledged_arrives_once() {
    let (mut published, mut shadows) = (0, 0);
    let mut turns: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..12 {
        let (_, more, of_parts, seen) = run(seed);
        published += more;
        shadows += seen;
        for (part, count) in of_parts {
            *turns.entry(part).or_default() += count;
        }
    }
    assert!(published > 1_000 && shadows > 20, "{published} {shadows}");
    assert!(
        turns.len() == 6 && turns.values().all(|count| *count > 100),
        "{turns:?}"
    );
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 20..23 {
        let (first, second, other) = (run(seed), run(seed), run(seed + 10));
        assert_eq!(first, second);
        assert_ne!(first.0, other.0);
    }
}
