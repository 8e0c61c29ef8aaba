//! Every bound of the agent, in one place, related at compile time. The wire's and the stored
//! batches' bounds are in `tributary_protocol::limits`. This file holds no behaviour.

mod detection;

pub use detection::*;

use std::time::Duration;
use tributary_protocol::limits::{BATCH_BYTES_MAX, TEXT_BYTES_MAX};

// --- source: the listener ---

/// Connections that the listener holds at once.
pub const CONNECTIONS_MAX: usize = 20_000;
/// Connections below which a gateway that has no more files to open is told so.
pub const CONNECTIONS_FEW: usize = 1_000;
/// Connections that wait to be accepted; the system may allow fewer (`net.core.somaxconn`).
pub const ACCEPT_BACKLOG: u32 = 4_096;
/// Time from accept until CONNECT is complete.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from there until CONNACK: for a password that is verified behind others, the log that is
/// read at a start, and an older connection of the same client that ends.
pub const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);
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
/// QoS 1 and 2 publications of a connection that are not yet acknowledged, or not yet released.
pub const RECEIVE_MAX: usize = 64;
/// QoS 2 publications of an MQTT 3.1.1 connection that it has not released, and of a session that
/// are remembered until they are.
pub const UNRELEASED_MAX: usize = 1_024;
/// Topics of a connection that an alias may stand for (MQTT 5).
pub const TOPIC_ALIASES_MAX: u16 = 10;
/// Bytes of all topics of a connection that an alias stands for.
pub const TOPIC_ALIAS_BYTES_MAX: usize = 8 * 1024;
/// Sessions that outlive their connection.
pub const SESSIONS_MAX: usize = CONNECTIONS_MAX;
/// Seconds that a session is kept at most once its client is gone: a week.
pub const SESSION_EXPIRY_S_MAX: u32 = 7 * 24 * 3_600;
/// Bytes of all wills that wait for their delay; one beyond is published at once.
pub const WILLS_DELAYED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Wills that wait for their delay.
pub const WILLS_DELAYED_MAX: usize = CONNECTIONS_MAX;
/// Unacknowledged publications of an MQTT 3.1.1 connection, to which no such limit can be told:
/// its socket is not read while there are more.
pub const UNACKED_MESSAGES_MAX: usize = 4_096;
/// Bytes of a connection's messages that are not yet durable: above it, its socket is not read.
pub const UNACKED_BYTES_MAX: usize = 256 * 1024;
/// Bytes of answers that a peer has not yet read: above it, its socket is not read.
pub const OUTGOING_BYTES_MAX: usize = 64 * 1024;
/// Reads of what a client had sent before a newer connection took its place.
pub const LAST_READS_MAX: usize = 64;
/// Bytes asked of a socket in one read.
pub const READ_BYTES: usize = 16 * 1024;
/// What a client may have sent that a simulated connection has not read: as a socket's buffer.
pub const DOOR_INBOX_BYTES_MAX: usize = 256 * 1024;
/// Connections at once in a simulation.
pub const DOORS_MAX: usize = 64;
/// Sealed batches of a simulated agent that its uplink has not heard of: the sealing stage has no
/// thread there to wait on.
pub const WORLD_SEALED_MAX: usize = 100_000;

/// Bytes of an oversized MQTT 3.1.1 publication that its dead letter keeps.
pub const TOO_LARGE_HEAD_BYTES: usize = 1_024;
/// Bytes that unfinished packets of all connections, and what they read and the queue has no room
/// for, may hold together before those that hold more than `READ_BYTES` are closed.
pub const UNFINISHED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The same, before all are closed that hold more than `UNFINISHED_BYTES_ALLOWED`.
pub const UNFINISHED_BYTES_HARD_MAX: usize = 2 * UNFINISHED_BYTES_MAX;
/// Bytes that a connection may hold however much the others do.
pub const UNFINISHED_BYTES_ALLOWED: usize = 1_024;
/// Open files that are not for connections: logs, the uplink, HTTP, and what accepts.
pub const OTHER_FILES: u64 = 256;
/// Time that a closing connection is given to take the last words.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Keep alive that a client is told to use at most, in seconds (MQTT 5).
pub const SERVER_KEEP_ALIVE_S: u16 = 600;
/// Default of `rate_limit_messages_per_s`, for each client.
pub const RATE_LIMIT_MESSAGES_PER_S: u32 = 100_000;

