//! When windows close, and that they never open again.

use super::*;

#[test]
fn a_window_closes_when_the_watermark_passes_its_end_and_not_before() {
    let mut case = Case::new(SECOND);
    case.step(0, 900 * MS, 1.0);
    case.step(0, 1_499_999, 1.0);
    // Not late, although its window's end is in sight.
    case.step(0, 999_999, 2.0);
    assert_eq!(case.out, []);
    case.step(0, 1_500 * MS, 1.0);
    assert_eq!(case.told(), [(0, "second".to_owned(), 0, S, 2)]);
}

#[test]
fn the_windows_of_all_series_of_a_device_close_by_its_watermark_and_no_others() {
    let mut case = Case::new(SECOND);
    for series in 0..6 {
        case.step(series, 100 * MS, 1.0);
    }
    case.step(1, 1_500 * MS, 1.0);
    let closed: Vec<u32> = case.told().iter().map(|told| told.0).collect();
    assert_eq!(closed, [0, 1, 2]);
}

#[test]
fn a_late_reading_is_counted_where_its_window_is_open_and_in_no_window_otherwise() {
    let mut case = Case::new(&SECOND.replace("1_000", "10_000"));
    case.step(0, 5 * S, 1.0);
    // Behind the watermark, and its window is open.
    let (verdict, behind) = case.judge(0, MAY + 4 * S, 100.0);
    assert!(verdict.late && !behind);
    case.step(0, 10_500 * MS, 1.0);
    let aggregate = case.only();
    assert_eq!(
        (aggregate.count, aggregate.late, aggregate.max),
        (1, 1, 1.0)
    );
    assert!(!aggregate.complete);
    // Its window is closed.
    let (verdict, behind) = case.judge(0, MAY + 4 * S, 100.0);
    assert!(verdict.late && behind);
    // Of another series, that had no reading then: a late one opens nothing.
    let (verdict, behind) = case.judge(1, MAY + 4 * S, 100.0);
    assert!(verdict.late && behind);
    case.after(60 * S);
    let counts: Vec<(u32, u64)> = case.told().iter().map(|told| (told.0, told.4)).collect();
    assert_eq!(counts, [(0, 1)]);
    let counts = case.windows.counts();
    assert_eq!((counts.late, counts.behind), (1, 2));
}

#[test]
fn a_window_of_nothing_but_late_readings_is_told_to_nobody() {
    let mut case = Case::new(&SECOND.replace("1_000", "10_000"));
    case.step(0, 5 * S, 1.0);
    case.step(1, 4 * S, 1.0);
    case.after(60 * S);
    let told: Vec<u32> = case.told().iter().map(|told| told.0).collect();
    assert_eq!(told, [0]);
}

#[test]
fn when_a_device_is_silent_its_windows_close_by_received_time() {
    let mut case = Case::new(SECOND);
    case.step(0, 300 * MS, 1.0);
    // Its own time would be past the end and the lateness, but it is not idle yet.
    assert_eq!(case.windows.poll_timeout(), Some(case.steady + 2 * S));
    case.after(2 * S - 1);
    assert_eq!(case.out, []);
    case.after(1);
    let aggregate = case.only();
    assert_eq!((aggregate.count, aggregate.closed), (1, Closed::Idle));
    assert_eq!(case.windows.poll_timeout(), None);
}

#[test]
fn a_long_window_waits_for_its_end_however_idle_its_device_is() {
    let mut case = Case::new(&SECOND.replace("1_000", "60_000"));
    case.step(0, 300 * MS, 1.0);
    assert_eq!(case.windows.poll_timeout(), Some(60_200 * MS));
    case.after(30 * S);
    // Back with a backlog, in the middle of the window: all of it is in.
    for i in 1..30 {
        assert!(!case.step(0, i * S, 1.0));
    }
    case.after(31 * S);
    assert_eq!(case.out, []);
    case.after(S);
    assert_eq!(case.only().count, 30);
}

