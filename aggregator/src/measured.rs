//! What is measured: every metric of `/metrics` with its kind, and with its unit in a sentence for
//! who reads it (`# HELP`).

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// What grows only, since the process began.
pub const COUNTERS: &[(&str, &str)] = &[
    (
        "tributary_aggregator_append_errors_total",
        "Commits that the journal's disk refused.",
    ),
    (
        "tributary_aggregator_batch_bytes_total",
        "Bytes of batches that were accepted.",
    ),
    (
        "tributary_aggregator_batches_total",
        "Batches that were accepted.",
    ),
    (
        "tributary_aggregator_checkpoint_errors_total",
        "Checkpoints that could not be written.",
    ),
    (
        "tributary_aggregator_connections_total",
        "Connections of agents that were accepted.",
    ),
    (
        "tributary_aggregator_damaged_batches_total",
        "Batches that came damaged.",
    ),
    (
        "tributary_aggregator_failed_handshakes_total",
        "Handshakes with agents that failed.",
    ),
    (
        "tributary_aggregator_gap_batches_total",
        "Batches that agents declared lost, by reason.",
    ),
    (
        "tributary_aggregator_gap_readings_total",
        "Readings that agents declared lost, by reason.",
    ),
    (
        "tributary_aggregator_gaps_of_unknown_size_total",
        "Declared losses of which nobody knows how many readings they are, by reason.",
    ),
    (
        "tributary_aggregator_journal_damaged_entries_total",
        "Entries of the journal that are damaged.",
    ),
    (
        "tributary_aggregator_lake_aggregates_total",
        "Rows of the table `aggregates` that were written.",
    ),
    (
        "tributary_aggregator_lake_alerts_total",
        "Rows of the table `alerts` that were written.",
    ),
    (
        "tributary_aggregator_identity_signs_total",
        "Signs that an agent is two machines, by agent and sign; see docs/identity.md.",
    ),
    (
        "tributary_aggregator_lake_damaged_entries_total",
        "Entries of the journal that the lake could not read.",
    ),
    (
        "tributary_aggregator_lake_errors_total",
        "Writes of the lake that failed and are tried again.",
    ),
    (
        "tributary_aggregator_lake_files_total",
        "Parquet files that were written.",
    ),
    (
        "tributary_aggregator_lake_rows_total",
        "Rows that were written into the lake.",
    ),
    (
        "tributary_aggregator_quarantined_batches_total",
        "Batches put aside because they contradict what is held.",
    ),
    (
        "tributary_aggregator_readings_total",
        "Readings that were accepted.",
    ),
    (
        "tributary_aggregator_received_bytes_total",
        "Bytes that came from agents.",
    ),
    (
        "tributary_aggregator_refused_connections_total",
        "Connections of agents that were refused.",
    ),
    (
        "tributary_aggregator_doubled_messages_total",
        "Messages in batches of two buffers: readings of them may be stored twice.",
    ),
    (
        "tributary_aggregator_rejects_total",
        "Sessions that ended because of what the agent sent.",
    ),
    (
        "tributary_aggregator_replayed_batches_total",
        "Batches that were held already and are acknowledged again.",
    ),
    (
        "tributary_aggregator_series_without_room_total",
        "Batches whose names of series there was no room for.",
    ),
    (
        "tributary_aggregator_sink_errors_total",
        "Steps of a sink that failed and are tried again, by sink.",
    ),
    (
        "tributary_aggregator_sink_refused_rows_total",
        "Rows that a sink's target did not take; they lie in its `rejected`, by sink.",
    ),
    (
        "tributary_aggregator_sink_rows_total",
        "Rows that were written into a sink, by sink.",
    ),
    (
        "tributary_aggregator_unverified_replays_total",
        "Batches that were held already and too long ago to compare.",
    ),
];

/// What goes up and down.
pub const GAUGES: &[(&str, &str)] = &[
    (
        "tributary_aggregator_journal_end",
        "Entries that the journal has had.",
    ),
    (
        "tributary_aggregator_lake_lag_entries",
        "Entries of the journal that are not in the lake yet.",
    ),
    (
        "tributary_aggregator_lake_position",
        "Entries of the journal that are in the lake.",
    ),
    (
        "tributary_aggregator_ready",
        "1 while batches are accepted and the lake is written, else 0.",
    ),
    (
        "tributary_aggregator_sink_lag_entries",
        "Entries of the journal that are not in a sink yet, by sink.",
    ),
    (
        "tributary_aggregator_sink_lag_seconds",
        "How long ago the oldest of them became durable, in seconds, by sink.",
    ),
    (
        "tributary_aggregator_sink_newest_received_seconds",
        "When the newest reading in a sink reached its agent, seconds since 1970, by sink.",
    ),
    (
        "tributary_aggregator_sink_position",
        "Entries of the journal that are in a sink, by sink.",
    ),
    (
        "tributary_aggregator_sink_verdict",
        "How a sink's lag goes: 0 ok, 1 warn (falls behind), 2 stall, 3 stop (fails), by sink.",
    ),
];

/// What is distributed.
pub const HISTOGRAMS: &[(&str, &str)] = &[(
    "tributary_aggregator_commit_seconds",
    "How long a commit to the journal took, in seconds.",
)];

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