// --- source: who may come ---

/// Users in the file of users: as many as there may be connections, and as many again.
pub const USERS_MAX: usize = 2 * CONNECTIONS_MAX;
/// Bytes of the file of users.
pub const USERS_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Bytes of a user's name, and of the name in a client's certificate.
pub const USER_NAME_BYTES_MAX: usize = 256;
/// Bytes of a password; longer ones are nobody's.
pub const PASSWORD_BYTES_MAX: usize = 1_024;
/// Topic filters of one user.
pub const FILTERS_OF_USER_MAX: usize = 64;
/// Bytes of one of them.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// What Argon2id costs: 7 MiB, five passes, one lane. OWASP's Password Storage Cheat Sheet holds
/// it equal to its 19 MiB and two passes; a gateway rather has the time than the memory.
pub const ARGON2_MEMORY_KIB: u32 = 7 * 1_024;
/// Passes over that memory.
pub const ARGON2_PASSES: u32 = 5;
/// Lanes in it.
pub const ARGON2_LANES: u32 = 1;
/// The most that a hash in the file of users may ask for: RFC 9106's second recommended option.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 64 * 1_024;
/// The most passes, likewise.
pub const ARGON2_PASSES_MAX: u32 = 16;
/// The most lanes, likewise; they are computed one after the other.
pub const ARGON2_LANES_MAX: u32 = 4;
/// Passwords that are verified at once: half of the processors, and no more than this.
pub const VERIFIERS_MAX: usize = 2;
/// Clients whose passwords are verified or wait for that; beyond, they are told that the server is
/// busy.
pub const LOGINS_MAX: usize = 2_048;
/// Those of one address (IPv6: a /64), which may be a whole plant's: it leaves room for others.
pub const LOGINS_OF_ADDRESS_MAX: usize = 1_024;
/// Wrong passwords of one address at once, before it may only come with what is known to be good.
pub const FAILURES_MAX: u32 = 64;
/// Time after which an address may fail once more.
pub const FAILURE_FORGIVEN: Duration = Duration::from_secs(2);
/// Addresses whose failures are remembered.
pub const FAILING_ADDRESSES_MAX: usize = 4_096;
/// TLS handshakes at once; beyond, the one that takes longest ends.
pub const HANDSHAKES_MAX: usize = 512;
/// Bytes that TLS holds for a peer that does not read, beside the connection's own answers.
pub const TLS_OUTGOING_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a client's certificate.
pub const CLIENT_CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// How often the files of users and certificates are looked at for changes.
pub const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

// --- source: what the agent itself publishes ---

