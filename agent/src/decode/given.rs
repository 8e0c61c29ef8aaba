//! What stands for a whole message beside its payload: that of MQTT 5 user properties which its
//! rule reads. It holds where the payload says nothing.

use super::number::Number;
use super::properties::{Property, Said, UserProperties};
use super::rows::{Rows, Span};
use super::rule::{Rule, TimeUnit, Unit};
use super::{meaning, number, time};
use tributary_protocol::ids::is_name;

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
    /// Properties that say what they can't. Others may have other uses for these names: no message
    /// is given up for them.
    pub unusable: u32,
}

impl Given {
    /// What these properties say, where the rule asks for them.
    pub fn of(rule: &Rule, properties: &UserProperties<'_>, rows: &mut Rows) -> Self {
        let mut given = Self::default();
        if !rule.properties || properties.is_empty() {
            return given;
        }
        for property in Property::ALL {
            let usable = match properties.said(property) {
                Said::Nothing | Said::Text("") => true,
                Said::Text(text) => given.take(rule, property, text, rows).is_some(),
                Said::Twice | Said::TooLong => false,
            };
            given.unusable += u32::from(!usable);
        }
        given
    }

    /// Takes what one says; `None` where it can't be that.
    fn take(&mut self, rule: &Rule, property: Property, text: &str, rows: &mut Rows) -> Option<()> {
        match property {
            Property::Time => self.time = Some(time_of(text, rule.time_unit).ok()?),
            Property::Seq => {
                let seq = text.parse().ok().filter(|seq: &i64| *seq >= 0);
                self.seq = Some(seq?);
            }
            // A unit that is configured stands for all.
            Property::Unit if matches!(rule.pointers.unit, Unit::Fixed(_)) => {}
            Property::Unit => self.unit = is_name(text).then(|| rows.keep(text))?,
            Property::Quality => self.quality = Some(quality_of(text)?),
        }
        Some(())
    }
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
