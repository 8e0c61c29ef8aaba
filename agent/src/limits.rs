//! Every bound of the agent, in one place, related at compile time. The wire's and the stored
//! batches' bounds are in `tributary_protocol::limits`. This file holds no behaviour.

use std::time::Duration;
use tributary_protocol::limits::TEXT_BYTES_MAX;

// --- source: the listener ---

/// Connections that the listener holds at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Time from accept until CONNECT is complete.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a peer may leave our bytes unread before it is given up.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of one MQTT packet, fixed header included.
pub const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a CONNECT packet: nothing in it is of use beyond names, a will and a password.
pub const CONNECT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a client identifier.
pub const CLIENT_ID_BYTES_MAX: usize = 256;
/// Filters in one SUBSCRIBE or UNSUBSCRIBE.
pub const FILTERS_MAX: usize = 1_024;
/// QoS 1 publications of a connection that are not yet acknowledged.
pub const RECEIVE_MAX: usize = 64;
/// Unacknowledged publications of an MQTT 3.1.1 connection, to which no such limit can be told:
/// its socket is not read while there are more.
pub const UNACKED_MESSAGES_MAX: usize = 4_096;
/// Bytes of a connection's messages that are not yet durable: above it, its socket is not read.
pub const UNACKED_BYTES_MAX: usize = 256 * 1024;
/// Bytes of answers that a peer has not yet read: above it, its socket is not read.
pub const OUTGOING_BYTES_MAX: usize = 64 * 1024;
/// Bytes asked of a socket in one read.
pub const READ_BYTES: usize = 16 * 1024;
/// Bytes of an oversized MQTT 3.1.1 publication that its dead letter keeps.
pub const TOO_LARGE_HEAD_BYTES: usize = 1_024;
/// Keep alive that a client is told to use at most, in seconds (MQTT 5).
pub const SERVER_KEEP_ALIVE_S: u16 = 600;
/// Default of `rate_limit_messages_per_s`, for each client.
pub const RATE_LIMIT_MESSAGES_PER_S: u32 = 100_000;

// --- wal ---

/// Bytes of a topic: what MQTT's length field can say.
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// Bytes of one record of the write-ahead log beyond its topic and payload.
pub const RECORD_HEAD_BYTES_MAX: usize = 64;
/// Bytes of one record of the write-ahead log.
pub const RECORD_BYTES_MAX: usize = PACKET_BYTES_MAX + RECORD_HEAD_BYTES_MAX;
/// Bytes of messages that wait for the commit thread, over all connections.
pub const WAL_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Batches of messages that wait for the commit thread: one for each connection, and some.
pub const WAL_QUEUE_BATCHES_MAX: usize = 2 * CONNECTIONS_MAX;
/// Bytes of records at which a frame closes.
pub const FRAME_TARGET_BYTES: usize = 64 * 1024;
/// Messages at which a frame closes.
pub const FRAME_TARGET_MESSAGES: usize = 4_096;
/// Bytes of records of one frame: what one batch of messages may add to the target.
pub const FRAME_BYTES_MAX: usize = FRAME_TARGET_BYTES + 2 * UNACKED_BYTES_MAX + RECORD_BYTES_MAX;
/// Committed frames that wait for the next stage.
pub const COMMITTED_FRAMES_MAX: usize = 16;
/// First and greatest wait between two tries to write a frame that storage refused.
pub const COMMIT_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Bytes that one step of a replay reads from the log.
pub const REPLAY_STEP_BYTES: usize = 256 * 1024;

// --- decode ---

/// Nesting of a JSON payload.
pub const JSON_DEPTH_MAX: usize = 32;
/// Bytes of the path of a nested member: longer ones can name no metric.
pub const JSON_PATH_BYTES_MAX: usize = 4_096;

// --- config ---

/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = 1024 * 1024;
/// Errors that one look at a configuration reports.
pub const CONFIG_ERRORS_MAX: usize = 32;
/// Endpoints of the uplink.
pub const ENDPOINTS_MAX: usize = 16;

const _: () = assert!(CONNECT_BYTES_MAX <= PACKET_BYTES_MAX);
const _: () = assert!(READ_BYTES <= UNACKED_BYTES_MAX);
const _: () = assert!(TOO_LARGE_HEAD_BYTES <= READ_BYTES);
// A text value never exceeds what a reading holds only because it is checked: a payload may.
const _: () = assert!(TEXT_BYTES_MAX < PACKET_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX < 1024 * 1024);