/// Bytes of one message that the agent publishes: an alert with the readings around it has a few
/// thousand.
pub const PUBLISHED_BYTES_MAX: usize = 64 * 1024;
/// Bytes that a message counts beside its topic and payload, wherever it is kept or waits.
pub const PUBLISHED_HEAD_BYTES: usize = 128;
/// Alerts of the judging stage that wait to be handed out, with what topics show behind them;
/// beyond, it waits.
pub const PUBLISHING_QUEUE: usize = 1_024;
/// Aggregates that do; beyond, they are not published.
pub const PUBLISHING_AGGREGATES_MAX: usize = 1_024;
/// Topics whose present state is retained; beyond, those go first on which nothing stands.
pub const RETAINED_MAX: usize = 32_768;
/// Bytes of all of them; beyond, likewise.
pub const RETAINED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Connections that subscribe.
pub const READERS_MAX: usize = 2_048;
/// Filters that one client subscribes to.
pub const SUBSCRIPTIONS_OF_CLIENT_MAX: usize = 64;
/// Filters that all clients subscribe to.
pub const SUBSCRIPTIONS_MAX: usize = 16_384;
/// Bytes of one of them.
pub const SUBSCRIPTION_BYTES_MAX: usize = 1_024;
/// Levels of one of them.
pub const SUBSCRIPTION_LEVELS_MAX: usize = 64;
/// Bytes that a level of a subscription counts, beside its text.
pub const SUBSCRIPTION_LEVEL_BYTES: usize = 128;
/// Bytes of all subscriptions.
pub const SUBSCRIPTIONS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of the subscriptions of sessions whose clients are gone; a session whose subscriptions
/// find no room ends.
pub const PARKED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of messages that wait for one connection. Beyond, its oldest of QoS 0 go; when there are
/// none, it ends.
pub const READER_BYTES_MAX: usize = 512 * 1024;
/// Bytes of messages that wait for all connections together; beyond, those that hold more than
/// `READER_BYTES_ALLOWED` are treated as full.
pub const READERS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that may wait for a connection however much waits for the others.
pub const READER_BYTES_ALLOWED: usize = 4 * 1024;
/// Bytes of answers and deliveries of a connection above which nothing more is delivered to it for
/// now; below the limit above which it is not listened to.
pub const DELIVERING_BYTES: usize = 16 * 1024;
/// QoS 1 deliveries of a connection that its client has not acknowledged.
pub const DELIVERED_MAX: usize = 256;
/// Retained topics that one look for the next one passes, before others have their turn.
pub const RETAINED_STEP: usize = 256;
/// Alerts that wait for one of the user's brokers, of each topic the newest state and the newest of
/// what else was said there; beyond, what the hub retains is read from there again.
pub const BROKER_ALERTS_MAX: usize = RETAINED_MAX;
/// Bytes of them; beyond, likewise.
pub const BROKER_ALERTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Publications to one of the user's brokers that it has not acknowledged.
pub const BROKER_PUBLISHING_MAX: usize = 8;
/// Publications that the client library would take before it sends nothing else: more than ever
/// are under way, so that acknowledgements never wait behind them.
pub const BROKER_INFLIGHT: u16 = 16;

// --- source: the user's brokers ---

/// Brokers that one agent subscribes to.
pub const BROKERS_MAX: usize = 8;
/// Topic filters of one subscription.
pub const BROKER_FILTERS_MAX: usize = 64;
/// Bytes of one topic filter.
pub const BROKER_FILTER_BYTES_MAX: usize = 512;
/// Least, default and most of `receive_maximum`: messages that a broker may send before the first
/// of them is acknowledged (MQTT 5; 3.1.1 cannot say it).
pub const BROKER_RECEIVE_MAX: (u16, u16, u16) = (1_024, 1_024, 4_096);
/// Least, default and most of `keep_alive_s`. A silent link is noticed within twice that.
pub const BROKER_KEEP_ALIVE_S: (u16, u16, u16) = (5, 15, 600);
/// Default of `session_expiry_s`: how long a broker keeps what comes while the agent is away.
pub const BROKER_SESSION_EXPIRY_S: u32 = 86_400;
/// Least, default and most of `packet_bytes_max`. An MQTT 3.1.1 broker cannot be told it: one
/// larger packet is let through up to the greatest, so that it does not come again for ever.
pub const BROKER_PACKET_BYTES: (u32, u32, u32) = (PACKET_BYTES_MAX as u32, 1 << 20, 16 << 20);
/// Bytes of a broker's messages that wait for room in the queue to the log. Beyond, the connection
/// is let go of, and the broker keeps what was not acknowledged.
pub const BROKER_HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes at which a batch of a broker's messages is closed.
pub const BROKER_BATCH_BYTES: usize = 64 * 1024;
/// Messages of a broker that are not yet acknowledged: as many as there are packet ids, whatever
/// window a broker keeps to.
pub const BROKER_UNACKED_MAX: usize = 65_535;
/// Acknowledgements handed to the client library and not yet sent; the others wait their turn.
pub const BROKER_REQUESTS_MAX: usize = 16_384;
/// Time for the way to CONNACK.
pub const BROKER_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the answer to SUBSCRIBE.
pub const BROKER_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Keep alives without a word after which a client that says nothing itself is given up.
pub const BROKER_SILENT_KEEP_ALIVES: u32 = 3;
/// Least and greatest bound of the wait before the next connection.
pub const BROKER_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(30));
/// Connections in a row that one fault of the broker's bytes may end before MQTT 3.1.1, whose
/// packets hold less, is tried instead of 5.
pub const BROKER_MALFORMED_MAX: u32 = 3;
/// Bytes of a connection's socket for what is sent: acknowledgements, and little else.
pub const BROKER_SEND_BUFFER_BYTES: u32 = 16 * 1024;
/// Bytes of the slots that hold what was subscribed to.
pub const BROKER_KNOWN_SLOT_BYTES: u64 = 64 * 1024;
/// Bytes of a file with a password.
pub const PASSWORD_FILE_BYTES_MAX: u64 = 4_096;

