//! `[[forward]]`: which readings leave the gateway one by one, and which only as aggregates of the
//! windows that they are in. `docs/decisions/0020`. Pure: it says of a reading whether it goes.
//!
//! No reading is held back that no window takes: a text, what is no finite number, and a series
//! that no `[[detect.window]]` is for go as they are. Of a vibration, windows take not the samples
//! but their features, `<metric>.rms` and so on.

mod announced;

pub use announced::{Announced, announce};

use crate::capture::CaptureSettings;
use crate::decode::{Filter, Reading};
use crate::detect::{Settings, VibrationSpecs, WindowSpecs, patterns};
use crate::limits::FORWARD_RULES_MAX;
use std::sync::Arc;
use tracing::error;
use tributary_protocol::ids::is_name;
use tributary_protocol::reading::Value;
use tributary_settings::Section;

/// As what readings leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leaves {
    /// As they are.
    Raw,
    /// As aggregates alone.
    Aggregates,
    /// As aggregates, and around an alert of their device as they are, too.
    OnAnomaly,
}

impl Leaves {
    /// Every one, with its name in the configuration.
    pub const NAMES: [(&str, Self); 3] = [
        ("raw", Self::Raw),
        ("aggregates", Self::Aggregates),
        ("aggregates+raw-on-anomaly", Self::OnAnomaly),
    ];
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
pub struct ForwardRules {
    rules: Vec<ForwardRule>,
    capture: CaptureSettings,
}

impl ForwardRules {
    /// Reads `[[forward]]` and `[capture]`; what is wrong is reported there, and what hardly is
    /// meant beside these settings of detection.
    pub fn read(root: &mut Section, detect: &Settings) -> Arc<Self> {
        let mut rules: Vec<ForwardRule> = Vec::new();
        for (place, mut section) in root.sections("forward").into_iter().enumerate() {
            if place >= FORWARD_RULES_MAX {
                section.wrong_section(format!("is one too many: at most {FORWARD_RULES_MAX}"));
            }
            let devices = patterns(&mut section, "devices");
            let metrics = patterns(&mut section, "metrics");
            let what = what(&mut section);
            if let (Some(devices), Some(metrics), Some(what)) = (devices, metrics, what) {
                let rule = ForwardRule {
                    devices,
                    metrics,
                    what,
                };
                if let Some(why) = rule.hardly_meant(&rules, detect) {
                    section.warn_section(why);
                }
                rules.push(rule);
            }
        }
        let captures = rules.iter().any(|rule| rule.what == Leaves::OnAnomaly);
        let has_capture = root.has("capture");
        let capture = CaptureSettings::read(&mut root.section("capture"));
        if has_capture && !captures {
            root.warn(
                "capture",
                "has no effect: no [[forward]] has `what = \"aggregates+raw-on-anomaly\"`",
            );
        }
        Arc::new(Self { rules, capture })
    }

    /// The same rules with a ring of this size.
    #[cfg(test)]
    pub fn with_ring(&self, ring_bytes: u64) -> Arc<Self> {
        let mut rules = self.clone();
        rules.capture.ring_bytes = ring_bytes;
        Arc::new(rules)
    }

    /// What is captured around an alert.
    pub fn capture(&self) -> &CaptureSettings {
        &self.capture
    }

    /// Whether readings of this device may be captured.
    pub fn captures(&self, device: &str) -> bool {
        let mut rules = self.rules.iter();
        rules.any(|rule| rule.what == Leaves::OnAnomaly && is_any(&rule.devices, device))
    }

