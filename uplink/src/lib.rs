//! The client end of a session: an authenticated QUIC connection to an aggregator, kept up, and fed
//! by the pure [`Sender`](tributary_protocol::session::Sender). It stores nothing: batches come out
//! of a [`Spool`] that the caller owns.
#![forbid(unsafe_code)]

pub mod authority;
pub mod limits;

mod backoff;
pub mod connection;
pub mod control;
pub mod link;
pub mod progress;
mod run;
mod saving;
mod spool;
mod status;

pub use connection::{ConnectError, Identity, Net, Target};
pub use run::{Others, UplinkConfig, run, run_over};
pub use spool::{Save, Sealed, Shed, Spool, SpoolError};
pub use status::{Status, keep};
