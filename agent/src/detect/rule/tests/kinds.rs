//! Each kind of rule of one series.

use super::super::memory::Cell;
use super::super::state::State;
use super::*;

const HOT: &str = r#"
    name = "hot"
    kind = "threshold"
    device = "p*"
    metric = "t"
    above = 80
    message = "{value} {unit} > {limit} for {duration}"
    message_cleared = "{value}"
"#;

#[test]
fn states_have_a_size() {
    assert_eq!(size_of::<State>(), 152);
    assert_eq!(size_of::<[Cell; 2]>(), 64);
}

#[test]
fn a_threshold_is_crossed_and_left_by_its_margin() {
    let mut bench = Bench::new(rule(&format!("{HOT}\nhysteresis = 5\nbelow = 0")));
    assert_eq!(bench.at(0.0, "p1/t", 80.0), NONE);
    assert_eq!(
        bench.at(1.0, "p1/t", 80.5),
        ["+hot p1/t @1: 80.5 °C > 80 for nothing"]
    );
    assert_eq!(bench.at(2.0, "p1/t", 90.0), NONE);
    assert_eq!(bench.at(3.0, "p1/t", 75.1), NONE);
    assert_eq!(
        bench.at(3.5, "p2/t", 91.0),
        ["+hot p2/t @3.5: 91 °C > 80 for nothing"]
    );
    assert_eq!(bench.at(4.0, "p1/t", 75.0), ["-hot p1/t @4: 75"]);
    assert_eq!(
        bench.at(5.0, "p1/t", -1.0),
        ["+hot p1/t @5: -1 °C > 0 for nothing"]
    );
    assert_eq!(bench.at(6.0, "p1/x", 91.0), NONE, "another metric");
    assert_eq!(bench.at(7.0, "q1/t", 91.0), NONE, "another device");
    assert_eq!(bench.engine.watched(), 2);
}

#[test]
fn a_hold_is_by_event_time_and_does_not_wait_for_a_reading() {
    let hold = rule(&format!("{HOT}\nhold_s = 10"));
    let mut bench = Bench::new(Arc::clone(&hold));
    assert_eq!(bench.at(0.0, "p1/t", 81.0), NONE);
    assert_eq!(bench.due(), Some(10.0));
    assert_eq!(bench.at(5.0, "p1/t", 70.0), NONE);
    assert_eq!(bench.due(), None);
    assert_eq!(bench.at(6.0, "p1/t", 81.0), NONE);
    assert_eq!(bench.at(9.0, "p1/t", 82.0), NONE);
    assert_eq!(bench.due(), Some(16.0));
    assert_eq!(bench.tick(15.9), NONE);
    assert_eq!(
        bench.tick(17.0),
        ["+hot p1/t @16 [6..16]: 82 °C > 80 for 10"]
    );
    assert_eq!(bench.due(), None);

    // A device sends what it kept: its own time counts, not when it came.
    let mut bench = Bench::new(hold);
    for i in 0..12 {
        let kept = Sample {
            received_time: time(1_000.0 + f64::from(i) / 1e3),
            ..sample(f64::from(i), 85.0)
        };
        let said = bench.step("p1/t", kept);
        match i {
            10 => assert_eq!(said, ["+hot p1/t @10 [0..10]: 85 °C > 80 for 10"]),
            _ => assert_eq!(said, NONE, "{i}"),
        }
    }
}

#[test]
fn what_is_due_is_said_before_a_reading_that_came_later() {
    let mut bench = Bench::new(rule(&format!("{HOT}\nhold_s = 10")));
    bench.at(0.0, "p1/t", 81.0);
    // Nobody called tick.
    assert_eq!(
        bench.at(12.0, "p1/t", 20.0),
        [
            "+hot p1/t @10 [0..10]: 81 °C > 80 for 10",
            "-hot p1/t @12: 20"
        ]
    );
}

