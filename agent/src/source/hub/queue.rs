//! What waits for one connection, in order and within a bound. A client that does not take what
//! comes loses its oldest of QoS 0; when nothing of QoS 0 is left, it is over: what was promised
//! is not dropped in silence. Pure.

use super::{Delivery, TooSlow};
use crate::limits::{READER_BYTES_ALLOWED, READER_BYTES_MAX, READERS_BYTES_MAX};
use std::collections::VecDeque;

/// One connection's queue.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Delivery>,
    bytes: usize,
    /// Those of QoS 0.
    droppable: usize,
    /// It is over; which message was the first that nobody took.
    over: Option<u64>,
}

/// There was no room; the queue is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Full {
    pub dropped: u64,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// The number of the first message that was not taken.
    pub(super) fn first(&self) -> Option<u64> {
        let first = self.waiting.front().map(|first| first.message.number);
        self.over.or(first)
    }

    /// Adds one to a queue that is not over, when `all` bytes wait for all connections; how many
    /// of QoS 0 were dropped for it.
    pub(super) fn push(&mut self, delivery: Delivery, all: usize) -> Result<u64, Full> {
        let bytes = delivery.message.held_bytes();
        let mut dropped = 0;
        let others = all - self.bytes;
        while !self.has_room(bytes, others) {
            if self.droppable > 0 {
                self.drop_oldest();
                dropped += 1;
            } else if delivery.qos == 0 {
                return Ok(dropped + 1);
            } else {
                let dropped = dropped + self.waiting.len() as u64 + 1;
                let first = self.first().unwrap_or(delivery.message.number);
                *self = Self {
                    over: Some(first),
                    ..Self::default()
                };
                return Err(Full { dropped });
            }
        }
        self.bytes += bytes;
        self.droppable += usize::from(delivery.qos == 0);
        self.waiting.push_back(delivery);
        Ok(dropped)
    }

    fn has_room(&self, bytes: usize, others: usize) -> bool {
        let most = match others + self.bytes + bytes <= READERS_BYTES_MAX {
            true => READER_BYTES_MAX,
            false => READER_BYTES_ALLOWED,
        };
        self.waiting.is_empty() || self.bytes + bytes <= most
    }

    fn drop_oldest(&mut self) {
        let place = self.waiting.iter().position(|waiting| waiting.qos == 0);
        if let Some(dropped) = place.and_then(|place| self.waiting.remove(place)) {
            self.bytes -= dropped.message.held_bytes();
            self.droppable -= 1;
        }
    }

    /// The first that waits.
    pub(super) fn pop(&mut self) -> Result<Option<Delivery>, TooSlow> {
        if self.is_over() {
            return Err(TooSlow);
        }
        let first = self.waiting.pop_front();
        if let Some(delivery) = &first {
            self.bytes -= delivery.message.held_bytes();
            self.droppable -= usize::from(delivery.qos == 0);
        }
        if self.waiting.is_empty() {
            // An idle connection holds no room for a burst.
            self.waiting = VecDeque::new();
        }
        Ok(first)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::super::{Keep, Published};
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    /// A message that counts as much as a sixteenth of what may wait.
    fn large(number: u64, qos: u8) -> Delivery {
        let message = Published {
            number,
            topic: "tributary/alerts/a".into(),
            payload: Bytes::new(),
            keep: Keep::Stands,
        };
        let bytes = READER_BYTES_MAX / 16 - message.held_bytes();
        let payload = Bytes::from(vec![0; bytes]);
        Delivery {
            message: Arc::new(Published { payload, ..message }),
            qos,
            retain: false,
            ids: Vec::new(),
        }
    }

    fn push(queue: &mut Queue, delivery: Delivery) -> Result<u64, Full> {
        let all = queue.held_bytes();
        queue.push(delivery, all)
    }

    fn numbers(queue: &mut Queue) -> Vec<u64> {
        let next = || queue.pop().unwrap().map(|delivery| delivery.message.number);
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn whoever_is_slow_loses_its_oldest_of_qos_0() {
        let mut queue = Queue::default();
        for number in 0..16 {
            assert_eq!(push(&mut queue, large(number, (number % 2) as u8)), Ok(0));
        }
        assert_eq!(push(&mut queue, large(16, 0)), Ok(1));
        assert_eq!(push(&mut queue, large(17, 1)), Ok(1));
        assert_eq!(queue.held_bytes(), READER_BYTES_MAX);
        let expected = [1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17];
        assert_eq!(numbers(&mut queue), expected, "in order");
        assert_eq!((queue.bytes, queue.droppable), (0, 0));
    }

    #[test]
    fn what_was_promised_is_not_dropped_it_ends_the_connection() {
        let mut queue = Queue::default();
        for number in 0..16 {
            assert_eq!(push(&mut queue, large(number, 1)), Ok(0));
        }
        assert_eq!(
            push(&mut queue, large(16, 0)),
            Ok(1),
            "nothing was promised"
        );
        assert_eq!(push(&mut queue, large(17, 1)), Err(Full { dropped: 17 }));
        assert_eq!(
            (queue.held_bytes(), queue.first()),
            (0, Some(0)),
            "it holds none"
        );
        assert_eq!(queue.pop(), Err(TooSlow));
    }

    #[test]
    fn all_together_have_a_bound_and_whoever_holds_little_is_not_hit() {
        let mut queue = Queue::default();
        let all = READERS_BYTES_MAX;
        assert_eq!(queue.push(large(1, 1), all), Ok(0), "one always may wait");
        let all = all + queue.held_bytes();
        assert_eq!(queue.push(large(2, 1), all), Err(Full { dropped: 2 }));
    }
}
