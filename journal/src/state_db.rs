//! Small state that is looked up and may be rebuilt, in sled 0.34.7: the only place that names it.
//!
//! Never the only copy of anything. What makes sled safe here was measured: values so small that
//! no page becomes one of its unsynced blob files, no background flusher, and after its `flush`
//! (which is `sync_file_range`) an `fdatasync` of our own. Opening is guarded: sled's recovery can
//! panic. What cannot be opened, or has grown beyond bounds, is set aside and rebuilt by the
//! caller from checkpoint and log.

mod damaged;
mod guarded;
mod reader;

pub use guarded::{is_guarded, note_panic};
pub use reader::StateReader;

use crate::limits::{
    STATE_BUSY_PATIENCE, STATE_BUSY_RETRY, STATE_FILE_BYTES_MAX, STATE_KEY_BYTES_MAX,
    STATE_PENDING_MAX, STATE_SET_ASIDE_MAX, STATE_VALUE_BYTES_MAX, STATE_VERIFY_BYTES_MAX,
};
use guarded::{guarded, guarded_open};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const SEGMENT_BYTES: usize = 512 * 1024;
const CACHE_BYTES: u64 = 2 << 20;
const TREE: &str = "state";
/// Stands in sled's default tree: a database without it lost what it held.
const SCHEMA_KEY: &[u8] = b"schema";
const SCHEMA: &[u8] = b"1";

/// Why the state database could not do something.
#[derive(Debug, thiserror::Error)]
pub enum StateDbError {
    /// The key is empty or too long.
    #[error("a key of {0} bytes: expected 1 to {STATE_KEY_BYTES_MAX}")]
    KeyBytes(usize),
    /// The value is too long.
    #[error(
        "a value of {0} bytes: at most {STATE_VALUE_BYTES_MAX} are safe in sled; store it as a \
         file, and its name here"
    )]
    ValueBytes(usize),
    /// Too many changes wait for a commit.
    #[error("{STATE_PENDING_MAX} changes wait already: commit first")]
    PendingFull,
    /// A commit failed before; what followed is not known to be durable.
    #[error("the state database {} failed: open it again", dir.display())]
    Failed {
        /// Where it is.
        dir: PathBuf,
    },
    /// Somebody else has it open.
    #[error("the state database {} is open already", dir.display())]
    Busy {
        /// Where it is.
        dir: PathBuf,
    },
    /// There is no room to open it or to write.
    #[error("no room on the disk for the state database {}: free some", dir.display())]
    NoSpace {
        /// Where it is.
        dir: PathBuf,
    },
    /// sled says so.
    #[error("the state database {}: {source}", dir.display())]
    Sled {
        /// Where it is.
        dir: PathBuf,
        /// What it says.
        source: sled::Error,
    },
    /// The file system says so.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither the database nor an empty one in its place opens.
    #[error("no state database can be opened in {}: {why}", dir.display())]
    Unusable {
        /// Where it should be.
        dir: PathBuf,
        /// What went wrong last.
        why: String,
    },
}

/// Changes that are made together or not at all.
#[derive(Clone, Default, Debug)]
pub struct Batch {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Batch {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key.
    ///
    /// # Errors
    /// When key or value is out of bounds; nothing is added then.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StateDbError> {
        if value.len() > STATE_VALUE_BYTES_MAX {
            return Err(StateDbError::ValueBytes(value.len()));
        }
        self.change(key, Some(value.to_vec()))
    }

    /// Removes a key.
    ///
    /// # Errors
    /// When the key is out of bounds; nothing is added then.
    pub fn delete(&mut self, key: &[u8]) -> Result<(), StateDbError> {
        self.change(key, None)
    }

    fn change(&mut self, key: &[u8], value: Option<Vec<u8>>) -> Result<(), StateDbError> {
        if key.is_empty() || key.len() > STATE_KEY_BYTES_MAX {
            return Err(StateDbError::KeyBytes(key.len()));
        }
        self.changes.insert(key.to_vec(), value);
        Ok(())
    }

    /// How many keys it changes.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A key and its value.
pub type KeyValue = (Vec<u8>, Vec<u8>);

/// A state database, open, and what became of the one before.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub db: StateDb,
    /// Whether it is empty because it is new: rebuild it.
    pub fresh: bool,
    /// Where a database that could not be used was put: raise an alarm.
    pub set_aside: Option<PathBuf>,
}

