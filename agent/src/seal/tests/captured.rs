//! Captures over power cuts: what an alert asks for stands in its lane exactly once, and nothing
//! else that leaves as aggregates does.

use super::*;
use crate::alert::{AlertId, AlertState};
use crate::capture::CaptureRecord;
use crate::checkpoint::Checkpoint;
use crate::forward::{Announced, ForwardRules};
use crate::judge::{Judge, Said, What};
use std::collections::BTreeSet;
use tributary_settings::Document;

mod rules;

const FORWARD: &str = "[[forward]]\nwhat = \"aggregates+raw-on-anomaly\"\n\
                       [[detect.window]]\nname = \"w\"\nkind = \"count\"\n\
                       readings = 10\nmetrics = [\"m\"]\n[capture]\npre_s = 20\npost_s = 20\n";
type Records = Vec<(RecordKind, Vec<u8>)>;

const SECOND: i64 = 1_000_000;
const BEGIN: i64 = 1_700_000_000 * SECOND;
const DEVICES: u64 = 3;
const SEGMENT_BYTES: u64 = 16 * 1024;

fn forward(text: &str, ring_bytes: u64) -> Forward {
    let mut document = Document::parse(text, "", []);
    let mut root = document.root();
    let rules = ForwardRules::read(&mut root, &crate::detect::Settings::default());
    let detect = Settings::read(&mut root.section("detect"));
    drop(root);
    assert!(document.finish().is_empty());
    Forward::new(&rules.with_ring(ring_bytes), &detect)
}

fn open(disk: &Arc<dyn Disk>, forward: Forward) -> (Life, LogReader) {
    let letters = log_config(LogKind::DeadLetter, WAL_SEGMENT_BYTES);
    let sizes = (SEGMENT_BYTES, 4 * 1024, 4 << 20);
    Life::open_forwarding(disk, &Rules::builtin(), sizes, (letters, None), forward)
}

/// What a life says of what it forwards.
fn says(forward: &Forward) -> (RecordKind, Vec<u8>) {
    let announced = Announced(forward.fingerprint());
    (RecordKind::Forward, announced.write())
}

/// A life begins: replays the log, and says by what it forwards.
fn begin(life: &mut Life, wal: LogReader) -> Option<()> {
    life.replay(wal)?;
    let record = says(&life.stage.forward);
    life.commit_records(&[record])
}

/// A reading a second of a device, which comes at once.
fn reading(device: u64, seq: i64, dup: bool) -> Vec<u8> {
    reading_at(device, seq, (seq, dup))
}

/// One that comes at another second.
fn reading_at(device: u64, seq: i64, (second, dup): (i64, bool)) -> Vec<u8> {
    of_value(device, seq, (second, dup), seq as f64 + 0.5)
}

fn of_value(device: u64, seq: i64, (second, dup): (i64, bool), value: f64) -> Vec<u8> {
    let topic = format!("site/d{device}/m");
    of_topic(&topic, device, seq, (second, dup), value)
}

fn of_topic(topic: &str, device: u64, seq: i64, (second, dup): (i64, bool), value: f64) -> Vec<u8> {
    let ts = BEGIN + seq * SECOND;
    Sent {
        device,
        seq,
        dup,
        will: false,
        received: BEGIN + second * SECOND + 3,
        topic,
        payload: &format!("{{\"value\":{value},\"seq\":{seq},\"ts\":{ts}}}"),
    }
    .write()
}

/// What an alert asks for: of which device, because of which reading, when that was received, and
/// the seconds from one to another.
type Ask = (u64, (i64, i64), (i64, i64));

fn asks((device, (seq, received), (from, to)): Ask) -> Vec<u8> {
    let at = |second: i64| BEGIN + second * SECOND;
    let mut alert = [device as u8; 16];
    alert[..8].copy_from_slice(&seq.to_le_bytes());
    CaptureRecord {
        alert: AlertId(alert),
        received: at(received) + 3,
        event: at(seq),
        from: at(from),
        to: at(to),
        // As pieces before an alert are not.
        is_last: to > seq,
        device: &format!("site/d{device}"),
    }
    .write()
}

/// How often each reading stands in the spool, by device and number.
#[derive(Default)]
struct Lake {
    rows: BTreeMap<(u64, i64), u32>,
    books: BTreeMap<BufferId, Vec<SeriesDef>>,
    seen: BTreeMap<LaneKey, u64>,
    batches: usize,
}

