//! Checkpoints of the sealing stage, and what of the log may go behind them.

use super::{Ask, Captures, Checkpoint, LifeId, LogError, Now, Origin, SealStage, StageError};
use crate::limits::{CHECKPOINT_ROOM_BYTES, CHECKPOINT_SHARE, CHECKPOINT_WAL_BYTES};
use tracing::warn;
use tributary_journal::Checkpoints;
use tributary_planted::planted;

/// What the newest good checkpoint knows, and whether there is none that is newer, good or not.
pub(super) fn last_known(checkpoints: &Checkpoints) -> (Option<Checkpoint>, bool) {
    let mut valid = checkpoints.valid().into_iter();
    let good = valid.find_map(|held| {
        let read = Checkpoint::read(&held.body);
        let read = read.inspect_err(|error| warn!(%error, "an older checkpoint is used"));
        let mut read = read.ok()?;
        if planted!(MarksForgotten) {
            read.marks = Checkpoint::of_nothing().marks;
        }
        Some((held.sequence, read))
    });
    let sequence = good.as_ref().map(|(sequence, _)| *sequence);
    let is_newest = sequence == checkpoints.newest_sequence();
    (good.map(|(_, good)| good), is_newest)
}

impl SealStage {
    /// Whether the log takes more than half its quota, or finds no room on the disk, and a
    /// checkpoint would let it be trimmed.
    pub(super) fn wants_room(&self) -> bool {
        let short = self.held_bytes() > self.wal_quota_bytes / 2 || self.wal.is_short();
        if !short || self.trimmed_to == self.position {
            return false;
        }
        let is_held = |older: Origin| self.unneeded(older).is_none_or(|to| to < older);
        if self.older.is_some_and(is_held) {
            // A checkpoint of this stage alone would free nothing.
            self.ask_judge(Ask::Urgent);
            return false;
        }
        true
    }

    /// Whether the log will soon take nothing.
    pub(super) fn is_pressed(&self) -> bool {
        self.held_bytes() > self.wal_quota_bytes / 4 * 3 || self.wal.is_short()
    }

    /// Bytes of the log, but for what is only kept for captures.
    fn held_bytes(&self) -> u64 {
        let segments = self.wal.segments().into_iter();
        let held = segments.filter(|segment| !self.is_ring(segment));
        held.map(|segment| segment.bytes).sum()
    }

    /// Keeps what is known at the present message, and lets go of the log before the older of
    /// the two newest checkpoints.
    pub(super) fn checkpoint(&mut self, now: Now) -> Result<(), StageError> {
        self.seal(now)?;
        self.until_stored(|stage| stage.dead.flush())?;
        let Some(mut position) = self.position else {
            return Ok(());
        };
        if planted!(CheckpointAhead) {
            position.number += 1;
        }
        let held = self.dead.reader().lives();
        self.put_back.with(|done| done.keep_only(&held));
        let unneeded = self.older.and_then(|older| self.unneeded(older));
        let needed = unneeded.max(self.needed);
        self.hold_ours(position);
        let (first, captures) = self.captures_kept();
        let body = self.known(position, needed, &captures);
        // Room for what it grows to, taken while there is some: on a full disk it is what lets the
        // log be trimmed.
        let grown = body.len() + self.marks.growth_bytes();
        self.checkpoints
            .prepare((grown as u64 + grown as u64 / 4).max(CHECKPOINT_ROOM_BYTES));
        if let Err(error) = self.checkpoints.write(&body) {
            warn!(%error, "no checkpoint: the log is kept for longer");
            return Ok(());
        }
        self.owed = None;
        // Nothing waits in a lane, so all before the position is covered.
        self.covered.advance_all(position);
        self.captures.go_on(captures, first.unwrap_or(position));
        self.since_checkpoint = 0;
        self.checkpoint_due = (body.len() as u64 * CHECKPOINT_SHARE)
            .max(CHECKPOINT_WAL_BYTES)
            .min(self.checkpoint_bytes_max);
        self.catalogue.commit();
        let older = self.older.replace(position);
        self.ask_judge(Ask::Useful);
        let Some(unneeded) = unneeded else {
            return Ok(());
        };
        self.needed = needed;
        match self.trim_ring() {
            Ok(()) => {
                // Beyond that, the judging stage comes sooner or later.
                self.trimmed_to = older;
                self.configurations.forget_before(unneeded);
            }
            Err(error) => warn!(%error, "the log can't be trimmed"),
        }
        Ok(())
    }

    /// What is known at a position, as a checkpoint.
    pub(super) fn known(
        &self,
        position: Origin,
        needed: Option<Origin>,
        captures: &Captures,
    ) -> Vec<u8> {
        Checkpoint::write(
            position,
            &self.marks,
            &self.declared,
            self.configurations.in_force(),
            &self.put_back.done(),
            (needed, captures),
        )
    }

    pub(super) fn trim_wal(&self, below: Origin) -> Result<(), LogError> {
        for span in self.wal.lives() {
            if span.life.0 < below.buffer.0 {
                self.wal.trim(span.life, span.end)?;
            }
        }
        self.wal.trim(LifeId(below.buffer.0), below.number)?;
        Ok(())
    }
}
