//! A gateway that nobody ever synchronised, whose clock jumps far ahead and comes back: what is
//! judged, told, kept and captured before, there and afterwards.

use super::clock::YEAR;
use super::idle::Rows;
use super::*;
use crate::capture::CaptureRecord;
use std::collections::BTreeSet;

/// Seconds that the clock is ahead while it is wrong: in 2090.
const AHEAD: i64 = 67 * YEAR;
/// When it is, in seconds that pass.
const AWAY: std::ops::Range<i64> = 400..460;
/// From when on all is as it was, at the latest.
const AGAIN: i64 = AWAY.end + 30;
const END: i64 = 1_300;
/// Of each device a value that does not belong.
const ODD: [i64; 3] = [350, 430, 900];

fn settings() -> Settings {
    let text = "[detect]\npreset = \"sensitive\"\nweekly = false\nseries_max = 5\n\
                series_kept_max = 8\n\
                [[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\nmetric = \"t\"\n\
                above = 70\n\
                [[detect.rule]]\nname = \"gone\"\nkind = \"silence\"\nmetric = \"t\"\n\
                for_s = 120\n\
                [[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n";
    Settings::parse(text).unwrap()
}

fn says_no() -> KernelClock {
    KernelClock {
        synchronised: Some(false),
        boot: 7,
    }
}

fn clock(told: &mut Told, kind: RecordKind, second: i64) {
    let batch = time_record(kind, NOW + second * SECOND, says_no());
    let (_, bytes) = batch.iter().next().unwrap();
    told.record(kind, bytes);
}

fn forwarding() -> Arc<ForwardRules> {
    let text = "[[forward]]\nwhat = \"aggregates+raw-on-anomaly\"\n\
                [capture]\npre_s = 15\npost_s = 5\n";
    let mut document = tributary_settings::Document::parse(text, "", []);
    let rules = ForwardRules::read(&mut document.root(), &settings());
    assert!(document.finish().is_empty());
    rules
}

/// Which clock a device has: its own, none, or the gateway's.
const DEVICES: [&str; 3] = ["own", "none", "led"];

/// A life of the gateway, with or without the visit; every so often a checkpoint.
fn life(visits: bool) -> Told {
    let rows = Rows::default();
    let mut told = Told::new(&settings());
    let again = |told: &mut Told| {
        let mut bytes = Vec::new();
        told.judge.write_checkpoint(&mut bytes).unwrap();
        let judge = Judge::read_checkpoint(STORAGE, configurations, &bytes).unwrap();
        told.judge = judge.keeping(Box::new(rows.clone()));
        told.judge.forward_by(&forwarding());
    };
    clock(&mut told, RecordKind::Clock, 0);
    again(&mut told);
    for second in 0..END {
        let ahead = if visits && AWAY.contains(&second) {
            AHEAD
        } else {
            0
        };
        let at = second + ahead;
        for device in DEVICES {
            let odd = ODD.contains(&second);
            let level = if odd {
                90.0 + second as f64 / 10.0
            } else {
                usual(second)
            };
            let payload = match device {
                "own" => value(second, level),
                "led" => value(at, level),
                _ => level.to_string(),
            };
            told.message(at, &format!("{device}/t"), &payload);
        }
        // Others come and go, and push out each other.
        if second % 20 == 0 {
            for other in 0..3 {
                let metric = format!("other{other}/u");
                told.message(at, &metric, &usual(second).to_string());
            }
        }
        clock(&mut told, RecordKind::Tick, at);
        if second % 97 == 0 {
            again(&mut told);
        }
    }
    told
}

/// Seconds that passed when each alert of a device in a state was told.
fn told_at(told: &Told, device: &str, detector: &str, state: &str) -> Vec<i64> {
    let alerts = told.told(state).into_iter();
    let of = alerts.filter(|it| it["device"] == device && it["detector"] == detector);
    let level = of.map(|it| it["value"].as_f64().unwrap_or_default());
    level
        .map(|level| ((level - 90.0) * 10.0).round() as i64)
        .collect()
}

