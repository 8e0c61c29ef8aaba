//! Readings out of quarantine: once in the journal however often it is run and wherever it stops,
//! named as those that are held, and everything that can't be taken in stays.

use crate::keeper::agent;
use crate::keeper_turns::{DIR, World, at};
use crate::sealed::{alerts, events, key, readings, redefined, series, spoiled};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::Path;
use tributary_aggregator::keeper::record::{self, RecordKind};
use tributary_aggregator::keeper::reseal::{Stays, buffer_of, is_from_quarantine, reseal};
use tributary_aggregator::keeper::{Checked, Outcome, Readmitted};
use tributary_journal::sim_disk::After;
use tributary_journal::{Disk, LifeId, SimDisk, Survival};
use tributary_protocol::batch::{Content, Decoder, SealedBatch, Sealer, Spec};
use tributary_protocol::ids::*;
use tributary_protocol::limits::{AGENT_BUFFERS_MAX, BATCH_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use tributary_protocol::reading::*;
use tributary_protocol::series::SeriesDef;

/// The batches in the journal.
fn entries(world: &World) -> Vec<SealedBatch> {
    let (mut all, mut next) = (Vec::new(), 0);
    while next < world.entries() {
        let life = LifeId(world.parts.log.0);
        world
            .parts
            .reader
            .read(life, next, 1 << 20, &mut all)
            .unwrap();
        next = all.last().unwrap().number + 1;
    }
    let batch = |entry: tributary_journal::Entry| {
        let kind = RecordKind::from_code(entry.kind).unwrap();
        SealedBatch::open(record::parse(kind, entry.bytes).unwrap().sealed).unwrap()
    };
    all.into_iter().map(batch).collect()
}

/// A keeper that holds definitions, and a batch of readings, of alerts and of events; their
/// contraries are in quarantine.
fn with_contraries(disk: &SimDisk) -> Vec<SealedBatch> {
    let mut world = World::open(disk);
    let session = world.hello(0).0.session;
    let held = [
        series(0, 0, 3),
        readings(0, 3, 30, 0),
        alerts(0, &[Value::Str("{}")]),
        events(0),
    ];
    for batch in &held {
        assert_eq!(world.offer(session, batch, 0), Outcome::Durable);
    }
    let others = vec![
        readings(0, 2, 40, 7),
        alerts(0, &[Value::Str("[]"), Value::Str("1")]),
    ];
    for other in &others {
        let outcome = world.offer(session, other, 0);
        assert!(matches!(outcome, Outcome::Reject(_)), "{outcome:?}");
    }
    others
}

/// Everything in quarantine is taken in, as far as it may be.
fn replay(world: &mut World) -> std::io::Result<Vec<Result<Readmitted, Stays>>> {
    let disputed = world.keeper.disputed()?;
    let names = world.keeper.quarantined();
    let all = names.iter();
    all.map(|name| world.keeper.readmit(name, &disputed, at(5)))
        .collect()
}

fn files(disk: &SimDisk) -> usize {
    disk.list(&Path::new(DIR).join("quarantine")).unwrap().len()
}

/// Rows out of quarantine: of which buffer and lane, device, metric, and value to the bit.
fn out_of_quarantine(all: &[SealedBatch]) -> BTreeMap<(BufferId, Lane), Vec<String>> {
    let mut defs: BTreeMap<BufferId, Vec<SeriesDef>> = BTreeMap::new();
    let mut rows: BTreeMap<(BufferId, Lane), Vec<String>> = BTreeMap::new();
    for batch in all.iter().filter(|it| is_from_quarantine(it.key().buffer)) {
        let of = (batch.key().buffer, batch.key().lane);
        match batch.decode(&mut Decoder::new()).unwrap() {
            Content::Series { defs: more, .. } => defs.entry(of.0).or_default().extend(more),
            Content::Readings(block) => {
                for row in block.rows() {
                    assert!(row.meta.flags.has(Flags::MAYBE_REPEAT));
                    let named = match batch.names() {
                        [] => &defs[&of.0],
                        names => names,
                    };
                    let def = &named[row.series.0 as usize];
                    let text = format!("{} {} {:?}", def.device, def.metric, block.value(row));
                    rows.entry(of).or_default().push(text);
                }
            }
            Content::Gap(_) => panic!("a loss out of quarantine"),
        }
    }
    rows
}

/// What they say under their own names.
fn as_they_came(others: &[SealedBatch]) -> BTreeMap<(BufferId, Lane), Vec<String>> {
    let mut rows: BTreeMap<(BufferId, Lane), Vec<String>> = BTreeMap::new();
    for batch in others {
        let Content::Readings(block) = batch.decode(&mut Decoder::new()).unwrap() else {
            panic!("no readings");
        };
        for row in block.rows() {
            let name = match batch.names() {
                [] => format!("pump-{} p", row.series.0),
                names => {
                    let def = &names[row.series.0 as usize];
                    format!("{} {}", def.device, def.metric)
                }
            };
            let of = (buffer_of(batch.hash()), batch.key().lane);
            let text = format!("{name} {:?}", block.value(row));
            rows.entry(of).or_default().push(text);
        }
    }
    rows
}

#[test]
fn what_contradicts_what_is_held_is_taken_in_once_under_a_name_of_its_own() {
    let disk = SimDisk::new(1);
    let others = with_contraries(&disk);
    let mut world = World::open(&disk);
    let before = world.entries();
    let done = replay(&mut world).unwrap();
    let mut said: Vec<_> = done.into_iter().map(Result::unwrap).collect();
    said.sort_by_key(|done| done.was.lane.code());
    let said: Vec<_> = said
        .iter()
        .map(|it| (it.was, it.rows, it.buffer, it.new))
        .collect();
    let [telemetry, alerts] = [&others[0], &others[1]];
    assert_eq!(
        said,
        [
            (alerts.key(), 2, buffer_of(alerts.hash()), 1),
            (telemetry.key(), 40, buffer_of(telemetry.hash()), 2),
        ]
    );
    assert_eq!(
        out_of_quarantine(&entries(&world)),
        as_they_came(&others),
        "with the names, and no other rows"
    );
    assert_eq!((world.entries(), files(&disk)), (before + 3, 0));
    // Nothing is left to do, also after a restart.
    drop(world);
    let mut world = World::open(&disk.crash(Survival::Nothing));
    assert!(replay(&mut world).unwrap().is_empty());
    // What comes again goes into quarantine again, and out of it without a new entry.
    let session = world.hello(0).0.session;
    let end = world.entries();
    assert!(matches!(
        world.offer(session, telemetry, 1),
        Outcome::Reject(_)
    ));
    let again = replay(&mut world).unwrap().remove(0).unwrap();
    assert_eq!((again.new, again.rows, world.entries()), (0, 40, end));
}

#[test]
fn wherever_the_power_fails_its_readings_are_taken_in_once_by_the_next_run() {
    let (mut unfinished, mut finished) = (0, 0);
    for operations in 1.. {
        let mut was_off = false;
        for survival in [
            Survival::Nothing,
            Survival::RandomHalf(operations),
            Survival::All,
        ] {
            let disk = SimDisk::new(operations);
            let others = with_contraries(&disk);
            let mut world = World::open(&disk);
            disk.power_off(After::Operations(operations));
            let first = replay(&mut world);
            was_off = disk.is_off();
            drop(world);
            let after = disk.crash(survival);
            let mut world = World::open(&after);
            let left = files(&after);
            let taken = out_of_quarantine(&entries(&world));
            assert!(
                left + taken.len() >= 2,
                "{operations} {survival:?}: a file went before its readings were durable"
            );
            let said = first.into_iter().flatten().flatten().count();
            assert!(taken.len() >= said, "{operations} {survival:?}");
            let done = replay(&mut world).unwrap();
            assert!(done.iter().all(Result::is_ok), "{done:?}");
            unfinished += usize::from(left > 0);
            finished += usize::from(left > 0 && !taken.is_empty());
            assert_eq!(
                out_of_quarantine(&entries(&world)),
                as_they_came(&others),
                "{operations} {survival:?}"
            );
            assert_eq!(files(&after), 0);
        }
        if !was_off {
            break;
        }
    }
    assert!(
        finished > 0,
        "no cut fell between the journal and the folder"
    );
    assert!(unfinished > finished);
}

#[test]
fn what_nobody_can_tell_stays_and_says_why() {
    let disk = SimDisk::new(1);
    with_contraries(&disk);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    let bad = spoiled(1, "");
    for _ in 0..3 {
        let _ = world.offer(session, &bad, 0);
    }
    let held = readings(2, 3, 9, 0);
    assert_eq!(world.offer(session, &held, 0), Outcome::Durable);
    let put = |batch: &SealedBatch, uuid: AgentUuid| {
        let BatchKey {
            buffer,
            lane,
            number,
        } = batch.key();
        let hash = batch.hash().short();
        let name = format!("{uuid}-{buffer}-{lane}-{number:020}-{hash:016x}.batch");
        let path = Path::new(DIR).join("quarantine").join(&name);
        disk.put(&path, batch.bytes());
        name
    };
    let uuid = agent(1).uuid();
    let unnamed = readings(0, 5, 25, 8);
    let wrong = {
        let mut block = Readings::new();
        block
            .push(SeriesId(0), Meta::default(), Value::Bool(true))
            .unwrap();
        let spec = Spec {
            key: key(Lane::Telemetry, 0),
            sealed_at: 0,
            series_needed: 1,
            covers: Vec::new(),
        };
        Sealer::new().readings(&spec, &mut block).unwrap()
    };
    let strange = AgentUuid([9; 16]);
    let stays = [
        (put(&unnamed, uuid), Stays::Unnamed(SeriesId(3))),
        (put(&readings(7, 3, 5, 0), uuid), Stays::Absent),
        (put(&held, uuid), Stays::Held),
        (put(&readings(0, 3, 5, 9), strange), Stays::Agent),
        (
            put(&wrong, uuid),
            Stays::Type {
                series: SeriesId(0),
                is: ValueType::Bool,
                defined: ValueType::F64,
            },
        ),
    ];
    drop(world);
    let mut world = World::open(&disk);
    let before = world.entries();
    let disputed = world.keeper.disputed().unwrap();
    for (name, why) in &stays {
        let said = world.keeper.readmit(name, &disputed, at(1)).unwrap();
        assert_eq!(said.unwrap_err(), *why, "{name}");
    }
    let damaged = world.keeper.quarantined();
    let damaged = damaged.iter().filter(|name| {
        let said = world.keeper.readmit(name, &disputed, at(1)).unwrap();
        matches!(said, Err(Stays::Damaged(_)))
    });
    assert_eq!(damaged.count(), 1);
    assert_eq!(
        world.entries(),
        before + 3,
        "only the contraries were taken in"
    );
    assert_eq!(files(&disk), stays.len() + 1);
}

#[test]
fn a_series_that_two_machines_called_differently_is_nobodys() {
    let disk = SimDisk::new(1);
    let others = with_contraries(&disk);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    // A clone that called series 0 and 1 by other names, and one that agrees on 0 alone.
    let other = redefined(0, 0, 2);
    assert!(matches!(
        world.offer(session, &other, 0),
        Outcome::Reject(_)
    ));
    let before = world.entries();
    let done = replay(&mut world).unwrap();
    let stayed: Vec<_> = done.iter().filter_map(|it| it.as_ref().err()).collect();
    assert_eq!(stayed.len(), 2);
    assert!(stayed.contains(&&Stays::Disputed(SeriesId(0))));
    assert!(stayed.contains(&&Stays::NoReadings));
    // What names its series itself is not in question.
    let taken = out_of_quarantine(&entries(&world));
    assert_eq!(taken, as_they_came(&others[1..]));
    assert_eq!((world.entries(), files(&disk)), (before + 1, 2));
}

#[test]
fn more_than_an_agent_may_have_buffers_come_out_and_its_own_stay_open() {
    let disk = SimDisk::new(1);
    let mut world = World::open(&disk);
    let session = world.hello(0).0.session;
    assert_eq!(world.offer(session, &series(0, 0, 1), 0), Outcome::Durable);
    let held = readings(0, 1, 1, 0);
    assert_eq!(world.offer(session, &held, 0), Outcome::Durable);
    let count = AGENT_BUFFERS_MAX as u64 + 9;
    for salt in 1..=count {
        let outcome = world.offer(session, &readings(0, 1, 1, salt), 0);
        assert!(matches!(outcome, Outcome::Reject(_)));
    }
    let done = replay(&mut world).unwrap();
    assert_eq!(done.len() as u64, count);
    assert!(done.iter().all(Result::is_ok), "{:?}", done[0]);
    // The agent goes on in its buffer, and in a new one.
    let session = world.hello(9).0.session;
    assert_eq!(
        world.offer(session, &readings(1, 1, 1, 0), 9),
        Outcome::Durable
    );
}

#[test]
fn texts_that_were_shared_and_are_too_long_apart_come_out_in_parts() {
    let long = |salt: char| salt.to_string().repeat(TEXT_BYTES_MAX);
    let (texts, mut block) = ([long('a'), long('b')], Readings::new());
    // All `a` before all `b`, and by time they take turns.
    let most = 4 * (BATCH_TEXT_BYTES_MAX / TEXT_BYTES_MAX);
    for row in (0..most).step_by(2).chain((1..most).step_by(2)) {
        let meta = Meta {
            event_time: row as i64,
            ..Meta::default()
        };
        let value = Value::Str(&texts[row % 2]);
        block.push(SeriesId(0), meta, value).unwrap();
    }
    let spec = Spec {
        key: key(Lane::Telemetry, 3),
        sealed_at: 0,
        series_needed: 1,
        covers: Vec::new(),
    };
    let batch = Sealer::new().readings(&spec, &mut block).unwrap();
    let def = SeriesDef::new("door", "state", None, ValueType::Str).unwrap();
    let made = reseal(&batch, &|_| Ok(def.clone())).unwrap();
    assert!(made.len() > 2, "definitions, and parts");
    let mut rows = Vec::new();
    for (number, (batch, content)) in made.iter().skip(1).enumerate() {
        assert_eq!(batch.key().number, number as u64);
        assert!(matches!(content, Checked::Readings { .. }));
        let Content::Readings(block) = batch.decode(&mut Decoder::new()).unwrap() else {
            panic!("no readings");
        };
        let part = block.rows().iter().map(|row| match block.value(row) {
            Value::Str(text) => text[..1].to_owned(),
            other => panic!("{other:?}"),
        });
        rows.extend(part);
    }
    let came: Vec<_> = (0..most).map(|row| ["a", "b"][row % 2]).collect();
    assert_eq!(rows, came);
    // The same again, to the byte: whoever is interrupted goes on.
    let bytes = |made: Vec<(SealedBatch, Checked)>| -> Vec<Bytes> {
        made.into_iter().map(|(it, _)| it.bytes().clone()).collect()
    };
    let again = reseal(&batch, &|_| Ok(def.clone())).unwrap();
    assert_eq!(bytes(again), bytes(made));
}
