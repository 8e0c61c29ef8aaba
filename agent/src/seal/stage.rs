//! The sealing stage: takes the log's messages in their order, decodes them, drops repeats on
//! evidence, fills the lanes, and makes sealed batches durable in the spool.
//!
//! Everything it knows is a function of the write-ahead log: a checkpoint and the messages after
//! it. Blocking; it runs on a thread of its own.

mod alone;
mod captured;
mod configured;
mod forwarded;
mod indexed;
mod judged;
mod keep;
mod lost;
mod message;
mod put_back;

use super::judge_store::{Ask, JudgeStore};
use super::spoken::SpokenLanes;
use super::{GivenUp, Lanes, Origin, Pause, Waits, text_bytes};
use crate::capture::Captures;
use crate::catalogue::Catalogue;
use crate::checkpoint::Checkpoint;
use crate::configuration::{Configurations, Texts};
use crate::deadletter::put_back::PutBack;
use crate::deadletter::{DeadLetters, Found, Letter, TOO_LARGE, WORD_TOO_LARGE};
use crate::decode::{Decoded, Rows, Rules};
use crate::forward::Forward;
use crate::limits::{CHECKPOINT_ROOM_BYTES, STORAGE_RETRY};
use crate::marks::Marks;
use crate::spool::{Covered, SpoolWriter};
use crate::wal::{Message, PubRel, Record, RecordKind, Replayed};
use metrics::{counter, gauge};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::{error, warn};
use tributary_journal::{Checkpoints, Damage, LifeId, LogError, LogReader};
use tributary_protocol::batch::{Cover, SealError, SealedBatch};
use tributary_protocol::ids::{BufferId, Lane};
use tributary_uplink::Sealed;

use forwarded::Held;
use indexed::Ahead;
use message::How;

/// What ends the stage.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A gap can't be sealed: a broken invariant, since it holds nothing from outside.
    #[error("sealing a gap: {0}")]
    Seal(#[from] SealError),
    /// The disk did not take what was sealed until it was time to stop. The messages stay in the
    /// write-ahead log, and are sealed at the next start.
    #[error("stopped before everything was sealed: {0}")]
    Storage(#[source] LogError),
    /// The uplink is gone.
    #[error("nobody takes sealed batches any more")]
    NoUplink,
}

/// What the stage is made of.
#[derive(Debug)]
pub struct SealConfig {
    /// The life of this agent's storage.
    pub present: BufferId,
    /// Microseconds from a first reading until its lane is sealed.
    pub delay_us: i64,
    /// Most bytes of the write-ahead log between two checkpoints.
    pub checkpoint_bytes_max: u64,
    /// Bytes that the write-ahead log may take.
    pub wal_quota_bytes: u64,
    /// Waits while the disk takes nothing.
    pub pause: Arc<dyn Pause>,
    /// The rules that this life's messages are decoded by.
    pub rules: Arc<Rules>,
    /// Which readings are sealed at all.
    pub forward: Forward,
}

/// The stage; see the module.
pub struct SealStage {
    lanes: Lanes,
    spoken: SpokenLanes,
    judged: Option<JudgeStore>,
    marks: Marks,
    rows: Rows,
    spool: SpoolWriter,
    covered: Covered,
    pub(super) dead: DeadLetters,
    checkpoints: Checkpoints,
    wal: LogReader,
    catalogue: Catalogue,
    configurations: Configurations,
    put_back: PutBack,
    pub(super) forward: Forward,
    pub(super) captures: Captures,
    /// By which rules what the log holds here was forwarded.
    held: Held,
    /// The life of this agent's storage.
    present: BufferId,
    /// How far the index of captures is to reach back.
    ahead: Ahead,
    /// A checkpoint that is to be durable before anything is sealed.
    owed: Option<Vec<u8>>,
    /// Dead letters of messages that a replay brings.
    found: Found,
    /// Before this record no checkpoint needs the log: what is there is kept for captures.
    needed: Option<Origin>,
    /// Dead letters since the start.
    buried: u64,
    sealed: mpsc::Sender<Sealed>,
    /// Behind the last message that was taken in.
    position: Option<Origin>,
    /// Where the newest checkpoint stands: once another is written, the log before it may go.
    older: Option<Origin>,
    /// Everything before this left the log.
    trimmed_to: Option<Origin>,
    /// Damaged places of the log that stand under a gap already.
    declared: BTreeSet<u64>,
    pub(super) wal_quota_bytes: u64,
    /// Bytes of messages since the last checkpoint, and how many make the next one due.
    since_checkpoint: u64,
    pub(super) checkpoint_due: u64,
    checkpoint_bytes_max: u64,
    pause: Arc<dyn Pause>,
    waits: watch::Sender<Waits>,
}

/// The time, as the stage is told it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Microseconds on a clock that never goes back.
    pub monotonic: i64,
    /// Microseconds since 1970, UTC, by the gateway's clock.
    pub wall: i64,
}

