//! `[[detect.rule]]`: a rule from its section of the configuration, everything wrong said at once.

use super::band::Band;
use super::expression::Expression;
use super::message::Template;
use super::{Kind, Op, Other, Rule, RunLimit, Severity, SilenceLimit, text};
use crate::detect::pattern::Pattern;
use crate::limits::{
    RULE_INTERVALS_MAX, RULE_NAME_BYTES_MAX, RULE_RUN_READINGS_MAX, RULE_SPAN_S_MAX,
};
use std::sync::Arc;
use tributary_protocol::ids::is_name;
use tributary_settings::{Section, nearest};

/// Seconds after which a value is too old to be compared, when nothing else is said.
const STALE_S: f64 = 600.0;
/// Seconds over which a change is measured, when nothing else is said.
const OVER_S: f64 = 10.0;

/// What a kind of rule is called, the settings of its own, and what its alerts say when nothing
/// else is said: when raised, and when cleared.
pub(super) struct Form {
    pub name: &'static str,
    keys: &'static [&'static str],
    message: &'static str,
    cleared: &'static str,
}

const EXPRESSION: &str = "expression";
const IS_BACK: &str = "{device}: {metric} is {value} {unit} again, the alert \"{rule}\" is over";

pub(super) const FORMS: [Form; 7] = [
    Form {
        name: "threshold",
        keys: &["above", "below", "hysteresis", "hold_s"],
        message: "{device}: {metric} is {value} {unit}, beyond {limit} {unit}",
        cleared: IS_BACK,
    },
    Form {
        name: "range",
        keys: &["min", "max"],
        message: "{device}: {metric} is {value} {unit}, beyond what its sensor measures: {limit} \
                  {unit}",
        cleared: IS_BACK,
    },
    Form {
        name: "rate",
        keys: &["above", "below", "hysteresis", "over_s"],
        message: "{device}: {metric} changes by {measured} {unit} a second, beyond {limit}",
        cleared: "{device}: {metric} changes by {measured} {unit} a second, the alert \"{rule}\" \
                  is over",
    },
    Form {
        name: "stuck",
        keys: &["for_s", "readings", "tolerance"],
        message: "{device}: {metric} has been {value} {unit} for {duration} seconds",
        cleared: "{device}: {metric} changes again: {value} {unit}",
    },
    Form {
        name: "silence",
        keys: &["for_s", "intervals"],
        message: "{device}: {metric} has sent nothing for {limit} seconds",
        cleared: "{device}: {metric} sends again",
    },
    Form {
        name: "compare",
        keys: &[
            "op",
            "other_device",
            "other_metric",
            "offset",
            "tolerance",
            "hysteresis",
            "hold_s",
            "stale_s",
        ],
        message: "{device}: {metric} is {value} {unit}, against {limit} {unit}",
        cleared: IS_BACK,
    },
    Form {
        name: EXPRESSION,
        keys: &["when", "hold_s", "stale_s"],
        message: "{device}: {rule} ({metric} is {value} {unit})",
        cleared: IS_BACK,
    },
];

/// The rule in `section`; `None` when something is wrong with it, which is reported.
pub(super) fn rule(section: &mut Section) -> Option<Rule> {
    let name = name(section);
    let device = pattern(section, "device");
    let form = form(section);
    let is_expression = form.is_some_and(|form| form.name == EXPRESSION);
    let metric = match is_expression && !section.has("metric") {
        // That of the expression's first one.
        true => Some(Pattern::any()),
        false => pattern(section, "metric"),
    };
    let severity = choice(section, "severity", &Severity::NAMES);
    let cool_down = span(section, "cool_down_s", Some(0.0), 0.0);
    let template = |section: &mut Section, key, default: &str| {
        let given = section.optional::<String>(key);
        let read = Template::parse(given.as_deref().unwrap_or(default));
        read.map_err(|why| section.wrong(key, why)).ok()
    };
    let message = template(section, "message", form.map_or(".", |form| form.message));
    let message_cleared = template(section, "message_cleared", form.map_or(".", |f| f.cleared));
    let Some(form) = form else {
        // What belongs to a kind that nobody can know is not unknown.
        for key in FORMS.iter().flat_map(|form| form.keys) {
            section.ignore(key);
        }
        return None;
    };
    let kind = kind(section, form, device.as_ref(), metric.as_ref());
    others(section, form);
    let metric = match &kind {
        Some(Kind::Expression(of, ..)) if !section.was_read("metric") => of
            .program
            .metrics
            .first()
            .and_then(|metric| Pattern::parse(metric).ok()),
        _ => metric,
    };
    let mut rule = Rule {
        name: name?,
        device: device?,
        metric: metric?,
        kind: kind?,
        severity: severity.unwrap_or(Severity::Warning),
        message: message?,
        message_cleared: message_cleared?,
        cool_down: cool_down?,
        text: String::new(),
        hash: [0; 16],
    };
    rule.text = text::of(&rule);
    let hash = blake3::hash(rule.text.as_bytes());
    let (first, _) = hash.as_bytes().split_at(rule.hash.len());
    rule.hash.copy_from_slice(first);
    Some(rule)
}

