//! Known signals, and what is found in them; what is no signal; and what is kept.

use super::*;
use crate::detect::sample::{DeviceSlot, Place, Sample, SeriesSlot};
use crate::detect::watched::Subject;
use crate::limits::{VIBRATION_SAMPLES_MAX, VIBRATION_SPECS_MAX};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::sync::Arc;
use tributary_settings::Document;

/// Samples a second.
const RATE: f64 = 25_600.0;

/// A bearing like the SKF 6205 on a shaft at 29.53 Hz: BPFO 105.9, BPFI 159.9, BSF 69.6, FTF 11.8.
const MACHINE: &str = r#"
    shaft_hz = 29.53
    [detect.vibration.bearing]
    elements = 9
    element_mm = 7.94
    pitch_mm = 39.04
"#;

fn specs(settings: &str) -> Arc<VibrationSpecs> {
    let text = format!("[[detect.vibration]]\nmetric = \"a\"\n{settings}\n");
    VibrationSpecs::parse(&text).unwrap_or_else(|wrong| panic!("{wrong:?} in {text}"))
}

fn place(metric: &str) -> Place<'_> {
    Place {
        series: SeriesSlot(0),
        device: DeviceSlot(0),
        device_name: "motor",
        metric,
        unit: "g",
    }
}

fn sample(i: usize, value: f64) -> Sample {
    let time = (i as f64 * 1e6 / RATE).round() as i64;
    Sample {
        event_time: time,
        received_time: time,
        value,
        late: false,
        trusted: true,
    }
}

fn windows(settings: &str, signal: impl IntoIterator<Item = f64>) -> Vec<VibrationFeatures> {
    let mut engine = VibrationEngine::new(specs(settings));
    let mut out = Vec::new();
    for (i, value) in signal.into_iter().enumerate() {
        assert!(engine.step(&place("a"), &sample(i, value), &mut out));
    }
    out
}

/// The features of the only window of this signal.
fn only(settings: &str, signal: Vec<f64>) -> BTreeMap<String, f64> {
    let settings = format!("window = {}\n{settings}", signal.len());
    let windows = windows(&settings, signal);
    assert_eq!(windows.len(), 1);
    let VibrationFeatures { names, values, .. } = &windows[0];
    assert_eq!(names.len(), values.len());
    names
        .iter()
        .map(ToString::to_string)
        .zip(values.iter().copied())
        .collect()
}

fn sine(length: usize, hz: f64, amplitude: f64) -> Vec<f64> {
    let at = |i: usize| 5.0 + amplitude * (TAU * hz * i as f64 / RATE).sin();
    (0..length).map(at).collect()
}

