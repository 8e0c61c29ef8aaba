//! Every way in which an alert and a fault can meet, or miss.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use std::time::Duration;
use tributary_sim::fault::AFTERMATH_READINGS;
use tributary_sim::reading::Value;

const START_US: i64 = 1_700_000_000_000_000;
const STEP_US: i64 = 100_000;

fn series() -> Vec<Series> {
    let one = |n: u32| Series {
        device: format!("plant-1/pump-000{n}"),
        metric: "temperature".to_owned(),
        unit: None,
    };
    (0..3).map(one).collect()
}

/// Faults that are published, and alerts that come, each at a time of its own.
struct Run {
    hits: Hits,
    began: Instant,
    next_id: u128,
}

impl Run {
    fn new() -> Self {
        Self {
            hits: Hits::new(&series(), START_US),
            began: Instant::now(),
            next_id: 1,
        }
    }

    /// When the reading of this tick is written: at its own time.
    fn at(&self, tick: i64) -> Instant {
        self.began + Duration::from_micros((tick * STEP_US) as u64)
    }

    /// The first `count` readings that have to do with a fault that begins at this tick.
    fn fault(&mut self, series: u32, kind: FaultKind, tick: i64, count: u32) {
        for nth in 0..count {
            let mark = Mark {
                kind,
                first_us: START_US + tick * STEP_US,
                nth,
            };
            let now = tick + i64::from(nth);
            let reading = Reading {
                series,
                seq: now as u64,
                time_us: START_US + now * STEP_US,
                value: Value::F64(0.0),
                written: None,
                fault: Some(mark),
            };
            let at = self.at(now);
            self.hits.writing(&reading, mark, at);
        }
    }

    fn alert(&mut self, series: u32, ticks: (i64, i64), latency_us: u64) -> Alert {
        let name = self::series().remove(series as usize);
        let alert = Alert {
            id: self.next_id,
            device: name.device,
            metric: name.metric,
            span_us: (START_US + ticks.0 * STEP_US, START_US + ticks.1 * STEP_US),
        };
        self.next_id += 1;
        let at = self.at(ticks.0.max(0)) + Duration::from_micros(latency_us);
        self.hits.alert(&alert, at);
        alert
    }

    /// Injected, found, false.
    fn counts(&self) -> (u64, u64, u64) {
        let found = self.hits.found();
        let Tally { injected, found: n } = found.all();
        (injected, n, found.alerts_false)
    }
}

/// All readings of a spike, with its aftermath.
const SPIKE: u32 = 1 + AFTERMATH_READINGS;

#[test]
fn a_fault_is_found_once_however_many_alerts_it_gives() {
    let mut run = Run::new();
    run.fault(0, FaultKind::Spike, 10, SPIKE);
    run.fault(1, FaultKind::Level, 12, 130);
    assert_eq!(run.counts(), (2, 0, 0));
    run.alert(0, (10, 10), 4_000);
    run.alert(0, (11, 11), 5_000);
    assert_eq!(run.counts(), (2, 1, 0));
    run.alert(1, (12, 12), 6_000);
    assert_eq!(run.counts(), (2, 2, 0));
    assert_eq!(run.hits.alerts(), 3);
    let kinds = run.hits.found().kinds;
    let one = Tally {
        injected: 1,
        found: 1,
    };
    assert_eq!(kinds, [(FaultKind::Spike, one), (FaultKind::Level, one)]);
}

#[test]
fn what_is_before_behind_or_of_another_series_is_false() {
    let mut run = Run::new();
    run.fault(0, FaultKind::Spike, 10, SPIKE);
    let last = 10 + i64::from(AFTERMATH_READINGS);
    for (n, (series, tick)) in [(0, 9), (0, last + 1), (1, 10)].into_iter().enumerate() {
        run.alert(series, (tick, tick), 1_000);
        assert_eq!(run.counts(), (1, 0, n as u64 + 1));
    }
    run.alert(0, (last, last), 1_000);
    assert_eq!(run.counts(), (1, 1, 3), "the last of the aftermath");
    let mut stranger = run.alert(0, (10, 10), 1_000);
    stranger.id = 99;
    stranger.metric = "pressure".to_owned();
    run.hits.alert(&stranger, run.at(20));
    assert_eq!(run.counts(), (1, 1, 4));
}