#[test]
fn a_clock_that_is_not_trusted_counts_as_received() {
    let mut bench = Bench::new(rule(&format!("{HOT}\nhold_s = 10")));
    let untrusted = |at: f64, value| Sample {
        event_time: -5,
        trusted: false,
        ..sample(at, value)
    };
    assert_eq!(bench.step("p1/t", untrusted(0.0, 81.0)), NONE);
    assert_eq!(bench.step("p1/t", untrusted(9.0, 81.0)), NONE);
    assert_eq!(bench.step("p1/t", untrusted(10.0, 81.0)).len(), 1);
    // A clock that becomes trusted begins anew.
    let mut bench = Bench::new(rule(&format!("{HOT}\nhold_s = 10")));
    assert_eq!(bench.step("p1/t", untrusted(0.0, 81.0)), NONE);
    assert_eq!(bench.at(9.0, "p1/t", 81.0), NONE);
    assert_eq!(bench.at(18.9, "p1/t", 81.0), NONE);
    assert_eq!(
        bench.at(19.0, "p1/t", 81.0),
        ["+hot p1/t @19 [9..19]: 81 °C > 80 for 10"]
    );
}

#[test]
fn a_cool_down_holds_back_and_is_counted() {
    let mut bench = Bench::new(rule(&format!("{HOT}\ncool_down_s = 60")));
    assert_eq!(bench.at(0.0, "p1/t", 81.0).len(), 1);
    assert_eq!(bench.at(1.0, "p1/t", 70.0), ["-hot p1/t @1: 70"]);
    assert_eq!(bench.at(2.0, "p1/t", 81.0), NONE);
    assert_eq!(bench.at(3.0, "p1/t", 82.0), NONE);
    assert_eq!(bench.engine.counts().held_back, 1);
    assert_eq!(bench.at(4.0, "p1/t", 70.0), NONE);
    assert_eq!(bench.at(50.0, "p1/t", 83.0), NONE);
    assert_eq!(
        bench.due(),
        Some(60.0),
        "it is still so when the time is over"
    );
    assert_eq!(bench.tick(60.0), ["+hot p1/t @60: 83 °C > 80 for nothing"]);
    let counts = bench.engine.counts();
    assert_eq!((counts.raised, counts.cleared, counts.held_back), (2, 1, 2));
}

#[test]
fn late_readings_are_judged_by_thresholds_and_ranges_and_end_nothing() {
    let mut bench = Bench::new(rule(HOT));
    let late = |at: f64, value| Sample {
        late: true,
        received_time: time(100.0),
        ..sample(at, value)
    };
    assert_eq!(bench.at(90.0, "p1/t", 20.0), NONE);
    assert_eq!(
        bench.step("p1/t", late(10.0, 81.0)),
        ["+hot p1/t @10 late: 81 °C > 80 for nothing"]
    );
    assert_eq!(bench.step("p1/t", late(11.0, 82.0)), NONE);
    assert_eq!(
        bench.step("p1/t", late(12.0, 20.0)),
        NONE,
        "what is past ends nothing"
    );
    assert_eq!(bench.at(101.0, "p1/t", 20.0), ["-hot p1/t @101: 20"]);
    // One that is merely not the newest is judged likewise.
    assert_eq!(
        bench.at(100.5, "p1/t", 85.0),
        ["+hot p1/t @100.5: 85 °C > 80 for nothing"]
    );
    assert_eq!(bench.at(100.6, "p1/t", 20.0), NONE);
    // The first reading of a series may be a late one.
    assert_eq!(bench.step("p2/t", late(10.0, 81.0)).len(), 1);
    // A single reading of the past holds for no time.
    let mut bench = Bench::new(rule(&format!("{HOT}\nhold_s = 1")));
    assert_eq!(bench.at(90.0, "p1/t", 20.0), NONE);
    assert_eq!(bench.step("p1/t", late(10.0, 81.0)), NONE);
    assert_eq!(bench.step("p1/t", late(20.0, 81.0)), NONE);
    assert_eq!(bench.due(), None);
}

#[test]
fn a_sensor_has_a_range() {
    let mut bench = Bench::new(rule(
        "name = \"r\"\nkind = \"range\"\nmetric = \"t\"\nmin = -40\nmax = 125",
    ));
    assert_eq!(bench.at(0.0, "p/t", 125.0), NONE);
    assert_eq!(
        bench.at(1.0, "p/t", 3_276.7),
        ["+r p/t @1: p: t is 3276.7 °C, beyond what its sensor measures: 125 °C"]
    );
    assert_eq!(
        bench.at(2.0, "p/t", -40.0),
        ["-r p/t @2: p: t is -40 °C again, the alert \"r\" is over"]
    );
}

