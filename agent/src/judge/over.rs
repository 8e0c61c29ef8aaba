//! What topics show on which nothing stands any more: that the last alert is over. It is published
//! again when the agent begins to run, so that whoever was away meanwhile does not show for ever
//! what stood before. Within bounds, beyond which the one goes that was over first.

use super::kept::{read_text, write_text};
use crate::limits::{OVER_BYTES_MAX, OVER_MAX};
use bytes::{Buf, BufMut};
use std::collections::{BTreeMap, VecDeque};

/// The newest of them, by topic.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Over {
    /// Which came when, and its JSON: empty where the series is not watched any more.
    by_topic: BTreeMap<Box<str>, (u64, Box<str>)>,
    /// In the order in which they came; those that `by_topic` has under another number are gone.
    order: VecDeque<(u64, Box<str>)>,
    serial: u64,
    bytes: usize,
}

impl Over {
    /// Nothing stands on a topic: what it shows.
    pub fn put(&mut self, topic: &str, json: &str) {
        self.remove(topic);
        self.serial += 1;
        self.bytes += topic.len() + json.len();
        self.by_topic
            .insert(topic.into(), (self.serial, json.into()));
        self.order.push_back((self.serial, topic.into()));
        while self.by_topic.len() > OVER_MAX || self.bytes > OVER_BYTES_MAX {
            let Some((serial, topic)) = self.order.pop_front() else {
                return;
            };
            if self.has(&topic, serial) {
                self.remove(&topic);
            }
        }
        if self.order.len() > 2 * OVER_MAX {
            let Self {
                by_topic, order, ..
            } = self;
            order.retain(|(serial, topic)| {
                by_topic.get(topic).is_some_and(|(held, _)| held == serial)
            });
        }
    }

    /// Something stands on a topic.
    pub fn remove(&mut self, topic: &str) {
        if let Some((_, json)) = self.by_topic.remove(topic) {
            self.bytes -= topic.len() + json.len();
        }
    }

    fn has(&self, topic: &str, serial: u64) -> bool {
        let held = self.by_topic.get(topic);
        held.is_some_and(|(held, _)| *held == serial)
    }

    /// Each topic and its JSON, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.order.iter();
        all.filter_map(|(serial, topic)| {
            let (held, json) = self.by_topic.get(topic)?;
            (held == serial).then_some((&**topic, &**json))
        })
    }

    /// Appends all of it, as in a checkpoint.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.by_topic.len() as u32);
        for (topic, json) in self.iter() {
            write_text(topic, out);
            write_text(json, out);
        }
    }

    /// Takes it off the front of `input`; `None` when the bytes are none.
    pub fn read(input: &mut &[u8]) -> Option<Self> {
        let mut over = Self::default();
        for _ in 0..input.try_get_u32_le().ok()? {
            over.put(read_text(input)?, read_text(input)?);
        }
        Some(over)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_within_bounds_and_come_back() {
        let mut over = Over::default();
        over.put("first", "1");
        for i in 0..OVER_MAX - 1 {
            over.put(&format!("t{i}"), "{}");
        }
        over.put("first", "2");
        over.put("one more", "");
        let topics: Vec<_> = over.iter().collect();
        assert_eq!(topics.len(), OVER_MAX);
        assert_eq!(topics.first(), Some(&("t1", "{}")), "t0 was over first");
        assert_eq!(
            topics.get(OVER_MAX - 2..).unwrap(),
            [("first", "2"), ("one more", "")]
        );
        over.put("large", &"x".repeat(60_000));
        for i in 0..OVER_BYTES_MAX / 60_000 {
            over.put(&format!("large {i}"), &"x".repeat(60_000));
        }
        assert_eq!(over.iter().next().unwrap().0, "large 0");
        let mut bytes = Vec::new();
        over.write(&mut bytes);
        let back = Over::read(&mut bytes.as_slice()).unwrap();
        assert_eq!(
            back.iter().collect::<Vec<_>>(),
            over.iter().collect::<Vec<_>>()
        );
        assert_eq!(back.bytes, over.bytes);
    }

    #[test]
    fn topics_that_come_and_go_leave_nothing_behind() {
        let mut over = Over::default();
        for _ in 0..10 * OVER_MAX {
            over.put("a", "{}");
            over.remove("a");
        }
        assert_eq!((over.iter().count(), over.bytes), (0, 0));
        assert!(over.order.len() <= 2 * OVER_MAX);
    }
}
