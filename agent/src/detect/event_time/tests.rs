//! Each thing that goes wrong with clocks: what becomes of it, and who counts it.

use super::*;
use crate::limits::{CLOCK_BELIEVED_AFTER_US, CLOCK_DISORDER_US, CLOCK_STEP_US, TICK_EVERY_US};
use proptest::prelude::*;

const S: i64 = 1_000_000;
const HOUR: i64 = 3_600 * S;
/// 2026-05-01T00:00:00Z.
const MAY: i64 = 1_777_593_600 * S;
const YEAR_1970: i64 = 100 * S;
const YEAR_2099: i64 = 4_080_000_000 * S;

/// Event time, and the clock of its gateway.
struct Case {
    times: EventTime,
    received: i64,
    greatest: i64,
    synchronised: bool,
}

impl Case {
    fn new() -> Self {
        Self::booted(MAY, 0, true)
    }

    fn booted(received: i64, greatest: i64, synchronised: bool) -> Self {
        Self {
            times: EventTime::new(TimeSettings::default()),
            received,
            greatest,
            synchronised,
        }
    }

    /// Records until so much time has passed, as ticks come.
    fn after(&mut self, passed: i64) -> i64 {
        let mut left = passed;
        while left > TICK_EVERY_US {
            self.set(TICK_EVERY_US);
            left -= TICK_EVERY_US;
        }
        self.set(left)
    }

    /// A record behind which the clock says so much more.
    fn set(&mut self, by: i64) -> i64 {
        self.received += by;
        self.record()
    }

    fn record(&mut self) -> i64 {
        let steady = self.times.at(&Gateway {
            received_time: self.received,
            synchronised: self.synchronised,
            greatest_time: self.greatest,
        });
        if self.times.is_gateway_trusted() {
            self.greatest = self.times.received_at(steady);
        }
        steady
    }

    fn step(&mut self, device: u32, event_time: i64) -> TimeVerdict {
        self.record();
        self.times.step(&Timed {
            device: DeviceSlot(device),
            event_time,
            has_device_time: true,
        })
    }

    fn without_time(&mut self, device: u32) -> TimeVerdict {
        self.record();
        self.times.step(&Timed {
            device: DeviceSlot(device),
            event_time: self.received,
            has_device_time: false,
        })
    }

    /// `late` of readings that come a second after another with these times.
    fn late(&mut self, device: u32, event_times: &[i64]) -> Vec<bool> {
        let each = event_times.iter();
        each.map(|time| {
            self.after(S);
            self.step(device, *time).late
        })
        .collect()
    }

    fn watermark(&self, device: u32) -> i64 {
        self.times.progress(DeviceSlot(device)).unwrap().watermark
    }
}

#[test]
fn a_device_has_72_bytes() {
    assert_eq!(size_of::<DeviceClock>(), 72);
    assert_eq!(size_of::<Option<DeviceClock>>(), 72);
}

#[test]
fn a_watermark_stays_behind_the_newest_reading_by_the_allowed_lateness() {
    let mut case = Case::new();
    assert_eq!(case.step(0, MAY).progress.watermark, MAY - S / 2);
    // Behind the newest, and not behind the watermark; then behind that by a microsecond.
    assert!(!case.step(0, MAY - S / 2).late);
    let late = case.step(0, MAY - S / 2 - 1);
    assert!(late.late && late.trusted && !late.suspect);
    assert_eq!((late.time, late.progress.newest), (MAY - S / 2 - 1, MAY));
    assert_eq!(case.times.counts().late, 1);
}

#[test]
fn repeated_times_are_never_late_and_decreasing_ones_are_beyond_the_lateness() {
    let mut case = Case::new();
    assert_eq!(case.late(0, &[MAY; 5]), [false; 5]);
    let falling: Vec<i64> = (0..6).map(|i| MAY - i * 200_000).collect();
    let mut case = Case::new();
    let late: Vec<bool> = falling.iter().map(|t| case.step(0, *t).late).collect();
    assert_eq!(late, [false, false, false, true, true, true]);
    assert_eq!(case.times.counts().late, 3);
}