/// The stores that the stage writes to.
#[derive(Debug)]
pub struct Stores {
    /// Sealed batches.
    pub spool: SpoolWriter,
    /// What they cover.
    pub covered: Covered,
    /// What gave no readings.
    pub dead: DeadLetters,
    /// What is known up to a message.
    pub checkpoints: Checkpoints,
    /// The texts of decoding rules.
    pub texts: Texts,
    /// The log, to trim it.
    pub wal: LogReader,
    /// What is looked up and may be rebuilt.
    pub catalogue: Catalogue,
    /// What the judging stage knows; `None` where there is none.
    pub judged: Option<JudgeStore>,
}

impl SealStage {
    /// The stage, with what the newest good checkpoint knows. Replay the log from
    /// [`position`](Self::position) on before anything else.
    pub fn new(config: &SealConfig, stores: Stores, sealed: mpsc::Sender<Sealed>) -> Self {
        let Stores {
            spool,
            covered,
            mut dead,
            mut checkpoints,
            texts,
            wal,
            catalogue,
            judged,
        } = stores;
        checkpoints.prepare(CHECKPOINT_ROOM_BYTES);
        let (good, is_newest) = keep::last_known(&checkpoints);
        let position = good.as_ref().map(|good| good.position);
        let Checkpoint {
            marks,
            declared,
            in_force,
            put_back,
            needed,
            mut captures,
            ..
        } = good.unwrap_or_else(Checkpoint::of_nothing);
        for to in position.into_iter().chain(dead.covered()) {
            covered.advance_all(to);
        }
        let (found, covered_to) = (dead.found_from(position), covered.of(Lane::Telemetry));
        let at = (covered_to.max(position), is_newest);
        let (checkpoint_due, are_others) = captured::begin(&mut captures, config, at);
        let put_back = PutBack::new(put_back);
        dead.expect(covered.least(), Arc::clone(&config.rules), put_back.clone());
        let stage = Self {
            lanes: Lanes::new(config.present, config.delay_us),
            spoken: SpokenLanes::new(config.present, |lane| covered.of(lane)),
            judged,
            marks,
            rows: Rows::new(),
            spool,
            covered,
            dead,
            checkpoints,
            wal,
            catalogue,
            configurations: Configurations::new(texts, Arc::clone(&config.rules), in_force),
            put_back,
            forward: config.forward.clone(),
            captures,
            held: Held::Ours,
            present: config.present,
            ahead: Ahead::Unknown,
            owed: None,
            found,
            needed,
            buried: 0,
            sealed,
            position,
            older: position,
            trimmed_to: None,
            declared,
            wal_quota_bytes: config.wal_quota_bytes,
            since_checkpoint: 0,
            checkpoint_due,
            checkpoint_bytes_max: config.checkpoint_bytes_max,
            pause: Arc::clone(&config.pause),
            waits: watch::Sender::default(),
        };
        stage.owing(are_others)
    }

    /// What sealed readings wait for, as it changes.
    pub fn waits(&self) -> watch::Receiver<Waits> {
        self.waits.subscribe()
    }

    /// Where the replay begins; `None`: at the log's first message.
    pub fn position(&self) -> Option<Origin> {
        self.position
    }

    /// The sessions that outlive their connections, and for how many seconds each.
    pub fn sessions(&self) -> impl Iterator<Item = (u64, u32)> {
        self.marks.kept()
    }

    /// Which dead letters were put back.
    pub fn put_back(&self) -> PutBack {
        self.put_back.clone()
    }

