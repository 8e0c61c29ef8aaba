//! Bounds of detection: rules, vibration, event time and windows, and what is said.

use super::RECORD_BYTES_MAX;
use tributary_protocol::limits::TEXT_BYTES_MAX;

// --- detect: rules that a person writes ---

/// Rules of detection in one configuration.
pub const DETECT_RULES_MAX: usize = 256;
/// Bytes of a rule's name.
pub const RULE_NAME_BYTES_MAX: usize = 128;
/// Bytes of a rule's message, before anything is filled in.
pub const RULE_MESSAGE_BYTES_MAX: usize = 1_024;
/// Bytes of an alert's text; what would be longer is cut.
pub const ALERT_TEXT_BYTES_MAX: usize = 2_048;
/// Seconds of any duration of a rule: 31 days.
pub const RULE_SPAN_S_MAX: f64 = 2_678_400.0;
/// Readings that a run of one value may be asked to have.
pub const RULE_RUN_READINGS_MAX: u64 = 1_000_000_000;
/// Expected intervals that a silence may be asked to last.
pub const RULE_INTERVALS_MAX: f64 = 1_000_000.0;
/// Bytes of all that rules remember of series and devices, as `RuleEngine` counts them; series
/// beyond are not judged by rules.
pub const RULE_STATE_BYTES_MAX: usize = 48 * 1024 * 1024;
/// Points that a rate of change looks back to.
pub const RATE_POINTS: usize = 10;

/// Bytes of an expression.
pub const EXPRESSION_BYTES_MAX: usize = 1_024;
/// Brackets, functions and signs within each other.
pub const EXPRESSION_DEPTH_MAX: usize = 32;
/// Operations of one, and so steps of a run.
pub const EXPRESSION_OPS_MAX: usize = 256;
/// Values that a run holds at once.
pub const EXPRESSION_STACK_MAX: usize = 32;
/// Metrics of one.
pub const EXPRESSION_METRICS_MAX: usize = 8;
/// Windows of one.
pub const EXPRESSION_WINDOWS_MAX: usize = 8;

// --- detect: vibration ---

/// Sections of vibration in one configuration.
pub const VIBRATION_SPECS_MAX: usize = 16;
/// Least, default and most samples of a window of vibration.
pub const VIBRATION_WINDOW: (u64, u64, u64) = (64, 1_024, 16_384);
/// Bands of its spectrum.
pub const VIBRATION_BANDS_MAX: usize = 16;
/// Samples of all windows that are being filled; series beyond have no features.
pub const VIBRATION_SAMPLES_MAX: usize = 2 * 1024 * 1024;
/// Rolling elements of a bearing.
pub const BEARING_ELEMENTS_MAX: u64 = 1_000;
// --- detect: event time and windows ---

/// Devices, and series, that are at hand at once.
pub const DETECT_SLOTS_MAX: usize = 1 << 20;
/// Least, default and most of `allowed_lateness_ms`.
pub const LATENESS_MS: (u64, u64, u64) = (0, 500, 3_600_000);
/// Least, default and most of `idle_timeout_ms`.
pub const IDLE_TIMEOUT_MS: (u64, u64, u64) = (100, 2_000, 86_400_000);
/// Least, default and most of `future_skew_max_s`.
pub const FUTURE_SKEW_S: (u64, u64, u64) = (1, 60, 86_400);
/// Time for which nothing of a device is on time before its clock counts as set back.
pub const CLOCK_BACK_AFTER_US: i64 = 60_000_000;
/// How far out of order the received times of records are that several connections bring.
pub const CLOCK_DISORDER_US: i64 = 1_000_000;
/// At the latest so long after a record the next one follows while anything is watched.
pub const TICK_EVERY_US: i64 = 10_000_000;
/// At the soonest so long after a tick another one is written, whatever is due.
pub const TICK_LEAST: std::time::Duration = std::time::Duration::from_millis(20);
const _: () = assert!(TICK_LEAST.as_micros() < FAST_LOOK_US as u128);
/// How often the kernel is asked whether the gateway's clock is synchronised.
pub const CLOCK_ASK_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
const _: () = assert!(CLOCK_ASK_EVERY.as_micros() < TICK_EVERY_US as u128);
/// More than this between two records is no time that passed: the gateway's clock was set.
pub const CLOCK_STEP_US: i64 = 60_000_000;
const _: () = assert!(CLOCK_STEP_US >= 3 * TICK_EVERY_US && TICK_EVERY_US > CLOCK_DISORDER_US);
/// Time after which the gateway's clock is believed although the log has been further.
pub const CLOCK_BELIEVED_AFTER_US: i64 = 3_600_000_000;
/// How often the devices' median clock is looked for while the gateway's is not trusted.
pub const CLOCK_MEDIAN_EVERY_US: i64 = 1_000_000;
/// Windows of one configuration.
pub const WINDOW_SPECS_MAX: usize = 32;
/// Patterns of devices, or of metrics, of one of them.
pub const WINDOW_PATTERNS_MAX: usize = 32;
/// Bytes of one of these patterns.
pub const WINDOW_PATTERN_BYTES_MAX: usize = 256;
/// Bytes of a window's name.
pub const WINDOW_NAME_BYTES_MAX: usize = 64;
/// Least and most of a window's length, of the pause that ends a session, and of what else of a
/// window is a time: a week.
pub const WINDOW_MS: (u64, u64) = (1, 7 * 86_400_000);
/// How long a session or a count of readings stays open at most, by default: an hour.
pub const WINDOW_LENGTH_MAX_MS: u64 = 3_600_000;
/// Least and most readings of a window that counts them.
pub const WINDOW_READINGS: (u64, u64) = (2, 1_000_000);
/// Panes that a sliding window is put together from.
pub const WINDOW_PANES_MAX: u64 = 64;
/// Panes, or sessions, of one window of one series that are open at once; with more, the oldest
/// window closes.
pub const WINDOW_OPEN_MAX: usize = 256;
/// Values of a pane whose quantiles are exact; with more, a sketch takes them.
pub const WINDOW_EXACT_MAX: usize = 64;
/// Bins of a sketch for values of one sign: 8 bytes each. At 1 % they span a factor of 7e8.
pub const WINDOW_SKETCH_BINS: u32 = 1_024;
/// Bytes of all open windows. With more, nothing opens any more, and no sketch grows.
pub const WINDOW_STATE_BYTES_MAX: usize = 64 * 1024 * 1024;

