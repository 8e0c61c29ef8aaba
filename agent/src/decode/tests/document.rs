//! `docs/decode.md` is true: every example is parsed and run, and every key is there.

use super::super::{Incoming, Rules};
use super::NOW;
use crate::civil::rfc3339;
use crate::decode::{Reading, Rows, UserProperties};
use tributary_protocol::reading::{Flags, Value};

const DOCUMENT: &str = include_str!("../../../../docs/decode.md");

/// The blocks of code, with what they are.
fn blocks() -> Vec<(&'static str, &'static str)> {
    let mut pieces = DOCUMENT.split("```");
    pieces.next();
    let mut blocks = Vec::new();
    while let Some(block) = pieces.next() {
        blocks.push(block.split_once('\n').unwrap());
        pieces.next();
    }
    blocks
}

fn payload(text: &str) -> Vec<u8> {
    match text.strip_prefix("bytes ") {
        Some(hex) => hex
            .split(' ')
            .map(|byte| u8::from_str_radix(byte, 16).unwrap())
            .collect(),
        None => text.as_bytes().to_vec(),
    }
}

fn line(reading: &Reading<'_>) -> String {
    let value = match reading.value {
        Value::F64(x) => format!("{x:?}"),
        Value::I64(x) => x.to_string(),
        Value::Bool(x) => x.to_string(),
        Value::Str(x) => format!("{x:?}"),
        Value::F32(_) => panic!("nothing gives one"),
    };
    let mut line = format!("    {} {} = {value}", reading.device, reading.metric);
    if !reading.unit.is_empty() {
        line += &format!(" {}", reading.unit);
    }
    line += &format!(" at {}", rfc3339(reading.meta.event_time));
    if reading.meta.flags.has(Flags::NO_DEVICE_TIME) {
        line += " (of receipt)";
    }
    if let Some(seq) = reading.meta.device_seq {
        line += &format!(", seq {seq}");
    }
    if reading.meta.quality != 0 {
        line += &format!(", quality {}", reading.meta.quality);
    }
    line
}

/// `topic {name=text, …}`: a topic with user properties.
fn run(rules: &Rules, topic: &str, payload: &[u8]) -> String {
    let (topic, said) = topic.split_once(" {").unwrap_or((topic, "}"));
    let mut properties = UserProperties::NONE;
    let pairs = said.trim_end_matches('}').split(", ");
    for (name, text) in pairs.filter_map(|pair| pair.split_once('=')) {
        properties.take(name, text);
    }
    let mut rows = Rows::new();
    let incoming = Incoming {
        topic,
        payload,
        properties,
        received_time: NOW,
    };
    match rules.decode(&incoming, &mut rows) {
        Ok(_) => rows.iter().map(|reading| line(&reading) + "\n").collect(),
        Err(dead) => format!("    dead letter `{}`: {dead}\n", dead.reason()),
    }
}

#[test]
fn every_example_gives_what_stands_there() {
    let mut rules = Rules::builtin();
    let mut examples = 0;
    for (kind, text) in blocks() {
        match kind {
            "toml" => {
                rules = Rules::parse(text).unwrap_or_else(|wrong| panic!("{wrong:?} in {text}"));
            }
            "readings" => {
                let mut given = String::new();
                for message in text.lines().filter(|line| !line.starts_with(' ')) {
                    let (topic, text) = message.split_once(" <- ").unwrap();
                    given += &format!("{message}\n{}", run(&rules, topic, &payload(text)));
                    examples += 1;
                }
                assert_eq!(given, text);
            }
            other => assert_eq!(other, "sh", "a block that no test runs"),
        }
    }
    assert!(examples >= 15, "{examples}");
}

#[test]
fn every_key_is_in_the_table_and_no_other() {
    let keys = DOCUMENT
        .split("### Keys")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .nth(1)
        .unwrap();
    let row = |line: &'static str| {
        line.strip_prefix("| `")?
            .split_once('`')
            .map(|(key, _)| key)
    };
    let mut documented: Vec<&str> = keys.lines().filter_map(row).collect();
    let wrong = Rules::parse("[[decode]]\ntopic = \"#\"\nno_such_key_at_all = 1\n").unwrap_err();
    let said = wrong[0].to_string();
    let known = said.split("known are ").nth(1).unwrap();
    let mut known: Vec<&str> = known.split(", ").collect();
    documented.sort_unstable();
    known.sort_unstable();
    assert_eq!(documented, known);
}

#[test]
fn every_reason_is_in_the_table() {
    let table = DOCUMENT
        .split("| reason | |")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    for reason in [
        "empty",
        "not_utf8",
        "json",
        "number",
        "too_many_readings",
        "name",
        "text",
        "twice",
        "time",
        "quality",
        "unit",
        "form",
        "missing",
        "nested",
        "type",
        "waveform",
        "configuration",
        "too_large",
        "series",
        "seal",
        "record",
    ] {
        assert!(table.contains(&format!("`{reason}`")), "{reason}");
    }
}
