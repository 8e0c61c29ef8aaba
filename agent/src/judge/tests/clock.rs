//! What the gateway's clock does to rules when it is set; and what ends with a device.

use super::*;

pub(super) const YEAR: i64 = 365 * 86_400;

fn silence() -> Settings {
    let text = "[detect]\npreset = \"quiet\"\nweekly = false\n[[detect.rule]]\nname = \"gone\"\n\
                kind = \"silence\"\nmetric = \"*\"\nfor_s = 600\n";
    Settings::parse(text).unwrap()
}

fn seconds_of(told: &mut Told, device: &str, seconds: std::ops::Range<i64>) {
    for second in seconds {
        told.message(second, &format!("{device}/t"), "1");
    }
}

/// Ticks as they come while nothing else does.
fn ticks(told: &mut Told, from: i64, to: i64) {
    for second in (from..=to).step_by(10) {
        told.tick(second);
    }
}

/// When a device was told to be silent, in seconds of the log.
fn silent_at(told: &Told, device: &str) -> Vec<f64> {
    let raised = told.said.iter().filter_map(|said| match &said.what {
        What::Alert(spoken) if spoken.state == AlertState::Raised => Some(spoken),
        _ => None,
    });
    let of = raised.filter(|spoken| spoken.device == device);
    of.map(|spoken| (spoken.meta.event_time - NOW) as f64 / 1e6)
        .collect()
}

#[test]
fn a_clock_that_is_set_back_ends_no_hold_and_silences_are_told_by_it() {
    let mut told = Told::new(&silence());
    seconds_of(&mut told, "old", 7_200..7_210);
    seconds_of(&mut told, "new", 0..20);
    assert_eq!(told.said, []);
    told.again();
    ticks(&mut told, 20, 1_000);
    // The old one spoke 10 s before the new one began, and then for 9 s.
    assert_eq!(silent_at(&told, "old"), [600.0]);
    assert_eq!(silent_at(&told, "new"), [619.0]);
    told.said.clear();
    seconds_of(&mut told, "new", 1_000..1_001);
    assert_eq!(told.told("cleared").len(), 1);
}

#[test]
fn a_clock_that_is_set_ahead_is_no_silence() {
    for own in [false, true] {
        let mut told = Told::new(&silence());
        let of = |second: i64, ahead: i64| match own {
            // The devices' clocks are set, too.
            true => value(second + ahead, 1.0),
            false => "1".to_owned(),
        };
        for second in 0..20 {
            told.message(second, "a/t", &of(second, 0));
            told.message(second, "b/t", &of(second, 0));
        }
        for second in 20..40 {
            told.message(second + 7_200, "a/t", &of(second, 7_200));
        }
        told.message(7_240, "b/t", &of(40, 7_200));
        assert_eq!(told.said, [], "{own}");
        ticks(&mut told, 7_240, 8_000);
        assert_eq!(silent_at(&told, "a"), [7_839.0]);
        assert_eq!(silent_at(&told, "b"), [7_840.0]);
    }
}

#[test]
fn a_gateway_that_was_once_in_2090_is_as_it_was() {
    let mut told = Told::new(&silence());
    seconds_of(&mut told, "d", 0..20);
    seconds_of(&mut told, "d", 64 * YEAR..64 * YEAR + 1);
    told.again();
    seconds_of(&mut told, "d", 30..50);
    seconds_of(&mut told, "e", 100..160);
    assert_eq!(told.said, []);
    assert!(!told.judge.series.times.is_gateway_trusted());
    ticks(&mut told, 160, 3_700);
    assert!(told.judge.series.times.is_gateway_trusted());
    told.again();
    assert_eq!(silent_at(&told, "d"), [649.0]);
    assert_eq!(silent_at(&told, "e"), [759.0]);
    told.said.clear();
    seconds_of(&mut told, "e", 3_700..3_760);
    assert_eq!(told.told("cleared").len(), 1);
    assert_eq!(told.told("raised").len(), 0);
}

#[test]
fn series_that_began_in_2090_are_judged_once_the_clock_is_right() {
    for preset in [Preset::Sensitive, Preset::Calm] {
        let settings = Settings {
            preset,
            ..sensitive()
        };
        let mut told = Told::new(&settings);
        let wrong = 67 * YEAR;
        for second in (0..5_000).step_by(10) {
            let payload = usual(second / 10).to_string();
            told.message(wrong + second, "d/t", &payload);
        }
        // It is set right, and believed after an hour.
        for second in (5_000..10_000).step_by(10) {
            told.message(second, "d/t", &usual(second / 10).to_string());
            if second == 7_000 {
                told.again();
            }
        }
        assert!(told.judge.series.times.is_gateway_trusted());
        told.message(10_000, "d/t", "900");
        assert_eq!(told.judge.counts().late, 0);
        let alert = told.raised().pop().unwrap();
        let around = alert["around"].as_array().unwrap().iter();
        let around: Vec<i64> = around
            .map(|reading| (reading[0].as_i64().unwrap() - NOW) / SECOND)
            .collect();
        assert_eq!(around, [9_960, 9_970, 9_980, 9_990, 10_000], "{preset:?}");
    }
}