#[test]
fn after_the_idle_timeout_nothing_is_waited_for_and_what_comes_in_order_is_on_time() {
    let mut case = Case::new();
    case.step(0, MAY);
    case.after(2 * S - 1);
    assert_eq!(case.watermark(0), MAY - S / 2);
    case.after(1);
    assert_eq!(case.watermark(0), MAY);
    assert!(!case.step(0, MAY).late);
    // The watermark does not go back when the device speaks again.
    assert_eq!(case.step(0, MAY + 100_000).progress.watermark, MAY);
    assert!(case.step(0, MAY - 1).late);
}

#[test]
fn a_device_that_was_silent_brings_its_backlog_and_none_of_it_is_late() {
    let mut case = Case::new();
    case.step(0, MAY);
    case.after(600 * S);
    for i in 1..=600 {
        case.after(1_000);
        let verdict = case.step(0, MAY + i * S);
        assert!(!verdict.late && !verdict.suspect && verdict.trusted);
        assert_eq!(verdict.time, MAY + i * S);
    }
    assert_eq!(case.times.counts(), &TimeCounts::default());
}

#[test]
fn a_device_in_2099_moves_no_watermark_to_there() {
    let mut case = Case::new();
    case.step(0, MAY);
    case.after(S);
    let suspect = case.step(0, YEAR_2099);
    assert!(suspect.suspect && !suspect.late && !suspect.trusted);
    // It goes on where the device's time would be by now.
    assert_eq!((suspect.time, suspect.progress.newest), (MAY + S, MAY + S));
    case.after(S);
    let right = case.step(0, MAY + 2 * S);
    assert!(!right.suspect && !right.late && right.trusted);
    // One that was never right has the gateway's time.
    assert_eq!(case.step(1, YEAR_2099).time, MAY + 2 * S);
    case.after(S);
    assert_eq!(case.step(1, YEAR_2099 + S).time, MAY + 3 * S);
    assert_eq!(case.times.counts().ahead, 3);
}

#[test]
fn a_time_is_believed_up_to_the_skew_that_is_allowed() {
    let mut case = Case::new();
    assert!(!case.step(0, MAY + 60 * S).suspect);
    assert!(case.step(0, MAY + 60 * S + 1).suspect);
}

#[test]
fn a_device_in_1970_has_the_gateways_time_until_its_clock_is_set() {
    let mut case = Case::new();
    for i in 0..3 {
        let verdict = case.step(0, YEAR_1970 + i * S);
        assert_eq!((verdict.time, verdict.late), (MAY + i * S, false));
        assert!(verdict.suspect && !verdict.trusted);
        case.after(S);
    }
    let set = case.step(0, MAY + 3 * S);
    assert!(set.trusted && !set.late && !set.suspect);
    assert_eq!(case.times.counts().unset, 3);
    for extreme in [i64::MIN, i64::MAX, 0, -1, PLAUSIBLE_BELOW] {
        assert!(case.step(0, extreme).suspect);
    }
}

#[test]
fn no_other_device_moves_a_devices_watermark() {
    let mut case = Case::new();
    case.step(0, MAY);
    for (device, time) in [(1, MAY + 50 * S), (2, YEAR_2099), (3, YEAR_1970)] {
        case.step(device, time);
    }
    case.without_time(4);
    assert_eq!(case.watermark(0), MAY - S / 2);
    assert!(!case.step(0, MAY + 1).late);
}

#[test]
fn a_clock_that_is_set_back_by_an_hour_is_late_for_a_minute_and_then_not_believed() {
    let mut case = Case::new();
    case.step(0, MAY);
    let back: Vec<i64> = (1..=61).map(|i| MAY - HOUR + i * S).collect();
    let late = case.late(0, &back);
    assert!(late[..60].iter().all(|late| *late) && !late[60]);
    case.after(S);
    let astray = case.step(0, MAY - HOUR + 62 * S);
    assert!(astray.suspect && !astray.late && !astray.trusted);
    assert_eq!(astray.time, MAY + 62 * S);
    // Set right again, it is believed at once.
    case.after(S);
    let right = case.step(0, MAY + 63 * S);
    assert!(!right.suspect && !right.late && right.trusted);
    let counts = case.times.counts();
    assert_eq!((counts.late, counts.set_back), (60, 2));
}

