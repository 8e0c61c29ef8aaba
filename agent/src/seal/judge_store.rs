//! The judging stage's checkpoints: what is asked of it, what of the log it still needs, and who
//! writes them. Compressing and syncing what 100,000 series know takes long: neither the sealing
//! nor the judging stage waits for it.

use super::{IDLE_WAIT, Origin};
use crate::idle::IdleWriter;
use crate::judge::Known;
use crate::limits::{
    CHECKPOINT_RETRY_US, CHECKPOINT_ROOM_BYTES, CHECKPOINT_SHARE, CHECKPOINT_WAL_BYTES,
};
use metrics::counter;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use tracing::{error, warn};
use tributary_journal::Checkpoints;

/// Checkpoints that are written or wait for that: one, and when the agent ends the last one.
const WRITING_MAX: usize = 2;

/// Where the judging stage's checkpoints stand, as the sealing stage sees it.
#[derive(Debug)]
pub struct JudgeStore {
    newest: Option<Origin>,
    older: Option<Origin>,
    asks: Asks,
    to_write: SyncSender<Known>,
    written: Receiver<Option<Origin>>,
    writing: usize,
    /// After one that failed: how long no other is asked for, and until when, by the steady clock
    /// in microseconds.
    pause_us: i64,
    until: Option<i64>,
}

/// Writes them, one after the other.
#[derive(Debug)]
pub struct JudgeWriter {
    checkpoints: Checkpoints,
    /// What was learned of series that gave way.
    idle: Option<IdleWriter>,
    asks: Asks,
    to_write: Receiver<Known>,
    written: SyncSender<Option<Origin>>,
}

/// Whether a checkpoint of the judging stage would be of use.
#[derive(Clone, Debug, Default)]
pub struct Asks(Arc<Asked>);

#[derive(Debug, Default)]
struct Asked {
    ask: AtomicU8,
    /// Bytes that the last one took on the disk.
    cost: AtomicU64,
}

/// A checkpoint is on its way.
const UNDER_WAY: u8 = 16;

/// How much it would.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Ask {
    /// Not at all.
    No = 0,
    /// If there is much that is not in one.
    Useful = 1,
    /// The log needs the room.
    Urgent = 2,
}

impl Asks {
    /// What was asked for since this was called last.
    pub fn take(&self) -> Ask {
        let taken = self
            .0
            .ask
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ask| {
                (ask < UNDER_WAY).then_some(Ask::No as u8)
            });
        match taken.unwrap_or(0) {
            0 => Ask::No,
            1 => Ask::Useful,
            _ => Ask::Urgent,
        }
    }

    /// Whether one is to be made now, when so many bytes came since the last one; see
    /// [`due`](Self::due).
    pub fn is_wanted(&self, bytes_since: u64, most: u64) -> bool {
        match self.take() {
            Ask::No => false,
            Ask::Useful => bytes_since >= self.due(most),
            Ask::Urgent => bytes_since > 0,
        }
    }

    /// The quota of the log with which checkpoints would have their share and no more, where
    /// `most`, a quarter of what it has, leaves them a larger one.
    pub fn quota_for_share(&self, most: u64) -> Option<u64> {
        let wanted = self.due(u64::MAX);
        (wanted > most).then_some(4 * wanted)
    }

    /// One is on its way: nobody asks for another until it is kept.
    pub fn answered(&self) {
        self.0.ask.store(UNDER_WAY, Ordering::Relaxed);
    }

    /// Bytes of the log from one to the next: as many as the share of what is written that a
    /// checkpoint may have asks for, but at most `most`, for the log is kept for two of them.
    pub fn due(&self, most: u64) -> u64 {
        let cost = self.0.cost.load(Ordering::Relaxed);
        (cost * CHECKPOINT_SHARE)
            .max(CHECKPOINT_WAL_BYTES)
            .min(most)
    }

    /// One took so many bytes.
    pub fn cost(&self, bytes: u64) {
        self.0.cost.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn kept(&self) {
        self.0.ask.store(Ask::No as u8, Ordering::Relaxed);
    }

    pub(super) fn ask(&self, ask: Ask) {
        self.0.ask.fetch_max(ask as u8, Ordering::Relaxed);
    }
}