    /// Bytes of the log that are kept for captures.
    pub fn ring_bytes(&self) -> u64 {
        let any = self.rules.iter().any(|rule| rule.what == Leaves::OnAnomaly);
        if any { self.capture.ring_bytes } else { 0 }
    }
}

impl ForwardRule {
    /// Why it does nothing, behind these rules and beside these settings of detection.
    fn hardly_meant(&self, before: &[Self], detect: &Settings) -> Option<String> {
        let covered = |ours: &[Filter], theirs: &[Filter]| {
            let mut theirs = theirs.iter();
            theirs.all(|their| ours.iter().any(|our| our.covers(their)))
        };
        let earlier = before.iter().position(|rule| {
            covered(&rule.devices, &self.devices) && covered(&rule.metrics, &self.metrics)
        });
        if let Some(place) = earlier {
            return Some(format!(
                "has no effect: `forward[{place}]` is for all of its readings, and the first \
                 holds"
            ));
        }
        if self.what == Leaves::Raw {
            return None;
        }
        if !detect.enabled {
            return Some(
                "has no effect: with `enabled = false` in [detect] no window runs, and its \
                 readings leave as they are"
                    .into(),
            );
        }
        let any = |ours: &[Filter], theirs: &[Filter]| {
            let mut ours = ours.iter();
            ours.any(|our| theirs.iter().any(|their| our.meets(their)))
        };
        let mut windows = detect.windows.iter();
        let has_window = windows.any(|window| {
            let metrics = any(&self.metrics, &window.metrics)
                || detect.vibration.may_give(&self.metrics, &window.metrics);
            any(&self.devices, &window.devices) && metrics
        });
        (!has_window).then(|| {
            "has no effect: no [[detect.window]] is for any of its readings, and they leave as \
             they are; add a window for them"
                .into()
        })
    }
}

fn what(section: &mut Section) -> Option<Leaves> {
    let given = section.has("what");
    let what = section.read("what", |name: String| {
        let found = Leaves::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, what)| *what).ok_or_else(|| {
            format!(
                "is \"{name}\"; expected `raw`, `aggregates` or \
                 `aggregates+raw-on-anomaly`"
            )
        })
    });
    if !given {
        section.wrong("what", "is missing: as what do these readings leave?");
    }
    what
}

/// Stands for every reading.
const ALL: [u8; 32] = *b"every reading leaves as it is.  ";

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
        self.rules.rules.is_empty()
    }

    /// The rules.
    pub fn rules(&self) -> &Arc<ForwardRules> {
        &self.rules
    }

    /// Stands for the rules and the windows that hold; where every reading goes, windows are no
    /// matter.
    pub fn fingerprint(&self) -> [u8; 32] {
        if self.is_all() {
            return ALL;
        }
        let Self {
            rules,
            windows,
            vibration,
        } = self;
        let all = format!("{rules:?} {windows:?} {vibration:?}");
        *blake3::hash(all.as_bytes()).as_bytes()
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
            true => {
                let rms = format!("{metric}.rms");
                is_name(&rms) && any(&rms)
            }
            false => any(metric),
        }
    }

    /// As what a reading leaves.
    pub fn leaves(&self, reading: &Reading<'_>) -> Leaves {
        match is_number(&reading.value) {
            true => self.leaves_of(reading.device, reading.metric),
            false => Leaves::Raw,
        }
    }

    /// Whether what a series says leaves as aggregates alone, but for texts and what is no finite
    /// number.
    pub fn holds_back(&self, device: &str, metric: &str) -> bool {
        self.leaves_of(device, metric) != Leaves::Raw
    }

    /// As what numbers of a series leave.
    fn leaves_of(&self, device: &str, metric: &str) -> Leaves {
        let is_for =
            |rule: &&ForwardRule| is_any(&rule.devices, device) && is_any(&rule.metrics, metric);
        let what = self.rules.rules.iter().find(is_for).map(|rule| rule.what);
        match what {
            None | Some(Leaves::Raw) => Leaves::Raw,
            Some(what) if self.has_window(device, metric) => what,
            Some(_) => Leaves::Raw,
        }
    }
}