/// The state database of one process. Reads see what was applied, committed or not.
pub struct StateDb {
    dir: PathBuf,
    // The tree before the database: it must not outlive it.
    tree: sled::Tree,
    db: sled::Db,
    /// Our own descriptor of sled's one log file.
    file: File,
    pending: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    failed: bool,
    /// The last of all, with that of each reader: until then sled's threads may write.
    opened: Arc<guarded::Opened>,
}

impl std::fmt::Debug for StateDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let pending = self.pending.len();
        f.debug_struct("StateDb")
            .field("dir", &self.dir)
            .field("pending", &pending)
            .finish()
    }
}

impl StateDb {
    /// Opens the database in `dir`, which is its own. One that cannot be opened or read, or has
    /// grown beyond 64 MiB, is renamed to `<dir>.bad-<n>` (the last two are kept), and an empty
    /// one takes its place. The caller holds the [`DirLock`](crate::DirLock) above it.
    ///
    /// # Errors
    /// When it is open already, when the disk is full (nothing is set aside then), or when an
    /// empty one cannot be opened either.
    pub fn open(dir: &Path) -> Result<Opened, StateDbError> {
        Self::open_up_to(dir, STATE_FILE_BYTES_MAX)
    }

    /// As [`open`](Self::open), for one that may grow to `bytes_max`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_up_to(dir: &Path, bytes_max: u64) -> Result<Opened, StateDbError> {
        // sled's own threads hold its lock for a moment after a database is dropped.
        let mut waited = Duration::ZERO;
        let opened = loop {
            match check_and_open(dir, bytes_max) {
                Err(StateDbError::Busy { .. }) if waited < STATE_BUSY_PATIENCE => {
                    std::thread::sleep(STATE_BUSY_RETRY);
                    waited += STATE_BUSY_RETRY;
                }
                outcome => break outcome,
            }
        };
        let unusable = match opened {
            Ok((db, fresh)) => {
                return Ok(Opened {
                    db,
                    fresh,
                    set_aside: None,
                });
            }
            Err(error @ (StateDbError::Busy { .. } | StateDbError::NoSpace { .. })) => {
                return Err(error);
            }
            Err(error) => error,
        };
        let aside = set_aside(dir)?;
        let (dir_shown, to) = (dir.display(), aside.display());
        tracing::error!(dir = %dir_shown, error = %unusable, %to, "state database set aside");
        match check_and_open(dir, bytes_max) {
            Ok((db, fresh)) => Ok(Opened {
                db,
                fresh,
                set_aside: Some(aside),
            }),
            Err(error) => Err(StateDbError::Unusable {
                dir: dir.to_owned(),
                why: error.to_string(),
            }),
        }
    }

    /// Takes a batch's changes: seen by reads at once, durable with the next
    /// [`commit`](Self::commit), all or none. Empties the batch.
    ///
    /// # Errors
    /// When too many changes wait; the batch is left alone then.
    pub fn apply(&mut self, batch: &mut Batch) -> Result<(), StateDbError> {
        if self.pending.len() + batch.len() > STATE_PENDING_MAX {
            return Err(StateDbError::PendingFull);
        }
        self.pending.append(&mut batch.changes);
        Ok(())
    }

    /// Makes everything applied durable: one sled batch, its flush, and our fdatasync.
    ///
    /// # Errors
    /// When sled or the disk fails. The database takes no further commit then: open it again, or
    /// rebuild it. Where sled broke on what it found, the next open sets it aside.
    pub fn commit(&mut self) -> Result<(), StateDbError> {
        self.commit_by(|tree, batch| tree.apply_batch(batch))
    }

    fn commit_by(
        &mut self,
        write: impl FnOnce(&sled::Tree, sled::Batch) -> sled::Result<()>,
    ) -> Result<(), StateDbError> {
        if self.failed {
            return Err(StateDbError::Failed {
                dir: self.dir.clone(),
            });
        }
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        for (key, value) in &self.pending {
            match value {
                Some(value) => batch.insert(key.as_slice(), value.as_slice()),
                None => batch.remove(key.as_slice()),
            }
        }
        let committed = guarded(&self.dir, "wrote", || {
            let written = write(&self.tree, batch);
            written.map_err(|error| sled_error(&self.dir, error))?;
            sync(&self.dir, &self.db, &self.file)
        });
        match &committed {
            Ok(()) => self.pending.clear(),
            Err(error) => {
                self.failed = true;
                if error.is_damage() {
                    damaged::mark(&self.dir);
                }
            }
        }
        committed
    }

    /// The value of a key.
    ///
    /// # Errors
    /// When sled cannot read it.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StateDbError> {
        if let Some(change) = self.pending.get(key) {
            return Ok(change.clone());
        }
        self.reader().get(key)
    }

    /// Who reads what was committed, from any thread, while others are written. The database is
    /// open for as long as there is one.
    pub fn reader(&self) -> StateReader {
        StateReader {
            dir: self.dir.clone(),
            tree: self.tree.clone(),
            _opened: Arc::clone(&self.opened),
        }
    }

    /// Visits the key of every committed value from `first` on, in order, until the visitor breaks.
    ///
    /// # Errors
    /// When sled cannot read them.
    pub fn visit_keys_from(
        &self,
        first: &[u8],
        mut visit: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateDbError> {
        guarded(&self.dir, "read", || {
            for key in self.tree.range(first..).keys() {
                let key = key.map_err(|error| sled_error(&self.dir, error))?;
                if visit(&key).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// Visits every key that begins with `prefix`, in order, until the visitor breaks.
    ///
    /// # Errors
    /// When sled cannot read them.
    pub fn visit_prefix(
        &self,
        prefix: &[u8],
        visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateDbError> {
        guarded(&self.dir, "read", || self.visit_merged(prefix, visit))
    }

    fn visit_merged(
        &self,
        prefix: &[u8],
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateDbError> {
        let begins = |(key, _): &(&Vec<u8>, &Option<Vec<u8>>)| key.starts_with(prefix);
        let mut waiting = self
            .pending
            .range(prefix.to_vec()..)
            .take_while(begins)
            .peekable();
        for item in self.tree.scan_prefix(prefix) {
            let (key, value) = item.map_err(|error| sled_error(&self.dir, error))?;
            while let Some((new, change)) = waiting.next_if(|(new, _)| new.as_slice() < &*key) {
                if change
                    .as_ref()
                    .is_some_and(|change| visit(new, change).is_break())
                {
                    return Ok(());
                }
            }
            // A change to this very key takes its place at the next step.
            if waiting
                .peek()
                .is_none_or(|(new, _)| new.as_slice() != &*key)
                && visit(&key, &value).is_break()
            {
                return Ok(());
            }
        }
        for (new, change) in waiting {
            if change
                .as_ref()
                .is_some_and(|change| visit(new, change).is_break())
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Every key that begins with `prefix`, and its value, in order: for prefixes known to be
    /// small; [`visit_prefix`](Self::visit_prefix) for others.
    ///
    /// # Errors
    /// When sled cannot read them.
    pub fn scan_prefix(&self, prefix: &[u8]) -> Result<Vec<KeyValue>, StateDbError> {
        let mut found = Vec::new();
        self.visit_prefix(prefix, |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(found)
    }

    /// Bytes of the database's file. Above [`STATE_FILE_BYTES_MAX`] it is set aside at the next
    /// open: it never shrinks.
    pub fn file_bytes(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }
}

/// sled's own flush does not survive a power cut; the fdatasync behind it does.
fn sync(dir: &Path, db: &sled::Db, file: &File) -> Result<(), StateDbError> {
    db.flush().map_err(|error| sled_error(dir, error))?;
    file.sync_data()
        .map_err(|source| io_error("syncing", &dir.join("db"), source))
}

fn check_and_open(dir: &Path, bytes_max: u64) -> Result<(StateDb, bool), StateDbError> {
    fs::create_dir_all(dir).map_err(|source| io_error("making", dir, source))?;
    remove_generating(dir)?;
    if damaged::is_marked(dir) {
        let why = "a commit broke on what it found in it".to_owned();
        return Err(StateDbError::Unusable {
            dir: dir.to_owned(),
            why,
        });
    }
    let bytes = fs::metadata(dir.join("db")).map_or(0, |meta| meta.len());
    if bytes > bytes_max {
        let why = format!("its file has grown to {bytes} bytes");
        return Err(StateDbError::Unusable {
            dir: dir.to_owned(),
            why,
        });
    }
    guarded_open(dir, || open_sled(dir, bytes))
}

fn open_sled(dir: &Path, bytes: u64) -> Result<(StateDb, bool), StateDbError> {
    let failed = |error| sled_error(dir, error);
    let config = sled::Config::new()
        .path(dir)
        .segment_size(SEGMENT_BYTES)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let db = config.open().map_err(failed)?;
    let path = dir.join("db");
    let file = File::open(&path).map_err(|source| io_error("opening", &path, source))?;
    let tree = db.open_tree(TREE).map_err(failed)?;
    let schema = db.get(SCHEMA_KEY).map_err(failed)?;
    let fresh = match schema.as_deref() {
        Some(SCHEMA) => false,
        // What is new has nothing in it. One that was recovered once had a schema.
        None if bytes == 0 || (tree.is_empty() && never_committed(dir)) => true,
        Some(_) | None => {
            let why = "it holds no schema, or another".to_owned();
            return Err(StateDbError::Unusable {
                dir: dir.to_owned(),
                why,
            });
        }
    };
    if fresh {
        db.insert(SCHEMA_KEY, SCHEMA).map_err(failed)?;
        sync(dir, &db, &file)?;
        sync_names(dir)?;
    } else if bytes <= STATE_VERIFY_BYTES_MAX {
        // Reads every page once, so that damage shows here and not in the middle of the day.
        tree.iter()
            .try_for_each(|item| item.map(|_| ()))
            .map_err(failed)?;
    }
    let db = StateDb {
        dir: dir.to_owned(),
        tree,
        db,
        file,
        pending: BTreeMap::new(),
        failed: false,
        opened: Arc::new(guarded::Opened::new(dir)),
    };
    Ok((db, fresh))
}

/// The file that says that the database was complete once.
fn ready_path(dir: &Path) -> PathBuf {
    dir.join("ready")
}

fn never_committed(dir: &Path) -> bool {
    !ready_path(dir).exists()
}

/// Makes the names durable that sled does not care for, and says that creation is complete.
fn sync_names(dir: &Path) -> Result<(), StateDbError> {
    let sync = |path: &Path| {
        let synced = File::open(path).and_then(|file| file.sync_all());
        synced.map_err(|source| io_error("syncing", path, source))
    };
    sync(&dir.join("conf"))?;
    sync(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync(parent)?;
    }
    let ready = ready_path(dir);
    let made = File::create(&ready).and_then(|file| file.sync_all());
    made.map_err(|source| io_error("making", &ready, source))?;
    sync(dir)
}

/// sled takes an unfinished snapshot for the newest one, and fails
/// (github.com/spacejam/sled/issues/1527).
fn remove_generating(dir: &Path) -> Result<(), StateDbError> {
    let names = fs::read_dir(dir).map_err(|source| io_error("listing", dir, source))?;
    for entry in names {
        let entry = entry.map_err(|source| io_error("listing", dir, source))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            let path = entry.path();
            fs::remove_file(&path).map_err(|source| io_error("removing", &path, source))?;
        }
    }
    Ok(())
}

/// Renames the database's directory, and removes all but the last ones set aside before.
fn set_aside(dir: &Path) -> Result<PathBuf, StateDbError> {
    let failed = |source| io_error("setting aside", dir, source);
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    let name = dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let prefix = format!("{name}.bad-");
    let mut held: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for entry in fs::read_dir(parent).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = name
            .strip_prefix(&prefix)
            .and_then(|digits| digits.parse().ok())
        {
            held.insert(number, entry.path());
        }
    }
    let next = held
        .keys()
        .next_back()
        .map_or(1, |last| last.saturating_add(1));
    while held.len() >= STATE_SET_ASIDE_MAX {
        let Some((_, oldest)) = held.pop_first() else {
            break;
        };
        fs::remove_dir_all(oldest).map_err(failed)?;
    }
    let to = parent.join(format!("{prefix}{next}"));
    fs::rename(dir, &to).map_err(failed)?;
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(failed)?;
    Ok(to)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StateDbError {
    if source.kind() == io::ErrorKind::StorageFull {
        return StateDbError::NoSpace {
            dir: path.to_owned(),
        };
    }
    StateDbError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn sled_error(dir: &Path, source: sled::Error) -> StateDbError {
    let dir = dir.to_owned();
    match &source {
        sled::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
            StateDbError::NoSpace { dir }
        }
        // sled gives this no kind of its own (0.34.7, config.rs).
        sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
            StateDbError::Busy { dir }
        }
        _ => StateDbError::Sled { dir, source },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
