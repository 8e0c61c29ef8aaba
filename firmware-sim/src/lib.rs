//! A fleet of simulated devices that publish over MQTT, a truth ledger of what they published, and
//! the verifier that holds the lake against that ledger.
//!
//! Modules in the order a reading travels: [`fleet`] or [`replay`] measures it, [`client`]
//! publishes it, [`truth`] records it, [`sim`] drives the three, and [`verify`] looks for it in the
//! lake; [`relay`] is the bad link that one can put between. Nothing here knows the agent or the
//! aggregator: this is the other side of the proof.
#![forbid(unsafe_code)]

pub mod fault;
pub mod limits;
pub mod reading;
pub mod rng;

pub mod fleet;
pub mod replay;

pub mod client;
pub mod truth;

pub mod sim;

pub mod relay;

pub mod verify;