// --- wal ---

/// Bytes of a topic: what MQTT's length field can say.
pub const TOPIC_BYTES_MAX: usize = 65_535;
/// Bytes of the text of a user property with a meaning.
pub const PROPERTY_BYTES_MAX: usize = 255;
/// Bytes of one record of the write-ahead log beyond its topic and payload.
pub const RECORD_HEAD_BYTES_MAX: usize = 64 + 4 * (PROPERTY_BYTES_MAX + 3);
/// Bytes of one record of the write-ahead log.
pub const RECORD_BYTES_MAX: usize = PACKET_BYTES_MAX + RECORD_HEAD_BYTES_MAX;
/// Bytes of messages that wait for the commit thread, over all connections.
pub const WAL_QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Batches of messages that wait for the commit thread: one for each connection, and some.
pub const WAL_QUEUE_BATCHES_MAX: usize = 2 * CONNECTIONS_MAX;
/// Bytes of waiting records that one frame takes along when it closes, if it has more than one
/// batch.
pub const FRAME_TAKE_BYTES: usize = 512 * 1024;
/// Bytes of the batch that one read of one connection may give: nothing more is taken once as much
/// waits as may, and what came last may be the largest record, its topic named by an alias.
pub const WAL_BATCH_BYTES_MAX: usize = UNACKED_BYTES_MAX + RECORD_BYTES_MAX + TOPIC_ALIAS_BYTES_MAX;
/// Committed frames that wait for the next stage.
pub const COMMITTED_FRAMES_MAX: usize = 16;
/// Time that the next stage may leave a committed frame untaken before the state says so: shorter
/// waits are ordinary, and a state that flaps tells nobody anything.
pub const NEXT_STAGE_PATIENCE: Duration = Duration::from_secs(1);
/// First and greatest wait between two tries to write a frame that storage refused.
pub const COMMIT_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Bytes that one step of a replay reads from the log.
pub const REPLAY_STEP_BYTES: usize = 256 * 1024;

// --- decode ---

/// Nesting of a JSON payload.
pub const JSON_DEPTH_MAX: usize = 32;
/// Bytes of the path of a nested member: longer ones can name no metric.
pub const JSON_PATH_BYTES_MAX: usize = 4_096;
/// Rows that room is kept for from one message to the next.
pub const ROWS_KEPT_MAX: usize = 2_048;
/// Bytes of names and texts that room is kept for from one message to the next.
pub const ROW_TEXT_BYTES_KEPT_MAX: usize = 256 * 1024;

/// Rules of decoding in one configuration.
pub const DECODE_RULES_MAX: usize = 256;
/// Levels of a rule's topic filter: what one look for a rule walks down, at most.
pub const FILTER_LEVELS_MAX: usize = 32;
/// Bytes of a JSON pointer: longer paths are refused while reading a message, too.
pub const POINTER_BYTES_MAX: usize = JSON_PATH_BYTES_MAX;
/// Metrics that one rule may name: those of its pointers, and those with settings of their own.
pub const RULE_METRICS_MAX: usize = 256;
/// Samples a second of a waveform: beyond, two samples would have the same time.
pub const RATE_HZ_MAX: f64 = 1_000_000.0;
/// Bytes before the samples of a binary waveform.
pub const SKIP_BYTES_MAX: u64 = 4_096;
/// Bytes of the text of a decoding configuration, with every default written out.
pub const CONFIGURATION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Configurations that frames of the log may need at once: beyond, a checkpoint is taken.
pub const CONFIGURATIONS_MAX: usize = 64;

