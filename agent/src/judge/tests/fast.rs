//! Series that report faster than once a second: what is said of their windows.

use super::*;
use crate::detect::FastMode;

pub(super) const TENTH: i64 = SECOND / 10;
pub(super) const TOPIC: &str = "site/pump/t";

/// Something that is usual at a tenth of a second, and comes again each 91 seconds.
pub(super) fn noise(tenth: i64) -> f64 {
    let turns = |of: f64| (tenth as f64 * std::f64::consts::TAU / of).sin();
    20.0 + turns(70.0) + turns(130.0)
}

impl Told {
    pub(super) fn reading_at(&mut self, at: i64, topic: &str, value: f64) {
        self.reading_of(at, at, topic, value);
    }

    /// A reading that was measured at one time, and came at another.
    fn reading_of(&mut self, received: i64, at: i64, topic: &str, value: f64) {
        let payload = format!(
            "{{\"value\":{value:?},\"unit\":\"mm\",\"ts\":{}}}",
            NOW + at
        );
        let packet_id = (self.number % 60_000 + 1) as u16;
        self.publish_at(received, topic, &payload, packet_id, false);
    }

    pub(super) fn tenths(&mut self, tenths: std::ops::Range<i64>) {
        for tenth in tenths {
            self.reading_at(tenth * TENTH, TOPIC, noise(tenth));
        }
    }

    /// Ticks as the agent has them written, until nothing is due before this.
    pub(super) fn pass_until(&mut self, at: i64) {
        while let Some(due) = self.judge.poll_timeout()
            && due <= NOW + at
        {
            self.tick_at(due);
        }
    }

    pub(super) fn raised_of(&self, metric: &str) -> Vec<serde_json::Value> {
        let mut raised = self.raised();
        raised.retain(|alert| alert["metric"] == metric);
        raised
    }
}

#[test]
fn a_spike_of_a_fast_series_is_raised_with_its_second() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..2_000);
    assert_eq!(told.said, []);
    let counts = told.judge.counts();
    assert_eq!((counts.judged, counts.paces), (2_000, 1));
    assert!((197..=199).contains(&counts.seconds), "{counts:?}");
    assert_eq!(told.judge.watched(), 2, "its other series is watched, too");
    told.reading_at(2_000 * TENTH, TOPIC, 95.0);
    told.tenths(2_001..2_015);
    assert_eq!(told.said, [], "its second is open for half a second more");
    told.tenths(2_015..2_016);
    let [alert] = told.raised_of("t").try_into().unwrap();
    let mean = (95.0 + (2_001..2_010).map(noise).sum::<f64>()) / 10.0;
    assert!((alert["value"].as_f64().unwrap() - mean).abs() < 1e-9);
    let window = serde_json::json!({
        "from": "2023-11-14T22:16:40.000000Z", "to": "2023-11-14T22:16:41.000000Z",
    });
    for (key, is) in [
        ("detector", "series".into()),
        ("kind", "event".into()),
        ("unit", "mm".into()),
        ("window", window.clone()),
        ("event_time", "2023-11-14T22:16:40.000000Z".into()),
        ("received_time", "2023-11-14T22:16:40.900000Z".into()),
        ("late", false.into()),
    ] {
        assert_eq!(alert[key], is, "{key}: {alert}");
    }
    let text = alert["text"].as_str().unwrap();
    assert!(text.starts_with("site/pump t is 2"), "{text}");
    assert!(text.contains(" mm (mean of 1 s): "), "{text}");
    let around = alert["around"].as_array().unwrap();
    assert_eq!(around.len(), AROUND);
    assert_eq!(around[0][0], NOW + 196 * SECOND, "the seconds before it");
    assert_eq!(around[AROUND - 1][0], NOW + 200 * SECOND);
    let [apart] = told.raised_of("t.peak_to_peak").try_into().unwrap();
    assert_eq!(apart["window"], window);
    assert_eq!(apart["incident"], alert["id"]);
    let text = apart["text"].as_str().unwrap();
    assert!(text.contains(" mm (over 1 s): "), "{text}");
    told.tenths(2_016..2_700);
    assert_eq!(told.told("cleared").len(), 2);
    let text = told.told("cleared")[0]["text"].to_string();
    assert!(text.contains("as usual for 60 seconds"), "{text}");
}

#[test]
fn a_spike_in_the_last_second_before_silence_is_raised_half_a_second_behind_its_end() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..2_000);
    told.reading_at(2_003 * TENTH, TOPIC, 95.0);
    told.again();
    told.pass_until(2_015 * TENTH - 1);
    assert_eq!(told.said, []);
    told.pass_until(2_015 * TENTH + TENTH / 2);
    let [alert] = told.raised_of("t").try_into().unwrap();
    assert_eq!(alert["value"], 95.0);
    assert_eq!(alert["received_time"], "2023-11-14T22:16:40.300000Z");
    assert_eq!(told.raised_of("t.peak_to_peak"), [0; 0], "of one reading");
}

