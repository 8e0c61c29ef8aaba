//! What the agent itself publishes: alerts, aggregates, its status. The present state of each topic
//! is retained, and each message is handed to whoever subscribed to it: connections of the
//! listener, and the user's brokers. It holds no socket, file or clock, and waits for nobody.
//!
//! One lock holds all of it, and nothing is done under it that has no bound: publishing walks the
//! filters that fit the topic, and whoever is slow loses, or goes; nobody else waits for it.

mod feed;
mod filters;
mod newest;
mod publisher;
mod queue;
mod retained;
mod served;

use super::access::acl::Rights;
use crate::limits::{
    PUBLISHED_BYTES_MAX, PUBLISHED_HEAD_BYTES, READERS_MAX, RETAINED_STEP, SUBSCRIPTIONS_MAX,
    SUBSCRIPTIONS_OF_CLIENT_MAX, TOPIC_BYTES_MAX,
};
use bytes::Bytes;
pub(super) use feed::Feed;
use feed::{Due, Waiting};
use filters::{Filters, cost_of};
use metrics::{Counter, Gauge, counter, gauge};
pub use publisher::{Dispatch, Publisher};
use queue::{Full, Queue};
use retained::Retained;
pub(super) use served::check;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Below this, everything is the agent's own.
pub const ROOT: &str = "tributary/";
/// The present state of each series that was ever told of: below it, device and metric.
pub const ALERTS: &str = "tributary/alerts/";
/// What windows came to: below it, device and metric.
pub const AGGREGATES: &str = "tributary/aggregates/";
/// How the agent itself stands.
pub const STATUS: &str = "tributary/status";

/// Whether a message is its topic's present state; what is less goes first where there is no room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Keep {
    /// It is none, and is not retained.
    Not,
    /// Nothing stands there any more.
    Over,
    /// It stands.
    Stands,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Published {
    /// Its place among all messages since the start, from 1.
    pub number: u64,
    pub topic: Arc<str>,
    pub payload: Bytes,
    pub keep: Keep,
}

impl Published {
    pub fn is_retained(&self) -> bool {
        self.keep != Keep::Not
    }

    /// What it counts wherever it is kept or waits.
    fn held_bytes(&self) -> usize {
        PUBLISHED_HEAD_BYTES + self.topic.len() + self.payload.len()
    }
}

/// What a subscription asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Terms {
    /// 0 or 1.
    pub qos: u8,
    /// What its deliveries are marked with (MQTT 5).
    pub id: Option<u32>,
    /// Whether the retain flag stays as it was published.
    pub as_published: bool,
}

/// A filter, and what was asked for with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Subscription {
    pub filter: Box<str>,
    pub terms: Terms,
}

/// What is retained for a topic, where a subscription wants to know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Present {
    /// All of it.
    All,
    /// All of it, if the subscription is new.
    IfNew,
    /// None of it.
    Nothing,
    /// What changed since this message, as if it were published now: the subscription was there
    /// before, and its client was not.
    Since(u64),
}

/// A message for one connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Delivery {
    pub message: Arc<Published>,
    pub qos: u8,
    pub retain: bool,
    /// Of each subscription that it fits, where it has one.
    pub ids: Vec<u32>,
}

/// The connection did not take what it asked for: its queue is full of what may not be dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TooSlow;

/// There is no room for a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Quota;

/// Told when there is something to take; does no more than remember it.
pub(super) trait Wake: Send + Sync {
    fn wake(&self);
}

/// Where the agent publishes; cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    counters: Counters,
}

struct Counters {
    published: Counter,
    refused: Counter,
    evicted: Counter,
    dropped: Counter,
    retained: Gauge,
    readers: Gauge,
}

#[derive(Default)]
struct State {
    published: u64,
    retained: Retained,
    filters: Filters,
    readers: HashMap<u64, Entry>,
    /// Bytes that wait for all readers.
    waiting: usize,
    feeds: Vec<(Waiting, Arc<dyn Wake>)>,
    next_reader: u64,
}

/// One connection that subscribes.
struct Entry {
    rights: Option<Rights>,
    wake: Arc<dyn Wake>,
    subscriptions: BTreeMap<Box<str>, Terms>,
    queue: Queue,
    replays: VecDeque<Replay>,
}