impl JudgeStore {
    /// Where the two newest good checkpoints stand, and who writes others beside them.
    ///
    /// The log is needed from the older one on: the newest may prove damaged at the next start.
    pub fn new(
        checkpoints: Checkpoints,
        (newest, older): (Option<Origin>, Option<Origin>),
    ) -> (Self, JudgeWriter) {
        let (to_write, takes) = sync_channel(WRITING_MAX);
        let (tells, written) = sync_channel(WRITING_MAX);
        let asks = Asks::default();
        let writer = JudgeWriter {
            checkpoints,
            idle: None,
            asks: asks.clone(),
            to_write: takes,
            written: tells,
        };
        let store = Self {
            newest,
            older,
            asks,
            to_write,
            written,
            writing: 0,
            pause_us: CHECKPOINT_RETRY_US.0,
            until: None,
        };
        (store, writer)
    }

    /// What the judging stage is asked by.
    pub fn asks(&self) -> Asks {
        self.asks.clone()
    }

    /// Where the older of the two newest durable checkpoints stands.
    pub(super) fn older(&self) -> Option<Origin> {
        self.older
    }

    /// Takes in what was written meanwhile; `now` is that of the steady clock, in microseconds.
    /// After one that failed no other is asked for before a pause, which grows: all that is known
    /// would be put together for nothing.
    pub(crate) fn hear(&mut self, now: i64) {
        while let Ok(at) = self.written.try_recv() {
            self.writing = self.writing.saturating_sub(1);
            match at {
                Some(at) => {
                    self.older = self.newest.replace(at);
                    (self.pause_us, self.until) = (CHECKPOINT_RETRY_US.0, None);
                    self.asks.kept();
                }
                None => {
                    self.until = Some(now.saturating_add(self.pause_us));
                    self.pause_us = (2 * self.pause_us).min(CHECKPOINT_RETRY_US.1);
                }
            }
        }
        if self.until.take_if(|until| *until <= now).is_some() {
            self.asks.kept();
        }
    }

    /// Whether another one may be handed over: one at a time, and a last one behind it.
    pub(super) fn takes(&self, last: bool) -> bool {
        self.writing < if last { WRITING_MAX } else { 1 }
    }

    /// Has what is known written.
    pub(crate) fn keep(&mut self, known: Known) {
        match self.to_write.try_send(known) {
            Ok(()) => self.writing += 1,
            Err(_) => {
                warn!("nobody writes checkpoints of detection: the log is kept for longer");
                self.asks.kept();
            }
        }
    }
}

impl JudgeWriter {
    /// Writes the rows of series that gave way, too.
    pub fn with_idle(self, idle: Option<IdleWriter>) -> Self {
        Self { idle, ..self }
    }

