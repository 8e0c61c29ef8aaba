//! Tributary's aggregator: takes sealed batches from agents, keeps each exactly once in its
//! journal, acknowledges what is durable, and writes it into sinks.
//!
//! The modules stand in the order in which a batch travels. This crate never knows the agent: it
//! sees sealed batches and what a session says about them.
#![forbid(unsafe_code)]

pub mod clock;
pub mod config;
pub mod limits;

pub mod ingest;

pub mod fanout;

pub mod keeper;

pub mod lake;

pub mod http;

pub mod measured;

pub mod restore;
pub mod running;
pub mod stopped;

pub mod audit;
pub mod commands;

pub use config::{Config, ConfigError};
pub use ingest::endpoint::TlsFiles;
pub use running::{AggregatorError, Running, start};
