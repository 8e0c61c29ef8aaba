//! sled can panic on what it finds on the disk: that is caught, and whoever watches panics is told.

use super::{StateDbError, damaged};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How sled names its own threads (0.34.7, threadpool.rs).
const SLED_THREADS: &str = "sled-";

/// How many databases are being opened: sled's own threads take part in that.
static OPENING: AtomicUsize = AtomicUsize::new(0);

/// Where databases are open, and how many in each place.
static OPEN: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Whether this thread is where a panic is caught.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught and mended right now: while it opens, reads or writes a
/// state database, and in sled's own threads while one is opened. A panic hook that ends the
/// process asks this first, of the thread that panics.
pub fn is_guarded() -> bool {
    GUARDED.try_with(Cell::get).unwrap_or(false)
        || (OPENING.load(Ordering::SeqCst) > 0 && is_sled())
}

fn is_sled() -> bool {
    let thread = std::thread::current();
    thread.name().is_some_and(|it| it.starts_with(SLED_THREADS))
}

/// Where one of sled's own threads panics, has the next open of each database that is open set it
/// aside: nobody knows which one it was, and the next process would break on it again. A panic hook
/// that ends the process calls this first, on the thread that panics.
pub fn note_panic() {
    if is_sled() {
        open().keys().for_each(|dir| damaged::mark(dir));
    }
}

fn open() -> MutexGuard<'static, BTreeMap<PathBuf, usize>> {
    // None of sled's threads is in here when it panics.
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A database is open in `dir` for as long as this is there.
#[derive(Debug)]
pub(super) struct Opened(PathBuf);

impl Opened {
    pub fn new(dir: &Path) -> Self {
        *open().entry(dir.to_owned()).or_default() += 1;
        Self(dir.to_owned())
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut open = open();
        if let Some(count) = open.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.0);
            }
        }
    }
}

/// Has a panic be an error.
pub(super) fn guarded<T>(
    dir: &Path,
    doing: &str,
    act: impl FnOnce() -> Result<T, StateDbError>,
) -> Result<T, StateDbError> {
    let before = GUARDED.replace(true);
    let acted = catch_unwind(AssertUnwindSafe(act));
    GUARDED.set(before);
    acted.unwrap_or_else(|_| {
        let why = format!("sled panicked while it {doing}");
        Err(StateDbError::Unusable {
            dir: dir.to_owned(),
            why,
        })
    })
}

/// As [`guarded`], for an open.
pub(super) fn guarded_open<T>(
    dir: &Path,
    open: impl FnOnce() -> Result<T, StateDbError>,
) -> Result<T, StateDbError> {
    OPENING.fetch_add(1, Ordering::SeqCst);
    let opened = guarded(dir, "opened", open);
    OPENING.fetch_sub(1, Ordering::SeqCst);
    opened
}
