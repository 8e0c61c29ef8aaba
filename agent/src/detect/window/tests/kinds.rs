//! What each kind of window holds, and what an aggregate says of it.

use super::*;

#[test]
fn a_tumbling_window_says_all_that_an_aggregate_has() {
    let mut case = Case::new(SECOND);
    let readings: Vec<(i64, f64)> = (0..21).map(|i| (i * 100 * MS, (i % 10) as f64)).collect();
    case.live(&readings);
    let first = case.only();
    assert_eq!((first.from, first.to, first.count), (MAY, MAY + S, 10));
    assert_eq!((first.min, first.max, first.mean), (0.0, 9.0, 4.5));
    assert!((first.std - 8.25_f64.sqrt()).abs() < 1e-12);
    assert_eq!((first.first, first.last), (0.0, 9.0));
    let quantiles = Quantiles {
        p50: 4.0,
        p95: 8.0,
        p99: 8.0,
    };
    assert_eq!(first.quantiles, Some(quantiles));
    assert_eq!((first.late, first.closed), (0, Closed::Watermark));
    assert!(first.complete && first.trusted);
    assert_eq!(&*first.window, "second");
    assert_eq!((first.series, first.device), (SeriesSlot(0), DeviceSlot(0)));
}

#[test]
fn first_and_last_are_by_event_time_and_of_equal_times_the_first_and_the_last_that_came() {
    let mut case = Case::new(SECOND);
    for (after, value) in [
        (300, 1.0),
        (100, 2.0),
        (100, 3.0),
        (500, 4.0),
        (500, 5.0),
        (400, 6.0),
    ] {
        case.step(0, after * MS, value);
    }
    case.step(0, 2 * S, 0.0);
    let aggregate = case.only();
    assert_eq!(
        (aggregate.first, aggregate.last, aggregate.count),
        (2.0, 5.0, 6)
    );
}

#[test]
fn a_sliding_window_holds_each_reading_as_often_as_it_overlaps() {
    let mut case = Case::new(SLIDING);
    case.live(&[(500 * MS, 1.0), (1_500 * MS, 2.0), (4_500 * MS, 3.0)]);
    case.after(60 * S);
    let told = case.told();
    let second = |from: i64, to: i64, count| (0, "sliding".to_owned(), from * S, to * S, count);
    assert_eq!(
        told,
        [
            second(-2, 1, 1),
            second(-1, 2, 2),
            second(0, 3, 2),
            second(1, 4, 1),
            second(2, 5, 1),
            second(3, 6, 1),
            second(4, 7, 1),
        ]
    );
    assert_eq!(case.windows.state_bytes(), series_bytes(1));
}

/// Bytes of a series with so many kinds of windows and nothing open.
fn series_bytes(kinds: usize) -> usize {
    let mut series = Series::new(DeviceSlot(0), 0);
    let shape = spec::Shape::Count {
        readings: 2,
        length_max: 1,
    };
    series.held = (0..kinds).map(|_| Held::new(0, &shape)).collect();
    series.bytes()
}

#[test]
fn a_step_that_does_not_divide_the_length_makes_panes_of_their_common_divisor() {
    let text = "[[detect.window]]\nname = \"w\"\nkind = \"sliding\"\nsize_ms = 5_000\n\
                every_ms = 2_000\n";
    let mut case = Case::new(text);
    case.live(&[(0, 1.0), (3 * S, 1.0), (4_999 * MS, 1.0)]);
    case.after(60 * S);
    let told: Vec<(i64, i64, u64)> = case
        .told()
        .into_iter()
        .map(|(_, _, from, to, count)| (from / S, to / S, count))
        .collect();
    // 2026-05-01 is an even number of seconds since 1970.
    let all = [(-3, 2, 1), (-1, 4, 2), (1, 6, 2), (3, 8, 2)];
    assert_eq!(told, all);
}

#[test]
fn a_session_ends_with_a_pause_and_one_between_two_makes_them_one() {
    let mut case = Case::new(SESSION);
    case.live(&[(0, 1.0), (4_999 * MS, 2.0), (10_499 * MS, 3.0)]);
    let session = case.only();
    // 1 µs behind the last reading.
    assert_eq!(
        (session.from, session.to, session.count),
        (MAY, MAY + 4_999 * MS + 1, 2)
    );
    assert!(session.complete);
    // A pause of exactly the gap keeps them apart, also once another one came between.
    let text = SESSION.replace("5_000", "300");
    let mut case = Case::new(&text);
    for after in [0, 500, 200] {
        case.step(0, after * MS, 1.0);
    }
    case.after(60 * S);
    let counts: Vec<u64> = case.told().iter().map(|told| told.4).collect();
    assert_eq!(counts, [2, 1]);
    let mut case = Case::new(&text);
    for after in [0, 400, 200] {
        case.step(0, after * MS, 1.0);
    }
    case.after(60 * S);
    assert_eq!(case.told(), [(0, "session".to_owned(), 0, 400 * MS + 1, 3)]);
}

#[test]
fn a_session_that_never_pauses_closes_at_its_greatest_length() {
    let mut case = Case::new(&format!("{SESSION}length_max_ms = 10_000\n"));
    let readings: Vec<(i64, f64)> = (0..25).map(|i| (i * S, 1.0)).collect();
    case.live(&readings);
    case.after(60 * S);
    let told: Vec<(i64, u64)> = case.told().iter().map(|t| (t.2 / S, t.4)).collect();
    assert_eq!(told, [(0, 10), (10, 10), (20, 5)]);
}

