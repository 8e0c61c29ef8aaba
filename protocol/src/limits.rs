//! Every bound of the wire and of the stored formats, in one place, related at compile time.
//!
//! A queue, size or count without a line here (or in the `limits.rs` of the crate that owns it) is
//! a bug. This file holds no behaviour.

/// Bytes of a sealed batch at which a lane is sealed early; what one stream carries as a rule.
pub const BATCH_TARGET_BYTES: usize = 64 * 1024;
/// Bytes of a sealed batch, at most: one message may decode to more than the target.
pub const BATCH_BYTES_MAX: usize = 768 * 1024;
/// Bytes of one frame's payload on the wire, at most.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one frame on the control stream, header included, at most.
pub const CONTROL_FRAME_BYTES_MAX: usize = 128 * 1024;

/// Readings at which a lane is sealed.
pub const BATCH_READINGS_TARGET: usize = 4_096;
/// Readings that one message may decode to; all of them stand in one batch.
pub const MESSAGE_READINGS_MAX: usize = 16_384;
/// Readings in one batch, at most.
pub const BATCH_READINGS_MAX: usize = BATCH_READINGS_TARGET + MESSAGE_READINGS_MAX;
/// Bytes of a batch body after decompression, at most: capped before anything is allocated.
pub const BODY_RAW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// zstd window log that a decoder accepts, at most (128 KiB of window).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 17;
/// Origin ranges of messages that one batch may name.
pub const BATCH_COVERS_MAX: usize = 16;

/// Numbers of which one gap tells the readings apart, at most.
pub const GAP_NUMBERS_MAX: usize = 128 * 1024;
/// Bytes of the words that explain a gap, at most.
pub const GAP_DETAIL_BYTES_MAX: usize = 1_024;

/// Bytes of a tenant, agent, device, metric or unit name, at most.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of one text value, at most.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of text values at which a lane is sealed.
pub const BATCH_TEXT_TARGET_BYTES: usize = 256 * 1024;
/// Bytes of all text values of one batch, at most: even what does not shrink leaves room for the
/// other columns.
pub const BATCH_TEXT_BYTES_MAX: usize = 512 * 1024;

/// Series of one buffer, at most.
pub const SERIES_MAX: usize = 1_000_000;
/// Series that one batch of the lane `series` defines, at most.
pub const SERIES_PER_BATCH_MAX: usize = 1_024;

/// Holes in what a ledger holds of one lane, at most.
pub const LEDGER_HOLES_MAX: usize = 64;
/// Holes at which a sender opens no new island, so that what is in flight still fits the ledger.
pub const SENDER_HOLES_MAX: usize = 40;
/// Holes above which the backlog's share fills the smallest hole first.
pub const SENDER_HOLES_SMALLEST_FIRST: usize = 16;
/// Bytes that a sender must be able to skip before it opens an island for live data.
pub const ISLAND_SKIP_BYTES_MIN: u64 = 256 * 1024;
/// Hashes of the newest held batches that a ledger keeps for each lane.
pub const LEDGER_HASHES_MAX: usize = 256;
/// Journals that a ledger names of those that hold what it lacks of a lane; of more it keeps no
/// names.
pub const LEDGER_LOGS_MAX: usize = 4;
/// Runs that a ledger keeps of what others hold of one lane, at most.
pub const LEDGER_LANE_RUNS_MAX: usize = 256;
/// And of all lanes of one agent.
pub const LEDGER_ELSEWHERE_RUNS_MAX: usize = 4_096;
/// Buffers of one agent that are not yet folded, at most.
pub const AGENT_BUFFERS_MAX: usize = 256;
/// Lanes of one agent of which a ledger keeps more than a row: those of buffers that are not yet
/// folded, and those with holes that nobody fills any more.
pub const AGENT_LANES_MAX: usize = 65_536;
/// Folded lanes of one agent of which a ledger keeps a row of about 49 bytes each: a restart each
/// five minutes for half a year, or each day for 140 years. Of older ones it keeps the sum.
pub const AGENT_FOLDED_MAX: usize = 262_144;
/// Hashes that a ledger keeps of all lanes of an agent whose buffers are not announced any more:
/// those of the newest lanes.
pub const LEDGER_FOLDED_HASHES_MAX: usize = 4_096;
/// Runs of messages of one agent that a ledger knows to be in what is held, at most: about 3 MB
/// where each is of another life. Of more, the lowest of the life and lane that was begun first is
/// forgotten, and a batch that holds its messages again is not marked.
pub const LEDGER_MESSAGE_RUNS_MAX: usize = 4_096;
/// Batches of one session between judgement and commit, at most.
pub const LEDGER_PENDING_MAX: usize = 4_096;

