//! What is no reading that a window could take, and more than there is room for.

use super::*;
use crate::limits::WINDOW_OPEN_MAX;
use proptest::prelude::*;

#[test]
fn what_is_no_finite_number_is_counted_and_moves_time_on() {
    let mut case = Case::new(SECOND);
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0] {
        case.step(0, 100 * MS, value);
    }
    case.step(0, 1_500 * MS, f64::NAN);
    let aggregate = case.only();
    assert_eq!((aggregate.count, aggregate.mean), (1, 1.0));
    assert_eq!(case.windows.counts().not_finite, 4);
}

#[test]
fn the_greatest_values_give_finite_aggregates() {
    let mut case = Case::new(SECOND);
    for (i, value) in [f64::MAX, f64::MIN, f64::MAX, f64::MIN]
        .into_iter()
        .enumerate()
    {
        case.step(0, i as i64 * MS, value);
    }
    case.step(0, 2 * S, 1.0);
    let aggregate = case.only();
    assert_eq!((aggregate.min, aggregate.max), (f64::MIN, f64::MAX));
    assert!(aggregate.mean.is_finite() && aggregate.mean.abs() < 1e300);
    assert_eq!(aggregate.std, f64::MAX);
    assert!(aggregate.quantiles.is_some());
}

#[test]
fn a_great_offset_does_not_hide_what_is_small() {
    let mut case = Case::new(SECOND);
    for i in 0..1_000 {
        case.step(0, i * MS, 1e9 + f64::from(i as i32 % 2));
    }
    case.step(0, 2 * S, 1.0);
    let aggregate = case.only();
    assert!((aggregate.std - 0.5).abs() < 1e-9, "{}", aggregate.std);
    assert!((aggregate.mean - 1e9 - 0.5).abs() < 1e-6);
}

/// Steps windows without event time, as nothing on the gateway does.
fn raw(windows: &mut Windows, time: i64, late: bool, progress: (i64, i64, i64)) -> bool {
    let (watermark, newest, heard) = progress;
    let place = Place {
        series: SeriesSlot(0),
        device: DeviceSlot(0),
        device_name: "a",
        metric: "t",
        unit: "",
    };
    let sample = Sample {
        event_time: time,
        received_time: 0,
        value: 1.0,
        late,
        trusted: true,
    };
    let progress = Progress {
        watermark,
        newest,
        newest_at: heard,
        heard,
    };
    let mut out = Vec::new();
    windows.step(&place, &sample, &progress, &mut out)
}

#[test]
fn times_beyond_what_is_placed_are_counted() {
    let mut case = Case::new(SECOND);
    for time in [i64::MIN, i64::MAX, i64::MAX / 2] {
        assert!(!raw(&mut case.windows, time, false, (0, 0, 0)));
    }
    assert_eq!(case.windows.counts().not_placed, 3);
    assert_eq!(case.windows.state_bytes(), 0);
}

#[test]
fn more_open_windows_than_may_be_close_the_oldest() {
    let mut case = Case::new(SECOND);
    // A watermark that stays behind for ever.
    let many = WINDOW_OPEN_MAX as i64 + 10;
    for i in 0..many {
        raw(&mut case.windows, i * S, false, (i64::MIN, i * S, 0));
    }
    assert_eq!(case.windows.counts().closed_crowded, 10);
    // They are closed for ever.
    assert!(raw(
        &mut case.windows,
        9 * S,
        false,
        (i64::MIN, many * S, 0)
    ));
    assert!(!raw(
        &mut case.windows,
        10 * S,
        false,
        (i64::MIN, many * S, 0)
    ));
}

#[test]
fn without_room_nothing_opens_and_quantiles_are_given_up_before_windows() {
    let mut case = Case::new(SECOND);
    case.step(0, 0, 1.0);
    let used = case.windows.state_bytes();
    case.windows.room.most = used;
    case.step(1, 0, 1.0);
    assert_eq!(case.windows.counts().no_room, 1);
    // The fifth value would need more room.
    for i in 1..5 {
        case.step(0, i * MS, 1.0);
    }
    assert!(case.windows.state_bytes() <= used);
    case.after(10 * S);
    let aggregate = case.only();
    assert_eq!(
        (aggregate.count, aggregate.mean, aggregate.quantiles),
        (5, 1.0, None)
    );
    // What closed left room.
    case.step(0, 20 * S, 1.0);
    case.after(10 * S);
    assert_eq!(case.only().count, 1);
}

#[test]
fn places_beyond_the_bound_have_no_windows() {
    let mut case = Case::new(SECOND);
    let progress = Progress {
        watermark: 0,
        newest: 0,
        newest_at: 0,
        heard: 0,
    };
    let place = Place {
        series: SeriesSlot(u32::MAX),
        device: DeviceSlot(u32::MAX),
        device_name: "a",
        metric: "t",
        unit: "",
    };
    let sample = Sample {
        event_time: 0,
        received_time: 0,
        value: 1.0,
        late: false,
        trusted: true,
    };
    assert!(!case.windows.step(&place, &sample, &progress, &mut case.out));
    assert_eq!(case.windows.counts().no_room, 1);
}

#[test]
fn an_open_window_of_ten_readings_takes_less_than_700_bytes_with_its_series() {
    let mut case = Case::new(SECOND);
    for i in 0..10 {
        case.step(0, i * 100 * MS, 1.0);
    }
    let bytes = case.windows.state_bytes();
    assert!(bytes <= 700, "{bytes}");
    assert!(size_of::<Summary>() <= 128, "{}", size_of::<Summary>());
}

use super::super::summary::Summary;

proptest! {
    #[test]
    fn whatever_windows_are_told_they_go_on(
        readings in proptest::collection::vec(
            (any::<i64>(), any::<bool>(), any::<i64>(), any::<i64>(), any::<i64>(), any::<u8>()),
            1..60),
    ) {
        let mut case = Case::new(&format!("{SECOND}{SLIDING}{SESSION}{COUNT}"));
        for (time, late, watermark, newest, heard, shift) in readings {
            let near = |number: i64| number >> (shift % 64);
            raw(&mut case.windows, near(time), late, (near(watermark), near(newest), near(heard)));
            case.windows.poll_timeout();
            case.windows.tick(near(heard), &mut case.out);
        }
        let kept = case.kept();
        let mut places = |_: &str, _: &str| Some((SeriesSlot(0), DeviceSlot(0)));
        let specs = Arc::clone(&case.windows.specs);
        let time = TimeSettings::default();
        let read = Windows::read_checkpoint(&mut kept.as_slice(), specs, time, &mut places);
        prop_assert_eq!(read.unwrap().state_bytes(), case.windows.state_bytes());
    }
}
