//! What was learned of series that gave way, in sled: the store that the judging stage hands rows
//! to and takes them from. A thread of its own writes them, before each checkpoint that may name
//! them.
//!
//! Which rows there are is what the stage's checkpoint says. So what is here may be behind or ahead
//! of it, and what is lost is learned anew. The order that holds:
//!
//! 1. a row is durable before a checkpoint that names it is;
//! 2. a row goes only when neither of the two newest durable checkpoints names it; all of them,
//!    with the file, only when no checkpoint that is there does, or there is no room for more;
//! 3. at a start, rows from behind the checkpoint that is read go before the log is replayed: with
//!    another end of the log, their numbers may be given to other rows.
//!
//! Rows that nothing names any more and that an end of the process left here go with the second
//! checkpoint of the next one.

use crate::judge::IdleRows;
use crate::limits::{
    IDLE_DUE_BYTES, IDLE_FILE_BYTES_MAX, IDLE_GONE_MAX, IDLE_ROWS_AT_ONCE, IDLE_WAITING_BYTES_MAX,
};
use metrics::counter;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tracing::{info, warn};
use tributary_journal::limits::STATE_VALUE_BYTES_MAX;
use tributary_journal::{Batch, Meter, StateDb, StateDbError, StateReader};

/// Level of zstd: rows are small, and most of their bytes are counters.
const LEVEL: i32 = 1;
/// Bytes of a row, at most, before it was compressed: names, the last readings, a detector.
const ROW_BYTES_MAX: usize = 256 * 1024;

/// What both sides share.
#[derive(Default)]
struct Shared {
    /// Rows that are not in the database yet.
    waiting: BTreeMap<u64, Arc<[u8]>>,
    waiting_bytes: usize,
    /// Rows that no later checkpoint names, each with the number that was next by then.
    gone: VecDeque<(u64, u64)>,
    /// Nothing is kept any more.
    closed: bool,
}

/// The judging stage's side.
pub struct IdleStore {
    shared: Arc<Mutex<Shared>>,
    reader: StateReader,
    /// It was said that a row can't be read: the others are counted where they are missed.
    warned: bool,
}

/// The side of who writes.
pub struct IdleWriter {
    shared: Arc<Mutex<Shared>>,
    db: Option<StateDb>,
    meter: Meter,
    /// How many series had given way by the newest durable checkpoint of this life, if there is
    /// one.
    durable: Option<u64>,
    /// The rows that the checkpoint of the start names, and the number that was next by then,
    /// until what else was there has gone.
    found: Option<(Vec<u64>, u64)>,
}

impl std::fmt::Debug for IdleWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { db, durable, .. } = self;
        f.debug_struct("IdleWriter")
            .field("db", db)
            .field("durable", durable)
            .finish_non_exhaustive()
    }
}

/// Opens the store in `dir` for a stage whose checkpoint names the rows `numbers`, and whose next
/// one is `next`; `others`: another checkpoint that may still be used names rows. `None` when it
/// can't be opened: then series that give way are forgotten.
pub fn open(
    dir: &Path,
    (numbers, next): (Vec<u64>, u64),
    others: bool,
    meter: Meter,
) -> Option<(IdleStore, IdleWriter)> {
    let opened = try_open(dir, (&numbers, next), others).inspect_err(|error| {
        warn!(%error, "series that give way are forgotten in this life");
    });
    let db = opened.ok()?;
    let shared = Arc::default();
    let store = IdleStore {
        shared: Arc::clone(&shared),
        reader: db.reader(),
        warned: false,
    };
    let writer = IdleWriter {
        shared,
        db: Some(db),
        meter,
        durable: None,
        found: Some((numbers, next)),
    };
    Some((store, writer))
}

fn try_open(
    dir: &Path,
    (numbers, next): (&[u64], u64),
    others: bool,
) -> Result<StateDb, StateDbError> {
    let bytes = fs::metadata(dir.join("db")).map_or(0, |meta| meta.len());
    let is_named = others || !numbers.is_empty();
    if bytes > 0 && (!is_named || bytes >= IDLE_FILE_BYTES_MAX) {
        // It never shrinks.
        let lost = numbers.len();
        info!(bytes, lost, "series that gave way are kept in a new file");
        let removed = fs::remove_dir_all(dir);
        removed.map_err(|source| StateDbError::Io {
            doing: "removing",
            path: dir.to_owned(),
            source,
        })?;
    }
    let opened = StateDb::open_up_to(dir, 2 * IDLE_FILE_BYTES_MAX)?;
    if let Some(aside) = opened.set_aside {
        let (lost, path) = (numbers.len(), aside.display());
        warn!(lost, %path, "what was learned of series that gave way was damaged: learned anew");
        // Nobody needs it, and it may be large.
        let _ = fs::remove_dir_all(&aside);
    }
    let mut db = opened.db;
    remove_keys(&mut db, next, |_| true)?;
    Ok(db)
}

