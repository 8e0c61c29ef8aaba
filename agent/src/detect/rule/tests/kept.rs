//! What survives: a restart, other rules, a series that is forgotten; and what is bounded.

use super::*;
use crate::limits::RULE_STATE_BYTES_MAX;
use proptest::prelude::*;

/// A rule of every kind.
pub(super) const EVERY: &str = r#"
    [[detect.rule]]
    name = "hot"
    kind = "threshold"
    metric = "*"
    above = 3
    hysteresis = 1
    hold_s = 2
    cool_down_s = 7

    [[detect.rule]]
    name = "range"
    kind = "range"
    metric = "t"
    max = 4
    cool_down_s = 3

    [[detect.rule]]
    name = "fast"
    kind = "rate"
    metric = "u"
    above = 1
    over_s = 3

    [[detect.rule]]
    name = "stuck"
    kind = "stuck"
    metric = "t"
    for_s = 3

    [[detect.rule]]
    name = "quiet"
    kind = "silence"
    metric = "u"
    for_s = 4

    [[detect.rule]]
    name = "late"
    kind = "silence"
    metric = "t"
    intervals = 2

    [[detect.rule]]
    name = "apart"
    kind = "compare"
    metric = "t"
    op = ">"
    other_metric = "u"
    offset = 1
    hold_s = 1
    stale_s = 20

    [[detect.rule]]
    name = "both"
    kind = "expression"
    when = "t > 1 && mean(u, 5s) >= 2 || previous(t) == 4 || age(u) > 9"
    hold_s = 1
    cool_down_s = 2
"#;

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    Reading {
        series: usize,
        value: f64,
        passed: f64,
        behind: f64,
        late: bool,
        trusted: bool,
    },
    Tick(f64),
    Forget(usize),
    Away(f64),
    Reload(usize),
}

const SERIES: [&str; 5] = ["p/t", "p/u", "q/t", "q/u", "q/other"];

fn event() -> impl Strategy<Value = Event> {
    let value = prop_oneof![
        8 => (0..6i32).prop_map(f64::from),
        1 => Just(f64::NAN),
        1 => Just(f64::MAX),
    ];
    let passed = prop_oneof![
        6 => (0..20u32).prop_map(|tenths| f64::from(tenths) / 10.0),
        1 => Just(9.0),
    ];
    let behind = prop_oneof![5 => Just(0.0), 1 => Just(0.5), 1 => Just(30.0), 1 => Just(-2.0)];
    let reading = (0..SERIES.len(), value, passed, behind, 0..8u8, 0..8u8);
    let reading =
        reading.prop_map(
            |(series, value, passed, behind, late, trusted)| Event::Reading {
                series,
                value,
                passed,
                behind,
                late: late == 0,
                trusted: trusted != 0,
            },
        );
    prop_oneof![
        20 => reading,
        4 => (0..50u32).prop_map(|tenths| Event::Tick(f64::from(tenths) / 10.0)),
        1 => (0..SERIES.len()).prop_map(Event::Forget),
        1 => Just(Event::Away(100.0)),
        1 => (0..3usize).prop_map(Event::Reload),
    ]
}

/// All rules, half of them, and all of them with one changed.
fn sets() -> [Arc<Rules>; 3] {
    let half = EVERY
        .split("\n\n")
        .step_by(2)
        .collect::<Vec<_>>()
        .join("\n\n");
    let changed = EVERY.replace("above = 3", "above = 2");
    [rules(EVERY), rules(&half), rules(&changed)]
}

fn play(bench: &mut Bench, now: &mut f64, event: &Event, sets: &[Arc<Rules>; 3]) {
    match event {
        Event::Reading {
            series,
            value,
            passed,
            behind,
            late,
            trusted,
        } => {
            *now += passed;
            let sample = Sample {
                event_time: time(*now - behind),
                received_time: time(*now),
                value: *value,
                late: *late,
                trusted: *trusted,
            };
            bench.step(SERIES[*series], sample);
        }
        Event::Tick(passed) => {
            *now += passed;
            bench.tick(*now);
        }
        Event::Forget(series) => bench.forget(SERIES[*series]),
        Event::Away(passed) => {
            *now += passed;
            bench.engine.resume(time(*now));
        }
        Event::Reload(set) => {
            bench.replace(Arc::clone(&sets[*set]));
        }
    }
}

