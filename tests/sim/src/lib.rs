//! Tributary in one thread: by seed, in virtual time, over links, disks and clocks that break.
//!
//! Same seed, same run. It decides what breaks and when, and judges what came out; what it drives
//! are the product's own cores. It opens no socket, no file and no thread.
#![forbid(unsafe_code)]

pub mod limits;