/// The gateway's numbers of the messages at whose records windows of a device closed; not those
/// that its series closed by giving way, which is at another place of a window by another clock.
fn windows(told: &Told, device: &str) -> Vec<u64> {
    let closed = told.said.iter().filter_map(|said| match &said.what {
        What::Aggregate(spoken) if spoken.device == device => {
            let aggregate: serde_json::Value = serde_json::from_str(&spoken.json).unwrap();
            (aggregate["closed"] != "crowded").then_some(said.origin.number)
        }
        _ => None,
    });
    closed.collect()
}

#[test]
fn a_visit_to_2090_by_a_gateway_that_nobody_synchronised_costs_nothing_that_lasts() {
    let (calm, told) = (life(false), life(true));
    assert!(!told.judge.is_clock_trusted());
    for device in DEVICES {
        // Each odd value is told, there too, and nothing else is: no flood.
        for told in [&calm, &told] {
            let raised = |detector| told_at(told, device, detector, "raised");
            assert_eq!(raised("rule:hot"), ODD, "{device}");
            assert_eq!(raised("series"), ODD, "{device}");
            assert_eq!(raised("rule:gone"), [0; 0], "{device}");
        }
        let (closed, expected) = (windows(&told, device), windows(&calm, device));
        let lost = expected.len().saturating_sub(closed.len());
        assert!(
            lost <= 2 && closed.len() <= expected.len() + 4,
            "{device}: {closed:?}"
        );
        // From then on each closes where it does without a visit, or as often.
        let from = told.number * AGAIN as u64 / END as u64;
        let since = |all: &[u64]| all.iter().filter(|number| **number >= from).count();
        let (closed, expected) = (since(&closed), since(&expected));
        assert!(
            closed.abs_diff(expected) <= 1,
            "{device}: {closed}, {expected}"
        );
    }
    // Every alert is told once, and has an id of its own.
    let ids = |told: &Told| {
        let raised = told.raised().into_iter();
        let ids: Vec<_> = raised
            .map(|it| it["id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
        ids.len()
    };
    assert_eq!(ids(&told), ids(&calm));
    assert_eq!(told.told("cleared").len(), calm.told("cleared").len());
    // What gave way was known again, each time.
    let (counts, expected) = (told.judge.counts(), calm.judge.counts());
    assert_eq!((counts.lost, counts.forgotten), (0, 0));
    assert_eq!(counts.taken_back, expected.taken_back);
    assert_eq!(counts.judged + counts.late, expected.judged + expected.late);
    assert!(counts.late <= expected.late + 3, "{counts:?}");
    // Nothing waits for 2090.
    let due = |told: &mut Told| told.judge.poll_timeout().unwrap() - told.judge.received();
    let (mut told, mut calm) = (told, calm);
    assert!(due(&mut told).abs_diff(due(&mut calm)) <= SECOND as u64);
}

#[test]
fn what_is_captured_around_an_alert_of_2090_spans_seconds_and_not_years() {
    let mut told = life(true);
    let mut spans = Vec::new();
    while let Some(records) = told.judge.wanted() {
        for bytes in &records {
            let record = CaptureRecord::read(bytes).unwrap();
            assert!(record.from < record.to);
            assert!(record.event - record.from <= 15 * SECOND, "{record:?}");
            assert!(record.to - record.event <= 6 * SECOND, "{record:?}");
            spans.push((record.alert, record.device.to_owned()));
        }
        told.judge.asked();
    }
    let alerts: BTreeSet<_> = spans.iter().map(|(alert, _)| alert.to_string()).collect();
    let raised = told.raised().into_iter();
    let raised: BTreeSet<_> = raised
        .map(|it| it["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(alerts, raised, "of each alert, once");
}
