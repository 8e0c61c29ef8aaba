//! The judging stage told records, as the log would tell them; with a checkpoint at any place it
//! says the same.

use super::*;
use crate::configuration::{InForce, Texts};
use crate::decode::{Rules, UserProperties};
use crate::detect::Preset;
use crate::wal::Qos;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use tributary_journal::{Disk, SimDisk};

mod around;
mod clock;
mod fast;
mod idle;
mod kernel;
mod topics;
mod turns;
mod visit;
mod wanted;
mod watching;

const STORAGE: &[u8] = b"storage";
const NOW: i64 = 1_700_000_000_000_000;
const SECOND: i64 = 1_000_000;

fn configurations(in_force: InForce) -> Configurations {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new(1));
    let texts = Texts::open(disk, Path::new("/config")).unwrap();
    Configurations::new(texts, Rules::builtin(), in_force)
}

/// A log as the stage is told it.
struct Told {
    judge: Judge,
    buffer: BufferId,
    number: u64,
    said: Vec<Said>,
}

impl Told {
    fn new(settings: &Settings) -> Self {
        let mut told = Self {
            judge: Judge::new(STORAGE, configurations(InForce::default())),
            buffer: BufferId::new(1, 7),
            number: 0,
            said: Vec::new(),
        };
        let hash = Rules::builtin().hash();
        told.record(RecordKind::Configuration, &Announcement(hash).write());
        told.settings(settings);
        told
    }

    fn settings(&mut self, settings: &Settings) {
        let text = settings.text();
        self.record(
            RecordKind::Detection,
            &[&[VERSION], text.as_bytes()].concat(),
        );
    }

    fn record(&mut self, kind: RecordKind, bytes: &[u8]) {
        let origin = Origin {
            buffer: self.buffer,
            number: self.number,
        };
        self.number += 1;
        self.judge
            .record(origin, kind.code(), bytes, NOW, &mut self.said);
    }

    /// A message about `topic`, published with QoS 1 at a second of the log.
    fn message(&mut self, second: i64, topic: &str, payload: &str) {
        self.publish(
            second,
            topic,
            payload,
            (self.number % 60_000 + 1) as u16,
            false,
        );
    }

    fn publish(&mut self, second: i64, topic: &str, payload: &str, packet_id: u16, dup: bool) {
        self.publish_at(second * SECOND, topic, payload, packet_id, dup);
    }

    fn publish_at(&mut self, at: i64, topic: &str, payload: &str, packet_id: u16, dup: bool) {
        let mut bytes = Vec::new();
        Message {
            session: 1,
            qos: Qos::AtLeastOnce,
            dup,
            retain: false,
            v5: false,
            will: false,
            broker: false,
            packet_id,
            received_time: NOW + at,
            topic,
            properties: UserProperties::NONE,
            payload: payload.as_bytes(),
        }
        .write(&mut bytes);
        self.record(RecordKind::Message, &bytes);
    }

    fn tick(&mut self, second: i64) {
        self.tick_at(NOW + second * SECOND);
    }

    fn tick_at(&mut self, time: i64) {
        let tick = time_record(RecordKind::Tick, time, KernelClock::default());
        let (_, bytes) = tick.iter().next().unwrap();
        self.record(RecordKind::Tick, bytes);
    }

    fn again(&mut self) {
        let mut bytes = Vec::new();
        self.judge.write_checkpoint(&mut bytes).unwrap();
        self.judge = Judge::read_checkpoint(STORAGE, configurations, &bytes).unwrap();
    }

    fn raised(&self) -> Vec<serde_json::Value> {
        self.told("raised")
    }

    fn told(&self, state: &str) -> Vec<serde_json::Value> {
        let spoken = self.said.iter().filter_map(|said| match &said.what {
            What::Alert(spoken) => Some(spoken),
            What::Again(_) | What::Aggregate(_) | What::Forgotten => None,
        });
        let json = spoken.map(|spoken| serde_json::from_str(&spoken.json).unwrap());
        json.filter(|alert: &serde_json::Value| alert["state"] == state)
            .collect()
    }
}