/// Lanes that a `Hello` announces, at most (every buffer has up to five).
pub const HELLO_LANES_MAX: usize = AGENT_BUFFERS_MAX * 5;
/// Lanes and journals of which a `Hello` says what was acknowledged elsewhere, at most.
pub const HELLO_ELSEWHERE_MAX: usize = 512;
/// Bytes of a `Hello` that are for what was acknowledged elsewhere, about.
pub const HELLO_ELSEWHERE_BYTES: usize = 32 * 1024;
/// Ranges that one `Welcome` states for one lane, at most.
pub const WELCOME_RANGES_MAX: usize = LEDGER_HOLES_MAX + 1;
/// Ranges that one `Ack` may carry, at most.
pub const ACK_RANGES_MAX: usize = 256;
/// Batches that one `Ack` covers before it is sent.
pub const ACK_COALESCE_BATCHES: usize = 64;
/// Microseconds that an `Ack` waits for more, at most.
pub const ACK_COALESCE_US: i64 = 5_000;
/// Bytes that may be sent and not yet acknowledged.
pub const IN_FLIGHT_BYTES: u64 = 256 * 1024;
/// Batches that may be sent and not yet acknowledged: the peer's limit of open streams.
pub const IN_FLIGHT_BATCHES: usize = 16;
/// Batches whose hashes an agent looks up to compare one run of a `Welcome`; and how many numbers
/// back of a lane it looks for what it trimmed and an aggregator lost.
pub const WELCOME_HASHES_MAX: u64 = 4_096;
/// Percent of the bytes sent that belong to the backlog while live data is there as well.
pub const BACKLOG_SHARE_PERCENT: u64 = 30;
/// Times an agent offers a batch that does not verify before it is quarantined.
pub const VERIFY_TRIES_MAX: u8 = 3;

/// Journals of which a sender tells apart what each acknowledged of a lane; of older ones it only
/// knows that somebody did.
pub const SENDER_LOGS_MAX: usize = 4;
/// Runs of numbers in doubt that a sender tells apart of one lane and journal; the smallest holes
/// between more of them are in doubt as well.
pub const DOUBT_RUNS_MAX: usize = 16;
/// Microseconds that a batch in doubt waits for the aggregator that it was sent to, if nothing else
/// is said.
pub const FAILOVER_HOLD_US: i64 = 600_000_000;
/// Journals that may hold what they did not acknowledge, as a cursor names them: the present one
/// as well.
pub const SENT_TO_MAX: usize = SENDER_LOGS_MAX + 1;

/// Aggregators that an agent may go to, at most.
pub const ENDPOINTS_MAX: usize = 4;
/// Microseconds without a session after which the next aggregator is tried, if not told otherwise.
pub const FAILOVER_AFTER_US: i64 = 60_000_000;
/// Microseconds after which the first is looked for again, if not told otherwise.
pub const RETURN_AFTER_US: i64 = 600_000_000;

/// Greatest batch, message or session number.
pub const NUMBER_MAX: u64 = 1 << 62;

/// Nesting of a FlatBuffers message that a verifier follows.
pub const FLATBUFFERS_DEPTH_MAX: usize = 4;
/// Tables in a FlatBuffers control message.
pub const FLATBUFFERS_TABLES_MAX: usize = 2 * HELLO_LANES_MAX;

// Beside its lanes and names (64 bytes a lane are more than one takes) a Hello has room for them.
const _: () =
    assert!(HELLO_LANES_MAX * 64 + HELLO_ELSEWHERE_BYTES + 8 * 1024 <= CONTROL_FRAME_BYTES_MAX);
const _: () = assert!(1 + HELLO_LANES_MAX + HELLO_ELSEWHERE_MAX <= FLATBUFFERS_TABLES_MAX);
const _: () = assert!(BATCH_TARGET_BYTES <= BATCH_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(CONTROL_FRAME_BYTES_MAX <= FRAME_PAYLOAD_BYTES_MAX);
const _: () = assert!(SENDER_HOLES_SMALLEST_FIRST < SENDER_HOLES_MAX);
const _: () = assert!(ENDPOINTS_MAX <= SENDER_LOGS_MAX);
// What is in flight may open one hole each; they must fit beside those the sender counts.
const _: () = assert!(SENDER_HOLES_MAX + IN_FLIGHT_BATCHES < LEDGER_HOLES_MAX);
const _: () = assert!(IN_FLIGHT_BATCHES <= LEDGER_PENDING_MAX);
const _: () = assert!(HELLO_ELSEWHERE_BYTES / 32 <= LEDGER_ELSEWHERE_RUNS_MAX);
// A sender opens so many holes at each of the journals that it tells apart.
const _: () = assert!(LEDGER_LOGS_MAX * LEDGER_HOLES_MAX <= LEDGER_LANE_RUNS_MAX);
const _: () = assert!(BATCH_TARGET_BYTES as u64 <= IN_FLIGHT_BYTES);
// A Welcome that states every range of a lane fits one control frame (32 bytes a range).
const _: () = assert!(WELCOME_RANGES_MAX * 32 <= CONTROL_FRAME_BYTES_MAX / 2);
const _: () = assert!(1 << ZSTD_WINDOW_LOG_MAX <= BODY_RAW_BYTES_MAX);
// Three bytes tell the readings of one number of a gap; envelope and words are far less.
const _: () = assert!(BATCH_READINGS_MAX + 1 < 1 << 21);
const _: () = assert!(3 * GAP_NUMBERS_MAX + 8 * 1024 < BATCH_BYTES_MAX);
// A head tells the rows of a batch in 16 bits.
const _: () = assert!(BATCH_READINGS_MAX <= u16::MAX as usize);
const _: () = assert!(HELLO_LANES_MAX <= AGENT_LANES_MAX);
const _: () = assert!(HELLO_LANES_MAX <= AGENT_FOLDED_MAX);
// All lanes of the newest buffer keep theirs.
const _: () = assert!(5 * LEDGER_HASHES_MAX <= LEDGER_FOLDED_HASHES_MAX);
const _: () = assert!(BATCH_TEXT_TARGET_BYTES <= BATCH_TEXT_BYTES_MAX);
// 4,096 readings of the worst kind take about 40 bytes each beside their texts.
const _: () = assert!(BATCH_TEXT_BYTES_MAX + 40 * BATCH_READINGS_TARGET < BATCH_BYTES_MAX);
