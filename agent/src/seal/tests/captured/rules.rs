//! Lives with other rules of `[[forward]]` between others: what left raw is captured by none of
//! them, whatever of it a checkpoint or the log says when the power fails.

use super::*;

const RAW: &str = "[[forward]]\nwhat = \"raw\"\n";
const OTHER: &str = "[[forward]]\ndevices = [\"site/d1\"]\n\
                     what = \"aggregates+raw-on-anomaly\"\n\
                     [[detect.window]]\nname = \"w\"\nkind = \"count\"\n\
                     readings = 10\nmetrics = [\"m\"]\n";

fn by_rules() -> Forward {
    forward(FORWARD, 64 << 20)
}

/// A life under `FORWARD` that has a checkpoint, and then `between`; the next one captures all.
fn captured_after(between: impl FnOnce(&Arc<SimDisk>) -> Arc<SimDisk>) -> Vec<i64> {
    let sim = Arc::new(SimDisk::new(1));
    let disk: Arc<dyn Disk> = sim.clone();
    let (mut life, wal) = open(&disk, by_rules());
    begin(&mut life, wal).unwrap();
    send(&mut life, 0..10);
    life.stage.finish(life.now()).unwrap();
    // These are in no checkpoint, and wait.
    let waiting: Vec<_> = (10..20).map(|seq| reading(0, seq, false)).collect();
    life.commit(&waiting).unwrap();
    drop(life);
    let sim = between(&Arc::new(sim.crash(Survival::All)));
    let disk: Arc<dyn Disk> = sim;
    let (mut life, wal) = open(&disk, by_rules());
    begin(&mut life, wal).unwrap();
    send(&mut life, 40..50);
    let record = asks((0, (49, 49), (0, 60)));
    life.commit_as(RecordKind::Capture, &[record]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let mut lake = Lake::default();
    lake.collect(&mut life).unwrap();
    lake.numbers_of(0)
}

#[test]
fn what_a_life_left_raw_is_captured_by_no_other() {
    for raw in [Forward::default(), forward(RAW, 0)] {
        let captured = captured_after(|sim| {
            let disk: Arc<dyn Disk> = sim.clone();
            let (mut life, wal) = open(&disk, raw);
            begin(&mut life, wal).unwrap();
            // Not one checkpoint: all of it is sealed when the power fails.
            let messages: Vec<_> = (20..40).map(|seq| reading(0, seq, false)).collect();
            life.commit(&messages).unwrap();
            life.now += 2_000;
            life.commit(&[reading(1, 0, false)]).unwrap();
            drop(life);
            Arc::new(sim.crash(Survival::All))
        });
        assert_eq!(captured, (10..50).collect::<Vec<_>>());
    }
}

#[test]
fn what_a_life_left_raw_is_known_though_its_log_says_nothing() {
    // All that waits is sealed before the log has a record of this life.
    let seal_in_replay = |sim: &Arc<SimDisk>| {
        let disk: Arc<dyn Disk> = sim.clone();
        let (mut life, wal) = open(&disk, Forward::default());
        let from = life.stage.position().unwrap();
        let mut replay = Replay::new(wal, Some((LifeId(from.buffer.0), from.number)));
        while let Some(step) = replay.next_step().unwrap() {
            life.now += 2_000;
            life.stage.replayed(&step, life.now()).unwrap();
        }
        drop(life);
        Arc::new(sim.crash(Survival::All))
    };
    let expected: Vec<i64> = (10..20).chain(40..50).collect();
    assert_eq!(captured_after(seal_in_replay), expected);
    // Nor does its only checkpoint, which is damaged.
    let captured = captured_after(|sim| {
        let sim = seal_in_replay(sim);
        let dir = Path::new(DATA).join("ckpt");
        let held = sim.list(&dir).unwrap();
        let newest = held.into_iter().filter(|name| name.ends_with(".ckpt"));
        let file = sim.open(&dir.join(newest.max().unwrap())).unwrap();
        file.write_at(b"damaged", 60).unwrap();
        file.sync_data().unwrap();
        sim
    });
    assert_eq!(captured, expected);
}

/// Lives by any rules that end by a power cut; how many readings left.
fn run_by_rules(seed: u64) -> usize {
    let mut disk = begun(seed);
    let mut random = Random(seed * 2 + 1);
    let (mut acked, mut next) = ([0_i64; 3], [0_i64; 3]);
    let mut lake = Lake::default();
    for number in 0..9 {
        let last = number == 8;
        let dynamic: Arc<dyn Disk> = disk.clone();
        let rules = match random.below(4) {
            _ if last => by_rules(),
            0 => Forward::default(),
            1 => forward(OTHER, 64 << 20),
            _ => by_rules(),
        };
        let (mut life, wal) = open(&dynamic, rules);
        if !last {
            disk.power_off_after(2 + random.below(100));
        }
        let mut powered = begin(&mut life, wal).is_some();
        for _ in 0..30 {
            if !powered {
                break;
            }
            life.now += 700;
            let device = random.below(DEVICES);
            let place = device as usize;
            let second = next.into_iter().max().unwrap();
            let of = |seq, dup| (RecordKind::Message, reading_at(device, seq, (second, dup)));
            let resent = acked[place]..next[place];
            let mut records: Vec<_> = resent.map(|seq| of(seq, true)).collect();
            for _ in 0..random.below(9) {
                records.push(of(next[place], false));
                next[place] += 1;
            }
            if random.below(4) == 0 {
                let (from, to) = (next[place] - 40, next[place] + 5);
                let one = (device, (next[place], second), (from, to));
                records.push((RecordKind::Capture, asks(one)));
            }
            if records.is_empty() {
                continue;
            }
            powered = life.commit_records(&records).is_some();
            if powered {
                acked[place] = next[place];
                // A stage that is stopped before it looks at what is due.
                powered = random.below(3) == 0 || stored(life.stage.tick(life.now())).is_some();
            }
            powered = powered && (random.below(4) > 0 || lake.collect(&mut life).is_some());
        }
        if last {
            life.stage.finish(life.now()).unwrap();
            lake.collect(&mut life).unwrap();
        }
        drop(life);
        disk = crash(&disk, &mut random, seed);
    }
    (0..DEVICES)
        .map(|device| lake.numbers_of(device).len())
        .sum()
}

#[test]
fn whenever_the_power_fails_nothing_leaves_twice_though_rules_change() {
    let left: usize = (0..12).map(run_by_rules).sum();
    assert!(left > 300, "{left}");
}
