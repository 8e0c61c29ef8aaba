//! The edge agent, stage by stage in the order a reading travels: source, wal, decode, seal,
//! spool, uplink.
//!
//! The library holds every stage; the binary only reads its arguments and starts them.
#![forbid(unsafe_code)]

pub mod limits;

pub mod source;

pub mod wal;

pub mod decode;
