//! What an alert says: a text with places like `{value}` in it, filled in within a bound.

use super::Severity;
use crate::limits::{ALERT_TEXT_BYTES_MAX, RULE_MESSAGE_BYTES_MAX};
use tributary_settings::nearest;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Field {
    Rule,
    Severity,
    Device,
    Metric,
    Value,
    Unit,
    Measured,
    Limit,
    Duration,
}

const FIELDS: [(&str, Field); 9] = [
    ("rule", Field::Rule),
    ("severity", Field::Severity),
    ("device", Field::Device),
    ("metric", Field::Metric),
    ("value", Field::Value),
    ("unit", Field::Unit),
    ("measured", Field::Measured),
    ("limit", Field::Limit),
    ("duration", Field::Duration),
];

#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece {
    Text(Box<str>),
    Field(Field),
}

/// What is filled in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub rule: &'a str,
    pub severity: Severity,
    pub device: &'a str,
    pub metric: &'a str,
    pub unit: &'a str,
    pub value: Option<f64>,
    pub measured: Option<f64>,
    pub limit: Option<f64>,
    /// Seconds.
    pub duration: Option<f64>,
}

/// A message before anything is filled in. `{{` and `}}` are braces.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Template {
    text: Box<str>,
    pieces: Vec<Piece>,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() || text.len() > RULE_MESSAGE_BYTES_MAX {
            return Err(format!(
                "has {} bytes; expected a text of 1 to {RULE_MESSAGE_BYTES_MAX}",
                text.len()
            ));
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, behind) = rest.split_at(at);
            plain.push_str(before);
            let doubled = ["{{", "}}"].into_iter().find(|two| behind.starts_with(two));
            if let Some(two) = doubled {
                plain.push_str(behind.get(..1).unwrap_or_default());
                rest = behind.strip_prefix(two).unwrap_or_default();
                continue;
            }
            let named = behind
                .strip_prefix('{')
                .and_then(|rest| rest.split_once('}'));
            let (name, behind) = named.ok_or_else(|| {
                let column = 1 + text.chars().count() - behind.chars().count();
                format!(
                    "has at character {column} a brace without its other half; a brace itself is \
                     `{{{{` or `}}}}`"
                )
            })?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Field(field(name)?));
            rest = behind;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Self {
            text: text.into(),
            pieces,
        })
    }

    /// The template as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The message; a unit that nobody said takes the space before it along.
    pub fn fill(&self, facts: &Facts<'_>) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(Field::Rule) => out.push_str(facts.rule),
                Piece::Field(Field::Severity) => out.push_str(facts.severity.name()),
                Piece::Field(Field::Device) => out.push_str(facts.device),
                Piece::Field(Field::Metric) => out.push_str(facts.metric),
                Piece::Field(Field::Unit) if facts.unit.is_empty() => {
                    let kept = out.strip_suffix(' ').unwrap_or(&out).len();
                    out.truncate(kept);
                }
                Piece::Field(Field::Unit) => out.push_str(facts.unit),
                Piece::Field(Field::Value) => push_number(&mut out, facts.value),
                Piece::Field(Field::Measured) => push_number(&mut out, facts.measured),
                Piece::Field(Field::Limit) => push_number(&mut out, facts.limit),
                Piece::Field(Field::Duration) => push_number(&mut out, facts.duration),
            }
            if out.len() > ALERT_TEXT_BYTES_MAX {
                out.truncate(out.floor_char_boundary(ALERT_TEXT_BYTES_MAX));
                break;
            }
        }
        out
    }
}

fn field(name: &str) -> Result<Field, String> {
    let found = FIELDS.iter().find(|(known, _)| *known == name);
    found.map(|(_, field)| *field).ok_or_else(|| {
        let names = FIELDS.map(|(name, _)| name);
        match nearest(name, &names) {
            Some(near) => format!("names `{{{name}}}`; did you mean `{{{near}}}`?"),
            None => format!("names `{{{name}}}`; known are {}", names.join(", ")),
        }
    })
}

/// A number as people read it: six digits that count.
fn push_number(out: &mut String, number: Option<f64>) {
    let Some(number) = number else {
        out.push_str("nothing");
        return;
    };
    let size = number.abs();
    if number == 0.0 || !number.is_finite() {
        out.push_str(if number == 0.0 { "0" } else { "nothing" });
    } else if (1e-4..1e15).contains(&size) {
        let digits = (5.0 - size.log10().floor()).clamp(0.0, 9.0) as usize;
        let text = format!("{number:.digits$}");
        match text.contains('.') {
            true => out.push_str(text.trim_end_matches('0').trim_end_matches('.')),
            false => out.push_str(&text),
        }
    } else {
        out.push_str(&format!("{number:e}"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fill(text: &str, unit: &str, value: f64) -> String {
        Template::parse(text).unwrap().fill(&Facts {
            rule: "too hot",
            severity: Severity::Critical,
            device: "p7",
            metric: "t",
            unit,
            value: Some(value),
            measured: Some(value),
            limit: Some(80.0),
            duration: None,
        })
    }

    #[test]
    fn places_are_filled_in_and_numbers_read_well() {
        let text = "{device} {metric} is {value} {unit}, over {limit} {unit} ({severity})";
        assert_eq!(
            fill(text, "°C", 81.25),
            "p7 t is 81.25 °C, over 80 °C (critical)"
        );
        assert_eq!(fill(text, "", 81.25), "p7 t is 81.25, over 80 (critical)");
        assert_eq!(fill("{{{rule}}} {duration}", "", 0.0), "{too hot} nothing");
        for (number, shown) in [
            (0.1 + 0.2, "0.3"),
            (1_234_567.8, "1234568"),
            (-0.000_123_456_7, "-0.000123457"),
            (1e-7, "1e-7"),
            (1e300, "1e300"),
            (1e14, "100000000000000"),
            (-0.0, "0"),
            (999_999.96, "1000000"),
        ] {
            assert_eq!(fill("{value}", "", number), shown, "{number:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_and_a_text_has_a_bound() {
        let wrong = |text: &str| Template::parse(text).unwrap_err();
        assert_eq!(
            wrong("{devise}"),
            "names `{devise}`; did you mean `{device}`?"
        );
        assert!(wrong("{colour}").contains("known are rule, severity"));
        assert!(wrong("ä {device").starts_with("has at character 3 a brace"));
        assert!(wrong("a } b").starts_with("has at character 3 a brace"));
        assert!(wrong("  ").contains("1 to 1024"));
        assert!(wrong(&"x".repeat(2_000)).contains("has 2000 bytes"));
        let long = fill(&"{unit}".repeat(100), &"ü".repeat(100), 1.0);
        assert_eq!(long.len(), ALERT_TEXT_BYTES_MAX);
    }
}
