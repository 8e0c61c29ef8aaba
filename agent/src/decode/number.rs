//! What a number's text means: the integer or the double it stands for, nothing lost on the way.
//!
//! An integer within i64 is an `i64`. A greater one is an `f64` when that holds it exactly, and
//! otherwise stays the text of its digits: a 64-bit counter or id is never rounded. `-0` and
//! everything with a fraction or exponent is the nearest `f64` (ties to even). What would round
//! to infinity is refused.

/// A number as a value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Number {
    I64(i64),
    F64(f64),
    /// An integer that neither type holds exactly: its digits are kept.
    Digits,
    /// Beyond f64.
    TooLarge,
}

/// The length of the JSON number (RFC 8259, section 6) that `bytes` begins with, and whether it is
/// an integer; `None` when it begins with none.
pub(super) fn scan(bytes: &[u8]) -> Option<(usize, bool)> {
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let digits = |from: usize| {
        bytes.get(from..).map_or(0, |rest| {
            rest.iter().take_while(|b| b.is_ascii_digit()).count()
        })
    };
    let whole = digits(at);
    if whole == 0 || (whole > 1 && bytes.get(at) == Some(&b'0')) {
        return None;
    }
    at += whole;
    let mut integer = true;
    if bytes.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
        integer = false;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
        integer = false;
    }
    Some((at, integer))
}

/// What the text of a scanned number means.
pub(super) fn value(text: &str, integer: bool) -> Number {
    if integer && text != "-0" {
        if let Ok(exact) = text.parse::<i64>() {
            return Number::I64(exact);
        }
        return big_integer(text);
    }
    float(text)
}

fn float(text: &str) -> Number {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Number::F64(value),
        _ => Number::TooLarge,
    }
}

/// An integer beyond i64: exact as a double, or kept as digits.
fn big_integer(text: &str) -> Number {
    let nearest = float(text);
    match nearest {
        // Printing a double without exponent gives its exact decimal expansion.
        Number::F64(value) if format!("{value:.0}") == text => nearest,
        Number::TooLarge => Number::TooLarge,
        _ => Number::Digits,
    }
}

/// A number that stands alone: also the forms that C, Python and spreadsheets print (`+5`, `.5`,
/// `5.`, `nan`, `inf`). `None`: it is no number but a text.
pub(super) fn bare(text: &str) -> Option<Number> {
    if let Some((length, integer)) = scan(text.as_bytes())
        && length == text.len()
    {
        return Some(value(text, integer));
    }
    let special = text.trim_start_matches(['+', '-']);
    let named = ["nan", "inf", "infinity"]
        .iter()
        .any(|name| special.eq_ignore_ascii_case(name));
    let shaped = text
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    match text.parse::<f64>() {
        Ok(value) if named => Some(Number::F64(value)),
        // `007` is a code or an id, not seven.
        Ok(_) if shaped && leading_zero(text) => None,
        Ok(value) if shaped && value.is_finite() => Some(Number::F64(value)),
        Ok(_) if shaped => Some(Number::TooLarge),
        _ => None,
    }
}

fn leading_zero(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']).as_bytes();
    matches!(digits, [b'0', b'0'..=b'9', ..])
}
