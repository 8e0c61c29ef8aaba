//! Every bound of the simulation, in one place. This file holds no behaviour.

/// Agents of one run, at most; clones are further ones.
pub const AGENTS_MAX: usize = 3;
/// Aggregators of one run, at most.
pub const SITES_MAX: usize = 3;
/// Batches that each agent of a run seals, at least and at most.
pub const BATCHES_MIN: u32 = 1;
/// See [`BATCHES_MIN`].
pub const BATCHES_MAX: u32 = 8_000;
/// Bytes a second that a link carries, at least: what is under way arrives before a time-out.
pub const RATE_MIN: u64 = 8_000;
/// And at most.
pub const RATE_MAX: u64 = 1_000_000_000;
/// Faults of one plan, at most.
pub const FAULTS_MAX: usize = 1_000;
/// Times that a link flaps by one fault, at most.
pub const FLAPS_MAX: u32 = 200;
/// Microseconds of virtual time that a plan's faults reach, at most: a week.
pub const PLAN_US_MAX: i64 = 7 * 24 * 3_600 * 1_000_000;
/// Microseconds of virtual time in which all must drain once everything is mended.
pub const DRAIN_US_MAX: i64 = 6 * 3_600 * 1_000_000;
/// Events of one run, at most: a run that needs more goes round in circles.
pub const EVENTS_MAX: u64 = 400_000;
/// Lines of the trace that are kept for whoever looks into a run.
pub const TRACE_LINES_MAX: usize = 100_000;
/// Runs that shrinking one plan may take.
pub const SHRINK_RUNS_MAX: u32 = 2_000;
/// Threads on which seeds are run, at most.
pub const THREADS_MAX: usize = 64;

/// Microseconds that a connection lives on when one end hears nothing any more.
pub const IDLE_TIMEOUT_US: i64 = 60 * 1_000_000;
/// Microseconds in which a new connection must be greeted.
pub const HANDSHAKE_TIMEOUT_US: i64 = 10 * 1_000_000;

/// Microseconds that a session is left open, at most, once it is to be left for another.
pub const LEAVE_US_MAX: i64 = 2_000_000;

const _: () = assert!(SITES_MAX <= tributary_protocol::limits::ENDPOINTS_MAX);
const _: () = assert!(LEAVE_US_MAX < HANDSHAKE_TIMEOUT_US);
const _: () = assert!(BATCHES_MIN <= BATCHES_MAX);
const _: () = assert!(HANDSHAKE_TIMEOUT_US < IDLE_TIMEOUT_US);
const _: () = assert!(IDLE_TIMEOUT_US < DRAIN_US_MAX);