#[test]
fn a_device_that_comes_back_with_its_backlog_fills_every_window_but_the_one_that_closed() {
    let mut case = Case::new(SECOND);
    case.step(0, 300 * MS, 1.0);
    case.after(600 * S);
    assert_eq!(case.only().closed, Closed::Idle);
    // The rest of that window, and then ten minutes.
    let (verdict, behind) = case.judge(0, MAY + 400 * MS, 1.0);
    assert!(
        !verdict.late && behind,
        "behind its window, not behind the watermark"
    );
    for i in 1..600 {
        assert!(!case.step(0, i * S, 1.0));
    }
    case.after(10 * S);
    assert_eq!(case.told().len(), 599);
    assert_eq!(case.windows.counts().behind, 1);
}

#[test]
fn a_slow_device_is_idle_between_its_readings_and_loses_none_of_them() {
    let mut case = Case::new(SECOND);
    let readings: Vec<(i64, f64)> = (0..50)
        .map(|i| (i * 10 * S + i % 3 * 700 * MS, 1.0))
        .collect();
    case.live(&readings);
    case.after(10 * S);
    assert_eq!(case.told().len(), 50);
    assert_eq!(case.windows.counts().behind, 0);
}

#[test]
fn an_alarm_is_never_early_and_a_tick_at_it_always_closes_something() {
    let mut case = Case::new(&format!("{SECOND}{SLIDING}{SESSION}{COUNT}"));
    let readings: Vec<(i64, f64)> = (0..200).map(|i| (i * 100 * MS, 1.0)).collect();
    case.live(&readings);
    for series in 1..9 {
        case.step(series, 20 * S + i64::from(series) * 37 * MS, 1.0);
    }
    case.out.clear();
    let mut ticks = 0;
    while let Some(at) = case.windows.poll_timeout() {
        case.windows.tick(at - 1, &mut case.out);
        assert_eq!(case.out, [], "{at}");
        case.windows.tick(at, &mut case.out);
        assert!(!case.out.is_empty(), "{at}");
        case.out.clear();
        ticks += 1;
    }
    assert!(ticks > 10, "{ticks}");
}

#[test]
fn a_sliding_window_costs_no_more_sketches_than_panes() {
    // 64 windows overlap; each reading goes into one pane.
    let text = "[[detect.window]]\nname = \"w\"\nkind = \"sliding\"\nsize_ms = 64_000\n\
                every_ms = 1_000\n";
    let mut case = Case::new(text);
    for i in 0..100_000 {
        case.step(0, i * MS, (i % 97) as f64);
    }
    // A second of 1,000 readings over two decades: 128 to 256 bins of 8 bytes, and the summary.
    let bytes = case.windows.state_bytes();
    assert!(bytes < 67 * 3_000, "{bytes}");
}

#[test]
fn a_device_whose_time_begins_anew_opens_no_window_twice() {
    let mut case = Case::new(&SECOND.replace("1_000", "10_000"));
    let gateway = |case: &mut Case, received_time, synchronised| {
        case.received = received_time;
        let told = Gateway {
            received_time,
            synchronised,
            greatest_time: 0,
        };
        case.steady = case.times.at(&told);
    };
    case.step(0, S, 1.0);
    // Nobody knows the time, and the only device says 2099.
    gateway(&mut case, MAY, false);
    let far = 4_080_000_000 * S;
    case.judge(0, far, 2.0);
    assert_eq!(case.only().from, MAY);
    case.judge(0, far + 20 * S, 3.0);
    assert_eq!(case.only().from, far);
    // Synchronised: it begins anew in the window of before, which is closed for ever.
    gateway(&mut case, MAY + 5 * S, true);
    let (verdict, behind) = case.judge(0, MAY + 5 * S, 4.0);
    assert!(behind && !verdict.late);
    let anew = case.only();
    assert_eq!(
        (anew.from, anew.closed, anew.complete),
        (far + 20 * S, Closed::Anew, false)
    );
    assert!(!case.judge(0, MAY + 10 * S, 5.0).1);
    case.after(60 * S);
    assert_eq!(case.only().from, MAY + 10 * S);
}
