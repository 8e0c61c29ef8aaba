//! An aggregate as its reading in the lane `aggregates` tells it: JSON of schema 1
//! (`docs/aggregate.schema.json`). Pure, and total on any text, as [`alert`](super::alert) is.

use super::alert::{SCHEMA, Time, is_hex};
use serde::Deserialize;

/// What an aggregate says. Words (kinds, why it closed) are not judged: one that a later agent uses
/// stands as it came.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Aggregate {
    /// The window's name.
    pub window: String,
    /// `tumbling`, `sliding`, `session` or `count`.
    pub kind: String,
    /// The unit of its values.
    pub unit: Option<String>,
    /// Where the window begins and ends: microseconds since 1970, UTC.
    pub span: (i64, i64),
    /// Readings in it.
    pub count: i64,
    /// Of these values: least, greatest, mean, standard deviation, first and last by event time.
    pub values: [f64; 6],
    /// p50, p95 and p99, where they are known.
    pub quantiles: [Option<f64>; 3],
    /// Whether the series was present through the window, and nothing of it came late.
    pub complete: bool,
    /// Readings of its time that came late.
    pub late: i64,
    /// Whether all its times are trusted.
    pub trusted: bool,
    /// Why it closed.
    pub closed: String,
    /// The settings that held, 16 hexadecimal digits.
    pub revision: String,
}

/// The JSON as it stands.
#[derive(Deserialize)]
struct Raw {
    schema: u64,
    window: String,
    kind: String,
    #[serde(rename = "device")]
    _device: String,
    #[serde(rename = "metric")]
    _metric: String,
    unit: Option<String>,
    from: Time,
    to: Time,
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    std: f64,
    first: f64,
    last: f64,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    complete: bool,
    late: u64,
    trusted: bool,
    closed: String,
    revision: String,
}

impl TryFrom<Raw> for Aggregate {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        if raw.schema != SCHEMA {
            return Err(format!("schema {}, this build knows {SCHEMA}", raw.schema));
        }
        if !is_hex(&raw.revision, 16) {
            return Err("`revision` is no hash".to_owned());
        }
        if raw.to.0 < raw.from.0 {
            return Err("`to` is before `from`".to_owned());
        }
        let number = |name: &str, value: u64| {
            i64::try_from(value).map_err(|_| format!("`{name}` is {value}: too great"))
        };
        Ok(Self {
            window: raw.window,
            kind: raw.kind,
            unit: raw.unit,
            span: (raw.from.0, raw.to.0),
            count: number("count", raw.count)?,
            values: [raw.min, raw.max, raw.mean, raw.std, raw.first, raw.last],
            quantiles: [raw.p50, raw.p95, raw.p99],
            complete: raw.complete,
            late: number("late", raw.late)?,
            trusted: raw.trusted,
            closed: raw.closed,
            revision: raw.revision,
        })
    }
}

impl Aggregate {
    /// Reads the JSON.
    ///
    /// # Errors
    /// What keeps it from being an aggregate of schema 1, in words.
    pub fn parse(json: &str) -> Result<Self, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    const GOLDEN: &str = include_str!("../../../protocol/tests/data/aggregate.json");

    /// The golden aggregate with one member replaced, or without it.
    fn spoiled(member: &str, value: Option<Json>) -> String {
        let mut aggregate: Json = serde_json::from_str(GOLDEN).unwrap();
        let members = aggregate.as_object_mut().unwrap();
        match value {
            Some(value) => members.insert(member.to_owned(), value),
            None => members.remove(member),
        };
        aggregate.to_string()
    }

    #[test]
    fn the_golden_aggregate_is_read_to_the_last_bit() {
        let aggregate = Aggregate::parse(GOLDEN).unwrap();
        let names = (&*aggregate.window, &*aggregate.kind, &*aggregate.closed);
        assert_eq!(names, ("minute", "tumbling", "watermark"));
        // 2026-11-20T20:00:00Z, and a minute later.
        let from = 1_795_204_800_000_000;
        assert_eq!(aggregate.span, (from, from + 60_000_000));
        assert_eq!((aggregate.count, aggregate.late), (600, 2));
        let values = [5.21, 6.125, 5.604583333333334, 0.1403, 5.5, 5.75];
        assert_eq!(aggregate.values, values);
        assert_eq!(aggregate.quantiles, [Some(5.6), Some(5.9), Some(6.0)]);
        assert!(!aggregate.complete && aggregate.trusted);
        assert_eq!(aggregate.unit.as_deref(), Some("l/s"));
    }

    #[test]
    fn what_is_missing_wrong_or_of_another_schema_is_no_aggregate() {
        let wrong = [
            ("schema", json!(2)),
            ("schema", json!("1")),
            ("window", json!(60)),
            ("revision", json!("0123")),
            ("from", json!("yesterday")),
            ("from", json!("2026-11-20T20:02:00Z")),
            ("to", json!(1_795_204_860)),
            ("count", json!(-1)),
            ("count", json!(u64::MAX)),
            ("late", json!(u64::MAX)),
            ("count", json!(1.5)),
            ("mean", json!("5.6")),
            ("std", Json::Null),
            ("p95", json!("5.9")),
            ("complete", json!(0)),
            ("closed", json!(null)),
        ];
        for (member, value) in wrong {
            let text = spoiled(member, Some(value));
            assert!(Aggregate::parse(&text).is_err(), "{text}");
        }
        for member in ["schema", "device", "metric", "count", "late", "trusted"] {
            let text = spoiled(member, None);
            assert!(Aggregate::parse(&text).is_err(), "{member}");
        }
        for text in ["", "7", "null", "[]", "{}", "plain words", &GOLDEN[..99]] {
            assert!(Aggregate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_may_be_absent_or_new_is_taken() {
        for member in ["unit", "p50", "p95", "p99"] {
            assert!(Aggregate::parse(&spoiled(member, None)).is_ok(), "{member}");
            let null = spoiled(member, Some(Json::Null));
            assert!(Aggregate::parse(&null).is_ok(), "{member}");
        }
        assert!(Aggregate::parse(&spoiled("added_later", Some(json!({})))).is_ok());
        let word = spoiled("closed", Some(json!("asked")));
        assert_eq!(Aggregate::parse(&word).unwrap().closed, "asked");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(
            text in any::<String>(),
            cut in 0..GOLDEN.len(),
            byte in any::<u8>(),
        ) {
            let _ = Aggregate::parse(&text);
            let mut bytes = GOLDEN.as_bytes().to_vec();
            bytes[cut] = byte;
            let _ = Aggregate::parse(&String::from_utf8_lossy(&bytes));
        }
    }
}