#[test]
fn reading_by_reading_is_a_choice_and_either_begins_anew() {
    let by_readings = Settings {
        fast: FastMode::Readings,
        ..sensitive()
    };
    let mut told = Told::new(&by_readings);
    told.tenths(0..1_000);
    told.said.clear();
    told.reading_at(1_000 * TENTH, TOPIC, 95.0);
    let [alert] = told.raised().try_into().unwrap();
    assert_eq!(alert["window"], serde_json::Value::Null);
    assert_eq!(told.judge.counts().seconds, 0);
    told.said.clear();
    told.settings(&sensitive());
    // It was fast all the while.
    told.tenths(1_001..3_000);
    let counts = told.judge.counts();
    assert!(counts.seconds > 190 && counts.paces == 1, "{counts:?}");
    let [cleared] = told.told("cleared").try_into().unwrap();
    assert_eq!(cleared["id"], alert["id"]);
    told.reading_at(3_000 * TENTH, TOPIC, 95.0);
    told.tenths(3_001..3_016);
    assert_eq!(told.raised().len(), 2);
    told.said.clear();
    told.settings(&by_readings);
    let [cleared] = told.told("cleared").try_into().unwrap();
    assert_eq!(cleared["metric"], "t.peak_to_peak");
    let text = cleared["text"].to_string();
    assert!(text.contains("judged reading by reading"), "{text}");
    // Nothing is known of readings then: it learns.
    told.said.clear();
    told.reading_at(3_016 * TENTH, TOPIC, 400.0);
    assert_eq!(told.raised(), [0; 0]);
}

#[test]
fn a_series_that_becomes_slower_is_judged_by_its_readings() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..300);
    told.again();
    for second in 30..300 {
        told.reading_at(second * SECOND * 11 / 10, TOPIC, noise(second));
    }
    let counts = told.judge.counts();
    assert_eq!(counts.paces, 1, "{counts:?}");
    let seconds = counts.seconds;
    told.reading_at(331 * SECOND, TOPIC, 95.0);
    let [alert] = told.raised().try_into().unwrap();
    assert_eq!(alert["window"], serde_json::Value::Null);
    assert_eq!(told.judge.counts().seconds, seconds);
}

#[test]
fn readings_of_a_name_go_before_what_is_made_of_others() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..300);
    let other = "site/pump/t.peak_to_peak";
    for tenth in 300..2_000 {
        told.tenths(tenth..tenth + 1);
        if tenth % 10 == 5 {
            told.reading_at(tenth * TENTH, other, 500.0 + noise(tenth));
        }
    }
    assert_eq!(told.said, [], "the two were never mixed");
    told.reading_at(2_000 * TENTH, other, 1.0);
    let [alert] = told.raised().try_into().unwrap();
    assert_eq!(alert["window"], serde_json::Value::Null);
}

#[test]
fn no_number_is_in_a_window() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..300);
    let before = told.judge.counts();
    told.reading_at(300 * TENTH, TOPIC, 1e308);
    told.reading_at(301 * TENTH, TOPIC, 1e308);
    told.tenths(310..330);
    let counts = told.judge.counts();
    assert_eq!(counts.not_finite, before.not_finite + 1, "their mean");
    // Late readings change nothing either.
    told.reading_at(300 * TENTH, TOPIC, 1.0);
    assert_eq!(told.judge.counts().late, before.late + 1);
    assert_eq!(told.judge.counts().judged, counts.judged);
}

#[test]
fn a_series_turned_down_to_one_hertz_has_no_alert_of_what_it_was() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..2_000);
    told.reading_at(2_000 * TENTH, TOPIC, 95.0);
    told.tenths(2_001..2_020);
    assert_eq!(told.raised_of("t.peak_to_peak").len(), 1);
    for second in 202..300 {
        told.reading_at(second * SECOND, TOPIC, noise(second));
        let cleared = told.told("cleared");
        let is_over = cleared
            .iter()
            .any(|alert| alert["metric"] == "t.peak_to_peak");
        assert_eq!(is_over, second > 232, "{second}");
    }
    let counts = told.judge.counts();
    assert_eq!((counts.paces, told.judge.fast()), (2, 0), "{counts:?}");
}

#[test]
fn a_spike_in_what_a_stall_held_back_is_raised() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..2_004);
    told.pass_until(203 * SECOND);
    let seconds = told.judge.counts().seconds;
    for tenth in 2_004..2_030 {
        let value = if tenth == 2_006 { 95.0 } else { noise(tenth) };
        told.reading_of(203 * SECOND, tenth * TENTH, TOPIC, value);
    }
    told.tenths(2_030..2_050);
    assert_eq!(told.raised_of("t").len(), 1);
    let [apart] = told.raised_of("t.peak_to_peak").try_into().unwrap();
    assert_eq!(apart["window"]["from"], "2023-11-14T22:16:41.000000Z");
    let counts = told.judge.counts();
    assert_eq!((counts.late, counts.judged), (0, 2_050));
    assert_eq!(counts.seconds, seconds + 3);
}