// --- detect: fast series ---

/// A series whose readings are closer than this is judged on windows, µs; and, once it is, until
/// they are farther apart than that.
pub const FAST_BELOW_US: i64 = 750_000;
/// See there.
pub const SLOW_ABOVE_US: i64 = 900_000;
/// Gaps that first say how fast a series is.
pub const PACE_GAPS: u8 = 10;
/// For how long of its own time a series has another pace before that holds.
pub const PACE_CHANGE_US: i64 = 30_000_000;
/// A gap counts for so much at most: a pause is no pace.
pub const PACE_GAP_MAX_US: i64 = 4_000_000;
/// A window of a fast series.
pub const FAST_WINDOW_US: i64 = 1_000_000;
/// How long it stays open behind its end, at most.
pub const FAST_LATENESS_US: i64 = 500_000;
/// Windows of a fast series that are open at once.
pub const FAST_WINDOWS_OPEN_MAX: usize = 2;
/// Open windows are looked at at multiples of this by steady time, µs: so many ticks of the log a
/// second at most.
pub const FAST_LOOK_US: i64 = 50_000;
/// After so many seconds of one reading alone nothing is said of how far readings are apart.
pub const FAST_ALONE_MAX: u8 = 30;
const _: () = assert!(FAST_WINDOW_US % FAST_LOOK_US == 0 && FAST_LOOK_US < FAST_LATENESS_US);
const _: () = assert!(FAST_LATENESS_US <= FAST_WINDOW_US && FAST_WINDOWS_OPEN_MAX == 2);
const _: () = assert!(FAST_BELOW_US < SLOW_ABOVE_US && SLOW_ABOVE_US <= FAST_WINDOW_US);
const _: () = assert!(PACE_GAP_MAX_US > SLOW_ABOVE_US && PACE_GAP_MAX_US < PACE_CHANGE_US);

// --- detect: groups ---

/// Groups in one configuration.
pub const GROUP_SPECS_MAX: usize = 64;
/// Channels of a group: at least and at most.
pub const GROUP_CHANNELS: (usize, usize) = (2, 64);
/// Machines, each a group of one device: 20 bytes a channel.
pub const GROUP_MACHINES_MAX: usize = 10_000;

// --- forward ---