impl Lake {
    fn collect(&mut self, life: &mut Life) -> Option<()> {
        let mut starts = life.spool.lane_starts();
        starts.sort_by_key(|start| start.key.lane != Lane::Series);
        for start in starts {
            let LaneKey { buffer, lane } = start.key;
            let next = self.seen.entry(start.key).or_default();
            for number in *next..start.end {
                let key = BatchKey {
                    buffer,
                    lane,
                    number,
                };
                let batch = life.spool.read(key).ok()?;
                *next = number + 1;
                match batch.decode(&mut Decoder::new()).unwrap() {
                    Content::Series { defs, .. } => {
                        self.books.entry(buffer).or_default().extend(defs);
                    }
                    Content::Readings(readings) => {
                        self.batches += 1;
                        for row in readings.rows() {
                            let name = &self.books[&buffer][row.series.0 as usize].device;
                            let device = name.strip_prefix("site/d").unwrap().parse().unwrap();
                            let key = (device, row.meta.device_seq.unwrap());
                            *self.rows.entry(key).or_default() += 1;
                        }
                    }
                    Content::Gap(gap) => panic!("{gap:?}"),
                }
            }
        }
        Some(())
    }

    fn numbers_of(&self, device: u64) -> Vec<i64> {
        let rows = self.rows.iter().filter(|((of, _), _)| *of == device);
        let rows = rows.inspect(|(key, count)| assert_eq!(**count, 1, "{key:?}"));
        rows.map(|((_, seq), _)| *seq).collect()
    }

    /// Of each device these, as far as they were measured, and no others; how many that are.
    fn holds(&self, wanted: [BTreeSet<i64>; 3], next: &[i64; 3], seed: u64) -> usize {
        let mut count = 0;
        for ((device, wanted), next) in (0..).zip(wanted).zip(next) {
            let wanted: Vec<i64> = wanted
                .into_iter()
                .filter(|seq| (0..*next).contains(seq))
                .collect();
            assert_eq!(
                self.numbers_of(device),
                wanted,
                "seed {seed}, device {device}"
            );
            count += wanted.len();
        }
        count
    }
}

