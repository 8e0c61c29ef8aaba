//! Every bound of the tests. None is a measure of speed: they end what would otherwise hang.

use std::time::Duration;

/// How long anything may take before a test says what it was waiting for.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at.
pub const POLL: Duration = Duration::from_millis(10);
/// Bytes of an HTTP answer.
pub const HTTP_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Lines of a process's log that a failing test shows.
pub const LOG_LINES_SHOWN: usize = 40;
/// Ports that tests take: below those that systems give to clients, so that nobody takes one
/// while its process is down.
pub const PORTS: std::ops::Range<u16> = 12_000..30_000;
/// Commits of the agent after which it is killed, at most.
pub const KILL_COMMITS_MAX: u64 = 8;
/// Readings that are acknowledged on a full disk before the agent's policy is at work, at most: its
/// own blocks, two segments of the spool, hold about a million.
pub const GIVES_WAY_READINGS_MAX: u64 = 8_000_000;
/// Sensors, and readings a second of each, of the fleet whose agent is killed.
pub const KILLED_FLEET: (u32, f64) = (64, 10.0);
/// Bytes of a recording of what programs did to their disks.
pub const RECORDING_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// How long a sync waits under the recorder before it begins, in microseconds: what acknowledges
/// too early is written down by then.
pub const SYNC_LINGER_US: u64 = 3_000;
/// Power cuts that are replayed at once: each has two programs that start.
pub const CUTS_AT_ONCE: usize = 4;
/// Seconds that the fleets of a run publish in which one call fails, and how many sensors each has.
pub const FAULT_SECONDS: u64 = 2;
/// See there.
pub const FAULT_SENSORS: u32 = 4;
/// Operations behind an fsync that failed within which the power goes, half of the time.
pub const CUT_SOON_AFTER: usize = 100;
/// Records of a program that recovers from a cut, about: the power may go again at each of them.
pub const RECOVERY_RECORDS_MAX: u64 = 400;
/// What a client publishes for the first time when it is back.
pub const FRESH_PUBLICATIONS: usize = 2;
/// Seconds that the fleets of the proof publish, and how many sensors each has.
pub const PROOF_RUN_SECONDS: u64 = 30;
/// See there.
pub const PROOF_SENSORS: u32 = 60;
/// Batches that the agent holds before the aggregator comes back.
pub const BACKLOG_BATCHES: u64 = 10;
/// Messages that are no readings, so that there are dead letters.
pub const BROKEN_MESSAGES: u64 = 5;
/// Bytes of a message that is large so that the write-ahead log goes on to its next segment.
pub const FAT_MESSAGE_BYTES: usize = 240 * 1024;
/// Bytes of a text that is large so that spool and journal do.
pub const FAT_TEXT_BYTES: usize = 60 * 1024;
/// How many of them a second.
pub const TEXTS_PER_S: u64 = 16;
/// Bytes of the spool that drains while alerts are timed.
pub const BACKLOG_BYTES: u64 = 1_000_000_000;
/// Connections that fill it.
pub const FILLERS: u64 = 32;
/// Milliseconds that every fsync takes more on a slow disk.
pub const SYNC_DELAY_MS: u64 = 200;
