//! Every bound of the aggregator, in one place, related at compile time.
//!
//! Bounds of the wire and of stored formats are in `tributary_protocol::limits`. No behaviour here.

use std::time::Duration;
use tributary_journal::limits::{
    CHECKPOINT_BYTES_MAX, ENTRY_BYTES_MAX, ENTRY_HEADER_BYTES_MAX, FRAME_BYTES_MAX,
};
use tributary_protocol::frame::HEADER_BYTES;
use tributary_protocol::limits::{
    BATCH_BYTES_MAX, BATCH_READINGS_MAX, IN_FLIGHT_BATCHES, IN_FLIGHT_BYTES, LEDGER_HOLES_MAX,
    NAME_BYTES_MAX, TEXT_BYTES_MAX,
};

// --- ingest ---------------------------------------------------------------------------------

/// Bytes that one connection may have received and not yet read.
pub const RECEIVE_WINDOW_BYTES: u32 = 1024 * 1024;
/// Bytes that one stream may have received and not yet read.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
/// Streams of batches that one agent may have open.
pub const UNI_STREAMS_MAX: u32 = 16;
/// Bidirectional streams that one agent may have open: control, and one spare.
pub const BIDI_STREAMS_MAX: u32 = 2;
/// Connections that wait to be accepted.
pub const INCOMING_MAX: usize = 1_024;
/// Bytes buffered for one connection that waits to be accepted.
pub const INCOMING_BUFFER_BYTES: u64 = 64 * 1024;
/// Bytes buffered for all connections that wait to be accepted.
pub const INCOMING_BUFFER_TOTAL_BYTES: u64 = 16 * 1024 * 1024;
/// Handshakes in progress above which a newcomer must first prove its address (Retry).
pub const HANDSHAKES_BEFORE_RETRY: usize = 256;
/// Connections at the same time, at most (each holds about 64 KiB while idle).
pub const CONNECTIONS_MAX: usize = 20_000;
/// Bytes of one handshake that arrive out of order.
pub const CRYPTO_BUFFER_BYTES: usize = 16 * 1024;
/// Seconds a handshake may take, `Hello` included.
pub const HANDSHAKE_SECONDS_MAX: u64 = 10;
/// Seconds that the endpoint waits at its end for connections to take the last word. One whose
/// handshake was given up takes none.
pub const GOODBYE_SECONDS_MAX: u64 = 3;
/// Seconds without a packet after which a connection is given up.
pub const IDLE_SECONDS_MAX: u64 = 60;
/// Bytes of the connection ids that agents address us by.
pub const CONNECTION_ID_BYTES: usize = 8;
/// Time between two packets that tell agents of an earlier process of ours that it is gone.
pub const RESET_INTERVAL: Duration = Duration::from_millis(1);
/// Seconds between two pieces of one batch, at most; how long the whole takes is the link's affair.
pub const STREAM_GAP_SECONDS_MAX: u64 = 120;
/// Bytes of batches that one connection has begun to send and not ended.
pub const CONNECTION_READING_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of batches that are being verified or committed, over all agents together.
pub const BATCHES_HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes a second that one agent may send, on average.
pub const AGENT_BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;
/// Bytes that a row is charged as, if its batch had fewer: it costs what it is when decoded.
pub const ROW_BYTES_CHARGED: usize = 16;
/// Bytes that one agent may send at once after a pause.
pub const AGENT_BURST_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of the UDP socket's buffers; the system's default loses packets at 100 connections.
pub const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a certificate that is read for its identity.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

// --- keeper ---------------------------------------------------------------------------------