/// A value that wanders, so that nothing about it is unusual.
fn usual(second: i64) -> f64 {
    20.0 + (second as f64 * 0.7).sin() + (second as f64 * 0.13).cos()
}

fn value(second: i64, value: f64) -> String {
    format!("{{\"value\":{value},\"ts\":{}}}", NOW + second * SECOND)
}

fn sensitive() -> Settings {
    Settings {
        preset: Preset::Sensitive,
        weekly: false,
        ..Settings::default()
    }
}

/// The same, with rules of every kind that time has a part in, windows and a vibration.
fn ruled(series_max: usize) -> Settings {
    let text = format!(
        "[detect]\npreset = \"sensitive\"\nweekly = false\nseries_max = {series_max}\n\
         [[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\nmetric = \"t\"\nabove = 70\n\
         hold_s = 2\n\
         [[detect.rule]]\nname = \"wild\"\nkind = \"range\"\nmetric = \"t\"\nmin = 0\nmax = 75\n\
         [[detect.rule]]\nname = \"gone\"\nkind = \"silence\"\nmetric = \"t\"\nfor_s = 20\n\
         [[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n\
         [[detect.vibration]]\nmetric = \"v\"\nwindow = 64\n"
    );
    Settings::parse(&text).unwrap()
}

fn seconds(told: &mut Told, seconds: std::ops::Range<i64>) {
    for second in seconds {
        told.message(second, "site/pump/t", &value(second, usual(second)));
    }
}

#[test]
fn a_spike_is_raised_with_what_a_person_needs_and_cleared_when_all_is_as_usual() {
    let mut told = Told::new(&sensitive());
    seconds(&mut told, 0..200);
    assert_eq!(told.said, [], "nothing unusual yet");
    told.message(
        200,
        "site/pump/t",
        "{\"value\":95.5,\"unit\":\"°C\",\"seq\":7,\"ts\":1700000200}",
    );
    let [alert] = told.raised().try_into().unwrap();
    for (key, is) in [
        ("schema", 1.into()),
        ("kind", "event".into()),
        ("device", "site/pump".into()),
        ("metric", "t".into()),
        ("unit", "°C".into()),
        ("detector", "series".into()),
        ("part", "value".into()),
        ("severity", "warning".into()),
        ("value", serde_json::json!(95.5)),
        ("event_time", "2023-11-14T22:16:40.000000Z".into()),
        ("received_time", "2023-11-14T22:16:40.000000Z".into()),
        ("detection_time", "2023-11-14T22:13:20.000000Z".into()),
        ("window", serde_json::Value::Null),
        ("late", false.into()),
        ("revision", sensitive().revision().to_string().into()),
        (
            "text",
            "site/pump t is 95.5 °C: far from every value that it had lately".into(),
        ),
    ] {
        assert_eq!(alert[key], is, "{key}: {alert}");
    }
    assert!(alert["score"].as_f64().unwrap() >= 0.5);
    let around = alert["around"].as_array().unwrap();
    assert_eq!(around.len(), AROUND);
    assert_eq!(
        around[AROUND - 1],
        serde_json::json!([NOW + 200 * SECOND, 95.5])
    );
    assert_eq!(around[0][0], NOW + 196 * SECOND);
    let topic = told.said[0].topic.clone();
    assert_eq!(topic, "tributary/alerts/site/pump/t");
    assert_eq!(told.judge.standing().count(), 1);
    seconds(&mut told, 201..260);
    assert_eq!(told.told("cleared").len(), 0);
    seconds(&mut told, 260..262);
    let [cleared] = told.told("cleared").try_into().unwrap();
    assert_eq!(
        (&cleared["id"], &cleared["score"]),
        (&alert["id"], &alert["score"])
    );
    assert_eq!(told.judge.standing().count(), 0);
}

