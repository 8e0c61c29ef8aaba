//! The simulation of the whole: some seeds of each profile, what nothing breaks, that a plan is a
//! run, and that the oracle sees what is not as it should be.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod oracle;
mod whole;