/// Retained messages on their way to one connection.
struct Replay {
    filter: Box<str>,
    terms: Terms,
    /// The last topic that was looked at.
    after: Option<Arc<str>>,
    /// Messages up to this one are known.
    since: u64,
    /// Those behind this one came as they were published.
    upto: u64,
    /// The client was told of the subscription before: what comes now is not marked as retained.
    resumed: bool,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hub")
    }
}

impl Default for Hub {
    fn default() -> Self {
        Self::new()
    }
}

impl Hub {
    /// Nothing is published yet, and nobody subscribed.
    pub fn new() -> Self {
        let counters = Counters {
            published: counter!("tributary_agent_published_total"),
            refused: counter!("tributary_agent_published_refused_total"),
            evicted: counter!("tributary_agent_published_evicted_total"),
            dropped: counter!("tributary_agent_published_dropped_total"),
            retained: gauge!("tributary_agent_published_retained"),
            readers: gauge!("tributary_agent_mqtt_readers"),
        };
        Self(Arc::new(Shared {
            state: Mutex::default(),
            counters,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes: hands `payload` to everybody who subscribed to `topic`, which is one below
    /// `tributary/`, and, unless `keep` says otherwise, keeps it as the topic's present state; an
    /// empty one ends that. May be called on any thread, and waits for nobody. What no client could
    /// be sent (a topic elsewhere or with a wildcard, a payload beyond [`PUBLISHED_BYTES_MAX`]) is
    /// not published, but counted and logged.
    pub fn publish(&self, topic: &str, payload: Bytes, keep: Keep) {
        let counters = &self.0.counters;
        if let Some(why) = wrong(topic, &payload) {
            counters.refused.increment(1);
            tracing::warn!(?topic, bytes = payload.len(), "not published: {why}");
            return;
        }
        let mut state = self.lock();
        state.published += 1;
        let message = Arc::new(Published {
            number: state.published,
            topic: topic.into(),
            payload,
            keep,
        });
        let evicted = match message.is_retained() {
            true => state.retained.keep(&message),
            false => 0,
        };
        let retained = state.retained.len();
        let mut woken = Vec::new();
        let dropped = state.hand_out(&message, &mut woken) + state.feed(&message, &mut woken);
        drop(state);
        // Whoever is told takes the lock.
        woken.iter().for_each(|wake| wake.wake());
        counters.published.increment(1);
        counters.evicted.increment(evicted);
        counters.dropped.increment(dropped);
        counters.retained.set(retained as f64);
    }

    /// The present states of topics that begin so, by topic. Nobody waits for more than a piece of
    /// it: what changes meanwhile is seen or not.
    pub fn present(&self, prefix: &str) -> Vec<Bytes> {
        let filter = format!("{prefix}#");
        let (mut all, mut after) = (Vec::new(), None::<Arc<str>>);
        loop {
            let state = self.lock();
            let mut looked = 0;
            for message in state
                .retained
                .from(&filter, after.as_deref())
                .take(RETAINED_STEP)
            {
                looked += 1;
                after = Some(Arc::clone(&message.topic));
                if message.topic.starts_with(prefix) {
                    all.push(message.payload.clone());
                }
            }
            drop(state);
            if looked < RETAINED_STEP {
                return all;
            }
        }
    }

    /// A connection that may subscribe, whose task is told by `wake`; what it sees depends on
    /// `rights`. Nobody is let in beyond [`READERS_MAX`].
    pub(super) fn reader(
        &self,
        wake: Arc<dyn Wake>,
        rights: Option<Rights>,
    ) -> Result<Reader, Quota> {
        let mut state = self.lock();
        if state.readers.len() >= READERS_MAX {
            return Err(Quota);
        }
        state.next_reader += 1;
        let number = state.next_reader;
        let entry = Entry {
            rights,
            wake,
            subscriptions: BTreeMap::new(),
            queue: Queue::default(),
            replays: VecDeque::new(),
        };
        state.readers.insert(number, entry);
        self.0.counters.readers.set(state.readers.len() as f64);
        drop(state);
        Ok(Reader {
            hub: self.clone(),
            number,
        })
    }

    /// The newest messages of each topic below [`ALERTS`], for one of the user's brokers.
    pub(super) fn alerts(&self, wake: Arc<dyn Wake>) -> Feed {
        let due = Arc::new(Mutex::new(Due::default()));
        let mut state = self.lock();
        state.feeds.push((Arc::clone(&due), wake));
        drop(state);
        let feed = Feed {
            hub: self.clone(),
            due,
        };
        feed.refill();
        feed
    }

    /// The number of the newest message.
    #[cfg(test)]
    pub(super) fn newest(&self) -> u64 {
        self.lock().published
    }
}

/// Why a message cannot be published.
fn wrong(topic: &str, payload: &Bytes) -> Option<&'static str> {
    if !topic.starts_with(ROOT) || topic.len() == ROOT.len() {
        Some("its topic does not lie below tributary/")
    } else if topic.len() > TOPIC_BYTES_MAX || topic.contains(['+', '#', '\0']) {
        Some("its topic is none")
    } else if payload.len() > PUBLISHED_BYTES_MAX {
        Some("it is too large")
    } else {
        None
    }
}

impl State {
    /// Gives a message to the connections that subscribed to it, of which `woken` are to be told;
    /// how many were dropped for it.
    fn hand_out(&mut self, message: &Arc<Published>, woken: &mut Vec<Arc<dyn Wake>>) -> u64 {
        let mut found = self.filters.matching(&message.topic);
        // One delivery each, however many filters fit (section 3.3.4 [5]).
        found.sort_unstable_by_key(|(reader, _)| *reader);
        let mut dropped = 0;
        for same in found.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((reader, _)) = same.first() else {
                continue;
            };
            let Some(entry) = self.readers.get_mut(reader) else {
                continue;
            };
            if !entry.sees(&message.topic) {
                continue;
            }
            let terms = same.iter().map(|(_, terms)| terms);
            let delivery = Delivery {
                message: Arc::clone(message),
                qos: terms.clone().map(|terms| terms.qos).max().unwrap_or(0),
                retain: message.is_retained() && terms.clone().any(|terms| terms.as_published),
                ids: terms.filter_map(|terms| terms.id).collect(),
            };
            dropped += entry.push(delivery, &mut self.waiting, woken);
        }
        dropped
    }

    fn feed(&self, message: &Arc<Published>, woken: &mut Vec<Arc<dyn Wake>>) -> u64 {
        if !message.topic.starts_with(ALERTS) {
            return 0;
        }
        let mut dropped = 0;
        for (due, wake) in &self.feeds {
            dropped += feed::lock(due).put(message);
            woken.push(Arc::clone(wake));
        }
        dropped
    }
}

impl Entry {
    fn sees(&self, topic: &str) -> bool {
        served::sees(self.rights.as_ref(), topic)
    }

    /// Queues a delivery; how many were dropped for it.
    fn push(
        &mut self,
        delivery: Delivery,
        waiting: &mut usize,
        woken: &mut Vec<Arc<dyn Wake>>,
    ) -> u64 {
        if self.queue.is_over() {
            return 0;
        }
        let idle = self.queue.is_empty();
        let before = self.queue.held_bytes();
        let pushed = self.queue.push(delivery, *waiting);
        *waiting = *waiting - before + self.queue.held_bytes();
        // Whoever has not taken the first one is awake, or waits for its socket or its client.
        if idle || pushed.is_err() {
            woken.push(Arc::clone(&self.wake));
        }
        match pushed {
            Ok(dropped) => dropped,
            Err(Full { dropped }) => dropped,
        }
    }

    /// The next retained message of the first replay, and whether that has more; looks at no more
    /// than [`RETAINED_STEP`] topics.
    fn replay(&mut self, retained: &Retained) -> Option<Delivery> {
        let replay = self.replays.front_mut()?;
        let rights = self.rights.as_ref();
        let mut looked = 0;
        for message in retained.from(&replay.filter, replay.after.as_deref()) {
            looked += 1;
            replay.after = Some(Arc::clone(&message.topic));
            let due = message.number > replay.since && message.number <= replay.upto;
            if due
                && filters::matches(&replay.filter, &message.topic)
                && served::sees(rights, &message.topic)
            {
                return Some(Delivery {
                    message: Arc::clone(message),
                    qos: replay.terms.qos,
                    retain: !replay.resumed || replay.terms.as_published,
                    ids: replay.terms.id.into_iter().collect(),
                });
            }
            if looked == RETAINED_STEP {
                return None;
            }
        }
        self.replays.pop_front();
        None
    }
}

/// One connection's way to what is published. Gone with it: its subscriptions.
pub(super) struct Reader {
    hub: Hub,
    number: u64,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reader").field(&self.number).finish()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        if let Some(entry) = state.readers.remove(&self.number) {
            state.waiting -= entry.queue.held_bytes();
            for filter in entry.subscriptions.keys() {
                state.filters.remove(filter, self.number);
            }
        }
        let readers = state.readers.len();
        drop(state);
        self.hub.0.counters.readers.set(readers as f64);
    }
}

