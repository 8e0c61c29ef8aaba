//! Power cuts and kills: whatever was appended is there, in order, once, and nothing else; and
//! what one open found, every later one finds.

use crate::small_log::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tributary_journal::{LifeId, LogError, LogReader, Open, Opened, SimDisk, Survival};

/// What a model knows of one life: entries acknowledged, and frames that may be in flight.
#[derive(Default, Clone, Debug)]
struct Model {
    acked: Vec<Vec<u8>>,
    /// Frames that were refused at this place: one of them may be found, or none.
    in_flight: Vec<Vec<Vec<u8>>>,
    trimmed_below: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Trim(u8),
    FailSync,
    FailWrite,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sizes = prop::collection::vec(prop_oneof![0..200_usize, 2000..6000_usize], 1..4);
    let step = prop_oneof![
        10 => sizes.prop_map(Step::Append),
        2 => any::<u8>().prop_map(Step::Trim),
        1 => Just(Step::FailSync),
        1 => Just(Step::FailWrite),
    ];
    prop::collection::vec(step, 1..60)
}

fn survival() -> impl Strategy<Value = Survival> {
    prop_oneof![
        Just(Survival::Nothing),
        any::<u64>().prop_map(Survival::RandomHalf),
        Just(Survival::All),
    ]
}

/// How a process ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The machine goes on.
    Killed,
    PowerCut(Survival),
}

impl Ending {
    fn of(self, disk: &SimDisk) -> SimDisk {
        match self {
            Self::Killed => disk.kill(),
            Self::PowerCut(survival) => disk.crash(survival),
        }
    }
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![Just(Ending::Killed), survival().prop_map(Ending::PowerCut),]
}

/// Runs the steps until the power goes or they end.
fn run(log: &mut Opened, disk: &SimDisk, model: &mut Model, steps: &[Step], seed: u64) {
    let life = log.writer.life();
    for (place, step) in steps.iter().enumerate() {
        match step {
            Step::Append(sizes) => {
                let bytes = |(i, size): (usize, &usize)| {
                    let mut bytes = format!("{seed}.{place}.{i}.").into_bytes();
                    bytes.resize(bytes.len() + size, place as u8);
                    bytes
                };
                let entries: Vec<Vec<u8>> = sizes.iter().enumerate().map(bytes).collect();
                let parts: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
                match log.writer.append(&frame(&parts)) {
                    Ok(appended) => {
                        assert_eq!(appended.first, model.acked.len() as u64);
                        model.acked.extend(entries);
                        model.in_flight.clear();
                    }
                    Err(_) => model.in_flight.push(entries),
                }
            }
            Step::Trim(share) => {
                let below = model.acked.len() as u64 * u64::from(*share) / 255;
                model.trimmed_below = model.trimmed_below.max(below);
                let _ = log.reader.trim(life, below);
            }
            Step::FailSync => disk.fail_next_sync(),
            Step::FailWrite => disk.fail_writes(1),
        }
    }
}

/// Compares what is read with what may be there. What was found in flight is there for good from
/// now on, and what was not is gone for good.
fn check(reader: &LogReader, life: LifeId, model: &mut Model) {
    let in_flight = std::mem::take(&mut model.in_flight);
    let span = reader.lives().into_iter().find(|span| span.life == life);
    let acked = model.acked.len() as u64;
    let Some(span) = span else {
        assert!(
            acked == model.trimmed_below,
            "life {life} lost: {acked} acknowledged"
        );
        return;
    };
    assert!(
        span.first <= model.trimmed_below,
        "lost from {} on",
        model.trimmed_below
    );
    let entries = read_all(reader, life, span.first, 10_000);
    assert_eq!(entries.len() as u64, span.end - span.first);
    let found: Vec<Vec<u8>> = entries.iter().map(|entry| entry.bytes.to_vec()).collect();
    let kept = (acked - span.first) as usize;
    assert!(
        found.len() >= kept,
        "{} of {acked} acknowledged are there",
        span.end
    );
    assert_eq!(found[..kept], model.acked[span.first as usize..]);
    let more = found[kept..].to_vec();
    assert!(
        more.is_empty() || in_flight.contains(&more),
        "{} entries from nowhere",
        more.len()
    );
    model.acked.extend(more);
    for (entry, number) in entries.iter().zip(span.first..) {
        assert_eq!(entry.number, number);
    }
}

/// A process that dies between the write of a frame and its fdatasync, which leaves the frame in
/// the page cache alone; with a failed fdatasync before, in clean pages.
fn killed_in_flight(sync_failed: bool) -> SimDisk {
    let disk = SimDisk::new(11);
    let mut log = open(&disk, Open::NewLife(life(1)));
    append_many(&mut log.writer, 3, 300);
    if sync_failed {
        // The frame's own segment, and the header of the one that was to take it.
        disk.fail_syncs(2);
        disk.set_full(true);
    } else {
        disk.power_off_after(0);
    }
    let refused = log.writer.append(&frame(&[&entry(3, 5000)]));
    assert!(refused.is_err());
    disk.kill()
}

