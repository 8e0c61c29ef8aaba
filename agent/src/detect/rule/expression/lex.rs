//! The signs of an expression, each with the place where it stands; and how they are written.

use crate::limits::{EXPRESSION_BYTES_MAX, RULE_SPAN_S_MAX};
use std::fmt::Write;

/// One sign.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Sign {
    Number(f64),
    /// Microseconds: `60s`.
    Span(i64),
    /// What may be a metric or a function.
    Name(Box<str>),
    /// A metric whatever is in its name: `'motor/current'`.
    Quoted(Box<str>),
    /// An operator, a bracket, a comma, or a word that is one of these.
    Fixed(&'static str),
    End,
}

/// A sign and the character, from 1, at which it stands.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Token {
    pub sign: Sign,
    pub at: usize,
}

/// Longer ones first.
const FIXED: [&str; 17] = [
    "&&", "||", "<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "%", "!", "(", ")", ",",
];
/// Words that are signs, and the signs that they are.
const WORDS: [(&str, &str); 5] = [
    ("and", "&&"),
    ("or", "||"),
    ("not", "!"),
    ("true", "true"),
    ("false", "false"),
];
/// Signs of other languages, and what they are here.
const STRANGE: [(&str, &str); 4] = [("=>", ">="), ("=<", "<="), ("<>", "!="), ("===", "==")];
/// What other languages call what is no number, or none that ends.
const NO_NUMBERS: [&str; 3] = ["nan", "inf", "infinity"];
/// Units of spans, in microseconds; the longest that fits is written.
const UNITS: [(&str, i64); 4] = [
    ("h", 3_600_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
];

/// Says what is wrong and where.
pub(super) fn wrong(at: usize, what: impl std::fmt::Display) -> String {
    format!("is wrong at character {at}: {what}")
}

/// The signs of a text, the last one being its end.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!(
            "has {} bytes; at most {EXPRESSION_BYTES_MAX}",
            text.len()
        ));
    }
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let at = 1 + text.chars().count() - rest.chars().count();
        if rest.is_empty() {
            let sign = Sign::End;
            tokens.push(Token { sign, at });
            return Ok(tokens);
        }
        let (sign, length) = sign(rest).map_err(|what| wrong(at, what))?;
        tokens.push(Token { sign, at });
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// The sign at the beginning of `text`, and its bytes.
fn sign(text: &str) -> Result<(Sign, usize), String> {
    if let Some((strange, meant)) = STRANGE.iter().find(|(sign, _)| text.starts_with(sign)) {
        return Err(format!(
            "`{strange}` means nothing here; did you mean `{meant}`?"
        ));
    }
    let fixed = FIXED.into_iter().find(|fixed| text.starts_with(fixed));
    if let Some(fixed) = fixed {
        return Ok((Sign::Fixed(fixed), fixed.len()));
    }
    if text.starts_with('\'') {
        return quoted(text);
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return number(text);
    }
    let length = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    let name = text.get(..length).unwrap_or_default();
    if let Some((_, sign)) = WORDS.iter().find(|(word, _)| *word == name) {
        return Ok((Sign::Fixed(sign), length));
    }
    if NO_NUMBERS
        .iter()
        .any(|word| name.eq_ignore_ascii_case(word))
    {
        return Err(format!(
            "`{name}` is no number, and no reading is ever compared with it: what is none changes \
             nothing; a metric that is called so is written `'{name}'`"
        ));
    }
    match text.chars().next() {
        _ if length > 0 => Ok((Sign::Name(name.into()), length)),
        Some(c @ ('&' | '|' | '=')) => Err(format!("`{c}` alone; did you mean `{c}{c}`?")),
        Some('"') => Err(
            "a text is compared with nothing, expressions are of numbers; and a metric whose name \
             has other characters is written 'like this'"
                .into(),
        ),
        Some(c) => Err(format!("`{}` means nothing here", c.escape_default())),
        None => Err("nothing".into()),
    }
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// `'a name'`; a quotation mark in it is doubled.
fn quoted(text: &str) -> Result<(Sign, usize), String> {
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != '\'' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '\'').is_some() {
            name.push('\'');
        } else {
            return Ok((Sign::Quoted(name.into()), at + 1));
        }
    }
    Err("a name that never ends: its closing `'` is missing".into())
}

/// A number, or a span: a number with a unit.
fn number(text: &str) -> Result<(Sign, usize), String> {
    let digits = |text: &str| {
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len())
    };
    let mut length = digits(text);
    let behind = |length: usize| text.get(length..).unwrap_or_default();
    if let Some(fraction) = behind(length).strip_prefix('.') {
        length += 1 + digits(fraction);
    }
    if let Some(exponent) = behind(length).strip_prefix(['e', 'E']) {
        let unsigned = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let count = digits(unsigned);
        if count > 0 {
            length += 1 + (exponent.len() - unsigned.len()) + count;
        }
    }
    let written = text.get(..length).unwrap_or_default();
    let number: f64 = written
        .parse()
        .map_err(|_| format!("`{written}` is no number"))?;
    if !number.is_finite() {
        return Err(format!("`{written}` is greater than any number"));
    }
    let unit_length = behind(length)
        .find(|c| !is_of_name(c))
        .unwrap_or(behind(length).len());
    let unit = behind(length).get(..unit_length).unwrap_or_default();
    if unit.is_empty() {
        // Without the sign that a zero may have there is none.
        return Ok((Sign::Number(number), length));
    }
    let known = UNITS.iter().find(|(name, _)| *name == unit);
    let (_, us) = known.ok_or_else(|| {
        format!("`{written}{unit}`: no unit of time; expected `ms`, `s`, `m` or `h`")
    })?;
    let span = (number * *us as f64).round();
    match (1_000.0..=RULE_SPAN_S_MAX * 1e6).contains(&span) {
        true => Ok((Sign::Span(span as i64), length + unit_length)),
        false => Err(format!("`{written}{unit}` is not between 1ms and 31 days")),
    }
}

/// The signs as they are kept.
pub(super) fn text(tokens: &[Token]) -> String {
    let mut out = String::new();
    let mut before = &Sign::End;
    for Token { sign, .. } in tokens {
        if has_space(before, sign) {
            out.push(' ');
        }
        push(&mut out, sign);
        before = sign;
    }
    out
}

fn has_space(before: &Sign, sign: &Sign) -> bool {
    let close = matches!(sign, Sign::End | Sign::Fixed(")" | ","));
    let call = matches!((before, sign), (Sign::Name(_), Sign::Fixed("(")));
    let open = matches!(before, Sign::End | Sign::Fixed("(" | "!"));
    !(close || call || open)
}

fn push(out: &mut String, sign: &Sign) {
    match sign {
        Sign::Number(number) => {
            write!(out, "{number:?}").expect("a String takes any text");
        }
        Sign::Span(span) => {
            let whole = UNITS.iter().find(|(_, us)| span % us == 0);
            match whole {
                Some((unit, us)) => write!(out, "{}{unit}", span / us),
                None => write!(out, "{:?}ms", *span as f64 / 1e3),
            }
            .expect("a String takes any text");
        }
        Sign::Name(name) => out.push_str(name),
        Sign::Quoted(name) => {
            out.push('\'');
            out.push_str(&name.replace('\'', "''"));
            out.push('\'');
        }
        Sign::Fixed(fixed) => out.push_str(fixed),
        Sign::End => {}
    }
}
