//! By which rules readings were forwarded where the log is. A life says it at its start; which
//! readings it left out can be decided again only by the same ones.

use super::{LogError, Now, Origin, RecordKind, SealStage, StageError};
use crate::forward::Announced;
use tracing::warn;
use tributary_journal::CheckpointError;
use tributary_protocol::ids::Lane;

/// By which rules what the log holds here was forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Held {
    /// By those of this life.
    Ours,
    /// The life has not said yet.
    Unsaid,
    /// By others, or nobody knows.
    Others,
}

/// Stands for rules that nobody knows.
const UNKNOWN: [u8; 32] = [0; 32];

impl SealStage {
    /// Whether what was left out here can be decided again.
    pub(super) fn are_ours(&self) -> bool {
        self.held == Held::Ours
    }

    /// Another life begins, which says by what it forwards. One that never did may have sealed
    /// what was before it, by rules that nobody knows.
    pub(super) fn begin_forwarded(&mut self, at: Origin) {
        if self.held == Held::Unsaid {
            self.captures.hold_under(UNKNOWN, Some(at));
        }
        self.held = Held::Unsaid;
    }

    /// A record comes: what could be asked for stands behind what its life forwards by, if it ever
    /// said.
    pub(super) fn comes_forwarded(&mut self, origin: Origin, kind: u8) {
        let is_asked_for = [
            RecordKind::Message,
            RecordKind::PutBack,
            RecordKind::Capture,
        ];
        if self.held == Held::Unsaid && is_asked_for.iter().any(|asked| asked.code() == kind) {
            self.captures.hold_under(UNKNOWN, Some(origin));
            self.held = Held::Others;
        }
    }

    /// A life says by what it forwards.
    pub(super) fn forwarded(&mut self, origin: Origin, bytes: &[u8]) {
        let under = Announced::read(bytes).map_or(UNKNOWN, |Announced(under)| under);
        self.captures.hold_under(under, Some(origin));
        self.held = match under == self.forward.fingerprint() {
            true => Held::Ours,
            false => Held::Others,
        };
        if origin.buffer == self.present {
            // The log has it.
            self.owed = None;
        }
    }

    /// Other windows hold behind this record of the log.
    pub(super) fn detected(
        &mut self,
        origin: Origin,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), StageError> {
        // What waits is looked at by what held before, also when it is sealed alone.
        self.seal(now)?;
        self.forward.record(bytes);
        if self.are_ours() {
            let under = self.forward.fingerprint();
            self.captures.hold_under(under, Some(origin));
        }
        Ok(())
    }

    /// A checkpoint is taken where others' rules held: what is sealed up to there may have been by
    /// those or by ours, and by ours what is not.
    pub(super) fn hold_ours(&mut self, position: Origin) {
        if self.are_ours() {
            return;
        }
        let at = self.covered.of(Lane::Telemetry).max(Some(position));
        self.captures.hold_under(self.forward.fingerprint(), at);
        at.iter().for_each(|at| self.captures.raise_floor(*at));
    }

    /// The checkpoint that this life began with says other rules. What is replayed is forwarded by
    /// those of this life, which the log may not say yet when the power fails: a checkpoint at the
    /// same place has to, before anything is sealed.
    pub(super) fn owing(mut self, are_others: bool) -> Self {
        // Without any, nothing before this life is captured by the next one, either.
        if let Some(position) = self.position.filter(|_| are_others) {
            let (_, captures) = self.captures_kept();
            self.owed = Some(self.known(position, self.needed, &captures));
        }
        self
    }

    /// Makes that checkpoint durable.
    pub(super) fn tell_rules(&mut self) -> Result<(), StageError> {
        let Some(body) = self.owed.take() else {
            return Ok(());
        };
        self.until_stored(|stage| match stage.checkpoints.write(&body) {
            Err(CheckpointError::Io {
                doing,
                path,
                source,
            }) => Err(LogError::Io {
                doing,
                path,
                source,
            }),
            Err(error) => {
                warn!(%error, "no checkpoint");
                Ok(())
            }
            Ok(_) => Ok(()),
        })
    }
}
