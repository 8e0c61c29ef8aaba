//! Every bound of these runs, in one place. This file holds no behaviour.

use std::time::Duration;

/// Agents of one run.
pub const AGENTS: usize = 2;
/// Batches of readings that each of them seals.
pub const BATCHES: u64 = 40;
/// Faults of one run, at most.
pub const FAULTS_MAX: u64 = 6;
/// How long something may break; then all is mended.
pub const BREAKS_S: u64 = 40;
/// And how long all may take to drain from then on. A back-off alone may take a minute.
pub const DRAIN: Duration = Duration::from_secs(240);
/// Datagrams that wait in a socket: a window of both directions fits.
pub const DATAGRAMS_MAX: usize = 4_096;
/// Bytes of the journal's segments, and of all of them.
pub const SEGMENT_BYTES: u64 = 64 * 1024;
/// See [`SEGMENT_BYTES`].
pub const JOURNAL_BYTES: u64 = 4 << 20;
/// Datagrams of one run: a hundred times what any run needed. More are a storm.
pub const TRACE_MAX: usize = 400_000;
/// How long a process is down that could not start.
pub const RESTART: Duration = Duration::from_millis(500);

/// Seeds in which a planted bug must show.
pub const PLANTED_SEEDS: u64 = 60;

const _: () = assert!(2 * SEGMENT_BYTES <= JOURNAL_BYTES);
