//! What the whole-system tests stand on: the programs of this workspace as real processes, their
//! configuration and certificates, a fleet with its truth ledger.
//!
//! Nothing here decides what is right: that is the tests' and `tributary_sim::verify`'s. What a
//! test can't go on without panics, and says why.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "this is test code, in a library only so that its modules can be shared"
)]

pub mod limits;

pub mod dice;
pub mod full_disk;
pub mod kills;
pub mod latency;
pub mod mosquitto;
pub mod mqtt;
pub mod pki;
pub mod power;
pub mod process;
pub mod programs;
pub mod shim;
pub mod site;
pub mod small_disk;
