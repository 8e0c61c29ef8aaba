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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use metrics::{counter, gauge, histogram};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    const PREFIX: &str = "tributary_aggregator_";

    /// Every metric that this crate's source names, with the macro before it.
    fn named(dir: &Path, found: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            if name == "tests" || name == "tests.rs" || name == "measured.rs" {
                continue;
            }
            if path.is_dir() {
                named(&path, found);
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]").next().unwrap();
                for (at, _) in text.match_indices(&format!("\"{PREFIX}")) {
                    let name = text[at + 1..].split('"').next().unwrap();
                    let before = &text[..at];
                    let is = |kind: &&str| before.rfind(&format!("{kind}!("));
                    let kind = ["counter", "gauge", "histogram"].into_iter().max_by_key(is);
                    found.insert(name.to_owned(), kind.unwrap().to_owned());
                }
            }
        }
    }

    #[test]
    fn every_metric_has_help_and_a_name_as_prometheus_wants_it() {
        let mut used = BTreeMap::new();
        named(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut used,
        );
        let mut known = BTreeMap::new();
        for (kind, metrics) in [
            ("counter", COUNTERS),
            ("gauge", GAUGES),
            ("histogram", HISTOGRAMS),
        ] {
            for (name, help) in metrics {
                assert!(
                    known.insert((*name).to_owned(), kind.to_owned()).is_none(),
                    "{name}"
                );
                assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
                assert!(
                    name.bytes()
                        .all(|byte| byte == b'_' || byte.is_ascii_lowercase())
                );
                for unit in ["_ms", "_us", "_ns", "_milliseconds", "_kb", "_mb", "_mib"] {
                    assert!(!name.trim_end_matches("_total").ends_with(unit), "{name}");
                }
                assert!(
                    help.ends_with('.') && !help.contains(['\n', '\\']),
                    "{name}"
                );
                let seconds = name.ends_with("_seconds") && !help.contains("seconds");
                let bytes = name.trim_end_matches("_total").ends_with("_bytes");
                assert!(
                    !seconds && (!bytes || help.contains("Bytes")),
                    "{name}: its unit"
                );
            }
        }
        assert_eq!(used, known);
    }

    #[test]
    fn each_family_is_told_with_help_and_type_before_its_samples() {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&[0.1, 1.0])
            .unwrap()
            .build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            COUNTERS
                .iter()
                .for_each(|(name, _)| counter!(*name, "by" => "a").increment(1));
            GAUGES.iter().for_each(|(name, _)| gauge!(*name).set(1.0));
            HISTOGRAMS
                .iter()
                .for_each(|(name, _)| histogram!(*name).record(0.5));
        });
        let page = handle.render();
        let (mut helped, mut typed) = (BTreeSet::new(), BTreeMap::new());
        let mut samples = 0;
        for line in page.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(helped.insert(name) && !help.is_empty(), "{line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(typed.insert(name, kind).is_none(), "{line}");
            } else {
                let name = line.split(['{', ' ']).next().unwrap();
                let parts = ["_bucket", "_sum", "_count"];
                let family = parts.iter().find_map(|part| {
                    let family = name.strip_suffix(part)?;
                    (typed.get(family) == Some(&"histogram")).then_some(family)
                });
                let family = family.unwrap_or(name);
                assert!(
                    helped.contains(family) && typed.contains_key(family),
                    "{line}"
                );
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
                samples += 1;
            }
        }
        assert_eq!(
            typed.len(),
            COUNTERS.len() + GAUGES.len() + HISTOGRAMS.len()
        );
        assert!(samples > typed.len());
    }
}