#[test]
fn copies_and_alerts_of_an_older_run_are_passed_over() {
    let mut run = Run::new();
    run.fault(0, FaultKind::Spike, 10, SPIKE);
    let alert = run.alert(0, (10, 10), 4_000);
    let late = run.at(500);
    run.hits.alert(&alert, late);
    run.alert(2, (-50, -50), 0);
    assert_eq!((run.counts(), run.hits.alerts()), ((1, 1, 0), 1));
    assert_eq!(run.hits.found().latency.max, 4.0, "of the first copy");
}

#[test]
fn a_window_hits_what_it_meets_and_its_clock_starts_at_the_fault() {
    let mut run = Run::new();
    run.fault(0, FaultKind::Spike, 10, SPIKE);
    let behind = 10 + i64::from(SPIKE);
    for (ticks, hits) in [((0, 9), 0), ((behind, behind + 9), 0), ((5, 14), 1)] {
        run.alert(0, ticks, 900_000);
        assert_eq!(run.counts().1, hits, "{ticks:?}");
    }
    // It came 900 ms after the window's begin: 400 after the spike.
    assert_eq!(run.hits.found().latency.max, 400.0);
}

#[test]
fn a_fault_that_the_end_cut_short_counts_only_if_it_was_found() {
    let mut run = Run::new();
    let telling = FaultKind::Stuck.telling();
    run.fault(0, FaultKind::Stuck, 10, telling - 1);
    run.fault(1, FaultKind::Stuck, 10, telling - 1);
    run.fault(2, FaultKind::Stuck, 10, telling);
    assert_eq!(run.counts(), (1, 0, 0));
    run.alert(1, (30, 30), 1_000);
    assert_eq!(run.counts(), (2, 1, 0));
}

#[test]
fn percentiles_are_values_that_there_were() {
    assert_eq!(latency(Vec::new()), Latency::default());
    let one = latency(vec![7_500]);
    assert_eq!((one.p50, one.p999, one.max), (7.5, 7.5, 7.5));
    let many = latency((1..=2_000).rev().map(|n| n * 1_000).collect());
    let all = (many.p50, many.p99, many.p999, many.max);
    assert_eq!(all, (1_000.0, 1_980.0, 1_998.0, 2_000.0));
}

#[test]
fn a_long_run_is_counted_whole_in_bounded_room() {
    let mut run = Run::new();
    let count = FAULTS_KEPT_MAX as i64 * 2;
    for n in 0..count {
        run.fault(0, FaultKind::Dropout, n * 100, 33);
        if n % 2 == 0 {
            run.alert(0, (n * 100, n * 100), 1_000);
        }
    }
    assert!(run.hits.faults.len() <= FAULTS_KEPT_MAX);
    assert_eq!(run.counts(), (count as u64, count as u64 / 2, 0));
    for n in 0..ALERT_IDS_KEPT_MAX as i64 {
        run.alert(1, (n, n), 1_000);
    }
    assert_eq!(run.hits.seen.len(), ALERT_IDS_KEPT_MAX);
}

#[test]
fn alerts_that_were_held_back_are_false_but_for_those_whose_series_had_a_fault() {
    let mut run = Run::new();
    run.fault(0, FaultKind::Spike, 10, 3);
    run.fault(1, FaultKind::Spike, 90, 3);
    let summary = Summary {
        id: 77,
        alerts: 12,
        names: [0, 1, 2]
            .map(|n| format!("plant-1/pump-000{n} temperature"))
            .into(),
        span_us: (START_US + 8 * STEP_US, START_US + 18 * STEP_US),
    };
    let old = Summary {
        id: 78,
        span_us: (START_US - 9, START_US - 1),
        ..summary.clone()
    };
    for summary in [&summary, &summary, &old] {
        run.hits.summary(summary);
    }
    let found = run.hits.found();
    assert_eq!((found.alerts_false, found.alerts_held_back), (11, 12));
    assert_eq!((run.hits.alerts(), found.all().found), (12, 0));
}
