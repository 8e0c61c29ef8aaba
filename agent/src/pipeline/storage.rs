//! The agent's storage, opened for a new life, and the judging stage as it was.

use super::{Settings, StartError, guard};
use crate::catalogue::Catalogue;
use crate::configuration::{Configurations, InForce, Texts};
use crate::deadletter::DeadLetters;
use crate::idle;
use crate::judge::{Judge, Known};
use crate::life;
use crate::limits::{SPOOL_SEGMENT_BYTES, WAL_SEGMENT_BYTES};
use crate::seal::{JudgeStore, JudgeWriter, Stores};
use crate::spool::{self, AgentSpool};
use metrics::gauge;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tracing::{error, info, warn};
use tributary_journal::{
    Checkpoints, Damage, Disk, LifeId, Log, LogConfig, LogKind, LogReader, LogWriter, Meter,
    MeteredDisk, Open, OsDisk,
};
use tributary_protocol::ids::BufferId;
use tributary_protocol::session::Sender;

/// How large the files are that a log consists of, and how far apart checkpoints may be.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A segment of the write-ahead log.
    pub wal_segment_bytes: u64,
    /// A segment of a lane of the spool, at most.
    pub spool_segment_bytes: u64,
    /// A segment of the dead letters.
    pub letter_segment_bytes: u64,
    /// Most bytes of the write-ahead log between two checkpoints.
    pub checkpoint_bytes_max: u64,
}

impl Sizes {
    /// Those of a real agent.
    pub fn of(settings: &Settings) -> Self {
        Self {
            wal_segment_bytes: WAL_SEGMENT_BYTES,
            spool_segment_bytes: SPOOL_SEGMENT_BYTES,
            letter_segment_bytes: WAL_SEGMENT_BYTES,
            checkpoint_bytes_max: (settings.wal_quota_bytes / 4).max(WAL_SEGMENT_BYTES),
        }
    }
}

/// What is not on the agent's [`Disk`]: what sled keeps, and what was noted of panics.
pub(crate) struct Beside {
    pub meter: Meter,
    pub catalogue: Catalogue,
    /// Where what was learned of series that give way is kept; `None`: they are forgotten.
    pub idle: Option<PathBuf>,
    /// Detection broke so often lately that this life goes by without it.
    pub tripped: bool,
}

/// The agent's storage, open.
pub(crate) struct Storage {
    pub sizes: Sizes,
    pub present: BufferId,
    pub judge: Option<Judge>,
    pub writer: Option<JudgeWriter>,
    pub meter: Meter,
    pub wal: LogWriter,
    pub wal_reader: LogReader,
    pub stores: Stores,
    pub reader: AgentSpool,
    pub sender: Sender,
    pub damage: Vec<Damage>,
}

impl Storage {
    /// On the system's own files.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn open(settings: &Settings) -> Result<Self, StartError> {
        let meter = Meter::default();
        let disk: Arc<dyn Disk> = Arc::new(MeteredDisk::new(Arc::new(OsDisk), meter.clone()));
        let dir = &settings.data_dir;
        let beside = Beside {
            catalogue: Catalogue::open(&dir.join("state")).metered(meter.clone()),
            idle: Some(dir.join("idle")),
            tripped: settings.detect.enabled && guard::is_tripped(&guard::file(dir)),
            meter,
        };
        Self::on(&disk, settings, Sizes::of(settings), beside)
    }

    /// On this disk.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn on(
        disk: &Arc<dyn Disk>,
        settings: &Settings,
        sizes: Sizes,
        beside: Beside,
    ) -> Result<Self, StartError> {
        let dir = &settings.data_dir;
        let checkpoints = Checkpoints::open(Arc::clone(disk), &dir.join("checkpoint"), "agent")?;
        let seen = greatest_life_seen(disk, dir, &checkpoints)?;
        let present = life::begin(disk, dir, seen)?;
        let reserve = settings.spool.reserve_bytes;
        let life = Open::NewLife(LifeId(present.0));
        let log = wal_config(settings, sizes);
        let wal = Log::open(Arc::clone(disk), &dir.join("wal"), log, life)?;
        let of = (present, sizes.spool_segment_bytes);
        let spool = spool::open_sized(disk, &spool::dir(dir), of, &settings.spool)?;
        let letters = LogConfig {
            segment_bytes: sizes.letter_segment_bytes,
            ..DeadLetters::config(reserve)
        };
        let dead = DeadLetters::open_with(disk, &dir.join("deadletter"), present, letters)?;
        let damaged = wal.recovery.damage.len() + spool.damage.len();
        info!(
            buffer = %present,
            lives = wal.recovery.lives.len(),
            torn_bytes = wal.recovery.torn_bytes,
            damaged,
            "storage open"
        );
        let texts = Texts::open(Arc::clone(disk), &dir.join("config"))?;
        texts.keep(&settings.rules)?;
        let judge = open_judge(settings, disk, &texts, &beside)?;
        let (judge, judged, writer) = match judge {
            Some(Judging {
                judge,
                store,
                writer,
            }) => (Some(judge), Some(store), Some(writer)),
            None => (None, None, None),
        };
        let stores = Stores {
            judged,
            spool: spool.writer,
            covered: spool.covered,
            dead,
            checkpoints,
            texts,
            wal: wal.reader.clone(),
            catalogue: beside.catalogue,
        };
        let (sender, reader) = (spool.sender, spool.reader);
        Ok(Self {
            sizes,
            present,
            judge,
            writer,
            meter: beside.meter,
            wal: wal.writer,
            wal_reader: wal.reader,
            stores,
            reader,
            sender,
            damage: wal.recovery.unmet().cloned().collect(),
        })
    }
}

