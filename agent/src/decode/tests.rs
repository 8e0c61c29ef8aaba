//! What payloads mean, as a table; and that nothing whatever makes the decoder panic or lose a bit.

use super::*;

mod document;
mod ruled;

use proptest::prelude::*;
use tributary_protocol::limits::{MESSAGE_READINGS_MAX, TEXT_BYTES_MAX};
use tributary_protocol::reading::{Flags, Value};

const TOPIC: &str = "plant/pump/temp";
/// 2026-01-31T08:30:00Z.
const NOW: i64 = 1_769_848_200_000_000;

/// The rows as text: `device metric[unit] = value @time-now qN #seq flags`.
fn show(topic: &str, payload: &[u8]) -> String {
    show_by(&Rules::builtin(), topic, payload)
}

fn show_by(rules: &Rules, topic: &str, payload: &[u8]) -> String {
    let mut rows = Rows::new();
    let message = Incoming {
        topic,
        payload,
        properties: UserProperties::NONE,
        received_time: NOW,
    };
    match rules.decode(&message, &mut rows) {
        Err(error) => {
            assert!(rows.is_empty(), "a dead letter left rows");
            format!("dead letter: {error}")
        }
        Ok(decoded) => {
            assert_eq!(decoded.readings, rows.len());
            rows.iter().map(show_reading).collect::<Vec<_>>().join("; ")
        }
    }
}

fn show_reading(r: Reading<'_>) -> String {
    let mut line = format!("{} {}", r.device, r.metric);
    if !r.unit.is_empty() {
        line += &format!("[{}]", r.unit);
    }
    line += &match r.value {
        Value::F64(x) => format!("={x:?}"),
        Value::I64(x) => format!("={x}i"),
        Value::Bool(x) => format!("={x}"),
        Value::Str(x) => format!("={x:?}"),
        Value::F32(_) => panic!("no f32 comes from JSON"),
    };
    if r.meta.event_time != NOW {
        line += &format!(" @{}", r.meta.event_time);
    }
    if r.meta.quality != 0 {
        line += &format!(" q{}", r.meta.quality);
    }
    if let Some(seq) = r.meta.device_seq {
        line += &format!(" #{seq}");
    }
    for (flag, name) in [
        (Flags::CLOCK_SUSPECT, " suspect"),
        (Flags::NO_DEVICE_TIME, " untimed"),
    ] {
        if r.meta.flags.has(flag) {
            line += name;
        }
    }
    assert_eq!(r.meta.received_time, NOW);
    line
}