/// Batches between ingest and keeper.
pub const KEEPER_QUEUE_MAX: usize = 1_024;
/// Batches in one group commit.
pub const COMMIT_BATCHES_MAX: usize = 512;
/// Bytes of sealed batches in one group commit: one frame of the journal.
pub const COMMIT_BYTES_MAX: usize = 1536 * 1024;
/// Bytes that a journal record adds to its batch, at most.
pub const RECORD_HEADER_BYTES_MAX: usize = 512;
/// Runs of numbers that one gap may take: between the holes of its lane, and what is being written.
pub const GAP_RUNS_MAX: usize = 96;
/// Bytes that the journal record of a gap adds for them.
pub const GAP_RUNS_BYTES_MAX: usize = 2 + 16 * GAP_RUNS_MAX;
/// Runs of numbers in one journal record of what the sinks had.
pub const HELD_RUNS_MAX: usize = 1_024;
/// Bytes that they take, with buffer and lane.
pub const HELD_RUNS_BYTES_MAX: usize = 19 + 32 * HELD_RUNS_MAX;
/// Bytes of batches that did not verify or that conflict, kept for a look.
pub const QUARANTINE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Files in quarantine.
pub const QUARANTINE_FILES_MAX: usize = 1_024;
/// Batches that failed to verify and whose tries are counted.
pub const VERIFY_TRIES_HELD_MAX: usize = 4_096;
/// Milliseconds after a failed append until the next one.
pub const APPEND_RETRY_MS: u64 = 500;
/// Milliseconds without a request after which the keeper tidies.
pub const KEEPER_TIDY_MS: u64 = 1_000;
/// Bytes of all definitions of series: half a checkpoint, the other is the ledger's.
pub const BOOKS_BYTES_MAX: u64 = CHECKPOINT_BYTES_MAX / 2;
/// Bytes of the definitions of one agent, in all its buffers that are not drained.
pub const AGENT_BOOKS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes read from the journal at once during a replay.
pub const REPLAY_READ_BYTES: usize = 4 * 1024 * 1024;
/// Runs of journal entries that a recovery could not read, told apart.
pub const UNREAD_RUNS_MAX: usize = 1_024;
/// Agents of which is kept which buffers they filled last, and signs that they are two.
pub const TWIN_AGENTS_MAX: usize = 100_000;
/// Of those with signs, those that metrics name; the others are one.
pub const TWIN_AGENTS_LABELLED_MAX: usize = 256;
/// Of those with signs, those that `/api/v1/status` lists.
pub const TWINS_LISTED_MAX: usize = 100;
/// Buffers that an agent filled last and that are remembered.
pub const TWIN_BUFFERS_KEPT: usize = 4;
/// Microseconds in which a second session that hears of a newer one is an alarm.
pub const TWIN_FENCES_WITHIN_US: i64 = 3_600_000_000;
/// Microseconds from one alarm of an agent in the log to the next, at least.
pub const TWIN_ALARM_EVERY_US: i64 = 600_000_000;
/// Agents whose name and last sight are kept for a look.
pub const AGENTS_SEEN_MAX: usize = 100_000;

// --- lake -----------------------------------------------------------------------------------

/// Rows at which a flush of the lake begins.
pub const FLUSH_ROWS: usize = 256 * 1024;
/// Bytes of decoded readings at which a flush of the lake begins.
pub const FLUSH_BYTES: usize = 64 * 1024 * 1024;
/// Journal entries in one flush.
pub const FLUSH_ENTRIES_MAX: u64 = 65_536;
/// Partitions (hours of one table) that one flush writes.
pub const FLUSH_PARTITIONS_MAX: usize = 48;
/// Rows of one row group.
pub const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Bytes read from the journal at once.
pub const LAKE_READ_BYTES: usize = 1024 * 1024;
/// Done markers that are kept before they are folded into one.
pub const DONE_MARKERS_MAX: usize = 256;
/// Bytes of an intent or a done marker that is read.
pub const MARKER_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes that one lane takes in a done marker: a tenant, each byte escaped, ids, four numbers.
pub const MARKER_LANE_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 384;
/// Bytes that one file takes in an intent.
pub const MARKER_FILE_BYTES_MAX: usize = 512;
/// Bytes of a marker beside its lanes or files.
pub const MARKER_HEAD_BYTES_MAX: usize = 4 * 1024;
/// Lanes at which a flush of the lake begins.
pub const FLUSH_LANES_MAX: usize = 4_096;
/// Batches that cannot be written as rows at which a flush of the lake begins.
pub const FLUSH_REFUSED_MAX: usize = 4_096;
/// Milliseconds after a failed flush until the next try.
pub const FLUSH_RETRY_MS: u64 = 1_000;
/// Requests to flush that wait.
pub const FLUSH_REQUESTS_MAX: usize = 64;