#[test]
fn a_tick_is_due_soon_after_any_record_while_something_is_watched() {
    let mut told = Told::new(&sensitive());
    assert_eq!(told.judge.poll_timeout(), None);
    seconds_of(&mut told, "d", 0..1);
    let due = NOW + crate::limits::TICK_EVERY_US;
    assert_eq!(told.judge.poll_timeout(), Some(due));
    told.tick(10);
    assert_eq!(told.judge.poll_timeout(), Some(due + 10 * SECOND));
}

#[test]
fn samples_that_there_is_no_room_for_are_no_readings() {
    let text = "[detect]\n[[detect.vibration]]\nmetric = \"v\"\nwindow = 16384\n";
    let mut told = Told::new(&Settings::parse(text).unwrap());
    for device in 0..130 {
        told.message(0, &format!("d{device}/v"), "1");
    }
    told.again();
    told.message(1, "d129/v", "1");
    assert_eq!(told.judge.counts().judged, 0);
}

#[test]
fn the_state_of_a_machine_that_is_forgotten_is_over() {
    let text = "[detect]\nseries_max = 3\n[[detect.group]]\nname = \"spindle\"\n\
                metrics = [\"a\", \"b\"]\n";
    let mut told = Told::new(&Settings::parse(text).unwrap());
    let mut seed = 7_u64;
    for second in 0..800 {
        let off = if second < 600 { 0.0 } else { 6.0 };
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            50.0 + off + (seed % 2_001) as f64 / 1_000.0
        };
        let row = format!("{{\"a\":{},\"b\":{}}}", next(), next());
        told.message(second, "mill", &row);
    }
    let of_state = |told: &Told, state: &str| {
        let all = told.told(state);
        all.iter().filter(|alert| alert["kind"] == "state").count()
    };
    assert_eq!(
        (of_state(&told, "raised"), of_state(&told, "cleared")),
        (1, 0)
    );
    for other in 0..3 {
        told.message(800, &format!("o{other}/t"), "1");
    }
    assert_eq!(of_state(&told, "cleared"), 1);
    assert!(
        told.judge
            .standing()
            .next()
            .is_none_or(|(topic, _)| !topic.contains("spindle"))
    );
}

#[test]
fn a_clock_that_is_set_holds_back_no_alert_and_lets_no_flood_through() {
    let settings = Settings::parse(&limit("load", "load", "info")).unwrap();
    for set in [-3_600, 3_600] {
        let mut told = Told::new(&settings);
        for device in 0..400 {
            told.message(10, &format!("d{device}/load"), "90");
        }
        let at_once = told.raised().len();
        assert!(at_once < 400);
        // What was not told is owed, and a summary of it is due, by the seconds that pass.
        told.again();
        told.tick(10 + set);
        assert_eq!(told.raised().len(), at_once, "{set}: no time has passed");
        told.tick(11 + set);
        let first = told.raised().len() - at_once;
        let each = crate::limits::ALERTS_PER_SECOND_MAX as usize;
        assert_eq!(first, each + 1, "{set}: a second's worth, and the summary");
        told.tick(12 + set);
        assert_eq!(told.raised().len(), at_once + first + each);
    }
}

#[test]
fn the_clock_is_trusted_once_the_kernel_calls_it_synchronised() {
    let says = |synchronised, boot| KernelClock {
        synchronised: Some(synchronised),
        boot,
    };
    let tick = |told: &mut Told, kind, second: i64, kernel| {
        let batch = time_record(kind, NOW + second * SECOND, kernel);
        let (_, bytes) = batch.iter().next().unwrap();
        told.record(kind, bytes);
        told.again();
        told.judge.is_clock_trusted()
    };
    let mut told = Told::new(&sensitive());
    assert!(!tick(&mut told, RecordKind::Clock, 0, says(false, 7)));
    seconds(&mut told, 0..5);
    assert!(!told.judge.is_clock_trusted());
    assert!(tick(&mut told, RecordKind::Tick, 5, says(true, 7)));
    // Once in this boot is enough, also for the next life in it; another boot has to say so.
    assert!(tick(&mut told, RecordKind::Tick, 6, says(false, 7)));
    assert!(tick(&mut told, RecordKind::Clock, 7, says(false, 7)));
    assert!(!tick(&mut told, RecordKind::Clock, 8, says(false, 8)));
    // Where nobody can say, a clock that may be right is.
    assert!(tick(
        &mut told,
        RecordKind::Clock,
        9,
        KernelClock::default()
    ));
    assert!(!tick(&mut told, RecordKind::Clock, 10, says(false, 9)));
    told.settings(&Settings {
        clock: crate::detect::ClockTrust::Plausible,
        ..sensitive()
    });
    seconds(&mut told, 10..12);
    assert!(told.judge.is_clock_trusted());
}

#[test]
fn a_record_of_time_from_before_the_kernel_was_asked_is_read() {
    let mut told = Told::new(&sensitive());
    seconds(&mut told, 0..5);
    let old = [&[VERSION][..], &(NOW + 9 * SECOND).to_le_bytes()].concat();
    told.record(RecordKind::Tick, &old);
    assert_eq!(told.judge.received(), NOW + 9 * SECOND);
    assert!(told.judge.is_clock_trusted());
    for wrong in [&old[..8], &[3; 18], &[TIME_VERSION; 9]] {
        told.record(RecordKind::Tick, wrong);
    }
    assert_eq!(told.judge.received(), NOW + 9 * SECOND);
}