// --- dead letters ---

/// Ranges of dead letters that are remembered as put back: beyond, whole selections only.
pub const PUT_BACK_RANGES_MAX: usize = 4_096;
/// Bytes of one request, and of one answer, on the control socket.
pub const CONTROL_BYTES_MAX: usize = 1024 * 1024;
/// Time that a client of the control socket has for its request.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without an answer after which a client of the control socket goes on without one.
pub const CONTROL_PATIENCE: Duration = Duration::from_secs(120);
/// Dead letters that are read at once by commands.
pub const LETTERS_READ: u64 = 16;
/// Dead letters that are read at once when they are opened, and bytes of one read.
pub const LETTERS_STEP: u64 = 256;
/// See there.
pub const LETTERS_STEP_BYTES: usize = 256 * 1024;
/// Dead letters of covered messages behind which, going back, no other is looked for.
pub const LETTERS_COMPARED: u64 = 2 * LETTERS_STEP;
/// The part of a segment of dead letters after which what they came with is sealed, and the part
/// that is kept free for those that come until the next time: less is made room for.
pub const LETTERS_DUE_PART: u64 = 4;
/// See there.
pub const LETTERS_ROOM_PART: u64 = 2;
/// Free bytes of the file system from which on the slots are made that dead letters are counted in.
pub const LETTERS_SLOTS_FREE_BYTES: u64 = 64 * 1024;
/// Dead letters that `deadletter ls` shows when nothing else is said.
pub const LETTERS_SHOWN: usize = 100;
/// Characters of a topic, a reason or a property in a line for people.
pub const SHOWN_CHARACTERS_MAX: usize = 120;

// --- config ---

/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: u64 = tributary_settings::limits::FILE_BYTES_MAX;
/// Errors that one look at a configuration reports.
pub const CONFIG_ERRORS_MAX: usize = 32;
/// Hours that a segment of the spool may be told to stay, at most: ten years.
pub const MAX_AGE_HOURS: u64 = 87_600;
/// GB a day that a budget of writes may be, at most: no limit for any flash.
pub const WRITE_GB_PER_DAY_MAX: u32 = 100_000;
/// Seconds that the uplink's times may be told: an aggregator is left, looked for again, or waited
/// for so long.
pub const UPLINK_SECONDS: (u64, u64) = (1, 7 * 24 * 3_600);

// --- marks ---

/// Newest messages of a device that a repeat is recognised by.
pub const DEVICE_MARKS: usize = 64;
/// Newest messages of a session that a repeat is recognised by: twice the receive maximum.
pub const SESSION_MARKS: usize = 2 * RECEIVE_MAX;
/// Devices whose marks are kept; beyond, one not seen lately is forgotten.
pub const MARKED_DEVICES_MAX: usize = 100_000;
/// Sessions whose marks are kept though many others come: those that outlive their connection.
pub const HELD_SESSIONS_MAX: usize = SESSIONS_MAX;
/// Sessions whose marks are kept: as many others as there may be connections.
pub const MARKED_SESSIONS_MAX: usize = HELD_SESSIONS_MAX + CONNECTIONS_MAX;
/// QoS 2 messages of all sessions that were not released; while there are as many, a session that
/// has more than `RECEIVE_MAX` forgets its oldest for each new one.
pub const UNRELEASED_CROWD: usize = 1 << 20;
/// Newest messages of a broker that a repeat is recognised by: twice what may be unacknowledged.
pub const BROKER_MARKS: usize = 2 * BROKER_RECEIVE_MAX.2 as usize;
/// Sessions at brokers whose marks are kept: those of today, and as many of another configuration.
pub const MARKED_BROKERS_MAX: usize = 2 * BROKERS_MAX;
/// Topics at brokers whose last message is kept, to recognise its retained copy.
pub const BROKER_TOPICS_MAX: usize = 100_000;

// --- seal, spool ---

