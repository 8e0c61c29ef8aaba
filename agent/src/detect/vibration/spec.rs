//! `[[detect.vibration]]`: which series are vibrations, how they are cut, and what is known of the
//! machine.

use super::bearing::Bearing;
use crate::decode::Filter;
use crate::detect::pattern::Pattern;
use crate::limits::{
    BEARING_ELEMENTS_MAX, RATE_HZ_MAX, VIBRATION_BANDS_MAX, VIBRATION_SPECS_MAX, VIBRATION_WINDOW,
};
use std::fmt::Write;
use std::sync::{Arc, LazyLock};
use tributary_settings::{Diagnostic, Document, Section};

/// Bands when nothing is configured: each of as many octaves.
pub(super) const OCTAVE_GROUPS: usize = 4;
/// Turns of the shaft whose energy is told: one, two and three times its rate.
pub(super) const SHAFT_HARMONICS: usize = 3;
/// Features that every window has.
const ALWAYS: [&str; 8] = [
    "rms",
    "peak",
    "peak_to_peak",
    "crest",
    "skewness",
    "kurtosis",
    "dominant_hz",
    "spectral_kurtosis",
];

/// One section.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Spec {
    pub device: Pattern,
    pub metric: Pattern,
    /// Samples of a window.
    pub window: usize,
    /// Where bands begin and end, ascending; groups of octaves when there are none.
    pub bands_hz: Vec<f64>,
    /// Turns of the shaft a second.
    pub shaft_hz: Option<f64>,
    /// The bearing on it.
    pub bearing: Option<Bearing>,
    /// The band whose envelope is looked at; the upper half of all when nothing is said.
    pub envelope_hz: Option<(f64, f64)>,
    /// What the features are called, in their order.
    pub names: Arc<[Box<str>]>,
    pub text: String,
}

/// What is configured of vibration.
#[derive(Clone, PartialEq, Debug)]
pub struct VibrationSpecs {
    pub(super) specs: Vec<Spec>,
    text: String,
}

impl VibrationSpecs {
    /// No series is a vibration.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<VibrationSpecs>> =
            LazyLock::new(|| Arc::new(VibrationSpecs::new(Vec::new())));
        Arc::clone(&NONE)
    }

    fn new(specs: Vec<Spec>) -> Self {
        let texts: Vec<&str> = specs.iter().map(|spec| &*spec.text).collect();
        Self {
            text: texts.join("\n"),
            specs,
        }
    }

    /// Reads `[[detect.vibration]]` in the section `detect`; what is wrong is reported there.
    pub fn read(detect: &mut Section) -> Arc<Self> {
        let mut sections = detect.sections("vibration");
        if let Some(section) = sections.get(VIBRATION_SPECS_MAX) {
            section.wrong_section(format!("is one too many: at most {VIBRATION_SPECS_MAX}"));
        }
        let specs = sections.iter_mut().filter_map(spec);
        let specs: Vec<Spec> = specs.take(VIBRATION_SPECS_MAX).collect();
        match specs.is_empty() {
            true => Self::none(),
            false => Arc::new(Self::new(specs)),
        }
    }

    /// Reads a text that [`text`](Self::text) gave.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Arc<Self>, Vec<Diagnostic>> {
        let mut document = Document::parse(text, "", []);
        let specs = Self::read(&mut document.root().section("detect"));
        match document.finish() {
            wrong if wrong.is_empty() => Ok(specs),
            wrong => Err(wrong),
        }
    }

    /// What is configured, with every default written out.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether a series is a vibration.
    pub fn is_for(&self, device: &str, metric: &str) -> bool {
        self.find(device, metric).is_some()
    }

    /// Whether of a vibration with a metric among `metrics` the `rms` may be among `features`.
    pub(crate) fn may_give(&self, metrics: &[Filter], features: &[Filter]) -> bool {
        let is_in = |filters: &[Filter], name: &str| filters.iter().any(|it| it.is_for(name));
        let mut specs = self.specs.iter();
        specs.any(|spec| {
            let metric = spec.metric.text();
            // Of a pattern nobody knows the names.
            !spec.metric.is_exact()
                || is_in(metrics, metric) && is_in(features, &format!("{metric}.rms"))
        })
    }

    /// Which section is for a series: the first that fits.
    pub(super) fn find(&self, device: &str, metric: &str) -> Option<usize> {
        let fits = |spec: &Spec| spec.metric.fits(metric) && spec.device.fits(device);
        self.specs.iter().position(fits)
    }
}

