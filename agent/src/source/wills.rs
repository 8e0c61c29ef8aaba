//! Wills that wait for their delay (section 3.1.3.2.2 \[5\]): published when it is over, or when
//! their session is, and withdrawn when their client comes back to it. Holds no socket and no will.

use crate::limits::{WILLS_DELAYED_BYTES_MAX, WILLS_DELAYED_MAX};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
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

    /// The agent ends: none can wait any longer.
    pub(super) fn publish_all(&self) {
        self.lock().clear();
    }
}
