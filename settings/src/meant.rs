//! What somebody who wrote a wrong setting meant, as far as that can be told.

use super::{Diagnostic, Place, Setting, Value};
use std::ops::Range;

/// Characters of a value that are shown.
const SHOWN_CHARACTERS_MAX: usize = 64;

/// A value for an error.
pub(super) fn shown(value: &Value) -> String {
    let cut = |text: &str| text.chars().take(SHOWN_CHARACTERS_MAX).collect::<String>();
    match value {
        Value::String(text) => format!("the text \"{}\"", cut(text)),
        Value::Integer(number) => format!("the number {number}"),
        Value::Float(number) if number.is_nan() => "`nan`: no number at all".to_owned(),
        Value::Float(number) if number.is_infinite() => format!("`{number}`: infinite"),
        Value::Float(number) => format!("the number {number:?}"),
        Value::Bool(truth) => format!("`{truth}`"),
        Value::Array(values) => {
            let held: Vec<String> = values
                .iter()
                .take(SHOWN_CHARACTERS_MAX)
                .map(written)
                .collect();
            format!("the list [{}]", cut(&held.join(", ")))
        }
        other => other.kind().to_owned(),
    }
}

/// A value as it is written, roughly.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}\""),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Bool(truth) => truth.to_string(),
        other => other.kind().to_owned(),
    }
}

/// Why a value is not this setting, and how it would be one.
pub(super) fn unread<T: Setting>(name: &str, value: &Value) -> String {
    let said = format!("is {}; expected {}", shown(value), T::EXPECTED);
    let reads = |value: &Value| T::read(value).is_some();
    let Value::String(text) = value else {
        return said;
    };
    let short = text.len() <= SHOWN_CHARACTERS_MAX;
    if reads(&Value::Array(vec![value.clone()])) && short {
        return format!("{said}: write `{name} = [\"{text}\"]`");
    }
    if bare(text).is_some_and(|bare| reads(&bare)) {
        return format!("{said}: write `{name} = {text}`, without quotes");
    }
    match unit(name) {
        Some(unit) if text.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("{said}: a number of {unit}, without quotes and without a unit")
        }
        _ => said,
    }
}

/// What a text would be without its quotes.
fn bare(text: &str) -> Option<Value> {
    let integer = text.parse().ok().map(Value::Integer);
    let float = || text.parse().ok().map(Value::Float);
    let truth = || text.parse().ok().map(Value::Bool);
    integer.or_else(float).or_else(truth)
}

/// In what a setting with this name is measured.
fn unit(name: &str) -> Option<&'static str> {
    let units = [
        ("_ms", "milliseconds"),
        ("_s", "seconds"),
        ("_hours", "hours"),
        ("_hz", "Hz"),
        ("_mm", "millimetres"),
    ];
    let found = units.into_iter().find(|(end, _)| name.ends_with(end));
    found.map(|(_, unit)| unit)
}

/// Begins what is said of a text that is no TOML.
const NOT_TOML: &str = "not TOML: ";

/// Why a text is no TOML: what the parser says, unless that misleads.
pub(super) fn syntax(message: &str, text: &str, span: &Range<usize>) -> String {
    let there = text.get(span.clone()).unwrap_or_default().trim();
    let begin: String = there.chars().take(SHOWN_CHARACTERS_MAX).collect();
    if message.contains("duplicate key") && !begin.is_empty() {
        return format!("{NOT_TOML}`{begin}` is there a second time");
    }
    let no_value = message.contains("invalid float") || message.contains("must be quoted");
    if no_value {
        let word = value_at(text, span.start);
        return format!(
            "{NOT_TOML}`{word}` is no value: a text stands in quotes, \"like this\"; otherwise \
             expected a number, `true` or `false`"
        );
    }
    format!("{NOT_TOML}{}", message.replace('\n', ", "))
}

/// The value of the line in which a place lies.
fn value_at(text: &str, place: usize) -> String {
    let begin = text.get(..place).and_then(|before| before.rfind('\n'));
    let line = text.get(begin.map_or(0, |at| at + 1)..).unwrap_or_default();
    let line = line.lines().next().unwrap_or_default();
    let value = line.split_once('=').map_or(line, |(_, value)| value);
    let value = value.split('#').next().unwrap_or_default().trim();
    value.chars().take(SHOWN_CHARACTERS_MAX).collect()
}