/// Microseconds from a lane's first reading until it is sealed, while connected.
pub const SEAL_DELAY_US: i64 = 1_000_000;
/// Bytes of the spool's segments.
pub const SPOOL_SEGMENT_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of the write-ahead log's segments.
pub const WAL_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of the lane `series` in the spool: definitions are small and few.
pub const SERIES_SPOOL_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a segment of the copy of that lane.
pub const SERIES_COPY_SEGMENT_BYTES: u64 = 1024 * 1024;
/// Bytes of the lane `telemetry` in the spool, by default.
pub const SPOOL_QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Bytes of the lane `events` in the spool, by default.
pub const EVENTS_SPOOL_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes that declared losses of the spool may take, beside the lanes.
pub const GAP_SPOOL_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a segment of declared losses.
pub const GAP_SEGMENT_BYTES: u64 = 1024 * 1024;
/// Declared losses that wait to be acknowledged; with more, nothing is given up any more.
pub const GAPS_MAX: usize = 65_536;
/// Bytes that a full spool still takes of what was acknowledged, once it refuses new readings.
pub const REFUSE_ROOM_BYTES: u64 = 1024 * 1024;
/// Before this, a clock has not been set: 2000-01-01, µs since 1970.
pub const CLOCK_SANE_FROM_US: i64 = 946_684_800_000_000;
/// How often a batch is read before it is declared damaged; the uplink waits between two tries.
pub const BATCH_READ_TRIES: u32 = 5;
/// Batches that look damaged and are watched at once.
pub const SUSPECTS_MAX: usize = 256;
/// Bytes of the names of all series since the start; what would go beyond is a dead letter. Beyond
/// half of it a device, and a client, may have as much as is left for all others.
pub const DICTIONARY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that a series counts there at least, so that they are a bounded number, too.
pub const SERIES_BYTES_LEAST: usize = 17;
/// Bytes of names at which a batch of definitions is closed.
pub const SERIES_BATCH_BYTES: usize = 128 * 1024;
/// Damaged places of the log that are remembered as declared.
pub const DECLARED_MAX: usize = 1_024;
/// Bytes of dead letters that are kept; beyond, the oldest go.
pub const DEAD_LETTER_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of the write-ahead log between two checkpoints, at least.
pub const CHECKPOINT_WAL_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes that are taken ahead for each of three checkpoints, at least: the marks of 3,500 devices.
pub const CHECKPOINT_ROOM_BYTES: u64 = 2 * 1024 * 1024;
/// How many bytes of the write-ahead log one byte of checkpoint costs, at least.
pub const CHECKPOINT_SHARE: u64 = 10;
/// First and greatest wait between two tries to write sealed readings.
pub const STORAGE_RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Series whose newest value is kept for people to see.
pub const LATEST_SERIES_MAX: usize = 100_000;
/// Newest values that one answer of the status page holds.
pub const LATEST_SHOWN: usize = 1_000;
/// Watched series that are listed: those that are still learned first.
pub const WATCHING_SHOWN: usize = 1_000;
/// Devices with a clock that is not believed that are listed: those that are farthest off.
pub const WATCHING_CLOCKS_MAX: usize = 16;
/// Series that say numbers as texts that are listed: the first ones.
pub const WATCHING_TEXTS_MAX: usize = 16;
/// Bytes of such a text that are shown; a longer one is no number.
pub const NUMBER_TEXT_BYTES_MAX: usize = 32;
/// Who asks at once which series are watched.
pub const WATCHING_ASKS_MAX: usize = 4;
/// How long who asks waits for the judging stage.
pub const WATCHING_PATIENCE: Duration = Duration::from_millis(300);
/// How long an answer is good for whoever asks next.
pub const WATCHING_GOOD: Duration = Duration::from_secs(1);
/// Places of series that are looked at for an answer between two looks at what is to be judged.
pub const WATCHING_STEP: usize = 2_048;
/// How long what is left may take to go out when the agent is told to stop.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// Bytes of the file system that the agent leaves free.
pub const RESERVE_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of the cursor's slots: 256 lanes with some ranges each.
pub const CURSOR_SLOT_BYTES: u64 = 256 * 1024;

