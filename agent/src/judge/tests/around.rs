//! What is shown around alerts of rules and of groups.

use super::fast::{TENTH, TOPIC, noise};
use super::*;

/// The readings around an alert: tenths of a second of the log, and values.
fn around(alert: &serde_json::Value) -> Vec<(i64, f64)> {
    let all = alert["around"].as_array().unwrap().iter();
    let of = |reading: &serde_json::Value| {
        let time = reading[0].as_i64().unwrap() - NOW;
        (time / TENTH, reading[1].as_f64().unwrap())
    };
    all.map(of).collect()
}

fn of_detector(told: &Told, detector: &str) -> serde_json::Value {
    let mut raised = told.raised();
    raised.retain(|alert| alert["detector"] == detector);
    raised.pop().unwrap()
}

fn limits(text: &str) -> Settings {
    let with = "[detect]\npreset = \"sensitive\"\nweekly = false\n";
    Settings::parse(&(with.to_owned() + text)).unwrap()
}

#[test]
fn an_alert_of_a_rule_has_the_last_readings_up_to_the_one_that_raised_it() {
    let mut told = Told::new(&limits(&limit("load", "load", "info")));
    for second in 0..9 {
        told.message(second, "d/load", &value(second, second as f64));
        told.message(second, "d/other", &value(second, 77.0));
    }
    told.again();
    told.message(9, "d/load", &value(9, 90.0));
    let expected = [(50, 5.0), (60, 6.0), (70, 7.0), (80, 8.0), (90, 90.0)];
    assert_eq!(around(&of_detector(&told, "rule:load")), expected);
    // One that is late stands at its place, and what came behind it is not shown.
    told.message(20, "d/load", &value(20, 10.0));
    told.message(21, "d/load", &value(7, 95.0));
    let late = of_detector(&told, "rule:load");
    assert_eq!(late["late"], true);
    let expected = [(60, 6.0), (70, 7.0), (70, 95.0)];
    assert_eq!(around(&late), expected);
}

#[test]
fn what_time_alone_raises_has_the_last_readings() {
    let text = limit("held", "load", "info").replace("severity", "hold_s = 30\nseverity")
        + "[[detect.rule]]\nname = \"gone\"\nkind = \"silence\"\nmetric = \"t\"\nfor_s = 20\n";
    let mut told = Told::new(&limits(&text));
    for second in 0..3 {
        told.message(second, "d/load", &value(second, 90.0 + second as f64));
        told.message(second, "d/t", &value(second, second as f64));
    }
    told.again();
    (10..50).for_each(|second| told.tick(second));
    let held = around(&of_detector(&told, "rule:held"));
    assert_eq!(held, [(0, 90.0), (10, 91.0), (20, 92.0)]);
    let gone = around(&of_detector(&told, "rule:gone"));
    assert_eq!(gone, [(0, 0.0), (10, 1.0), (20, 2.0)]);
}

#[test]
fn a_rule_over_several_series_shows_the_one_that_its_alert_is_of() {
    let text = "[[detect.rule]]\nname = \"dry\"\nkind = \"expression\"\n\
                when = \"rpm > 200 && flow < 1\"\nmetric = \"flow\"\n";
    let mut told = Told::new(&limits(text));
    for second in 0..3 {
        told.message(second, "d/flow", &value(second, 0.5));
        told.message(second, "d/rpm", &value(second, 100.0));
    }
    told.message(3, "d/rpm", &value(3, 300.0));
    let shown = around(&of_detector(&told, "rule:dry"));
    assert_eq!(shown, [(0, 0.5), (10, 0.5), (20, 0.5)]);
}

#[test]
fn around_an_alert_of_a_rule_on_a_fast_series_are_its_readings_and_not_seconds() {
    let mut told = Told::new(&limits(&limit("high", "t", "info")));
    told.tenths(0..2_000);
    told.again();
    assert_eq!((told.judge.fast(), told.raised().len()), (1, 0));
    told.reading_at(2_000 * TENTH, TOPIC, 95.0);
    let shown = around(&of_detector(&told, "rule:high"));
    let mut expected: Vec<_> = (1_996..2_000).map(|tenth| (tenth, noise(tenth))).collect();
    expected.push((2_000, 95.0));
    for ((tenth, value), (at, is)) in shown.iter().zip(&expected) {
        assert!(tenth == at && (value - is).abs() < 1e-9, "{shown:?}");
    }
    assert_eq!(shown.len(), AROUND);
    // The detector's own alert has the seconds, as ever.
    told.tenths(2_001..2_020);
    let seconds = around(&of_detector(&told, "series"));
    assert!(
        seconds.iter().all(|(tenth, _)| tenth % 10 == 0),
        "{seconds:?}"
    );
    // While there is no rule none is kept, and what was kept before has no place among new ones.
    told.settings(&limits(""));
    told.tenths(2_020..2_030);
    told.settings(&limits(&limit("high", "t", "info")));
    told.tenths(2_030..2_032);
    told.reading_at(2_032 * TENTH, TOPIC, 95.0);
    let shown = around(&of_detector(&told, "rule:high"));
    let tenths: Vec<i64> = shown.iter().map(|(tenth, _)| *tenth).collect();
    assert_eq!(tenths, [2_030, 2_031, 2_032]);
}

#[test]
fn a_state_has_the_readings_of_the_channel_that_is_farthest() {
    let text = "[[detect.group]]\nname = \"spindle\"\nmetrics = [\"a\", \"b\"]\n";
    let mut told = Told::new(&limits(text));
    let mut seed = 7_u64;
    let mut values = Vec::new();
    for second in 0..800 {
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            50.0 + (seed % 2_001) as f64 / 1_000.0
        };
        let off = if second < 600 { 0.0 } else { 9.0 };
        let (a, b) = (next(), next() + off);
        values.push((second * 10, b));
        told.message(second, "mill", &format!("{{\"a\":{a},\"b\":{b}}}"));
        let raised = told.raised();
        if let Some(state) = raised.iter().find(|alert| alert["kind"] == "state") {
            let text = state["text"].as_str().unwrap();
            assert!(text.contains("b is farthest"), "{text}");
            let last = values.split_off(values.len() - AROUND);
            assert_eq!(around(state), last);
            return;
        }
    }
    panic!("no state began");
}
