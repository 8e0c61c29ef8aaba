//! `[[forward]]`: which readings leave the gateway one by one, and which only as aggregates of the
//! windows that they are in. `docs/decisions/0020`. Pure: it says of a reading whether it goes.
//!
//! No reading is held back that no window takes: a text, what is no finite number, and a series
//! that no `[[detect.window]]` is for go as they are. Of a vibration, windows take not the samples
//! but their features, `<metric>.rms` and so on.

use crate::decode::{Filter, Reading};
use crate::detect::{Settings, VibrationSpecs, WindowSpecs, patterns};
use crate::limits::FORWARD_RULES_MAX;
use std::sync::Arc;
use tracing::error;
use tributary_protocol::reading::Value;
use tributary_settings::Section;

/// As what readings leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// As they are.
    Raw,
    /// As aggregates alone.
    Aggregates,
}

impl Leaves {
    /// Every one, with its name in the configuration.
    pub const NAMES: [(&str, Self); 2] = [("raw", Self::Raw), ("aggregates", Self::Aggregates)];
}

/// What holds for some readings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ForwardRule {
    devices: Vec<Filter>,
    metrics: Vec<Filter>,
    what: Leaves,
}

/// All of a configuration; the first one that is for a reading holds, and without one it goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ForwardRules(Vec<ForwardRule>);

impl ForwardRules {
    /// Reads `[[forward]]`; what is wrong is reported there.
    pub fn read(root: &mut Section) -> Arc<Self> {
        let mut rules = Vec::new();
        for (place, mut section) in root.sections("forward").into_iter().enumerate() {
            if place >= FORWARD_RULES_MAX {
                section.wrong_section(format!("is one too many: at most {FORWARD_RULES_MAX}"));
            }
            let devices = patterns(&mut section, "devices");
            let metrics = patterns(&mut section, "metrics");
            let what = what(&mut section);
            if let (Some(devices), Some(metrics), Some(what)) = (devices, metrics, what) {
                rules.push(ForwardRule {
                    devices,
                    metrics,
                    what,
                });
            }
        }
        Arc::new(Self(rules))
    }
}

fn what(section: &mut Section) -> Option<Leaves> {
    let given = section.has("what");
    let what = section.read("what", |name: String| {
        let found = Leaves::NAMES.iter().find(|(known, _)| *known == name);
        found
            .map(|(_, what)| *what)
            .ok_or_else(|| format!("is \"{name}\"; expected `raw` or `aggregates`"))
    });
    if !given {
        section.wrong("what", "is missing: as what do these readings leave?");
    }
    what
}

/// The rules, and the windows that hold where the log is.
#[derive(Clone, Debug)]
pub struct Forward {
    rules: Arc<ForwardRules>,
    windows: Arc<WindowSpecs>,
    vibration: Arc<VibrationSpecs>,
}

impl Default for Forward {
    fn default() -> Self {
        Self::new(&Arc::default(), &Settings::default())
    }
}

impl Forward {
    /// These rules, beside these settings of detection.
    pub fn new(rules: &Arc<ForwardRules>, detect: &Settings) -> Self {
        let mut forward = Self {
            rules: Arc::clone(rules),
            windows: Arc::default(),
            vibration: VibrationSpecs::none(),
        };
        forward.judged_by(detect);
        forward
    }

    /// Whether every reading goes.
    pub fn is_all(&self) -> bool {
        self.rules.0.is_empty()
    }

    /// Other settings of detection hold from a record of the log on.
    pub fn record(&mut self, bytes: &[u8]) {
        let text = bytes.strip_prefix(&[1]).map(str::from_utf8);
        match text.map(|text| text.map(Settings::parse)) {
            Some(Ok(Ok(settings))) => self.judged_by(&settings),
            // The judging stage goes on as before then, and so do windows.
            _ => error!("settings of detection in the log can't be read: as before"),
        }
    }

    fn judged_by(&mut self, detect: &Settings) {
        self.windows = match detect.enabled {
            true => Arc::clone(&detect.windows),
            false => Arc::default(),
        };
        self.vibration = Arc::clone(&detect.vibration);
    }

    /// Whether a window takes a series, or one of the features that it gives.
    fn has_window(&self, device: &str, metric: &str) -> bool {
        let any = |metric: &str| self.windows.iter().any(|it| it.is_for(device, metric));
        match self.vibration.is_for(device, metric) {
            true => any(&format!("{metric}.rms")),
            false => any(metric),
        }
    }