/// What stands in no place: each alert is raised and cleared in turn.
fn turns(said: &[RuleEvent]) -> bool {
    let mut raised = std::collections::BTreeSet::new();
    said.iter().all(|event| {
        let key = (
            event.rule.clone(),
            event.device.clone(),
            event.metric.clone(),
        );
        match event.change {
            RuleChange::Raised => raised.insert(key),
            RuleChange::Cleared => raised.remove(&key),
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn with_a_checkpoint_at_every_step_it_says_the_same(
        events in proptest::collection::vec(event(), 1..80),
    ) {
        let sets = sets();
        let mut bench = Bench::new(Arc::clone(&sets[0]));
        let mut reborn = Bench::new(Arc::clone(&sets[0]));
        reborn.reborn = true;
        let (mut now, mut again) = (0.0, 0.0);
        for event in &events {
            play(&mut bench, &mut now, event, &sets);
            play(&mut reborn, &mut again, event, &sets);
            prop_assert_eq!(bench.engine.poll_timeout(), reborn.engine.poll_timeout());
        }
        prop_assert_eq!(bench.shown(0), reborn.shown(0));
        prop_assert!(turns(&bench.said));
        let bytes = |bench: &Bench| {
            let mut bytes = Vec::new();
            bench.engine.write_checkpoint(&mut bytes);
            bytes
        };
        prop_assert_eq!(bytes(&bench), bytes(&reborn));
        prop_assert_eq!(bench.waiting(), reborn.waiting());
        prop_assert_eq!(bench.engine.bytes(), reborn.engine.bytes());
    }

    #[test]
    fn ticks_that_nobody_asked_for_and_reloads_of_equal_rules_change_nothing(
        events in proptest::collection::vec(event(), 1..80),
    ) {
        let sets = sets();
        let mut bench = Bench::new(Arc::clone(&sets[0]));
        let mut other = Bench::new(Arc::clone(&sets[0]));
        let (mut now, mut again) = (0.0, 0.0);
        for event in &events {
            play(&mut bench, &mut now, event, &sets);
            play(&mut other, &mut again, event, &sets);
            let same = rules(other.engine.rules().text());
            prop_assert_eq!(other.replace(same), NONE);
            other.tick(again);
        }
        prop_assert_eq!(bench.shown(0).len(), other.shown(0).len());
        prop_assert_eq!(bench.shown(0), other.shown(0));
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_and_never_panic(
        events in proptest::collection::vec(event(), 1..30),
        flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<proptest::sample::Index>(),
        noise in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let sets = sets();
        let mut bench = Bench::new(Arc::clone(&sets[0]));
        let mut now = 0.0;
        for event in &events {
            play(&mut bench, &mut now, event, &sets);
        }
        let mut bytes = Vec::new();
        bench.engine.write_checkpoint(&mut bytes);
        for (at, byte) in flips {
            *at.get_mut(&mut bytes) = byte;
        }
        let cut = &bytes[..cut.index(bytes.len() + 1)];
        let mut versioned = vec![1, 0];
        versioned.extend_from_slice(&noise);
        for bytes in [&bytes, cut, &noise, &versioned] {
            let read = RuleEngine::read_checkpoint(&mut &*bytes, rules(EVERY), &mut Vec::new());
            let Ok(engine) = read else {
                continue;
            };
            // What was read goes on without a panic.
            let mut bench = Bench { engine, ..Bench::new(rules(EVERY)) };
            bench.at(now, "p/t", 5.0);
            bench.at(now + 5.0, "p/u", 5.0);
            bench.tick(now + 1e6);
            bench.engine.tick(i64::MAX, &mut Vec::new());
            bench.replace(Rules::none());
        }
    }
}

#[test]
fn an_unchanged_rule_keeps_its_state_and_a_changed_one_begins_anew() {
    let of = |hot: f64, extra: &str| {
        rules(&format!(
            "[[detect.rule]]\nname = \"cold\"\nkind = \"threshold\"\nmetric = \"t\"\nbelow = 0\n\
             hold_s = 10\n{extra}\n[[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\n\
             metric = \"t\"\nabove = {hot}\n"
        ))
    };
    let mut bench = Bench::new(of(80.0, ""));
    bench.at(0.0, "p/t", 90.0);
    bench.at(1.0, "q/t", -5.0);
    let wide = "[[detect.rule]]\nname = \"wide\"\nkind = \"range\"\nmetric = \"*\"\nmax = 50";
    assert_eq!(
        bench.replace(of(85.0, wide)),
        ["-hot p/t @1: p: t is no longer watched by the rule \"hot\""]
    );
    assert_eq!(bench.due(), Some(11.0), "the hold of the other goes on");
    assert_eq!(bench.tick(11.0).len(), 1);
    // The new ones judge what comes from now on, in the order of the rules.
    let said = bench.at(12.0, "p/t", 90.0);
    let named: Vec<&str> = said
        .iter()
        .map(|said| said.split(' ').next().unwrap())
        .collect();
    assert_eq!(named, ["+wide", "+hot"]);
    // A series that no rule was for is one now.
    assert_eq!(bench.at(13.0, "p/other", 60.0).len(), 1);
    let said = bench.replace(Rules::none());
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!((bench.engine.watched(), bench.engine.bytes()), (0, 0));
    assert_eq!(bench.due(), None);
}

#[test]
fn alerts_of_rules_that_went_while_the_agent_was_away_are_over() {
    let mut bench = Bench::new(rules(EVERY));
    bench.at(0.0, "p/t", 5.0);
    bench.at(2.0, "p/t", 5.0);
    assert_eq!(bench.said.len(), 2);
    let mut bytes = Vec::new();
    bench.engine.write_checkpoint(&mut bytes);
    let (mut input, mut said) = (&*bytes, Vec::new());
    let engine = RuleEngine::read_checkpoint(&mut input, Rules::none(), &mut said).unwrap();
    let mut said: Vec<String> = said.iter().map(show).collect();
    said.sort();
    assert_eq!(
        said,
        [
            "-hot p/t @2: p: t is no longer watched by the rule \"hot\"",
            "-range p/t @2: p: t is no longer watched by the rule \"range\"",
        ]
    );
    assert_eq!(engine.watched(), 0);
    let other = RuleEngine::read_checkpoint(&mut &b"\x09\x00"[..], Rules::none(), &mut Vec::new());
    assert!(other.unwrap_err().to_string().contains("of version 9"));
}

#[test]
fn a_rule_that_names_a_series_that_never_came_waits() {
    let mut bench = Bench::new(rule(
        "name = \"x\"\nkind = \"threshold\"\ndevice = \"pmup\"\nmetric = \"t\"\nabove = 1",
    ));
    bench.at(0.0, "pump/t", 5.0);
    assert_eq!(bench.waiting(), ["x"]);
    assert_eq!((bench.engine.watched(), bench.due()), (0, None));
    bench.at(0.0, "pmup/t", 5.0);
    assert_eq!(bench.waiting(), NONE);
}

#[test]
fn what_is_raised_or_awaited_outlives_its_slot_and_all_else_goes() {
    let text = "[[detect.rule]]\nname = \"s\"\nkind = \"silence\"\nmetric = \"t\"\nfor_s = 30\n\
                [[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\nmetric = \"u\"\nabove = 1";
    let mut bench = Bench::new(rules(text));
    bench.at(0.0, "p/t", 5.0);
    bench.at(0.0, "p/u", 5.0);
    bench.at(0.0, "q/u", 0.0);
    for series in ["p/t", "p/u", "q/u", "never/came"] {
        bench.forget(series);
    }
    assert_eq!(bench.engine.watched(), 2);
    bench.rebirth();
    assert_eq!(
        bench.tick(30.0).len(),
        1,
        "it is silent, though nobody has it at hand"
    );
    // Its slot is another's now.
    bench.series.swap(0, 2);
    assert_eq!(
        bench.at(31.0, "q/u", 5.0),
        ["+hot q/u @31: q: u is 5, beyond 1"]
    );
    assert_eq!(bench.at(31.0, "p/t", 5.0).len(), 1);
    assert_eq!(bench.at(31.0, "p/u", 0.0).len(), 1);
}

#[test]
fn there_is_room_for_so_much_and_the_longest_forgotten_go_first() {
    let settings = "name = \"hot\"\nkind = \"threshold\"\nmetric = \"t\"\nabove = 1";
    let mut bench = Bench::new(rule(settings));
    let mut out = Vec::new();
    let mut refused_from = 0;
    let step = |bench: &mut Bench, i: u32, at: f64, out: &mut Vec<RuleEvent>| {
        let device = format!("device-{i:06}");
        let place = Place {
            series: SeriesSlot(i),
            device: DeviceSlot(i),
            device_name: &device,
            metric: "t",
            unit: "",
        };
        bench.engine.step(&place, &sample(at, 5.0), out);
        bench.engine.bytes()
    };
    for i in 0..400_000 {
        assert!(step(&mut bench, i, 0.0, &mut out) <= RULE_STATE_BYTES_MAX);
        if bench.engine.counts().refused > 0 {
            refused_from = i;
            break;
        }
    }
    assert!(refused_from >= 100_000, "{refused_from}");
    assert_eq!(out.len(), refused_from as usize);
    // One more reading of it is not counted again.
    step(&mut bench, refused_from, 0.0, &mut out);
    assert_eq!(bench.engine.counts().refused, 1);
    // Somebody forgets two; they are raised, and kept until others need their room.
    for i in [7, 3] {
        let device = format!("device-{i:06}");
        bench.engine.forget(&Place {
            series: SeriesSlot(i),
            device: DeviceSlot(i),
            device_name: &device,
            metric: "t",
            unit: "",
        });
    }
    out.clear();
    step(&mut bench, refused_from + 1, 1.0, &mut out);
    let said: Vec<String> = out.iter().map(show).collect();
    assert_eq!(
        said,
        [
            "-hot device-000007/t @1: device-000007: t is no longer watched by the rule \"hot\""
                .to_owned(),
            format!(
                "+hot device-{:06}/t @1: device-{:06}: t is 5, beyond 1",
                refused_from + 1,
                refused_from + 1
            ),
        ]
    );
}

#[test]
fn series_without_room_are_counted_once_and_looked_at_again_only_when_room_was_made() {
    let rule = |n: usize| {
        format!(
            "[[detect.rule]]\nname = \"r{n}\"\nkind = \"threshold\"\nmetric = \"*\"\n\
             above = {n}\n"
        )
    };
    let mut bench = Bench::new(rules(&(100..300).map(rule).collect::<String>()));
    let mut watched = 0;
    while bench.engine.counts().refused == 0 {
        bench.at(0.0, &format!("d{watched}/t"), 1.0);
        watched += 1;
    }
    let room = (bench.engine.made_room, bench.engine.bytes());
    let beyond: Vec<String> = (0..4).map(|i| format!("beyond-{i}/t")).collect();
    for second in 1..4 {
        for name in &beyond {
            assert_eq!(bench.at(f64::from(second), name, 999.0), NONE);
        }
    }
    assert_eq!(bench.engine.counts().refused, 5);
    assert_eq!((bench.engine.made_room, bench.engine.bytes()), room);
    bench.forget("d3/t");
    assert_eq!(bench.at(5.0, &beyond[2], 999.0).len(), 200);
    assert_eq!(bench.at(5.0, &beyond[3], 999.0), NONE);
    assert_eq!(bench.engine.counts().refused, 5);
}

#[test]
fn steady_time_goes_on_where_the_clock_is_set_and_what_is_said_is_by_the_clock() {
    let text = "[[detect.rule]]\nname = \"gone\"\nkind = \"silence\"\nmetric = \"t\"\nfor_s = 60\n\
                [[detect.rule]]\nname = \"hot\"\nkind = \"threshold\"\nmetric = \"u\"\n\
                above = 1\nhold_s = 10\n\
                [[detect.rule]]\nname = \"apart\"\nkind = \"compare\"\nmetric = \"t\"\n\
                op = \">\"\nother_metric = \"u\"\noffset = 5\nstale_s = 100\n";
    for reborn in [false, true] {
        let mut bench = Bench::new(rules(text));
        bench.reborn = reborn;
        bench.at(0.0, "d/t", 1.0);
        bench.at(5.0, "d/t", 1.0);
        bench.at(5.0, "d/u", 5.0);
        bench.engine.clock(-100_000_000, true);
        assert_eq!(bench.due(), Some(65.0));
        assert_eq!(bench.tick(20.0), NONE, "the hold begins anew");
        let [gone] = bench.tick(65.0).try_into().unwrap();
        assert!(gone.starts_with("+gone d/t @-35 [-95..-35]: "), "{gone}");
        let untrusted = |at: f64| Sample {
            trusted: false,
            ..sample(at, 5.0)
        };
        assert_eq!(bench.step("d/u", untrusted(66.0)), NONE);
        let [hot] = bench.tick(76.0).try_into().unwrap();
        assert!(hot.starts_with("+hot d/u @-24 [-34..-24]: "), "{hot}");
        // A time before those that were by the clock as it was is no old one.
        let trusted = |value: f64| Sample {
            received_time: time(77.0),
            ..sample(-23.0, value)
        };
        let said = bench.step("d/t", trusted(90.0));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said.iter().any(|line| line.starts_with("-gone d/t @-23")));
        assert!(said.iter().any(|line| line.starts_with("+apart d/t @-23")));
    }
}
