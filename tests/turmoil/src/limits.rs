//! Every bound of these runs, in one place. This file holds no behaviour.

use std::time::Duration;
use tributary_uplink::limits::{GOODBYE, HANDSHAKE_TIMEOUT};

/// Agents of one run.
pub const AGENTS: usize = 2;
/// Aggregators of one run: each agent's list begins with another one.
pub const SITES: usize = 3;
/// After how long without an acknowledgement an agent goes to the next of its list, and after how
/// long it looks for the first again.
pub const FAILOVER_AFTER: Duration = Duration::from_secs(5);
/// See [`FAILOVER_AFTER`].
pub const RETURN_AFTER: Duration = Duration::from_secs(12);
/// How long what is in doubt waits for the aggregator that it was sent to.
pub const HOLD: Duration = Duration::from_secs(15);
/// Batches of readings that each of them seals.
pub const BATCHES: u64 = 60;
/// Batches that an agent without room gives up at once, at most.
pub const SHED_MAX: u64 = 6;
/// Faults of one run, at most.
pub const FAULTS_MAX: u64 = 9;
/// How long something is gone at least that is given up, in milliseconds: a session in which
/// nothing comes is left, and its aggregator dialled once more.
pub const GONE_MS: u64 = 18_000;
/// How long something may break; then all is mended.
pub const BREAKS_S: u64 = 60;
/// And how long all may take to drain from then on. A back-off alone may take a minute.
pub const DRAIN: Duration = Duration::from_secs(240);
/// How long all has to be drained without anything new: a process that has just begun has not said
/// yet what it has to send.
pub const SETTLES: Duration = Duration::from_secs(2);
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

const _: () = assert!(
    GONE_MS
        > (FAILOVER_AFTER.as_millis() + GOODBYE.as_millis() + HANDSHAKE_TIMEOUT.as_millis()) as u64
);
const _: () = assert!(SITES <= tributary_protocol::limits::ENDPOINTS_MAX && AGENTS <= SITES);
const _: () = assert!(2 * SEGMENT_BYTES <= JOURNAL_BYTES);
