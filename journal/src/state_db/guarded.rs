//! sled can panic on what it finds on the disk: that is caught, and whoever watches panics is told.

use super::StateDbError;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How sled names its own threads (0.34.7, threadpool.rs).
const SLED_THREADS: &str = "sled-";

/// How many databases are being opened: sled's own threads take part in that.
static OPENING: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Whether this thread is where a panic is caught.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread is caught and mended right now: while it opens, reads or writes a
/// state database, and in sled's own threads while one is opened. A panic hook that ends the
/// process asks this first, of the thread that panics.
pub fn is_guarded() -> bool {
    let is_sled = || {
        let thread = std::thread::current();
        thread.name().is_some_and(|it| it.starts_with(SLED_THREADS))
    };
    GUARDED.try_with(Cell::get).unwrap_or(false)
        || (OPENING.load(Ordering::SeqCst) > 0 && is_sled())
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