#[test]
fn what_an_open_found_is_there_after_a_power_cut() {
    for sync_failed in [false, true] {
        for survival in [Survival::Nothing, Survival::RandomHalf(3), Survival::All] {
            for how in [Open::NewLife(life(2)), Open::SameLife { if_empty: life(1) }] {
                let disk = killed_in_flight(sync_failed);
                let log = open(&disk, how);
                assert_numbered(&read_all(&log.reader, life(1), 0, 999), 0, 4);
                let log = open(&disk.crash(survival), Open::NewLife(life(3)));
                assert_numbered(&read_all(&log.reader, life(1), 0, 999), 0, 4);
                assert!(log.recovery.damage.is_empty());
            }
        }
    }
}

#[test]
fn a_header_that_proves_damage_is_there_after_a_power_cut() {
    let disk = killed_in_flight(false);
    // The frame before is damaged, and so is the one in flight but for its header.
    let path = open(&disk, Open::NewLife(life(2))).reader.segments()[0]
        .path
        .clone();
    let frame_bytes = (24 + 3 + 300_u64).next_multiple_of(8);
    let disk = killed_in_flight(false);
    disk.flip_bit(&path, 4096 + 2 * frame_bytes + 99, 1);
    disk.flip_bit(&path, 4096 + 3 * frame_bytes + 999, 1);
    let found = open(&disk, Open::NewLife(life(2))).recovery;
    assert_eq!(found.damage[0].numbers, 2..3);
    let again = open(&disk.crash(Survival::Nothing), Open::NewLife(life(3)));
    assert_eq!(again.recovery.damage, found.damage);
    assert_eq!(again.reader.end(life(1)), Some(3));
}

#[test]
fn what_cannot_be_made_durable_is_not_believed() {
    for sync_failed in [false, true] {
        let disk = killed_in_flight(sync_failed);
        for _ in 0..3 {
            disk.fail_next_sync();
            let refused = try_open(&disk, config(), Open::NewLife(life(2)));
            assert!(matches!(refused, Err(LogError::Io { .. })), "{refused:?}");
        }
        disk.fail_dir_syncs(1);
        let refused = try_open(&disk, config(), Open::NewLife(life(2)));
        assert!(matches!(refused, Err(LogError::Io { .. })), "{refused:?}");
        // The disk is well again: the pages are written, though they count as clean.
        let log = open(&disk, Open::NewLife(life(2)));
        assert_eq!(log.reader.end(life(1)), Some(4));
        let log = open(&disk.crash(Survival::Nothing), Open::NewLife(life(3)));
        assert_numbered(&read_all(&log.reader, life(1), 0, 999), 0, 4);
    }
}

#[test]
fn making_durable_what_is_found_costs_one_frame_and_no_block_and_once() {
    let disk = killed_in_flight(false);
    disk.set_full(true);
    let before = disk.counts();
    open(&disk, Open::NewLife(life(2)));
    let after = disk.counts();
    assert_eq!(after.bytes_written - before.bytes_written, 5032);
    assert_eq!(after.syncs - before.syncs, 1);
    open(&disk, Open::NewLife(life(3)));
    let again = disk.counts();
    assert_eq!((again.writes, again.syncs), (after.writes, after.syncs));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    })]

    /// New life after new life, each ended by a kill or a power cut at any operation.
    #[test]
    fn acknowledged_entries_survive_any_power_cut(
        rounds in prop::collection::vec((steps(), 1..200_u64, ending()), 1..6),
    ) {
        let mut disk = SimDisk::new(7);
        let mut models: BTreeMap<LifeId, Model> = BTreeMap::new();
        for (place, (steps, power, ending)) in rounds.iter().enumerate() {
            let id = life(place as u8 + 1);
            let mut log = open(&disk, Open::NewLife(id));
            prop_assert!(log.recovery.damage.is_empty(), "{:?}", log.recovery.damage);
            for (life, model) in &mut models {
                check(&log.reader, *life, model);
            }
            disk.power_off_after(*power);
            let mut model = Model::default();
            run(&mut log, &disk, &mut model, steps, place as u64);
            models.insert(id, model);
            disk = ending.of(&disk);
        }
        let log = open(&disk, Open::NewLife(life(99)));
        for (life, model) in &mut models {
            check(&log.reader, *life, model);
        }
    }

    /// The aggregator's journal: one life, numbers never given twice to what was acknowledged.
    #[test]
    fn the_same_life_survives_any_power_cut(
        rounds in prop::collection::vec((steps(), 1..200_u64, ending()), 1..6),
    ) {
        let mut disk = SimDisk::new(7);
        let mut model = Model::default();
        for (place, (steps, power, ending)) in rounds.iter().enumerate() {
            let mut log = open(&disk, Open::SameLife { if_empty: life(1) });
            check(&log.reader, life(1), &mut model);
            prop_assert_eq!(log.writer.next_number(), model.acked.len() as u64);
            disk.power_off_after(*power);
            run(&mut log, &disk, &mut model, steps, place as u64);
            disk = ending.of(&disk);
        }
        let log = open(&disk, Open::SameLife { if_empty: life(1) });
        check(&log.reader, life(1), &mut model);
    }
}
