//! What a topic shows: which alert, when several share it.

use super::*;
use crate::limits::STANDING_MAX;

/// What the topics below `tributary/alerts/` show, to somebody who was there all the while.
fn shown(said: &[Said]) -> std::collections::BTreeMap<String, String> {
    let mut shown = std::collections::BTreeMap::new();
    for said in said {
        let json = match &said.what {
            What::Alert(spoken) if spoken.is_present => spoken.json.clone(),
            What::Again(json) => json.clone(),
            What::Forgotten => String::new(),
            What::Alert(_) | What::Aggregate(_) => continue,
        };
        shown.insert(said.topic.clone(), json);
    }
    shown
}

fn names(json: &str) -> (String, String, String) {
    let json: serde_json::Value = serde_json::from_str(json).unwrap();
    let text = |key: &str| json[key].as_str().unwrap().to_owned();
    (text("device"), text("metric"), text("state"))
}

fn is(names: (&str, &str, &str)) -> (String, String, String) {
    (names.0.into(), names.1.into(), names.2.into())
}

/// Two series that share the topic `tributary/alerts/a/b/c`, each with a limit.
fn colliding() -> Told {
    let text = limit("one", "c", "info") + &limit("two", "b/c", "info");
    Told::new(&Settings::parse(&text).unwrap())
}

fn reading(told: &mut Told, second: i64, names: (&str, &str), value: f64) {
    let (device, metric) = names;
    told.message(second, device, &format!("{{\"{metric}\":{value}}}"));
}

#[test]
fn two_series_of_one_topic_do_not_hide_each_others_alerts() {
    const TOPIC: &str = "tributary/alerts/a/b/c";
    let (one, two) = (("a/b", "c"), ("a", "b/c"));
    for (first, then) in [(one, two), (two, one)] {
        let mut told = colliding();
        reading(&mut told, 0, first, 90.0);
        reading(&mut told, 1, then, 90.0);
        assert_eq!(told.raised().len(), 2);
        told.again();
        reading(&mut told, 2, then, 10.0);
        let left = is((first.0, first.1, "raised"));
        assert_eq!(names(&shown(&told.said)[TOPIC]), left);
        assert_eq!(told.judge.standing().count(), 1);
        reading(&mut told, 3, first, 10.0);
        let over = is((first.0, first.1, "cleared"));
        assert_eq!(names(&shown(&told.said)[TOPIC]), over);
        assert_eq!(told.judge.standing().count(), 0);
    }
}

#[test]
fn what_is_told_to_be_over_later_leaves_the_other_alert_shown() {
    let (one, two) = (limit("one", "load", "info"), limit("two", "load", "info"));
    let mut told = Told::new(&Settings::parse(&(one.clone() + &two)).unwrap());
    let devices = 40;
    for device in 0..devices {
        told.message(device * 10, &format!("d{device}/load"), "90");
    }
    assert_eq!(told.raised().len() as i64, 2 * devices);
    told.settings(&Settings::parse(&one).unwrap());
    assert!(
        (told.told("cleared").len() as i64) < devices,
        "more than a record may tell"
    );
    told.again();
    told.tick(500);
    assert_eq!(told.told("cleared").len() as i64, devices);
    for (topic, json) in shown(&told.said) {
        assert_eq!(names(&json).2, "raised", "{topic}");
        assert!(json.contains("rule:one"), "{topic}");
    }
}

#[test]
fn where_a_forgotten_series_had_the_last_word_the_other_alert_is_shown() {
    let text = "[detect]\npreset = \"sensitive\"\nweekly = false\nseries_max = 2\n".to_owned()
        + &limit("two", "b/c", "info");
    let mut told = Told::new(&Settings::parse(&text).unwrap());
    for second in 0..150 {
        reading(&mut told, second, ("a/b", "c"), usual(second));
    }
    reading(&mut told, 150, ("a", "b/c"), 90.0);
    reading(&mut told, 151, ("a/b", "c"), 900.0);
    assert_eq!(told.raised().len(), 2);
    reading(&mut told, 152, ("a", "b/c"), 90.0);
    reading(&mut told, 153, ("z", "z"), 1.0);
    assert_eq!(told.judge.counts().forgotten, 1);
    let json = &shown(&told.said)["tributary/alerts/a/b/c"];
    assert_eq!(names(json), is(("a", "b/c", "raised")));
}

#[test]
fn what_topics_show_is_known_after_a_restart_also_where_nothing_stands() {
    let text = "[detect]\npreset = \"sensitive\"\nweekly = false\nseries_max = 4\n".to_owned()
        + &limit("load", "load", "info");
    let mut told = Told::new(&Settings::parse(&text).unwrap());
    for second in 0..150 {
        reading(&mut told, second, ("pump", "t"), usual(second));
    }
    reading(&mut told, 150, ("pump", "t"), 900.0);
    for device in ["a", "b", "c"] {
        reading(&mut told, 151, (device, "load"), 90.0);
    }
    for device in ["a", "b"] {
        reading(&mut told, 152, (device, "load"), 10.0);
    }
    reading(&mut told, 153, ("b", "load"), 90.0);
    // The pump has to go, with its alert.
    reading(&mut told, 154, ("z", "load"), 1.0);
    assert_eq!(told.judge.counts().forgotten, 1);
    told.again();
    let both = told.judge.over().chain(told.judge.standing());
    let known: std::collections::BTreeMap<_, _> = both
        .map(|(topic, json)| (topic.to_owned(), json.to_owned()))
        .collect();
    assert_eq!(known, shown(&told.said));
    assert_eq!(
        told.judge.over().count(),
        2,
        "a is as usual, the pump is not watched"
    );
}

