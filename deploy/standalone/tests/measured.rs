//! What `/metrics` of both programs tells, as who scrapes it reads it. That every metric of the
//! source is told, and under which name, `cargo xtask tidy` holds.

use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::PrometheusBuilder;
use std::collections::{BTreeMap, BTreeSet};
use tributary_agent::measured as agent;
use tributary_aggregator::measured as aggregator;

type Table = &'static [(&'static str, &'static str)];

/// Counters, gauges and histograms of a program, and what says to a recorder what they are.
type Told = ([Table; 3], fn());

const AGENT: Told = (
    [agent::COUNTERS, agent::GAUGES, agent::HISTOGRAMS],
    agent::describe,
);
const AGGREGATOR: Told = (
    [
        aggregator::COUNTERS,
        aggregator::GAUGES,
        aggregator::HISTOGRAMS,
    ],
    aggregator::describe,
);

/// The page with a sample of each metric.
fn page(([counters, gauges, histograms], describe): Told) -> String {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&[0.1, 1.0])
        .unwrap()
        .build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        for (name, _) in counters {
            counter!(*name, "by" => "a").increment(1);
        }
        gauges.iter().for_each(|(name, _)| gauge!(*name).set(1.0));
        for (name, _) in histograms {
            histogram!(*name).record(0.5);
        }
    });
    handle.render()
}

#[test]
fn each_family_is_told_with_help_and_type_before_its_samples() {
    for told in [AGENT, AGGREGATOR] {
        let page = page(told);
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
                let is_told = helped.contains(family) && typed.contains_key(family);
                assert!(is_told, "{line}");
                line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
                samples += 1;
            }
        }
        let families: usize = told.0.iter().map(|table| table.len()).sum();
        assert_eq!(typed.len(), families);
        assert!(samples > families);
    }
}
