//! The newest message of each topic that somebody has not taken yet, in the order in which they
//! began to wait; within bounds, beyond which the one goes that waits for longest. Pure.

use super::Published;
use crate::limits::{BROKER_ALERTS_BYTES_MAX, BROKER_ALERTS_MAX};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What waits.
#[derive(Debug)]
pub(super) struct Newest {
    topics: HashMap<Arc<str>, Arc<Published>>,
    order: BTreeMap<u64, Arc<str>>,
    bytes: usize,
    most: (usize, usize),
}

impl Default for Newest {
    fn default() -> Self {
        Self::new(BROKER_ALERTS_MAX, BROKER_ALERTS_BYTES_MAX)
    }
}

impl Newest {
    fn new(topics_max: usize, bytes_max: usize) -> Self {
        Self {
            topics: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
            most: (topics_max, bytes_max),
        }
    }

    /// A message takes the place of the one of its topic; how many went without being taken for
    /// want of room.
    pub(super) fn put(&mut self, message: &Arc<Published>) -> u64 {
        self.remove(&message.topic);
        self.bytes += message.held_bytes();
        self.order
            .insert(message.number, Arc::clone(&message.topic));
        self.topics
            .insert(Arc::clone(&message.topic), Arc::clone(message));
        let mut dropped = 0;
        while (self.topics.len() > self.most.0 || self.bytes > self.most.1) && self.take().is_some()
        {
            dropped += 1;
        }
        dropped
    }

    /// One that was taken waits again, unless a newer one of its topic does.
    pub(super) fn put_back(&mut self, message: &Arc<Published>) {
        let newer = self.topics.get(&message.topic);
        let newer = newer.is_some_and(|waiting| waiting.number >= message.number);
        if !newer {
            self.put(message);
        }
    }

    /// The one that waits for longest.
    pub(super) fn take(&mut self) -> Option<Arc<Published>> {
        let (_, topic) = self.order.pop_first()?;
        let message = self.topics.remove(&topic)?;
        self.bytes -= message.held_bytes();
        Some(message)
    }

    fn remove(&mut self, topic: &str) {
        if let Some(before) = self.topics.remove(topic) {
            self.bytes -= before.held_bytes();
            self.order.remove(&before.number);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(number: u64, topic: &str) -> Arc<Published> {
        Arc::new(Published {
            number,
            topic: topic.into(),
            payload: Bytes::from_static(b"x"),
            retain: true,
        })
    }

    fn numbers(newest: &mut Newest) -> Vec<u64> {
        std::iter::from_fn(|| newest.take().map(|message| message.number)).collect()
    }

    #[test]
    fn only_the_newest_of_a_topic_waits_and_what_comes_back_is_not_newer() {
        let mut newest = Newest::new(8, 1 << 20);
        for (number, topic) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            assert_eq!(newest.put(&message(number, topic)), 0);
        }
        let taken = newest.take().unwrap();
        assert_eq!(taken.number, 2);
        newest.put(&message(5, "b"));
        newest.put_back(&taken);
        assert_eq!(numbers(&mut newest), [3, 4, 5]);
        newest.put_back(&taken);
        newest.put(&message(6, "a"));
        assert_eq!(numbers(&mut newest), [2, 6], "in its place");
        assert_eq!((newest.bytes, newest.order.len()), (0, 0));
    }

    #[test]
    fn whoever_waits_for_longest_makes_room() {
        let one = message(1, "a").held_bytes();
        for mut newest in [Newest::new(2, usize::MAX), Newest::new(usize::MAX, 2 * one)] {
            newest.put(&message(1, "a"));
            newest.put(&message(2, "b"));
            assert_eq!(newest.put(&message(3, "c")), 1);
            assert_eq!(numbers(&mut newest), [2, 3]);
        }
    }
}