impl Reader {
    /// Subscribes, or changes what a subscription asks for.
    pub(super) fn subscribe(
        &self,
        filter: &str,
        terms: Terms,
        present: Present,
    ) -> Result<(), Quota> {
        let mut state = self.hub.lock();
        let upto = state.published;
        let State {
            filters, readers, ..
        } = &mut *state;
        let entry = readers.get_mut(&self.number).ok_or(Quota)?;
        let known = entry.subscriptions.contains_key(filter);
        if !known {
            let many = entry.subscriptions.len() >= SUBSCRIPTIONS_OF_CLIENT_MAX;
            if many || filters.len() >= SUBSCRIPTIONS_MAX || !filters.has_room(cost_of(filter)) {
                return Err(Quota);
            }
        }
        filters.insert(filter, self.number, terms);
        entry.subscriptions.insert(filter.into(), terms);
        entry.replays.retain(|replay| &*replay.filter != filter);
        let since = match present {
            Present::Nothing => return Ok(()),
            Present::IfNew if known => return Ok(()),
            Present::All | Present::IfNew => 0,
            Present::Since(number) => number,
        };
        entry.replays.push_back(Replay {
            filter: filter.into(),
            terms,
            after: None,
            since,
            upto,
            resumed: matches!(present, Present::Since(_)),
        });
        Ok(())
    }