#[test]
fn what_is_no_number_changes_nothing_and_is_counted() {
    for settings in [
        HOT.to_owned(),
        "name = \"s\"\nkind = \"silence\"\nmetric = \"t\"\nfor_s = 10".into(),
        "name = \"u\"\nkind = \"stuck\"\nmetric = \"t\"\nreadings = 2".into(),
        "name = \"r\"\nkind = \"rate\"\nmetric = \"t\"\nabove = 1\nover_s = 1".into(),
    ] {
        let mut bench = Bench::new(rule(&settings));
        bench.at(0.0, "p/t", 20.0);
        let mut before = Vec::new();
        bench.engine.write_checkpoint(&mut before);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(bench.at(0.0, "p/t", value), NONE);
        }
        let mut after = Vec::new();
        bench.engine.write_checkpoint(&mut after);
        assert_eq!(before, after, "{settings}");
        assert_eq!(bench.engine.counts().not_numbers, 3);
    }
}

#[test]
fn a_series_of_another_type_or_unit_is_the_same_to_a_rule() {
    // `21.5` and then `21`: two series of the lake, two slots, one sensor.
    let mut bench = Bench::new(rule(&format!("{HOT}\nhold_s = 10")));
    let mut said = Vec::new();
    for (slot, at, unit) in [(0, 0.0, "°C"), (1, 5.0, "°C"), (2, 9.0, "K")] {
        let place = Place {
            series: SeriesSlot(slot),
            device: DeviceSlot(0),
            device_name: "p1",
            metric: "t",
            unit,
        };
        bench.engine.step(&place, &sample(at, 300.0), &mut said);
    }
    bench.engine.tick(time(10.0), &mut said);
    assert_eq!(bench.engine.watched(), 1);
    let said: Vec<String> = said.iter().map(show).collect();
    assert_eq!(said, ["+hot p1/t @10 [0..10]: 300 K > 80 for 10"]);
}

#[test]
fn a_rate_is_over_its_span() {
    let mut bench = Bench::new(rule(
        "name = \"fast\"\nkind = \"rate\"\nmetric = \"t\"\nabove = 0.5\nbelow = -2\nover_s = 10\n\
         message = \"{measured} {value}\"\nmessage_cleared = \"{measured}\"",
    ));
    for i in 0..=10 {
        // A jump of one reading to the next is no rate over ten seconds.
        let value = if i == 5 { 4.0 } else { 0.0 };
        assert_eq!(bench.at(f64::from(i), "p/t", value), NONE);
    }
    assert_eq!(
        bench.at(11.0, "p/t", 6.0),
        ["+fast p/t @11 [0..11]: 0.545455 6"]
    );
    assert_eq!(bench.at(12.0, "p/t", 7.0), NONE);
    assert_eq!(bench.at(13.0, "p/t", 2.2), ["-fast p/t @13: 0.2"]);
    assert_eq!(
        bench.at(14.0, "p/t", -30.0),
        ["+fast p/t @14 [4..14]: -3 -30"]
    );
    assert_eq!(bench.due(), None, "without readings nothing changes");
}

#[test]
fn a_value_is_stuck_for_a_time_or_for_readings() {
    let stuck = "name = \"u\"\nkind = \"stuck\"\nmetric = \"t\"\n";
    let mut bench = Bench::new(rule(&format!("{stuck}for_s = 10")));
    assert_eq!(bench.at(0.0, "p/t", 1.0), NONE);
    assert_eq!(bench.at(9.9, "p/t", 1.0), NONE);
    assert_eq!(bench.due(), None, "without readings that is silence");
    assert_eq!(
        bench.at(11.0, "p/t", 1.0),
        ["+u p/t @11 [0..11]: p: t has been 1 °C for 11 seconds"]
    );
    assert_eq!(bench.at(12.0, "p/t", 1.0), NONE);
    assert_eq!(
        bench.at(13.0, "p/t", 1.1),
        ["-u p/t @13: p: t changes again: 1.1 °C"]
    );
    let mut bench = Bench::new(rule(&format!("{stuck}readings = 3\ntolerance = 0.5")));
    for (at, value, alerts) in [(0.0, 1.0, 0), (1.0, 1.5, 0), (2.0, 0.5, 1), (3.0, 2.0, 1)] {
        assert_eq!(bench.at(at, "p/t", value).len(), alerts, "{at}");
    }
}