/// A disk on which a checkpoint says what is forwarded: where nothing does, captures look at
/// nothing.
fn begun(seed: u64) -> Arc<SimDisk> {
    let disk = Arc::new(SimDisk::new(seed));
    let dynamic: Arc<dyn Disk> = disk.clone();
    let (mut life, wal) = open(&dynamic, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    life.commit(&[reading(7, 0, false)]).unwrap();
    life.stage.tick(life.now()).unwrap();
    disk
}

/// Lives that end by a power cut, and captures that overlap, come twice, and come late.
fn run(seed: u64) -> (usize, usize) {
    let mut disk = begun(seed);
    let mut random = Random(seed * 2 + 1);
    let (mut acked, mut next) = ([0_i64; 3], [0_i64; 3]);
    // What was asked for, and whether the log has it for certain.
    let (mut asked, mut owed) = (Vec::<Ask>::new(), Vec::<Ask>::new());
    let mut lake = Lake::default();
    for number in 0..8 {
        let last = number == 7;
        let dynamic: Arc<dyn Disk> = disk.clone();
        let (mut life, wal) = open(&dynamic, forward(FORWARD, 64 << 20));
        if !last {
            disk.power_off_after(5 + random.below(120));
        }
        let mut powered = begin(&mut life, wal).is_some();
        let mut sent = acked;
        for _ in 0..40 {
            if !powered {
                break;
            }
            life.now += 700;
            let device = random.below(DEVICES);
            let place = device as usize;
            // Some devices are behind the others.
            let second = next.into_iter().max().unwrap();
            let of = |seq, dup| (RecordKind::Message, reading_at(device, seq, (second, dup)));
            let resent = sent[place]..next[place];
            let mut records: Vec<_> = resent.map(|seq| of(seq, true)).collect();
            for _ in 0..random.below(9) {
                records.push(of(next[place], false));
                next[place] += 1;
            }
            sent[place] = next[place];
            if random.below(5) == 0 && next[place] > 0 {
                let seq = next[place] - 1 - random.below(3) as i64;
                let from = seq - random.below(12) as i64;
                let to = seq + 1 + random.below(9) as i64;
                // In pieces, each of which may be in the log or not when the power fails.
                let piece = 1 + random.below(12) as i64;
                for at in (from..to).step_by(piece as usize) {
                    let times = (at, to.min(at + piece));
                    asked.push((device, (seq, second), times));
                    owed.push((device, (seq, second), times));
                }
            }
            // The judging stage asks until the log has it.
            let asking = owed.iter().filter(|_| random.below(3) > 0 || last);
            let asking: Vec<_> = asking.copied().collect();
            records.extend(asking.iter().map(|one| (RecordKind::Capture, asks(*one))));
            if records.is_empty() {
                continue;
            }
            powered = life.commit_records(&records).is_some();
            if powered {
                acked[place] = next[place];
                owed.retain(|one| !asking.contains(one));
                powered = stored(life.stage.tick(life.now())).is_some();
            }
            powered = powered && (random.below(4) > 0 || lake.collect(&mut life).is_some());
        }
        if last {
            for device in 0..DEVICES {
                let place = device as usize;
                let second = next.into_iter().max().unwrap();
                let resent =
                    (sent[place]..next[place]).map(|seq| reading_at(device, seq, (second, true)));
                life.commit(&resent.collect::<Vec<_>>()).unwrap_or(());
            }
            for one in owed.drain(..) {
                life.commit_as(RecordKind::Capture, &[asks(one)]).unwrap();
            }
            life.stage.finish(life.now()).unwrap();
            let end = life.stage.position();
            lake.collect(&mut life).unwrap();
            drop(life);
            let (again, _) = open(&dynamic, forward(FORWARD, 64 << 20));
            assert_eq!(again.stage.position(), end, "all is covered");
            break;
        }
        drop(life);
        disk = crash(&disk, &mut random, seed);
    }
    let wanted = [0, 1, 2].map(|device| {
        let of_device = asked.iter().filter(|(of, ..)| *of == device);
        let seconds = of_device.flat_map(|(_, _, (from, to))| *from..*to);
        seconds.collect()
    });
    let expected = lake.holds(wanted, &next, seed);
    (expected, next.iter().sum::<i64>() as usize - expected)
}

#[test]
fn whenever_the_power_fails_what_alerts_ask_for_is_stored_once_and_nothing_else() {
    let (captured, held_back) = (0..16)
        .map(run)
        .fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    assert!(captured > 300 && held_back > 300, "{captured}, {held_back}");
}

/// Readings of device 0 from one number to another, a second each.
fn send(life: &mut Life, numbers: std::ops::Range<i64>) {
    for from in numbers.clone().step_by(50) {
        life.now += 2_000;
        let to = numbers.end.min(from + 50);
        let messages: Vec<_> = (from..to).map(|seq| reading(0, seq, false)).collect();
        life.commit(&messages).unwrap();
        life.stage.tick(life.now()).unwrap();
    }
}

#[test]
fn the_log_is_kept_as_long_as_it_may_be_and_a_capture_has_what_is_there() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let ring_bytes = 4 * SEGMENT_BYTES;
    let (mut life, wal) = open(&disk, forward(FORWARD, ring_bytes));
    begin(&mut life, wal.clone()).unwrap();
    send(&mut life, 0..3_000);
    let held: u64 = wal.segments().iter().map(|segment| segment.bytes).sum();
    assert!((ring_bytes..ring_bytes * 3).contains(&held), "{held}");
    // After a restart it is all still there, and nothing of it is read as new.
    life.stage.finish(life.now()).unwrap();
    // The log's first record says what is forwarded.
    let first = wal.lives()[0].first as i64 - 1;
    assert!(first > 1_000, "{first}");
    let mut lake = Lake::default();
    lake.collect(&mut life).unwrap();
    drop(life);
    let dir = Path::new(DATA).join("ckpt");
    let held = Checkpoints::open(Arc::clone(&disk), &dir, "agent").unwrap();
    let needed = Checkpoint::read(&held.newest().unwrap().body)
        .unwrap()
        .needed;
    assert!(needed.unwrap().number > first as u64 + 200, "{needed:?}");
    let (mut life, wal) = open(&disk, forward(FORWARD, ring_bytes));
    begin(&mut life, wal.clone()).unwrap();
    assert_eq!(wal.lives()[0].first as i64 - 1, first);
    let record = asks((0, (2_999, 2_999), (0, 3_010)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    send(&mut life, 3_000..3_020);
    life.stage.finish(life.now()).unwrap();
    lake.collect(&mut life).unwrap();
    let captured = lake.numbers_of(0);
    assert_eq!(captured, (first..3_010).collect::<Vec<_>>());
}

#[test]
fn after_a_restart_the_index_reaches_back_before_anybody_asks_a_segment_at_a_time() {
    let text = FORWARD.replace("pre_s = 20", "pre_s = 600");
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut life, wal) = open(&disk, forward(&text, 64 << 20));
    begin(&mut life, wal).unwrap();
    send(&mut life, 0..3_000);
    life.stage.finish(life.now()).unwrap();
    let old = life.present;
    drop(life);
    let (mut life, wal) = open(&disk, forward(&text, 64 << 20));
    begin(&mut life, wal.clone()).unwrap();
    life.commit(&[reading(0, 3_000, false)]).unwrap();
    let reaches = |life: &Life| life.stage.captures.index.from().unwrap();
    assert_eq!(reaches(&life).buffer, life.present);
    let mut steps = 0;
    loop {
        let before = reaches(&life);
        life.stage.tick(life.now()).unwrap();
        let after = reaches(&life);
        if after == before {
            break;
        }
        let firsts = wal.segments().into_iter().map(|segment| Origin {
            buffer: BufferId(segment.life.0),
            number: segment.first,
        });
        assert_eq!(firsts.filter(|at| (after..before).contains(at)).count(), 1);
        steps += 1;
    }
    assert!(steps > 3, "{steps}");
    // As far as an alert of now would ask, and a segment: readings are a second apart.
    let from = reaches(&life);
    assert_eq!(from.buffer, old);
    assert!((2_000..2_391).contains(&from.number), "{from:?}");
    let record = asks((0, (3_000, 3_000), (2_400, 3_010)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    assert_eq!(reaches(&life), from);
    life.stage.finish(life.now()).unwrap();
    let mut lake = Lake::default();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), (2_400..3_001).collect::<Vec<_>>());
}

#[test]
fn no_repeat_is_captured_after_a_restart() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let mut lake = Lake::default();
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    send(&mut life, 0..10);
    life.stage.finish(life.now()).unwrap();
    drop(life);
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    // Sent once more with their numbers, as after a connection that was lost.
    let again: Vec<_> = (5..10).map(|seq| reading_at(0, seq, (11, true))).collect();
    life.commit(&again).unwrap();
    send(&mut life, 10..15);
    life.stage.finish(life.now()).unwrap();
    drop(life);
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    let record = asks((0, (14, 14), (0, 20)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    life.stage.finish(life.now()).unwrap();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), (0..15).collect::<Vec<_>>());
}