#[test]
fn late_readings_between_others_or_faster_than_time_are_no_clock_that_was_set_back() {
    // A backlog beside what is live.
    let mut case = Case::new();
    for i in 0..100 {
        case.after(S);
        case.step(0, MAY + i * S);
        assert!(case.step(0, MAY - HOUR + i * S).late);
    }
    // A backlog of its own, ten times as fast as time.
    let backlog: Vec<i64> = (0..90).map(|i| MAY - HOUR + i * 10 * S).collect();
    assert_eq!(case.late(0, &backlog), [true; 90]);
    assert_eq!(case.times.counts().set_back, 0);
}

#[test]
fn a_gateway_that_boots_in_1970_measures_skew_against_the_median_of_its_devices() {
    // Its log is empty: it knows no time at all.
    let mut case = Case::booted(YEAR_1970, 0, false);
    for device in 0..5 {
        let verdict = case.step(device, MAY);
        assert_eq!((verdict.time, verdict.suspect), (MAY, false));
        assert!(
            !verdict.trusted,
            "no time of the week from a clock that nobody set"
        );
    }
    assert!(case.step(5, YEAR_2099).suspect);
    assert!(!case.step(6, MAY + 60 * S).suspect);
    assert!(case.step(7, MAY + 61 * S).suspect);
    // Ten minutes later it is synchronised: a jump, in which no time passes.
    let before = case.after(600 * S);
    case.step(0, MAY + 600 * S);
    (case.received, case.synchronised) = (MAY + 600 * S, true);
    assert_eq!(case.record(), before);
    let verdict = case.step(0, MAY + 600 * S);
    assert!(verdict.trusted && !verdict.late && !verdict.suspect);
    assert!(case.step(1, MAY + 600 * S).trusted);
    assert_eq!(case.times.counts().gateway_trust_changed, 1);
}

#[test]
fn what_has_no_time_goes_on_from_the_log_while_the_gateway_is_in_1970() {
    let mut case = Case::new();
    assert!(case.without_time(0).trusted);
    // A power cut: it boots in 1970, and its log is of May.
    (case.received, case.synchronised) = (YEAR_1970, false);
    case.record();
    case.after(10 * S);
    let verdict = case.without_time(0);
    assert!(verdict.suspect && !verdict.late && !verdict.trusted);
    assert_eq!(verdict.time, MAY + 10 * S);
    assert_eq!(case.without_time(1).time, MAY + 10 * S);
    // Synchronised, half an hour later in truth.
    (case.received, case.synchronised) = (MAY + HOUR / 2, true);
    let verdict = case.without_time(0);
    assert_eq!((verdict.time, verdict.late), (MAY + HOUR / 2, false));
    assert!(verdict.trusted && !verdict.suspect);
    let counts = case.times.counts();
    assert_eq!((counts.without_time, counts.gateway_back), (2, 1));
}

#[test]
fn a_gateway_that_jumps_back_by_an_hour_is_not_trusted_until_it_is_where_it_was() {
    let mut case = Case::new();
    let before = case.record();
    case.after(-HOUR);
    assert!(!case.times.is_gateway_trusted());
    let steady = case.after(S);
    assert_eq!(steady, before + S);
    // Skew is measured against the devices, who know nothing of the jump.
    assert!(!case.step(0, MAY + S).suspect);
    assert!(case.step(1, YEAR_2099).suspect);
    case.after(HOUR);
    assert!(case.times.is_gateway_trusted());
    assert_eq!(case.times.counts().gateway_back, 1);
}

#[test]
fn a_gateway_that_jumps_ahead_stays_trusted_and_no_time_passes() {
    let mut case = Case::new();
    case.step(0, MAY);
    let before = case.after(S);
    assert_eq!(case.set(CLOCK_STEP_US), before + CLOCK_STEP_US);
    assert!(!case.times.was_set());
    let before = before + CLOCK_STEP_US;
    assert_eq!(case.set(CLOCK_STEP_US + 1), before);
    assert!(case.times.was_set() && case.times.is_gateway_trusted());
    assert_eq!(case.set(S), before + S);
    assert!(!case.times.was_set());
    assert_eq!(case.times.received_at(before + 2 * S), case.received + S);
    assert_eq!(case.times.counts().gateway_ahead, 1);
}

#[test]
fn records_of_many_connections_out_of_order_let_no_more_time_pass() {
    let mut case = Case::new();
    let before = case.record();
    for _ in 0..1_000 {
        case.set(-CLOCK_DISORDER_US);
        assert!(case.times.is_gateway_trusted() && !case.times.was_set());
        case.set(CLOCK_DISORDER_US + 1);
    }
    assert_eq!(case.record(), before + 1_000);
    assert_eq!(case.times.counts().gateway_back, 0);
    case.set(-CLOCK_DISORDER_US - 1);
    assert!(!case.times.is_gateway_trusted() && case.times.was_set());
}