#[test]
fn a_second_copy_is_not_judged() {
    let mut told = Told::new(&sensitive());
    seconds(&mut told, 0..150);
    let before = told.judge.counts();
    told.publish(150, "site/pump/t", &value(150, 77.0), 9, false);
    told.publish(150, "site/pump/t", &value(150, 77.0), 9, true);
    assert_eq!(told.judge.counts().judged, before.judged + 1);
    assert_eq!(told.raised().len(), 1);
}

#[test]
fn readings_of_one_time_have_alerts_of_their_own() {
    let raise = |copies: usize| {
        let mut told = Told::new(&sensitive());
        seconds(&mut told, 0..150);
        for _ in 1..copies {
            told.message(150, "site/pump/t", &value(150, usual(3)));
        }
        told.message(150, "site/pump/t", &value(150, 77.0));
        told.raised()[0]["id"].clone()
    };
    assert_eq!(raise(1), raise(1));
    assert_ne!(raise(1), raise(2));
}

#[test]
fn what_is_no_number_and_what_comes_late_changes_no_model_and_is_counted() {
    let mut told = Told::new(&sensitive());
    seconds(&mut told, 0..150);
    let mut other = Told::new(&sensitive());
    seconds(&mut other, 0..150);
    other.message(150, "site/pump/t", "\"off\"");
    other.message(150, "site/pump/t", &value(10, 900.0));
    let counts = other.judge.counts();
    assert_eq!((counts.texts, counts.late, counts.judged), (1, 1, 150));
    assert_eq!(other.raised().len(), 0, "late is never raised");
    for told in [&mut told, &mut other] {
        told.message(151, "site/pump/t", &value(151, 95.0));
    }
    let [alert] = told.raised().try_into().unwrap();
    let [same] = other.raised().try_into().unwrap();
    assert_eq!(alert["around"], same["around"]);
    assert_eq!(alert["score"], same["score"]);
}

#[test]
fn a_clock_that_nobody_believes_does_not_end_detection() {
    let mut told = Told::new(&sensitive());
    seconds(&mut told, 0..150);
    // 2099, and 1970: judged by when they came.
    told.message(150, "site/pump/t", "{\"value\":20.0,\"ts\":4070908800}");
    told.message(151, "site/pump/t", "{\"value\":20.0,\"ts\":5}");
    assert_eq!(told.judge.counts().suspect, 2);
    told.message(152, "site/pump/t", &value(152, 95.0));
    assert_eq!(told.raised().len(), 1);
}

#[test]
fn a_storm_becomes_a_summary() {
    let mut told = Told::new(&sensitive());
    let sensors = 400;
    for second in 0..130 {
        for sensor in 0..sensors {
            let off = if second == 125 { 80.0 } else { 0.0 };
            let payload = value(second, usual(second) + off);
            told.message(second, &format!("d{sensor}/t"), &payload);
        }
    }
    let counts = told.judge.counts();
    assert_eq!(counts.raised.series + counts.held_back, sensors);
    assert!(counts.held_back > 100, "{counts:?}");
    let raised = told.raised();
    let summary: Vec<_> = raised
        .iter()
        .filter(|alert| alert["kind"] == "summary")
        .collect();
    assert_eq!(summary.len(), 1);
    assert_eq!(summary[0]["value"], counts.held_back as f64);
    let spoken = told.said.iter().filter_map(|said| match &said.what {
        What::Alert(spoken) if spoken.is_passing => Some(&*said.topic),
        _ => None,
    });
    let passing: Vec<_> = spoken.collect();
    assert_eq!(passing, ["tributary/alerts/$agent/alerts"], "it alone");
    assert_eq!(raised.len() as u64, counts.raised.series + 1);
}

