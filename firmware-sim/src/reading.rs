//! One reading of a simulated device, and the JSON that carries it.
//!
//! The text of a value is made so that whoever parses it gets the very bits that the truth ledger
//! holds. Nothing here knows topics, packets or files.

use crate::fault::Mark;
use serde::Serialize;
use std::fmt;
use std::io::Write as _;
use std::sync::Arc;

/// A measured value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A double; compared by its bits.
    F64(f64),
    /// An integer.
    I64(i64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(Arc<str>),
}

impl PartialEq for Value {
    /// Equal to the bit: `-0.0` differs from `0.0`, and a NaN equals itself.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F64(a), Self::F64(b)) => a.to_bits() == b.to_bits(),
            (Self::I64(a), Self::I64(b)) => a == b,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F64(x) => write!(f, "f64 {x:?} (bits {:016x})", x.to_bits()),
            Self::I64(x) => write!(f, "i64 {x}"),
            Self::Bool(x) => write!(f, "bool {x}"),
            Self::Text(x) => write!(f, "str {x:?}"),
        }
    }
}

/// A stream of readings: what a topic names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// All levels of the topic but the last.
    pub device: String,
    /// The last level of the topic.
    pub metric: String,
    /// The unit, as the payload states it.
    pub unit: Option<String>,
}

impl Series {
    /// The topic that its readings are published to.
    pub fn topic(&self) -> String {
        format!("{}/{}", self.device, self.metric)
    }
}

/// One reading.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The place of its series in the table of the run.
    pub series: u32,
    /// The device's own number for it, from 0.
    pub seq: u64,
    /// When it was measured: microseconds since 1970, UTC.
    pub time_us: i64,
    /// What was measured.
    pub value: Value,
    /// The number as a file wrote it, where that is valid JSON and says the same as `value`.
    pub written: Option<Box<str>>,
    /// What it has to do with a fault, if anything. It is not sent.
    pub fault: Option<Mark>,
}

/// Milliseconds since 1970 from which an integer without a unit cannot be taken for seconds.
const PLAIN_MS_MIN: i64 = 1_000_000_000_000;
/// Milliseconds since 1970 from which such an integer could be taken for microseconds.
const PLAIN_MS_END: i64 = 100_000_000_000_000;

impl Reading {
    /// Appends the payload: `{"value":…,"ts":…,"seq":…,"unit":…}`; without `seq` unless it is to be
    /// numbered.
    ///
    /// The time is an integer of milliseconds, or RFC 3339 where such an integer would lose
    /// microseconds or could be taken for seconds.
    pub fn write_json(&self, unit: Option<&str>, numbered: bool, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"value\":");
        match (&self.written, &self.value) {
            (Some(text), _) => out.extend_from_slice(text.as_bytes()),
            (None, Value::F64(x)) => append(out, format_args!("{x:?}")),
            (None, Value::I64(x)) => append(out, format_args!("{x}")),
            (None, Value::Bool(x)) => append(out, format_args!("{x}")),
            (None, Value::Text(text)) => append_json_text(out, text),
        }
        let ms = self.time_us.div_euclid(1_000);
        if self.time_us.rem_euclid(1_000) == 0 && (PLAIN_MS_MIN..PLAIN_MS_END).contains(&ms) {
            append(out, format_args!(",\"ts\":{ms}"));
        } else {
            append(
                out,
                format_args!(",\"ts\":\"{}\"", crate::replay::time::Rfc3339(self.time_us)),
            );
        }
        if numbered {
            append(out, format_args!(",\"seq\":{}", self.seq));
        }
        if let Some(unit) = unit {
            out.extend_from_slice(b",\"unit\":");
            append_json_text(out, unit);
        }
        out.push(b'}');
    }
}

fn append(out: &mut Vec<u8>, text: fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("a Vec takes whatever is written to it");
}

fn append_json_text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(&mut *out, text).expect("a text is always JSON, and a Vec takes it");
}

/// What the pipeline promises to make of a JSON number: an integer where there is neither a point
/// nor an exponent and it fits (but `-0` is a double), else the nearest double. An integer that
/// neither holds exactly stays the text of its digits. `None` when it is beyond a double.
pub fn parse_json_number(text: &str) -> Option<Value> {
    let is_integer = !text.contains(['.', 'e', 'E']) && text != "-0";
    if is_integer && let Ok(whole) = text.parse::<i64>() {
        return Some(Value::I64(whole));
    }
    let nearest = text.parse::<f64>().ok().filter(|x| x.is_finite())?;
    // Without exponent a double prints as its exact decimal expansion.
    if is_integer && format!("{nearest:.0}") != text {
        return Some(Value::Text(text.into()));
    }
    Some(Value::F64(nearest))
}

