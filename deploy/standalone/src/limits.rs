//! Every bound of the one-machine deployment.

use std::time::Duration;

/// Bytes that the agent's write-ahead log may take.
pub const WAL_QUOTA_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes that sealed readings may take before they are acknowledged.
pub const SPOOL_QUOTA_BYTES: u64 = 1024 * 1024 * 1024;
/// How long a first reading waits until its batch is sealed.
pub const SEAL_DELAY: Duration = Duration::from_secs(1);
/// How long what is left may take to get through the pipeline at the end.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
/// How often the demo says how far it is.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// Readings a second that the demo's fleet may publish together.
pub const FLEET_READINGS_PER_S_MAX: f64 = 1_000_000.0;