/// Sections of `[[forward]]` in one configuration: each reading is held against them.
pub const FORWARD_RULES_MAX: usize = 32;
/// Least, default and most bytes of the write-ahead log that are kept for captures, beside its
/// quota.
pub const CAPTURE_RING_BYTES: (u64, u64, u64) = (16 << 20, 256 << 20, 64 << 30);
/// Least, default and most seconds before an alert, and behind one, that a capture holds.
pub const CAPTURE_S: (u64, u64, u64) = (0, 60, 3_600);
/// Seconds before an alert that one record of the log asks for, unless there would be too many.
pub const CAPTURE_PIECE_S: u64 = 10;
/// Records of the log that one alert asks with.
pub const CAPTURE_PIECES_MAX: u64 = 16;
/// How many times as long as one capture those of alerts that follow each other may be together.
pub const CAPTURE_LENGTHS_MAX: i64 = 10;
/// Captures that are open, or whose readings the log still holds.
pub const CAPTURES_MAX: usize = 1_024;
/// Alerts whose captures are not in the log yet.
pub const CAPTURES_WANTED_MAX: usize = 1_024;
/// How late a reading of a capture may come, counted from where the capture ends.
pub const CAPTURE_LATE_US: i64 = 3_600_000_000;
/// How far received times of the log are out of order, where readings of a capture are looked for.
pub const CAPTURE_DISORDER_US: i64 = 10_000_000;
/// Readings that one record of a capture may bring out of the log.
pub const CAPTURE_READINGS_MAX: usize = 256 * 1_024;
/// Bytes of messages that are at hand while those readings are taken in.
pub const CAPTURE_MESSAGES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of the log that are looked through at once for messages that are not in the index yet,
/// segment by segment.
pub const CAPTURE_SCAN_BYTES_MAX: u64 = 64 << 20;
/// Bytes of the index.
pub const CAPTURE_INDEX_BYTES_MAX: usize = 64 << 20;
/// Bytes that a message counts there: its number, in a queue that may be half empty.
pub const CAPTURE_INDEX_MESSAGE_BYTES: usize = 16;
/// Bytes that a device counts there in each life, beside its name: its place in a table that may be
/// half empty, a queue, and what allocations take.
pub const CAPTURE_INDEX_DEVICE_BYTES: usize = 256;
/// Ranges of messages that no capture may take, and of those that may be repeats: beyond, captures
/// look back no further than there.
pub const CAPTURE_RANGES_MAX: usize = 4_096;
/// Bytes of the log that one read of a message gives.
pub const CAPTURE_READ_BYTES: usize = 16 * 1024;

const _: () = assert!(CAPTURE_S.1 <= CAPTURE_PIECES_MAX * CAPTURE_PIECE_S);
const _: () = assert!(CAPTURE_READ_BYTES < CAPTURE_MESSAGES_BYTES_MAX);
const _: () = assert!(CAPTURE_SCAN_BYTES_MAX >= 4 * super::WAL_SEGMENT_BYTES);
const _: () = assert!(CAPTURE_INDEX_DEVICE_BYTES >= 2 * 48 + 4 * CAPTURE_INDEX_MESSAGE_BYTES);
const _: () = assert!(super::TOPIC_BYTES_MAX * 64 < CAPTURE_INDEX_BYTES_MAX);
const _: () = assert!(CAPTURE_RING_BYTES.0 >= 4 * super::WAL_SEGMENT_BYTES);
// A span, an end and a device's name each: a small part of what a checkpoint may have.
const _: () = assert!(CAPTURES_MAX * 512 <= super::CHECKPOINT_ROOM_BYTES as usize);

// --- judge: detection ---

