//! The lanes of what the judging stage says, and what of the log it still needs.

use super::{Checkpoints, Lane, Now, Origin, SealStage, StageError};
use crate::limits::CHECKPOINT_ROOM_BYTES;
use crate::seal::FromJudge;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use tracing::warn;

/// Where the judging stage's checkpoints are kept.
#[derive(Debug)]
pub struct JudgeStore {
    checkpoints: Checkpoints,
    newest: Option<Origin>,
    older: Option<Origin>,
    asks: Asks,
}

/// Whether a checkpoint of the judging stage would be of use.
#[derive(Clone, Debug, Default)]
pub struct Asks(Arc<AtomicU8>);

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
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |ask| {
                (ask < UNDER_WAY).then_some(Ask::No as u8)
            });
        match taken.unwrap_or(0) {
            0 => Ask::No,
            1 => Ask::Useful,
            _ => Ask::Urgent,
        }
    }

    /// One is on its way: nobody asks for another until it is kept.
    pub fn answered(&self) {
        self.0.store(UNDER_WAY, Ordering::Relaxed);
    }

    fn kept(&self) {
        self.0.store(Ask::No as u8, Ordering::Relaxed);
    }

    fn ask(&self, ask: Ask) {
        self.0.fetch_max(ask as u8, Ordering::Relaxed);
    }
}

impl JudgeStore {
    /// The store; the stage began at `newest`.
    pub fn new(checkpoints: Checkpoints, newest: Option<Origin>) -> Self {
        Self {
            checkpoints,
            newest,
            older: newest,
            asks: Asks::default(),
        }
    }

    /// What the judging stage is asked by.
    pub fn asks(&self) -> Asks {
        self.asks.clone()
    }
}

impl SealStage {
    /// Whether there is room for more of what the judging stage says.
    pub fn takes_judged(&self) -> bool {
        self.spoken.takes()
    }

    /// Takes what the judging stage says.
    pub fn judged(&mut self, from: FromJudge, now: Now) {
        self.spoken.take(from, now);
    }

    /// Seals what is due of what was said, and keeps the judging stage's checkpoint behind it.
    pub(super) fn tick_judged(&mut self, now: Now, at_once: bool) -> Result<(), StageError> {
        loop {
            let due = self.spoken.poll_timeout(self.position);
            if let Some((_, lane)) = due.filter(|(at, _)| at_once || *at <= now.monotonic) {
                self.seal_spoken(lane, now)?;
            } else if let Some((at, body)) = self.spoken.checkpoint(self.position) {
                self.keep_judged(at, &body);
            } else {
                return Ok(());
            }
        }
    }

    fn seal_spoken(&mut self, lane: Lane, now: Now) -> Result<(), StageError> {
        let Some(durable) = self.position else {
            return Ok(());
        };
        while let Some((batches, covered)) = self.spoken.seal(lane, durable, now) {
            self.store(batches)?;
            self.covered.advance(lane, covered);
        }
        Ok(())
    }

    fn keep_judged(&mut self, at: Origin, body: &[u8]) {
        let Some(store) = &mut self.judged else {
            return;
        };
        let room = body.len() as u64 + body.len() as u64 / 4;
        store.checkpoints.prepare(room.max(CHECKPOINT_ROOM_BYTES));
        store.asks.kept();
        match store.checkpoints.write(body) {
            Ok(_) => store.older = store.newest.replace(at),
            Err(error) => warn!(%error, "no checkpoint of detection: the log is kept for longer"),
        }
    }

    /// Asks the judging stage for a checkpoint.
    pub(super) fn ask_judge(&self, ask: Ask) {
        if let Some(store) = &self.judged {
            store.asks.ask(ask);
        }
    }

    /// Before which record the log may go, as far as the judging stage is concerned: before what
    /// `sealed` says, or the older of its checkpoints. Where the log has no room left it goes
    /// nevertheless: after a crash right then, detection misses what was there.
    pub(super) fn unneeded(&self, sealed: Origin) -> Option<Origin> {
        match &self.judged {
            Some(store) if !self.is_pressed() => store.older.map(|older| older.min(sealed)),
            _ => Some(sealed),
        }
    }
}
