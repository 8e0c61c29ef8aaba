//! The journal for many readers: each entry is decoded once, as long as the readers are close
//! together. One that lags reads the journal for itself.

use super::chunk::{bytes_of, end_of};
use crate::lake::LakeError;
use crate::lake::sink::{Feed, Item};
use crate::limits::SINK_SHARED_BYTES_MAX;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Entries that were decoded, in their order and without a hole.
#[derive(Debug)]
struct Ring {
    first: u64,
    items: VecDeque<Arc<Item>>,
    bytes: usize,
    bytes_max: usize,
}

impl Ring {
    fn new(first: u64, bytes_max: usize) -> Self {
        Self {
            first,
            items: VecDeque::new(),
            bytes: 0,
            bytes_max,
        }
    }

    fn end(&self) -> u64 {
        self.items.back().map_or(self.first, |item| end_of(item))
    }

    fn item(&self, entry: u64) -> Option<Arc<Item>> {
        let place = self.items.partition_point(|item| end_of(item) <= entry);
        let item = self.items.get(place)?;
        (entry >= self.first).then(|| Arc::clone(item))
    }

    fn push(&mut self, from: u64, item: Arc<Item>) {
        if from != self.end() {
            *self = Self::new(from, self.bytes_max);
        }
        self.bytes += bytes_of(&item);
        self.items.push_back(item);
        while self.bytes > self.bytes_max {
            let Some(gone) = self.items.pop_front() else {
                return;
            };
            self.bytes -= bytes_of(&gone);
            self.first = end_of(&gone);
        }
    }
}

/// A reader of the journal with what it has decoded.
struct Front {
    feed: Box<dyn Feed>,
    ring: Ring,
}

/// What all taps share.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Front>>);

/// One reader's way through the journal.
pub struct Tap {
    shared: Shared,
    own: Box<dyn Feed>,
}

impl Shared {
    /// Reads by this feed.
    pub fn new(feed: Box<dyn Feed>) -> Self {
        Self::bounded(feed, SINK_SHARED_BYTES_MAX)
    }

    fn bounded(feed: Box<dyn Feed>, bytes_max: usize) -> Self {
        let ring = Ring::new(0, bytes_max);
        Self(Arc::new(Mutex::new(Front { feed, ring })))
    }

    /// A reader, with a feed of the same journal for where it is alone.
    pub fn tap(&self, own: Box<dyn Feed>) -> Tap {
        let shared = self.clone();
        Tap { shared, own }
    }

    fn front(&self) -> MutexGuard<'_, Front> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tap {
    /// The first entry that the journal still has.
    pub fn first(&self) -> u64 {
        self.own.first()
    }

    /// One past the last durable entry.
    pub fn end(&self) -> u64 {
        self.own.end()
    }

    /// The entry `from`, which is durable; nothing if it is not.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn next(&mut self, from: u64) -> Result<Option<Arc<Item>>, LakeError> {
        let mut front = self.shared.front();
        if let Some(item) = front.ring.item(from) {
            return Ok(Some(item));
        }
        if from < front.ring.first {
            drop(front);
            return Ok(self.own.next(from)?.map(Arc::new));
        }
        // Who waits for this lock meanwhile finds the entry in the ring.
        let Some(item) = front.feed.next(from)?.map(Arc::new) else {
            return Ok(None);
        };
        front.ring.push(from, Arc::clone(&item));
        Ok(Some(item))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Entries that are nothing but their number, counted as they are read.
    struct Numbers(u64, Arc<AtomicU64>);

    impl Feed for Numbers {
        fn end(&self) -> u64 {
            self.0
        }

        fn next(&mut self, from: u64) -> Result<Option<Item>, LakeError> {
            if from >= self.0 {
                return Ok(None);
            }
            self.1.fetch_add(1, Ordering::Relaxed);
            Ok(Some(Item::Nothing(from)))
        }
    }

    #[test]
    fn readers_side_by_side_decode_once_and_one_behind_reads_for_itself() {
        let (front, own) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let numbers = |count: &Arc<AtomicU64>| Box::new(Numbers(1_000, Arc::clone(count)));
        let shared = Shared::bounded(numbers(&front), 100 * size_of::<Item>());
        let mut taps = [shared.tap(numbers(&own)), shared.tap(numbers(&own))];
        let most = 100;
        for entry in 0..most + 10 {
            for tap in &mut taps {
                let item = tap.next(entry).unwrap().unwrap();
                assert_eq!(*item, Item::Nothing(entry));
            }
        }
        assert_eq!(front.load(Ordering::Relaxed), most + 10);
        assert_eq!(own.load(Ordering::Relaxed), 0);
        let mut late = shared.tap(numbers(&own));
        assert_eq!(*late.next(3).unwrap().unwrap(), Item::Nothing(3));
        assert_eq!(*late.next(most).unwrap().unwrap(), Item::Nothing(most));
        assert_eq!(front.load(Ordering::Relaxed), most + 10);
        assert_eq!(own.load(Ordering::Relaxed), 1);
        assert!(late.next(1_000).unwrap().is_none());
    }

    #[test]
    fn an_entry_that_stands_for_many_is_found_by_each_of_them() {
        let mut ring = Ring::new(0, 1_000);
        ring.push(0, Arc::new(Item::Nothing(0)));
        ring.push(1, Arc::new(Item::Damaged(1..5)));
        ring.push(5, Arc::new(Item::Nothing(5)));
        assert_eq!(*ring.item(1).unwrap(), Item::Damaged(1..5));
        assert_eq!(*ring.item(5).unwrap(), Item::Nothing(5));
        assert!(ring.item(6).is_none());
        ring.push(9, Arc::new(Item::Nothing(9)));
        assert!(ring.item(5).is_none() && ring.item(9).is_some());
    }
}