#[test]
fn alerts_are_counted_by_what_raised_them() {
    let mut told = Told::new(&ruled(100));
    seconds(&mut told, 0..200);
    told.message(200, "site/pump/t", &value(200, 95.0));
    let raised = told.judge.counts().raised;
    assert_eq!((raised.series, raised.rules), (1, 1), "{raised:?}");
    told.tenths(2_010..4_000);
    told.reading_at(4_000 * fast::TENTH, fast::TOPIC, 95.0);
    told.tenths(4_001..4_030);
    let raised = told.judge.counts().raised;
    let fast = told.raised();
    let fast = fast.iter().filter(|alert| alert["detector"] == "series");
    let fast = fast.filter(|alert| alert["window"].is_object()).count();
    assert!(fast > 0 && raised.fast == fast as u64, "{fast} {raised:?}");
    let by_kind: u64 = raised.by_kind().iter().map(|(_, count)| count).sum();
    assert_eq!(by_kind, told.raised().len() as u64);
}

#[test]
fn a_summary_that_nothing_follows_comes_with_a_tick() {
    let mut told = Told::new(&sensitive());
    for second in 0..=125 {
        for sensor in 0..400 {
            let off = if second == 125 { 80.0 } else { 0.0 };
            let payload = value(second, usual(second) + off);
            told.message(second, &format!("d{sensor}/t"), &payload);
        }
    }
    let due = told.judge.poll_timeout().unwrap();
    assert_eq!(due, NOW + 126 * SECOND);
    let tick = time_record(RecordKind::Tick, due, KernelClock::default());
    let (kind, bytes) = tick.iter().next().unwrap();
    assert_eq!(kind, RecordKind::Tick.code());
    told.record(RecordKind::Tick, bytes);
    assert_eq!(told.raised().last().unwrap()["kind"], "summary");
    let next = due + crate::limits::TICK_EVERY_US;
    assert_eq!(told.judge.poll_timeout(), Some(next));
}

#[test]
fn other_settings_hold_from_their_record_on_and_nothing_is_judged_before_the_first() {
    let mut told = Told::new(&Settings {
        enabled: false,
        ..sensitive()
    });
    seconds(&mut told, 0..150);
    assert_eq!(told.judge.counts().judged, 0);
    told.settings(&sensitive());
    seconds(&mut told, 150..700);
    assert_eq!(told.judge.counts().judged, 550);
    let before = told.raised().len();
    told.settings(&sensitive());
    told.message(700, "site/pump/t", &value(700, 95.0));
    let after = told.raised().len();
    assert_eq!(after, before + 1, "the same settings keep what was learnt");
    told.settings(&Settings {
        preset: Preset::Calm,
        ..sensitive()
    });
    told.message(740, "site/pump/t", &value(740, 400.0));
    assert_eq!(told.raised().len(), after, "another preset learns anew");
}

#[test]
fn the_series_that_was_silent_longest_gives_way() {
    let mut told = Told::new(&Settings {
        series_max: 3,
        ..sensitive()
    });
    for second in 0..150 {
        for device in ["a", "b", "c"] {
            told.message(
                second,
                &format!("{device}/t"),
                &value(second, usual(second)),
            );
        }
    }
    told.message(150, "a/t", &value(150, 95.0));
    for device in ["b", "c"] {
        told.message(151, &format!("{device}/t"), &value(151, usual(151)));
    }
    told.message(152, "d/t", &value(152, 1.0));
    assert_eq!(
        (told.judge.watched(), told.judge.counts().forgotten),
        (3, 1)
    );
    let last = told.said.last().unwrap();
    assert_eq!(
        (last.topic.as_str(), &last.what),
        ("tributary/alerts/a/t", &What::Forgotten)
    );
    told.message(153, "b/t", &value(153, 95.0));
    assert_eq!(told.raised().len(), 2, "b is still known");
    told.again();
    assert_eq!(told.judge.watched(), 3);
}

