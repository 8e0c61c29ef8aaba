//! `[[forward]]` over power cuts: what no window takes stands in its lane exactly once, and what
//! leaves as aggregates alone does not, and holds nothing up.

use super::*;
use crate::forward::ForwardRules;
use tributary_settings::Document;

const FORWARD: &str = "[[forward]]\nwhat = \"aggregates\"\n[[detect.window]]\nname = \"w\"\n\
                       kind = \"count\"\nreadings = 10\nmetrics = [\"m\"]\n";

fn forward() -> Forward {
    let mut document = Document::parse(FORWARD, "", []);
    let mut root = document.root();
    let rules = ForwardRules::read(&mut root, &crate::detect::Settings::default());
    let detect = Settings::read(&mut root.section("detect"));
    drop(root);
    assert!(document.finish().is_empty());
    Forward::new(&rules, &detect)
}

/// A number, which a window takes; a text; a number of a will; and one that no window is for.
fn mixed(seq: i64, dup: bool) -> Vec<u8> {
    let value = match seq % 4 {
        1 => format!("\"text {seq}\""),
        _ => format!("{seq}.5"),
    };
    let metric = if seq % 4 == 3 { "n" } else { "m" };
    Sent {
        device: 1,
        seq,
        dup,
        will: seq % 4 == 2,
        received: 1_700_000_000_000_000 + seq,
        topic: &format!("site/d/{metric}"),
        payload: &format!("{{\"value\":{value},\"seq\":{seq}}}"),
    }
    .write()
}

/// How often a reading of each message stands in the spool.
fn collect(life: &mut Life, seen: &mut BTreeMap<LaneKey, u64>, rows: &mut BTreeMap<i64, u32>) {
    for start in life.spool.lane_starts() {
        let next = seen.entry(start.key).or_default();
        let LaneKey { buffer, lane } = start.key;
        for number in *next..start.end {
            let key = BatchKey {
                buffer,
                lane,
                number,
            };
            let batch = life.spool.read(key).unwrap();
            if let Content::Readings(readings) = batch.decode(&mut Decoder::new()).unwrap() {
                for row in readings.rows() {
                    *rows.entry(row.meta.device_seq.unwrap()).or_default() += 1;
                }
            }
        }
        *next = start.end;
    }
}

fn run(seed: u64) {
    let mut disk = Arc::new(SimDisk::new(seed));
    let mut random = Random(seed * 2 + 1);
    let (mut acked, mut next) = (0, 0);
    let (mut seen, mut rows) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..6 {
        let last = number == 5;
        let dynamic: Arc<dyn Disk> = disk.clone();
        let (mut life, wal) = Life::open(&dynamic);
        life.stage.forward = forward();
        if !last {
            disk.power_off_after(5 + random.below(60));
        }
        let mut powered = life.replay(wal).is_some();
        while powered && (next < 40 * (number + 1) || (last && acked < next)) {
            life.now += 700;
            let from = acked;
            let fresh = if last { 0 } else { 1 + random.below(9) as i64 };
            let sent = (from..next).map(|seq| mixed(seq, true));
            let messages: Vec<_> = sent
                .chain((next..next + fresh).map(|seq| mixed(seq, false)))
                .collect();
            next += fresh;
            powered = life.commit(&messages).is_some();
            if powered {
                acked = next;
                powered = stored(life.stage.tick(life.now())).is_some();
            }
            if last {
                break;
            }
        }
        if last {
            life.stage.finish(life.now()).unwrap();
            let end = life.stage.position().unwrap();
            collect(&mut life, &mut seen, &mut rows);
            drop(life);
            let (again, _) = Life::open(&dynamic);
            assert_eq!(again.stage.position(), Some(end), "all is covered");
            break;
        }
        drop(life);
        disk = Arc::new(disk.crash(match random.below(2) {
            0 => Survival::Nothing,
            _ => Survival::RandomHalf(seed),
        }));
    }
    let expected = (0..next).filter(|seq| seq % 4 != 0).map(|seq| (seq, 1));
    assert_eq!(rows, expected.collect(), "seed {seed}");
    assert!(next > 30, "seed {seed}: {next}");
}

#[test]
fn whenever_the_power_fails_only_what_has_a_window_is_left_out() {
    (0..12).for_each(run);
}

#[test]
fn a_record_of_the_log_says_which_windows_there_are() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let (mut life, wal) = Life::open(&disk);
    life.stage.forward = forward();
    life.replay(wal).unwrap();
    life.commit(&[mixed(0, false), mixed(4, false)]).unwrap();
    let text = Settings::default().text();
    let without = [&[1], text.as_bytes()].concat();
    life.commit_as(RecordKind::Detection, &[without]).unwrap();
    life.commit(&[mixed(8, false), mixed(12, false)]).unwrap();
    life.stage.finish(life.now()).unwrap();
    let (mut seen, mut rows) = (BTreeMap::new(), BTreeMap::new());
    collect(&mut life, &mut seen, &mut rows);
    assert_eq!(rows, [(8, 1), (12, 1)].into());
}
