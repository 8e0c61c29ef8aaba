//! What stands for a whole message beside its payload: that of MQTT 5 user properties which its
//! rule reads. It holds where the payload says nothing.

use super::message::check_name;
use super::number::Number;
use super::properties::{Property, Said, UserProperties};
use super::rows::{Rows, Span};
use super::rule::{Rule, TimeUnit, Unit};
use super::{DeadLetter, meaning, number, time};

/// What stands beside a payload.
#[derive(Clone, Copy, Default)]
pub(super) struct Given {
    /// When it was measured.
    pub time: Option<i64>,
    /// The device's number.
    pub seq: Option<i64>,
    /// The unit; empty where nothing is said.
    pub unit: Span,
    /// The quality.
    pub quality: Option<i32>,
}

impl Given {
    /// What these properties say, where the rule asks for them.
    ///
    /// # Errors
    /// One that stands there twice, is too long, or says what it can't.
    pub fn of(
        rule: &Rule,
        properties: &UserProperties<'_>,
        rows: &mut Rows,
    ) -> Result<Self, DeadLetter> {
        if !rule.properties || properties.is_empty() {
            return Ok(Self::default());
        }
        let said = |property: Property| match properties.said(property) {
            Said::Nothing | Said::Text("") => Ok(None),
            Said::Text(text) => Ok(Some(text)),
            Said::Twice => Err(DeadLetter::Twice(name(property), "message")),
            Said::TooLong => Err(DeadLetter::Property(property.name())),
        };
        let time = said(Property::Time)?
            .map(|text| time_of(text, rule.time_unit))
            .transpose()
            .map_err(|why| DeadLetter::Time(name(Property::Time), why))?;
        let seq = match said(Property::Seq)?.map(str::parse::<i64>) {
            None => None,
            Some(Ok(seq)) if seq >= 0 => Some(seq),
            Some(_) => return Err(DeadLetter::Seq(name(Property::Seq))),
        };
        let quality = said(Property::Quality)?
            .map(|text| {
                quality_of(text).ok_or_else(|| DeadLetter::Quality(name(Property::Quality)))
            })
            .transpose()?;
        let unit = match said(Property::Unit)? {
            // A unit that is configured stands for all.
            Some(unit) if !matches!(rule.pointers.unit, Unit::Fixed(_)) => {
                check_name("unit", unit)?;
                rows.keep(unit)
            }
            _ => Span::default(),
        };
        Ok(Self {
            time,
            seq,
            unit,
            quality,
        })
    }
}

/// As it stands in an error.
fn name(property: Property) -> String {
    format!("user property {}", property.name())
}

/// A property is a text, whatever it says: a number in it is one.
fn time_of(text: &str, unit: TimeUnit) -> Result<i64, &'static str> {
    match number::bare(text.trim_ascii()) {
        Some(Number::I64(ts)) => time::from_integer(ts, unit),
        Some(Number::F64(ts)) => time::from_float(ts, unit),
        _ => time::from_text(text, unit),
    }
}

fn quality_of(text: &str) -> Option<i32> {
    meaning::quality_word(text).or_else(|| meaning::quality_code(text.parse().ok()?))
}