/// Alerts that are kept for `/api/v1/alerts`.
pub const ALERTS_RECENT_MAX: usize = 1_000;
/// Bytes of them.
pub const ALERTS_RECENT_BYTES_MAX: usize = 4 * 1024 * 1024;

// --- fan-out --------------------------------------------------------------------------------

/// Rows at which a chunk goes to a sink, whatever its own bound.
pub const SINK_CHUNK_ROWS_MAX: usize = 256 * 1024;
/// Bytes of decoded readings at which it goes.
pub const SINK_CHUNK_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Journal entries at which it goes.
pub const SINK_CHUNK_ENTRIES_MAX: u64 = 16_384;
/// Bytes of decoded entries that all sinks share, so that each is decoded once.
pub const SINK_SHARED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Refused rows of a chunk above which its first half is looked at alone.
pub const SINK_REFUSED_MAX: usize = 256;
/// Milliseconds after a failed try until the next: the first pause, at most.
pub const SINK_RETRY_MS_MIN: u64 = 200;
/// Milliseconds after many failed tries until the next, at most.
pub const SINK_RETRY_MS_MAX: u64 = 30_000;
/// Seconds that one step of a sink may take before its connection is given up.
pub const SINK_CALL_SECONDS_MAX: u64 = 120;
/// Sinks beside the lake.
pub const SINKS_MAX: usize = 16;
/// Seconds that a sink may take to connect.
pub const SINK_CONNECT_SECONDS_MAX: u64 = 10;
/// Bytes of a file with a password.
pub const SINK_SECRET_BYTES_MAX: u64 = 4 * 1024;
/// Series whose numbers in a database are remembered.
pub const SINK_SERIES_CACHED_MAX: usize = 500_000;
/// Samples of how far a journal and a sink were, from which lag is judged.
pub const LAG_SAMPLES_MAX: usize = 256;
/// Microseconds between two of them, at least.
pub const LAG_SAMPLE_US: i64 = 1_000_000;

// --- http, config ---------------------------------------------------------------------------

/// Agents that `/api/v1/status` lists.
pub const STATUS_AGENTS_MAX: usize = 1_000;
/// Lanes that `/api/v1/status` lists for one agent, newest buffers first.
pub const STATUS_LANES_MAX: usize = 64;
/// Alerts that `/api/v1/alerts` lists unless it is told how many.
pub const ALERTS_LISTED_DEFAULT: usize = 100;
/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = tributary_settings::limits::FILE_BYTES_MAX;
/// Seconds that a drain may take before the process ends without it.
pub const DRAIN_SECONDS_MAX: u64 = 30;

// --- audit ----------------------------------------------------------------------------------

/// Looks that an audit takes, while the aggregator goes on, before it says what it sees.
pub const AUDIT_TRIES: usize = 5;
/// Milliseconds between two of them.
pub const AUDIT_RETRY_MS: u64 = 300;
/// Times that an audit begins a look anew because the aggregator went on too far meanwhile.
pub const AUDIT_MOVES_MAX: usize = 20;
/// Things found wrong that an audit lists; more are counted.
pub const AUDIT_FINDINGS_MAX: usize = 1_000;
/// Ranges of numbers in one list of an audit; more are counted.
pub const AUDIT_SPANS_LISTED_MAX: usize = 10_000;
/// Signs that an agent is two machines that an audit lists; more are counted.
pub const AUDIT_ALARMS_MAX: usize = 200;
/// Parquet files that no flush wrote, and that an audit names.
pub const AUDIT_FOREIGN_MAX: usize = 200;
/// Folders below each other that an audit looks into.
pub const AUDIT_DEPTH_MAX: usize = 12;
/// Rows of a file that the lake did not write that are held at once.
pub const AUDIT_FOREIGN_ROWS: usize = 8_192;
/// Declared losses that an audit lists of one lane.
pub const AUDIT_GAPS_LISTED_MAX: usize = 100;
/// Bytes of a list of what could not be written as rows.
pub const AUDIT_LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Rows of one file of the lake that are held at once.
pub const AUDIT_FILE_ROWS_MAX: usize = 4 * FLUSH_ROWS;
/// Bytes of an audit that is read back.
pub const AUDIT_REPORT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

