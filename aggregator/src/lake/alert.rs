//! An alert as its reading in the lane `alerts` tells it: JSON of schema 1
//! (`docs/alert.schema.json`). Pure, and total on any text: what is no such alert is told apart,
//! and stops nothing.

use chrono::DateTime;
use serde::Deserialize;
use std::borrow::Cow;
use tributary_protocol::reading::Value;

/// The schema that is read.
pub(super) const SCHEMA: u64 = 1;

/// What an alert says. Words (states, kinds, parts) are not judged: one that a later agent uses
/// stands as it came.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Alert {
    /// 32 hexadecimal digits: the same for every copy, wherever it is published.
    pub id: String,
    /// `raised` or `cleared`.
    pub state: String,
    /// `event`, `state`, `rule` or `summary`.
    pub kind: String,
    /// The unit of `value`.
    pub unit: Option<String>,
    /// What raised it.
    pub detector: String,
    /// Which part of that.
    pub part: Option<String>,
    /// The settings that held, 16 hexadecimal digits.
    pub revision: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// From 0 to 1.
    pub score: f64,
    /// The value, if there is one.
    pub value: Option<f64>,
    /// When it was detected: microseconds since 1970, UTC.
    pub detection_time: i64,
    /// The window it is about, as its first and last time.
    pub window: Option<(i64, i64)>,
    /// Whether the reading was behind its device's watermark.
    pub late: bool,
    /// A sentence for people.
    pub text: String,
}

/// The JSON as it stands.
#[derive(Deserialize)]
struct Raw {
    schema: u64,
    id: String,
    state: String,
    kind: String,
    #[serde(rename = "device")]
    _device: String,
    #[serde(rename = "metric")]
    _metric: String,
    unit: Option<String>,
    detector: String,
    part: Option<String>,
    revision: String,
    severity: String,
    score: f64,
    value: Option<f64>,
    #[serde(rename = "event_time")]
    _event_time: Time,
    #[serde(rename = "received_time")]
    _received_time: Time,
    detection_time: Time,
    window: Option<Window>,
    late: bool,
    text: String,
}

#[derive(Deserialize)]
struct Window {
    from: Time,
    to: Time,
}

/// Microseconds since 1970, out of RFC 3339.
#[derive(Deserialize)]
#[serde(try_from = "Cow<'_, str>")]
pub(super) struct Time(pub i64);

impl TryFrom<Cow<'_, str>> for Time {
    type Error = chrono::ParseError;

    fn try_from(text: Cow<'_, str>) -> Result<Self, Self::Error> {
        DateTime::parse_from_rfc3339(&text).map(|time| Self(time.timestamp_micros()))
    }
}

impl TryFrom<Raw> for Alert {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        if raw.schema != SCHEMA {
            return Err(format!("schema {}, this build knows {SCHEMA}", raw.schema));
        }
        if !is_hex(&raw.id, 32) || !is_hex(&raw.revision, 16) {
            return Err("`id` or `revision` is no hash".to_owned());
        }
        if !(0.0..=1.0).contains(&raw.score) {
            return Err(format!("`score` is {}: expected 0 to 1", raw.score));
        }
        Ok(Self {
            id: raw.id,
            state: raw.state,
            kind: raw.kind,
            unit: raw.unit,
            detector: raw.detector,
            part: raw.part,
            revision: raw.revision,
            severity: raw.severity,
            score: raw.score,
            value: raw.value,
            detection_time: raw.detection_time.0,
            window: raw.window.map(|window| (window.from.0, window.to.0)),
            late: raw.late,
            text: raw.text,
        })
    }
}

/// Whether a text is so many hexadecimal digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Alert {
    /// Reads the JSON.
    ///
    /// # Errors
    /// What keeps it from being an alert of schema 1, in words.
    pub fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }
}

