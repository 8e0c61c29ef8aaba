//! The agent's storage, opened for a new life, and the judging stage as it was.

use super::{Settings, StartError, guard};
use crate::catalogue::Catalogue;
use crate::configuration::{Configurations, InForce, Texts};
use crate::deadletter::DeadLetters;
use crate::idle;
use crate::judge::{Judge, Known};
use crate::life;
use crate::limits::WAL_SEGMENT_BYTES;
use crate::seal::{JudgeStore, JudgeWriter, Stores};
use crate::spool::{self, AgentSpool};
use metrics::gauge;
use std::path::Path;
use std::sync::Arc;
use tracing::{error, info, warn};
use tributary_journal::{
    Checkpoints, Damage, Disk, LifeId, Log, LogConfig, LogKind, LogReader, LogWriter, Meter,
    MeteredDisk, Open, OsDisk,
};
use tributary_protocol::ids::BufferId;
use tributary_protocol::session::Sender;

/// The agent's storage, open.
pub(super) struct Storage {
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
    pub fn open(settings: &Settings) -> Result<Self, StartError> {
        let meter = Meter::default();
        let disk: Arc<dyn Disk> = Arc::new(MeteredDisk::new(Arc::new(OsDisk), meter.clone()));
        let dir = &settings.data_dir;
        let checkpoints = Checkpoints::open(Arc::clone(&disk), &dir.join("checkpoint"), "agent")?;
        let seen = greatest_life_seen(&disk, dir, &checkpoints)?;
        let present = life::begin(&disk, dir, seen)?;
        let reserve = settings.spool.reserve_bytes;
        let ring_bytes = match settings.detect.enabled {
            true => settings.forward.ring_bytes(),
            false => 0,
        };
        let wal = Log::open(
            Arc::clone(&disk),
            &dir.join("wal"),
            LogConfig {
                segment_bytes: WAL_SEGMENT_BYTES,
                quota_bytes: settings.wal_quota_bytes.saturating_add(ring_bytes),
                reserve_bytes: reserve,
                kind: LogKind::Wal,
            },
            Open::NewLife(LifeId(present.0)),
        )?;
        let spool = spool::open(&disk, &spool::dir(dir), present, &settings.spool)?;
        let dead = DeadLetters::open(&disk, &dir.join("deadletter"), present, reserve)?;
        let damaged = wal.recovery.damage.len() + spool.damage.len();
        info!(
            buffer = %present,
            lives = wal.recovery.lives.len(),
            torn_bytes = wal.recovery.torn_bytes,
            damaged,
            "storage open"
        );
        let texts = Texts::open(Arc::clone(&disk), &dir.join("config"))?;
        texts.keep(&settings.rules)?;
        let judge = open_judge(settings, &disk, &texts, &meter)?;
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
            catalogue: Catalogue::open(&dir.join("state")).metered(meter.clone()),
        };
        let (sender, reader) = (spool.sender, spool.reader);
        Ok(Self {
            present,
            judge,
            writer,
            meter,
            wal: wal.writer,
            wal_reader: wal.reader,
            stores,
            reader,
            sender,
            damage: wal.recovery.unmet().cloned().collect(),
        })
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
    meter: &Meter,
) -> Result<Option<Judging>, StartError> {
    if !settings.detect.enabled {
        return Ok(None);
    }
    if guard::is_tripped(&guard::file(&settings.data_dir)) {
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
    let dir = settings.data_dir.join("idle");
    let (judge, idle) = match idle::open(&dir, judge.idle(), others, meter.clone()) {
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
