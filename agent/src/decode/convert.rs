//! What a rule makes of a value: scale and offset, then a type. Nothing is rounded unsaid.
//!
//! `value * scale + offset`: of an integer, with scale and offset integers too, in integers while
//! the result fits 64 bits; of anything else as doubles, the product and the sum each rounded to
//! the nearest. Scale 1 with offset 0 touches nothing, not a bit. A type is reached exactly or not
//! at all.

use super::number::{self, Number};
use super::rows::{Rows, Scalar, head};

/// The types that a rule may ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A double.
    F64,
    /// An integer.
    I64,
    /// A truth value.
    Bool,
    /// A text.
    Str,
}

impl Kind {
    /// Every type with its name.
    pub(super) const NAMES: [(&str, Self); 4] = [
        ("f64", Self::F64),
        ("i64", Self::I64),
        ("bool", Self::Bool),
        ("str", Self::Str),
    ];

    pub(super) fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(_, kind)| *kind == self);
        named.map_or("", |(name, _)| name)
    }
}

/// What is made of the values of one metric.
#[derive(Clone, PartialEq, Debug)]
pub struct Convert {
    /// The unit, whatever the message says.
    pub unit: Option<Box<str>>,
    /// Factor.
    pub scale: f64,
    /// What is added behind it.
    pub offset: f64,
    /// The type to reach.
    pub kind: Option<Kind>,
}

impl Default for Convert {
    fn default() -> Self {
        Self {
            unit: None,
            scale: 1.0,
            offset: 0.0,
            kind: None,
        }
    }
}

/// Why a value could not be converted: what it was, and what is wrong with that.
#[derive(Debug)]
pub(super) struct Inexact(pub String, pub &'static str);

impl Convert {
    /// The value, converted. Null stays null.
    pub(super) fn apply(&self, value: Scalar, rows: &mut Rows) -> Result<Scalar, Inexact> {
        if value == Scalar::Null {
            return Ok(value);
        }
        let scaled = self.scaled(value, rows)?;
        match self.kind {
            None => Ok(scaled),
            Some(Kind::F64) => to_f64(scaled, rows),
            Some(Kind::I64) => to_i64(scaled, rows),
            Some(Kind::Bool) => to_bool(scaled, rows),
            Some(Kind::Str) => Ok(to_str(scaled, rows)),
        }
    }

    fn scaled(&self, value: Scalar, rows: &Rows) -> Result<Scalar, Inexact> {
        if self.scale == 1.0 && self.offset == 0.0 {
            return Ok(value);
        }
        match number_of(value, rows) {
            Some(Scalar::I64(x)) => Ok(self.scaled_integer(x)),
            Some(Scalar::F64(x)) => {
                let scaled = x * self.scale + self.offset;
                match scaled.is_finite() || !x.is_finite() {
                    true => Ok(Scalar::F64(scaled)),
                    false => Err(Inexact(format!("{x:?}"), "is beyond f64 once it is scaled")),
                }
            }
            _ => Err(Inexact(shown(value, rows), "is no number to be scaled")),
        }
    }

    fn scaled_integer(&self, x: i64) -> Scalar {
        let exact = integer(self.scale).zip(integer(self.offset));
        let exact = exact.and_then(|(scale, offset)| x.checked_mul(scale)?.checked_add(offset));
        exact.map_or(
            Scalar::F64(x as f64 * self.scale + self.offset),
            Scalar::I64,
        )
    }
}

/// The integer that a setting is.
fn integer(setting: f64) -> Option<i64> {
    (setting.fract() == 0.0 && setting.abs() <= 9_007_199_254_740_992.0).then_some(setting as i64)
}

/// The number that a scalar is, also one that stands as a text.
fn number_of(value: Scalar, rows: &Rows) -> Option<Scalar> {
    match value {
        Scalar::I64(_) | Scalar::F64(_) => Some(value),
        Scalar::Str(span) => match number::bare(rows.text(span).trim_ascii())? {
            Number::I64(x) => Some(Scalar::I64(x)),
            Number::F64(x) => Some(Scalar::F64(x)),
            Number::Digits | Number::TooLarge => None,
        },
        Scalar::Null | Scalar::Bool(_) => None,
    }
}

fn to_f64(value: Scalar, rows: &Rows) -> Result<Scalar, Inexact> {
    match number_of(value, rows) {
        Some(Scalar::F64(x)) => Ok(Scalar::F64(x)),
        // Back and forth, and not through i64::MAX, which a double rounds up to.
        Some(Scalar::I64(x)) if x as f64 as i128 == i128::from(x) => Ok(Scalar::F64(x as f64)),
        Some(Scalar::I64(x)) => Err(Inexact(x.to_string(), "has more digits than an f64 holds")),
        _ => match value {
            Scalar::Bool(x) => Ok(Scalar::F64(f64::from(u8::from(x)))),
            _ => Err(Inexact(
                shown(value, rows),
                "is no number that an f64 holds exactly",
            )),
        },
    }
}

fn to_i64(value: Scalar, rows: &Rows) -> Result<Scalar, Inexact> {
    // Exact as a double; i64::MAX is not.
    const END: f64 = 9_223_372_036_854_775_808.0;
    match number_of(value, rows) {
        Some(Scalar::I64(x)) => Ok(Scalar::I64(x)),
        Some(Scalar::F64(x)) if x.fract() == 0.0 && (-END..END).contains(&x) => {
            Ok(Scalar::I64(x as i64))
        }
        Some(Scalar::F64(x)) => Err(Inexact(format!("{x:?}"), "is no integer of 64 bits")),
        _ => match value {
            Scalar::Bool(x) => Ok(Scalar::I64(i64::from(x))),
            _ => Err(Inexact(shown(value, rows), "is no integer of 64 bits")),
        },
    }
}

fn to_bool(value: Scalar, rows: &Rows) -> Result<Scalar, Inexact> {
    const WORDS: [(&str, bool); 4] = [
        ("true", true),
        ("false", false),
        ("on", true),
        ("off", false),
    ];
    if let Scalar::Bool(_) = value {
        return Ok(value);
    }
    match number_of(value, rows) {
        Some(Scalar::I64(0)) => return Ok(Scalar::Bool(false)),
        Some(Scalar::I64(1)) => return Ok(Scalar::Bool(true)),
        Some(Scalar::F64(0.0)) => return Ok(Scalar::Bool(false)),
        Some(Scalar::F64(1.0)) => return Ok(Scalar::Bool(true)),
        _ => {}
    }
    if let Scalar::Str(span) = value {
        let text = rows.text(span).trim_ascii();
        let known = WORDS
            .iter()
            .find(|(word, _)| text.eq_ignore_ascii_case(word));
        if let Some((_, truth)) = known {
            return Ok(Scalar::Bool(*truth));
        }
    }
    Err(Inexact(
        shown(value, rows),
        "is none of true, false, on, off, 1 and 0",
    ))
}

/// Numbers print so that reading them gives the same number.
fn to_str(value: Scalar, rows: &mut Rows) -> Scalar {
    use std::fmt::Write;
    let write = |out: &mut String| match value {
        Scalar::I64(x) => write!(out, "{x}"),
        Scalar::F64(x) => write!(out, "{x:?}"),
        Scalar::Bool(x) => write!(out, "{x}"),
        Scalar::Null | Scalar::Str(_) => Ok(()),
    };
    match value {
        Scalar::Null | Scalar::Str(_) => value,
        _ => rows.keep_with(write).map_or(value, Scalar::Str),
    }
}

/// A value for people.
fn shown(value: Scalar, rows: &Rows) -> String {
    match value {
        Scalar::Null => "null".into(),
        Scalar::Bool(x) => x.to_string(),
        Scalar::I64(x) => x.to_string(),
        Scalar::F64(x) => format!("{x:?}"),
        Scalar::Str(span) => head(rows.text(span)),
    }
}

/// What is made of each metric's values.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Converts {
    /// Of all that are not named.
    pub(super) others: Convert,
    /// By metric, ascending.
    pub(super) named: Vec<(Box<str>, Convert)>,
}

