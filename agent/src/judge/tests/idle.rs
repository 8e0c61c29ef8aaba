//! Series that give way and come back, over crashes at every step of who writes.

use super::fast::{TENTH, TOPIC, noise};
use super::*;
use crate::judge::IdleRows;
use crate::seal::{JudgeStore, JudgeWriter};
use std::collections::BTreeMap;
use std::sync::Mutex;
use tributary_journal::{Checkpoints, Meter, Survival};

/// A store that loses nothing.
#[derive(Clone, Default)]
pub(super) struct Rows(Arc<Mutex<BTreeMap<u64, Vec<u8>>>>);

impl IdleRows for Rows {
    fn put(&mut self, number: u64, row: Vec<u8>) {
        self.0.lock().unwrap().insert(number, row);
    }

    fn get(&mut self, number: u64) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(&number).cloned()
    }

    fn gone(&mut self, number: u64, _: u64) {
        self.0.lock().unwrap().remove(&number);
    }
}

/// What a stage knows, its places numbered as one that was read has them.
fn bytes_of(judge: &Judge) -> Vec<u8> {
    let body = judge.known().unwrap().body;
    let judge = Judge::read_checkpoint(STORAGE, configurations, &body).unwrap();
    judge.known().unwrap().body
}

/// Told all from the log that is behind what the stage knows.
fn replay(judge: &mut Judge, log: &[(RecordKind, Vec<u8>)], said: &mut Vec<Said>) {
    let from = judge.position().map_or(0, |at| at.number);
    for (number, (kind, bytes)) in (from..).zip(&log[from as usize..]) {
        let buffer = BufferId::new(1, 7);
        judge.record(Origin { buffer, number }, kind.code(), bytes, NOW, said);
    }
}

fn log_of(steps: &[(u8, u8, u8)], every: i64, settings: &Settings) -> Vec<(RecordKind, Vec<u8>)> {
    let text = [&[VERSION], settings.text().as_bytes()].concat();
    let mut log = vec![
        (
            RecordKind::Configuration,
            Announcement(Rules::builtin().hash()).write(),
        ),
        (RecordKind::Detection, text),
    ];
    for (i, (device, metric, odd)) in steps.iter().enumerate() {
        let (at, number) = (i as i64 * every, i as i64);
        let off = if *odd == 0 { 90.0 } else { 0.0 };
        let mut bytes = Vec::new();
        Message {
            session: 1,
            qos: Qos::AtLeastOnce,
            dup: false,
            retain: false,
            v5: false,
            will: false,
            broker: false,
            packet_id: (i % 60_000 + 1) as u16,
            received_time: NOW + at,
            topic: &format!("d{device}/m{metric}"),
            properties: UserProperties::NONE,
            payload: format!("{{\"value\":{},\"ts\":{}}}", usual(number) + off, NOW + at)
                .as_bytes(),
        }
        .write(&mut bytes);
        log.push((RecordKind::Message, bytes));
    }
    log
}