#[test]
fn a_rule_is_raised_and_cleared_and_its_topic_shows_what_still_stands() {
    let mut told = Told::new(&ruled(100));
    seconds(&mut told, 0..200);
    assert_eq!(told.raised().len(), 0);
    told.message(200, "site/pump/t", &value(200, 95.0));
    let raised = told.raised();
    let detectors: Vec<&str> = raised
        .iter()
        .map(|a| a["detector"].as_str().unwrap())
        .collect();
    assert_eq!(detectors, ["rule:wild", "series"]);
    assert_eq!(
        (&raised[0]["kind"], &raised[0]["score"]),
        (&"rule".into(), &1.0.into())
    );
    told.said.clear();
    told.message(201, "site/pump/t", &value(201, usual(201)));
    let [cleared] = told.told("cleared").try_into().unwrap();
    assert_eq!(
        (&cleared["id"], &cleared["detector"]),
        (&raised[0]["id"], &"rule:wild".into())
    );
    let again = told.said.iter().find_map(|said| match &said.what {
        What::Again(json) => Some(serde_json::from_str::<serde_json::Value>(json).unwrap()),
        _ => None,
    });
    assert_eq!(
        again.unwrap()["id"],
        raised[1]["id"],
        "the series' own alert stands"
    );
    // Nothing comes: the silence is seen with a tick, and not while the agent did not run.
    told.said.clear();
    let clock = time_record(
        RecordKind::Clock,
        NOW + 300 * SECOND,
        KernelClock::default(),
    );
    told.record(RecordKind::Clock, clock.iter().next().unwrap().1);
    for second in [310, 320] {
        assert_eq!(told.raised().len(), 0);
        let due = told.judge.poll_timeout().unwrap();
        assert!((NOW + (second - 10) * SECOND..=NOW + second * SECOND).contains(&due));
        told.tick(second);
    }
    assert_eq!(told.raised()[0]["detector"], "rule:gone");
}

#[test]
fn an_aggregate_has_the_unit_of_its_series() {
    let text = "[[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n";
    let mut told = Told::new(&Settings::parse(text).unwrap());
    for second in 0..10 {
        let unit = if second == 3 { ",\"unit\":\"°C\"" } else { "" };
        told.message(second, "d/t", &format!("{{\"value\":1{unit}}}"));
        told.message(second, "d/v", "1");
    }
    told.again();
    told.tick(40);
    let units = told.said.iter().filter_map(|said| match &said.what {
        What::Aggregate(spoken) => {
            let json: serde_json::Value = serde_json::from_str(&spoken.json).unwrap();
            Some((spoken.metric.as_str(), json["unit"].clone()))
        }
        _ => None,
    });
    let units: std::collections::BTreeMap<_, _> = units.collect();
    assert_eq!(units["t"], "°C");
    assert_eq!(units["v"], serde_json::Value::Null, "it has none");
}

#[test]
fn windows_that_close_are_told_and_however_many_close_at_once_a_record_says_only_so_much() {
    let text = "[[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n";
    let mut told = Told::new(&Settings::parse(text).unwrap());
    let devices = 700;
    for second in 0..10 {
        for device in 0..devices {
            let payload = value(second, second as f64);
            told.message(second, &format!("d{device}/t"), &payload);
        }
    }
    assert_eq!(told.raised().len(), 0);
    // They fall silent: all their windows close with one tick.
    told.tick(30);
    told.again();
    told.tick(31);
    let aggregates = |told: &Told, origin: u64| {
        let of = told.said.iter().filter(|said| said.origin.number == origin);
        of.filter(|said| matches!(said.what, What::Aggregate(_)))
            .count()
    };
    let (first, second) = (told.number - 2, told.number - 1);
    assert_eq!(
        aggregates(&told, first),
        crate::limits::RECORD_AGGREGATES_MAX
    );
    assert_eq!(
        aggregates(&told, first) + aggregates(&told, second),
        devices
    );
    let What::Aggregate(spoken) = &told.said[0].what else {
        panic!("{:?}", told.said[0]);
    };
    let json: serde_json::Value = serde_json::from_str(&spoken.json).unwrap();
    assert_eq!(
        (&json["window"], &json["count"], &json["mean"]),
        (&"ten".into(), &10.into(), &4.5.into())
    );
    assert!(told.said[0].topic.starts_with("tributary/aggregates/ten/d"));
}