fn name(section: &mut Section) -> Option<Arc<str>> {
    if !required(section, "name", "what are its alerts called?") {
        return None;
    }
    section.read("name", |name: String| {
        match is_name(&name) && name.len() <= RULE_NAME_BYTES_MAX {
            true => Ok(name.into()),
            false => Err(format!(
                "is no name: expected 1 to {RULE_NAME_BYTES_MAX} bytes without control characters"
            )),
        }
    })
}

/// Whether a setting is there that must be.
fn required(section: &mut Section, key: &'static str, why: &str) -> bool {
    let given = section.has(key);
    if !given {
        section.ignore(key);
        section.wrong(key, format!("is missing: {why}"));
    }
    given
}

fn pattern(section: &mut Section, key: &'static str) -> Option<Pattern> {
    if key == "metric" && !required(section, key, "of which metric is it? `*` is every one") {
        return None;
    }
    match section.has(key) {
        true => Pattern::read(section, key),
        false => {
            section.ignore(key);
            Some(Pattern::any())
        }
    }
}

/// One of known names; the first one when nothing is said, `None` when something else is.
fn choice<T: Copy>(
    section: &mut Section,
    key: &'static str,
    known: &[(&'static str, T)],
) -> Option<T> {
    section.read(key, |text: String| {
        let found = known.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            not_known(&text, &names)
        })
    })
}

/// `op`. No other sign is near to one that means the contrary.
fn operator(section: &mut Section) -> Option<Op> {
    section.read("op", |text: String| {
        let found = Op::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, op)| *op).ok_or_else(|| {
            let names: Vec<&str> = Op::NAMES.iter().map(|(name, _)| *name).collect();
            let equal = match text.trim_matches('=').is_empty() {
                true => ": that two are equal is `kind = \"expression\"`, `when = \"a == b\"`",
                false => "",
            };
            format!("is \"{text}\"; expected one of {}{equal}", names.join(", "))
        })
    })
}

fn not_known(text: &str, names: &[&str]) -> String {
    match nearest(text, names) {
        Some(near) => format!("is \"{text}\"; did you mean \"{near}\"?"),
        None => format!("is \"{text}\"; expected one of {}", names.join(", ")),
    }
}

fn form(section: &mut Section) -> Option<&'static Form> {
    if !required(
        section,
        "kind",
        &format!("one of {}", FORMS.each_ref().map(|f| f.name).join(", ")),
    ) {
        return None;
    }
    section.read("kind", |text: String| {
        let found = FORMS.iter().find(|form| form.name == text);
        found.ok_or_else(|| not_known(&text, &FORMS.each_ref().map(|form| form.name)))
    })
}

/// Refuses what only other kinds have.
fn others(section: &mut Section, form: &Form) {
    for key in FORMS.iter().flat_map(|form| form.keys) {
        if !form.keys.contains(key) {
            let reason = format!("has no meaning with `kind = \"{}\"`", form.name);
            section.refuse(key, reason);
        }
    }
}

fn kind(
    section: &mut Section,
    form: &Form,
    device: Option<&Pattern>,
    metric: Option<&Pattern>,
) -> Option<Kind> {
    match form.name {
        "threshold" => {
            let (band, hold) = (limits(section), span(section, "hold_s", Some(0.0), 0.0));
            Some(Kind::Threshold(band?, hold?))
        }
        "range" => range(section).map(Kind::Range),
        "rate" => {
            let (band, over) = (
                limits(section),
                span(section, "over_s", Some(OVER_S), 0.001),
            );
            Some(Kind::Rate(band?, over?))
        }
        "stuck" => {
            let tolerance = at_least_0(section, "tolerance");
            Some(Kind::Stuck(run_limit(section)?, tolerance?))
        }
        "silence" => silence_limit(section).map(Kind::Silence),
        "compare" => compare(section, device, metric),
        _ => expression(section, metric),
    }
}

