//! Whether the injected faults can be seen: the fleet's readings through the gateway's own
//! detectors, without a pipeline between.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::hits::{Alert, Hits};
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use tributary_agent::detect::{Preset, SeriesDetector};
use tributary_sim::fault::{FaultConfig, FaultKind};
use tributary_sim::fleet::{self, Fleet, FleetConfig};
use tributary_sim::reading::Value;

/// A minute of the demo's fleet, judged reading by reading.
fn judged(preset: Preset, per_minute: f64) -> Hits {
    let config = FleetConfig {
        seed: 1,
        sensors: 1_000,
        rate_hz: 10.0,
        started_ms: 1_700_000_000_000,
        site: "plant".to_owned(),
        faults: FaultConfig {
            per_minute,
            after: Duration::from_secs(12),
        },
    };
    let series = fleet::series(&config).unwrap();
    let mut hits = Hits::new(&series, config.started_ms * 1_000);
    let mut detectors: Vec<_> = series.iter().map(|_| SeriesDetector::new(preset)).collect();
    let (mut fleet, mut readings) = (Fleet::new(&config).unwrap(), VecDeque::new());
    let now = Instant::now();
    for second in 1..=60 {
        fleet.produce(second * 1_000_000, usize::MAX, &mut readings);
        for reading in readings.drain(..) {
            if let Some(mark) = reading.fault {
                hits.writing(&reading, mark, now);
            }
            let value = match reading.value {
                Value::F64(x) => x,
                Value::I64(x) => x as f64,
                _ => continue,
            };
            let place = reading.series as usize;
            if detectors[place].step(true, reading.time_us, value).alert {
                let alert = Alert {
                    id: u128::from(reading.series) << 64 | u128::from(reading.seq),
                    device: series[place].device.clone(),
                    metric: series[place].metric.clone(),
                    span_us: (reading.time_us, reading.time_us),
                };
                hits.alert(&alert, now);
            }
        }
    }
    hits
}

#[test]
fn detectors_find_the_faults_and_say_nothing_more_because_of_them() {
    for preset in [Preset::Sensitive, Preset::Quiet, Preset::Calm] {
        let found = judged(preset, 60.0).found();
        let all = found.all();
        assert!(all.injected >= 40, "{found:?}");
        assert!(all.found * 100 >= all.injected * 85, "{found:?}");
        let kinds: Vec<FaultKind> = found.kinds.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, FaultKind::ALL, "some of each");
        let without = judged(preset, 0.0).found();
        assert_eq!(without.all().injected, 0);
        assert!(found.alerts_false <= without.alerts_false, "{found:?}");
    }
}

#[test]
fn the_default_says_little_of_series_that_are_young() {
    // What each of them measures is new to it: `sensitive` says 3,001 times that it is.
    let found = judged(Preset::default(), 0.0).found();
    assert!(found.alerts_false <= 60, "{found:?}");
}