    /// Ends a subscription; whether there was one.
    pub(super) fn unsubscribe(&self, filter: &str) -> bool {
        let mut state = self.hub.lock();
        let Some(entry) = state.readers.get_mut(&self.number) else {
            return false;
        };
        entry.replays.retain(|replay| &*replay.filter != filter);
        let known = entry.subscriptions.remove(filter).is_some();
        if known {
            state.filters.remove(filter, self.number);
        }
        known
    }

    /// How many filters are subscribed to.
    pub(super) fn len(&self) -> usize {
        let state = self.hub.lock();
        let entry = state.readers.get(&self.number);
        entry.map_or(0, |entry| entry.subscriptions.len())
    }

    /// Whether the connection was too slow to be kept.
    pub(super) fn is_over(&self) -> bool {
        let state = self.hub.lock();
        let entry = state.readers.get(&self.number);
        entry.is_some_and(|entry| entry.queue.is_over())
    }

    /// The next message, if there is one now: what is published goes before what is retained.
    pub(super) fn next(&self) -> Result<Option<Delivery>, TooSlow> {
        loop {
            let mut state = self.hub.lock();
            let State {
                readers,
                retained,
                waiting,
                ..
            } = &mut *state;
            let Some(entry) = readers.get_mut(&self.number) else {
                return Ok(None);
            };
            let before = entry.queue.held_bytes();
            let next = entry.queue.pop()?;
            *waiting -= before - entry.queue.held_bytes();
            if next.is_some() {
                return Ok(next);
            }
            if entry.replays.is_empty() {
                return Ok(None);
            }
            if let Some(delivery) = entry.replay(retained) {
                return Ok(Some(delivery));
            }
        }
    }

    /// What is subscribed to, and the number of the message up to which all was taken.
    pub(super) fn subscriptions(&self) -> (Vec<Subscription>, u64) {
        let state = self.hub.lock();
        let Some(entry) = state.readers.get(&self.number) else {
            return (Vec::new(), state.published);
        };
        let subscriptions = entry.subscriptions.iter();
        let subscriptions = subscriptions.map(|(filter, terms)| Subscription {
            filter: filter.clone(),
            terms: *terms,
        });
        let queued = entry.queue.first().map(|number| number - 1);
        let replays = entry.replays.iter().map(|replay| replay.since);
        let taken = replays.chain(queued).min().unwrap_or(state.published);
        (subscriptions.collect(), taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