fn spec(section: &mut Section) -> Option<Spec> {
    let device = match section.has("device") {
        true => Pattern::read(section, "device"),
        false => {
            section.ignore("device");
            Some(Pattern::any())
        }
    };
    let has_metric = section.has("metric");
    let metric = Pattern::read(section, "metric");
    if !has_metric {
        section.wrong("metric", "is missing: which metric holds the samples?");
    }
    let (least, default, most) = VIBRATION_WINDOW;
    let window = section.within("window", (least, most), default);
    let bands_hz = section.read("bands_hz", bands);
    let shaft_hz = section.read("shaft_hz", |hz: f64| match hz > 0.0 && hz <= RATE_HZ_MAX {
        true => Ok(hz),
        false => Err(format!("is {hz}; expected above 0, at most {RATE_HZ_MAX}")),
    });
    let has_bearing = section.has("bearing");
    let bearing = bearing(&mut section.section("bearing"), has_bearing);
    let has_envelope = section.has("envelope_hz");
    let envelope_hz = section.read("envelope_hz", |hz: Vec<f64>| match *hz {
        [from, to] if from >= 0.0 && from < to => Ok((from, to)),
        _ => Err("is no band: expected two frequencies, the lower one first".to_owned()),
    });
    if has_bearing && !section.was_read("shaft_hz") {
        section.wrong(
            "shaft_hz",
            "is missing: with a bearing, how often does its shaft turn a second?",
        );
    } else if has_envelope && !has_bearing {
        section.wrong("envelope_hz", "has no meaning without `bearing`");
    }
    let mut spec = Spec {
        device: device?,
        metric: metric?,
        window: window as usize,
        bands_hz: bands_hz.unwrap_or_default(),
        shaft_hz,
        bearing,
        envelope_hz,
        names: Arc::new([]),
        text: String::new(),
    };
    spec.names = names(&spec);
    spec.text = text(&spec);
    Some(spec)
}

fn bands(edges: Vec<f64>) -> Result<Vec<f64>, String> {
    let ascend = edges.windows(2).all(|two| match two {
        [a, b] => a < b,
        _ => true,
    });
    let count = edges.len().saturating_sub(1);
    let fits = (1..=VIBRATION_BANDS_MAX).contains(&count);
    match ascend && fits && edges.iter().all(|edge| *edge >= 0.0) {
        true => Ok(edges),
        false => Err(format!(
            "is no row of bands: expected 2 to {} frequencies, ascending: each band goes from one \
             to the next",
            VIBRATION_BANDS_MAX + 1
        )),
    }
}

fn bearing(section: &mut Section, is_there: bool) -> Option<Bearing> {
    let mut positive = |key: &'static str| {
        let given = section.has(key);
        let read = section.read(key, |value: f64| match value > 0.0 {
            true => Ok(value),
            false => Err(format!("is {value}; expected above 0")),
        });
        if is_there && !given {
            section.wrong(key, "is missing");
        }
        read
    };
    let (element_mm, pitch_mm) = (positive("element_mm"), positive("pitch_mm"));
    let given = section.has("elements");
    let elements = section.read("elements", |count: u64| match count {
        1..=BEARING_ELEMENTS_MAX => Ok(count as u32),
        _ => Err(format!("is {count}; expected 1 to {BEARING_ELEMENTS_MAX}")),
    });
    if is_there && !given {
        section.wrong("elements", "is missing: how many balls or rollers?");
    }
    let angle = section.read("angle_deg", |angle: f64| {
        match (0.0..90.0).contains(&angle) {
            true => Ok(angle),
            false => Err(format!("is {angle}; expected 0 to less than 90 degrees")),
        }
    });
    let bearing = Bearing {
        elements: elements?,
        element_mm: element_mm?,
        pitch_mm: pitch_mm?,
        angle_deg: angle.unwrap_or(0.0),
    };
    if bearing.element_mm >= bearing.pitch_mm {
        section.wrong(
            "element_mm",
            format!(
                "is {}, not less than `pitch_mm`, the diameter on which the elements run",
                bearing.element_mm
            ),
        );
        return None;
    }
    Some(bearing)
}

fn names(spec: &Spec) -> Arc<[Box<str>]> {
    let bands = match spec.bands_hz.len() {
        0 => OCTAVE_GROUPS,
        edges => edges - 1,
    };
    let mut names: Vec<Box<str>> = ALWAYS.map(Into::into).to_vec();
    names.extend((1..=bands).map(|band| format!("band_{band}").into()));
    if spec.shaft_hz.is_some() {
        names.extend((1..=SHAFT_HARMONICS).map(|n| format!("shaft_{n}x").into()));
    }
    if spec.bearing.is_some() {
        names.extend(["bpfo", "bpfi", "bsf", "ftf"].map(Into::into));
    }
    names.into()
}

fn text(spec: &Spec) -> String {
    let mut out = String::from("[[detect.vibration]]\n");
    let quoted = |text: &str| {
        let json = serde_json::Value::from(text).to_string();
        json.replace('\u{7f}', "\\u007f")
    };
    let mut put = |key: &str, value: String| {
        writeln!(out, "{key} = {value}").expect("a String takes any text");
    };
    put("device", quoted(spec.device.text()));
    put("metric", quoted(spec.metric.text()));
    put("window", spec.window.to_string());
    if !spec.bands_hz.is_empty() {
        put("bands_hz", format!("{:?}", spec.bands_hz));
    }
    if let Some(shaft_hz) = spec.shaft_hz {
        put("shaft_hz", format!("{shaft_hz:?}"));
    }
    if let Some((from, to)) = spec.envelope_hz {
        put("envelope_hz", format!("[{from:?}, {to:?}]"));
    }
    if let Some(bearing) = &spec.bearing {
        let Bearing {
            elements,
            element_mm,
            pitch_mm,
            angle_deg,
        } = bearing;
        let inline = format!(
            "{{ elements = {elements}, element_mm = {element_mm:?}, pitch_mm = {pitch_mm:?}, \
             angle_deg = {angle_deg:?} }}"
        );
        put("bearing", inline);
    }
    out
}
