//! What the commit thread says when the next stage takes nothing. No clock: patience is none or
//! without end.

use super::*;
use crate::decode::UserProperties;
use crate::wal::{Durable, Message, Qos};
use std::sync::Arc;

/// A log that takes everything and says so.
struct Taking {
    taken: mpsc::Sender<()>,
    next: u64,
}

impl Append for Taking {
    fn append(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        let first = self.next;
        self.next += u64::from(frame.count());
        self.taken.blocking_send(()).unwrap();
        Ok(Appended {
            life: LifeId([1; 16]),
            first,
            count: frame.count(),
        })
    }
}

/// A source that hears what is durable.
struct Hearing(mpsc::Sender<u64>);

impl Durable for Hearing {
    fn durable(&self, upto: u64) {
        self.0.blocking_send(upto).unwrap();
    }
}

struct Running {
    wal: Wal,
    taken: mpsc::Receiver<()>,
    source: Arc<Hearing>,
    heard: mpsc::Receiver<u64>,
    sent: u64,
}

fn start(patience: Duration) -> Running {
    let (taken_sender, taken) = mpsc::channel(2 * COMMITTED_FRAMES_MAX);
    let (heard_sender, heard) = mpsc::channel(2 * COMMITTED_FRAMES_MAX);
    let log = Taking {
        taken: taken_sender,
        next: 0,
    };
    Running {
        wal: Wal::start_with(
            log,
            CommitPolicy::low_latency(),
            (Meter::default(), patience),
        )
        .unwrap(),
        taken,
        source: Arc::new(Hearing(heard_sender)),
        heard,
        sent: 0,
    }
}

impl Running {
    async fn push(&mut self) {
        self.sent += 1;
        let mut batch = Batch::new();
        batch.message(&Message {
            session: 1,
            qos: Qos::AtLeastOnce,
            dup: false,
            retain: false,
            v5: false,
            will: false,
            broker: false,
            packet_id: 1,
            received_time: 1,
            topic: "a",
            properties: UserProperties::NONE,
            payload: b"1",
        });
        batch.tell(self.source.clone(), self.sent);
        let room = self.wal.queue.room(batch.len_bytes()).await.unwrap();
        self.wal.queue.push(batch, room);
    }

    /// A frame of its own for one message, committed and acknowledged.
    async fn frame(&mut self) {
        self.push().await;
        self.taken.recv().await.unwrap();
        assert_eq!(self.heard.recv().await, Some(self.sent));
    }

    async fn end(self) {
        let Wal {
            queue,
            committed,
            thread,
            ..
        } = self.wal;
        queue.close();
        drop(committed);
        tokio::task::spawn_blocking(move || thread.join().unwrap())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_stage_that_takes_nothing_shows_in_the_state_and_goes_on_by_itself() {
    let mut running = start(Duration::ZERO);
    for _ in 0..COMMITTED_FRAMES_MAX {
        running.frame().await;
    }
    assert_eq!(
        *running.wal.state.borrow(),
        StorageState::Ok,
        "they are queued"
    );
    // This one is durable and acknowledged, and finds no room behind the others.
    running.frame().await;
    let blocked = |state: &StorageState| *state == StorageState::Blocked;
    running.wal.state.wait_for(blocked).await.unwrap();
    // Nothing after it is taken to the log, let alone acknowledged.
    running.push().await;
    assert!(running.taken.is_empty() && running.heard.is_empty());
    assert_eq!(running.wal.committed.recv().await.unwrap().first, 0);
    // The one that waited moves up, and the one behind it is taken to the log.
    running.taken.recv().await.unwrap();
    assert_eq!(running.heard.recv().await, Some(running.sent));
    for first in 1..running.sent {
        assert_eq!(running.wal.committed.recv().await.unwrap().first, first);
    }
    let ok = |state: &StorageState| *state == StorageState::Ok;
    running.wal.state.wait_for(ok).await.unwrap();
    running.end().await;
}

#[tokio::test]
async fn a_short_wait_for_the_next_stage_is_no_news() {
    let mut running = start(Duration::MAX);
    for _ in 0..=COMMITTED_FRAMES_MAX {
        running.frame().await;
    }
    running.push().await;
    for first in 0..running.sent {
        assert_eq!(running.wal.committed.recv().await.unwrap().first, first);
    }
    assert!(
        !running.wal.state.has_changed().unwrap(),
        "it was Ok throughout"
    );
    running.end().await;
}

#[tokio::test]
async fn a_next_stage_that_ends_ends_the_wait() {
    let mut running = start(Duration::ZERO);
    for _ in 0..=COMMITTED_FRAMES_MAX {
        running.frame().await;
    }
    let blocked = |state: &StorageState| *state == StorageState::Blocked;
    running.wal.state.wait_for(blocked).await.unwrap();
    running.end().await;
}
