//! The truth ledger: an append-only file of what was published and what was acknowledged.
//!
//! It is the oracle's side of the proof, so it shares no code with agent or aggregator.
//!
//! # Format, version 1 (integers little endian)
//!
//! Header, 64 bytes:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8 | magic `TRIBTRTH` |
//! | 8 | 2 | version, 1 |
//! | 10 | 1 | source: 0 fleet, 1 replay |
//! | 11 | 1 | QoS, 0, 1 or 2 |
//! | 12 | 1 | MQTT protocol level, 4 (3.1.1) or 5 |
//! | 13 | 3 | zero |
//! | 16 | 8 | seed |
//! | 24 | 8 | start of the run, milliseconds since 1970 |
//! | 32 | 8 | readings a second of one sensor (of the whole replay), an IEEE double |
//! | 40 | 4 | sensors (0 in a replay) |
//! | 44 | 16 | zero |
//! | 60 | 4 | CRC32C of the 60 bytes before |
//!
//! Then blocks: length of the records (4), CRC32C of length and records (4), records. A record
//! is a tag and its fields; varints are LEB128, `zigzag` maps signed to unsigned before:
//!
//! | tag | record | fields |
//! |---|---|---|
//! | 1 | series | number, dense from 0 (varint), device, metric (each varint length and UTF-8) |
//! | 2 | published | series, seq (varints), event time (zigzag varint), type (1), value |
//! | 3 | acknowledged | series, seq (varints): PUBACK came, or at QoS 2 PUBREC |
//! | 4 | refused | series, seq (varints): answered with an MQTT 5 error |
//! | 5 | end | published, acknowledged (varints): the run ended by itself |
//! | 16 | faulty | series, seq (varints), kind (1): a fault is in this reading |
//! | 17-31 | | kept for faults |
//!
//! An event time is in µs, less that of the block's published record before it, if any.
//! Types: 0 f64 (8 bytes), 2 i64 (zigzag varint), 3 bool (1), 4 text (varint length and UTF-8).
//! Kinds of faults: 0 spike, 1 level shift, 2 stuck, 3 bearing, 4 dropout; the readings of one
//! fault follow each other without a hole in `seq`. A published record stands before its
//! acknowledged and its faulty one, and the `seq` of a series increases. The file is written by
//! one writer, flushed and fsynced at the end; a tail that is not whole is what a killed run
//! leaves, and readers say so and use the rest.

mod codec;
mod faults;
mod reader;
mod writer;

pub use faults::{Injected, faults};
pub use reader::{Tail, TruthReader};
pub use writer::{TruthSender, TruthWriter};

use crate::fault::FaultKind;
use crate::reading::Reading;
use std::path::PathBuf;

/// Where the readings of a run come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A simulated fleet.
    Fleet,
    /// A file that is replayed.
    Replay,
}

/// What stands in front of a truth ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Where the readings come from.
    pub source: Source,
    /// MQTT quality of service: 0, 1 or 2.
    pub qos: u8,
    /// MQTT protocol level: 4 (3.1.1) or 5.
    pub protocol: u8,
    /// Whether readings say the device's numbers for them.
    pub numbered: bool,
    /// The seed of the fleet.
    pub seed: u64,
    /// Start of the run: milliseconds since 1970.
    pub started_ms: i64,
    /// Readings a second of each sensor.
    pub rate_hz: f64,
    /// How many sensors.
    pub sensors: u32,
}

/// One record of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A series gets the next number.
    Series {
        /// Its number.
        series: u32,
        /// All levels of the topic but the last.
        device: String,
        /// The last level of the topic.
        metric: String,
    },
    /// A reading was put on the wire for the first time.
    Published(Reading),
    /// Its PUBACK came, or at QoS 2 its PUBREC.
    Acknowledged {
        /// The series of the reading.
        series: u32,
        /// The device's number of the reading.
        seq: u64,
    },
    /// The server answered it with an error, and did not take it.
    Refused {
        /// The series of the reading.
        series: u32,
        /// The device's number of the reading.
        seq: u64,
    },
    /// A fault is in the reading.
    Faulty {
        /// The series of the reading.
        series: u32,
        /// The device's number of the reading.
        seq: u64,
        /// The fault.
        kind: FaultKind,
    },
    /// The run ended by itself, having counted this much.
    End {
        /// Readings published.
        published: u64,
        /// Readings acknowledged.
        acknowledged: u64,
    },
}

/// Why a truth ledger cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum TruthError {
    /// The file system refused.
    #[error("truth ledger {}: {what}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is no truth ledger, or of another version.
    #[error("{} is not a truth ledger of version 1: {why}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file is damaged before its end.
    #[error(
        "truth ledger {}: damaged at byte {at}: {why}; only a new run makes a new truth",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged block begins.
        at: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The writer ended before the run did.
    #[error("the writer of the truth ledger is gone")]
    Gone,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests;