/// Looks that a command takes at a buffer whose agent goes on meanwhile.
pub const BUFFER_TRIES: u32 = 4;
/// Damages that `buffer verify` lists.
pub const BUFFER_FAULTS_MAX: usize = 10_000;

const _: () = assert!(RULE_MESSAGE_BYTES_MAX < ALERT_TEXT_BYTES_MAX);
const _: () = assert!(VIBRATION_WINDOW.2 as usize <= VIBRATION_SAMPLES_MAX);
// An alert's text is a reading's value.
const _: () = assert!(ALERT_TEXT_BYTES_MAX < TEXT_BYTES_MAX);
const _: () = assert!(CONNECT_BYTES_MAX <= PACKET_BYTES_MAX);
const _: () = assert!(WINDOW_PANES_MAX as usize <= WINDOW_OPEN_MAX);
const _: () = assert!(LATENESS_MS.2 <= WINDOW_MS.1 && IDLE_TIMEOUT_MS.2 <= WINDOW_MS.1);
// One window of one series, as crowded as it may be, leaves room for others.
const _: () = assert!(
    WINDOW_PANES_MAX as usize * 16 * WINDOW_SKETCH_BINS as usize <= WINDOW_STATE_BYTES_MAX / 2
);
const _: () = assert!(RECEIVE_MAX <= UNRELEASED_MAX);
const _: () = assert!(TOPIC_ALIAS_BYTES_MAX < READ_BYTES);
const _: () = assert!(SESSIONS_MAX <= HELD_SESSIONS_MAX);
const _: () = assert!(HELD_SESSIONS_MAX < MARKED_SESSIONS_MAX);
const _: () = assert!(READ_BYTES <= UNACKED_BYTES_MAX);
const _: () = assert!(UNFINISHED_BYTES_ALLOWED < READ_BYTES);
const _: () = assert!(CONNECTIONS_MAX * UNFINISHED_BYTES_ALLOWED < UNFINISHED_BYTES_MAX);
const _: () = assert!(TOO_LARGE_HEAD_BYTES <= READ_BYTES);
const _: () = assert!(ARGON2_MEMORY_KIB <= ARGON2_MEMORY_KIB_MAX);
const _: () = assert!(ARGON2_PASSES <= ARGON2_PASSES_MAX && ARGON2_LANES <= ARGON2_LANES_MAX);
// What verifying takes beside everything else.
const _: () = assert!(VERIFIERS_MAX * ARGON2_MEMORY_KIB as usize <= 16 * 1024);
const _: () = assert!(PASSWORD_BYTES_MAX + USER_NAME_BYTES_MAX < CONNECT_BYTES_MAX);
const _: () = assert!(LOGINS_OF_ADDRESS_MAX < LOGINS_MAX && LOGINS_MAX <= CONNECTIONS_MAX);
const _: () = assert!(HANDSHAKES_MAX < CONNECTIONS_MAX);
const _: () = assert!(TLS_OUTGOING_BYTES_MAX <= OUTGOING_BYTES_MAX);
// The largest message fits everything that it has to pass.
const _: () =
    assert!(PUBLISHED_BYTES_MAX + TOPIC_BYTES_MAX + PUBLISHED_HEAD_BYTES <= READER_BYTES_MAX);
const _: () = assert!(PUBLISHED_BYTES_MAX + TOPIC_BYTES_MAX + 64 <= PACKET_BYTES_MAX);
const _: () = assert!(READERS_MAX * READER_BYTES_ALLOWED <= READERS_BYTES_MAX);
// Each alert of a record may have what its topic shows behind it, and a summary may come.
const _: () = assert!(2 * MESSAGE_ALERTS_MAX + 1 < PUBLISHING_QUEUE);
// So many alerts may begin in a second, and each end the one before it as well.
const _: () =
    assert!(3 * (ALERTS_BURST_MAX + ALERTS_PER_SECOND_MAX) as usize + 1 < PUBLISHING_QUEUE);