#[test]
fn silence_is_told_when_its_time_has_come_and_ends_with_a_reading() {
    let silence = "name = \"s\"\nkind = \"silence\"\nmetric = \"t\"\n";
    let mut bench = Bench::new(rule(&format!("{silence}for_s = 30")));
    assert_eq!(bench.due(), None, "a series that never came is not silent");
    assert_eq!(bench.waiting(), ["s"]);
    for i in 0..10 {
        assert_eq!(bench.at(f64::from(i), "p/t", 1.0), NONE);
    }
    assert_eq!(bench.waiting(), NONE);
    assert_eq!(bench.due(), Some(39.0));
    assert_eq!(bench.tick(38.9), NONE);
    assert_eq!(
        bench.tick(45.0),
        ["+s p/t @39 [9..39]: p: t has sent nothing for 30 seconds"]
    );
    assert_eq!(bench.tick(500.0), NONE);
    assert_eq!(
        bench.at(501.0, "p/t", 1.0),
        ["-s p/t @501: p: t sends again"]
    );

    // A hole in what came at once.
    let mut bench = Bench::new(rule(&format!("{silence}for_s = 30")));
    let kept = |at: f64| Sample {
        received_time: time(1_000.0),
        ..sample(at, 1.0)
    };
    assert_eq!(bench.step("p/t", kept(0.0)), NONE);
    assert_eq!(bench.step("p/t", kept(30.0)), NONE);
    let said = bench.step("p/t", kept(70.0));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("+s p/t @60 [30..60]"), "{said:?}");
    assert!(said[1].starts_with("-s p/t @70"), "{said:?}");
}

#[test]
fn silence_by_intervals_learns_them() {
    let silence = "name = \"s\"\nkind = \"silence\"\nmetric = \"t\"\nintervals = 3";
    let mut bench = Bench::new(rule(silence));
    for i in 0..8 {
        bench.at(f64::from(i) * 10.0, "p/t", 1.0);
        assert_eq!(bench.due(), None, "{i}: it does not know yet");
        assert_eq!(bench.waiting(), ["s"]);
    }
    bench.at(80.0, "p/t", 1.0);
    assert_eq!(bench.due(), Some(110.0));
    assert_eq!(bench.waiting(), NONE);
    assert_eq!(bench.tick(110.0).len(), 1);
    assert_eq!(bench.at(500.0, "p/t", 1.0).len(), 1);
    // The silence counts as three intervals of the thirty-two that weigh most.
    let due = bench.due().unwrap();
    assert!((due - 536.6).abs() < 1.0, "{due}");
}

#[test]
fn what_did_not_come_while_the_agent_was_away_is_no_silence() {
    let silence = "name = \"s\"\nkind = \"silence\"\nmetric = \"t\"\nfor_s = 30";
    let mut bench = Bench::new(rule(silence));
    bench.at(0.0, "p/t", 1.0);
    bench.rebirth();
    bench.engine.resume(time(3_600.0));
    assert_eq!(bench.tick(3_600.0), NONE);
    assert_eq!(bench.due(), Some(3_630.0));
    assert_eq!(bench.at(3_610.0, "p/t", 1.0), NONE);
    assert_eq!(bench.tick(3_639.0), NONE);
    assert_eq!(bench.tick(3_640.0).len(), 1);
    // Nor did a value hold then.
    let mut bench = Bench::new(rule(&format!("{HOT}\nhold_s = 10")));
    bench.at(0.0, "p1/t", 81.0);
    bench.engine.resume(time(3_600.0));
    assert_eq!(bench.due(), Some(3_610.0));
}
