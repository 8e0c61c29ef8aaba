//! What is watched, looked at piece by piece.

use super::*;
use crate::limits::WATCHING_STEP;

#[test]
fn a_survey_goes_through_all_of_them_in_bounded_pieces() {
    let mut told = Told::new(&sensitive());
    let many = WATCHING_STEP as i64 + 10;
    for series in (0..many).rev() {
        told.message(0, &format!("d{series:05}/t"), "1");
    }
    for second in 1..150 {
        told.message(second, "d00000/t", &value(second, usual(second)));
    }
    let mut survey = Survey::new(3);
    assert_eq!(told.judge.survey(&mut survey), None, "one piece is not all");
    let watching = loop {
        if let Some(watching) = told.judge.survey(&mut survey) {
            break watching;
        }
    };
    let many = many as usize;
    assert_eq!((watching.series, watching.learning), (many, many - 1));
    let listed = watching.listed.iter().map(|series| &*series.device);
    let listed: Vec<_> = listed.collect();
    assert_eq!(listed, ["d00001", "d00002", "d00003"], "one is not learned");
}

fn surveyed(told: &Told) -> Watching {
    let mut survey = Survey::new(3);
    loop {
        if let Some(watching) = told.judge.survey(&mut survey) {
            return watching;
        }
    }
}

#[test]
fn devices_whose_clock_is_not_believed_are_named_the_farthest_off_first() {
    let mut told = Told::new(&sensitive());
    let at = |own: &str| format!("{{\"value\":1,\"ts\":\"{own}\"}}");
    for second in 0..3 {
        told.message(second, "right/t", &value(second, 1.0));
        told.message(second, "without/t", "1");
        told.message(
            second,
            "old/t",
            &at(&format!("1970-01-01T00:00:0{second}Z")),
        );
        told.message(second, "ahead/t", &value(second + 7_200, 1.0));
    }
    told.again();
    let of = |watching: &Watching| {
        let clocks = watching.clocks.iter();
        clocks
            .map(|clock| (clock.device.clone(), clock.ahead_s))
            .collect::<Vec<_>>()
    };
    let watching = surveyed(&told);
    let expected = [
        ("old".to_owned(), -NOW / SECOND),
        ("ahead".to_owned(), 7_200),
    ];
    assert_eq!(of(&watching), expected);
    assert_eq!(watching.suspect_clocks, 2);
    // Its clock is set right.
    told.message(5, "old/t", &value(5, 1.0));
    assert_eq!(of(&surveyed(&told)), expected[1..]);
    for device in 0..40 {
        told.message(6, &format!("d{device:02}/t"), &value(7_200 + device, 1.0));
    }
    let watching = surveyed(&told);
    assert_eq!(watching.suspect_clocks, 41);
    assert_eq!(watching.clocks.len(), crate::limits::WATCHING_CLOCKS_MAX);
    assert_eq!(watching.clocks[0].device, "d39");
}

#[test]
fn series_that_say_numbers_as_texts_are_named() {
    let mut told = Told::new(&sensitive());
    for second in 0..3 {
        told.message(second, "pump/state", "\"running\"");
        told.message(second, "pump/t", "{\"value\":\"23.5\"}");
        told.message(second, "pump/v", "1");
    }
    let texts = surveyed(&told).number_texts;
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!((&*texts[0].device, &*texts[0].metric), ("pump", "t"));
    assert_eq!(texts[0].text, "23.5");
    for device in 0..40 {
        told.message(4, &format!("d{device}/t"), "{\"value\":\"1\"}");
    }
    let most = crate::limits::WATCHING_TEXTS_MAX;
    assert_eq!(surveyed(&told).number_texts.len(), most);
}

#[test]
fn each_rule_window_and_group_says_what_it_is_for() {
    let text = limit("hot", "t", "info")
        + &limit("typo", "temprature", "info")
        + "[[detect.rule]]\nname = \"dry\"\nkind = \"compare\"\nmetric = \"t\"\nop = \">\"\n\
           other_metric = \"v\"\n\
           [[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n\
           devices = [\"a\"]\n\
           [[detect.window]]\nname = \"none\"\nkind = \"tumbling\"\nsize_ms = 10000\n\
           devices = [\"plant/+\"]\n\
           [[detect.group]]\nname = \"spindle\"\nmetrics = [\"t\", \"v\"]\n\
           [[detect.group]]\nname = \"nothing\"\nmetrics = [\"x\", \"y\"]\n";
    let mut told = Told::new(&Settings::parse(&text).unwrap());
    for device in ["a", "b", "c"] {
        told.message(1, &format!("{device}/t"), &value(1, 1.0));
    }
    told.message(2, "a/v", &value(2, 1.0));
    told.again();
    let for_now = |told: &Told| {
        let configured = surveyed(told).configured.into_iter();
        configured
            .map(|it| (it.name, it.of, it.count, it.judged))
            .collect::<Vec<_>>()
    };
    let is = |name: &str, of: &str, count, judged| (name.to_owned(), of.to_owned(), count, judged);
    let expected = [
        is("hot", "series", 3, 3),
        is("typo", "series", 0, 0),
        is("dry", "devices", 3, 1),
        is("ten", "series", 2, 2),
        is("none", "series", 0, 0),
        is("spindle", "devices", 3, 3),
        is("nothing", "devices", 0, 0),
    ];
    assert_eq!(for_now(&told), expected);
    // What is configured anew is for what comes from then on, and what stays is for what it was.
    told.settings(&Settings::parse(&text.replace("temprature", "t")).unwrap());
    assert_eq!(for_now(&told)[1].2, 3);
    assert_eq!(for_now(&told)[3], expected[3]);
}

#[test]
fn a_survey_begins_anew_when_other_windows_are_configured_meanwhile() {
    let window = |name: &str, device: &str| {
        format!(
            "[[detect.window]]\nname = \"{name}\"\nkind = \"tumbling\"\nsize_ms = 10000\n\
             devices = [\"{device}\"]\n"
        )
    };
    let of = |windows: [String; 2]| Settings::parse(&windows.concat()).unwrap();
    let (all, one) = (window("all", "+"), window("one", "d00000"));
    let mut told = Told::new(&of([all.clone(), one.clone()]));
    let many = WATCHING_STEP + 10;
    for series in 0..many {
        told.message(0, &format!("d{series:05}/t"), "1");
    }
    let mut survey = Survey::new(3);
    assert_eq!(told.judge.survey(&mut survey), None, "one piece is not all");
    told.settings(&of([one, all]));
    let watching = loop {
        if let Some(watching) = told.judge.survey(&mut survey) {
            break watching;
        }
    };
    let counts = watching.configured.iter();
    let counts: Vec<_> = counts.map(|it| (&*it.name, it.count)).collect();
    assert_eq!(counts, [("one", 1), ("all", many)]);
    assert_eq!((watching.learning, watching.listed.len()), (many, 3));
}
