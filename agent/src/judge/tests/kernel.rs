//! The same devices on a gateway whose clock the kernel calls synchronised, and on one where it
//! does not: what is judged is the same, but for the time of the week.

use super::*;

/// A life in which the kernel says so of the clock.
fn life(settings: &Settings, synchronised: bool) -> Told {
    let mut told = Told::new(settings);
    begin(&mut told, synchronised, 0);
    told
}

fn begin(told: &mut Told, synchronised: bool, second: i64) {
    let kernel = KernelClock {
        synchronised: Some(synchronised),
        boot: 7,
    };
    let batch = time_record(RecordKind::Clock, NOW + second * SECOND, kernel);
    let (_, bytes) = batch.iter().next().unwrap();
    told.record(RecordKind::Clock, bytes);
}

fn settings(more: &str) -> Settings {
    let text = format!("[detect]\npreset = \"sensitive\"\nweekly = false\n{more}");
    Settings::parse(&text).unwrap()
}

/// Seconds in the log of what windows closed.
fn aggregates(told: &Told) -> Vec<i64> {
    let aggregates = told.said.iter().filter_map(|said| match &said.what {
        What::Aggregate(spoken) => Some((spoken.meta.event_time - NOW) / SECOND),
        _ => None,
    });
    aggregates.collect()
}

#[test]
fn what_has_no_time_of_its_own_has_the_received_time_after_a_pause_too() {
    let window = "[[detect.window]]\nname = \"ten\"\nkind = \"tumbling\"\nsize_ms = 10000\n";
    let hours = 8 * 3_600;
    for synchronised in [true, false] {
        let mut told = life(&settings(window), synchronised);
        let tenths = |told: &mut Told, seconds: std::ops::Range<i64>| {
            for tenth in seconds.start * 10..seconds.end * 10 {
                let payload = usual(tenth).to_string();
                told.publish_at(tenth * SECOND / 10, "d/t", &payload, 1, false);
            }
        };
        tenths(&mut told, 0..200);
        // The agent did not run for so long.
        told.again();
        begin(&mut told, synchronised, hours);
        told.said.clear();
        tenths(&mut told, hours..hours + 200);
        told.publish_at((hours + 200) * SECOND, "d/t", "900", 1, false);
        tenths(&mut told, hours + 201..hours + 220);
        let seconds: Vec<i64> = aggregates(&told).split_off(1);
        assert_eq!(seconds.first(), Some(&hours), "{synchronised}");
        assert_eq!(seconds.last(), Some(&(hours + 200)), "{synchronised}");
        let alert = told.raised().pop().unwrap();
        assert_eq!(
            alert["window"]["from"], "2023-11-15T06:16:40.000000Z",
            "{synchronised}: {alert}"
        );
    }
}

#[test]
fn a_backlog_goes_through_rules_by_its_own_time() {
    let rules = "[[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\nmetric = \"*\"\n\
                 above = 20\nhold_s = 10\n\
                 [[detect.rule]]\nname = \"steep\"\nkind = \"rate\"\nmetric = \"*\"\n\
                 above = 1\nover_s = 10\n";
    let lives = [true, false].map(|synchronised| {
        let mut told = life(&settings(rules), synchronised);
        for second in 0..60 {
            let payload = value(second, second as f64 / 2.0);
            told.publish_at(100 * SECOND + second, "d/t", &payload, 1, false);
        }
        told.again();
        told.raised()
    });
    let rules = lives.each_ref().map(|raised| {
        let rules = raised.iter().map(|alert| alert["detector"].clone());
        rules.collect::<Vec<_>>()
    });
    assert_eq!(rules, [["rule:hot"], ["rule:hot"]]);
    assert_eq!(lives[0], lives[1]);
}

#[test]
fn no_time_tells_the_time_of_the_week_while_the_kernel_says_no() {
    let settings = Settings {
        weekly: true,
        ..settings("")
    };
    let weekly = [true, false].map(|synchronised| {
        let mut told = life(&settings, synchronised);
        // Five weeks, in which each reading says its time, and a weekday's morning is high.
        for hour in 0..5 * 168 {
            let high = if hour % 168 == 40 { 60.0 } else { 0.0 };
            told.message(
                hour * 3_600,
                "d/t",
                &value(hour * 3_600, usual(hour) + high),
            );
        }
        let mut bytes = Vec::new();
        told.judge.write_checkpoint(&mut bytes).unwrap();
        bytes.len()
    });
    assert!(weekly[1] < weekly[0], "{weekly:?}");
}
