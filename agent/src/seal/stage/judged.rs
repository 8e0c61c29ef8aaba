//! The lanes of what the judging stage says, and what of the log it still needs.

use super::{Lane, Now, Origin, SealStage, StageError};
use crate::seal::{Ask, FromJudge};

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
        if let Some(store) = &mut self.judged {
            store.hear(now.monotonic);
        }
        loop {
            let due = self.spoken.poll_timeout(self.position);
            if let Some((_, lane)) = due.filter(|(at, _)| at_once || *at <= now.monotonic) {
                self.seal_spoken(lane, now)?;
            } else if self
                .judged
                .as_ref()
                .is_none_or(|store| store.takes(at_once))
                && let Some(known) = self.spoken.checkpoint(self.position)
            {
                if let Some(store) = &mut self.judged {
                    store.keep(known);
                }
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

    /// Asks the judging stage for a checkpoint.
    pub(super) fn ask_judge(&self, ask: Ask) {
        if let Some(store) = &self.judged {
            store.asks().ask(ask);
        }
    }

    /// Before which record the log may go, as far as the judging stage is concerned: before what
    /// `sealed` says, or the older of its checkpoints. Where the log has no room left it goes
    /// nevertheless: after a crash right then, detection misses what was there.
    pub(super) fn unneeded(&self, sealed: Origin) -> Option<Origin> {
        match &self.judged {
            Some(store) if !self.is_pressed() => store.older().map(|older| older.min(sealed)),
            _ => Some(sealed),
        }
    }
}