#[test]
fn a_capture_of_many_readings_is_several_batches_that_are_stored_together() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    send(&mut life, 0..10_000);
    let mut lake = Lake::default();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.batches, 0);
    let record = asks((0, (9_999, 9_999), (0, 10_100)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    life.stage.finish(life.now()).unwrap();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), (0..10_000).collect::<Vec<_>>());
    assert_eq!(lake.batches, 3);
}

#[test]
fn other_rules_end_captures_and_what_left_under_them_leaves_no_second_time() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let raw = forward("[[forward]]\nwhat = \"raw\"\n", 0);
    let mut lake = Lake::default();
    let (mut life, wal) = open(&disk, raw);
    begin(&mut life, wal).unwrap();
    send(&mut life, 0..20);
    life.now += 2_000;
    life.stage.tick(life.now()).unwrap();
    // None of it is in a checkpoint: the next life replays it, under its rules.
    lake.collect(&mut life).unwrap();
    drop(life);
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    send(&mut life, 20..40);
    let record = asks((0, (39, 39), (0, 50)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    send(&mut life, 40..45);
    life.stage.finish(life.now()).unwrap();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), (0..45).collect::<Vec<_>>());
    // Windows change with a record of the log: the capture is over.
    let other = FORWARD.replace("[\"m\"]", "[\"m\", \"o\"]");
    let text = {
        let mut document = Document::parse(&other, "", []);
        Settings::read(&mut document.root().section("detect")).text()
    };
    let bytes = [&[1], text.as_bytes()].concat();
    life.commit_as(RecordKind::Detection, &[bytes]).unwrap();
    send(&mut life, 45..60);
    let record = asks((0, (59, 59), (30, 55)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    life.stage.finish(life.now()).unwrap();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), (0..55).collect::<Vec<_>>());
}

