//! Captures that alerts ask for.

use super::*;
use crate::capture::CaptureRecord;
use crate::limits::ALERTS_BURST_MAX;
use tributary_settings::Document;

fn forwarding() -> Arc<ForwardRules> {
    let text = "[[forward]]\ndevices = [\"site/#\"]\nwhat = \"aggregates+raw-on-anomaly\"\n\
                [capture]\npre_s = 15\npost_s = 5\n";
    let mut document = Document::parse(text, "", []);
    let rules = ForwardRules::read(&mut document.root(), &crate::detect::Settings::default());
    assert!(document.finish().is_empty());
    rules
}

/// A judge that has captures asked for.
fn capturing() -> Told {
    let mut told = Told::new(&ruled(1_000));
    told.judge.forward_by(&forwarding());
    told
}

#[test]
fn an_alert_is_asked_for_until_the_log_has_its_records() {
    let mut told = capturing();
    told.message(1, "other/tank/t", &value(1, 150.0));
    told.message(2, "site/tank/t", &value(2, 50.0));
    assert_eq!(told.judge.wanted(), None);
    told.message(3, "site/tank/t", &value(3, 150.0));
    let records = told.judge.wanted().unwrap();
    let read = |bytes: &Vec<u8>| {
        let record = CaptureRecord::read(bytes).unwrap();
        let raised = told.raised();
        assert_eq!(raised.last().unwrap()["id"], record.alert.to_string());
        assert_eq!(
            (record.device, record.received),
            ("site/tank", NOW + 3 * SECOND)
        );
        (record.from - record.event, record.to - record.event)
    };
    let asked: Vec<_> = records.iter().map(read).collect();
    let expected = [(-15 * SECOND, -5 * SECOND), (-5 * SECOND, 5 * SECOND + 1)];
    assert_eq!(asked, expected);
    told.judge.asked();
    assert_eq!(told.judge.wanted(), None);
    // A life that ends before they are durable: the next one asks for them again.
    told.again();
    told.judge.forward_by(&forwarding());
    assert_eq!(told.judge.wanted().as_ref(), Some(&records));
    told.record(RecordKind::Capture, &records[0]);
    assert_eq!(told.judge.wanted().as_ref(), Some(&records));
    told.record(RecordKind::Capture, &records[1]);
    assert_eq!(told.judge.wanted(), None);
    told.again();
    told.judge.forward_by(&forwarding());
    assert_eq!(told.judge.wanted(), None);
}

#[test]
fn alerts_that_are_counted_capture_nothing_until_they_are_told() {
    let mut told = capturing();
    let devices = ALERTS_BURST_MAX as i64 + 20;
    for device in 0..devices {
        told.message(1, &format!("site/{device}/t"), &value(1, 150.0));
    }
    let asks = |told: &mut Told| {
        let mut count = 0;
        while told.judge.wanted().is_some() {
            told.judge.asked();
            count += 1;
        }
        count
    };
    let at_once = asks(&mut told);
    let raised = |told: &Told| {
        let raised = told.raised().into_iter();
        raised.filter(|alert| alert["device"] != "$agent").count()
    };
    assert_eq!(at_once, raised(&told));
    assert!(at_once < devices as usize);
    for second in 2..20 {
        told.tick(second);
    }
    let later = asks(&mut told);
    assert_eq!(at_once + later, raised(&told));
    assert!(later >= devices as usize - at_once, "{later}");
}

#[test]
fn an_alert_of_a_fast_series_captures_by_its_devices_own_clock() {
    const TENTH: i64 = SECOND / 10;
    let mut told = Told::new(&sensitive());
    told.judge.forward_by(&forwarding());
    // Its clock began in 1970 as it was switched on.
    let mut reading = |tenth: i64, off: f64| {
        let value = fast::noise(tenth) + off;
        let (second, tenths) = (5 + tenth / 10, tenth % 10);
        let own = format!(
            "1970-01-01T00:{:02}:{:02}.{tenths}Z",
            second / 60,
            second % 60
        );
        let payload = format!("{{\"value\":{value},\"ts\":\"{own}\"}}");
        let packet_id = (tenth % 60_000 + 1) as u16;
        told.publish_at(tenth * TENTH, "site/tank/t", &payload, packet_id, false);
    };
    (0..2_003).for_each(|tenth| reading(tenth, 0.0));
    reading(2_003, 400.0);
    (2_004..2_030).for_each(|tenth| reading(tenth, 0.0));
    assert!(told.judge.fast() == 1 && !told.raised().is_empty());
    let records = told.judge.wanted().unwrap();
    let record = CaptureRecord::read(&records[0]).unwrap();
    let spike = 5 * SECOND + 2_003 * TENTH;
    assert!(
        (spike - SECOND..=spike).contains(&record.event),
        "{record:?}"
    );
}

/// A reading of a device whose clock began in 1970 as it was switched on, at a second of the log.
fn since_1970(told: &mut Told, second: i64, topic: &str, value: f64) {
    let own = format!("1970-01-01T00:{:02}:{:02}Z", second / 60, second % 60);
    let payload = format!("{{\"value\":{value},\"ts\":\"{own}\"}}");
    told.message(second, topic, &payload);
}

#[test]
fn an_alert_that_is_told_later_captures_what_was_around_it_by_its_devices_own_clock() {
    let mut told = capturing();
    for device in 0..ALERTS_BURST_MAX as i64 {
        told.message(1, &format!("other/{device}/t"), &value(1, 150.0));
    }
    since_1970(&mut told, 90, "site/tank/t", 50.0);
    for device in 0..400 {
        told.message(99, &format!("other/{device}/w/t"), &value(99, 150.0));
    }
    since_1970(&mut told, 100, "site/tank/t", 150.0);
    assert_eq!(told.judge.wanted(), None, "it is owed");
    told.again();
    told.judge.forward_by(&forwarding());
    (101..140).for_each(|second| told.tick(second));
    let records = told.judge.wanted().unwrap();
    let record = CaptureRecord::read(&records[0]).unwrap();
    assert_eq!(record.device, "site/tank");
    assert_eq!(record.event, 100 * SECOND, "as its clock says");
    assert_eq!(record.received, NOW + 100 * SECOND, "when it came");
}

#[test]
fn an_alert_that_time_alone_raises_captures_by_its_devices_own_clock() {
    let mut told = capturing();
    since_1970(&mut told, 100, "site/tank/t", 50.0);
    since_1970(&mut told, 101, "site/tank/t", 72.0);
    told.again();
    told.judge.forward_by(&forwarding());
    // Another device's reading brings the news, and its clock is right.
    told.message(110, "site/other/t", &value(110, 50.0));
    let alert = told.raised().pop().unwrap();
    assert_eq!(
        (&alert["device"], &alert["detector"]),
        (&"site/tank".into(), &"rule:hot".into())
    );
    let records = told.judge.wanted().unwrap();
    let record = CaptureRecord::read(&records[0]).unwrap();
    assert_eq!(record.device, "site/tank");
    assert_eq!(record.event, 103 * SECOND, "two seconds behind the reading");
}