/// What topics show by the judge: as after a restart.
fn present(told: &Told, topic: &str) -> serde_json::Value {
    let shown = told.judge.standing().find(|(at, _)| *at == topic);
    serde_json::from_str(shown.unwrap().1).unwrap()
}

#[test]
fn a_topic_shows_the_gravest_alert_that_stands_and_of_those_the_newest() {
    const TOPIC: &str = "tributary/alerts/pump/load";
    let rule = |name: &str, above: i64, severity: &str| {
        limit(name, "load", severity).replace("80", &above.to_string())
    };
    let text = rule("worst", 20, "critical")
        + &rule("first", 40, "warning")
        + &rule("second", 60, "warning")
        + &rule("least", 80, "info");
    let mut told = Told::new(&Settings::parse(&text).unwrap());
    let shows = |told: &mut Told, second: i64, value: i64| {
        told.message(second, "pump/load", &value.to_string());
        told.again();
        let json = &shown(&told.said)[TOPIC];
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        if json["state"] != "cleared" {
            assert_eq!(present(told, TOPIC), json, "{value}");
        }
        json["detector"].as_str().unwrap().to_owned()
    };
    for (second, value) in (0..).zip([30, 50, 70, 90, 70]) {
        assert_eq!(shows(&mut told, second, value), "rule:worst", "{value}");
    }
    assert_eq!(told.raised().len(), 4);
    // Someone sees the least one of those that stand: the topic shows the gravest all the same.
    let id = told.raised()[1]["id"].as_str().unwrap().parse().unwrap();
    let seen = acknowledged_record(NOW + 5 * SECOND, id);
    told.record(RecordKind::Acknowledged, seen.iter().next().unwrap().1);
    assert_eq!(shows(&mut told, 6, 70), "rule:worst");
    // Without that one: of those that are as grave the newest, and then what is left.
    let fewer = text.replace(&rule("worst", 20, "critical"), "");
    told.settings(&Settings::parse(&fewer).unwrap());
    assert_eq!(shows(&mut told, 7, 70), "rule:second");
    assert_eq!(shows(&mut told, 8, 90), "rule:second");
    assert_eq!(shows(&mut told, 9, 50), "rule:first");
    assert_eq!(present(&told, TOPIC)["state"], "acknowledged");
    assert_eq!(shows(&mut told, 10, 10), "rule:first");
    assert_eq!(told.judge.standing().count(), 0);
}

#[test]
fn behind_whatever_a_topic_does_not_show_it_says_again_at_once_what_it_does() {
    let (grave, light) = (
        limit("grave", "load", "critical"),
        limit("light", "load", "info"),
    );
    let text = grave + &light.replace("80", "90");
    let mut told = Told::new(&Settings::parse(&text).unwrap());
    for (second, value) in (0..).zip([85, 95, 85, 95, 10]) {
        told.message(second, "pump/load", &value.to_string());
    }
    let mut others = 0;
    for (at, said) in told.said.iter().enumerate() {
        if let What::Alert(spoken) = &said.what
            && !spoken.is_present
        {
            let next = &told.said[at + 1];
            assert!(matches!(&next.what, What::Again(_)), "{next:?}");
            assert_eq!((next.origin, &next.topic), (said.origin, &said.topic));
            others += 1;
        }
    }
    assert!(others >= 3, "{others}");
}

#[test]
fn an_alert_that_there_is_no_room_to_keep_is_not_hidden_by_a_lesser_one() {
    const TOPIC: &str = "tributary/alerts/pump/load";
    for (first, second, shows) in [
        ("info", "critical", "rule:second"),
        ("critical", "info", "rule:first"),
        ("warning", "warning", "rule:first"),
    ] {
        let text =
            limit("first", "load", first) + &limit("second", "load", second).replace("80", "90");
        let mut told = Told::new(&Settings::parse(&text).unwrap());
        told.message(0, "pump/load", "85");
        let standings = &mut told.judge.series.standings;
        let mut other = standings.present(TOPIC).unwrap().clone();
        other.json = "{}".into();
        for number in 0..STANDING_MAX {
            standings.raise(&format!("d{number}"), "m", other.clone());
        }
        assert_eq!(standings.len(), STANDING_MAX);
        told.message(1, "pump/load", "95");
        assert_eq!(told.raised().len(), 2);
        let json: serde_json::Value = serde_json::from_str(&shown(&told.said)[TOPIC]).unwrap();
        assert_eq!(json["detector"], shows, "{first} and {second}");
    }
}