impl Converts {
    /// Whether values stay as they come, whatever the metric.
    pub(super) fn is_nothing(&self) -> bool {
        self.named.is_empty() && self.others == Convert::default()
    }

    /// What is made of this metric's values.
    pub(super) fn of(&self, metric: &str) -> &Convert {
        let place = self
            .named
            .binary_search_by(|(name, _)| (**name).cmp(metric));
        let named = place.ok().and_then(|place| self.named.get(place));
        named.map_or(&self.others, |(_, convert)| convert)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn convert(scale: f64, offset: f64, kind: Option<Kind>) -> Convert {
        Convert {
            unit: None,
            scale,
            offset,
            kind,
        }
    }

    fn text(text: &str, rows: &mut Rows) -> Scalar {
        Scalar::Str(rows.keep(text))
    }

    #[test]
    fn integers_stay_integers_while_scale_and_offset_are() {
        let rows = &mut Rows::new();
        let of = |scale, offset, x, rows: &mut Rows| {
            convert(scale, offset, None)
                .apply(Scalar::I64(x), rows)
                .unwrap()
        };
        assert_eq!(of(10.0, -3.0, 7, rows), Scalar::I64(67));
        assert_eq!(of(1.0, 5.0, i64::MAX - 5, rows), Scalar::I64(i64::MAX));
        assert_eq!(of(0.1, 0.0, 7, rows), Scalar::F64(7.0 * 0.1));
        assert_eq!(of(1.0, 0.5, 7, rows), Scalar::F64(7.5));
        // Beyond 64 bits it is a double, as if it had come as one.
        assert_eq!(
            of(2.0, 0.0, i64::MAX, rows),
            Scalar::F64(i64::MAX as f64 * 2.0)
        );
        let nothing = convert(1.0, 0.0, None);
        for bits in [0x8000_0000_0000_0000, 0x7ff8_0000_dead_beef, 1] {
            let value = Scalar::F64(f64::from_bits(bits));
            let Scalar::F64(same) = nothing.apply(value, rows).unwrap() else {
                panic!()
            };
            assert_eq!(same.to_bits(), bits);
        }
    }

    #[test]
    fn what_cannot_be_scaled_or_converted_exactly_says_why() {
        let rows = &mut Rows::new();
        let (two53, word) = (Scalar::I64((1 << 53) + 1), text("warm", rows));
        let scaled = convert(2.0, 0.0, None);
        for (value, rule, why) in [
            (
                Scalar::Bool(true),
                &scaled,
                "true is no number to be scaled",
            ),
            (word, &scaled, "warm is no number to be scaled"),
            (Scalar::F64(1e308), &scaled, "1e308 is beyond f64"),
            (
                two53,
                &convert(1.0, 0.0, Some(Kind::F64)),
                "more digits than an f64 holds",
            ),
            (
                Scalar::I64(i64::MAX),
                &convert(1.0, 0.0, Some(Kind::F64)),
                "more digits",
            ),
            (
                word,
                &convert(1.0, 0.0, Some(Kind::F64)),
                "warm is no number",
            ),
            (
                Scalar::F64(1.5),
                &convert(1.0, 0.0, Some(Kind::I64)),
                "1.5 is no integer",
            ),
            (
                Scalar::F64(f64::NAN),
                &convert(1.0, 0.0, Some(Kind::I64)),
                "NaN is no integer",
            ),
            (
                Scalar::F64(2f64.powi(63)),
                &convert(1.0, 0.0, Some(Kind::I64)),
                "is no integer",
            ),
            (
                Scalar::I64(2),
                &convert(1.0, 0.0, Some(Kind::Bool)),
                "2 is none of true",
            ),
            (
                word,
                &convert(1.0, 0.0, Some(Kind::Bool)),
                "warm is none of true",
            ),
        ] {
            let Inexact(value, reason) = rule.apply(value, rows).unwrap_err();
            let said = format!("{value} {reason}");
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn types_are_reached_exactly() {
        let rows = &mut Rows::new();
        let number = text(" 21.50 ", rows);
        let on = text("ON", rows);
        let of = |kind, value, rows: &mut Rows| convert(1.0, 0.0, Some(kind)).apply(value, rows);
        assert_eq!(of(Kind::F64, number, rows).unwrap(), Scalar::F64(21.5));
        assert_eq!(
            of(Kind::F64, Scalar::I64(-7), rows).unwrap(),
            Scalar::F64(-7.0)
        );
        assert_eq!(
            of(Kind::I64, Scalar::F64(-7.0), rows).unwrap(),
            Scalar::I64(-7)
        );
        assert_eq!(
            of(Kind::I64, Scalar::Bool(true), rows).unwrap(),
            Scalar::I64(1)
        );
        assert_eq!(of(Kind::Bool, on, rows).unwrap(), Scalar::Bool(true));
        assert_eq!(
            of(Kind::Bool, Scalar::F64(0.0), rows).unwrap(),
            Scalar::Bool(false)
        );
        for (value, printed) in [
            (Scalar::I64(-7), "-7"),
            (Scalar::F64(0.1), "0.1"),
            (Scalar::F64(1e300), "1e300"),
            (Scalar::Bool(false), "false"),
        ] {
            let Scalar::Str(span) = of(Kind::Str, value, rows).unwrap() else {
                panic!()
            };
            assert_eq!(rows.text(span), printed);
        }
        // Scaled first: a text in tenths of a degree becomes an integer of millidegrees.
        let tenths = text("215", rows);
        let rule = convert(100.0, 0.0, Some(Kind::I64));
        assert_eq!(rule.apply(tenths, rows).unwrap(), Scalar::I64(21_500));
    }

    proptest! {
        #[test]
        fn a_type_that_is_reached_can_be_left_again(x in any::<i64>(), bits in any::<u64>()) {
            let rows = &mut Rows::new();
            let of = |kind, value, rows: &mut Rows| {
                convert(1.0, 0.0, Some(kind)).apply(value, rows).ok()
            };
            if let Some(double) = of(Kind::F64, Scalar::I64(x), rows) {
                prop_assert_eq!(of(Kind::I64, double, rows), Some(Scalar::I64(x)));
            }
            let double = Scalar::F64(f64::from_bits(bits));
            if let Some(integer) = of(Kind::I64, double, rows) {
                prop_assert_eq!(of(Kind::F64, integer, rows), Some(double));
            }
            let printed = of(Kind::Str, Scalar::I64(x), rows).unwrap();
            prop_assert_eq!(of(Kind::I64, printed, rows), Some(Scalar::I64(x)));
            let finite = f64::from_bits(bits);
            if finite.is_finite() {
                let printed = of(Kind::Str, double, rows).unwrap();
                prop_assert_eq!(of(Kind::F64, printed, rows), Some(double));
            }
        }
    }
}
