//! The simulator against a real socket, and the verifier against real Parquet files.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr
)]

mod client;
mod commands;
mod lake;
mod qos2;
mod server;
mod verify;
