//! Power cuts: whatever was appended is there, in order, once, and nothing else.

use crate::small_log::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tributary_journal::{LifeId, LogReader, Open, Opened, SimDisk, Survival};

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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    })]

    /// New life after new life, each ended by a power cut at any operation.
    #[test]
    fn acknowledged_entries_survive_any_power_cut(
        rounds in prop::collection::vec((steps(), 1..200_u64, survival()), 1..5),
    ) {
        let mut disk = SimDisk::new(7);
        let mut models: BTreeMap<LifeId, Model> = BTreeMap::new();
        for (place, (steps, power, survival)) in rounds.iter().enumerate() {
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
            disk = disk.crash(*survival);
        }
        let log = open(&disk, Open::NewLife(life(99)));
        for (life, model) in &mut models {
            check(&log.reader, *life, model);
        }
    }

    /// The aggregator's journal: one life, numbers never given twice to what was acknowledged.
    #[test]
    fn the_same_life_survives_any_power_cut(
        rounds in prop::collection::vec((steps(), 1..200_u64, survival()), 1..5),
    ) {
        let mut disk = SimDisk::new(7);
        let mut model = Model::default();
        for (place, (steps, power, survival)) in rounds.iter().enumerate() {
            let mut log = open(&disk, Open::SameLife { if_empty: life(1) });
            check(&log.reader, life(1), &mut model);
            prop_assert_eq!(log.writer.next_number(), model.acked.len() as u64);
            disk.power_off_after(*power);
            run(&mut log, &disk, &mut model, steps, place as u64);
            disk = disk.crash(*survival);
        }
        let log = open(&disk, Open::SameLife { if_empty: life(1) });
        check(&log.reader, life(1), &mut model);
    }
}
