//! The simulation's own tests: what was found once, some seeds, and that a seed is a run.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod session;
