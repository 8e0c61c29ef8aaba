//! Windows held against the plainest thing that could be right: the readings that are not late,
//! grouped by window, and computed with exact arithmetic.

use super::super::quantiles::RELATIVE_ERROR;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A reading and what passed before it was received.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub passed: i64,
    pub series: u32,
    pub time: i64,
    pub value: f64,
}

/// Readings of nine series, out of order by up to a second and some by much more. Values are whole
/// 64ths, so that sums of them and of their squares are exact.
pub(super) fn readings(
    passed: std::ops::Range<i64>,
    count: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Told>> {
    let jitter = prop_oneof![6 => -S..S, 1 => -20 * S..20 * S, 1 => Just(0), 1 => Just(60 * S)];
    let value = prop_oneof![4 => -6_400..6_400_i64, 1 => Just(0), 1 => -64_000_000..64_000_000_i64];
    let one = (passed, 0..300 * MS, 0..9_u32, jitter, value);
    proptest::collection::vec(one, count).prop_map(|all| {
        let mut time = MAY;
        let told = all
            .into_iter()
            .map(|(passed, step, series, jitter, value)| {
                time += step;
                Told {
                    passed,
                    series,
                    time: time + jitter,
                    value: value as f64 / 64.0,
                }
            });
        told.collect()
    })
}

/// What an aggregate should say, as far as it can be computed exactly.
#[derive(PartialEq, Debug)]
struct Exact {
    count: u64,
    min: f64,
    max: f64,
    first: f64,
    last: f64,
}

fn check(values: &[(i64, f64)], told: &Aggregate) -> Result<(), TestCaseError> {
    let mut by_time = values.to_vec();
    // Stable: of equal times, as they came.
    by_time.sort_by_key(|(time, _)| *time);
    let mut sorted: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
    sorted.sort_by(f64::total_cmp);
    let exact = Exact {
        count: values.len() as u64,
        min: sorted[0],
        max: sorted[sorted.len() - 1],
        first: by_time[0].1,
        last: by_time[by_time.len() - 1].1,
    };
    let told_exact = Exact {
        count: told.count,
        min: told.min,
        max: told.max,
        first: told.first,
        last: told.last,
    };
    prop_assert_eq!(told_exact, exact);
    let whole: Vec<i128> = sorted.iter().map(|value| (value * 64.0) as i128).collect();
    let n = whole.len() as i128;
    let (sum, squares) = (
        whole.iter().sum::<i128>(),
        whole.iter().map(|v| v * v).sum::<i128>(),
    );
    let mean = sum as f64 / n as f64 / 64.0;
    let scale = told.max.abs().max(told.min.abs()).max(1e-9);
    prop_assert!(
        (told.mean - mean).abs() <= 1e-12 * scale,
        "{} for {mean}",
        told.mean
    );
    let variance = (n * squares - sum * sum) as f64 / (n * n) as f64 / 4_096.0;
    let std = variance.sqrt();
    prop_assert!(
        (told.std - std).abs() <= 1e-7 * scale,
        "{} for {std}",
        told.std
    );
    let quantiles = told.quantiles.unwrap();
    for (q, told) in [
        (0.5, quantiles.p50),
        (0.95, quantiles.p95),
        (0.99, quantiles.p99),
    ] {
        let exact = sorted[(q * (sorted.len() - 1) as f64) as usize];
        let error = (RELATIVE_ERROR + 1e-9) * exact.abs();
        prop_assert!((told - exact).abs() <= error, "{q}: {told} for {exact}");
    }
    Ok(())
}

type Key = (String, u32, i64, i64);

/// Readings of each window, as they came.
type Groups = BTreeMap<Key, Vec<(i64, f64)>>;

/// Every window of `size` that ends at a multiple of `every` and holds a reading.
fn hopping(name: &str, (size, every): (i64, i64), all: &[(u32, i64, f64)], groups: &mut Groups) {
    for (series, time, value) in all {
        let mut to = time.div_euclid(every) * every + every;
        while to <= time + size {
            let key = (name.to_owned(), *series, to - size, to);
            groups.entry(key).or_default().push((*time, *value));
            to += every;
        }
    }
}

fn sessions(name: &str, gap: i64, all: &[(u32, i64, f64)], groups: &mut Groups) {
    for series in 0..9 {
        let of_series = all.iter().filter(|(of, _, _)| *of == series);
        let mut own: Vec<(i64, f64)> = of_series.map(|(_, time, value)| (*time, *value)).collect();
        own.sort_by_key(|(time, _)| *time);
        for session in own.chunk_by(|(before, _), (time, _)| time - before < gap) {
            let (from, to) = (session[0].0, session[session.len() - 1].0 + 1);
            groups.insert((name.to_owned(), series, from, to), session.to_vec());
        }
    }
}

fn counts(name: &str, readings: usize, all: &[(u32, i64, f64)], groups: &mut Groups) {
    for series in 0..9 {
        let of_series = all.iter().filter(|(of, _, _)| *of == series);
        let own: Vec<(i64, f64)> = of_series.map(|(_, time, value)| (*time, *value)).collect();
        for count in own.chunks(readings) {
            let times = count.iter().map(|(time, _)| *time);
            let (from, to) = (times.clone().min().unwrap(), times.max().unwrap() + 1);
            let before = groups.insert((name.to_owned(), series, from, to), count.to_vec());
            assert!(before.is_none());
        }
    }
}

/// Runs readings, flushes, and compares all that comes out with `expected` of those not late.
fn agrees(
    text: &str,
    readings: &[Told],
    expected: impl Fn(&[(u32, i64, f64)], &mut Groups),
) -> Result<(), TestCaseError> {
    let mut case = Case::new(text);
    let mut on_time = Vec::new();
    let mut late = 0;
    for told in readings {
        case.after(told.passed);
        let (verdict, behind) = case.judge(told.series, told.time, told.value);
        if verdict.late {
            late += 1;
        } else {
            prop_assert!(
                !behind,
                "without silence nothing on time is behind a window"
            );
            on_time.push((told.series, verdict.time, told.value));
        }
    }
    case.after(7_200 * S);
    let mut groups = Groups::new();
    expected(&on_time, &mut groups);
    for told in &case.out {
        let key = (told.window.to_string(), told.series.0, told.from, told.to);
        let values = groups.remove(&key);
        prop_assert!(values.is_some(), "nobody expected, or twice: {key:?}");
        check(&values.unwrap(), told)?;
        prop_assert!(told.late <= late);
    }
    prop_assert!(groups.is_empty(), "missing: {:?}", groups.keys());
    prop_assert_eq!(case.windows.counts().closed, case.out.len() as u64);
    Ok(())
}

proptest! {
    #[test]
    fn tumbling_windows_are_what_grouping_gives(readings in readings(0..1, 1..250)) {
        agrees(SECOND, &readings, |all, groups| hopping("second", (S, S), all, groups))?;
    }

    #[test]
    fn sliding_windows_are_what_grouping_gives(
        readings in readings(0..1, 1..250), every in 1_i64..=12, size in 0_i64..20,
    ) {
        let (every, size) = (every * 250 * MS, (every + size) * 250 * MS);
        let text = format!(
            "[[detect.window]]\nname = \"w\"\nkind = \"sliding\"\nsize_ms = {}\nevery_ms = {}\n",
            size / MS, every / MS,
        );
        agrees(&text, &readings, |all, groups| hopping("w", (size, every), all, groups))?;
    }

    #[test]
    fn a_window_of_many_readings_is_within_the_error_of_its_sketch(
        readings in readings(0..1, 600..800),
    ) {
        let one: Vec<Told> = readings.into_iter().map(|told| Told { series: 0, ..told }).collect();
        let text = SECOND.replace("1_000", "30_000");
        agrees(&text, &one, |all, groups| hopping("second", (30 * S, 30 * S), all, groups))?;
    }

    #[test]
    fn sessions_are_what_pauses_leave(readings in readings(0..1, 1..250), gap in 1_i64..3_000) {
        let text = SESSION.replace("5_000", &gap.to_string());
        agrees(&text, &readings, |all, groups| sessions("session", gap * MS, all, groups))?;
    }

    #[test]
    fn counts_are_what_comes_one_after_another(readings in readings(0..1, 1..250)) {
        // Times that differ, so that no two counts have the same bounds.
        let apart = readings.into_iter().enumerate();
        let apart: Vec<Told> = apart
            .map(|(i, told)| {
                let time = MAY + i as i64 * 100 * MS + told.time.rem_euclid(S);
                Told { time: time / 256 * 256 + i as i64, ..told }
            })
            .collect();
        agrees(COUNT, &apart, |all, groups| counts("count", 4, all, groups))?;
    }

    #[test]
    fn with_silences_no_window_comes_twice_and_none_holds_what_is_not_its_own(
        readings in readings(0..4 * S, 1..250),
    ) {
        let mut case = Case::new(&[SECOND, SLIDING, SESSION].concat());
        for told in &readings {
            case.after(told.passed);
            case.judge(told.series, told.time, told.value);
        }
        case.after(7_200 * S);
        let mut keys: Vec<Key> = case
            .out
            .iter()
            .map(|a| (a.window.to_string(), a.series.0, a.from, a.to))
            .collect();
        keys.sort();
        let all = keys.len();
        keys.dedup();
        prop_assert_eq!(keys.len(), all);
        let second = case.out.iter().filter(|a| &*a.window == "second");
        let taken: u64 = second.map(|a| a.count).sum();
        prop_assert!(taken <= readings.len() as u64);
        let sliding = case.out.iter().filter(|a| &*a.window == "sliding");
        prop_assert!(sliding.map(|a| a.count).sum::<u64>() <= 3 * readings.len() as u64);
    }
}
