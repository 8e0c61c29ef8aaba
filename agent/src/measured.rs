//! What is measured: every metric of `/metrics` with its kind, and with its unit in a sentence for
//! who reads it (`# HELP`).

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// What grows only, since the process began.
pub const COUNTERS: &[(&str, &str)] = &[
    (
        "tributary_agent_series_copy_errors_total",
        "Times that the copy of the definitions of series was given up until a restart.",
    ),
    (
        "tributary_agent_acknowledged_and_lost_batches_total",
        "Batches that an aggregator had acknowledged and its journal lost, by what became of them.",
    ),
    (
        "tributary_agent_aggregates_total",
        "Aggregates of windows that were closed.",
    ),
    (
        "tributary_agent_alerts_held_back_total",
        "Alerts told only in the summary of a storm.",
    ),
    (
        "tributary_agent_alerts_total",
        "Alerts that were raised, by detector.",
    ),
    (
        "tributary_agent_batch_bytes_total",
        "Bytes of sealed batches, by lane.",
    ),
    (
        "tributary_agent_batches_damaged_total",
        "Sealed batches found damaged when they were to be sent.",
    ),
    ("tributary_agent_batches_total", "Sealed batches, by lane."),
    (
        "tributary_agent_broker_acknowledged_total",
        "Messages acknowledged to a broker, by source.",
    ),
    (
        "tributary_agent_broker_messages_total",
        "Messages that came from a broker, by source.",
    ),
    (
        "tributary_agent_broker_own_topic_total",
        "Messages on Tributary's own topics that were passed over, by source.",
    ),
    (
        "tributary_agent_broker_payload_bytes_total",
        "Bytes of payloads that came from a broker, by source.",
    ),
    (
        "tributary_agent_broker_published_refused_total",
        "Alerts that a broker refused, by source.",
    ),
    (
        "tributary_agent_broker_published_total",
        "Alerts published to a broker and acknowledged there, by source.",
    ),
    (
        "tributary_agent_broker_reconnects_total",
        "Connections to a broker that ended or did not come about, by source and reason.",
    ),
    (
        "tributary_agent_broker_sessions_lost_total",
        "Sessions that a broker had forgotten, with what it held for the agent, by source.",
    ),
    (
        "tributary_agent_broker_stale_acks_total",
        "Acknowledgements that were due to a connection that was gone, by source.",
    ),
    (
        "tributary_agent_broker_too_large_total",
        "Messages of a broker over the largest packet, by source.",
    ),
    (
        "tributary_agent_capture_missed_total",
        "Readings around an alert that could not be captured, by reason.",
    ),
    (
        "tributary_agent_capture_ring_released_total",
        "Times that the ring for captures gave up its oldest part to make room.",
    ),
    (
        "tributary_agent_captured_readings_total",
        "Readings that left as they are because of an alert.",
    ),
    (
        "tributary_agent_captures_total",
        "Captures around alerts that came to their end.",
    ),
    (
        "tributary_agent_configurations_lost_total",
        "Decoding rules that the log names and nobody has any more.",
    ),
    (
        "tributary_agent_crowded_peaks_total",
        "Fast series without room for their peak to peak.",
    ),
    (
        "tributary_agent_dead_letters_dropped_readings_total",
        "Readings in dead letters that went for lack of room.",
    ),
    (
        "tributary_agent_dead_letters_dropped_total",
        "Dead letters that went for lack of room.",
    ),
    (
        "tributary_agent_dead_letters_total",
        "Messages kept as dead letters, by reason.",
    ),
    (
        "tributary_agent_detection_checkpoint_failures_total",
        "Checkpoints of detection that could not be written.",
    ),
    (
        "tributary_agent_device_bytes_total",
        "Bytes that all writes cost the device, blocks counted whole.",
    ),
    (
        "tributary_agent_fdatasyncs_total",
        "Calls of fdatasync and fsync.",
    ),
    (
        "tributary_agent_forgotten_series_total",
        "Series whose place was given to another.",
    ),
    (
        "tributary_agent_idle_series_back_total",
        "Series that had given way and were known again.",
    ),
    (
        "tributary_agent_idle_series_kept_total",
        "Series that gave way and were kept.",
    ),
    (
        "tributary_agent_idle_series_lost_total",
        "Series that had given way and could not be read back.",
    ),
    (
        "tributary_agent_idle_series_unkept_total",
        "Series that gave way and could not be kept.",
    ),
    (
        "tributary_agent_judged_readings_total",
        "Readings that were judged.",
    ),
    (
        "tributary_agent_judged_seconds_total",
        "Windows of a second of fast series that were judged.",
    ),
    (
        "tributary_agent_log_damage_total",
        "Damaged parts of the write-ahead log.",
    ),
    (
        "tributary_agent_maybe_repeats_total",
        "Messages kept that may repeat one before, and flagged.",
    ),
    (
        "tributary_agent_messages_damaged_total",
        "Messages of the log that can't be read.",
    ),
    (
        "tributary_agent_messages_without_readings_total",
        "Messages that held no value at all.",
    ),
    (
        "tributary_agent_mqtt_acknowledged_total",
        "Publications acknowledged to clients (PUBACK, PUBREC).",
    ),
    (
        "tributary_agent_mqtt_closed_total",
        "Connections of clients that ended, by reason.",
    ),
    (
        "tributary_agent_mqtt_connections_total",
        "Connections of clients that were accepted.",
    ),
    (
        "tributary_agent_mqtt_deliveries_acknowledged_total",
        "Publications that a subscriber acknowledged.",
    ),
    (
        "tributary_agent_mqtt_deliveries_too_large_total",
        "Publications too large for the subscriber.",
    ),
    (
        "tributary_agent_mqtt_deliveries_total",
        "Publications sent to subscribers.",
    ),
    (
        "tributary_agent_mqtt_identified_total",
        "Clients that were let in, by how they were known.",
    ),
    (
        "tributary_agent_mqtt_messages_total",
        "Publications that came from clients.",
    ),
    (
        "tributary_agent_mqtt_payload_bytes_total",
        "Bytes of payloads that came from clients.",
    ),
    (
        "tributary_agent_mqtt_refused_topic_total",
        "Publications beyond what their client may.",
    ),
    (
        "tributary_agent_mqtt_reloads_total",
        "Files of users and certificates read again, by what and result.",
    ),
    (
        "tributary_agent_mqtt_subscriptions_refused_total",
        "Topic filters that were refused to subscribers.",
    ),
    (
        "tributary_agent_mqtt_subscriptions_total",
        "Topic filters that were granted to subscribers.",
    ),
    (
        "tributary_agent_mqtt_takeovers_total",
        "Connections ended because their client connected anew.",
    ),
    (
        "tributary_agent_mqtt_tls_handshakes_total",
        "TLS handshakes of clients, by result.",
    ),
    (
        "tributary_agent_mqtt_too_large_total",
        "Publications over the largest packet.",
    ),
    (
        "tributary_agent_mqtt_turned_away_total",
        "Publications turned away for lack of room.",
    ),
    (
        "tributary_agent_mqtt_wills_total",
        "Wills of clients that were lost, by fate.",
    ),
    (
        "tributary_agent_not_forwarded_readings_total",
        "Readings that left as aggregates alone.",
    ),
    (
        "tributary_agent_pace_changes_total",
        "Times that a series became fast or ceased to be.",
    ),
    (
        "tributary_agent_published_dropped_total",
        "Publications dropped for a subscriber that is too slow.",
    ),
    (
        "tributary_agent_published_evicted_total",
        "Retained topics that were let go for lack of room.",
    ),
    (
        "tributary_agent_published_refused_total",
        "Publications whose topic or size no client could be sent.",
    ),
    (
        "tributary_agent_published_total",
        "Publications of the agent itself: alerts, aggregates, status.",
    ),
    (
        "tributary_agent_readings_total",
        "Readings that were sealed.",
    ),
    (
        "tributary_agent_refused_readings_total",
        "Readings refused because the spool is full, and declared.",
    ),
    (
        "tributary_agent_repeats_total",
        "Messages recognised as repeats and passed over, by reason.",
    ),
    (
        "tributary_agent_shed_readings_total",
        "Readings given up for lack of room, and declared, by lane.",
    ),
    (
        "tributary_agent_shed_total",
        "Batches given up for lack of room, and declared, by lane.",
    ),
    (
        "tributary_agent_spool_damage_total",
        "Damaged parts of the spool.",
    ),
    (
        "tributary_agent_suspect_times_total",
        "Readings whose own time was not believed.",
    ),
    (
        "tributary_agent_unjudged_messages_total",
        "Messages at which detection broke, passed over.",
    ),
    (
        "tributary_agent_unjudged_readings_total",
        "Readings that were not judged, by reason.",
    ),
    (
        "tributary_agent_unpublished_aggregates_total",
        "Aggregates not published for lack of room in their queue, and stored.",
    ),
    (
        "tributary_agent_unsealed_total",
        "Alerts and aggregates lost for lack of room, by lane.",
    ),
    (
        "tributary_agent_uplink_fenced_total",
        "Sessions that ended because another machine with this identity began one.",
    ),
    (
        "tributary_agent_user_properties_unusable_total",
        "MQTT user properties that could not be used.",
    ),
    (
        "tributary_agent_wal_bytes_total",
        "Bytes committed to the write-ahead log.",
    ),
    (
        "tributary_agent_wal_commits_total",
        "Commits to the write-ahead log.",
    ),
    (
        "tributary_agent_wal_records_total",
        "Records committed to the write-ahead log.",
    ),
    (
        "tributary_agent_wal_refused_total",
        "Commits that the disk refused.",
    ),
    (
        "tributary_agent_written_bytes_total",
        "Bytes written by the agent, before the device rounds them.",
    ),
];