/// Leaves out what is only said because a line is no TOML.
pub(super) fn without_consequences(errors: &mut Vec<Diagnostic>) {
    let is_syntax = |error: &Diagnostic| error.reason.starts_with(NOT_TOML) && error.key.is_empty();
    let lines: Vec<Place> = errors
        .iter()
        .filter(|error| is_syntax(error))
        .map(|error| error.place.clone())
        .collect();
    errors.retain(|error| is_syntax(error) || !lines.contains(&error.place));
}

/// The known name that is nearest, if it is near enough to be meant; before all others one that
/// only has a unit more.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let has_unit = |candidate: &&&str| {
        let rest = candidate.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with('_') && unit(candidate).is_some())
    };
    if let Some(candidate) = known.iter().find(has_unit) {
        return Some(candidate);
    }
    let distances = known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate));
    let near = distances.filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3);
    near.min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours from one to the other (optimal
/// string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut two_back: Vec<usize> = Vec::new();
    let mut back: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let at =
                |row: &[usize], place: usize| row.get(place).copied().unwrap_or(usize::MAX / 2);
            let replace = at(&back, j) + usize::from(from != to);
            let mut best = replace.min(at(&back, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(to) && b.get(j - 1) == Some(from);
            if swapped {
                best = best.min(at(&two_back, j - 1) + 1);
            }
            row.push(best);
        }
        two_back = std::mem::replace(&mut back, row);
    }
    back.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Section};

    #[test]
    fn the_nearest_name_is_found_and_no_far_one() {
        assert_eq!(distance("adress", "address"), 1);
        assert_eq!(distance("naem", "name"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(
            nearest("endpoint", &["ca", "endpoints", "key"]),
            Some("endpoints")
        );
        assert_eq!(nearest("size", &["kind", "size_ms"]), Some("size_ms"));
        assert_eq!(nearest("colour", &["ca", "endpoints", "key"]), None);
    }

    fn said(text: &str) -> String {
        let mut document = Document::parse(text, "P", []);
        read(&mut document.root());
        let lines: Vec<String> = document.finish().iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    fn read(root: &mut Section) {
        let mut a = root.section("a");
        let _ = (a.optional::<f64>("above"), a.optional::<f64>("hold_s"));
        let _ = (a.optional::<u64>("count"), a.optional::<bool>("on"));
        let _ = (
            a.optional::<Vec<String>>("list"),
            a.optional::<String>("text"),
        );
    }

    #[test]
    fn what_was_meant_is_said_with_what_is_wrong() {
        for (setting, says) in [
            (
                "above = nan",
                "is `nan`: no number at all; expected a finite number",
            ),
            (
                "above = -inf",
                "is `-inf`: infinite; expected a finite number",
            ),
            (
                "above = \"80\"",
                "expected a finite number: write `above = 80`, without quotes",
            ),
            (
                "above = \"hot\"",
                "is the text \"hot\"; expected a finite number",
            ),
            (
                "hold_s = \"5s\"",
                "expected a finite number: a number of seconds, without quotes and without a unit",
            ),
            (
                "count = 60.5",
                "is the number 60.5; expected an integer of at least 0",
            ),
            (
                "on = \"false\"",
                "expected true or false: write `on = false`, without quotes",
            ),
            (
                "list = \"x\"",
                "expected a list of texts: write `list = [\"x\"]`",
            ),
            (
                "list = [1, \"x\"]",
                "is the list [1, \"x\"]; expected a list of texts",
            ),
            ("text = true", "is `true`; expected a text"),
        ] {
            let key = setting.split(' ').next().unwrap_or_default();
            let all = said(&format!("[a]\n{setting}\n"));
            let begins = format!("line 2: `a.{key}` is ");
            assert!(all.starts_with(&begins) && all.ends_with(says), "{all}");
        }
    }

    #[test]
    fn what_is_no_toml_is_said_once_and_without_what_follows_from_it() {
        let no_value = "is no value: a text stands in quotes, \"like this\"; otherwise expected a \
                        number, `true` or `false`";
        for (setting, says) in [
            ("above = NaN", format!("`NaN` {no_value}")),
            ("on = no # off", format!("`no` {no_value}")),
            ("above = 80 C", format!("`80 C` {no_value}")),
            ("text = sd-card", format!("`sd-card` {no_value}")),
            (
                "count = 1\ncount = 2",
                "`count` is there a second time".to_owned(),
            ),
        ] {
            let line = 1 + setting.lines().count();
            assert_eq!(
                said(&format!("[a]\n{setting}\n")),
                format!("line {line}: not TOML: {says}")
            );
        }
    }
}
