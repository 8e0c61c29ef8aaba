//! What the commit thread decides: which batches a frame takes, when it closes, who hears that it
//! is durable, and when one that storage refused is tried again. Told the time; it waits for
//! nothing.
//!
//! A frame is made durable, then acknowledged, and only then handed on. One that storage refuses
//! is tried again, the same frame, until it is taken: nothing new is accepted meanwhile, nothing
//! is acknowledged, and the state says why.

use super::batch::Batch;
use super::queue::{Held, Intake, Queue};
use super::stage::{Append, CommittedFrame, StorageState};
use crate::limits::{COMMIT_RETRY, FRAME_TAKE_BYTES};
use metrics::{counter, gauge};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tributary_journal::limits::COMMIT_COST_BYTES;
use tributary_journal::{CommitPolicy, Frame, GroupCommit, LogError, Meter, Wear};
use tributary_planted::planted;

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Polled {
    /// Nothing waits: ask again once something does.
    Idle,
    /// A frame closes, or is tried again, at this time; one that is filled also once as much waits
    /// as is [missing](Committer::missing_bytes).
    Until(i64),
    /// A frame is durable, and everybody in it was told.
    Committed(CommittedFrame),
    /// Storage took nothing: the same frame is tried again at this time.
    Refused(i64),
    /// Nothing will come any more, and what storage refused until now was never acknowledged.
    Closed,
}

/// The frame that is being filled, or made durable.
#[derive(Default)]
struct Filling {
    held: Vec<Held>,
    bytes: usize,
    /// It was refused: how long the next wait is, and until when it is not tried.
    refused: Option<(Duration, i64)>,
}

/// See the module.
pub(crate) struct Committer<W> {
    writer: W,
    intake: Intake,
    group: GroupCommit,
    target_bytes: usize,
    filling: Filling,
    frame: Frame,
    meter: Meter,
    /// What the device had to write when it was last looked at.
    device_bytes: u64,
    state: watch::Sender<StorageState>,
    wear: watch::Sender<Wear>,
}

impl<W: Append> Committer<W> {
    /// One that writes to a log that is open and replayed, and the queue that it takes from.
    pub fn new(writer: W, policy: CommitPolicy, meter: Meter) -> (Self, Queue) {
        let (queue, intake) = Queue::new();
        let committer = Self {
            writer,
            intake,
            target_bytes: policy.frame_bytes,
            group: GroupCommit::new(policy),
            filling: Filling::default(),
            frame: Frame::new(),
            device_bytes: meter.counts().device_bytes(),
            meter,
            state: watch::Sender::new(StorageState::Ok),
            wear: watch::Sender::new(Wear::Within),
        };
        (committer, queue)
    }

    /// Whether messages can be made durable, as it changes.
    pub fn state(&self) -> watch::Receiver<StorageState> {
        self.state.subscribe()
    }

    /// What the budget of writes does to the delay, as it changes.
    pub fn wear(&self) -> watch::Receiver<Wear> {
        self.wear.subscribe()
    }

    /// What waits, for who has to wait.
    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    /// As many bytes more close the frame that is being filled, whatever the time.
    pub fn missing_bytes(&self) -> usize {
        match self.filling.held.is_empty() {
            true => 1,
            false => self.target_bytes.saturating_sub(self.filling.bytes).max(1),
        }
    }

    /// When it is to be [polled](Self::poll) next; `None` while nothing waits.
    #[cfg(any(test, feature = "world"))]
    pub fn poll_timeout(&self, now_us: i64) -> Option<i64> {
        let waits = self.intake.len_bytes();
        if self.intake.is_closed() {
            return Some(now_us);
        }
        match self.filling.refused {
            Some((_, at)) => Some(at.max(now_us)),
            None if waits >= self.missing_bytes() => Some(now_us),
            None if self.filling.held.is_empty() => None,
            None => self.group.poll_timeout().map(|at| at.max(now_us)),
        }
    }

