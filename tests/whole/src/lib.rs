//! The whole of Tributary in one thread, by seed, in virtual time: devices that publish, agents
//! that seal and send, an aggregator that keeps, and its lake, over links, disks, a store and
//! clocks that break.
//!
//! Same plan, same run. What is driven are the product's own parts; what is made up is whatever
//! lies between them, and what breaks. At the end the lake's files are read back and held against
//! what the devices were told.
#![forbid(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    reason = "this is test code, in a library only so that its programs and tests share it"
)]

pub mod limits;

pub mod plan;
pub mod store;

pub mod agent;
pub mod aimed;
pub mod bits;
pub mod device;
pub mod feeder;
pub mod mqtt;

pub mod site;

pub mod lake;
pub mod oracle;

pub mod world;

pub mod fleet;
