//! A configuration of decoding as the text that is kept: TOML in one order, every default written
//! out, so that it means the same to a later version with other defaults.

use super::convert::Convert;
use super::pointer::Pointer;
use super::read::NONE;
use super::rule::{Form, Rule, Unit};
use std::fmt::Write;

/// The text of these rules.
pub(super) fn of(rules: &[Rule]) -> String {
    let mut out = String::from("# Rules of decoding, as this agent keeps them: do not edit.\n");
    for rule in rules {
        out.push_str("\n[[decode]]\n");
        settings(rule, &mut out);
        conversions(rule, &mut out);
    }
    out
}

fn settings(rule: &Rule, out: &mut String) {
    let pointers = &rule.pointers;
    put(out, "topic", rule.filter.text());
    put(out, "format", rule.form.name());
    for (key, template) in [("device", &rule.device), ("metric", &rule.metric)] {
        if let Some(template) = template {
            put(out, key, template.text());
        }
    }
    if let Some(value) = &pointers.value {
        put(out, "value", value.text());
    }
    if rule.form.has_members() {
        for (key, pointer) in [
            ("time", &pointers.time),
            ("seq", &pointers.seq),
            ("quality", &pointers.quality),
        ] {
            put(out, key, pointer.as_ref().map_or(NONE, Pointer::text));
        }
        put(out, "time_unit", rule.time_unit.name());
    }
    match &pointers.unit {
        Unit::At(pointer) => put(out, "unit", pointer.text()),
        Unit::Fixed(unit) => put(out, "unit", unit),
        Unit::None => put(out, "unit", NONE),
    }
    if rule.form == Form::Waveform {
        for (key, pointer) in [("rate", &pointers.rate), ("samples", &pointers.samples)] {
            put(out, key, pointer.as_ref().map_or(NONE, Pointer::text));
        }
    }
    if let Some(rate_hz) = rule.rate_hz {
        put_number(out, "rate_hz", rate_hz);
    }
    if rule.form.is_waveform() {
        put(out, "keep", "raw");
    }
    // Left out where it holds: so rules from before it was there keep their name.
    if !rule.properties {
        put_with(out, "properties", false);
    }
    if matches!(rule.form, Form::Binary(_)) {
        put_with(out, "skip_bytes", rule.skip_bytes);
    }
}

fn conversions(rule: &Rule, out: &mut String) {
    conversion(&rule.converts.others, out);
    if !rule.pointers.values.is_empty() {
        out.push_str("[decode.values]\n");
        for (metric, pointer) in &rule.pointers.values {
            put(out, &quoted(metric), pointer.text());
        }
    }
    for (metric, convert) in &rule.converts.named {
        put_head(out, metric);
        if let Some(unit) = &convert.unit {
            put(out, "unit", unit);
        }
        conversion(convert, out);
    }
}

fn conversion(convert: &Convert, out: &mut String) {
    put_number(out, "scale", convert.scale);
    put_number(out, "offset", convert.offset);
    if let Some(kind) = convert.kind {
        put(out, "type", kind.name());
    }
}

fn put(out: &mut String, key: &str, text: &str) {
    put_with(out, key, quoted(text));
}

/// Prints so that reading it gives the same double.
fn put_number(out: &mut String, key: &str, number: f64) {
    put_with(out, key, format_args!("{number:?}"));
}

fn put_with(out: &mut String, key: &str, value: impl std::fmt::Display) {
    writeln!(out, "{key} = {value}").expect("a String takes any text");
}

fn put_head(out: &mut String, metric: &str) {
    writeln!(out, "[decode.metrics.{}]", quoted(metric)).expect("a String takes any text");
}

/// A basic string of TOML: as JSON has it, and DEL escaped too.
pub(crate) fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json.replace('\u{7f}', "\\u007f")
}