/// A duration in seconds, as microseconds: the default, if it may be left out, and the least.
fn span(section: &mut Section, key: &'static str, default: Option<f64>, least: f64) -> Option<i64> {
    let us = |seconds: f64| (seconds * 1e6).round() as i64;
    if !section.has(key) {
        section.ignore(key);
        return default.map(us);
    }
    section.read(key, |seconds: f64| {
        match (least..=RULE_SPAN_S_MAX).contains(&seconds) {
            true => Ok(us(seconds)),
            false => Err(format!(
                "is {seconds} seconds; expected {least} to {RULE_SPAN_S_MAX}"
            )),
        }
    })
}

/// A number of at least 0, 0 by default.
fn at_least_0(section: &mut Section, key: &'static str) -> Option<f64> {
    if !section.has(key) {
        section.ignore(key);
        return Some(0.0);
    }
    section.read(key, |number: f64| match number >= 0.0 {
        // Without the sign that a zero may have.
        true => Ok(number.abs()),
        false => Err(format!("is {number}; expected at least 0")),
    })
}

/// A limit: whether what is there is none, and the limit.
fn limit(section: &mut Section, key: &'static str) -> Option<Option<f64>> {
    match section.has(key) {
        true => section.optional::<f64>(key).map(Some),
        false => {
            section.ignore(key);
            Some(None)
        }
    }
}

/// `above`, `below` and `hysteresis`.
fn limits(section: &mut Section) -> Option<Band> {
    let (above, below) = (limit(section, "above"), limit(section, "below"));
    let hysteresis = at_least_0(section, "hysteresis");
    let band = Band {
        above: above?,
        below: below?,
        hysteresis: hysteresis?,
        closed: false,
    };
    match (band.above, band.below) {
        (None, None) => {
            section.wrong_section("has neither `above` nor `below`: what is its limit?");
            None
        }
        (Some(above), Some(below)) if above < below => {
            section.wrong(
                "above",
                format!("is {above}, less than `below`, {below}: no value is between them"),
            );
            None
        }
        (Some(above), Some(below)) if above - band.hysteresis < below + band.hysteresis => {
            section.wrong(
                "hysteresis",
                format!(
                    "is {}: no value is so far from both `above` and `below`, and no alert would \
                     end",
                    band.hysteresis
                ),
            );
            None
        }
        _ => Some(band),
    }
}

/// `min` and `max`.
fn range(section: &mut Section) -> Option<Band> {
    let (min, max) = (limit(section, "min"), limit(section, "max"));
    let band = Band {
        above: max?,
        below: min?,
        hysteresis: 0.0,
        closed: false,
    };
    match (band.below, band.above) {
        (None, None) => {
            section.wrong_section("has neither `min` nor `max`: what does its sensor measure?");
            None
        }
        (Some(min), Some(max)) if min > max => {
            section.wrong("min", format!("is {min}, more than `max`, {max}"));
            None
        }
        _ => Some(band),
    }
}

/// Which of two settings is there; one must be.
fn one_of(section: &mut Section, first: &'static str, second: &'static str) -> Option<bool> {
    let (has_first, has_second) = (section.has(first), section.has(second));
    if has_first != has_second {
        return Some(has_first);
    }
    if has_first {
        section.refuse(first, format!("and `{second}` exclude each other"));
        section.ignore(second);
    } else {
        section.ignore(first);
        section.ignore(second);
        section.wrong_section(format!("has neither `{first}` nor `{second}`: how long?"));
    }
    None
}

fn run_limit(section: &mut Section) -> Option<RunLimit> {
    if one_of(section, "for_s", "readings")? {
        return span(section, "for_s", None, 0.001).map(RunLimit::Span);
    }
    section.read("readings", |readings: u64| match readings {
        2..=RULE_RUN_READINGS_MAX => Ok(RunLimit::Readings(readings as u32)),
        _ => Err(format!(
            "is {readings}; expected 2 to {RULE_RUN_READINGS_MAX}"
        )),
    })
}

