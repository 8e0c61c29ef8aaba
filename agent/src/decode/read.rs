//! `[[decode]]`: a rule from its section of the configuration, everything wrong said at once.

use super::convert::{Convert, Converts, Kind};
use super::filter::{Filter, Template, hardly_meant};
use super::pointer::Pointer;
use super::rule::{Form, Pointers, Rule, TimeUnit, Unit};
use crate::limits::{RATE_HZ_MAX, RULE_METRICS_MAX, SKIP_BYTES_MAX};
use tributary_protocol::ids::is_name;
use tributary_settings::Section;

/// What disables a pointer that has a default.
pub(super) const NONE: &str = "none";

/// The rule in `section`; `None` when something is wrong with it, which is reported.
pub(super) fn rule(section: &mut Section) -> Option<Rule> {
    let filter = filter(section);
    let form = choice(section, "format", &Form::NAMES).unwrap_or(Form::Auto);
    let pointers = pointers(section, form);
    let device = filter
        .as_ref()
        .map(|filter| template(section, "device", filter));
    let metric = filter
        .as_ref()
        .map(|filter| template(section, "metric", filter));
    if filter.is_none() {
        // They can't be looked at, and are not unknown.
        let _ = (
            section.optional::<String>("device"),
            section.optional::<String>("metric"),
        );
    }
    let time_unit = time_unit(section, form);
    let (rate_hz, skip_bytes) = waveform(section, form);
    let converts = converts(section);
    let properties = section.or("properties", true);
    let mut rule = Rule::new(filter?, form, pointers)
        .map_err(|(key, why)| section.wrong(key, why))
        .ok()?;
    rule.device = device?;
    rule.metric = metric?;
    rule.time_unit = time_unit;
    rule.rate_hz = rate_hz;
    rule.skip_bytes = skip_bytes;
    rule.plain = converts.is_nothing() && !matches!(rule.pointers.unit, Unit::Fixed(_));
    rule.converts = converts;
    rule.properties = properties;
    Some(rule)
}

fn filter(section: &mut Section) -> Option<Filter> {
    if !section.has("topic") {
        let _ = section.optional::<String>("topic");
        section.wrong(
            "topic",
            "is missing: which topics is the rule for? `#` is all of them",
        );
        return None;
    }
    let filter = section.read("topic", |text: String| Filter::parse(&text))?;
    if let Some(why) = hardly_meant(filter.text()) {
        section.warn("topic", why);
    }
    Some(filter)
}

fn template(section: &mut Section, name: &'static str, filter: &Filter) -> Option<Template> {
    let given = section.has(name);
    let read = section.read(name, |text: String| Template::parse(&text, filter));
    if given || filter.named(name).is_none() {
        return read;
    }
    // A level that is called so is what it says.
    Template::parse(&format!("{{{name}}}"), filter).ok()
}

fn choice<T: Copy>(
    section: &mut Section,
    name: &'static str,
    known: &[(&'static str, T)],
) -> Option<T> {
    section.read(name, |text: String| {
        let found = known.iter().find(|(name, _)| *name == text);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            format!("is \"{text}\"; expected one of {}", names.join(", "))
        })
    })
}

/// A pointer with a default that `none` disables.
fn pointer(section: &mut Section, name: &'static str, default: Option<Pointer>) -> Option<Pointer> {
    if !section.has(name) {
        let _ = section.optional::<String>(name);
        return default;
    }
    let read = section.read(name, |text: String| match &*text {
        NONE => Ok(None),
        _ => Pointer::parse(&text).map(Some),
    });
    read.flatten()
}

fn pointers(section: &mut Section, form: Form) -> Pointers {
    let keys = [
        "value", "values", "time", "seq", "quality", "unit", "rate", "samples",
    ];
    let misplaced = keys.into_iter().filter(|key| match *key {
        // A unit may be a fixed one.
        "unit" => false,
        "value" | "values" => !matches!(form, Form::Auto | Form::Json),
        "rate" | "samples" => form != Form::Waveform,
        _ => !form.has_members(),
    });
    let misplaced: Vec<&'static str> = misplaced.filter(|key| section.has(key)).collect();
    let values = section
        .section("values")
        .named(|metric, text: String| match is_name(metric) {
            true => Pointer::parse(&text),
            false => Err("cannot be a metric: expected 1 to 256 bytes without controls".to_owned()),
        });
    let values: Vec<(Box<str>, Pointer)> = values
        .into_iter()
        .map(|(metric, at)| (metric.into(), at))
        .collect();
    let defaults = Pointers::default_of(form);
    let value = pointer(section, "value", defaults.value);
    let samples = pointer(section, "samples", defaults.samples);
    // Where the whole document is one value, nothing stands beside it.
    let named = values.iter().map(|(_, at)| at);
    let is_whole = |at: &Pointer| at.text().is_empty();
    let whole = value.iter().chain(&samples).chain(named).any(is_whole);
    let beside = |default: Option<Pointer>| default.filter(|_| !whole);
    let read = Pointers {
        time: pointer(section, "time", beside(defaults.time)),
        seq: pointer(section, "seq", beside(defaults.seq)),
        quality: pointer(section, "quality", beside(defaults.quality)),
        unit: unit(
            section,
            form,
            if whole { Unit::None } else { defaults.unit },
        ),
        rate: pointer(section, "rate", beside(defaults.rate)),
        value,
        values,
        samples,
    };
    for key in misplaced {
        let form = form.name();
        section.wrong(key, format!("has no meaning with `format = \"{form}\"`"));
    }
    if read.value.is_some() && !read.values.is_empty() {
        section.wrong(
            "value",
            "and `values` exclude each other: name it in `values`, too",
        );
    }
    if read.values.len() > RULE_METRICS_MAX {
        section.wrong(
            "values",
            format!("holds more than {RULE_METRICS_MAX} metrics"),
        );
    }
    if form == Form::Waveform && read.samples.is_none() {
        section.wrong("samples", "is none: where are the samples?");
    }
    read
}