/// Whether one of them is for a name.
fn is_any(filters: &[Filter], name: &str) -> bool {
    filters.iter().any(|filter| filter.is_for(name))
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
        let detect = Settings::read(&mut root.section("detect"));
        let rules = ForwardRules::read(&mut root, &detect);
        drop(root);
        let wrong: Vec<String> = document.finish().iter().map(ToString::to_string).collect();
        match wrong.is_empty() {
            true => Ok(Forward::new(&rules, &detect)),
            false => Err(wrong.join("; ")),
        }
    }

    fn takes(forward: &Forward, device: &str, metric: &str, value: Value<'_>) -> bool {
        let leaves = forward.leaves(&Reading {
            device,
            metric,
            unit: "",
            meta: Meta::default(),
            value,
        });
        leaves == Leaves::Raw
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
    fn a_vibration_whose_features_would_have_too_long_a_name_leaves_as_it_is() {
        let text = "[[forward]]\nwhat = \"aggregates\"\n[[detect.vibration]]\nmetric = \"v*\"\n\
                    [[detect.window]]\nname = \"minute\"\nkind = \"tumbling\"\nsize_ms = 60000\n";
        let forward = read(text).unwrap();
        let most = tributary_protocol::limits::NAME_BYTES_MAX;
        for (length, goes) in [(most - ".rms".len(), false), (most - 3, true)] {
            let metric = "v".repeat(length);
            assert_eq!(
                takes(&forward, "d", &metric, Value::F64(1.0)),
                goes,
                "{length}"
            );
        }
    }

    #[test]
    fn captures_are_for_devices_that_a_rule_names() {
        let text = "[[forward]]\ndevices = [\"line1/#\"]\nwhat = \"aggregates+raw-on-anomaly\"\n\
                    [capture]\nring_bytes = \"32 MiB\"\npre_s = 5\npost_s = 0\n";
        let forward = read(&format!("{text}{WINDOW}")).unwrap();
        let rules = forward.rules();
        assert!(rules.captures("line1/pump") && !rules.captures("line2/pump"));
        assert!(!takes(&forward, "line1/pump", "t", Value::F64(1.0)));
        assert!(takes(&forward, "line1/pump", "other", Value::F64(1.0)));
        assert_eq!(rules.ring_bytes(), 32 << 20);
        assert_eq!(
            (rules.capture().pre_us, rules.capture().post_us),
            (5_000_000, 0)
        );
        let other = read(&format!("{text}{}", WINDOW.replace("60000", "30000"))).unwrap();
        assert_eq!(forward.fingerprint(), forward.clone().fingerprint());
        assert_ne!(forward.fingerprint(), other.fingerprint());
        let without = read("[[forward]]\nwhat = \"aggregates\"\n").unwrap();
        assert_eq!(without.rules().ring_bytes(), 0);
        for (text, says) in [
            ("[capture]\nring_bytes = \"1 MiB\"\n", "16 MiB to 64 GiB"),
            ("[capture]\npre_s = 3601\n", "0 to 3600"),
            ("[capture]\npost = 3\n", "post"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
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
    fn what_has_no_effect_is_warned_of() {
        let warned = |text: &str| {
            let mut document = Document::parse(text, "", []);
            let mut root = document.root();
            let detect = Settings::read(&mut root.section("detect"));
            ForwardRules::read(&mut root, &detect);
            drop(root);
            let warnings = document.warnings();
            assert_eq!(document.finish(), []);
            let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            said.join("\n")
        };
        let sums = "[[forward]]\nwhat = \"aggregates\"\n";
        let vibration = "[[detect.vibration]]\nmetric = \"v\"\n";
        let of_features = WINDOW.replace("\"t\", \"p\"", "\"v.rms\"");
        for text in [
            format!("{sums}{WINDOW}"),
            format!("{sums}metrics = [\"p\", \"other\"]\n{WINDOW}"),
            format!("{sums}metrics = [\"v\"]\n{vibration}{of_features}"),
            "[[forward]]\nwhat = \"raw\"\n".to_owned(),
            format!("[[forward]]\nwhat = \"aggregates+raw-on-anomaly\"\n[capture]\n{WINDOW}"),
        ] {
            assert_eq!(warned(&text), "", "{text}");
        }
        for (text, says) in [
            (
                sums.to_owned(),
                "line 1: `forward[0]` has no effect: no [[detect.window]] is for",
            ),
            (
                format!("{sums}metrics = [\"x\"]\n{WINDOW}"),
                "add a window for them",
            ),
            (
                format!("{sums}metrics = [\"v\"]\n{of_features}"),
                "add a window for them",
            ),
            (
                format!("{sums}[detect]\nenabled = false\n{WINDOW}"),
                "with `enabled = false`",
            ),
            (
                format!("{sums}{sums}devices = [\"a/+\"]\n{WINDOW}"),
                "line 3: `forward[1]` has no effect: `forward[0]` is for all of its readings",
            ),
            (
                format!("{sums}[capture]\npre_s = 5\n{WINDOW}"),
                "line 3: `capture` has no effect: no [[forward]] has",
            ),
            (
                format!("{sums}{}", WINDOW.replace("\"p\"", "\"*\"")),
                "`detect.window[0].metrics` holds `*`, in which `*` stands for itself",
            ),
        ] {
            let said = warned(&text);
            assert!(
                said.contains(says) && said.lines().count() == 1,
                "{text}: {said}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("[[forward]]\n", "as what do these"),
            (
                "[[forward]]\nwhat = \"all\"\n",
                "expected `raw`, `aggregates` or `aggregates+raw-on-anomaly`",
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
