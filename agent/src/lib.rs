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

pub mod deadletter;

pub mod checkpoint;

pub mod catalogue;

pub mod life;

pub mod pipeline;

pub mod control;

pub mod commands;

pub mod http;

pub mod civil;

/// A broken invariant ends the process: the truth is on disk, and the supervisor starts it again.
/// Only sled may panic, and only while it opens a damaged database: that is caught.
pub fn log_panics_and_abort() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        pipeline::guard::note_panic();
        if !tributary_journal::state_db::is_opening() {
            std::process::abort();
        }
    }));
}
