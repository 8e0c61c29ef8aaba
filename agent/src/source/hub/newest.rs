//! The newest present state of each topic that somebody has not taken yet, and the newest of what
//! else was said there, in the order in which they were published; within bounds, beyond which
//! those go first that are no present state, then those that the hub has, and of them those that
//! say that something is over. Pure.

use super::{Keep, Published};
use crate::limits::{BROKER_ALERTS_BYTES_MAX, BROKER_ALERTS_MAX};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Whether it ends its topic, so that nobody else has it; what it is; its number.
type Worth = (bool, Keep, u64);

/// A topic, and whether it is its present state: what is not takes the place of no state, since
/// nobody would have either.
type Key = (Arc<str>, bool);

/// What waits.
#[derive(Debug)]
pub(super) struct Newest {
    newest: HashMap<Key, Arc<Published>>,
    order: BTreeMap<u64, Key>,
    worth: BTreeMap<Worth, Key>,
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
    fn new(count_max: usize, bytes_max: usize) -> Self {
        Self {
            newest: HashMap::new(),
            order: BTreeMap::new(),
            worth: BTreeMap::new(),
            bytes: 0,
            most: (count_max, bytes_max),
        }
    }

    /// A message takes the place of the one of its topic and kind; what went for it.
    pub(super) fn put(&mut self, message: &Arc<Published>) -> Dropped {
        let mut dropped = Dropped::default();
        let before = self.remove(&key_of(message));
        dropped.lost += u64::from(before.is_some_and(|before| !before.is_retained()));
        self.bytes += message.held_bytes();
        self.order.insert(message.number, key_of(message));
        self.worth.insert(worth_of(message), key_of(message));
        self.newest.insert(key_of(message), Arc::clone(message));
        while (self.newest.len() > self.most.0 || self.bytes > self.most.1)
            && let Some(((is_end, keep, number), key)) = self.worth.pop_first()
        {
            self.remove(&key);
            let is_lost = is_end || keep == Keep::Not;
            dropped.lost += u64::from(is_lost);
            if !is_lost {
                let (first, last) = dropped.retained.unwrap_or((number, number));
                dropped.retained = Some((first.min(number), last.max(number)));
            }
        }
        dropped
    }

    /// Whether a present state of the topic waits.
    pub(super) fn has_state(&self, topic: &Arc<str>) -> bool {
        self.newest.contains_key(&(Arc::clone(topic), true))
    }

    /// Whether this one waits, or a newer one of its topic and kind.
    pub(super) fn has_newer(&self, message: &Published) -> bool {
        let newer = self.newest.get(&key_of(message));
        newer.is_some_and(|waiting| waiting.number >= message.number)
    }

    /// The one that was published first.
    pub(super) fn take(&mut self) -> Option<Arc<Published>> {
        let (_, key) = self.order.pop_first()?;
        self.remove(&key)
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Published>> {
        let before = self.newest.remove(key)?;
        self.bytes -= before.held_bytes();
        self.order.remove(&before.number);
        self.worth.remove(&worth_of(&before));
        Some(before)
    }
}

fn key_of(message: &Published) -> Key {
    (Arc::clone(&message.topic), message.is_retained())
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
        assert!(newest.has_state(&"a".into()) && newest.has_newer(&message(1, "a")));
        assert!(!newest.has_newer(&message(4, "a")));
        assert_eq!(numbers(&mut newest), [2, 3, 4]);
        assert!(!newest.has_state(&"a".into()));
        assert_eq!((newest.bytes, newest.order.len()), (0, 0));
        assert_eq!(newest.worth.len(), 0);
    }

    #[test]
    fn beside_a_present_state_the_newest_waits_of_what_else_was_said_there() {
        let of = |number, keep| {
            Arc::new(Published {
                keep,
                ..(*message(number, "a")).clone()
            })
        };
        let mut newest = Newest::new(8, 1 << 20);
        let lost = |newest: &mut Newest, number, keep| newest.put(&of(number, keep)).lost;
        assert_eq!(lost(&mut newest, 1, Keep::Not), 0);
        assert!(!newest.has_state(&"a".into()));
        assert_eq!(lost(&mut newest, 2, Keep::Stands), 0);
        assert!(newest.has_newer(&of(1, Keep::Stands)) && !newest.has_newer(&of(2, Keep::Not)));
        assert_eq!(lost(&mut newest, 3, Keep::Not), 1, "the first is nowhere");
        assert_eq!(lost(&mut newest, 4, Keep::Over), 0, "a state of before");
        assert_eq!(numbers(&mut newest), [3, 4]);
        let mut full = Newest::new(1, usize::MAX);
        assert_eq!(lost(&mut full, 5, Keep::Not), 0);
        assert_eq!(lost(&mut full, 6, Keep::Stands), 1, "within the bound");
        assert_eq!(numbers(&mut full), [6]);
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