const _: () = assert!(RECORD_AGGREGATES_MAX < PUBLISHING_AGGREGATES_MAX);
const _: () = assert!(PUBLISHING_QUEUE * ALERT_BYTES_MAX <= READERS_BYTES_MAX);
const _: () = assert!(PUBLISHING_AGGREGATES_MAX * ALERT_BYTES_MAX <= READERS_BYTES_MAX);
const _: () =
    assert!(READER_BYTES_ALLOWED < READER_BYTES_MAX && READER_BYTES_MAX < READERS_BYTES_MAX);
const _: () = assert!(READERS_MAX <= CONNECTIONS_MAX && READERS_MAX <= SUBSCRIPTIONS_MAX);
const _: () = assert!(DELIVERING_BYTES < OUTGOING_BYTES_MAX);
const _: () = assert!(DELIVERED_MAX < u16::MAX as usize);
const _: () = assert!(BROKER_PUBLISHING_MAX < BROKER_INFLIGHT as usize);
const _: () = assert!(PUBLISHED_BYTES_MAX < BROKER_ALERTS_BYTES_MAX);
// A text value never exceeds what a reading holds only because it is checked: a payload may.
const _: () = assert!(TEXT_BYTES_MAX < PACKET_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= tributary_journal::limits::ENTRY_BYTES_MAX);
// Whatever waits fits one frame, and so does any single record.
const _: () =
    assert!(FRAME_TAKE_BYTES + WAL_BATCH_BYTES_MAX <= tributary_journal::limits::FRAME_BYTES_MAX);
const _: () = assert!(RECORD_BYTES_MAX <= tributary_journal::limits::ENTRY_BYTES_MAX);
const _: () = assert!(WAL_BATCH_BYTES_MAX < WAL_QUEUE_BYTES_MAX);
// A request names each range in at most 128 bytes.
const _: () = assert!(PUT_BACK_RANGES_MAX * 128 <= CONTROL_BYTES_MAX);
// What comes until a lane is due, one letter more, and the frame that waits find the room that is
// kept free.
const _: () = assert!(
    WAL_SEGMENT_BYTES / LETTERS_DUE_PART
        + 2 * (RECORD_BYTES_MAX + tributary_journal::limits::FRAME_BYTES) as u64
        <= WAL_SEGMENT_BYTES / LETTERS_ROOM_PART
);
// A configuration with every default written out is at most four times its file.
const _: () = assert!(4 * CONFIG_BYTES_MAX <= CONFIGURATION_BYTES_MAX as u64);
// The greatest gap fits a segment of its own, and the greatest batch what is left when new readings
// are refused.
const _: () = assert!(BATCH_BYTES_MAX as u64 + 8_192 < GAP_SEGMENT_BYTES);
const _: () = assert!(BATCH_BYTES_MAX as u64 + 8_192 < SERIES_COPY_SEGMENT_BYTES);
const _: () = assert!((BATCH_BYTES_MAX as u64) < REFUSE_ROOM_BYTES);
const _: () = assert!(REFUSE_ROOM_BYTES < tributary_journal::limits::WAL_SEGMENT_BYTES);
const _: () = assert!(2 * DICTIONARY_BYTES_MAX as u64 <= SERIES_SPOOL_BYTES);
// What a broker sends within its window waits here without an end of the connection, as long as a
// message has a kilobyte.
const _: () = assert!(BROKER_RECEIVE_MAX.2 as usize * 1_024 <= BROKER_HELD_BYTES_MAX);
const _: () =
    assert!(BROKER_BATCH_BYTES + RECORD_BYTES_MAX + RECORD_HEAD_BYTES_MAX <= WAL_BATCH_BYTES_MAX);
const _: () = assert!(BROKER_RECEIVE_MAX.2 as usize <= BROKER_REQUESTS_MAX);
const _: () = assert!(BROKER_REQUESTS_MAX <= BROKER_UNACKED_MAX);
const _: () = assert!(PACKET_BYTES_MAX <= BROKER_PACKET_BYTES.0 as usize);
const _: () = assert!(
    CLIENT_ID_BYTES_MAX + BROKER_FILTERS_MAX * (2 + BROKER_FILTER_BYTES_MAX) + 1_024
        <= BROKER_KNOWN_SLOT_BYTES as usize
);
