//! A rule as the text that is kept: TOML in one order, every default written out, so that it means
//! the same to a later version with other defaults.

use super::band::Band;
use super::run::seconds;
use super::{Kind, Rule, RunLimit, SilenceLimit};
use std::fmt::Write;

/// The text of this rule.
pub(super) fn of(rule: &Rule) -> String {
    let mut out = String::from("[[detect.rule]]\n");
    let out = &mut out;
    put_text(out, "name", &rule.name);
    put_text(out, "kind", rule.kind.name());
    put_text(out, "device", rule.device.text());
    put_text(out, "metric", rule.metric.text());
    match &rule.kind {
        Kind::Threshold(limits, hold) => {
            band(out, ("above", "below"), limits);
            put(out, "hysteresis", limits.hysteresis);
            put(out, "hold_s", seconds(*hold));
        }
        Kind::Range(limits) => band(out, ("max", "min"), limits),
        Kind::Rate(limits, over) => {
            band(out, ("above", "below"), limits);
            put(out, "hysteresis", limits.hysteresis);
            put(out, "over_s", seconds(*over));
        }
        Kind::Stuck(limit, tolerance) => {
            match limit {
                RunLimit::Span(span) => put(out, "for_s", seconds(*span)),
                RunLimit::Readings(readings) => put(out, "readings", readings),
            }
            put(out, "tolerance", *tolerance);
        }
        Kind::Silence(limit) => match limit {
            SilenceLimit::Span(span) => put(out, "for_s", seconds(*span)),
            SilenceLimit::Intervals(intervals) => put(out, "intervals", *intervals),
        },
        Kind::Compare(other, limits, hold) => {
            put_text(out, "op", other.op.name());
            if let Some(device) = &other.device {
                put_text(out, "other_device", device);
            }
            put_text(out, "other_metric", &other.metric);
            put(out, "offset", other.offset);
            match other.op {
                super::Op::Differs => put(out, "tolerance", limits.above.unwrap_or(0.0)),
                _ => put(out, "hysteresis", limits.hysteresis),
            }
            put(out, "hold_s", seconds(*hold));
            put(out, "stale_s", seconds(other.stale));
        }
        Kind::Expression(expression, hold, stale) => {
            put_text(out, "when", &expression.text);
            put(out, "hold_s", seconds(*hold));
            put(out, "stale_s", seconds(*stale));
        }
    }
    put_text(out, "severity", rule.severity.name());
    put_text(out, "message", rule.message.text());
    put_text(out, "message_cleared", rule.message_cleared.text());
    put(out, "cool_down_s", seconds(rule.cool_down));
    std::mem::take(out)
}

fn band(out: &mut String, (above, below): (&str, &str), band: &Band) {
    for (key, limit) in [(above, band.above), (below, band.below)] {
        if let Some(limit) = limit {
            put(out, key, limit);
        }
    }
}

/// A number; `{:?}` of a double gives the same when it is read.
fn put(out: &mut String, key: &str, number: impl std::fmt::Debug) {
    writeln!(out, "{key} = {number:?}").expect("a String takes any text");
}

fn put_text(out: &mut String, key: &str, text: &str) {
    // A basic string of TOML: as JSON has it, and DEL escaped too.
    let json = serde_json::Value::from(text).to_string();
    let quoted = json.replace('\u{7f}', "\\u007f");
    writeln!(out, "{key} = {quoted}").expect("a String takes any text");
}
