//! The storage crate against a disk that breaks: one binary, a module for each fear.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used
)]
#![allow(missing_docs)]

mod checkpoints;
mod cursors;
mod log_basics;
mod log_crash;
mod log_damage;
mod read_only;
mod sim_disk;
mod small_log;
mod state;
