//! The detectors against what the oracles made of the same series (`tests/detection.py --golden`),
//! row by row. That script compares them on real series, too.

use std::collections::HashMap;
use tributary_agent::detect::{
    DeviceSlot, Fast, FastReading, Preset, Progress, SeriesDetector, SeriesSlot, TimeSettings,
};

/// Rows that score, by row: with `sensitive`, with `calm`. All others score 0.
const GOLDEN: &str = include_str!("data/detect.csv");
/// 2010-01-04T00:00:00Z, where the oracles' clock begins.
const BEGIN_US: i64 = 1_262_563_200_000_000;

/// Noise on a daily triangle, with a gap, a step back in time, and five faults: time and value.
fn series() -> Vec<(i64, f64)> {
    let (mut state, mut held) = (1u64, 0.0);
    let row = |i: i64| {
        let mut noise = -2.0;
        for _ in 0..4 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            noise += (state >> 33) as f64 / 2f64.powi(31);
        }
        let daily = (i % 1_440 - 720).abs() as f64 / 240.0;
        let mut value = 20.0 + daily + noise;
        match i {
            12_000..12_500 => value += 2.0,
            18_000..18_200 => value += 4.0 * noise,
            21_000..21_005 => value = 0.0,
            8_000 => value += 5.0,
            5_000 => value = f64::NAN,
            _ => {}
        }
        if i == 15_000 {
            held = value;
        }
        if (15_000..15_200).contains(&i) {
            value = held;
        }
        let seconds = 60 * i - if i == 5_001 { 600 } else { 0 };
        (BEGIN_US + seconds * 1_000_000, value)
    };
    (0..30_000).map(row).collect()
}

#[test]
fn every_row_is_what_the_oracles_make_of_it() {
    let mut golden = HashMap::new();
    for line in GOLDEN.lines().skip(1) {
        let cells: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        golden.insert(cells[0] as usize, [cells[1], cells[2]]);
    }
    for (column, preset) in [Preset::Sensitive, Preset::Calm].into_iter().enumerate() {
        let mut detector = SeriesDetector::new(preset);
        let mut alerts = Vec::new();
        for (row, (time, value)) in series().into_iter().enumerate() {
            let judged = detector.step(true, time, value);
            let expected = golden.get(&row).map_or(0.0, |scores| scores[column]);
            let score = judged.score();
            assert!(
                (score - expected).abs() < 1e-6,
                "{preset:?}, row {row}: {score} for {expected}"
            );
            assert_eq!(judged.alert, score >= 0.5);
            if judged.alert {
                alerts.push(row);
            }
        }
        // The shift is less than what the day does: `calm` lets it pass.
        let faults = [8_000, 15_000, 18_000, 21_000].into_iter();
        for fault in faults.chain((preset == Preset::Sensitive).then_some(12_000)) {
            let found = alerts.iter().any(|row| (fault..fault + 30).contains(row));
            assert!(
                found,
                "{preset:?} did not find the fault at {fault}: {alerts:?}"
            );
        }
    }
}

#[test]
fn what_is_no_number_or_late_changes_nothing() {
    for (_, preset) in Preset::NAMES {
        let mut detector = SeriesDetector::new(preset);
        let mut same = detector.clone();
        for (row, (time, value)) in series().into_iter().take(2_000).enumerate() {
            let judged = detector.step(true, time, value);
            assert_eq!(
                judged,
                same.step(true, time, value),
                "{preset:?}, row {row}"
            );
        }
        for (time, value) in [
            (i64::MAX, f64::NAN),
            (i64::MAX, f64::INFINITY),
            (0, 1e300),
            (i64::MIN, 0.0),
        ] {
            let judged = detector.step(true, time, value);
            assert!(judged.severity == 0.0 && !judged.alert && judged.part.is_none());
        }
        // A device whose clock says 2099 once: its next times are late until then.
        let judged = detector.step(true, 4_080_000_000_000_000, 21.0);
        assert!(judged.severity.is_finite());
    }
}

#[test]
fn a_clock_that_is_not_trusted_takes_the_week_out_of_it() {
    for preset in [Preset::Sensitive, Preset::Calm] {
        let (mut trusted, mut blind) = (SeriesDetector::new(preset), SeriesDetector::new(preset));
        let mut differ = 0;
        for (time, value) in series() {
            let (a, b) = (
                trusted.step(true, time, value),
                blind.step(false, time, value),
            );
            assert_ne!(b.part, Some(tributary_agent::detect::Part::Weekly));
            differ += usize::from(a != b);
        }
        assert!(differ > 0, "{preset:?}");
    }
}

/// What is said of healthy noise at 100 Hz, `hours` of it: alerts of its readings, of the mean of
/// each second, and of how far apart its readings are.
fn noise_at_100_hz(preset: Preset, mut state: u64, hours: i64) -> [usize; 3] {
    let (place, device) = (SeriesSlot(0), DeviceSlot(0));
    let mut fast = Fast::default();
    fast.begin(place, device, i64::MIN);
    let mut detectors = [(); 3].map(|()| SeriesDetector::new(preset));
    let mut alerts = [0; 3];
    let mut closed = Vec::new();
    let settings = TimeSettings::default();
    for i in 0..hours * 360_000 {
        let mut value = 20.0 - 2.0;
        for _ in 0..4 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            value += (state >> 33) as f64 / 2f64.powi(31);
        }
        let time = BEGIN_US + i * 10_000;
        let progress = Progress {
            watermark: time - 500_000,
            newest: time,
            newest_at: i * 10_000,
            heard: i * 10_000,
        };
        let reading = FastReading {
            time,
            value,
            trusted: true,
            received: time,
            skew: 0,
            unit: "",
        };
        fast.step(
            place,
            &reading,
            (&progress, i * 10_000, &settings),
            &mut closed,
        );
        let mut ask = |which: usize, time: i64, value: f64| {
            alerts[which] += usize::from(detectors[which].step(true, time, value).alert);
        };
        ask(0, time, value);
        for closed in closed.drain(..) {
            let second = closed.second;
            ask(1, second.from, second.mean());
            ask(2, second.from, second.peak_to_peak().unwrap());
        }
    }
    alerts
}

/// The figures of `docs/detection.md`, Fast series: with `--nocapture`.
#[test]
fn a_healthy_fast_series_is_quieter_on_windows() {
    const HOURS: i64 = 3;
    for (preset, seed, less) in [
        (Preset::Calm, 1, 2),
        (Preset::Calm, 2, 2),
        (Preset::Sensitive, 1, 5),
    ] {
        let [readings, means, apart] = noise_at_100_hz(preset, seed, HOURS);
        println!(
            "{preset:?}, {HOURS} hours: {readings} of readings, {means} of means, {apart} of \
             peak to peak"
        );
        assert!(readings > less * (means + apart), "{preset:?}");
    }
}
