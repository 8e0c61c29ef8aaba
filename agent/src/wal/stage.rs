//! The commit thread: what waits becomes a frame, the frame becomes durable, everybody hears.
//!
//! When storage refuses a frame, the same frame is tried again until it is taken: nothing new is
//! accepted meanwhile, nothing is acknowledged, and the state says why.

use super::batch::Batch;
use super::queue::{Held, Intake, Queue, Woken};
use super::wait::wait_for;
use crate::limits::{COMMIT_RETRY, COMMITTED_FRAMES_MAX, FRAME_TAKE_BYTES, NEXT_STAGE_PATIENCE};
use metrics::{counter, gauge, histogram};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::error::{SendError, TrySendError};
use tokio::sync::{mpsc, watch};
use tributary_journal::limits::COMMIT_COST_BYTES;
use tributary_journal::{
    Appended, CommitPolicy, Frame, GroupCommit, LifeId, LogError, LogWriter, Meter, Wear,
};

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
        let (queue, intake) = Queue::new();
        let (frames, committed) = mpsc::channel(COMMITTED_FRAMES_MAX);
        let (state, state_receiver) = watch::channel(StorageState::Ok);
        let (wear, wear_receiver) = watch::channel(Wear::Within);
        let stage = Stage {
            device_bytes: meter.counts().device_bytes(),
            meter,
            wear,
            writer,
            target_bytes: policy.frame_bytes,
            group: GroupCommit::new(policy),
            started: Instant::now(),
            intake,
            frames,
            state,
            frame: Frame::new(),
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
            state: state_receiver,
            wear: wear_receiver,
            thread,
        })
    }
}

/// The next stage has ended.
struct Gone;

struct Stage<W> {
    writer: W,
    intake: Intake,
    frames: mpsc::Sender<CommittedFrame>,
    state: watch::Sender<StorageState>,
    wear: watch::Sender<Wear>,
    meter: Meter,
    /// What the device had to write when it was last looked at.
    device_bytes: u64,
    frame: Frame,
    target_bytes: usize,
    group: GroupCommit,
    started: Instant,
    patience: Duration,
}

