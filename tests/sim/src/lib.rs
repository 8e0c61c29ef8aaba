//! Tributary in one thread: by seed, in virtual time, over links, disks and clocks that break.
//!
//! Same seed, same run. It decides what breaks and when, and judges what came out; what it drives
//! are the product's own cores. It opens no socket and no file.
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "this is test code, in a library only so that its programs and tests share it"
)]

pub mod limits;

pub mod clock;
pub mod dice;
pub mod net;
pub mod plan;
pub mod shrink;
pub mod trace;
pub mod words;

pub mod fleet;
pub mod session;