#[test]
fn what_is_sealed_message_by_message_is_captured_once() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    life.commit(&[reading(0, 0, false)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    // Nothing of this is sealed, when it turns out that it can't be together.
    let messages = |seqs: std::ops::Range<i64>| {
        let readings = seqs.map(|seq| reading(0, seq, false));
        readings.collect::<Vec<_>>()
    };
    life.commit(&messages(1..10)).unwrap();
    for (seq, times) in [(9, (3, 15)), (9, (1, 12))] {
        let record = asks((0, (seq, seq), times));
        life.commit_as(RecordKind::Capture, &[record]).unwrap();
    }
    life.commit(&messages(10..20)).unwrap();
    let (under, now) = (life.stage.position().unwrap(), life.now());
    life.stage.seal_each(Lane::Telemetry, under, now).unwrap();
    life.stage.finish(life.now()).unwrap();
    let mut lake = Lake::default();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), (1..15).collect::<Vec<_>>());
}

/// A reading that no window takes.
fn raw_reading(device: u64, seq: i64) -> Vec<u8> {
    let topic = format!("site/d{device}/n");
    of_topic(&topic, device, seq, (seq, false), 0.5)
}

#[test]
fn a_capture_that_has_others_sealed_first_can_be_sealed_alone() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    send(&mut life, 0..100);
    // A lane that has no room left for what the record asks for.
    let many: Vec<_> = (0..4_050).map(|seq| raw_reading(1, seq)).collect();
    many.chunks(50).for_each(|some| life.commit(some).unwrap());
    let record = asks((0, (99, 99), (0, 110)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    let (under, now) = (life.stage.position().unwrap(), life.now());
    life.stage.seal_each(Lane::Telemetry, under, now).unwrap();
    life.stage.finish(life.now()).unwrap();
    let mut lake = Lake::default();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), (0..100).collect::<Vec<_>>());
    assert_eq!(lake.numbers_of(1), (0..4_050).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_takes_the_ring_before_it_stops_anything() {
    let sim = Arc::new(SimDisk::new(1));
    let disk: Arc<dyn Disk> = sim.clone();
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal.clone()).unwrap();
    send(&mut life, 0..3_000);
    let held = wal.segments().len();
    assert!(held > 10, "{held}");
    sim.set_free_bytes(0);
    let mut sent = 3_000;
    while wal.segments().len() >= held && sent < 6_000 {
        let message = reading(0, sent, false);
        if life.commit(&[message]).is_some() {
            sent += 1;
        }
        life.now += 2_000;
        life.stage.tick(life.now()).unwrap();
    }
    assert!(wal.segments().len() < held, "{sent}");
    send(&mut life, sent..sent + 50);
}

#[test]
fn a_record_that_says_nothing_is_a_dead_letter() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    life.commit_as(RecordKind::Capture, &[b"what".to_vec()])
        .unwrap();
    life.stage.finish(life.now()).unwrap();
    let reader = life.stage.dead.reader();
    let letters: u64 = reader
        .lives()
        .iter()
        .map(|span| span.end - span.first)
        .sum();
    assert_eq!(letters, 1);
}

const RULE: &str = "[detect]\npreset = \"sensitive\"\nweekly = false\n\
                    [[detect.rule]]\nname = \"wild\"\nkind = \"range\"\nmetric = \"m\"\n\
                    min = -10\nmax = 10\n";

fn ruled() -> String {
    // A table comes before the arrays in it.
    format!("{RULE}{FORWARD}").replace("pre_s = 20\npost_s = 20", "pre_s = 12\npost_s = 4")
}

/// A value that is too large now and then.
fn judged_reading(device: u64, seq: i64, (second, dup): (i64, bool)) -> Vec<u8> {
    let value = match (seq + device as i64 * 7) % 41 {
        40 => 50.0 + seq as f64,
        _ => (seq as f64 * 0.7).sin(),
    };
    of_value(device, seq, (second, dup), value)
}

