//! The storage crate against a disk that breaks: one binary, a module for each fear.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::expect_used
)]
#![allow(missing_docs)]

mod checkpoints;
mod common;
mod cursors;
mod log_basics;
mod log_crash;
mod log_damage;
mod state;