const _: () = assert!(FLUSH_ROWS + BATCH_READINGS_MAX <= AUDIT_FILE_ROWS_MAX);
const _: () = assert!(AUDIT_TRIES > 2 && AUDIT_TRIES < AUDIT_MOVES_MAX);
const _: () = assert!(AUDIT_FOREIGN_MAX < AUDIT_FINDINGS_MAX);
const _: () = assert!(UNI_STREAMS_MAX as usize == IN_FLIGHT_BATCHES);
const _: () = assert!(BATCH_BYTES_MAX <= RECEIVE_WINDOW_BYTES as usize);
const _: () = assert!(STREAM_WINDOW_BYTES <= RECEIVE_WINDOW_BYTES);
const _: () = assert!(BATCH_BYTES_MAX < COMMIT_BYTES_MAX);
// An agent that keeps to what it was told never waits for its own share.
const _: () = assert!(IN_FLIGHT_BYTES as usize + BATCH_BYTES_MAX <= CONNECTION_READING_BYTES_MAX);
const _: () = assert!(HEADER_BYTES + BATCH_BYTES_MAX <= CONNECTION_READING_BYTES_MAX);
// A link that is away ends the connection, and no batch of it.
const _: () = assert!(IDLE_SECONDS_MAX < STREAM_GAP_SECONDS_MAX);
const _: () =
    assert!(BATCH_BYTES_MAX + RECORD_HEADER_BYTES_MAX + GAP_RUNS_BYTES_MAX <= ENTRY_BYTES_MAX);
const _: () = assert!(RECORD_HEADER_BYTES_MAX + HELD_RUNS_BYTES_MAX <= ENTRY_BYTES_MAX);
// However many holes its lane has, a gap over all of them is taken.
const _: () = assert!(LEDGER_HOLES_MAX + 1 < GAP_RUNS_MAX);
// A gap's runs are beyond this; where they find no room, it opens the next frame.
const _: () = assert!(
    COMMIT_BYTES_MAX + COMMIT_BATCHES_MAX * (RECORD_HEADER_BYTES_MAX + ENTRY_HEADER_BYTES_MAX)
        <= FRAME_BYTES_MAX
);
const _: () = assert!(COMMIT_BATCHES_MAX <= KEEPER_QUEUE_MAX);
// A hold is over before it would be time to tidy: nothing has to be done within one.
const _: () = assert!(APPEND_RETRY_MS < KEEPER_TIDY_MS);
const _: () = assert!(AGENT_BOOKS_BYTES_MAX < BOOKS_BYTES_MAX);
const _: () = assert!(TWINS_LISTED_MAX <= TWIN_AGENTS_LABELLED_MAX);
const _: () = assert!(TWIN_AGENTS_LABELLED_MAX < TWIN_AGENTS_MAX);
const _: () = assert!(BATCH_READINGS_MAX <= FLUSH_ROWS);
const _: () = assert!(BATCH_BYTES_MAX < LAKE_READ_BYTES);
const _: () = assert!(FLUSH_PARTITIONS_MAX >= 2);
const _: () = assert!(ALERTS_LISTED_DEFAULT <= ALERTS_RECENT_MAX);
// The longest alert, and whose it is, is kept.
const _: () = assert!(TEXT_BYTES_MAX + 8 * NAME_BYTES_MAX < ALERTS_RECENT_BYTES_MAX);
// What a flush marks, it can read again. Beside its partitions, it writes two files.
const _: () = assert!(
    FLUSH_LANES_MAX * MARKER_LANE_BYTES_MAX + MARKER_HEAD_BYTES_MAX <= MARKER_BYTES_MAX as usize
);
const _: () = assert!(
    (FLUSH_PARTITIONS_MAX + 2) * MARKER_FILE_BYTES_MAX + MARKER_HEAD_BYTES_MAX
        <= MARKER_BYTES_MAX as usize
);
