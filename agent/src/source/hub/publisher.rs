//! Publishing from a thread that must not pay for it: the one that judges readings only queues what
//! it says, and another hands it out, in the same order. Waking a thousand readers takes about as
//! long as judging a thousand readings.

use super::{Hub, Keep};
use crate::limits::PUBLISHING_QUEUE;
use bytes::Bytes;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// A message on its way.
struct Waiting {
    topic: Box<str>,
    payload: Bytes,
    keep: Keep,
}

/// Queues messages. The queue has a bound: at it, whoever publishes waits for who hands out, which
/// waits for nobody.
#[derive(Clone)]
pub struct Publisher(SyncSender<Waiting>);

/// Hands them out.
pub struct Dispatch {
    hub: Hub,
    waiting: Receiver<Waiting>,
}

impl Hub {
    /// Both ends of a way to publish on this hub.
    pub fn publisher(&self) -> (Publisher, Dispatch) {
        let (queue, waiting) = sync_channel(PUBLISHING_QUEUE);
        let hub = self.clone();
        (Publisher(queue), Dispatch { hub, waiting })
    }
}

impl Publisher {
    /// As [`Hub::publish`], a moment later: behind all that this end published before.
    pub fn publish(&self, topic: &str, payload: Bytes, keep: Keep) {
        let topic = topic.into();
        // Nobody hands out any more: the process ends.
        let _ = self.0.send(Waiting {
            topic,
            payload,
            keep,
        });
    }
}

impl Dispatch {
    /// Hands out what is queued, until nobody will queue anything.
    pub fn run(self) {
        for Waiting {
            topic,
            payload,
            keep,
        } in self.waiting
        {
            self.hub.publish(&topic, payload, keep);
        }
    }
}