/// Removes the rows from `first` on that are not wanted.
fn remove_keys(
    db: &mut StateDb,
    first: u64,
    mut is_unwanted: impl FnMut(u64) -> bool,
) -> Result<(), StateDbError> {
    let mut next = Some(first);
    while let Some(first) = next.take() {
        let mut batch = Batch::new();
        let mut failed = Ok(());
        db.visit_keys_from(&first.to_be_bytes(), |key| {
            let number = key.try_into().map_or(u64::MAX, u64::from_be_bytes);
            if batch.len() >= IDLE_ROWS_AT_ONCE {
                next = Some(number);
                return ControlFlow::Break(());
            }
            if is_unwanted(number) {
                failed = batch.delete(key);
            }
            match failed {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        failed?;
        db.apply(&mut batch)?;
        db.commit()?;
    }
    Ok(())
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn count_lost(count: usize) {
    counter!("tributary_agent_idle_series_unkept_total").increment(count as u64);
}

impl IdleRows for IdleStore {
    fn put(&mut self, number: u64, row: Vec<u8>) {
        let mut shared = lock(&self.shared);
        if shared.closed || shared.waiting_bytes + row.len() > IDLE_WAITING_BYTES_MAX {
            count_lost(1);
            return;
        }
        shared.waiting_bytes += row.len();
        shared.waiting.insert(number, row.into());
    }

    fn get(&mut self, number: u64) -> Option<Vec<u8>> {
        let waiting = lock(&self.shared).waiting.get(&number).cloned();
        if let Some(row) = waiting {
            return Some(row.to_vec());
        }
        let found = self.reader.get(&number.to_be_bytes());
        let row = found
            .map_err(|error| error.to_string())
            .map(|row| row.map(|row| zstd::bulk::decompress(&row, ROW_BYTES_MAX)));
        let error = match row {
            Ok(None) => return None,
            Ok(Some(Ok(row))) => return Some(row),
            Ok(Some(Err(error))) => error.to_string(),
            Err(error) => error,
        };
        if !std::mem::replace(&mut self.warned, true) {
            warn!(
                error,
                "what was learned of a series that gave way can't be read; others are only counted"
            );
        }
        None
    }

    fn gone(&mut self, number: u64, next: u64) {
        let mut shared = lock(&self.shared);
        if shared.gone.len() < IDLE_GONE_MAX {
            shared.gone.push_back((next, number));
        }
    }
}

impl IdleWriter {
    /// Writes rows, if there are enough of them.
    pub fn write_due(&mut self) {
        if lock(&self.shared).waiting_bytes >= IDLE_DUE_BYTES {
            self.write();
        }
    }

    /// Makes every row durable that was handed over by now, or loses it.
    pub fn write(&mut self) {
        while let Some(last) = self.some_rows() {
            let mut shared = lock(&self.shared);
            let rest = shared.waiting.split_off(&last.saturating_add(1));
            let done = std::mem::replace(&mut shared.waiting, rest);
            let bytes: usize = done.values().map(|row| row.len()).sum();
            shared.waiting_bytes = shared.waiting_bytes.saturating_sub(bytes);
        }
    }

    /// Writes some rows; the number of the last one.
    fn some_rows(&mut self) -> Option<u64> {
        let rows: Vec<(u64, Arc<[u8]>)> = {
            let shared = lock(&self.shared);
            let rows = shared.waiting.iter().take(IDLE_ROWS_AT_ONCE);
            rows.map(|(number, row)| (*number, Arc::clone(row)))
                .collect()
        };
        let last = rows.last()?.0;
        let is_full = self
            .db
            .as_ref()
            .is_some_and(|db| db.file_bytes() >= IDLE_FILE_BYTES_MAX);
        if is_full {
            warn!("what is learned of series that give way takes too much room");
            self.close();
        }
        let count = rows.len();
        match self.db.as_mut().map(|db| write_rows(db, rows)) {
            None => count_lost(count),
            Some(Ok(bytes)) => self.meter.count(bytes, 1),
            Some(Err(error)) => {
                warn!(%error, "what is learned of series that give way can't be written");
                count_lost(count);
                self.close();
            }
        }
        Some(last)
    }

    /// Nothing is written any more in this life.
    fn close(&mut self) {
        warn!("series that give way are learned anew until the next start");
        self.db = None;
        lock(&self.shared).closed = true;
    }

    /// A checkpoint is durable, by which so many series had given way: what neither it nor the one
    /// before it names goes.
    pub fn checkpointed(&mut self, given_way: u64) {
        let Some(before) = self.durable.replace(given_way) else {
            return;
        };
        let removed = self.remove_gone(before).and_then(|()| self.remove_found());
        if let Err(error) = removed {
            warn!(%error, "rows of series that are not needed any more stay");
            self.close();
        }
    }

    fn remove_gone(&mut self, before: u64) -> Result<(), StateDbError> {
        let Some(db) = &mut self.db else {
            return Ok(());
        };
        loop {
            let mut batch = Batch::new();
            let mut shared = lock(&self.shared);
            // With the same number it may have gone before or behind the checkpoint.
            while batch.len() < IDLE_ROWS_AT_ONCE
                && let Some((_, number)) = shared.gone.pop_front_if(|(next, _)| *next < before)
            {
                batch.delete(&number.to_be_bytes())?;
            }
            drop(shared);
            if batch.is_empty() {
                return Ok(());
            }
            db.apply(&mut batch)?;
            db.commit()?;
        }
    }

    /// Removes what was there at the start and what no checkpoint named.
    fn remove_found(&mut self) -> Result<(), StateDbError> {
        let (Some(db), Some((numbers, next))) = (&mut self.db, self.found.take()) else {
            return Ok(());
        };
        let is_named = |number: u64| numbers.binary_search(&number).is_ok();
        remove_keys(db, 0, |number| number < next && !is_named(number))
    }
}

/// Writes rows, durably; how many bytes that took, about.
fn write_rows(db: &mut StateDb, rows: Vec<(u64, Arc<[u8]>)>) -> Result<u64, StateDbError> {
    let (mut batch, mut bytes) = (Batch::new(), 0);
    for (number, row) in rows {
        let packed = zstd::bulk::compress(&row, LEVEL).unwrap_or_default();
        if packed.is_empty() || packed.len() > STATE_VALUE_BYTES_MAX {
            count_lost(1);
            continue;
        }
        bytes += packed.len() as u64;
        batch.put(&number.to_be_bytes(), &packed)?;
    }
    db.apply(&mut batch)?;
    db.commit()?;
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