/// Counts of a run, as its summary and its JSON show them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Readings put on the wire, each counted once however often it was sent.
    pub published: u64,
    /// Readings whose PUBACK came.
    pub acknowledged: u64,
    /// Readings that the server answered with an MQTT 5 error: it did not take them.
    pub refused: u64,
    /// Packets sent again after a connection was lost.
    pub resent: u64,
    /// Connections opened after the first of each client.
    pub reconnects: u64,
    /// Faults that began in what was published.
    pub faults: u64,
    /// Times a device was due and had no room for one more reading: it measured nothing.
    pub late_ticks: u64,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(value: Value, time_us: i64) -> String {
        let reading = Reading {
            series: 0,
            seq: 17,
            time_us,
            value,
            written: None,
            fault: None,
        };
        let mut out = Vec::new();
        reading.write_json(Some("°C"), true, &mut out);
        String::from_utf8(out).unwrap()
    }

    /// The text of the value within the payload.
    fn number_of(payload: &str) -> &str {
        payload
            .strip_prefix("{\"value\":")
            .unwrap()
            .split(",\"ts\"")
            .next()
            .unwrap()
    }

    #[test]
    fn the_payload_reads_as_the_default_decoding_wants_it() {
        let text = json(Value::F64(21.37), 1_700_000_000_123_000);
        assert_eq!(
            text,
            r#"{"value":21.37,"ts":1700000000123,"seq":17,"unit":"°C"}"#
        );
    }

    #[test]
    fn a_whole_double_stays_a_double_and_an_odd_time_stays_whole() {
        let text = json(Value::F64(21.0), 1_700_000_000_123_456);
        assert!(
            text.starts_with(r#"{"value":21.0,"ts":"2023-11-14T22:13:20.123456Z","#),
            "{text}"
        );
        assert!(json(Value::I64(1), 5_000_000).contains(r#""ts":"1970-01-01T00:00:05Z""#));
    }

    #[test]
    fn numbers_follow_the_rule_of_the_point() {
        assert_eq!(parse_json_number("426"), Some(Value::I64(426)));
        assert_eq!(parse_json_number("426.0"), Some(Value::F64(426.0)));
        assert_eq!(parse_json_number("4e2"), Some(Value::F64(400.0)));
        assert_eq!(
            parse_json_number("9223372036854775808"),
            Some(Value::F64(2f64.powi(63)))
        );
        assert_eq!(parse_json_number("1e999"), None);
        assert_eq!(
            parse_json_number("9223372036854775809")
                .unwrap()
                .to_string(),
            r#"str "9223372036854775809""#
        );
        assert_eq!(parse_json_number("-0"), Some(Value::F64(-0.0)));
        assert_eq!(parse_json_number("pump"), None);
    }

    proptest! {
        #[test]
        fn every_finite_double_comes_back_to_the_bit(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = json(Value::F64(value), 1_700_000_000_000_000);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            prop_assert_eq!(parse_json_number(number_of(&text)), Some(Value::F64(value)));
        }

        #[test]
        fn every_integer_and_time_comes_back(
            value in any::<i64>(),
            time in 1_000_000_000_000i64..4_000_000_000_000,
            seq in any::<u64>(),
        ) {
            let reading = Reading {
                series: 0, seq, time_us: time * 1_000, value: Value::I64(value), written: None,
                fault: None,
            };
            let mut out = Vec::new();
            reading.write_json(None, true, &mut out);
            let back: serde_json::Value = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(back["value"].as_i64(), Some(value));
            prop_assert_eq!(back["ts"].as_i64(), Some(time));
            prop_assert_eq!(back["seq"].as_u64(), Some(seq));
        }

        #[test]
        fn every_text_comes_back(text in any::<String>()) {
            let out = json(Value::Text(text.as_str().into()), 0);
            let back: serde_json::Value = serde_json::from_str(&out).unwrap();
            prop_assert_eq!(back["value"].as_str(), Some(text.as_str()));
        }
    }
}
