//! Keeper and lake of one aggregator, over a journal that is damaged below where the lake stands:
//! what the lake has already is not taken a second time.

use crate::keeper_turns::World;
use crate::sealed::{alerts, gap, readings, series, shed, spoiled, two_hours};
use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use futures_util::{FutureExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tributary_aggregator::keeper::Outcome;
use tributary_aggregator::lake::commit::LakeStore;
use tributary_aggregator::lake::file::rows;
use tributary_aggregator::lake::source::JournalFeed;
use tributary_aggregator::lake::{Lake, LakeConfig, LakeError, LakeHandle};
use tributary_journal::SimDisk;
use tributary_journal::sim_disk::{FileClass, Salts};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::*;
use tributary_protocol::message::AgainReason;
use tributary_protocol::reading::Value;

/// An aggregator on one thread.
struct Site {
    world: World,
    lake: Lake,
}

impl Site {
    fn open(disk: &SimDisk, store: &Arc<dyn ObjectStore>) -> Self {
        Self::try_open(disk, store).unwrap()
    }

    fn try_open(disk: &SimDisk, store: &Arc<dyn ObjectStore>) -> Result<Self, LakeError> {
        let mut world = World::open(disk);
        let lake_store = LakeStore::new(Arc::clone(store), None, world.parts.log);
        let found = lake_store.find(&world.parts.unread).now_or_never();
        world.keeper.take_in(found.expect("it waited")?).unwrap();
        let feed = JournalFeed::new(world.parts.reader.clone(), world.parts.log);
        let (handle, _) = LakeHandle::new();
        let config = LakeConfig {
            flush_interval: Duration::from_secs(1),
        };
        let names = Box::new(world.parts.books.clone());
        let opening = Lake::open(config, lake_store, Box::new(feed), names, &handle);
        let lake = opening.now_or_never().expect("it waited")?;
        Ok(Self { world, lake })
    }

    fn flush(&mut self) -> u64 {
        self.lake
            .flush_all(0)
            .now_or_never()
            .expect("it waited")
            .unwrap()
    }

    /// Offers as an agent does: again what is asked for again.
    fn send(&mut self, session: Session, batches: &[SealedBatch]) {
        for batch in batches {
            let mut outcome = self.world.offer(session, batch, 0);
            for _ in 0..2 {
                if outcome == Outcome::Again(AgainReason::Damaged) {
                    outcome = self.world.offer(session, batch, 0);
                }
            }
            assert_eq!(outcome, Outcome::Durable, "{}", batch.key());
        }
    }
}

/// What an agent has: definitions, readings, alerts, gaps of both kinds, and what never verifies.
fn spooled() -> Vec<SealedBatch> {
    let mut all = vec![series(0, 0, 2)];
    all.extend((0..8).map(|n| readings(n, 2, 30, 0)));
    all.extend([gap(8), shed(9, &[Some(3), Some(4), None])]);
    all.extend((12..16).map(|n| readings(n, 2, 30, 0)));
    all.extend((0..4).map(|n| alerts(n, &[Value::Str("{}"), Value::Str("[]")])));
    all.push(spoiled(16, ""));
    all
}

/// How often each row of a batch, and each gap, stands in the lake, by lane, number and row.
fn counted(store: &Arc<dyn ObjectStore>) -> BTreeMap<(String, i64, i32), u32> {
    let mut found = BTreeMap::new();
    for table in ["readings", "alerts", "gaps"] {
        let listed = store.list(Some(&Path::from(table)));
        let listed: Vec<_> = listed.try_collect().now_or_never().unwrap().unwrap();
        for object in listed {
            let bytes = store.get(&object.location).now_or_never().unwrap().unwrap();
            let bytes = bytes.bytes().now_or_never().unwrap().unwrap();
            for batch in rows(object.location.as_ref(), &bytes).unwrap() {
                let lane = batch.column_by_name("lane").unwrap().as_string::<i32>();
                let number = batch.column_by_name("batch").unwrap();
                let number = number.as_primitive::<Int64Type>();
                // A gap has a row for each part of it.
                let row = batch.column_by_name("row");
                let row = row.map(|row| row.as_primitive::<Int32Type>());
                let part = batch.column_by_name("first");
                let part = part.map(|part| part.as_primitive::<Int64Type>());
                for i in 0..batch.num_rows() {
                    let part = part.map_or(0, |part| part.value(i) as i32);
                    let row = row.map_or(-1 - part, |row| row.value(i));
                    let id = (lane.value(i).to_owned(), number.value(i), row);
                    *found.entry(id).or_default() += 1;
                }
            }
        }
    }
    found
}

fn rejected(store: &Arc<dyn ObjectStore>) -> usize {
    let listed = store.list(Some(&Path::from("rejected")));
    let listed: Vec<_> = listed.try_collect().now_or_never().unwrap().unwrap();
    listed.len()
}

/// An aggregator that has so many of them in its lake, in two flushes, and all, and one more, in
/// its journal.
fn filled(disk: &SimDisk, store: &Arc<dyn ObjectStore>, in_lake: usize) {
    let mut site = Site::open(disk, store);
    let session = site.world.hello(0).0.session;
    let all = spooled();
    site.send(session, &all[..6]);
    site.flush();
    site.send(session, &all[6..in_lake]);
    assert_eq!(site.flush(), in_lake as u64);
    site.send(session, &all[in_lake..]);
    // Behind what is flipped there is a frame that proves it was durable.
    site.send(session, &[readings(40, 2, 30, 0)]);
}

#[test]
fn what_the_lake_has_of_a_damaged_journal_is_not_taken_again() {
    let (mut flipped, mut of_readings) = (0, 0);
    for seed in 0..28 {
        let disk = SimDisk::new(seed);
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        filled(&disk, &store, spooled().len());
        let before = counted(&store);
        assert!(before.values().all(|times| *times == 1));
        let class = [FileClass::FramePayload, FileClass::FrameHeader][seed as usize % 2];
        disk.flip(class, seed).unwrap();

        let mut site = Site::open(&disk, &store);
        let all = spooled();
        if site.world.entries() <= all.len() as u64 || site.world.parts.recovered.damaged == 0 {
            // It hit the last frame, which looks as if it had never been written whole.
            continue;
        }
        flipped += 1;
        let (welcome, _) = site.world.hello(0);
        let entries = site.world.entries();
        site.send(welcome.session, &all);
        let new = site.world.entries() - entries;
        assert!(new <= 1, "{new} batches were taken again, seed {seed}");
        if new == 0 {
            of_readings += 1;
            // Held with their own hashes: an agent takes them for what it sent.
            let telemetry = all.iter().filter(|b| b.key().lane == Lane::Telemetry);
            let sum = telemetry.fold(HashSum::default(), |sum, batch| {
                let numbers = batch.numbers();
                sum.with_each(batch.hash(), numbers.end - numbers.start)
            });
            let held = welcome.lanes[1].ranges[0];
            assert_eq!(
                (held.first, held.end, held.sum),
                (0, 17, sum),
                "seed {seed}"
            );
        }
        site.flush();
        let after = counted(&store);
        for (id, times) in &after {
            assert_eq!(*times, 1, "{id:?}, seed {seed}");
        }
        assert!(before.keys().all(|id| after.contains_key(id)));
        assert_eq!(rejected(&store), 2, "set apart once, seed {seed}");
    }
    assert!(flipped > 14 && of_readings > 10, "{flipped} {of_readings}");
}

#[test]
fn what_the_lake_does_not_have_yet_is_taken_again() {
    let (mut declared, mut again) = (0, 0);
    for seed in 0..24 {
        let disk = SimDisk::new(seed);
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        filled(&disk, &store, 9);
        disk.flip(FileClass::FramePayload, seed).unwrap();
        let mut site = Site::open(&disk, &store);
        let all = spooled();
        if site.world.entries() <= all.len() as u64 {
            continue;
        }
        let session = site.world.hello(0).0.session;
        let entries = site.world.entries();
        site.send(session, &all);
        again += site.world.entries() - entries;
        site.flush();
        let after = counted(&store);
        for (id, times) in &after {
            assert_eq!(*times, 1, "{id:?}, seed {seed}");
            declared += u32::from(id.0.is_empty());
        }
        let data = after.keys().filter(|id| !id.0.is_empty());
        // 12 batches of 30 rows, 4 of two, the one behind them, and three rows of gaps.
        assert_eq!(data.count(), 12 * 30 + 4 * 2 + 30 + 3, "seed {seed}");
    }
    assert!(
        declared > 5 && again >= u64::from(declared),
        "{declared} {again}"
    );
}

#[test]
fn a_lake_that_cannot_tell_is_named_and_without_its_file_it_is_taken_again() {
    let disk = SimDisk::new(5);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    filled(&disk, &store, spooled().len());
    let mut seed = 0;
    loop {
        let flipped = disk.fork(Salts::Same);
        flipped.flip(FileClass::FramePayload, seed).unwrap();
        let world = World::open(&flipped);
        let unread = world.parts.unread.first().cloned();
        // Readings in the second flush.
        if unread.is_some_and(|entries| (11..15).contains(&entries.start)) {
            break;
        }
        seed += 1;
    }
    disk.flip(FileClass::FramePayload, seed).unwrap();
    let listed = store.list(Some(&Path::from("readings")));
    let listed: Vec<_> = listed.try_collect().now_or_never().unwrap().unwrap();
    for object in listed {
        let path = object.location;
        let bytes = store.get(&path).now_or_never().unwrap().unwrap();
        let mut bytes = bytes.bytes().now_or_never().unwrap().unwrap().to_vec();
        // Within the pages, not in what is said about them.
        bytes[100..200].fill(0);
        store
            .put(&path, bytes.into())
            .now_or_never()
            .unwrap()
            .unwrap();
    }
    let Err(error) = Site::try_open(&disk, &store) else {
        panic!("it took what it could not read")
    };
    let LakeError::Unknown { path, .. } = &error else {
        panic!("{error}")
    };
    assert!(error.to_string().contains("move it away"), "{error}");
    // Whoever does so does without its rows, and what an agent still has comes again, once.
    let gone = Path::from(path.as_str());
    store.delete(&gone).now_or_never().unwrap().unwrap();
    let mut site = Site::open(&disk, &store);
    let session = site.world.hello(0).0.session;
    let entries = site.world.entries();
    site.send(session, &spooled());
    assert_eq!(site.world.entries() - entries, 1);
}

/// Paths of the lake's files below a folder, in their order.
fn paths(store: &Arc<dyn ObjectStore>, folder: &str) -> Vec<Path> {
    let listed = store.list(Some(&Path::from(folder)));
    let listed: Vec<_> = listed.try_collect().now_or_never().unwrap().unwrap();
    let mut paths: Vec<Path> = listed.into_iter().map(|object| object.location).collect();
    paths.sort();
    paths
}

/// A flip that makes an entry between these unreadable, and nothing else.
fn flip_within(disk: &SimDisk, wanted: std::ops::Range<u64>) {
    let seed = (0..500).find(|seed| {
        let flipped = disk.fork(Salts::Same);
        flipped.flip(FileClass::FramePayload, *seed).unwrap();
        let unread = World::open(&flipped).parts.unread;
        unread
            .first()
            .is_some_and(|entries| wanted.contains(&entries.start))
    });
    disk.flip(FileClass::FramePayload, seed.unwrap()).unwrap();
}

/// Whichever hour of a batch is missing, the other hour does not make it held.
#[test]
fn a_batch_of_which_the_lake_misses_an_hour_is_not_taken_for_whole() {
    // In the first hour and the second, and in the second and the third.
    let batches = [
        series(0, 0, 2),
        two_hours(0, 30),
        two_hours(90, 30),
        readings(1, 2, 30, 0),
    ];
    for missing in 0..2 {
        let disk = SimDisk::new(5);
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let mut site = Site::open(&disk, &store);
        let session = site.world.hello(0).0.session;
        site.send(session, &batches);
        site.flush();
        site.send(session, &[readings(40, 2, 30, 0)]);
        let files = paths(&store, "readings");
        let hours = files.len();
        assert!(hours > 2, "{files:?}");
        drop(site);
        flip_within(&disk, 1..3);
        let gone = &files[missing * (hours - 1)];
        let bytes = store.get(gone).now_or_never().unwrap().unwrap();
        let bytes = bytes.bytes().now_or_never().unwrap().unwrap();
        store.delete(gone).now_or_never().unwrap().unwrap();

        let Err(error) = Site::try_open(&disk, &store) else {
            panic!("half a batch is held, {gone}")
        };
        assert!(matches!(error, LakeError::Torn { .. }), "{error}");
        let text = error.to_string();
        for path in files.iter().filter(|path| *path != gone) {
            assert!(text.contains(path.as_ref()), "{path} is not named: {text}");
        }
        assert!(
            text.contains(gone.filename().unwrap()) && text.contains("away together"),
            "{text}"
        );

        // Put back, all of it is held as before.
        store
            .put(gone, bytes.into())
            .now_or_never()
            .unwrap()
            .unwrap();
        let mut site = Site::open(&disk, &store);
        let session = site.world.hello(0).0.session;
        let entries = site.world.entries();
        site.send(session, &batches);
        assert_eq!(site.world.entries(), entries);
        drop(site);

        // Moved away together, what the journal lost comes again, whole and once.
        for path in &files {
            store.delete(path).now_or_never().unwrap().unwrap();
        }
        let mut site = Site::open(&disk, &store);
        let session = site.world.hello(0).0.session;
        site.send(session, &batches);
        assert_eq!(site.world.entries(), entries + 1);
        site.flush();
        let after = counted(&store);
        assert!(after.values().all(|times| *times == 1));
        assert_eq!(after.keys().filter(|id| !id.0.is_empty()).count(), 60);
    }
}

#[test]
fn what_was_set_apart_and_is_gone_is_named_with_its_list() {
    let disk = SimDisk::new(5);
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    filled(&disk, &store, spooled().len());
    flip_within(&disk, 11..15);
    let [batches, list] = &paths(&store, "rejected")[..] else {
        panic!("two files are kept")
    };
    store.delete(batches).now_or_never().unwrap().unwrap();
    let Err(error) = Site::try_open(&disk, &store) else {
        panic!("it took what it could not read")
    };
    assert!(matches!(error, LakeError::Unknown { .. }), "{error}");
    for path in [batches, list] {
        assert!(error.to_string().contains(path.as_ref()), "{error}");
    }
    // Moved away, the way that the error names.
    store.delete(list).now_or_never().unwrap().unwrap();
    Site::open(&disk, &store);
}
