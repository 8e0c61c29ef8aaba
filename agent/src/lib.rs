//! The edge agent, stage by stage in the order a reading travels: source, wal, decode, seal,
//! spool, uplink.
//!
//! The library holds every stage; the binary only reads its arguments and starts them.
#![forbid(unsafe_code)]

pub mod config;
pub mod limits;

pub mod source;

pub mod wal;

pub mod decode;
pub mod detect;

pub mod aggregate;
pub mod alert;

pub mod configuration;

pub mod marks;

pub mod judge;

pub mod idle;

pub mod capture;

pub mod forward;

pub mod seal;

pub mod spool;

pub mod buffer;

pub mod deadletter;

pub mod checkpoint;

pub mod catalogue;

pub mod life;

pub mod pipeline;

#[cfg(any(test, feature = "world"))]
pub mod gateway;

pub mod control;

pub mod commands;

pub mod http;

pub mod measured;

pub mod civil;

/// A broken invariant ends the process: the truth is on disk, and the supervisor starts it again.
/// Only sled may panic on what it finds on the disk, where that is caught.
pub fn log_panics_and_abort() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if is_fatal() {
            std::process::abort();
        }
    }));
}

/// Whether the panic of this thread ends the process; notes it, if it does and is watched.
fn is_fatal() -> bool {
    if tributary_journal::state_db::is_guarded() {
        return false;
    }
    tributary_journal::state_db::note_panic();
    pipeline::guard::note_panic();
    true
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use pipeline::guard;
    use std::ops::ControlFlow;
    use tributary_journal::{Batch, StateDb};

    #[test]
    fn a_panic_that_is_caught_ends_nothing_and_does_not_count() {
        let place = tempfile::tempdir().unwrap();
        let mut db = StateDb::open(&place.path().join("state")).unwrap().db;
        let mut batch = Batch::new();
        batch.put(b"k", b"v").unwrap();
        db.apply(&mut batch).unwrap();
        db.commit().unwrap();
        let file = guard::file(place.path());
        guard::watch(file.clone());
        let mut fatal = Vec::new();
        let visited = db.visit_keys_from(b"k", |_| {
            let elsewhere = std::thread::spawn(is_fatal).join().unwrap();
            fatal = vec![is_fatal(), is_fatal(), elsewhere];
            ControlFlow::Continue(())
        });
        visited.unwrap();
        assert_eq!(fatal, [false, false, true], "but elsewhere it is one");
        assert!(!file.exists() && !guard::is_tripped(&file));
        assert!(is_fatal() && is_fatal());
        assert!(guard::is_tripped(&file));
    }
}