#[test]
fn a_gateway_that_was_in_2099_once_is_believed_again_after_an_hour() {
    let mut case = Case::new();
    case.set(YEAR_2099 - MAY);
    assert!(case.times.is_gateway_trusted());
    assert_eq!(case.without_time(0).time, YEAR_2099);
    // A restart, with the right time.
    case.times = restored(&kept(&case.times)).unwrap();
    case.set(MAY - YEAR_2099);
    assert!(!case.times.is_gateway_trusted());
    case.after(CLOCK_BELIEVED_AFTER_US / 2);
    case.times = restored(&kept(&case.times)).unwrap();
    case.after(CLOCK_BELIEVED_AFTER_US / 2);
    assert!(!case.times.is_gateway_trusted());
    case.after(1);
    assert!(case.times.is_gateway_trusted() && case.times.was_set());
    assert_eq!(case.greatest, case.received);
    let right = case.without_time(0);
    assert_eq!(
        (right.time, right.trusted, right.late),
        (case.received, true, false)
    );
    // A clock that is not set has no such patience.
    case.synchronised = false;
    case.after(2 * CLOCK_BELIEVED_AFTER_US);
    assert!(!case.times.is_gateway_trusted());
}

#[test]
fn a_device_that_ran_ahead_while_nobody_knew_better_begins_anew() {
    let mut case = Case::booted(YEAR_1970, 0, false);
    assert!(
        !case.step(0, YEAR_2099).suspect,
        "the first one is believed"
    );
    (case.received, case.synchronised) = (MAY, true);
    let verdict = case.step(0, YEAR_2099 + S);
    assert!(verdict.suspect);
    assert_eq!(verdict.progress.newest, MAY);
    assert!(!case.step(0, MAY).late);
    assert_eq!(case.times.counts().begun_anew, 1);
}

#[test]
fn steady_time_leads_back_to_received_time() {
    let mut case = Case::new();
    case.record();
    case.after(5 * S);
    assert_eq!(case.times.received_at(7 * S), MAY + 7 * S);
}

#[test]
fn a_device_beyond_the_bound_is_judged_and_not_kept() {
    let mut case = Case::new();
    let verdict = case.step(u32::MAX, MAY);
    assert!(verdict.suspect && !verdict.late);
    assert_eq!(case.times.counts().crowded, 1);
    assert_eq!(case.times.progress(DeviceSlot(u32::MAX)), None);
}

#[test]
fn what_is_forgotten_begins_anew() {
    let mut case = Case::new();
    case.step(0, MAY);
    case.times.forget(DeviceSlot(0));
    assert_eq!(case.times.progress(DeviceSlot(0)), None);
    assert!(!case.step(0, MAY - HOUR).late);
}

const NAMES: [&str; 4] = ["a", "b/c", "d", ""];

fn kept(times: &EventTime) -> Vec<u8> {
    let mut bytes = Vec::new();
    times.write_checkpoint(&mut bytes, &|slot| NAMES.get(slot.0 as usize).copied());
    bytes
}

fn restored(mut bytes: &[u8]) -> Result<EventTime, StateError> {
    let mut slots = |name: &str| {
        let place = NAMES.iter().position(|known| *known == name)?;
        Some(DeviceSlot(place as u32))
    };
    EventTime::read_checkpoint(&mut bytes, TimeSettings::default(), &mut slots)
}

use crate::detect::state_error::StateError;

/// A record: how the gateway's clock goes on, and a reading.
fn record() -> impl Strategy<Value = (i64, bool, u32, i64, bool)> {
    let passed =
        prop_oneof![4 => 0..3 * S, 1 => -2 * HOUR..2 * HOUR, 1 => Just(50 * 365 * 24 * HOUR)];
    let distance = prop_oneof![
        6 => -2 * S..2 * S, 2 => -2 * HOUR..2 * HOUR, 1 => Just(YEAR_2099 - MAY),
        1 => Just(-MAY), 1 => any::<i64>(),
    ];
    (
        passed,
        prop::bool::weighted(0.8),
        0..4_u32,
        distance,
        prop::bool::weighted(0.8),
    )
}

