//! The agent in one thread and virtual time, for a simulation: the pipeline's own cores, over any
//! disk, in one value. Whoever drives it asks what is [due](Gateway::due), picks one part, and
//! gives it a [turn](Gateway::turn): every order of turns is one in which the stages' threads
//! might have run. It [polls](Uplink::poll) the uplink, too, and does what that says. There is no
//! socket here, no sled, and no thread.
//!
//! Everything that waits between two stages is bounded as it is between their threads.

use crate::catalogue::Catalogue;
use crate::judge::KernelClock;
use crate::limits::{COMMITTED_FRAMES_MAX, JUDGED_QUEUE, WORLD_SEALED_MAX};
use crate::pipeline::judging::deciding::JudgingCore;
pub use crate::pipeline::storage::Sizes;
use crate::pipeline::storage::{Beside, Storage};
use crate::pipeline::{self, PipelineError, Settings, StartError, publish, sealing};
use crate::seal::{FromJudge, IDLE_WAIT, JudgeWriter, Now, Origin, Pause, SealStage};
use crate::source::door::Doors;
pub use crate::source::door::Heard;
use crate::source::{Hub, Sessions};
use crate::spool::AgentSpool;
use crate::wal::{CommittedFrame, Committer, Polled, Queue, Replay, StorageState, Tap, Tapped};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tributary_journal::{Damage, Disk, LogWriter, Meter, MeteredDisk};
use tributary_protocol::ids::{BatchKey, BufferId};
use tributary_protocol::session::Sender;
use tributary_uplink::link::Uplink;
use tributary_uplink::{Sealed, Status};

/// One stage of the agent, or one of its connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// A connection, by its number.
    Door(u64),
    /// The commit thread.
    Commit,
    /// The judging stage.
    Judge,
    /// Who writes its checkpoints.
    Keep,
    /// The sealing stage.
    Seal,
    /// The uplink takes in what is sealed.
    Uplink,
}

/// What the agent needs of the world around it.
#[derive(Clone)]
pub struct Outside {
    /// Waits while the disk takes nothing.
    pub pause: Arc<dyn Pause>,
    /// Hears what is acknowledged, where it is: the door, and how far.
    pub heard: Heard,
    /// What the kernel says of the machine's clock.
    pub kernel: KernelClock,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

/// A record that is durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    /// Where it stands in the log.
    pub origin: Origin,
    /// Its kind.
    pub kind: u8,
    /// Its bytes; [`Record::parse`](crate::wal::Record::parse) reads them.
    pub bytes: Vec<u8>,
}

impl Log {
    fn new(committer: Committer<LogWriter>, queue: Queue) -> Self {
        Self {
            committer,
            queue,
            committed: VecDeque::new(),
            ended: false,
        }
    }
}

impl Judging {
    fn new(core: JudgingCore, tap: Tap) -> Self {
        Self {
            core,
            tap,
            replays: true,
            told: VecDeque::new(),
            ended: false,
        }
    }
}

impl Seal {
    fn new(
        (stage, replay): (SealStage, Replay),
        damage: Vec<Damage>,
        sealed: mpsc::Receiver<Sealed>,
        now: Now,
    ) -> Self {
        Self {
            stage,
            replay: Some(replay),
            damage,
            sealed,
            last: now.monotonic,
            ended: false,
        }
    }
}

/// All that is on the disk, and nothing of what a real agent has beside it.
fn storage(disk: &Arc<dyn Disk>, settings: &Settings, sizes: Sizes) -> Result<Storage, StartError> {
    let meter = Meter::default();
    let metered: Arc<dyn Disk> = Arc::new(MeteredDisk::new(Arc::clone(disk), meter.clone()));
    let beside = Beside {
        meter,
        catalogue: Catalogue::unkept(),
        idle: None,
        tripped: false,
    };
    Storage::on(&metered, settings, sizes, beside)
}

fn uplink(settings: &Settings, sender: Sender, spool: AgentSpool) -> Uplink<AgentSpool> {
    let target = settings.uplink.as_ref().map(|uplink| &uplink.target);
    let address = target.map_or("", |target| &target.address);
    let status = watch::Sender::new(Status::of(&sender));
    let who = (address, settings.name.as_str());
    Uplink::new(who, settings.drain_deadline, (sender, spool), status)
}

