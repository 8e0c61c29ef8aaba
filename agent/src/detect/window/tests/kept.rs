//! Checkpoints, reloads and forgetting.

use super::oracle::{Told, readings};
use super::*;
use crate::detect::state_error::StateError;
use proptest::prelude::*;

const ALL: [&str; 4] = [SECOND, SLIDING, SESSION, COUNT];

/// Reads a state back; series get places in another order than before.
fn restored(bytes: &[u8], specs: Arc<WindowSpecs>) -> Result<Windows, StateError> {
    let mut input = bytes;
    let mut places = |device: &str, metric: &str| {
        let all = (0..9).map(SeriesSlot);
        let slot = all
            .into_iter()
            .find(|slot| names(*slot) == Some((device, metric)))?;
        Some((slot, DeviceSlot(slot.0 / 3)))
    };
    let read = Windows::read_checkpoint(&mut input, specs, TimeSettings::default(), &mut places)?;
    assert_eq!(input, [0_u8; 0]);
    Ok(read)
}

fn step(case: &mut Case, told: &Told) {
    case.after(told.passed);
    case.judge(told.series, told.time, told.value);
}

proptest! {
    // A case writes and reads many checkpoints.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_checkpoint_at_any_reading_gives_the_same_as_none(
        readings in readings(0..3 * S, 1..150), every in 1_usize..9,
    ) {
        let (mut case, mut other) = (Case::new(&ALL.concat()), Case::new(&ALL.concat()));
        for (place, told) in readings.iter().enumerate() {
            if place % every == 0 {
                let specs = Arc::clone(&other.windows.specs);
                other.windows = restored(&other.kept(), specs).unwrap();
            }
            step(&mut case, told);
            step(&mut other, told);
            prop_assert_eq!(case.windows.poll_timeout(), other.windows.poll_timeout());
        }
        prop_assert_eq!(case.kept(), other.kept());
        for case in [&mut case, &mut other] {
            case.after(7_200 * S);
        }
        prop_assert_eq!(&case.out, &other.out);
        prop_assert_eq!(case.windows.state_bytes(), other.windows.state_bytes());
        prop_assert_eq!(case.windows.poll_timeout(), None);
    }

    #[test]
    fn a_reload_of_the_same_windows_in_any_order_changes_nothing_of_them(
        readings in readings(0..3 * S, 1..150), every in 1_usize..9,
        order in Just([0, 1, 2, 3]).prop_shuffle(),
    ) {
        let (mut case, mut other) = (Case::new(&ALL.concat()), Case::new(&ALL.concat()));
        let shuffled: String = order.iter().map(|place| ALL[*place]).collect();
        for (place, told) in readings.iter().enumerate() {
            if place % every == 0 {
                let text = if place % 2 == 0 { &shuffled } else { &ALL.concat() };
                other.windows.replace(specs(text), TimeSettings::default());
            }
            step(&mut case, told);
            step(&mut other, told);
            let sorted = |out: &[Aggregate]| {
                let mut all: Vec<_> = out.iter().map(|a| format!("{a:?}")).collect();
                all.sort();
                all
            };
            // Those that close together come in the order of the configuration.
            prop_assert_eq!(sorted(&case.out), sorted(&other.out));
            prop_assert_eq!(case.windows.poll_timeout(), other.windows.poll_timeout());
        }
        prop_assert_eq!(case.windows.state_bytes(), other.windows.state_bytes());
        prop_assert_eq!(other.windows.counts().dropped, 0);
    }

    #[test]
    fn arbitrary_bytes_are_a_state_or_an_error(
        readings in readings(0..S, 1..40), at in any::<prop::sample::Index>(), flip in 1_u8..=255,
    ) {
        let mut case = Case::new(&ALL.concat());
        readings.iter().for_each(|told| step(&mut case, told));
        let mut kept = case.kept();
        let specs = Arc::clone(&case.windows.specs);
        let place = at.index(kept.len());
        prop_assert!(Windows::read_checkpoint(
            &mut &kept[..place], Arc::clone(&specs), TimeSettings::default(),
            &mut |_, _| Some((SeriesSlot(0), DeviceSlot(0))),
        ).is_err());
        kept[place] ^= flip;
        let mut places = |device: &str, _: &str| {
            let slot = u32::from(device == "a");
            Some((SeriesSlot(slot), DeviceSlot(slot)))
        };
        let time = TimeSettings::default();
        // What can be read goes on without a panic.
        let mut kept = kept.as_slice();
        if let Ok(windows) = Windows::read_checkpoint(&mut kept, specs, time, &mut places) {
            case.windows = windows;
            readings.iter().for_each(|told| step(&mut case, told));
            case.after(100 * S);
        }
    }
}

