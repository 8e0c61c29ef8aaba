//! What waits to be handed out: alerts and states before aggregates, each kind in its order and
//! within its bound. Pure.

use crate::limits::{PUBLISHING_AGGREGATES_MAX, PUBLISHING_QUEUE};
use crate::source::hub::Keep;
use bytes::Bytes;
use std::collections::VecDeque;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    pub topic: Box<str>,
    pub payload: Bytes,
    pub keep: Keep,
    /// When it was received what it is about, where somebody wants to know: µs since 1970, UTC.
    pub received: Option<i64>,
}

/// Both queues.
#[derive(Debug, Default)]
pub(super) struct Waits {
    alerts: VecDeque<Waiting>,
    aggregates: VecDeque<Waiting>,
}

impl Waits {
    /// One waits behind those of its kind; back where there is no room.
    pub(super) fn put(&mut self, is_aggregate: bool, waiting: Waiting) -> Result<(), Waiting> {
        let (queue, most) = match is_aggregate {
            true => (&mut self.aggregates, PUBLISHING_AGGREGATES_MAX),
            false => (&mut self.alerts, PUBLISHING_QUEUE),
        };
        if queue.len() >= most {
            return Err(waiting);
        }
        queue.push_back(waiting);
        Ok(())
    }

    /// The next one: an aggregate where no alert waits.
    pub(super) fn take(&mut self) -> Option<Waiting> {
        self.alerts
            .pop_front()
            .or_else(|| self.aggregates.pop_front())
    }

    /// How many alerts and states wait, and how many aggregates.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.alerts.len(), self.aggregates.len())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn waiting(topic: &str, number: usize) -> Waiting {
        Waiting {
            topic: topic.into(),
            payload: Bytes::from(number.to_string()),
            keep: Keep::Not,
            received: None,
        }
    }

    #[test]
    fn alerts_go_first_and_no_number_of_aggregates_takes_their_room() {
        let mut waits = Waits::default();
        for number in 0..PUBLISHING_AGGREGATES_MAX {
            waits.put(true, waiting("aggregate", number)).unwrap();
        }
        let back = waits.put(true, waiting("aggregate", 7)).unwrap_err();
        assert_eq!((&*back.topic, &*back.payload), ("aggregate", &b"7"[..]));
        for number in 0..PUBLISHING_QUEUE {
            waits.put(false, waiting("alert", number)).unwrap();
        }
        assert!(waits.put(false, waiting("alert", 7)).is_err());
        assert_eq!(waits.len(), (PUBLISHING_QUEUE, PUBLISHING_AGGREGATES_MAX));
        let taken: Vec<_> = std::iter::from_fn(|| waits.take()).collect();
        let text = |waiting: &Waiting| {
            let payload = String::from_utf8_lossy(&waiting.payload);
            format!("{} {payload}", waiting.topic)
        };
        let alerts = (0..PUBLISHING_QUEUE).map(|number| format!("alert {number}"));
        let others = (0..PUBLISHING_AGGREGATES_MAX).map(|number| format!("aggregate {number}"));
        let taken: Vec<_> = taken.iter().map(text).collect();
        assert_eq!(taken, alerts.chain(others).collect::<Vec<_>>());
    }
}
