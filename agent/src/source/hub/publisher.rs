//! Publishing from a thread that must not pay for it: the one that judges readings only queues what
//! it says, and another hands it out. Alerts go before everything else, in their order, and none is
//! lost; aggregates have a queue of their own, and are passed over where that is full. Waking a
//! thousand readers takes about as long as judging a thousand readings.

mod waits;

use super::{AGGREGATES, Hub, Keep};
use bytes::Bytes;
use metrics::{Counter, Gauge, counter, gauge};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use waits::{Waiting, Waits};

/// Queues messages: alerts at their queue's bound wait for who hands out, which waits for nobody.
pub struct Publisher(Arc<Shared>);

/// Hands them out.
pub struct Dispatch {
    hub: Hub,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Something waits, or nothing more will.
    comes: Condvar,
    /// There is room for alerts, or nobody needs any.
    room: Condvar,
    unpublished: Counter,
    alerts: Gauge,
    aggregates: Gauge,
}

#[derive(Default)]
struct State {
    waits: Waits,
    /// One of both ends is gone.
    ended: bool,
}

impl Shared {
    fn new() -> Self {
        Self {
            state: Mutex::default(),
            comes: Condvar::new(),
            room: Condvar::new(),
            unpublished: counter!("tributary_agent_unpublished_aggregates_total"),
            alerts: gauge!("tributary_agent_publishing_queue", "lane" => "alerts"),
            aggregates: gauge!("tributary_agent_publishing_queue", "lane" => "aggregates"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Under the lock, so that what is told last is what is so.
    fn measure(&self, state: &State) {
        let (alerts, aggregates) = state.waits.len();
        self.alerts.set(alerts as f64);
        self.aggregates.set(aggregates as f64);
    }

    fn end(&self) {
        self.lock().ended = true;
        self.comes.notify_all();
        self.room.notify_all();
    }
}

impl Hub {
    /// Both ends of a way to publish on this hub.
    pub fn publisher(&self) -> (Publisher, Dispatch) {
        let shared = Arc::new(Shared::new());
        let publisher = Publisher(Arc::clone(&shared));
        let hub = self.clone();
        (publisher, Dispatch { hub, shared })
    }
}

impl Publisher {
    /// As [`Hub::publish`], a moment later: what is no aggregate behind all such that this end
    /// published before, aggregates behind all else. Aggregates for which there is no room are
    /// counted and not published: they are stored. Who hands it out tells when it was `received`
    /// what this is about, if that is said.
    pub fn publish(&self, topic: &str, payload: Bytes, keep: Keep, received: Option<i64>) {
        let shared = &*self.0;
        let is_aggregate = topic.starts_with(AGGREGATES);
        let mut waiting = Waiting {
            topic: topic.into(),
            payload,
            keep,
            received,
        };
        let mut state = shared.lock();
        while !state.ended {
            match state.waits.put(is_aggregate, waiting) {
                Ok(()) => {
                    shared.measure(&state);
                    drop(state);
                    shared.comes.notify_one();
                    return;
                }
                Err(_) if is_aggregate => return shared.unpublished.increment(1),
                Err(back) => waiting = back,
            }
            state = shared
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        // Nobody hands out any more: the process ends.
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Dispatch {
    /// Hands out what is queued, until nobody will queue anything, and tells when it was received
    /// what each was about that says so: once it is handed out.
    pub fn run(self, told: impl Fn(i64)) {
        while let Some(next) = self.next() {
            self.hub.publish(&next.topic, next.payload, next.keep);
            if let Some(received) = next.received {
                told(received);
            }
        }
    }

    /// The next one, once there is one.
    fn next(&self) -> Option<Waiting> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        loop {
            if let Some(next) = state.waits.take() {
                shared.measure(&state);
                drop(state);
                shared.room.notify_one();
                return Some(next);
            }
            if state.ended {
                return None;
            }
            state = shared
                .comes
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        self.shared.end();
    }
}
