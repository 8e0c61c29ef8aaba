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
/// Faults a minute that the demo's fleet has.
pub const FAULTS_PER_MINUTE: f64 = 60.0;
/// The demo's first fault comes after so long,
pub const FAULTS_AFTER: Duration = Duration::from_secs(12);
/// or after so many readings of each sensor where these take longer: detectors learn first.
pub const FAULTS_AFTER_READINGS: f64 = 120.0;
/// Faults whose readings are known one by one, so that alerts can be told apart by them.
pub const FAULTS_KEPT_MAX: usize = 1_024;
/// Alerts of which a copy would be noticed.
pub const ALERT_IDS_KEPT_MAX: usize = 65_536;
/// Latencies of alerts that percentiles are of: the newest.
pub const LATENCIES_KEPT_MAX: usize = 262_144;
/// Bytes of an alert with its topic.
pub const ALERT_BYTES_MAX: usize = 256 * 1024;
/// How long alerts about the last readings may take to come.
pub const ALERT_GRACE: Duration = Duration::from_secs(1);
/// How long the subscriber to alerts waits before it connects again.
pub const ALERT_RETRY: Duration = Duration::from_millis(100);
/// Readings a second that the demo's fleet may publish together.
pub const FLEET_READINGS_PER_S_MAX: f64 = 1_000_000.0;
/// How often a child of the demo says how it stands.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// How long a child may take to drain before it is given up: both of its own deadlines, and some.
pub const CHILD_END_MAX: Duration = Duration::from_secs(150);
/// Lines of a child's log that are shown when it ended by itself.
pub const LOG_LINES_SHOWN: usize = 12;
/// Ports that stay free while their process is down: below those that systems give to clients.
pub const PORTS: std::ops::Range<u16> = 30_000..32_768;

/// How long something is up and down under `--chaos`: from, to, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From the start until it goes down first: a short demo sees it, too.
    pub first_ms: (u64, u64),
    /// From its coming back until it goes down again.
    pub up_ms: (u64, u64),
    /// Until it comes back.
    pub down_ms: (u64, u64),
}

/// The agent's process.
pub const AGENT: Span = Span {
    first_ms: (1_000, 3_000),
    up_ms: (1_000, 5_000),
    down_ms: (0, 800),
};
/// The aggregator's process.
pub const AGGREGATOR: Span = Span {
    first_ms: (1_500, 5_000),
    up_ms: (2_000, 8_000),
    down_ms: (0, 1_500),
};
/// The link between them.
pub const LINK: Span = Span {
    first_ms: (2_000, 8_000),
    up_ms: (3_000, 10_000),
    down_ms: (300, 3_000),
};
/// One of so many lives of a process ends abruptly,
pub const ABRUPT_OF: u64 = 4;
/// after so long: while it opens its storage, replays, or has just begun.
pub const ABRUPT_MS: (u64, u64) = (0, 400);

const _: () = assert!(DRAIN_DEADLINE.as_secs() * 2 < CHILD_END_MAX.as_secs());
/// How long the console may take to answer `tributary status`.
pub const STATUS_WAIT_MAX: Duration = Duration::from_secs(10);
/// Bytes of its answer that are read.
pub const STATUS_BYTES_MAX: u64 = 16 * 1024 * 1024;