fn new_judge(disk: &Arc<dyn Disk>, kept: &[u8], rules: &Arc<ForwardRules>) -> Judge {
    let configurations = configurations(disk);
    let mut judge = match kept {
        [] => Judge::new(b"agent", configurations(InForce::default())),
        kept => Judge::read_checkpoint(b"agent", configurations, kept).unwrap(),
    };
    judge.forward_by(rules);
    judge
}

fn announcements() -> Records {
    let settings = {
        let mut document = Document::parse(&ruled(), "", []);
        Settings::read(&mut document.root().section("detect"))
    };
    let mut records = announced(&settings);
    records.push(says(&forward(&ruled(), 64 << 20)));
    records
}

/// The stage that judges ahead of the log, and asks; what it keeps is of a place where all that it
/// judged is durable.
struct Asking {
    judge: Judge,
    next: u64,
    ahead: std::collections::VecDeque<(Records, usize, i64)>,
}

impl Asking {
    fn hand_in(&mut self, life: &Life, records: Records, (device, upto): (usize, i64)) {
        let mut said = Vec::new();
        for (kind, bytes) in &records {
            let origin = Origin {
                buffer: life.present,
                number: self.next,
            };
            self.next += 1;
            self.judge.record(origin, kind.code(), bytes, 0, &mut said);
        }
        self.ahead.push_back((records, device, upto));
    }

    /// Replays the log for both stages, and begins this life's.
    fn begin(&mut self, life: &mut Life, wal: LogReader) -> Option<()> {
        let from = self.judge.position();
        let from = from.map(|at| (LifeId(at.buffer.0), at.number));
        let mut replay = Replay::new(wal.clone(), from);
        while let Some(step) = replay.next_step().unwrap() {
            self.judge.replayed(&step, 0, &mut Vec::new());
        }
        let powered = life.replay(wal);
        self.hand_in(life, announcements(), (usize::MAX, 0));
        self.ask(life);
        powered
    }

    fn ask(&mut self, life: &Life) {
        while let Some(records) = self.judge.wanted() {
            self.judge.asked();
            let records = records.into_iter();
            let records = records.map(|bytes| (RecordKind::Capture, bytes)).collect();
            self.hand_in(life, records, (usize::MAX, 0));
        }
    }

    fn commit(&mut self, life: &mut Life, acked: &mut [i64]) -> Option<()> {
        let Some((records, device, upto)) = self.ahead.pop_front() else {
            return Some(());
        };
        life.commit_records(&records)?;
        if let Some(acked) = acked.get_mut(device) {
            *acked = upto;
        }
        stored(life.stage.tick(life.now()))
    }
}

/// What alerts of a log without a crash ask for: seconds, by device.
fn alerted(disk: &Arc<dyn Disk>, next: &[i64; 3]) -> [BTreeSet<i64>; 3] {
    let mut judge = new_judge(disk, &[], &Arc::default());
    let (mut said, mut number) = (Vec::new(), 0);
    let mut record = |kind: RecordKind, bytes: &[u8], said: &mut Vec<Said>| {
        let buffer = BufferId::new(99, 9);
        judge.record(Origin { buffer, number }, kind.code(), bytes, 0, said);
        number += 1;
    };
    for (kind, bytes) in announcements() {
        record(kind, &bytes, &mut said);
    }
    for (device, next) in (0..).zip(next) {
        for seq in 0..*next {
            let bytes = judged_reading(device, seq, (seq, false));
            record(RecordKind::Message, &bytes, &mut said);
        }
    }
    let mut wanted: [BTreeSet<i64>; 3] = Default::default();
    for said in said {
        if let What::Alert(spoken) = said.what
            && spoken.state == AlertState::Raised
        {
            let device: usize = spoken.device["site/d".len()..].parse().unwrap();
            let second = (spoken.meta.event_time - BEGIN) / SECOND;
            wanted[device].extend(second - 12..=second + 4);
        }
    }
    wanted
}

