//! The present state of each topic (section 3.3.1.3 of both standards), within bounds: topics on
//! which nothing stands make room first, and then what was published least lately. Pure.

use super::{Keep, Published, STATUS};
use crate::limits::{RETAINED_BYTES_MAX, RETAINED_MAX};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// What is retained, by topic.
#[derive(Debug)]
pub(super) struct Retained {
    topics: BTreeMap<Arc<str>, Arc<Published>>,
    /// Topics that may make room, in the order in which they do.
    oldest: BTreeMap<(Keep, u64), Arc<str>>,
    bytes: usize,
    most: (usize, usize),
}

impl Default for Retained {
    fn default() -> Self {
        Self::new(RETAINED_MAX, RETAINED_BYTES_MAX)
    }
}

impl Retained {
    fn new(topics_max: usize, bytes_max: usize) -> Self {
        Self {
            topics: BTreeMap::new(),
            oldest: BTreeMap::new(),
            bytes: 0,
            most: (topics_max, bytes_max),
        }
    }

    /// How many topics there are.
    pub(super) fn len(&self) -> usize {
        self.topics.len()
    }

    /// Keeps a message in the place of the one before it; one without a payload only ends that. How
    /// many others made room.
    pub(super) fn keep(&mut self, message: &Arc<Published>) -> u64 {
        self.forget(&message.topic);
        if message.payload.is_empty() {
            return 0;
        }
        self.bytes += message.held_bytes();
        // The agent's own state is one topic, published once: it gives way to nobody.
        if &*message.topic != STATUS {
            self.oldest
                .insert((message.keep, message.number), Arc::clone(&message.topic));
        }
        self.topics
            .insert(Arc::clone(&message.topic), Arc::clone(message));
        let mut evicted = 0;
        while (self.topics.len() > self.most.0 || self.bytes > self.most.1)
            && let Some((_, topic)) = self.oldest.pop_first()
        {
            self.forget(&topic);
            evicted += 1;
        }
        evicted
    }

    fn forget(&mut self, topic: &str) {
        if let Some(before) = self.topics.remove(topic) {
            self.bytes -= before.held_bytes();
            self.oldest.remove(&(before.keep, before.number));
        }
    }

    /// Messages in the order of their topics, behind the topic `after`: all that fit `filter`, and
    /// of others only such as begin like it.
    pub(super) fn from<'a>(
        &'a self,
        filter: &str,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Arc<Published>> + use<'a> {
        let prefix = prefix_of(filter).to_owned();
        let from = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(prefix.as_str()),
        };
        let topics = self.topics.range::<str, _>((from, Bound::Unbounded));
        topics
            .map(|(_, message)| message)
            .take_while(move |message| message.topic.starts_with(&prefix))
    }
}

/// What each topic begins with that a filter fits.
fn prefix_of(filter: &str) -> &str {
    let wild = filter.find(['+', '#']).unwrap_or(filter.len());
    let (before, from) = filter.split_at(wild);
    // `plant/#` holds `plant`, too.
    match from.starts_with('#') {
        true => before.strip_suffix('/').unwrap_or(before),
        false => before,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn message(number: u64, topic: &str, bytes: usize) -> Arc<Published> {
        Arc::new(Published {
            number,
            topic: topic.into(),
            payload: Bytes::from(vec![b'x'; bytes]),
            keep: Keep::Stands,
        })
    }

    fn numbers(retained: &Retained, filter: &str, after: Option<&str>) -> Vec<u64> {
        let messages = retained.from(filter, after);
        messages.map(|message| message.number).collect()
    }

    #[test]
    fn the_newest_message_of_a_topic_stands_for_it_until_it_is_cleared() {
        let mut retained = Retained::new(8, 1 << 20);
        assert_eq!(retained.keep(&message(1, "a/x", 3)), 0);
        assert_eq!(retained.keep(&message(2, "a/y", 3)), 0);
        assert_eq!(retained.keep(&message(3, "a/x", 5)), 0);
        assert_eq!(numbers(&retained, "a/#", None), [3, 2]);
        assert_eq!(numbers(&retained, "a/+", Some("a/x")), [2]);
        assert_eq!(numbers(&retained, "a/y", None), [2]);
        assert_eq!(numbers(&retained, "b/#", None), [0; 0]);
        retained.keep(&message(4, "a/x", 0));
        retained.keep(&message(5, "a/none", 0));
        assert_eq!(numbers(&retained, "a/#", None), [2]);
        assert_eq!(retained.bytes, message(2, "a/y", 3).held_bytes());
    }

    #[test]
    fn what_was_published_least_lately_makes_room_and_the_status_never() {
        let one = message(1, STATUS, 10).held_bytes();
        for (topics_max, bytes_max) in [(3, usize::MAX), (usize::MAX, 3 * one)] {
            let mut retained = Retained::new(topics_max, bytes_max);
            retained.keep(&message(1, STATUS, 10));
            let topic = |n: u64| format!("tributary/{n:06}");
            assert_eq!(retained.keep(&message(2, &topic(2), 10)), 0);
            assert_eq!(retained.keep(&message(3, &topic(3), 10)), 0);
            // Published again: 3 is the oldest now.
            assert_eq!(retained.keep(&message(4, &topic(2), 10)), 0);
            assert_eq!(retained.keep(&message(5, &topic(5), 10)), 1);
            assert_eq!(numbers(&retained, "tributary/#", None), [4, 5, 1]);
            assert_eq!(retained.oldest.len(), 2);
        }
        let mut small = Retained::new(8, one);
        small.keep(&message(1, "tributary/aaaaaa", 10));
        assert_eq!(
            small.keep(&message(2, "tributary/b", 4_000)),
            2,
            "itself, too"
        );
        assert_eq!((small.len(), small.bytes), (0, 0));
    }

    #[test]
    fn where_nothing_stands_any_more_makes_room_first() {
        let over = |number, topic| {
            Arc::new(Published {
                keep: Keep::Over,
                ..(*message(number, topic, 10)).clone()
            })
        };
        let mut retained = Retained::new(3, usize::MAX);
        retained.keep(&message(1, "a", 10));
        retained.keep(&over(2, "b"));
        retained.keep(&message(3, "c", 10));
        assert_eq!(retained.keep(&message(4, "d", 10)), 1);
        assert_eq!(numbers(&retained, "#", None), [1, 3, 4]);
        assert_eq!(retained.keep(&over(5, "e")), 1, "itself");
        assert_eq!(numbers(&retained, "#", None), [1, 3, 4]);
        retained.keep(&over(6, "a"));
        assert_eq!(retained.keep(&message(7, "f", 10)), 1);
        assert_eq!(numbers(&retained, "#", None), [3, 4, 7]);
        assert_eq!(retained.oldest.len(), 3);
    }

    #[test]
    fn a_look_begins_where_the_filter_does() {
        for (filter, prefix) in [
            ("a/b", "a/b"),
            ("a/b/#", "a/b"),
            ("a/+/c", "a/"),
            ("a/b/+", "a/b/"),
            ("#", ""),
        ] {
            assert_eq!(prefix_of(filter), prefix);
        }
    }
}
