//! A journal that is lost, or older than its lake, is replaced by a new one that knows what the
//! lake has, so that nothing of it is taken a second time.
//!
//! It is made aside: what the lake has as records of what is held, the definitions
//! of the newest checkpoint, and what the old journal has and the lake has not, as it was. The swap
//! is a row of renames that follow from what is there alone: whatever stops between two of them,
//! the next run goes on. What the old journal was stays, aside. It decides nothing about agents.

use crate::config::Config;
use crate::keeper::record::{self, HeldRecord, RecordKind};
use crate::keeper::store::{Store, StoreError, books_of};
use crate::lake::LakeError;
use crate::lake::found::Whole;
use crate::limits::{COMMIT_BYTES_MAX, HELD_RUNS_MAX, REPLAY_READ_BYTES};
use crate::running::{AggregatorError, new_log};
use crate::stopped::lake_store;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tributary_journal::{
    CheckpointError, Checkpoints, DirLock, Disk, Entry, Frame, Log, LogError, LogReader, Open,
    OsDisk, ReadOnlyDisk,
};
use tributary_protocol::batch::SealedBatch;
use tributary_protocol::ids::LogId;
use tributary_protocol::ledger::Ledger;
use tributary_protocol::ranges::{HeldRanges, UNKNOWN};

/// Where the new journal is made.
const BUILDING: &str = "restore.building";
/// Where it lies, whole, until it is in its place: while it is there, nothing else starts.
pub const READY: &str = "restore.ready";
/// What is replaced.
const PARTS: [&str; 2] = ["ledger", "journal"];

