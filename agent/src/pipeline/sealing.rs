//! The sealing stage's thread: replays the log, then takes what is durable, and what the judging
//! stage says about it.

use super::clock::Clock;
use super::{Ended, PipelineError};
use crate::seal::{FromJudge, IDLE_WAIT, Now, Origin, SealStage, StageError};
use crate::source::Sessions;
use crate::wal::{CommittedFrame, Replay};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tributary_journal::Damage;
use tributary_protocol::ids::BufferId;

/// Everything that the thread has.
pub(super) struct Sealing {
    stage: SealStage,
    /// What the log held before this life.
    replay: Replay,
    committed: mpsc::Receiver<CommittedFrame>,
    /// What the judging stage says; ends behind its last checkpoint.
    judged: mpsc::Receiver<FromJudge>,
    /// Told what sessions the log knows of.
    sessions: Sessions,
    clock: Clock,
    handle: Handle,
}

enum Next {
    Frame(CommittedFrame),
    Judged(FromJudge),
    Nothing,
    End,
}

impl Sealing {
    /// The stage, what is replayed to it, what it takes from then on, and who hears of sessions.
    pub fn new(
        (stage, replay): (SealStage, Replay),
        (committed, judged): (mpsc::Receiver<CommittedFrame>, mpsc::Receiver<FromJudge>),
        sessions: Sessions,
    ) -> Self {
        Self {
            stage,
            replay,
            committed,
            judged,
            sessions,
            clock: Clock::new(),
            handle: Handle::current(),
        }
    }

    /// Runs; when it can't go on, nothing that comes could be sealed, and the listener ends.
    pub fn run_to_end(mut self, damage: &[Damage], listening: &CancellationToken) -> Ended {
        let ended = self.run(damage, listening);
        listening.cancel();
        Ended::Sealing(ended)
    }

    fn run(
        &mut self,
        damage: &[Damage],
        listening: &CancellationToken,
    ) -> Result<(), PipelineError> {
        self.replay()?;
        let begun = (Instant::now(), self.clock.now());
        begin(&mut self.stage, damage, &self.sessions, begun)?;
        loop {
            match self.next() {
                Next::Frame(frame) => take(&mut self.stage, &frame, || self.clock.now())?,
                Next::Judged(from) => self.stage.judged(from, self.clock.now()),
                Next::Nothing => self.stage.idle()?,
                Next::End => break,
            }
            self.stage.tick(self.clock.now())?;
        }
        // Whoever comes finds nobody who writes, should the log have ended for another reason.
        listening.cancel();
        // Everything is durable by now, so that nothing waits here for more.
        while let Some(from) = self.handle.block_on(self.judged.recv()) {
            self.stage.judged(from, self.clock.now());
            self.stage.tick(self.clock.now())?;
        }
        Ok(self.stage.finish(self.clock.now())?)
    }

    fn replay(&mut self) -> Result<(), PipelineError> {
        let begun = Instant::now();
        let mut messages = 0u64;
        while let Some(step) = self.replay.next_step()? {
            self.stage.replayed(&step, self.clock.now())?;
            messages += 1;
        }
        info!(messages, took = ?begun.elapsed(), "log replayed");
        Ok(())
    }

    /// What comes next. Both receivers keep what was not taken, and a judging stage that ended is
    /// not asked again.
    fn next(&mut self) -> Next {
        let due = self
            .stage
            .poll_timeout()
            .map(|at| at - self.clock.now().monotonic);
        let due = due.map(|us| Duration::from_micros(u64::try_from(us).unwrap_or(0)));
        let wait = due.map_or(IDLE_WAIT, |due| due.min(IDLE_WAIT));
        let takes_judged = self.stage.takes_judged() && !self.judged.is_closed();
        let Self {
            committed, judged, ..
        } = self;
        self.handle.block_on(async {
            tokio::select! {
                biased;
                Some(from) = judged.recv(), if takes_judged => Next::Judged(from),
                frame = committed.recv() => frame.map_or(Next::End, Next::Frame),
                () = tokio::time::sleep(wait) => Next::Nothing,
            }
        })
    }
}

/// The log is replayed: clients hear of their sessions, and what is damaged is declared.
pub(crate) fn begin(
    stage: &mut SealStage,
    damage: &[Damage],
    sessions: &Sessions,
    (instant, now): (Instant, Now),
) -> Result<(), StageError> {
    sessions.replayed(stage.sessions(), instant);
    for damage in damage {
        stage.declare_damage(damage, now)?;
    }
    stage.tick(now)
}

/// Takes in what is durable.
pub(crate) fn take(
    stage: &mut SealStage,
    frame: &CommittedFrame,
    now: impl Fn() -> Now,
) -> Result<(), StageError> {
    let buffer = BufferId(frame.life.0);
    for (number, kind, bytes) in frame.records() {
        stage.record(Origin { buffer, number }, kind, bytes, now())?;
    }
    Ok(())
}