/// A threshold of this severity on a metric.
fn limit(name: &str, metric: &str, severity: &str) -> String {
    format!(
        "[[detect.rule]]\nname = \"{name}\"\nkind = \"threshold\"\nmetric = \"{metric}\"\n\
         above = 80\nseverity = \"{severity}\"\n"
    )
}

#[test]
fn what_is_critical_is_told_through_a_storm_and_what_stands_is_told_when_there_is_room() {
    let text = limit("load", "load", "info") + &limit("hot", "heat", "critical");
    let settings = Settings::parse(&text).unwrap();
    let mut told = Told::new(&settings);
    for device in 0..300 {
        told.message(0, &format!("d{device}/load"), "90");
    }
    let first = told.raised().len();
    assert!(first < 300);
    told.message(0, "boiler/heat", "900");
    let last = told.raised().pop().unwrap();
    assert_eq!(
        (&last["detector"], &last["severity"]),
        (&"rule:hot".into(), &"critical".into())
    );
    // Of those that were held back, one is over before there is room.
    told.message(1, "d299/load", "10");
    told.again();
    let due = told.judge.poll_timeout().unwrap();
    assert!(due <= NOW + 2 * SECOND, "{due}");
    for second in 2..20 {
        told.tick(second);
    }
    let of_rule = |alert: &&serde_json::Value| alert["detector"] == "rule:load";
    let raised = told.raised();
    assert_eq!(
        raised.iter().filter(of_rule).count(),
        299,
        "all but the one that is over"
    );
    let ids: std::collections::BTreeSet<_> = raised.iter().map(|a| a["id"].to_string()).collect();
    assert_eq!(ids.len(), raised.len());
    assert_eq!(told.told("cleared"), Vec::<serde_json::Value>::new());
}

#[test]
fn however_much_is_over_at_once_a_record_says_only_so_much() {
    let settings = Settings::parse(&limit("load", "load", "warning")).unwrap();
    let mut told = Told::new(&settings);
    let devices = 400;
    for device in 0..devices {
        told.message(i64::from(device), &format!("d{device}/load"), "90");
    }
    assert_eq!(told.raised().len(), 400);
    told.said.clear();
    told.settings(&sensitive());
    for second in 500..540 {
        told.again();
        told.tick(second);
    }
    let cleared = told.told("cleared");
    assert_eq!(cleared.len(), 400);
    let mut of_record = std::collections::BTreeMap::new();
    for said in &told.said {
        *of_record.entry(said.origin).or_insert(0) += 1;
    }
    assert!(of_record.values().all(|said| *said <= 64), "{of_record:?}");
    let next = NOW + 539 * SECOND + crate::limits::TICK_EVERY_US;
    assert_eq!(told.judge.poll_timeout(), Some(next), "nothing is left");
}

#[test]
fn alerts_of_one_rule_and_time_have_ids_of_their_own() {
    let mut told = Told::new(&Settings::parse(&limit("load", "load", "info")).unwrap());
    for value in [90, 10, 91, 10] {
        told.message(7, "d/load", &format!("{{\"value\":{value},\"ts\":{NOW}}}"));
    }
    let raised = told.raised();
    assert_eq!(raised.len(), 2);
    assert_ne!(raised[0]["id"], raised[1]["id"]);
}