/// What became of things since it was looked at last, for an oracle.
#[derive(Debug, Default)]
pub struct Seen {
    /// Records that became durable, in the order of the log.
    pub committed: Vec<Committed>,
    /// Batches that became durable in the spool.
    pub sealed: Vec<BatchKey>,
    /// What was published: topic and JSON; an empty text ends what was said there.
    pub published: Vec<(String, String)>,
}

/// The write-ahead log's side.
struct Log {
    committer: Committer<LogWriter>,
    queue: Queue,
    /// Durable, and not yet taken by the sealing stage.
    committed: VecDeque<CommittedFrame>,
    ended: bool,
}

/// The judging stage's side.
struct Judging {
    core: JudgingCore,
    tap: Tap,
    replays: bool,
    /// Said, and not yet taken by the sealing stage.
    told: VecDeque<FromJudge>,
    ended: bool,
}

/// The sealing stage's side.
struct Seal {
    stage: SealStage,
    /// What the log held before this life, until it is replayed.
    replay: Option<Replay>,
    /// What is declared behind it.
    damage: Vec<Damage>,
    sealed: mpsc::Receiver<Sealed>,
    /// When it had its last turn.
    last: i64,
    ended: bool,
}

/// See the module.
pub struct Gateway {
    present: BufferId,
    log: Log,
    judging: Option<Judging>,
    writer: Option<JudgeWriter>,
    /// The sealing stage may have handed a checkpoint to who writes them.
    keeps: bool,
    seal: Seal,
    uplink: Uplink<AgentSpool>,
    doors: Doors,
    sessions: Sessions,
    hub: Hub,
    kernel: KernelClock,
    stops: bool,
    uplink_closed: bool,
    seen: Seen,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("present", &self.present)
            .finish_non_exhaustive()
    }
}