    /// Takes what waits, and writes a frame if one is to be closed; at most one. The time is that
    /// of a clock that never goes back, in microseconds.
    pub fn poll(&mut self, now_us: i64) -> Polled {
        match self.filling.refused {
            None => self.gather(now_us),
            Some(_) if self.intake.is_closed() => Polled::Closed,
            Some((_, at)) if now_us < at => Polled::Until(at),
            Some((wait, _)) => self.commit(wait, now_us),
        }
    }

    fn gather(&mut self, now_us: i64) -> Polled {
        let is_closed = self.take(now_us);
        if self.filling.held.is_empty() {
            return match is_closed {
                true => Polled::Closed,
                false => Polled::Idle,
            };
        }
        let at = self.group.poll_timeout().unwrap_or(now_us);
        if at > now_us && self.filling.bytes < FRAME_TAKE_BYTES && !is_closed {
            return Polled::Until(at);
        }
        self.frame.clear();
        let held = self.filling.held.iter();
        for (kind, bytes) in held.flat_map(|(batch, _)| batch.iter()) {
            self.frame
                .push(kind, bytes)
                .expect("limits.rs: whatever is taken fits one frame");
        }
        self.commit(COMMIT_RETRY.0, now_us)
    }

    /// Takes as much of what waits as the frame has room for; whether nothing more will come.
    fn take(&mut self, now_us: i64) -> bool {
        let Filling { held, bytes, .. } = &mut self.filling;
        let before = held.len();
        let is_closed = match FRAME_TAKE_BYTES.saturating_sub(*bytes) {
            0 => self.intake.is_closed(),
            most => self.intake.take(most, held),
        };
        for (batch, _) in held.iter().skip(before) {
            *bytes += batch.len_bytes();
            self.group
                .on_entry(batch.len_bytes(), batch.records(), now_us);
        }
        is_closed
    }

    /// Makes the frame durable, and tells everybody in it; or says when to try again.
    fn commit(&mut self, wait: Duration, now_us: i64) -> Polled {
        if planted!(HeardBeforeSync) {
            let held = self.filling.held.iter();
            held.for_each(|(batch, _)| batch.acknowledge());
        }
        let outcome = self.writer.append(&self.frame);
        self.spend(now_us);
        let appended = match outcome {
            Ok(appended) => appended,
            Err(error) => return self.refused(error, wait, now_us),
        };
        self.count();
        self.publish(StorageState::Ok);
        let Filling { held, .. } = std::mem::take(&mut self.filling);
        // Acknowledged first: the next stage may be slow, and owes the sender nothing.
        held.iter().for_each(|(batch, _)| batch.acknowledge());
        let batches: Vec<Arc<Batch>> = held.into_iter().map(|(batch, _)| batch).collect();
        Polled::Committed(CommittedFrame::new(appended, batches))
    }

    fn refused(&mut self, error: LogError, wait: Duration, now_us: i64) -> Polled {
        let state = match error.is_full() {
            true => StorageState::Full,
            false => StorageState::Failed,
        };
        if self.publish(state) {
            tracing::error!(%error, "nothing is acknowledged until this is mended");
        }
        counter!("tributary_agent_wal_refused_total").increment(1);
        let wait_us = i64::try_from(wait.as_micros()).unwrap_or(i64::MAX);
        let at = now_us.saturating_add(wait_us);
        self.filling.refused = Some(((wait * 2).min(COMMIT_RETRY.1), at));
        Polled::Refused(at)
    }

    /// Counts the commit, and whatever else was written since the last one, against the budget.
    fn spend(&mut self, now_us: i64) {
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

    fn count(&self) {
        counter!("tributary_agent_wal_commits_total").increment(1);
        counter!("tributary_agent_wal_records_total").increment(u64::from(self.frame.count()));
        counter!("tributary_agent_wal_bytes_total").increment(self.frame.len_bytes() as u64);
        gauge!("tributary_agent_wal_delay_seconds").set(self.group.delay_us() as f64 / 1e6);
    }

    /// Says how storage is; whether that is news.
    pub(super) fn publish(&self, state: StorageState) -> bool {
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
