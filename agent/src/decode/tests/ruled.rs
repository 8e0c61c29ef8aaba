//! What rules make of messages, as tables; what is said against wrong ones; and that nothing
//! whatever makes pointers and waveforms panic or find something else than they should.

use super::super::{Filter, Incoming, Rules};
use super::{NOW, show_by};
use crate::decode::{DeadLetter, Rows, UserProperties};
use proptest::prelude::*;
use std::sync::Arc;
use tributary_protocol::limits::MESSAGE_READINGS_MAX;
use tributary_protocol::reading::{Flags, Value};
use tributary_settings::Document;

fn rules(text: &str) -> Arc<Rules> {
    Rules::parse(text).unwrap_or_else(|wrong| panic!("{wrong:?} in {text}"))
}

/// What is said against a configuration.
fn wrong(text: &str) -> Vec<String> {
    let mut document = Document::parse(text, "", []);
    Rules::read(&mut document.root());
    let wrong = document.finish();
    assert!(!wrong.is_empty(), "{text}");
    wrong.iter().map(ToString::to_string).collect()
}

/// A text that was kept is read as it was meant, also where nobody may write it any more.
#[test]
fn a_rule_that_never_comes_to_its_turn_is_told_and_what_was_kept_is_read() {
    for (first, second) in [
        ("b/{dev}/{metric}", "b/x/y"),
        ("b/#", "b/x/y"),
        ("b/#", "b/{dev}/#"),
        ("#", "b/x"),
    ] {
        let rule = |topic| format!("[[decode]]\ntopic = \"{topic}\"\nvalue = \"/v\"\n");
        let text = format!("{}{}", rule(first), rule(second));
        let said = format!(
            "line 5: `decode[1].topic` never comes to its turn: `{first}` stands before it"
        );
        assert_eq!(wrong(&text), [said]);
        assert_eq!(Rules::parse(&text).unwrap().len(), 2);
        let other_way = format!("{}{}", rule(second), rule(first));
        let mut document = Document::parse(&other_way, "", []);
        assert_eq!(Rules::read(&mut document.root()).len(), 2);
        assert!(document.finish().is_empty(), "{other_way}");
    }
}

fn check(text: &str, table: &[(&str, &str, &str)]) {
    let rules = rules(text);
    for (topic, payload, rows) in table {
        let shown = show_by(&rules, topic, payload.as_bytes());
        let shown = shown
            .strip_prefix("dead letter: ")
            .map_or(&*shown, |said| said);
        assert_eq!(shown, *rows, "{topic} {payload}");
    }
}

#[test]
fn names_come_from_levels_and_the_first_rule_holds() {
    let text = r#"
        [[decode]]
        topic = "plant/{site}/{device}/+/{metric}"
        device = "{site}/{device}"

        [[decode]]
        topic = "plant/{site}/#"
        device = "{site}"
        metric = "all of {site}"

        [[decode]]
        topic = "{device}/state"
        metric = "on"
        type = "bool"
    "#;
    check(
        text,
        &[
            ("plant/north/p7/raw/rpm", "7", "north/p7 rpm=7i untimed"),
            ("plant/north/p7/rpm", "7", "north all of north=7i untimed"),
            (
                "plant/north/p7/x/rpm",
                r#"{"a":1,"b":{"c":2}}"#,
                "north/p7 a=1i untimed; north/p7 b.c=2i untimed",
            ),
            ("plant/north", "7", "north all of north=7i untimed"),
            ("lamp/state", "ON", "lamp on=true untimed"),
            ("lamp/other", "ON", "lamp other=\"ON\" untimed"),
            ("plant//p7/raw/rpm", "7", "/p7 rpm=7i untimed"),
        ],
    );
    let long = "x".repeat(200);
    let shown = show_by(&rules(text), &format!("plant/{long}/{long}/r/m"), b"1");
    assert!(shown.contains("cannot be a device name"), "{shown}");
}

