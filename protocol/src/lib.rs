//! The pure core of Tributary: what a reading, a batch and a session are, and who decides what.
//!
//! Everything here is told the time and the bytes. No socket, no file, no clock, no task, no random
//! number: the crates around it own those.
//!
//! The modules stand in the order in which a reading travels.
#![deny(unsafe_code)]

pub mod ids;
pub mod limits;
pub mod reading;

pub mod series;

pub mod batch;

pub mod frame;
pub mod message;

pub mod ledger;
pub mod ranges;
pub mod session;

/// Made by `cargo xtask codegen` from `schema/tributary.fbs`; never edited.
#[allow(unsafe_code, missing_docs, clippy::all, clippy::restriction, unsafe_op_in_unsafe_fn)]
#[rustfmt::skip]
#[path = "generated/tributary_generated.rs"]
mod generated;