/// Series that are watched, when nothing is configured; and at most.
pub const WATCHED_SERIES: (usize, usize) = (100_000, 1_000_000);
/// Series that gave way and are known again when they speak, by default and at most: 45 bytes of
/// memory each, and on the disk up to `IDLE_FILE_BYTES_MAX` together.
pub const KEPT_SERIES: (usize, usize) = (1_000_000, 4_000_000);
/// Bytes of what was learned of series that gave way, and waits to be written; beyond, it is lost.
pub const IDLE_WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of it from which on it is written before a checkpoint asks for that.
pub const IDLE_DUE_BYTES: usize = 1024 * 1024;
/// First and greatest pause before another checkpoint of the judging stage is asked for, after one
/// that failed, in microseconds.
pub const CHECKPOINT_RETRY_US: (i64, i64) = (1_000_000, 300_000_000);
/// Rows that are written or removed at once.
pub const IDLE_ROWS_AT_ONCE: usize = 4_096;
/// Rows that are not needed any more and wait for their checkpoints; those beyond stay until the
/// second checkpoint of another start.
pub const IDLE_GONE_MAX: usize = 1 << 20;
/// Bytes of the file that they are in; beyond, what is learned is lost, until a start begins
/// another file.
pub const IDLE_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// The part of the series that are watched up to which one device pushes out others', once there is
/// no room; with few devices it is as much as each has when all have the same.
pub const WATCHED_SHARE: usize = 16;
/// Series that may give way to others at once: each costs the judging thread about 33 µs, and who
/// writes rows as much.
pub const SERIES_TURNS_BURST: u64 = 20_000;
/// Series that may do so in a second from then on.
pub const SERIES_TURNS_PER_SECOND: u64 = 2_000;
const _: () = assert!(SERIES_TURNS_PER_SECOND <= SERIES_TURNS_BURST);
/// Readings shown around an alert, itself included.
pub const ALERT_AROUND_MAX: usize = 16;
/// Alerts that are sent one by one at once; beyond, they are counted in a summary.
pub const ALERTS_BURST_MAX: u64 = 200;
/// Alerts a second that are sent one by one for as long as it lasts.
pub const ALERTS_PER_SECOND_MAX: u64 = 20;
/// Alerts of rules and states that there was no room to tell, and that are told once there is.
pub const OWED_MAX: usize = 4_096;
/// What more is to be told than one record may, and waits for the next ones.
pub const LATER_MAX: usize = 65_536;
/// Aggregates told with one record of the log.
pub const RECORD_AGGREGATES_MAX: usize = 512;
/// Alerts told at once that are kept for what is critical.
pub const ALERTS_CRITICAL: u64 = 50;
/// Bytes of alerts that stand.
pub const STANDING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Devices whose alerts of the last minute are one incident.
pub const INCIDENTS_MAX: usize = 4_096;
/// Alerts that stand, and are said to be over once they are.
pub const STANDING_MAX: usize = 32_768;
/// Alerts that stand which are handed to who asks, between two looks at what is to be judged.
pub const STANDING_STEP: usize = 1_024;
/// Topics on which nothing stands any more, of which it is known that the last alert is over.
pub const OVER_MAX: usize = 4_096;
/// Bytes of what these show, which is part of each checkpoint.
pub const OVER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Different units of series whose aggregates have one.
pub const UNITS_MAX: usize = 1_024;
/// Names in a summary.
pub const STORM_NAMES_MAX: usize = 8;
/// Bytes of an alert's JSON.
pub const ALERT_BYTES_MAX: usize = 16 * 1024;
/// Alerts told with one message; beyond, they are counted in a summary, or cleared later.
pub const MESSAGE_ALERTS_MAX: usize = 32;
/// Bytes of messages that come while the judging stage replays the log, and wait for it.
pub const EARLY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What the judging stage has for the sealing stage: what it said with a message, or a checkpoint.
pub const JUDGED_QUEUE: usize = 256;
/// Messages of which something waits in one lane, until they are durable and the lane is sealed.
pub const JUDGED_WAITING_MAX: usize = 1_024;
/// Bytes of JSON that wait so in one lane; one message more may stand there.
pub const JUDGED_WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Checkpoints of the judging stage that wait for what is before them.
pub const JUDGED_CHECKPOINTS_MAX: usize = 2;
/// Microseconds from one batch of what was said to the next, of one lane: five a second.
pub const JUDGED_SEAL_US: i64 = 200_000;
/// Microseconds that an aggregate waits for others, at most.
pub const AGGREGATES_SEAL_US: i64 = 5_000_000;
/// Bytes of the lane `alerts` in the spool, by default.
pub const ALERTS_SPOOL_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of the lane `aggregates` in the spool, by default.
pub const AGGREGATES_SPOOL_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of the detection settings' text, which stands in the log.
pub const DETECTION_TEXT_BYTES_MAX: usize = 64 * 1024;

const _: () = assert!(crate::judge::AROUND <= ALERT_AROUND_MAX);
const _: () = assert!(WATCHED_SERIES.0 <= WATCHED_SERIES.1 && KEPT_SERIES.0 <= KEPT_SERIES.1);
const _: () = assert!(0 < CHECKPOINT_RETRY_US.0 && CHECKPOINT_RETRY_US.0 < CHECKPOINT_RETRY_US.1);
const _: () = assert!(IDLE_DUE_BYTES < IDLE_WAITING_BYTES_MAX);
const _: () = assert!(IDLE_ROWS_AT_ONCE <= tributary_journal::limits::STATE_PENDING_MAX);
const _: () = assert!(ALERTS_CRITICAL < ALERTS_BURST_MAX);
const _: () = assert!(OVER_MAX < super::RETAINED_MAX && OVER_BYTES_MAX < super::RETAINED_BYTES_MAX);
const _: () = assert!(ALERT_BYTES_MAX < OVER_BYTES_MAX);
// Two names, a unit and a sentence with both, each byte escaped, and the rest.
const _: () = assert!(ALERT_BYTES_MAX <= TEXT_BYTES_MAX);
// Those of a message stand in one batch: each may end the one before it, and a summary may come.
const _: () = assert!(2 * MESSAGE_ALERTS_MAX < tributary_protocol::limits::SERIES_PER_BATCH_MAX);
const _: () = assert!(
    (2 * MESSAGE_ALERTS_MAX + 2) * ALERT_BYTES_MAX / 4
        <= tributary_protocol::limits::BATCH_TEXT_BYTES_MAX
);
const _: () =
    assert!(tributary_protocol::limits::BATCH_TEXT_TARGET_BYTES < JUDGED_WAITING_BYTES_MAX / 2);
const _: () = assert!(JUDGED_SEAL_US < AGGREGATES_SEAL_US);
const _: () = assert!(DETECTION_TEXT_BYTES_MAX < RECORD_BYTES_MAX);