/// What goes up and down.
pub const GAUGES: &[(&str, &str)] = &[
    (
        "tributary_agent_backlog_batches",
        "Batches that the aggregator has not acknowledged.",
    ),
    (
        "tributary_agent_backlog_bytes",
        "Bytes that the aggregator has not acknowledged.",
    ),
    (
        "tributary_agent_broker_connected",
        "1 while the connection to a broker stands, else 0, by source.",
    ),
    (
        "tributary_agent_capture_ring_bytes",
        "Bytes of the log that are kept for captures.",
    ),
    (
        "tributary_agent_dead_letters_uncounted",
        "1 while dead letters that went could not be counted durably, else 0.",
    ),
    (
        "tributary_agent_detection_off",
        "1 while the agent goes on without detection because that broke, else 0.",
    ),
    (
        "tributary_agent_fast_series",
        "Series that are judged on windows of a second.",
    ),
    (
        "tributary_agent_gateway_clock_trusted",
        "1 while the gateway's clock is trusted, else 0.",
    ),
    (
        "tributary_agent_idle_series",
        "Series that gave way and are kept.",
    ),
    (
        "tributary_agent_in_doubt_batches",
        "Batches that another aggregator may hold, without having said so.",
    ),
    (
        "tributary_agent_mqtt_certificate_expiry_timestamp_seconds",
        "Until when the listener's certificate is valid, in seconds since 1970.",
    ),
    (
        "tributary_agent_mqtt_connections",
        "Connections of clients that are open.",
    ),
    (
        "tributary_agent_mqtt_readers",
        "Connections of clients that subscribed.",
    ),
    ("tributary_agent_mqtt_users", "Users in the file."),
    (
        "tributary_agent_published_retained",
        "Topics that the agent retains.",
    ),
    (
        "tributary_agent_publishing_queue",
        "Messages that wait to be handed out to subscribers, by lane.",
    ),
    (
        "tributary_agent_ready",
        "1 while a message that comes is made durable, else 0.",
    ),
    (
        "tributary_agent_refusing",
        "1 while a full spool refuses what is new, else 0.",
    ),
    (
        "tributary_agent_spool_blocked",
        "1 while a full spool holds up acknowledgements, else 0.",
    ),
    ("tributary_agent_standing_alerts", "Alerts that stand."),
    (
        "tributary_agent_uplink_away",
        "1 while the aggregator that was reached last is not the first of the list, else 0.",
    ),
    (
        "tributary_agent_uplink_connected",
        "1 while the connection to the aggregator stands, else 0.",
    ),
    (
        "tributary_agent_uplink_rtt_seconds",
        "Round-trip time to the aggregator, in seconds.",
    ),
    (
        "tributary_agent_uplink_udp_bytes",
        "Bytes of UDP sent to the aggregator since the process began.",
    ),
    (
        "tributary_agent_wal_delay_seconds",
        "How long a message waits for others before it is committed, in seconds.",
    ),
    (
        "tributary_agent_wal_storage_ok",
        "1 while the log can be written, else 0.",
    ),
    ("tributary_agent_watched_series", "Series that are watched."),
    (
        "tributary_agent_wear_exceeded",
        "1 while writes exceed their daily budget, else 0.",
    ),
];

/// What is distributed.
pub const HISTOGRAMS: &[(&str, &str)] = &[
    (
        "tributary_agent_alert_seconds",
        "From a reading's arrival until its alert was handed out, in seconds.",
    ),
    (
        "tributary_agent_detection_checkpoint_seconds",
        "How long judging stood still for a checkpoint, in seconds.",
    ),
    (
        "tributary_agent_wal_commit_seconds",
        "How long a commit to the log took, in seconds.",
    ),
];

/// Says of every metric what it is, to the recorder that is there.
pub fn describe() {
    for (name, help) in COUNTERS {
        describe_counter!(*name, *help);
    }
    for (name, help) in GAUGES {
        describe_gauge!(*name, *help);
    }
    for (name, help) in HISTOGRAMS {
        describe_histogram!(*name, *help);
    }
}
