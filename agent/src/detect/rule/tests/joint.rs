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