    /// Whether a reading leaves as it is.
    pub fn takes(&self, reading: &Reading<'_>) -> bool {
        let Reading { device, metric, .. } = *reading;
        let any = |filters: &[Filter], name| filters.iter().any(|filter| filter.is_for(name));
        let is_for = |rule: &&ForwardRule| any(&rule.devices, device) && any(&rule.metrics, metric);
        match self.rules.0.iter().find(is_for) {
            Some(rule) if rule.what == Leaves::Aggregates => {
                !is_number(&reading.value) || !self.has_window(device, metric)
            }
            _ => true,
        }
    }
}

/// Whether windows take it.
fn is_number(value: &Value<'_>) -> bool {
    match value {
        Value::F64(x) => x.is_finite(),
        Value::F32(x) => x.is_finite(),
        Value::I64(_) | Value::Bool(_) => true,
        Value::Str(_) => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tributary_protocol::reading::Meta;
    use tributary_settings::Document;

    const WINDOW: &str = "[[detect.window]]\nname = \"minute\"\nkind = \"tumbling\"\n\
                          size_ms = 60000\nmetrics = [\"t\", \"p\"]\n";

    fn read(text: &str) -> Result<Forward, String> {
        let mut document = Document::parse(text, "", []);
        let mut root = document.root();
        let rules = ForwardRules::read(&mut root);
        let detect = Settings::read(&mut root.section("detect"));
        drop(root);
        let wrong: Vec<String> = document.finish().iter().map(ToString::to_string).collect();
        match wrong.is_empty() {
            true => Ok(Forward::new(&rules, &detect)),
            false => Err(wrong.join("; ")),
        }
    }

    fn takes(forward: &Forward, device: &str, metric: &str, value: Value<'_>) -> bool {
        forward.takes(&Reading {
            device,
            metric,
            unit: "",
            meta: Meta::default(),
            value,
        })
    }

    #[test]
    fn the_first_rule_for_a_reading_holds_and_nothing_without_a_window_is_held_back() {
        let rules = "[[forward]]\ndevices = [\"line1/press\"]\nwhat = \"raw\"\n\
                     [[forward]]\ndevices = [\"line1/#\"]\nwhat = \"aggregates\"\n";
        let mut forward = read(&format!("{rules}{WINDOW}")).unwrap();
        let one = Value::F64(1.0);
        for (device, metric, value, goes) in [
            ("line1/pump", "t", one, false),
            ("line1/pump", "p", Value::Bool(true), false),
            ("line1/press", "t", one, true),
            ("line2/pump", "t", one, true),
            ("line1/pump", "other", one, true),
            ("line1/pump", "t", Value::Str("off"), true),
            ("line1/pump", "t", Value::F64(f64::NAN), true),
            ("line1/pump", "t", Value::F32(f32::INFINITY), true),
        ] {
            assert_eq!(
                takes(&forward, device, metric, value),
                goes,
                "{device} {metric}"
            );
        }
        // Windows change with a record of the log; one that can't be read changes nothing.
        forward.record(&[&[9], "what a later version says".as_bytes()].concat());
        forward.record(b"\x01no settings = ");
        assert!(!takes(&forward, "line1/pump", "t", one));
        forward.record(&[&[1], Settings::default().text().as_bytes()].concat());
        assert!(takes(&forward, "line1/pump", "t", one));
    }

    #[test]
    fn a_vibration_has_the_windows_of_its_features() {
        let vibration =
            "[[forward]]\nwhat = \"aggregates\"\n[[detect.vibration]]\nmetric = \"v\"\n";
        let window = |metric: &str| WINDOW.replace("\"p\"", &format!("\"{metric}\""));
        let of_samples = read(&format!("{vibration}{}", window("v"))).unwrap();
        assert!(takes(&of_samples, "d", "v", Value::F64(1.0)));
        let of_features = read(&format!("{vibration}{}", window("v.rms"))).unwrap();
        assert!(!takes(&of_features, "d", "v", Value::F64(1.0)));
    }

    #[test]
    fn everything_goes_without_rules_and_without_detection() {
        let all = read(WINDOW).unwrap();
        assert!(all.is_all() && takes(&all, "d", "t", Value::I64(1)));
        let text =
            format!("[[forward]]\nwhat = \"aggregates\"\n[detect]\nenabled = false\n{WINDOW}");
        let off = read(&text).unwrap();
        assert!(!off.is_all() && takes(&off, "d", "t", Value::I64(1)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("[[forward]]\n", "as what do these"),
            (
                "[[forward]]\nwhat = \"all\"\n",
                "expected `raw` or `aggregates`",
            ),
            (
                "[[forward]]\nwhat = \"raw\"\ndevices = []\n",
                "selects nothing",
            ),
            ("[[forward]]\nwhat = \"raw\"\nmetric = [\"t\"]\n", "metric"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let many = "[[forward]]\nwhat = \"raw\"\n".repeat(FORWARD_RULES_MAX + 1);
        assert!(read(&many).unwrap_err().contains("one too many"));
    }
}