fn run_judged(seed: u64) -> usize {
    let mut disk = Arc::new(SimDisk::new(seed));
    let mut random = Random(seed * 2 + 1);
    let (mut acked, mut next) = ([0_i64; 3], [0_i64; 3]);
    let (mut kept, mut lake) = (Vec::new(), Lake::default());
    for number in 0..9 {
        let (first, last) = (number == 0, number == 8);
        let dynamic: Arc<dyn Disk> = disk.clone();
        let forwards = forward(&ruled(), 64 << 20);
        let mut asking = Asking {
            judge: new_judge(&dynamic, &kept, forwards.rules()),
            next: 0,
            ahead: Default::default(),
        };
        let (mut life, wal) = open(&dynamic, forwards);
        // The first one has a checkpoint, which says by which rules it forwards.
        if !last && !first {
            disk.power_off_after(10 + random.below(150));
        }
        let mut powered = asking.begin(&mut life, wal).is_some();
        let mut sent = acked;
        for _ in 0..if first { 3 } else { 40 } {
            if !powered {
                break;
            }
            life.now += 700;
            let device = random.below(DEVICES);
            let place = device as usize;
            let second = next.into_iter().max().unwrap();
            let of = |seq, dup| {
                let bytes = judged_reading(device, seq, (second, dup));
                (RecordKind::Message, bytes)
            };
            let resent = sent[place]..next[place];
            let mut records: Vec<_> = resent.map(|seq| of(seq, true)).collect();
            for _ in 0..random.below(9) {
                records.push(of(next[place], false));
                next[place] += 1;
            }
            sent[place] = next[place];
            if !records.is_empty() {
                asking.hand_in(&life, records, (place, next[place]));
            }
            if random.below(3) > 0 {
                asking.ask(&life);
            }
            while powered && asking.ahead.len() as u64 > random.below(5) {
                powered = asking.commit(&mut life, &mut acked).is_some();
            }
            if powered && asking.ahead.is_empty() && random.below(2) == 0 {
                kept.clear();
                asking.judge.write_checkpoint(&mut kept).unwrap();
            }
            powered = powered && (random.below(4) > 0 || lake.collect(&mut life).is_some());
        }
        if first || last {
            for device in (0..DEVICES).filter(|_| last) {
                let place = device as usize;
                let second = next.into_iter().max().unwrap();
                let resent = (sent[place]..next[place])
                    .map(|seq| judged_reading(device, seq, (second, true)));
                let resent = resent
                    .map(|bytes| (RecordKind::Message, bytes))
                    .collect::<Vec<_>>();
                if !resent.is_empty() {
                    asking.hand_in(&life, resent, (place, next[place]));
                }
            }
            asking.ask(&life);
            while !asking.ahead.is_empty() {
                asking.commit(&mut life, &mut acked).unwrap();
            }
            life.stage.finish(life.now()).unwrap();
            lake.collect(&mut life).unwrap();
        }
        if !last {
            drop(life);
            disk = crash(&disk, &mut random, seed);
        }
    }
    let dynamic: Arc<dyn Disk> = disk.clone();
    lake.holds(alerted(&dynamic, &next), &next, seed)
}

#[test]
fn whenever_the_power_fails_each_alert_is_asked_for_and_captured_once() {
    let captured: usize = (0..12).map(run_judged).sum();
    assert!(captured > 300, "{captured}");
}

/// A gateway whose clock nobody sets is once in 2090, and comes back: what is asked for before,
/// there and behind it is found, and once.
#[test]
fn a_visit_to_2090_leaves_no_reading_uncaptured_and_none_captured_twice() {
    const YEARS: i64 = 67 * 365 * 86_400;
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut life, wal) = open(&disk, forward(FORWARD, 64 << 20));
    begin(&mut life, wal).unwrap();
    let ahead = |seq: i64| if (100..160).contains(&seq) { YEARS } else { 0 };
    let mut asked = BTreeSet::new();
    for seq in 0..400 {
        life.now += SECOND;
        life.commit(&[reading_at(0, seq, (seq + ahead(seq), false))])
            .unwrap();
        // Before, as it is there, there, as it is back, and long after that.
        if [50, 105, 140, 165, 300].contains(&seq) {
            let received = seq + ahead(seq);
            for (from, to) in [(seq - 12, seq), (seq, seq + 5)] {
                let record = asks((0, (seq, received), (from, to)));
                life.commit_as(RecordKind::Capture, &[record]).unwrap();
                asked.extend(from..to);
            }
        }
        life.stage.tick(life.now()).unwrap();
    }
    life.stage.finish(life.now()).unwrap();
    let mut lake = Lake::default();
    lake.collect(&mut life).unwrap();
    assert_eq!(lake.numbers_of(0), asked.into_iter().collect::<Vec<_>>());
}