/// A pointer to the unit, or the unit itself.
fn unit(section: &mut Section, form: Form, default: Unit) -> Unit {
    if !section.has("unit") {
        let _ = section.optional::<String>("unit");
        return default;
    }
    let read = section.read("unit", |text: String| match &*text {
        NONE => Ok(Unit::None),
        _ if text.starts_with('/') && form.has_members() => Pointer::parse(&text).map(Unit::At),
        _ => fixed_unit(text).map(Unit::Fixed),
    });
    read.unwrap_or(Unit::None)
}

fn fixed_unit(text: String) -> Result<Box<str>, String> {
    match is_name(&text) {
        true => Ok(text.into()),
        false => Err("cannot be a unit: expected 1 to 256 bytes without control characters".into()),
    }
}

fn time_unit(section: &mut Section, form: Form) -> TimeUnit {
    let given = section.has("time_unit");
    let unit = choice(section, "time_unit", &TimeUnit::NAMES).unwrap_or(TimeUnit::Auto);
    if given && !form.has_members() {
        let form = form.name();
        section.wrong(
            "time_unit",
            format!("has no meaning with `format = \"{form}\"`"),
        );
    }
    unit
}

/// What waveforms have beside: samples a second, and bytes before the samples.
fn waveform(section: &mut Section, form: Form) -> (Option<f64>, usize) {
    let given = ["rate_hz", "keep", "skip_bytes"];
    let given: Vec<&'static str> = given.into_iter().filter(|key| section.has(key)).collect();
    let rate_hz = section.read("rate_hz", |rate: f64| match is_rate(rate) {
        true => Ok(rate),
        false => Err(format!(
            "is {rate}; expected above 0, at most {RATE_HZ_MAX}"
        )),
    });
    section.read("keep", |keep: String| match &*keep {
        "raw" => Ok(()),
        "features" => Err(
            "is \"features\", which needs the detectors of a later version: use \"raw\", which \
             keeps every sample"
                .into(),
        ),
        _ => Err(format!("is \"{keep}\"; expected \"raw\"")),
    });
    let skip_bytes = section.within("skip_bytes", (0, SKIP_BYTES_MAX), 0);
    for key in given {
        let binary = matches!(form, Form::Binary(_));
        if !form.is_waveform() || (key == "skip_bytes" && !binary) {
            let form = form.name();
            section.wrong(key, format!("has no meaning with `format = \"{form}\"`"));
        }
    }
    if matches!(form, Form::Binary(_)) && rate_hz.is_none() {
        section.wrong(
            "rate_hz",
            "is missing: bytes do not say how many samples a second",
        );
    }
    (rate_hz, usize::try_from(skip_bytes).unwrap_or(0))
}

/// Whether samples may come this often.
pub(super) fn is_rate(rate: f64) -> bool {
    rate > 0.0 && rate <= RATE_HZ_MAX
}

fn converts(section: &mut Section) -> Converts {
    let others = convert(section, &Convert::default());
    let metrics = section.section("metrics").named_sections();
    if metrics.len() > RULE_METRICS_MAX {
        section.wrong(
            "metrics",
            format!("holds more than {RULE_METRICS_MAX} metrics"),
        );
    }
    let mut named = Vec::new();
    for (metric, mut own) in metrics {
        let mut convert = convert(&mut own, &others);
        convert.unit = own.read("unit", fixed_unit);
        named.push((metric.into(), convert));
    }
    Converts { others, named }
}

/// Scale, offset and type; what is left out is as in `default`.
fn convert(section: &mut Section, default: &Convert) -> Convert {
    let scale = section.read("scale", |scale: f64| match scale {
        0.0 => Err("is 0, which makes all values one".to_owned()),
        _ => Ok(scale),
    });
    Convert {
        unit: None,
        scale: scale.unwrap_or(default.scale),
        offset: section.or("offset", default.offset),
        kind: choice(section, "type", &Kind::NAMES).or(default.kind),
    }
}
