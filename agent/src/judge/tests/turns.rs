//! Who has a place where there are more series than may be watched, and no turn is left.

use super::idle::keeping;
use super::*;
use crate::limits::SERIES_TURNS_BURST;
use tributary_settings::Document;

#[test]
fn a_device_that_makes_up_names_leaves_the_others_their_turns() {
    let (mut told, rows) = keeping(64, 1_000);
    let no_turn = |told: &Told| told.judge.counts().no_turn;
    for number in 0..SERIES_TURNS_BURST + 1_000 {
        told.message(0, &format!("greedy/{number}"), "1");
        if number % 300 == 299 {
            // Some of these are new, and the last ones come back.
            let before = no_turn(&told);
            told.message(0, &format!("d{}/t", number / 300 % 40), "1");
            assert_eq!(no_turn(&told), before, "after {number}");
        }
        if number % 7_000 == 6_999 {
            told.again();
            told.judge = told.judge.keeping(Box::new(rows.clone()));
        }
    }
    let counts = told.judge.counts();
    let before = counts.no_turn;
    told.message(0, "greedy/another", "1");
    assert_eq!(no_turn(&told), before + 1, "it has none left itself");
}

/// Has a stage that begins to run forward by these sections.
fn forward_by(told: &mut Told, sections: &str) {
    let mut document = Document::parse(sections, "", []);
    let rules = ForwardRules::read(&mut document.root(), &Settings::default());
    assert!(document.finish().is_empty());
    told.judge.forward_by(&rules);
}

/// No series may give way at the time that the log has come to.
fn use_up_turns(told: &mut Told) {
    let series = &mut told.judge.series;
    let now = series.times.steady();
    while series.turns.take(now, false) || series.turns.take(now, true) {}
}

/// How many readings are in aggregates of a series.
fn summed_up(told: &Told, device: &str, metric: &str) -> u64 {
    let of_series = told.said.iter().filter_map(|said| match &said.what {
        What::Aggregate(spoken) if (&*spoken.device, &*spoken.metric) == (device, metric) => {
            Some(serde_json::from_str::<serde_json::Value>(&spoken.json).unwrap())
        }
        _ => None,
    });
    of_series.map(|it| it["count"].as_u64().unwrap()).sum()
}

#[test]
fn what_leaves_as_aggregates_alone_is_in_them_also_where_no_turn_is_left() {
    const WATCHED: u64 = 10;
    const FORWARD: &str = "[[forward]]\nmetrics = [\"t\"]\nwhat = \"aggregates\"\n";
    let text = format!(
        "[detect]\nseries_max = {WATCHED}\n\
         [[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n"
    );
    let mut told = Told::new(&Settings::parse(&text).unwrap());
    forward_by(&mut told, FORWARD);
    for device in 0..WATCHED {
        told.message(1, &format!("d{device}/t"), "1");
    }
    use_up_turns(&mut told);
    for round in 1..30 {
        // One more than may be watched: each finds that it gave way.
        for device in 0..=WATCHED {
            told.message(1, &format!("d{device}/t"), "1");
        }
        if round == 15 {
            told.again();
            forward_by(&mut told, FORWARD);
        }
    }
    told.message(1, "d0/leaves", "1");
    assert_eq!(told.judge.counts().no_turn, 1, "it leaves as it is");
    (2..30).for_each(|second| told.tick(second));
    for device in 0..=WATCHED {
        let sent = if device == WATCHED { 29 } else { 30 };
        assert_eq!(summed_up(&told, &format!("d{device}"), "t"), sent);
    }
}

#[test]
fn so_are_the_features_of_a_vibration() {
    let text = "[detect]\nseries_max = 4\n\
                [[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n\
                [[detect.vibration]]\nmetric = \"v\"\nwindow = 64\n";
    let mut told = Told::new(&Settings::parse(text).unwrap());
    forward_by(
        &mut told,
        "[[forward]]\nmetrics = [\"v\"]\nwhat = \"aggregates\"\n",
    );
    for device in 0..4 {
        told.message(100, &format!("d{device}/t"), "1");
    }
    use_up_turns(&mut told);
    for second in 0..64 {
        let sample = (second as f64 * 0.7).sin();
        told.message(100, "press/v", &value(second, sample));
    }
    assert_eq!(told.judge.counts().no_turn, 0);
    told.tick(101);
    assert_eq!(summed_up(&told, "press", "rms"), 0);
    assert_eq!(summed_up(&told, "press", "v.rms"), 1);
}
