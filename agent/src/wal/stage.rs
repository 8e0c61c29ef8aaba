//! The commit thread: it waits, for batches, for the time, and for the next stage. What becomes a
//! frame, and when, and who hears that it is durable, the [`Committer`] decides.

use super::batch::Batch;
use super::committer::{Committer, Polled};
use super::queue::Queue;
use super::wait::wait_for;
use crate::limits::{COMMITTED_FRAMES_MAX, NEXT_STAGE_PATIENCE};
use metrics::histogram;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::{mpsc, watch};
use tributary_journal::{Appended, CommitPolicy, Frame, LifeId, LogError, LogWriter, Meter, Wear};

/// Whether messages can be made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StorageState {
    /// They can.
    #[default]
    Ok,
    /// The log's quota or the disk is full: nothing is acknowledged until there is room.
    Full,
    /// The disk fails: nothing is acknowledged.
    Failed,
    /// Sealed readings wait for the disk, or the next stage is behind: nothing is acknowledged
    /// after the frames that are queued.
    Blocked,
}

/// What takes frames: the log's writer, or what stands for it in a test.
pub trait Append: Send + 'static {
    /// Makes a frame durable. After an error nothing of it is, and it may come again.
    ///
    /// # Errors
    /// What the log says.
    fn append(&mut self, frame: &Frame) -> Result<Appended, LogError>;
}

impl Append for LogWriter {
    fn append(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        // Whatever frees room in this log is written elsewhere: nothing is kept back.
        self.append_reserved(frame)
    }
}

/// Messages that are durable, in log order, for the next stage.
#[derive(Debug)]
pub struct CommittedFrame {
    /// The life of the log.
    pub life: LifeId,
    /// The number of the first record.
    pub first: u64,
    /// How many records there are.
    pub count: u32,
    batches: Vec<Arc<Batch>>,
}

impl CommittedFrame {
    pub(super) fn new(appended: Appended, batches: Vec<Arc<Batch>>) -> Self {
        let Appended { life, first, count } = appended;
        Self {
            life,
            first,
            count,
            batches,
        }
    }

    /// Every record with its number, kind and bytes; [`Record::parse`](super::Record::parse)
    /// reads them.
    pub fn records(&self) -> impl Iterator<Item = (u64, u8, &[u8])> {
        let records = self.batches.iter().flat_map(|batch| batch.iter());
        (self.first..)
            .zip(records)
            .map(|(number, (kind, bytes))| (number, kind, bytes))
    }
}

/// Why the stage could not start.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The operating system gave no thread.
    #[error("no thread for the write-ahead log: {0}")]
    Thread(#[source] io::Error),
}

/// The running stage.
#[derive(Debug)]
pub struct Wal {
    /// Where sources hand in batches. [`Queue::close`] ends the stage.
    pub queue: Queue,
    /// What is durable, in log order; ends when the stage does.
    pub committed: mpsc::Receiver<CommittedFrame>,
    /// Whether messages can be made durable.
    pub state: watch::Receiver<StorageState>,
    /// What the budget of writes does to the delay.
    pub wear: watch::Receiver<Wear>,
    /// Ends with the stage, once the queue is closed or nobody takes frames; the log's writer is
    /// dropped in it. Whoever runs the stage joins it, before it lets go of the log's directory.
    pub thread: JoinHandle<()>,
}

impl Wal {
    /// Starts the stage on a log that is open and replayed.
    ///
    /// # Errors
    /// [`WalError::Thread`].
    pub fn start(writer: impl Append, policy: CommitPolicy) -> Result<Self, WalError> {
        Self::start_metered(writer, policy, Meter::default())
    }

    /// As [`start`](Self::start), with the meter of all that this agent writes: the budget of
    /// writes is for all of it.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_metered(
        writer: impl Append,
        policy: CommitPolicy,
        meter: Meter,
    ) -> Result<Self, WalError> {
        Self::start_with(writer, policy, (meter, NEXT_STAGE_PATIENCE))
    }

    fn start_with(
        writer: impl Append,
        policy: CommitPolicy,
        (meter, patience): (Meter, Duration),
    ) -> Result<Self, WalError> {
        let (committer, queue) = Committer::new(Timed(writer), policy, meter);
        let (frames, committed) = mpsc::channel(COMMITTED_FRAMES_MAX);
        let (state, wear) = (committer.state(), committer.wear());
        let stage = Stage {
            committer,
            frames,
            started: Instant::now(),
            patience,
        };
        let refusing = queue.clone();
        let thread = thread::Builder::new()
            .name("wal".into())
            .spawn(move || {
                stage.run();
                refusing.refuse();
            })
            .map_err(WalError::Thread)?;
        Ok(Self {
            queue,
            committed,
            state,
            wear,
            thread,
        })
    }
}

/// The next stage has ended.
struct Gone;

/// Measures how long the log takes.
struct Timed<W>(W);

impl<W: Append> Append for Timed<W> {
    fn append(&mut self, frame: &Frame) -> Result<Appended, LogError> {
        let begun = Instant::now();
        let appended = self.0.append(frame)?;
        histogram!("tributary_agent_wal_commit_seconds").record(begun.elapsed());
        Ok(appended)
    }
}

struct Stage<W> {
    committer: Committer<Timed<W>>,
    frames: mpsc::Sender<CommittedFrame>,
    started: Instant,
    patience: Duration,
}

impl<W: Append> Stage<W> {
    fn now_us(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn run(mut self) {
        loop {
            let now_us = self.now_us();
            let until = |at: i64| Duration::from_micros((at - now_us).max(0).unsigned_abs());
            match self.committer.poll(now_us) {
                Polled::Idle => self.wait(None),
                Polled::Until(at) => self.wait(Some(until(at))),
                Polled::Committed(frame) => {
                    if self.hand_over(frame).is_err() {
                        return;
                    }
                }
                Polled::Refused(at) => self.committer.intake().wait_closed(until(at)),
                Polled::Closed => return,
            }
        }
    }

    /// Waits until as much has come as the committer would do something about.
    fn wait(&self, timeout: Option<Duration>) {
        let missing = self.committer.missing_bytes();
        self.committer.intake().wait(missing, timeout);
    }

    /// Gives a frame to the next stage, however long that takes; an error when there is none.
    fn hand_over(&self, frame: CommittedFrame) -> Result<(), Gone> {
        let frame = match self.frames.try_send(frame) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Gone),
            Err(TrySendError::Full(frame)) => frame,
        };
        let mut room = pin!(self.frames.reserve());
        let granted = match wait_for(room.as_mut(), Some(self.patience)) {
            Some(granted) => granted,
            None => {
                if self.committer.publish(StorageState::Blocked) {
                    tracing::warn!(
                        "the next stage takes no messages: no more are acknowledged until it does"
                    );
                }
                wait_for(room, None).unwrap_or(Err(SendError(())))
            }
        };
        granted.map_err(|_| Gone)?.send(frame);
        self.committer.publish(StorageState::Ok);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