// tidy: function because it is one table.
#[test]
fn pointers_lead_to_values_and_what_stands_beside_them() {
    let text = r#"
        [[decode]]
        topic = "one/{device}/{metric}"
        value = "/data/v"
        time = "/data/t"
        seq = "/n"
        quality = "/ok"
        unit = "/u"
        time_unit = "ms"

        [[decode]]
        topic = "many/{device}"
        values = { temperature = "/t", rpm = "/motor/0/rpm" }
        unit = "none"
        time = "none"
        [decode.metrics.temperature]
        unit = "°C"
        scale = 0.1
        [decode.metrics.rpm]
        type = "i64"

        [[decode]]
        topic = "series/+"
        time = "/0"
        value = "/1"
        seq = "none"

        [[decode]]
        topic = "bare/#"
        format = "json"
        value = ""
    "#;
    let at = "@1769848199250000";
    let missing =
        |what: &str| format!("the rule for its topic reads `{what}`, and nothing is there");
    check(
        text,
        &[
            (
                "one/p/t",
                r#"{"x":[1,{"y":2}],"data":{"v":1.5,"t":1769848199250},"n":7,"ok":"bad","u":"K"}"#,
                &format!("p t[K]=1.5 {at} q-2147483648 #7"),
            ),
            // A number in quotes counts the same; what nobody reads may be beyond f64.
            (
                "one/p/t",
                r#"{"huge":1e999,"data":{"t":"1769848199250","v":true}}"#,
                &format!("p t=true {at}"),
            ),
            ("one/p/t", r#"{"data":{"v":null}}"#, ""),
            ("one/p/t", r#"{"data":{}}"#, &missing("data.v")),
            (
                "one/p/t",
                r#"{"data":{"v":[1]}}"#,
                "`data.v` is an object or an array, where the rule for its topic reads a value",
            ),
            (
                "one/p/t",
                r#"{"data":{"v":1},"data":{"v":2}}"#,
                "`data.v` stands twice in one object: which one holds?",
            ),
            (
                "one/p/t",
                r#"{"data":{"v":1,"t":"soon"}}"#,
                "`data.t` is no number, where its rule says what a number counts",
            ),
            (
                "one/p/t",
                r#"{"data":{"v":1},"ok":"so"}"#,
                "`ok` is neither an integer of 32 bits nor `good`, `uncertain` or `bad`",
            ),
            (
                "many/p",
                r#"{"t":215,"motor":[{"rpm":1480.0},{"rpm":1}],"ts":1,"unit":"F"}"#,
                "p rpm=1480i untimed; p temperature[°C]=21.5 untimed",
            ),
            ("many/p", r#"{"t":215}"#, "p temperature[°C]=21.5 untimed"),
            ("many/p", "{}", &missing("motor.0.rpm`, `t")),
            (
                "many/p",
                r#"{"motor":[{"rpm":1.5}]}"#,
                "the value of `rpm`: 1.5 is no integer of 64 bits",
            ),
            (
                "many/p",
                r#"[{"t":1},{"t":20}]"#,
                "p temperature[°C]=0.1 untimed; p temperature[°C]=2.0 untimed",
            ),
            (
                "series/p",
                "[[1769848199.25,1],[1769848199250,2]]",
                &format!("series p=1i {at}; series p=2i {at}"),
            ),
            ("bare/p/t", "21.5", "bare/p t=21.5 untimed"),
            (
                "bare/p/t",
                "21,5",
                "malformed JSON at byte 2: expected the end of the payload",
            ),
        ],
    );
}

#[test]
fn without_pointers_to_values_every_scalar_is_one() {
    let text = r#"
        [[decode]]
        topic = "status/{device}"
        time = "/unix/time"
        seq = "/n"
        time_unit = "s"
        [decode.metrics."a.b"]
        offset = 1
    "#;
    let at = "@1769848199000000";
    check(
        text,
        &[
            (
                "status/p",
                r#"{"a":{"b":1},"unix":{"time":1769848199,"zone":2},"n":4,"ts":5}"#,
                &format!("p a.b=2i {at} #4; p unix.zone=2i {at} #4; p ts=5i {at} #4"),
            ),
            // A `value` is one as without a rule, and the device is the rule's.
            ("status/p", r#"{"value":1,"unit":"V"}"#, "p p[V]=1i untimed"),
            (
                "status/p",
                r#"{"unix":{"time":[]}}"#,
                "`unix.time` is an object or an array",
            ),
        ],
    );
}

#[test]
fn a_form_takes_what_it_says_and_nothing_else() {
    let text = r#"
        [[decode]]
        topic = "v/{device}/{metric}"
        format = "value"
        scale = 0.5
        unit = "bar"
        [[decode]]
        topic = "t/#"
        format = "text"
        [[decode]]
        topic = "when/#"
        time_unit = "rfc3339"
    "#;
    check(
        text,
        &[
            ("v/p/t", "3", "p t[bar]=1.5 untimed"),
            ("v/p/t", "\"3\"", "p t[bar]=1.5 untimed"),
            (
                "v/p/t",
                "x",
                "the value of `t`: x is no number to be scaled",
            ),
            (
                "v/p/t",
                "{\"value\":3}",
                "an object or an array, where the rule for its topic says a bare value",
            ),
            ("t/p", "{\"a\":1", "t p=\"{\\\"a\\\":1\" untimed"),
            ("t/p", "21.5", "t p=\"21.5\" untimed"),
            (
                "when/p",
                r#"{"ts":1769848199,"value":1}"#,
                "`ts` is a number, where its rule says RFC 3339",
            ),
            (
                "when/p",
                r#"{"ts":"2026-01-31T08:29:59Z","value":1}"#,
                "when p=1i @1769848199000000",
            ),
        ],
    );
}

#[test]
fn time_units_count_what_they_say() {
    for (unit, ts, time) in [
        ("s", "1", 1_000_000),
        ("s", "1.5", 1_500_000),
        ("s", "-1", -1_000_000),
        ("ms", "1769848199250", 1_769_848_199_250_000),
        ("ms", "0.001", 1),
        ("us", "7", 7),
        ("ns", "7999", 7),
        ("ns", "-1", -1),
        ("auto", "1769848199", 1_769_848_199_000_000),
    ] {
        let text = format!("[[decode]]\ntopic = \"#\"\ntime_unit = \"{unit}\"\n");
        let payload = format!("{{\"ts\":{ts},\"value\":1}}");
        let mut rows = Rows::new();
        rules(&text)
            .decode(&incoming(payload.as_bytes()), &mut rows)
            .unwrap();
        assert_eq!(
            rows.iter().next().unwrap().meta.event_time,
            time,
            "{ts} {unit}"
        );
    }
    let text = "[[decode]]\ntopic = \"#\"\ntime_unit = \"s\"\n";
    let beyond = show_by(
        &rules(text),
        "a/b",
        br#"{"ts":9223372036854775807,"value":1}"#,
    );
    assert!(beyond.contains("beyond any time"), "{beyond}");
}

fn incoming(payload: &[u8]) -> Incoming<'_> {
    Incoming {
        topic: "line/motor/current",
        payload,
        properties: UserProperties::NONE,
        received_time: NOW,
    }
}

const WAVE: &str = "[[decode]]\ntopic = \"#\"\nformat = \"waveform\"\n";

#[test]
fn a_waveform_is_a_reading_a_sample_each_with_its_time() {
    check(
        WAVE,
        &[
            (
                "m/i",
                r#"{"ts":1769848199250,"rate_hz":4,"samples":[1,null,-2.5],"seq":3,"unit":"A"}"#,
                "m i[A]=1i @1769848199250000 #3; m i[A]=-2.5 @1769848199750000 #3",
            ),
            // Without a time the last sample is as old as the message.
            (
                "m/i",
                r#"{"samples":[1,2],"rate_hz":1000}"#,
                &format!("m i=1i @{} untimed; m i=2i untimed", NOW - 1_000),
            ),
            ("m/i", r#"{"samples":[],"rate_hz":1}"#, ""),
            (
                "m/i",
                r#"{"samples":[1]}"#,
                "no waveform: no rate in the message, and no `rate_hz` in its rule",
            ),
            (
                "m/i",
                r#"{"samples":[1],"rate_hz":0}"#,
                "no waveform: a rate that is no number above 0 and up to 1,000,000 Hz",
            ),
            (
                "m/i",
                r#"{"samples":[1],"rate_hz":"fast"}"#,
                "no waveform: a rate that is no number above 0 and up to 1,000,000 Hz",
            ),
            (
                "m/i",
                r#"{"samples":[1,"2"],"rate_hz":1}"#,
                "no waveform: sample 1 is no number",
            ),
            (
                "m/i",
                r#"{"samples":[[1]],"rate_hz":1}"#,
                "no waveform: sample 0 is no number",
            ),
            (
                "m/i",
                r#"{"rate_hz":1}"#,
                "the rule for its topic reads `samples`, and nothing is there",
            ),
        ],
    );
    let own = "[[decode]]\ntopic = \"#\"\nformat = \"waveform\"\nsamples = \"/d/x\"\n\
               rate = \"/d/f\"\ntime = \"/d/t\"\nrate_hz = 2\n[decode.metrics.i]\n\
               scale = 10\nunit = \"mA\"\n";
    check(
        own,
        &[(
            "m/i",
            r#"{"d":{"x":[1,2],"t":1769848199250}}"#,
            "m i[mA]=10i @1769848199250000; m i[mA]=20i @1769848199750000",
        )],
    );
    let alone = "[[decode]]\ntopic = \"#\"\nformat = \"waveform\"\nsamples = \"\"\nrate_hz = 1\n";
    let first = NOW - 1_000_000;
    check(
        alone,
        &[(
            "m/i",
            "[5,6]",
            &format!("m i=5i @{first} untimed; m i=6i untimed"),
        )],
    );
}

#[test]
fn samples_as_bytes_are_read_in_their_order_and_to_the_bit() {
    let text = |form: &str| {
        format!("[[decode]]\ntopic = \"#\"\nformat = \"{form}\"\nrate_hz = 1000\nskip_bytes = 1\n")
    };
    let values = |form: &str, payload: &[u8]| {
        let mut rows = Rows::new();
        rules(&text(form))
            .decode(&incoming(payload), &mut rows)
            .unwrap();
        let values = rows.iter().map(|reading| match reading.value {
            Value::F64(x) => format!("{x:?}"),
            Value::I64(x) => x.to_string(),
            other => panic!("{other:?}"),
        });
        values.collect::<Vec<_>>()
    };
    assert_eq!(
        values("i16le", b"h\x01\x00\xff\xff\x00\x80"),
        ["1", "-1", "-32768"]
    );
    assert_eq!(
        values("i16be", b"h\x00\x01\xff\xff\x80\x00"),
        ["1", "-1", "-32768"]
    );
    assert_eq!(
        values("f32le", b"h\x00\x00\xc0\x3f\x00\x00\xc0\x7f"),
        ["1.5", "NaN"]
    );
    assert_eq!(
        values("f32be", b"h\x3d\xcc\xcc\xcd"),
        [format!("{:?}", f64::from(0.1f32))]
    );
    for (form, payload, why) in [
        (
            "i16le",
            &b"h\x01"[..],
            "1 bytes, which are no whole samples of 2 bytes",
        ),
        (
            "f32be",
            b"h\x01\x02",
            "2 bytes, which are no whole samples of 4 bytes",
        ),
        ("f32be", b"", "the payload is empty"),
    ] {
        let said = show_by(&rules(&text(form)), "a/b", payload);
        assert!(said.contains(why), "{said}");
    }
    let short = "[[decode]]\ntopic = \"#\"\nformat = \"i16le\"\nrate_hz = 1\nskip_bytes = 9\n";
    let said = show_by(&rules(short), "a/b", b"abc");
    assert!(
        said.contains("3 bytes, where 9 stand before the samples"),
        "{said}"
    );
}

#[test]
fn more_samples_than_one_message_may_give_are_a_dead_letter_that_says_so() {
    let most = MESSAGE_READINGS_MAX;
    let json = |n: usize| format!("{{\"rate_hz\":1,\"samples\":[{}]}}", vec!["1"; n].join(","));
    assert!(show_by(&rules(WAVE), "a/b", json(most + 1).as_bytes()).contains("more than 16384"));
    assert!(!show_by(&rules(WAVE), "a/b", json(most).as_bytes()).contains("dead letter"));
    let binary = rules("[[decode]]\ntopic = \"#\"\nformat = \"i16le\"\nrate_hz = 1\n");
    assert!(show_by(&binary, "a/b", &vec![0; 2 * most + 2]).contains("more than 16384"));
    assert!(!show_by(&binary, "a/b", &vec![0; 2 * most]).contains("dead letter"));
}

#[test]
fn everything_wrong_with_rules_is_said_at_once() {
    let text = r#"
[[decode]]
topc = "a/#"

[[decode]]
topic = "a/#/b"
device = "{x}"

[[decode]]
topic = "{site}/{devce}/x"
device = "{site}/{device}"
metric = "{metric"
format = "jsn"
value = "v"
values = { "" = "/v", ok = "/a/~2" }
time_unit = "h"
keep = "features"
scale = 0
type = "int"

[[decode]]
topic = "b/{}"

[[decode]]
topic = "c/+"
format = "i16le"
seq = "/n"
skip_bytes = 5000

[[decode]]
topic = "c/{x}"
value = "/ts"

[[decode]]
topic = "c/{other}"
format = "text"
value = "/x"
time_unit = "s"
rate_hz = 5
[decode.metrics.m]
unit = ""
sale = 1
"#;
    assert_eq!(
        wrong(text),
        [
            "line 2: `decode[0].topic` is missing: which topics is the rule for? `#` is all of \
             them",
            "line 3: `decode[0].topc` is not known; did you mean `decode[0].topic`?",
            "line 6: `decode[1].topic` goes on behind `#`, which must be the last level",
            "line 11: `decode[2].device` names `{device}`; did you mean `{devce}`?",
            "line 12: `decode[2].metric` has a brace without its other half",
            "line 13: `decode[2].format` is \"jsn\"; expected one of auto, json, value, text, \
             waveform, i16le, i16be, f32le, f32be",
            "line 14: `decode[2].value` is \"v\"; expected a JSON pointer, which begins with `/`: \
             \"/v\"?",
            "line 15: `decode[2].values.` cannot be a metric: expected 1 to 256 bytes without \
             controls",
            "line 15: `decode[2].values.ok` has a `~` that is neither `~0` nor `~1`",
            "line 16: `decode[2].time_unit` is \"h\"; expected one of auto, s, ms, us, ns, rfc3339",
            "line 17: `decode[2].keep` is \"features\", which needs the detectors of a later \
             version: use \"raw\", which keeps every sample",
            "line 17: `decode[2].keep` has no meaning with `format = \"auto\"`",
            "line 18: `decode[2].scale` is 0, which makes all values one",
            "line 19: `decode[2].type` is \"int\"; expected one of f64, i64, bool, str",
            "line 22: `decode[3].topic` has the level `{}`: a named level is `{name}` and nothing \
             else, of letters, digits and `_`",
            "line 24: `decode[4].rate_hz` is missing: bytes do not say how many samples a second",
            "line 27: `decode[4].seq` has no meaning with `format = \"i16le\"`",
            "line 28: `decode[4].skip_bytes` is 5000; expected 0 to 4096",
            "line 32: `decode[5].value` leads to or through `ts`, which is read already",
            "line 35: `decode[6].topic` never comes to its turn: `c/+` stands before it",
            "line 37: `decode[6].value` has no meaning with `format = \"text\"`",
            "line 38: `decode[6].time_unit` has no meaning with `format = \"text\"`",
            "line 39: `decode[6].rate_hz` has no meaning with `format = \"text\"`",
            "line 41: `decode[6].metrics.m.unit` cannot be a unit: expected 1 to 256 bytes \
             without control characters",
            "line 42: `decode[6].metrics.m.sale` is not known; did you mean \
             `decode[6].metrics.m.scale`?",
        ]
    );
}

#[test]
fn bounds_are_said() {
    let many: String = (0..257)
        .map(|n| format!("[[decode]]\ntopic = \"t/{n}\"\n"))
        .collect();
    assert_eq!(
        wrong(&many),
        ["line 513: `decode[256]` is one too many: at most 256 rules"]
    );
    assert_eq!(rules(&many[..many.len() - 27]).len(), 256);
    let deep = "a/".repeat(32);
    assert!(
        wrong(&format!("[[decode]]\ntopic = \"{deep}b\"\n"))[0].contains("more than 32 levels")
    );
    let values: String = (0..257).map(|n| format!("v{n} = \"/{n}\"\n")).collect();
    let said = wrong(&format!(
        "[[decode]]\ntopic = \"#\"\n[decode.values]\n{values}"
    ));
    assert!(said[0].contains("more than 256 metrics"), "{said:?}");
    let both = "[[decode]]\ntopic = \"#\"\nvalue = \"/a\"\nvalues = { b = \"/b\" }\n";
    assert!(wrong(both)[0].contains("exclude each other"));
}

/// One rule of each kind, with every key.
const EVERY_KEY: &str = r#"
[[decode]]
topic = "a/{site}/+/#"
device = "{site}: pump"
metric = "m \"quoted\" {site}"
format = "json"
values = { "t.x" = "/t~1x/0", "\u007f€ \\" = "" }
time = "none"
seq = "/n"
quality = "none"
unit = "none"
time_unit = "ns"
scale = 1e-7
offset = -40
type = "f64"
[decode.metrics."t.x"]
unit = "1/min"
scale = 10
type = "i64"

[[decode]]
topic = "b"
format = "value"
unit = "bar"
type = "str"

[[decode]]
topic = "c/#"
format = "waveform"
samples = "/s"
rate = "/f"
rate_hz = 0.1
keep = "raw"

[[decode]]
topic = "d/#"
format = "f32be"
rate_hz = 25600
skip_bytes = 12

[[decode]]
topic = "{metric}/{device}"
value = "/v"
"#;

#[test]
fn the_text_that_is_kept_means_the_same_and_is_named_the_same() {
    // A DEL can't be a name, and needs an escape wherever it stands.
    let text = EVERY_KEY.replace("\\u007f€ ", "€ ").replace(
        "/#\"\nformat = \"waveform",
        "/\\u007f/#\"\nformat = \"waveform",
    );
    let text = text.replace(
        "\"/t~1x/0\", \"€ \\\\\" = \"\"",
        "\"/t~1x/0\", \"€ \\\\\" = \"/€\"",
    );
    let first = rules(&text);
    let again = rules(first.text());
    assert_eq!(first.text(), again.text());
    assert_eq!(first.hash(), again.hash());
    assert_eq!(first.len(), 5);
    assert_ne!(first.hash(), Rules::builtin().hash());
    assert_eq!(rules("").hash(), Rules::builtin().hash());
    for (topic, payload) in [
        ("a/x/y", &br#"{"t/x":[7],"\u20ac":"1"}"#[..]),
        ("b", b"3"),
        ("c/\u{7f}/i", br#"{"s":[1,2]}"#),
        ("d/x", &[0; 20]),
        ("t/p", br#"{"v":1}"#),
        ("none/of/them", b"1"),
    ] {
        let shown = show_by(&first, topic, payload);
        assert!(
            !shown.contains("dead letter") || topic.contains('\u{7f}'),
            "{topic}: {shown}"
        );
        assert_eq!(shown, show_by(&again, topic, payload), "{topic}");
    }
}

#[test]
fn a_configuration_of_this_version_keeps_its_name() {
    // It stands in logs and checkpoints: another hash for the same rules would orphan them. Only
    // a default that is written out anew may change it.
    let named = rules("[[decode]]\ntopic = \"a/{device}/{metric}\"\n");
    assert_eq!(
        named.text(),
        "# Rules of decoding, as this agent keeps them: do not edit.\n\n[[decode]]\n\
         topic = \"a/{device}/{metric}\"\nformat = \"auto\"\ndevice = \"{device}\"\n\
         metric = \"{metric}\"\ntime = \"/ts\"\nseq = \"/seq\"\nquality = \"/quality\"\n\
         time_unit = \"auto\"\nunit = \"/unit\"\nscale = 1.0\noffset = 0.0\n"
    );
    assert_eq!(
        named.filter_for("a/b/c").map(Filter::text),
        Some("a/{device}/{metric}")
    );
    assert_eq!(named.filter_for("a/b"), None);
}

/// JSON without doubled members, as text.
fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i32>().prop_map(Into::into),
        "[a-c/~]{0,3}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(key(), inner, 0..4)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("0".into()),
        Just("1".into()),
        Just("01".into()),
        "[ab/~]{0,2}"
    ]
}

/// What a pointer leads to, as a row shows it; `None`: nothing.
fn shown(value: Option<&serde_json::Value>) -> Option<String> {
    Some(match value? {
        serde_json::Value::Null => String::new(),
        serde_json::Value::Array(_) | serde_json::Value::Object(_) => "nested".into(),
        serde_json::Value::String(text) => format!("{text:?}"),
        serde_json::Value::Number(number) => format!("{number}i"),
        serde_json::Value::Bool(truth) => truth.to_string(),
    })
}

proptest! {
    #[test]
    fn a_pointer_leads_where_serde_says(
        document in proptest::collection::btree_map(key(), json(), 0..4),
        steps in proptest::collection::vec(key(), 1..4),
    ) {
        let document: serde_json::Value =
            document.into_iter().collect::<serde_json::Map<_, _>>().into();
        let pointer: String = steps
            .iter()
            .map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")))
            .collect();
        let text = format!(
            "[[decode]]\ntopic = \"#\"\nformat = \"json\"\ndevice = \"d\"\nmetric = \"m\"\n\
             value = {}\ntime = \"none\"\nseq = \"none\"\nunit = \"none\"\nquality = \"none\"\n",
            serde_json::Value::from(pointer.clone()),
        );
        let ours = show_by(&rules(&text), "a/b", document.to_string().as_bytes());
        let ours = if ours.contains("nothing is there") {
            None
        } else if ours.contains("is an object or an array") {
            Some("nested".into())
        } else {
            let row = ours.strip_prefix("d m=").and_then(|row| row.strip_suffix(" untimed"));
            prop_assert!(row.is_some() || ours.is_empty(), "{ours}");
            Some(row.unwrap_or_default().to_owned())
        };
        prop_assert_eq!(ours, shown(document.pointer(&pointer)), "{} in {}", pointer, document);
    }

    #[test]
    fn no_bytes_make_a_waveform_panic(
        form in prop_oneof![
            Just("waveform"), Just("i16le"), Just("i16be"), Just("f32le"), Just("f32be")],
        rate in 1e-6f64..1e6,
        skip in 0usize..5,
        payload in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let skip_bytes = match form {
            "waveform" => String::new(),
            _ => format!("skip_bytes = {skip}\n"),
        };
        let text = format!(
            "[[decode]]\ntopic = \"#\"\nformat = \"{form}\"\nrate_hz = {rate:?}\n{skip_bytes}");
        let mut rows = Rows::new();
        match rules(&text).decode(&incoming(&payload), &mut rows) {
            Ok(decoded) => {
                prop_assert_eq!(decoded.readings, rows.len());
                if form != "waveform" {
                    let width = if form.starts_with("i16") { 2 } else { 4 };
                    prop_assert_eq!(rows.len() * width + skip, payload.len());
                }
                let mut last = i64::MIN;
                for reading in rows.iter() {
                    prop_assert!(reading.meta.event_time > last);
                    prop_assert!(reading.meta.flags.has(Flags::NO_DEVICE_TIME));
                    last = reading.meta.event_time;
                }
                prop_assert!(rows.is_empty() || last == NOW);
            }
            Err(error) => {
                prop_assert!(rows.is_empty());
                let bad = matches!(error, DeadLetter::Waveform(_) | DeadLetter::Empty);
                prop_assert!(bad || form == "waveform", "{error}");
            }
        }
    }

    #[test]
    fn no_samples_in_json_make_a_waveform_panic(text in r#"[\[\]{}:,0-9.eE"nul\-a-z ]{0,24}"#) {
        let payload = format!("{{\"rate_hz\":10,\"samples\":[{text}]}}");
        let mut rows = Rows::new();
        if rules(WAVE).decode(&incoming(payload.as_bytes()), &mut rows).is_ok() {
            let parsed: serde_json::Value = serde_json::from_str(&payload).unwrap();
            let samples = parsed["samples"].as_array().unwrap();
            prop_assert_eq!(rows.len(), samples.iter().filter(|s| s.is_number()).count());
        } else {
            prop_assert!(rows.is_empty());
        }
    }

    #[test]
    fn no_text_makes_rules_panic(text in r#"[\[\]{}=/#+a-c"\n~. 0-9]{0,80}"#) {
        // Right or wrong; what is right keeps its meaning.
        let topic = text.replace(['"', '\n'], "");
        for text in [text, format!("[[decode]]\ntopic = \"{topic}\"")] {
            if let Ok(rules) = Rules::parse(&text) {
                prop_assert_eq!(Rules::parse(rules.text()).unwrap(), rules);
            }
        }
    }
}
