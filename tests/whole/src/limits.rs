//! Every bound of the simulation of the whole, in one place. This file holds no behaviour.

/// Agents of one run, at most.
pub const AGENTS_MAX: usize = 3;
/// Devices of one agent, at most.
pub const DEVICES_MAX: usize = 4;
/// Messages of each device, or batches of each made-up agent, at most.
pub const MESSAGES_MAX: u32 = 2_000;
/// Faults of one plan, at most.
pub const FAULTS_MAX: usize = 200;
/// Microseconds of virtual time that a plan's faults reach, at most.
pub const PLAN_US_MAX: i64 = 24 * 3_600 * 1_000_000;
/// Microseconds of virtual time in which all must drain once everything is mended.
pub const DRAIN_US_MAX: i64 = 6 * 3_600 * 1_000_000;
/// Events of one run, at most: a run that needs more goes round in circles.
pub const EVENTS_MAX: u64 = 300_000;
/// Runs that shrinking one plan may take.
pub const SHRINK_RUNS_MAX: u32 = 400;
/// Threads on which seeds are run, at most.
pub const THREADS_MAX: usize = 64;

/// Bytes of a segment of each log: small, so that all of them roll.
pub const SEGMENT_BYTES: u64 = 32 * 1024;
/// Bytes of a segment of a spool that is to be full soon.
pub const SPOOL_SEGMENT_BYTES: u64 = 8 * 1024;
/// Segments that each lane of such a spool may take, at most.
pub const SPOOL_SEGMENTS_MAX: u64 = 1_000;
/// Bytes of a segment of the journal, at least: all that one agent may have under way fits in.
pub const JOURNAL_BYTES_LEAST: u64 = 12 * 1024;
/// Segments that the journal may take.
pub const JOURNAL_SEGMENTS: u64 = 64;

const _: () = assert!(PLAN_US_MAX > DRAIN_US_MAX);
const _: () = assert!(SPOOL_SEGMENT_BYTES <= SEGMENT_BYTES);
const _: () = assert!(JOURNAL_BYTES_LEAST <= SEGMENT_BYTES);
