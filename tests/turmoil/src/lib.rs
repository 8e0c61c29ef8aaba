//! The real uplink against the real ingest and keeper, over real QUIC and TLS: by seed, in virtual
//! time, over a network and disks that are made up.
//!
//! A seed is a run: every datagram leaves at the same time, from the same host to the same other
//! one, and is as long, in each run and in each process. What is in it is not the same: keys of
//! TLS, names of connections and tickets come from the system, and are as long each time (Ed25519,
//! serial numbers that are given). Nothing of a run may be on a second thread: the uplink keeps its
//! cursor in place here, since the moment at which another thread had kept it moved datagrams.
//!
//! Left out are the lake, sealing, and the agent's files: a spool in memory stands for them.
#![forbid(unsafe_code)]

mod agent;
pub mod limits;
pub mod oracle;
mod pki;
pub mod plan;
mod site;
mod socket;
mod trace;
mod world;

pub use trace::{Datagram, Datagrams};
pub use world::{Outcome, run};
