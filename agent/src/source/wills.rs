//! Wills that wait for their delay (section 3.1.3.2.2 \[5\]): published when it is over, or when
//! their session is, and withdrawn when their client comes back to it. Holds no socket and no will.

use crate::limits::{WILLS_DELAYED_BYTES_MAX, WILLS_DELAYED_MAX};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What becomes of a will that waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// Its client came back.
    Withdrawn,
    /// Its session is over, or the agent ends.
    Published,
}

/// The wills that wait, by session.
#[derive(Debug, Default)]
pub(super) struct Wills {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Fate>>>,
    bytes: AtomicUsize,
    /// Whether it was said that one is not published.
    told: AtomicBool,
}

impl Wills {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Fate>>> {
        // Nothing panics while it holds the lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session's will of `bytes` waits; `None` when no more may. Who waits for it says when it is
    /// [done](Self::done).
    pub(super) fn wait(&self, session: u64, bytes: usize) -> Option<oneshot::Receiver<Fate>> {
        let mut waiting = self.lock();
        let held = self.bytes.load(Ordering::Relaxed);
        if waiting.len() >= WILLS_DELAYED_MAX || held + bytes > WILLS_DELAYED_BYTES_MAX {
            return None;
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let (fate, told) = oneshot::channel();
        // One that is still there is published: its sender is dropped.
        waiting.insert(session, fate);
        Some(told)
    }

    /// The session's client came, to go on with it or to begin a new one.
    pub(super) fn came(&self, session: u64, resumed: bool) {
        let fate = match resumed {
            true => Fate::Withdrawn,
            false => Fate::Published,
        };
        if let Some(waiting) = self.lock().remove(&session) {
            // Nobody listens any more when its time was over just now.
            let _ = waiting.send(fate);
        }
    }

    /// The will's time is over.
    pub(super) fn over(&self, session: u64) {
        self.lock().remove(&session);
    }

    /// A will of `bytes` waits no more, whatever became of it.
    pub(super) fn done(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether it is to be said that one is not published: once, until it is to be
    /// [said again](Self::tell_again).
    pub(super) fn tells(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// What holds of users has changed: it is said once more.
    pub(super) fn tell_again(&self) {
        self.told.store(false, Ordering::Relaxed);
    }

    /// The agent ends: none can wait any longer.
    pub(super) fn publish_all(&self) {
        self.lock().clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn wills_that_wait_have_a_budget_and_give_it_back() {
        const PART: usize = WILLS_DELAYED_BYTES_MAX / 4;
        let wills = Wills::default();
        let mut waiting: Vec<_> = (0..4)
            .map(|session| wills.wait(session, PART).unwrap())
            .collect();
        assert!(wills.wait(4, 1).is_none(), "no byte more");
        // Over for its session is not done: what it holds, it holds until it is published.
        wills.over(3);
        assert!(wills.wait(4, 1).is_none());
        wills.done(PART);
        waiting.push(wills.wait(4, PART).unwrap());
        // One in another's place holds beside it until that one is done.
        wills.done(PART);
        waiting.push(wills.wait(4, PART).unwrap());
        assert!(wills.wait(5, 1).is_none());
        (0..4).for_each(|_| wills.done(PART));
        assert_eq!(wills.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn no_more_wait_than_may() {
        let wills = Wills::default();
        let waiting: Vec<_> = (0..WILLS_DELAYED_MAX as u64)
            .map(|session| wills.wait(session, 1).unwrap())
            .collect();
        assert!(wills.wait(u64::MAX, 1).is_none());
        wills.came(0, true);
        wills.done(1);
        assert!(wills.wait(u64::MAX, 1).is_some());
        drop(waiting);
    }
}