// tidy: function because it is one table.
#[test]
fn payloads_mean_what_the_table_says() {
    let table: &[(&str, &str)] = &[
        // Bare payloads.
        ("21.5", "plant/pump temp=21.5 untimed"),
        (" 21\n", "plant/pump temp=21i untimed"),
        ("-0", "plant/pump temp=-0.0 untimed"),
        ("+.5", "plant/pump temp=0.5 untimed"),
        ("5.", "plant/pump temp=5.0 untimed"),
        ("1e3", "plant/pump temp=1000.0 untimed"),
        ("nan", "plant/pump temp=NaN untimed"),
        ("-Inf", "plant/pump temp=-inf untimed"),
        ("007", "plant/pump temp=\"007\" untimed"),
        ("1-2", "plant/pump temp=\"1-2\" untimed"),
        ("true", "plant/pump temp=true untimed"),
        ("off", "plant/pump temp=\"off\" untimed"),
        (" läuft ", "plant/pump temp=\" läuft \" untimed"),
        (r#""a\nb""#, "plant/pump temp=\"a\\nb\" untimed"),
        (r#""open"#, "plant/pump temp=\"\\\"open\" untimed"),
        (
            "9223372036854775807",
            "plant/pump temp=9223372036854775807i untimed",
        ),
        (
            "9223372036854775808",
            "plant/pump temp=9.223372036854776e18 untimed",
        ),
        (
            "18446744073709551615",
            "plant/pump temp=\"18446744073709551615\" untimed",
        ),
        ("100000000000000000000", "plant/pump temp=1e20 untimed"),
        // `value` and what has a meaning beside it.
        (
            r#"{"value":21.5,"ts":1769848199,"seq":7}"#,
            "plant/pump temp=21.5 @1769848199000000 #7",
        ),
        (
            r#"{"ts":1769848199250,"value":1}"#,
            "plant/pump temp=1i @1769848199250000",
        ),
        (
            r#"{"ts":1769848199250001,"value":1}"#,
            "plant/pump temp=1i @1769848199250001",
        ),
        (
            r#"{"ts":1769848199250001999,"value":1}"#,
            "plant/pump temp=1i @1769848199250001",
        ),
        (
            r#"{"ts":1769848199.25,"value":1}"#,
            "plant/pump temp=1i @1769848199250000",
        ),
        (
            r#"{"ts":"2026-01-31T09:29:59.5+01:00","value":1}"#,
            "plant/pump temp=1i @1769848199500000",
        ),
        (
            r#"{"ts":"1969-12-31 23:59:59Z","value":1}"#,
            "plant/pump temp=1i @-1000000 suspect",
        ),
        (
            r#"{"ts":"2024-02-29T23:59:60z","value":1}"#,
            "plant/pump temp=1i @1709251200000000",
        ),
        (
            r#"{"ts":1769934600,"value":1}"#,
            "plant/pump temp=1i @1769934600000000",
        ),
        (
            r#"{"ts":1769934601,"value":1}"#,
            "plant/pump temp=1i @1769934601000000 suspect",
        ),
        (
            r#"{"ts":null,"value":"on"}"#,
            "plant/pump temp=\"on\" untimed",
        ),
        (
            r#"{"value":1,"unit":"°C","quality":3}"#,
            "plant/pump temp[°C]=1i q3 untimed",
        ),
        (
            r#"{"value":1,"quality":"Bad"}"#,
            "plant/pump temp=1i q-2147483648 untimed",
        ),
        (
            r#"{"value":1,"quality":2147483648}"#,
            "plant/pump temp=1i q-2147483648 untimed",
        ),
        (
            r#"{"value":1,"quality":"uncertain"}"#,
            "plant/pump temp=1i q1073741824 untimed",
        ),
        (r#"{"value":NaN}"#, "plant/pump temp=NaN untimed"),
        (r#"{"value":-Infinity}"#, "plant/pump temp=-inf untimed"),
        (r#"{"value":null,"ts":1769848199}"#, ""),
        (
            r#"{"value":1,"battery":3.1,"seq":8.0}"#,
            "plant/pump temp.battery=3.1 #8 untimed; plant/pump temp=1i #8 untimed",
        ),
        (
            r#"{"value":1,"seq":"A7"}"#,
            "plant/pump temp.seq=\"A7\" untimed; plant/pump temp=1i untimed",
        ),
        // Other objects.
        // A number that no batch holds is not the device's: it stays a member like others.
        (
            r#"{"value":1,"seq":-1}"#,
            "plant/pump temp.seq=-1i untimed; plant/pump temp=1i untimed",
        ),
        (
            r#"{"value":1,"seq":-2.0}"#,
            "plant/pump temp.seq=-2.0 untimed; plant/pump temp=1i untimed",
        ),
        (
            r#"{"a":1,"seq":-9223372036854775808}"#,
            "plant/pump/temp a=1i untimed; plant/pump/temp seq=-9223372036854775808i untimed",
        ),
        (
            r#"{"value":1,"seq":9223372036854775807}"#,
            "plant/pump temp=1i #9223372036854775807 untimed",
        ),
        (
            r#"{"value":1,"seq":9223372036854775808}"#,
            "plant/pump temp.seq=9.223372036854776e18 untimed; plant/pump temp=1i untimed",
        ),
        (
            r#"{"a":1,"b":{"c":true,"d":[1.5,null,{"e":"x"}]},"ts":1769848199,"seq":1,"n":null}"#,
            "plant/pump/temp a=1i @1769848199000000 #1; plant/pump/temp b.c=true \
             @1769848199000000 #1; plant/pump/temp b.d.0=1.5 @1769848199000000 #1; \
             plant/pump/temp b.d.2.e=\"x\" @1769848199000000 #1",
        ),
        (
            r#"{"value":{"x":1},"unit":"m","quality":1}"#,
            "plant/pump/temp value.x=1i untimed; plant/pump/temp unit=\"m\" untimed; \
             plant/pump/temp quality=1i untimed",
        ),
        (
            r#"{"a":1,"a":2}"#,
            "plant/pump/temp a=1i untimed; plant/pump/temp a=2i untimed",
        ),
        (
            r#"{"\u0061\ud83d\ude00":1}"#,
            "plant/pump/temp a😀=1i untimed",
        ),
        ("{}", ""),
        ("[]", ""),
        // Arrays.
        (
            r#"[1,{"value":2,"ts":1769848199,"seq":4},{"m":"x"},null]"#,
            "plant/pump temp=1i untimed; plant/pump temp=2i @1769848199000000 #4; \
             plant/pump/temp m=\"x\" untimed",
        ),
    ];
    for (payload, rows) in table {
        assert_eq!(show(TOPIC, payload.as_bytes()), *rows, "{payload}");
    }
}

#[test]
fn topics_give_names() {
    for (topic, names) in [
        ("a/b/c", "a/b c"),
        ("/a/b", "/a b"),
        ("temp", "temp value"),
        ("/temp", "/temp value"),
        ("a/b/", "a/b/ value"),
    ] {
        assert_eq!(show(topic, b"1"), format!("{names}=1i untimed"), "{topic}");
    }
    let long = "x".repeat(256);
    assert!(!show(&format!("{long}/{long}"), b"1").starts_with("dead"));
    assert!(show(&format!("{long}/{long}"), br#"{"a":1}"#).contains("cannot be a device name"));
    assert!(show(&format!("{long}x/t"), b"1").contains("cannot be a device name"));
    assert!(show(&format!("d/{long}x"), b"1").contains("cannot be a metric name"));
    assert!(show("a\u{1}/t", b"1").contains("cannot be a device name"));
}

#[test]
fn what_cannot_be_understood_says_why() {
    let table: &[(&[u8], &str)] = &[
        (b"", "the payload is empty"),
        (b"ab\xff", "not UTF-8 from byte 2"),
        (b"{", "at byte 1: expected a member's name"),
        (b"{\"a\":1", "at byte 6: expected `,` or `}`"),
        (b"{\"a\":1,}", "at byte 7: expected a member's name"),
        (b"{\"a\" 1}", "expected `:`"),
        (b"{\"a\":01}", "expected a number"),
        (b"{\"a\":-}", "expected a number"),
        (b"{\"a\":1.}", "expected a number"),
        (b"{\"a\":tru}", "expected a value"),
        (b"{\"a\":truex}", "expected `,` or `}`"),
        (b"{\"a\":\"\x01\"}", "instead of a control character"),
        (b"{\"a\":\"\\x\"}", "a known escape"),
        (b"{\"a\":\"\\ud800\"}", "half a surrogate pair"),
        (
            b"{\"a\":\"\\ud800\\u0061\"}",
            "second half of a surrogate pair",
        ),
        (b"{\"a\":\"\\u12g4\"}", "four hexadecimal digits"),
        (b"{\"a\":\"b", "the end of the string"),
        (b"{\"a\":1} x", "the end of the payload"),
        (b"[1 2]", "`,` or `]`"),
        (b"[1,[2]]", "an array within the array, as element 1"),
        (b"{\"a\":1e999}", "`1e999` is beyond"),
        (b"-1e999", "`-1e999` is beyond"),
        (b"{\"ts\":true,\"value\":1}", "`ts` is a truth value"),
        (b"{\"ts\":{},\"value\":1}", "`ts` is an object"),
        (
            b"{\"ts\":\"yesterday\",\"value\":1}",
            "`ts` is not RFC 3339",
        ),
        (
            b"{\"ts\":\"2026-01-31T08:30:00\",\"value\":1}",
            "`ts` has no offset",
        ),
        (
            b"{\"ts\":\"2026-02-29T08:30:00Z\",\"value\":1}",
            "`ts` is not RFC 3339",
        ),
        (b"{\"ts\":NaN,\"value\":1}", "`ts` is not a finite number"),
        (b"{\"ts\":1e30,\"value\":1}", "`ts` is beyond"),
        (b"{\"value\":1,\"value\":2}", "`value` stands twice"),
        (
            b"{\"value\":1,\"quality\":\"so-so\"}",
            "`quality` is neither",
        ),
        (b"{\"value\":1,\"quality\":1.5}", "`quality` is neither"),
        (b"{\"value\":1,\"unit\":7}", "`unit` is not a text"),
        (b"{\"value\":1,\"unit\":\"\\u0000\"}", "cannot be a unit"),
        (b"{\"\":1}", "cannot be a metric name"),
        (b"{\"a\\u0000\":1}", "cannot be a metric name"),
        (b"{\"a\":\"x\\u0000\"}", "text of `a` holds U+0000"),
        (b"x\0", "text of `temp` holds U+0000"),
        // One bad place anywhere, and no row at all.
        (b"[1,2,{\"value\":3,\"ts\":[]}]", "`ts` is an object"),
    ];
    for (payload, why) in table {
        let shown = show(TOPIC, payload);
        assert!(
            shown.starts_with("dead letter") && shown.contains(why),
            "{}: {shown}",
            payload.escape_ascii()
        );
    }
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    assert!(show(TOPIC, long.as_bytes()).contains("longer than 64 KiB"));
    assert!(!show(TOPIC, &long.as_bytes()[1..]).contains("dead"));
}

#[test]
fn nesting_and_counts_are_bounded() {
    for depth in [33, 10_000] {
        for (open, close) in [("{\"a\":", "}"), ("[", "]")] {
            let nested = format!("{{\"x\":{}1{}}}", open.repeat(depth), close.repeat(depth));
            assert!(
                show(TOPIC, nested.as_bytes()).contains("nested deeper"),
                "{depth}"
            );
            let cut = format!("{{\"x\":{}", open.repeat(depth));
            assert!(
                show(TOPIC, cut.as_bytes()).contains("nested deeper"),
                "{depth}"
            );
        }
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(32), "}".repeat(32));
    assert!(!show(TOPIC, deep.as_bytes()).contains("dead"));
    let many = |n: usize| format!("[{}]", vec!["1"; n].join(","));
    assert!(show(TOPIC, many(100_000).as_bytes()).contains("readings in one message"));
    assert!(!show(TOPIC, many(MESSAGE_READINGS_MAX).as_bytes()).contains("dead"));
}

/// What `rows` holds after a message of this payload, and what it keeps once that is cleared.
fn held_bytes(payload: &str) -> (usize, usize) {
    let mut rows = Rows::new();
    // Right or wrong, memory is bounded.
    let _ = decode(TOPIC, payload.as_bytes(), NOW, &mut rows);
    let peak = rows.held_bytes();
    rows.clear();
    (peak, rows.held_bytes())
}

#[test]
fn no_payload_makes_the_rows_grow_without_bound() {
    let nulls = |count: usize| vec!["null"; count].join(",");
    let ones = |count: usize| vec!["1"; count].join(",");
    let path = |bytes: usize| "k".repeat(bytes);
    for payload in [
        format!(r#"{{"{}":[{}]}}"#, path(4_080), nulls(51_000)),
        format!(r#"{{"{}":[{}]}}"#, path(4_080), ones(16_000)),
        format!(r#"{{"{}":[{}]}}"#, path(250), ones(16_000)),
        format!(r#"{{"{}":[{}],"value":1}}"#, path(240), ones(16_000)),
        format!(r#"{{"{}":1}}"#, path(250_000)),
        format!(r#"{{"a":"{}"}}"#, path(250_000)),
        format!(r#"[{}]"#, vec![r#"{"seq":null}"#; 20_000].join(",")),
    ] {
        assert!(payload.len() <= crate::limits::PACKET_BYTES_MAX);
        let (peak, kept) = held_bytes(&payload);
        let head = &payload[..payload.len().min(40)];
        assert!(peak <= 24 * 1024 * 1024, "{peak} bytes of {head}");
        assert!(kept <= 1024 * 1024, "{kept} bytes are kept of {head}");
    }
}

#[test]
fn what_is_null_needs_no_name_and_what_is_not_needs_one() {
    let long = "k".repeat(257);
    assert_eq!(
        show(TOPIC, format!(r#"{{"{long}":null,"n":[null]}}"#).as_bytes()),
        ""
    );
    for payload in [
        format!(r#"{{"{long}":1}}"#),
        format!(r#"{{"value":1,"{long}":1}}"#),
        format!(r#"{{"value":1,"{}":1}}"#, &long[..252]),
        format!(r#"{{"a":{{"{}":"x"}}}}"#, &long[..255]),
    ] {
        assert!(show(TOPIC, payload.as_bytes()).contains("cannot be a metric name"));
    }
    // `temp.` before it makes 256.
    let fits = format!(r#"{{"value":1,"{}":1}}"#, &long[..251]);
    assert!(!show(TOPIC, fits.as_bytes()).contains("dead letter"));
}

#[test]
fn the_number_of_a_message_is_its_first() {
    let mut rows = Rows::new();
    let mut of = |payload: &str| decode(TOPIC, payload.as_bytes(), NOW, &mut rows).unwrap();
    let first = of(r#"{"value":1,"seq":9}"#);
    assert_eq!(first.device_seq, Some(9));
    assert_eq!(
        of(r#"[{"value":1},{"value":1,"seq":3},{"value":1,"seq":4}]"#).device_seq,
        Some(3)
    );
}

/// One generator for all seeded mutations (SplitMix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_hundred_thousand_mutations_panic_nowhere_and_leave_all_or_nothing() {
    let seeds: [&str; 5] = [
        r#"{"value":21.5,"ts":"2026-01-31T09:29:59.5+01:00","seq":7,"unit":"°C","quality":"bad"}"#,
        r#"[{"value":-1.5e-7,"ts":1769848199250},{"a":{"b":[1,2,{"c":null}]},"seq":1},true,"x"]"#,
        r#"{"t\u0061\ud83d\ude00":18446744073709551615,"x":{"y":{"z":[[],{},[false]]}}}"#,
        "-123.456e+7",
        r#""text \"quoted\"""#,
    ];
    let mut state = 42;
    let mut rows = Rows::new();
    let (mut good, mut bad) = (0, 0);
    for round in 0..100_000usize {
        let mut payload = seeds[round % seeds.len()].as_bytes().to_vec();
        for _ in 0..1 + next(&mut state) % 4 {
            let at = next(&mut state) as usize % payload.len().max(1);
            match next(&mut state) % 4 {
                0 if !payload.is_empty() => payload[at] ^= 1 << (next(&mut state) % 8),
                1 if !payload.is_empty() => drop(payload.remove(at)),
                2 => payload.insert(at, br#"{}[]",:\0e-u"#[next(&mut state) as usize % 12]),
                _ => payload.truncate(at),
            }
        }
        match decode(TOPIC, &payload, NOW, &mut rows) {
            Ok(decoded) => {
                assert_eq!(decoded.readings, rows.len());
                good += 1;
            }
            Err(_) => {
                assert!(rows.is_empty());
                bad += 1;
            }
        }
    }
    assert!(good > 1_000 && bad > 10_000, "{good} good, {bad} bad");
}

proptest! {
    #[test]
    fn every_double_printed_comes_back_to_the_bit(bits in any::<u64>(), short in any::<bool>()) {
        let value = f64::from_bits(bits);
        prop_assume!(value.is_finite());
        let text = if short { format!("{value:?}") } else { format!("{value:.17e}") };
        let mut rows = Rows::new();
        for payload in [text.clone(), format!("{{\"value\":{text}}}")] {
            decode(TOPIC, payload.as_bytes(), NOW, &mut rows).unwrap();
            let reading = rows.iter().next().unwrap();
            prop_assert!(
                matches!(reading.value, Value::F64(x) if x.to_bits() == bits),
                "{payload}: {:?}", reading.value
            );
        }
    }

    #[test]
    fn every_integer_printed_comes_back(value in any::<i64>()) {
        let mut rows = Rows::new();
        decode(TOPIC, format!("{{\"a\":{value}}}").as_bytes(), NOW, &mut rows).unwrap();
        prop_assert_eq!(rows.iter().next().unwrap().value, Value::I64(value));
    }

    #[test]
    fn every_text_quoted_comes_back(text in "[^\0]{0,40}") {
        let mut rows = Rows::new();
        let payload = serde_json::to_vec(&serde_json::json!({ "a": text })).unwrap();
        decode(TOPIC, &payload, NOW, &mut rows).unwrap();
        prop_assert_eq!(rows.iter().next().unwrap().value, Value::Str(&text));
    }

    #[test]
    fn it_accepts_the_json_that_serde_accepts(text in r#"[\[{]["a-c0-9\[\]{}:,.e\\ -]{0,16}"#) {
        // What we take, serde takes; the liberties (NaN and the like) are not in this alphabet,
        // and neither are the limits (depth, names, doubled members) that only we have.
        let mut rows = Rows::new();
        let ours = decode(TOPIC, text.as_bytes(), NOW, &mut rows);
        let theirs = serde_json::from_str::<serde_json::Value>(&text);
        match &ours {
            Ok(_) => prop_assert!(theirs.is_ok(), "{text}"),
            Err(DeadLetter::Json { .. }) => prop_assert!(theirs.is_err(), "{text}"),
            Err(_) => {}
        }
    }
}
