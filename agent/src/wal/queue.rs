//! The queue from sources to the commit thread: bounded by bytes, and silent while it fills.
//!
//! The bytes stay taken until the frame with them is durable, so that what waits here, and what
//! the commit thread holds, is bounded together. A push wakes the thread only when the thread
//! said that it would do something about it.
//!
//! Who has to see messages before they are durable takes a [`Tap`]: every batch comes to it, in the
//! order in which they will stand in the log, and its bytes stay taken until the tap is through
//! with it, too.

use super::batch::Batch;
use crate::limits::{WAL_QUEUE_BATCHES_MAX, WAL_QUEUE_BYTES_MAX};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// What the smallest batch counts for, so that the number of batches is bounded, too.
const BATCH_BYTES_MIN: usize = WAL_QUEUE_BYTES_MAX / WAL_QUEUE_BATCHES_MAX;

/// Room in the queue, taken until it is dropped.
#[derive(Debug)]
pub struct Room(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit);

/// A batch, and the room that it takes.
pub(super) type Held = (Arc<Batch>, Arc<Room>);

/// The sources' end; clone it for each.
#[derive(Clone, Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    ended: CancellationToken,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    tapped: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Held>,
    /// What the tap has not seen; `None` where there is none.
    tapped: Option<VecDeque<Held>>,
    /// Whether the tap waits.
    tap_waits: bool,
    bytes: usize,
    /// Bytes at which the thread is woken; `None` while it does not wait.
    wake_at: Option<usize>,
    closed: bool,
}

impl Queue {
    /// A queue, and the commit thread's end of it.
    pub(super) fn new() -> (Self, Intake) {
        let shared = Arc::new(Shared::default());
        let room = Arc::new(Semaphore::new(WAL_QUEUE_BYTES_MAX));
        (
            Self {
                shared: Arc::clone(&shared),
                room,
                ended: CancellationToken::new(),
            },
            Intake { shared },
        )
    }

    /// One that nobody takes from.
    #[cfg(test)]
    pub(crate) fn unread() -> Self {
        Self::new().0
    }

    fn permits(bytes: usize) -> u32 {
        bytes.clamp(BATCH_BYTES_MIN, WAL_QUEUE_BYTES_MAX) as u32
    }

    /// Room for a batch of `bytes`, if there is some now.
    pub fn try_room(&self, bytes: usize) -> Option<Room> {
        let permits = Arc::clone(&self.room).try_acquire_many_owned(Self::permits(bytes));
        permits.ok().map(Room)
    }

    /// Room for a batch of `bytes`. Cancel safe; waits while storage takes nothing. `None` when
    /// the log is closed for good.
    pub async fn room(&self, bytes: usize) -> Option<Room> {
        let permits = Arc::clone(&self.room).acquire_many_owned(Self::permits(bytes));
        permits.await.ok().map(Room)
    }

    /// Hands a batch to the commit thread.
    pub fn push(&self, batch: Batch, room: Room) {
        let held = (Arc::new(batch), Arc::new(room));
        let mut state = self.shared.lock();
        state.bytes += held.0.len_bytes();
        if let Some(tapped) = &mut state.tapped {
            tapped.push_back(held.clone());
        }
        state.waiting.push_back(held);
        if std::mem::take(&mut state.tap_waits) {
            self.shared.tapped.notify_one();
        }
        if state.wake_at.is_some_and(|bytes| state.bytes >= bytes) {
            state.wake_at = None;
            drop(state);
            self.shared.changed.notify_one();
        }
    }

    /// Lets the commit thread end once it has written what is here.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
        self.shared.tapped.notify_one();
    }

    /// Everything that is pushed from now on, for one more thread.
    pub fn tap(&self) -> Tap {
        self.shared.lock().tapped = Some(VecDeque::new());
        Tap {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Waits until the commit thread has ended: nothing will become durable any more.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Wakes every source that waits for room, for good: nothing will be taken any more.
    pub(super) fn refuse(&self) {
        self.room.close();
        self.ended.cancel();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; if it did, the state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is pushed, before it is durable. Once it is dropped, nothing waits for it.
#[derive(Debug)]
pub struct Tap {
    shared: Arc<Shared>,
}

/// A batch that was pushed; its bytes stay taken until it is dropped.
#[derive(Debug)]
pub struct Tapped(Held);

impl Tapped {
    /// The batch alone; the room that it takes is given back, once it is durable.
    pub fn into_batch(self) -> Arc<Batch> {
        self.0.0
    }
}

impl std::ops::Deref for Tapped {
    type Target = Batch;

    fn deref(&self) -> &Batch {
        &self.0.0
    }
}

impl Tap {
    /// Waits for batches, or until the time is over, and adds those that came to `out`; whether
    /// more may come: the queue is open, or something came.
    pub fn take(&self, timeout: Duration, out: &mut Vec<Tapped>) -> bool {
        let mut state = self.shared.lock();
        let is_idle = |state: &State| !state.closed && state.tapped.iter().all(VecDeque::is_empty);
        if is_idle(&state) {
            state.tap_waits = true;
            let idle = |state: &mut State| is_idle(state);
            let waited = self.shared.tapped.wait_timeout_while(state, timeout, idle);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.tap_waits = false;
        }
        let tapped = state.tapped.iter_mut().flat_map(|tapped| tapped.drain(..));
        out.extend(tapped.map(Tapped));
        !(out.is_empty() && state.closed)
    }
}

#[cfg(any(test, feature = "world"))]
impl Tap {
    /// Whether [`take`](Self::take) would wait.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        !state.closed && state.tapped.iter().all(VecDeque::is_empty)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.shared.lock().tapped = None;
    }
}

/// The commit thread's end.
#[derive(Debug)]
pub(super) struct Intake {
    shared: Arc<Shared>,
}

impl Intake {
    /// Moves batches to `out` until it holds `most` bytes more (at least one batch, if there is
    /// one); whether none will be pushed any more and none is left here.
    pub(super) fn take(&self, most: usize, out: &mut Vec<Held>) -> bool {
        let mut state = self.shared.lock();
        let mut moved = 0;
        while let Some((next, _)) = state.waiting.front() {
            if moved > 0 && moved + next.len_bytes() > most {
                break;
            }
            moved += next.len_bytes();
            out.extend(state.waiting.pop_front());
        }
        state.bytes -= moved;
        state.closed && state.waiting.is_empty()
    }

    /// Waits until `bytes` wait here, the time is over, or the queue is closed.
    pub(super) fn wait(&self, bytes: usize, timeout: Option<Duration>) {
        let mut state = self.shared.lock();
        if state.bytes >= bytes || state.closed {
            return;
        }
        state.wake_at = Some(bytes);
        let idle = |state: &mut State| state.wake_at.is_some() && !state.closed;
        let changed = &self.shared.changed;
        let mut state = match timeout {
            None => changed
                .wait_while(state, idle)
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = changed.wait_timeout_while(state, timeout, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.wake_at = None;
    }

    /// Bytes that wait here.
    #[cfg(any(test, feature = "world"))]
    pub(super) fn len_bytes(&self) -> usize {
        self.shared.lock().bytes
    }

    /// Whether no batch will be pushed any more.
    pub(super) fn is_closed(&self) -> bool {
        self.shared.lock().closed
    }

    /// Waits for this time, or until the queue is closed.
    pub(super) fn wait_closed(&self, time: Duration) {
        let state = self.shared.lock();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(state, time, |state| !state.closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}