/// Why nothing was restored, or not all.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The aggregator runs, or the lake's folder can't be used.
    #[error(transparent)]
    Aggregator(#[from] AggregatorError),
    /// The lake can't be relied on.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A journal can't be read, or the new one not written.
    #[error("journal: {0}")]
    Journal(#[from] LogError),
    /// The new journal does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoints can't be read, or the new one not written.
    #[error("checkpoints: {0}")]
    Checkpoints(#[from] CheckpointError),
    /// A file or folder can't be moved.
    #[error("{}: {source}; once that is mended, run it again: it goes on", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> RestoreError + use<> {
    let path = path.to_owned();
    |source| RestoreError::Io { path, source }
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Restored {
    /// Journal and lake fit together: the aggregator starts as it is.
    Nothing,
    /// A run that was interrupted is complete now.
    Completed,
    /// A new journal begins.
    Begun(Summary),
}

/// What the new journal knows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Summary {
    /// Its life.
    pub log: String,
    /// Why there is a new one.
    pub why: String,
    /// Files of the lake that were read.
    pub files: u64,
    /// Lanes of which the lake has something.
    pub lanes: u64,
    /// Numbers that are held because the lake has them.
    pub numbers: u64,
    /// Numbers that the lake has in more than one flush: they were there twice before.
    pub twice: u64,
    /// Entries of the old journal that the lake does not have, and the new one has.
    pub kept: u64,
    /// Entries of the old journal that can't be read, at most.
    pub damaged: u64,
}

/// Replaces a journal that does not fit its lake by one that does.
///
/// # Errors
/// What is in the way; nothing is replaced then, or the next run goes on with it.
pub async fn restore(config: &Config) -> Result<Restored, RestoreError> {
    restore_in(config, usize::MAX).await
}

/// As [`restore`], interrupted after so many moves of the swap.
///
/// # Errors
/// As [`restore`].
#[doc(hidden)]
pub async fn restore_in(config: &Config, moves: usize) -> Result<Restored, RestoreError> {
    let dir = &config.data_dir;
    let _lock = DirLock::acquire(dir).map_err(AggregatorError::from)?;
    if dir.join(READY).is_dir() {
        swap(dir, moves)?;
        return Ok(Restored::Completed);
    }
    let log = new_log()?;
    let Some(why) = is_needed(config, log).await? else {
        return Ok(Restored::Nothing);
    };
    tracing::info!(%why, "a new journal is made of what the lake has");
    let mut store = lake_store(config, log)?;
    let whole = store.whole().await?;
    let mut summary = build(config, log, &whole)?;
    summary.why = why;
    store.note_restored(&whole).await?;
    ready(dir)?;
    swap(dir, moves)?;
    Ok(Restored::Begun(summary))
}

fn read_only() -> Arc<dyn Disk> {
    Arc::new(ReadOnlyDisk::new(Arc::new(OsDisk)))
}

/// Why a new journal is needed; nothing where the old one and the lake fit together.
async fn is_needed(config: &Config, new: LogId) -> Result<Option<String>, RestoreError> {
    let dir = &config.data_dir;
    let opened = match dir.join("journal").is_dir() {
        true => Store::open(&read_only(), dir, config.journal(), new),
        false if has_checkpoints(dir) => return Ok(Some("the journal is gone".to_owned())),
        false => return another(config, new).await,
    };
    let (log, end) = match opened {
        Ok((store, ..)) => (store.log(), store.end()),
        Err(
            error @ (StoreError::NoCheckpoint { .. }
            | StoreError::JournalGone { .. }
            | StoreError::RolledBack { .. }),
        ) => return Ok(Some(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    if end == 0 {
        return another(config, log).await;
    }
    let (progress, begun) = lake_store(config, log)?.progress().await?;
    let position = progress.position;
    let lake = begun.intent.map_or(position, |intent| intent.end);
    Ok((lake > end).then(|| {
        LakeError::RolledBack {
            log,
            lake,
            journal: end,
        }
        .to_string()
    }))
}

fn has_checkpoints(dir: &Path) -> bool {
    let files = std::fs::read_dir(dir.join("ledger"));
    files.is_ok_and(|mut files| files.next().is_some())
}

/// That a lake is another journal's, whose life is not this one.
async fn another(config: &Config, log: LogId) -> Result<Option<String>, RestoreError> {
    let other = lake_store(config, log)?.another_log().await?;
    Ok(other.map(|other| format!("the journal is empty, and journal {other} wrote the lake")))
}

/// Makes the new journal aside, durable.
fn build(config: &Config, log: LogId, whole: &Whole) -> Result<Summary, RestoreError> {
    let aside = config.data_dir.join(BUILDING);
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(failed(&aside))?;
    }
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let (mut store, _, _, _) = Store::open(&disk, &aside, config.journal(), log)?;
    let books = newest_books(&config.data_dir)?.unwrap_or_default();
    // Definitions alone: what is held, the entries say.
    store.checkpoint(&Ledger::new(), &books)?;
    let mut new = New {
        store,
        frame: Frame::new(),
        held: Ledger::new(),
        summary: Summary {
            log: log.to_string(),
            files: whole.files,
            lanes: whole.lanes.len() as u64,
            ..Summary::default()
        },
    };
    new.take_lake(whole)?;
    new.append()?;
    if new.store.end() > 0 {
        // What the lake has stands nowhere else: not in one frame alone.
        new.store.checkpoint(&new.held, &books)?;
    }
    if config.data_dir.join("journal").is_dir() {
        let how = Open::SameLife {
            if_empty: tributary_journal::LifeId(log.0),
        };
        let dir = config.data_dir.join("journal");
        let old = Log::open(read_only(), &dir, config.journal(), how)?;
        new.take_journal(&old.reader)?;
    }
    new.append()?;
    let New { store, summary, .. } = new;
    if store.end() == 0 {
        // Nothing is held: a journal begins anew, and no checkpoint is of another.
        let ledger = aside.join("ledger");
        drop(store);
        std::fs::remove_dir_all(&ledger).map_err(failed(&ledger))?;
        std::fs::create_dir(&ledger).map_err(failed(&ledger))?;
    }
    Ok(summary)
}

/// The definitions that the newest checkpoint has, of whichever journal.
fn newest_books(dir: &Path) -> Result<Option<crate::keeper::books::Books>, RestoreError> {
    let dir = dir.join("ledger");
    if !dir.is_dir() {
        return Ok(None);
    }
    let valid = Checkpoints::open(read_only(), &dir, "ledger")?.valid();
    Ok(valid
        .iter()
        .find_map(|checkpoint| books_of(&checkpoint.body)))
}

/// The journal that is made.
struct New {
    store: Store,
    frame: Frame,
    /// What it holds so far.
    held: Ledger,
    summary: Summary,
}

impl New {
    fn push(&mut self, kind: u8, parts: &[&[u8]]) -> Result<(), LogError> {
        let bytes = parts.iter().map(|part| part.len()).sum();
        if !self.frame.fits(bytes) || self.frame.len_bytes() >= COMMIT_BYTES_MAX {
            self.append()?;
        }
        self.frame
            .push_parts(kind, parts)
            .expect("a record fits an empty frame, see limits");
        Ok(())
    }

    fn append(&mut self) -> Result<(), LogError> {
        if !self.frame.is_empty() {
            self.store.append(&self.frame)?;
            self.frame.clear();
        }
        Ok(())
    }

    /// Holds what the lake has.
    fn take_lake(&mut self, whole: &Whole) -> Result<(), LogError> {
        for ((agent, key), lane) in &whole.lanes {
            self.summary.numbers += lane.numbers.count();
            self.summary.twice += lane.twice;
            for runs in lane.runs().chunks(HELD_RUNS_MAX) {
                for run in runs {
                    self.held.recover_run(agent, *key, *run);
                }
                let record = HeldRecord {
                    agent: agent.clone(),
                    key: *key,
                    runs: runs.to_vec(),
                };
                let bytes = record.encode(crate::clock::wall_us());
                self.push(RecordKind::Held.code(), &[&bytes])?;
            }
        }
        Ok(())
    }

    /// Takes over what the old journal has and the lake has not.
    fn take_journal(&mut self, reader: &LogReader) -> Result<(), LogError> {
        for span in reader.lives() {
            let (mut next, mut read) = (span.first, Vec::new());
            while next < span.end {
                match reader.read(span.life, next, REPLAY_READ_BYTES, &mut read) {
                    Ok(()) => {}
                    Err(LogError::Damaged { numbers, .. }) => {
                        self.summary.damaged += numbers.end - numbers.start;
                        next = numbers.end;
                        continue;
                    }
                    Err(error) => return Err(error),
                }
                let Some(last) = read.last() else { break };
                next = last.number + 1;
                for entry in read.drain(..) {
                    self.take_entry(entry)?;
                }
            }
        }
        Ok(())
    }

    fn take_entry(&mut self, entry: Entry) -> Result<(), LogError> {
        let code = entry.kind;
        match RecordKind::from_code(code) {
            // The lake says it itself.
            Some(RecordKind::Held) => return Ok(()),
            Some(kind) if kind.is_batch() => {
                if self.take_batch(kind, entry)?.is_none() {
                    self.summary.damaged += 1;
                }
                return Ok(());
            }
            _ => {}
        }
        self.summary.kept += 1;
        self.push(code, &[&entry.bytes])
    }

    /// Nothing where it can't be understood.
    fn take_batch(&mut self, kind: RecordKind, entry: Entry) -> Result<Option<()>, LogError> {
        let Ok(record) = record::parse(kind, entry.bytes.clone()) else {
            return Ok(None);
        };
        let Ok(batch) = SealedBatch::open(record.sealed.clone()) else {
            return Ok(None);
        };
        let (agent, key, hash) = (&record.agent, batch.key(), batch.hash());
        if kind != RecordKind::Gap {
            if self.held.recover(agent, key, hash) {
                self.summary.kept += 1;
                self.push(kind.code(), &[&entry.bytes])?;
            }
            return Ok(Some(()));
        }
        let mut held = HeldRanges::new();
        for run in self.held.held(agent, key.lane_key()) {
            held.insert_missing(run.first, run.end, UNKNOWN);
        }
        let runs = record.runs.iter();
        let missing: Vec<Range<u64>> = runs
            .flat_map(|run| held.missing(run.start, run.end))
            .map(|(first, end)| first..end)
            .collect();
        if !missing.is_empty() {
            self.held.recover_gap(agent, key, (hash, &missing));
            let mut head = record::header(agent, record.accepted_at, record.in_doubt);
            head.extend(record::runs(&missing));
            self.summary.kept += 1;
            self.push(kind.code(), &[&head, &record.sealed])?;
        }
        Ok(Some(()))
    }
}

fn sync(dir: &Path) -> Result<(), RestoreError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(failed(dir))
}

fn rename(from: &Path, to: &Path) -> Result<(), RestoreError> {
    std::fs::rename(from, to).map_err(failed(from))?;
    for dir in [from, to] {
        if let Some(parent) = dir.parent() {
            sync(parent)?;
        }
    }
    Ok(())
}

/// From here on it is certain that the new journal takes the place of the old one.
fn ready(dir: &Path) -> Result<(), RestoreError> {
    let building = dir.join(BUILDING);
    sync(&building)?;
    rename(&building, &dir.join(READY))
}

/// The next move of the swap, if there is one: what is old goes aside, and then what is new into
/// its place.
fn next_move(dir: &Path) -> Option<(PathBuf, PathBuf)> {
    let ready = dir.join(READY);
    PARTS.into_iter().find_map(|part| {
        let (old, new) = (dir.join(part), ready.join(part));
        match (new.is_dir(), old.is_dir()) {
            (true, true) => Some((old, ready.join(format!("{part}.old")))),
            (true, false) => Some((new, old)),
            (false, _) => None,
        }
    })
}

/// Where what was replaced stays: a name that nothing has.
fn kept_in(dir: &Path) -> PathBuf {
    let free = |n: &u32| !dir.join(format!("replaced-{n}")).exists();
    let n = (1..).find(free).unwrap_or(u32::MAX);
    dir.join(format!("replaced-{n}"))
}

/// Puts the new journal into its place, in no more than so many moves.
fn swap(dir: &Path, moves: usize) -> Result<(), RestoreError> {
    let ready = dir.join(READY);
    for _ in 0..moves {
        match next_move(dir) {
            Some((from, to)) => rename(&from, &to)?,
            None => {
                // All is in its place: what was replaced, and only that, is left in it.
                return rename(&ready, &kept_in(dir));
            }
        }
    }
    Ok(())
}