#[test]
fn a_window_that_is_gone_is_dropped_and_a_new_one_begins_with_the_next_reading() {
    let mut case = Case::new(&format!("{SECOND}{SESSION}"));
    case.step(0, 100 * MS, 1.0);
    case.step(1, 100 * MS, 1.0);
    case.windows
        .replace(specs(&format!("{COUNT}{SECOND}")), TimeSettings::default());
    assert_eq!(case.windows.counts().dropped, 2);
    case.step(0, 200 * MS, 2.0);
    case.after(60 * S);
    let told: Vec<(u32, String, u64)> = case.told().into_iter().map(|t| (t.0, t.1, t.4)).collect();
    let of = |series, window: &str, count| (series, window.to_owned(), count);
    assert_eq!(told, [of(0, "second", 2), of(1, "second", 1)]);
    // Other lengths are another window, whatever its name.
    case.windows.replace(
        specs(&SECOND.replace("1_000", "2_000")),
        TimeSettings::default(),
    );
    assert_eq!(case.windows.counts().dropped, 3);
    // Nothing is left of a series that no window is for.
    case.windows.replace(
        specs(&format!("{SECOND}metrics = [\"p\"]\n")),
        TimeSettings::default(),
    );
    case.step(0, 100 * S, 1.0);
    case.step(1, 100 * S, 1.0);
    assert_eq!(
        (case.windows.state_bytes(), case.windows.poll_timeout()),
        (0, None)
    );
}

#[test]
fn a_series_that_no_window_was_for_finds_one_after_a_reload() {
    let mut case = Case::new(&format!("{SECOND}metrics = [\"p\"]\n"));
    case.step(0, 0, 1.0);
    case.windows.replace(specs(SECOND), TimeSettings::default());
    case.step(0, 0, 1.0);
    case.after(60 * S);
    assert_eq!(case.only().count, 1);
}

#[test]
fn state_of_windows_that_are_not_configured_any_more_is_left_out() {
    let mut case = Case::new(&ALL.concat());
    case.step(0, 0, 1.0);
    let mut windows = restored(&case.kept(), specs(SECOND)).unwrap();
    let mut out = Vec::new();
    windows.tick(60 * S, &mut out);
    let names: Vec<&str> = out.iter().map(|aggregate| &*aggregate.window).collect();
    assert_eq!(names, ["second"]);
}

#[test]
fn another_version_is_refused_with_both_numbers() {
    let mut kept = Case::new(SECOND).kept();
    kept[0] = 9;
    let wrong = restored(&kept, specs(SECOND)).err().unwrap();
    let text = "state of detection of version 9; this build reads version 1";
    assert_eq!(wrong.to_string(), text);
}

#[test]
fn what_is_forgotten_leaves_nothing_behind() {
    let mut case = Case::new(&ALL.concat());
    for series in [0, 1, 3] {
        case.step(series, 0, 1.0);
    }
    for series in [0, 1, 3] {
        case.windows.forget(SeriesSlot(series));
    }
    assert_eq!(case.windows.state_bytes(), 0);
    assert_eq!(case.windows.poll_timeout(), None);
    assert_eq!(case.windows.devices.iter().count(), 0);
    // A pane, a pane, a session and a count of each.
    assert_eq!(case.windows.counts().dropped, 12);
    case.after(60 * S);
    assert_eq!(case.out, []);
    // The place is another's then.
    case.windows.forget(SeriesSlot(0));
    case.step(0, 60 * S, 1.0);
    case.after(60 * S);
    assert_eq!(case.told().len(), 5);
}

#[test]
fn what_is_open_of_a_series_that_gives_way_closes() {
    let mut case = Case::new(&ALL.concat());
    for second in 0..3 {
        case.step(0, second * S, 1.0);
    }
    case.out.clear();
    case.windows.close(SeriesSlot(0), &mut case.out);
    let is_crowded = |it: &Aggregate| it.closed == Closed::Crowded && !it.complete;
    assert!(case.out.iter().all(is_crowded), "{:?}", case.out);
    let mut names: Vec<_> = case.out.iter().map(|it| &*it.window).collect();
    names.dedup();
    assert_eq!(names.len(), 4, "one of each kind, or more");
    case.windows.forget(SeriesSlot(0));
    assert_eq!(case.windows.counts().dropped, 0);
    assert_eq!(case.windows.state_bytes(), 0);
}