fn silence_limit(section: &mut Section) -> Option<SilenceLimit> {
    if one_of(section, "for_s", "intervals")? {
        return span(section, "for_s", None, 0.001).map(SilenceLimit::Span);
    }
    section.read("intervals", |intervals: f64| {
        match (1.5..=RULE_INTERVALS_MAX).contains(&intervals) {
            true => Ok(SilenceLimit::Intervals(intervals)),
            false => Err(format!(
                "is {intervals}; expected 1.5 to {RULE_INTERVALS_MAX}: an interval that is a \
                 little long is no silence"
            )),
        }
    })
}

fn compare(
    section: &mut Section,
    device: Option<&Pattern>,
    metric: Option<&Pattern>,
) -> Option<Kind> {
    let op = required(section, "op", "one of >, >=, <, <=, !=");
    let op = op.then(|| operator(section)).flatten();
    let exact = |text: String| match is_name(&text) && !text.contains('*') {
        true => Ok(Box::<str>::from(text)),
        false => Err("is no name of one: expected 1 to 256 bytes without `*`".to_owned()),
    };
    let has_device = section.has("other_device");
    let other_device = section.read("other_device", exact);
    let other_metric = required(section, "other_metric", "what is it compared with?")
        .then(|| section.read("other_metric", exact))
        .flatten();
    let offset = section.or("offset", 0.0);
    let hold = span(section, "hold_s", Some(0.0), 0.0);
    let stale = span(section, "stale_s", Some(STALE_S), 0.001);
    let band = compared(section, op);
    let (device, metric, op, other_metric) = (device?, metric?, op?, other_metric?);
    if !metric.is_exact() {
        section.wrong(
            "metric",
            "holds `*`: a comparison is of two series, each by its name",
        );
        return None;
    }
    if has_device && !device.is_exact() {
        section.wrong(
            "device",
            "holds `*` or is missing: with `other_device`, which device is compared with it?",
        );
        return None;
    }
    if has_device && other_device.is_none() {
        return None;
    }
    // The same device by its name is the device itself.
    let other_device = other_device.filter(|other| **other != *device.text());
    if other_device.is_none() && *other_metric == *metric.text() {
        section.wrong("other_metric", "is the metric itself, on the same device");
        return None;
    }
    let other = Other {
        device: other_device,
        metric: other_metric,
        offset,
        op,
        stale: stale?,
    };
    Some(Kind::Compare(other, band?, hold?))
}

fn expression(section: &mut Section, metric: Option<&Pattern>) -> Option<Kind> {
    let when = required(
        section,
        "when",
        "what must be true, such as `temperature > 80`?",
    )
    .then(|| section.read("when", |text: String| Expression::parse(&text)))
    .flatten();
    let hold = span(section, "hold_s", Some(0.0), 0.0);
    let stale = span(section, "stale_s", Some(STALE_S), 0.001);
    if section.was_read("metric") && metric.is_some_and(|metric| !metric.is_exact()) {
        section.wrong(
            "metric",
            "holds `*`: alerts of an expression are under one metric",
        );
        return None;
    }
    Some(Kind::Expression(Box::new(when?), hold?, stale?))
}

/// Where the difference of the two values may be.
fn compared(section: &mut Section, op: Option<Op>) -> Option<Band> {
    let differs = op == Some(Op::Differs);
    if op.is_some() {
        let (key, why) = match differs {
            true => (
                "hysteresis",
                "has no meaning with `op = \"!=\"`: use `tolerance`",
            ),
            false => ("tolerance", "has a meaning with `op = \"!=\"` alone"),
        };
        section.refuse(key, why);
    }
    let tolerance = at_least_0(section, "tolerance");
    let hysteresis = at_least_0(section, "hysteresis");
    let (tolerance, hysteresis) = (tolerance?, hysteresis?);
    let op = op?;
    Some(Band {
        above: matches!(op, Op::Above | Op::AtLeast | Op::Differs).then_some(tolerance),
        below: matches!(op, Op::Below | Op::AtMost | Op::Differs).then_some(-tolerance),
        hysteresis,
        closed: matches!(op, Op::AtLeast | Op::AtMost),
    })
}
