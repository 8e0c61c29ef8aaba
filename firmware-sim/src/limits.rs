//! Every bound of the simulator and the verifier, in one place. This file holds no behaviour.

/// Sensors of one fleet, at most.
pub const SENSORS_MAX: u32 = 1_000_000;
/// Readings a second of one sensor, at most: its clock counts milliseconds.
pub const RATE_HZ_MAX: f64 = 1_000.0;
/// Seconds between two readings of one sensor, at most.
pub const PERIOD_S_MAX: f64 = 86_400.0;
/// Neighbouring sensors that measure in the same cycle, as the points of one controller do.
pub const CELL_SENSORS: u32 = 16;

/// Of so many groups of five neighbouring sensors one has faults, where a fleet has any.
pub const FAULTY_GROUP_OF: u32 = 4;
/// Faults a minute of one fleet, at most.
pub const FAULTS_PER_MINUTE_MAX: f64 = 60_000.0;

/// Connections that a fleet opens unless it is told otherwise, at most.
pub const CONNECTIONS_DEFAULT_MAX: usize = 256;
/// Connections that a fleet can be told to open, at most.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Publications on one connection that are sent and not acknowledged, at most.
pub const WINDOW_MAX: usize = 64;
/// Readings that wait on one connection behind a full window, at most. Then production waits.
pub const QUEUE_READINGS_MAX: usize = 1_024;
/// Bytes that one wakeup puts together into one write.
pub const WRITE_BYTES_TARGET: usize = 64 * 1024;
/// Bytes of a packet that a server may send to us (acknowledgements and their properties).
pub const PACKET_BYTES_MAX: usize = 64 * 1024;
/// Seconds from the first SYN to CONNACK, at most.
pub const CONNECT_TIMEOUT_S: u64 = 10;
/// Keep alive that the client announces. It pings after half of it, and gives a silent server
/// one and a half of it.
pub const KEEP_ALIVE_S: u16 = 30;
/// Seconds that an MQTT 5 server is asked to keep the session.
pub const SESSION_EXPIRY_S: u32 = 3_600;
/// Milliseconds before the first attempt to connect again; doubled with each failure.
pub const BACKOFF_MS_MIN: u64 = 100;
/// Milliseconds before an attempt to connect again, at most.
pub const BACKOFF_MS_MAX: u64 = 5_000;
/// Seconds that the end of a run waits for acknowledgements unless it is told otherwise.
pub const DRAIN_S_DEFAULT: u64 = 30;
/// Seconds that a DISCONNECT may take to leave.
pub const FAREWELL_TIMEOUT_S: u64 = 1;

/// Messages between the connections and the writer of the truth ledger, at most.
pub const TRUTH_QUEUE_LEN: usize = 256;
/// Events in one such message, at most; a connection may add one wakeup's worth before it sends.
pub const TRUTH_EVENTS_TARGET: usize = 512;
/// Bytes of a truth block's records at which it is closed.
pub const TRUTH_BLOCK_BYTES_TARGET: usize = 64 * 1024;
/// Bytes of a truth block's records, at most: one record may go beyond the target.
pub const TRUTH_BLOCK_BYTES_MAX: usize = 256 * 1024;
/// Series that a truth ledger may name.
pub const TRUTH_SERIES_MAX: usize = 4 * SENSORS_MAX as usize;

/// Bytes of a text value, device or metric, at most.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one line of a CSV that is replayed, at most.
pub const CSV_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Columns of a CSV that is replayed, at most.
pub const CSV_COLUMNS_MAX: usize = 4_096;

/// Bytes of a datagram that the relay carries.
pub const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Datagrams that the relay keeps back in one direction, at most.
pub const HELD_DATAGRAMS_MAX: usize = 32;
/// Sockets of agents that the relay carries for at once; one more, and the idlest is forgotten.
pub const RELAY_FLOWS_MAX: usize = 64;

/// Rows of a Parquet file that the verifier decodes at once.
pub const VERIFY_ROWS: usize = 8_192;
/// Examples of each kind of difference that the verifier prints.
pub const VERIFY_EXAMPLES_MAX: usize = 10;
/// Depth of the folders that the verifier follows below the lake.
pub const VERIFY_DEPTH_MAX: usize = 8;

const _: () = assert!(TRUTH_BLOCK_BYTES_TARGET + TEXT_BYTES_MAX < TRUTH_BLOCK_BYTES_MAX);
const _: () = assert!(WINDOW_MAX < u16::MAX as usize);
const _: () = assert!(CONNECTIONS_DEFAULT_MAX <= CONNECTIONS_MAX);