/// The text of a reading that is one; of another value what it looks like.
pub fn text_of(value: Value<'_>) -> Cow<'_, str> {
    match value {
        Value::Str(text) => Cow::Borrowed(text),
        Value::F64(x) => Cow::Owned(x.to_string()),
        Value::F32(x) => Cow::Owned(x.to_string()),
        Value::I64(x) => Cow::Owned(x.to_string()),
        Value::Bool(x) => Cow::Owned(x.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    const GOLDEN: &str = include_str!("../../../protocol/tests/data/alert.json");

    /// The golden alert with one member replaced, or without it.
    fn spoiled(member: &str, value: Option<Json>) -> String {
        let mut alert: Json = serde_json::from_str(GOLDEN).unwrap();
        let members = alert.as_object_mut().unwrap();
        match value {
            Some(value) => members.insert(member.to_owned(), value),
            None => members.remove(member),
        };
        alert.to_string()
    }

    #[test]
    fn the_golden_alert_is_read() {
        let alert = Alert::parse(GOLDEN).unwrap();
        assert_eq!(alert.id, "5f0c6a1e9b3d47288ac1d2e3f4051627");
        assert_eq!((alert.part.as_deref(), alert.score), (Some("value"), 0.83));
        assert_eq!((alert.value, alert.late), (Some(27.5), false));
        // 2026-11-20T20:00:00.123456Z, and 4,544 µs later.
        assert_eq!(alert.detection_time, 1_795_204_800_128_000);
        let window = Some((1_795_204_799_000_000, 1_795_204_800_000_000));
        assert_eq!(alert.window, window);
        assert_eq!(alert.unit.as_deref(), Some("°C"));
    }

    #[test]
    fn what_is_missing_wrong_or_of_another_schema_is_no_alert() {
        let wrong = [
            ("schema", json!(2)),
            ("schema", json!("1")),
            ("id", json!("5f0c")),
            ("id", json!("zz0c6a1e9b3d47288ac1d2e3f4051627")),
            ("revision", json!("")),
            ("score", json!(1.5)),
            ("score", Json::Null),
            ("value", json!("27.5")),
            ("detection_time", json!("yesterday")),
            ("detection_time", json!(1_795_204_800)),
            ("window", json!({ "from": "2026-11-20T19:59:59Z" })),
            ("late", json!(0)),
        ];
        for (member, value) in wrong {
            let text = spoiled(member, Some(value));
            assert!(Alert::parse(&text).is_err(), "{text}");
        }
        for member in [
            "schema",
            "id",
            "state",
            "device",
            "event_time",
            "text",
            "late",
        ] {
            assert!(Alert::parse(&spoiled(member, None)).is_err(), "{member}");
        }
        for text in ["", "7", "null", "[]", "{}", "plain words", &GOLDEN[..99]] {
            assert!(Alert::parse(text).is_err(), "{text}");
        }
        assert!(Alert::parse(&format!("{GOLDEN} and more")).is_err());
    }

    #[test]
    fn numbers_are_read_to_the_last_bit() {
        for digits in [
            "0.9203942634335728",
            "0.9204854026356564",
            "0.9146500810118644",
        ] {
            let text = GOLDEN.replace("0.83", digits);
            let score = Alert::parse(&text).unwrap().score;
            assert_eq!(score.to_string(), digits);
        }
    }

    #[test]
    fn what_may_be_absent_or_new_is_taken() {
        for member in ["unit", "part", "value", "window", "around"] {
            assert!(Alert::parse(&spoiled(member, None)).is_ok(), "{member}");
            let null = spoiled(member, Some(Json::Null));
            assert!(Alert::parse(&null).is_ok(), "{member}");
        }
        let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
        let deep = serde_json::from_str(&deep).unwrap();
        assert!(Alert::parse(&spoiled("added_later", Some(deep))).is_ok());
        let word = spoiled("state", Some(json!("acknowledged")));
        assert_eq!(Alert::parse(&word).unwrap().state, "acknowledged");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in any::<String>(),
            cut in 0..GOLDEN.len(),
            byte in any::<u8>(),
        ) {
            let _ = Alert::parse(&text);
            let mut bytes = GOLDEN.as_bytes().to_vec();
            bytes[cut] = byte;
            let _ = Alert::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
