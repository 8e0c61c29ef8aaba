//! The newest message of each topic that somebody has not taken yet, in the order in which they
//! began to wait; within bounds, beyond which those go first that are no present state, then those
//! that the hub has, and of them those that say that something is over. Pure.

use super::{Keep, Published};
use crate::limits::{BROKER_ALERTS_BYTES_MAX, BROKER_ALERTS_MAX};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Whether it ends its topic, so that nobody else has it; what it is; its number.
type Worth = (bool, Keep, u64);

/// What waits.
#[derive(Debug)]
pub(super) struct Newest {
    topics: HashMap<Arc<str>, Arc<Published>>,
    order: BTreeMap<u64, Arc<str>>,
    worth: BTreeMap<Worth, Arc<str>>,
    bytes: usize,
    most: (usize, usize),
}

/// What went without being taken, for want of room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Dropped {
    /// How many that nobody has any more.
    pub lost: u64,
    /// The least and the greatest number of those that are retained elsewhere.
    pub retained: Option<(u64, u64)>,
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
            worth: BTreeMap::new(),
            bytes: 0,
            most: (topics_max, bytes_max),
        }
    }

    /// A message takes the place of the one of its topic; what went for it.
    pub(super) fn put(&mut self, message: &Arc<Published>) -> Dropped {
        self.remove(&message.topic);
        self.bytes += message.held_bytes();
        let topic = || Arc::clone(&message.topic);
        self.order.insert(message.number, topic());
        self.worth.insert(worth_of(message), topic());
        self.topics.insert(topic(), Arc::clone(message));
        let mut dropped = Dropped::default();
        while (self.topics.len() > self.most.0 || self.bytes > self.most.1)
            && let Some(((is_end, keep, number), topic)) = self.worth.pop_first()
        {
            self.remove(&topic);
            let is_lost = is_end || keep == Keep::Not;
            dropped.lost += u64::from(is_lost);
            if !is_lost {
                let (first, last) = dropped.retained.unwrap_or((number, number));
                dropped.retained = Some((first.min(number), last.max(number)));
            }
        }
        dropped
    }

    /// Whether one of the topic waits.
    pub(super) fn has(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Whether this one waits, or a newer one of its topic.
    pub(super) fn has_newer(&self, message: &Published) -> bool {
        let newer = self.topics.get(&message.topic);
        newer.is_some_and(|waiting| waiting.number >= message.number)
    }

    /// The one that waits for longest.
    pub(super) fn take(&mut self) -> Option<Arc<Published>> {
        let (_, topic) = self.order.pop_first()?;
        self.remove(&topic)
    }

    fn remove(&mut self, topic: &str) -> Option<Arc<Published>> {
        let before = self.topics.remove(topic)?;
        self.bytes -= before.held_bytes();
        self.order.remove(&before.number);
        self.worth.remove(&worth_of(&before));
        Some(before)
    }
}

fn worth_of(message: &Published) -> Worth {
    (message.payload.is_empty(), message.keep, message.number)
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
            keep: Keep::Stands,
        })
    }

    fn numbers(newest: &mut Newest) -> Vec<u64> {
        std::iter::from_fn(|| newest.take().map(|message| message.number)).collect()
    }

    #[test]
    fn only_the_newest_of_a_topic_waits() {
        let mut newest = Newest::new(8, 1 << 20);
        for (number, topic) in [(1, "a"), (2, "b"), (3, "a"), (4, "c")] {
            assert_eq!(newest.put(&message(number, topic)), Dropped::default());
        }
        assert!(newest.has("a") && newest.has_newer(&message(1, "a")));
        assert!(!newest.has_newer(&message(4, "a")));
        assert_eq!(numbers(&mut newest), [2, 3, 4]);
        assert!(!newest.has("a"));
        assert_eq!((newest.bytes, newest.order.len()), (0, 0));
        assert_eq!(newest.worth.len(), 0);
    }

    #[test]
    fn what_the_hub_has_makes_room_and_the_end_of_a_topic_last() {
        let of = |number, topic, keep, payload: &'static [u8]| {
            Arc::new(Published {
                keep,
                payload: Bytes::from_static(payload),
                ..(*message(number, topic)).clone()
            })
        };
        let one = message(1, "a").held_bytes();
        for mut newest in [Newest::new(3, usize::MAX), Newest::new(9, 3 * one)] {
            newest.put(&of(1, "a", Keep::Over, b""));
            newest.put(&of(2, "b", Keep::Stands, b"x"));
            newest.put(&of(3, "c", Keep::Over, b"x"));
            let dropped = newest.put(&of(4, "d", Keep::Stands, b"x"));
            assert_eq!((dropped.lost, dropped.retained), (0, Some((3, 3))));
            newest.put(&of(5, "e", Keep::Over, b""));
            newest.put(&of(6, "f", Keep::Over, b""));
            let dropped = newest.put(&of(7, "g", Keep::Stands, b"x"));
            assert_eq!(
                (dropped.lost, dropped.retained),
                (0, Some((7, 7))),
                "itself"
            );
            let dropped = newest.put(&of(8, "h", Keep::Not, b"x"));
            assert_eq!((dropped.lost, dropped.retained), (1, None), "nobody has it");
            let dropped = newest.put(&of(9, "i", Keep::Over, b""));
            assert_eq!((dropped.lost, dropped.retained), (1, None));
            assert_eq!(numbers(&mut newest), [5, 6, 9]);
        }
    }
}
