//! The agent's integration tests: one binary, a module for each stage.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::explicit_counter_loop,
    clippy::disallowed_methods,
    reason = "tests: a panic is the message, and their tasks end with them"
)]

mod allocations;
mod broker;
mod buffer;
mod deadletters;
mod detect;
mod detection;
mod listener;
mod user;