impl<W: Append> Stage<W> {
    fn now_us(&self) -> i64 {
        i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    fn run(mut self) {
        loop {
            let mut held = Vec::new();
            if self.gather(&mut held) == Woken::Closed {
                return;
            }
            if held.is_empty() {
                continue;
            }
            self.fill(&held);
            let Some(appended) = self.commit() else {
                return;
            };
            // Acknowledged first: the next stage may be slow, and owes the sender nothing.
            held.iter().for_each(|(batch, _)| batch.acknowledge());
            let batches = held.into_iter().map(|(batch, _)| batch).collect();
            let Appended { life, first, count } = appended;
            let committed = CommittedFrame {
                life,
                first,
                count,
                batches,
            };
            if self.hand_over(committed).is_err() {
                return;
            }
        }
    }

    /// Waits for batches, and then for more of them until the frame should close.
    fn gather(&mut self, held: &mut Vec<Held>) -> Woken {
        let mut bytes = 0;
        let woken = self.take(1, None, &mut bytes, held);
        while !held.is_empty() && bytes < FRAME_TAKE_BYTES {
            let left_us = self.group.poll_timeout().map_or(0, |at| at - self.now_us());
            let left = Duration::from_micros(u64::try_from(left_us).unwrap_or(0));
            if left.is_zero() {
                break;
            }
            let missing = self.target_bytes.saturating_sub(bytes).max(1);
            let before = held.len();
            self.take(missing, Some(left), &mut bytes, held);
            if held.len() == before && self.intake.is_closed() {
                break;
            }
        }
        woken
    }

    /// One look into the queue: at least `missing` bytes, or what there is after `timeout`.
    fn take(
        &mut self,
        missing: usize,
        timeout: Option<Duration>,
        bytes: &mut usize,
        held: &mut Vec<Held>,
    ) -> Woken {
        let before = held.len();
        let most = FRAME_TAKE_BYTES.saturating_sub(*bytes);
        let woken = self.intake.take(missing, timeout, most, held);
        let now_us = self.now_us();
        for (batch, _) in held.iter().skip(before) {
            *bytes += batch.len_bytes();
            self.group
                .on_entry(batch.len_bytes(), batch.records(), now_us);
        }
        woken
    }

    fn fill(&mut self, held: &[Held]) {
        self.frame.clear();
        for (kind, bytes) in held.iter().flat_map(|(batch, _)| batch.iter()) {
            self.frame
                .push(kind, bytes)
                .expect("limits.rs: whatever is taken fits one frame");
        }
    }

    /// Makes the frame durable, however often it takes. `None` when the stage was closed while
    /// storage took nothing: what is in the frame was never acknowledged.
    fn commit(&mut self) -> Option<Appended> {
        let mut wait = COMMIT_RETRY.0;
        loop {
            let begun = Instant::now();
            let outcome = self.writer.append(&self.frame);
            self.spend();
            match outcome {
                Ok(appended) => {
                    self.count(begun.elapsed());
                    self.publish(StorageState::Ok);
                    return Some(appended);
                }
                Err(error) => {
                    let full = error.is_full();
                    let state = if full {
                        StorageState::Full
                    } else {
                        StorageState::Failed
                    };
                    if self.publish(state) {
                        tracing::error!(%error, "nothing is acknowledged until this is mended");
                    }
                    counter!("tributary_agent_wal_refused_total").increment(1);
                    if self.intake.wait_closed(wait) {
                        return None;
                    }
                    wait = (wait * 2).min(COMMIT_RETRY.1);
                }
            }
        }
    }

    /// Counts the commit, and whatever else was written since the last one, against the budget.
    fn spend(&mut self) {
        let now_us = self.now_us();
        let frame_bytes = self.frame.len_bytes();
        self.group.on_committed(frame_bytes, now_us);
        let counts = self.meter.counts();
        let all = counts.device_bytes() - self.device_bytes;
        self.device_bytes += all;
        let own = COMMIT_COST_BYTES + frame_bytes as u64;
        self.group.on_write(all.saturating_sub(own), now_us);
        counter!("tributary_agent_written_bytes_total").absolute(counts.written_bytes);
        counter!("tributary_agent_fdatasyncs_total").absolute(counts.fdatasyncs + counts.dir_syncs);
        counter!("tributary_agent_device_bytes_total").absolute(self.device_bytes);
        let wear = self.group.wear();
        let is =
            |now: &Wear, than: &Wear| std::mem::discriminant(now) == std::mem::discriminant(than);
        let news = self.wear.send_if_modified(|now| {
            let news = !is(now, &wear);
            *now = wear;
            news
        });
        if !news {
            return;
        }
        gauge!("tributary_agent_wear_exceeded").set(f64::from(u8::from(wear == Wear::Exceeded)));
        match wear {
            Wear::Exceeded => tracing::warn!(
                "more is written than `max_write_gb_per_day` allows, however long commits wait: \
                 raise it, or publish less"
            ),
            Wear::Stretched { delay_us } => tracing::info!(
                delay_ms = delay_us / 1_000,
                "commits wait longer, as `max_write_gb_per_day` asks"
            ),
            Wear::Within => tracing::info!("commits wait as configured"),
        }
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
                if self.publish(StorageState::Blocked) {
                    tracing::warn!(
                        "the next stage takes no messages: no more are acknowledged until it does"
                    );
                }
                wait_for(room, None).unwrap_or(Err(SendError(())))
            }
        };
        granted.map_err(|_| Gone)?.send(frame);
        self.publish(StorageState::Ok);
        Ok(())
    }

    fn count(&self, took: Duration) {
        counter!("tributary_agent_wal_commits_total").increment(1);
        counter!("tributary_agent_wal_records_total").increment(u64::from(self.frame.count()));
        counter!("tributary_agent_wal_bytes_total").increment(self.frame.len_bytes() as u64);
        histogram!("tributary_agent_wal_commit_seconds").record(took);
        gauge!("tributary_agent_wal_delay_seconds").set(self.group.delay_us() as f64 / 1e6);
    }

    /// Says how storage is; whether that is news.
    fn publish(&self, state: StorageState) -> bool {
        let news = self
            .state
            .send_if_modified(|now| std::mem::replace(now, state) != state);
        if news {
            gauge!("tributary_agent_wal_storage_ok").set(u8::from(state == StorageState::Ok));
        }
        news
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
