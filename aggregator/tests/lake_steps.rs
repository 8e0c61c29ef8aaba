//! The lake without its thread: one thread gives it steps at made-up times, over a store that never
//! waits.

use crate::lake::Mortal;
use crate::made::{FiveNames, MadeFeed, batch};
use futures_util::FutureExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tributary_aggregator::lake::commit::LakeStore;
use tributary_aggregator::lake::sink::Item;
use tributary_aggregator::lake::{Lake, LakeConfig, LakeError, LakeHandle};
use tributary_protocol::ids::LogId;

const INTERVAL_US: i64 = 5_000_000;
const ROWS: u32 = 6;

struct World {
    lake: Lake,
    handle: LakeHandle,
    end: Arc<AtomicU64>,
}

impl World {
    fn open(store: Arc<dyn ObjectStore>, end: u64) -> Self {
        let end = Arc::new(AtomicU64::new(end));
        let feed = Box::new(MadeFeed {
            end: Arc::clone(&end),
            make: |entry| Item::Batch(Box::new(batch(entry, ROWS))),
        });
        let (handle, _) = LakeHandle::new();
        let config = LakeConfig {
            flush_interval: Duration::from_micros(INTERVAL_US as u64),
        };
        let store = LakeStore::new(store, None, LogId([3; 16]));
        let opening = Lake::open(config, store, feed, Box::new(FiveNames), &handle);
        let lake = opening.now_or_never().expect("it waited").unwrap();
        Self { lake, handle, end }
    }

    fn grow(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    fn step(&mut self, now: i64) -> Result<Option<i64>, LakeError> {
        self.lake.step(now).now_or_never().expect("it waited")
    }

    fn stands(&self) -> (u64, u64) {
        let status = self.handle.status();
        (status.position(), status.rows())
    }
}

#[test]
fn a_flush_is_due_an_interval_after_the_first_entry_was_read() {
    let mut world = World::open(Arc::new(InMemory::new()), 0);
    assert_eq!(world.step(0).unwrap(), None, "nothing waits");
    world.grow(1);
    let due = 70 + INTERVAL_US;
    assert_eq!(world.step(70).unwrap(), Some(due));
    world.grow(4);
    assert_eq!(world.step(due - 1).unwrap(), Some(due));
    assert_eq!(world.stands(), (0, 0));
    assert_eq!(world.step(due).unwrap(), None);
    assert_eq!(world.stands(), (4, 4 * u64::from(ROWS)));
    world.grow(5);
    assert_eq!(world.step(due + 9).unwrap(), Some(due + 9 + INTERVAL_US));
}

#[test]
fn a_step_that_failed_is_taken_again_and_every_row_is_there_once() {
    let mut failures = 0;
    for changes in 0..6 {
        for happens in [false, true] {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let mortal = Mortal::new(Arc::clone(&inner), i64::MAX, false);
            let mut world = World::open(mortal.clone(), 3);
            world.step(0).unwrap();
            mortal.live_on(changes, happens);
            let failed = world.step(INTERVAL_US);
            if let Err(error) = failed {
                failures += 1;
                assert!(!error.is_final(), "{error}");
                assert_eq!(world.stands(), (0, 0));
                mortal.live_on(i64::MAX, false);
                // What became durable meanwhile is no part of what is tried again.
                world.grow(4);
                world.step(INTERVAL_US + 1).unwrap();
            }
            assert_eq!(world.stands(), (3, 3 * u64::from(ROWS)));
            let again = World::open(inner, 4);
            assert_eq!(again.stands().0, 3);
        }
    }
    assert!(failures > 4, "the store failed {failures} times");
}
