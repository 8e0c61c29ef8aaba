//! Every bound of the uplink.

use std::time::Duration;
use tributary_protocol::limits::{BATCH_BYTES_MAX, IN_FLIGHT_BYTES};

/// Bytes that QUIC may hold for sending.
pub const SEND_WINDOW_BYTES: u64 = 2 * 1024 * 1024;
/// Bytes that the aggregator may send ahead on the whole connection.
pub const RECEIVE_WINDOW_BYTES: u32 = 512 * 1024;
/// Bytes that the aggregator may send ahead on one stream.
pub const STREAM_RECEIVE_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of the UDP socket's buffers; smaller ones lose packets under load.
pub const UDP_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// A connection on which nothing arrives for so long is given up.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a quiet connection is kept open.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long connecting may take, and from then on all of the greeting.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the first retry waits, at most.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// How long any retry waits, at most.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Announcements of sealed batches that wait to be taken in.
pub const SEALED_QUEUE: usize = 1_024;
/// How long an aggregator without room is left alone, at most.
pub const BUSY_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long an aggregator that owes acknowledgements may say nothing at all until it is probed.
pub const PROBE_AFTER: Duration = Duration::from_secs(1);
/// How long what is under way may take before a session is left for the first of the list: less
/// than that one waits to be greeted.
pub const RETURN_DRAIN: Duration = Duration::from_secs(2);
/// Bytes of a packet that is more than a sign of life, and carries part of a batch.
pub const PROGRESS_PACKET_BYTES: u64 = 512;
/// How long a goodbye may take to arrive.
pub const GOODBYE: Duration = Duration::from_secs(1);
/// Ranges that a line about an aggregator's loss names; the rest is only counted.
pub const NOTICE_RANGES_MAX: usize = 8;
/// Sessions that another machine with our identity ended, and whose time is remembered.
pub const FENCES_KEPT: usize = 1_024;
/// How long they are.
pub const FENCES_WITHIN: Duration = Duration::from_secs(3_600);
/// How often a quiet session looks after itself.
pub const TICK: Duration = Duration::from_millis(250);
/// How often the cursor is kept while acknowledgements come in.
pub const CURSOR_INTERVAL: Duration = Duration::from_secs(1);

const _: () = assert!(SEND_WINDOW_BYTES >= IN_FLIGHT_BYTES + BATCH_BYTES_MAX as u64);
const _: () = assert!(RETURN_DRAIN.as_secs() < HANDSHAKE_TIMEOUT.as_secs());
