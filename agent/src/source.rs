//! Where readings come in: our own MQTT listener, and the user's brokers. Nothing here looks into a
//! payload.
//!
//! [`listener`] owns sockets and tasks and decides nothing; `connection` decides everything for
//! one client, and is told bytes, times and what is durable; `codec` knows MQTT's packets.
//! [`broker`] is the user's own broker as a source. [`hub`] is what the agent itself publishes,
//! which clients of either may read.

pub mod access;
mod assigned;
pub mod broker;
mod codec;
mod connection;
#[cfg(any(test, feature = "world"))]
pub(crate) mod door;
mod files;
pub mod hub;
mod intake;
pub mod listener;
mod rate;
mod registry;
mod sessions;
pub mod tls;
mod wills;

pub use broker::{BrokerConfig, BrokerStatus, Brokers};
pub use codec::Fault;
pub use files::raise_open_files;
pub use hub::Hub;
pub use listener::{Listener, ListenerConfig, ListenerError, Reload, check};
pub use sessions::Sessions;
