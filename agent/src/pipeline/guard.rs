//! Detection is ahead of what is durable: a message at which it broke would end the process again
//! and again, when it is redelivered or replayed. So each time it does is noted, and behind the
//! second time within ten minutes a life goes by without detection: readings are taken, stored and
//! forwarded.

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Times that are noted, and the seconds within which they count.
const TIMES_MAX: usize = 2;
const WITHIN_S: u64 = 600;
/// Bytes of the file that are read: a line of 20 bytes for each time.
const BYTES_MAX: u64 = 4_096;

thread_local! {
    static NOTE: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

fn now_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// The file of the agent in `data_dir`.
pub(crate) fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("judge.panics")
}

/// From here on a panic of this thread is noted in `file`.
pub(crate) fn watch(file: PathBuf) {
    NOTE.with(|note| *note.borrow_mut() = Some(file));
}

/// Notes a panic of this thread, if it is watched. Best effort: the process ends.
pub(crate) fn note_panic() {
    let file = NOTE.try_with(|note| note.try_borrow().ok().and_then(|file| file.clone()));
    if let Ok(Some(file)) = file {
        let opened = OpenOptions::new().create(true).append(true).open(file);
        let _ = opened.and_then(|mut file| {
            writeln!(file, "{}", now_s())?;
            file.sync_data()
        });
    }
}

/// Whether detection broke so often lately that a life goes by without it.
pub(crate) fn is_tripped(file: &Path) -> bool {
    is_tripped_at(file, now_s())
}

fn is_tripped_at(file: &Path, now_s: u64) -> bool {
    let mut text = String::new();
    let read =
        std::fs::File::open(file).and_then(|file| file.take(BYTES_MAX).read_to_string(&mut text));
    if read.is_err() {
        return false;
    }
    let times = text.lines().filter_map(|line| line.parse::<u64>().ok());
    let lately = times
        .filter(|time| now_s.abs_diff(*time) < WITHIN_S)
        .count();
    if lately == 0 {
        // Long ago: begin anew.
        let _ = std::fs::remove_file(file);
    }
    lately >= TIMES_MAX
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn the_second_time_within_ten_minutes_is_one_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert!(!is_tripped(&file));
        let broken = |file: PathBuf| {
            let thread = std::thread::spawn(move || {
                watch(file);
                let caught = std::panic::catch_unwind(|| panic!("a message that breaks it"));
                assert!(caught.is_err());
                note_panic();
            });
            thread.join().unwrap();
        };
        broken(file.clone());
        assert!(!is_tripped(&file));
        note_panic();
        assert!(!is_tripped(&file), "another thread is not watched");
        broken(file.clone());
        assert!(is_tripped(&file));
        assert!(!is_tripped_at(&file, now_s() + 2 * WITHIN_S));
        assert!(!file.exists());
        std::fs::write(&file, b"\xff rubbish\n").unwrap();
        assert!(!is_tripped(&file));
    }
}