/// Numbers between -1 and 1 whose sums of twelve are near Gaussian, from a seed.
fn noise(length: usize, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut uniform = || {
        // Knuth's MMIX.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    (0..length)
        .map(|_| (0..12).map(|_| uniform()).sum())
        .collect()
}

/// Knocks at a rate through a resonance at 8 kHz that fades within half a millisecond.
fn knocks(length: usize, rate_hz: f64) -> Vec<f64> {
    let mut signal = vec![0.0; length];
    let mut next = 0.0;
    while next < length as f64 / RATE {
        let from = (next * RATE) as usize;
        for (i, value) in signal.iter_mut().enumerate().skip(from).take(200) {
            let passed = i as f64 / RATE - next;
            *value += (-passed / 5e-4).exp() * (TAU * 8_000.0 * passed).sin();
        }
        next += 1.0 / rate_hz;
    }
    signal
}

fn plus(a: Vec<f64>, b: Vec<f64>, scale: f64) -> Vec<f64> {
    a.into_iter().zip(b).map(|(a, b)| a + scale * b).collect()
}

#[test]
fn a_sine_is_a_sine() {
    for (length, hz) in [
        (1_024, 1_000.0),
        (1_000, 50.0 * 25.6),
        (1_023, 7_777.0),
        (4_097, 60.0),
    ] {
        let of = only("", sine(length, hz, 2.0));
        let bin_hz = RATE / length as f64;
        assert!(
            (of["dominant_hz"] - hz).abs() <= bin_hz,
            "{length} {hz}: {of:?}"
        );
        if length == 1_000 {
            // Whole turns.
            assert!((of["crest"] - 2f64.sqrt()).abs() < 0.01, "{of:?}");
            assert!((of["rms"] - 2f64.sqrt()).abs() < 0.01);
            assert!((of["kurtosis"] - 1.5).abs() < 0.01);
            assert!((of["peak_to_peak"] - 4.0).abs() < 0.01);
        }
        // All energy is in the bands, and it is the mean square.
        let bands: f64 = (1..=4).map(|band| of[&format!("band_{band}")]).sum();
        assert!((bands / 2.0 - 1.0).abs() < 0.02, "{length} {hz}: {bands}");
        assert!(of["spectral_kurtosis"] < 1.0, "{length}: {of:?}");
        assert!(!of.contains_key("bpfo") && !of.contains_key("shaft_1x"));
    }
}

#[test]
fn energy_is_in_the_band_that_it_is_in() {
    let signal = plus(sine(2_048, 150.0, 1.0), sine(2_048, 6_000.0, 1.0), 3.0);
    let of = only("bands_hz = [0, 100, 200, 5000, 7000]", signal.clone());
    let near = |name: &str, energy: f64| assert!((of[name] - energy).abs() < 0.02, "{of:?}");
    near("band_1", 0.0);
    near("band_2", 0.5);
    near("band_3", 0.0);
    near("band_4", 4.5);
    // 10 octaves: bins 1 to 5, to 32, to 181, to 1,024. 150 Hz is the twelfth, 6 kHz the 480th.
    let of = only("", signal);
    assert!(
        (of["band_2"] - 0.5).abs() < 0.02 && (of["band_4"] - 4.5).abs() < 0.02,
        "{of:?}"
    );
}

#[test]
fn a_shaft_is_found_at_its_rate_and_twice_that() {
    let unbalance = sine(16_384, 29.53, 1.0);
    let misaligned = plus(unbalance.clone(), sine(16_384, 2.0 * 29.53, 1.0), 2.0);
    let of = only("shaft_hz = 29.53", unbalance);
    assert!(
        (of["shaft_1x"] - 0.5).abs() < 0.01 && of["shaft_2x"] < 0.01,
        "{of:?}"
    );
    let of = only("shaft_hz = 29.53", misaligned);
    assert!(
        (of["shaft_2x"] - 2.0).abs() < 0.05 && of["shaft_3x"] < 0.01,
        "{of:?}"
    );
    assert!(!of.contains_key("bpfo"));
}

#[test]
fn a_damaged_bearing_is_told_from_a_healthy_one_and_the_damage_by_its_place() {
    let length = 16_384;
    let healthy = only(MACHINE, noise(length, 1));
    let rates = super::bearing::Bearing {
        elements: 9,
        element_mm: 7.94,
        pitch_mm: 39.04,
        angle_deg: 0.0,
    };
    let names = ["bpfo", "bpfi", "bsf"];
    for name in names {
        assert!(healthy[name] < 0.02, "{name}: {healthy:?}");
    }
    assert!(
        healthy["kurtosis"] < 3.3 && healthy["spectral_kurtosis"] < 0.5,
        "{healthy:?}"
    );
    for (name, turns) in names.into_iter().zip(rates.rates()) {
        // The knocks are a third of the noise's own strength.
        let signal = plus(noise(length, 2), knocks(length, turns * 29.53), 3.0);
        let damaged = only(MACHINE, signal);
        assert!(damaged[name] > 10.0 * healthy[name], "{name}: {damaged:?}");
        // Three times one rate may be near twice another.
        let others = names.into_iter().filter(|other| *other != name);
        for other in others {
            assert!(
                damaged[other] < damaged[name] / 2.0,
                "{name} {other}: {damaged:?}"
            );
        }
        assert!(damaged["kurtosis"] > healthy["kurtosis"], "{damaged:?}");
    }
    // Spectral kurtosis sees what rings now and then, at whatever rate.
    let signal = plus(noise(length, 3), knocks(length, 7.0), 20.0);
    let of = only("", signal);
    assert!(of["spectral_kurtosis"] > 3.0, "{of:?}");
    // A band that holds nothing of the resonance does not see it.
    let elsewhere = MACHINE.replace("[detect", "envelope_hz = [500, 2000]\n[detect");
    let signal = plus(noise(length, 2), knocks(length, 3.585 * 29.53), 3.0);
    let of = only(&elsewhere, signal);
    assert!(of["bpfo"] < 10.0 * healthy["bpfo"], "{of:?}");
}

#[test]
fn the_envelope_comes_and_goes_as_it_does() {
    // A carrier at 8 kHz, modulated altogether at BPFO.
    let hz = 3.585 * 29.53;
    let at = |i: usize| {
        let time = i as f64 / RATE;
        (1.0 + (TAU * hz * time).cos()).sqrt() * (TAU * 8_000.0 * time).sin()
    };
    let of = only(MACHINE, (0..16_384).map(at).collect());
    assert!((of["bpfo"] - 0.5).abs() < 0.02, "{of:?}");
    assert!(of["bpfi"] < 0.01, "{of:?}");
}

#[test]
fn what_stands_still_has_features_too() {
    let of = only(MACHINE, vec![3.0; 64]);
    assert!(of.values().all(|value| *value == 0.0), "{of:?}");
}

#[test]
fn windows_begin_anew_where_samples_are_missing_late_or_no_numbers() {
    let mut engine = VibrationEngine::new(specs("window = 64"));
    let mut out = Vec::new();
    let mut step = |engine: &mut VibrationEngine, i: usize, value: f64, late: bool| {
        let sample = Sample {
            late,
            ..sample(i, value)
        };
        engine.step(&place("a"), &sample, &mut out);
        out.len()
    };
    for i in 0..63 {
        step(&mut engine, i, 1.0, false);
    }
    // One is missing.
    assert_eq!(step(&mut engine, 64, 1.0, false), 0);
    assert_eq!(engine.counts().broken, 1);
    step(&mut engine, 65, f64::NAN, false);
    step(&mut engine, 66, f64::INFINITY, false);
    assert_eq!(engine.counts().broken, 2);
    step(&mut engine, 67, 1.0, false);
    step(&mut engine, 3, 1.0, true);
    assert_eq!(engine.counts().broken, 3);
    for i in 100..164 {
        step(&mut engine, i, 1.0, false);
    }
    assert_eq!(engine.counts().windows, 1);
    // Too great to be squared.
    for i in 200..264 {
        step(
            &mut engine,
            i,
            if i % 2 == 0 { 1e200 } else { -1e200 },
            false,
        );
    }
    assert_eq!((engine.counts().windows, engine.counts().undefined), (1, 1));
    assert!((out[0].rate_hz - RATE).abs() < 10.0);
    assert_eq!(
        out[0].to - out[0].from,
        sample(163, 0.0).event_time - sample(100, 0.0).event_time
    );
    let other = Place {
        series: SeriesSlot(1),
        ..place("b")
    };
    assert!(!engine.step(&other, &sample(0, 1.0), &mut out));
}

#[test]
fn there_is_room_for_so_many_windows() {
    let specs = VibrationSpecs::parse("[[detect.vibration]]\nmetric = \"*\"\nwindow = 16384");
    let mut engine = VibrationEngine::new(specs.unwrap());
    let most = VIBRATION_SAMPLES_MAX / 16_384;
    let step = |engine: &mut VibrationEngine, i: usize, slot: usize| {
        let metric = format!("m{i}");
        let place = Place {
            series: SeriesSlot(slot as u32),
            ..place(&metric)
        };
        engine.step(&place, &sample(0, 1.0), &mut Vec::new())
    };
    // What there is no room for is a vibration nevertheless, and no reading.
    for i in 0..=most {
        assert!(step(&mut engine, i, i), "{i}");
    }
    assert!(step(&mut engine, most, most));
    assert_eq!((engine.waves.len(), engine.counts().refused), (most, 1));
    // A restart knows it no otherwise.
    let mut bytes = Vec::new();
    engine.write_checkpoint(&mut bytes);
    let specs = Arc::clone(engine.specs());
    let mut again = VibrationEngine::read_checkpoint(&mut &*bytes, specs).unwrap();
    let gone = Place {
        series: SeriesSlot(5),
        ..place("m5")
    };
    // There is room again, and who comes first has it.
    for engine in [&mut engine, &mut again] {
        engine.forget(&gone);
        for i in [most, most + 1] {
            assert!(step(engine, i, i));
        }
        let subject = |i: usize| Subject::new("motor", &format!("m{i}"));
        assert!(engine.names.contains_key(subject(most).text()));
        assert!(!engine.names.contains_key(subject(most + 1).text()));
    }
    let mut other = Vec::new();
    bytes.clear();
    engine.write_checkpoint(&mut bytes);
    again.write_checkpoint(&mut other);
    assert_eq!(bytes, other);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let wrong = |text: &str| {
        let mut document = Document::parse(text, "", []);
        VibrationSpecs::read(&mut document.root().section("detect"));
        let wrong = document.finish();
        wrong
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    };
    let text = "[[detect.vibration]]\nwindow = 10\nbands_hz = [3, 2]\nshaft_hz = 0\n\
                envelope_hz = [5]\nbearings = 1\n[detect.vibration.bearing]\nelements = 0\n\
                element_mm = 8\nangle_deg = 90\n[[detect.vibration]]\nmetric = \"a\"\n\
                bearing = { elements = 9, element_mm = 40, pitch_mm = 39 }\n\
                [[detect.vibration]]\nmetric = \"a\"\nenvelope_hz = [1, 2]\n";
    assert_eq!(
        wrong(text),
        "line 1: `detect.vibration[0].metric` is missing: which metric holds the samples?\n\
         line 2: `detect.vibration[0].window` is 10; expected 64 to 16384\n\
         line 3: `detect.vibration[0].bands_hz` is no row of bands: expected 2 to 17 frequencies, \
         ascending: each band goes from one to the next\n\
         line 4: `detect.vibration[0].shaft_hz` is 0; expected above 0, at most 1000000\n\
         line 5: `detect.vibration[0].envelope_hz` is no band: expected two frequencies, the lower \
         one first\n\
         line 6: `detect.vibration[0].bearings` is not known; did you mean \
         `detect.vibration[0].bearing`?\n\
         line 8: `detect.vibration[0].bearing.elements` is 0; expected 1 to 1000\n\
         line 10: `detect.vibration[0].bearing.angle_deg` is 90; expected 0 to less than 90 \
         degrees\n\
         line 11: `detect.vibration[1].shaft_hz` is missing: with a bearing, how often does its \
         shaft turn a second?\n\
         line 13: `detect.vibration[1].bearing.element_mm` is 40, not less than `pitch_mm`, the \
         diameter on which the elements run\n\
         line 16: `detect.vibration[2].envelope_hz` has no meaning without `bearing`\n\
         `detect.vibration[0].bearing.pitch_mm` is missing"
    );
    let many = "[[detect.vibration]]\nmetric = \"a\"\n".repeat(VIBRATION_SPECS_MAX + 1);
    assert!(wrong(&many).contains("is one too many: at most 16"));
}

#[test]
fn what_is_kept_means_what_was_written() {
    for settings in ["", "bands_hz = [0.5, 10]\nwindow = 65", MACHINE] {
        let written = specs(settings);
        assert_eq!(VibrationSpecs::parse(written.text()).unwrap(), written);
    }
    let all = MACHINE.replace(
        "[detect",
        "envelope_hz = [500, 2000]\nbands_hz = [1, 2]\n[detect",
    );
    let written = specs(&format!("device = \"p*\"\n{all}\nangle_deg = 15"));
    assert_eq!(VibrationSpecs::parse(written.text()).unwrap(), written);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/detection.md");
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.split("\n## Vibration\n").nth(1).unwrap();
    let block = section
        .split("```toml\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    assert!(!VibrationSpecs::parse(block).unwrap().specs.is_empty());
}

fn reborn(engine: &VibrationEngine) -> VibrationEngine {
    let mut bytes = Vec::new();
    engine.write_checkpoint(&mut bytes);
    let mut input = &*bytes;
    let read = VibrationEngine::read_checkpoint(&mut input, Arc::clone(engine.specs())).unwrap();
    assert!(input.is_empty());
    read
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_checkpoints_and_reloads_windows_are_the_same(
        steps in proptest::collection::vec((0usize..50, 0u8..40, -1.0f64..1.0), 1..300),
    ) {
        let mut engine = VibrationEngine::new(specs("window = 64"));
        let mut other = VibrationEngine::new(specs("window = 64"));
        let (mut out, mut same) = (Vec::new(), Vec::new());
        let mut at = 0;
        for (skip, what, value) in steps {
            at += 1 + skip / 49;
            engine.step(&place("a"), &sample(at, value), &mut out);
            other.step(&place("a"), &sample(at, value), &mut same);
            match what {
                0 => other = reborn(&other),
                1 => other.replace(specs("window = 64")),
                _ => {}
            }
        }
        prop_assert_eq!(out, same);
    }

    #[test]
    fn arbitrary_samples_and_bytes_never_panic(
        samples in proptest::collection::vec((any::<i64>(), any::<f64>()), 0..100),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        byte in (any::<proptest::sample::Index>(), any::<u8>()),
    ) {
        let mut engine = VibrationEngine::new(specs(&format!("window = 64\n{MACHINE}")));
        let mut out = Vec::new();
        for (time, value) in samples {
            let sample = Sample { event_time: time, ..sample(0, value) };
            engine.step(&place("a"), &sample, &mut out);
        }
        let mut bytes = Vec::new();
        engine.write_checkpoint(&mut bytes);
        *byte.0.get_mut(&mut bytes) = byte.1;
        let mut versioned = vec![1, 0];
        versioned.extend_from_slice(&noise);
        for bytes in [&bytes, &noise, &versioned] {
            let read = VibrationEngine::read_checkpoint(&mut &**bytes, specs("window = 64"));
            if let Ok(mut engine) = read {
                for i in 0..64 {
                    engine.step(&place("a"), &sample(i, 1.0), &mut out);
                }
            }
        }
        prop_assert!(out.iter().all(|of| of.values.iter().all(|value| value.is_finite())));
    }

    #[test]
    fn any_length_gives_numbers(length in 64usize..700, seed in any::<u64>()) {
        let of = only(MACHINE, noise(length, seed));
        prop_assert!(of.values().all(|value| value.is_finite()));
        prop_assert!(of["rms"] > 0.5 && of["rms"] < 1.5);
    }
}
