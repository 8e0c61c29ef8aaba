//! The whole system, with real processes: killed, on a bad link, given bad input and wrong
//! settings. What must hold is held against the fleet's truth ledger by the simulator's verifier.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests"
)]

mod audit;
mod broker;
mod captures;
mod config;
mod crash;
mod crowd;
mod failover;
mod full_disk;
mod hostile;
mod identity;
mod kills;
mod latency;
mod link;
mod power;
mod small;