impl Gateway {
    /// Opens an agent's storage on this disk, for a new life. It takes connections at once; the
    /// log is replayed in the turns that follow.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn open(
        disk: &Arc<dyn Disk>,
        settings: &Settings,
        sizes: Sizes,
        outside: Outside,
        now: Now,
    ) -> Result<Self, StartError> {
        let Outside {
            pause,
            heard,
            kernel,
        } = outside;
        let storage = storage(disk, settings, sizes)?;
        let config = pipeline::seal_config(settings, &storage, pause);
        let Storage {
            present, stores, ..
        } = storage;
        let refuse = stores.spool.refuse_new();
        let core = JudgingCore::new(storage.judge, kernel, &stores, &config);
        let (sealed, sealed_in) = mpsc::channel(WORLD_SEALED_MAX);
        let stage = SealStage::new(&config, stores, sealed);
        let replay = pipeline::replay(&storage.wal_reader, stage.position());
        let (committer, queue) = Committer::new(storage.wal, settings.wal, storage.meter);
        let judging = core.map(|core| Judging::new(core, queue.tap()));
        pipeline::announce(&queue, (settings, &config), (kernel, now.wall));
        let (sessions, hub) = (Sessions::new(), publish::begin(&settings.name));
        let doors = Doors::new(
            (queue.clone(), sessions.clone()),
            (refuse, hub.clone()),
            heard,
            settings.listener.rate_limit_messages_per_s,
        );
        Ok(Self {
            present,
            log: Log::new(committer, queue),
            judging,
            writer: storage.writer,
            keeps: false,
            seal: Seal::new((stage, replay), storage.damage, sealed_in, now),
            uplink: uplink(settings, storage.sender, storage.reader),
            doors,
            sessions,
            hub,
            kernel,
            stops: false,
            uplink_closed: false,
            seen: Seen::default(),
        })
    }

    /// The life of this agent's storage.
    pub fn present(&self) -> BufferId {
        self.present
    }

    /// Whether messages can be made durable.
    pub fn storage_state(&self) -> StorageState {
        *self.log.committer.state().borrow()
    }

    /// What the kernel says of the machine's clock from now on.
    pub fn set_kernel(&mut self, kernel: KernelClock) {
        self.kernel = kernel;
    }

    /// What wants a turn, and when: µs on the steady clock, never before `now`. What waits for
    /// room in the next stage is not due. It is in an order that depends on nothing but what
    /// happened.
    pub fn due(&mut self, now: Now) -> Vec<(Part, i64)> {
        let doors = self.doors.due(now).into_iter();
        let mut due: Vec<_> = doors.map(|(id, at)| (Part::Door(id), at)).collect();
        let parts = [
            (Part::Commit, self.commit_due(now)),
            (Part::Judge, self.judge_due(now)),
            (Part::Keep, self.keeps.then_some(now.monotonic)),
            (Part::Seal, self.seal_due(now)),
            (Part::Uplink, self.uplink_due(now)),
        ];
        let parts = parts.into_iter();
        due.extend(parts.filter_map(|(part, at)| Some((part, at?.max(now.monotonic)))));
        due
    }

    fn commit_due(&self, now: Now) -> Option<i64> {
        // One frame more than is queued waits for room, as it does in its thread.
        let is_full = self.log.committed.len() > COMMITTED_FRAMES_MAX;
        match self.log.ended || is_full {
            true => None,
            false => self.log.committer.poll_timeout(now.monotonic),
        }
    }

    fn judge_due(&mut self, now: Now) -> Option<i64> {
        let judging = self.judging.as_mut()?;
        if judging.ended || judging.told.len() >= JUDGED_QUEUE {
            return None;
        }
        if judging.replays || !judging.tap.is_idle() {
            return Some(now.monotonic);
        }
        Some(judging.core.poll_timeout(now))
    }

    fn seal_due(&self, now: Now) -> Option<i64> {
        let Seal {
            stage,
            replay,
            last,
            ended,
            ..
        } = &self.seal;
        if *ended {
            return None;
        }
        let told = self.judging.as_ref().is_some_and(|it| !it.told.is_empty());
        let has_told = told && stage.takes_judged();
        if replay.is_some() || has_told || !self.log.committed.is_empty() || self.is_sealed() {
            return Some(now.monotonic);
        }
        let idle = last.saturating_add(us(IDLE_WAIT));
        Some(stage.poll_timeout().map_or(idle, |at| at.min(idle)))
    }

    /// Whether nothing will come to the sealing stage any more.
    fn is_sealed(&self) -> bool {
        let judged = self.judging.as_ref();
        let judged = judged.is_none_or(|it| it.ended && it.told.is_empty());
        self.log.ended && self.log.committed.is_empty() && judged
    }

    fn uplink_due(&self, now: Now) -> Option<i64> {
        let closes = self.seal.ended && !self.uplink_closed;
        (closes || !self.seal.sealed.is_empty()).then_some(now.monotonic)
    }

    /// Gives one part a turn: as little as its thread does between two looks at what comes.
    ///
    /// # Errors
    /// What ends the agent: see [`PipelineError`].
    pub fn turn(&mut self, part: Part, now: Now) -> Result<(), PipelineError> {
        match part {
            Part::Door(id) => self.doors.turn(id, now),
            Part::Commit => self.commit(now),
            Part::Judge => self.judge(now)?,
            Part::Keep => self.keep(),
            Part::Seal => self.seal(now)?,
            Part::Uplink => self.take_sealed(now),
        }
        if self.stops && self.doors.is_empty() {
            self.log.queue.close();
        }
        Ok(())
    }

    fn commit(&mut self, now: Now) {
        match self.log.committer.poll(now.monotonic) {
            Polled::Committed(frame) => {
                let buffer = BufferId(frame.life.0);
                let records = frame.records().map(|(number, kind, bytes)| Committed {
                    origin: Origin { buffer, number },
                    kind,
                    bytes: bytes.to_vec(),
                });
                self.seen.committed.extend(records);
                self.log.committed.push_back(frame);
            }
            Polled::Closed => {
                self.log.ended = true;
                self.doors.abandon();
            }
            Polled::Idle | Polled::Until(_) | Polled::Refused(_) => {}
        }
    }

    fn judge(&mut self, now: Now) -> Result<(), PipelineError> {
        let Some(judging) = &mut self.judging else {
            return Ok(());
        };
        let Judging { core, tap, .. } = judging;
        if judging.replays {
            judging.replays = core.replay_step(now)?;
            if !judging.replays {
                core.begin(now);
            }
        } else {
            let mut tapped = Vec::new();
            let comes = tap.take(Duration::ZERO, &mut tapped);
            for (kind, bytes) in tapped.iter().flat_map(|batch: &Tapped| batch.iter()) {
                core.record(kind, bytes, now);
            }
            let kernel = self.kernel;
            judging.ended = !comes;
            if judging.ended || core.poll(now, &self.log.queue, || kernel) {
                core.checkpoint();
            }
        }
        for published in core.published() {
            let json = String::from_utf8_lossy(&published.json).into_owned();
            self.hub
                .publish(&published.topic, published.json, published.keep);
            self.seen.published.push((published.topic, json));
        }
        judging.told.extend(core.take());
        Ok(())
    }

    fn keep(&mut self) {
        let wrote = self.writer.as_mut().is_some_and(JudgeWriter::step);
        self.keeps = wrote;
    }

    fn seal(&mut self, now: Now) -> Result<(), PipelineError> {
        let is_sealed = self.is_sealed();
        self.seal.last = now.monotonic;
        self.keeps = self.writer.is_some();
        let Seal {
            stage,
            replay,
            damage,
            ended,
            ..
        } = &mut self.seal;
        if let Some(steps) = replay {
            match steps.next_step()? {
                Some(step) => stage.replayed(&step, now)?,
                None => {
                    *replay = None;
                    let begun = (self.doors.instant(now), now);
                    sealing::begin(stage, damage, &self.sessions, begun)?;
                }
            }
            return Ok(());
        }
        let takes_judged = stage.takes_judged();
        let told = self.judging.as_mut().map(|judging| &mut judging.told);
        let told = told.filter(|_| takes_judged);
        if let Some(from) = told.and_then(VecDeque::pop_front) {
            stage.judged(from, now);
        } else if let Some(frame) = self.log.committed.pop_front() {
            sealing::take(stage, &frame, || now)?;
        } else if is_sealed {
            *ended = true;
            return Ok(stage.finish(now)?);
        } else {
            stage.idle()?;
        }
        Ok(stage.tick(now)?)
    }

    fn take_sealed(&mut self, now: Now) {
        while let Ok(sealed) = self.seal.sealed.try_recv() {
            self.seen.sealed.push(sealed.key);
            self.uplink.sealed(sealed);
        }
        if self.seal.ended {
            self.uplink_closed = true;
            self.uplink.closed(now.monotonic);
        }
    }

    /// A connection, which may not be there yet.
    pub fn door(&mut self, id: u64) -> Door<'_> {
        Door {
            doors: &mut self.doors,
            id,
        }
    }

    /// The uplink: to be polled, and told what became of its connection.
    pub fn uplink(&mut self) -> &mut Uplink<AgentSpool> {
        &mut self.uplink
    }

    /// The agent is told to stop: connections end once what they sent is acknowledged, and then
    /// each stage behind the one before it.
    pub fn stop(&mut self) {
        self.stops = true;
        self.doors.shut_down();
        if self.doors.is_empty() {
            self.log.queue.close();
        }
    }

    /// Whether everything that it was given is sealed, and it has stopped, but for the uplink.
    pub fn has_ended(&self) -> bool {
        self.seal.ended && !self.keeps && self.uplink_closed
    }

    /// What became of things since this was called last.
    pub fn tap(&mut self) -> Seen {
        std::mem::take(&mut self.seen)
    }
}

/// One connection of a client.
pub struct Door<'a> {
    doors: &'a mut Doors,
    id: u64,
}

impl std::fmt::Debug for Door<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Door<'_> {
    /// Connects; `false` when this number is taken, or there are too many.
    pub fn connect(&mut self, now: Now) -> bool {
        self.doors.connect(self.id, now)
    }

    /// Bytes from the client; gives how many were taken.
    pub fn bytes(&mut self, bytes: &[u8]) -> usize {
        self.doors.bytes(self.id, bytes)
    }

    /// Bytes to the client since this was asked last.
    pub fn said(&mut self) -> Vec<u8> {
        self.doors.said(self.id)
    }

    /// The client is gone.
    pub fn hang_up(&mut self) {
        self.doors.hang_up(self.id);
    }

    /// Whether the agent is through with it, or it was never there.
    pub fn is_over(&self) -> bool {
        !self.doors.is_there(self.id)
    }
}

fn us(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