proptest! {
    #[test]
    fn a_checkpoint_at_any_record_changes_nothing(
        records in proptest::collection::vec(record(), 1..120),
        every in 1_usize..7,
    ) {
        let (mut case, mut other) = (Case::new(), Case::new());
        for (place, record) in records.into_iter().enumerate() {
            let (passed, synchronised, device, distance, own) = record;
            if place % every == 0 {
                other.times = restored(&kept(&other.times)).unwrap();
            }
            let mut verdicts = Vec::new();
            for case in [&mut case, &mut other] {
                case.received = case.received.saturating_add(passed);
                case.synchronised = synchronised;
                let time = case.received.saturating_add(distance);
                verdicts.push(match own {
                    true => case.step(device, time),
                    false => case.without_time(device),
                });
            }
            prop_assert_eq!(verdicts[0], verdicts[1]);
            // What holds of every verdict.
            let verdict = verdicts[0];
            prop_assert_eq!(verdict.late, verdict.time < verdict.progress.watermark);
            prop_assert!(verdict.progress.watermark <= verdict.progress.newest);
            prop_assert!(!(verdict.suspect && (verdict.late || verdict.trusted)));
            let ahead = case.times.gateway.ahead_from(&TimeSettings::default());
            prop_assert!(!case.times.is_gateway_trusted() || verdict.time <= ahead);
        }
        prop_assert_eq!(kept(&case.times), kept(&other.times));
    }

    #[test]
    fn arbitrary_bytes_are_a_state_or_an_error(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in 0_usize..300, flip in 1_u8..=255,
    ) {
        let _ = restored(&bytes);
        let mut case = Case::new();
        case.step(0, MAY);
        case.step(1, MAY + S);
        let mut kept = kept(&case.times);
        let at = at % kept.len();
        kept[at] ^= flip;
        // What can be read goes on without a panic.
        if let Ok(times) = restored(&kept) {
            case.times = times;
            case.after(S);
            case.step(0, MAY + S);
            case.without_time(2);
        }
        prop_assert!(restored(&kept[..at]).is_err());
    }
}

#[test]
fn settings_have_defaults_and_bounds() {
    let read = |text: &str| {
        let mut document = tributary_settings::Document::parse(text, "", []);
        let settings = TimeSettings::read(&mut document.root().section("detect"));
        let wrong: Vec<String> = document.finish().iter().map(ToString::to_string).collect();
        (settings, wrong)
    };
    assert_eq!(read("").0, TimeSettings::default());
    let text = "[detect]\nallowed_lateness_ms = 0\nidle_timeout_ms = 10_000\nfuture_skew_max_s = 5";
    let (settings, wrong) = read(text);
    assert_eq!(wrong, [""; 0]);
    assert_eq!(settings.allowed_lateness_us, 0);
    assert_eq!(read(&format!("[detect]\n{}", settings.text())).0, settings);
    assert_eq!(
        (settings.idle_timeout_us, settings.future_skew_max_us),
        (10 * S, 5 * S)
    );
    let (_, wrong) = read("[detect]\nallowed_latenes_ms = 1\nidle_timeout_ms = 1");
    assert_eq!(
        wrong,
        [
            "line 2: `detect.allowed_latenes_ms` is not known; did you mean \
         `detect.allowed_lateness_ms`?",
            "line 3: `detect.idle_timeout_ms` is 1; expected 100 to 86400000",
        ]
    );
}

#[test]
fn what_has_no_time_is_measured_by_a_clock_that_nobody_keeps_also_after_a_pause() {
    let mut case = Case::booted(MAY, 0, false);
    assert_eq!(case.without_time(0).time, MAY);
    case.step(1, YEAR_1970);
    case.step(2, MAY - HOUR);
    // The agent did not run.
    case.set(8 * HOUR);
    let verdict = case.without_time(0);
    assert_eq!((verdict.time, verdict.late), (MAY + 8 * HOUR, false));
    assert!(verdict.suspect);
    assert_eq!(case.step(1, YEAR_1970).time, MAY + 8 * HOUR);
    // One whose clock is known goes on by that, however far it is from the gateway's.
    case.after(S);
    assert_eq!(case.without_time(2).time, MAY - HOUR + S);
    assert!(!case.step(2, MAY + 7 * HOUR + 2 * S).late);
}