/// The write-ahead log, with room for what is kept for captures.
fn wal_config(settings: &Settings, sizes: Sizes) -> LogConfig {
    let ring_bytes = match settings.detect.enabled {
        true => settings.forward.ring_bytes(),
        false => 0,
    };
    LogConfig {
        segment_bytes: sizes.wal_segment_bytes,
        quota_bytes: settings.wal_quota_bytes.saturating_add(ring_bytes),
        reserve_bytes: settings.spool.reserve_bytes,
        kind: LogKind::Wal,
    }
}

/// The judging stage, where its checkpoints stand, and who writes them.
struct Judging {
    judge: Judge,
    store: JudgeStore,
    writer: JudgeWriter,
}

/// The judging stage as it was at its newest good checkpoint, if it is wanted.
fn open_judge(
    settings: &Settings,
    disk: &Arc<dyn Disk>,
    texts: &Texts,
    beside: &Beside,
) -> Result<Option<Judging>, StartError> {
    if !settings.detect.enabled {
        return Ok(None);
    }
    if beside.tripped {
        error!(
            "detection ended the agent twice within ten minutes: nothing is judged until the next \
             start; readings are taken, stored and forwarded. Report what the log says of it"
        );
        gauge!("tributary_agent_detection_off").set(1.0);
        return Ok(None);
    }
    gauge!("tributary_agent_detection_off").set(0.0);
    let dir = settings.data_dir.join("checkpoint");
    let mut checkpoints = Checkpoints::open(Arc::clone(disk), &dir, "judge")?;
    let storage = settings.name.as_bytes();
    let configurations =
        |in_force| Configurations::new(texts.clone(), Arc::clone(&settings.rules), in_force);
    let held = checkpoints.valid();
    let others = held.iter().any(|held| Known::names_rows(&held.body));
    let (mut held, mut cost, mut unread) = (held.into_iter(), 0, Vec::new());
    let good = held.find_map(|held| {
        cost = held.body.len() as u64;
        let known = Known::unpack(&held.body);
        let read =
            known.and_then(|known| Judge::read_checkpoint(storage, configurations, &known.body));
        read.inspect_err(|error| {
            warn!(%error, "detection learns from an older one, or anew");
            unread.push(held.sequence);
        })
        .ok()
    });
    let judge = good.unwrap_or_else(|| Judge::new(storage, configurations(InForce::default())));
    // What the next start falls back to, should the one that was read be damaged by then.
    let older = held.find_map(|held| {
        let position = Known::position(&held.body).ok();
        if position.is_none() {
            unread.push(held.sequence);
        }
        position
    });
    // They would count as two that are good, and the good ones go.
    for sequence in unread {
        if let Err(error) = checkpoints.discard(sequence) {
            warn!(%error, "a checkpoint of detection that can't be read stays");
        }
    }
    let positions = (judge.position(), older);
    let (store, writer) = JudgeStore::new(checkpoints, positions);
    store.asks().cost(cost);
    let idle = beside.idle.as_deref();
    let opened = idle.and_then(|dir| idle::open(dir, judge.idle(), others, beside.meter.clone()));
    let (judge, idle) = match opened {
        Some((rows, idle)) => (judge.keeping(Box::new(rows)), Some(idle)),
        None => (judge, None),
    };
    Ok(Some(Judging {
        judge,
        store,
        writer: writer.with_idle(idle),
    }))
}

/// The greatest life that checkpoint and cursor know of.
pub(crate) fn greatest_life_seen(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    checkpoints: &Checkpoints,
) -> Result<u64, StartError> {
    let held = checkpoints.newest();
    let position = held.and_then(|held| {
        crate::checkpoint::Checkpoint::read_position(&mut held.body.as_ref()).ok()
    });
    let checkpoint = position.map_or(0, |position| position.buffer.life());
    Ok(checkpoint.max(spool::greatest_life(disk, &spool::dir(dir))?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