#[test]
fn what_is_shown_around_an_alert_are_numbers() {
    let mut told = Told::new(&sensitive());
    told.tenths(0..2_000);
    told.reading_at(2_000 * TENTH, TOPIC, 1e308);
    told.reading_at(2_001 * TENTH, TOPIC, 1e308);
    told.tenths(2_002..2_020);
    told.reading_at(2_020 * TENTH, TOPIC, 95.0);
    told.tenths(2_021..2_036);
    let [alert] = told.raised_of("t").try_into().unwrap();
    let around = alert["around"].as_array().unwrap();
    let times: Vec<_> = around.iter().map(|pair| pair[0].clone()).collect();
    assert_eq!(times, [NOW + 201 * SECOND, NOW + 202 * SECOND]);
    assert!(around.iter().all(|pair| pair[1].is_number()), "{alert}");
}

#[test]
fn what_is_made_of_others_takes_nobodys_place_and_gives_way_first() {
    let mut told = Told::new(&Settings {
        series_max: 2,
        ..sensitive()
    });
    let is_watched = |told: &Told, device: &str, metric: &str| {
        told.judge.series.watched.series(device, metric).is_some()
    };
    let both = |told: &mut Told, tenths: std::ops::Range<i64>| {
        for tenth in tenths {
            told.pass_until(tenth * TENTH);
            told.reading_at(tenth * TENTH, "p0/t", noise(tenth));
            told.reading_at(tenth * TENTH, "p1/t", noise(tenth));
        }
    };
    for tenth in 0..100 {
        told.reading_at(tenth * TENTH, "p0/t", noise(tenth));
    }
    assert!(is_watched(&told, "p0", "t") && is_watched(&told, "p0", "t.peak_to_peak"));
    both(&mut told, 100..300);
    assert!(is_watched(&told, "p0", "t") && is_watched(&told, "p1", "t"));
    let counts = told.judge.counts();
    assert_eq!((told.judge.fast(), counts.forgotten), (2, 1));
    assert_eq!((counts.judged, counts.late), (500, 0));
    assert!((37..=40).contains(&counts.crowded), "{counts:?}");
    // A third one takes the place of the one that spoke less lately, and of its windows.
    told.reading_at(300 * TENTH, "p2/t", 1.0);
    assert!(!is_watched(&told, "p0", "t") && is_watched(&told, "p1", "t"));
    assert_eq!(told.judge.fast(), 1);
    let seconds = told.judge.counts().seconds;
    told.pass_until(40 * SECOND);
    assert_eq!(told.judge.series.fast.poll_timeout(), None);
    assert_eq!(told.judge.counts().seconds, seconds + 1, "of the other one");
}

#[test]
fn an_alert_of_what_is_made_of_others_does_not_outlast_it() {
    let mut told = Told::new(&Settings {
        series_max: 2,
        ..sensitive()
    });
    told.tenths(0..2_000);
    told.reading_at(2_000 * TENTH, TOPIC, 95.0);
    told.tenths(2_001..2_016);
    assert_eq!(told.judge.standing().count(), 2);
    told.said.clear();
    told.reading_at(2_016 * TENTH, "other/t", 1.0);
    let [said] = <[Said; 1]>::try_from(std::mem::take(&mut told.said)).unwrap();
    assert_eq!(said.what, What::Forgotten);
    assert_eq!(said.topic, "tributary/alerts/site/pump/t.peak_to_peak");
    assert_eq!(told.judge.standing().count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn with_a_checkpoint_anywhere_the_same_is_said_of_fast_series(
        steps in proptest::collection::vec((0_u8..3, 0_i64..3, 0_u8..60, 0_u8..200), 1_500..2_500),
        series_max in 4_usize..9,
        every in 1_usize..200,
    ) {
        let settings = Settings { series_max, ..sensitive() };
        let (mut one, mut other) = (Told::new(&settings), Told::new(&settings));
        let mut at = 0;
        for (i, (device, step, odd, pause)) in steps.into_iter().enumerate() {
            at += step * TENTH;
            if pause == 0 {
                at += 3 * SECOND;
                one.pass_until(at);
                other.pass_until(at);
            }
            let off = if odd == 0 { 60.0 } else { 0.0 };
            let back = i64::from(odd == 1) * 4 * TENTH;
            for told in [&mut one, &mut other] {
                let topic = format!("d{}/t{device}", device % 2);
                told.reading_at(at - back, &topic, noise(i as i64) + off);
            }
            if i % every == 0 {
                other.again();
            }
        }
        prop_assert!(one.judge.counts().seconds > 0 || series_max < 6);
        prop_assert_eq!(one.said, other.said);
    }
}
