//! What goes to one of the user's brokers: of each topic the newest present state that it has not
//! taken, and the newest of what else was said there.
//! What waits has a bound; beyond it, what the hub retains is read from there once more, piece by
//! piece as it is taken, so that only the end of a topic can be lost.

use super::newest::Newest;
use super::{Hub, Published, Retained};
use crate::limits::RETAINED_STEP;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What waits for a broker.
#[derive(Debug, Default)]
pub(super) struct Due {
    newest: Newest,
    again: Option<Again>,
    /// Whether what is retained has its turn.
    turn: bool,
}

/// What is retained, to be told once more.
#[derive(Debug)]
struct Again {
    /// The last topic that was looked at.
    after: Option<Arc<str>>,
    /// Messages up to this one are known.
    since: u64,
    /// Those behind this one wait, or were taken.
    upto: u64,
    /// From where up to where another pass has to look: what went during this one.
    next: Option<(u64, u64)>,
}

impl Again {
    fn new((since, upto): (u64, u64)) -> Self {
        Self {
            after: None,
            since,
            upto,
            next: None,
        }
    }

    /// The pass comes to its end however often something goes meanwhile: that is for the next one.
    fn add(&mut self, since: u64, upto: u64) {
        let both = |(s, u): (u64, u64)| (since.min(s), upto.max(u));
        match self.after {
            None => (self.since, self.upto) = both((self.since, self.upto)),
            Some(_) => self.next = Some(self.next.map_or((since, upto), both)),
        }
    }
}

impl Due {
    /// A message waits; how many are lost for it.
    pub(super) fn put(&mut self, message: &Arc<Published>) -> u64 {
        let dropped = self.newest.put(message);
        if let Some((first, last)) = dropped.retained {
            self.tell_again(first - 1, last);
        }
        dropped.lost
    }

    fn tell_again(&mut self, since: u64, upto: u64) {
        match &mut self.again {
            Some(again) => again.add(since, upto),
            None => self.again = Some(Again::new((since, upto))),
        }
    }

    /// The next that is retained, and has to be told once more; looks at no more than
    /// [`RETAINED_STEP`] topics.
    fn retained(&mut self, retained: &Retained) -> Option<Arc<Published>> {
        let again = self.again.as_mut()?;
        let mut looked = 0;
        for message in retained.from("tributary/alerts/#", again.after.as_deref()) {
            looked += 1;
            again.after = Some(Arc::clone(&message.topic));
            let due = message.number > again.since && message.number <= again.upto;
            if due && !self.newest.has_state(&message.topic) {
                return Some(Arc::clone(message));
            }
            if looked == RETAINED_STEP {
                return None;
            }
        }
        self.again = again.next.map(Again::new);
        None
    }
}

/// What waits, shared by the hub and the one that takes it.
pub(super) type Waiting = Arc<Mutex<Due>>;

/// Nothing panics while it holds the lock.
pub(super) fn lock(due: &Mutex<Due>) -> MutexGuard<'_, Due> {
    due.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The newest alerts of each topic that one of the user's brokers has not taken.
pub(in crate::source) struct Feed {
    pub(super) hub: Hub,
    pub(super) due: Waiting,
}

impl Drop for Feed {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.feeds.retain(|(due, _)| !Arc::ptr_eq(due, &self.due));
    }
}

impl Feed {
    /// The next: of what was published since the one that waits for longest, and in turn of what
    /// is told once more.
    pub(in crate::source) fn take(&self) -> Option<Arc<Published>> {
        loop {
            let mut due = lock(&self.due);
            due.turn = !due.turn && due.again.is_some();
            if !due.turn
                && let Some(message) = due.newest.take()
            {
                return Some(message);
            }
            due.again.as_ref()?;
            drop(due);
            let state = self.hub.lock();
            if let Some(message) = lock(&self.due).retained(&state.retained) {
                return Some(message);
            }
        }
    }

    /// One that was taken was not delivered; a newer one of its topic and kind stays in its place.
    pub(in crate::source) fn put_back(&self, message: &Arc<Published>) {
        let mut due = lock(&self.due);
        let lost = match due.newest.has_newer(message) {
            true => u64::from(!message.is_retained()),
            false => due.put(message),
        };
        self.hub.0.counters.dropped.increment(lost);
    }

    /// Everything that is retained has to be told once more.
    pub(in crate::source) fn refill(&self) {
        let upto = self.hub.lock().published;
        lock(&self.due).tell_again(0, upto);
    }
}