    /// Writes what is handed over, until nobody will.
    pub fn run(mut self) {
        loop {
            match self.to_write.recv_timeout(IDLE_WAIT) {
                Ok(known) => self.write(&known),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(idle) = &mut self.idle {
                        idle.write_due();
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes what was handed over, if anything was; for who has no thread for it.
    pub fn step(&mut self) -> bool {
        let known = self.to_write.try_recv();
        known.is_ok_and(|known| {
            self.write(&known);
            true
        })
    }

    fn write(&mut self, known: &Known) {
        let written = self.keep(known).map(|()| known.at);
        // The sealing stage may be gone.
        let _ = self.written.try_send(written);
    }

    fn keep(&mut self, known: &Known) -> Option<()> {
        let failed = |error: &dyn std::fmt::Display| {
            counter!("tributary_agent_detection_checkpoint_failures_total").increment(1);
            error!(%error, "no checkpoint of detection: the log is kept for longer");
        };
        if let Some(idle) = &mut self.idle {
            idle.write();
        }
        let packed = known.pack().inspect_err(|error| failed(error)).ok()?;
        let bytes = packed.len() as u64;
        self.asks.cost(bytes);
        self.checkpoints
            .prepare((bytes + bytes / 4).max(CHECKPOINT_ROOM_BYTES));
        let written = self.checkpoints.write(&packed);
        written.inspect_err(|error| failed(error)).ok()?;
        if let Some(idle) = &mut self.idle {
            idle.checkpointed(known.given_way);
        }
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;
    use tributary_journal::SimDisk;
    use tributary_protocol::ids::BufferId;

    fn at(number: u64) -> Origin {
        Origin {
            buffer: BufferId::new(1, 1),
            number,
        }
    }

    fn known(number: u64) -> Known {
        Known {
            at: at(number),
            given_way: 0,
            rows: 0,
            body: vec![1, 2, 3],
        }
    }

    #[test]
    fn checkpoints_are_a_tenth_of_the_log_as_far_as_its_quota_allows() {
        let asks = Asks::default();
        let quarter = 64 << 20;
        for (cost, due) in [
            (0, CHECKPOINT_WAL_BYTES),
            (1 << 20, CHECKPOINT_WAL_BYTES),
            (6 << 20, 60 << 20),
            (60 << 20, quarter),
        ] {
            asks.cost(cost);
            assert_eq!(asks.due(quarter), due);
            // With a quota of forty times what it costs it always is.
            assert!(asks.due(10 * cost.max(CHECKPOINT_WAL_BYTES)) >= 10 * cost);
        }
    }

    #[test]
    fn a_quota_that_is_too_small_for_the_share_is_told_with_one_that_is_not() {
        let asks = Asks::default();
        for (cost_mib, quota_mib, told_mib) in [
            (0, 64, None),
            (1, 64, None),
            (25, 64, Some(1_000)),
            (25, 999, Some(1_000)),
            (25, 1_000, None),
        ] {
            asks.cost(cost_mib << 20);
            let most = (quota_mib << 20) / 4;
            let told = asks.quota_for_share(most);
            assert_eq!(told, told_mib.map(|mib: u64| mib << 20));
            // With what is told none is told of another.
            assert_eq!(
                asks.quota_for_share(told.unwrap_or(quota_mib << 20) / 4),
                None
            );
            // However much they take: a quarter of the log is enough for one.
            asks.ask(Ask::Useful);
            assert!(asks.is_wanted(most, most));
        }
    }

    #[test]
    fn the_log_is_needed_from_the_older_durable_one_on_and_one_is_written_at_a_time() {
        let disk = Arc::new(SimDisk::new(1));
        let open = || Checkpoints::open(disk.clone(), Path::new("/ckpt"), "judge").unwrap();
        let (mut store, mut writer) = JudgeStore::new(open(), (Some(at(5)), Some(at(3))));
        assert_eq!(store.older(), Some(at(3)));
        store.asks().ask(Ask::Urgent);
        assert_eq!(store.asks().take(), Ask::Urgent);
        store.asks().answered();
        store.keep(known(7));
        assert!(!store.takes(false) && store.takes(true));
        store.asks().ask(Ask::Urgent);
        store.hear(0);
        assert_eq!((store.older(), store.asks().take()), (Some(at(3)), Ask::No));
        assert!(writer.step() && !writer.step());
        assert_eq!(store.older(), Some(at(3)), "it was not heard of yet");
        store.hear(0);
        assert!(store.takes(false));
        assert_eq!(store.older(), Some(at(5)));
        let held = open().newest().unwrap();
        assert_eq!(Known::unpack(&held.body).unwrap(), known(7));
        // Nobody writes any more: nothing waits for it.
        drop(writer);
        store.keep(known(9));
        assert!(store.takes(false));
        assert_eq!(store.older(), Some(at(5)));
    }

    #[test]
    fn after_one_that_failed_no_other_is_asked_for_before_a_pause_that_grows() {
        let disk = SimDisk::new(1);
        let checkpoints = Checkpoints::open(Arc::new(disk.clone()), Path::new("/ckpt"), "judge");
        let (mut store, mut writer) = JudgeStore::new(checkpoints.unwrap(), (None, None));
        let asked = |store: &JudgeStore| {
            store.asks().ask(Ask::Urgent);
            store.asks().take()
        };
        let mut keep = |store: &mut JudgeStore, number, now| {
            assert_eq!(asked(store), Ask::Urgent);
            store.asks().answered();
            store.keep(known(number));
            assert!(writer.step());
            store.hear(now);
        };
        let (first, most) = CHECKPOINT_RETRY_US;
        let (mut now, mut pause) = (0, first);
        for number in 0..12 {
            disk.fail_writes(1);
            keep(&mut store, number, now);
            store.hear(now + pause - 1);
            assert_eq!(asked(&store), Ask::No, "{number}");
            assert!(store.takes(false), "the last one of a life is taken");
            now += pause;
            store.hear(now);
            pause = (2 * pause).min(most);
        }
        assert_eq!((pause, store.older()), (most, None));
        // One that succeeds ends that.
        for number in 20..23 {
            keep(&mut store, number, now);
        }
        assert_eq!(store.older(), Some(at(21)));
        disk.fail_writes(1);
        keep(&mut store, 30, now);
        store.hear(now + first);
        assert_eq!((asked(&store), store.older()), (Ask::Urgent, Some(at(21))));
    }
}