/// The rows that a stage names, from the store that it has.
fn rows_of(judge: &mut Judge) -> Vec<Option<Vec<u8>>> {
    let (numbers, _) = judge.idle();
    let rows = judge.series.rows.as_mut().unwrap();
    numbers.into_iter().map(|number| rows.get(number)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn wherever_the_writer_is_cut_off_a_replay_comes_to_the_same(
        steps in proptest::collection::vec((0u8..3, 0u8..4, 0u8..50), 400..700),
        ends in proptest::collection::vec((1usize..90, 0u64..14, any::<bool>()), 4..24),
        series_max in 2usize..8,
        series_kept_max in 0usize..8,
        is_fast in any::<bool>(),
    ) {
        // Twelve series, of which each reports fast then, while it is watched.
        let every = if is_fast { SECOND / 20 } else { SECOND };
        let settings = Settings { series_max, series_kept_max, ..sensitive() };
        let log = log_of(&steps, every, &settings);
        let place = tempfile::tempdir().unwrap();
        let dir_of = |life: usize| place.path().join(format!("idle-{life}"));
        let mut calm = Judge::new(STORAGE, configurations(InForce::default()));
        calm = calm.keeping(Box::new(Rows::default()));
        let (mut disk, mut calm_said, mut at) = (SimDisk::new(1), Vec::new(), 0);
        let (mut it, mut life) = (Life::open(&disk, &dir_of(0)), 0);
        for (further, what, damaged) in ends {
            at = (at + further).min(log.len());
            replay(&mut calm, &log[..at], &mut calm_said);
            let from = it.judge.position().map_or(0, |at| at.number);
            let mut said = Vec::new();
            replay(&mut it.judge, &log[..at], &mut said);
            let same = calm_said.iter().filter(|said| said.origin.number >= from);
            prop_assert_eq!(said.iter().collect::<Vec<_>>(), same.collect::<Vec<_>>());
            it.store.keep(it.judge.known().unwrap());
            let goes_on = match what {
                // The writer comes to its end, or the disk refuses.
                0..=4 => true,
                5 => {
                    disk.fail_writes(1);
                    true
                }
                // The rows are durable, and the power goes somewhere behind that.
                6..=12 => {
                    disk.power_off_after(3 * (what - 6));
                    false
                }
                // Nobody came to write anything.
                _ => false,
            };
            if what < 13 {
                prop_assert!(it.writer.step());
                it.store.hear(i64::from(u32::MAX));
            }
            if goes_on {
                continue;
            }
            prop_assert_eq!(it.judge.counts().lost, 0);
            // As it is while the process has it open.
            copy(&dir_of(life), &dir_of(life + 1));
            life += 1;
            drop(it);
            disk = match what % 3 {
                0 => disk.crash(Survival::Nothing),
                1 => disk.crash(Survival::RandomHalf(what)),
                _ => disk.kill(),
            };
            if damaged {
                damage_newest(&disk);
            }
            it = Life::open(&disk, &dir_of(life));
            let rows = rows_of(&mut it.judge);
            prop_assert!(rows.iter().all(Option::is_some), "what a checkpoint names is there");
            replay(&mut it.judge, &log[..at], &mut Vec::new());
            prop_assert_eq!(bytes_of(&it.judge), bytes_of(&calm));
            prop_assert_eq!(rows_of(&mut it.judge), rows_of(&mut calm));
        }
        prop_assert_eq!(it.judge.counts().lost, 0);
        prop_assert_eq!(calm.counts().lost, 0);
    }
}

pub(super) fn keeping(series_max: usize, series_kept_max: usize) -> (Told, Rows) {
    let rows = Rows::default();
    let mut told = Told::new(&Settings {
        series_max,
        series_kept_max,
        ..sensitive()
    });
    let judge = std::mem::replace(
        &mut told.judge,
        Judge::new(STORAGE, configurations(InForce::default())),
    );
    told.judge = judge.keeping(Box::new(rows.clone()));
    (told, rows)
}

#[test]
fn a_series_that_gave_way_is_known_when_it_speaks_again_and_its_alert_stands_meanwhile() {
    let (mut told, rows) = keeping(1, 2);
    seconds(&mut told, 0..150);
    told.message(150, "site/pump/t", &value(150, 95.0));
    told.said.clear();
    told.message(151, "other/t", &value(151, 1.0));
    assert_eq!((told.said.len(), told.judge.standing().count()), (0, 1));
    seconds(&mut told, 152..214);
    assert_eq!(told.told("cleared").len(), 1, "it learned nothing anew");
    let counts = told.judge.counts();
    assert_eq!(
        (counts.gave_way, counts.taken_back, counts.forgotten),
        (2, 1, 0)
    );
    told.message(214, "site/pump/t", &value(214, 300.0));
    assert_eq!(told.raised().len(), 1);
    // What was kept is gone, or another's: the series learns anew, and its alert is over in time.
    told.said.clear();
    told.message(215, "other/t", &value(215, 1.0));
    for row in rows.0.lock().unwrap().values_mut() {
        row[3] ^= 1;
    }
    seconds(&mut told, 216..280);
    assert_eq!(
        (told.judge.counts().lost, told.told("cleared").len()),
        (1, 1)
    );
}

#[test]
fn a_fast_series_that_gave_way_is_judged_on_windows_as_before() {
    let (mut told, _) = keeping(2, 4);
    told.tenths(0..2_000);
    told.message(200, "a/t", "1");
    told.message(200, "b/t", "1");
    assert_eq!((told.judge.fast(), told.judge.watched()), (0, 2));
    told.tenths(2_010..2_300);
    let counts = told.judge.counts();
    assert_eq!(
        (counts.taken_back, counts.paces),
        (1, 1),
        "it learned nothing anew"
    );
    assert_eq!((told.said.len(), told.judge.fast()), (0, 1));
    told.reading_at(2_300 * TENTH, TOPIC, 95.0);
    told.tenths(2_301..2_316);
    let [alert] = told.raised_of("t").try_into().unwrap();
    assert_eq!(alert["window"]["from"], "2023-11-14T22:17:10.000000Z");
    // Slower settings that came meanwhile: what it knows is of windows.
    told.message(240, "a/t", "1");
    told.message(240, "b/t", "1");
    let by_readings = Settings {
        fast: crate::detect::FastMode::Readings,
        series_max: 2,
        series_kept_max: 4,
        ..sensitive()
    };
    told.settings(&by_readings);
    told.said.clear();
    told.tenths(2_410..2_500);
    told.reading_at(2_500 * TENTH, TOPIC, 95.0);
    assert_eq!((told.raised().len(), told.judge.counts().paces), (0, 2));
}

#[test]
fn a_devices_own_peak_to_peak_that_gave_way_stays_its_own() {
    let (mut told, _) = keeping(2, 4);
    let own = "site/pump/t.peak_to_peak";
    for second in 0..150 {
        told.message(second, own, &value(second, usual(second)));
    }
    told.message(150, "a/t", "1");
    told.message(150, "b/t", "1");
    told.settings(&Settings {
        series_max: 8,
        series_kept_max: 4,
        ..sensitive()
    });
    told.tenths(1_510..1_710);
    let counts = told.judge.counts();
    assert_eq!((counts.taken_back, told.judge.fast()), (1, 1));
    // It was judged as its device's own, and not at all by how far others are apart.
    told.reading_at(1_710 * TENTH, own, noise(1) + 70.0);
    let [alert] = told.raised().try_into().unwrap();
    assert_eq!(alert["metric"], "t.peak_to_peak");
    assert_eq!(alert["window"], serde_json::Value::Null);
    let earliest = alert["around"][0][1].as_f64().unwrap();
    assert!((earliest - usual(146)).abs() < 1e-9, "{alert}");
}

#[test]
fn the_one_that_gave_way_longest_ago_is_forgotten_and_so_is_its_alert() {
    let (mut told, _) = keeping(1, 1);
    seconds(&mut told, 0..150);
    told.message(150, "site/pump/t", &value(150, 95.0));
    told.said.clear();
    told.message(151, "b/t", &value(151, 1.0));
    assert_eq!(told.said, []);
    told.message(152, "c/t", &value(152, 1.0));
    assert_eq!(told.said.len(), 1);
    assert_eq!(told.said[0].what, What::Forgotten);
    let counts = told.judge.counts();
    assert_eq!((counts.gave_way, counts.forgotten), (2, 1));
    assert_eq!(
        (told.judge.idle_len(), told.judge.standing().count()),
        (1, 0)
    );
}

#[test]
fn what_a_device_has_beyond_its_share_costs_nobody_what_is_kept() {
    let (mut told, _) = keeping(40, 60);
    for device in 0..60 {
        told.message(0, &format!("d{device}/t"), "1");
    }
    assert_eq!(told.judge.idle_len(), 20);
    for metric in 0..1_000 {
        told.message(1, &format!("chatter/m{metric}"), "1");
    }
    let (numbers, _) = told.judge.idle();
    assert_eq!(
        numbers.first(),
        Some(&0),
        "the first that gave way is still known"
    );
    assert!(told.judge.idle_len() < 60);
}

#[test]
fn what_another_series_of_the_same_key_left_is_neither_taken_nor_cleared_in_its_name() {
    let (mut told, rows) = keeping(1, 2);
    seconds(&mut told, 0..150);
    told.message(150, "site/pump/t", &value(150, 95.0));
    told.message(151, "other/t", &value(151, 1.0));
    told.said.clear();
    for row in rows.0.lock().unwrap().values_mut() {
        let name = row.windows(4).position(|bytes| bytes == b"pump").unwrap();
        row[name] = b'l';
    }
    // As if the series that gave way had another name, and the same key.
    let idle = &mut told.judge.series.idle;
    let mut bytes = Vec::new();
    idle.write(&mut bytes);
    let name = bytes.windows(4).position(|bytes| bytes == b"pump").unwrap();
    bytes[name] = b'l';
    *idle = super::super::idle::Idle::read(2, &mut bytes.as_slice()).unwrap();
    let series = &mut told.judge.series;
    assert_eq!(series.standings.iter().count(), 1);
    let moment = Moment {
        origin: Origin {
            buffer: BufferId::new(1, 7),
            number: 200,
        },
        received: NOW + 200 * SECOND,
        now: NOW + 200 * SECOND,
        reading: (0, 0),
        skew: 0,
    };
    let taken = series.take_back(("site/pump", "t"), moment, &mut told.said);
    let taken = taken.unwrap();
    assert_eq!((taken.alerted, taken.quiet), (false, u8::MAX));
    assert_eq!(told.judge.counts().lost, 1);
    assert_eq!(told.said.len(), 1);
    assert_eq!(told.said[0].what, What::Forgotten);
    assert!(
        told.said[0].topic.contains("lump"),
        "{}",
        told.said[0].topic
    );
}

#[test]
fn a_topic_whose_series_a_replay_knows_no_more_is_empty_behind_it() {
    const ALERTS: &str = "tributary/alerts/site/pump/t";
    let (mut told, _) = keeping(1, 2);
    seconds(&mut told, 0..150);
    told.message(150, "other/t", &value(150, 1.0));
    let known = told.judge.known().unwrap();
    let body = known.body;
    // This life knows the series as it speaks again, and tells an alert that brokers retain.
    let log: Vec<_> = [(151, usual(151)), (152, 95.0), (153, usual(153))].into();
    let tell = |judge: &mut Judge, said: &mut Vec<Said>| {
        for (number, (second, off)) in (told.number..).zip(&log) {
            let mut bytes = Vec::new();
            Message {
                session: 1,
                qos: Qos::AtLeastOnce,
                dup: false,
                retain: false,
                v5: false,
                will: false,
                broker: false,
                packet_id: (number % 60_000 + 1) as u16,
                received_time: NOW + second * SECOND,
                topic: "site/pump/t",
                properties: UserProperties::NONE,
                payload: value(*second, *off).as_bytes(),
            }
            .write(&mut bytes);
            let step = Replayed::Record {
                life: tributary_journal::LifeId(told.buffer.0),
                number,
                kind: RecordKind::Message.code(),
                bytes: bytes.into(),
            };
            judge.replayed(&step, NOW, said);
        }
    };
    let mut said = Vec::new();
    tell(&mut told.judge, &mut said);
    assert_eq!((said.len(), told.judge.standing_len()), (1, 1), "{said:?}");
    // The next one finds no row of it, so it never says that the alert is over.
    let next = Judge::read_checkpoint(STORAGE, configurations, &body).unwrap();
    let mut next = next.keeping(Box::new(Rows::default()));
    tell(&mut next, &mut Vec::new());
    assert_eq!((next.counts().lost, next.standing_len()), (1, 0));
    let over: Vec<_> = next.over().collect();
    assert_eq!(over, [(ALERTS, "")], "what is retained elsewhere is ended");
}

/// The files of a process that was killed right now.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("blobs")).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

/// A life of the stage, and who writes what it knows, without a thread.
struct Life {
    judge: Judge,
    store: JudgeStore,
    writer: JudgeWriter,
}

const CHECKPOINTS: &str = "/checkpoint";

/// Damages the newest of at least two checkpoints; whether it did.
fn damage_newest(disk: &SimDisk) -> bool {
    let names = disk.list(Path::new(CHECKPOINTS)).unwrap_or_default();
    let mut names: Vec<_> = names.iter().filter(|it| it.ends_with(".ckpt")).collect();
    names.sort();
    let newest = names.pop().filter(|_| !names.is_empty());
    if let Some(newest) = newest {
        // One that was damaged before stays so.
        let file = disk.open(&Path::new(CHECKPOINTS).join(newest)).unwrap();
        file.write_at(b"damaged", 60).unwrap();
        file.sync_data().unwrap();
    }
    newest.is_some()
}

impl Life {
    fn open(disk: &SimDisk, dir: &Path) -> Self {
        let disk = Arc::new(disk.clone());
        let checkpoints = Checkpoints::open(disk, Path::new(CHECKPOINTS), "judge").unwrap();
        let held = checkpoints.valid();
        let others = held.iter().any(|held| Known::names_rows(&held.body));
        let judge = held.first().map(|held| {
            let known = Known::unpack(&held.body).unwrap();
            Judge::read_checkpoint(STORAGE, configurations, &known.body).unwrap()
        });
        let older = held.get(1).map(|it| Known::position(&it.body).unwrap());
        let judge =
            judge.unwrap_or_else(|| Judge::new(STORAGE, configurations(InForce::default())));
        let (store, writer) = JudgeStore::new(checkpoints, (judge.position(), older));
        let (rows, idle) = crate::idle::open(dir, judge.idle(), others, Meter::default()).unwrap();
        Self {
            judge: judge.keeping(Box::new(rows)),
            store,
            writer: writer.with_idle(Some(idle)),
        }
    }
}

#[test]
fn in_sled_what_is_known_comes_through_starts_that_nobody_prepared() {
    let mixed = |i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let steps: Vec<_> = (0..3_000)
        .map(|i| {
            let mixed = mixed(i);
            ((mixed % 3) as u8, (mixed / 3 % 4) as u8, (i % 97) as u8)
        })
        .collect();
    let settings = Settings {
        series_max: 4,
        series_kept_max: 7,
        ..sensitive()
    };
    let log = log_of(&steps, SECOND, &settings);
    let place = tempfile::tempdir().unwrap();
    let mut calm = Judge::new(STORAGE, configurations(InForce::default()));
    calm = calm.keeping(Box::new(Rows::default()));
    let (mut disk, mut said) = (SimDisk::new(1), Vec::new());
    let (mut taken_back, mut damaged, mut refused, mut cut) = (0, 0, 0, 0);
    for life in 0..20_usize {
        let dir = place.path().join(format!("idle-{life}"));
        let mut it = Life::open(&disk, &dir);
        for part in 1..=4 {
            let end = (life * 140 + part * 40).min(log.len());
            replay(&mut calm, &log[..end], &mut said);
            replay(&mut it.judge, &log[..end], &mut Vec::new());
            assert_eq!(bytes_of(&it.judge), bytes_of(&calm), "life {life}");
            it.store.keep(it.judge.known().unwrap());
            match mixed((life * 4 + part) as u64) % 8 {
                // The power goes somewhere in the writing, or the disk refuses.
                what @ 0..=2 if part == 4 => {
                    disk.power_off_after(5 * what);
                    cut += 1;
                }
                3 | 4 => {
                    disk.fail_writes(1);
                    refused += 1;
                }
                // Nobody comes to write it.
                5 if part == 4 => break,
                _ => {}
            }
            assert!(it.writer.step());
            it.store.hear(i64::from(u32::MAX));
        }
        assert_eq!(it.judge.counts().lost, 0, "life {life}");
        taken_back += it.judge.counts().taken_back;
        copy(&dir, &place.path().join(format!("idle-{}", life + 1)));
        disk = match life % 2 {
            0 => disk.crash(Survival::RandomHalf(life as u64)),
            _ => disk.kill(),
        };
        damaged += usize::from(life % 3 == 2 && damage_newest(&disk));
    }
    assert!(taken_back > 500, "{taken_back}");
    assert!(
        damaged > 3 && refused > 3 && cut > 3,
        "{damaged} {refused} {cut}"
    );
}

/// Eleven series in turn where ten are watched: LRU would have each push out the next.
#[test]
fn series_that_push_each_other_out_do_so_within_bounds_and_the_others_are_judged() {
    use crate::limits::{SERIES_TURNS_BURST, SERIES_TURNS_PER_SECOND};
    const IN_TURN: u64 = 11;
    let (mut calm, _) = keeping(10, 100);
    let (mut told, rows) = keeping(10, 100);
    let mut sent = 0;
    let mut send = |second: i64, upto: u64| {
        let before = (calm.judge.counts(), sent);
        while sent < upto {
            let topic = format!("d{}/t", sent % IN_TURN);
            for told in [&mut calm, &mut told] {
                told.publish_at(second * SECOND, &topic, "1", 1, false);
            }
            sent += 1;
            if sent % 9_999 == 0 {
                let bytes = told.judge.known().unwrap().body;
                let judge = Judge::read_checkpoint(STORAGE, configurations, &bytes).unwrap();
                told.judge = judge.keeping(Box::new(rows.clone()));
            }
        }
        let counts = calm.judge.counts();
        let readings = sent - before.1;
        let no_turn = counts.no_turn - before.0.no_turn;
        let judged = counts.judged - before.0.judged;
        assert_eq!(judged + no_turn, readings, "each is one of the two");
        assert_eq!(
            bytes_of(&calm.judge),
            bytes_of(&told.judge),
            "a function of the log"
        );
        (counts.gave_way - before.0.gave_way, no_turn, readings)
    };
    let (gave_way, no_turn, _) = send(0, SERIES_TURNS_BURST + 5_000);
    assert_eq!(gave_way, SERIES_TURNS_BURST);
    // Whoever finds no turn is the only one: the others find their place.
    assert!((400..500).contains(&no_turn), "{no_turn}");
    let (gave_way, no_turn, readings) = send(1, SERIES_TURNS_BURST + 10_000);
    assert_eq!(gave_way, SERIES_TURNS_PER_SECOND);
    assert!(no_turn <= readings / IN_TURN, "{no_turn}");
    // Slowly enough each has its turn.
    let (gave_way, no_turn, readings) = send(60, SERIES_TURNS_BURST + 15_000);
    assert_eq!(no_turn, 0);
    assert!(gave_way + IN_TURN >= readings, "{gave_way}");
}
