//! Rules that look at several series together.

use super::*;

const APART: &str = r#"
    name = "apart"
    kind = "compare"
    device = "p*"
    metric = "inlet"
    op = ">"
    other_metric = "outlet"
    offset = 5
    message = "{value} > {limit}, by {measured}"
    message_cleared = "{measured}"
"#;

#[test]
fn two_series_of_each_device_are_compared() {
    let mut bench = Bench::new(rule(&format!("{APART}\nhysteresis = 1")));
    assert_eq!(bench.at(0.0, "p1/inlet", 90.0), NONE);
    assert_eq!(bench.waiting(), ["apart"]);
    assert_eq!(bench.at(1.0, "p2/outlet", 10.0), NONE, "another device's");
    assert_eq!(
        bench.at(2.0, "p1/outlet", 80.0),
        ["+apart p1/inlet @2: 90 > 85, by 5"]
    );
    assert_eq!(bench.waiting(), NONE);
    assert_eq!(bench.at(3.0, "p1/inlet", 84.5), NONE);
    assert_eq!(bench.at(4.0, "p1/inlet", 84.0), ["-apart p1/inlet @4: -1"]);
    // A reading that its own series has passed changes nothing.
    let late = Sample {
        late: true,
        ..sample(3.0, 200.0)
    };
    assert_eq!(bench.step("p1/inlet", late), NONE);
    assert_eq!(bench.at(3.5, "p1/inlet", 200.0), NONE);
    assert_eq!(bench.at(5.0, "p1/outlet", 70.0).len(), 1);
}

#[test]
fn a_value_that_is_too_old_is_not_compared() {
    let mut bench = Bench::new(rule(&format!("{APART}\nstale_s = 60")));
    bench.at(0.0, "p1/outlet", 0.0);
    assert_eq!(bench.at(60.5, "p1/inlet", 90.0), NONE);
    assert_eq!(bench.at(61.0, "p1/outlet", 0.0).len(), 1);
}

#[test]
fn two_devices_are_compared_by_their_names() {
    let settings = r#"
        name = "both"
        kind = "compare"
        device = "north"
        metric = "t"
        op = "!="
        other_device = "south"
        other_metric = "t"
        tolerance = 2
        hold_s = 10
        message = "{device} {metric} {value} {limit} {measured}"
    "#;
    let mut bench = Bench::new(rule(settings));
    assert_eq!(bench.at(0.0, "south/t", 20.0), NONE);
    assert_eq!(bench.at(1.0, "north/t", 17.0), NONE);
    assert_eq!(bench.at(2.0, "east/t", 99.0), NONE);
    assert_eq!(bench.at(5.0, "south/t", 21.0), NONE);
    assert_eq!(bench.due(), Some(11.0));
    assert_eq!(
        bench.tick(11.0),
        ["+both north/t @11 [1..11]: north t 17 21 -4"]
    );
    assert_eq!(bench.at(12.0, "south/t", 19.0).len(), 1);
}

#[test]
fn values_whose_difference_is_no_number_are_counted() {
    let mut bench = Bench::new(rule(APART));
    bench.at(0.0, "p1/inlet", f64::MAX);
    assert_eq!(bench.at(1.0, "p1/outlet", -f64::MAX), NONE);
    assert_eq!(bench.engine.counts().undefined, 1);
    assert_eq!(bench.engine.counts().not_numbers, 0);
}

#[test]
fn an_expression_is_over_readings_and_windows_of_each_device() {
    let settings = r#"
        name = "heavy"
        kind = "expression"
        device = "p*"
        when = "temperature > 80 && mean(current, 8s) > 10"
        hold_s = 2
        message = "{device} {metric} {value} {unit}|{measured} {limit} {duration}"
        message_cleared = "{value}"
    "#;
    let mut bench = Bench::new(rule(settings));
    assert_eq!(bench.at(0.0, "p1/temperature", 90.0), NONE);
    assert_eq!(bench.waiting(), ["heavy"], "no current yet");
    assert_eq!(bench.at(1.0, "p1/current", 8.0), NONE);
    assert_eq!(bench.waiting(), NONE);
    assert_eq!(bench.at(2.0, "p1/current", 10.0), NONE);
    assert_eq!(bench.at(3.0, "p1/current", 14.0), NONE, "10.7 for a moment");
    assert_eq!(bench.due(), Some(5.0));
    assert_eq!(bench.at(4.0, "p2/temperature", 90.0), NONE);
    assert_eq!(
        bench.tick(5.0),
        ["+heavy p1/temperature @5 [3..5]: p1 temperature 90|nothing nothing 2"]
    );
    assert_eq!(
        bench.at(6.0, "p1/temperature", 70.0),
        ["-heavy p1/temperature @6: 70"]
    );
}

#[test]
fn an_expression_is_not_judged_by_what_is_too_old_or_no_number() {
    let settings = r#"
        name = "x"
        kind = "expression"
        metric = "x"
        when = "a / b > 2"
        stale_s = 60
    "#;
    let mut bench = Bench::new(rule(settings));
    bench.at(0.0, "p/a", 9.0);
    assert_eq!(bench.at(1.0, "p/b", 0.0), NONE);
    assert_eq!(bench.engine.counts().undefined, 1);
    assert_eq!(bench.at(2.0, "p/b", 3.0).len(), 1);
    // What cannot be told ends nothing.
    assert_eq!(bench.at(3.0, "p/b", 0.0), NONE);
    assert_eq!(bench.at(61.0, "p/b", 9.0), NONE, "the other is too old");
    let said = bench.at(62.0, "p/a", 9.0);
    assert_eq!(
        said,
        ["-x p/x @62: p: x is 9 again, the alert \"x\" is over"]
    );
    let late = Sample {
        late: true,
        ..sample(1.0, 99.0)
    };
    assert_eq!(bench.step("p/a", late), NONE);
}