    /// When the stage has to be [ticked](Self::tick) next, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<i64> {
        let spoken = self.spoken.poll_timeout(self.position).map(|(at, _)| at);
        self.lanes.poll_timeout().into_iter().chain(spoken).min()
    }

    /// Takes in what a replay of the log brings.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn replayed(&mut self, step: &Replayed, now: Now) -> Result<(), StageError> {
        match step {
            Replayed::Record {
                life,
                number,
                kind,
                bytes,
            } => {
                let origin = Origin {
                    buffer: BufferId(life.0),
                    number: *number,
                };
                self.record(origin, *kind, bytes, now)
            }
            Replayed::Damaged { life, numbers } | Replayed::Missing { life, numbers } => {
                let (first, end) = (numbers.start, numbers.end);
                self.begin_life(BufferId(life.0), None);
                error!(%life, first, end, "messages can't be read back: declared as a gap");
                counter!("tributary_agent_messages_damaged_total").increment(end - first);
                self.declare_lost(BufferId(life.0), first, end, now)
            }
        }
    }

    /// Takes in one record of the log.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn record(
        &mut self,
        origin: Origin,
        kind: u8,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), StageError> {
        self.begin_life(origin.buffer, Some(origin.number));
        self.position = Some(Origin {
            number: origin.number + 1,
            ..origin
        });
        self.since_checkpoint += bytes.len() as u64;
        let covered = self.is_covered(Lane::Telemetry, origin);
        self.comes_forwarded(origin, kind);
        match Record::parse(kind, bytes) {
            Ok(Record::Message(message)) => self.message(origin, &message, How::Published, now)?,
            Ok(Record::Refused(message)) => self.message(origin, &message, How::Refused, now)?,
            Ok(Record::TooLarge(large)) => {
                let bytes = large.payload_bytes;
                let reason = format!("{bytes} bytes of payload: {TOO_LARGE}");
                self.pass(origin, covered, now)?;
                if !covered {
                    self.bury(origin, &large.message, (WORD_TOO_LARGE, &reason), None)?;
                }
            }
            Ok(Record::PubRel(PubRel { session, packet_id })) => {
                self.marks.release(session, packet_id);
                self.pass(origin, covered, now)?;
            }
            Ok(Record::Session(session)) => {
                self.marks.keep(session.session, session.expiry_s);
                self.pass(origin, covered, now)?;
            }
            Ok(Record::Control(RecordKind::Configuration, bytes)) => {
                self.configured(origin, bytes, now)?;
                self.pass(origin, covered, now)?;
            }
            Ok(Record::Control(RecordKind::Detection, bytes)) if !self.forward.is_all() => {
                self.detected(origin, bytes, now)?;
                self.pass(origin, covered, now)?;
            }
            Ok(Record::Control(RecordKind::Forward, bytes)) => {
                self.forwarded(origin, bytes);
                self.pass(origin, covered, now)?;
            }
            Ok(Record::Control(RecordKind::Capture, bytes)) => {
                self.capture(origin, bytes, covered, now)?;
            }
            Ok(Record::Control(RecordKind::PutBack, bytes)) => {
                self.put_back_record(origin, bytes, covered, now)?;
            }
            Ok(Record::Control(..)) => self.pass(origin, covered, now)?,
            Err(error) => {
                error!(%error, number = origin.number, "a record of the log can't be understood");
                self.pass(origin, covered, now)?;
                if !covered {
                    self.bury_record(origin, bytes, &error.to_string(), now)?;
                }
            }
        }
        if self.lanes.is_due(now.monotonic) || self.dead.is_due() {
            self.seal(now)?;
        }
        Ok(())
    }

    /// Whether a lane holds what this message gave it.
    fn is_covered(&self, lane: Lane, origin: Origin) -> bool {
        self.covered.of(lane).is_some_and(|to| origin < to)
    }

    /// Covers a message that gives no readings. A dead letter is kept behind this: what is sealed
    /// here covers nothing of it yet.
    fn pass(&mut self, origin: Origin, covered: bool, now: Now) -> Result<(), StageError> {
        if covered {
            return Ok(());
        }
        if self.lanes.must_seal_before(Lane::Telemetry, origin, 0, 0) {
            self.seal(now)?;
        }
        self.lanes.pass(origin);
        Ok(())
    }

    /// Seals and checkpoints what is due.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn tick(&mut self, now: Now) -> Result<(), StageError> {
        if let Err(error) = self.spool.tick(now) {
            warn!(%error, "what is too old stays for now");
        }
        self.tick_judged(now, false)?;
        if self.wal.is_short() {
            self.release_ring();
        }
        if self.lanes.is_due(now.monotonic) || self.dead.owes() {
            self.seal(now)?;
        }
        let asked = self.put_back.takes_checkpoint();
        if asked || self.since_checkpoint >= self.checkpoint_due || self.wants_room() {
            self.checkpoint(now)?;
        }
        self.index_ahead();
        Ok(())
    }

    /// Nothing came for a while: makes dead letters durable that wait for company.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn idle(&mut self) -> Result<(), StageError> {
        self.dead.prepare();
        self.until_stored(|stage| stage.dead.flush())
    }

    /// Seals everything and keeps what is known, before the stage ends.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn finish(&mut self, now: Now) -> Result<(), StageError> {
        self.tick_judged(now, true)?;
        self.seal(now)?;
        self.checkpoint(now)
    }

    /// Seals all that waits, and makes it durable. What can't be sealed together is sealed message
    /// by message; what can't be sealed at all is a dead letter: no content ends the stage.
    fn seal(&mut self, now: Now) -> Result<(), StageError> {
        let Some(covered_to) = self.lanes.covered_to() else {
            return Ok(());
        };
        self.tell_rules()?;
        for (series, meta, value) in self.lanes.latest() {
            self.catalogue.note(series, meta, value);
        }
        // Events first: whatever `telemetry` covers, they cover, too.
        for lane in [Lane::Events, Lane::Telemetry] {
            if lane == Lane::Telemetry {
                self.declare_letters(covered_to)?;
            }
            let covers = self.lanes.cover_from(self.covered.of(lane));
            if let Err(error) = self.seal_together(lane, now)? {
                warn!(%error, lane = lane.name(), "sealed message by message");
                self.seal_each(lane, covered_to, now)?;
            }
            self.lanes.set_covers(covers);
        }
        // What is covered is not looked at again: its dead letters must be kept by then.
        self.until_stored(|stage| stage.dead.flush())?;
        self.covered.advance_all(covered_to);
        self.lanes.clear();
        self.captures.sealed(covered_to);
        // While a replay finds events covered further on, a letter that was put back may be there.
        if self.covered.of(Lane::Events) == self.covered.least() {
            self.dead.make_room(covered_to);
        }
        Ok(())
    }

    /// Seals and stores what waits in a lane; the inner error is about its content, and changes
    /// nothing.
    fn seal_together(&mut self, lane: Lane, now: Now) -> Result<Result<(), SealError>, StageError> {
        if lane == Lane::Telemetry
            && let Err(error) = self.seal_definitions(now)?
        {
            return Ok(Err(error));
        }
        match self.lanes.seal_lane(lane, now.wall) {
            Ok(batches) if batches.is_empty() => Ok(Ok(())),
            Ok(batches) => {
                // A batch covers what came between its messages: that must be kept before it.
                self.until_stored(|stage| stage.dead.flush())?;
                self.store(batches)?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Seals and stores the definitions that telemetry needs.
    fn seal_definitions(&mut self, now: Now) -> Result<Result<(), SealError>, StageError> {
        loop {
            match self.lanes.seal_series(now.wall) {
                Ok(Some(series)) => self.store(vec![series])?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Makes batches of one lane durable together, however long that takes, and tells the uplink.
    fn store(&mut self, batches: Vec<SealedBatch>) -> Result<(), StageError> {
        let mut stored = Vec::new();
        self.until_stored(|stage| {
            stored = stage.spool.append(batches.clone())?;
            Ok(())
        })?;
        // Before anybody can send one and have it acknowledged: what goes then stays covered. Dead
        // letters were made durable before.
        for batch in &stored {
            let ends = batch.covers().iter().map(Origin::behind);
            if let Some(end) = ends.max().filter(|_| batch.key().lane != Lane::Series) {
                self.covered.advance(batch.key().lane, end);
            }
        }
        for batch in stored {
            let bytes = batch.bytes().len() as u64;
            let lane = batch.key().lane.name();
            counter!("tributary_agent_batches_total", "lane" => lane).increment(1);
            counter!("tributary_agent_batch_bytes_total", "lane" => lane).increment(bytes);
            let sealed = Sealed {
                key: batch.key(),
                bytes,
            };
            self.sealed
                .blocking_send(sealed)
                .map_err(|_| StageError::NoUplink)?;
        }
        Ok(())
    }

    /// Tries again until the disk takes it: meanwhile nothing is read from the log's queue, the
    /// sources stop, and nothing is lost.
    fn until_stored(
        &mut self,
        mut write: impl FnMut(&mut Self) -> Result<(), LogError>,
    ) -> Result<(), StageError> {
        let mut wait = STORAGE_RETRY.0;
        while let Err(error) = write(self) {
            let waits = Waits::of(&error);
            warn!(%error, "{}", waits.words());
            self.waits.send_replace(waits);
            gauge!("tributary_agent_spool_blocked").set(1.0);
            if waits == Waits::Space {
                self.release_ring();
            }
            if !self.pause.pause(wait) {
                return Err(StageError::Storage(error));
            }
            wait = wait.saturating_mul(2).min(STORAGE_RETRY.1);
        }
        gauge!("tributary_agent_spool_blocked").set(0.0);
        self.waits.send_replace(Waits::Nothing);
        Ok(())
    }
}

/// How long a stage that waits for nothing in particular sleeps.
pub const IDLE_WAIT: Duration = Duration::from_millis(250);