#[test]
fn an_alert_that_somebody_has_seen_says_so_until_it_is_over() {
    let mut told = Told::new(&sensitive());
    seconds(&mut told, 0..200);
    told.message(200, "site/pump/t", &value(200, 95.0));
    let [raised] = told.raised().try_into().unwrap();
    let id: AlertId = raised["id"].as_str().unwrap().parse().unwrap();
    for seen in [AlertId([7; 16]), id, id] {
        let batch = acknowledged_record(NOW + 201 * SECOND, seen);
        let (_, bytes) = batch.iter().next().unwrap();
        told.record(RecordKind::Acknowledged, bytes);
        told.again();
    }
    let [acknowledged] = told.told("acknowledged").try_into().unwrap();
    assert_eq!(acknowledged["id"], raised["id"]);
    assert_eq!(acknowledged["text"], raised["text"]);
    let (_, standing) = told.judge.standing().next().unwrap();
    assert!(
        standing.contains("\"state\":\"acknowledged\""),
        "{standing}"
    );
    seconds(&mut told, 201..270);
    assert_eq!(told.told("cleared").len(), 1);
}

#[test]
fn other_rules_leave_what_is_unchanged_as_it_was() {
    let mut told = Told::new(&ruled(100));
    seconds(&mut told, 0..200);
    told.message(200, "site/pump/t", &value(200, 95.0));
    let wild = told.raised()[0]["id"].clone();
    told.said.clear();
    let text = ruled(100).text();
    let fewer = text.replace("max = 75", "max = 85");
    assert_ne!(fewer, text);
    told.settings(&Settings::parse(&fewer).unwrap());
    let [cleared] = told.told("cleared").try_into().unwrap();
    assert_eq!(cleared["id"], wild, "the rule is another one now");
    told.said.clear();
    told.settings(&Settings::parse(&fewer).unwrap());
    assert_eq!(told.said, []);
    told.message(201, "site/pump/t", &value(201, 90.0));
    assert_eq!(told.raised()[0]["detector"], "rule:wild");
    let judged = told.judge.counts().judged;
    assert_eq!(judged, 202, "no reading was judged twice or not at all");
}

#[test]
fn features_of_a_vibration_are_series_of_their_own() {
    let mut told = Told::new(&ruled(100));
    for second in 0..64 * 3 {
        let sample = (second as f64 * 0.9).sin();
        told.message(second, "site/pump/v", &value(second, sample));
    }
    let counts = told.judge.counts();
    assert_eq!(counts.samples, 64 * 3, "samples are not judged one by one");
    assert!(
        counts.judged > 3 * 5 && counts.judged.is_multiple_of(3),
        "{counts:?}"
    );
    assert!(told.judge.watched() > 5);
}

#[test]
fn no_bytes_make_a_checkpoint_that_panics() {
    let mut told = Told::new(&sensitive());
    seconds(&mut told, 0..150);
    told.message(150, "site/pump/t", &value(150, 95.0));
    let mut bytes = Vec::new();
    told.judge.write_checkpoint(&mut bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(Judge::read_checkpoint(STORAGE, configurations, &bytes[..length]).is_err());
    }
    bytes[0] = 9;
    let newer = Judge::read_checkpoint(STORAGE, configurations, &bytes);
    assert_eq!(newer.unwrap_err(), CheckpointError::Version(9));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn with_a_checkpoint_anywhere_the_same_is_said(
        steps in proptest::collection::vec((0u8..4, 0u8..20, 0u8..40), 300..500),
        series_max in 2usize..6,
        every in 1usize..90,
    ) {
        let settings = ruled(series_max);
        let (mut one, mut other) = (Told::new(&settings), Told::new(&settings));
        for (i, (device, odd, again)) in steps.into_iter().enumerate() {
            let second = i as i64;
            let off = if odd == 0 { 60.0 } else { 0.0 };
            let payload = value(second - i64::from(odd == 1) * 40, usual(second) + off);
            let topic = format!("d{device}/t");
            for told in [&mut one, &mut other] {
                told.message(second, &topic, &payload);
                if again == 0 {
                    let packet_id = ((told.number - 1) % 60_000 + 1) as u16;
                    told.publish(second, &topic, &payload, packet_id, true);
                }
            }
            if again == 1 {
                for told in [&mut one, &mut other] {
                    told.tick(second + 1);
                }
            }
            if i % every == 0 {
                other.again();
            }
        }
        prop_assert_eq!(one.said, other.said);
    }
}