#[test]
fn a_count_closes_with_its_last_reading_and_incomplete_when_it_takes_too_long() {
    let mut case = Case::new(&format!("{COUNT}length_max_ms = 10_000\n"));
    case.live(&[(0, 1.0), (S, 2.0), (2 * S, 3.0)]);
    assert_eq!(case.out, []);
    case.live(&[(3 * S, 4.0)]);
    let full = case.only();
    assert_eq!((full.from, full.to, full.mean), (MAY, MAY + 3 * S + 1, 2.5));
    assert_eq!((full.complete, full.closed), (true, Closed::Full));
    case.step(0, 4 * S, 5.0);
    case.step(0, 14_500 * MS, 6.0);
    let slow = case.only();
    assert_eq!(
        (slow.count, slow.complete, slow.closed),
        (1, false, Closed::Watermark)
    );
}

#[test]
fn windows_are_utc_and_a_change_of_summer_time_is_an_hour_like_another() {
    // Europe changed on 2026-03-29 at 01:00 UTC.
    let change = 1_774_746_000 * S;
    let text = SECOND.replace("1_000", "3_600_000");
    let mut case = Case::new(&text);
    for i in -8..8 {
        case.judge(0, change + i * 900 * S, 1.0);
    }
    case.judge(0, change + 8 * 900 * S + S, 1.0);
    let told: Vec<(i64, u64)> = case
        .out
        .iter()
        .map(|a| ((a.from - change) / S, a.count))
        .collect();
    assert_eq!(told, [(-7_200, 4), (-3_600, 4), (0, 4), (3_600, 4)]);
}

#[test]
fn only_selected_series_have_windows_and_others_cost_nothing() {
    let text = format!("{SECOND}devices = [\"b/+\"]\nmetrics = [\"v/#\"]\n");
    let mut case = Case::new(&text);
    for series in [0, 1, 3, 5, 6, 7] {
        case.step(series, 0, 1.0);
    }
    assert_eq!(case.windows.state_bytes(), 0);
    case.step(4, 0, 1.0);
    assert!(case.windows.state_bytes() > 0);
    case.after(60 * S);
    assert_eq!(case.told(), [(4, "second".to_owned(), 0, S, 1)]);
}

#[test]
fn what_closes_together_comes_by_end_then_by_age_of_the_series_then_by_configuration() {
    let mut case = Case::new(&format!("{SLIDING}{SECOND}"));
    // Series 2 is the oldest.
    for series in [2, 0, 1] {
        case.step(series, 100 * MS, 1.0);
    }
    case.step(0, 2_500 * MS, 1.0);
    let told: Vec<(i64, u32, String)> = case
        .told()
        .into_iter()
        .map(|(series, window, _, to, _)| (to / S, series, window))
        .collect();
    let of = |to, series, window: &str| (to, series, window.to_owned());
    assert_eq!(
        told,
        [
            of(1, 2, "sliding"),
            of(1, 2, "second"),
            of(1, 0, "sliding"),
            of(1, 0, "second"),
            of(1, 1, "sliding"),
            of(1, 1, "second"),
            of(2, 2, "sliding"),
            of(2, 0, "sliding"),
            of(2, 1, "sliding"),
        ]
    );
}

#[test]
fn a_window_is_complete_when_the_series_was_present_through_it() {
    let ten_hz = |from: i64, to: i64| (from * 10..to * 10).map(|i| (i * 100 * MS, 1.0));
    let complete = |readings: Vec<(i64, f64)>, more: &str| {
        let mut case = Case::new(&format!("{SECOND}{more}"));
        case.live(&readings);
        case.after(60 * S);
        let told = case.out.iter().map(|a| a.complete);
        told.collect::<Vec<bool>>()
    };
    assert_eq!(complete(ten_hz(0, 3).collect(), ""), [true; 3]);
    // A pause of half a second; an end; a beginning.
    let pause = ten_hz(0, 3).filter(|(at, _)| !(1_300 * MS..1_800 * MS).contains(at));
    assert_eq!(complete(pause.collect(), ""), [true; 3]);
    let pause = ten_hz(0, 3).filter(|(at, _)| !(1_200 * MS..1_900 * MS).contains(at));
    assert_eq!(complete(pause.collect(), ""), [true, false, true]);
    let end = ten_hz(0, 2).filter(|(at, _)| *at < 1_600 * MS);
    assert_eq!(complete(end.collect(), ""), [true, false]);
    let begin = ten_hz(0, 2).filter(|(at, _)| *at > 400 * MS);
    assert_eq!(complete(begin.collect(), ""), [false, true]);
    // Two readings tell no interval; the configuration may.
    let two = vec![(200 * MS, 1.0), (800 * MS, 1.0)];
    assert_eq!(complete(two.clone(), ""), [false]);
    assert_eq!(complete(two, "expected_interval_ms = 500\n"), [true]);
}

#[test]
fn one_time_that_is_not_trusted_makes_its_window_so() {
    let mut case = Case::new(SECOND);
    case.step(0, 0, 1.0);
    // 2099: it goes on where its device's time would be.
    let (verdict, behind) = case.judge(0, 4_080_000_000 * S, 2.0);
    assert!(verdict.suspect && !behind);
    case.step(0, 2 * S, 1.0);
    let aggregate = case.only();
    assert_eq!((aggregate.count, aggregate.trusted), (2, false));
}
